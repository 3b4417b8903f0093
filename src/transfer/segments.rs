//! Which parts of a file are still to be moved, shared out among its streams.
//!
//! A stream claims a range. When nothing is left to claim, an idle stream takes the second half of what the slowest
//! other one still has to do, so that all end at the same time. Borders are those of blocks, so that each block is
//! digested by one stream.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is left of a range is shared only if it would take at least so long, besides the trips of a new stream.
const WORTH_SHARING: Duration = Duration::from_millis(400);
/// Trips that a new stream takes until its first byte.
const TRIPS: u32 = 4;

/// The map of one file.
#[derive(Debug)]
pub(super) struct Segments {
    block: u64,
    round_trip: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Range<u64>>,
    claims: Vec<Arc<Mutex<Progress>>>,
}

#[derive(Debug)]
struct Progress {
    position: u64,
    end: u64,
    start: u64,
    since: Instant,
}

/// One stream's range; its end may come nearer while it is worked on.
#[derive(Debug)]
pub(super) struct Claim {
    progress: Arc<Mutex<Progress>>,
    start: u64,
}

impl Segments {
    /// Starts with the ranges that are missing, in order. `block` aligns the borders; 0: the ranges stay whole.
    pub(super) fn new(missing: Vec<Range<u64>>, block: u64, round_trip: Duration) -> Self {
        let free = missing.into_iter().rev().collect();
        Self { block, round_trip, state: Mutex::new(State { free, claims: Vec::new() }) }
    }

    /// Returns a range to work on: the first one free, or a part of another stream's; `None` when it isn't worth it.
    pub(super) fn claim(&self) -> Option<Claim> {
        let mut state = self.state();
        let range = match state.free.pop() {
            Some(range) => range,
            None => self.share(&state)?,
        };
        let claim = Claim::of(range);
        state.claims.push(Arc::clone(&claim.progress));
        Some(claim)
    }

    /// Takes a claim back, with what is left of it for others.
    pub(super) fn end(&self, claim: &Claim) {
        let mut state = self.state();
        state.claims.retain(|other| !Arc::ptr_eq(other, &claim.progress));
        let progress = lock(&claim.progress);
        if progress.position < progress.end {
            state.free.push(progress.position..progress.end);
        }
    }

    /// Ends a claim at the next border of a block, with the rest for others.
    pub(super) fn cut_short(&self, claim: &Claim) {
        if self.block == 0 {
            return;
        }
        let mut state = self.state();
        let mut progress = lock(&claim.progress);
        let border = progress.position.div_ceil(self.block) * self.block;
        if border < progress.end {
            state.free.push(border..progress.end);
            progress.end = border;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the second half off the claim that would end last.
    fn share(&self, state: &State) -> Option<Range<u64>> {
        let slowest = state.claims.iter().max_by_key(|claim| lock(claim).left())?;
        let mut slowest = lock(slowest);
        if self.block == 0 || slowest.left() < WORTH_SHARING + self.round_trip * TRIPS {
            return None;
        }
        let middle = slowest.position + (slowest.end - slowest.position) / 2;
        let middle = middle.div_ceil(self.block) * self.block;
        let range = middle..slowest.end;
        if range.is_empty() {
            return None;
        }
        slowest.end = middle;
        Some(range)
    }
}

impl Progress {
    /// Returns how long the rest will take at the pace so far; long if there is none yet.
    fn left(&self) -> Duration {
        let (done, left) = (self.position - self.start, self.end - self.position);
        if done == 0 {
            // At a megabyte a second: only their order and a lower bound matter.
            return Duration::from_micros(left);
        }
        self.since.elapsed().mul_f64(left as f64 / done as f64)
    }
}

impl Claim {
    /// Claims a range that nobody shares.
    pub(super) fn of(range: Range<u64>) -> Self {
        let Range { start, end } = range;
        let progress = Progress { position: start, end, start, since: Instant::now() };
        Self { progress: Arc::new(Mutex::new(progress)), start }
    }

    /// Returns the offset of its first byte.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Returns where it ends now.
    pub(super) fn end(&self) -> u64 {
        lock(&self.progress).end
    }

    /// Notes that up to `wanted` bytes are moved; returns how many of them still belong to the claim.
    pub(super) fn advance(&self, wanted: u64) -> u64 {
        let mut progress = lock(&self.progress);
        let taken = wanted.min(progress.end - progress.position);
        progress.position += taken;
        taken
    }

    /// Returns whether all of it was moved.
    pub(super) fn is_done(&self) -> bool {
        let progress = lock(&self.progress);
        progress.position >= progress.end
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn streams_share_a_file_in_halves_at_borders() {
        let segments = Segments::new(std::iter::once(0..100 * MIB + 5).collect(), MIB, Duration::ZERO);
        let first = segments.claim().unwrap();
        let second = segments.claim().unwrap();
        let third = segments.claim().unwrap();
        assert_eq!((first.start(), second.start()), (0, 51 * MIB));
        assert!(third.start().is_multiple_of(MIB) && third.start() > 0);
        assert_eq!([first.end(), second.end(), third.end()].into_iter().max(), Some(100 * MIB + 5));
    }

    #[test]
    fn what_a_stream_leaves_goes_to_the_next() {
        let segments = Segments::new(std::iter::once(0..8 * MIB).collect(), MIB, Duration::ZERO);
        let first = segments.claim().unwrap();
        first.advance(MIB + 7);
        segments.cut_short(&first);
        assert_eq!(first.end(), 2 * MIB);
        let rest = segments.claim().unwrap();
        assert_eq!((rest.start(), rest.end()), (2 * MIB, 8 * MIB));
        segments.end(&rest);
        assert_eq!(segments.claim().unwrap().start(), 2 * MIB);
    }

    #[test]
    fn little_is_not_worth_sharing() {
        let segments = Segments::new(std::iter::once(0..2 * MIB).collect(), MIB, Duration::from_secs(1));
        let _first = segments.claim().unwrap();
        assert!(segments.claim().is_none());
    }

    proptest! {
        /// Whatever streams come, go, share and give up: every byte is moved exactly once.
        #[test]
        fn every_byte_once(steps in prop::collection::vec((0usize..6, 0u8..4, 1u64..3_000_000), 1..200)) {
            let size = 40 * MIB + 123;
            let segments = Segments::new(vec![0..10 * MIB, 12 * MIB..size], MIB, Duration::ZERO);
            let mut moved = vec![(10 * MIB, 12 * MIB)];
            let mut claims: Vec<Option<(Claim, u64)>> = (0..6).map(|_| None).collect();
            let mut step = |slot: &mut Option<(Claim, u64)>, what: u8, bytes: u64| {
                match (slot.take(), what) {
                    (None, _) => *slot = segments.claim().map(|claim| { let at = claim.start(); (claim, at) }),
                    (Some((claim, at)), 0) => { segments.cut_short(&claim); *slot = Some((claim, at)); }
                    (Some((claim, _)), 1) => segments.end(&claim),
                    (Some((claim, at)), _) => {
                        let taken = claim.advance(bytes);
                        moved.push((at, at + taken));
                        if claim.is_done() { segments.end(&claim) } else { *slot = Some((claim, at + taken)) }
                    }
                }
            };
            for (slot, what, bytes) in steps {
                step(&mut claims[slot], what, bytes);
            }
            for round in 0..1000 {
                let _ = round;
                for slot in &mut claims {
                    step(slot, 2, u64::MAX / 4);
                }
            }
            moved.retain(|(from, to)| from < to);
            moved.sort_unstable();
            prop_assert_eq!(moved.first().map(|range| range.0), Some(0));
            prop_assert!(moved.windows(2).all(|pair| pair[0].1 == pair[1].0), "gap or overlap: {:?}", moved);
            prop_assert_eq!(moved.last().map(|range| range.1), Some(size));
        }
    }
}

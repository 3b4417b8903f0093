//! Which parts of a file are still to be moved, shared out among its streams.
//!
//! A stream claims a range. When nothing is left to claim, an idle stream takes over a part of what the slowest other
//! one still has to do, so that both end at the same time. Borders are those of blocks, so that each block is digested
//! by one stream.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is left of a range is shared only if it would take at least so long, besides what a new stream takes to start.
const WORTH_SHARING: Duration = Duration::from_millis(400);
/// The pace of a stream is measured anew after so long.
const PACE: Duration = Duration::from_millis(250);

/// The map of one file.
#[derive(Debug)]
pub(super) struct Segments {
    block: u64,
    start_up: Duration,
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
    /// Bytes a second, lately.
    pace: Option<f64>,
    /// Since when, and from where on, it is measured.
    since: (Instant, u64),
}

/// One stream's range; its end may come nearer while it is worked on.
#[derive(Debug)]
pub(super) struct Claim {
    progress: Arc<Mutex<Progress>>,
    start: u64,
}

impl Segments {
    /// Starts with the ranges that are missing, in order. `block` aligns the borders; 0: the ranges stay whole. A new
    /// stream needs the time `start_up` until it is as fast as the others.
    pub(super) fn new(missing: Vec<Range<u64>>, block: u64, start_up: Duration) -> Self {
        let free = missing.into_iter().rev().collect();
        Self { block, start_up, state: Mutex::new(State { free, claims: Vec::new() }) }
    }

    /// Returns a range to work on: the first one free, or a part of another stream's; `None` when it isn't worth it.
    /// `idle` streams, with the one that asks, have nothing to do.
    pub(super) fn claim(&self, idle: usize) -> Option<Claim> {
        let mut state = self.state();
        let range = match state.free.pop() {
            Some(range) => range,
            None => self.share(&state, idle)?,
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

    /// Takes a part off the claim that would end last: so much that it would end with the new one, were that shared
    /// equally with the other idle ones.
    fn share(&self, state: &State, idle: usize) -> Option<Range<u64>> {
        let slowest = state.claims.iter().max_by_key(|claim| lock(claim).left())?;
        let mut slowest = lock(slowest);
        let left = slowest.left();
        if self.block == 0 || left < WORTH_SHARING + self.start_up {
            return None;
        }
        // While the new one starts, the old one goes on.
        let shared = 1.0 - self.start_up.as_secs_f64() / left.as_secs_f64();
        let part = (slowest.end - slowest.position) as f64 * shared / (idle + 1) as f64;
        let middle = (slowest.end - part as u64).div_ceil(self.block) * self.block;
        let range = middle..slowest.end;
        if range.is_empty() {
            return None;
        }
        slowest.end = middle;
        Some(range)
    }
}

impl Progress {
    /// Returns how long the rest will take at the latest pace; long if there is none yet.
    fn left(&self) -> Duration {
        // A megabyte a second: only their order and a lower bound matter.
        let pace = self.pace.or_else(|| self.measured(Instant::now())).unwrap_or(1e6);
        Duration::from_secs_f64((self.end - self.position) as f64 / pace)
    }

    fn measured(&self, now: Instant) -> Option<f64> {
        let (since, from) = self.since;
        let (took, moved) = (now.saturating_duration_since(since), self.position - from);
        (moved > 0 && !took.is_zero()).then(|| moved as f64 / took.as_secs_f64())
    }
}

impl Claim {
    /// Claims a range that nobody shares.
    pub(super) fn of(range: Range<u64>) -> Self {
        let Range { start, end } = range;
        let progress = Progress { position: start, end, pace: None, since: (Instant::now(), start) };
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
        let now = Instant::now();
        if now.saturating_duration_since(progress.since.0) >= PACE {
            progress.pace = progress.measured(now).or(progress.pace);
            progress.since = (now, progress.position);
        }
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
    fn streams_that_come_together_share_equally() {
        let segments = Segments::new(std::iter::once(0..100 * MIB).collect(), MIB, Duration::ZERO);
        let mut claims = vec![segments.claim(1).unwrap()];
        for idle in [3, 2, 1] {
            claims.push(segments.claim(idle).unwrap());
        }
        let lengths: Vec<_> = claims.iter().map(|claim| (claim.end() - claim.start()) / MIB).collect();
        assert_eq!(lengths, [25; 4]);
    }

    #[test]
    fn a_new_stream_gets_less_the_longer_it_takes_to_start() {
        // At a megabyte a second, as long as nothing is measured.
        let segments = Segments::new(std::iter::once(0..100 * MIB).collect(), MIB, Duration::from_secs(50));
        let first = segments.claim(1).unwrap();
        let second = segments.claim(1).unwrap();
        let later = (first.end() - second.end().abs_diff(second.start())) / MIB;
        assert!((46..=50).contains(&later), "{later}");
    }

    #[test]
    fn streams_share_a_file_in_halves_at_borders() {
        let segments = Segments::new(std::iter::once(0..100 * MIB + 5).collect(), MIB, Duration::ZERO);
        let first = segments.claim(1).unwrap();
        let second = segments.claim(1).unwrap();
        let third = segments.claim(1).unwrap();
        assert_eq!((first.start(), second.start()), (0, 51 * MIB));
        assert!(third.start().is_multiple_of(MIB) && third.start() > 0);
        assert_eq!([first.end(), second.end(), third.end()].into_iter().max(), Some(100 * MIB + 5));
    }

    #[test]
    fn what_a_stream_leaves_goes_to_the_next() {
        let segments = Segments::new(std::iter::once(0..8 * MIB).collect(), MIB, Duration::ZERO);
        let first = segments.claim(1).unwrap();
        first.advance(MIB + 7);
        segments.cut_short(&first);
        assert_eq!(first.end(), 2 * MIB);
        let rest = segments.claim(1).unwrap();
        assert_eq!((rest.start(), rest.end()), (2 * MIB, 8 * MIB));
        segments.end(&rest);
        assert_eq!(segments.claim(1).unwrap().start(), 2 * MIB);
    }

    #[test]
    fn little_is_not_worth_sharing() {
        let segments = Segments::new(std::iter::once(0..2 * MIB).collect(), MIB, Duration::from_secs(1));
        let _first = segments.claim(1).unwrap();
        assert!(segments.claim(1).is_none());
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
                    (None, _) => *slot = segments.claim(1).map(|claim| { let at = claim.start(); (claim, at) }),
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

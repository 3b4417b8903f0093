//! The rate limit, shared by all transfers that hold it, and how many bytes may be moved at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Zoned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::timetable::Timetable;

/// How far behind its schedule a transfer may catch up at once: hides the scheduler's jitter, not a burst.
const SLACK: Duration = Duration::from_millis(50);
/// A limited transfer is cut into so many pieces a second.
const PIECES_PER_SECOND: u64 = 20;
/// How often the clock on the wall is looked at, at least: it may be set, and the machine may sleep.
const LOOK: Duration = Duration::from_secs(60);

/// Lets bytes through at a given rate, over everybody who holds a copy of it.
#[derive(Debug, Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Whether there is anything to look up: without a limit nobody waits for the lock.
    is_limit: AtomicBool,
    /// Goes up with each new rate: who waits then asks again.
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    timetable: Timetable,
    rate: Option<u64>,
    /// When the timetable is looked into again.
    look: Option<Instant>,
    /// When the next byte may pass.
    next: Instant,
    version: u64,
}

/// When somebody may go on.
#[derive(Debug, Clone, Copy)]
struct Slot {
    start: Instant,
    look: Option<Instant>,
    version: u64,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Limiter {
    /// Lets so many bytes a second through; `None` lets all through.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self::of(Timetable::always(bytes_per_second.filter(|&rate| rate > 0)))
    }

    /// Lets through what a timetable says, by the clock and in the time zone of this machine.
    pub fn of(timetable: Timetable) -> Self {
        let is_limit = AtomicBool::new(timetable.is_limit());
        let mut state = State { timetable, rate: None, look: None, next: Instant::now(), version: 0 };
        state.look_up(Instant::now(), &Zoned::now());
        Self { shared: Arc::new(Shared { state: Mutex::new(state), is_limit, version: watch::Sender::new(0) }) }
    }

    /// Sets another timetable, for what is under way as well.
    pub fn set(&self, timetable: Timetable) {
        self.shared.is_limit.store(timetable.is_limit(), Ordering::Relaxed);
        let mut state = self.state();
        state.timetable = timetable;
        state.look_up(Instant::now(), &Zoned::now());
        state.change(Instant::now());
        self.tell(&state);
    }

    /// Returns how many bytes a second may pass now; `None` is no limit.
    pub fn rate(&self) -> Option<u64> {
        if !self.shared.is_limit.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state();
        self.look_if_due(&mut state, Instant::now());
        state.rate
    }

    /// Waits until `bytes` may pass.
    pub async fn take(&self, bytes: usize) {
        while let Some(mut slot) = self.reserve(bytes) {
            let mut versions = self.shared.version.subscribe();
            while self.is_current(slot) {
                tokio::select! {
                    () = sleep_until(slot.look.map_or(slot.start, |look| look.min(slot.start))) => {}
                    _ = versions.wait_for(|&version| version != slot.version) => break,
                }
                let now = Instant::now();
                if now >= slot.start {
                    return;
                }
                slot.look = self.look(now);
            }
        }
    }

    /// Returns how many bytes to ask for at once, so that a limited transfer flows instead of jumping.
    pub(super) fn piece(&self) -> usize {
        self.rate().map_or(usize::MAX, |rate| (rate / PIECES_PER_SECOND).clamp(1024, 256 * 1024) as usize)
    }

    fn reserve(&self, bytes: usize) -> Option<Slot> {
        if !self.shared.is_limit.load(Ordering::Relaxed) {
            return None;
        }
        let now = Instant::now();
        let mut state = self.state();
        self.look_if_due(&mut state, now);
        let start = state.schedule(bytes, now)?;
        Some(Slot { start, look: state.look, version: state.version })
    }

    fn is_current(&self, slot: Slot) -> bool {
        self.state().version == slot.version
    }

    fn look(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        self.look_if_due(&mut state, now);
        state.look
    }

    fn look_if_due(&self, state: &mut State, now: Instant) {
        if state.look.is_some_and(|look| now >= look) && state.look_up(now, &Zoned::now()) {
            state.change(now);
            self.tell(state);
        }
    }

    fn tell(&self, state: &State) {
        self.shared.version.send_replace(state.version);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Looks what the timetable says at a time, and returns whether that is another rate than before.
    fn look_up(&mut self, now: Instant, wall: &Zoned) -> bool {
        let rate = self.timetable.at(wall).map(|rate| rate.max(1));
        self.look = self.timetable.next(wall).map(|next| {
            let left = Duration::try_from(next.duration_since(wall.timestamp())).unwrap_or_default();
            now + left.min(LOOK)
        });
        std::mem::replace(&mut self.rate, rate) != rate
    }

    /// Who waits, waits no more for what it was told: all are scheduled anew.
    fn change(&mut self, now: Instant) {
        self.next = now;
        self.version += 1;
    }

    /// Returns when `bytes` may pass, and counts them.
    fn schedule(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let rate = self.rate?;
        let start = self.next.max(now.checked_sub(SLACK).unwrap_or(now));
        self.next = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        Some(start)
    }
}

/// How many bytes may be moved, over everybody who holds a copy of it.
#[derive(Debug, Clone, Default)]
pub struct Allowance {
    limited: Option<Arc<Limited>>,
}

#[derive(Debug)]
struct Limited {
    left: AtomicU64,
    used_up: AtomicBool,
    stop: CancellationToken,
}

impl Allowance {
    /// Lets so many bytes through and cancels `stop` with the first byte more: a run that it belongs to ends in order, with
    /// what is in flight.
    pub fn new(bytes: u64, stop: CancellationToken) -> Self {
        let limited = Limited { left: AtomicU64::new(bytes), used_up: AtomicBool::new(false), stop };
        Self { limited: Some(Arc::new(limited)) }
    }

    /// Returns whether there were more bytes to move than that.
    pub fn is_used_up(&self) -> bool {
        self.limited.as_ref().is_some_and(|limited| limited.used_up.load(Ordering::Relaxed))
    }

    /// Counts bytes that were moved.
    pub fn take(&self, bytes: u64) {
        let Some(limited) = &self.limited else { return };
        let take = |left: u64| left.checked_sub(bytes);
        if limited.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            limited.left.store(0, Ordering::Relaxed);
            limited.used_up.store(true, Ordering::Relaxed);
            limited.stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn state(rate: u64) -> (State, Instant) {
        let begin = Instant::now();
        let timetable = Timetable::always(Some(rate));
        (State { timetable, rate: Some(rate), look: None, next: begin, version: 0 }, begin)
    }

    /// Runs streams on a clock of its own, each of which takes its next piece once the last has passed and `latency` is
    /// over; returns the bytes that passed in this time.
    fn passed(streams: u32, rate: u64, piece: usize, latency: Duration, time: Duration) -> u64 {
        let (mut state, begin) = state(rate);
        let mut wakes: BTreeSet<(Instant, u32)> = (0..streams).map(|stream| (begin, stream)).collect();
        let mut bytes = 0;
        while let Some((now, stream)) = wakes.pop_first() {
            let start = state.schedule(piece, now).unwrap().max(now);
            if start >= begin + time {
                continue;
            }
            bytes += piece as u64;
            wakes.insert((start + latency, stream));
        }
        bytes
    }

    #[test]
    fn the_rate_holds_over_ten_seconds_with_any_number_of_streams() {
        for rate in [50_000, 1_000_000, 100_000_000] {
            let piece = Limiter::new(Some(rate)).piece();
            for streams in [1, 2, 7, 64] {
                // Streams that lose a moment with each piece, as real ones do.
                for latency in [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(40)] {
                    let could = f64::from(streams) * 10.0 * piece as f64 / latency.as_secs_f64();
                    if could < 10.0 * rate as f64 {
                        continue;
                    }
                    let bytes = passed(streams, rate, piece, latency, Duration::from_secs(10));
                    let share = bytes as f64 / (rate as f64 * 10.0);
                    assert!((share - 1.0).abs() < 0.05, "{share} of {rate} with {streams} streams, {latency:?}");
                }
            }
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let (mut state, begin) = state(1_000_000);
        let later = begin + Duration::from_secs(60);
        state.schedule(1_000_000, later);
        assert!(state.schedule(1, later).unwrap() > later + Duration::from_millis(900));
    }

    #[test]
    fn a_new_rate_counts_at_once() {
        let (mut state, begin) = state(1000);
        state.schedule(60_000, begin);
        assert!(state.schedule(1, begin).unwrap() > begin + Duration::from_secs(50));
        state.timetable = Timetable::always(Some(2000));
        assert!(state.look_up(begin, &Zoned::now()));
        state.change(begin);
        state.schedule(2000, begin);
        assert_eq!(state.schedule(1, begin), Some(begin + Duration::from_secs(1)));
    }

    #[test]
    fn a_timetable_is_looked_into_when_it_says_something_else() {
        let timetable = Timetable::parse("08:00 2, 18:00 off", |word| word.parse().map_err(|_| String::new())).unwrap();
        let begin = Instant::now();
        let mut state = State { timetable, rate: None, look: None, next: begin, version: 0 };
        let wall = |text: &str| text.parse::<Zoned>().unwrap();
        assert!(state.look_up(begin, &wall("2026-11-22T17:59:50[UTC]")));
        assert_eq!((state.rate, state.look), (Some(2), Some(begin + Duration::from_secs(10))));
        assert!(state.look_up(begin, &wall("2026-11-22T18:00[UTC]")));
        // The clock may be set in the meantime.
        assert_eq!((state.rate, state.look), (None, Some(begin + LOOK)));
        assert!(!state.look_up(begin, &wall("2026-11-22T18:01[UTC]")));
    }

    #[tokio::test]
    async fn who_waits_hears_of_a_new_rate() {
        let limiter = Limiter::new(Some(1));
        limiter.take(1_000_000).await;
        let waiting = {
            let limiter = limiter.clone();
            // For eleven days.
            tokio::spawn(async move { limiter.take(1).await })
        };
        tokio::task::yield_now().await;
        limiter.set(Timetable::always(None));
        waiting.await.unwrap();
        assert_eq!((limiter.rate(), limiter.piece()), (None, usize::MAX));
    }

    #[test]
    fn no_limit_never_waits() {
        assert!(Limiter::new(None).reserve(usize::MAX).is_none());
        assert!(Limiter::new(Some(0)).reserve(usize::MAX).is_none());
    }

    #[test]
    fn an_allowance_stops_with_the_first_byte_more() {
        let stop = CancellationToken::new();
        let allowance = Allowance::new(10, stop.clone());
        let other = allowance.clone();
        allowance.take(4);
        other.take(6);
        assert!(!stop.is_cancelled() && !allowance.is_used_up(), "all that was to be moved may be moved");
        other.take(1);
        assert!(stop.is_cancelled() && allowance.is_used_up());
        Allowance::default().take(u64::MAX);
    }
}

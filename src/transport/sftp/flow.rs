//! How much may be under way on one channel: twice what the link brings in a round trip.
//!
//! More would only wait somewhere, and where it waits it costs: OpenSSH's server copies all that waits in it whenever
//! more is added. Less, and the link would idle.

use std::time::{Duration, Instant};

/// Bytes under way before anything is known, and at least: enough to keep a fast server near by busy.
const FIRST: usize = 1 << 20;
/// The most bytes under way.
const MOST: usize = 16 << 20;
/// How many times the bytes of a round trip may be under way: it doubles with each trip while the link can take more.
const GAIN: f64 = 2.0;
/// For how long a rate counts.
const RATE_COUNTS: Duration = Duration::from_secs(2);
/// For how long a round trip counts.
const TRIP_COUNTS: Duration = Duration::from_secs(10);

/// Measures what a channel delivers.
#[derive(Debug)]
pub(super) struct Flow {
    delivered: u64,
    rate: Best<f64>,
    trip: Best<Duration>,
}

/// What is noted about a request as it is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    at: Instant,
    delivered: u64,
}

impl Flow {
    pub(super) fn new(now: Instant) -> Self {
        Self { delivered: 0, rate: Best::new(now, RATE_COUNTS), trip: Best::new(now, TRIP_COUNTS) }
    }

    /// A request is made.
    pub(super) fn mark(&self, now: Instant) -> Mark {
        Mark { at: now, delivered: self.delivered }
    }

    /// An answer came that stands for so many bytes of a file, read or written.
    pub(super) fn delivered(&mut self, mark: Mark, bytes: usize, now: Instant) {
        let took = now.saturating_duration_since(mark.at);
        self.trip.offer(took, now, |new, old| new < old);
        if bytes == 0 {
            return;
        }
        self.delivered += bytes as u64;
        let rate = (self.delivered - mark.delivered) as f64 / took.as_secs_f64().max(1e-6);
        self.rate.offer(rate, now, |new, old| new > old);
    }

    /// Returns how many bytes may be under way.
    pub(super) fn window(&self) -> usize {
        let trip = self.trip.get().unwrap_or_default().as_secs_f64();
        let window = self.rate() * trip * GAIN;
        (window as usize).clamp(FIRST, MOST)
    }

    /// Returns how many bytes a second were delivered lately, at best; 0 while unknown.
    pub(super) fn rate(&self) -> f64 {
        self.rate.get().unwrap_or_default()
    }

    /// Returns the shortest time that an answer took lately.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.trip.get()
    }
}

/// The best of what was offered within a time: this period's and the last one's.
#[derive(Debug)]
struct Best<T> {
    period: Duration,
    since: Instant,
    now: Option<T>,
    before: Option<T>,
    chosen: Option<T>,
}

impl<T: Copy> Best<T> {
    fn new(now: Instant, period: Duration) -> Self {
        Self { period, since: now, now: None, before: None, chosen: None }
    }

    fn offer(&mut self, new: T, at: Instant, is_better: impl Fn(T, T) -> bool) {
        if at.saturating_duration_since(self.since) >= self.period {
            (self.since, self.before, self.now) = (at, self.now, None);
            self.chosen = self.before;
        }
        if self.now.is_none_or(|old| is_better(new, old)) {
            self.now = Some(new);
        }
        if self.chosen.is_none_or(|old| is_better(new, old)) {
            self.chosen = Some(new);
        }
    }

    fn get(&self) -> Option<T> {
        self.chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const BLOCK: usize = 255 * 1024;

    /// Runs reads over a link with this round trip and rate, and returns the window at the end.
    fn window_on(trip: Duration, bytes_per_second: f64, seconds: f64) -> usize {
        let start = Instant::now();
        let mut flow = Flow::new(start);
        flow.delivered(flow.mark(start), 0, start + trip);
        let mut now = start + trip;
        let mut link_free = now;
        let mut under_way = std::collections::VecDeque::new();
        while now < start + Duration::from_secs_f64(seconds) {
            while (under_way.len() + 1) * BLOCK <= flow.window() {
                link_free = link_free.max(now + trip / 2) + Duration::from_secs_f64(BLOCK as f64 / bytes_per_second);
                under_way.push_back((flow.mark(now), link_free + trip / 2));
            }
            let (mark, arrives) = under_way.pop_front().unwrap();
            now = now.max(arrives);
            flow.delivered(mark, BLOCK, now);
        }
        flow.window()
    }

    #[test]
    fn the_window_is_twice_what_a_round_trip_brings() {
        let window = window_on(50 * MS, 100e6, 3.0);
        assert!((9_000_000..12_000_000).contains(&window), "{window}");
        let near = window_on(MS / 10, 600e6, 1.0);
        assert_eq!(near, FIRST);
        let endless = window_on(200 * MS, 1e9, 5.0);
        assert_eq!(endless, MOST);
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let start = Instant::now();
        let mut flow = Flow::new(start);
        flow.delivered(flow.mark(start), 0, start + MS);
        let mut now = start;
        for _ in 0..30 {
            now += Duration::from_secs(1);
            flow.delivered(flow.mark(now), 1, now + 40 * MS);
        }
        assert_eq!(flow.round_trip(), Some(40 * MS));
    }
}

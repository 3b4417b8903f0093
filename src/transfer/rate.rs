//! The rate limit, shared by all transfers of a run.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How far behind its schedule a transfer may catch up at once: hides the scheduler's jitter, not a burst.
const SLACK: Duration = Duration::from_millis(50);
/// A limited transfer is cut into so many pieces a second.
const PIECES_PER_SECOND: u64 = 20;

/// Lets bytes through at a given rate, over everybody who holds it.
#[derive(Debug)]
pub(super) struct Limiter {
    bytes_per_second: Option<u64>,
    next: Mutex<Instant>,
}

impl Limiter {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.filter(|&rate| rate > 0), next: Mutex::new(Instant::now()) }
    }

    /// Returns how many bytes to ask for at once, so that a limited transfer flows instead of jumping.
    pub(super) fn piece(&self) -> usize {
        self.bytes_per_second.map_or(usize::MAX, |rate| (rate / PIECES_PER_SECOND).clamp(1024, 256 * 1024) as usize)
    }

    /// Waits until `bytes` may pass.
    pub(super) async fn take(&self, bytes: usize) {
        if let Some(start) = self.schedule(bytes, Instant::now()) {
            sleep_until(start).await;
        }
    }

    /// Returns when `bytes` may pass, and counts them.
    fn schedule(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let rate = self.bytes_per_second?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*next).max(now.checked_sub(SLACK).unwrap_or(now));
        *next = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_rate_over_all_who_share_it() {
        let limiter = Limiter::new(Some(1_000_000));
        let begin = Instant::now();
        let (mut now, mut bytes) = (begin, 0);
        while now < begin + Duration::from_secs(10) {
            bytes += limiter.piece();
            now = now.max(limiter.schedule(limiter.piece(), now).unwrap());
        }
        assert!((bytes as f64 / 10_000_000.0 - 1.0).abs() < 0.05, "{bytes} bytes in ten seconds");
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let limiter = Limiter::new(Some(1_000_000));
        let later = Instant::now() + Duration::from_secs(60);
        limiter.schedule(1_000_000, later);
        assert!(limiter.schedule(1, later).unwrap() > later + Duration::from_millis(900));
    }

    #[test]
    fn no_limit_never_waits() {
        assert!(Limiter::new(None).schedule(usize::MAX, Instant::now()).is_none());
    }
}

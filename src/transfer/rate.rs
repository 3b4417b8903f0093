//! The rate limit, shared by all transfers of a run.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How far behind its schedule a transfer may catch up at once: hides the scheduler's jitter, not a burst.
const SLACK: Duration = Duration::from_millis(50);
/// The largest piece that passes at once under a limit is what the limit allows in this time.
const PIECE: f64 = 0.05;

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
        self.bytes_per_second.map_or(usize::MAX, |rate| ((rate as f64 * PIECE) as usize).clamp(1024, 256 * 1024))
    }

    /// Waits until `bytes` may pass.
    pub(super) async fn take(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let now = Instant::now();
        let start = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*next).max(now.checked_sub(SLACK).unwrap_or(now));
            *next = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
            start
        };
        sleep_until(start).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn holds_the_rate_over_all_who_share_it() {
        let limiter = Limiter::new(Some(1_000_000));
        let start = Instant::now();
        let all = (0..4).map(|_| async {
            for _ in 0..50 {
                limiter.take(limiter.piece()).await;
            }
        });
        futures_util::future::join_all(all).await;
        let seconds = start.elapsed().as_secs_f64();
        let expected = 200.0 * limiter.piece() as f64 / 1_000_000.0;
        assert!((seconds / expected - 1.0).abs() < 0.05, "{seconds} for {expected}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_never_waits() {
        let start = Instant::now();
        Limiter::new(None).take(usize::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}

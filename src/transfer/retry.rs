//! When to try again, and how long to wait before.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind};

/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(500);

/// Counts the attempts of one job and decides about the next.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u32,
    retries: u32,
    longest: Duration,
    made: u32,
}

impl Budget {
    pub(crate) fn new(retries: u32, longest: Duration) -> Self {
        Self { left: retries, retries, longest, made: 0 }
    }

    /// Returns how long to wait before the next attempt, or `None` when `error` is final.
    ///
    /// An attempt that came further refills the budget: a long transfer over a bad link may break any number of times.
    /// A source that keeps changing doesn't count as progress.
    pub(crate) fn next(&mut self, error: &Error, progressed: bool) -> Option<Duration> {
        if !error.kind().is_retryable() {
            return None;
        }
        if progressed && error.kind() != ErrorKind::SourceChanged {
            self.left = self.retries;
        }
        self.left = self.left.checked_sub(1)?;
        self.made = self.retries - self.left;
        let wait = FIRST.saturating_mul(1 << (self.made - 1).min(16)).min(self.longest);
        Some(wait.mul_f64(jitter()))
    }

    /// Returns how many attempts in a row have failed.
    pub(super) fn made(&self) -> u32 {
        self.made
    }
}

/// Waits, unless cancelled; returns whether the wait ended by itself.
pub(super) async fn pause(wait: Duration, cancel: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => true,
        () = cancel.cancelled() => false,
    }
}

/// Between a half and one: keeps many clients from coming back at the same instant.
fn jitter() -> f64 {
    0.5 + f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX) / 2.0
}

/// Makes the error of what was ended by the user, or with the run.
pub(super) fn interrupted() -> Error {
    Error::new(ErrorKind::Cancelled, "interrupted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let mut budget = Budget::new(3, Duration::from_secs(60));
        let lost = Error::from(ErrorKind::ConnectionLost);
        let waits: Vec<_> = std::iter::from_fn(|| budget.next(&lost, false)).collect();
        assert_eq!(waits.len(), 3);
        for (wait, full) in waits.iter().zip([0.5, 1.0, 2.0]) {
            assert!((full / 2.0..=full).contains(&wait.as_secs_f64()), "{wait:?}");
        }
    }

    #[test]
    fn progress_refills_but_not_for_a_changing_source() {
        let mut budget = Budget::new(1, Duration::from_secs(1));
        for _ in 0..5 {
            assert!(budget.next(&ErrorKind::ConnectionLost.into(), true).is_some());
        }
        assert!(budget.next(&ErrorKind::SourceChanged.into(), true).is_none());
        assert!(budget.next(&ErrorKind::PermissionDenied.into(), true).is_none());
    }
}

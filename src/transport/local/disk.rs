//! Where calls to the file system run: on the asynchronous threads while the disk answers at once, beside them otherwise.
//!
//! A hand-over to another thread and back costs more than making a small file in the page cache does. A disk that takes
//! its time (a spinning or distant one, a full write cache) must not keep the network waiting, though.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::task::{JoinError, spawn_blocking};

/// Calls that take longer than this, in the mean of the last few, are handed over; in nanoseconds.
const AT_ONCE: u64 = 100_000;
/// What is assumed of a disk before it is known: a dozen quick calls convince.
const UNKNOWN: u64 = 1_000_000;
/// How many calls the mean looks back on.
const MEMORY: u64 = 8;

/// A disk as its recent calls show it; clones share what they know.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<AtomicU64>);

impl Default for Disk {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UNKNOWN)))
    }
}

impl Disk {
    /// Runs a short call; fails only if it panics beside the asynchronous threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        if self.answers_at_once() {
            return Ok(self.timed(call));
        }
        let disk = self.clone();
        spawn_blocking(move || disk.timed(call)).await
    }

    fn answers_at_once(&self) -> bool {
        self.0.load(Ordering::Relaxed) < AT_ONCE
    }

    fn timed<T>(&self, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let value = call();
        let mean = self.0.load(Ordering::Relaxed);
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // A call that another thread counts in between is lost: a mean bears that.
        self.0.store(mean - mean / MEMORY + took / MEMORY, Ordering::Relaxed);
        value
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{current, sleep};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_slow_disk_is_left_to_other_threads_until_it_is_quick_again() {
        let (disk, here) = (Disk::default(), current().id());
        let was_here = |thread| thread == here;
        assert!(!was_here(disk.run(|| current().id()).await.unwrap()), "nothing is known yet");
        let quick = async || {
            for _ in 0..1000 {
                if was_here(disk.run(|| current().id()).await.unwrap()) {
                    return true;
                }
            }
            false
        };
        assert!(quick().await);
        disk.run(|| sleep(Duration::from_millis(20))).await.unwrap();
        assert!(!was_here(disk.run(|| current().id()).await.unwrap()));
        assert!(quick().await);
    }
}

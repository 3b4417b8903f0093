//! The order in which requests run: one lane for paths, one for each open file; lanes run beside each other.
//!
//! Within a lane requests run as they came. A request on a path that looks at what open files hold (`STAT` behind a
//! `WRITE`) waits for the changes that came before it. Nothing here ever makes the SSH connection wait for its own
//! answers: the callback that takes packets only queues.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

/// Bytes of answers that may wait for the client, for all READs and listings together.
const ANSWERS: u32 = 16 << 20;
/// Requests of a lane that run without going back to the runtime.
const BATCH: usize = 16;
/// The most that one answer counts for, so that a batch always fits.
pub(super) const MAX_COST: u32 = ANSWERS / BATCH as u32 / 2;

/// What a request does, on a blocking thread. It is given room for its answer.
pub(super) type Run = Box<dyn FnOnce(Option<OwnedSemaphorePermit>) + Send>;

/// A request that waits for its turn.
pub(super) struct Job {
    pub(super) run: Run,
    /// Bytes that its answer may need.
    pub(super) cost: u32,
    /// Its mark, if it changes what an open file holds.
    pub(super) change: Option<u64>,
    /// Runs when no change with a mark below this is left.
    pub(super) after: Option<u64>,
    /// Bytes that it holds while it waits.
    pub(super) held: u64,
}

/// What the lanes of one SFTP session share.
pub(super) struct Shared {
    answers: Arc<Semaphore>,
    changes: Mutex<BTreeSet<u64>>,
    next_change: AtomicU64,
    queued: AtomicUsize,
    held: AtomicU64,
    progress: Notify,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            answers: Arc::new(Semaphore::new(ANSWERS as usize)),
            changes: Mutex::default(),
            next_change: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            progress: Notify::new(),
        }
    }

    /// Notes a change that is to come and returns its mark.
    pub(super) fn announce_change(&self) -> u64 {
        let mark = self.next_change.fetch_add(1, Ordering::Relaxed);
        self.marks().insert(mark);
        mark
    }

    /// Returns the mark that the next change will have: who waits for it waits for all before.
    pub(super) fn changes_so_far(&self) -> u64 {
        self.next_change.load(Ordering::Relaxed)
    }

    /// Returns how many requests wait or run, and how many bytes they hold.
    pub(super) fn load(&self) -> (usize, u64) {
        (self.queued.load(Ordering::Acquire), self.held.load(Ordering::Acquire))
    }

    /// Waits until requests hold no more bytes than `limit`.
    pub(super) async fn until_held_below(&self, limit: u64) {
        self.until(|| self.held.load(Ordering::Acquire) <= limit).await;
    }

    async fn until(&self, ready: impl Fn() -> bool) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if ready() {
                return;
            }
            progress.await;
        }
    }

    fn is_ready(&self, after: Option<u64>) -> bool {
        after.is_none_or(|mark| self.marks().first().is_none_or(|&first| first >= mark))
    }

    fn done(&self, change: Option<u64>, held: u64) {
        if let Some(mark) = change {
            self.marks().remove(&mark);
        }
        self.held.fetch_sub(held, Ordering::AcqRel);
        let was_last = self.queued.fetch_sub(1, Ordering::AcqRel) == 1;
        if change.is_some() || held > 0 || was_last {
            self.progress.notify_waiters();
        }
    }

    fn marks(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests that run one behind the other.
pub(super) struct Lane {
    shared: Arc<Shared>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    running: bool,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, queue: Mutex::default() })
    }

    /// Adds a request at the end.
    pub(super) fn push(self: &Arc<Self>, job: Job) {
        self.shared.queued.fetch_add(1, Ordering::AcqRel);
        self.shared.held.fetch_add(job.held, Ordering::AcqRel);
        let mut queue = self.lock();
        queue.jobs.push_back(job);
        if !std::mem::replace(&mut queue.running, true) {
            tokio::spawn(Arc::clone(self).drain());
        }
    }

    async fn drain(self: Arc<Self>) {
        while let Some(first) = self.pop_first() {
            let after = first.after;
            self.shared.until(|| self.shared.is_ready(after)).await;
            let batch = self.fill_up(first);
            let cost = batch.iter().map(|job| job.cost).sum();
            let permit = match cost {
                0 => None,
                // The semaphore is never closed.
                _ => Arc::clone(&self.shared.answers).acquire_many_owned(cost).await.ok(),
            };
            let shared = Arc::clone(&self.shared);
            let ran = spawn_blocking(move || {
                let mut permit = permit;
                for job in batch {
                    let (change, held) = (job.change, job.held);
                    (job.run)(permit.as_mut().and_then(|permit| permit.split(job.cost as usize)));
                    shared.done(change, held);
                }
            });
            if let Err(error) = ran.await {
                tracing::error!(%error, "a request failed badly");
            }
        }
    }

    fn pop_first(&self) -> Option<Job> {
        let mut queue = self.lock();
        let first = queue.jobs.pop_front();
        queue.running = first.is_some();
        first
    }

    /// Takes further requests that need not wait for anything.
    fn fill_up(&self, first: Job) -> Vec<Job> {
        let mut batch = vec![first];
        let mut queue = self.lock();
        while batch.len() < BATCH && queue.jobs.front().is_some_and(|job| job.after.is_none()) {
            batch.extend(queue.jobs.pop_front());
        }
        batch
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn job(run: impl FnOnce() + Send + 'static) -> Job {
        Job { run: Box::new(move |_| run()), cost: 0, change: None, after: None, held: 0 }
    }

    #[tokio::test]
    async fn a_lane_keeps_its_order_and_others_go_on() {
        let shared = Arc::new(Shared::new());
        let (slow, quick) = (Lane::new(Arc::clone(&shared)), Lane::new(Arc::clone(&shared)));
        let (said, mut heard) = mpsc::unbounded_channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        slow.push(job(move || wait.recv().unwrap()));
        for i in 0..100 {
            let said = said.clone();
            slow.push(job(move || said.send(i).unwrap()));
        }
        let also = said.clone();
        quick.push(job(move || also.send(1000).unwrap()));
        assert_eq!(heard.recv().await, Some(1000));
        go.send(()).unwrap();
        for i in 0..100 {
            assert_eq!(heard.recv().await, Some(i));
        }
        shared.until(|| shared.load() == (0, 0)).await;
    }

    #[tokio::test]
    async fn a_look_waits_for_the_changes_before_it() {
        let shared = Arc::new(Shared::new());
        let (file, paths) = (Lane::new(Arc::clone(&shared)), Lane::new(Arc::clone(&shared)));
        let (said, mut heard) = mpsc::unbounded_channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (change, look, free) = (said.clone(), said.clone(), said);
        paths.push(job(move || free.send("free").unwrap()));
        let mark = shared.announce_change();
        let run = job(move || {
            wait.recv().unwrap();
            change.send("change").unwrap();
        });
        file.push(Job { change: Some(mark), held: 10, ..run });
        let after = Some(shared.changes_so_far());
        paths.push(Job { after, ..job(move || look.send("look").unwrap()) });
        assert_eq!(heard.recv().await, Some("free"));
        assert_eq!(shared.load().1, 10);
        go.send(()).unwrap();
        assert_eq!(heard.recv().await, Some("change"));
        assert_eq!(heard.recv().await, Some("look"));
        shared.until_held_below(0).await;
    }
}

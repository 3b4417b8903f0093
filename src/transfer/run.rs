//! Many tasks at once: the scheduler of a run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Durability, FileKind, SetMetadata};

use super::folder::{Folder, Made, existing, sync_parent};
use super::lanes::{Lanes, Load};
use super::lock::Locks;
use super::settled::Unsettled;
use super::types::{Event, Existing, Location, Observer, Options, Outcome, Status, Summary, Task};
use super::{displaced, interrupted, job, journal, part, room, taken};

/// How long a run waits for old journals to be cleared away.
const CLEARING: Duration = Duration::from_secs(2);

/// What all jobs of a run share.
pub(super) struct Context {
    pub(super) options: Options,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) cancel: CancellationToken,
    pub(super) locks: Arc<Locks>,
    pub(super) journals: PathBuf,
    pub(super) unsettled: Unsettled,
    pub(super) umask: u32,
    /// How many streams one large file may have now.
    pub(super) share: watch::Sender<usize>,
    stopped: AtomicBool,
    /// Bytes moved so far, and what files weigh besides their bytes: what the controller measures.
    work: AtomicU64,
}

impl Context {
    pub(super) fn new(options: &Options, observer: Arc<dyn Observer>, cancel: CancellationToken) -> Result<Arc<Self>> {
        let advised = |e| room::advise_about_state(e, &options.state_dir);
        let journals = journal::make_folder(&options.state_dir).map_err(advised)?;
        Ok(Arc::new(Self {
            locks: Locks::open(&journals).map_err(advised)?,
            unsettled: Unsettled::open(&journals, &options.boot),
            journals,
            umask: umask(),
            share: watch::Sender::new(1),
            options: options.clone(),
            observer,
            cancel,
            stopped: AtomicBool::new(false),
            work: AtomicU64::new(0),
        }))
    }

    /// Returns the name of a transfer, the same whenever the same command is run again on this machine.
    pub(super) fn transfer_id(&self, source: &str, destination: &str) -> String {
        part::id_of(self.locks.number(), source, destination)
    }

    /// Returns whether an endpoint was given up: what is left gets one attempt and no retries.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Counts what was done.
    pub(super) fn note_work(&self, bytes: u64) {
        self.work.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns what was counted so far.
    pub(super) fn work(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }
}

/// Carries out tasks, several at once, and returns the totals.
///
/// One task that fails doesn't stop the others, unless its endpoint can't be reached any more: then the rest fails
/// without being tried. `cancel` ends the run soon; what is under way can be resumed.
///
/// # Errors
/// Only when the folder for journals can't be used: then nothing was begun. Everything else is in the outcomes.
pub async fn run(
    mut tasks: impl Stream<Item = Task> + Send + Unpin,
    options: &Options,
    observer: Arc<dyn Observer>,
    cancel: CancellationToken,
) -> Result<Summary> {
    let ctx = Context::new(options, observer, cancel)?;
    let mut run = Run {
        lanes: Lanes::new(Arc::clone(&ctx)),
        ctx,
        started: Instant::now(),
        next_id: 0,
        jobs: JoinSet::new(),
        summary: Summary::default(),
        modes: Vec::new(),
    };
    let mut planned = false;
    while !(planned && run.jobs.is_empty()) {
        let room = run.lanes.has_room();
        tokio::select! {
            biased;
            () = run.ctx.cancel.cancelled() => break,
            Some(done) = run.jobs.join_next() => run.count(done),
            () = run.lanes.tick() => {}
            task = tasks.next(), if room && !planned => match task {
                Some(task) => run.take(task),
                None => planned = true,
            },
        }
    }
    run.end().await
}

struct Run {
    ctx: Arc<Context>,
    lanes: Lanes,
    started: Instant,
    next_id: u64,
    jobs: JoinSet<Done>,
    summary: Summary,
    /// Modes to set on directories once they are filled: a read-only one could not be.
    modes: Vec<(Location, u32)>,
}

/// A job that has ended.
enum Done {
    Job(Outcome, Load),
    Directory(u64, Arc<Folder>, Load),
}

impl Run {
    fn take(&mut self, task: Task) {
        let (id, ctx) = (self.next_id, Arc::clone(&self.ctx));
        self.next_id += 1;
        match task {
            Task::File(job) if self.ctx.is_stopped() => {
                let gone = Error::new(ErrorKind::ConnectionRefused, "not tried: the connection is gone");
                self.report(outcome(id, &job.source.url, &job.destination.url, Status::Failed(gone)));
            }
            Task::File(job) => {
                let load = self.lanes.add(&job);
                self.jobs.spawn(async move { Done::Job(job::run(ctx, id, job).await, load) });
            }
            Task::Directory(folder) => {
                let load = self.lanes.add_small(folder.location());
                self.jobs.spawn(async move {
                    if !ctx.options.dry_run {
                        folder.make(&ctx).await;
                    }
                    Done::Directory(id, folder, load)
                });
            }
            Task::Symlink { source, at, target, folder } => {
                let load = self.lanes.add_small(&at);
                self.jobs.spawn(async move {
                    let made = make_link(&ctx, &at, &target, folder).await;
                    Done::Job(outcome(id, &source.url, &at.url, made.unwrap_or_else(Status::Failed)), load)
                });
            }
            Task::Metadata { source, at, metadata } => {
                let load = self.lanes.add_small(&at);
                self.jobs.spawn(async move {
                    let set = match ctx.options.dry_run {
                        true => Ok(Status::Planned),
                        false => at.transport.set_metadata(&at.path, metadata).await.map(|()| Status::Done),
                    };
                    Done::Job(outcome(id, &source.url, &at.url, set.unwrap_or_else(Status::Failed)), load)
                });
            }
            Task::Failed { source, error } => self.report(outcome(id, &source, "", Status::Failed(error))),
        }
    }

    fn count(&mut self, joined: Result<Done, tokio::task::JoinError>) {
        match joined {
            Ok(Done::Job(outcome, load)) => {
                self.lanes.remove(load);
                self.report(outcome);
            }
            Ok(Done::Directory(id, folder, load)) => {
                self.lanes.remove(load);
                let at = folder.location();
                match folder.take_error() {
                    Some(error) => {
                        let error = error.context("make the directory");
                        self.report(outcome(id, "", &at.url, Status::Failed(error)));
                    }
                    None => {
                        self.summary.directories += u64::from(folder.is_new());
                        self.modes.extend(folder.mode().map(|mode| (at.clone(), mode & 0o777)));
                    }
                }
            }
            Err(e) => {
                let error = Error::new(ErrorKind::Other, "a transfer stopped unexpectedly").with_source(e);
                let id = self.next_id;
                self.next_id += 1;
                self.report(outcome(id, "", "", Status::Failed(error)));
            }
        }
    }

    fn report(&mut self, outcome: Outcome) {
        let summary = &mut self.summary;
        summary.files += 1;
        summary.transferred += outcome.transferred;
        match &outcome.status {
            Status::Done => {
                summary.done += 1;
                summary.bytes += outcome.bytes.unwrap_or(0);
            }
            Status::Planned => summary.done += 1,
            Status::Skipped(_) => summary.skipped += 1,
            Status::Failed(error) => {
                summary.failed += 1;
                summary.verify_failed += u64::from(error.kind() == ErrorKind::VerifyFailed);
                // Its retries are used up: the other files would only wait as long again, one after the other.
                if error.kind().is_fatal_to_endpoint() || error.kind() == ErrorKind::Timeout {
                    self.ctx.stopped.store(true, Ordering::Relaxed);
                }
            }
        }
        self.ctx.observer.event(Event::Finished(outcome));
    }

    async fn end(mut self) -> Result<Summary> {
        while let Some(done) = self.jobs.join_next().await {
            self.count(done);
        }
        for (at, mode) in std::mem::take(&mut self.modes).into_iter().rev() {
            let metadata = SetMetadata { mode: Some(mode), mtime: None };
            let kept = at.transport.set_metadata(&at.path, metadata).await;
            let kept = match kept {
                Ok(()) if self.ctx.options.durability == Durability::Synced => at.transport.sync(&at.path).await,
                other => other,
            };
            if let Err(e) = kept {
                let text = format!("the directory's mode is not kept: {}", e.chain());
                self.ctx.observer.event(Event::Note { id: self.next_id, text });
            }
        }
        self.lanes.remember();
        self.ctx.unsettled.end();
        self.summary.elapsed = self.started.elapsed();
        self.summary.cancelled = self.ctx.cancel.is_cancelled();
        if !self.summary.cancelled && !self.ctx.options.dry_run {
            let state_dir = self.ctx.options.state_dir.clone();
            let clearing = tokio::task::spawn_blocking(move || interrupted::clear_away(&state_dir));
            // A disk that hangs holds nobody up: the rest is for another day.
            let _ = tokio::time::timeout(CLEARING, clearing).await;
        }
        Ok(self.summary)
    }
}

async fn make_link(ctx: &Context, at: &Location, target: &[u8], folder: Option<Arc<Folder>>) -> Result<Status> {
    if let Some(folder) = folder.as_ref().filter(|_| !ctx.options.dry_run)
        && folder.make(ctx).await == Made::Failed
    {
        return Err(Error::new(ErrorKind::NotFound, "its directory could not be made"));
    }
    match existing(at, folder.as_deref()).await? {
        Some(_) if ctx.options.existing == Existing::Keep => {
            return Ok(Status::Skipped("it is there already"));
        }
        Some(entry) if entry.kind == FileKind::Symlink && at.transport.read_link(&at.path).await? == target => {
            return Ok(Status::Skipped("same target"));
        }
        _ if ctx.options.dry_run => return Ok(Status::Planned),
        Some(entry) => {
            // It goes when the link is there, not before.
            displaced::displace(at).await?;
            let made = at.transport.symlink(target, &at.path).await;
            if let Err(error) = made {
                return Err(displaced::put_back_after(at, error).await);
            }
            let before = displaced::displaced(at)?;
            match &ctx.options.backup {
                // Whoever planned this clears it away.
                _ if entry.kind == FileKind::Directory => {}
                Some(backup) => drop(backup.take(&before, at).await?),
                None => at.transport.remove_file(&before.path).await?,
            }
            return sync_parent(ctx, at).await.map(|()| Status::Done);
        }
        None => {}
    }
    match at.transport.symlink(target, &at.path).await {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && at.transport.capabilities().local => {
            taken::by_its_own_name(at).await?;
            Err(e)
        }
        Ok(()) => sync_parent(ctx, at).await.map(|()| Status::Done),
        Err(e) => Err(e),
    }
}

fn outcome(id: u64, source: &str, destination: &str, status: Status) -> Outcome {
    Outcome {
        id,
        source: source.to_owned(),
        destination: destination.to_owned(),
        status,
        bytes: None,
        transferred: 0,
        resumed_from: None,
        elapsed: Duration::ZERO,
        verified: None,
    }
}

/// Returns the process's umask. Asking the kernel would mean setting it, which other threads could see.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).unwrap_or(0o022)
}

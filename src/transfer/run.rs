//! Many tasks at once: the scheduler of a run.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{FileKind, Follow, RemotePath, SetMetadata};

use super::lock::Locks;
use super::rate::Limiter;
use super::types::{Event, Existing, Location, Observer, Options, Outcome, Status, Summary, Task};
use super::{job, journal, part};

/// What all jobs of a run share.
pub(super) struct Context {
    pub(super) options: Options,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) cancel: CancellationToken,
    pub(super) limiter: Limiter,
    pub(super) locks: Arc<Locks>,
    pub(super) journals: PathBuf,
    pub(super) umask: u32,
    installation: [u8; 16],
    stopped: AtomicBool,
}

impl Context {
    pub(super) fn new(options: &Options, observer: Arc<dyn Observer>, cancel: CancellationToken) -> Result<Arc<Self>> {
        let journals = journal::make_folder(&options.state_dir)?;
        Ok(Arc::new(Self {
            limiter: Limiter::new(options.limit_rate),
            locks: Locks::open(&journals)?,
            installation: journal::installation(&journals)?,
            journals,
            umask: umask(),
            options: options.clone(),
            observer,
            cancel,
            stopped: AtomicBool::new(false),
        }))
    }

    /// Returns the name of a transfer, the same whenever the same command is run again on this machine.
    pub(super) fn transfer_id(&self, source: &str, destination: &str) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&{
            let mut key = [0; 32];
            key[..16].copy_from_slice(&self.installation);
            key
        });
        hasher.update(source.as_bytes()).update(&[0]).update(destination.as_bytes());
        hasher.finalize().to_hex()[..part::ID_LENGTH].to_owned()
    }

    /// Returns whether an endpoint was given up: what is left gets one attempt and no retries.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
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
    let mut run = Run {
        ctx: Context::new(options, observer, cancel)?,
        started: Instant::now(),
        next_id: 0,
        jobs: JoinSet::new(),
        summary: Summary::default(),
        refused: HashSet::new(),
        modes: Vec::new(),
    };
    loop {
        let task = tokio::select! {
            biased;
            () = run.ctx.cancel.cancelled() => break,
            Some(outcome) = run.jobs.join_next() => {
                run.count(outcome);
                continue;
            }
            task = tasks.next() => task,
        };
        let Some(task) = task else { break };
        run.take(task).await;
    }
    run.end().await
}

struct Run {
    ctx: Arc<Context>,
    started: Instant,
    next_id: u64,
    jobs: JoinSet<Outcome>,
    summary: Summary,
    /// Directories that could not be made.
    refused: HashSet<RemotePath>,
    /// Modes to set on directories once they are filled: a read-only one could not be.
    modes: Vec<(Location, u32)>,
}

impl Run {
    async fn take(&mut self, task: Task) {
        let id = self.next_id;
        self.next_id += 1;
        match task {
            Task::File(job) => {
                if self.is_refused(&job.destination) {
                    return self.report_failed(id, &job.source.url, &job.destination.url, no_directory());
                }
                if self.ctx.is_stopped() {
                    let gone = Error::new(ErrorKind::ConnectionRefused, "not tried: the connection is gone");
                    return self.report_failed(id, &job.source.url, &job.destination.url, gone);
                }
                let streams = |at: &Location| at.transport.capabilities().streams.max(4);
                let suggested = streams(&job.source).min(streams(&job.destination));
                self.make_room(self.ctx.options.jobs.unwrap_or(suggested)).await;
                self.jobs.spawn(job::run(Arc::clone(&self.ctx), id, job));
            }
            Task::Directory { at, mode } => self.make_directory(id, at, mode).await,
            Task::Symlink { source, at, target } => {
                let result =
                    if self.is_refused(&at) { Err(no_directory()) } else { self.make_link(&at, &target).await };
                let status = result.unwrap_or_else(Status::Failed);
                self.report(outcome(id, &source.url, &at.url, status));
            }
            Task::Failed { source, error } => self.report_failed(id, &source, "", error),
        }
    }

    async fn make_room(&mut self, most: usize) {
        while self.jobs.len() >= most.max(1) {
            if let Some(outcome) = self.jobs.join_next().await {
                self.count(outcome);
            }
        }
    }

    async fn make_directory(&mut self, id: u64, at: Location, mode: Option<u32>) {
        if self.ctx.options.dry_run {
            return;
        }
        if self.is_refused(&at) {
            self.refused.insert(at.path);
            return;
        }
        let result = match at.transport.create_dir(&at.path).await {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => is_directory(&at).await,
            other => other,
        };
        match result {
            Ok(()) => self.modes.extend(mode.map(|mode| (at, mode & 0o777))),
            Err(error) => {
                self.report_failed(id, "", &at.url, error.context("make the directory"));
                self.refused.insert(at.path);
            }
        }
    }

    async fn make_link(&self, at: &Location, target: &[u8]) -> Result<Status> {
        let existing = match at.transport.stat(&at.path, Follow::Nothing).await {
            Ok(entry) => Some(entry),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        match existing {
            Some(entry) if entry.kind == FileKind::Directory => {
                return Err(Error::new(ErrorKind::IsADirectory, "a directory is in the way").at(at.shown()));
            }
            Some(_) if self.ctx.options.existing == Existing::Keep => {
                return Ok(Status::Skipped("it is there already"));
            }
            Some(entry) if entry.kind == FileKind::Symlink && at.transport.read_link(&at.path).await? == target => {
                return Ok(Status::Skipped("same target"));
            }
            _ if self.ctx.options.dry_run => return Ok(Status::Planned),
            Some(_) => at.transport.remove_file(&at.path).await?,
            None => {}
        }
        at.transport.symlink(target, &at.path).await.map(|()| Status::Done)
    }

    fn is_refused(&self, at: &Location) -> bool {
        !self.refused.is_empty() && at.path.parent().is_some_and(|parent| self.refused.contains(&parent))
    }

    fn report_failed(&mut self, id: u64, source: &str, destination: &str, error: Error) {
        self.report(outcome(id, source, destination, Status::Failed(error)));
    }

    fn count(&mut self, joined: Result<Outcome, tokio::task::JoinError>) {
        match joined {
            Ok(outcome) => self.report(outcome),
            Err(e) => {
                let error = Error::new(ErrorKind::Other, "a transfer stopped unexpectedly").with_source(e);
                let id = self.next_id;
                self.next_id += 1;
                self.report_failed(id, "", "", error);
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
        while let Some(outcome) = self.jobs.join_next().await {
            self.count(outcome);
        }
        for (at, mode) in std::mem::take(&mut self.modes).into_iter().rev() {
            let metadata = SetMetadata { mode: Some(mode), mtime: None };
            if let Err(e) = at.transport.set_metadata(&at.path, metadata).await {
                let text = format!("the directory's mode is not kept: {}", e.chain());
                self.ctx.observer.event(Event::Note { id: self.next_id, text });
            }
        }
        self.summary.elapsed = self.started.elapsed();
        self.summary.cancelled = self.ctx.cancel.is_cancelled();
        Ok(self.summary)
    }
}

async fn is_directory(at: &Location) -> Result<()> {
    // A link to a directory is good enough, as it is for `cp`: the user made it, not the source.
    match at.transport.stat(&at.path, Follow::Links).await?.kind {
        FileKind::Directory => Ok(()),
        _ => Err(Error::new(ErrorKind::NotADirectory, "something else is in the way").at(at.shown())),
    }
}

fn no_directory() -> Error {
    Error::new(ErrorKind::NotFound, "its directory could not be made")
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

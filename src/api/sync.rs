//! Making one tree equal to another.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::events::Report;
use super::moving::{Moving, Started, moving_methods};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::compare::{By, Comparing, Links};
use crate::plan::sync::{Change, Changes, Options, Synced, sync};
use crate::transfer::{Observer, Summary};

/// A run that makes one directory equal to another, made by [`sync`](super::sync()).
#[must_use = "nothing is done until run is awaited"]
pub struct TreeSync {
    source: OsString,
    destination: OsString,
    plan: Options,
    moving: Moving,
    tell: Tell,
}

/// Calls back for every change.
#[derive(Default)]
struct Tell(Option<Mutex<Call>>);

type Call = Box<dyn FnMut(&Change) + Send>;

impl Changes for Tell {
    fn change(&self, change: &Change) {
        if let Some(call) = &self.0 {
            call.lock().unwrap_or_else(PoisonError::into_inner)(change);
        }
    }
}

impl fmt::Debug for TreeSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeSync").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl TreeSync {
    pub(super) fn new(source: &OsStr, destination: &OsStr) -> Self {
        let (source, destination) = (source.to_owned(), destination.to_owned());
        let plan = Options::default();
        Self { source, destination, plan, moving: Moving::default(), tell: Tell::default() }
    }

    moving_methods!();

    /// Decides by what files count as the same: by size and time, unless said otherwise.
    pub fn compare_by(mut self, by: By) -> Self {
        self.plan.comparing.by = by;
        self
    }

    /// Decides what becomes of symbolic links: they are kept as links, unless said otherwise.
    pub fn links(mut self, links: Links) -> Self {
        self.plan.comparing.links = links;
        self
    }

    /// Deletes at the destination what the source doesn't have, once everything was copied and nothing failed.
    pub fn delete(mut self, delete: bool) -> Self {
        self.plan.delete = delete;
        self
    }

    /// Deletes nothing at all if it would be more than so many files, links and directories.
    pub fn max_delete(mut self, most: u64) -> Self {
        self.plan.max_delete = Some(most);
        self
    }

    /// Renames at the destination what has only another name there, where digests prove it. Only with
    /// [`Self::delete`].
    pub fn detect_moves(mut self, detect: bool) -> Self {
        self.plan.detect_moves = detect;
        self
    }

    /// Keeps permissions. Times are always kept.
    pub fn preserve(mut self, preserve: bool) -> Self {
        self.plan.preserve = preserve;
        self.options(move |options| options.preserve_mode = preserve)
    }

    /// Changes anything else about how the trees are compared and made equal.
    pub fn plan(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.plan);
        self
    }

    /// Calls this for moves and deletions, and in a dry run for everything that would be done. It must not block.
    pub fn on_change(mut self, call: impl FnMut(&Change) + Send + 'static) -> Self {
        self.tell = Tell(Some(Mutex::new(Box::new(call))));
        self
    }

    /// Makes the destination equal to the source.
    ///
    /// # Errors
    /// What keeps it from beginning: a URL that is none, no connection, no login, a source that is no directory. A file
    /// that fails is in the report. `Cancelled` only if nothing had begun.
    pub async fn run(mut self) -> Result<SyncReport> {
        let options = self.moving.take_options()?;
        let teller = self.moving.take_teller();
        let comparing = Comparing {
            filter: self.moving.filter.clone(),
            may_probe: !options.dry_run,
            retries: options.retries,
            retry_wait: options.retry_wait,
            state_dir: Some(options.state_dir.clone()),
            ..self.plan.comparing
        };
        let plan = Options { comparing, ..self.plan };
        let Moving { login, canceller, .. } = &self.moving;
        let mut started = Started::new(login, canceller, &options, &[self.source], &self.destination).await?;
        let Some(source) = started.sources.pop() else { return Err(ErrorKind::Usage.into()) };
        let observer = Arc::clone(&teller) as Arc<dyn Observer>;
        let cancel = canceller.token();
        let run = sync(source, started.destination, plan, &options, observer, Arc::new(self.tell), cancel);
        let mut synced = run.await?;
        if !synced.summary.cancelled {
            started.connections.close().await;
        }
        Ok(SyncReport { report: teller.report(std::mem::take(&mut synced.summary)), synced })
    }
}

/// How a sync ended.
#[derive(Debug)]
pub struct SyncReport {
    report: Report,
    synced: Synced,
}

impl SyncReport {
    /// Returns what became of the files that were copied, and what failed.
    pub fn copied(&self) -> &Report {
        &self.report
    }

    /// Returns how many files and links were alike.
    pub fn equal(&self) -> u64 {
        self.synced.equal
    }

    /// Returns how many files, links and directories were deleted, or would be.
    pub fn deleted(&self) -> u64 {
        self.synced.deleted
    }

    /// Returns how many files were renamed, or would be.
    pub fn moved(&self) -> u64 {
        self.synced.moved
    }

    /// Returns why nothing was deleted, if it was to be.
    pub fn refused(&self) -> Option<&Error> {
        self.synced.refused.as_ref()
    }

    /// Returns whether the trees are equal now, as far as the filter goes.
    pub fn is_complete(&self) -> bool {
        self.report.is_complete() && self.synced.refused.is_none()
    }

    /// Returns the totals of the copies if all went well.
    ///
    /// # Errors
    /// The first failure, why nothing was deleted, or `Cancelled`.
    pub fn into_result(self) -> Result<Summary> {
        let summary = self.report.into_result()?;
        self.synced.refused.map_or(Ok(summary), Err)
    }
}

//! Making one tree equal another: compared as it is walked, copied by the engine, then tidied up.
//!
//! In order: `planner` turns what the comparison finds into tasks, which [`crate::transfer::run`] carries out meanwhile;
//! `moves` renames what is there under another name; what had to wait for that is copied; `removal` deletes, if nothing
//! failed, where `guard` lets it; `restore` sets the times and modes of directories. What waits lies in a `spool` on the disk.

mod changes;
mod displaced;
mod guard;
mod moves;
mod planner;
mod removal;
mod restore;
mod roots;
mod spool;
mod tasks;

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Place;
use super::compare::{By, Comparing, Links, Root};
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{self, Existing, Observer, Summary, Task};

use changes::Teller;
pub use changes::{Change, Changes, Stage, What};
use displaced::LeftOver;
use planner::Planner;
use removal::{Known, Removal};
use restore::DirectoryTimes;
use spool::{Record, Spool};

/// Tasks that are planned ahead of their turn.
const TASKS_AHEAD: usize = 1024;
/// The number in notes that belong to no file of the run.
const NO_FILE: u64 = u64::MAX;

type Tasks = mpsc::Sender<Task>;

/// How a tree is made equal to another.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub struct Options {
    /// How they are compared.
    pub comparing: Comparing,
    /// Delete at the destination what the source doesn't have, once everything was copied.
    pub delete: bool,
    /// Delete nothing at all if it would be more than so many files, links and directories.
    pub max_delete: Option<u64>,
    /// Delete even if the source is empty, or a part of it could not be listed; below such a part nothing is.
    pub force_delete: bool,
    /// Rename at the destination what has only another name there, where digests prove it. Only with `delete`.
    pub detect_moves: bool,
    /// Put a file in the place of a directory and the other way round; `delete` does that as well.
    pub replace_kinds: bool,
    /// Keep permission bits.
    pub preserve: bool,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Synced {
    /// What was copied and what failed, deletions included. In a dry run, what would be copied.
    pub summary: Summary,
    /// Files and links that were alike.
    pub equal: u64,
    /// Files, links and directories deleted, or that would be.
    pub deleted: u64,
    /// Files renamed, or that would be.
    pub moved: u64,
    /// Directories of which the time or the mode was set, or would be, in which nothing else differs.
    pub set: u64,
    /// Files and links that differ and are left as they are, since the options say so.
    pub held_back: u64,
    /// Why nothing was deleted, if it was to be.
    pub refused: Option<Error>,
}

/// Makes the contents of one directory equal to those of another, which is made if it isn't there.
///
/// One entry that fails doesn't stop the others, but then nothing is deleted. `transfer` says how files are moved, and
/// whether anything is changed at all; what is decided besides copies is told to `changes`, in a dry run all of it.
///
/// # Errors
/// When nothing can begin: the source is no directory, the one lies in the other, the folder for journals can't be used.
pub async fn sync(
    source: Place,
    destination: Place,
    options: Options,
    transfer: &transfer::Options,
    observer: Arc<dyn Observer>,
    changes: Arc<dyn Changes>,
    cancel: CancellationToken,
) -> Result<Synced> {
    let (left, right, backup) = roots::find(&source, destination, transfer.backup.as_deref()).await?;
    let links = match options.comparing.links {
        // What can't be made there is left out.
        Links::Keep if !right.at.transport.capabilities().symlinks => Links::Skip,
        links => links,
    };
    let comparing = Comparing {
        links,
        inside_extra: options.delete,
        modes: options.preserve,
        limiter: transfer.limiter.clone(),
        apart: backup.as_ref().map(|backup| backup.path().clone()),
        ..options.comparing.clone()
    };
    let skips_links = options.comparing.links == Links::Skip;
    let policy = transfer.existing;
    // What the planner sends is wanted. Where it went by times, the engine may still prove that nothing was lost.
    let existing = match policy {
        Existing::Keep => Existing::Keep,
        Existing::Replace => Existing::Replace,
        _ if comparing.by == By::Time => Existing::ReplaceDifferent,
        _ => Existing::Replace,
    };
    let transfer = transfer::Options { existing, backup: backup.map(Arc::new), ..transfer.clone() };
    let tell = Teller { observer, changes, cancel, dry_run: transfer.dry_run };
    let options = Options { comparing, ..options };
    let directory_times = DirectoryTimes::new(&right.at, options.comparing.state_dir.as_deref());
    let (links, synced) = (Known::default(), Synced::default());
    let run = Run { left, right, options, policy, transfer, tell, skips_links, links, directory_times, synced };
    run.all().await
}

struct Run {
    left: Root,
    right: roots::Target,
    options: Options,
    /// What becomes of files that are there, as the caller wants it.
    policy: Existing,
    transfer: transfer::Options,
    tell: Teller,
    /// Whether the user wants links to be left out, and not only the destination.
    skips_links: bool,
    links: Known,
    directory_times: DirectoryTimes,
    synced: Synced,
}

impl Run {
    async fn all(mut self) -> Result<Synced> {
        let mut planner = Planner::new(&self);
        let roots =
            (self.left.clone(), self.right.entry.clone().map(|entry| Root { at: self.right.at.clone(), entry }));
        self.stage(&mut planner, async |planner, tasks| planner.trees(tasks, roots.0, roots.1).await).await?;
        let waiting = Spool::new(&self.transfer.state_dir);
        let mut waiting = std::mem::replace(&mut planner.waiting, waiting);
        let mut gone = HashSet::new();
        if waiting.count() > 0 && !self.tell.is_cancelled() {
            let moved = moves::run(&self, &planner, &waiting).await?;
            (waiting, gone) = (moved.rest, moved.gone);
            self.synced.moved = gone.len() as u64;
            moved.made.iter().try_for_each(|path| planner.note_written(path))?;
        }
        let left_over = self.left_over(&mut planner).await?;
        self.refuse_too_many(&planner, &gone, &left_over).await?;
        let left_over = self.clear_left_over(&planner, left_over).await?;
        let conflicts = self.make_way(&mut planner).await?;
        let displaced = conflicts.iter().map(|conflict| conflict.path.clone()).collect();
        let any_later = !conflicts.is_empty() || !planner.collided.is_empty() || waiting.count() > 0;
        if any_later && !self.tell.is_cancelled() {
            self.stage(&mut planner, async |planner, tasks| planner.later(tasks, conflicts, &waiting).await).await?;
        }
        self.settle(&planner, displaced, left_over).await?;
        if self.options.delete && planner.extras.count() > gone.len() as u64 && !self.tell.is_cancelled() {
            self.delete(&planner, &gone).await?;
        }
        if !self.tell.dry_run {
            let (root, preserve) = (&self.right.at, self.options.preserve);
            restore::directories(&planner.directories, root, preserve, &self.directory_times, &self.tell).await?;
        }
        self.synced.equal += planner.equal;
        self.synced.held_back = planner.held_back;
        self.synced.set = planner.set;
        self.synced.summary.cancelled = self.tell.is_cancelled();
        Ok(self.synced)
    }

    /// Plans, and carries out what is planned meanwhile.
    async fn stage(
        &mut self,
        planner: &mut Planner,
        plan: impl AsyncFnOnce(&mut Planner, Option<Tasks>) -> Result<()>,
    ) -> Result<()> {
        if self.tell.dry_run {
            plan(planner, None).await?;
            self.count(&planner.take_counted());
            return Ok(());
        }
        let (tasks, mut receiver) = mpsc::channel(TASKS_AHEAD);
        let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let observer = Arc::clone(&self.tell.observer);
        let run = transfer::run(stream, &self.transfer, observer, self.tell.cancel.clone());
        let (summary, made) = tokio::join!(run, plan(planner, Some(tasks)));
        made?;
        self.count(&summary?);
        self.count(&planner.take_counted());
        Ok(())
    }

    fn count(&mut self, part: &Summary) {
        let total = &mut self.synced.summary;
        total.files += part.files;
        total.done += part.done;
        total.directories += part.directories;
        total.failed += part.failed;
        total.bytes += part.bytes;
        total.transferred += part.transferred;
        total.elapsed += part.elapsed;
        total.verify_failed += part.verify_failed;
        // The engine looked at them again, and they are alike.
        self.synced.equal += part.skipped;
    }

    /// Refuses to delete anything if that would be more than may be.
    async fn refuse_too_many(
        &mut self,
        planner: &Planner,
        gone: &HashSet<Vec<u8>>,
        left_over: &[LeftOver],
    ) -> Result<()> {
        let Some(most) = self.options.max_delete.filter(|_| !self.tell.is_cancelled()) else { return Ok(()) };
        let removal = self.removal(planner, gone);
        let count = removal.count(&planner.extras).await? + removal.count(&planner.in_the_way).await?;
        let count = count + self.count_left_over(planner, left_over).await?;
        if count > most {
            let text = format!("nothing is deleted: that would be {count}, and --max-delete allows {most}");
            let error =
                Error::new(ErrorKind::Other, text).with_hint("--dry-run without it lists what would be deleted");
            self.synced.refused = Some(error);
        }
        Ok(())
    }

    /// Decides whether what is in the way of another kind of thing may go, once all else was copied; returns what can be
    /// copied then.
    async fn make_way(&mut self, planner: &mut Planner) -> Result<Vec<Record>> {
        let conflicts = std::mem::take(&mut planner.conflicts);
        if conflicts.is_empty() || self.tell.is_cancelled() {
            return Ok(Vec::new());
        }
        if self.synced.refused.is_none() {
            self.synced.refused = self.reason_not_to_delete(planner);
        }
        if self.synced.refused.is_some() {
            for conflict in &conflicts {
                planner.stays_in_the_way(&conflict.path);
            }
            self.count(&planner.take_counted());
            return Ok(Vec::new());
        }
        let nothing = HashSet::new();
        if self.tell.dry_run {
            let removed = self.removal(planner, &nothing).run(&planner.in_the_way).await?;
            self.synced.deleted += removed.deleted;
            self.synced.summary.failed += removed.failed;
        } else {
            // What is a link in truth, and what a server calls otherwise, is found out while things have their names.
            let removal = self.removal(planner, &nothing);
            removal.count(&planner.in_the_way).await?;
            let doubts = removal.doubts(&planner.in_the_way).await?;
            self.synced.summary.failed += doubts;
            if doubts > 0 {
                return Ok(Vec::new());
            }
        }
        Ok(conflicts)
    }

    async fn delete(&mut self, planner: &Planner, gone: &HashSet<Vec<u8>>) -> Result<()> {
        if self.synced.refused.is_none() {
            self.synced.refused = self.reason_not_to_delete(planner);
        }
        if self.synced.refused.is_none() {
            let removed = self.removal(planner, gone).run(&planner.extras).await?;
            self.synced.deleted += removed.deleted;
            self.synced.summary.failed += removed.failed;
        }
        Ok(())
    }

    /// Says why nothing may be deleted, if so.
    fn reason_not_to_delete(&self, planner: &Planner) -> Option<Error> {
        let refuse = |text: &str, hint: &str| {
            Some(Error::new(ErrorKind::Other, format!("nothing is deleted: {text}")).with_hint(hint.to_owned()))
        };
        let forced = self.options.force_delete;
        if self.synced.summary.failed > planner.unlisted {
            return refuse("not everything was copied", "mend what failed, then run the same command again");
        }
        if planner.unlisted > 0 && !forced {
            let hint = "mend that, or delete all the same, but nothing below what could not be listed: --force-delete";
            return refuse("a part of the source could not be listed", hint);
        }
        if planner.is_empty && !forced {
            return refuse("the source is empty", "if that is meant, --force-delete empties the destination");
        }
        None
    }

    fn removal<'a>(&'a self, planner: &'a Planner, gone: &'a HashSet<Vec<u8>>) -> Removal<'a> {
        let (backup, comparing) = (self.transfer.backup.as_deref(), &self.options.comparing);
        let (root, written) = (&self.right.at, &planner.written);
        Removal { root, backup, gone, written, comparing, tell: &self.tell, links: &self.links, displaced: None }
    }
}

#[cfg(test)]
mod tests;

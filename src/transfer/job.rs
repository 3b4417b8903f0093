//! One file from decision to outcome: skip it, or try until it is there or trying is no use.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Entry, FileKind, Follow, Precision};

use super::aftermath::{self, Aftermath};
use super::attempt::{Attempt, Moved};
use super::copy::Progress;
use super::folder::{Made, existing};
use super::journal::{Found, Head, Journal, SMALLEST_BLOCK};
use super::lock::Held;
use super::part;
use super::retry::{Budget, interrupted, pause};
use super::run::Context;
use super::settled;
use super::types::{Event, Existing, Job, Location, Outcome, Status, Verified};

/// Carries out one job.
pub(super) async fn run(ctx: Arc<Context>, id: u64, job: Job) -> Outcome {
    let started = Instant::now();
    let mut moving = Moving {
        ctx: &ctx,
        id,
        job: &job,
        entry: job.entry.clone(),
        announced: false,
        retried: false,
        renaming: AtomicBool::new(false),
        progress: Progress::new(id, Arc::clone(&ctx)),
        resumed_from: None,
        verified: None,
        journal: None,
        held: None,
        taken_back: false,
    };
    let status = moving.until_done().await.unwrap_or_else(Status::Failed);
    Outcome {
        id,
        source: job.source.url.clone(),
        destination: job.destination.url.clone(),
        bytes: moving.entry.as_ref().and_then(|entry| entry.size),
        transferred: moving.progress.transferred(),
        resumed_from: moving.resumed_from,
        elapsed: started.elapsed(),
        verified: moving.verified,
        status,
    }
}

/// One job under way.
pub(super) struct Moving<'a> {
    pub(super) ctx: &'a Context,
    pub(super) id: u64,
    pub(super) job: &'a Job,
    pub(super) entry: Option<Entry>,
    pub(super) announced: bool,
    pub(super) retried: bool,
    /// Whether an attempt of this run came to its rename.
    pub(super) renaming: AtomicBool,
    pub(super) progress: Progress,
    pub(super) resumed_from: Option<u64>,
    pub(super) verified: Option<Verified>,
    pub(super) journal: Option<Journal>,
    /// The destination, until the job is through: between two attempts as well, nobody else may write it.
    pub(super) held: Option<Held>,
    /// What an earlier boot left at the final name was found damaged.
    pub(super) taken_back: bool,
}

impl Moving<'_> {
    async fn until_done(&mut self) -> Result<Status> {
        let options = &self.ctx.options;
        let retries = if self.ctx.is_stopped() { 0 } else { options.retries };
        let mut budget = Budget::new(retries, options.retry_wait);
        let mut furthest = 0;
        loop {
            let error = match self.once().await {
                Ok(status) => return Ok(status),
                Err(error) => error,
            };
            if let Some(journal) = &mut self.journal {
                journal.stopped(&error);
            }
            // Another file has tried for all of them.
            if self.ctx.is_stopped() {
                return Err(error);
            }
            let reached = self.journal.as_ref().map_or(0, Journal::kept);
            let Some(wait) = budget.next(&error, reached > furthest) else { return Err(error) };
            furthest = furthest.max(reached);
            self.retried = true;
            if error.kind() == ErrorKind::SourceChanged {
                self.entry = None;
            }
            let attempt = budget.made();
            self.ctx.observer.event(Event::Retrying { id: self.id, attempt, wait, error });
            if !pause(wait, &self.ctx.cancel).await {
                if let Some(journal) = &mut self.journal {
                    journal.stopped(&interrupted());
                }
                return Err(interrupted());
            }
        }
    }

    async fn once(&mut self) -> Result<Status> {
        if self.ctx.cancel.is_cancelled() {
            return Err(interrupted());
        }
        let to = &self.job.destination;
        to.transport.check_path(&to.path)?;
        let listed = self.listed_entry();
        if listed.is_none() {
            self.source_entry().await?;
        }
        if let Some(folder) = self.job.folder.as_ref().filter(|_| !self.ctx.options.dry_run)
            && folder.make(self.ctx).await == Made::Failed
        {
            return Err(Error::new(ErrorKind::NotFound, "its directory could not be made"));
        }
        let existing = existing(&self.job.destination, self.job.folder.as_deref()).await?;
        let entry = match listed.filter(|_| existing.is_none()) {
            Some(listed) => listed,
            None => self.source_entry().await?,
        };
        let skip = reason_to_skip(&entry, existing.as_ref(), self.ctx.options.existing)?;
        let aftermath = match &existing {
            // What a listing said before it was taken back counts no more.
            Some(existing) if !self.taken_back => aftermath::of(self.ctx, self.job, &entry, existing).await?,
            _ => Aftermath::None,
        };
        let skip = skip.filter(|_| !self.taken_back && matches!(aftermath, Aftermath::None));
        if let Some(reason) = skip.filter(|_| self.ctx.options.dry_run || !self.is_left()) {
            aftermath::sync_what_is_fresh(self.ctx, &self.job.destination).await?;
            return Ok(Status::Skipped(reason));
        }
        if self.ctx.options.dry_run {
            return Ok(Status::Planned);
        }
        self.announce(&entry);
        match (self.hold().await, skip) {
            // What was left is in use.
            (Err(_), Some(reason)) => return Ok(Status::Skipped(reason)),
            (held, _) => held?,
        }
        let part = self.part()?;
        if let Aftermath::Lost(journal) = aftermath {
            self.note("a loss of power took some of what was in it: moving that again");
            self.taken_back = true;
            aftermath::take_back(self.ctx, self.job, &part, journal).await?;
        }
        if self.open_journal(&entry)? {
            self.tell_what_is_aside(&part).await;
        }
        self.mark_unsettled();
        if let Some(moved) = self.was_renamed(&entry, existing.as_ref(), &part).await? {
            part::clear(&self.job.destination).await;
            self.succeeded(&moved);
            return Ok(Status::Done);
        }
        if let Some(reason) = skip {
            self.discard(&part).await;
            part::clear(&self.job.destination).await;
            aftermath::sync_what_is_fresh(self.ctx, &self.job.destination).await?;
            return Ok(Status::Skipped(reason));
        }
        let mut journal = self.journal.take();
        let result = self.attempt(&entry, existing.as_ref(), &part, journal.as_mut()).await;
        self.journal = journal;
        match result {
            Ok(moved) => {
                self.succeeded(&moved);
                Ok(Status::Done)
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists && self.ctx.options.existing == Existing::Keep => {
                self.discard(&part).await;
                Ok(Status::Skipped("it appeared meanwhile"))
            }
            Err(e) => Err(self.failed(e, &part).await),
        }
    }

    async fn attempt(
        &self,
        entry: &Entry,
        existing: Option<&Entry>,
        part: &Location,
        journal: Option<&mut Journal>,
    ) -> Result<Moved> {
        let attempt = Attempt {
            ctx: self.ctx,
            id: self.id,
            job: self.job,
            entry,
            existing,
            part,
            retried: self.retried,
            progress: &self.progress,
            renaming: &self.renaming,
        };
        attempt.run(journal).await
    }

    /// Returns what the listing told, where that is enough: all but the time, which comes as the file is opened, and
    /// which nothing but the copy's own time depends on.
    fn listed_entry(&self) -> Option<Entry> {
        let told = self.job.source.transport.capabilities().mtime_on_read && !self.ctx.options.dry_run;
        let entry = self.entry.as_ref().filter(|entry| told && entry.kind == FileKind::File)?;
        let small = entry.size.is_some_and(|size| size <= SMALLEST_BLOCK);
        let coarse = entry.mtime.is_some_and(|mtime| mtime.precision > Precision::Second);
        (small && coarse).then(|| Entry { mtime: None, ..entry.clone() })
    }

    async fn source_entry(&mut self) -> Result<Entry> {
        // A listing by LIST knows times to the minute at best, in an unknown zone: such a time is not to be kept.
        let exact = |entry: &Entry| {
            entry.kind == FileKind::File
                && entry.size.is_some()
                && entry.mtime.is_none_or(|mtime| mtime.precision <= Precision::Second)
        };
        if let Some(entry) = self.entry.as_ref().filter(|entry| exact(entry)) {
            return Ok(entry.clone());
        }
        let source = &self.job.source;
        let mut entry = source.transport.stat(&source.path, Follow::Links).await?;
        if entry.kind == FileKind::Directory {
            return Err(Error::new(ErrorKind::IsADirectory, "is a directory").at(source.shown()));
        }
        if entry.mtime.is_some_and(|mtime| mtime.precision > Precision::Second) {
            entry.mtime = None;
        }
        self.entry = Some(entry.clone());
        Ok(entry)
    }

    fn announce(&mut self, entry: &Entry) {
        if std::mem::replace(&mut self.announced, true) {
            return;
        }
        self.ctx.observer.event(Event::Started {
            id: self.id,
            source: self.job.source.url.clone(),
            destination: self.job.destination.url.clone(),
            size: entry.size,
        });
    }

    fn part(&self) -> Result<Location> {
        let id = self.ctx.transfer_id(&self.job.source.url, &self.job.destination.url);
        Ok(self.job.destination.sibling(part::path_of(&self.job.destination.path, &id)?))
    }

    /// Opens the journal for files that are worth one, or starts it anew when the source is another now; returns whether
    /// an earlier run left one of which nothing is gone on with.
    fn open_journal(&mut self, entry: &Entry) -> Result<bool> {
        let (source, destination) = (&self.job.source.url, &self.job.destination.url);
        let id = self.ctx.transfer_id(source, destination);
        let Some(size) = entry.size.filter(|&size| size > SMALLEST_BLOCK && self.ctx.options.resume) else {
            return Ok(Journal::forget(&self.ctx.journals, &id));
        };
        let head = Head::new(source, destination, entry, size);
        if let Some(mut journal) = self.journal.take().filter(|journal| journal.head == head) {
            journal.again()?;
            self.journal = Some(journal);
            return Ok(false);
        }
        let was_left = Journal::is_left(&self.ctx.journals, &id);
        let below = self.job.destination.transport.held_root();
        let (journal, found) = Journal::open(&self.ctx.journals, &id, head, &self.ctx.options.request, below)?;
        let anew = was_left && journal.kept() == 0;
        self.journal = Some(journal);
        if found == Found::OtherSource {
            self.note("the source is another than when it was interrupted: starting anew");
        }
        Ok(anew)
    }

    /// Remembers, before anything has its name, that a loss of power may take what is in it.
    fn mark_unsettled(&self) {
        if settled::needs_mark(&self.job.destination, self.ctx.options.durability)
            && let Some(error) = self.ctx.unsettled.begin()
        {
            self.note(&format!(
                "a loss of power soon after this run may go unnoticed: can't make a note of it: {error}"
            ));
        }
    }

    pub(super) fn note(&self, text: &str) {
        self.ctx.observer.event(Event::Note { id: self.id, text: text.to_owned() });
    }

    fn succeeded(&mut self, moved: &Moved) {
        if let Some(mut journal) = self.journal.take() {
            let kept = self.ctx.unsettled.kept_journals();
            let needed = settled::needs_mark(&self.job.destination, self.ctx.options.durability);
            match kept.filter(|_| needed) {
                Some(kept) => journal.keep_in(&kept),
                None => journal.remove(),
            }
        }
        if let Some(entry) = &mut self.entry {
            entry.size = Some(moved.bytes);
        }
        self.resumed_from = self.resumed_from.or(moved.resumed_from);
        self.verified = Some(moved.verified);
    }
}

/// Returns why a file need not be moved.
fn reason_to_skip(source: &Entry, existing: Option<&Entry>, policy: Existing) -> Result<Option<&'static str>> {
    let Some(existing) = existing else { return Ok(None) };
    let same_size = source.size.is_some() && source.size == existing.size;
    let times = source.mtime.zip(existing.mtime);
    Ok(match policy {
        Existing::Replace => None,
        Existing::Keep => Some("it is there already"),
        Existing::ReplaceOlder => match times {
            Some((source, existing)) if source.matches(existing) || source.time <= existing.time => {
                Some("it is not older")
            }
            Some(_) => None,
            None => return Err(Error::new(ErrorKind::Unsupported, "the server tells no time to compare")),
        },
        Existing::ReplaceDifferent => {
            let same = existing.kind == FileKind::File && same_size && times.is_some_and(|(a, b)| a.matches(b));
            same.then_some("same size and time")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Mtime;

    fn entry(size: u64, seconds: i64) -> Entry {
        Entry { size: Some(size), mtime: Some(Mtime::from_unix(seconds)), ..Entry::new("x", FileKind::File) }
    }

    #[test]
    fn what_is_skipped() {
        let skip = |existing: &Entry, policy| reason_to_skip(&entry(5, 100), Some(existing), policy).unwrap().is_some();
        assert!(skip(&entry(5, 100), Existing::ReplaceDifferent));
        assert!(!skip(&entry(5, 101), Existing::ReplaceDifferent));
        assert!(!skip(&entry(6, 100), Existing::ReplaceDifferent));
        assert!(!skip(&Entry { mtime: None, ..entry(5, 100) }, Existing::ReplaceDifferent));
        assert!(!skip(&entry(5, 100), Existing::Replace));
        assert!(skip(&entry(6, 100), Existing::ReplaceOlder));
        assert!(!skip(&entry(6, 99), Existing::ReplaceOlder));
        assert!(skip(&entry(6, 99), Existing::Keep));
        assert!(reason_to_skip(&entry(5, 100), None, Existing::Keep).unwrap().is_none());
    }
}

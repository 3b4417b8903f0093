//! What attempts leave: found again by the next run, kept for it, set aside, or removed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attempt::Moved;
use super::job::Moving;
use super::journal::{Head, Journal};
use super::types::{Existing, Location, Verified, Verify};
use super::{part, proof, room, verify};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Entry, FileKind, Follow};

/// How long removing a useless part file may take.
const CLEAN_UP: Duration = Duration::from_secs(5);

impl Moving<'_> {
    /// Takes the destination for as long as the job lasts.
    pub(super) async fn hold(&mut self) -> Result<()> {
        if self.held.is_none() {
            let Location { transport, path, url } = &self.job.destination;
            let place = transport.place(path).await;
            self.held = Some(self.ctx.locks.take(url, place.as_deref())?);
        }
        Ok(())
    }

    /// Returns whether an earlier attempt may have left something.
    pub(super) fn is_left(&self) -> bool {
        let id = self.ctx.transfer_id(&self.job.source.url, &self.job.destination.url);
        self.renaming.load(Ordering::Relaxed) || Journal::is_left(&self.ctx.journals, &id)
    }

    /// Finds out whether an earlier attempt came to its very end, and only the answer to the rename was lost: all was
    /// written down, the part is gone, and what has the final name is what was moved.
    pub(super) async fn was_renamed(
        &mut self,
        entry: &Entry,
        existing: Option<&Entry>,
        part: &Location,
    ) -> Result<Option<Moved>> {
        let there = existing.filter(|there| there.kind == FileKind::File && there.size.is_some());
        let Some(there) = there.filter(|there| there.size == entry.size) else { return Ok(None) };
        let all_moved =
            self.renaming.load(Ordering::Relaxed) || self.journal.as_ref().is_some_and(Journal::is_complete);
        if !all_moved {
            return Ok(None);
        }
        match part.transport.stat(&part.path, Follow::Nothing).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // It has not been renamed; what is wrong with it will show.
            _ => return Ok(None),
        }
        let (source, destination) = (&self.job.source, &self.job.destination);
        let mut verified = Verified::Size;
        if let Some(journal) = &mut self.journal {
            if proof::prove(source, destination, journal).await? < journal.head.size {
                return Ok(None);
            }
            verified = Verified::Overlap;
        }
        let moved = |verified| Ok(Some(Moved { bytes: there.size.unwrap_or(0), resumed_from: None, verified }));
        // With --force, what was there before may have had the same size and time.
        let forced = self.ctx.options.existing == Existing::Replace;
        let same_time = entry.mtime.zip(there.mtime).is_some_and(|(a, b)| a.matches(b));
        if same_time && !forced && self.ctx.options.verify != Verify::Digest {
            return moved(verified);
        }
        match verify::digests_alike(source, destination).await {
            Ok(algorithm) => moved(Verified::Digest(algorithm)),
            Err(e) if e.kind() == ErrorKind::VerifyFailed || e.kind() == ErrorKind::Unsupported => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Says that an earlier run of this transfer ended with something else than what was sent, where that is so.
    pub(super) async fn tell_what_is_aside(&self, part: &Location) {
        let Ok(aside) = part::aside_of(part) else { return };
        if aside.transport.stat(&aside.path, Follow::Nothing).await.is_ok() {
            self.note(&format!(
                "what arrived before was not what was sent, and is kept as {}: starting anew",
                aside.path
            ));
        }
    }

    pub(super) async fn failed(&mut self, error: Error, part: &Location) -> Error {
        if error.kind() == ErrorKind::VerifyFailed {
            return self.set_aside(error, part).await;
        }
        // Nothing that a later attempt could use: leave no trace. A lost connection has no way to do that.
        let reached = self.journal.as_ref().map_or(0, Journal::kept);
        if reached == 0 && !error.kind().is_retryable() {
            self.discard(part).await;
        }
        let needed = self.entry.as_ref().and_then(|entry| entry.size).map(|size| size.saturating_sub(reached));
        let (kept, part_path) = (Some(part).filter(|_| reached > 0), &part.path);
        let error = room::advise(error, self.ctx, self.job, needed, kept);
        match (error.kind(), kept) {
            // What is in the way is to be put out of the way; nothing is left that no message names.
            (
                ErrorKind::PermissionDenied
                | ErrorKind::ReadOnly
                | ErrorKind::IsADirectory
                | ErrorKind::NotADirectory
                | ErrorKind::NotFound
                | ErrorKind::Other,
                Some(part),
            ) => error.with_hint(format!(
                "what arrived is kept as {}; once this is put right, the same command goes on with it",
                part.path
            )),
            (ErrorKind::AlreadyExists | ErrorKind::IsADirectory, None) => error.with_hint(format!(
                "should something be in the place of {part_path}, where haul writes until the file is complete: remove it"
            )),
            _ => error,
        }
    }

    /// Keeps what isn't what was sent for a look; a journal without blocks tells of it.
    async fn set_aside(&mut self, error: Error, part: &Location) -> Error {
        let kept = tokio::time::timeout(CLEAN_UP, part::set_aside(part)).await;
        if let Err(e) = self.tell_in_journal(&error) {
            tracing::debug!("no journal tells of it: {}", e.chain());
        }
        error.with_hint(match kept {
            Ok(Ok(aside)) => format!("what arrived is kept as {} for a look; the next run starts anew", aside.path),
            Ok(Err(e)) => format!("what arrived could not be set aside ({}); the next run starts anew", e.chain()),
            Err(_) => "what arrived could not be set aside in time; the next run starts anew".into(),
        })
    }

    /// Leaves a journal of which nothing can be gone on with, and which says why.
    fn tell_in_journal(&mut self, error: &Error) -> Result<()> {
        let mut journal = match (self.journal.take(), &self.entry) {
            (Some(journal), _) => journal,
            (None, Some(Entry { size: Some(size), .. })) if self.ctx.options.resume => self.begin_journal(*size)?,
            _ => return Ok(()),
        };
        journal.retain(|_, _| false)?;
        journal.stopped(error);
        Ok(())
    }

    fn begin_journal(&self, size: u64) -> Result<Journal> {
        let (source, destination) = (&self.job.source, &self.job.destination);
        let Some(entry) = &self.entry else { return Err(ErrorKind::Other.into()) };
        let id = self.ctx.transfer_id(&source.url, &destination.url);
        let head = Head::new(&source.url, &destination.url, entry, size);
        let below = destination.transport.held_root();
        Journal::open(&self.ctx.journals, &id, head, &self.ctx.options.request, below).map(|(journal, _)| journal)
    }

    pub(super) async fn discard(&mut self, part: &Location) {
        if let Some(journal) = self.journal.take() {
            journal.remove();
        }
        let _ = tokio::time::timeout(CLEAN_UP, part.transport.remove_file(&part.path)).await;
    }
}

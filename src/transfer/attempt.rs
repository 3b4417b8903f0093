//! One try at moving one file: part opened, copied, finished, verified, renamed into place.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Algorithm, Durability, Entry, FileKind, Finish, Follow, RemotePath, Replace, SetMetadata};

use super::copy::Progress;
use super::journal::{Journal, SMALLEST_BLOCK};
use super::run::Context;
use super::streams::Streams;
use super::types::{Event, Existing, Job, Location, Verified, Verify};
use super::{displaced, part, proof, taken, verify, within};

/// One try and what it needs.
pub(super) struct Attempt<'a> {
    pub(super) ctx: &'a Context,
    pub(super) id: u64,
    pub(super) job: &'a Job,
    /// The source as it is now.
    pub(super) entry: &'a Entry,
    /// What is at the final name now.
    pub(super) existing: Option<&'a Entry>,
    pub(super) part: &'a Location,
    /// Whether an earlier attempt of this run failed.
    pub(super) retried: bool,
    pub(super) progress: &'a Progress,
    /// Set once the part may have got the final name, whatever is heard of that.
    pub(super) renaming: &'a AtomicBool,
}

/// What a try achieved.
pub(super) struct Moved {
    pub(super) bytes: u64,
    pub(super) resumed_from: Option<u64>,
    pub(super) verified: Verified,
}

impl Attempt<'_> {
    pub(super) async fn run(&self, mut journal: Option<&mut Journal>) -> Result<Moved> {
        if self.ctx.options.verify == Verify::Digest && self.algorithms().is_empty() {
            // Better said before all of it is moved.
            return Err(verify::none(&self.job.source, self.part));
        }
        let kept = self.prove(journal.as_deref_mut()).await?;
        let last = Finish { durability: self.ctx.options.durability, metadata: self.metadata() };
        let (bytes, finished) = match within::copy(self, kept, last).await? {
            Some(copied) => copied,
            None => match Streams::new(self, journal).run(kept, last).await {
                Err(e) if kept > 0 => return Err(self.or_removed(e).await),
                copied => copied?,
            },
        };
        if let Err(e) = finished.metadata {
            self.note(&format!("time and mode are not kept: {}", e.chain()));
        }
        self.source_is_unchanged(bytes).await?;
        verify::size_is(self.part, bytes, finished.size).await?;
        if finished.size.is_some() && bytes > SMALLEST_BLOCK && !self.part.transport.capabilities().local {
            // By its name as well: another file may be in its place by now, and would get the final one.
            verify::size_is(self.part, bytes, None).await?;
        }
        let verified = self.verify(kept > 0).await?;
        self.commit().await?;
        if self.retried || kept > 0 {
            part::clear(&self.job.destination).await;
        }
        Ok(Moved { bytes, resumed_from: Some(kept).filter(|&kept| kept > 0), verified })
    }

    /// Returns how many bytes of an earlier transfer are proven and kept.
    async fn prove(&self, journal: Option<&mut Journal>) -> Result<u64> {
        let Some(journal) = journal.filter(|journal| journal.kept() > 0) else { return Ok(0) };
        let kept = proof::prove(&self.job.source, self.part, journal).await?;
        if kept == 0 {
            self.note("what was there of an earlier transfer could not be proven: starting anew");
        } else {
            self.ctx.observer.event(Event::Resumed { id: self.id, offset: kept });
        }
        Ok(kept)
    }

    /// A source that changes while it is read gives a file that never existed; worth a question where there was time.
    async fn source_is_unchanged(&self, bytes: u64) -> Result<()> {
        if bytes <= SMALLEST_BLOCK {
            return Ok(());
        }
        let now = self.job.source.transport.stat(&self.job.source.path, Follow::Links).await?;
        let same_time = match (now.mtime, self.entry.mtime) {
            (Some(now), Some(then)) => now.matches(then),
            _ => true,
        };
        if now.size.is_none_or(|size| size == bytes) && same_time {
            return Ok(());
        }
        Err(Error::new(ErrorKind::SourceChanged, "the source changed while it was read").at(self.job.source.shown()))
    }

    async fn verify(&self, resumed: bool) -> Result<Verified> {
        let by_size = if resumed { Verified::Overlap } else { Verified::Size };
        let doubtful = resumed || self.retried;
        let wanted = self.ctx.options.verify;
        if wanted == Verify::Size || (wanted == Verify::Auto && !doubtful) {
            return Ok(by_size);
        }
        let (source, part) = (&self.job.source, self.part);
        match verify::digests_match(source, part, &self.algorithms()).await {
            Ok(algorithm) => Ok(Verified::Digest(algorithm)),
            Err(e) if wanted == Verify::Digest || e.kind() == ErrorKind::VerifyFailed => Err(e),
            Err(e) => {
                if e.kind() != ErrorKind::Unsupported {
                    self.note(&format!("no digest: {}", e.chain()));
                }
                Ok(by_size)
            }
        }
    }

    /// Returns the digests by which it can be proven, as far as the servers tell before they are asked.
    fn algorithms(&self) -> Vec<Algorithm> {
        verify::common_algorithms(&self.job.source.transport.capabilities(), &self.part.transport.capabilities())
    }

    /// Returns what to set on the part, so that the file has it from the instant it appears.
    fn metadata(&self) -> SetMetadata {
        let capabilities = self.part.transport.capabilities();
        SetMetadata {
            mtime: self.entry.mtime.filter(|_| capabilities.set_mtime.is_some()).map(|mtime| mtime.time),
            mode: self.final_mode().filter(|_| capabilities.set_mode),
        }
    }

    async fn commit(&self) -> Result<()> {
        let (from, destination) = (self.part, &self.job.destination);
        let keep = self.ctx.options.existing == Existing::Keep;
        let durability = self.ctx.options.durability;
        let rename = |replace| from.transport.rename(&from.path, &destination.path, replace, durability);
        // Where nothing was, nothing is written over: what is there after all may be a file of another name.
        let local = from.transport.capabilities().local;
        let is_new = local && self.existing.is_none();
        let replace = if keep || is_new { Replace::No } else { Replace::Yes };
        let gives_way = self.existing.is_some_and(|existing| existing.kind == FileKind::Directory);
        let backup = self.ctx.options.backup.as_ref().filter(|_| self.existing.is_some() && !keep && !gives_way);
        let backed_up = match backup {
            Some(backup) => backup.take(destination, destination).await?,
            None => None,
        };
        if gives_way {
            // Only now that the file is complete. Whoever planned this clears it away, once all is well.
            displaced::displace(destination).await?;
        }
        self.renaming.store(true, Ordering::Relaxed);
        match rename(replace).await {
            Err(e) if gives_way => return Err(displaced::put_back_after(destination, e).await),
            Err(e) if backed_up.is_some() => return Err(self.put_back(backed_up, e).await),
            Err(e) if local && e.kind() == ErrorKind::AlreadyExists => {
                taken::by_its_own_name(destination).await?;
                if keep {
                    return Err(e);
                }
                rename(Replace::Yes).await?;
            }
            Err(e) => return Err(self.or_removed(e).await),
            Ok(()) => {}
        }
        if durability == Durability::Synced && !from.transport.capabilities().fsync {
            self.note("the server has no fsync: whether the file survives a loss of power is up to it");
        }
        Ok(())
    }

    /// Gives what was backed up its name again, since the new file did not get it.
    async fn put_back(&self, backed_up: Option<RemotePath>, error: Error) -> Error {
        let (Some(from), to) = (backed_up, &self.job.destination) else { return error };
        match to.transport.rename(&from, &to.path, Replace::No, Durability::Cached).await {
            Ok(()) => error,
            Err(_) => error.with_hint(format!("what was there before is {from} now")),
        }
    }

    /// Tells an error with a part that was there from one that is worth another attempt, since the part is gone: a
    /// server may remove what a lost connection left once it notices, though another one goes on with it.
    async fn or_removed(&self, error: Error) -> Error {
        let stat = || self.part.transport.stat(&self.part.path, Follow::Nothing);
        match error.kind() {
            ErrorKind::NotFound if stat().await.is_err_and(|e| e.kind() == ErrorKind::NotFound) => {
                error.context("the part file was removed meanwhile").with_kind(ErrorKind::Busy)
            }
            _ => error,
        }
    }

    /// The mode to make the part with.
    pub(super) fn mode_to_create(&self) -> Option<u32> {
        // Here the part is nobody else's to read until it is complete; there the server's umask has a say in the
        // final mode, which only making the file with it brings out.
        if self.part.transport.capabilities().local { Some(0o600) } else { self.entry.mode.map(|mode| mode & 0o777) }
    }

    /// The mode of the finished file, as `cp` chooses it; never setuid, setgid or sticky.
    fn final_mode(&self) -> Option<u32> {
        let source = self.entry.mode.map(|mode| mode & 0o777);
        // Where nobody tells the source's, it is as without -p.
        if self.ctx.options.preserve_mode && source.is_some() {
            return source;
        }
        if let Some(existing) = self.existing.filter(|e| e.kind == FileKind::File) {
            return existing.mode.map(|mode| mode & 0o777);
        }
        let local = self.part.transport.capabilities().local;
        local.then(|| source.unwrap_or(0o666) & !self.ctx.umask)
    }

    fn note(&self, text: &str) {
        self.ctx.observer.event(Event::Note { id: self.id, text: text.to_owned() });
    }
}

//! What a loss of power left of files that an earlier boot wrote: proven before they are believed.

use crate::error::Result;
use crate::transport::{Durability, Entry, FileKind, Replace, SetMetadata};

use super::folder::sync_parent;
use super::journal::{Head, Journal};
use super::proof;
use super::run::Context;
use super::settled::{is_fresh, may_have_lost_content, settle};
use super::types::{Existing, Job, Location};

/// What became of a file that has its final name.
pub(super) enum Aftermath {
    /// Nothing was lost, as far as anybody can tell.
    None,
    /// It isn't whole; the journal tells what is right in it.
    Lost(Option<Box<Journal>>),
}

/// Returns whether what is there is what an earlier boot wrote and lost.
pub(super) async fn of(ctx: &Context, job: &Job, source: &Entry, existing: &Entry) -> Result<Aftermath> {
    let at = &job.destination;
    let policy = ctx.options.existing;
    // To leave what is there, or to replace it, whatever it is: that is what the user asked for.
    if matches!(policy, Existing::Keep | Existing::Replace) || existing.kind != FileKind::File {
        return Ok(Aftermath::None);
    }
    // A file that haul wrote has the source's time; another is not its business.
    let same_time = source.mtime.zip(existing.mtime).is_some_and(|(a, b)| a.matches(b));
    if !same_time || !ctx.unsettled.doubts(at) {
        return Ok(Aftermath::None);
    }
    let journal = find_journal(ctx, job, source);
    let is_whole = source.size == existing.size
        && match &journal {
            Some(journal) => journal.missing().is_empty() && proof::damaged(at, journal).await?.is_empty(),
            None => !may_have_lost_content(at).await?,
        };
    if !is_whole {
        return Ok(Aftermath::Lost(journal.map(Box::new)));
    }
    if !ctx.options.dry_run {
        settle(at, existing.mtime.map(|mtime| mtime.time)).await;
        if let Some(journal) = journal {
            journal.remove();
        }
    }
    Ok(Aftermath::None)
}

/// Makes of a damaged file the part that it was, and of its journal that of the transfer: what is right in it need not
/// be moved again. Without a journal it stays where it is until another is complete.
pub(super) async fn take_back(ctx: &Context, job: &Job, part: &Location, journal: Option<Box<Journal>>) -> Result<()> {
    let (Some(mut journal), true) = (journal, ctx.options.resume) else { return Ok(()) };
    let at = &job.destination;
    let writable = SetMetadata { mode: Some(0o600), mtime: None };
    at.transport.set_metadata(&at.path, writable).await?;
    at.transport.rename(&at.path, &part.path, Replace::Yes, Durability::Cached).await?;
    journal.keep_in(&ctx.journals);
    Ok(())
}

/// The journal that was kept, or, where the power failed between two renames, that of the transfer.
fn find_journal(ctx: &Context, job: &Job, source: &Entry) -> Option<Journal> {
    let (from, to) = (&job.source.url, &job.destination.url);
    let id = ctx.transfer_id(from, to);
    let head = Head::new(from, to, source, source.size?);
    let mut folders = ctx.unsettled.earlier_journals().chain([ctx.journals.as_path()]);
    folders.find_map(|folder| Journal::find(folder, &id, &head))
}

/// With `--durable`, what is there already is to survive as well; what is older reached the disk by itself.
pub(super) async fn sync_what_is_fresh(ctx: &Context, at: &Location) -> Result<()> {
    let wanted = ctx.options.durability == Durability::Synced && !ctx.options.dry_run;
    if !wanted || !at.transport.capabilities().local || !is_fresh(at) {
        return Ok(());
    }
    at.transport.sync(&at.path).await?;
    sync_parent(ctx, at).await
}

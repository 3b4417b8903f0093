//! One directory, taken whole and in order.

use futures_util::StreamExt;

use crate::error::{Error, ErrorKind, Result};
use crate::plan::filter::Scope;
use crate::plan::walk::{Listing, Retries};
use crate::transfer::{Budget, Location};
use crate::transport::Entry;

/// No honest directory has more entries; a listing without end is not taken.
const MOST_ENTRIES: usize = 8_000_000;

/// An entry, and whether the filter takes it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) entry: Entry,
    pub(super) taken: bool,
}

/// What a directory of the left tree holds.
pub(super) struct Filtered {
    /// Sorted by name.
    pub(super) entries: Vec<Seen>,
    /// The filter's scope with the directory's own patterns.
    pub(super) scope: Scope,
    /// What a list of paths names and isn't to be had.
    pub(super) missing: Vec<(String, Error)>,
}

/// Lists a directory of the left tree as a filter has it. A broken connection is tried again.
pub(super) async fn filtered(at: &Location, scope: Scope, retries: Retries) -> Result<Filtered> {
    let mut listing = Listing::new(at.clone(), scope, retries);
    let mut entries = Vec::new();
    let scope = listing.scope().await?.clone();
    while let Some(found) = listing.next().await? {
        entries.push(Seen { entry: found.entry, taken: found.taken });
        refuse_endless(at, entries.len())?;
    }
    entries.sort_unstable_by(|a, b| a.entry.name.cmp(&b.entry.name));
    Ok(Filtered { entries, scope, missing: listing.take_missing() })
}

/// Lists a directory of the right tree, sorted by name, each name once. A broken connection is tried again.
pub(crate) async fn whole(at: &Location, mut budget: Budget) -> Result<Vec<Entry>> {
    let mut longest = 0;
    loop {
        let mut entries = Vec::new();
        let Err(error) = fill(at, &mut entries).await else {
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            entries.dedup_by(|a, b| a.name == b.name);
            return Ok(entries);
        };
        let progressed = entries.len() > longest;
        longest = longest.max(entries.len());
        let Some(wait) = budget.next(&error, progressed) else { return Err(error) };
        tracing::info!("listing {} again in {wait:?}: {}", at.shown(), error.chain());
        tokio::time::sleep(wait).await;
    }
}

async fn fill(at: &Location, entries: &mut Vec<Entry>) -> Result<()> {
    let mut listing = at.transport.list(&at.path).await?;
    while let Some(entry) = listing.next().await {
        entries.push(entry?);
        refuse_endless(at, entries.len())?;
    }
    Ok(())
}

fn refuse_endless(at: &Location, entries: usize) -> Result<()> {
    match entries > MOST_ENTRIES {
        true => Err(Error::new(ErrorKind::Other, "the directory has too many entries").at(at.shown())),
        false => Ok(()),
    }
}

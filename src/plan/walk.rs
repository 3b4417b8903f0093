//! Walking a tree at an endpoint, one directory at a time.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use futures_util::StreamExt;

use crate::error::Result;
use crate::transfer::{Budget, Location, is_part_name};
use crate::transport::{Entry, EntryStream};

/// The entries of one directory, each once; a broken connection is tried again. haul's own part files are left out.
///
/// Memory: eight bytes for each name of this one directory.
pub(super) struct Listing<'a> {
    dir: &'a Location,
    budget: Budget,
    entries: Option<EntryStream>,
    seen: HashSet<u64>,
    hashes: RandomState,
    seen_before: usize,
}

impl<'a> Listing<'a> {
    pub(super) fn new(dir: &'a Location, budget: Budget) -> Self {
        Self { dir, budget, entries: None, seen: HashSet::new(), hashes: RandomState::new(), seen_before: 0 }
    }

    /// Returns the next entry, or `None` at the end of a complete listing.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            let error = match self.step().await {
                Ok(Some(entry)) if is_part_name(&entry.name) => continue,
                Ok(Some(entry)) if !self.seen.insert(self.hashes.hash_one(&entry.name)) => continue,
                Ok(entry) => return Ok(entry),
                Err(error) => error,
            };
            self.entries = None;
            let progressed = self.seen.len() > self.seen_before;
            self.seen_before = self.seen.len();
            let Some(wait) = self.budget.next(&error, progressed) else { return Err(error) };
            tracing::info!("listing {} again in {wait:?}: {}", self.dir.shown(), error.chain());
            tokio::time::sleep(wait).await;
        }
    }

    async fn step(&mut self) -> Result<Option<Entry>> {
        let entries = match &mut self.entries {
            Some(entries) => entries,
            none => none.insert(self.dir.transport.list(&self.dir.path).await?),
        };
        entries.next().await.transpose()
    }
}

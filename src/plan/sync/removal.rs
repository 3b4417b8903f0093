//! Deleting what the source doesn't have: from the bottom up, through no link, and never what is to stay.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::changes::{Change, Stage, Teller, What};
use super::guard::{Guard, Says, are_directories, ends};
use super::spool::{Backwards, Record, Spool};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::compare::{Comparing, below};
use crate::transfer::{Backup, Location, displaced};
use crate::transport::FileKind;

/// Files that are deleted at once.
const AT_ONCE: usize = 64;

/// What was deleted.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) deleted: u64,
    pub(super) failed: u64,
}

/// Which directories of the destination are what they seem. Some FTP servers list a link to a directory as one.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<Vec<u8>, bool>>);

/// A deletion, or the count of it.
pub(super) struct Removal<'a> {
    pub(super) root: &'a Location,
    pub(super) backup: Option<&'a Backup>,
    /// Files that were renamed: they are not there any more.
    pub(super) gone: &'a HashSet<Vec<u8>>,
    /// What this run put under new names.
    pub(super) written: &'a Spool,
    pub(super) comparing: &'a Comparing,
    pub(super) tell: &'a Teller,
    pub(super) links: &'a Known,
    /// The paths of what was put out of the way: it, and what is in it, goes by that path all the same.
    pub(super) displaced: Option<&'a HashSet<Vec<u8>>>,
}

/// What is to be deleted, one after the other, what is in a directory before the directory.
struct Walk<'a> {
    removal: &'a Removal<'a>,
    records: Backwards<'a>,
    /// Directories with something in them that stays.
    stays: HashSet<Vec<u8>>,
}

impl Removal<'_> {
    /// Counts what would be deleted.
    pub(super) async fn count(&self, spool: &Spool) -> Result<u64> {
        let mut walk = Walk { removal: self, records: spool.backwards(), stays: HashSet::new() };
        let mut count = 0;
        while walk.next().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Tells where nothing of it may be deleted, and returns how many such places there are.
    pub(super) async fn doubts(&self, spool: &Spool) -> Result<u64> {
        let mut guard = Guard::new(self.root, self.comparing, self.written, spool)?;
        let mut doubts = 0;
        for record in spool.backwards() {
            if let Says::No(Some((at, error))) = guard.ask(parent(&record?.path)).await {
                doubts += 1;
                self.tell.fail(at, error);
            }
        }
        Ok(doubts)
    }

    /// Deletes it, or tells what would be deleted. What fails doesn't keep the rest from being deleted.
    pub(super) async fn run(&self, spool: &Spool) -> Result<Removed> {
        let mut walk = Walk { removal: self, records: spool.backwards(), stays: HashSet::new() };
        let mut removed = Removed::default();
        let mut guard = Guard::new(self.root, self.comparing, self.written, spool)?;
        // What was put out of the way was looked at while it had its name.
        if self.displaced.is_none() {
            self.links.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        let streams = self.root.transport.capabilities();
        let at_once = AT_ONCE.min(streams.streams.saturating_mul(streams.max_connections)).max(1);
        let mut under_way = FuturesUnordered::new();
        loop {
            let next = if self.tell.is_cancelled() { None } else { walk.next().await? };
            let waits = next.as_ref().is_none_or(|(_, what)| *what == What::DeleteDirectory);
            while !under_way.is_empty() && (waits || under_way.len() >= at_once) {
                if let Some(done) = under_way.next().await {
                    self.note(&mut walk, &mut removed, done);
                }
            }
            if let Some((record, _)) = next.as_ref().filter(|_| !self.tell.dry_run && self.displaced.is_none())
                && let Says::No(why) = guard.ask(parent(&record.path)).await
            {
                walk.stay(&record.path);
                if let Some((at, error)) = why {
                    removed.failed += 1;
                    self.tell.fail(at, error);
                }
                continue;
            }
            match next {
                None => return Ok(removed),
                Some((record, What::DeleteDirectory)) if walk.stays.contains(&record.path) => walk.stay(&record.path),
                Some((record, What::DeleteDirectory)) => {
                    let done = self.remove(record, What::DeleteDirectory).await;
                    self.note(&mut walk, &mut removed, done);
                }
                Some((record, what)) => under_way.push(self.remove(record, what)),
            }
        }
    }

    fn note(&self, walk: &mut Walk<'_>, removed: &mut Removed, (record, what, done): (Record, What, Result<Location>)) {
        match done {
            Ok(at) => {
                removed.deleted += 1;
                let bytes = record.entry.and_then(|entry| entry.size).filter(|_| what == What::Delete);
                let (destination, stage) = (at.url, Stage::Done);
                self.tell.change(Change { what, path: record.path, source: None, destination, bytes, stage });
            }
            Err(error) => {
                removed.failed += 1;
                walk.stay(&record.path);
                let url = below(self.root, &record.path).map_or_else(|_| self.root.url.clone(), |at| at.url);
                self.tell.fail(url, error.context("delete"));
            }
        }
    }

    async fn remove(&self, record: Record, what: What) -> (Record, What, Result<Location>) {
        let done = self.remove_at(&record, &what).await;
        (record, what, done)
    }

    async fn remove_at(&self, record: &Record, what: &What) -> Result<Location> {
        let known_as = below(self.root, &record.path)?;
        if self.tell.dry_run {
            return Ok(known_as);
        }
        let at = self.place(&record.path)?;
        let result = match (what, self.backup) {
            (What::DeleteDirectory, _) => at.transport.remove_dir(&at.path).await,
            (_, Some(backup)) => backup.take(&at, &known_as).await.map(drop),
            (_, None) => at.transport.remove_file(&at.path).await,
        };
        match result {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(known_as),
        }
    }

    /// Returns where something is now.
    fn place(&self, path: &[u8]) -> Result<Location> {
        let ends = (0..path.len()).filter(|&i| path[i] == b'/').chain([path.len()]);
        let aside = self.displaced.and_then(|displaced| ends.into_iter().find(|&end| displaced.contains(&path[..end])));
        match aside {
            Some(end) => below(&displaced(&below(self.root, &path[..end])?)?, &path[end..]),
            None => below(self.root, path),
        }
    }

    /// Returns whether a directory of the destination, or one on the way to it, is a link in truth: what is below lies
    /// elsewhere.
    pub(super) async fn leads_elsewhere(&self, path: &[u8]) -> Result<bool> {
        let capabilities = self.root.transport.capabilities();
        if capabilities.local || capabilities.symlinks || path.is_empty() {
            return Ok(false);
        }
        for end in ends(path, false) {
            if self.is_link(&path[..end]).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fails unless what is in a directory, as far as can be told now, lies in the destination.
    pub(super) async fn stays_inside(&self, directory: &[u8]) -> Result<()> {
        if self.leads_elsewhere(directory).await? {
            return Err(Error::new(ErrorKind::NotADirectory, "a link on the way leads elsewhere"));
        }
        are_directories(self.root, directory).await
    }

    async fn is_link(&self, path: &[u8]) -> Result<bool> {
        let known = self.links.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let at = below(self.root, path)?;
        let is_link = match at.transport.read_link(&at.path).await {
            Err(e) if matches!(e.kind(), ErrorKind::InvalidPath | ErrorKind::NotFound) => false,
            // Not to be told apart: then it is left alone.
            Ok(_) | Err(Error { .. }) => true,
        };
        self.links.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_vec(), is_link);
        Ok(is_link)
    }
}

impl Walk<'_> {
    async fn next(&mut self) -> Result<Option<(Record, What)>> {
        while let Some(record) = self.records.next().transpose()? {
            let Some(entry) = &record.entry else {
                self.stay(&record.path);
                continue;
            };
            if self.removal.gone.contains(&record.path) {
                continue;
            }
            if self.removal.leads_elsewhere(parent(&record.path)).await? {
                continue;
            }
            let is_dir = entry.kind == FileKind::Directory;
            if !is_dir || self.removal.leads_elsewhere(&record.path).await? {
                return Ok(Some((record, What::Delete)));
            }
            if self.stays.contains(&record.path) {
                self.stay(&record.path);
                continue;
            }
            return Ok(Some((record, What::DeleteDirectory)));
        }
        Ok(None)
    }

    /// What is at this path stays, and so does the directory that holds it.
    fn stay(&mut self, path: &[u8]) {
        self.stays.remove(path);
        self.stays.insert(parent(path).to_vec());
    }
}

/// Returns the path of the directory that holds this one.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| b == b'/').map_or(&[], |slash| &path[..slash])
}

//! Before something is deleted in a directory: whether it and those above are still directories, and whether all that this
//! run wrote into them is called there what it was called here.

use std::collections::{HashMap, HashSet};

use super::removal::parent;
use super::spool::Spool;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::compare::{Comparing, below, whole};
use crate::transfer::{Budget, Location};
use crate::transport::{FileKind, Follow};

/// Says where may be deleted.
///
/// A server that folds names (by case, by Unicode, by a dot at the end) lists what was written under another name, which
/// then looks like something that the source doesn't have. Which foldings there are need not be known: where a name that
/// was written is not in the listing, nothing is deleted.
pub(super) struct Guard<'a> {
    root: &'a Location,
    comparing: &'a Comparing,
    /// The names that were written, by directory, as far as something below it may be deleted.
    written: HashMap<Vec<u8>, HashSet<Vec<u8>>>,
    /// Directories that were listed again, and whether all was there.
    sure: HashMap<Vec<u8>, bool>,
    /// The directory that was asked for last, and what came out: it counts until another one is asked for.
    last: Option<(Vec<u8>, bool)>,
}

/// Whether something may be deleted in a directory.
pub(super) enum Says {
    Yes,
    /// With the reason, and where, unless that was said before.
    No(Option<(String, Error)>),
}

impl<'a> Guard<'a> {
    pub(super) fn new(root: &'a Location, comparing: &'a Comparing, written: &Spool, doomed: &Spool) -> Result<Self> {
        let mut names: HashMap<Vec<u8>, HashSet<Vec<u8>>> = HashMap::new();
        if written.count() > 0 {
            for record in doomed.backwards() {
                let mut path = record?.path;
                while !path.is_empty() {
                    path.truncate(parent(&path).len());
                    if names.contains_key(&path) {
                        break;
                    }
                    names.insert(path.clone(), HashSet::new());
                }
            }
            for record in written.backwards() {
                let path = record?.path;
                if let Some(names) = names.get_mut(parent(&path)).filter(|_| !path.is_empty()) {
                    names.insert(path.rsplit(|&b| b == b'/').next().unwrap_or_default().to_vec());
                }
            }
        }
        Ok(Self { root, comparing, written: names, sure: HashMap::new(), last: None })
    }

    /// Asks for a directory, right before something in it is deleted.
    pub(super) async fn ask(&mut self, directory: &[u8]) -> Says {
        if let Some((_, said)) = self.last.as_ref().filter(|(last, _)| last == directory) {
            return if *said { Says::Yes } else { Says::No(None) };
        }
        let asked = self.look(directory).await;
        self.last = Some((directory.to_vec(), matches!(asked, Says::Yes)));
        asked
    }

    async fn look(&mut self, directory: &[u8]) -> Says {
        if let Err(error) = are_directories(self.root, directory).await {
            let at = below(self.root, directory).map_or_else(|_| self.root.url.clone(), |at| at.url);
            return Says::No(Some((at, error)));
        }
        // What lies in a directory may lie in another one, too, if the name of one above it is folded.
        for end in ends(directory, true) {
            let above = &directory[..end];
            match self.sure.get(above) {
                Some(true) => continue,
                Some(false) => return Says::No(None),
                None => {}
            }
            let failure = self.list_again(above).await;
            self.sure.insert(above.to_vec(), failure.is_none());
            if failure.is_some() {
                return Says::No(failure);
            }
        }
        Says::Yes
    }

    /// Returns which of the names that were written into a directory isn't there.
    async fn list_again(&self, directory: &[u8]) -> Option<(String, Error)> {
        let written = self.written.get(directory).filter(|written| !written.is_empty())?;
        let at = match below(self.root, directory) {
            Ok(at) => at,
            Err(error) => return Some((self.root.url.clone(), error)),
        };
        let budget = Budget::new(self.comparing.retries, self.comparing.retry_wait);
        let entries = match whole(&at, budget).await {
            Ok(entries) => entries,
            Err(error) => return Some((at.url, error.context("look again before deleting"))),
        };
        // Sorted by name.
        let is_there = |name: &[u8]| entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).is_ok();
        let missing = written.iter().filter(|name| !is_there(name)).min()?;
        let url = at.child(missing).map_or(at.url, |at| at.url);
        let text = "its directory doesn't list it under this name after it was written: nothing is deleted there";
        let error = Error::new(ErrorKind::Other, text).with_hint(
            "the names differ by case, accents or a dot or space at the end, say; rename it at one of the ends",
        );
        Some((url, error))
    }
}

/// Fails if a directory below the root, or one on the way to it, has become a link where the server alone finds paths.
pub(super) async fn are_directories(root: &Location, directory: &[u8]) -> Result<()> {
    if root.transport.held_root().is_some() || !root.transport.capabilities().symlinks {
        return Ok(());
    }
    for end in ends(directory, false) {
        let at = below(root, &directory[..end])?;
        match at.transport.stat(&at.path, Follow::Nothing).await {
            Ok(entry) if entry.kind == FileKind::Directory => {}
            // Then nothing is in it, either.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Ok(_) => {
                let text = "is no directory any more, and may lead elsewhere: nothing is deleted or renamed in it";
                return Err(Error::new(ErrorKind::NotADirectory, text).at(at.shown()));
            }
            Err(error) => return Err(error.context("look again before deleting")),
        }
    }
    Ok(())
}

/// Returns where the directories on the way to one end in its path, itself included; the root's first, if wanted.
pub(super) fn ends(path: &[u8], with_root: bool) -> impl Iterator<Item = usize> + '_ {
    let inner = (0..path.len()).filter(|&i| path[i] == b'/').chain((!path.is_empty()).then_some(path.len()));
    with_root.then_some(0).into_iter().chain(inner)
}

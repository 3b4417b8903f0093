//! A directory that files are put into: made once, whoever needs it first, and remembered for what is in it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use super::retry::{Budget, pause};
use super::run::Context;
use super::taken;
use super::types::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Durability, Entry, FileKind, Follow, Precision};

/// Of a longer listing only the names' hashes are kept: each file that is there is looked at by itself.
const LONGEST_LISTING: usize = 20_000;
/// Of a listing without end nothing is kept.
const MOST_NAMES: usize = 4_000_000;

/// A directory to make unless it is there. Shared by all that goes into it, which may start in any order.
pub struct Folder {
    at: Location,
    parent: Option<Arc<Folder>>,
    /// Permission bits to set once it is filled.
    mode: Option<u32>,
    made: OnceCell<Made>,
    /// Why it could not be made, until somebody takes it for the report.
    error: Mutex<Option<Error>>,
    entries: OnceCell<Listed>,
    /// What the planner knows of some of its names: nothing of that name is there, or this.
    told: Mutex<HashMap<Vec<u8>, Option<Entry>>>,
    /// Directories in it that give way to something else.
    give_way: Mutex<HashSet<Vec<u8>>>,
}

/// What is kept of a directory's listing.
enum Listed {
    /// All of it, by name.
    Entries(HashMap<Vec<u8>, Entry>),
    /// A digest of each name: what is not among them is not there.
    Names(HashSet<u64>, RandomState),
    /// It could not be had, or has no end.
    Nothing,
}

/// What became of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It is new, so nothing is in it.
    New,
    /// It was there.
    There,
    /// It could not be made, or one above it could not.
    Failed,
}

/// What is known about a name in a directory without asking for it.
pub(super) enum Known {
    /// Nothing of that name is there.
    Missing,
    /// This.
    Entry(Entry),
    /// It has to be asked for.
    Unknown,
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder").field("at", &self.at.url).field("made", &self.made.get()).finish_non_exhaustive()
    }
}

impl Folder {
    /// Names a directory; `parent` is made first. With a mode, that is set on it at the end.
    pub fn new(at: Location, parent: Option<Arc<Self>>, mode: Option<u32>) -> Arc<Self> {
        Arc::new(Self::with(at, parent, mode, OnceCell::new()))
    }

    /// Names a directory that is there.
    pub fn there(at: Location) -> Arc<Self> {
        Arc::new(Self::with(at, None, None, OnceCell::new_with(Some(Made::There))))
    }

    fn with(at: Location, parent: Option<Arc<Self>>, mode: Option<u32>, state: OnceCell<Made>) -> Self {
        Self {
            at,
            parent,
            mode,
            made: state,
            error: Mutex::default(),
            entries: OnceCell::new(),
            told: Mutex::default(),
            give_way: Mutex::default(),
        }
    }

    /// Says what a listing has shown of a name in it, so that it need not be listed for that.
    pub fn tell(&self, name: &[u8], entry: Option<Entry>) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_vec(), entry);
    }

    /// Says that a directory in it gives way to the file or link that is to have its name.
    pub(crate) fn let_give_way(&self, name: &[u8]) {
        self.give_way.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_vec());
    }

    fn gives_way(&self, name: &[u8]) -> bool {
        self.give_way.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Returns where it is.
    pub fn location(&self) -> &Location {
        &self.at
    }

    pub(super) fn mode(&self) -> Option<u32> {
        self.mode
    }

    /// Makes it, and those above it, unless that was done.
    pub(super) fn make<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Made> {
        let made = self.made.get_or_init(move || async move {
            if let Some(parent) = &self.parent
                && parent.make(ctx).await == Made::Failed
            {
                return Made::Failed;
            }
            let made = async {
                let made = self.make_itself(ctx).await?;
                // Whoever made it: what is to be durable in it needs its name as well.
                sync_parent(ctx, &self.at).await.map(|()| made)
            };
            match made.await {
                Ok(made) => made,
                Err(error) => {
                    *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Made::Failed
                }
            }
        });
        Box::pin(async move { *made.await })
    }

    pub(super) fn is_new(&self) -> bool {
        self.made.get() == Some(&Made::New)
    }

    /// Returns why it could not be made; only once, and `None` where that is another directory's failure.
    pub(super) fn take_error(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns what is known about a name in it: a new directory holds nothing, another is listed once for all.
    pub(super) async fn look_up(&self, name: &[u8]) -> Known {
        match self.made.get() {
            Some(Made::New) => return Known::Missing,
            Some(Made::There) => {}
            _ => return Known::Unknown,
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match told {
            Some(None) => return Known::Missing,
            Some(Some(entry)) if is_exact(&entry) => return Known::Entry(entry),
            Some(Some(_)) => return Known::Unknown,
            None => {}
        }
        let entries = match self.entries.get_or_init(|| list(&self.at)).await {
            Listed::Entries(entries) => entries,
            Listed::Names(names, hashes) if !names.contains(&hashes.hash_one(name)) => return Known::Missing,
            Listed::Names(..) | Listed::Nothing => return Known::Unknown,
        };
        match entries.get(name) {
            None => Known::Missing,
            Some(entry) if is_exact(entry) => Known::Entry(entry.clone()),
            Some(_) => Known::Unknown,
        }
    }

    async fn make_itself(&self, ctx: &Context) -> Result<Made> {
        let mut budget = Budget::new(ctx.options.retries, ctx.options.retry_wait);
        loop {
            let error = match self.make_once().await {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            match budget.next(&error, false) {
                Some(wait) if pause(wait, &ctx.cancel).await => {}
                _ => return Err(error),
            }
        }
    }

    async fn make_once(&self) -> Result<Made> {
        let at = &self.at;
        match at.transport.create_dir(&at.path).await {
            Ok(()) => return Ok(Made::New),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        // On a server, a link to a directory is for the server to judge; here none is followed below the destination.
        match at.transport.stat(&at.path, Follow::Links).await?.kind {
            FileKind::Directory if self.has_its_own_name().await => Ok(Made::There),
            FileKind::Directory => taken::by_its_own_name(at).await.map(|()| Made::There),
            FileKind::Symlink => Err(Error::new(ErrorKind::NotADirectory, "a link is in the way")
                .at(at.shown())
                .with_hint("put a directory in its place, or name the directory that it leads to as the destination")),
            _ => Err(Error::new(ErrorKind::NotADirectory, "something else is in the way").at(at.shown())),
        }
    }

    /// Returns whether it is known already that the directory which is there is called exactly so.
    async fn has_its_own_name(&self) -> bool {
        let (Some(parent), Some(name)) = (&self.parent, self.at.path.file_name()) else { return true };
        !self.at.transport.capabilities().local
            || matches!(parent.look_up(name).await, Known::Entry(entry) if entry.kind == FileKind::Directory)
    }
}

/// Makes sure that a new name survives a loss of power, where that is wanted.
pub(super) async fn sync_parent(ctx: &Context, at: &Location) -> Result<()> {
    match at.path.parent() {
        Some(parent) if ctx.options.durability == Durability::Synced => at.transport.sync(&parent).await,
        _ => Ok(()),
    }
}

/// Returns what is at a place now; what its folder knows need not be asked for.
pub(super) async fn existing(at: &Location, folder: Option<&Folder>) -> Result<Option<Entry>> {
    if let (Some(folder), Some(name)) = (folder, at.path.file_name()) {
        match folder.look_up(name).await {
            Known::Missing => return Ok(None),
            Known::Entry(entry) if entry.kind != FileKind::Directory => return Ok(Some(entry)),
            _ => {}
        }
    }
    let gives_way = folder.zip(at.path.file_name()).is_some_and(|(folder, name)| folder.gives_way(name));
    match at.transport.stat(&at.path, Follow::Nothing).await {
        Ok(entry) if entry.kind == FileKind::Directory && !gives_way => {
            Err(Error::new(ErrorKind::IsADirectory, "a directory is in the way").at(at.shown()))
        }
        Ok(entry) => Ok(Some(entry)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

async fn list(at: &Location) -> Listed {
    let Ok(mut listing) = at.transport.list(&at.path).await else { return Listed::Nothing };
    let (mut entries, mut names, hashes) = (HashMap::new(), HashSet::new(), RandomState::new());
    while let Some(entry) = listing.next().await {
        let Ok(entry) = entry else { return Listed::Nothing };
        if names.len() >= MOST_NAMES {
            return Listed::Nothing;
        }
        names.insert(hashes.hash_one(entry.name.as_slice()));
        if names.len() <= LONGEST_LISTING {
            entries.insert(entry.name.clone(), entry);
        }
    }
    if names.len() <= LONGEST_LISTING { Listed::Entries(entries) } else { Listed::Names(names, hashes) }
}

/// A listing by LIST rounds times, and some leave the size out: then only a question to the file tells.
fn is_exact(entry: &Entry) -> bool {
    let exact_time = entry.mtime.is_none_or(|mtime| mtime.precision <= Precision::Second);
    entry.kind != FileKind::File || (entry.size.is_some() && exact_time)
}

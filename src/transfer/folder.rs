//! A directory that files are put into: made once, whoever needs it first, and remembered for what is in it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use super::retry::{Budget, pause};
use super::run::Context;
use super::types::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Entry, FileKind, Follow, Precision};

/// A longer listing is not kept in memory: then each file is looked at by itself.
const LONGEST_LISTING: usize = 20_000;

/// A directory to make unless it is there. Shared by all that goes into it, which may start in any order.
pub struct Folder {
    at: Location,
    parent: Option<Arc<Folder>>,
    /// Permission bits to set once it is filled.
    mode: Option<u32>,
    made: OnceCell<Made>,
    /// Why it could not be made, until somebody takes it for the report.
    error: Mutex<Option<Error>>,
    entries: OnceCell<Option<HashMap<Vec<u8>, Entry>>>,
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
        Arc::new(Self { at, parent, mode, made: OnceCell::new(), error: Mutex::default(), entries: OnceCell::new() })
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
            match make(&self.at, ctx).await {
                Ok(made) => made,
                Err(error) => {
                    *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Made::Failed
                }
            }
        });
        Box::pin(async move { *made.await })
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
        let Some(entries) = self.entries.get_or_init(|| list(&self.at)).await else { return Known::Unknown };
        match entries.get(name) {
            None => Known::Missing,
            Some(entry) if is_exact(entry) => Known::Entry(entry.clone()),
            Some(_) => Known::Unknown,
        }
    }
}

async fn make(at: &Location, ctx: &Context) -> Result<Made> {
    let mut budget = Budget::new(ctx.options.retries, ctx.options.retry_wait);
    loop {
        let error = match make_once(at).await {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        match budget.next(&error, false) {
            Some(wait) if pause(wait, &ctx.cancel).await => {}
            _ => return Err(error),
        }
    }
}

async fn make_once(at: &Location) -> Result<Made> {
    match at.transport.create_dir(&at.path).await {
        Ok(()) => Ok(Made::New),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            // A link to a directory is good enough, as it is for `cp`: the user made it, not the source.
            match at.transport.stat(&at.path, Follow::Links).await?.kind {
                FileKind::Directory => Ok(Made::There),
                _ => Err(Error::new(ErrorKind::NotADirectory, "something else is in the way").at(at.shown())),
            }
        }
        Err(e) => Err(e),
    }
}

/// Returns the entries by name, or `None` where there are too many or they can't be had.
async fn list(at: &Location) -> Option<HashMap<Vec<u8>, Entry>> {
    let mut listing = at.transport.list(&at.path).await.ok()?;
    let mut entries = HashMap::new();
    while let Some(entry) = listing.next().await {
        let entry = entry.ok()?;
        if entries.len() >= LONGEST_LISTING {
            return None;
        }
        entries.insert(entry.name.clone(), entry);
    }
    Some(entries)
}

/// A listing by LIST rounds times, and some leave the size out: then only a question to the file tells.
fn is_exact(entry: &Entry) -> bool {
    let exact_time = entry.mtime.is_none_or(|mtime| mtime.precision <= Precision::Second);
    entry.kind != FileKind::File || (entry.size.is_some() && exact_time)
}

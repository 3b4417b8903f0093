//! The tasks of one tree: walked as far as the filter goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::copy::{Planner, Stopped, is_a_directory};
use super::filter::{Scope, Verdict};
use super::walk::{Listing, Retries};
use crate::error::Result;
use crate::transfer::{Event, Folder, Location, Task};
use crate::transport::{Entry, FileKind, Follow};

/// Directories listed at once, and where each listing has a connection for itself.
const LISTINGS: usize = 32;
const LISTINGS_ALONE: usize = 2;

/// A directory to walk.
struct Directory {
    source: Location,
    scope: Scope,
    made: Arc<Planned>,
}

/// A directory to make. It becomes a task once it is known that something goes into it.
struct Planned {
    folder: Arc<Folder>,
    above: Option<Arc<Planned>>,
    told: AtomicBool,
}

impl Planner {
    /// Walks a tree, many directories at once: at a distance each costs a few round trips.
    pub(super) async fn tree(
        &self,
        source: Location,
        target: Location,
        name: Option<&[u8]>,
        entry: Entry,
    ) -> Result<(), Stopped> {
        let streams = source.transport.capabilities().streams;
        // Where a connection carries only one listing, most of them are for the files.
        let at_once = if streams > 1 { LISTINGS } else { LISTINGS_ALONE };
        let folder = Folder::new(target, self.target.folder.clone(), self.mode(&entry));
        let made = Arc::new(Planned { folder, above: None, told: AtomicBool::new(false) });
        let scope = self.options.filter.root_of(name);
        let mut pending = vec![Directory { source, scope, made }];
        let mut listings = FuturesUnordered::new();
        loop {
            while listings.len() < at_once
                && let Some(directory) = pending.pop()
            {
                listings.push(self.directory(directory));
            }
            let Some(found) = listings.next().await else { return Ok(()) };
            // The last one is taken next: deep before wide, so that few directories wait.
            pending.extend(found?.into_iter().rev());
        }
    }

    /// Plans what is in one directory, and returns those below it.
    async fn directory(&self, directory: Directory) -> Result<Vec<Directory>, Stopped> {
        let Directory { source, scope, made } = directory;
        let retries = Retries { retries: self.options.retries, wait: self.options.retry_wait };
        let mut listing = Listing::new(source.clone(), scope, retries);
        let mut below = Vec::new();
        match self.entries(&mut listing, &source, &made, &mut below).await? {
            Ok(()) => {}
            Err(error) => {
                self.make(&made).await?;
                self.fail(source.url.clone(), error).await?;
            }
        }
        for (url, error) in listing.take_missing() {
            self.fail(url, error).await?;
        }
        Ok(below)
    }

    /// Plans the entries of one directory; the inner error is the listing's.
    async fn entries(
        &self,
        listing: &mut Listing,
        source: &Location,
        made: &Arc<Planned>,
        below: &mut Vec<Directory>,
    ) -> Result<Result<()>, Stopped> {
        let scope = match listing.scope().await {
            Ok(scope) => scope.clone(),
            Err(error) => return Ok(Err(error)),
        };
        if scope.rules_out_nothing_yet() {
            self.make(made).await?;
        }
        let mut is_empty = scope.names().is_none();
        loop {
            match listing.next().await {
                Ok(Some(found)) => {
                    is_empty = false;
                    if found.taken {
                        below.extend(self.entry(source, &scope, made, found.entry).await?);
                    }
                }
                Ok(None) if is_empty => return self.make(made).await.map(Ok),
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Plans one entry of a tree; returns it if it is a directory to walk.
    async fn entry(
        &self,
        dir: &Location,
        scope: &Scope,
        made: &Arc<Planned>,
        entry: Entry,
    ) -> Result<Option<Directory>, Stopped> {
        // The name comes from a server: it may not lead out of either tree.
        let target = made.folder.location();
        let both = dir.child(&entry.name).and_then(|from| {
            let to = target.child(&entry.name)?;
            self.target.checked(to.path.clone())?;
            Ok((from, to))
        });
        let (source, target) = match both {
            Ok(both) => both,
            Err(error) => return self.fail(dir.url.clone(), error).await.map(|()| None),
        };
        if entry.kind == FileKind::Directory {
            return self.below(scope, made, entry, source, target).await;
        }
        self.make(made).await?;
        let parent = Some(Arc::clone(&made.folder));
        match entry.kind {
            FileKind::Symlink if self.options.preserve => self.link(source, target, entry, parent).await?,
            FileKind::Symlink => self.follow(scope, source, target, parent).await?,
            FileKind::Other => self.note(format!("left out, not a regular file: {}", source.shown())),
            _ => self.file(source, target, entry, parent).await?,
        }
        Ok(None)
    }

    async fn below(
        &self,
        scope: &Scope,
        above: &Arc<Planned>,
        entry: Entry,
        source: Location,
        target: Location,
    ) -> Result<Option<Directory>, Stopped> {
        let scope = scope.enter(&entry.name);
        if !self.options.recursive && scope.names().is_none() {
            let error = is_a_directory(&source);
            return self.fail(source.url, error).await.map(|()| None);
        }
        let folder = Folder::new(target, Some(Arc::clone(&above.folder)), self.mode(&entry));
        let made = Planned { folder, above: Some(Arc::clone(above)), told: AtomicBool::new(false) };
        Ok(Some(Directory { source, scope, made: Arc::new(made) }))
    }

    /// Makes tasks of a directory and those above it, unless they are.
    async fn make(&self, directory: &Arc<Planned>) -> Result<(), Stopped> {
        let mut untold = Vec::new();
        let mut next = Some(directory);
        while let Some(directory) = next
            && !directory.told.swap(true, Ordering::Relaxed)
        {
            untold.push(Arc::clone(&directory.folder));
            next = directory.above.as_ref();
        }
        for folder in untold.into_iter().rev() {
            self.send(Task::Directory(folder)).await?;
        }
        Ok(())
    }

    fn mode(&self, entry: &Entry) -> Option<u32> {
        entry.mode.filter(|_| self.options.preserve)
    }

    async fn follow(
        &self,
        scope: &Scope,
        from: Location,
        to: Location,
        folder: Option<Arc<Folder>>,
    ) -> Result<(), Stopped> {
        match from.transport.stat(&from.path, Follow::Links).await {
            Ok(entry) if scope.measured(&entry) == Verdict::Leaves => Ok(()),
            Ok(entry) if entry.kind == FileKind::File => self.file(from, to, entry, folder).await,
            Ok(_) => {
                self.note(format!("left out, a link to a directory (-p keeps links): {}", from.shown()));
                Ok(())
            }
            Err(error) => self.fail(from.url, error.context("follow the link")).await,
        }
    }

    async fn link(
        &self,
        from: Location,
        to: Location,
        entry: Entry,
        folder: Option<Arc<Folder>>,
    ) -> Result<(), Stopped> {
        let target = match entry.target {
            Some(target) => Ok(target),
            None => from.transport.read_link(&from.path).await,
        };
        match target {
            Ok(target) => {
                self.observer.event(Event::Found { bytes: None });
                self.send(Task::Symlink { source: from, at: to, target, folder }).await
            }
            Err(error) => self.fail(from.url, error).await,
        }
    }
}

//! From sources and a destination to tasks, by `cp`'s rules.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::walk::Listing;
use super::{Place, expand};
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{Budget, Event, Folder, Job, Location, Observer, Task};
use crate::transport::{Entry, FileKind, Follow, RemotePath};

/// Tasks that are planned ahead of their turn.
const TASKS_AHEAD: usize = 1024;
/// Directories listed at once, and where each listing has a connection for itself.
const LISTINGS: usize = 32;
const LISTINGS_ALONE: usize = 2;
/// The number in notes that belong to no file of the run.
const NO_FILE: u64 = u64::MAX;

/// How a copy is planned.
#[derive(Debug, Clone)]
pub struct Options {
    /// Take whole trees; without it a directory is an error.
    pub recursive: bool,
    /// Keep the modes of directories, and symbolic links as links. Otherwise links to files are followed, and links to
    /// directories are left out with a note.
    pub preserve: bool,
    /// How often a broken listing is tried again.
    pub retries: u32,
    /// The longest wait before that.
    pub retry_wait: Duration,
}

/// Plans to copy each source to the destination, as `cp` would place it; tasks come while the walk goes on.
///
/// A destination that is a directory takes each source under its own name; otherwise a single source gets the
/// destination's name. The contents of a source that ends in `/.` go right into the destination. A source that can't
/// be read becomes a [`Task::Failed`].
///
/// # Errors
/// `Usage` or `NotFound` when the sources can't land at the destination at all; nothing is planned then.
pub async fn copy(
    sources: Vec<Place>,
    destination: Place,
    options: Options,
    observer: Arc<dyn Observer>,
) -> Result<impl Stream<Item = Task> + Send + Unpin> {
    let mut target = Target::find(destination).await?;
    let mut expanded = Vec::new();
    for source in sources {
        let found = expand(&source).await;
        expanded.push((source, found));
    }
    let several = expanded.iter().map(|(_, found)| found.as_ref().map_or(1, Vec::len)).sum::<usize>() > 1;
    if several && !target.is_directory {
        return Err(target.no_directory("several sources need a directory as destination"));
    }
    if several && target.place.transport.capabilities().local {
        target.folder = Some(Folder::there(target.place.location(target.path.clone())));
    }
    let (tasks, mut receiver) = mpsc::channel(TASKS_AHEAD);
    let planner = Planner { target, options, observer, tasks };
    tokio::spawn(async move {
        // It fails only when nobody takes the tasks any more.
        let _ = planner.plan(expanded).await;
    });
    Ok(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)))
}

/// Where the sources go.
struct Target {
    place: Place,
    path: RemotePath,
    is_directory: bool,
    exists: bool,
    /// The directory that several sources go into, so that what is there is known by its exact name.
    folder: Option<Arc<Folder>>,
}

impl Target {
    async fn find(mut place: Place) -> Result<Self> {
        let path = place.path().await?;
        let kind = match place.transport.stat(&path, Follow::Links).await {
            Ok(entry) => Some(entry.kind),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let is_directory = kind == Some(FileKind::Directory);
        if place.endpoint.path.names_directory() && kind.is_some() && !is_directory {
            return Err(Error::new(ErrorKind::NotADirectory, "is not a directory").at(&place.endpoint));
        }
        // The way to the destination is the user's; below it, no link is followed.
        let root = if is_directory { path.clone() } else { path.parent().unwrap_or_else(RemotePath::root) };
        if let Some(held) = place.transport.beneath(&root) {
            place.transport = held;
        }
        Ok(Self { is_directory, exists: kind.is_some(), path, place, folder: None })
    }

    /// Returns where a source of this name lands.
    fn of(&self, name: Option<&[u8]>, kind: FileKind) -> Result<Location> {
        let path = match name {
            Some(name) if self.is_directory => self.path.join(name).and_then(|path| self.checked(path))?,
            // `cp` makes "new/" for a tree, but not for a file.
            _ if kind != FileKind::Directory && self.place.endpoint.path.names_directory() && !self.exists => {
                return Err(self.no_directory("the destination directory doesn't exist"));
            }
            _ => self.path.clone(),
        };
        Ok(self.place.location(path))
    }

    /// Refuses a name that a server on Windows would take for a way out of the directory.
    fn checked(&self, path: RemotePath) -> Result<RemotePath> {
        let local = self.place.transport.capabilities().local;
        let climbs = path.file_name().is_some_and(|name| {
            let mut parts = name.split(|&b| b == b'\\');
            parts.clone().count() > 1 && parts.any(|part| part == b"..")
        });
        if climbs && !local {
            return Err(Error::new(ErrorKind::InvalidPath, "refused a name that would lead elsewhere on some servers")
                .at(path)
                .with_hint("rename it: a backslash separates directories there"));
        }
        Ok(path)
    }

    fn no_directory(&self, message: &str) -> Error {
        let kind = if self.exists { ErrorKind::NotADirectory } else { ErrorKind::NotFound };
        let error = Error::new(kind, message).at(&self.place.endpoint);
        if self.exists {
            error
        } else {
            error.with_hint(format!("make it first: haul mkdir -p {}", self.place.endpoint))
        }
    }
}

struct Planner {
    target: Target,
    options: Options,
    observer: Arc<dyn Observer>,
    tasks: mpsc::Sender<Task>,
}

/// A directory to walk.
struct Directory {
    source: Location,
    target: Location,
    mode: Option<u32>,
    /// The directory that it is made in.
    parent: Option<Arc<Folder>>,
}

/// Nobody takes the tasks any more: the run was cancelled.
struct Stopped;

impl Planner {
    async fn plan(&self, sources: Vec<(Place, Result<super::glob::Matches>)>) -> Result<(), Stopped> {
        let mut files = HashSet::new();
        for (place, found) in sources {
            match found {
                Err(error) => self.fail(place.endpoint.to_string(), error).await?,
                Ok(found) => {
                    for (path, entry) in found {
                        let source = place.location(path);
                        let shown = source.url.clone();
                        if let Err(error) = self.source(&place, source, entry, &mut files).await? {
                            self.fail(shown, error).await?;
                        }
                    }
                }
            }
        }
        self.observer.event(Event::AllFound);
        Ok(())
    }

    /// Plans one source; the inner error is about this source only. `files` are the files that were planned before.
    async fn source(
        &self,
        place: &Place,
        source: Location,
        entry: Option<Entry>,
        files: &mut HashSet<RemotePath>,
    ) -> Result<Result<()>, Stopped> {
        let entry = match entry.filter(|entry| entry.kind != FileKind::Symlink) {
            Some(entry) => entry,
            None => match source.transport.stat(&source.path, Follow::Links).await {
                Ok(entry) => entry,
                Err(error) => return Ok(Err(error)),
            },
        };
        let contents = place.endpoint.path.bytes.ends_with(b"/.") || place.endpoint.path.bytes == b".";
        let name = source.path.file_name().filter(|_| !contents);
        let target = match self.target.of(name, entry.kind) {
            Ok(target) => target,
            Err(error) => return Ok(Err(error)),
        };
        match entry.kind {
            FileKind::File if !files.insert(target.path.clone()) => {
                return Ok(Err(Error::new(ErrorKind::Usage, "another source has the same name, and would be lost")
                    .at(source.shown())
                    .with_hint("copy it to another directory or name")));
            }
            FileKind::File => self.file(source, target, entry, self.target.folder.clone()).await?,
            FileKind::Directory if !self.options.recursive => {
                return Ok(Err(Error::new(ErrorKind::IsADirectory, "is a directory")
                    .at(source.shown())
                    .with_hint("use -r to take whole directories")));
            }
            FileKind::Directory if is_inside(&target, &source) => {
                return Ok(Err(Error::new(ErrorKind::Usage, "can't be copied into itself").at(source.shown())));
            }
            FileKind::Directory => self.tree(source, target, entry).await?,
            FileKind::Symlink | FileKind::Other => {
                return Ok(Err(Error::new(ErrorKind::Unsupported, "is not a regular file").at(source.shown())));
            }
        }
        Ok(Ok(()))
    }

    /// Walks a tree, many directories at once: at a distance each costs a few round trips.
    async fn tree(&self, source: Location, target: Location, entry: Entry) -> Result<(), Stopped> {
        let streams = source.transport.capabilities().streams;
        // Where a connection carries only one listing, most of them are for the files.
        let at_once = if streams > 1 { LISTINGS } else { LISTINGS_ALONE };
        let parent = self.target.folder.clone();
        let mut pending = vec![Directory { source, target, mode: entry.mode, parent }];
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
        let Directory { source, target, mode, parent } = directory;
        let folder = Folder::new(target, parent, mode.filter(|_| self.options.preserve));
        self.send(Task::Directory(Arc::clone(&folder))).await?;
        let mut below = Vec::new();
        let mut listing = Listing::new(&source, Budget::new(self.options.retries, self.options.retry_wait));
        loop {
            match listing.next().await {
                Ok(Some(entry)) => below.extend(self.entry(&source, &folder, entry).await?),
                Ok(None) => return Ok(below),
                Err(error) => {
                    self.fail(source.url.clone(), error).await?;
                    return Ok(below);
                }
            }
        }
    }

    /// Plans one entry of a tree; returns it if it is a directory to walk.
    async fn entry(&self, dir: &Location, folder: &Arc<Folder>, entry: Entry) -> Result<Option<Directory>, Stopped> {
        // The name comes from a server: it may not lead out of either tree.
        let target = folder.location();
        let both = dir.child(&entry.name).and_then(|from| {
            let to = target.child(&entry.name)?;
            self.target.checked(to.path.clone())?;
            Ok((from, to))
        });
        let (source, target) = match both {
            Ok(both) => both,
            Err(error) => return self.fail(dir.url.clone(), error).await.map(|()| None),
        };
        let parent = Some(Arc::clone(folder));
        match entry.kind {
            FileKind::Directory => return Ok(Some(Directory { source, target, mode: entry.mode, parent })),
            FileKind::File => self.file(source, target, entry, parent).await?,
            FileKind::Symlink if self.options.preserve => self.link(source, target, entry, parent).await?,
            FileKind::Symlink => self.follow(source, target, parent).await?,
            FileKind::Other => self.note(format!("left out, not a regular file: {}", source.shown())),
        }
        Ok(None)
    }

    async fn follow(&self, from: Location, to: Location, folder: Option<Arc<Folder>>) -> Result<(), Stopped> {
        match from.transport.stat(&from.path, Follow::Links).await {
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

    async fn file(
        &self,
        source: Location,
        destination: Location,
        entry: Entry,
        folder: Option<Arc<Folder>>,
    ) -> Result<(), Stopped> {
        self.observer.event(Event::Found { bytes: entry.size });
        self.send(Task::File(Job { source, destination, entry: Some(entry), folder })).await
    }

    async fn fail(&self, source: String, error: Error) -> Result<(), Stopped> {
        self.observer.event(Event::Found { bytes: None });
        self.send(Task::Failed { source, error }).await
    }

    async fn send(&self, task: Task) -> Result<(), Stopped> {
        self.tasks.send(task).await.map_err(|_| Stopped)
    }

    fn note(&self, text: String) {
        self.observer.event(Event::Note { id: NO_FILE, text });
    }
}

/// Returns whether a local tree would be copied into itself, which would never end.
fn is_inside(target: &Location, source: &Location) -> bool {
    let both_local = target.transport.capabilities().local && source.transport.capabilities().local;
    let mut outer = source.path.components();
    both_local && target.path.components().zip(&mut outer).all(|(a, b)| a == b) && outer.next().is_none()
}

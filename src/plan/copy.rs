//! From sources and a destination to tasks, by `cp`'s rules.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, future, stream};
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::filter::{Filter, Verdict};
use super::{Place, expand, has_wildcards};
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{self, Event, Folder, Job, Location, Observer, Summary, Task};
use crate::transport::{Entry, FileKind, Follow, RemotePath};

/// Tasks that are planned ahead of their turn.
const TASKS_AHEAD: usize = 1024;
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
    /// What of the trees is taken. Operands are asked about as well, by their names.
    pub filter: Filter,
}

impl Default for Options {
    fn default() -> Self {
        let retry_wait = Duration::from_secs(30);
        Self { recursive: false, preserve: false, retries: 5, retry_wait, filter: Filter::default() }
    }
}

/// Plans to copy each source to the destination, as `cp` would place it; tasks come while the walk goes on.
///
/// A destination that is a directory takes each source under its own name; otherwise a single source gets the
/// destination's name. The contents of a source that ends in `/.` go right into the destination. A source that can't
/// be read becomes a [`Task::Failed`].
///
/// A directory in which the filter leaves nothing is not made; one that is empty at the source is.
///
/// # Errors
/// `Usage` or `NotFound` when the sources can't land at the destination at all, or a filter that lists paths has several
/// sources; nothing is planned then.
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
    if several && options.filter.lists_paths() {
        return Err(Error::new(
            ErrorKind::Usage,
            "a list of paths needs exactly one source, which they are relative to",
        ));
    }
    if several && !target.is_directory {
        return Err(target.no_directory("several sources need a directory as destination"));
    }
    if several && target.place.transport.capabilities().local {
        target.folder = Some(Folder::there(target.place.location(target.path.clone())));
    }
    let (tasks, mut receiver) = mpsc::channel(TASKS_AHEAD);
    let planner = Planner { target, options, observer, tasks };
    let planning = tokio::spawn(async move {
        // It fails only when nobody takes the tasks any more.
        let _ = planner.plan(expanded).await;
    });
    // A plan that broke off must not look like a complete one.
    let end = async move {
        let broken = planning.await.err().filter(JoinError::is_panic)?;
        let error = Error::new(ErrorKind::Other, "planning stopped unexpectedly").with_source(broken);
        Some(Task::Failed { source: String::new(), error })
    };
    let tasks = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    Ok(tasks.chain(Box::pin(stream::once(end).filter_map(future::ready))))
}

/// Plans as [`copy`] does, and carries the plan out meanwhile.
///
/// # Errors
/// Those of [`copy`], and of [`run`](crate::transfer::run); `Cancelled` if the plan had not begun.
pub async fn carry_out(
    sources: Vec<Place>,
    destination: Place,
    options: Options,
    transfer: &transfer::Options,
    observer: Arc<dyn Observer>,
    cancel: CancellationToken,
) -> Result<Summary> {
    let tasks = tokio::select! {
        tasks = copy(sources, destination, options, Arc::clone(&observer)) => tasks?,
        () = cancel.cancelled() => return Err(ErrorKind::Cancelled.into()),
    };
    transfer::run(tasks, transfer, observer, cancel).await
}

/// Where the sources go.
pub(super) struct Target {
    place: Place,
    path: RemotePath,
    is_directory: bool,
    exists: bool,
    /// The directory that several sources go into, so that what is there is known by its exact name.
    pub(super) folder: Option<Arc<Folder>>,
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
    pub(super) fn checked(&self, path: RemotePath) -> Result<RemotePath> {
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

pub(super) struct Planner {
    pub(super) target: Target,
    pub(super) options: Options,
    pub(super) observer: Arc<dyn Observer>,
    tasks: mpsc::Sender<Task>,
}

/// Nobody takes the tasks any more: the run was cancelled.
pub(super) struct Stopped;

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
        let name = source.path.file_name().filter(|_| !contents).map(<[u8]>::to_vec);
        let target = match self.target.of(name.as_deref(), entry.kind) {
            Ok(target) => target,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(name) = &name
            && !self.takes_operand(&source, name, &entry).await
        {
            if !has_wildcards(&place.endpoint) {
                self.note(format!("left out by the filters: {}", source.shown()));
            }
            return Ok(Ok(()));
        }
        match entry.kind {
            FileKind::File if self.options.filter.lists_paths() => {
                return Ok(Err(Error::new(ErrorKind::NotADirectory, "is no directory that listed paths could lie in")
                    .at(source.shown())));
            }
            FileKind::File if !files.insert(target.path.clone()) => {
                return Ok(Err(Error::new(ErrorKind::Usage, "another source has the same name, and would be lost")
                    .at(source.shown())
                    .with_hint("copy it to another directory or name")));
            }
            FileKind::File => self.file(source, target, entry, self.target.folder.clone()).await?,
            FileKind::Directory if !self.options.recursive && !self.options.filter.lists_paths() => {
                return Ok(Err(is_a_directory(&source)));
            }
            FileKind::Directory if is_inside(&target, &source) => {
                return Ok(Err(Error::new(ErrorKind::Usage, "can't be copied into itself").at(source.shown())));
            }
            FileKind::Directory => self.tree(source, target, name.as_deref(), entry).await?,
            FileKind::Symlink | FileKind::Other => {
                return Ok(Err(Error::new(ErrorKind::Unsupported, "is not a regular file").at(source.shown())));
            }
        }
        Ok(Ok(()))
    }

    /// Returns whether the filter takes what the user named.
    async fn takes_operand(&self, source: &Location, name: &[u8], entry: &Entry) -> bool {
        match self.options.filter.operand(name, entry) {
            Verdict::Unsure => match source.transport.stat(&source.path, Follow::Links).await {
                Ok(exact) => self.options.filter.operand(name, &exact) != Verdict::Leaves,
                Err(_) => true,
            },
            verdict => verdict == Verdict::Takes,
        }
    }

    pub(super) async fn file(
        &self,
        source: Location,
        destination: Location,
        entry: Entry,
        folder: Option<Arc<Folder>>,
    ) -> Result<(), Stopped> {
        self.observer.event(Event::Found { bytes: entry.size });
        self.send(Task::File(Job { source, destination, entry: Some(entry), folder })).await
    }

    pub(super) async fn fail(&self, source: String, error: Error) -> Result<(), Stopped> {
        self.observer.event(Event::Found { bytes: None });
        self.send(Task::Failed { source, error }).await
    }

    pub(super) async fn send(&self, task: Task) -> Result<(), Stopped> {
        self.tasks.send(task).await.map_err(|_| Stopped)
    }

    pub(super) fn note(&self, text: String) {
        self.observer.event(Event::Note { id: NO_FILE, text });
    }
}

pub(super) fn is_a_directory(source: &Location) -> Error {
    Error::new(ErrorKind::IsADirectory, "is a directory")
        .at(source.shown())
        .with_hint("use -r to take whole directories")
}

/// Returns whether a local tree would be copied into itself, which would never end.
fn is_inside(target: &Location, source: &Location) -> bool {
    let both_local = target.transport.capabilities().local && source.transport.capabilities().local;
    let mut outer = source.path.components();
    both_local && target.path.components().zip(&mut outer).all(|(a, b)| a == b) && outer.next().is_none()
}

//! The digests of files and trees, in an order that is the same each time, many computed at once.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use rustix::io::Errno;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::filter::{Filter, Scope, Verdict};
use super::walk::{Listing, Retries};
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{Digested, Digester, Location};
use crate::transport::{Algorithm, Entry, FileKind, Follow, Transport};

/// Files that are found ahead of their turn, and results that wait for theirs.
const FILES_AHEAD: usize = 1024;
/// Directories listed ahead of their turn, and where each listing has a connection for itself.
const LISTINGS: usize = 16;
const LISTINGS_ALONE: usize = 2;
/// So far ahead directories are looked for that can be listed already.
const LOOK_AHEAD: usize = 4096;
/// No honest directory has more entries; a listing without end is not taken.
const MOST_ENTRIES: usize = 8_000_000;
/// Connections, where each carries only one file.
const CONNECTIONS: usize = 4;

/// How trees are walked.
#[derive(Debug, Clone)]
pub struct Walking {
    /// Go into directories; without it only where a list of paths leads.
    pub recursive: bool,
    /// What of them is taken.
    pub filter: Filter,
    /// How often a broken listing is tried again.
    pub retries: u32,
    /// The longest wait before that.
    pub retry_wait: Duration,
}

impl Walking {
    /// Returns whether the filter takes something that was named, as far as its name, size and time go.
    pub fn takes_operand(&self, name: &[u8], entry: &Entry) -> bool {
        self.filter.operand(name, entry) != Verdict::Leaves
    }

    /// Returns whether directories are gone into at all.
    pub fn takes_directories(&self) -> bool {
        self.recursive || self.filter.lists_paths()
    }
}

/// A file whose digest is wanted.
#[derive(Debug, Clone)]
pub struct File {
    /// What it is called in the list.
    pub name: Vec<u8>,
    /// Where it is.
    pub at: Location,
    /// What is known of it.
    pub entry: Option<Entry>,
}

/// What a walk came upon, in the order of the names' bytes.
#[derive(Debug)]
pub enum Found {
    /// A file.
    File(File),
    /// A link that may lead to one, and what decides whether that is taken.
    Link(File, Scope),
    /// Something that can't be read.
    Failed {
        /// What it is called.
        name: Vec<u8>,
        /// Its URL.
        url: String,
        /// Why.
        error: Error,
    },
    /// Neither file nor directory.
    LeftOut(File),
}

/// The end of one file.
#[derive(Debug)]
pub struct Told {
    /// What it is called.
    pub name: Vec<u8>,
    /// Its URL.
    pub url: String,
    /// Its digest; `None` for what was left out, being no file.
    pub digested: Result<Option<Digested>>,
}

/// Finds the files below a directory, links not followed. Their names begin with the directory's own, if that is given.
///
/// Memory: the entries of the directories that lead to where the walk is, and of a few that come next.
pub fn files_below(
    directory: Location,
    name: Option<&[u8]>,
    options: Walking,
) -> impl Stream<Item = Found> + Send + Unpin + use<> {
    let (found, mut receiver) = mpsc::channel(FILES_AHEAD);
    let scope = options.filter.root_of(name);
    let prefix = name.map(|name| [name, b"/"].concat()).unwrap_or_default();
    tokio::spawn(async move {
        let mut walk = Walk { stack: vec![Step::Directory(Directory::new(directory, prefix, scope))], options };
        // It fails only when nobody takes the files any more.
        while let Some(step) = walk.stack.pop() {
            let next = match step {
                Step::Found(next) => next,
                Step::Directory(directory) => match walk.enter(directory).await {
                    Ok(()) => continue,
                    Err(failed) => failed,
                },
            };
            if found.send(next).await.is_err() {
                return;
            }
        }
    });
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

struct Walk {
    /// What is still to come, the next one last.
    stack: Vec<Step>,
    options: Walking,
}

enum Step {
    Found(Found),
    Directory(Directory),
}

struct Directory {
    at: Location,
    prefix: Vec<u8>,
    scope: Scope,
    listing: Option<JoinHandle<Listed>>,
}

/// What a directory holds.
struct Listed {
    entries: Vec<Entry>,
    /// The scope with what the directory itself says.
    scope: Scope,
    /// What a list of paths names and what isn't to be had, and why.
    missing: Vec<(String, Error)>,
    /// Why the listing is not complete.
    error: Option<Error>,
}

impl Directory {
    fn new(at: Location, prefix: Vec<u8>, scope: Scope) -> Self {
        Self { at, prefix, scope, listing: None }
    }

    /// Begins to list it, unless that was begun before.
    fn list(&mut self, options: &Walking) -> &mut JoinHandle<Listed> {
        let retries = Retries { retries: options.retries, wait: options.retry_wait };
        self.listing.get_or_insert_with(|| tokio::spawn(list(self.at.clone(), self.scope.clone(), retries)))
    }
}

async fn list(at: Location, scope: Scope, retries: Retries) -> Listed {
    let mut listing = Listing::new(at, scope.clone(), retries);
    let mut listed = Listed { entries: Vec::new(), scope, missing: Vec::new(), error: None };
    listed.error = fill(&mut listing, &mut listed).await.err();
    listed.missing = listing.take_missing();
    listed
}

async fn fill(listing: &mut Listing, listed: &mut Listed) -> Result<()> {
    listed.scope = listing.scope().await?.clone();
    while let Some(found) = listing.next().await? {
        if found.taken {
            listed.entries.push(found.entry);
        }
        if listed.entries.len() > MOST_ENTRIES {
            return Err(Error::new(ErrorKind::Other, "the directory has too many entries"));
        }
    }
    Ok(())
}

impl Walk {
    /// Puts what is in a directory on the stack.
    async fn enter(&mut self, mut directory: Directory) -> Result<(), Found> {
        directory.list(&self.options);
        self.list_ahead();
        let listed = directory.list(&self.options).await;
        let Directory { at, prefix, .. } = directory;
        let failed = |url: String, error: Error| Found::Failed { name: prefix.clone(), url, error };
        let Listed { mut entries, scope, missing, error } = listed
            .map_err(|e| failed(at.url.clone(), Error::new(ErrorKind::Other, "the listing stopped").with_source(e)))?;
        let error = error.map(|error| (at.url.clone(), error));
        let failures = missing.into_iter().chain(error);
        self.stack.extend(failures.map(|(url, error)| Step::Found(failed(url, error))));
        entries.sort_by_cached_key(|entry| std::cmp::Reverse(key(entry)));
        for entry in entries {
            // The name comes from a server: it may not lead elsewhere.
            let step = match at.child(&entry.name) {
                Ok(child) => self.step(child, &prefix, entry, &scope),
                Err(error) => Step::Found(failed(at.url.clone(), error)),
            };
            self.stack.push(step);
        }
        self.list_ahead();
        Ok(())
    }

    fn step(&self, at: Location, prefix: &[u8], entry: Entry, scope: &Scope) -> Step {
        let name = [prefix, &entry.name].concat();
        let kind = entry.kind;
        if kind == FileKind::Directory {
            let below = scope.enter(&entry.name);
            if !self.options.recursive && below.names().is_none() {
                let error = Error::new(ErrorKind::IsADirectory, "is a directory")
                    .at(at.shown())
                    .with_hint("use -r to take whole directories");
                return Step::Found(Found::Failed { name, url: at.url, error });
            }
            return Step::Directory(Directory::new(at, [&name[..], b"/"].concat(), below));
        }
        let file = File { name, at, entry: Some(entry) };
        Step::Found(match kind {
            FileKind::File => Found::File(file),
            FileKind::Symlink => Found::Link(file, scope.clone()),
            _ => Found::LeftOut(file),
        })
    }

    /// Begins to list the directories that come next: at a distance each costs a few round trips.
    fn list_ahead(&mut self) {
        let steps = self.stack.iter_mut().rev().take(LOOK_AHEAD);
        let directories = steps.filter_map(|step| match step {
            Step::Directory(directory) => Some(directory),
            Step::Found(_) => None,
        });
        for (n, directory) in directories.enumerate() {
            let alone = directory.at.transport.capabilities().streams == 1;
            if n >= if alone { LISTINGS_ALONE } else { LISTINGS } {
                return;
            }
            directory.list(&self.options);
        }
    }
}

/// What entries are sorted by: so that the names of a whole tree come in the order of their bytes.
fn key(entry: &Entry) -> Vec<u8> {
    let slash: &[u8] = if entry.is_dir() { b"/" } else { b"" };
    [&entry.name, slash].concat()
}

/// How many files of each endpoint are worked on at once, and whether it is still there.
#[derive(Debug, Default)]
pub struct Places {
    most: Option<usize>,
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    transport: Arc<dyn Transport>,
    room: Semaphore,
    /// It can't be reached any more: what is left would only wait as long again.
    gone: AtomicBool,
}

impl Places {
    /// Works on so many at most; `None`: as many as the connections carry.
    pub fn new(most: Option<usize>) -> Self {
        Self { most, known: Vec::new() }
    }

    /// Makes an endpoint known, and opens further connections where each carries only one file.
    pub async fn open(&mut self, transport: &Arc<dyn Transport>) {
        if self.at(transport).is_some() {
            return;
        }
        let capabilities = transport.capabilities();
        let connections = match capabilities.streams {
            1 => {
                let wanted = self.most.unwrap_or(CONNECTIONS).min(CONNECTIONS).min(capabilities.max_connections);
                transport.set_connections(wanted.max(1)).await
            }
            _ => 1,
        };
        let room = (capabilities.streams * connections).min(self.most.unwrap_or(usize::MAX)).max(1);
        let (transport, room) = (Arc::clone(transport), Semaphore::new(room));
        self.known.push(Known { transport, room, gone: AtomicBool::new(false) });
    }

    fn at(&self, transport: &Arc<dyn Transport>) -> Option<&Known> {
        self.known.iter().find(|known| Arc::ptr_eq(&known.transport, transport))
    }

    /// Works on a file once there is room for it.
    ///
    /// # Errors
    /// Those of the work; `ConnectionRefused` where the endpoint was given up.
    pub(super) async fn work<T>(&self, at: &Location, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(known) = self.at(&at.transport) else { return work.await };
        // It is never closed.
        let _room = known.room.acquire().await.ok();
        if known.gone.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::ConnectionRefused, "not tried: the connection is gone"));
        }
        let result = work.await;
        if let Err(error) = &result
            && (error.kind().is_fatal_to_endpoint() || error.kind() == ErrorKind::Timeout)
        {
            known.gone.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// Tells the digest of each file, in the order in which they come, many at once.
pub fn digests(
    found: impl Stream<Item = Found> + Send + Unpin,
    digester: Arc<Digester>,
    algorithm: Algorithm,
    places: Arc<Places>,
) -> impl Stream<Item = Told> + Send {
    let told = found.map(move |found| {
        if let Found::File(file) | Found::Link(file, _) = &found {
            // The size of a link is not that of its file.
            let entry = file.entry.as_ref().filter(|entry| entry.kind == FileKind::File);
            digester.expect(entry.and_then(|entry| entry.size));
        }
        let (digester, places) = (Arc::clone(&digester), Arc::clone(&places));
        async move {
            match found {
                Found::File(File { name, at, entry }) => {
                    let work = async { digester.digest(&at, entry.as_ref(), algorithm).await.map(Some) };
                    let result = places.work(&at, work).await;
                    Some(Told { name, url: at.url, digested: result })
                }
                Found::Link(File { name, at, .. }, scope) => {
                    let work = followed(&digester, &at, &scope, algorithm);
                    let result = places.work(&at, work).await.transpose()?;
                    Some(Told { name, url: at.url, digested: result })
                }
                Found::LeftOut(File { name, at, .. }) => Some(Told { name, url: at.url, digested: Ok(None) }),
                Found::Failed { name, url, error } => Some(Told { name, url, digested: Err(error) }),
            }
        }
    });
    told.buffered(FILES_AHEAD).filter_map(std::future::ready)
}

/// Returns the digest of the file that a link leads to; an inner `None` where it leads to none, an outer one where the filter
/// leaves it out.
async fn followed(
    digester: &Digester,
    at: &Location,
    scope: &Scope,
    algorithm: Algorithm,
) -> Result<Option<Option<Digested>>> {
    match target(at, scope).await? {
        Target::File(entry) => digester.digest(at, Some(&entry), algorithm).await.map(|digested| Some(Some(digested))),
        Target::NoFile => Ok(Some(None)),
        Target::LeftOut => Ok(None),
    }
}

/// What a link leads to. Lists hold files only: as where trees are copied, links to directories have no part in them, nor
/// have those that lead nowhere.
pub(super) enum Target {
    File(Entry),
    NoFile,
    /// The filter leaves it out.
    LeftOut,
}

/// Follows a link.
pub(super) async fn target(at: &Location, scope: &Scope) -> Result<Target> {
    match at.transport.stat(&at.path, Follow::Links).await {
        Ok(entry) if scope.measured(&entry) == Verdict::Leaves => Ok(Target::LeftOut),
        Ok(entry) if entry.kind == FileKind::File => Ok(Target::File(entry)),
        Ok(_) => Ok(Target::NoFile),
        Err(error) if leads_nowhere(&error) => Ok(Target::NoFile),
        Err(error) => Err(error.context("follow the link")),
    }
}

/// Returns whether there is nothing at the end of a link; one that leads in a circle has no end.
fn leads_nowhere(error: &Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let circle = causes.any(|cause| {
        let code = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        code == Some(Errno::LOOP.raw_os_error())
    });
    circle || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

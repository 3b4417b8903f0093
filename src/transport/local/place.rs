//! Where a path of this machine lies: as the system finds it, or from a directory that is held open, through no link.
//!
//! What a server calls its files is written below a directory that the user named. Its own path is the user's; below
//! it each directory is opened from the one above and held, and a link in the way is refused. So nothing that was
//! downloaded or planted meanwhile can lead a later file elsewhere: there is no moment between looking and acting.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::Error;
use crate::transport::RemotePath;

/// Directories held open at once, besides the root: so many at most, and this part of the files that may be open.
const HELD: usize = 64;
const PART_HELD: u64 = 8;

/// How a directory is opened to act on what is in it: to enter it is enough, to list it need not be allowed.
const ENTER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A name and the directory that it is meant in.
#[derive(Debug)]
pub(super) struct Place {
    /// `None`: the name is a whole path.
    dir: Option<Arc<OwnedFd>>,
    name: PathBuf,
}

impl Place {
    /// A path as the system finds it.
    pub(super) fn anywhere(path: &RemotePath) -> Self {
        Self { dir: None, name: PathBuf::from(OsStr::from_bytes(path.as_bytes())) }
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_ref().map_or(CWD, |dir| dir.as_fd())
    }

    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// Returns whether it lies below a held directory, where no link is followed.
    pub(super) fn is_held(&self) -> bool {
        self.dir.is_some()
    }

    /// Returns the flag that keeps `open` from following a link, where that is to be kept.
    pub(super) fn no_follow(&self) -> OFlags {
        if self.is_held() { OFlags::NOFOLLOW } else { OFlags::empty() }
    }

    /// Opens the directory that it lies in, to be synced.
    pub(super) fn open_parent(&self) -> io::Result<OwnedFd> {
        let parent = if self.is_held() { Path::new(".") } else { self.name.parent().unwrap_or(Path::new("/")) };
        Ok(rustix::fs::openat(self.dir(), parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Looks at the directory that it lies in.
    pub(super) fn parent(&self) -> io::Result<Stat> {
        Ok(match &self.dir {
            Some(dir) => rustix::fs::fstat(dir)?,
            None => rustix::fs::stat(self.name.parent().unwrap_or(Path::new("/")))?,
        })
    }

    /// Returns whether the held directory was removed meanwhile: another may be in its place.
    fn is_gone(&self) -> bool {
        self.dir.as_ref().is_some_and(|dir| rustix::fs::fstat(dir).is_ok_and(|stat| stat.st_nlink == 0))
    }
}

/// A directory, and those below it that were opened from there.
#[derive(Debug)]
pub(super) struct Held {
    root: RemotePath,
    handle: OnceLock<Arc<OwnedFd>>,
    below: Mutex<HashMap<RemotePath, Arc<OwnedFd>>>,
    most: usize,
}

impl Held {
    /// Names the root; it is opened when it is first needed, as it may still have to be made.
    pub(super) fn new(root: RemotePath) -> Self {
        let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit / PART_HELD).ok());
        Self { root, handle: OnceLock::new(), below: Mutex::default(), most: limit.unwrap_or(HELD).min(HELD) }
    }

    /// Returns the root as it was named.
    pub(super) fn root_path(&self) -> &RemotePath {
        &self.root
    }

    /// Carries out a call on a path; once more if the directory that was held had been removed and made anew.
    pub(super) fn on<T>(&self, path: &RemotePath, call: impl Fn(&Place) -> io::Result<T>) -> io::Result<T> {
        let place = self.place(path)?;
        match call(&place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && place.is_gone() => {
                self.below().clear();
                call(&self.place(path)?)
            }
            result => result,
        }
    }

    /// Finds a path: below the root through no link, anywhere else as the system does.
    fn place(&self, path: &RemotePath) -> io::Result<Place> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if parent.is_at_or_below(&self.root) => {
                Ok(Place { dir: Some(self.directory(&parent)?), name: PathBuf::from(OsStr::from_bytes(name)) })
            }
            _ => Ok(Place::anywhere(path)),
        }
    }

    fn directory(&self, path: &RemotePath) -> io::Result<Arc<OwnedFd>> {
        if let Some(known) = self.below().get(path) {
            return Ok(Arc::clone(known));
        }
        let mut handle = self.root()?;
        let mut at = self.root.clone();
        for name in path.components().skip(self.root.components().count()) {
            at = at.join(name).map_err(io::Error::other)?;
            let known = self.below().get(&at).cloned();
            handle = match known {
                Some(known) => known,
                None => self.hold(at.clone(), enter(&handle, OsStr::from_bytes(name))?),
            };
        }
        Ok(handle)
    }

    fn root(&self) -> io::Result<Arc<OwnedFd>> {
        if let Some(handle) = self.handle.get() {
            return Ok(Arc::clone(handle));
        }
        let handle = rustix::fs::openat(CWD, OsStr::from_bytes(self.root.as_bytes()), ENTER, Mode::empty())?;
        Ok(Arc::clone(self.handle.get_or_init(|| Arc::new(handle))))
    }

    fn hold(&self, path: RemotePath, handle: OwnedFd) -> Arc<OwnedFd> {
        let mut below = self.below();
        // To open some of them again costs less than to know which one is needed least.
        if below.len() >= self.most {
            below.clear();
        }
        Arc::clone(below.entry(path).or_insert_with(|| Arc::new(handle)))
    }

    fn below(&self) -> MutexGuard<'_, HashMap<RemotePath, Arc<OwnedFd>>> {
        self.below.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a directory within another, but not through a link.
fn enter(dir: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match rustix::fs::openat(dir, name, ENTER | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) if is_link(dir, name) => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, LinkInTheWay))
        }
        other => Ok(other?),
    }
}

fn is_link(dir: &OwnedFd, name: &OsStr) -> bool {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Makes the error of a call that failed.
pub(super) fn failure(what: &'static str, error: io::Error) -> Error {
    let link = error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<LinkInTheWay>);
    let error = Error::io(what, error);
    if link { error.with_hint(LINK_HINT) } else { error }
}

const LINK_HINT: &str =
    "put a directory in the link's place, or name the directory that it leads to as the destination";

/// A component of a path is a link, below a directory where none is followed.
#[derive(Debug)]
struct LinkInTheWay;

impl fmt::Display for LinkInTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a link is in the way, and nothing below the destination is written through links")
    }
}

impl std::error::Error for LinkInTheWay {}

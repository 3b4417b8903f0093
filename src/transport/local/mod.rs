//! This machine's files, `file://`: the reference backend.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use rustix::fs::{AtFlags, Dir, FileType as SystemKind, Mode, OFlags, RenameFlags, Stat};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{
    Algorithm, Capabilities, DiskSpace, Durability, Entry, EntryStream, FileKind, Follow, Mtime, Owner, Precision,
    ReadRange, ReadStream, RemotePath, Replace, SetMetadata, Transport, WriteMode, WriteStream,
};
use crate::error::{Error, ErrorKind, Result};
use disk::Disk;

mod disk;
mod place;
mod read;
mod write;

use place::{Held, Place, failure};

/// Entries of a listing under way.
const ENTRIES_IN_FLIGHT: usize = 256;

/// The local file system. Paths are those of the system; the threads of the runtime never wait for a slow disk.
#[derive(Debug, Clone, Default)]
pub struct Local {
    sparse: bool,
    disk: Disk,
    /// The directory below which no link is followed.
    held: Option<Arc<Held>>,
}

impl Local {
    /// Makes the transport; nothing is opened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one that leaves holes where a file that it writes has runs of zeros.
    pub fn sparse(sparse: bool) -> Self {
        Self { sparse, ..Self::default() }
    }

    /// Carries out a call on a path. Blocks.
    fn on<T>(&self, path: &RemotePath, call: impl Fn(&Place) -> io::Result<T>) -> io::Result<T> {
        match &self.held {
            Some(held) => held.on(path, call),
            None => call(&Place::anywhere(path)),
        }
    }

    /// Makes a short call to the file system and names the path in its error.
    async fn on_disk<T: Send + 'static>(
        &self,
        path: &RemotePath,
        what: &'static str,
        call: impl Fn(&Place) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (here, at) = (self.clone(), path.clone());
        match self.disk.run(move || here.on(&at, call)).await {
            Ok(result) => result.map_err(|e| failure(what, e).at(path)),
            Err(e) => Err(Error::new(ErrorKind::Other, what).with_source(e).at(path)),
        }
    }
}

#[async_trait]
impl Transport for Local {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            local: true,
            resume_read: true,
            resume_write: true,
            random_write: true,
            set_mtime: Some(Precision::Nanosecond),
            mtime_on_read: false,
            set_mode: true,
            symlinks: true,
            atomic_replace: true,
            fsync: true,
            // Reading here costs no network.
            server_copy: false,
            digests: vec![],
            streams: 64,
            max_connections: usize::MAX,
        }
    }

    fn beneath(&self, root: &RemotePath) -> Option<Arc<dyn Transport>> {
        Some(Arc::new(Self { held: Some(Arc::new(Held::new(root.clone()))), ..self.clone() }))
    }

    fn held_root(&self) -> Option<&RemotePath> {
        self.held.as_ref().map(|held| held.root_path())
    }

    async fn place(&self, path: &RemotePath) -> Option<Vec<u8>> {
        let parent = self.on_disk(path, "look at", Place::parent).await.ok()?;
        let name = path.file_name().unwrap_or_default();
        Some([format!("file {} {} ", parent.st_dev, parent.st_ino).as_bytes(), name].concat())
    }

    async fn home(&self) -> Result<RemotePath> {
        crate::endpoint::local_path(Path::new("."))
    }

    async fn stat(&self, path: &RemotePath, follow: Follow) -> Result<Entry> {
        let name = path.file_name().unwrap_or_default().to_vec();
        self.on_disk(path, "look at", move |place| {
            let follows = follow == Follow::Links && !place.is_held();
            let flags = if follows { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
            let stat = rustix::fs::statat(place.dir(), place.name(), flags)?;
            Ok(entry(&name, &stat, || rustix::fs::readlinkat(place.dir(), place.name(), Vec::new())))
        })
        .await
    }

    async fn list(&self, path: &RemotePath) -> Result<EntryStream> {
        let shown = path.clone();
        let names = self.on_disk(path, "list", |place| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | place.no_follow();
            Ok(Dir::new(rustix::fs::openat(place.dir(), place.name(), flags, Mode::empty())?)?)
        });
        let mut names = names.await?;
        let (sender, receiver) = mpsc::channel(ENTRIES_IN_FLIGHT);
        spawn_blocking(move || {
            while let Some(name) = names.read() {
                let item = name.map_err(io::Error::from).and_then(|found| listed(&names, found.file_name().to_bytes()));
                let item = item.map_err(|e| Error::io("list", e).at(&shown)).transpose();
                if item.is_some_and(|item| sender.blocking_send(item).is_err()) {
                    return;
                }
            }
        });
        Ok(Box::pin(stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })))
    }

    async fn open_read(&self, path: &RemotePath, range: ReadRange) -> Result<Box<dyn ReadStream>> {
        let first = self.on_disk(path, "open", move |place| read::open(place, range)).await?;
        Ok(Box::new(read::LocalRead::new(path.clone(), first)))
    }

    async fn open_write(&self, path: &RemotePath, mode: WriteMode) -> Result<Box<dyn WriteStream>> {
        if let Some(target) = write::later(self, path, mode) {
            return Ok(Box::new(write::LocalWrite::new(path.clone(), target, self.clone())));
        }
        let sparse = self.sparse;
        let target = self.on_disk(path, "open for writing", move |place| write::open(place, mode, sparse)).await?;
        Ok(Box::new(write::LocalWrite::new(path.clone(), target, self.clone())))
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace, durability: Durability) -> Result<()> {
        let (here, target) = (self.clone(), to.clone());
        self.on_disk(from, "rename", move |from| {
            here.on(&target, |to| {
                match replace {
                    Replace::Yes => rustix::fs::renameat(from.dir(), from.name(), to.dir(), to.name())?,
                    Replace::No => rename_no_replace(from, to)?,
                }
                match durability {
                    Durability::Synced => Ok(rustix::fs::fsync(to.open_parent()?)?),
                    Durability::Cached => Ok(()),
                }
            })
        })
        .await
        .map_err(|e| e.context(format!("to {to}")))
    }

    async fn remove_file(&self, path: &RemotePath) -> Result<()> {
        let unlink = |at: &Place| Ok(rustix::fs::unlinkat(at.dir(), at.name(), AtFlags::empty())?);
        self.on_disk(path, "remove", unlink).await
    }

    async fn remove_dir(&self, path: &RemotePath) -> Result<()> {
        let remove = |at: &Place| Ok(rustix::fs::unlinkat(at.dir(), at.name(), AtFlags::REMOVEDIR)?);
        self.on_disk(path, "remove the directory", remove).await
    }

    async fn create_dir(&self, path: &RemotePath) -> Result<()> {
        let make = |at: &Place| Ok(rustix::fs::mkdirat(at.dir(), at.name(), Mode::from_raw_mode(0o777))?);
        self.on_disk(path, "make the directory", make).await
    }

    async fn sync(&self, path: &RemotePath) -> Result<()> {
        self.on_disk(path, "force to the disk", |place| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | place.no_follow();
            Ok(rustix::fs::fsync(rustix::fs::openat(place.dir(), place.name(), flags, Mode::empty())?)?)
        })
        .await
    }

    async fn set_metadata(&self, path: &RemotePath, metadata: SetMetadata) -> Result<()> {
        // The way to the directory that is held is the user's: a link that leads to it is followed.
        let no_follow = if self.held_root() == Some(path) { OFlags::empty() } else { OFlags::NOFOLLOW };
        self.on_disk(path, "set time and mode", move |place| {
            if metadata.mtime.is_none() && metadata.mode.is_none() {
                return Ok(());
            }
            // Through one handle: both go to the same file, and never to what a link points to.
            let flags = OFlags::RDONLY | no_follow | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(place.dir(), place.name(), flags, Mode::empty())?);
            if let Some(mode) = metadata.mode {
                file.set_permissions(std::fs::Permissions::from_mode(mode & 0o7777))?;
            }
            match metadata.mtime {
                Some(mtime) => file.set_modified(mtime),
                None => Ok(()),
            }
        })
        .await
    }

    async fn hard_link(&self, path: &RemotePath, second: &RemotePath) -> Result<()> {
        let (here, second) = (self.clone(), second.clone());
        self.on_disk(path, "link", move |from| {
            here.on(&second, |to| {
                Ok(rustix::fs::linkat(from.dir(), from.name(), to.dir(), to.name(), AtFlags::empty())?)
            })
        })
        .await
    }

    async fn set_owner(&self, path: &RemotePath, owner: Owner) -> Result<()> {
        self.on_disk(path, "set the owner", move |at| {
            let (user, group) = match owner {
                Owner::User(user) => (Some(Uid::from_raw(user)), None),
                Owner::Group(group) => (None, Some(Gid::from_raw(group))),
            };
            Ok(rustix::fs::chownat(at.dir(), at.name(), user, group, AtFlags::empty())?)
        })
        .await
    }

    async fn disk_space(&self, path: &RemotePath) -> Result<DiskSpace> {
        self.on_disk(path, "look at the file system", |at| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let stat = rustix::fs::fstatvfs(rustix::fs::openat(at.dir(), at.name(), flags, Mode::empty())?)?;
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            Ok(DiskSpace {
                bytes: bytes(stat.f_blocks),
                free_bytes: bytes(stat.f_bfree),
                available_bytes: bytes(stat.f_bavail),
                files: stat.f_files,
                free_files: stat.f_ffree,
                available_files: stat.f_favail,
            })
        })
        .await
    }

    async fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        let read = |at: &Place| Ok(rustix::fs::readlinkat(at.dir(), at.name(), Vec::new())?.into_bytes());
        self.on_disk(path, "read the link", read).await
    }

    async fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        let target = OsStr::from_bytes(target).to_owned();
        let link = move |at: &Place| Ok(rustix::fs::symlinkat(&target, at.dir(), at.name())?);
        self.on_disk(path, "make the link", link).await
    }

    async fn digest(&self, path: &RemotePath, _: Algorithm, _: ReadRange) -> Result<Vec<u8>> {
        // The capabilities offer none: callers compute local digests from the bytes they read.
        Err(Error::new(ErrorKind::Unsupported, "no digest by the file system").at(path))
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn rename_no_replace(from: &Place, to: &Place) -> io::Result<()> {
    match rustix::fs::renameat_with(from.dir(), from.name(), to.dir(), to.name(), RenameFlags::NOREPLACE) {
        // Some file systems don't know the flag; a hard link is refused just as atomically.
        Err(Errno::INVAL | Errno::NOSYS) => {}
        other => return Ok(other?),
    }
    match rustix::fs::linkat(from.dir(), from.name(), to.dir(), to.name(), AtFlags::empty()) {
        Ok(()) => Ok(rustix::fs::unlinkat(from.dir(), from.name(), AtFlags::empty())?),
        // And some know no hard links either: what is left is to look first.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
            match rustix::fs::statat(to.dir(), to.name(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Ok(rustix::fs::renameat(from.dir(), from.name(), to.dir(), to.name())?),
                Err(e) => Err(e.into()),
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            }
        }
        Err(e) => Err(e.into()),
    }
}

/// Returns an entry of a directory that is being read; `None` for those that stand for the directory itself.
fn listed(dir: &Dir, name: &[u8]) -> io::Result<Option<Entry>> {
    if name == b"." || name == b".." {
        return Ok(None);
    }
    let (dir, at) = (dir.fd()?, OsStr::from_bytes(name));
    match rustix::fs::statat(dir, at, AtFlags::SYMLINK_NOFOLLOW) {
        // Removed since the name was read: it was not in the directory.
        Err(Errno::NOENT) => Ok(None),
        other => Ok(Some(entry(name, &other?, || rustix::fs::readlinkat(dir, at, Vec::new())))),
    }
}

fn entry(name: &[u8], stat: &Stat, target: impl FnOnce() -> rustix::io::Result<CString>) -> Entry {
    let kind = match SystemKind::from_raw_mode(stat.st_mode) {
        SystemKind::RegularFile => FileKind::File,
        SystemKind::Directory => FileKind::Directory,
        SystemKind::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let seconds = Mtime::from_unix(stat.st_mtime).time;
    Entry {
        name: name.to_vec(),
        kind,
        size: u64::try_from(stat.st_size).ok(),
        mtime: seconds.checked_add(Duration::from_nanos(stat.st_mtime_nsec)).map(Mtime::from),
        mode: Some(stat.st_mode & 0o7777),
        target: (kind == FileKind::Symlink).then(|| target().ok()).flatten().map(CString::into_bytes),
    }
}

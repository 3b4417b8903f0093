//! This machine's files, `file://`: the reference backend.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures_util::stream;
use rustix::fs::{OFlags, RenameFlags};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{
    Algorithm, Capabilities, Durability, Entry, EntryStream, FileKind, Follow, Mtime, Precision, ReadRange, ReadStream,
    RemotePath, Replace, SetMetadata, Transport, WriteMode, WriteStream,
};
use crate::error::{Error, ErrorKind, Result};
use disk::Disk;

mod disk;
mod read;
mod write;

/// Entries of a listing under way.
const ENTRIES_IN_FLIGHT: usize = 256;

/// The local file system. Paths are those of the system; the threads of the runtime never wait for a slow disk.
#[derive(Debug, Clone, Default)]
pub struct Local {
    sparse: bool,
    disk: Disk,
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

    /// Makes a short call to the file system and names the path in its error.
    async fn on_disk<T: Send + 'static>(
        &self,
        path: &RemotePath,
        what: &'static str,
        call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = native(path);
        match self.disk.run(move || call(&file)).await {
            Ok(result) => result.map_err(|e| Error::io(what, e).at(path)),
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
            digests: vec![],
            streams: 64,
            max_connections: usize::MAX,
        }
    }

    async fn home(&self) -> Result<RemotePath> {
        crate::endpoint::local_path(Path::new("."))
    }

    async fn stat(&self, path: &RemotePath, follow: Follow) -> Result<Entry> {
        self.on_disk(path, "look at", move |file| {
            let metadata = match follow {
                Follow::Links => file.metadata()?,
                Follow::Nothing => file.symlink_metadata()?,
            };
            Ok(entry(file.file_name().unwrap_or_default(), file, &metadata))
        })
        .await
    }

    async fn list(&self, path: &RemotePath) -> Result<EntryStream> {
        let shown = path.clone();
        let names = self.on_disk(path, "list", Path::read_dir).await?;
        let (sender, receiver) = mpsc::channel(ENTRIES_IN_FLIGHT);
        spawn_blocking(move || {
            for name in names {
                let item = name.and_then(|found| {
                    let metadata = match found.metadata() {
                        // Removed between the two calls: it was not in the directory.
                        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                        other => other?,
                    };
                    Ok(Some(entry(&found.file_name(), &found.path(), &metadata)))
                });
                let item = item.map_err(|e| Error::io("list", e).at(&shown)).transpose();
                if item.is_some_and(|item| sender.blocking_send(item).is_err()) {
                    return;
                }
            }
        });
        Ok(Box::pin(stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })))
    }

    async fn open_read(&self, path: &RemotePath, range: ReadRange) -> Result<Box<dyn ReadStream>> {
        let first = self.on_disk(path, "open", move |file| read::open(file, range)).await?;
        Ok(Box::new(read::LocalRead::new(path.clone(), first)))
    }

    async fn open_write(&self, path: &RemotePath, mode: WriteMode) -> Result<Box<dyn WriteStream>> {
        let sparse = self.sparse;
        if let Some(target) = write::later(native(path), mode, sparse) {
            return Ok(Box::new(write::LocalWrite::new(path.clone(), target, self.disk.clone())));
        }
        let target = self.on_disk(path, "open for writing", move |file| write::open(file, mode, sparse)).await?;
        Ok(Box::new(write::LocalWrite::new(path.clone(), target, self.disk.clone())))
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace, durability: Durability) -> Result<()> {
        let target = native(to);
        let parent = to.parent();
        self.on_disk(from, "rename", move |from| {
            match replace {
                Replace::Yes => std::fs::rename(from, &target)?,
                Replace::No => rename_no_replace(from, &target)?,
            }
            match (durability, parent) {
                (Durability::Synced, Some(parent)) => std::fs::File::open(native(&parent))?.sync_all(),
                _ => Ok(()),
            }
        })
        .await
        .map_err(|e| e.context(format!("to {to}")))
    }

    async fn remove_file(&self, path: &RemotePath) -> Result<()> {
        self.on_disk(path, "remove", |file| std::fs::remove_file(file)).await
    }

    async fn remove_dir(&self, path: &RemotePath) -> Result<()> {
        self.on_disk(path, "remove the directory", |dir| std::fs::remove_dir(dir)).await
    }

    async fn create_dir(&self, path: &RemotePath) -> Result<()> {
        self.on_disk(path, "make the directory", |dir| std::fs::create_dir(dir)).await
    }

    async fn set_metadata(&self, path: &RemotePath, metadata: SetMetadata) -> Result<()> {
        self.on_disk(path, "set time and mode", move |file| {
            if metadata.mtime.is_none() && metadata.mode.is_none() {
                return Ok(());
            }
            // Through one handle: both go to the same file, and never to what a link points to.
            let mut options = std::fs::OpenOptions::new();
            options.read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
            let file = options.open(file)?;
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

    async fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        self.on_disk(path, "read the link", |link| Ok(std::fs::read_link(link)?.into_os_string().into_vec())).await
    }

    async fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        let target = PathBuf::from(OsStr::from_bytes(target));
        self.on_disk(path, "make the link", move |link| std::os::unix::fs::symlink(target, link)).await
    }

    async fn digest(&self, path: &RemotePath, _: Algorithm, _: ReadRange) -> Result<Vec<u8>> {
        // The capabilities offer none: callers compute local digests from the bytes they read.
        Err(Error::new(ErrorKind::Unsupported, "no digest by the file system").at(path))
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems don't know the flag; a hard link is refused just as atomically.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        other => Ok(other?),
    }
}

fn entry(name: &OsStr, path: &Path, metadata: &std::fs::Metadata) -> Entry {
    let kind = match metadata.file_type() {
        t if t.is_file() => FileKind::File,
        t if t.is_dir() => FileKind::Directory,
        t if t.is_symlink() => FileKind::Symlink,
        _ => FileKind::Other,
    };
    let target = (kind == FileKind::Symlink).then(|| std::fs::read_link(path).ok()).flatten();
    Entry {
        name: name.as_bytes().to_vec(),
        kind,
        size: Some(metadata.len()),
        mtime: metadata.modified().ok().map(Mtime::from),
        mode: Some(metadata.mode() & 0o7777),
        target: target.map(|t| t.into_os_string().into_vec()),
    }
}

fn native(path: &RemotePath) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.as_bytes()))
}

//! This machine's files, `file://`: the reference backend.

use std::ffi::OsStr;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use rustix::fs::{OFlags, RenameFlags};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    Algorithm, Capabilities, Durability, Entry, EntryStream, FileKind, Follow, Mtime, Precision, ReadRange, ReadStream,
    RemotePath, Replace, SetMetadata, Transport, WriteMode, WriteStream,
};
use crate::error::{Error, ErrorKind, Result};

/// Bytes read at once; large enough that the hand-over between threads doesn't show.
const CHUNK: usize = 1 << 20;
/// Chunks under way between the disk's thread and the caller.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Entries of a listing under way.
const ENTRIES_IN_FLIGHT: usize = 256;

/// The local file system. Paths are those of the system; every call runs on a blocking thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local;

impl Local {
    /// Makes the transport; nothing is opened.
    pub fn new() -> Self {
        Self
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
            set_mode: true,
            symlinks: true,
            atomic_replace: true,
            fsync: true,
            digests: vec![],
            concurrency: 64,
        }
    }

    async fn home(&self) -> Result<RemotePath> {
        crate::endpoint::local_path(Path::new("."))
    }

    async fn stat(&self, path: &RemotePath, follow: Follow) -> Result<Entry> {
        on_disk(path, "look at", move |file| {
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
        let names = on_disk(path, "list", Path::read_dir).await?;
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
        let file = on_disk(path, "open", move |file| {
            let mut file = std::fs::File::open(file)?;
            if file.metadata()?.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            file.seek(SeekFrom::Start(range.start))?;
            Ok(file)
        })
        .await?;
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let shown = path.clone();
        let left = range.end.map_or(u64::MAX, |end| end.saturating_sub(range.start));
        spawn_blocking(move || read_chunks(file, left, &shown, &sender));
        Ok(Box::new(LocalRead { chunks: receiver, ended: false }))
    }

    async fn open_write(&self, path: &RemotePath, mode: WriteMode) -> Result<Box<dyn WriteStream>> {
        let file = on_disk(path, "open for writing", move |file| match mode {
            WriteMode::Create { mode } => create_anew(file, mode.unwrap_or(0o666)),
            WriteMode::At(offset) => {
                let mut options = std::fs::OpenOptions::new();
                let mut file = options.write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(file)?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(file)
            }
        })
        .await?;
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let written = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&written);
        let writer = spawn_blocking(move || write_chunks(file, receiver, &counter));
        Ok(Box::new(LocalWrite { path: path.clone(), chunks: Some(sender), written, writer }))
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace, durability: Durability) -> Result<()> {
        let target = native(to);
        let parent = to.parent();
        on_disk(from, "rename", move |from| {
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
        on_disk(path, "remove", |file| std::fs::remove_file(file)).await
    }

    async fn remove_dir(&self, path: &RemotePath) -> Result<()> {
        on_disk(path, "remove the directory", |dir| std::fs::remove_dir(dir)).await
    }

    async fn create_dir(&self, path: &RemotePath) -> Result<()> {
        on_disk(path, "make the directory", |dir| std::fs::create_dir(dir)).await
    }

    async fn set_metadata(&self, path: &RemotePath, metadata: SetMetadata) -> Result<()> {
        on_disk(path, "set time and mode", move |file| {
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
        on_disk(path, "read the link", |link| Ok(std::fs::read_link(link)?.into_os_string().into_vec())).await
    }

    async fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        let target = PathBuf::from(OsStr::from_bytes(target));
        on_disk(path, "make the link", move |link| std::os::unix::fs::symlink(target, link)).await
    }

    async fn digest(&self, path: &RemotePath, _: Algorithm, _: ReadRange) -> Result<Vec<u8>> {
        // The capabilities offer none: callers compute local digests from the bytes they read.
        Err(Error::new(ErrorKind::Unsupported, "no digest by the file system").at(path))
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

struct LocalRead {
    chunks: mpsc::Receiver<Result<Bytes>>,
    ended: bool,
}

#[async_trait]
impl ReadStream for LocalRead {
    async fn read(&mut self) -> Result<Bytes> {
        if self.ended {
            return Ok(Bytes::new());
        }
        let chunk =
            self.chunks.recv().await.unwrap_or_else(|| Err(Error::new(ErrorKind::Other, "the reader stopped")))?;
        self.ended = chunk.is_empty();
        Ok(chunk)
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct LocalWrite {
    path: RemotePath,
    chunks: Option<mpsc::Sender<Bytes>>,
    written: Arc<AtomicU64>,
    writer: JoinHandle<io::Result<std::fs::File>>,
}

impl LocalWrite {
    async fn join(&mut self) -> Result<std::fs::File> {
        self.chunks = None;
        match (&mut self.writer).await {
            Ok(result) => result.map_err(|e| Error::io("write", e).at(&self.path)),
            Err(e) => Err(Error::new(ErrorKind::Other, "the writer stopped").with_source(e).at(&self.path)),
        }
    }
}

#[async_trait]
impl WriteStream for LocalWrite {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let Some(chunks) = &self.chunks else {
            return Err(Error::new(ErrorKind::Other, "written to after an error").at(&self.path));
        };
        if chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        match self.join().await {
            Err(error) => Err(error),
            Ok(_) => Err(Error::new(ErrorKind::Other, "the writer stopped").at(&self.path)),
        }
    }

    fn acknowledged(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    async fn finish(mut self: Box<Self>, durability: Durability) -> Result<()> {
        let file = self.join().await?;
        match durability {
            Durability::Cached => Ok(()),
            Durability::Synced => on_disk(&self.path, "fsync", move |_| file.sync_all()).await,
        }
    }
}

/// Makes a file that was certainly not there: one that somebody else prepared (with their owner, mode or links) is
/// removed first, and what is not a regular file is refused.
fn create_anew(file: &Path, mode: u32) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode & 0o777);
    match options.open(file) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match file.symlink_metadata()?.file_type() {
            t if t.is_file() => {
                std::fs::remove_file(file)?;
                options.open(file)
            }
            t if t.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(e),
        },
        other => other,
    }
}

fn read_chunks(mut file: std::fs::File, mut left: u64, path: &RemotePath, chunks: &mpsc::Sender<Result<Bytes>>) {
    loop {
        let want = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
        let chunk = read_up_to(&mut file, want).map_err(|e| Error::io("read", e).at(path));
        let length = chunk.as_ref().map_or(0, Bytes::len);
        left -= length as u64;
        if chunks.blocking_send(chunk).is_err() || length == 0 {
            return;
        }
    }
}

/// Reads until the chunk is full or the file ends, so that chunks are even however the file system answers.
fn read_up_to(file: &mut std::fs::File, want: usize) -> io::Result<Bytes> {
    let mut chunk = Vec::with_capacity(want);
    file.take(want as u64).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}

fn write_chunks(
    mut file: std::fs::File,
    mut chunks: mpsc::Receiver<Bytes>,
    written: &AtomicU64,
) -> io::Result<std::fs::File> {
    while let Some(chunk) = chunks.blocking_recv() {
        file.write_all(&chunk)?;
        written.fetch_add(chunk.len() as u64, Ordering::Release);
    }
    Ok(file)
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

/// Runs a file system call on a blocking thread and names the path in its error.
async fn on_disk<T: Send + 'static>(
    path: &RemotePath,
    what: &'static str,
    call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let file = native(path);
    match spawn_blocking(move || call(&file)).await {
        Ok(result) => result.map_err(|e| Error::io(what, e).at(path)),
        Err(e) => Err(Error::new(ErrorKind::Other, what).with_source(e).at(path)),
    }
}

//! Writing a file of this machine: chunks gathered into large positional writes, off the asynchronous threads.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Local;
use super::place::{Place, failure};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Durability, Finish, Finished, RemotePath, WriteMode, WriteStream};

/// Bytes gathered before they are written; a smaller file is written as it is closed, in one go.
const GATHER: usize = 1 << 20;
/// Slices handed to the kernel at once (`IOV_MAX` is 1024).
const MAX_SLICES: usize = 1000;
/// Room is reserved for larger files. Smaller ones have no journal: should the power fail, they show by their size that
/// nothing was written.
const WORTH_RESERVING: u64 = 1 << 20;
/// A run of zeros is left out in steps of a file system's block.
const HOLE: usize = 4096;

/// A file being written: one batch on its way to the kernel, the next being gathered.
pub(super) struct LocalWrite {
    path: RemotePath,
    here: Local,
    target: Target,
    gathered: Vec<Bytes>,
    length: usize,
    written: Arc<AtomicU64>,
    under_way: Option<JoinHandle<io::Result<()>>>,
    failed: bool,
}

/// Where the next batch goes.
#[derive(Clone)]
pub(super) struct Target {
    file: Open,
    position: u64,
    sparse: bool,
}

#[derive(Clone)]
enum Open {
    Now(Arc<File>),
    /// Made as it is closed, with this mode: all that is written fits into one batch.
    Later(Local, RemotePath, u32),
}

impl Open {
    fn open(&self) -> io::Result<Arc<File>> {
        match self {
            Self::Now(file) => Ok(Arc::clone(file)),
            Self::Later(here, path, mode) => here.on(path, |place| create_anew(place, *mode)).map(Arc::new),
        }
    }
}

/// Returns the target for a new file that is known to be small: it costs one hand-over to a blocking thread, not two.
pub(super) fn later(here: &Local, path: &RemotePath, mode: WriteMode) -> Option<Target> {
    match mode {
        WriteMode::Create { mode, length: Some(length) } if length < GATHER as u64 => {
            let file = Open::Later(here.clone(), path.clone(), mode.unwrap_or(0o666));
            Some(Target { file, position: 0, sparse: here.sparse })
        }
        _ => None,
    }
}

/// Opens the file. Blocks.
pub(super) fn open(place: &Place, mode: WriteMode, sparse: bool) -> io::Result<Target> {
    let (file, position) = match mode {
        WriteMode::Create { mode, length } => {
            let file = create_anew(place, mode.unwrap_or(0o666))?;
            if let Some(length) = length.filter(|&length| length > WORTH_RESERVING && !sparse) {
                reserve(&file, length)?;
            }
            (file, 0)
        }
        WriteMode::At(offset) => (open_again(place)?, offset),
    };
    Ok(Target { file: Open::Now(Arc::new(file)), position, sparse })
}

/// Opens what was begun; a link, a pipe, or a file that has another name too was put there by somebody else.
fn open_again(place: &Place) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(place.dir(), place.name(), flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() == 1 {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "something else is in the place of what was begun"))
}

/// Fails if something else has taken the place of the file meanwhile, which would get its name.
fn is_still_there(place: &Place, file: &Metadata) -> io::Result<()> {
    match rustix::fs::statat(place.dir(), place.name(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if (found.st_dev, found.st_ino) == (file.dev(), file.ino()) => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(io::Error::other("somebody removed or replaced it meanwhile")),
        Err(e) => Err(e.into()),
    }
}

/// Makes a file that was certainly not there: whatever somebody else prepared (a link, a pipe, a file of theirs) is
/// removed first, never written to; a directory is an error.
fn create_anew(place: &Place, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let create = || rustix::fs::openat(place.dir(), place.name(), flags, Mode::from_raw_mode(mode & 0o777));
    let file = match create() {
        Err(Errno::EXIST) => match rustix::fs::unlinkat(place.dir(), place.name(), AtFlags::empty()) {
            Err(Errno::ISDIR) => return Err(io::ErrorKind::IsADirectory.into()),
            removed => removed.and_then(|()| create()),
        },
        other => other,
    };
    Ok(File::from(file?))
}

/// Reserves room without changing the size: a full disk is told before the first byte, and the file lies in one piece.
fn reserve(file: &File, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
        Err(e @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(e.into()),
        // Not every file system can.
        _ => Ok(()),
    }
}

impl Target {
    /// Writes a batch and moves on behind it.
    fn write(&mut self, file: &File, batch: &[Bytes]) -> io::Result<()> {
        if self.sparse {
            return batch.iter().try_for_each(|chunk| self.write_around_holes(file, chunk));
        }
        for batch in batch.chunks(MAX_SLICES) {
            let mut slices: Vec<_> = batch.iter().map(|chunk| IoSlice::new(chunk)).collect();
            let mut slices = &mut slices[..];
            while !slices.is_empty() {
                match rustix::io::pwritev(file, slices, self.position) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        self.position += count as u64;
                        IoSlice::advance_slices(&mut slices, count);
                    }
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }

    fn write_around_holes(&mut self, file: &File, chunk: &Bytes) -> io::Result<()> {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            // Up to the next border of a block, then block by block.
            let border = HOLE - (self.position % HOLE as u64) as usize;
            let (block, behind) = rest.split_at(border.min(rest.len()));
            if block.iter().any(|&byte| byte != 0) {
                file.write_all_at(block, self.position)?;
            }
            self.position += block.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    fn close(mut self, here: &Local, path: &RemotePath, batch: &[Bytes], last: Finish) -> io::Result<Finished> {
        let file = self.file.open()?;
        self.write(&file, batch)?;
        let metadata = file.metadata()?;
        if let Open::Now(_) = self.file {
            here.on(path, |place| is_still_there(place, &metadata))?;
        }
        let mut size = metadata.len();
        if self.sparse && size < self.position {
            file.set_len(self.position)?;
            size = self.position;
        }
        let mode = last.metadata.mode.map(|mode| file.set_permissions(Permissions::from_mode(mode & 0o7777)));
        let mtime = last.metadata.mtime.map(|mtime| file.set_modified(mtime));
        if last.durability == Durability::Synced {
            file.sync_all()?;
        }
        let metadata = mode.unwrap_or(Ok(())).and(mtime.unwrap_or(Ok(())));
        Ok(Finished { size: Some(size), metadata: metadata.map_err(|e| Error::io("set time and mode", e)) })
    }
}

impl LocalWrite {
    pub(super) fn new(path: RemotePath, target: Target, here: Local) -> Self {
        let written = Arc::default();
        Self { path, here, target, gathered: Vec::new(), length: 0, written, under_way: None, failed: false }
    }

    /// Waits until the batch before is written.
    async fn settle(&mut self) -> Result<()> {
        let Some(batch) = self.under_way.take() else { return Ok(()) };
        let result = joined(batch.await);
        self.failed |= result.is_err();
        result.map_err(|e| e.at(&self.path))
    }

    /// Makes the file now after all: there is more to write than was said.
    async fn open_now(&mut self) -> Result<()> {
        if let Open::Later(..) = self.target.file {
            let file = self.target.file.clone();
            let file = joined(self.here.disk.run(move || file.open()).await).map_err(|e| e.at(&self.path))?;
            self.target.file = Open::Now(file);
        }
        Ok(())
    }

    fn send(&mut self) {
        let batch = std::mem::take(&mut self.gathered);
        let length = std::mem::take(&mut self.length) as u64;
        let (mut target, written) = (self.target.clone(), Arc::clone(&self.written));
        self.target.position += length;
        self.under_way = Some(spawn_blocking(move || {
            let file = target.file.open()?;
            target.write(&file, &batch)?;
            written.fetch_add(length, Ordering::Release);
            Ok(())
        }));
    }
}

#[async_trait]
impl WriteStream for LocalWrite {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        if self.failed {
            return Err(Error::new(ErrorKind::Other, "written to after an error").at(&self.path));
        }
        self.length += chunk.len();
        self.gathered.push(chunk);
        if self.length >= GATHER {
            self.open_now().await?;
            self.settle().await?;
            self.send();
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    async fn hand_on(&mut self) -> Result<()> {
        self.settle().await?;
        if !self.failed && !self.gathered.is_empty() {
            self.send();
        }
        self.settle().await
    }

    async fn finish(mut self: Box<Self>, last: Finish) -> Result<Finished> {
        if self.failed {
            return Err(Error::new(ErrorKind::Other, "finished after an error").at(&self.path));
        }
        self.settle().await?;
        let Self { path, here, target, gathered, .. } = *self;
        let (disk, at) = (here.disk.clone(), path.clone());
        joined(disk.run(move || target.close(&here, &at, &gathered, last)).await).map_err(|e| e.at(&path))
    }
}

fn joined<T>(result: std::result::Result<io::Result<T>, tokio::task::JoinError>) -> Result<T> {
    match result {
        Ok(result) => result.map_err(|e| failure("write", e)),
        Err(e) => Err(Error::new(ErrorKind::Other, "the writer stopped").with_source(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(sparse: bool, contents: &[u8], mode: WriteMode) -> (Vec<u8>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        if let WriteMode::At(_) = mode {
            std::fs::write(&path, []).unwrap();
        }
        let shown = RemotePath::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let (here, place) = (Local::sparse(sparse), Place::anywhere(&shown));
        let target = later(&here, &shown, mode).unwrap_or_else(|| open(&place, mode, sparse).unwrap());
        let mut stream = Box::new(LocalWrite::new(shown, target, here));
        for chunk in contents.chunks(300_001) {
            stream.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        assert_eq!(stream.finish(Finish::CACHED).await.unwrap().size, Some(std::fs::metadata(&path).unwrap().len()));
        (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().blocks() * 512)
    }

    #[tokio::test]
    async fn zeros_become_holes_only_if_asked_for() {
        let mut contents = vec![0; 5_000_000];
        contents[2_000_000] = 7;
        for mode in [WriteMode::CREATE, WriteMode::At(0)] {
            let (found, room) = write(true, &contents, mode).await;
            assert!(found == contents && room < 100_000, "{room} bytes of disk");
            let (found, room) = write(false, &contents, mode).await;
            assert!(found == contents && room >= 5_000_000, "{room} bytes of disk");
        }
    }

    #[tokio::test]
    async fn what_is_gathered_is_handed_on_and_writing_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let shown = RemotePath::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let target = open(&Place::anywhere(&shown), WriteMode::CREATE, false).unwrap();
        let mut stream = Box::new(LocalWrite::new(shown, target, Local::sparse(false)));
        for rounds in 1..=3 {
            for _ in 0..5 {
                stream.write(Bytes::from(vec![rounds; 300_001])).await.unwrap();
            }
            stream.hand_on().await.unwrap();
            assert_eq!(stream.acknowledged(), u64::from(rounds) * 5 * 300_001);
        }
        stream.finish(Finish::CACHED).await.unwrap();
        let wanted: Vec<u8> = (1..=3).flat_map(|n| vec![n; 5 * 300_001]).collect();
        assert!(std::fs::read(path).unwrap() == wanted);
    }

    #[tokio::test]
    async fn many_small_chunks_arrive_in_order() {
        let contents: Vec<u8> = (0..3_333_333u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        // The last one is longer than it was said to be.
        for length in [None, Some(3_333_333), Some(10)] {
            let mode = WriteMode::Create { mode: None, length };
            assert!(write(false, &contents, mode).await.0 == contents);
            assert!(write(false, &contents[..10], mode).await.0 == contents[..10]);
        }
    }
}

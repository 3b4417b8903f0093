//! Reading a file of this machine, one chunk ahead of the caller.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, pread};
use tokio::task::{JoinHandle, spawn_blocking};

use super::place::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::buffers::Buffers;
use crate::transport::{ReadRange, ReadStream, RemotePath};

/// Bytes read at once; large enough that the hand-over between threads doesn't show.
const CHUNK: u64 = 1 << 20;

/// A file being read: while the caller works on one chunk, a blocking thread reads the next.
pub(super) struct LocalRead {
    path: RemotePath,
    next: Next,
}

enum Next {
    Ready(Chunk),
    Coming(JoinHandle<io::Result<Chunk>>),
    End,
}

/// What was read, and where to go on; no reader behind the end.
pub(super) struct Chunk {
    bytes: Bytes,
    rest: Option<Rest>,
}

struct Rest {
    file: Arc<File>,
    position: u64,
    end: u64,
    buffers: Buffers,
}

/// Opens a file and reads its first chunk, all in one go: a small file costs no second hand-over. Blocks.
pub(super) fn open(place: &Place, range: ReadRange) -> io::Result<Chunk> {
    // A pipe that nobody writes to must not hold it up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | place.no_follow();
    let open = |flags| rustix::fs::openat(place.dir(), place.name(), flags, Mode::empty());
    let file = match open(flags) {
        // Another program has a lease on the file, and gives it back when it is asked to.
        Err(Errno::WOULDBLOCK) => open(flags - OFlags::NONBLOCK),
        opened => opened,
    };
    let file = File::from(file?);
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // Pipes can't be read from an offset.
    if metadata.file_type().is_fifo() || (place.is_held() && !metadata.is_file()) {
        return Err(io::Error::other("not a regular file"));
    }
    let rest = Rest {
        file: Arc::new(file),
        position: range.start,
        end: range.end.unwrap_or(u64::MAX),
        buffers: Buffers::default(),
    };
    // A pipe or a file of /proc says nothing about its length.
    let expected = if metadata.len() == 0 { CHUNK } else { metadata.len().saturating_sub(range.start) + 1 };
    rest.read(expected)
}

impl LocalRead {
    pub(super) fn new(path: RemotePath, first: Chunk) -> Self {
        Self { path, next: Next::Ready(first) }
    }
}

impl Rest {
    /// Reads a chunk, which is full unless the file or the range ends in it.
    fn read(mut self, expected: u64) -> io::Result<Chunk> {
        let want = (self.end.saturating_sub(self.position)).min(CHUNK).min(expected);
        let want = usize::try_from(want).unwrap_or(0);
        let mut bytes = self.buffers.take(want);
        while bytes.len() < want {
            match pread(&self.file, spare_capacity(&mut bytes), self.position) {
                Ok(0) => break,
                Ok(count) => self.position += count as u64,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let ended = bytes.len() < want || self.position >= self.end;
        // The buffer may have had room for more.
        bytes.truncate(want);
        Ok(Chunk { bytes: self.buffers.lend(bytes), rest: (!ended).then_some(self) })
    }
}

#[async_trait]
impl ReadStream for LocalRead {
    async fn read(&mut self) -> Result<Bytes> {
        let chunk = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok(Bytes::new()),
            Next::Ready(chunk) => chunk,
            Next::Coming(mut reading) => {
                let joined = (&mut reading).await;
                let read = joined.map_err(|e| Error::new(ErrorKind::Other, "the reader stopped").with_source(e))?;
                read.map_err(|e| Error::io("read", e).at(&self.path))?
            }
        };
        if let Some(rest) = chunk.rest {
            self.next = Next::Coming(spawn_blocking(move || rest.read(CHUNK)));
        }
        Ok(chunk.bytes)
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

//! Bytes between one who writes and one who reads later: some in memory, the rest in a file without a name.

use std::collections::VecDeque;
use std::io::SeekFrom;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::{Mutex, Notify};

use crate::error::{Error, ErrorKind, Result};

/// The most bytes kept in memory.
const IN_MEMORY: usize = 1024 * 1024;
/// Bytes read from the file at once.
const CHUNK: usize = 64 * 1024;

/// The most bytes of one listing: some fifty million names. It is not the server that says when a disk is full.
const MOST: u64 = 4 << 30;

/// The queue: all of what is in memory comes before what is in the file.
pub(super) struct Spool {
    state: Mutex<State>,
    changed: Notify,
    most: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), most: MOST }
    }
}

#[derive(Default)]
struct State {
    memory: VecDeque<Bytes>,
    held: usize,
    /// Bytes that came so far.
    total: u64,
    file: Option<Overflow>,
    end: Option<Result<()>>,
}

struct Overflow {
    file: File,
    read: u64,
    written: u64,
}

impl Spool {
    /// Adds bytes, or the end, or why there is none; returns whether more can follow.
    pub(super) async fn put(&self, item: Result<Option<Bytes>>) -> bool {
        let mut state = self.state.lock().await;
        match item {
            Ok(Some(bytes)) if state.end.is_none() => {
                state.total += bytes.len() as u64;
                if state.total > self.most {
                    state.end = Some(Err(Error::new(ErrorKind::Protocol, "the listing has no end")));
                } else if let Err(e) = state.add(bytes).await {
                    state.end = Some(Err(Error::io("keep a long listing in a temporary file", e)));
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => _ = state.end.get_or_insert(Ok(())),
            Err(e) => state.end = Some(Err(e)),
        }
        let goes_on = state.end.is_none();
        drop(state);
        self.changed.notify_one();
        goes_on
    }

    /// Returns the next bytes; `None` at the end.
    pub(super) async fn take(&self) -> Result<Option<Bytes>> {
        loop {
            let mut state = self.state.lock().await;
            if let Some(bytes) = state.memory.pop_front() {
                state.held -= bytes.len();
                return Ok(Some(bytes));
            }
            let from_file = state.read_file().await;
            if let Some(bytes) = from_file.map_err(|e| Error::io("read a temporary file", e))? {
                return Ok(Some(bytes));
            }
            if let Some(end) = state.end.take() {
                // Asked again, it ends again.
                state.end = Some(Ok(()));
                return end.map(|()| None);
            }
            drop(state);
            self.changed.notified().await;
        }
    }
}

impl State {
    async fn add(&mut self, bytes: Bytes) -> std::io::Result<()> {
        if self.file.is_none() && self.held + bytes.len() <= IN_MEMORY {
            self.held += bytes.len();
            self.memory.push_back(bytes);
            return Ok(());
        }
        let overflow = match &mut self.file {
            Some(overflow) => overflow,
            none => none.insert(Overflow { file: nameless().await?, read: 0, written: 0 }),
        };
        overflow.file.seek(SeekFrom::Start(overflow.written)).await?;
        overflow.file.write_all(&bytes).await?;
        overflow.file.flush().await?;
        overflow.written += bytes.len() as u64;
        Ok(())
    }

    async fn read_file(&mut self) -> std::io::Result<Option<Bytes>> {
        let Some(overflow) = &mut self.file else { return Ok(None) };
        if overflow.read == overflow.written {
            // Caught up: memory is enough again.
            self.file = None;
            return Ok(None);
        }
        let mut buffer = Vec::with_capacity(CHUNK);
        overflow.file.seek(SeekFrom::Start(overflow.read)).await?;
        (&mut overflow.file).take(CHUNK as u64).read_to_end(&mut buffer).await?;
        if buffer.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        overflow.read += buffer.len() as u64;
        Ok(Some(buffer.into()))
    }
}

/// Makes a file that has no name, so that it goes away with its last user.
async fn nameless() -> std::io::Result<File> {
    let open = || {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)
    };
    let file = tokio::task::spawn_blocking(open).await.map_err(std::io::Error::other)?;
    Ok(File::from_std(file?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(number: usize) -> Bytes {
        vec![number as u8; 50_000].into()
    }

    #[tokio::test]
    async fn what_is_too_much_for_memory_comes_back_in_order() {
        let spool = Spool::default();
        for round in 0..2 {
            for number in 0..100 {
                spool.put(Ok(Some(piece(number)))).await;
            }
            assert!(spool.state.lock().await.file.is_some(), "all in memory");
            let mut found = Vec::new();
            while found.len() < 100 * 50_000 {
                found.extend_from_slice(&spool.take().await.unwrap().unwrap());
            }
            let expected: Vec<u8> = (0..100).flat_map(piece).collect();
            assert!(found == expected, "round {round}");
        }
        spool.put(Ok(None)).await;
        assert!(spool.take().await.unwrap().is_none());
        assert!(spool.take().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_read() {
        let spool = Spool::default();
        spool.put(Ok(Some(piece(1)))).await;
        spool.put(Err(ErrorKind::ConnectionLost.into())).await;
        assert_eq!(spool.take().await.unwrap().unwrap(), piece(1));
        assert_eq!(spool.take().await.unwrap_err().kind(), ErrorKind::ConnectionLost);
    }

    #[tokio::test]
    async fn a_listing_without_an_end_gets_one() {
        let spool = Spool { most: 120_000, ..Spool::default() };
        assert!(spool.put(Ok(Some(piece(1)))).await);
        assert!(spool.put(Ok(Some(piece(2)))).await);
        assert!(!spool.put(Ok(Some(piece(3)))).await, "more was asked for");
        assert!(!spool.put(Ok(Some(piece(4)))).await);
        assert_eq!((spool.take().await.unwrap(), spool.take().await.unwrap()), (Some(piece(1)), Some(piece(2))));
        assert_eq!(spool.take().await.unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[tokio::test]
    async fn a_reader_waits_for_the_writer() {
        let spool = Spool::default();
        let (taken, _) = tokio::join!(spool.take(), spool.put(Ok(Some(piece(7)))));
        assert_eq!(taken.unwrap().unwrap(), piece(7));
    }
}

//! Digests of what passes through the copy loop, block by block, for the journal.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::journal::{Head, Journal};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that are digested at once, on a thread beside the loop: the loop itself has a network to keep busy.
const AT_ONCE: usize = 512 << 10;

/// Digests a stream and writes its blocks down once the destination has them.
pub(super) struct Blocks<'a, 'j> {
    journal: &'a Mutex<&'j mut Journal>,
    start: u64,
    block: u64,
    position: u64,
    /// What the next batch is made of.
    gathered: Vec<Bytes>,
    length: usize,
    /// One of these two: the digests so far, or the thread that has them.
    idle: Option<Digests>,
    busy: Option<JoinHandle<Digests>>,
}

impl<'a, 'j> Blocks<'a, 'j> {
    /// Begins with the byte at `start`.
    pub(super) fn new(journal: &'a Mutex<&'j mut Journal>, start: u64) -> Self {
        let head = lock(journal).head.clone();
        let (block, idle) = (head.block, Some(Digests::new(head, start)));
        Self { journal, start, block, position: start, gathered: Vec::new(), length: 0, idle, busy: None }
    }

    /// Takes the next bytes of the stream.
    pub(super) async fn update(&mut self, bytes: Bytes) -> Result<()> {
        let before = self.position / self.block;
        self.position += bytes.len() as u64;
        self.length += bytes.len();
        self.gathered.push(bytes);
        // A block is written down as soon as may be, however slowly the next one comes.
        if self.length < AT_ONCE && self.position / self.block == before {
            return Ok(());
        }
        self.settle().await?;
        if let Some(mut digests) = self.idle.take() {
            let batch = std::mem::take(&mut self.gathered);
            self.length = 0;
            self.busy = Some(spawn_blocking(move || {
                for bytes in batch {
                    digests.update(&bytes);
                }
                digests
            }));
        }
        Ok(())
    }

    /// Digests what is left of the stream.
    pub(super) async fn catch_up(&mut self) -> Result<()> {
        self.settle().await?;
        self.length = 0;
        let batch = std::mem::take(&mut self.gathered);
        if let Some(digests) = &mut self.idle {
            for bytes in batch {
                digests.update(&bytes);
            }
        }
        Ok(())
    }

    /// Returns the blocks that are digested but not written down.
    pub(super) fn left(self) -> Vec<(u64, blake3::Hash)> {
        let under_way = self.idle.map(|digests| digests.under_way).unwrap_or_default();
        under_way.into_iter().map(|(block, _, digest)| (block, digest)).collect()
    }

    async fn settle(&mut self) -> Result<()> {
        if let Some(busy) = self.busy.take() {
            let stopped = |e| Error::new(ErrorKind::Other, "the digester stopped").with_source(e);
            self.idle = Some(busy.await.map_err(stopped)?);
        }
        Ok(())
    }

    /// Returns the block that the stream has come to, and whether nothing of it was read yet.
    pub(super) fn at(&self) -> (u64, bool) {
        (self.position / self.block, self.position.is_multiple_of(self.block))
    }

    /// Returns whether a whole block was read that the destination doesn't have yet.
    pub(super) fn is_under_way(&self, acknowledged: u64) -> bool {
        let arrived = self.start.saturating_add(acknowledged);
        let last = self.idle.as_ref().and_then(|digests| digests.under_way.back());
        last.is_some_and(|(_, end, _)| *end > arrived)
    }

    /// Writes down the blocks that are digested and that the destination has: so many bytes of the stream.
    pub(super) async fn write_down(&mut self, acknowledged: u64) -> Result<()> {
        if self.busy.as_ref().is_some_and(JoinHandle::is_finished) {
            self.settle().await?;
        }
        let Some(digests) = &mut self.idle else { return Ok(()) };
        let arrived = self.start.saturating_add(acknowledged);
        while let Some(&(block, _, digest)) = digests.under_way.front().filter(|(_, end, _)| *end <= arrived) {
            lock(self.journal).add(block, digest)?;
            digests.under_way.pop_front();
        }
        Ok(())
    }
}

fn lock<'a, 'b>(journal: &'b Mutex<&'a mut Journal>) -> MutexGuard<'b, &'a mut Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The digests of a stream's blocks, and that of the block which is being read.
struct Digests {
    head: Head,
    position: u64,
    hasher: blake3::Hasher,
    /// Blocks that are read but not yet written down: number, end offset, digest.
    under_way: VecDeque<(u64, u64, blake3::Hash)>,
}

impl Digests {
    fn new(head: Head, position: u64) -> Self {
        Self { head, position, hasher: blake3::Hasher::new(), under_way: VecDeque::new() }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let block = self.position / self.head.block;
            let end = block * self.head.block + self.head.length_of(block);
            let room = usize::try_from(end.saturating_sub(self.position)).unwrap_or(usize::MAX);
            let (piece, rest) = bytes.split_at(bytes.len().min(room));
            if piece.is_empty() {
                return; // behind the end that the journal knows: the size check stops the transfer
            }
            self.hasher.update(piece);
            self.position += piece.len() as u64;
            if self.position == end {
                self.under_way.push_back((block, end, self.hasher.finalize()));
                self.hasher.reset();
            }
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::{head, open};
    use super::*;

    /// Sends a stream through in chunks of this length; returns how many bytes the journal has.
    async fn pass(journal: &mut Journal, stream: &[u8], start: u64, chunk: usize, acknowledged: u64) -> u64 {
        let journal = Mutex::new(journal);
        let mut blocks = Blocks::new(&journal, start);
        for chunk in stream.chunks(chunk) {
            blocks.update(Bytes::copy_from_slice(chunk)).await.unwrap();
            blocks.write_down(0).await.unwrap();
        }
        blocks.catch_up().await.unwrap();
        assert!(blocks.is_under_way(acknowledged) != (acknowledged == stream.len() as u64));
        blocks.write_down(acknowledged).await.unwrap();
        lock(&journal).kept()
    }

    #[tokio::test]
    async fn blocks_are_those_of_the_file_however_it_is_cut() {
        let file: Vec<u8> = (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let size = file.len() as u64;
        for chunk in [7_777, 262_144, 1 << 20, file.len()] {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = open(dir.path(), head(size));
            let start = 2 << 20;
            let rest = &file[start..];
            let kept = pass(&mut journal, rest, start as u64, chunk, rest.len() as u64 - 1).await;
            assert_eq!(kept, 2 << 20, "the last block hasn't arrived");
            assert_eq!(pass(&mut journal, &file, 0, chunk, size).await, size);
            for block in 0..5 {
                let range = journal.head.range_of(block);
                let bytes = &file[range.start as usize..range.end as usize];
                assert_eq!(journal.digest(block), Some(blake3::hash(bytes)));
            }
        }
    }

    #[tokio::test]
    async fn a_block_does_not_wait_for_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path(), head(8 << 20));
        let journal = Mutex::new(&mut journal);
        let mut blocks = Blocks::new(&journal, 0);
        blocks.update(Bytes::from(vec![1; (1 << 20) - 1])).await.unwrap();
        blocks.update(Bytes::from(vec![1; 2])).await.unwrap();
        while lock(&journal).kept() == 0 {
            blocks.write_down(1 << 20).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
}

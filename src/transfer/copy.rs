//! The one loop that moves bytes: digest, journal, rate limit, progress and cancel are lines in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ReadStream, WriteStream};

use super::journal::Journal;
use super::rate::Limiter;
use super::types::{Event, Observer};

/// How long a broken transfer waits for another acknowledgement.
const SETTLE: Duration = Duration::from_millis(200);

/// Where one file is, over all its attempts.
pub(super) struct Progress {
    id: u64,
    observer: Arc<dyn Observer>,
    position: AtomicU64,
    transferred: AtomicU64,
}

impl Progress {
    pub(super) fn new(id: u64, observer: Arc<dyn Observer>) -> Self {
        Self { id, observer, position: AtomicU64::new(0), transferred: AtomicU64::new(0) }
    }

    /// An attempt starts, with so many bytes kept.
    pub(super) fn start_at(&self, offset: u64) {
        self.position.store(offset, Ordering::Relaxed);
        self.observer.event(Event::Progress { id: self.id, position: offset });
    }

    /// Bytes were moved up to here.
    pub(super) fn reach(&self, position: u64) {
        let before = self.position.swap(position, Ordering::Relaxed);
        self.transferred.fetch_add(position.saturating_sub(before), Ordering::Relaxed);
        self.observer.event(Event::Progress { id: self.id, position });
    }

    /// Returns the bytes moved by all attempts together.
    pub(super) fn transferred(&self) -> u64 {
        self.transferred.load(Ordering::Relaxed)
    }
}

/// What the loop needs besides its two ends.
pub(super) struct Copy<'a> {
    /// Where both ends start.
    pub(super) offset: u64,
    /// Bytes that the source is expected to have, from its start.
    pub(super) size: Option<u64>,
    pub(super) limiter: &'a Limiter,
    pub(super) cancel: &'a CancellationToken,
    pub(super) progress: &'a Progress,
}

impl Copy<'_> {
    /// Moves bytes until the source ends; returns how many there are from the start of the file.
    ///
    /// # Errors
    /// `SourceChanged` when the source ended before its size, or went on behind it; `Cancelled`.
    pub(super) async fn run(
        &self,
        reader: &mut dyn ReadStream,
        writer: &mut dyn WriteStream,
        journal: Option<&mut Journal>,
    ) -> Result<u64> {
        let mut blocks = journal.map(|journal| Blocks::new(journal, self.offset));
        let result = self.pump(reader, writer, &mut blocks).await;
        // Whatever stopped the loop, blocks that the destination has are worth writing down.
        if let Some(blocks) = &mut blocks {
            if result.is_err() {
                settle(writer, blocks).await;
            }
            blocks.write_down(writer.acknowledged())?;
        }
        result
    }

    async fn pump(
        &self,
        reader: &mut dyn ReadStream,
        writer: &mut dyn WriteStream,
        blocks: &mut Option<Blocks<'_>>,
    ) -> Result<u64> {
        let mut position = self.offset;
        self.progress.start_at(position);
        loop {
            let mut chunk = self.unless_cancelled(reader.read()).await?;
            if chunk.is_empty() {
                break;
            }
            while !chunk.is_empty() {
                let piece = chunk.split_to(chunk.len().min(self.limiter.piece()));
                position += piece.len() as u64;
                if self.size.is_some_and(|size| position > size) {
                    return Err(Error::new(ErrorKind::SourceChanged, "the source grew while it was read"));
                }
                if let Some(blocks) = blocks {
                    blocks.update(&piece);
                }
                self.unless_cancelled(async {
                    self.limiter.take(piece.len()).await;
                    writer.write(piece).await
                })
                .await?;
                self.progress.reach(position);
            }
            if let Some(blocks) = blocks {
                blocks.write_down(writer.acknowledged())?;
            }
        }
        match self.size {
            Some(size) if position < size => {
                Err(Error::new(ErrorKind::SourceChanged, format!("the source ended after {position} of {size} bytes")))
            }
            _ => Ok(position),
        }
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::new(ErrorKind::Cancelled, "interrupted")),
            result = work => result,
        }
    }
}

/// Waits for what is in flight, as long as more of it arrives: what was paid for is kept.
async fn settle(writer: &mut dyn WriteStream, blocks: &Blocks<'_>) {
    let mut before = None;
    while blocks.is_under_way(writer.acknowledged()) && before != Some(writer.acknowledged()) {
        before = Some(writer.acknowledged());
        tokio::time::sleep(SETTLE).await;
    }
}

/// Digests the stream block by block and writes them down once the destination has them.
struct Blocks<'a> {
    journal: &'a mut Journal,
    start: u64,
    position: u64,
    hasher: blake3::Hasher,
    /// Blocks that are read but perhaps not yet taken: number, end offset, digest.
    under_way: VecDeque<(u64, u64, blake3::Hash)>,
}

impl<'a> Blocks<'a> {
    fn new(journal: &'a mut Journal, start: u64) -> Self {
        Self { journal, start, position: start, hasher: blake3::Hasher::new(), under_way: VecDeque::new() }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let block = self.position / self.journal.head.block;
            let end = block * self.journal.head.block + self.journal.head.length_of(block);
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

    /// Returns whether a whole block was read that the destination doesn't have yet.
    fn is_under_way(&self, acknowledged: u64) -> bool {
        self.under_way.back().is_some_and(|(_, end, _)| *end > self.start.saturating_add(acknowledged))
    }

    fn write_down(&mut self, acknowledged: u64) -> Result<()> {
        while let Some(&(block, _, digest)) =
            self.under_way.front().filter(|(_, end, _)| *end <= self.start.saturating_add(acknowledged))
        {
            self.journal.add(block, digest)?;
            self.under_way.pop_front();
        }
        Ok(())
    }
}

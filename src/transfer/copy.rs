//! The one loop that moves bytes: digest, journal, rate limit, progress and cancel are lines in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ReadStream, WriteStream};

use super::blocks::Blocks;
use super::journal::Journal;
use super::rate::Limiter;
use super::run::Context;
use super::segments::Claim;
use super::types::Event;

/// How long a broken transfer waits for another acknowledgement.
const SETTLE: Duration = Duration::from_millis(200);

/// Where one file is, over all its attempts and streams.
pub(super) struct Progress {
    id: u64,
    ctx: Arc<Context>,
    position: AtomicU64,
    transferred: AtomicU64,
}

impl Progress {
    pub(super) fn new(id: u64, ctx: Arc<Context>) -> Self {
        Self { id, ctx, position: AtomicU64::new(0), transferred: AtomicU64::new(0) }
    }

    /// An attempt starts, with so many bytes kept.
    pub(super) fn start_at(&self, kept: u64) {
        self.position.store(kept, Ordering::Relaxed);
        self.ctx.observer.event(Event::Progress { id: self.id, position: kept });
    }

    /// So many bytes more were moved.
    fn advance(&self, bytes: u64) {
        let position = self.position.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.transferred.fetch_add(bytes, Ordering::Relaxed);
        self.ctx.note_work(bytes);
        self.ctx.observer.event(Event::Progress { id: self.id, position });
    }

    /// Returns the bytes moved by all attempts together.
    pub(super) fn transferred(&self) -> u64 {
        self.transferred.load(Ordering::Relaxed)
    }
}

/// What the loop needs besides its two ends.
pub(super) struct Copy<'a, 'j> {
    /// Which bytes to move; both ends are open at its start.
    pub(super) claim: &'a Claim,
    pub(super) limiter: &'a Limiter,
    pub(super) cancel: &'a CancellationToken,
    pub(super) progress: &'a Progress,
    /// Where blocks are written down; shared with the file's other streams.
    pub(super) journal: Option<&'a Mutex<&'j mut Journal>>,
}

impl<'j> Copy<'_, 'j> {
    /// Moves bytes until the claim or the source ends; returns how many.
    ///
    /// # Errors
    /// Those of both ends; `Cancelled`.
    pub(super) async fn run(&self, reader: &mut dyn ReadStream, writer: &mut dyn WriteStream) -> Result<u64> {
        let mut blocks = self.journal.map(|journal| Blocks::new(journal, self.claim.start()));
        let result = self.pump(reader, writer, &mut blocks).await;
        // Whatever stopped the loop, blocks that the destination has are worth writing down.
        if let Some(blocks) = &mut blocks {
            blocks.catch_up().await?;
            if result.is_err() {
                settle(writer, blocks).await;
            }
            blocks.write_down(writer.acknowledged()).await?;
        }
        result
    }

    async fn pump(
        &self,
        reader: &mut dyn ReadStream,
        writer: &mut dyn WriteStream,
        blocks: &mut Option<Blocks<'_, 'j>>,
    ) -> Result<u64> {
        let mut moved = 0;
        while !self.claim.is_done() {
            let mut chunk = self.unless_cancelled(reader.read()).await?;
            if chunk.is_empty() {
                break;
            }
            while !chunk.is_empty() {
                let mut piece = chunk.split_to(chunk.len().min(self.limiter.piece()));
                let taken = self.claim.advance(piece.len() as u64);
                // What is behind the claim's end belongs to another stream by now.
                piece.truncate(usize::try_from(taken).unwrap_or(usize::MAX));
                if piece.is_empty() {
                    break;
                }
                if let Some(blocks) = blocks {
                    blocks.update(piece.clone()).await?;
                }
                self.unless_cancelled(async {
                    self.limiter.take(piece.len()).await;
                    writer.write(piece).await
                })
                .await?;
                moved += taken;
                self.progress.advance(taken);
            }
            if let Some(blocks) = blocks {
                blocks.write_down(writer.acknowledged()).await?;
            }
        }
        Ok(moved)
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
async fn settle(writer: &mut dyn WriteStream, blocks: &Blocks<'_, '_>) {
    let mut before = None;
    while blocks.is_under_way(writer.acknowledged()) && before != Some(writer.acknowledged()) {
        before = Some(writer.acknowledged());
        tokio::time::sleep(SETTLE).await;
    }
}

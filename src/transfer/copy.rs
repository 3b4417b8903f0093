//! The one loop that moves bytes: digest, journal, rate limit, progress and cancel are lines in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::transport::{ReadStream, WriteStream};

use super::blocks::Blocks;
use super::journal::Journal;
use super::rate::Limiter;
use super::retry::interrupted;
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

    /// The server has copied it up to there by itself.
    pub(super) fn copied_there(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
        self.ctx.observer.event(Event::Progress { id: self.id, position });
    }

    /// So many bytes more were moved.
    fn advance(&self, bytes: u64) {
        let position = self.position.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.transferred.fetch_add(bytes, Ordering::Relaxed);
        self.ctx.note_work(bytes);
        self.ctx.options.allowance.take(bytes);
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
    /// Ends it at once.
    pub(super) cancel: &'a CancellationToken,
    /// Ends it behind the block that is under way, if it is to be written down.
    pub(super) interrupt: &'a CancellationToken,
    pub(super) progress: &'a Progress,
    /// Where blocks are written down; shared with the file's other streams.
    pub(super) journal: Option<&'a Mutex<&'j mut Journal>>,
}

/// What one pass of the loop moved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Copied {
    /// So many bytes.
    pub(super) bytes: u64,
    /// The source sent more than was claimed.
    pub(super) more: bool,
}

impl<'j> Copy<'_, 'j> {
    /// Moves bytes until the claim or the source ends; returns what was moved, and the blocks that are still to be
    /// acknowledged.
    ///
    /// # Errors
    /// Those of both ends; `Cancelled`.
    pub(super) async fn run(
        &self,
        reader: &mut dyn ReadStream,
        writer: &mut dyn WriteStream,
    ) -> Result<(Copied, Option<Blocks<'_, 'j>>)> {
        let mut blocks = self.journal.map(|journal| Blocks::new(journal, self.claim.start()));
        let result = self.pump(reader, writer, &mut blocks).await;
        if let Some(blocks) = &mut blocks {
            match &result {
                Ok(_) => {
                    blocks.catch_up().await?;
                    blocks.write_down(writer.acknowledged()).await?;
                }
                Err(_) => keep(writer, blocks).await?,
            }
        }
        Ok((result?, blocks))
    }

    async fn pump(
        &self,
        reader: &mut dyn ReadStream,
        writer: &mut dyn WriteStream,
        blocks: &mut Option<Blocks<'_, 'j>>,
    ) -> Result<Copied> {
        let (mut moved, mut last_block) = (Copied::default(), None);
        while !self.claim.is_done() {
            self.stop_behind(&mut last_block, blocks.as_ref())?;
            reader.pace(self.limiter.rate());
            let mut chunk = self.unless_cancelled(reader.read()).await?;
            if chunk.is_empty() {
                break;
            }
            while !chunk.is_empty() {
                let mut piece = chunk.split_to(chunk.len().min(self.limiter.piece()));
                let taken = self.claim.advance(piece.len() as u64);
                moved.more = taken < piece.len() as u64;
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
                moved.bytes += taken;
                self.progress.advance(taken);
                self.stop_behind(&mut last_block, blocks.as_ref())?;
            }
            if let Some(blocks) = blocks {
                blocks.write_down(writer.acknowledged()).await?;
            }
        }
        Ok(moved)
    }

    /// Fails once the run is interrupted and the block is through that was under way then.
    fn stop_behind(&self, last: &mut Option<u64>, blocks: Option<&Blocks<'_, 'j>>) -> Result<()> {
        let Some(blocks) = blocks.filter(|_| self.interrupt.is_cancelled()) else { return Ok(()) };
        let (block, is_whole) = blocks.at();
        if is_whole || *last.get_or_insert(block) != block {
            return Err(interrupted());
        }
        Ok(())
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(interrupted()),
            result = work => result,
        }
    }
}

/// Writes down the blocks of a broken transfer that the destination has: whatever broke, they are worth it.
pub(super) async fn keep(writer: &mut dyn WriteStream, blocks: &mut Blocks<'_, '_>) -> Result<()> {
    blocks.catch_up().await?;
    settle(writer, blocks).await;
    blocks.write_down(writer.acknowledged()).await
}

/// Waits for what is in flight, as long as more of it arrives: what was paid for is kept.
async fn settle(writer: &mut dyn WriteStream, blocks: &Blocks<'_, '_>) {
    // Where that fails, what is acknowledged is right all the same.
    if let Err(e) = writer.hand_on().await {
        tracing::debug!("what was gathered is lost: {}", e.chain());
    }
    let mut before = None;
    while blocks.is_under_way(writer.acknowledged()) && before != Some(writer.acknowledged()) {
        before = Some(writer.acknowledged());
        tokio::time::sleep(SETTLE).await;
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;

    use super::super::journal::tests::{head, open};
    use super::super::types::{Observer, Options};
    use super::*;
    use crate::error::ErrorKind;
    use crate::transport::{Finish, Finished};

    const CHUNK: usize = 256 << 10;

    /// Gives chunks without end, and interrupts the run as it gives one of them.
    struct Source {
        given: usize,
        interrupt_at: usize,
        cancel: CancellationToken,
    }

    #[async_trait]
    impl ReadStream for Source {
        async fn read(&mut self) -> Result<Bytes> {
            self.given += 1;
            if self.given == self.interrupt_at {
                self.cancel.cancel();
            }
            Ok(Bytes::from(vec![1; CHUNK]))
        }

        async fn finish(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Target(u64);

    #[async_trait]
    impl WriteStream for Target {
        async fn write(&mut self, chunk: Bytes) -> Result<()> {
            self.0 += chunk.len() as u64;
            Ok(())
        }

        fn acknowledged(&self) -> u64 {
            self.0
        }

        async fn finish(self: Box<Self>, _: Finish) -> Result<Finished> {
            Ok(Finished { size: None, metadata: Ok(()) })
        }
    }

    struct Nobody;

    impl Observer for Nobody {
        fn event(&self, _: Event) {}
    }

    #[tokio::test]
    async fn an_interrupt_lets_the_block_under_way_come_to_its_end() {
        // The fourth chunk is the last of the first block: with that, the block is through.
        for (interrupt_at, moved) in [(1, 1 << 20), (3, 1 << 20), (4, 1 << 20), (5, 2 << 20), (6, 2 << 20)] {
            let dir = tempfile::tempdir().unwrap();
            let cancel = CancellationToken::new();
            let ctx = Context::new(&Options::new(dir.path()), Arc::new(Nobody), cancel.clone()).unwrap();
            let mut journal = open(dir.path(), head(8 << 20));
            let journal = Mutex::new(&mut journal);
            let progress = Progress::new(0, Arc::clone(&ctx));
            let (claim, never) = (Claim::of(0..8 << 20), CancellationToken::new());
            let copy = Copy {
                claim: &claim,
                limiter: &ctx.options.limiter,
                cancel: &never,
                interrupt: &cancel,
                progress: &progress,
                journal: Some(&journal),
            };
            let mut source = Source { given: 0, interrupt_at, cancel: cancel.clone() };
            let mut target = Target::default();
            let error = copy.run(&mut source, &mut target).await.err().unwrap();
            assert_eq!((error.kind(), target.0), (ErrorKind::Cancelled, moved), "interrupted at {interrupt_at}");
            assert_eq!(journal.lock().unwrap().kept(), moved, "nothing that was moved is lost");
        }
    }
}

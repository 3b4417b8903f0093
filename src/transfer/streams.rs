//! The streams of one file: one at least, more while connections are free for it.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use super::blocks::Blocks;
use super::copy::{Copied, Copy, keep};
use super::journal::{Journal, SMALLEST_BLOCK};
use super::retry::interrupted;
use super::segments::{Claim, Segments};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Finish, Finished, Follow, ReadRange, ReadStream, WriteMode, WriteStream};

/// How long an interrupted file may go on, to the end of the blocks that are under way.
const GRACE: Duration = Duration::from_secs(1);

/// Round trips that a new stream takes until it is as fast as the others.
const WARM_TRIPS: u32 = 4;
const COLD_TRIPS: u32 = 12;

/// One file being copied by several streams.
pub(super) struct Streams<'a> {
    attempt: &'a Attempt<'a>,
    segments: Segments,
    journal: Option<Mutex<&'a mut Journal>>,
    /// Ends the streams of this file at once, when one fails or an interruption takes too long.
    stop: CancellationToken,
    /// Whether the file may be cut into segments.
    divisible: bool,
}

/// Both ends of a stream.
struct Ends {
    reader: Box<dyn ReadStream>,
    writer: Box<dyn WriteStream>,
    /// Where the reader ends by itself; the claim may end before.
    end: u64,
}

/// The rest of a file that is there already.
struct Nothing;

#[async_trait]
impl ReadStream for Nothing {
    async fn read(&mut self) -> Result<Bytes> {
        Ok(Bytes::new())
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// A stream that has ended.
struct Ended {
    number: usize,
    moved: u64,
    /// The writer that made the part, which is closed last.
    first: Option<Unfinished>,
    end: End,
}

/// A writer to be closed, and the blocks to write down once it is: by then the destination has them.
struct Unfinished {
    writer: Box<dyn WriteStream>,
    blocks: Vec<(u64, blake3::Hash)>,
}

enum End {
    /// Nothing is left for it.
    Done,
    /// It couldn't be opened; the others do its part, and no other is tried in its place.
    Refused,
    Failed(Error),
}

impl<'a> Streams<'a> {
    /// Prepares to move what is missing; without a journal that is all of it.
    pub(super) fn new(attempt: &'a Attempt<'a>, journal: Option<&'a mut Journal>) -> Self {
        let missing = match &journal {
            Some(journal) => journal.missing(),
            None => std::iter::once(0..attempt.entry.size.unwrap_or(u64::MAX)).collect(),
        };
        let (from, to) = (attempt.job.source.transport.capabilities(), attempt.part.transport.capabilities());
        let divisible = from.resume_read && to.random_write;
        let block = journal.as_ref().filter(|_| divisible).map_or(0, |journal| journal.head.block);
        // A connection of its own begins slowly; on one that is there a stream is at full speed with its first answer.
        let trips = if from.streams == 1 || to.streams == 1 { COLD_TRIPS } else { WARM_TRIPS };
        let start_up = attempt.job.round_trip().unwrap_or_default() * trips;
        Self {
            attempt,
            segments: Segments::new(missing, block, start_up),
            journal: journal.map(Mutex::new),
            stop: CancellationToken::new(),
            divisible: block > 0,
        }
    }

    /// Copies what is missing, `kept` bytes being there; returns the file's length and how its part was closed.
    pub(super) async fn run(&self, kept: u64, mut last: Finish) -> Result<(u64, Finished)> {
        self.attempt.progress.start_at(kept);
        // All of it may be there already.
        let end = self.attempt.entry.size.unwrap_or(u64::MAX);
        let first = self.segments.claim(1).unwrap_or_else(|| Claim::of(end..end));
        let ends = self.open(&first, kept == 0).await?;
        if self.attempt.entry.mtime.is_none() && self.attempt.part.transport.capabilities().set_mtime.is_some() {
            last.metadata.mtime = ends.reader.mtime().map(|mtime| mtime.time);
        }
        let (moved, writer) = self.work(first, ends).await?;
        // Closed behind all others, so that what it sets and tells is about the whole file.
        Ok((kept + moved, self.finish(writer, last).await?))
    }

    /// Closes a writer, and writes its last blocks down: should the transfer break from here on, nothing is moved again.
    ///
    /// Where a server takes every byte and then says that the file can't be closed, some of what it took is lost, and
    /// nobody knows which: none of it is to be gone on with.
    async fn finish(&self, unfinished: Unfinished, last: Finish) -> Result<Finished> {
        let capabilities = self.attempt.part.transport.capabilities();
        let finished = unfinished.writer.finish(last).await;
        let Some(journal) = &self.journal else { return finished };
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        match &finished {
            Ok(_) => unfinished.blocks.into_iter().try_for_each(|(block, digest)| journal.add(block, digest))?,
            Err(error) if !error.kind().is_retryable() && capabilities.random_write && !capabilities.local => {
                journal.retain(|_, _| false)?;
            }
            Err(_) => {}
        }
        finished
    }

    /// Runs the first stream and as many beside it as the file may have; returns bytes moved and the first writer.
    async fn work(&self, first: Claim, ends: Ends) -> Result<(u64, Unfinished)> {
        let mut share = self.attempt.ctx.share.subscribe();
        let mut running: FuturesUnordered<BoxFuture<'_, Ended>> = FuturesUnordered::new();
        let mut busy = vec![true];
        running.push(Box::pin(self.stream(0, first, Some(ends), false)));
        let (mut moved, mut writer, mut failure) = (0, None, None);
        let interruption = self.on_interrupt();
        tokio::pin!(interruption);
        loop {
            let is_interrupted = self.attempt.ctx.cancel.is_cancelled();
            if failure.is_none() && self.divisible && !is_interrupted {
                let wanted = *share.borrow_and_update();
                busy.resize(busy.len().max(wanted), false);
                while let Some(number) = busy[..wanted].iter().position(|busy| !busy) {
                    let idle = busy[..wanted].iter().filter(|busy| !**busy).count();
                    let Some(claim) = self.segments.claim(idle) else { break };
                    busy[number] = true;
                    running.push(Box::pin(self.stream(number, claim, None, false)));
                }
            }
            let ended = tokio::select! {
                ended = running.next() => ended,
                Ok(()) = share.changed(), if self.divisible => continue,
                never = &mut interruption => never,
            };
            let Some(ended) = ended else {
                match self.segments.claim(1).filter(|_| failure.is_none()) {
                    Some(_) if is_interrupted => failure = Some(interrupted()),
                    Some(claim) => running.push(Box::pin(self.stream(0, claim, None, true))),
                    None => break,
                }
                continue;
            };
            moved += ended.moved;
            writer = writer.or(ended.first);
            busy[ended.number] = matches!(ended.end, End::Refused);
            if let End::Failed(error) = ended.end {
                // The others end soon, and write down what they have; interrupted, they do so by themselves.
                if error.kind() != ErrorKind::Cancelled {
                    self.stop.cancel();
                }
                failure = Some(failure.filter(|e: &Error| e.kind() != ErrorKind::Cancelled).unwrap_or(error));
            }
        }
        match (failure, writer) {
            (None, Some(writer)) => Ok((moved, writer)),
            (failure, _) => Err(failure.unwrap_or_else(interrupted)),
        }
    }

    /// Once the run is interrupted, says so in the journal, and gives the streams a moment for their blocks.
    async fn on_interrupt(&self) -> Option<Ended> {
        self.attempt.ctx.cancel.cancelled().await;
        let is_small = self.attempt.entry.size.is_some_and(|size| size <= SMALLEST_BLOCK);
        if let Some(journal) = &self.journal {
            journal.lock().unwrap_or_else(PoisonError::into_inner).stopped(&interrupted());
        }
        // Without a journal there is nothing to gain but the end of a small file.
        if self.journal.is_some() || is_small {
            tokio::time::sleep(GRACE).await;
        }
        self.stop.cancel();
        std::future::pending().await
    }

    /// Works on one claim after the other. Alone, it can't leave them to others when it is refused.
    async fn stream(&self, number: usize, mut claim: Claim, mut opened: Option<Ends>, alone: bool) -> Ended {
        let mut ended = Ended { number, moved: 0, first: None, end: End::Done };
        loop {
            let is_first = opened.is_some();
            let ends = match opened.take() {
                Some(ends) => Ok(ends),
                None => self.open(&claim, false).await,
            };
            let ends = match ends {
                Ok(ends) => ends,
                // The file doesn't depend on this stream: the others do its part.
                Err(error) if !alone && error.kind() != ErrorKind::Cancelled => {
                    tracing::debug!("going on without another stream: {}", error.chain());
                    self.segments.end(&claim);
                    return Ended { end: End::Refused, ..ended };
                }
                Err(error) => return Ended { end: End::Failed(error), ..ended },
            };
            match self.copy(number, &claim, ends, is_first).await {
                Ok((bytes, writer)) => {
                    ended.moved += bytes;
                    ended.first = ended.first.or(writer);
                }
                Err(error) => return Ended { end: End::Failed(error), ..ended },
            }
            self.segments.end(&claim);
            if number > 0 && number >= *self.attempt.ctx.share.borrow() {
                return ended;
            }
            match self.segments.claim(1) {
                Some(_) if self.attempt.ctx.cancel.is_cancelled() => {
                    return Ended { end: End::Failed(interrupted()), ..ended };
                }
                Some(next) => claim = next,
                None => return ended,
            }
        }
    }

    /// Moves one claim and closes both ends, but for the writer that made the part.
    async fn copy(
        &self,
        number: usize,
        claim: &Claim,
        ends: Ends,
        is_first: bool,
    ) -> Result<(u64, Option<Unfinished>)> {
        let Ends { mut reader, mut writer, end } = ends;
        let copy = Copy {
            claim,
            limiter: &self.attempt.ctx.options.limiter,
            cancel: &self.stop,
            interrupt: &self.attempt.ctx.cancel,
            progress: self.attempt.progress,
            journal: self.journal.as_ref(),
        };
        let share = self.attempt.ctx.share.subscribe();
        let (moved, mut blocks) = tokio::select! {
            moved = copy.run(reader.as_mut(), writer.as_mut()) => moved?,
            never = self.watch(number, claim, share) => match never {},
        };
        // The source first: if it says that what it sent was not whole, nothing is claimed about the part.
        if let Err(error) = self.hear_end(reader, claim, end, moved).await {
            match &mut blocks {
                Some(_) if error.kind() == ErrorKind::SourceChanged => self.forget_the_end()?,
                Some(blocks) => keep(writer.as_mut(), blocks).await?,
                None => {}
            }
            return Err(error);
        }
        let unfinished = Unfinished { writer, blocks: blocks.map(Blocks::left).unwrap_or_default() };
        if is_first {
            return Ok((moved.bytes, Some(unfinished)));
        }
        self.finish(unfinished, Finish::CACHED).await?;
        Ok((moved.bytes, None))
    }

    /// Forgets the file's last block, so that the next attempt hears the source's end, too.
    fn forget_the_end(&self) -> Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        let size = journal.head.size;
        journal.retain(|_, range| range.end < size)
    }

    /// Lets the source say that this was all of it, where its range ends here.
    async fn hear_end(&self, mut reader: Box<dyn ReadStream>, claim: &Claim, end: u64, moved: Copied) -> Result<()> {
        if !claim.is_done()
            && let Some(size) = self.attempt.entry.size
        {
            // A connection that was closed looks like the end of the file; where more is known, that is told.
            reader.finish().await?;
            let source = &self.attempt.job.source;
            let (at, now) = (claim.start() + moved.bytes, source.transport.stat(&source.path, Follow::Links).await?);
            return Err(match now.size == Some(size) {
                true => Error::new(ErrorKind::ConnectionLost, format!("only {at} of {size} bytes came")),
                false => Error::new(ErrorKind::SourceChanged, format!("the source ended after {at} of {size} bytes")),
            }
            .at(source.shown()));
        }
        if claim.end() != end {
            return Ok(());
        }
        if claim.is_done() && (moved.more || !reader.read().await?.is_empty()) {
            return Err(Error::new(ErrorKind::SourceChanged, "the source is longer than it was said to be").at(self
                .attempt
                .job
                .source
                .shown()));
        }
        reader.finish().await
    }

    /// Cuts the claim short once this stream is one too many; never ends.
    async fn watch(&self, number: usize, claim: &Claim, mut share: tokio::sync::watch::Receiver<usize>) -> Infallible {
        let too_many = number > 0 && share.wait_for(|&share| number >= share).await.is_ok();
        if too_many {
            self.segments.cut_short(claim);
        }
        std::future::pending().await
    }

    async fn open(&self, claim: &Claim, create: bool) -> Result<Ends> {
        let (source, part) = (&self.attempt.job.source, self.attempt.part);
        let Range { start, end } = claim.start()..claim.end();
        // Where each stream has a connection of its own, the server sends to the end in any case: then what is there behind
        // the end that it told shows.
        let told = self.attempt.entry.size;
        let to_its_end = told == Some(end) && source.transport.capabilities().streams == 1;
        let range = ReadRange { start, end: told.filter(|_| !to_its_end).map(|_| end) };
        let mode = match create {
            true => WriteMode::Create { mode: self.attempt.mode_to_create(), length: self.attempt.entry.size },
            false => WriteMode::At(start),
        };
        let opening = async {
            // Some servers refuse to begin where the file ends.
            let nothing_left = start > 0 && start == end;
            let reading = async {
                match nothing_left {
                    true => Ok(Box::new(Nothing) as Box<dyn ReadStream>),
                    false => source.transport.open_read(&source.path, range).await,
                }
            };
            tokio::try_join!(reading, part.transport.open_write(&part.path, mode))
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(interrupted()),
            () = self.attempt.ctx.cancel.cancelled() => Err(interrupted()),
            ends = opening => ends.map(|(reader, writer)| Ends { reader, writer, end }),
        }
    }
}

//! The streams of one file: one at least, more while connections are free for it.

use std::ops::Range;
use std::sync::Mutex;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use super::copy::Copy;
use super::journal::Journal;
use super::segments::{Claim, Segments};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Finish, Finished, ReadRange, ReadStream, WriteMode, WriteStream};

/// Round trips that a new stream takes until it is as fast as the others.
const WARM_TRIPS: u32 = 4;
const COLD_TRIPS: u32 = 12;

/// One file being copied by several streams.
pub(super) struct Streams<'a> {
    attempt: &'a Attempt<'a>,
    segments: Segments,
    journal: Option<Mutex<&'a mut Journal>>,
    /// Ends the streams of this file when one fails.
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

/// A stream that has ended.
struct Ended {
    number: usize,
    moved: u64,
    /// The writer that made the part, which is closed last.
    first: Option<Box<dyn WriteStream>>,
    end: End,
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
            stop: attempt.ctx.cancel.child_token(),
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
        Ok((kept + moved, writer.finish(last).await?))
    }

    /// Runs the first stream and as many beside it as the file may have; returns bytes moved and the first writer.
    async fn work(&self, first: Claim, ends: Ends) -> Result<(u64, Box<dyn WriteStream>)> {
        let mut share = self.attempt.ctx.share.subscribe();
        let mut running: FuturesUnordered<BoxFuture<'_, Ended>> = FuturesUnordered::new();
        let mut busy = vec![true];
        running.push(Box::pin(self.stream(0, first, Some(ends), false)));
        let (mut moved, mut writer, mut failure) = (0, None, None);
        loop {
            if failure.is_none() && self.divisible {
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
            };
            let Some(ended) = ended else {
                match self.segments.claim(1).filter(|_| failure.is_none()) {
                    Some(claim) => running.push(Box::pin(self.stream(0, claim, None, true))),
                    None => break,
                }
                continue;
            };
            moved += ended.moved;
            writer = writer.or(ended.first);
            busy[ended.number] = matches!(ended.end, End::Refused);
            if let End::Failed(error) = ended.end {
                // The others end soon, and write down what they have.
                self.stop.cancel();
                failure = Some(failure.filter(|e: &Error| e.kind() != ErrorKind::Cancelled).unwrap_or(error));
            }
        }
        match (failure, writer) {
            (None, Some(writer)) => Ok((moved, writer)),
            (failure, _) => Err(failure.unwrap_or_else(|| ErrorKind::Cancelled.into())),
        }
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
    ) -> Result<(u64, Option<Box<dyn WriteStream>>)> {
        let Ends { mut reader, mut writer, end } = ends;
        let copy = Copy {
            claim,
            limiter: &self.attempt.ctx.limiter,
            cancel: &self.stop,
            progress: self.attempt.progress,
            journal: self.journal.as_ref(),
        };
        let share = self.attempt.ctx.share.subscribe();
        let moved = tokio::select! {
            moved = copy.run(reader.as_mut(), writer.as_mut()) => moved?,
            never = self.watch(number, claim, share) => never,
        };
        if !claim.is_done()
            && let Some(size) = self.attempt.entry.size
        {
            let text = format!("the source ended after {} of {size} bytes", claim.start() + moved);
            return Err(Error::new(ErrorKind::SourceChanged, text));
        }
        if claim.end() == end {
            if claim.is_done() && !reader.read().await?.is_empty() {
                return Err(Error::new(ErrorKind::SourceChanged, "the source grew while it was read"));
            }
            // The source first: if it says that what it sent was not whole, nothing is claimed about the part.
            reader.finish().await?;
        }
        if is_first {
            return Ok((moved, Some(writer)));
        }
        writer.finish(Finish::CACHED).await?;
        Ok((moved, None))
    }

    /// Cuts the claim short once this stream is one too many.
    async fn watch(&self, number: usize, claim: &Claim, mut share: tokio::sync::watch::Receiver<usize>) -> u64 {
        let too_many = number > 0 && share.wait_for(|&share| number >= share).await.is_ok();
        if too_many {
            self.segments.cut_short(claim);
        }
        std::future::pending().await
    }

    async fn open(&self, claim: &Claim, create: bool) -> Result<Ends> {
        let (source, part) = (&self.attempt.job.source, self.attempt.part);
        let Range { start, end } = claim.start()..claim.end();
        let range = ReadRange { start, end: self.attempt.entry.size.map(|_| end) };
        let mode = match create {
            true => WriteMode::Create { mode: self.attempt.mode_to_create(), length: self.attempt.entry.size },
            false => WriteMode::At(start),
        };
        let opening = async {
            tokio::try_join!(
                source.transport.open_read(&source.path, range),
                part.transport.open_write(&part.path, mode),
            )
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(ErrorKind::Cancelled.into()),
            ends = opening => ends.map(|(reader, writer)| Ends { reader, writer, end }),
        }
    }
}

//! One file to or from a pipe: `get URL -`, `cat`, `put - URL`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{
    Entry, FileKind, Finish, Finished, Follow, Mtime, ReadRange, ReadStream, Replace, SetMetadata, WriteMode,
    WriteStream,
};

use super::copy::{Copy, Progress};
use super::part;
use super::retry::{Budget, interrupted, pause};
use super::run::Context;
use super::segments::Claim;
use super::types::{Event, Existing, Location, Observer, Options, Outcome, Status, Verified, Verify};
use super::verify::{self, Passing};

/// Bytes read from a pipe at once.
const CHUNK: usize = 256 * 1024;
/// At least so many of the last bytes are compared when a broken read goes on.
const OVERLAP: usize = 64 * 1024;
/// The number that the events of a single transfer carry.
const ID: u64 = 0;

/// Writes a file to `sink`, in order, and returns how many bytes. A broken connection goes on where it was.
///
/// # Errors
/// Those of the transport; `SourceChanged` when it can't go on since the file is another now; `Other` with the I/O
/// error as its cause when `sink` fails.
pub async fn read_out(
    source: &Location,
    sink: &mut (impl AsyncWrite + Unpin + Send),
    options: &Options,
    observer: Arc<dyn Observer>,
    cancel: CancellationToken,
) -> Result<u64> {
    let ctx = Context::new(options, observer, cancel)?;
    let mut entry = source.transport.stat(&source.path, Follow::Links).await?;
    if entry.kind == FileKind::Directory {
        return Err(Error::new(ErrorKind::IsADirectory, "is a directory").at(source.shown()));
    }
    announce(&ctx, source.url.clone(), "-".into(), entry.size);
    let mut sink = Sink { to: sink, written: 0, last: VecDeque::new(), passing: passing(options, source)? };
    let mut budget = Budget::new(options.retries, options.retry_wait);
    let mut furthest = 0;
    loop {
        let Err(error) = read_on(&ctx, source, &mut sink, &entry).await else {
            if let Some(passing) = sink.passing.take() {
                passing.matches(source).await?;
            }
            return Ok(sink.written);
        };
        let Some(wait) = budget.next(&error, sink.written > furthest) else { return Err(error) };
        furthest = sink.written;
        let attempt = budget.made();
        ctx.observer.event(Event::Retrying { id: ID, attempt, wait, error });
        if !pause(wait, &ctx.cancel).await {
            return Err(interrupted());
        }
        let now = source.transport.stat(&source.path, Follow::Links).await;
        if let Ok(now) = now {
            if sink.written > 0 && !same(&now, &entry) {
                return Err(changed(source));
            }
            entry = now;
        }
    }
}

/// Writes what `input` gives to a file, which appears under its name only when all of it is there.
///
/// # Errors
/// Those of the transport; nothing is retried, since a pipe can't be read twice. The part file is removed.
pub async fn write_in(
    input: &mut (impl AsyncRead + Unpin + Send),
    destination: &Location,
    options: &Options,
    observer: Arc<dyn Observer>,
    cancel: CancellationToken,
) -> Result<Outcome> {
    let started = Instant::now();
    let ctx = Context::new(options, observer, cancel)?;
    let existing = destination.transport.stat(&destination.path, Follow::Nothing).await.ok();
    if existing.as_ref().is_some_and(|entry| entry.kind == FileKind::Directory) {
        return Err(
            Error::new(ErrorKind::IsADirectory, "is a directory: name the file to write").at(destination.shown())
        );
    }
    announce(&ctx, "-".into(), destination.url.clone(), None);
    let place = destination.transport.place(&destination.path).await;
    let _held = ctx.locks.take(&destination.url, place.as_deref())?;
    let id = ctx.transfer_id("-", &destination.url);
    let part = destination.sibling(part::path_of(&destination.path, &id)?);
    let existing = existing.filter(|entry| entry.kind == FileKind::File);
    let mut source = Source { input, passing: passing(options, &part)? };
    let written = write_part(&ctx, &mut source, &part, destination, existing.and_then(|entry| entry.mode)).await;
    let (bytes, verified) = match written {
        Ok(written) => written,
        Err(e) if e.kind() == ErrorKind::VerifyFailed => {
            return Err(match part::set_aside(&part).await {
                Ok(aside) => e.with_hint(format!("what arrived is kept as {} for a look", aside.shown())),
                Err(_) => e,
            });
        }
        Err(e) => {
            let _ = part.transport.remove_file(&part.path).await;
            return Err(e);
        }
    };
    Ok(Outcome {
        id: ID,
        source: "-".into(),
        destination: destination.url.clone(),
        status: Status::Done,
        bytes: Some(bytes),
        transferred: bytes,
        resumed_from: None,
        elapsed: started.elapsed(),
        verified: Some(verified),
    })
}

/// Returns what digests the bytes of a pipe, where a digest is demanded.
fn passing(options: &Options, file: &Location) -> Result<Option<Passing>> {
    let passing = (options.verify == Verify::Digest).then(|| Passing::new(file));
    if passing.as_ref().is_some_and(Passing::is_empty) {
        return Err(verify::none(file, file));
    }
    Ok(passing)
}

fn changed(source: &Location) -> Error {
    Error::new(ErrorKind::Other, "it changed after a part of it was written out").at(source.shown())
}

async fn read_on(
    ctx: &Arc<Context>,
    source: &Location,
    sink: &mut Sink<'_, impl AsyncWrite + Unpin + Send>,
    entry: &Entry,
) -> Result<()> {
    let (offset, overlap) = (sink.written, sink.last.iter().flatten().copied().collect::<Vec<u8>>());
    let range = ReadRange::from(offset - overlap.len() as u64);
    let reader = source.transport.open_read(&source.path, range).await?;
    let mut reader = Box::new(GoneOn::new(reader));
    if !reader.begins_with(&overlap).await? {
        return Err(changed(source));
    }
    pump(ctx, offset, reader.as_mut(), sink).await?;
    reader.finish().await?;
    sink.to.flush().await.map_err(output_failed)?;
    match entry.size {
        Some(size) if sink.written < size => {
            Err(Error::new(ErrorKind::ConnectionLost, format!("it ended after {} of {size} bytes", sink.written))
                .at(source.shown()))
        }
        _ => Ok(()),
    }
}

async fn write_part(
    ctx: &Arc<Context>,
    source: &mut Source<'_, impl AsyncRead + Unpin + Send>,
    part: &Location,
    destination: &Location,
    existing_mode: Option<u32>,
) -> Result<(u64, Verified)> {
    let capabilities = part.transport.capabilities();
    // A file that is replaced keeps its mode, as when files are copied.
    let kept = existing_mode.filter(|_| capabilities.set_mode).map(|mode| mode & 0o777);
    let last_mode = kept.or(capabilities.local.then_some(0o666 & !ctx.umask));
    // Nobody else's to read until it is complete.
    let mode = if capabilities.local { Some(0o600) } else { kept };
    let mut writer = part.transport.open_write(&part.path, WriteMode::Create { mode, length: None }).await?;
    let bytes = pump(ctx, 0, source, writer.as_mut()).await?;
    let metadata = SetMetadata { mode: last_mode, mtime: None };
    let last = Finish { durability: ctx.options.durability, metadata };
    let finished = writer.finish(last).await?;
    verify::size_is(part, bytes, finished.size).await?;
    let verified = match source.passing.take() {
        Some(passing) => Verified::Digest(passing.matches(part).await?),
        None => Verified::Size,
    };
    let replace = if ctx.options.existing == Existing::Keep { Replace::No } else { Replace::Yes };
    part.transport.rename(&part.path, &destination.path, replace, ctx.options.durability).await?;
    Ok((bytes, verified))
}

fn announce(ctx: &Context, source: String, destination: String, size: Option<u64>) {
    ctx.observer.event(Event::Found { bytes: size });
    ctx.observer.event(Event::AllFound);
    ctx.observer.event(Event::Started { id: ID, source, destination, size });
}

async fn pump(
    ctx: &Arc<Context>,
    offset: u64,
    reader: &mut dyn ReadStream,
    writer: &mut dyn WriteStream,
) -> Result<u64> {
    let progress = Progress::new(ID, Arc::clone(ctx));
    progress.start_at(offset);
    let claim = Claim::of(offset..u64::MAX);
    let copy = Copy {
        claim: &claim,
        limiter: &ctx.options.limiter,
        cancel: &ctx.cancel,
        interrupt: &ctx.cancel,
        progress: &progress,
        journal: None,
    };
    Ok(offset + copy.run(reader, writer).await?.0.bytes)
}

fn same(now: &Entry, then: &Entry) -> bool {
    let same_time = now.mtime.zip(then.mtime).is_none_or(|(now, then): (Mtime, Mtime)| now.matches(then));
    now.size == then.size && same_time
}

fn output_failed(error: std::io::Error) -> Error {
    // Not `Error::io`: a reader of the pipe that went away is no lost connection to be made again.
    Error::new(ErrorKind::Other, "write the output").with_source(error)
}

/// A pipe to write to, as the copy loop wants it.
struct Sink<'a, W> {
    to: &'a mut W,
    written: u64,
    /// The last bytes written: a new connection must go on with what follows them.
    last: VecDeque<Bytes>,
    passing: Option<Passing>,
}

impl<W> Sink<'_, W> {
    fn note(&mut self, chunk: Bytes) {
        self.written += chunk.len() as u64;
        if let Some(passing) = &mut self.passing {
            passing.update(&chunk);
        }
        self.last.push_back(chunk);
        let mut kept = self.last.iter().map(Bytes::len).sum::<usize>();
        while let Some(first) = self.last.front().filter(|first| kept - first.len() >= OVERLAP) {
            kept -= first.len();
            self.last.pop_front();
        }
    }
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send> WriteStream for Sink<'_, W> {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.to.write_all(&chunk).await.map_err(output_failed)?;
        self.note(chunk);
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.written
    }

    async fn finish(self: Box<Self>, _: Finish) -> Result<Finished> {
        self.to.flush().await.map_err(output_failed)?;
        Ok(Finished { size: None, metadata: Ok(()) })
    }
}

/// A read that goes on behind bytes which were read already.
pub(super) struct GoneOn {
    reader: Box<dyn ReadStream>,
    /// What came with the last of those.
    ahead: Bytes,
}

impl GoneOn {
    /// Wraps a read that begins with some of them.
    pub(super) fn new(reader: Box<dyn ReadStream>) -> Self {
        Self { reader, ahead: Bytes::new() }
    }

    /// Reads these bytes, and returns whether they are the same.
    pub(super) async fn begins_with(&mut self, mut expected: &[u8]) -> Result<bool> {
        while !expected.is_empty() {
            let mut chunk = self.reader.read().await?;
            let common = chunk.split_to(chunk.len().min(expected.len()));
            if common.is_empty() || !expected.starts_with(&common) {
                return Ok(false);
            }
            expected = &expected[common.len()..];
            self.ahead = chunk;
        }
        Ok(true)
    }
}

#[async_trait]
impl ReadStream for GoneOn {
    async fn read(&mut self) -> Result<Bytes> {
        match self.ahead.is_empty() {
            true => self.reader.read().await,
            false => Ok(std::mem::take(&mut self.ahead)),
        }
    }

    fn pace(&mut self, bytes_per_second: Option<u64>) {
        self.reader.pace(bytes_per_second);
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.reader.finish().await
    }
}

/// A pipe to read from, as the copy loop wants it.
struct Source<'a, R> {
    input: &'a mut R,
    passing: Option<Passing>,
}

#[async_trait]
impl<R: AsyncRead + Unpin + Send> ReadStream for Source<'_, R> {
    async fn read(&mut self) -> Result<Bytes> {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = self.input.read_buf(&mut chunk).await;
        read.map_err(|e| Error::new(ErrorKind::Other, "read the input").with_source(e))?;
        if let Some(passing) = &mut self.passing {
            passing.update(&chunk);
        }
        Ok(chunk.freeze())
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

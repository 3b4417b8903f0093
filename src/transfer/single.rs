//! One file to or from a pipe: `get URL -`, `cat`, `put - URL`.

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
use super::retry::{Budget, pause};
use super::run::Context;
use super::segments::Claim;
use super::types::{Event, Existing, Location, Observer, Options, Outcome, Status, Verified};
use super::verify;

/// Bytes read from a pipe at once.
const CHUNK: usize = 256 * 1024;
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
    let mut sink = Sink { sink, written: 0 };
    let mut budget = Budget::new(options.retries, options.retry_wait);
    let mut furthest = 0;
    loop {
        let Err(error) = read_on(&ctx, source, &mut sink, &entry).await else { return Ok(sink.written) };
        let Some(wait) = budget.next(&error, sink.written > furthest) else { return Err(error) };
        furthest = sink.written;
        let attempt = budget.made();
        ctx.observer.event(Event::Retrying { id: ID, attempt, wait, error });
        if !pause(wait, &ctx.cancel).await {
            return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
        }
        let now = source.transport.stat(&source.path, Follow::Links).await;
        if let Ok(now) = now {
            if sink.written > 0 && !same(&now, &entry) {
                return Err(
                    Error::new(ErrorKind::Other, "it changed after a part of it was written out").at(source.shown())
                );
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
    let _held = ctx.locks.take(&destination.url)?;
    let id = ctx.transfer_id("-", &destination.url);
    let part = destination.sibling(part::path_of(&destination.path, &id)?);
    let existing = existing.filter(|entry| entry.kind == FileKind::File);
    let bytes = match write_part(&ctx, input, &part, destination, existing.and_then(|entry| entry.mode)).await {
        Ok(bytes) => bytes,
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
        verified: Some(Verified::Size),
    })
}

async fn read_on(
    ctx: &Arc<Context>,
    source: &Location,
    sink: &mut Sink<'_, impl AsyncWrite + Unpin + Send>,
    entry: &Entry,
) -> Result<()> {
    let offset = sink.written;
    let mut reader = source.transport.open_read(&source.path, ReadRange::from(offset)).await?;
    pump(ctx, offset, reader.as_mut(), sink).await?;
    reader.finish().await?;
    sink.sink.flush().await.map_err(output_failed)?;
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
    input: &mut (impl AsyncRead + Unpin + Send),
    part: &Location,
    destination: &Location,
    existing_mode: Option<u32>,
) -> Result<u64> {
    let capabilities = part.transport.capabilities();
    // A file that is replaced keeps its mode, as when files are copied.
    let kept = existing_mode.filter(|_| capabilities.set_mode).map(|mode| mode & 0o777);
    let last_mode = kept.or(capabilities.local.then_some(0o666 & !ctx.umask));
    // Nobody else's to read until it is complete.
    let mode = if capabilities.local { Some(0o600) } else { kept };
    let mut writer = part.transport.open_write(&part.path, WriteMode::Create { mode, length: None }).await?;
    let bytes = pump(ctx, 0, &mut Source(input), writer.as_mut()).await?;
    let metadata = SetMetadata { mode: last_mode, mtime: None };
    let last = Finish { durability: ctx.options.durability, metadata };
    let finished = writer.finish(last).await?;
    verify::size_is(part, bytes, finished.size).await?;
    let replace = if ctx.options.existing == Existing::Keep { Replace::No } else { Replace::Yes };
    part.transport.rename(&part.path, &destination.path, replace, ctx.options.durability).await?;
    Ok(bytes)
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
    let copy = Copy { claim: &claim, limiter: &ctx.limiter, cancel: &ctx.cancel, progress: &progress, journal: None };
    Ok(offset + copy.run(reader, writer).await?)
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
    sink: &'a mut W,
    written: u64,
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send> WriteStream for Sink<'_, W> {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        self.sink.write_all(&chunk).await.map_err(output_failed)?;
        self.written += chunk.len() as u64;
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.written
    }

    async fn finish(self: Box<Self>, _: Finish) -> Result<Finished> {
        self.sink.flush().await.map_err(output_failed)?;
        Ok(Finished { size: None, metadata: Ok(()) })
    }
}

/// A pipe to read from, as the copy loop wants it.
struct Source<'a, R>(&'a mut R);

#[async_trait]
impl<R: AsyncRead + Unpin + Send> ReadStream for Source<'_, R> {
    async fn read(&mut self) -> Result<Bytes> {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = self.0.read_buf(&mut chunk).await;
        read.map_err(|e| Error::new(ErrorKind::Other, "read the input").with_source(e))?;
        Ok(chunk.freeze())
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

//! Files being read and written: a data connection of their own on a connection of their own.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use suppaftp::tokio::TransferStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::{Connection, Refusal, Transfer};
use super::look::{Wanted, explain, size};
use super::ops::set_metadata;
use super::wire::Wire;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::pool::Lease;
use crate::transport::{Finish, Finished, ReadRange, ReadStream, RemotePath, WriteMode, WriteStream};

/// The most bytes handed over at once.
const CHUNK: usize = 512 * 1024;
/// A chunk is filled on until less than this is free: reads into less cost more than a new chunk.
const WORTH_READING: usize = 64 * 1024;

/// Opens a file for reading.
pub(super) async fn open_read(
    connection: &mut Connection,
    path: &RemotePath,
    range: ReadRange,
) -> Result<(TransferStream<Wire>, Option<u64>)> {
    let mut expected = None;
    if range.start > 0 {
        if !connection.login().server().is_some_and(|server| server.restarts) {
            return Err(Error::new(ErrorKind::Unsupported, "the server can't start in the middle of a file"));
        }
        // Known before the first byte, so that a start behind the end is no surprise, and checked at the end.
        expected = size(connection, path).await?;
        if expected.is_some_and(|size| range.start > size) {
            return Err(Error::new(ErrorKind::InvalidPath, "read from behind the end of the file")
                .with_kind(ErrorKind::SourceChanged));
        }
    }
    match connection.transfer(Transfer::Read(range.start), path).await {
        Ok(data) => Ok((data, expected)),
        Err(Refusal::Said(reply)) => Err(explain(connection, &reply, "read", path, Wanted::File).await),
        Err(Refusal::Failed(e)) => Err(e),
    }
}

/// Opens a file for writing.
///
/// # Errors
/// `Unsupported` where the server can't write at that offset.
pub(super) async fn open_write(
    connection: &mut Connection,
    path: &RemotePath,
    mode: WriteMode,
) -> Result<TransferStream<Wire>> {
    let offset = match mode {
        WriteMode::Create { .. } => return start_write(connection, path, Transfer::Write(0)).await,
        WriteMode::At(offset) => offset,
    };
    // Asked for the size first: an offset behind the end would leave a hole, and STOR would make a missing file.
    let Some(length) = size(connection, path).await? else {
        let reply = connection.ask("SIZE", path).await?;
        return Err(explain(connection, &reply, "write at an offset", path, Wanted::File).await);
    };
    if offset > length || (offset == 0 && length > 0) {
        return Err(Error::new(ErrorKind::Unsupported, format!("write at {offset} of {length} bytes by FTP")));
    }
    let restarts = connection.login().server().is_some_and(|server| server.restarts);
    let refused = match start_write(connection, path, Transfer::Write(offset)).await {
        Ok(data) if restarts || offset == 0 => return Ok(data),
        Ok(_) => Error::new(ErrorKind::Unsupported, "the server can't write at an offset"),
        Err(e) => e,
    };
    if offset == length && matches!(refused.kind(), ErrorKind::Unsupported | ErrorKind::InvalidPath) {
        return start_write(connection, path, Transfer::Append).await;
    }
    Err(refused)
}

async fn start_write(connection: &mut Connection, path: &RemotePath, what: Transfer) -> Result<TransferStream<Wire>> {
    match connection.transfer(what, path).await {
        Ok(data) => Ok(data),
        Err(Refusal::Said(reply)) => Err(explain(connection, &reply, "write", path, Wanted::NewFile).await),
        Err(Refusal::Failed(e)) => Err(e),
    }
}

/// A file being read. Dropped unfinished, its connection is discarded.
pub(super) struct FtpRead {
    connection: Lease<Connection>,
    data: TransferStream<Wire>,
    path: RemotePath,
    /// Bytes of the range still to come; `None` reads to the end.
    left: Option<u64>,
    received: u64,
    /// What the file's size says should come, where it was asked.
    expected: Option<u64>,
    ended: bool,
    buffer: BytesMut,
}

impl FtpRead {
    /// Wraps an open transfer; `size` is the file's, where it was asked.
    pub(super) fn new(
        connection: Lease<Connection>,
        data: TransferStream<Wire>,
        path: RemotePath,
        range: ReadRange,
        size: Option<u64>,
    ) -> Self {
        let left = range.end.map(|end| end.saturating_sub(range.start));
        let expected = size.map(|size| size.saturating_sub(range.start));
        Self { connection, data, path, left, received: 0, expected, ended: false, buffer: BytesMut::new() }
    }

    async fn fill(&mut self) -> Result<usize> {
        if self.buffer.capacity() < WORTH_READING {
            self.buffer.reserve(CHUNK);
        }
        self.connection.touch();
        match self.data.read_buf(&mut self.buffer).await {
            Ok(count) => Ok(count),
            Err(e) => Err(Error::io("read", e).at(&self.path)),
        }
    }
}

#[async_trait]
impl ReadStream for FtpRead {
    async fn read(&mut self) -> Result<Bytes> {
        if self.ended || self.left == Some(0) {
            return Ok(Bytes::new());
        }
        let count = self.fill().await?;
        self.ended = count == 0;
        let mut chunk = self.buffer.split();
        if let Some(left) = &mut self.left {
            let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(count);
            // More than the range: it ends before the file does.
            self.received += (count - wanted) as u64;
            chunk.truncate(wanted);
            *left -= wanted as u64;
        }
        self.received += chunk.len() as u64;
        Ok(chunk.freeze())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        if !self.ended {
            if self.left != Some(0) {
                return Err(Error::new(ErrorKind::Other, "finished before the end was read").at(&self.path));
            }
            // The range is complete. Where the file ends there too, the server has a last word.
            let more = self.expected.is_none_or(|expected| self.received >= expected) && self.fill().await? > 0;
            if more || self.expected.is_some_and(|expected| self.received < expected) {
                return Ok(());
            }
        }
        let Self { mut connection, data, path, received, expected, .. } = *self;
        if let Err(e) = data.finish().await {
            return Err(match connection.transfer_failure(e) {
                Refusal::Said(reply) => reply.error_at("read", path.as_bytes()).at(path),
                Refusal::Failed(e) => e.at(path),
            });
        }
        connection.give_back();
        match expected.filter(|&expected| expected != received) {
            Some(expected) => Err(Error::new(
                ErrorKind::SourceChanged,
                format!("the server sent {received} bytes where {expected} were left of the file"),
            )
            .at(path)),
            None => Ok(()),
        }
    }
}

/// A file being written. Dropped unfinished, its connection is discarded.
pub(super) struct FtpWrite {
    connection: Lease<Connection>,
    data: TransferStream<Wire>,
    path: RemotePath,
    mode: WriteMode,
    sent: u64,
}

impl FtpWrite {
    /// Wraps an open transfer.
    pub(super) fn new(
        connection: Lease<Connection>,
        data: TransferStream<Wire>,
        path: RemotePath,
        mode: WriteMode,
    ) -> Self {
        Self { connection, data, path, mode, sent: 0 }
    }
}

#[async_trait]
impl WriteStream for FtpWrite {
    async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            self.connection.touch();
            match self.data.write(rest).await {
                Ok(0) => return Err(Error::new(ErrorKind::ConnectionLost, "write").at(&self.path)),
                Ok(count) => {
                    self.sent += count as u64;
                    rest = &rest[count..];
                }
                Err(e) => return Err(self.why(e).await),
            }
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.sent
    }

    async fn finish(self: Box<Self>, last: Finish) -> Result<Finished> {
        let Self { mut connection, mut data, path, mode, sent } = *self;
        let finished = match data.flush().await {
            Ok(()) => data.finish().await,
            Err(e) => Err(suppaftp::FtpError::ConnectionError(e)),
        };
        if let Err(e) = finished {
            return Err(failure(&mut connection, e, &path));
        }
        let size = size(&mut connection, &path).await?;
        // A server that ignored REST has written elsewhere.
        if let WriteMode::At(offset) = mode
            && let Some(length) = size
            && length < offset + sent
        {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("the server has {length} bytes where {} were written", offset + sent),
            )
            .at(path));
        }
        let metadata = set_metadata(&mut connection, &path, last.metadata).await;
        connection.note_sessions();
        connection.give_back();
        Ok(Finished { size, metadata })
    }
}

impl FtpWrite {
    /// The socket broke; the server may have said why on the control connection.
    async fn why(&mut self, error: std::io::Error) -> Error {
        let _ = self.data.shutdown().await;
        failure(&mut self.connection, suppaftp::FtpError::ConnectionError(error), &self.path)
    }
}

fn failure(connection: &mut Connection, error: suppaftp::FtpError, path: &RemotePath) -> Error {
    match connection.transfer_failure(error) {
        Refusal::Said(reply) => reply.error_at("write", path.as_bytes()).at(path),
        Refusal::Failed(e) => e.at(path),
    }
}

//! Files being read and written: a data connection of their own on a connection of their own.

use async_trait::async_trait;
use bytes::{BufMut, Bytes};

use super::connection::{Connection, line};
use super::data::Data;
use super::ending::cut;
use super::look::{Wanted, explain, parse_size, size};
use super::ops::Settings;
use super::transfer::{Refusal, Started, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::buffers::Buffers;
use crate::transport::lease::Lease;
use crate::transport::{Finish, Finished, Mtime, ReadRange, ReadStream, RemotePath, WriteMode, WriteStream};

/// The most bytes handed over at once.
const CHUNK: usize = 256 * 1024;
/// What is shorter is copied: handed over as it is, a few bytes would hold a whole chunk's memory.
const SHORT: usize = CHUNK / 2;
/// Files of up to this length are sent before the server agrees to take them: it all fits into a socket's buffer.
const AT_ONCE: u64 = 64 * 1024;

/// Opens a file for reading.
pub(super) async fn open_read(connection: &mut Connection, path: &RemotePath, range: ReadRange) -> Result<Started> {
    if range.start > 0 && !connection.login().restarts() {
        return Err(Error::new(ErrorKind::Unsupported, "the server can't start in the middle of a file"));
    }
    match connection.transfer(Transfer::Read(range.start), path).await {
        Ok(started) if started.size.is_some_and(|size| range.start > size) => {
            let _ = connection.cut(started.data).await;
            Err(Error::new(ErrorKind::SourceChanged, "read from behind the end of the file"))
        }
        Ok(started) => Ok(started),
        Err(Refusal::Said(reply)) => Err(explain(connection, &reply, "read", path, Wanted::File).await),
        Err(Refusal::Failed(e)) => Err(e),
    }
}

/// Opens a file for writing.
///
/// # Errors
/// `Unsupported` where the server can't write at that offset.
pub(super) async fn open_write(connection: &mut Connection, path: &RemotePath, mode: WriteMode) -> Result<Started> {
    let offset = match mode {
        WriteMode::Create { .. } => return start_write(connection, path, way_to_create(connection, mode)).await,
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
    let refused = match offset == 0 || connection.login().restarts() {
        true => match start_write(connection, path, Transfer::Write(offset)).await {
            Ok(started) => return Ok(started),
            Err(e) => e,
        },
        false => Error::new(ErrorKind::Unsupported, "the server can't write at an offset"),
    };
    if offset == length && matches!(refused.kind(), ErrorKind::Unsupported | ErrorKind::InvalidPath) {
        return start_write(connection, path, Transfer::Append).await;
    }
    Err(refused)
}

/// Returns how to make a file: without waiting for the server to agree where that saves a trip that would count.
fn way_to_create(connection: &Connection, mode: WriteMode) -> Transfer {
    let login = connection.login();
    let may_be = login.data_works() && !login.may_need_account() && !connection.is_short_of_sessions();
    match mode {
        WriteMode::Create { length: Some(..=AT_ONCE), .. } if may_be => Transfer::WriteAtOnce,
        _ => Transfer::Write(0),
    }
}

async fn start_write(connection: &mut Connection, path: &RemotePath, what: Transfer) -> Result<Started> {
    match connection.transfer(what, path).await {
        Ok(started) => Ok(started),
        Err(refusal) => Err(not_taken(connection, refusal, path).await),
    }
}

async fn not_taken(connection: &mut Connection, refusal: Refusal, path: &RemotePath) -> Error {
    match refusal {
        Refusal::Said(reply) => explain(connection, &reply, "write", path, Wanted::NewFile).await,
        Refusal::Failed(e) => e,
    }
}

/// A file being read. Given up before its end, its connection comes into step in the background.
pub(super) struct FtpRead {
    open: Option<(Lease<Connection>, Data)>,
    path: RemotePath,
    /// Where in the file it started.
    start: u64,
    /// Bytes of the range still to come; `None` reads to the end.
    left: Option<u64>,
    received: u64,
    /// What the file's size says should come, where it was asked.
    expected: Option<u64>,
    mtime: Option<Mtime>,
    ended: bool,
    /// It ended without TLS's word that this was all.
    torn: bool,
    buffer: Vec<u8>,
    buffers: Buffers,
}

impl FtpRead {
    /// Wraps an open transfer; `size` is the file's, where it was asked.
    pub(super) fn new(connection: Lease<Connection>, started: Started, path: RemotePath, range: ReadRange) -> Self {
        let left = range.end.map(|end| end.saturating_sub(range.start));
        let expected = started.size.map(|size| size.saturating_sub(range.start));
        let mtime = started.mtime;
        let open = Some((connection, started.data));
        Self {
            open,
            path,
            start: range.start,
            left,
            received: 0,
            expected,
            mtime,
            ended: false,
            torn: false,
            buffer: Vec::new(),
            buffers: Buffers::default(),
        }
    }

    /// Reads what is there into `buffer`; 0 at the end.
    async fn fill(&mut self) -> Result<usize> {
        let Some((connection, data)) = &mut self.open else { return Ok(0) };
        if self.buffer.capacity() == 0 {
            self.buffer = self.buffers.take(CHUNK);
        }
        self.buffer.clear();
        connection.touch();
        // No more than the range has: what is read behind it, the server has sent in vain.
        let most = self.left.map_or(CHUNK, |left| usize::try_from(left).unwrap_or(CHUNK).clamp(1, CHUNK));
        match data.fill(&mut (&mut self.buffer).limit(most)).await {
            Ok(count) => Ok(count),
            // TLS without close_notify. Whether that was all, the control connection knows: see `finish`.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.torn = true;
                Ok(0)
            }
            Err(e) => {
                // Nothing is left that could be brought to an end.
                self.open = None;
                let garbled = e.kind() == std::io::ErrorKind::InvalidData;
                let phase = if self.received == 0 { "read the first byte" } else { "read on" };
                let error = Error::io(phase, e).at(&self.path);
                Err(if garbled { error.with_kind(ErrorKind::Protocol) } else { error })
            }
        }
    }
}

impl FtpRead {
    /// More came than the file has behind the offset: it grew just now, or the server began at its start.
    fn began_elsewhere(&mut self) -> Error {
        if let Some((connection, data)) = self.open.take() {
            connection.login().note_ignores_rest();
            cut(connection, data);
        }
        let text = format!("the server sends more than there is behind byte {}: it doesn't heed REST", self.start);
        Error::new(ErrorKind::Protocol, text).at(&self.path)
    }

    /// Asks the server for the size where the data connection ended as a cut one does. Many servers leave close_notify
    /// away; what they say on the control connection nobody else can have said.
    async fn is_whole(&self, connection: &mut Connection) -> Result<()> {
        let size = size(connection, &self.path).await.map_err(|e| e.at(&self.path))?;
        if size.is_some_and(|size| size == self.start + self.received) {
            return Ok(());
        }
        let cut = "the data connection was cut: TLS's close_notify is missing";
        Err(Error::new(ErrorKind::ConnectionLost, cut).at(&self.path))
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
        let mut chunk = match count {
            ..SHORT => Bytes::copy_from_slice(&self.buffer),
            _ => self.buffers.lend(std::mem::take(&mut self.buffer)),
        };
        if let Some(left) = &mut self.left {
            let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(count);
            // More than the range: it ends before the file does.
            self.received += (count - wanted) as u64;
            chunk.truncate(wanted);
            *left -= wanted as u64;
        }
        self.received += chunk.len() as u64;
        if self.start > 0 && self.left.is_none() && self.expected.is_some_and(|expected| self.received > expected) {
            return Err(self.began_elsewhere());
        }
        Ok(chunk)
    }

    fn mtime(&self) -> Option<Mtime> {
        self.mtime
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
        let Some((mut connection, data)) = self.open.take() else {
            return Err(Error::new(ErrorKind::Other, "finished after it broke").at(&self.path));
        };
        drop(data);
        connection.ask_behind().await.map_err(|e| e.at(&self.path))?;
        if let Err(refusal) = connection.complete().await {
            return Err(match refusal {
                Refusal::Said(reply) => reply.error_at("read", self.path.as_bytes()),
                Refusal::Failed(e) => e,
            }
            .at(&self.path));
        }
        if self.torn {
            self.is_whole(&mut connection).await?;
        }
        connection.give_back();
        match self.expected.filter(|&expected| expected != self.received) {
            Some(expected) => Err(Error::new(
                ErrorKind::SourceChanged,
                format!("the server sent {} bytes where {expected} were left of the file", self.received),
            )
            .at(&self.path)),
            None => Ok(()),
        }
    }
}

impl Drop for FtpRead {
    fn drop(&mut self) {
        if let Some((connection, data)) = self.open.take() {
            cut(connection, data);
        }
    }
}

/// A file being written. Dropped unfinished, its connection is discarded.
pub(super) struct FtpWrite {
    connection: Lease<Connection>,
    data: Data,
    path: RemotePath,
    mode: WriteMode,
    /// Whether the server has agreed to take it.
    agreed: bool,
    sent: u64,
}

impl FtpWrite {
    /// Wraps an open transfer.
    pub(super) fn new(connection: Lease<Connection>, started: Started, path: RemotePath, mode: WriteMode) -> Self {
        let Started { data, agreed, .. } = started;
        Self { connection, data, path, mode, agreed, sent: 0 }
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

    async fn finish(mut self: Box<Self>, last: Finish) -> Result<Finished> {
        if let Err(e) = self.data.end().await {
            return Err(self.why(e).await);
        }
        let settings = Settings::new(&self.connection, &self.path, last.metadata);
        let mut lines = settings.lines();
        lines.push(line("SIZE", &self.path)?);
        let located = |e: Error| e.at(&self.path);
        lines.push(self.connection.port_line().map_err(located)?);
        let in_order = self.connection.login().is_in_order();
        if in_order {
            self.connection.tell(&lines).await.map_err(located)?;
        }
        if !self.agreed
            && let Err(refusal) = self.connection.agreed().await
        {
            return Err(self.not_taken(refusal).await);
        }
        if let Err(refusal) = self.connection.complete().await {
            return Err(self.failed(refusal));
        }
        self.data.take_tickets();
        let located = |e: Error| e.at(&self.path);
        if !in_order {
            self.connection.tell(&lines).await.map_err(located)?;
        }
        let mut replies = Vec::new();
        for _ in 0..settings.count() {
            replies.push(self.connection.next_reply("set time and mode").await.map_err(located)?);
        }
        let size = parse_size(&self.connection.next_reply("SIZE").await.map_err(located)?);
        self.connection.expect_port();
        self.place_is_right(size)?;
        let metadata = settings.judge(&mut self.connection, &self.path, &replies).await;
        self.connection.note_sessions();
        let Self { connection, .. } = *self;
        connection.give_back();
        Ok(Finished { size, metadata })
    }
}

impl FtpWrite {
    /// A server that ignored REST has written elsewhere.
    fn place_is_right(&self, size: Option<u64>) -> Result<()> {
        match (self.mode, size) {
            (WriteMode::At(offset), Some(length)) if length < offset + self.sent => {
                if offset > 0 {
                    self.connection.login().note_ignores_rest();
                }
                let text = format!("the server has {length} bytes where {} were written", offset + self.sent);
                Err(Error::new(ErrorKind::Protocol, text).at(&self.path))
            }
            _ => Ok(()),
        }
    }

    /// The socket broke; the server may have said why on the control connection.
    async fn why(&mut self, error: std::io::Error) -> Error {
        let refusal = self.connection.why_broken(error).await;
        if self.agreed { self.failed(refusal) } else { self.not_taken(refusal).await }
    }

    fn failed(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Said(reply) => reply.error_at("write", self.path.as_bytes()),
            Refusal::Failed(e) => e,
        }
        .at(&self.path)
    }

    async fn not_taken(&mut self, refusal: Refusal) -> Error {
        not_taken(&mut self.connection, refusal, &self.path).await.at(&self.path)
    }
}

//! Listing a directory: MLSD where there is one, else LIST.

use futures_util::stream;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use suppaftp::tokio::TransferStream;
use tokio::io::AsyncReadExt;

use super::connection::{Connection, Refusal, Transfer, check};
use super::facts::{Fact, parse_facts};
use super::listing::{Line, parse_line};
use super::look::{Wanted, explain};
use super::wire::Wire;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::pool::Lease;
use crate::transport::{Entry, EntryStream, RemotePath, escape};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// The longest line taken; longer than any name that a file system has.
const MAX_LINE: usize = 64 * 1024;

/// Lists a directory on a connection that is given back at the end.
pub(super) async fn list(mut connection: Lease<Connection>, path: &RemotePath) -> Result<EntryStream> {
    let opened = match Listing::open(&mut connection, path).await {
        Err(Refusal::Said(reply)) => Err(explain(&mut connection, &reply, "list", path, Wanted::Directory).await),
        Err(Refusal::Failed(e)) => Err(e),
        Ok(listing) => Ok(listing),
    };
    match opened {
        Ok(listing) => Ok(Box::pin(stream::unfold(Some((connection, listing)), advance))),
        Err(e) => {
            connection.give_back();
            Err(e.at(path))
        }
    }
}

async fn advance(
    state: Option<(Lease<Connection>, Listing)>,
) -> Option<(Result<Entry>, Option<(Lease<Connection>, Listing)>)> {
    let (mut connection, mut listing) = state?;
    connection.touch();
    match listing.next(&mut connection).await {
        Ok(Some(entry)) => Some((Ok(entry), Some((connection, listing)))),
        Ok(None) => {
            connection.give_back();
            None
        }
        Err(e) => Some((Err(e.at(&listing.path)), None)),
    }
}

/// A listing under way on a connection.
pub(super) struct Listing {
    path: RemotePath,
    form: Transfer,
    data: Option<TransferStream<Wire>>,
    buffer: Vec<u8>,
    /// Where in the buffer the next line starts.
    start: usize,
    lines: u64,
    today: Date,
}

impl Listing {
    /// Asks for the listing of a directory.
    pub(super) async fn open(connection: &mut Connection, path: &RemotePath) -> Result<Self, Refusal> {
        check(path)?;
        let machine = connection.login().server().is_some_and(|server| server.features.machine_lists());
        if !machine {
            return Self::open_inside(connection, path).await;
        }
        match connection.transfer(Transfer::MachineList, path).await {
            Ok(data) => Ok(Self::new(path, Transfer::MachineList, data)),
            Err(Refusal::Said(reply)) if matches!(reply.code(), 500 | 502 | 504) => {
                Self::open_inside(connection, path).await
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Asks for the listing by LIST, from inside, since that takes options and patterns where a path is meant.
    pub(super) async fn open_inside(connection: &mut Connection, path: &RemotePath) -> Result<Self, Refusal> {
        check(path)?;
        let inside = connection.ask("CWD", path).await?;
        if !inside.is_ok() {
            return Err(Refusal::Said(inside));
        }
        match connection.transfer(Transfer::ListAll, path).await {
            Ok(data) => Ok(Self::new(path, Transfer::ListAll, data)),
            Err(Refusal::Said(_)) => {
                let data = connection.transfer(Transfer::List, path).await?;
                Ok(Self::new(path, Transfer::List, data))
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn new(path: &RemotePath, form: Transfer, data: TransferStream<Wire>) -> Self {
        let today = jiff::Timestamp::now().to_zoned(TimeZone::UTC).date();
        Self { path: path.clone(), form, data: Some(data), buffer: Vec::new(), start: 0, lines: 0, today }
    }

    /// Returns the next entry; `None` once the server said that this was all.
    pub(super) async fn next(&mut self, connection: &mut Connection) -> Result<Option<Entry>> {
        loop {
            while let Some(end) = self.buffer[self.start..].iter().position(|&b| b == b'\n') {
                let line = self.start..self.start + end;
                self.start = line.end + 1;
                if let Some(entry) = self.parse(line)? {
                    return Ok(Some(entry));
                }
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.read(connection).await? {
                continue;
            }
            if !self.buffer.is_empty() {
                // Some servers leave the end of the last line away.
                self.buffer.push(b'\n');
            } else if !self.again(connection).await? {
                return Ok(None);
            }
        }
    }

    fn parse(&mut self, line: std::ops::Range<usize>) -> Result<Option<Entry>> {
        let line = &self.buffer[line];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.lines += 1;
        let parsed = match self.form {
            Transfer::MachineList if line.trim_ascii().is_empty() => Some(None),
            Transfer::MachineList => parse_facts(line).map(|fact| match fact {
                Fact::Entry(entry) => Some(entry),
                Fact::Around => None,
            }),
            _ => parse_line(line, self.today).map(|line| match line {
                Line::Entry(entry) => Some(entry),
                Line::Nothing => None,
            }),
        };
        parsed.ok_or_else(|| {
            Error::new(ErrorKind::Protocol, format!("a line of the listing is of no known form: \"{}\"", escape(line)))
        })
    }

    /// Reads more; `false` at the end, once the server confirmed that all was sent.
    async fn read(&mut self, connection: &mut Connection) -> Result<bool> {
        let Some(data) = &mut self.data else { return Ok(false) };
        if self.buffer.len() > MAX_LINE {
            return Err(Error::new(ErrorKind::Protocol, "a line of the listing has no end"));
        }
        self.buffer.reserve(CHUNK);
        match data.read_buf(&mut self.buffer).await {
            Ok(0) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(Error::io("read the listing", e)),
        }
        let finished = match self.data.take() {
            Some(data) => data.finish().await,
            None => Ok(()),
        };
        if let Err(e) = finished {
            return Err(match connection.transfer_failure(e) {
                Refusal::Said(reply) => reply.error("list"),
                Refusal::Failed(e) => e,
            });
        }
        let words = connection.last_words();
        // Pure-FTPd says so in a 226 and means it: the rest of the names is missing.
        if words.to_ascii_lowercase().contains("truncated") {
            return Err(Error::new(ErrorKind::Other, format!("the server cut the listing off: \"{words}\""))
                .with_hint("raise the server's limit of names in a listing (Pure-FTPd: -L, LimitRecursion)"));
        }
        Ok(false)
    }

    /// Asks once more without `-a` when that gave not even `.`: some servers take it for a name.
    async fn again(&mut self, connection: &mut Connection) -> Result<bool> {
        if self.form != Transfer::ListAll || self.lines > 0 {
            return Ok(false);
        }
        self.form = Transfer::List;
        match connection.transfer(Transfer::List, &self.path).await {
            Ok(data) => {
                self.data = Some(data);
                Ok(true)
            }
            // Nothing there: some servers say so by refusing.
            Err(Refusal::Said(reply)) if matches!(reply.code(), 450 | 550) => Ok(false),
            Err(Refusal::Said(reply)) => Err(reply.error("list")),
            Err(Refusal::Failed(e)) => Err(e),
        }
    }
}

//! Listing a directory: MLSD where there is one, else LIST.

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::connection::{Connection, line};
use super::data::Data;
use super::ending::cut;
use super::facts::{Fact, parse_facts, rights_of_itself};
use super::listing::{Line, parse_line};
use super::look::{Wanted, explain};
use super::reply::Reply;
use super::spool::Spool;
use super::transfer::{Refusal, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::lease::Lease;
use crate::transport::{Entry, EntryStream, RemotePath, escape};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// The longest line taken; longer than any name that a file system has.
const MAX_LINE: usize = 64 * 1024;

/// Asks for a listing.
pub(super) async fn open(connection: &mut Connection, path: &RemotePath) -> Result<Source> {
    match Source::open(connection, path).await {
        Err(Refusal::Said(reply)) => Err(explain(connection, &reply, "list", path, Wanted::Directory).await),
        Err(Refusal::Failed(e)) => Err(e),
        Ok(source) => Ok(source),
    }
}

/// Reads a listing ahead of its consumer, so that the connection is free again whatever that does meanwhile: it may
/// well wait for a connection itself.
pub(super) fn stream(connection: Lease<Connection>, source: Source) -> EntryStream {
    let (path, lines) = (source.path.clone(), Lines::new(source.form));
    let spool = Arc::new(Spool::default());
    tokio::spawn(fill(connection, source, Arc::clone(&spool)));
    Box::pin(stream::try_unfold((spool, lines, path), async |(spool, mut lines, path)| {
        loop {
            if let Some(entry) = lines.next().map_err(|e| e.at(&path))? {
                return Ok(Some((entry, (spool, lines, path))));
            }
            match spool.take().await.map_err(|e| e.at(&path))? {
                Some(chunk) => lines.add(&chunk)?,
                None if lines.end() => {}
                None => return Ok(None),
            }
        }
    }))
}

/// Moves a listing into the spool, until all of it is there or nobody wants it any more.
async fn fill(mut connection: Lease<Connection>, mut source: Source, spool: Arc<Spool>) {
    loop {
        connection.touch();
        let chunk = source.read(&mut connection).await;
        let ended = !matches!(chunk, Ok(Some(_)));
        let failed = chunk.is_err();
        let wanted = Arc::strong_count(&spool) > 1;
        if ended && !failed {
            // Before the consumer learns of it: what it does next may need a connection.
            connection.give_back();
            spool.put(chunk).await;
            return;
        }
        let goes_on = wanted && spool.put(chunk).await;
        if goes_on {
            continue;
        }
        match source.data.take() {
            Some(data) if !failed => return cut(connection, data),
            Some(_) => return,
            // The server said its last word, so that others can use it, whatever that word was.
            None => return connection.give_back(),
        }
    }
}

/// A listing under way on a connection, as bytes.
pub(super) struct Source {
    path: RemotePath,
    form: Transfer,
    data: Option<Data>,
    buffer: BytesMut,
    /// Nothing came at all.
    empty: bool,
    /// The lines until one is an entry: a listing without any is asked about.
    first: Option<Lines>,
    /// What the server said to `LIST -a` where it denied that.
    denied: Option<Reply>,
}

impl Source {
    /// Asks for the listing of a directory.
    async fn open(connection: &mut Connection, path: &RemotePath) -> Result<Self, Refusal> {
        let machine = connection.login().server().is_some_and(|server| server.features.machine_lists());
        if !machine {
            return Self::open_inside(connection, path).await;
        }
        match connection.transfer(Transfer::MachineList, path).await {
            Ok(started) => Ok(Self::new(path, Transfer::MachineList, started.data)),
            Err(Refusal::Said(reply)) if matches!(reply.code(), 500 | 502 | 504) => {
                Self::open_inside(connection, path).await
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Asks for the listing by LIST, from inside, since that takes options and patterns where a path is meant.
    async fn open_inside(connection: &mut Connection, path: &RemotePath) -> Result<Self, Refusal> {
        match connection.transfer(Transfer::ListAll, path).await {
            Ok(started) => Ok(Self::new(path, Transfer::ListAll, started.data)),
            Err(Refusal::Said(reply)) if reply.code() == 450 || reply.code() >= 500 => {
                let denied = (reply.kind(path.as_bytes()) == Some(ErrorKind::PermissionDenied)).then_some(reply);
                let started = connection.transfer(Transfer::List, path).await?;
                Ok(Self { denied, ..Self::new(path, Transfer::List, started.data) })
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn new(path: &RemotePath, form: Transfer, data: Data) -> Self {
        let (first, buffer) = (Some(Lines::new(form)), BytesMut::new());
        Self { path: path.clone(), form, data: Some(data), buffer, empty: true, first, denied: None }
    }

    /// Reads more; `None` at the end, once the server confirmed that all was sent.
    async fn read(&mut self, connection: &mut Connection) -> Result<Option<Bytes>> {
        while let Some(data) = &mut self.data {
            self.buffer.reserve(CHUNK);
            if data.fill(&mut (&mut self.buffer).limit(CHUNK)).await.map_err(|e| Error::io("read the listing", e))? > 0
            {
                self.empty = false;
                self.look_at_first(connection);
                return Ok(Some(self.buffer.split().freeze()));
            }
            self.data = None;
            connection.ask_behind().await?;
            let reply = connection.complete().await.map_err(|refusal| match refusal {
                Refusal::Said(reply) => reply.error("list"),
                Refusal::Failed(e) => e,
            })?;
            // Pure-FTPd says so in a 226 and means it: the rest of the names is missing.
            let words = reply.words();
            if words.to_ascii_lowercase().contains("truncated") {
                return Err(Error::new(ErrorKind::Other, format!("the server cut the listing off: \"{words}\""))
                    .with_hint("raise the server's limit of names in a listing (Pure-FTPd: -L, LimitRecursion)"));
            }
            if reply.is_failure_in_disguise(self.path.as_bytes(), self.first.is_some()) {
                return Err(reply.error("list").with_kind(ErrorKind::PermissionDenied));
            }
            if self.first.is_some() {
                self.is_empty_indeed(connection, &reply).await?;
            }
            self.again(connection).await?;
        }
        Ok(None)
    }

    /// Looks at the first lines for an entry, and for the line of the directory itself.
    fn look_at_first(&mut self, connection: &Connection) {
        let Some(lines) = &mut self.first else { return };
        let mut any = lines.add(&self.buffer).is_err();
        // What is of no known form is its reader's trouble.
        while let Some(found) = lines.next().transpose() {
            any = true;
            if found.is_err() {
                break;
            }
        }
        let (itself, form) = (lines.itself, self.form);
        if any {
            self.first = None;
        }
        if itself
            && form != Transfer::List
            && let Some(server) = connection.login().server()
        {
            server.note_lists_itself(form == Transfer::MachineList);
        }
    }

    /// Makes sure that a listing without an entry is one of an empty directory: many a server lists nothing, and says that
    /// all went well, where it can't look. Whoever takes that for empty deletes what was there elsewhere.
    async fn is_empty_indeed(&mut self, connection: &mut Connection, reply: &Reply) -> Result<()> {
        let Some(mut lines) = self.first.take() else { return Ok(()) };
        if lines.end() && !matches!(lines.next(), Ok(None)) {
            return Ok(());
        }
        if let Some(denied) = self.denied.take() {
            return Err(denied.error_at("list", self.path.as_bytes()));
        }
        if !matches!(reply.code(), 226 | 250) {
            return Err(reply.error("list nothing").with_kind(ErrorKind::Protocol));
        }
        if lines.no_right {
            return Err(unlisted("the server grants no right to list it, and lists nothing"));
        }
        let machine = self.form == Transfer::MachineList;
        let server = connection.login().server();
        if !lines.itself && self.form != Transfer::List && server.is_some_and(|server| server.lists_itself(machine)) {
            return Err(unlisted("the server lists nothing, not even the directory itself as it does elsewhere"));
        }
        if machine {
            let home = server.map_or_else(RemotePath::root, |server| server.home.clone());
            // And out again: Pure-FTPd gives up when the directory that it is in was removed.
            let replies = connection.ask_all(&[line("CWD", &self.path)?, line("CWD", &home)?]).await?;
            if let Some(inside) = replies.first().filter(|inside| !inside.is_ok()) {
                let kind = inside.kind(self.path.as_bytes()).unwrap_or(ErrorKind::PermissionDenied);
                return Err(inside.error("list: it can't be entered").with_kind(kind));
            }
        }
        Ok(())
    }

    /// Asks once more without `-a` when that gave not even `.`: some servers take it for a name.
    async fn again(&mut self, connection: &mut Connection) -> Result<()> {
        if self.form != Transfer::ListAll || !self.empty {
            return Ok(());
        }
        self.form = Transfer::List;
        match connection.transfer(Transfer::List, &self.path).await {
            Ok(started) => {
                self.data = Some(started.data);
                self.first = Some(Lines::new(Transfer::List));
            }
            // Nothing there: some servers say so by refusing.
            Err(Refusal::Said(reply)) if matches!(reply.code(), 450 | 550) && reply.finds_nothing() => {}
            Err(Refusal::Said(reply)) => {
                let kind = reply.kind(self.path.as_bytes()).unwrap_or(ErrorKind::PermissionDenied);
                return Err(reply.error("list").with_kind(kind));
            }
            Err(Refusal::Failed(e)) => return Err(e),
        }
        Ok(())
    }
}

fn unlisted(why: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, why)
}

/// A listing under way, as entries.
pub(super) struct Listing {
    source: Source,
    lines: Lines,
}

impl Listing {
    /// Asks for the listing of a directory.
    pub(super) async fn open(connection: &mut Connection, path: &RemotePath) -> Result<Self, Refusal> {
        Source::open(connection, path).await.map(Self::new)
    }

    /// Asks for it by LIST.
    pub(super) async fn open_inside(connection: &mut Connection, path: &RemotePath) -> Result<Self, Refusal> {
        Source::open_inside(connection, path).await.map(Self::new)
    }

    fn new(source: Source) -> Self {
        Self { lines: Lines::new(source.form), source }
    }

    /// Returns the next entry; `None` once the server said that this was all.
    pub(super) async fn next(&mut self, connection: &mut Connection) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.lines.next()? {
                return Ok(Some(entry));
            }
            match self.source.read(connection).await? {
                Some(chunk) => self.lines.add(&chunk)?,
                None if self.lines.end() => {}
                None => return Ok(None),
            }
        }
    }
}

/// The lines of a listing.
struct Lines {
    form: Transfer,
    buffer: Vec<u8>,
    /// Where in the buffer the next line starts.
    start: usize,
    today: Date,
    /// One of them was the directory itself.
    itself: bool,
    /// That one said that it may not be listed, or not entered.
    no_right: bool,
}

impl Lines {
    fn new(form: Transfer) -> Self {
        let today = jiff::Timestamp::now().to_zoned(TimeZone::UTC).date();
        Self { form, buffer: Vec::new(), start: 0, today, itself: false, no_right: false }
    }

    fn add(&mut self, chunk: &[u8]) -> Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() > MAX_LINE {
            return Err(Error::new(ErrorKind::Protocol, "a line of the listing has no end"));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// Ends the last line, since some servers leave that away; returns whether there was one.
    fn end(&mut self) -> bool {
        let open = self.start < self.buffer.len();
        if open {
            self.buffer.push(b'\n');
        }
        open
    }

    /// Returns the next entry of the lines that are complete.
    fn next(&mut self) -> Result<Option<Entry>> {
        while let Some(length) = self.buffer[self.start..].iter().position(|&b| b == b'\n') {
            let line = self.start..self.start + length;
            self.start = line.end + 1;
            if let Some(entry) = self.parse(&self.buffer[line.clone()])? {
                return Ok(Some(entry));
            }
            self.note_itself(line);
        }
        Ok(None)
    }

    /// Notes what a line that is no entry says of the directory itself.
    fn note_itself(&mut self, line: Range<usize>) {
        let line = self.buffer[line].trim_ascii_end();
        let rights = match self.form {
            Transfer::MachineList => rights_of_itself(line),
            _ => line.ends_with(b" .").then_some(true),
        };
        self.itself |= rights.is_some();
        self.no_right |= rights == Some(false);
    }

    fn parse(&self, line: &[u8]) -> Result<Option<Entry>> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
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
}

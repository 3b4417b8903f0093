//! Writing a file with many WRITEs under way.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;

use super::client::{Claim, File, Pending, unwanted};
use super::request::{Extended, Request};
use super::response::Response;
use super::status;
use super::wire::Attrs;
use super::{attrs_of, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Durability, Finish, Finished, RemotePath, WriteStream};

/// WRITEs under way at most, whatever their size.
const MAX_REQUESTS: usize = 512;

/// A file being written.
///
/// Bytes under way are those that the server hasn't confirmed; how many may be, all streams of a channel share (see
/// [`super::flow`]). What waits on this side is bounded, too: a WRITE is made only when there is room in front of the
/// engine.
#[derive(Debug)]
pub(super) struct SftpWrite {
    file: File,
    path: RemotePath,
    next: u64,
    in_flight: VecDeque<Part>,
    in_flight_bytes: usize,
    acknowledged: u64,
    failed: bool,
    _claim: Claim,
}

/// One WRITE under way.
#[derive(Debug)]
struct Part {
    answer: Pending,
    length: usize,
}

impl SftpWrite {
    pub(super) fn new(file: File, claim: Claim, path: RemotePath, offset: u64) -> Self {
        Self {
            file,
            path,
            next: offset,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            acknowledged: 0,
            failed: false,
            _claim: claim,
        }
    }

    /// Sends one WRITE once there is room for it.
    async fn send(&mut self, piece: Bytes) -> Result<()> {
        loop {
            self.take_answered()?;
            if self.in_flight.len() < MAX_REQUESTS && self.file.client.take_window(piece.len()) {
                break;
            }
            if self.in_flight.is_empty() {
                self.file.client.overdraw_window(piece.len());
                break;
            }
            self.take_first().await?;
        }
        self.in_flight_bytes += piece.len();
        self.file.client.room().await?;
        let length = piece.len();
        let answer = self.file.client.request(Request::Write(self.file.handle(), self.next, piece));
        self.in_flight.push_back(Part { answer, length });
        self.next += length as u64;
        Ok(())
    }

    /// Takes the answers that are there, in order.
    fn take_answered(&mut self) -> Result<()> {
        while let Some(part) = self.in_flight.front_mut() {
            let Some(answer) = part.answer.try_answer()? else { break };
            self.take(&answer.response)?;
        }
        Ok(())
    }

    /// Waits for the answer that is first in order.
    async fn take_first(&mut self) -> Result<()> {
        let Some(part) = self.in_flight.front_mut() else { return Ok(()) };
        let answer = part.answer.answer().await?;
        self.take(&answer.response)
    }

    fn take(&mut self, response: &Response) -> Result<()> {
        let Some(part) = self.in_flight.pop_front() else { return Ok(()) };
        match response {
            Response::Status(status) => status::check(status, "write")?,
            other => return Err(unwanted(other, "write")),
        }
        self.in_flight_bytes -= part.length;
        self.file.client.return_window(part.length);
        self.acknowledged += part.length as u64;
        Ok(())
    }

    /// Sends all that is left behind the last WRITE, CLOSE included, and waits for the answers: one round trip.
    async fn end(&mut self, last: Finish) -> Result<Finished> {
        let client = self.file.client.clone();
        let attrs = attrs_of(last.metadata);
        let set = attrs.as_ref().ok().filter(|attrs| **attrs != Attrs::default());
        let set = set.map(|attrs| client.request(Request::Fsetstat(self.file.handle(), *attrs)));
        let mut look = client.request(Request::Fstat(self.file.handle()));
        let synced = last.durability == Durability::Synced && client.offers("fsync@openssh.com");
        let sync = synced.then(|| client.request(Request::Extended(Extended::Fsync(self.file.handle()))));
        let close = self.file.send_close();
        while !self.in_flight.is_empty() {
            self.take_first().await?;
        }
        let metadata = match set {
            Some(set) => set.status("set time and mode").await,
            None => attrs.map(drop),
        };
        let size = match look.answer().await?.response {
            Response::Attrs(attrs) => attrs.size,
            _ => None,
        };
        if let Some(sync) = sync {
            sync.status("force to disk").await?;
        }
        close.status("close").await?;
        Ok(Finished { size, metadata })
    }

    async fn fail(&mut self, error: Error) -> Error {
        self.failed = true;
        explain::write(&self.file.client, &self.path, error).await
    }
}

impl Drop for SftpWrite {
    fn drop(&mut self) {
        self.file.client.return_window(self.in_flight_bytes);
    }
}

#[async_trait]
impl WriteStream for SftpWrite {
    async fn write(&mut self, mut chunk: Bytes) -> Result<()> {
        if self.failed {
            return Err(Error::new(ErrorKind::Other, "written to after an error").at(&self.path));
        }
        let most = self.file.client.write_length() as usize;
        while !chunk.is_empty() {
            let piece = chunk.split_to(most.min(chunk.len()));
            if let Err(error) = self.send(piece).await {
                return Err(self.fail(error).await);
            }
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    async fn finish(mut self: Box<Self>, last: Finish) -> Result<Finished> {
        if self.failed {
            return Err(Error::new(ErrorKind::Other, "finished after an error").at(&self.path));
        }
        match self.end(last).await {
            Ok(finished) => Ok(finished),
            Err(error) => Err(self.fail(error).await),
        }
    }
}

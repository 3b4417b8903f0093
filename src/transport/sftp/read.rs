//! Reading a file with many READs under way, handed over in order.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::client::{Claim, File, Pending, unwanted};
use super::explain;
use super::fields::broken;
use super::request::Request;
use super::response::{Response, StatusCode};
use crate::error::Result;
use crate::transport::{ReadRange, ReadStream, RemotePath};

/// READs under way at most, whatever their size.
const MAX_REQUESTS: usize = 512;
/// READs under way while nobody knows how long the file is.
const BLIND_REQUESTS: usize = 2;
/// The longest READ that is sent when others have taken all that may be under way: one packet of SSH.
const OVERDRAFT: u32 = 32 * 1024;
/// The smallest READ, for servers that keep answering with less than was asked.
const LEAST_LENGTH: u32 = 4096;
/// A stream that is read slowly has so much of its time under way, and two round trips, but a packet of SSH at least.
const AHEAD: Duration = Duration::from_millis(100);
const LEAST_AHEAD: usize = 64 * 1024;
/// Answers without a byte in a row, after which the server is taken for broken.
const EMPTY_ANSWERS: u32 = 3;

/// A file being read.
///
/// How much may be under way, all streams of a channel share (see [`super::flow`]); what arrived and was not taken
/// counts, so that a slow reader holds no more in memory. A stream that gets nothing of it has one short READ under way.
///
/// Nothing is asked for behind `range.end`, or where that is unknown, behind the size that FSTAT tells, but for one
/// READ at a time that finds out whether the file has grown.
#[derive(Debug)]
pub(super) struct SftpRead {
    file: Option<File>,
    path: RemotePath,
    /// Offset of the next READ.
    next: u64,
    /// Where the range ends, if it does.
    end: Option<u64>,
    /// Where the file probably ends; asked for when nobody said.
    size: Size,
    length: u32,
    /// How many bytes may be under way for this stream, however fast the link is.
    ahead: usize,
    in_flight: VecDeque<Part>,
    ready: Bytes,
    /// What the caller took last: still in memory, perhaps.
    held: usize,
    empty_answers: u32,
    _claim: Claim,
}

#[derive(Debug)]
enum Size {
    Known(u64),
    Asked(Pending),
    Unknown,
}

/// One READ under way.
#[derive(Debug)]
struct Part {
    answer: Pending,
    offset: u64,
    length: u32,
    /// The length of the short answer that this READ completes.
    completes: Option<u32>,
}

impl SftpRead {
    pub(super) fn new(file: File, claim: Claim, path: RemotePath, range: ReadRange) -> Self {
        let length = file.client.read_length();
        let size = match range.end {
            Some(end) => Size::Known(end),
            None => Size::Asked(file.client.request(Request::Fstat(file.handle()))),
        };
        let mut read = Self {
            file: Some(file),
            path,
            next: range.start,
            end: range.end,
            size,
            length,
            // How fast it will be read is told before the first read: until then one READ is enough.
            ahead: 0,
            in_flight: VecDeque::new(),
            ready: Bytes::new(),
            held: 0,
            empty_answers: 0,
            _claim: claim,
        };
        read.fill();
        read.ahead = usize::MAX;
        read
    }

    /// Sends READs until as much is under way as may be.
    fn fill(&mut self) {
        self.learn_size();
        while let Some(mut length) = self.next_length() {
            let Some(file) = &self.file else { return };
            if !file.client.take_window(length as usize) {
                if !self.in_flight.is_empty() {
                    return;
                }
                length = length.min(OVERDRAFT);
                file.client.overdraw_window(length as usize);
            }
            let answer = file.client.request(Request::Read(file.handle(), self.next, length));
            self.in_flight.push_back(Part { answer, offset: self.next, length, completes: None });
            self.next += u64::from(length);
        }
    }

    /// Returns the length of the READ to send now.
    fn next_length(&self) -> Option<u32> {
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.next));
        // A stream that is read slowly asks for little at a time, so that it flows.
        let slowly = u32::try_from(self.ahead / 2).unwrap_or(u32::MAX).max(LEAST_LENGTH);
        let longest = if self.ahead == 0 { self.length } else { self.length.min(slowly) };
        let length = u32::try_from(left).unwrap_or(u32::MAX).min(longest);
        let most = match self.size {
            Size::Known(size) if self.next >= size => 1,
            Size::Known(_) => MAX_REQUESTS,
            Size::Asked(_) | Size::Unknown => BLIND_REQUESTS,
        };
        let under_way = || self.in_flight.iter().map(|part| part.length as usize).sum::<usize>();
        let is_near = self.ahead == usize::MAX || self.in_flight.is_empty() || under_way() < self.ahead;
        (length > 0 && self.in_flight.len() < most && is_near).then_some(length)
    }

    fn learn_size(&mut self) {
        let Size::Asked(pending) = &mut self.size else { return };
        match pending.try_answer() {
            Ok(None) => {}
            Ok(Some(answer)) => {
                let size = match answer.response {
                    Response::Attrs(attrs) => attrs.size,
                    _ => None,
                };
                self.size = size.map_or(Size::Unknown, Size::Known);
            }
            Err(_) => self.size = Size::Unknown,
        }
    }

    /// Waits for the answer that is next in order and puts its bytes into `ready`; `false` at the end of the file.
    async fn receive(&mut self) -> Result<bool> {
        let Some(part) = self.in_flight.front_mut() else { return Ok(false) };
        let answer = part.answer.answer().await?;
        let Some(part) = self.in_flight.pop_front() else { return Ok(false) };
        match answer.response {
            Response::Data(data) => {
                let got = u32::try_from(data.len()).unwrap_or(u32::MAX);
                self.ready = data;
                self.complete(&part, got)
            }
            Response::Status(status) if status.code == StatusCode::EOF => {
                self.return_window(part.length as usize);
                Ok(false)
            }
            other => {
                self.return_window(part.length as usize);
                Err(unwanted(&other, "read"))
            }
        }
    }

    /// Asks again for what a short answer left out.
    fn complete(&mut self, part: &Part, got: u32) -> Result<bool> {
        let missing = part.length.saturating_sub(got);
        self.held = got as usize;
        self.empty_answers = if got == 0 { self.empty_answers + 1 } else { 0 };
        if self.empty_answers >= EMPTY_ANSWERS {
            self.return_window(missing as usize);
            return Err(broken("DATA without a byte, again and again"));
        }
        if let Some(short) = part.completes.filter(|_| got > 0) {
            // More came behind a short answer: short answers are this server's habit, not the end of the file.
            self.length = self.length.min(short.max(LEAST_LENGTH));
        }
        if let Some(file) = self.file.as_ref().filter(|_| missing > 0) {
            let offset = part.offset + u64::from(got);
            let answer = file.client.request(Request::Read(file.handle(), offset, missing));
            let completes = Some(if got > 0 { got } else { part.completes.unwrap_or(part.length) });
            self.in_flight.push_front(Part { answer, offset, length: missing, completes });
        }
        Ok(true)
    }

    fn return_window(&self, length: usize) {
        if let Some(file) = &self.file {
            file.client.return_window(length);
        }
    }

    /// Closes the file; what is still under way is discarded as it arrives.
    fn end(&mut self) {
        let under_way = self.in_flight.iter().map(|part| part.length as usize).sum::<usize>();
        let held = std::mem::take(&mut self.held);
        self.return_window(held + under_way);
        self.in_flight.clear();
        self.size = Size::Unknown;
        self.file = None;
    }
}

#[async_trait]
impl ReadStream for SftpRead {
    async fn read(&mut self) -> Result<Bytes> {
        loop {
            if !self.ready.is_empty() {
                return Ok(std::mem::take(&mut self.ready));
            }
            let held = std::mem::take(&mut self.held);
            self.return_window(held);
            self.fill();
            match self.receive().await {
                Ok(true) => {}
                Ok(false) => {
                    self.end();
                    return Ok(Bytes::new());
                }
                Err(error) => {
                    let client = self.file.as_ref().map(|file| file.client.clone());
                    self.end();
                    let Some(client) = client else { return Err(error.at(&self.path)) };
                    return Err(explain::read(&client, &self.path, error).await);
                }
            }
        }
    }

    fn pace(&mut self, bytes_per_second: Option<u64>) {
        let Some(rate) = bytes_per_second else {
            self.ahead = usize::MAX;
            return;
        };
        let trip = self.file.as_ref().and_then(|file| file.client.round_trip()).unwrap_or_default();
        let time = (AHEAD + trip * 2).as_secs_f64();
        self.ahead = ((rate as f64 * time) as usize).max(LEAST_AHEAD);
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        // Every byte came with its own answer; CLOSE, which goes out in the background, has nothing to add.
        Ok(())
    }
}

impl Drop for SftpRead {
    fn drop(&mut self) {
        self.end();
    }
}

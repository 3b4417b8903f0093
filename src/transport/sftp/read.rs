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

/// Bytes under way at the start, where it is known that the file has as many.
const FIRST_WINDOW: usize = 4 << 20;
/// The most bytes under way for one file.
const MAX_WINDOW: usize = 64 << 20;
/// READs under way at the start at most, whatever their size.
const FIRST_REQUESTS: usize = 64;
/// READs under way at most, whatever their size.
const MAX_REQUESTS: usize = 512;
/// READs under way while nobody knows how long the file is.
const BLIND_REQUESTS: usize = 2;
/// The smallest READ, for servers that keep answering with less than was asked.
const LEAST_LENGTH: u32 = 4096;
/// Answers without a byte in a row, after which the server is taken for broken.
const EMPTY_ANSWERS: u32 = 3;

/// A file being read.
///
/// **The window.** It starts with 4 MiB and grows by one READ with each answer, up to 64 MiB, as long as answers come
/// within twice the shortest time that any took on this connection: longer ones queue behind others, so the link or the
/// server is busy already. It grows only while the caller has to wait for bytes: once it did, the answers of one window
/// may grow it.
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
    window: usize,
    /// How many answers may still grow the window.
    growth: usize,
    in_flight: VecDeque<Part>,
    ready: VecDeque<Bytes>,
    /// Budget taken by what is in `ready`.
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
    /// Budget that it holds: 0 when it was sent beyond the budget.
    budget: usize,
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
        let window = FIRST_WINDOW.min(FIRST_REQUESTS * length as usize);
        let mut read = Self {
            file: Some(file),
            path,
            next: range.start,
            end: range.end,
            size,
            length,
            window,
            growth: 0,
            in_flight: VecDeque::new(),
            ready: VecDeque::new(),
            held: 0,
            empty_answers: 0,
            _claim: claim,
        };
        read.fill();
        read
    }

    /// Sends READs until the window is full.
    fn fill(&mut self) {
        self.learn_size();
        while let Some(length) = self.next_length() {
            let Some(file) = &self.file else { return };
            let budget = length as usize;
            let taken = file.client.take_read_budget(budget);
            if !taken && !self.in_flight.is_empty() {
                return;
            }
            let budget = if taken { budget } else { 0 };
            let answer = file.client.request(Request::Read(file.handle(), self.next, length));
            self.in_flight.push_back(Part { answer, offset: self.next, length, budget, completes: None });
            self.next += u64::from(length);
        }
    }

    /// Returns the length of the READ to send now.
    fn next_length(&self) -> Option<u32> {
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.next));
        let length = u32::try_from(left).unwrap_or(u32::MAX).min(self.length);
        let full = match self.size {
            Size::Known(size) if self.next >= size => !self.in_flight.is_empty(),
            Size::Known(_) => (self.in_flight.len() + 1) * self.length as usize > self.window,
            Size::Asked(_) | Size::Unknown => self.in_flight.len() >= BLIND_REQUESTS,
        };
        // The window is never too small for one READ.
        let full = full && !self.in_flight.is_empty();
        (length > 0 && !full).then_some(length)
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
        let early = part.answer.try_answer()?;
        let answer = if let Some(answer) = early {
            answer
        } else {
            let answer = part.answer.answer().await?;
            self.growth = self.in_flight.len();
            answer
        };
        let Some(part) = self.in_flight.pop_front() else { return Ok(false) };
        match answer.response {
            Response::Data(data) => {
                let got = data.len();
                self.grow(answer.took);
                self.ready = data.into_pieces();
                self.complete(&part, u32::try_from(got).unwrap_or(u32::MAX))
            }
            Response::Status(status) if status.code == StatusCode::EOF => {
                self.return_budget(part.budget);
                Ok(false)
            }
            other => {
                self.return_budget(part.budget);
                Err(unwanted(&other, "read"))
            }
        }
    }

    fn grow(&mut self, took: Duration) {
        if self.growth == 0 {
            return;
        }
        self.growth -= 1;
        if self.file.as_ref().is_some_and(|file| !file.client.is_saturated(took)) {
            let most = MAX_WINDOW.min(MAX_REQUESTS * self.length as usize);
            self.window = (self.window + self.length as usize).min(most);
        }
    }

    /// Asks again for what a short answer left out.
    fn complete(&mut self, part: &Part, got: u32) -> Result<bool> {
        let missing = part.length.saturating_sub(got);
        self.held = part.budget.min(got as usize);
        self.return_budget(part.budget - self.held);
        self.empty_answers = if got == 0 { self.empty_answers + 1 } else { 0 };
        if self.empty_answers >= EMPTY_ANSWERS {
            return Err(broken("DATA without a byte, again and again"));
        }
        if let Some(short) = part.completes.filter(|_| got > 0) {
            // More came behind a short answer: short answers are this server's habit, not the end of the file.
            self.length = self.length.min(short.max(LEAST_LENGTH));
        }
        if let Some(file) = self.file.as_ref().filter(|_| missing > 0) {
            let offset = part.offset + u64::from(got);
            let budget = if file.client.take_read_budget(missing as usize) { missing as usize } else { 0 };
            let answer = file.client.request(Request::Read(file.handle(), offset, missing));
            let completes = Some(if got > 0 { got } else { part.completes.unwrap_or(part.length) });
            self.in_flight.push_front(Part { answer, offset, length: missing, budget, completes });
        }
        Ok(true)
    }

    fn return_budget(&self, length: usize) {
        if let Some(file) = &self.file {
            file.client.return_read_budget(length);
        }
    }

    /// Closes the file; what is still under way is discarded as it arrives.
    fn end(&mut self) {
        let budget = std::mem::take(&mut self.held) + self.in_flight.iter().map(|part| part.budget).sum::<usize>();
        self.return_budget(budget);
        self.in_flight.clear();
        self.size = Size::Unknown;
        self.file = None;
    }
}

#[async_trait]
impl ReadStream for SftpRead {
    async fn read(&mut self) -> Result<Bytes> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(piece);
            }
            let held = std::mem::take(&mut self.held);
            self.return_budget(held);
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

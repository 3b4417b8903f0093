//! The multiplexer: many requests under way on one channel, answers matched by id. No I/O and no clock of its own.
//!
//! Bytes that arrive are fed in, bytes to send are taken out; what happens in between is the same over every engine.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::fields::broken;
use super::flow::{Flow, Mark};
use super::request::{Extended, Request};
use super::response::{Response, StatusCode};
use super::wire::{Frame, Frames, Hello, MAX_PACKET, Packet};
use crate::error::Result;

/// Payloads up to this size are copied behind their head, so that both go out in one SSH packet.
const COPY_UP_TO: usize = 16 * 1024;
/// The fewest and the most bytes handed out at once. Each hand-over that ends is a sign of life for the timeout, so on a
/// slow link there must be many; on a fast one they cost.
const LEAST_CHUNK: usize = 32 * 1024;
const MOST_CHUNK: usize = 256 * 1024;
/// So many hand-overs a second are enough.
const CHUNKS_PER_SECOND: f64 = 4.0;

/// An answer and what came with it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    /// The place among the open handles that the request held.
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

/// The state of one channel.
#[derive(Debug)]
pub(super) struct Mux {
    frames: Frames,
    hello: Option<oneshot::Sender<Hello>>,
    waiting: HashMap<u32, Waiting>,
    next_id: u32,
    output: VecDeque<Bytes>,
    /// What goes out behind `output`: small packets, gathered.
    tail: BytesMut,
    queued: usize,
    whole_file: usize,
    flow: Flow,
    progress: Instant,
}

#[derive(Debug)]
struct Waiting {
    name: &'static str,
    reply: oneshot::Sender<Answer>,
    expected: Expected,
    whole_file: bool,
    /// Bytes of a file that a good answer stands for, if that isn't DATA.
    written: usize,
    mark: Mark,
    slot: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Status,
    Handle,
    Data(usize),
    Names,
    Attrs,
    Extended,
}

impl Mux {
    /// Starts with the client's INIT; the server's VERSION comes through the receiver.
    pub(super) fn new(hello: &Hello, now: Instant) -> (Self, oneshot::Receiver<Hello>) {
        let (sender, receiver) = oneshot::channel();
        let mut mux = Self {
            frames: Frames::new(MAX_PACKET),
            hello: Some(sender),
            waiting: HashMap::new(),
            next_id: 0,
            output: VecDeque::new(),
            tail: BytesMut::new(),
            queued: 0,
            whole_file: 0,
            flow: Flow::new(now),
            progress: now,
        };
        mux.push(hello.encode_init());
        (mux, receiver)
    }

    /// Takes what arrived.
    ///
    /// # Errors
    /// `Protocol`: the channel is of no use any more.
    pub(super) fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<()> {
        self.progress = now;
        while let Some(packet) = self.frames.next(&mut bytes)? {
            match self.hello.take() {
                Some(hello) => drop(hello.send(Hello::decode_version(packet)?)),
                None => self.answer(packet, now)?,
            }
        }
        Ok(())
    }

    /// Queues a request. The answer comes through the receiver, or it fails when the connection ends before. A receiver
    /// that is dropped discards the answer; a handle that nobody waits for any more is closed.
    pub(super) fn request(
        &mut self,
        request: Request,
        slot: Option<OwnedSemaphorePermit>,
        now: Instant,
    ) -> oneshot::Receiver<Answer> {
        if self.is_idle() {
            self.progress = now;
        }
        let (reply, receiver) = oneshot::channel();
        let (expected, whole_file) = (expected(&request), works_on_whole_file(&request));
        let written = if let Request::Write(_, _, data) = &request { data.len() } else { 0 };
        let id = self.free_id();
        self.whole_file += usize::from(whole_file);
        let mark = self.flow.mark(now);
        let name = request.name();
        self.waiting.insert(id, Waiting { name, reply, expected, whole_file, written, mark, slot });
        self.push(request.encode(id));
        receiver
    }

    /// Takes the next bytes to send.
    pub(super) fn take_output(&mut self) -> Option<Bytes> {
        let bytes = self.output.pop_front().unwrap_or_else(|| self.tail.split().freeze());
        self.queued -= bytes.len();
        Some(bytes).filter(|bytes| !bytes.is_empty())
    }

    /// Returns how many bytes wait to be sent.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Returns whether no answer is due and nothing waits to be sent.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.hello.is_none() && self.queued == 0
    }

    /// Returns whether a request is under way that may take its time without a sign of life.
    pub(super) fn may_be_silent(&self) -> bool {
        self.whole_file > 0
    }

    /// Returns what is waited for, the oldest first.
    pub(super) fn awaited(&self) -> String {
        let oldest = self.waiting.iter().min_by_key(|(id, _)| **id);
        match (&self.hello, oldest) {
            (Some(_), _) => "waiting for the answer to INIT".into(),
            (None, Some((_, waiting))) => format!("waiting for the answer to {}", waiting.name),
            (None, None) => "sending".into(),
        }
    }

    /// Returns whether the server's VERSION has come.
    pub(super) fn is_greeted(&self) -> bool {
        self.hello.is_none()
    }

    /// Returns what was measured of the link.
    pub(super) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Returns when the last bytes arrived or went out, or the first request after a pause was queued.
    pub(super) fn progress(&self) -> Instant {
        self.progress
    }

    /// Notes that bytes went out.
    pub(super) fn note_progress(&mut self, now: Instant) {
        self.progress = now;
    }

    /// Ends it: whoever waits learns that no answer will come.
    pub(super) fn end(&mut self) {
        self.hello = None;
        self.waiting.clear();
        self.output.clear();
        self.tail.clear();
        (self.queued, self.whole_file) = (0, 0);
    }

    fn answer(&mut self, packet: Packet, now: Instant) -> Result<()> {
        let (id, response) = Response::decode(packet)?;
        let Some(waiting) = self.waiting.remove(&id) else {
            return Err(broken(format!("an answer with the unknown id {id}")));
        };
        if !fits(&response, waiting.expected) {
            return Err(broken("an answer that doesn't fit the request"));
        }
        self.whole_file -= usize::from(waiting.whole_file);
        let bytes = if let Response::Data(data) = &response { data.len() } else { waiting.written };
        self.flow.delivered(waiting.mark, bytes, now);
        if let Err(unwanted) = waiting.reply.send(Answer { response, slot: waiting.slot })
            && let Response::Handle(handle) = unwanted.response
        {
            drop(self.request(Request::Close(handle), unwanted.slot, now));
        }
        Ok(())
    }

    /// Ids are taken in turn; after 2^32 requests some of the first may still be waiting.
    fn free_id(&mut self) -> u32 {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if !self.waiting.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    fn push(&mut self, frame: Frame) {
        self.queued += frame.len();
        self.tail.extend_from_slice(&frame.head);
        if frame.payload.len() <= COPY_UP_TO {
            return self.tail.extend_from_slice(&frame.payload);
        }
        self.output.push_back(self.tail.split().freeze());
        let chunk = (self.flow.rate() / CHUNKS_PER_SECOND) as usize;
        let (chunk, mut payload) = (chunk.clamp(LEAST_CHUNK, MOST_CHUNK), frame.payload);
        while !payload.is_empty() {
            self.output.push_back(payload.split_to(chunk.min(payload.len())));
        }
    }
}

fn expected(request: &Request) -> Expected {
    match request {
        Request::Open(..) | Request::Opendir(_) => Expected::Handle,
        Request::Read(_, _, length) => Expected::Data(*length as usize),
        Request::Readdir(_) | Request::Realpath(_) | Request::Readlink(_) => Expected::Names,
        Request::Lstat(_) | Request::Fstat(_) | Request::Stat(_) => Expected::Attrs,
        Request::Extended(extended) => match extended {
            Extended::ExpandPath(_) => Expected::Names,
            Extended::StatVfs(_)
            | Extended::FstatVfs(_)
            | Extended::Limits
            | Extended::CheckFileHandle(_)
            | Extended::CheckFileName(_)
            | Extended::Unknown(..) => Expected::Extended,
            _ => Expected::Status,
        },
        _ => Expected::Status,
    }
}

/// Flushing, copying and digesting a large file on the server take long without a byte being sent.
fn works_on_whole_file(request: &Request) -> bool {
    matches!(
        request,
        Request::Extended(
            Extended::Fsync(_) | Extended::CopyData(_) | Extended::CheckFileHandle(_) | Extended::CheckFileName(_)
        )
    )
}

fn fits(response: &Response, expected: Expected) -> bool {
    match response {
        Response::Status(status) => expected == Expected::Status || status.code != StatusCode::OK,
        Response::Handle(_) => expected == Expected::Handle,
        Response::Data(data) => matches!(expected, Expected::Data(most) if data.len() <= most),
        Response::Names(_) => expected == Expected::Names,
        Response::Attrs(_) => expected == Expected::Attrs,
        Response::Extended(_) => expected == Expected::Extended,
    }
}

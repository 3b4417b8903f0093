//! The channels of a libssh2 session, driven without blocking.
//!
//! libssh2 has one rule that shapes all of this: an operation that could send only a part of its packet must be repeated
//! before any other.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use ssh2::{BlockDirections, ErrorCode, ExtendedData};
use tokio::sync::{mpsc, oneshot};

use super::libssh2::failure;
use super::{EXEC_OUTPUT, EXEC_STDERR, Ended, Inbound, exec_result, keep_up_to};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that the server may send before it hears from us; libssh2 reads them all into memory.
const WINDOW: u32 = 4 << 20;
/// The longest packet that the server may send.
const PACKET: u32 = 32 << 10;
/// Bytes read from a channel at once.
const CHUNK: usize = 256 << 10;
/// Messages of a channel waiting to be sent.
const QUEUE: usize = 8;

/// Gets a started channel's number and the queue of what to send on it.
pub(super) type StartReply = oneshot::Sender<Result<(u64, mpsc::Sender<Bytes>)>>;

/// The session and its channels.
pub(super) struct Channels {
    session: ssh2::Session,
    starting: VecDeque<Starting>,
    open: Vec<Channel>,
    /// The operation that sent a part of a packet.
    stuck: Option<Step>,
    next_id: u64,
    buffer: Vec<u8>,
}

/// A channel on its way: libssh2 opens one at a time.
struct Starting {
    purpose: Purpose,
    request: &'static str,
    argument: String,
    reply: Option<StartReply>,
    channel: Option<ssh2::Channel>,
}

struct Channel {
    id: u64,
    ssh: ssh2::Channel,
    purpose: Purpose,
    queue: mpsc::Receiver<Bytes>,
    sending: Bytes,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// A command ended: its status is still to come.
    Ending,
    /// Nobody wants it any more.
    Closing,
}

enum Purpose {
    Stream(Arc<dyn Inbound>),
    Command { stdout: Vec<u8>, stderr: Vec<u8>, reply: Option<oneshot::Sender<Result<Vec<u8>>>> },
}

/// One call into libssh2.
#[derive(Clone, Copy)]
enum Step {
    Start,
    Read(u64),
    ReadStderr(u64),
    Write(u64),
    AwaitEnd(u64),
    Close(u64),
}

enum Progress {
    Moved,
    Waiting,
}

impl Channels {
    /// Takes over a session that doesn't block.
    pub(super) fn new(session: ssh2::Session) -> Self {
        Self { session, starting: VecDeque::new(), open: Vec::new(), stuck: None, next_id: 0, buffer: vec![0; CHUNK] }
    }

    pub(super) fn session(&self) -> &ssh2::Session {
        &self.session
    }

    /// Returns whether a packet was sent in part: the socket must take more before anything else can be done.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    pub(super) fn start_subsystem(&mut self, name: String, inbound: Arc<dyn Inbound>, reply: StartReply) {
        self.starting.push_back(Starting {
            purpose: Purpose::Stream(inbound),
            request: "subsystem",
            argument: name,
            reply: Some(reply),
            channel: None,
        });
    }

    pub(super) fn start_command(&mut self, command: String, reply: oneshot::Sender<Result<Vec<u8>>>) {
        self.starting.push_back(Starting {
            purpose: Purpose::Command { stdout: Vec::new(), stderr: Vec::new(), reply: Some(reply) },
            request: "exec",
            argument: command,
            reply: None,
            channel: None,
        });
    }

    pub(super) fn close(&mut self, id: u64) {
        if let Some(channel) = self.open.iter_mut().find(|channel| channel.id == id) {
            channel.state = State::Closing;
        }
    }

    /// Does once what each channel wants; returns whether anything moved.
    pub(super) fn work(&mut self) -> Result<bool> {
        let mut moved = false;
        if let Some(step) = self.stuck.take() {
            moved |= matches!(self.perform(step)?, Progress::Moved);
        }
        for step in self.steps() {
            if self.stuck.is_some() {
                break;
            }
            moved |= matches!(self.perform(step)?, Progress::Moved);
        }
        Ok(moved)
    }

    /// Tells everybody that the connection is gone.
    pub(super) fn end(self, ended: &Ended) {
        let starting = self.starting.into_iter().map(|starting| (starting.purpose, starting.reply));
        let open = self.open.into_iter().map(|channel| (channel.purpose, None));
        for (purpose, reply) in starting.chain(open) {
            match (purpose, reply) {
                (_, Some(reply)) => drop(reply.send(Err(ended.reason()))),
                (Purpose::Stream(inbound), None) => inbound.closed(ended.reason()),
                (Purpose::Command { reply: Some(reply), .. }, _) => drop(reply.send(Err(ended.reason()))),
                (Purpose::Command { reply: None, .. }, _) => {}
            }
        }
    }

    /// Returns whether there is nothing to wait for.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.starting.is_empty()
    }

    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::with_capacity(2 * self.open.len() + 1);
        if !self.starting.is_empty() {
            steps.push(Step::Start);
        }
        for channel in &mut self.open {
            let id = channel.id;
            if let Purpose::Command { reply, .. } = &channel.purpose
                && reply.as_ref().is_some_and(oneshot::Sender::is_closed)
            {
                // Nobody waits for the command any more.
                channel.state = State::Closing;
            }
            match (channel.state, &channel.purpose) {
                (State::Closing, _) => steps.push(Step::Close(id)),
                (State::Ending, _) => steps.push(Step::AwaitEnd(id)),
                (State::Open, Purpose::Command { .. }) => steps.extend([Step::Read(id), Step::ReadStderr(id)]),
                (State::Open, Purpose::Stream(_)) => {
                    steps.push(Step::Read(id));
                    if channel.has_more_to_send() {
                        steps.push(Step::Write(id));
                    }
                }
            }
        }
        steps
    }

    fn perform(&mut self, step: Step) -> Result<Progress> {
        let result = match step {
            Step::Start => self.begin(),
            Step::Read(id) => self.read(id),
            Step::ReadStderr(id) => self.read_stderr(id),
            Step::Write(id) => self.write(id),
            Step::AwaitEnd(id) => self.await_end(id),
            Step::Close(id) => self.close_channel(id),
        };
        match result {
            Ok(progress) => Ok(progress),
            Err(error) if would_block(&error) => {
                if matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both) {
                    self.stuck = Some(step);
                }
                Ok(Progress::Waiting)
            }
            Err(error) => Err(failure(&error)),
        }
    }

    fn begin(&mut self) -> Result<Progress, ssh2::Error> {
        let Some(starting) = self.starting.front_mut() else { return Ok(Progress::Waiting) };
        let begun = match &mut starting.channel {
            None => self.session.channel_open("session", WINDOW, PACKET, None).map(|channel| {
                starting.channel = Some(channel);
            }),
            Some(channel) => channel.process_startup(starting.request, Some(&starting.argument)).map(|()| {
                starting.request = "";
            }),
        };
        match begun {
            Ok(()) if starting.request.is_empty() => {}
            Ok(()) => return Ok(Progress::Moved),
            Err(error) if would_block(&error) || is_broken(&error) => return Err(error),
            Err(error) => {
                // Refused: that is the caller's affair, the connection goes on.
                let Some(starting) = self.starting.pop_front() else { return Ok(Progress::Moved) };
                starting.refuse(failure(&error));
                return Ok(Progress::Moved);
            }
        }
        let Some(Starting { purpose, reply, channel: Some(mut channel), .. }) = self.starting.pop_front() else {
            return Ok(Progress::Moved);
        };
        let id = self.next_id;
        self.next_id += 1;
        let (sender, queue) = mpsc::channel(QUEUE);
        if matches!(purpose, Purpose::Stream(_)) {
            // Nobody reads it, and unread it would fill the window.
            channel.handle_extended_data(ExtendedData::Ignore)?;
        }
        let wanted = reply.is_none_or(|reply| reply.send(Ok((id, sender))).is_ok());
        let state = if wanted { State::Open } else { State::Closing };
        self.open.push(Channel { id, ssh: channel, purpose, queue, sending: Bytes::new(), state });
        Ok(Progress::Moved)
    }

    fn read(&mut self, id: u64) -> Result<Progress, ssh2::Error> {
        let Some(channel) = self.open.iter_mut().find(|channel| channel.id == id) else {
            return Ok(Progress::Waiting);
        };
        let length = read_from(&mut channel.ssh, &mut self.buffer, &self.session)?;
        if length == 0 {
            if !channel.ssh.eof() {
                return Ok(Progress::Waiting);
            }
            channel.ended();
            return Ok(Progress::Moved);
        }
        let bytes = &self.buffer[..length];
        match &mut channel.purpose {
            Purpose::Stream(inbound) => inbound.data(bytes),
            Purpose::Command { stdout, reply, .. } => {
                if !keep_up_to(stdout, bytes, EXEC_OUTPUT) {
                    if let Some(reply) = reply.take() {
                        let _ = reply.send(Err(Error::new(ErrorKind::Other, "the command says more than 1 MiB")));
                    }
                    channel.state = State::Closing;
                }
            }
        }
        Ok(Progress::Moved)
    }

    fn read_stderr(&mut self, id: u64) -> Result<Progress, ssh2::Error> {
        let Some(channel) = self.open.iter_mut().find(|channel| channel.id == id) else {
            return Ok(Progress::Waiting);
        };
        let Purpose::Command { stderr, .. } = &mut channel.purpose else { return Ok(Progress::Waiting) };
        let length = read_from(&mut channel.ssh.stderr(), &mut self.buffer, &self.session)?;
        keep_up_to(stderr, &self.buffer[..length], EXEC_STDERR);
        Ok(if length == 0 { Progress::Waiting } else { Progress::Moved })
    }

    fn write(&mut self, id: u64) -> Result<Progress, ssh2::Error> {
        let Some(channel) = self.open.iter_mut().find(|channel| channel.id == id) else {
            return Ok(Progress::Waiting);
        };
        let length = channel.ssh.write(&channel.sending).map_err(|e| as_ssh(&e, &self.session))?;
        channel.sending.advance(length);
        Ok(Progress::Moved)
    }

    fn await_end(&mut self, id: u64) -> Result<Progress, ssh2::Error> {
        let Some(channel) = self.open.iter_mut().find(|channel| channel.id == id) else {
            return Ok(Progress::Waiting);
        };
        channel.ssh.wait_close()?;
        let signalled = channel.ssh.exit_signal().is_ok_and(|signal| signal.exit_signal.is_some());
        let status = channel.ssh.exit_status().ok().filter(|_| !signalled);
        if let Purpose::Command { stdout, stderr, reply } = &mut channel.purpose
            && let Some(reply) = reply.take()
        {
            let status = status.and_then(|status| u32::try_from(status).ok());
            let _ = reply.send(exec_result(status, std::mem::take(stdout), stderr));
        }
        channel.state = State::Closing;
        Ok(Progress::Moved)
    }

    fn close_channel(&mut self, id: u64) -> Result<Progress, ssh2::Error> {
        if let Some(channel) = self.open.iter_mut().find(|channel| channel.id == id) {
            match channel.ssh.close() {
                Err(error) if would_block(&error) || is_broken(&error) => return Err(error),
                _ => self.open.retain(|channel| channel.id != id),
            }
        }
        Ok(Progress::Moved)
    }
}

impl Starting {
    fn refuse(self, error: Error) {
        match (self.reply, self.purpose) {
            (Some(reply), _) => drop(reply.send(Err(error))),
            (None, Purpose::Command { reply: Some(reply), .. }) => drop(reply.send(Err(error))),
            _ => {}
        }
    }
}

impl Channel {
    fn has_more_to_send(&mut self) -> bool {
        while self.sending.is_empty() {
            match self.queue.try_recv() {
                Ok(next) => self.sending = next,
                Err(_) => return false,
            }
        }
        true
    }

    fn ended(&mut self) {
        match &self.purpose {
            Purpose::Stream(inbound) => {
                inbound.closed(Error::new(ErrorKind::ConnectionLost, "the server ended the subsystem"));
                self.queue.close();
                self.state = State::Closing;
            }
            Purpose::Command { .. } => self.state = State::Ending,
        }
    }
}

fn read_from(stream: &mut impl Read, buffer: &mut [u8], session: &ssh2::Session) -> Result<usize, ssh2::Error> {
    stream.read(buffer).map_err(|e| as_ssh(&e, session))
}

/// The `Read` and `Write` of ssh2 hide libssh2's number in an I/O error.
fn as_ssh(error: &io::Error, session: &ssh2::Session) -> ssh2::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return ssh2::Error::new(ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_EAGAIN), "would block");
    }
    ssh2::Error::last_session_error(session).unwrap_or_else(|| {
        ssh2::Error::new(ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_SOCKET_RECV), "reading or writing failed")
    })
}

fn would_block(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_EAGAIN)
}

/// Returns whether the whole connection is gone, not one request refused.
fn is_broken(error: &ssh2::Error) -> bool {
    failure(error).kind() == ErrorKind::ConnectionLost
}

//! One SFTP channel: the multiplexer between the engine, which feeds it, and the task that sends and keeps time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::mux::{Answer, Mux};
use super::request::Request;
use super::wire::Hello;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::ssh::{Inbound, Outbound};

/// Bytes that may wait to be sent before a writer has to wait.
const OUTPUT_LIMIT: usize = 1 << 20;
/// How much longer than others a request may take that works on a whole file without a sign of life.
pub(super) const SLOW_FACTOR: u32 = 10;

/// What the engine's side, the driving task and the callers share.
#[derive(Debug)]
pub(super) struct Channel {
    state: Mutex<State>,
    /// There is something to send.
    output: Notify,
    /// There is room for more to send.
    room: Notify,
    /// The channel has ended.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    mux: Mux,
    ended: Option<Arc<Error>>,
}

impl Channel {
    /// Makes one that greets; the server's VERSION comes through the receiver.
    pub(super) fn new(hello: &Hello) -> (Arc<Self>, oneshot::Receiver<Hello>) {
        let (mux, version) = Mux::new(hello, Instant::now());
        let channel = Self {
            state: Mutex::new(State { mux, ended: None }),
            output: Notify::new(),
            room: Notify::new(),
            ended: Notify::new(),
        };
        (Arc::new(channel), version)
    }

    /// Queues a request; see [`Mux::request`].
    pub(super) fn request(&self, request: Request, slot: Option<OwnedSemaphorePermit>) -> oneshot::Receiver<Answer> {
        let mut state = self.state();
        if state.ended.is_some() {
            return oneshot::channel().1;
        }
        let answer = state.mux.request(request, slot, Instant::now());
        drop(state);
        self.output.notify_one();
        answer
    }

    /// Waits while too many bytes wait to be sent.
    pub(super) async fn room(&self) -> Result<()> {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if !self.is_alive() {
                return Err(self.reason());
            }
            if self.state().mux.queued() < OUTPUT_LIMIT {
                return Ok(());
            }
            room.await;
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.state().ended.is_none()
    }

    /// Returns the shortest time that an answer took lately.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.state().mux.flow().round_trip()
    }

    /// Returns how many bytes of files may be under way.
    pub(super) fn window(&self) -> usize {
        self.state().mux.flow().window()
    }

    /// A thread that panicked can't have left the state half-changed in a way that matters: the channel ends.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the channel; the first reason stays.
    pub(super) fn end(&self, reason: Error) {
        let mut state = self.state();
        if state.ended.is_none() {
            tracing::debug!("SFTP channel ended: {}", reason.chain());
            state.ended = Some(Arc::new(reason));
            state.mux.end();
        }
        drop(state);
        self.ended.notify_one();
        self.room.notify_waiters();
    }

    /// Returns why the channel ended, as an error of its own for each who asks.
    pub(super) fn reason(&self) -> Error {
        let Some(reason) = self.state().ended.clone() else {
            return Error::new(ErrorKind::ConnectionLost, "the SFTP channel dropped a request");
        };
        let error = Error::new(reason.kind(), reason.message());
        match reason.hint() {
            Some(hint) => error.with_hint(hint).with_source(reason),
            None => error.with_source(reason),
        }
    }
}

impl Inbound for Channel {
    fn data(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        let result = state.mux.feed(bytes, Instant::now());
        let (more, greeted) = (state.mux.queued() > 0, state.mux.is_greeted());
        drop(state);
        match result {
            Err(error) if greeted => self.end(error),
            Err(error) => self
                .end(error.with_hint(
                    "a start-up file of the login shell may print text: `ssh HOST true` must print nothing",
                )),
            Ok(()) if more => self.output.notify_one(),
            Ok(()) => {}
        }
    }

    fn closed(&self, reason: Error) {
        let awaited = {
            let state = self.state();
            (reason.kind() == ErrorKind::Timeout && !state.mux.is_idle()).then(|| state.mux.awaited())
        };
        self.end(match awaited {
            Some(awaited) => reason.context(awaited),
            None => reason,
        });
    }
}

/// Sends what is queued, and ends the channel when it breaks or goes silent.
pub(super) async fn drive(channel: Arc<Channel>, outbound: Box<dyn Outbound>, timeout: Duration) {
    let reason = tokio::select! {
        reason = send(&channel, &*outbound) => reason,
        reason = watch(&channel, timeout) => reason,
        () = channel.ended.notified() => return,
    };
    channel.end(reason);
}

async fn send(channel: &Channel, outbound: &dyn Outbound) -> Error {
    loop {
        let next = channel.state().mux.take_output();
        let Some(bytes) = next else {
            channel.output.notified().await;
            continue;
        };
        channel.room.notify_waiters();
        if let Err(error) = outbound.send(bytes).await {
            return error;
        }
        channel.state().mux.note_progress(Instant::now());
    }
}

/// Waits until an answer is due and nothing has arrived or gone out for `timeout`.
async fn watch(channel: &Channel, timeout: Duration) -> Error {
    loop {
        let (progress, idle, patience) = {
            let state = channel.state();
            let patience = if state.mux.may_be_silent() { timeout.saturating_mul(SLOW_FACTOR) } else { timeout };
            (state.mux.progress(), state.mux.is_idle(), patience)
        };
        let left = patience.saturating_sub(progress.elapsed());
        if left.is_zero() && !idle {
            let awaited = channel.state().mux.awaited();
            let message = format!("{awaited}: no sign of life from the server for {} s", patience.as_secs_f32());
            return Error::new(ErrorKind::Timeout, message);
        }
        let wait = if idle { timeout } else { left };
        // Never longer than the timeout: the request that makes the patience long may be answered meanwhile.
        tokio::time::sleep(wait.min(timeout)).await;
    }
}

//! The client: what a channel offers, the calls on it, and the files open through it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::channel::{self, Channel};
use super::fields::broken;
use super::mux::Answer;
use super::request::{Extended, Request};
use super::response::{Limits, Name, Response};
use super::status;
use super::wire::{Attrs, Handle, Hello, VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::ssh::{Inbound, Session};

/// Bytes of a READ or WRITE where the server doesn't tell: what every server takes.
const DEFAULT_LENGTH: u32 = 32 * 1024;
/// The longest READ or WRITE; OpenSSH's limit.
const MAX_LENGTH: u32 = 255 * 1024;
/// Handles open at once where the server doesn't tell.
const DEFAULT_HANDLES: usize = 64;
/// Handles open at once before the server has told.
const FIRST_HANDLES: usize = 32;
/// The most handles open at once.
const MAX_HANDLES: usize = 256;

/// An SFTP channel; clones share it. It ends when the last clone and the last file are dropped.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    channel: Arc<Channel>,
    session: Arc<dyn Session>,
    extensions: HashMap<Bytes, Bytes>,
    limits: Mutex<ServerLimits>,
    handles: Arc<Semaphore>,
    /// Bytes of files asked for or sent, and not yet taken or confirmed.
    under_way: AtomicUsize,
    claims: Arc<()>,
    timeout: Duration,
}

/// What the server takes at most: at first what is safe to think, then what it says.
#[derive(Debug)]
struct ServerLimits {
    asked: Option<oneshot::Receiver<Answer>>,
    read: u32,
    write: u32,
    handles: usize,
    /// How many slots for handles there are, in use or not.
    slots: usize,
}

/// A client that lives only as long as others use it.
#[derive(Debug)]
pub(super) struct WeakClient(Weak<Inner>);

impl WeakClient {
    pub(super) fn upgrade(&self) -> Option<Client> {
        self.0.upgrade().map(Client)
    }
}

/// Counts as a stream of its client while it lives.
#[derive(Debug)]
pub(super) struct Claim {
    _counted: Arc<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.channel.end(Error::new(ErrorKind::ConnectionLost, "the SFTP channel was closed"));
    }
}

impl Client {
    /// Starts the SFTP subsystem on a new channel of `session`; `timeout` is the longest wait without a sign of life.
    ///
    /// # Errors
    /// Those of the engine; `Timeout`; `Protocol`; `Unsupported` when the server speaks only an older version.
    pub async fn start(session: Arc<dyn Session>, timeout: Duration) -> Result<Self> {
        let hello = Hello { version: VERSION, extensions: Vec::new() };
        let (channel, version) = Channel::new(&hello);
        let inbound = Arc::clone(&channel) as Arc<dyn Inbound>;
        let outbound = tokio::time::timeout(timeout, session.subsystem("sftp", inbound))
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, "the server didn't start its SFTP subsystem in time"))??;
        tokio::spawn(channel::drive(Arc::clone(&channel), outbound, timeout));
        let version = version.await.map_err(|_| channel.reason().context("start SFTP"))?;
        if version.version < VERSION {
            channel.end(Error::new(ErrorKind::Unsupported, "SFTP is too old"));
            let message = format!("the server speaks SFTP version {}; haul needs 3", version.version);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let extensions: HashMap<_, _> = version.extensions.into_iter().collect();
        let limits = ServerLimits::ask(&channel, extensions.contains_key(&b"limits@openssh.com"[..]));
        Ok(Self(Arc::new(Inner {
            channel,
            session,
            extensions,
            handles: Arc::new(Semaphore::new(limits.handles)),
            limits: Mutex::new(limits),
            under_way: AtomicUsize::new(0),
            claims: Arc::new(()),
            timeout,
        })))
    }

    /// Returns the SSH connection that carries the channel.
    pub fn session(&self) -> &Arc<dyn Session> {
        &self.0.session
    }

    /// Returns whether the server offers an extension.
    pub fn offers(&self, extension: &str) -> bool {
        self.0.extensions.contains_key(extension.as_bytes())
    }

    /// Returns whether the channel still works, as far as is known.
    pub fn is_alive(&self) -> bool {
        self.0.channel.is_alive()
    }

    /// Returns how many files and directories may be open at once.
    pub fn handle_limit(&self) -> usize {
        self.0.limits().handles
    }

    /// Ends the channel: everything under way fails.
    pub fn end(&self) {
        self.0.channel.end(Error::new(ErrorKind::ConnectionLost, "the connection was closed"));
    }

    pub(super) fn downgrade(&self) -> WeakClient {
        WeakClient(Arc::downgrade(&self.0))
    }

    /// Counts one stream more.
    pub(super) fn claim(&self) -> Claim {
        Claim { _counted: Arc::clone(&self.0.claims) }
    }

    /// Returns how many streams there are.
    pub(super) fn load(&self) -> usize {
        Arc::strong_count(&self.0.claims) - 1
    }

    pub(super) fn read_length(&self) -> u32 {
        self.0.limits().read
    }

    pub(super) fn write_length(&self) -> u32 {
        self.0.limits().write
    }

    pub(super) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Returns the shortest time that an answer took lately.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.0.channel.round_trip()
    }

    /// Takes `length` bytes of what all streams of this channel together may have under way; whether there were as many
    /// left.
    pub(super) fn take_window(&self, length: usize) -> bool {
        let window = self.0.channel.window();
        let take = |taken: usize| taken.checked_add(length).filter(|taken| *taken <= window);
        self.0.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Takes `length` bytes even if there are not as many left.
    pub(super) fn overdraw_window(&self, length: usize) {
        self.0.under_way.fetch_add(length, Ordering::Relaxed);
    }

    pub(super) fn return_window(&self, length: usize) {
        self.0.under_way.fetch_sub(length, Ordering::Relaxed);
    }

    /// Queues a request; its answer can be waited for later.
    pub(super) fn request(&self, request: Request) -> Pending {
        self.request_with(request, None)
    }

    /// Waits while too many bytes wait to be sent.
    pub(super) async fn room(&self) -> Result<()> {
        self.0.channel.room().await
    }

    /// Opens a file or directory by OPEN or OPENDIR; waits while as many are open as the server allows.
    pub(super) async fn open(&self, request: Request, what: &str) -> Result<File> {
        let slot = tokio::time::timeout(self.0.timeout, Arc::clone(&self.0.handles).acquire_owned())
            .await
            .map_err(|_| Error::new(ErrorKind::Busy, format!("{what}: too many files are open at once")))?
            .map_err(|_| self.0.channel.reason())?;
        let answer = self.request_with(request, Some(slot)).answer().await?;
        match answer.response {
            Response::Handle(handle) => Ok(File { client: self.clone(), handle, slot: answer.slot }),
            other => Err(unwanted(&other, what)),
        }
    }

    pub(super) async fn status(&self, request: Request, what: &str) -> Result<()> {
        self.request(request).status(what).await
    }

    pub(super) async fn attrs(&self, request: Request, what: &str) -> Result<Attrs> {
        match self.request(request).answer().await?.response {
            Response::Attrs(attrs) => Ok(attrs),
            other => Err(unwanted(&other, what)),
        }
    }

    /// Asks for the one name that REALPATH and READLINK answer.
    pub(super) async fn name(&self, request: Request, what: &str) -> Result<Bytes> {
        match self.request(request).answer().await?.response {
            Response::Names(names) if names.len() == 1 => {
                Ok(names.into_iter().map(|Name { name, .. }| name).next().unwrap_or_default())
            }
            other => Err(unwanted(&other, what)),
        }
    }

    pub(super) async fn extended(&self, extended: Extended, what: &str) -> Result<Bytes> {
        match self.request(Request::Extended(extended)).answer().await?.response {
            Response::Extended(data) => Ok(data),
            other => Err(unwanted(&other, what)),
        }
    }

    fn request_with(&self, request: Request, slot: Option<OwnedSemaphorePermit>) -> Pending {
        let answer = self.0.channel.request(request, slot);
        Pending { client: self.clone(), answer }
    }
}

impl Inner {
    /// Returns the limits as far as they are known. Servers answer in order: who has opened a file knows them.
    fn limits(&self) -> MutexGuard<'_, ServerLimits> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.learn();
        if limits.slots < limits.handles {
            self.handles.add_permits(limits.handles - limits.slots);
            limits.slots = limits.handles;
        } else {
            // Those in use are taken away as they come back.
            limits.slots -= self.handles.forget_permits(limits.slots - limits.handles);
        }
        limits
    }
}

impl ServerLimits {
    /// Asks without waiting for the answer, where the server has one.
    fn ask(channel: &Channel, offered: bool) -> Self {
        let asked = offered.then(|| channel.request(Request::Extended(Extended::Limits), None));
        // A READ that is too long gets a short answer; a WRITE fails.
        let read = if offered { MAX_LENGTH } else { DEFAULT_LENGTH };
        let handles = if offered { FIRST_HANDLES } else { DEFAULT_HANDLES };
        Self { asked, read, write: DEFAULT_LENGTH, handles, slots: handles }
    }

    fn learn(&mut self) {
        let Some(asked) = &mut self.asked else { return };
        let Ok(answer) = asked.try_recv() else { return };
        self.asked = None;
        let Response::Extended(data) = answer.response else { return self.unknown() };
        let Ok(limits) = Limits::decode(data) else { return self.unknown() };
        let length = |limit: u64| match u32::try_from(limit).unwrap_or(u32::MAX) {
            0 => MAX_LENGTH,
            limit => limit.min(MAX_LENGTH),
        };
        (self.read, self.write) = (length(limits.read), length(limits.write));
        self.handles = match usize::try_from(limits.handles).unwrap_or(usize::MAX) {
            0 => DEFAULT_HANDLES,
            limit => limit.min(MAX_HANDLES),
        };
    }

    fn unknown(&mut self) {
        (self.read, self.handles) = (DEFAULT_LENGTH, DEFAULT_HANDLES);
    }
}

/// An answer that is due.
#[derive(Debug)]
pub(super) struct Pending {
    client: Client,
    answer: oneshot::Receiver<Answer>,
}

impl Pending {
    /// Waits for the answer; dropped before that, it can be called again.
    pub(super) async fn answer(&mut self) -> Result<Answer> {
        (&mut self.answer).await.map_err(|_| self.client.0.channel.reason())
    }

    /// Returns the answer if it is there.
    pub(super) fn try_answer(&mut self) -> Result<Option<Answer>> {
        match self.answer.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(oneshot::error::TryRecvError::Empty) => Ok(None),
            Err(oneshot::error::TryRecvError::Closed) => Err(self.client.0.channel.reason()),
        }
    }

    pub(super) async fn status(mut self, what: &str) -> Result<()> {
        match self.answer().await?.response {
            Response::Status(status) => status::check(&status, what),
            other => Err(unwanted(&other, what)),
        }
    }
}

impl Drop for Pending {
    /// Closes the handle that nobody took.
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(Answer { response: Response::Handle(handle), slot, .. }) = self.answer.try_recv() {
            drop(self.client.request_with(Request::Close(handle), slot));
        }
    }
}

/// An open file or directory; closed in the background when dropped.
#[derive(Debug)]
pub(super) struct File {
    pub(super) client: Client,
    handle: Handle,
    slot: Option<OwnedSemaphorePermit>,
}

impl File {
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Queues CLOSE behind everything that was asked before; the file is of no use any more.
    pub(super) fn send_close(&mut self) -> Pending {
        let handle = std::mem::take(&mut self.handle);
        self.client.request_with(Request::Close(handle), self.slot.take())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.handle.is_empty() {
            drop(self.send_close());
        }
    }
}

/// Makes an error of an answer that isn't the one hoped for.
pub(super) fn unwanted(response: &Response, what: &str) -> Error {
    match response {
        Response::Status(status) => status::error(status, what),
        _ => broken(format!("{what}: an answer that doesn't fit the request")),
    }
}

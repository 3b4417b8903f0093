//! One SFTP session: packets in, requests sorted into lanes, answers out.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::attrs::{attrs_of, failed, ok};
use super::handles::{Handle, Handles, MAX_HANDLES, Open};
use super::lanes::{Job, Lane, MAX_COST, Shared};
use super::requests::{self, MAX_NAMES, MAX_READ, status};
use crate::error::{Error, ErrorKind, Result};
use crate::serve::root::Root;
use crate::transport::sftp::wire::{
    Extended, Frames, Hello, Limits, MAX_PACKET, Packet, Request, Response, StatusCode, VERSION,
};
use crate::transport::{RemotePath, Replace};

/// Requests that may wait; no honest client comes near.
const MAX_QUEUED: usize = 64 * 1024;
/// Bytes of WRITEs that may wait for the disk.
const MAX_HELD: u64 = 64 << 20;
/// The longest wait for the disk to take some of them.
const PATIENCE: Duration = Duration::from_secs(60);
/// Small answers are sent together up to this size.
const TOGETHER: usize = 32 * 1024;

/// An answer, with the room it takes until it is sent.
pub(super) type Answer = (Bytes, Option<OwnedSemaphorePermit>);

/// The session of one channel.
pub(super) struct Sftp {
    frames: Frames,
    greeted: bool,
    root: Root,
    shared: Arc<Shared>,
    handles: Arc<Handles>,
    paths: Arc<Lane>,
    answers: mpsc::UnboundedSender<Answer>,
}

impl Sftp {
    /// Makes a session; its answers come out of the receiver.
    pub(super) fn new(root: Root) -> (Self, mpsc::UnboundedReceiver<Answer>) {
        let shared = Arc::new(Shared::new());
        let (answers, outgoing) = mpsc::unbounded_channel();
        let session = Self {
            frames: Frames::new(MAX_PACKET),
            greeted: false,
            root,
            handles: Arc::new(Handles::new(Arc::clone(&shared))),
            paths: Lane::new(Arc::clone(&shared)),
            shared,
            answers,
        };
        (session, outgoing)
    }

    /// Takes bytes from the client. Waits only while the disk is too slow for what is written.
    ///
    /// # Errors
    /// When the client breaks the protocol or asks for too much at once; the channel is of no use any more.
    pub(super) async fn feed(&mut self, mut data: &[u8]) -> Result<()> {
        while let Some(packet) = self.frames.next(&mut data)? {
            self.take(packet)?;
        }
        let (queued, held) = self.shared.load();
        if queued > MAX_QUEUED {
            return Err(Error::new(ErrorKind::Protocol, "too many requests at once"));
        }
        if held > MAX_HELD {
            let wait = self.shared.until_held_below(MAX_HELD);
            let late = |_| Error::new(ErrorKind::Timeout, "the disk takes nothing");
            tokio::time::timeout(PATIENCE, wait).await.map_err(late)?;
        }
        Ok(())
    }

    fn take(&mut self, packet: Packet) -> Result<()> {
        if !self.greeted {
            Hello::decode_init(packet)?;
            self.greeted = true;
            let _ = self.answers.send((hello().encode_version().into_bytes(), None));
            return Ok(());
        }
        let (id, request) = Request::decode(packet)?;
        self.sort(id, request);
        Ok(())
    }

    /// Puts a request into its lane.
    fn sort(&self, id: u32, request: Request) {
        match request {
            Request::Close(handle) => match self.handles.take(&handle) {
                Some(handle) => self.in_file(id, handle, Kind::Change, |_| Ok(ok())),
                None => self.answer(id, no_handle()),
            },
            Request::Read(handle, offset, length) => self.read(id, &handle, offset, length),
            Request::Write(handle, offset, data) => {
                let kind = Kind::Write(data.len() as u64);
                let root = self.root.clone();
                self.with_file(id, &handle, kind, move |open| {
                    Ok(status(open.file().and_then(|file| requests::write(root.limit(), file, offset, &data))))
                });
            }
            Request::Fstat(handle) => self.with_file(id, &handle, Kind::Look, |open| match open {
                Open::File(file) => requests::stat_open(&file.file).map(Response::Attrs),
                Open::Directory(listing) => {
                    let listing = listing.lock().unwrap_or_else(PoisonError::into_inner);
                    Ok(Response::Attrs(attrs_of(&listing.0.metadata()?)))
                }
            }),
            Request::Fsetstat(handle, attrs) => {
                let root = self.root.clone();
                self.with_file(id, &handle, Kind::Change, move |open| {
                    Ok(status(requests::set_open(&root, &open.file()?.file, &attrs)))
                });
            }
            Request::Readdir(handle) => self.with_file(id, &handle, Kind::Names, |open| match open {
                Open::File(_) => Err(io::ErrorKind::NotADirectory.into()),
                Open::Directory(listing) => {
                    let mut listing = listing.lock().unwrap_or_else(PoisonError::into_inner);
                    let (listing, left_over) = &mut *listing;
                    requests::read_dir(listing, left_over)
                }
            }),
            Request::Extended(extended) => self.sort_extended(id, extended),
            Request::Unknown(_) => self.answer(id, unsupported()),
            on_path => self.sort_path(id, on_path),
        }
    }

    fn sort_path(&self, id: u32, request: Request) {
        let handles = Arc::clone(&self.handles);
        match request {
            Request::Open(path, flags, attrs) => {
                self.with_path(id, &path, Kind::Act, move |root, path| {
                    Ok(requests::open(root, &handles, path, flags, attrs))
                });
            }
            Request::Opendir(path) => {
                self.with_path(id, &path, Kind::Act, move |root, path| Ok(requests::open_dir(root, &handles, path)));
            }
            Request::Stat(path) => {
                self.with_path(id, &path, Kind::Look, |root, path| {
                    Ok(Response::Attrs(attrs_of(&root.metadata(path)?)))
                });
            }
            Request::Lstat(path) => self.with_path(id, &path, Kind::Look, |root, path| {
                Ok(Response::Attrs(attrs_of(&root.link_metadata(path)?)))
            }),
            Request::Setstat(path, attrs) => self
                .with_path(id, &path, Kind::Look, move |root, path| Ok(status(requests::set_path(root, path, &attrs)))),
            Request::Remove(path) => {
                self.with_path(id, &path, Kind::Act, |root, path| Ok(status(root.remove_file(path))));
            }
            Request::Rmdir(path) => {
                self.with_path(id, &path, Kind::Act, |root, path| Ok(status(root.remove_dir(path))));
            }
            Request::Mkdir(path, attrs) => self.with_path(id, &path, Kind::Act, move |root, path| {
                Ok(status(root.create_dir(path, attrs.permissions)))
            }),
            Request::Realpath(path) => self.with_path(id, &path, Kind::Act, |_, path| {
                Ok(requests::one_name(Bytes::copy_from_slice(path.as_bytes())))
            }),
            Request::Readlink(path) => {
                self.with_path(id, &path, Kind::Act, |root, path| Ok(requests::one_name(root.read_link(path)?)));
            }
            Request::Rename(from, to) => {
                self.with_paths(id, &from, &to, |root, from, to| requests::rename(root, from, to, Replace::No));
            }
            // OpenSSH's order, which clients follow: the target first.
            Request::Symlink(target, path) => {
                self.with_path(id, &path, Kind::Act, move |root, path| Ok(status(root.symlink(&target, path))));
            }
            _ => self.answer(id, unsupported()),
        }
    }

    fn sort_extended(&self, id: u32, request: Extended) {
        match request {
            Extended::PosixRename(from, to) => {
                self.with_paths(id, &from, &to, |root, from, to| requests::rename(root, from, to, Replace::Yes));
            }
            Extended::Hardlink(from, to) => {
                self.with_paths(id, &from, &to, |root, from, to| status(root.hard_link(from, to)));
            }
            Extended::Fsync(handle) => self.with_file(id, &handle, Kind::Look, |open| {
                Ok(status(match open {
                    Open::File(file) => file.file.sync_all(),
                    Open::Directory(listing) => listing.lock().unwrap_or_else(PoisonError::into_inner).0.sync(),
                }))
            }),
            Extended::StatVfs(path) => {
                self.with_path(id, &path, Kind::Act, |root, path| Ok(requests::file_system(&root.statvfs(path)?)));
            }
            Extended::FstatVfs(handle) => self.with_file(id, &handle, Kind::Look, |open| {
                Ok(requests::file_system(&rustix::fs::fstatvfs(&open.file()?.file)?))
            }),
            Extended::Lsetstat(path, attrs) => self
                .with_path(id, &path, Kind::Look, move |root, path| Ok(status(requests::set_link(root, path, &attrs)))),
            Extended::Limits => {
                let (packet, data) = (MAX_PACKET as u64, u64::from(MAX_READ));
                let limits = Limits { packet, read: data, write: data, handles: MAX_HANDLES as u64 };
                self.answer(id, Response::Extended(limits.encode()));
            }
            Extended::ExpandPath(path) => {
                // Home is the root here.
                let path = path.strip_prefix(b"~").filter(|rest| rest.is_empty() || rest[0] == b'/').unwrap_or(&path);
                match RemotePath::root().resolve(path) {
                    Ok(path) => self.answer(id, requests::one_name(Bytes::copy_from_slice(path.as_bytes()))),
                    Err(_) => self.answer(id, bad_path()),
                }
            }
            Extended::CopyData(copy) => match self.handles.get(&copy.from) {
                Some(from) => {
                    let to = copy.to.clone();
                    let root = self.root.clone();
                    self.with_file(id, &to, Kind::ChangeAfter, move |open| {
                        let same = copy.from == copy.to;
                        let (from, to) = (from.open.file()?, open.file()?);
                        Ok(status(requests::copy_data(root.limit(), from, to, &copy, same)))
                    });
                }
                None => self.answer(id, no_handle()),
            },
            Extended::CheckFileHandle(check) => {
                let handle = check.file.clone();
                self.with_file(id, &handle, Kind::Look, move |open| requests::check_file(&open.file()?.file, &check));
            }
            // Reading a large file takes its time: it gets a lane of its own.
            Extended::CheckFileName(check) => match RemotePath::root().resolve(&check.file) {
                Ok(path) => {
                    let root = self.root.clone();
                    let run = move || requests::check_file(&root.open_read(&path)?, &check);
                    self.push(&Lane::new(Arc::clone(&self.shared)), id, Kind::LookAfter, run);
                }
                Err(_) => self.answer(id, bad_path()),
            },
            Extended::Unknown(..) => self.answer(id, unsupported()),
        }
    }

    fn read(&self, id: u32, handle: &[u8], offset: u64, length: u32) {
        let Some(handle) = self.handles.get(handle) else { return self.answer(id, no_handle()) };
        let (lane, answers) = (Arc::clone(&handle.lane), self.answers.clone());
        let cost = length.min(MAX_READ) + 64;
        let run = Box::new(move |permit| {
            // Nobody is there any more who could want it.
            if answers.is_closed() {
                return;
            }
            let packet = handle.open.file().and_then(|file| requests::read(file, id, offset, length));
            let packet = packet.unwrap_or_else(|error| failed(&error).encode(id).into_bytes());
            let _ = answers.send((packet, permit));
        });
        lane.push(Job { run, cost: cost.min(MAX_COST), change: None, after: None, held: 0 });
    }

    fn with_file(
        &self,
        id: u32,
        handle: &[u8],
        kind: Kind,
        run: impl FnOnce(&Open) -> io::Result<Response> + Send + 'static,
    ) {
        match self.handles.get(handle) {
            Some(handle) => self.in_file(id, handle, kind, run),
            None => self.answer(id, no_handle()),
        }
    }

    fn in_file(
        &self,
        id: u32,
        handle: Arc<Handle>,
        kind: Kind,
        run: impl FnOnce(&Open) -> io::Result<Response> + Send + 'static,
    ) {
        let lane = Arc::clone(&handle.lane);
        self.push(&lane, id, kind, move || run(&handle.open));
    }

    fn with_path(
        &self,
        id: u32,
        path: &[u8],
        kind: Kind,
        run: impl FnOnce(&Root, &RemotePath) -> io::Result<Response> + Send + 'static,
    ) {
        let Ok(path) = RemotePath::root().resolve(path) else { return self.answer(id, bad_path()) };
        let root = self.root.clone();
        let kind = if kind == Kind::Look { Kind::LookAfter } else { kind };
        self.push(&self.paths, id, kind, move || run(&root, &path));
    }

    fn with_paths(
        &self,
        id: u32,
        from: &[u8],
        to: &[u8],
        run: impl FnOnce(&Root, &RemotePath, &RemotePath) -> Response + Send + 'static,
    ) {
        let Ok(to) = RemotePath::root().resolve(to) else { return self.answer(id, bad_path()) };
        self.with_path(id, from, Kind::Act, move |root, from| Ok(run(root, from, &to)));
    }

    fn push(&self, lane: &Arc<Lane>, id: u32, kind: Kind, run: impl FnOnce() -> io::Result<Response> + Send + 'static) {
        let answers = self.answers.clone();
        let run = Box::new(move |permit| {
            let response = run().unwrap_or_else(|error| failed(&error));
            let _ = answers.send((response.encode(id).into_bytes(), permit));
        });
        let after = matches!(kind, Kind::LookAfter | Kind::ChangeAfter).then(|| self.shared.changes_so_far());
        let changes = matches!(kind, Kind::Change | Kind::ChangeAfter | Kind::Write(_));
        let change = changes.then(|| self.shared.announce_change());
        let held = if let Kind::Write(bytes) = kind { bytes } else { 0 };
        let cost = if kind == Kind::Names { MAX_NAMES as u32 } else { 0 };
        lane.push(Job { run, cost, change, after, held });
    }

    fn answer(&self, id: u32, response: Response) {
        let _ = self.answers.send((response.encode(id).into_bytes(), None));
    }
}

/// What a request means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Act,
    /// It looks at what an open file holds, behind what its lane did before.
    Look,
    /// It looks at what all open files hold.
    LookAfter,
    /// It changes an open file.
    Change,
    /// It looks, then changes.
    ChangeAfter,
    /// It changes an open file, and holds so many bytes until then.
    Write(u64),
    /// It answers with names.
    Names,
}

/// Puts small answers together into one piece; what is large goes as it is.
pub(super) fn gather(first: Answer, outgoing: &mut mpsc::UnboundedReceiver<Answer>) -> Vec<Answer> {
    let mut out = Vec::new();
    let mut small = BytesMut::new();
    let mut next = Some(first);
    while let Some((bytes, permit)) = next.take() {
        if bytes.len() >= TOGETHER / 2 {
            if !small.is_empty() {
                out.push((small.split().freeze(), None));
            }
            out.push((bytes, permit));
            break;
        }
        // The room is given back a little early: these are small.
        small.extend_from_slice(&bytes);
        if small.len() < TOGETHER {
            next = outgoing.try_recv().ok();
        }
    }
    if !small.is_empty() {
        out.push((small.freeze(), None));
    }
    out
}

fn hello() -> Hello {
    const EXTENSIONS: [(&str, &str); 10] = [
        ("posix-rename@openssh.com", "1"),
        ("statvfs@openssh.com", "2"),
        ("fstatvfs@openssh.com", "2"),
        ("hardlink@openssh.com", "1"),
        ("fsync@openssh.com", "1"),
        ("lsetstat@openssh.com", "1"),
        ("limits@openssh.com", "1"),
        ("expand-path@openssh.com", "1"),
        ("copy-data", "1"),
        ("check-file", "sha512,sha256,sha1,md5,crc32"),
    ];
    let extensions = EXTENSIONS.map(|(name, data)| (Bytes::from_static(name.as_bytes()), data.into())).into();
    Hello { version: VERSION, extensions }
}

fn no_handle() -> Response {
    Response::status(StatusCode::FAILURE, "No such handle")
}

fn bad_path() -> Response {
    Response::status(StatusCode::BAD_MESSAGE, "A path can't hold NUL")
}

fn unsupported() -> Response {
    Response::status(StatusCode::OP_UNSUPPORTED, "Not supported")
}

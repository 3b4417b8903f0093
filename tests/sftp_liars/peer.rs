//! The scripted peer: an SFTP server with files in memory that behaves, except where a test tells it not to.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use haul::transport::sftp::wire::{
    Attrs, CheckedFile, Extended, Frames, Hello, MAX_PACKET, OpenFlags, Packet, Request, Response, StatusCode, VERSION,
};
use russh::keys::{PublicKeyBase64, load_secret_key};
use russh::server::{self, Auth, Session};
use russh::{ChannelId, Disconnect, MethodKind, MethodSet};
use sha2::Digest;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// What the peer does about one request.
pub(crate) enum Act {
    Say(Response),
    /// Says this once so many answers are held, or another request comes, the latest first.
    Hold(Response, usize),
    /// Says this and hangs up.
    SayAndPart(Response),
    /// Says nothing.
    Silence,
}

/// A request that the liar may answer in its own way.
pub(crate) struct Said<'a> {
    pub(crate) files: &'a Files,
    pub(crate) request: &'a Request,
    pub(crate) verb: &'static str,
    /// How often the verb was said before.
    pub(crate) before: usize,
}

impl Said<'_> {
    /// Whether this is the first of these.
    pub(crate) fn first(&self, verb: &str) -> bool {
        self.verb == verb && self.before == 0
    }

    /// Does what is asked, and returns what an honest server says.
    pub(crate) fn honestly(&self) -> Response {
        self.files.answer(self.request)
    }
}

pub(crate) type Lie = Arc<dyn Fn(&Said) -> Option<Act> + Send + Sync>;

/// Files by path, with their times.
#[derive(Default)]
pub(crate) struct Files(Mutex<BTreeMap<Bytes, (Vec<u8>, u32)>>);

impl Files {
    pub(crate) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.lock().insert(Bytes::copy_from_slice(path.as_bytes()), (bytes.into(), 1_000_000_000));
    }

    pub(crate) fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().get(path.as_bytes()).map(|(bytes, _)| bytes.clone())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    pub(crate) fn size(&self, path: &[u8]) -> Option<u64> {
        self.lock().get(path).map(|(bytes, _)| bytes.len() as u64)
    }

    fn answer(&self, request: &Request) -> Response {
        let (mut files, ok) = (self.lock(), Response::status(StatusCode::OK, ""));
        let missing = || Response::status(StatusCode::NO_SUCH_FILE, "No such file");
        match request {
            Request::Realpath(_) => Response::Names(vec![haul::transport::sftp::wire::Name {
                name: Bytes::from_static(b"/"),
                long: Bytes::new(),
                attrs: Attrs::default(),
            }]),
            Request::Stat(path) | Request::Lstat(path) | Request::Fstat(path) => match files.get(path) {
                Some((bytes, time)) => Response::Attrs(attrs(0o100_644, bytes.len() as u64, *time)),
                None if path == "/" => Response::Attrs(attrs(0o040_755, 0, 0)),
                None => missing(),
            },
            Request::Open(path, flags, _) if flags.contains(OpenFlags::CREATE) => {
                if flags.contains(OpenFlags::EXCLUSIVE) && files.contains_key(path) {
                    return Response::status(StatusCode::FAILURE, "Failure");
                }
                files.insert(path.clone(), (Vec::new(), 2_000_000_000));
                Response::Handle(path.clone())
            }
            Request::Open(path, ..) if files.contains_key(path) => Response::Handle(path.clone()),
            Request::Open(..) => missing(),
            Request::Read(handle, offset, length) => {
                let Some((bytes, _)) = files.get(handle) else { return missing() };
                let start = bytes.len().min(usize::try_from(*offset).unwrap());
                let end = bytes.len().min(start + *length as usize);
                match start < end {
                    true => Response::Data(Bytes::copy_from_slice(&bytes[start..end])),
                    false => Response::status(StatusCode::EOF, ""),
                }
            }
            Request::Write(handle, offset, data) => {
                let Some((bytes, _)) = files.get_mut(handle) else { return missing() };
                let start = usize::try_from(*offset).unwrap();
                bytes.resize(bytes.len().max(start + data.len()), 0);
                bytes[start..start + data.len()].copy_from_slice(data);
                ok
            }
            Request::Fsetstat(path, attrs) | Request::Setstat(path, attrs) => {
                let Some((_, time)) = files.get_mut(path) else { return missing() };
                *time = attrs.times.map_or(*time, |(_, mtime)| mtime);
                ok
            }
            // As version 3 has it: never over another.
            Request::Rename(_, to) if files.contains_key(to) => Response::status(StatusCode::FAILURE, "Failure"),
            Request::Rename(from, to) => match files.remove(from) {
                Some(file) => {
                    files.insert(to.clone(), file);
                    ok
                }
                None => missing(),
            },
            Request::Remove(path) => files.remove(path).map_or_else(missing, |_| ok),
            Request::Close(_) => ok,
            Request::Extended(Extended::CheckFileName(check)) => match files.get(&check.file) {
                Some((bytes, _)) if check.algorithms == "sha256" => Response::Extended(
                    CheckedFile {
                        algorithm: check.algorithms.clone(),
                        digests: Bytes::copy_from_slice(&sha2::Sha256::digest(bytes)),
                    }
                    .encode(),
                ),
                Some(_) => Response::status(StatusCode::OP_UNSUPPORTED, "no such digest"),
                None => missing(),
            },
            _ => Response::status(StatusCode::OP_UNSUPPORTED, "no"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Bytes, (Vec<u8>, u32)>> {
        self.0.lock().unwrap()
    }
}

fn attrs(permissions: u32, size: u64, time: u32) -> Attrs {
    Attrs { size: Some(size), owner: None, permissions: Some(permissions), times: Some((time, time)) }
}

/// A server on a loopback port that lives as long as the test.
pub(crate) struct Peer {
    pub(crate) url: String,
    pub(crate) files: Arc<Files>,
    pub(crate) lies: Arc<AtomicBool>,
    folder: TempDir,
}

impl Peer {
    pub(crate) async fn start(digests: bool, lie: Lie) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join("host")).stdin(Stdio::null());
        assert!(keygen.status().unwrap().success());
        let host = load_secret_key(folder.path().join("host"), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let known = format!("[127.0.0.1]:{port} ssh-ed25519 {}\n", host.public_key_base64());
        std::fs::write(folder.path().join("known_hosts"), known).unwrap();
        let methods = MethodSet::from(&[MethodKind::Password][..]);
        let config =
            server::Config { methods, keys: vec![host], auth_rejection_time: Duration::ZERO, ..Default::default() };
        let config = Arc::new(config);
        let script = Script { lie, digests, ..Script::default() };
        let (files, lies) = (Arc::clone(&script.files), Arc::clone(&script.lies));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, client) = (Arc::clone(&config), Client { script: script.clone(), ..Client::default() });
                tokio::spawn(async move {
                    if let Ok(session) = server::run_stream(config, stream, client).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { url: format!("sftp://me@127.0.0.1:{port}"), files, lies, folder }
    }

    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }
}

#[derive(Clone)]
struct Script {
    files: Arc<Files>,
    lies: Arc<AtomicBool>,
    lie: Lie,
    digests: bool,
    counts: Arc<Mutex<HashMap<&'static str, usize>>>,
}

impl Default for Script {
    fn default() -> Self {
        let lies = Arc::new(AtomicBool::new(true));
        Self { files: Arc::default(), lies, lie: Arc::new(|_| None), digests: false, counts: Arc::default() }
    }
}

#[derive(Default)]
struct Client {
    script: Script,
    frames: Option<Frames>,
    held: Vec<Bytes>,
}

impl server::Handler for Client {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: russh::Channel<server::Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(&mut self, id: ChannelId, _: &str, session: &mut Session) -> Result<(), russh::Error> {
        self.frames = Some(Frames::new(MAX_PACKET));
        session.channel_success(id)
    }

    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        session.channel_failure(id)
    }

    async fn data(&mut self, id: ChannelId, mut data: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        while let Some(packet) = self.frames.as_mut().unwrap().next(&mut data).unwrap() {
            self.packet(id, packet, session)?;
        }
        Ok(())
    }
}

impl Client {
    fn packet(&mut self, channel: ChannelId, packet: Packet, session: &mut Session) -> Result<(), russh::Error> {
        if Hello::decode_init(packet.clone()).is_ok() {
            let check = (Bytes::from_static(b"check-file-name"), Bytes::from_static(b"1"));
            let extensions = if self.script.digests { vec![check] } else { Vec::new() };
            return session.data(channel, Hello { version: VERSION, extensions }.encode_version().into_bytes());
        }
        let (id, request) = Request::decode(packet).unwrap();
        let act = self.act(&request);
        if !matches!(act, Act::Hold(..)) {
            self.tell_held(channel, session)?;
        }
        match act {
            Act::Say(response) => session.data(channel, response.encode(id).into_bytes())?,
            Act::Hold(response, most) => {
                self.held.push(response.encode(id).into_bytes());
                if self.held.len() >= most {
                    self.tell_held(channel, session)?;
                }
            }
            Act::SayAndPart(response) => {
                session.data(channel, response.encode(id).into_bytes())?;
                session.disconnect(Disconnect::ByApplication, "bye", "")?;
            }
            Act::Silence => {}
        }
        Ok(())
    }

    fn tell_held(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        for answer in self.held.drain(..).rev() {
            session.data(channel, answer)?;
        }
        Ok(())
    }

    fn act(&self, request: &Request) -> Act {
        let (files, verb) = (&*self.script.files, request.name());
        if self.script.lies.load(SeqCst) {
            let before = {
                let mut counts = self.script.counts.lock().unwrap();
                let count = counts.entry(verb).or_default();
                *count += 1;
                *count - 1
            };
            if let Some(act) = (self.script.lie)(&Said { files, request, verb, before }) {
                return act;
            }
        }
        Act::Say(files.answer(request))
    }
}

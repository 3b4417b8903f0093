//! What the tests share: peers (OpenSSH's `sftp-server` behind a pipe, scripted ones), folders, streams.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use super::request::Request;
use super::response::Response;
use super::wire::{Frames, Hello, MAX_PACKET, VERSION};
use super::{Dial, Sftp};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::ssh::{Inbound, Outbound, Session};
use crate::transport::{Finish, Finished, ReadStream, RemotePath, WriteStream};

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

/// A session whose subsystem is OpenSSH's `sftp-server`, run as a child process.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    child: Mutex<Option<Child>>,
}

struct Stdin(tokio::sync::Mutex<ChildStdin>);

#[async_trait]
impl Outbound for Stdin {
    async fn send(&self, bytes: Bytes) -> Result<()> {
        self.0.lock().await.write_all(&bytes).await.map_err(|e| Error::io("send", e))
    }
}

impl Pipe {
    /// Kills the server, as a broken connection would.
    pub(super) fn kill(&self) {
        self.child.lock().unwrap().as_mut().unwrap().start_kill().unwrap();
    }
}

#[async_trait]
impl Session for Pipe {
    async fn subsystem(&self, _: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>> {
        let mut child =
            Command::new(SFTP_SERVER).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let stdin = child.stdin.take().unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 32 * 1024];
            loop {
                match stdout.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(length) => inbound.data(&buffer[..length]),
                }
            }
            inbound.closed(Error::new(ErrorKind::ConnectionLost, "the server went away"));
        });
        *self.child.lock().unwrap() = Some(child);
        Ok(Box::new(Stdin(tokio::sync::Mutex::new(stdin))))
    }

    async fn exec(&self, command: &[u8]) -> Result<Vec<u8>> {
        let output = Command::new("sh").arg("-c").arg(String::from_utf8(command.to_vec()).unwrap()).output();
        let output = output.await.unwrap();
        if !output.status.success() {
            return Err(Error::new(ErrorKind::Other, "the command failed"));
        }
        Ok(output.stdout)
    }

    async fn close(&self) {}
}

/// A host that lets so many in at the same time; each connection has an `sftp-server` of its own.
pub(super) struct Server(Arc<Porter>);

struct Porter {
    most: usize,
    asked: AtomicUsize,
    let_in: Mutex<Vec<Weak<Pipe>>>,
}

impl Server {
    pub(super) fn lets_in(most: usize) -> Self {
        Self(Arc::new(Porter { most, asked: AtomicUsize::new(0), let_in: Mutex::default() }))
    }

    pub(super) async fn connect(&self, at_once: usize) -> Sftp {
        Sftp::start(self.dial(), TIMEOUT, 8, at_once).await.unwrap()
    }

    pub(super) fn dial(&self) -> Dial {
        let porter = Arc::clone(&self.0);
        Box::new(move || Box::pin(std::future::ready(porter.knock())))
    }

    /// Returns how often somebody wanted to come in.
    pub(super) fn connections(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    pub(super) fn running(&self) -> usize {
        Porter::running(&self.0.let_in.lock().unwrap())
    }

    pub(super) async fn until_running(&self, wanted: usize) {
        while self.running() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills the server of the connection that was let in as number `which`.
    pub(super) fn kill(&self, which: usize) {
        let pipe = self.0.let_in.lock().unwrap()[which].upgrade();
        pipe.unwrap().kill();
    }
}

impl Porter {
    fn knock(&self) -> Result<Arc<dyn Session>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut let_in = self.let_in.lock().unwrap();
        if Self::running(&let_in) >= self.most {
            return Err(ErrorKind::TooManyConnections.into());
        }
        let pipe = Arc::new(Pipe::default());
        let_in.push(Arc::downgrade(&pipe));
        Ok(pipe)
    }

    fn running(let_in: &[Weak<Pipe>]) -> usize {
        let_in.iter().filter(|pipe| pipe.strong_count() > 0).count()
    }
}

/// What a scripted peer does with a request: the bytes it sends, as they are cut.
pub(super) type Script = Box<dyn FnMut(u32, Request) -> Vec<Bytes> + Send>;

/// A session whose subsystem follows a script.
pub(super) struct Scripted {
    extensions: Vec<(Bytes, Bytes)>,
    script: Arc<Mutex<Script>>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

struct Peer {
    frames: Mutex<(Frames, bool)>,
    hello: Hello,
    script: Arc<Mutex<Script>>,
    inbound: Arc<dyn Inbound>,
}

impl Scripted {
    pub(super) fn new(
        extensions: &[&'static str],
        script: impl FnMut(u32, Request) -> Vec<Bytes> + Send + 'static,
    ) -> Arc<Self> {
        let extensions = extensions.iter().map(|name| (Bytes::from_static(name.as_bytes()), Bytes::new())).collect();
        Arc::new(Self { extensions, script: Arc::new(Mutex::new(Box::new(script))) })
    }
}

#[async_trait]
impl Session for Scripted {
    async fn subsystem(&self, _: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>> {
        let hello = Hello { version: VERSION, extensions: self.extensions.clone() };
        let frames = Mutex::new((Frames::new(MAX_PACKET), false));
        Ok(Box::new(Peer { frames, hello, script: Arc::clone(&self.script), inbound }))
    }

    async fn exec(&self, _: &[u8]) -> Result<Vec<u8>> {
        Err(Error::new(ErrorKind::Unsupported, "no commands here"))
    }

    async fn close(&self) {}
}

#[async_trait]
impl Outbound for Peer {
    async fn send(&self, bytes: Bytes) -> Result<()> {
        let (mut bytes, mut replies) = (&bytes[..], Vec::new());
        {
            let (frames, greeted) = &mut *self.frames.lock().unwrap();
            while let Some(packet) = frames.next(&mut bytes)? {
                if !std::mem::replace(greeted, true) {
                    Hello::decode_init(packet).unwrap();
                    replies.push(self.hello.encode_version().into_bytes());
                    continue;
                }
                let (id, request) = Request::decode(packet).unwrap();
                replies.extend((self.script.lock().unwrap())(id, request));
            }
        }
        for reply in replies {
            self.inbound.data(&reply);
        }
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Encodes one answer in one piece.
pub(super) fn answer(id: u32, response: Response) -> Vec<Bytes> {
    vec![response.encode(id).into_bytes()]
}

pub(super) const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn dial(make: impl Fn() -> Arc<dyn Session> + Send + Sync + 'static) -> Dial {
    Box::new(move || {
        let session = make();
        Box::pin(async move { Ok(session) })
    })
}

pub(super) async fn openssh() -> Sftp {
    Sftp::start(dial(|| Arc::new(Pipe::default())), TIMEOUT, 8, 1).await.unwrap()
}

pub(super) async fn scripted(
    extensions: &[&'static str],
    script: impl FnMut(u32, Request) -> Vec<Bytes> + Send + 'static,
) -> Sftp {
    let session = Scripted::new(extensions, script);
    Sftp::start(dial(move || Arc::clone(&session) as Arc<dyn Session>), TIMEOUT, 8, 1).await.unwrap()
}

pub(super) struct Dir(pub(super) tempfile::TempDir);

impl Dir {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: impl AsRef<[u8]>) -> RemotePath {
        RemotePath::new(self.0.path().as_os_str().as_encoded_bytes()).unwrap().resolve(name).unwrap()
    }

    pub(super) fn file(&self, name: &str, contents: &[u8]) -> RemotePath {
        std::fs::write(self.0.path().join(name), contents).unwrap();
        self.path(name)
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap()
    }
}

pub(super) fn path(text: &str) -> RemotePath {
    RemotePath::new(text).unwrap()
}

/// Bytes that differ wherever they are mixed up.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8).collect()
}

pub(super) async fn read_all(mut stream: Box<dyn ReadStream>) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let chunk = stream.read().await?;
        if chunk.is_empty() {
            assert!(stream.read().await?.is_empty());
            stream.finish().await?;
            return Ok(all);
        }
        all.extend_from_slice(&chunk);
    }
}

pub(super) async fn write_all(mut stream: Box<dyn WriteStream>, chunks: &[&[u8]], last: Finish) -> Result<Finished> {
    for chunk in chunks {
        stream.write(Bytes::copy_from_slice(chunk)).await?;
    }
    stream.finish(last).await
}

//! SFTP by hand: one request at a time, and whatever it may say.

use std::sync::Arc;

use bytes::Bytes;
use haul::transport::sftp::wire::{
    Attrs, Frames, Hello, MAX_PACKET, OpenFlags, Packet, Request, Response, StatusCode, VERSION,
};
use russh::client::{self, AuthResult, Handle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::connect_from;
use crate::scene::{PASSWORD, Scene, USER};

/// A client that takes any host key: the tests know whom they talk to.
pub(crate) struct Anyone;

impl client::Handler for Anyone {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// An SSH connection that is not logged in yet. It does nothing, not even answer, while nothing is asked of it.
pub(crate) struct Ssh {
    runtime: tokio::runtime::Runtime,
    handle: Handle<Anyone>,
}

impl Ssh {
    /// Connects from an address; an error when the server wants nothing to do with us.
    pub(crate) fn connect(address: &str, scene: &Scene) -> Result<Self, russh::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let socket = connect_from(address, scene.port());
        socket.set_nonblocking(true).unwrap();
        let config = Arc::new(client::Config::default());
        let handle = runtime.block_on(async {
            client::connect_stream(config, tokio::net::TcpStream::from_std(socket).unwrap(), Anyone).await
        })?;
        Ok(Self { runtime, handle })
    }

    /// Tries a password; an error when the connection is closed in answer.
    pub(crate) fn password(&mut self, password: &str) -> Result<bool, russh::Error> {
        let tried = self.runtime.block_on(self.handle.authenticate_password(USER, password))?;
        match tried {
            AuthResult::Success => Ok(true),
            // This is how russh says that the connection was closed.
            AuthResult::Failure { remaining_methods, .. } if remaining_methods.is_empty() => {
                Err(russh::Error::Disconnect)
            }
            AuthResult::Failure { .. } => Ok(false),
        }
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        // The stream says goodbye by a task.
        let _runtime = self.ssh.runtime.enter();
        self.stream = None;
    }
}

/// An SFTP session.
pub(crate) struct Packets {
    stream: Option<russh::ChannelStream<client::Msg>>,
    frames: Frames,
    next: u32,
    ssh: Ssh,
}

impl Packets {
    pub(crate) fn new(scene: &Scene) -> Self {
        Self::from("127.0.0.1", scene)
    }

    pub(crate) fn from(address: &str, scene: &Scene) -> Self {
        let mut ssh = Ssh::connect(address, scene).unwrap();
        assert!(ssh.password(PASSWORD).unwrap());
        let stream = ssh.runtime.block_on(async {
            let channel = ssh.handle.channel_open_session().await.unwrap();
            channel.request_subsystem(true, "sftp").await.unwrap();
            channel.into_stream()
        });
        let mut packets = Self { stream: Some(stream), frames: Frames::new(MAX_PACKET), next: 0, ssh };
        packets.send(&Hello { version: VERSION, extensions: Vec::new() }.encode_init().into_bytes());
        Hello::decode_version(packets.receive()).unwrap();
        packets
    }

    fn send(&mut self, bytes: &[u8]) {
        let stream = self.stream.as_mut().unwrap();
        self.ssh.runtime.block_on(stream.write_all(bytes)).unwrap();
    }

    fn receive(&mut self) -> Packet {
        let stream = self.stream.as_mut().unwrap();
        let bytes = self.ssh.runtime.block_on(async {
            let length = stream.read_u32().await.unwrap();
            let mut packet = length.to_be_bytes().to_vec();
            packet.resize(4 + length as usize, 0);
            stream.read_exact(&mut packet[4..]).await.unwrap();
            packet
        });
        self.frames.next(&mut &bytes[..]).unwrap().unwrap()
    }

    pub(crate) fn ask(&mut self, request: Request) -> Response {
        self.next += 1;
        self.send(&request.encode(self.next).into_bytes());
        let (id, response) = Response::decode(self.receive()).unwrap();
        assert_eq!(id, self.next);
        response
    }

    /// Asks for what is answered by a status; returns its code and text.
    pub(crate) fn status(&mut self, request: Request) -> (StatusCode, String) {
        let shown = format!("{request:?}");
        match self.ask(request) {
            Response::Status(status) => (status.code, String::from_utf8_lossy(&status.message).into_owned()),
            other => panic!("{shown}: {other:?}"),
        }
    }

    pub(crate) fn ok(&mut self, request: Request) {
        let shown = format!("{request:?}");
        assert_eq!(self.status(request).0, StatusCode::OK, "{shown}");
    }

    pub(crate) fn open(&mut self, path: &'static str, flags: u32) -> Bytes {
        match self.ask(Request::Open(path.into(), OpenFlags(flags), Attrs::default())) {
            Response::Handle(handle) => handle,
            other => panic!("{path}: {other:?}"),
        }
    }
}

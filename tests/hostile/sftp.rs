//! SFTP: the server's own codec, with names that no honest server would send.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use haul::transport::sftp::wire::{
    Attrs, Frames, Hello, MAX_PACKET, Name, Packet, Request, Response, StatusCode, VERSION,
};
use russh::keys::{PrivateKey, PublicKeyBase64, load_secret_key};
use russh::server::{self, Auth, Session};
use russh::{ChannelId, MethodKind, MethodSet};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{CONTENT, Kind, Scene, entries, is_directory};

struct Server {
    url: String,
    folder: TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join("host")).stdin(Stdio::null());
        assert!(keygen.status().unwrap().success());
        let host: PrivateKey = load_secret_key(folder.path().join("host"), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = format!("[127.0.0.1]:{port} ssh-ed25519 {}\n", host.public_key_base64());
        std::fs::write(folder.path().join("known_hosts"), line).unwrap();
        let methods = MethodSet::from(&[MethodKind::Password][..]);
        let config = Arc::new(server::Config { methods, keys: vec![host], ..server::Config::default() });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, client) = (Arc::clone(&config), Client::default());
                tokio::spawn(async move {
                    if let Ok(session) = server::run_stream(config, stream, client).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { url: format!("sftp://me@127.0.0.1:{port}/"), folder }
    }

    fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }
}

#[derive(Default)]
struct Client {
    frames: Option<Frames>,
    /// Directories whose names were all told.
    told: Vec<Bytes>,
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
            session.data(id, self.answer(packet))?;
        }
        Ok(())
    }
}

impl Client {
    fn answer(&mut self, packet: Packet) -> Bytes {
        if Hello::decode_init(packet.clone()).is_ok() {
            return Hello { version: VERSION, extensions: Vec::new() }.encode_version().into_bytes();
        }
        let (id, request) = Request::decode(packet).unwrap();
        let ok = Response::status(StatusCode::OK, "");
        let response = match request {
            Request::Realpath(_) => names(vec![(b"/", Kind::Directory)]),
            Request::Stat(path) | Request::Lstat(path) | Request::Fstat(path) => Response::Attrs(attrs(kind_of(&path))),
            Request::Opendir(path) | Request::Open(path, ..) => Response::Handle(path),
            Request::Readdir(dir) if self.told.contains(&dir) => Response::status(StatusCode::EOF, ""),
            Request::Readdir(dir) => {
                let answer = names(entries(&dir));
                self.told.push(dir);
                answer
            }
            Request::Close(handle) => {
                self.told.retain(|told| *told != handle);
                ok
            }
            Request::Read(_, 0, _) => Response::Data(Bytes::from_static(CONTENT)),
            Request::Read(..) => Response::status(StatusCode::EOF, ""),
            Request::Readlink(path) => match kind_of(&path) {
                Kind::Link(target) => names(vec![(target.as_bytes(), Kind::File)]),
                _ => Response::status(StatusCode::FAILURE, "no link"),
            },
            _ => Response::status(StatusCode::OP_UNSUPPORTED, "no"),
        };
        response.encode(id).into_bytes()
    }
}

fn kind_of(path: &[u8]) -> Kind {
    let slash = path.iter().rposition(|&b| b == b'/').unwrap_or(0);
    let known = entries(&path[..slash]).into_iter().find(|(name, _)| *name == &path[slash + 1..]);
    known.map_or(if is_directory(path) { Kind::Directory } else { Kind::File }, |(_, kind)| kind)
}

fn names(entries: Vec<(&[u8], Kind)>) -> Response {
    let name = |(name, kind)| Name { name: Bytes::copy_from_slice(name), long: Bytes::new(), attrs: attrs(kind) };
    Response::Names(entries.into_iter().map(name).collect())
}

fn attrs(kind: Kind) -> Attrs {
    let kind = match kind {
        Kind::File => 0o100_000,
        Kind::Directory => 0o040_000,
        Kind::Link(_) => 0o120_000,
    };
    Attrs { size: Some(4), owner: None, permissions: Some(kind | 0o6755), times: Some((1, 1)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_an_sftp_server_stay_below_the_destination() {
    let server = Server::start().await;
    Scene::new().names_stay_below(&server.url, Some(&server.known_hosts())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_an_sftp_server_lead_nowhere() {
    let server = Server::start().await;
    Scene::new().links_lead_nowhere(&server.url, Some(&server.known_hosts())).await;
}

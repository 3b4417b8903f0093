//! A real SSH server that stops being one at a certain point.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use haul::transport::{ConnectOptions, SshEngine};
use russh::keys::{PublicKeyBase64, load_secret_key};
use russh::server::{self, Auth, Session};
use russh::{Channel, ChannelId, Preferred};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::sshd::new_key;

/// Where it goes silent or mad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Login,
    ChannelOpen,
    Subsystem,
    /// Takes what SFTP sends and says nothing.
    Sftp,
    /// The same, but chatters on standard error for ever.
    Chatter,
    Exec,
    /// Closes with a message.
    Goodbye(&'static str),
}

#[derive(Debug)]
pub(crate) struct Stub {
    folder: TempDir,
    pub(crate) port: u16,
    serving: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Stub {
    pub(crate) async fn open(stop: Stop, preferred: Preferred) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = load_secret_key(new_key(&folder.path().join("host"), "ed25519", ""), None).unwrap();
        new_key(&folder.path().join("key"), "ed25519", "");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = format!("[127.0.0.1]:{port} ssh-ed25519 {}\n", host.public_key_base64());
        std::fs::write(folder.path().join("known_hosts"), line).unwrap();
        let config = Arc::new(server::Config {
            auth_rejection_time: Duration::ZERO,
            keys: vec![host],
            preferred,
            ..server::Config::default()
        });
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = server::run_stream(config, stream, Porter(stop)).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { folder, port, serving }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn options(&self, engine: SshEngine) -> ConnectOptions {
        ConnectOptions { timeout: super::LIMIT, ..super::options(engine, self.path("key"), self.path("known_hosts")) }
    }
}

struct Porter(Stop);

impl server::Handler for Porter {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        if self.0 == Stop::Login {
            std::future::pending::<()>().await;
        }
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(&mut self, _: &str, _: server::PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        if self.0 == Stop::Login {
            std::future::pending::<()>().await;
        }
        Ok(Auth::Accept)
    }

    async fn auth_publickey(&mut self, _: &str, _: server::VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        if self.0 == Stop::Login {
            std::future::pending::<()>().await;
        }
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<server::Msg>,
        reply: server::ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.0 {
            Stop::ChannelOpen => std::future::pending().await,
            Stop::Goodbye(text) => session.disconnect(russh::Disconnect::ByApplication, text, "")?,
            _ => {
                reply.accept().await;
            }
        }
        Ok(())
    }

    async fn subsystem_request(&mut self, id: ChannelId, _: &str, session: &mut Session) -> Result<(), russh::Error> {
        if self.0 == Stop::Subsystem {
            std::future::pending::<()>().await;
        }
        session.channel_success(id)?;
        if self.0 == Stop::Chatter {
            let handle = session.handle();
            tokio::spawn(async move { while handle.extended_data(id, 1, vec![b'x'; 4096]).await.is_ok() {} });
        }
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(id)
    }
}

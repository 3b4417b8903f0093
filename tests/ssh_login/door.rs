//! An SSH server that logs users in by a rule, and does nothing else.

use std::borrow::Cow;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use haul::endpoint::Endpoint;
use russh::keys::{PrivateKey, PublicKeyBase64, load_secret_key};
use russh::server::{self, Auth, Response, Session};
use russh::{ChannelId, MethodKind, MethodSet};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What opens the door. The password is the one of the tests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    Password,
    /// Hidden questions and their answers, put at once.
    Questions(&'static [(&'static str, &'static str)]),
    KeyThenPassword,
}

#[derive(Debug)]
pub(crate) struct Door {
    folder: TempDir,
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Door {
    pub(crate) async fn open(rule: Rule) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["key", "host"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.path().join(name)).stdin(Stdio::null());
            assert!(command.status().unwrap().success());
        }
        let host: PrivateKey = load_secret_key(folder.path().join("host"), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = format!("[127.0.0.1]:{port} ssh-ed25519 {}\n", host.public_key_base64());
        std::fs::write(folder.path().join("known_hosts"), line).unwrap();

        let first = match rule {
            Rule::Password => MethodKind::Password,
            Rule::Questions(_) => MethodKind::KeyboardInteractive,
            Rule::KeyThenPassword => MethodKind::PublicKey,
        };
        let config = Arc::new(server::Config {
            methods: MethodSet::from(&[first][..]),
            auth_rejection_time: std::time::Duration::ZERO,
            keys: vec![host],
            ..server::Config::default()
        });
        let seen = Arc::new(Mutex::new(Vec::new()));
        let porter_seen = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let porter = Porter { rule, seen: Arc::clone(&porter_seen), key_shown: false };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = server::run_stream(config, stream, porter).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { folder, port, seen, serving }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::parse(format!("sftp://me@127.0.0.1:{}/", self.port)).unwrap()
    }

    /// Returns how often clients sent this as a password or an answer.
    pub(crate) fn count(&self, secret: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| *seen == secret).count()
    }
}

struct Porter {
    rule: Rule,
    seen: Arc<Mutex<Vec<String>>>,
    key_shown: bool,
}

impl server::Handler for Porter {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        self.seen.lock().unwrap().push(password.into());
        let may = !matches!(self.rule, Rule::KeyThenPassword) || self.key_shown;
        Ok(if may && password == super::PASSWORD { Auth::Accept } else { self.refusal() })
    }

    async fn auth_publickey(&mut self, _: &str, _: server::VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        if !matches!(self.rule, Rule::KeyThenPassword) {
            return Ok(self.refusal());
        }
        self.key_shown = true;
        Ok(Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(&[MethodKind::Password][..])),
            partial_success: true,
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Rule::Questions(questions) = self.rule else { return Ok(self.refusal()) };
        let Some(response) = response else {
            let prompts: Vec<_> = questions.iter().map(|(text, _)| (Cow::Borrowed(*text), false)).collect();
            return Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts: prompts.into() });
        };
        let answers: Vec<_> = response.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
        self.seen.lock().unwrap().extend(answers.iter().cloned());
        let right = answers.iter().map(String::as_str).eq(questions.iter().map(|(_, answer)| *answer));
        Ok(if right { Auth::Accept } else { self.refusal() })
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
        session.channel_success(id)
    }
}

impl Porter {
    fn refusal(&self) -> Auth {
        // Named each time: by itself russh's server takes a method off its list once it was refused.
        let method = match self.rule {
            Rule::Questions(_) => MethodKind::KeyboardInteractive,
            Rule::KeyThenPassword if !self.key_shown => MethodKind::PublicKey,
            Rule::KeyThenPassword | Rule::Password => MethodKind::Password,
        };
        Auth::Reject { proceed_with_methods: Some(MethodSet::from(&[method][..])), partial_success: false }
    }
}

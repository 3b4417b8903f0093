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

/// What opens the door, one after the other. The password is the one of the tests, and any key will do.
pub(crate) type Rule = &'static [Lock];

#[derive(Debug, Clone, Copy)]
pub(crate) enum Lock {
    Password,
    Key,
    /// Rounds of questions.
    Questions(&'static [Round]),
}

/// Questions that are put at once: the text, whether the answer may be seen, and the right one.
pub(crate) type Round = &'static [(&'static str, bool, &'static str)];

impl Lock {
    fn method(self) -> MethodKind {
        match self {
            Self::Password => MethodKind::Password,
            Self::Key => MethodKind::PublicKey,
            Self::Questions(_) => MethodKind::KeyboardInteractive,
        }
    }
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

        let config = Arc::new(server::Config {
            methods: MethodSet::from(&[rule[0].method()][..]),
            auth_rejection_time: std::time::Duration::ZERO,
            keys: vec![host],
            ..server::Config::default()
        });
        let seen = Arc::new(Mutex::new(Vec::new()));
        let porter_seen = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let porter = Porter { rule, seen: Arc::clone(&porter_seen), opened: 0, round: 0 };
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

    /// Returns what clients sent, in order: passwords, answers, "a key".
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns how often clients sent this as a password or an answer.
    pub(crate) fn count(&self, secret: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| *seen == secret).count()
    }
}

struct Porter {
    rule: Rule,
    seen: Arc<Mutex<Vec<String>>>,
    /// Locks that are open.
    opened: usize,
    /// The round of questions that is being answered.
    round: usize,
}

impl server::Handler for Porter {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        self.seen.lock().unwrap().push(password.into());
        let is_right = matches!(self.lock(), Lock::Password) && password == super::PASSWORD;
        Ok(self.verdict(is_right))
    }

    async fn auth_publickey(&mut self, _: &str, _: server::VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        self.seen.lock().unwrap().push("a key".into());
        Ok(self.verdict(matches!(self.lock(), Lock::Key)))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Lock::Questions(rounds) = self.lock() else { return Ok(self.verdict(false)) };
        match response {
            None => self.round = 0,
            Some(response) => {
                let answers: Vec<_> = response.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect();
                self.seen.lock().unwrap().extend(answers.iter().cloned());
                let round = rounds[self.round].iter().map(|(_, _, answer)| *answer);
                if !answers.iter().map(String::as_str).eq(round) {
                    return Ok(self.verdict(false));
                }
                self.round += 1;
                if self.round == rounds.len() {
                    return Ok(self.verdict(true));
                }
            }
        }
        let questions = rounds[self.round].iter();
        let prompts: Vec<_> = questions.map(|(text, echo, _)| (Cow::Borrowed(*text), *echo)).collect();
        Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts: prompts.into() })
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
    fn lock(&self) -> Lock {
        self.rule[self.opened]
    }

    fn verdict(&mut self, is_right: bool) -> Auth {
        if is_right {
            self.opened += 1;
        }
        let Some(next) = self.rule.get(self.opened) else { return Auth::Accept };
        // Named each time: by itself russh's server takes a method off its list once it was refused.
        let proceed_with_methods = Some(MethodSet::from(&[next.method()][..]));
        Auth::Reject { proceed_with_methods, partial_success: is_right }
    }
}

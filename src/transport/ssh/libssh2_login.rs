//! How the `libssh2` engine proves who we are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use ssh2::{ErrorCode, KeyboardInteractivePrompt};

use super::authenticator::{Authenticator, Outcome};
use super::cache::LoginCache;
use super::identity::{Identity, Origin, Public};
use super::libssh2::{blocking, failure};
use super::questions::Answers;
use super::{AGENT_PATIENCE, show_banner, within};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ConnectOptions, Secret};

/// How long a person may think about the server's questions.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Key,
    Other,
}

/// Logging in on a fresh connection.
pub(super) struct Libssh2Login {
    pub(super) session: ssh2::Session,
    pub(super) user: String,
    pub(super) limit: Duration,
    pub(super) agent: Option<PathBuf>,
    pub(super) offered: Vec<String>,
    pub(super) options: ConnectOptions,
    pub(super) cache: LoginCache,
}

impl Libssh2Login {
    /// Makes one attempt on a blocking thread; `limit` is the most that it may take.
    async fn attempt(
        &mut self,
        attempt: Attempt,
        limit: Duration,
        call: impl FnOnce(&ssh2::Session, &str) -> Result<(), ssh2::Error> + Send + 'static,
    ) -> Result<Outcome> {
        let (session, user) = (self.session.clone(), self.user.clone());
        let result = within(limit, "login", blocking(move || Ok(call(&session, &user)))).await??;
        match result {
            Ok(()) => Ok(Outcome::Success),
            Err(error) if !is_refusal(&error) => Err(failure(&error).context("login")),
            // A key that the server didn't want can't have been a partial success. Asking again would count as a try.
            Err(error) if attempt == Attempt::Key && !is_unverified(&error) => {
                Ok(Outcome::Refused { offered: self.offered.clone(), partial: false })
            }
            Err(_) => self.ask_methods().await,
        }
    }

    /// libssh2 doesn't tell partial success; that the list of methods changed does.
    async fn ask_methods(&mut self) -> Result<Outcome> {
        let (session, user) = (self.session.clone(), self.user.clone());
        let listed = blocking(move || {
            let methods = session.auth_methods(&user).map(str::to_owned);
            Ok((methods, session.authenticated(), session.userauth_banner().ok().flatten().map(str::to_owned)))
        });
        let (methods, authenticated, banner) = within(self.limit, "login", listed).await??;
        show_banner(&self.cache, &self.options.prompt, &banner.unwrap_or_default()).await;
        if authenticated {
            return Ok(Outcome::Success);
        }
        let offered: Vec<String> =
            methods.map_err(|e| failure(&e).context("login"))?.split(',').map(str::to_owned).collect();
        let partial = !self.offered.is_empty() && self.offered != offered;
        self.offered.clone_from(&offered);
        Ok(Outcome::Refused { offered, partial })
    }
}

#[async_trait]
impl Authenticator for Libssh2Login {
    fn asks_first(&self) -> bool {
        // libssh2 takes note of the banner, and of what else there is, only then.
        true
    }

    fn lacks(&self, identity: &Identity) -> Option<&'static str> {
        let (public, Origin::Agent(held)) = (identity.public.as_ref()?, &identity.origin) else { return None };
        let is_rsa = matches!(public.key_data().algorithm(), Algorithm::Rsa { .. });
        match (public, held) {
            _ if public.is_fido() => Some("a FIDO key, which needs --ssh-engine russh or openssh"),
            (Public::Certificate(_), Public::Key(_)) => {
                Some("a certificate in a file for a key of the ssh-agent needs --ssh-engine russh or openssh")
            }
            (Public::Certificate(_), _) if is_rsa => {
                Some("an RSA certificate of the ssh-agent needs --ssh-engine russh or openssh")
            }
            _ => None,
        }
    }

    async fn none(&mut self) -> Result<Outcome> {
        self.ask_methods().await
    }

    async fn refuses(&mut self, _: &Public) -> Result<Option<Outcome>> {
        // libssh2 asks only together with a signature.
        Ok(None)
    }

    async fn key(&mut self, key: &Arc<PrivateKey>, public: &Public) -> Result<Outcome> {
        let hand_over = |e| Error::new(ErrorKind::Other, "hand over the key").with_source(e);
        let text = key.to_openssh(LineEnding::LF).map_err(hand_over)?;
        let shown = match public {
            // libssh2 makes it of the private half.
            Public::Key(_) => None,
            Public::Certificate(certificate) => Some(certificate.to_openssh().map_err(hand_over)?),
        };
        self.attempt(Attempt::Key, self.limit, move |session, user| {
            session.userauth_pubkey_memory(user, shown.as_deref(), &text, None)
        })
        .await
    }

    async fn agent_key(&mut self, public: &Public, _: &Public) -> Result<Outcome> {
        let refused = Outcome::Refused { offered: self.offered.clone(), partial: false };
        let Some(socket) = self.agent.clone() else { return Ok(refused) };
        let blob = public.blob();
        self.attempt(Attempt::Key, self.limit.max(AGENT_PATIENCE), move |session, user| {
            let mut agent = session.agent()?;
            agent.set_identity_path(&socket)?;
            agent.connect()?;
            agent.list_identities()?;
            let identities = agent.identities()?;
            let identity = identities.iter().find(|identity| identity.blob() == blob);
            let gone = ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED);
            agent.userauth(user, identity.ok_or_else(|| ssh2::Error::new(gone, "the agent lost the key"))?)
        })
        .await
    }

    async fn password(&mut self, password: &Secret) -> Result<Outcome> {
        let password = password.clone();
        self.attempt(Attempt::Other, self.limit, move |session, user| {
            session.userauth_password(user, password.expose())
        })
        .await
    }

    async fn questions(&mut self, answers: &Arc<Answers>) -> Result<Outcome> {
        let mut asker = Asker(Arc::clone(answers));
        let limit = self.limit.max(PATIENCE);
        let outcome = self
            .attempt(Attempt::Other, limit, move |session, user| {
                session.userauth_keyboard_interactive(user, &mut asker)
            })
            .await;
        match outcome {
            // Without answers there is no more to come, and the reason is not the server's.
            Err(_) if answers.unanswered().is_some() => {
                Ok(Outcome::Refused { offered: self.offered.clone(), partial: false })
            }
            other => other,
        }
    }
}

struct Asker(Arc<Answers>);

impl KeyboardInteractivePrompt for Asker {
    fn prompt(&mut self, _: &str, instructions: &str, prompts: &[ssh2::Prompt<'_>]) -> Vec<String> {
        let questions: Vec<_> = prompts.iter().map(|prompt| (prompt.text.to_string(), prompt.echo)).collect();
        let answers = self.0.answer("", instructions, &questions).unwrap_or_default();
        answers.iter().map(|answer| answer.expose().to_owned()).collect()
    }
}

fn is_refusal(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_AUTHENTICATION_FAILED) || is_unverified(error)
}

/// The server wanted the key, but the signature didn't let us in: wrong, or not enough alone.
fn is_unverified(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED)
}

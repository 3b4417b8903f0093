//! How the `russh` engine proves who we are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::MethodSet;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use tokio::task::spawn_blocking;

use super::auth::{Answers, Authenticator, Outcome};
use super::russh::{Client, Shared, failure};
use super::{AGENT_PATIENCE, within};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Secret;

/// Logging in on a fresh connection.
pub(super) struct RusshLogin {
    pub(super) handle: Handle<Client>,
    pub(super) shared: Arc<Shared>,
    pub(super) user: String,
    pub(super) limit: Duration,
    pub(super) agent: Option<PathBuf>,
}

impl RusshLogin {
    /// russh reports a connection that ended during login as a refusal without methods.
    fn outcome(&self, result: AuthResult) -> Result<Outcome> {
        match result {
            AuthResult::Success => Ok(Outcome::Success),
            AuthResult::Failure { remaining_methods, partial_success } => {
                self.refusal(&remaining_methods, partial_success)
            }
        }
    }

    fn refusal(&self, methods: &MethodSet, partial: bool) -> Result<Outcome> {
        // A server that offers nothing more has ended the login, but not the connection; that is no failure to report.
        let reason = self.shared.reason();
        if methods.is_empty() && self.handle.is_closed() && reason.kind() != ErrorKind::AuthFailed {
            return Err(Error::new(ErrorKind::AuthFailed, format!("login: {}", reason.chain()))
                .with_hint("where the server counts too many tries, name the right key with --identity"));
        }
        let offered = methods.iter().map(String::from).collect();
        Ok(Outcome::Refused { offered, partial })
    }

    /// Returns the hash to sign with: RSA keys have a choice, and SHA-1 is not one.
    async fn hash_for(&self, key: &PublicKey) -> Result<Option<HashAlg>> {
        if !matches!(key.algorithm(), Algorithm::Rsa { .. }) {
            return Ok(None);
        }
        let supported = within(self.limit, "login", self.handle.best_supported_rsa_hash()).await?;
        // Without the extension (RFC 8308) nothing is known; SHA-256 is the older of the two.
        Ok(Some(supported.map_err(failure)?.flatten().unwrap_or(HashAlg::Sha256)))
    }
}

#[async_trait]
impl Authenticator for RusshLogin {
    async fn none(&mut self) -> Result<Outcome> {
        let user = self.user.clone();
        let result = within(self.limit, "login", self.handle.authenticate_none(user)).await?.map_err(failure)?;
        self.outcome(result)
    }

    async fn refuses(&mut self, key: &PublicKey) -> Result<Option<Outcome>> {
        let hash = self.hash_for(key).await?;
        let mut signer = NeverSigns;
        let query = self.handle.authenticate_publickey_with(self.user.clone(), key.clone(), hash, &mut signer);
        match within(self.limit, "login by key", query).await? {
            Ok(result) => self.outcome(result).map(Some),
            Err(Wanted::Signature) => Ok(None),
            Err(Wanted::Nothing) => Err(self.shared.reason()),
        }
    }

    async fn key(&mut self, key: &Arc<PrivateKey>) -> Result<Outcome> {
        let hash = self.hash_for(key.public_key()).await?;
        let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
        let attempt = self.handle.authenticate_publickey(self.user.clone(), key);
        let result = within(self.limit, "login by key", attempt).await?.map_err(failure)?;
        self.outcome(result)
    }

    async fn agent_key(&mut self, key: &PublicKey) -> Result<Outcome> {
        let refused = Outcome::Refused { offered: vec!["publickey".into()], partial: false };
        let Some(socket) = &self.agent else { return Ok(refused) };
        let hash = self.hash_for(key).await?;
        let connecting = within(self.limit, "ask the ssh-agent", AgentClient::connect_uds(socket)).await?;
        let mut agent = connecting.map_err(|e| Error::new(ErrorKind::Other, "ask the ssh-agent").with_source(e))?;
        if let Some(binding) = self.handle.agent_session_binding() {
            // Keys bound to destinations need it; agents that don't know it refuse, which is fine.
            let _ = within(self.limit, "ask the ssh-agent", agent.bind_session(binding, false)).await?;
        }
        let patience = self.limit.max(AGENT_PATIENCE);
        let attempt = self.handle.authenticate_publickey_with(self.user.clone(), key.clone(), hash, &mut agent);
        match within(patience, "login by the agent's key", attempt).await? {
            Ok(result) => self.outcome(result),
            // The agent didn't sign (locked, declined): the next method can have its try.
            Err(e) => {
                tracing::debug!("the ssh-agent didn't sign: {e}");
                self.none().await
            }
        }
    }

    async fn password(&mut self, password: &Secret) -> Result<Outcome> {
        let attempt = self.handle.authenticate_password(self.user.clone(), password.expose());
        let result = within(self.limit, "login by password", attempt).await?.map_err(failure)?;
        self.outcome(result)
    }

    async fn questions(&mut self, answers: &Arc<Answers>) -> Result<Outcome> {
        let start = self.handle.authenticate_keyboard_interactive_start(self.user.clone(), None);
        let mut response = within(self.limit, "login", start).await?;
        loop {
            match response.map_err(|_| self.shared.reason())? {
                KeyboardInteractiveAuthResponse::Success => return Ok(Outcome::Success),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    return self.refusal(&remaining_methods, partial_success);
                }
                KeyboardInteractiveAuthResponse::InfoRequest { name, instructions, prompts } => {
                    let answers = Arc::clone(answers);
                    let questions: Vec<_> = prompts.into_iter().map(|p| (p.prompt, p.echo)).collect();
                    let answered = spawn_blocking(move || answers.answer(&name, &instructions, &questions)).await;
                    let Some(answered) = answered.ok().flatten() else {
                        return Ok(Outcome::Refused { offered: Vec::new(), partial: false });
                    };
                    let texts = answered.iter().map(|answer| answer.expose().to_owned()).collect();
                    let next = self.handle.authenticate_keyboard_interactive_respond(texts);
                    response = within(self.limit, "login", next).await?;
                }
            }
        }
    }
}

/// Learns whether a server would take a key, without signing.
struct NeverSigns;

enum Wanted {
    Signature,
    Nothing,
}

impl From<russh::SendError> for Wanted {
    fn from(_: russh::SendError) -> Self {
        Self::Nothing
    }
}

impl russh::Signer for NeverSigns {
    type Error = Wanted;

    async fn auth_sign(
        &mut self,
        _: &russh::keys::agent::AgentIdentity,
        _: Option<HashAlg>,
        _: Vec<u8>,
    ) -> Result<Vec<u8>, Wanted> {
        Err(Wanted::Signature)
    }
}

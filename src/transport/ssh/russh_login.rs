//! How the `russh` engine proves who we are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::MethodSet;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::{AgentClient, AgentStream};
use russh::keys::signature::Signer;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Algorithm, HashAlg, PrivateKey};
use tokio::task::spawn_blocking;

use super::algorithms::Offer;
use super::authenticator::{Authenticator, Outcome};
use super::identity::Public;
use super::questions::Answers;
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
    pub(super) offer: Offer,
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
            return Err(reason.context("login"));
        }
        let offered = methods.iter().map(String::from).collect();
        Ok(Outcome::Refused { offered, partial })
    }

    /// Returns the hash to sign with: RSA keys have a choice, and SHA-1 is one only where the user asks for it.
    async fn hash_for(&self, public: &Public) -> Result<Option<HashAlg>> {
        if !matches!(public.key_data().algorithm(), Algorithm::Rsa { .. }) {
            return Ok(None);
        }
        let supported = within(self.limit, "login", self.handle.best_supported_rsa_hash()).await?;
        let order = match supported.map_err(failure)? {
            Some(best) => [best, Some(HashAlg::Sha512), Some(HashAlg::Sha256), None],
            // Without the extension (RFC 8308) nothing is known: of the three, old servers know the last.
            None => [None, Some(HashAlg::Sha256), Some(HashAlg::Sha512), None],
        };
        let may_sign = |hash: &Option<HashAlg>| self.offer.may_sign(&public.signed_by(rsa_name(*hash)));
        Ok(order.into_iter().find(may_sign).unwrap_or(Some(HashAlg::Sha256)))
    }

    /// Shows the server a key or certificate; `signer` signs if it is wanted.
    async fn show<S: russh::Signer>(
        &mut self,
        public: &Public,
        hash: Option<HashAlg>,
        signer: &mut S,
    ) -> Result<AuthResult, S::Error> {
        let user = self.user.clone();
        match public {
            Public::Key(key) => self.handle.authenticate_publickey_with(user, key.clone(), hash, signer).await,
            Public::Certificate(certificate) => {
                self.handle.authenticate_certificate_with(user, (**certificate).clone(), hash, signer).await
            }
        }
    }
}

fn rsa_name(hash: Option<HashAlg>) -> &'static str {
    match hash {
        Some(HashAlg::Sha512) => "rsa-sha2-512",
        Some(_) => "rsa-sha2-256",
        None => "ssh-rsa",
    }
}

#[async_trait]
impl Authenticator for RusshLogin {
    async fn none(&mut self) -> Result<Outcome> {
        let user = self.user.clone();
        let result = within(self.limit, "login", self.handle.authenticate_none(user)).await?.map_err(failure)?;
        self.outcome(result)
    }

    async fn refuses(&mut self, public: &Public) -> Result<Option<Outcome>> {
        let hash = self.hash_for(public).await?;
        match within(self.limit, "login by key", self.show(public, hash, &mut NeverSigns)).await? {
            Ok(result) => self.outcome(result).map(Some),
            Err(Wanted::Signature) => Ok(None),
            Err(Wanted::Nothing) => Err(self.shared.reason()),
        }
    }

    async fn key(&mut self, key: &Arc<PrivateKey>, public: &Public) -> Result<Outcome> {
        let hash = self.hash_for(public).await?;
        let mut signer = KeySigner(Arc::clone(key));
        match within(self.limit, "login by key", self.show(public, hash, &mut signer)).await? {
            Ok(result) => self.outcome(result),
            Err(Unsigned::Lost) => Err(self.shared.reason()),
            Err(Unsigned::Failed(why)) => Err(Error::new(ErrorKind::Other, format!("sign with the key: {why}"))),
        }
    }

    async fn agent_key(&mut self, public: &Public, held: &Public) -> Result<Outcome> {
        let refused = Outcome::Refused { offered: vec!["publickey".into()], partial: false };
        let Some(socket) = &self.agent else { return Ok(refused) };
        let hash = self.hash_for(public).await?;
        let connecting = within(self.limit, "ask the ssh-agent", AgentClient::connect_uds(socket)).await?;
        let mut agent = connecting.map_err(|e| Error::new(ErrorKind::Other, "ask the ssh-agent").with_source(e))?;
        if let Some(binding) = self.handle.agent_session_binding() {
            // Keys bound to destinations need it; agents that don't know it refuse, which is fine.
            let _ = within(self.limit, "ask the ssh-agent", agent.bind_session(binding, false)).await?;
        }
        let patience = self.limit.max(AGENT_PATIENCE);
        let held = match held {
            Public::Key(key) => AgentIdentity::from(key.clone()),
            Public::Certificate(certificate) => AgentIdentity::from((**certificate).clone()),
        };
        let mut signer = AgentSigner { agent, held };
        match within(patience, "login by the agent's key", self.show(public, hash, &mut signer)).await? {
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

/// Signs with a private key that is at hand.
struct KeySigner(Arc<PrivateKey>);

enum Unsigned {
    Lost,
    Failed(String),
}

impl From<russh::SendError> for Unsigned {
    fn from(_: russh::SendError) -> Self {
        Self::Lost
    }
}

impl russh::Signer for KeySigner {
    type Error = Unsigned;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, Unsigned> {
        signed(&self.0, hash, data).map_err(|e| Unsigned::Failed(e.to_string()))
    }
}

/// Returns the data with its signature behind it (RFC 4252, section 7).
fn signed(key: &PrivateKey, hash: Option<HashAlg>, mut data: Vec<u8>) -> Result<Vec<u8>, russh::keys::ssh_key::Error> {
    let signature = match key.key_data() {
        KeypairData::Rsa(pair) => (pair, hash).try_sign(&data)?,
        other => other.try_sign(&data)?,
    };
    let mut encoded = Vec::new();
    signature.encode(&mut encoded)?;
    encoded.encode(&mut data)?;
    Ok(data)
}

/// Lets the agent sign by what it knows the key as, whatever the server is shown.
struct AgentSigner<S: AgentStream> {
    agent: AgentClient<S>,
    held: AgentIdentity,
}

impl<S: AgentStream + Unpin + Send> russh::Signer for AgentSigner<S> {
    type Error = russh::AgentAuthError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, russh::AgentAuthError> {
        Ok(self.agent.sign_request(&self.held, hash, data).await?)
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

    async fn auth_sign(&mut self, _: &AgentIdentity, _: Option<HashAlg>, _: Vec<u8>) -> Result<Vec<u8>, Wanted> {
        Err(Wanted::Signature)
    }
}

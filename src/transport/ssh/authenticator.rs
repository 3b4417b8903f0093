//! What the engines that log in themselves can do to log in, each in its own way; [`super::auth`] decides what is tried.

use std::sync::Arc;

use async_trait::async_trait;
use russh::keys::PrivateKey;

use super::identity::{Identity, Public};
use super::questions::Answers;
use crate::error::Result;
use crate::transport::Secret;

/// The server's answer to one attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// We are in.
    Success,
    /// Not yet: what the server offers now.
    Refused {
        /// Methods that can continue.
        offered: Vec<String>,
        /// The attempt was right but isn't enough.
        partial: bool,
    },
}

/// What an engine can do to log in. Each call ends within the timeout.
#[async_trait]
pub(super) trait Authenticator: Send + Sync {
    /// Whether to ask what the server offers before a key is tried: a trip that some engines need.
    fn asks_first(&self) -> bool {
        false
    }

    /// Says why the engine can't try this identity, if it can't.
    fn lacks(&self, _identity: &Identity) -> Option<&'static str> {
        None
    }

    /// Asks what the server offers.
    async fn none(&mut self) -> Result<Outcome>;

    /// Returns the refusal if the server doesn't want this key, `None` if it does or if that can't be asked.
    async fn refuses(&mut self, public: &Public) -> Result<Option<Outcome>>;

    /// Logs in with a private key, of which the server is shown the public half or a certificate.
    async fn key(&mut self, key: &Arc<PrivateKey>, public: &Public) -> Result<Outcome>;

    /// Logs in with a key that the agent holds and knows as `held`.
    async fn agent_key(&mut self, public: &Public, held: &Public) -> Result<Outcome>;

    /// Logs in with a password.
    async fn password(&mut self, password: &Secret) -> Result<Outcome>;

    /// Logs in by answering the server's questions.
    async fn questions(&mut self, answers: &Arc<Answers>) -> Result<Outcome>;
}

//! Keys to log in with: the agent's and those in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{PrivateKey, PublicKey, decode_secret_key, load_public_key};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::cache::LoginCache;
use super::target::{Identities, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Prompt, escape};

/// The files tried when the user names none, in OpenSSH's order but with the strongest first.
const USUAL_FILES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];
/// A private key is never longer; larger files are something else.
const LONGEST_KEY_FILE: u64 = 64 * 1024;
/// How often a passphrase is asked for, as OpenSSH does.
const PASSPHRASE_TRIES: usize = 3;

/// One key that may open the door.
#[derive(Debug)]
pub(super) struct Identity {
    /// What error messages call it.
    pub(super) name: String,
    /// Its public half, if it could be read without a passphrase.
    pub(super) public: Option<PublicKey>,
    pub(super) origin: Origin,
}

/// Where an identity's private half is.
pub(super) enum Origin {
    /// With the agent.
    Agent,
    /// Read and ready.
    Ready(Arc<PrivateKey>),
    /// In a file that a passphrase protects.
    Locked(LockedKey),
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Agent => "Agent",
            Self::Ready(_) => "Ready",
            Self::Locked(_) => "Locked",
        })
    }
}

/// A key file that a passphrase protects.
pub(super) struct LockedKey {
    path: PathBuf,
    text: Zeroizing<String>,
}

/// Lists the identities in the order to try them: the agent's keys that match a file, the agent's others, the files.
/// With files named by the user only these are used, as with OpenSSH's `IdentitiesOnly`.
///
/// # Errors
/// `Usage` when a file that the user named can't be read.
pub(super) async fn identities(target: &Target, limit: Duration, cache: &LoginCache) -> Result<Vec<Identity>> {
    let Identities { files, named, only } = target.identities.clone();
    let paths = if files.is_empty() { usual_paths() } else { files };
    let cache = cache.clone();
    let files = spawn_blocking(move || read_files(&paths, named, &cache))
        .await
        .map_err(|e| Error::new(ErrorKind::Other, "read the key files").with_source(e))??;
    let agent = match &target.agent {
        Some(socket) => tokio::time::timeout(limit, agent_keys(socket)).await.unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(in_order(agent, files, only))
}

fn in_order(agent: Vec<Identity>, files: Vec<Identity>, only: bool) -> Vec<Identity> {
    let same = |a: &Identity, b: &Identity| {
        a.public.as_ref().zip(b.public.as_ref()).is_some_and(|(a, b)| a.key_data() == b.key_data())
    };
    let (mut first, others): (Vec<_>, Vec<_>) =
        agent.into_iter().partition(|key| files.iter().any(|file| same(key, file)));
    let rest: Vec<_> = files
        .into_iter()
        .filter(|file| !matches!(file.origin, Origin::Agent) && !first.iter().any(|key| same(key, file)))
        .collect();
    if !only {
        first.extend(others);
    }
    first.extend(rest);
    first
}

fn usual_paths() -> Vec<PathBuf> {
    let ssh = std::env::home_dir().map(|home| home.join(".ssh"));
    ssh.into_iter().flat_map(|ssh| USUAL_FILES.map(|name| ssh.join(name))).collect()
}

async fn agent_keys(socket: &Path) -> Vec<Identity> {
    let listed = async { AgentClient::connect_uds(socket).await?.request_identities().await };
    match listed.await {
        Ok(keys) => keys
            .into_iter()
            .filter_map(|key| match key {
                AgentIdentity::PublicKey { key, comment } => Some(Identity {
                    name: format!("agent key {}", escape(comment.as_bytes())),
                    public: Some(key),
                    origin: Origin::Agent,
                }),
                AgentIdentity::Certificate { .. } => None,
            })
            .collect(),
        Err(e) => {
            tracing::debug!("the ssh-agent doesn't answer: {e}");
            Vec::new()
        }
    }
}

fn read_files(paths: &[PathBuf], named: bool, cache: &LoginCache) -> Result<Vec<Identity>> {
    let mut identities = Vec::new();
    for path in paths {
        match read_file(path, cache) {
            Ok(identity) => identities.push(identity),
            Err(error) if named => {
                return Err(error
                    .with_kind(ErrorKind::Usage)
                    .at(path.display())
                    .with_hint("--identity names a private key file in OpenSSH or PEM format"));
            }
            Err(error) => tracing::debug!("{}: {}", path.display(), error.chain()),
        }
    }
    Ok(identities)
}

fn read_file(path: &Path, cache: &LoginCache) -> Result<Identity> {
    let name = path.display().to_string();
    let length = std::fs::metadata(path).map_err(|e| Error::io("read the key", e))?.len();
    if length > LONGEST_KEY_FILE {
        return Err(Error::new(ErrorKind::Other, "too long for a key"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read the key", e))?;
    let text = Zeroizing::new(text);
    if let Some(key) = cache.key(path) {
        return Ok(Identity { name, public: Some(key.public_key().clone()), origin: Origin::Ready(key) });
    }
    // A public key stands for the agent's private one.
    if !text.contains("PRIVATE KEY") {
        let public = load_public_key(path).map_err(|e| Error::new(ErrorKind::Other, "not a key").with_source(e))?;
        return Ok(Identity { name, public: Some(public), origin: Origin::Agent });
    }
    let locked_public = PrivateKey::from_openssh(text.as_bytes()).ok().filter(PrivateKey::is_encrypted);
    if let Some(key) = locked_public {
        let public = Some(key.public_key().clone());
        return Ok(Identity { name, public, origin: Origin::Locked(LockedKey { path: path.into(), text }) });
    }
    if text.contains("ENCRYPTED") {
        let public = load_public_key(format!("{name}.pub")).ok();
        return Ok(Identity { name, public, origin: Origin::Locked(LockedKey { path: path.into(), text }) });
    }
    let key = decode_secret_key(&text, None)
        .map_err(|e| Error::new(ErrorKind::Other, "not a private key that can be used").with_source(e))?;
    Ok(Identity { name, public: Some(key.public_key().clone()), origin: Origin::Ready(Arc::new(key)) })
}

impl LockedKey {
    /// Asks for the passphrase; `None` when nobody knows it. Blocks.
    pub(super) fn unlock(&self, prompt: &dyn Prompt, cache: &LoginCache) -> Option<Arc<PrivateKey>> {
        for _ in 0..PASSPHRASE_TRIES {
            let passphrase = prompt.secret(&format!("Passphrase for key {}: ", self.path.display()))?;
            if passphrase.expose().is_empty() {
                return None;
            }
            match decode_secret_key(&self.text, Some(passphrase.expose())) {
                Ok(key) => {
                    let key = Arc::new(key);
                    cache.keep_key(&self.path, &key);
                    return Some(key);
                }
                Err(_) => prompt.notice("that is not the passphrase"),
            }
        }
        None
    }
}

//! One key that may open the door: what is shown to the server, and where the private half is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey, PublicKeyBase64};
use zeroize::Zeroizing;

use super::algorithms::Offer;
use super::cache::LoginCache;
use super::pem::decode;
use crate::transport::{Prompt, escape};

/// How often a passphrase is asked for, as OpenSSH does.
const PASSPHRASE_TRIES: usize = 3;

/// One key that may open the door.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// What error messages call it.
    pub(super) name: String,
    /// What the server is shown, if it could be read without a passphrase.
    pub(super) public: Option<Public>,
    pub(super) origin: Origin,
}

/// What a server is shown.
#[derive(Debug, Clone)]
pub(super) enum Public {
    Key(PublicKey),
    Certificate(Box<Certificate>),
}

/// Where an identity's private half is.
#[derive(Clone)]
pub(super) enum Origin {
    /// With the agent, which knows it by this.
    Agent(Public),
    /// Read and ready.
    Ready(Arc<PrivateKey>),
    /// In a file that a passphrase protects.
    Locked(LockedKey),
    /// Nowhere that we can use it.
    Useless(Why),
}

/// Why an identity is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// Its private half is in a security key, and no agent speaks for it.
    Fido,
    /// Others can read the file.
    Open,
    /// Only the public half is here, and no agent has the other.
    PublicOnly,
    /// The configuration forbids to sign by it.
    Forbidden,
    /// The file can't be read.
    Broken(String),
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Agent(_) => "Agent",
            Self::Ready(_) => "Ready",
            Self::Locked(_) => "Locked",
            Self::Useless(why) => return write!(f, "Useless({why:?})"),
        })
    }
}

impl Identity {
    /// Returns whether both are about the same pair of keys.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.public.as_ref().zip(other.public.as_ref()).is_some_and(|(a, b)| a.key_data() == b.key_data())
    }

    /// Returns whether the server would be shown the same.
    pub(super) fn shows_same(&self, other: &Self) -> bool {
        self.public.as_ref().zip(other.public.as_ref()).is_some_and(|(a, b)| a.blob() == b.blob())
    }
}

impl Public {
    pub(super) fn key_data(&self) -> &KeyData {
        match self {
            Self::Key(key) => key.key_data(),
            Self::Certificate(certificate) => certificate.public_key(),
        }
    }

    /// Returns the bytes that are sent to the server.
    pub(super) fn blob(&self) -> Vec<u8> {
        match self {
            Self::Key(key) => key.public_key_bytes(),
            Self::Certificate(certificate) => certificate.to_bytes().unwrap_or_default(),
        }
    }

    /// Returns the name of an algorithm for keys, or its name for certificates if this is one.
    pub(super) fn signed_by(&self, algorithm: &str) -> String {
        match self {
            Self::Key(_) => algorithm.to_owned(),
            // sk-ssh-ed25519@openssh.com is sk-ssh-ed25519-cert-v01@openssh.com.
            Self::Certificate(_) => format!("{}-cert-v01@openssh.com", algorithm.trim_end_matches("@openssh.com")),
        }
    }

    /// Returns whether we may sign by it.
    pub(super) fn may_sign(&self, offer: &Offer) -> bool {
        let algorithm = self.key_data().algorithm();
        let names = match algorithm {
            Algorithm::Rsa { .. } => vec!["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
            ref other => vec![other.as_str()],
        };
        names.iter().any(|name| offer.may_sign(&self.signed_by(name)))
    }

    /// Returns whether its private half is in a security key.
    pub(super) fn is_fido(&self) -> bool {
        matches!(self.key_data().algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
    }

    /// Says in an error message what the server will have against it.
    pub(super) fn blemish(&self) -> &'static str {
        let Self::Certificate(certificate) = self else { return "" };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        match (certificate.valid_after(), certificate.valid_before()) {
            (_, before) if before <= now => " (it has expired)",
            (after, _) if after > now => " (it is not valid yet)",
            _ => "",
        }
    }
}

impl Why {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Fido => "a FIDO key, which only the ssh-agent or --ssh-engine openssh can use".into(),
            Self::Open => "not used: others can read it".into(),
            Self::PublicOnly => "only its public half is here, and no ssh-agent has the other".into(),
            Self::Forbidden => "PubkeyAcceptedAlgorithms forbids it".into(),
            Self::Broken(reason) => reason.clone(),
        }
    }

    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Fido => Some("add the FIDO key to the ssh-agent (ssh-add FILE), or use --ssh-engine openssh"),
            Self::Open => Some("make the key's file your own secret: chmod 600 FILE"),
            Self::PublicOnly => Some("add the key to the ssh-agent (ssh-add FILE), or name its private half"),
            Self::Forbidden | Self::Broken(_) => None,
        }
    }
}

/// A key file that a passphrase protects.
#[derive(Clone)]
pub(super) struct LockedKey {
    pub(super) path: PathBuf,
    pub(super) text: Arc<Zeroizing<String>>,
}

impl LockedKey {
    /// Asks for the passphrase; `None` when nobody knows it. Blocks.
    pub(super) fn unlock(&self, prompt: &dyn Prompt, cache: &LoginCache) -> Option<Arc<PrivateKey>> {
        if let Some(key) = cache.key(&self.path) {
            return Some(key);
        }
        let path = escape(self.path.as_os_str().as_encoded_bytes());
        for _ in 0..PASSPHRASE_TRIES {
            let passphrase = prompt.secret(&format!("Passphrase for key {path}: "))?;
            if passphrase.expose().is_empty() {
                return None;
            }
            match decode(&self.text, Some(passphrase.expose())) {
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

//! Which algorithms to offer: those of the engine, as the configuration wants them.

use crate::error::Result;
use crate::transport::ssh_config::{AlgorithmList, Algorithms};
use crate::transport::{Prompt, escape};

/// The algorithms of one kind that an engine has.
#[derive(Debug, Clone, Default)]
pub(super) struct Repertoire {
    /// Offered unless told otherwise, the best first.
    pub(super) usual: Vec<&'static str>,
    pub(super) all: Vec<&'static str>,
}

/// All that an engine has.
#[derive(Debug, Clone, Default)]
pub(super) struct Repertoires {
    pub(super) engine: &'static str,
    pub(super) kex: Repertoire,
    pub(super) host_keys: Repertoire,
    pub(super) ciphers: Repertoire,
    pub(super) macs: Repertoire,
}

/// What is offered to a server, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Offer {
    pub(super) kex: Vec<String>,
    pub(super) host_keys: Vec<String>,
    /// The order of host keys is the user's: it isn't changed for the keys on file.
    pub(super) host_keys_in_order: bool,
    pub(super) ciphers: Vec<String>,
    pub(super) macs: Vec<String>,
    /// What we sign with at the login; `None`: the usual.
    signatures: Option<Vec<String>>,
}

/// What a login is signed with; certificates have names of their own.
const SIGNATURES: [&str; 8] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
];
const SIGNATURES_OF_CERTIFICATES: [&str; 8] = [
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
];
/// With SHA-1: only where somebody asks for them.
const SIGNATURES_BY_SHA1: [&str; 2] = ["ssh-rsa", "ssh-rsa-cert-v01@openssh.com"];
/// How names of certificates end. Whether the server's is wanted, `known_hosts` decides, not a list.
const CERTIFICATE: &str = "-cert-v01@openssh.com";

impl Offer {
    /// Applies the configuration; tells of names that the engine doesn't know.
    ///
    /// # Errors
    /// `Usage` where it leaves nothing.
    pub(super) fn new(wanted: &Algorithms, has: &Repertoires, prompt: &dyn Prompt) -> Result<Self> {
        let choose = |list: &Option<AlgorithmList>, from: &Repertoire| choose(list.as_ref(), from, has.engine, prompt);
        Ok(Self {
            kex: choose(&wanted.kex, &has.kex)?,
            host_keys: choose(&wanted.host_keys, &has.host_keys)?,
            host_keys_in_order: wanted.host_keys.as_ref().is_some_and(AlgorithmList::sets_order),
            ciphers: choose(&wanted.ciphers, &has.ciphers)?,
            macs: choose(&wanted.macs, &has.macs)?,
            signatures: match &wanted.public_keys {
                Some(list) => Some(choose(&Some(list.clone()), &signatures())?),
                None => None,
            },
        })
    }

    /// Returns the host key algorithms, those of the types on file first.
    pub(super) fn host_keys_for(&self, on_file: &[&str]) -> Vec<String> {
        let mut names = self.host_keys.clone();
        if !self.host_keys_in_order {
            names.sort_by_key(|name| !on_file.contains(&key_type(name)));
        }
        names
    }

    /// Returns whether the login may be signed with this algorithm.
    pub(super) fn may_sign(&self, algorithm: &str) -> bool {
        match &self.signatures {
            Some(names) => names.iter().any(|name| name == algorithm),
            None => SIGNATURES.contains(&algorithm) || SIGNATURES_OF_CERTIFICATES.contains(&algorithm),
        }
    }

    /// Returns the algorithms to sign with by RSA keys, if the configuration names any.
    pub(super) fn rsa_signatures(&self) -> Option<Vec<&str>> {
        let names = self.signatures.as_ref()?.iter().map(String::as_str);
        Some(names.filter(|name| ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"].contains(name)).collect())
    }
}

fn signatures() -> Repertoire {
    let usual: Vec<_> = SIGNATURES_OF_CERTIFICATES.into_iter().chain(SIGNATURES).collect();
    let all = usual.iter().copied().chain(SIGNATURES_BY_SHA1).collect();
    Repertoire { usual, all }
}

/// Returns the type of the keys that an algorithm signs with: RSA has several algorithms.
fn key_type(algorithm: &str) -> &str {
    if algorithm.starts_with("rsa-sha2-") { "ssh-rsa" } else { algorithm }
}

fn choose(list: Option<&AlgorithmList>, from: &Repertoire, engine: &str, prompt: &dyn Prompt) -> Result<Vec<String>> {
    let Some(list) = list else { return Ok(from.usual.iter().map(|&name| name.to_owned()).collect()) };
    let chosen = list.apply(&from.usual, &from.all)?;
    let unknown: Vec<_> =
        chosen.unknown.iter().filter(|name| !name.ends_with(CERTIFICATE)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let names = escape(unknown.join(", ").as_bytes());
        let (place, keyword) = (list.place(), list.keyword());
        prompt.notice(&format!("{place}: {keyword}: the engine {engine} has no {names}; --ssh-engine openssh may"));
    }
    Ok(chosen.names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::NoPrompt;

    fn offer(host_keys_in_order: bool) -> Offer {
        let names = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"];
        let host_keys = names.map(str::to_owned).into();
        Offer { host_keys, host_keys_in_order, ..Offer::default() }
    }

    #[test]
    fn types_on_file_are_asked_for_first_unless_the_user_says_otherwise() {
        assert_eq!(offer(false).host_keys_for(&["ssh-rsa"])[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
        assert_eq!(offer(false).host_keys_for(&["ecdsa-sha2-nistp256"])[0], "ecdsa-sha2-nistp256");
        assert_eq!(offer(true).host_keys_for(&["ssh-rsa"])[0], "ssh-ed25519");
    }

    #[test]
    fn nothing_is_signed_by_sha1_unasked() {
        let offer = Offer::new(&Algorithms::default(), &Repertoires::default(), &NoPrompt).unwrap();
        assert!(offer.may_sign("rsa-sha2-256") && offer.may_sign("ssh-ed25519-cert-v01@openssh.com"));
        assert!(!offer.may_sign("ssh-rsa") && !offer.may_sign("ssh-rsa-cert-v01@openssh.com"));
        assert_eq!(offer.rsa_signatures(), None);
    }
}

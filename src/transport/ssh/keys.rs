//! Keys and certificates to log in with: the agent's and those in files, in the order to try them.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Certificate, HashAlg, PrivateKey, PublicKey};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::cache::LoginCache;
use super::identity::{Identity, LockedKey, Origin, Public, Why};
use super::pem::decode;
use super::target::{Identities, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::escape;

/// The files tried when the user names none, in OpenSSH's order but with the strongest first.
const USUAL_FILES: [&str; 5] = ["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"];
/// A private key is never longer; larger files are something else.
const LONGEST_KEY_FILE: u64 = 64 * 1024;

/// Lists the identities in the order to try them, as OpenSSH has it: certificates that the user named, the agent's keys
/// that match a file, the agent's others, the files. With files named by the user only these are used, as with
/// `IdentitiesOnly`. None is there twice, and those that can't be used come last, for the error message.
///
/// # Errors
/// `Usage` when a file that the user named can't be read.
pub(super) async fn identities(target: &Target, limit: Duration, cache: &LoginCache) -> Result<Vec<Identity>> {
    let Identities { files, named, only, certificates } = target.identities.clone();
    let paths = if files.is_empty() { usual_paths() } else { files };
    let cache = cache.clone();
    let reading = spawn_blocking(move || {
        let files = read_files(&paths, named, certificates.is_empty(), &cache)?;
        Ok::<_, Error>((files, read_certificates(&certificates)))
    });
    let (files, certificates) =
        reading.await.map_err(|e| Error::new(ErrorKind::Other, "read the key files").with_source(e))??;
    let agent = match &target.agent {
        Some(socket) => tokio::time::timeout(limit, agent_keys(socket)).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let mut list = in_order(certificates, &agent, &files, only);
    for identity in &mut list {
        if identity.public.as_ref().is_some_and(|public| !public.may_sign(&target.offer)) {
            identity.origin = Origin::Useless(Why::Forbidden);
        }
    }
    list.sort_by_key(|identity| matches!(identity.origin, Origin::Useless(_)));
    Ok(list)
}

fn in_order(certificates: Vec<Identity>, agent: &[Identity], files: &[Identity], only: bool) -> Vec<Identity> {
    let certificates: Vec<_> = certificates.into_iter().map(|wanted| signed_by_any(wanted, agent, files)).collect();
    let (matching, others): (Vec<_>, Vec<_>) =
        agent.iter().cloned().partition(|key| files.iter().any(|file| key.is_of(file)));
    // A certificate beside a key stands before it: who has one needs it.
    let files: Vec<_> = files.iter().cloned().map(|file| signed_by_agent(file, agent)).collect();
    let of_agent = |file: &&Identity| matches!(file.origin, Origin::Agent(_));
    let beside = files.iter().filter(of_agent).cloned();
    let mut list: Vec<_> = certificates.into_iter().chain(beside).chain(matching).collect();
    if !only {
        list.extend(others);
    }
    list.extend(files.iter().filter(|file| !of_agent(file)).cloned());
    let mut unique: Vec<Identity> = Vec::new();
    for identity in list {
        if !unique.iter().any(|before| before.shows_same(&identity)) {
            unique.push(identity);
        }
    }
    unique
}

/// Finds the private half of a certificate that the user named.
fn signed_by_any(certificate: Identity, agent: &[Identity], files: &[Identity]) -> Identity {
    let usable = files.iter().chain(agent).filter(|identity| !matches!(identity.origin, Origin::Useless(_)));
    let unread = |identity: &&Identity| identity.public.is_none();
    let holder = usable.clone().find(|identity| identity.is_of(&certificate)).or_else(|| usable.clone().find(unread));
    let origin = match holder {
        _ if matches!(certificate.origin, Origin::Useless(Why::Broken(_))) => return certificate,
        Some(holder) => holder.origin.clone(),
        None => Origin::Useless(Why::PublicOnly),
    };
    signed_by_agent(Identity { origin, ..certificate }, agent)
}

/// Lets the agent sign for a file whose private half it holds; one that only names an agent's key is useless otherwise.
fn signed_by_agent(file: Identity, agent: &[Identity]) -> Identity {
    let held = agent.iter().filter(|key| key.is_of(&file));
    // The plain key rather than a certificate for it: any agent signs by that.
    let held = held.clone().find(|key| matches!(key.public, Some(Public::Key(_)))).or_else(|| held.clone().next());
    let same = agent.iter().find(|key| key.shows_same(&file));
    let origin = match (same.or(held), &file.origin) {
        // Not every engine can show a certificate that the agent doesn't hold.
        (Some(_), Origin::Ready(_)) if same.is_none() => return file,
        (Some(key), _) => key.origin.clone(),
        (None, Origin::Agent(_)) => Origin::Useless(Why::PublicOnly),
        (None, _) => return file,
    };
    Identity { origin, ..file }
}

fn usual_paths() -> Vec<PathBuf> {
    let ssh = std::env::home_dir().map(|home| home.join(".ssh"));
    ssh.into_iter().flat_map(|ssh| USUAL_FILES.map(|name| ssh.join(name))).collect()
}

async fn agent_keys(socket: &Path) -> Vec<Identity> {
    let listed = async { AgentClient::connect_uds(socket).await?.request_identities().await };
    match listed.await {
        Ok(keys) => keys.iter().filter_map(agent_key).collect(),
        Err(e) => {
            tracing::debug!("the ssh-agent doesn't answer: {e}");
            Vec::new()
        }
    }
}

fn agent_key(key: &AgentIdentity) -> Option<Identity> {
    let (what, public) = match key {
        AgentIdentity::PublicKey { key, .. } => ("key", Public::Key(key.clone())),
        AgentIdentity::Certificate { certificate, .. } if !certificate.cert_type().is_user() => return None,
        AgentIdentity::Certificate { certificate, .. } => {
            ("certificate", Public::Certificate(Box::new(certificate.clone())))
        }
    };
    // Comments are often all the same: the fingerprint is as `ssh-add -l` shows it.
    let fingerprint = public.key_data().fingerprint(HashAlg::Sha256);
    let name = format!("agent {what} {} {fingerprint}{}", escape(key.comment().as_bytes()), public.blemish());
    Some(Identity { name, public: Some(public.clone()), origin: Origin::Agent(public) })
}

fn read_files(paths: &[PathBuf], named: bool, beside: bool, cache: &LoginCache) -> Result<Vec<Identity>> {
    let mut identities = Vec::new();
    for path in paths {
        match read_file(path, cache) {
            Ok(identity) => {
                if beside {
                    identities.extend(certificate_beside(path, &identity));
                }
                identities.push(identity);
            }
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

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Returns the certificate `KEY-cert.pub`, if there is one for this key.
fn certificate_beside(path: &Path, key: &Identity) -> Option<Identity> {
    let beside = with_ending(path, "-cert.pub");
    let found = named_public(&beside, public_in(&text_of(&beside).ok()?.text)?, key.origin.clone());
    let is_user = matches!(&found.public, Some(Public::Certificate(certificate)) if certificate.cert_type().is_user());
    (is_user && (key.public.is_none() || found.is_of(key))).then_some(found)
}

/// Reads the certificates that the user named; missing files are skipped, as by OpenSSH.
fn read_certificates(paths: &[PathBuf]) -> Vec<Identity> {
    let read = |path: &PathBuf| {
        let text = match text_of(path) {
            Ok(file) => file.text,
            Err(e) => {
                tracing::debug!("{}: {e}", path.display());
                return None;
            }
        };
        let found = public_in(&text)
            .filter(|public| matches!(public, Public::Certificate(certificate) if certificate.cert_type().is_user()));
        Some(match found {
            Some(public) => named_public(path, public, Origin::Useless(Why::PublicOnly)),
            None => Identity {
                name: escape(path.as_os_str().as_encoded_bytes()),
                public: None,
                origin: Origin::Useless(Why::Broken("no certificate of a user".into())),
            },
        })
    };
    paths.iter().filter_map(read).collect()
}

fn named_public(path: &Path, public: Public, origin: Origin) -> Identity {
    let name = format!("{}{}", escape(path.as_os_str().as_encoded_bytes()), public.blemish());
    Identity { name, public: Some(public), origin }
}

/// Returns the public key or certificate of the first line that isn't a comment.
fn public_in(text: &str) -> Option<Public> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    if let Ok(certificate) = Certificate::from_openssh(line) {
        return Some(Public::Certificate(Box::new(certificate)));
    }
    PublicKey::from_openssh(line).ok().map(Public::Key)
}

/// The text of a key file, and whether others can read it.
struct Text {
    text: Zeroizing<String>,
    is_open: bool,
}

fn text_of(path: &Path) -> io::Result<Text> {
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    let mut text = Zeroizing::new(String::new());
    if file.take(LONGEST_KEY_FILE + 1).read_to_string(&mut text)? as u64 > LONGEST_KEY_FILE {
        return Err(io::Error::other("too long for a key"));
    }
    // As OpenSSH has it: a file of somebody else's is their affair.
    let is_open = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 != 0;
    Ok(Text { text, is_open })
}

fn read_file(path: &Path, cache: &LoginCache) -> Result<Identity> {
    let name = escape(path.as_os_str().as_encoded_bytes());
    let beside = || text_of(&with_ending(path, ".pub")).ok().and_then(|file| public_in(&file.text));
    let Text { text, is_open } = match text_of(path) {
        Ok(text) => text,
        // The agent may hold what the public half is about.
        Err(e) => {
            let public = beside().ok_or_else(|| Error::io("read the key", e))?;
            return Ok(named_public(path, public.clone(), Origin::Agent(public)));
        }
    };
    if let Some(key) = cache.key(path) {
        return Ok(Identity { name, public: Some(Public::Key(key.public_key().clone())), origin: Origin::Ready(key) });
    }
    // A public key stands for the agent's private one.
    if !text.contains("PRIVATE KEY") {
        let public = public_in(&text).ok_or_else(|| Error::new(ErrorKind::Other, "not a key"))?;
        return Ok(named_public(path, public.clone(), Origin::Agent(public)));
    }
    let openssh = PrivateKey::from_openssh(text.as_bytes()).ok();
    let public = openssh.as_ref().map(|key| Public::Key(key.public_key().clone())).or_else(beside);
    let origin = if public.as_ref().is_some_and(Public::is_fido) {
        Origin::Useless(Why::Fido)
    } else if is_open {
        Origin::Useless(Why::Open)
    } else if openssh.as_ref().map_or_else(|| text.contains("ENCRYPTED"), PrivateKey::is_encrypted) {
        Origin::Locked(LockedKey { path: path.into(), text: Arc::new(text) })
    } else {
        let key = decode(&text, None)
            .map_err(|e| Error::new(ErrorKind::Other, "not a private key that can be used").with_source(e))?;
        let public = Public::Key(key.public_key().clone());
        return Ok(Identity { name, public: Some(public), origin: Origin::Ready(Arc::new(key)) });
    };
    Ok(Identity { name, public, origin })
}

#[cfg(test)]
mod tests {
    use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData};

    use super::*;

    fn public(number: u8) -> Public {
        Public::Key(PublicKey::new(KeyData::Ed25519(Ed25519PublicKey([number; 32])), ""))
    }

    fn of_agent(number: u8) -> Identity {
        Identity {
            name: format!("agent {number}"),
            public: Some(public(number)),
            origin: Origin::Agent(public(number)),
        }
    }

    fn file(number: u8, origin: Origin) -> Identity {
        Identity { name: format!("file {number}"), public: Some(public(number)), origin }
    }

    fn locked(number: u8) -> Identity {
        let text = Arc::new(Zeroizing::new(String::new()));
        file(number, Origin::Locked(LockedKey { path: "/k".into(), text }))
    }

    fn order(agent: &[Identity], files: &[Identity], only: bool) -> Vec<String> {
        let list = in_order(Vec::new(), agent, files, only);
        list.into_iter().map(|identity| format!("{} {:?}", identity.name, identity.origin)).collect()
    }

    #[test]
    fn the_agents_matches_come_first_then_its_others_then_files() {
        let agent = [of_agent(1), of_agent(2), of_agent(3)];
        let files = [locked(4), locked(3)];
        assert_eq!(order(&agent, &files, false), ["file 3 Agent", "agent 1 Agent", "agent 2 Agent", "file 4 Locked"]);
        assert_eq!(order(&agent, &files, true), ["file 3 Agent", "file 4 Locked"]);
    }

    #[test]
    fn public_halves_stand_behind_comments() {
        const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";
        for text in [KEY.to_owned(), format!("{KEY} me@here and there\r\n"), format!("# mine\n\n  {KEY}\n")] {
            assert!(matches!(public_in(&text), Some(Public::Key(_))), "{text}");
        }
        for text in ["", "#", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519-cert-v01@openssh.com AAAA"] {
            assert!(public_in(text).is_none(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_public_half_is_read(kind in "(ssh|ecdsa|sk)-[a-z0-9@.-]{0,30}", body in "[A-Za-z0-9+/= ]{0,120}") {
            let _ = public_in(&format!("{kind} {body}"));
        }
    }

    #[test]
    fn nothing_is_there_twice_and_a_public_half_needs_the_agent() {
        let agent = [of_agent(1), of_agent(1)];
        let files = [locked(2), locked(2), file(1, Origin::Agent(public(1))), file(3, Origin::Agent(public(3)))];
        assert_eq!(order(&agent, &files, false), ["file 1 Agent", "file 2 Locked", "file 3 Useless(PublicOnly)"]);
    }
}

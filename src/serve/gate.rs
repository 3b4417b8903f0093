//! Who may log in, and how often somebody may try.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use russh::keys::PublicKey;
use russh::keys::ssh_key::authorized_keys::Entry as KeyLine;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::places::block_of;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Secret;

/// Wrong passwords from one address before it is locked out.
const ATTEMPTS: u32 = 6;
/// How long an address is locked out, and how long failures are remembered.
const LOCK_OUT: Duration = Duration::from_secs(60);
/// What each wrong password more adds to the wait for its answer.
const DELAY: Duration = Duration::from_millis(300);
/// Addresses remembered at once.
const REMEMBERED: usize = 1024;

/// What came of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is right.
    Welcome,
    /// It is wrong, or there is no such user.
    Wrong,
    /// Too many wrong ones came from this address; not even looked at.
    LockedOut,
}

/// The one user, what proves that it is them, and the failures so far.
#[derive(Debug)]
pub(crate) struct Gate {
    user: String,
    password: Option<Secret>,
    keys: Vec<PublicKey>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
    delay: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Gate {
    pub(crate) fn new(user: String, password: Option<Secret>, keys: Vec<PublicKey>) -> Self {
        Self { user, password, keys, failures: Mutex::default(), delay: DELAY }
    }

    /// Returns whether passwords are any use here.
    pub(crate) fn takes_passwords(&self) -> bool {
        self.password.is_some()
    }

    /// Returns whether keys are any use here.
    pub(crate) fn takes_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Returns whether this is the user, and this a key of theirs; that they hold it is for the caller to check.
    pub(crate) fn knows_key(&self, user: &[u8], key: &PublicKey) -> bool {
        same(user, self.user.as_bytes()) && self.keys.iter().any(|known| known.key_data() == key.key_data())
    }

    /// Judges a password. A wrong one is answered late, and later each time; too many lock the address out.
    pub(crate) async fn judge(&self, peer: IpAddr, user: &[u8], password: &[u8]) -> Verdict {
        let peer = block_of(peer);
        if self.failed(peer).count >= ATTEMPTS {
            return Verdict::LockedOut;
        }
        let known = self.password.as_ref().map_or("", Secret::expose);
        // Both are always compared, so that the time doesn't tell which one was wrong.
        let right = same(user, self.user.as_bytes()) & same(password, known.as_bytes());
        if right && self.password.is_some() {
            self.remembered().remove(&peer);
            return Verdict::Welcome;
        }
        let count = self.note_failure(peer);
        tracing::warn!(%peer, count, "wrong user or password");
        tokio::time::sleep(self.delay * count).await;
        Verdict::Wrong
    }

    fn failed(&self, peer: IpAddr) -> Failures {
        let known = self.remembered().get(&peer).copied();
        known.filter(|f| f.last.elapsed() < LOCK_OUT).unwrap_or(Failures { count: 0, last: Instant::now() })
    }

    fn note_failure(&self, peer: IpAddr) -> u32 {
        let count = self.failed(peer).count + 1;
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED {
            remembered.retain(|_, f| f.last.elapsed() < LOCK_OUT);
        }
        if remembered.len() >= REMEMBERED {
            let oldest = remembered.iter().min_by_key(|(_, f)| f.last).map(|(peer, _)| *peer);
            oldest.map(|peer| remembered.remove(&peer));
        }
        remembered.insert(peer, Failures { count, last: Instant::now() });
        count
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares in a time that tells nothing, not even the lengths.
fn same(given: &[u8], known: &[u8]) -> bool {
    Sha256::digest(given).as_slice().ct_eq(Sha256::digest(known).as_slice()).into()
}

/// Reads an `authorized_keys` file.
///
/// # Errors
/// `Usage` for lines that are no key, and for options that would restrict what this server doesn't know of.
pub(crate) fn read_authorized_keys(path: &Path) -> Result<Vec<PublicKey>> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::io("read the authorized keys", e).at(path.display()))?;
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| {
            Error::new(ErrorKind::Usage, why.to_owned()).at(format!("{}: line {}", path.display(), index + 1))
        };
        let entry: KeyLine = line.parse().map_err(|_| wrong("not a public key"))?;
        // There is no terminal and no forwarding here, so these are kept anyway; any other may forbid what we'd allow.
        let harmless = |option: &str| option == "restrict" || (option.starts_with("no-") && !option.contains('='));
        if let Some(option) = entry.config_opts().iter().find(|option| !harmless(option)) {
            return Err(wrong(&format!(
                "the option \"{}\" is not supported",
                crate::transport::escape(option.as_bytes())
            )));
        }
        keys.push(entry.public_key().clone());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me";

    fn gate() -> Gate {
        Gate { delay: Duration::ZERO, ..Gate::new("me".into(), Some(Secret::new("right")), Vec::new()) }
    }

    #[tokio::test]
    async fn wrong_passwords_wait_and_lock_out() {
        let gate = gate();
        for _ in 0..ATTEMPTS {
            assert_eq!(gate.judge(PEER, b"me", b"wrong").await, Verdict::Wrong);
        }
        assert_eq!(gate.judge(PEER, b"me", b"right").await, Verdict::LockedOut);
        let other = "127.0.0.2".parse().unwrap();
        assert_eq!(gate.judge(other, b"me", b"right").await, Verdict::Welcome);
    }

    #[tokio::test]
    async fn a_right_password_clears_the_slate() {
        let gate = gate();
        for _ in 0..3 * ATTEMPTS {
            assert_eq!(gate.judge(PEER, b"you", b"right").await, Verdict::Wrong);
            assert_eq!(gate.judge(PEER, b"me", b"right").await, Verdict::Welcome);
        }
    }

    #[tokio::test]
    async fn without_a_password_none_is_right() {
        let gate = Gate::new("me".into(), None, Vec::new());
        assert_eq!(gate.judge(PEER, b"me", b"").await, Verdict::Wrong);
    }

    #[test]
    fn key_files_are_read_or_refused() {
        let read = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            read_authorized_keys(file.path())
        };
        let keys = read(&format!("# mine\n\n{KEY}\nrestrict,no-pty {KEY}\n")).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(Gate::new("me".into(), None, keys.clone()).knows_key(b"me", &keys[0]));
        assert!(!Gate::new("me".into(), None, keys.clone()).knows_key(b"you", &keys[0]));
        assert!(read(&format!("from=\"10.0.0.1\" {KEY}")).is_err());
        assert!(read(&format!("cert-authority {KEY}")).is_err());
        assert!(read("nonsense").is_err());
    }
}

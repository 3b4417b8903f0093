//! The lines of a known_hosts file (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT), and how keys are shown.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::transport::escape;
use crate::transport::ssh_config::matches_pattern;

/// How a field begins that holds a hashed name.
const HASHED: &str = "|1|";

/// A line that names a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FiledKey {
    pub(super) marker: Marker,
    pub(super) blob: Vec<u8>,
    file: PathBuf,
    line: usize,
    /// By pattern: `ssh-keygen -R` finds the host only where it stands literally or hashed.
    by_pattern: bool,
}

/// What a line says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// It is the host's.
    Plain,
    /// It signs the certificates of the host.
    CertAuthority,
    /// It must not be accepted, as a host's key or as an authority's.
    Revoked,
}

impl FiledKey {
    /// Returns `file:line`.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// Returns how to be rid of it.
    pub(super) fn removal(&self, name: &str) -> String {
        match self.by_pattern {
            true => format!("correct line {} of {}", self.line, self.file.display()),
            false => format!("ssh-keygen -R '{}' -f {}", escape(name.as_bytes()), self.file.display()),
        }
    }
}

/// Returns the lines of a file's text that name this host; `name` is in lower case, with the port if it isn't 22.
pub(super) fn keys_for(name: &str, text: &[u8], file: &Path) -> Vec<FiledKey> {
    text.split(|&b| b == b'\n')
        .enumerate()
        .filter_map(|(index, line)| {
            let (marker, hosts, blob) = parse_line(line)?;
            let by_pattern = matches_host(name, hosts)?;
            Some(FiledKey { marker, blob, file: file.to_path_buf(), line: index + 1, by_pattern })
        })
        .collect()
}

/// Reads one line; `None` for comments, blank lines and whatever else OpenSSH skips.
fn parse_line(line: &[u8]) -> Option<(Marker, &str, Vec<u8>)> {
    // Only the comment behind the key may hold bytes that aren't text.
    let fields: Vec<&[u8]> = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).collect();
    let (marker, fields) = match fields.split_first()? {
        (&b"@cert-authority", rest) => (Marker::CertAuthority, rest),
        (&b"@revoked", rest) => (Marker::Revoked, rest),
        (first, _) if first.starts_with(b"@") || first.starts_with(b"#") => return None,
        _ => (Marker::Plain, fields.as_slice()),
    };
    let &[hosts, named_type, encoded, ..] = fields else { return None };
    let blob = STANDARD.decode(encoded).ok()?;
    (key_type(&blob)?.as_bytes() == named_type).then_some((marker, std::str::from_utf8(hosts).ok()?, blob))
}

/// Returns whether it is only a pattern with `*`, `?` or `!` that names the host in a line's first field; `None` where
/// none does.
fn matches_host(name: &str, hosts: &str) -> Option<bool> {
    if let Some(hashed) = hosts.strip_prefix(HASHED) {
        return matches_hash(name, hashed).unwrap_or(false).then_some(false);
    }
    let (mut matched, mut literally) = (false, false);
    for pattern in hosts.to_lowercase().split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if matches_pattern(name.as_bytes(), negated.as_bytes()) => return None,
            Some(_) => {}
            None => {
                matched |= matches_pattern(name.as_bytes(), pattern.as_bytes());
                literally |= pattern == name;
            }
        }
    }
    matched.then_some(!literally)
}

fn matches_hash(name: &str, hashed: &str) -> Option<bool> {
    let (salt, digest) = hashed.split_once('|')?;
    let (salt, digest) = (STANDARD.decode(salt).ok()?, STANDARD.decode(digest).ok()?);
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&digest).is_ok())
}

/// Returns a name as `HashKnownHosts` has it: salted and hashed.
///
/// # Errors
/// `Other` when the system gives no random bytes.
pub(super) fn hash_name(name: &str) -> Result<String> {
    // As long as the digest (OpenSSH: hostfile.c).
    let mut salt = [0; 20];
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Other, format!("hash the host's name: {e}"));
    getrandom::fill(&mut salt).map_err(|e| failed(&e))?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).map_err(|e| failed(&e))?;
    mac.update(name.as_bytes());
    Ok(format!("{HASHED}{}|{}", STANDARD.encode(salt), STANDARD.encode(mac.finalize().into_bytes())))
}

/// Returns the line, with its end, that files a key.
///
/// # Errors
/// `Protocol` for what isn't a key.
pub(super) fn new_line(hosts: &str, blob: &[u8]) -> Result<String> {
    let key_type = key_type(blob).ok_or_else(|| Error::new(ErrorKind::Protocol, "a host key without a type"))?;
    Ok(format!("{hosts} {key_type} {}\n", STANDARD.encode(blob)))
}

/// Returns `SHA256:…` as OpenSSH prints it.
pub(super) fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}

/// Returns type and fingerprint.
pub(super) fn describe(blob: &[u8]) -> String {
    format!("{} {}", type_name(blob), fingerprint(blob))
}

/// Returns the type as OpenSSH prints it in front of fingerprints.
pub(super) fn type_name(blob: &[u8]) -> String {
    match key_type(blob) {
        Some("ssh-ed25519") => "ED25519".into(),
        Some("ssh-rsa") => "RSA".into(),
        Some("ssh-dss") => "DSA".into(),
        Some(other) if other.starts_with("ecdsa-sha2-") => "ECDSA".into(),
        Some(other) => escape(other.as_bytes()),
        None => "unknown".into(),
    }
}

/// Returns the first string of a key blob (RFC 4253, section 6.6): its type.
pub(super) fn key_type(blob: &[u8]) -> Option<&str> {
    let (length, rest) = blob.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hashed_name_is_found_and_differs_each_time() {
        let (one, two) = (hash_name("[h]:2222").unwrap(), hash_name("[h]:2222").unwrap());
        assert_ne!(one, two);
        for hashed in [one, two] {
            assert_eq!(matches_host("[h]:2222", &hashed), Some(false));
            assert_eq!(matches_host("h", &hashed), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(text: Vec<u8>, name in "[a-z*?!.]{0,8}") {
            let _ = keys_for(&name, &text, Path::new("f"));
        }

        #[test]
        fn any_line_is_read(hosts in "[|!*?,a-z0-9\\[\\]:=]{0,30}", rest in ".{0,40}", blob: Vec<u8>) {
            let _ = keys_for("host", format!("{hosts} {rest}").as_bytes(), Path::new("f"));
            let _ = keys_for("host", format!("{hosts} ssh-rsa {}", STANDARD.encode(blob)).as_bytes(), Path::new("f"));
        }

        #[test]
        fn a_name_matches_itself_and_stars(name in "[a-z0-9.-]{1,20}", at in 0usize..20) {
            let at = at.min(name.len());
            prop_assert!(matches_pattern(name.as_bytes(), name.as_bytes()));
            let pattern = format!("{}*{}", &name[..at], &name[at..]);
            prop_assert!(matches_pattern(name.as_bytes(), pattern.as_bytes()));
            let longer = format!("{name}?");
            prop_assert!(!matches_pattern(name.as_bytes(), longer.as_bytes()));
        }
    }
}

//! Certificates of hosts (OpenSSH, PROTOCOL.certkeys): what a server shows, and whether it is good for a host.

use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, PublicKey};

use super::filed_key::key_type;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::escape;
use crate::transport::ssh_config::matches_pattern;

/// How the types of certificates end.
const SUFFIX: &str = "-cert-v01@openssh.com";
/// What tells a certificate in its bytes, and how often it may occur: the reader descends into an authority's key that
/// is itself a certificate, as deep as those go.
const MARK: &[u8] = b"-cert-v01@";
const MOST_MARKS: usize = 8;

/// What a server shows in the key exchange.
#[derive(Debug)]
pub(super) struct Shown {
    /// The host's key, that of the certificate if it is one.
    pub(super) key: Vec<u8>,
    pub(super) certificate: Option<HostCertificate>,
}

/// A certificate, not yet checked.
#[derive(Debug)]
pub(super) struct HostCertificate {
    certificate: Certificate,
    /// The key that signed it.
    pub(super) authority: Vec<u8>,
}

impl Shown {
    /// Reads a host key or certificate.
    ///
    /// # Errors
    /// `HostKey` for a certificate that can't be read.
    pub(super) fn read(blob: &[u8]) -> Result<Self> {
        if !key_type(blob).is_some_and(|name| name.ends_with(SUFFIX)) {
            return Ok(Self { key: blob.to_vec(), certificate: None });
        }
        let unreadable = |why: String| Error::new(ErrorKind::HostKey, format!("the server's certificate: {why}"));
        if blob.windows(MARK.len()).filter(|bytes| *bytes == MARK).count() > MOST_MARKS {
            return Err(unreadable("certificates within certificates".into()));
        }
        let certificate = Certificate::from_bytes(blob).map_err(|e| unreadable(escape(e.to_string().as_bytes())))?;
        let bytes = |key: &russh::keys::ssh_key::public::KeyData| {
            PublicKey::new(key.clone(), "").to_bytes().map_err(|e| unreadable(escape(e.to_string().as_bytes())))
        };
        let (key, authority) = (bytes(certificate.public_key())?, bytes(certificate.signature_key())?);
        Ok(Self { key, certificate: Some(HostCertificate { certificate, authority }) })
    }
}

impl HostCertificate {
    /// Returns why it isn't good for a host now, whoever signed it; as `sshkey_cert_check_host` of OpenSSH, which from
    /// version 10.3 on refuses a certificate that names no host.
    pub(super) fn flaw(&self, host: &str) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.flaw_at(host, now)
    }

    fn flaw_at(&self, host: &str, now: u64) -> Option<String> {
        let certificate = &self.certificate;
        if certificate.cert_type() != CertType::Host {
            return Some("it is a user's, not a host's".into());
        }
        if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
            return Some("it is signed by SHA-1".into());
        }
        if certificate.verify_signature().is_err() {
            return Some("its signature is wrong".into());
        }
        if now < certificate.valid_after() {
            return Some(format!("it is valid only from {} on", day(certificate.valid_after())));
        }
        if now >= certificate.valid_before() {
            return Some(format!("it ended {}", day(certificate.valid_before())));
        }
        let names = certificate.valid_principals();
        if !names.iter().any(|name| matches_pattern(host.as_bytes(), name.to_lowercase().as_bytes())) {
            let names = names.iter().map(|name| escape(name.as_bytes())).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "no host".into() } else { names };
            return Some(format!("it is for {names}"));
        }
        let critical = certificate.critical_options().iter().next();
        critical.map(|(name, _)| format!("it has the critical option {}, unknown here", escape(name.as_bytes())))
    }
}

fn day(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "at a time without end".into(), |time| time.to_string())
}

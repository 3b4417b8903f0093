//! What a server shows of itself: an SSH host key or a TLS certificate, made once and kept in the state folder.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm as KeyAlgorithm, HashAlg, PrivateKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// How a client recognises the server.
#[derive(Debug, Clone)]
pub enum Identity {
    /// An SSH host key.
    HostKey {
        /// As OpenSSH shows it: `SHA256:…`.
        fingerprint: String,
        /// As it stands in known_hosts behind the host: `ssh-ed25519 AAAA…`.
        public_key: String,
    },
    /// A self-signed TLS certificate.
    Certificate {
        /// SHA-256, as OpenSSL shows it: `AB:CD:…`.
        fingerprint: String,
        /// The PEM file, for `--tls-ca`.
        path: PathBuf,
    },
    /// None: plain FTP.
    None,
}

/// Which TLS versions are spoken; tests narrow it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 only.
    Only12,
    /// 1.3 only.
    Only13,
}

/// Reads the host key, or makes it.
pub(crate) fn host_key(state: &Path) -> Result<(PrivateKey, Identity)> {
    let path = state.join("serve").join("ssh_host_ed25519_key");
    let pem = read_or_make(&path, || {
        let seed = Zeroizing::new(random::<32>()?);
        let pair = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
        let key = PrivateKey::from(pair);
        Ok(key.to_openssh(LineEnding::LF).map_err(|e| other("write the host key", e))?.as_bytes().to_vec())
    })?;
    let key = PrivateKey::from_openssh(&pem).map_err(|e| other("read the host key", e).at(path.display()))?;
    if key.algorithm() != KeyAlgorithm::Ed25519 {
        return Err(Error::new(ErrorKind::Usage, "not an Ed25519 key").at(path.display()));
    }
    let public = key.public_key();
    let public_key = public.to_openssh().map_err(|e| other("write the host key", e))?;
    let identity = Identity::HostKey { fingerprint: public.fingerprint(HashAlg::Sha256).to_string(), public_key };
    Ok((key, identity))
}

/// Reads the certificate for this address, or makes it, and returns what the TLS side of a server needs.
pub(crate) fn tls(
    state: &Path,
    address: IpAddr,
    versions: TlsVersions,
) -> Result<(Arc<rustls::ServerConfig>, Identity)> {
    let folder = state.join("serve");
    // One file holds key and certificate, so that they can't be of two makings; the other is for clients to trust.
    let name = address.to_string().replace(':', "-");
    let both_path = folder.join(format!("tls-{name}-key.pem"));
    let both = read_or_make(&both_path, || make_certificate(address))?;
    let bad = |e: rustls::pki_types::pem::Error| other("read the certificate", e).at(both_path.display());
    let certificate = CertificateDer::from_pem_slice(&both).map_err(bad)?;
    let key = PrivateKeyDer::from_pem_slice(&both).map_err(bad)?;
    let path = folder.join(format!("tls-{name}-certificate.pem"));
    let identity = Identity::Certificate { fingerprint: fingerprint(&certificate), path: path.clone() };
    write_certificate(&path, &both)?;
    let versions: &[_] = match versions {
        TlsVersions::Both => rustls::ALL_VERSIONS,
        TlsVersions::Only12 => &[&rustls::version::TLS12],
        TlsVersions::Only13 => &[&rustls::version::TLS13],
    };
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .and_then(|b| b.with_no_client_auth().with_single_cert(vec![certificate], key))
            .map_err(|e| other("set up TLS", e))?;
    // Clients resume the control connection's session on each data connection, with 1.2 and 1.3 alike.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|e| other("set up TLS", e))?;
    Ok((Arc::new(config), identity))
}

/// Makes a password that is easy to paste and hard to guess (100 bits).
///
/// # Errors
/// When the system gives no random numbers.
pub fn random_password() -> Result<crate::transport::Secret> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters = random::<20>()?.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    Ok(crate::transport::Secret::new(letters.iter().collect::<String>()))
}

fn make_certificate(address: IpAddr) -> Result<Vec<u8>> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
    names.extend([address.to_string()].into_iter().filter(|a| !["127.0.0.1", "::1"].contains(&a.as_str())));
    let failed = |e: rcgen::Error| other("make a certificate", e);
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "haul serve");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()).into_bytes())
}

/// Puts the certificate without its key where a client can be pointed to.
fn write_certificate(path: &Path, both: &[u8]) -> Result<()> {
    let start = both.windows(22).position(|w| w == b"-----BEGIN CERTIFICATE").unwrap_or(0);
    let certificate = &both[start..];
    if fs::read(path).is_ok_and(|old| old == certificate) {
        return Ok(());
    }
    replace(path, certificate).map_err(|e| Error::io("write the certificate", e).at(path.display()))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let bytes: Vec<_> = Sha256::digest(certificate.as_ref()).iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

/// Reads a private file; if there is none, makes it. Of several who make it at once, the first one's stays.
fn read_or_make(path: &Path, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |what: &str, e: io::Error| Error::io(what, e).at(path.display());
    match fs::read(path) {
        Ok(text) => return Ok(Zeroizing::new(text)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("read the key", error)),
        Err(_) => {}
    }
    let text = Zeroizing::new(make()?);
    let folder = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| failed("make the state folder", e))?;
    let new = beside(path);
    write_private(&new, &text).map_err(|e| failed("write the key", e))?;
    let linked = fs::hard_link(&new, path);
    let _ = fs::remove_file(&new);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("write the key", error)),
        _ => fs::read(path).map(Zeroizing::new).map_err(|e| failed("read the key", e)),
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = beside(path);
    write_private(&new, text)?;
    fs::rename(&new, path)
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// A name beside `path` that no other writer uses.
fn beside(path: &Path) -> PathBuf {
    let unique = random::<8>().map_or_else(|_| std::process::id().to_string(), |bytes| super::digest::hex(&bytes));
    path.with_extension(format!("{unique}.new"))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| other("get random numbers", e))?;
    Ok(bytes)
}

fn other(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Other, what).with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_private() {
        let state = tempfile::tempdir().unwrap();
        let (first, _) = host_key(state.path()).unwrap();
        let (again, identity) = host_key(state.path()).unwrap();
        assert_eq!(first.public_key(), again.public_key());
        assert!(matches!(identity, Identity::HostKey { fingerprint, .. } if fingerprint.starts_with("SHA256:")));
        let local = "::1".parse().unwrap();
        let shown = |i: Identity| format!("{i:?}");
        let (_, one) = tls(state.path(), local, TlsVersions::Both).unwrap();
        let (_, two) = tls(state.path(), local, TlsVersions::Only12).unwrap();
        assert_eq!(shown(one), shown(two));
        let files: Vec<_> = fs::read_dir(state.path().join("serve")).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(files.len(), 3, "{files:?}");
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        let mode = fs::metadata(state.path().join("serve")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn the_certificate_file_holds_no_key() {
        let state = tempfile::tempdir().unwrap();
        let (_, identity) = tls(state.path(), "127.0.0.1".parse().unwrap(), TlsVersions::Both).unwrap();
        let Identity::Certificate { path, .. } = identity else { panic!("no certificate") };
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE"));
    }

    #[test]
    fn passwords_differ() {
        assert_ne!(random_password().unwrap(), random_password().unwrap());
        assert_eq!(random_password().unwrap().expose().len(), 20);
    }
}

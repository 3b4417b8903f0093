//! Our own certificate and its key, for servers that ask who we are.

use std::path::Path;

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{FtpOptions, Prompt, escape};

/// The longest file that is read.
const LONGEST: u64 = 1 << 20;
/// How often a passphrase is asked for.
const TRIES: u32 = 3;
/// Where a PKCS #8 key that is encrypted starts (RFC 7468, section 11).
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// Reads the certificate that the options name, with its key, whose passphrase is asked for. Blocks.
///
/// # Errors
/// `Usage` when there is none in the files, when they don't belong together, or without the right passphrase.
pub(super) fn read(
    options: &FtpOptions,
    provider: &CryptoProvider,
    prompt: &dyn Prompt,
) -> Result<Option<CertifiedKey>> {
    let Some(file) = &options.tls_cert else { return Ok(None) };
    let chain = read_chain(file)?;
    let key_file = options.tls_key.as_ref().unwrap_or(file);
    let key = read_key(key_file, prompt)?;
    let failed = |e: rustls::Error| usage("the certificate and its key", key_file).with_source(e);
    CertifiedKey::from_der(chain, key, provider).map(Some).map_err(failed)
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |e: pem::Error| usage("read the certificate", file).with_source(e);
    let text = read_file(file)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(failed)?;
    match chain.is_empty() {
        true => Err(usage("no certificate in the file", file)),
        false => Ok(chain),
    }
}

fn read_key(file: &Path, prompt: &dyn Prompt) -> Result<PrivateKeyDer<'static>> {
    let text = read_file(file)?;
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(usage("the key is encrypted in an old, weak way", file)
            .with_hint("openssl pkcs8 -topk8 -in OLD -out NEW encrypts it anew, in a way that haul can read"));
    }
    if let Some(encrypted) = encrypted_section(&text) {
        return decrypt(&encrypted, file, prompt);
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| match e {
        pem::Error::NoItemsFound => usage("no private key in the file", file)
            .with_hint("name the file of the key with --tls-key; it is PEM, as openssl writes it"),
        e => usage("read the private key", file).with_source(e),
    })
}

/// Returns the DER of the encrypted key, if there is one.
fn encrypted_section(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let start = text.find(ENCRYPTED)?;
    // Its label is none that the reader of PEM knows; the contents are written in the same way for all.
    let section = Zeroizing::new(text[start..].replacen("ENCRYPTED PRIVATE KEY", "PRIVATE KEY", 2));
    let der = PrivatePkcs8KeyDer::from_pem_slice(section.as_bytes()).ok()?;
    Some(Zeroizing::new(der.secret_pkcs8_der().to_vec()))
}

fn decrypt(encrypted: &[u8], file: &Path, prompt: &dyn Prompt) -> Result<PrivateKeyDer<'static>> {
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(encrypted)
        .map_err(|e| usage("read the encrypted private key", file).with_source(e))?;
    let question = format!("Passphrase for {}: ", shown(file));
    for _ in 0..TRIES {
        let Some(passphrase) = prompt.secret(&question) else {
            return Err(usage("the private key is encrypted, and nobody is there to give its passphrase", file)
                .with_hint("openssl pkey -in OLD -out NEW takes the passphrase off; keep that file to yourself"));
        };
        if let Ok(plain) = encrypted.decrypt(passphrase.expose()) {
            return Ok(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into());
        }
    }
    Err(usage("wrong passphrase for the private key", file))
}

fn read_file(file: &Path) -> Result<Zeroizing<String>> {
    let failed = |e| Error::io("read the certificate or its key", e).with_kind(ErrorKind::Usage).at(shown(file));
    let mut text = Zeroizing::new(String::new());
    let opened = std::fs::File::open(file).map_err(failed)?;
    std::io::Read::read_to_string(&mut std::io::Read::take(opened, LONGEST), &mut text).map_err(failed)?;
    Ok(text)
}

fn usage(what: &str, file: &Path) -> Error {
    Error::new(ErrorKind::Usage, what).at(shown(file))
}

fn shown(file: &Path) -> String {
    escape(file.as_os_str().as_encoded_bytes())
}

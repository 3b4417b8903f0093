//! Private keys in files, and the encryption of old PEM files (RFC 1421, section 4.6.1.1, as OpenSSL has it).

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use russh::keys::{Error, PrivateKey, decode_secret_key};
use zeroize::Zeroizing;

/// Reads a private key: OpenSSH's format, PKCS#1, PKCS#8, SEC1.
///
/// # Errors
/// Those of russh; `CouldNotReadKey` or `Unpad` for a wrong passphrase.
pub(super) fn decode(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, Error> {
    let Some(passphrase) = passphrase else { return decode_secret_key(text, None) };
    match Sealed::find(text) {
        None => decode_secret_key(text, Some(passphrase)),
        Some(sealed) => decode_secret_key(&sealed.open(passphrase)?, None),
    }
}

/// A PEM file of which the content is encrypted, not the key within.
struct Sealed<'a> {
    /// `RSA PRIVATE KEY` or another.
    label: &'a str,
    cipher: &'a str,
    iv: Vec<u8>,
    content: Vec<u8>,
}

impl<'a> Sealed<'a> {
    fn find(text: &'a str) -> Option<Self> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .skip_while(|line| !line.starts_with("-----BEGIN ") || !line.contains("PRIVATE KEY"));
        let label = lines.next()?.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
        let mut headers = lines.by_ref().take_while(|line| !line.is_empty());
        let (cipher, iv) = headers.find_map(|line| line.strip_prefix("DEK-Info:")?.trim().split_once(','))?;
        let encoded: String = lines
            .skip_while(|line| line.contains(':') || line.is_empty())
            .take_while(|line| !line.starts_with('-'))
            .collect();
        let iv = (0..iv.len() / 2).map(|at| u8::from_str_radix(iv.get(2 * at..2 * at + 2)?, 16).ok());
        Some(Self { label, cipher, iv: iv.collect::<Option<_>>()?, content: STANDARD.decode(encoded).ok()? })
    }

    /// Returns the same file without encryption.
    fn open(&self, passphrase: &str) -> Result<Zeroizing<String>, Error> {
        let content = match self.cipher {
            "AES-128-CBC" => self.decrypted::<cbc::Decryptor<aes::Aes128>>(passphrase, 16)?,
            "AES-192-CBC" => self.decrypted::<cbc::Decryptor<aes::Aes192>>(passphrase, 24)?,
            "AES-256-CBC" => self.decrypted::<cbc::Decryptor<aes::Aes256>>(passphrase, 32)?,
            "DES-EDE3-CBC" => self.decrypted::<cbc::Decryptor<des::TdesEde3>>(passphrase, 24)?,
            _ => return Err(Error::CouldNotReadKey),
        };
        let Self { label, .. } = self;
        let encoded = Zeroizing::new(STANDARD.encode(&*content));
        Ok(Zeroizing::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", *encoded)))
    }

    fn decrypted<C: KeyIvInit + BlockModeDecrypt>(
        &self,
        passphrase: &str,
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let salt = self.iv.get(..8).ok_or(Error::CouldNotReadKey)?;
        let key = key_of(passphrase, salt, length);
        let cipher = C::new_from_slices(&key, &self.iv).map_err(|_| Error::CouldNotReadKey)?;
        let mut content = Zeroizing::new(self.content.clone());
        let length = cipher.decrypt_padded::<Pkcs7>(&mut content)?.len();
        content.truncate(length);
        Ok(content)
    }
}

/// OpenSSL's `EVP_BytesToKey`, one round of MD5.
fn key_of(passphrase: &str, salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    while key.len() < length {
        let last = key.len().saturating_sub(16);
        let digest = Md5::new().chain_update(&key[last..]).chain_update(passphrase).chain_update(salt).finalize();
        key.extend_from_slice(&digest);
    }
    key.truncate(length);
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_file_says_is_read_or_refused(
            label in "(RSA |EC |OPENSSH |ENCRYPTED )?PRIVATE KEY",
            cipher in "AES-(128|192|256)-CBC|DES-EDE3-CBC|[A-Z0-9-]{0,12}",
            iv in "[0-9A-Fa-fé]{0,34}",
            content in "[A-Za-z0-9+/=\n]{0,200}",
            passphrase in ".{0,8}",
        ) {
            let text = format!(
                "-----BEGIN {label}-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: {cipher},{iv}\n\n{content}\n-----END {label}-----\n"
            );
            prop_assert!(decode(&text, Some(&passphrase)).is_err());
            prop_assert!(decode(&text, None).is_err());
        }

        #[test]
        fn any_text_is_read(text in "(-----BEGIN )?[ -~\n]{0,200}") {
            let _ = decode(&text, None);
            let _ = decode(&text, Some("x"));
        }
    }
}

//! What the `russh` engine asks for: algorithms, windows, keepalives.

use std::borrow::Cow;
use std::time::Duration;

use russh::client;
use russh::keys::Algorithm;
use russh::{Preferred, cipher, compression};

use super::known_hosts::KnownHosts;

/// Bytes that the server may send before it hears from us. russh grants more only when half of it is used up, so the
/// effective window swings between this and its half. What is really in flight, the SFTP codec decides.
const WINDOW: u32 = 16 << 20;
/// The longest packet that the server may send; OpenSSH fills 32 KiB.
const PACKET: u32 = 32 << 10;
/// Keepalives per timeout: a live server has said something well before its silence counts as death.
const KEEPALIVES: u32 = 3;

/// Returns the configuration for a host of which these keys are known.
pub(super) fn config(known: &KnownHosts, timeout: Duration) -> client::Config {
    client::Config {
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        keepalive_interval: Some(timeout / KEEPALIVES),
        // `Watched` decides when silence is death: it also sees stalled writes, and slow progress doesn't deceive it.
        keepalive_max: 0,
        nodelay: true,
        preferred: Preferred {
            host_key_certificates: match known.has_authority() {
                true => Cow::Owned(host_key_algorithms(&[])),
                false => Cow::Borrowed(&[]),
            },
            key: Cow::Owned(host_key_algorithms(&known.key_types())),
            cipher: Cow::Borrowed(ciphers()),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    }
}

/// AES-GCM is by far the fastest where the processor has AES instructions, and slow elsewhere.
pub(crate) fn ciphers() -> &'static [cipher::Name] {
    const AES_FIRST: &[cipher::Name] = &[
        cipher::AES_128_GCM,
        cipher::AES_256_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_128_CTR,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
    ];
    const CHACHA_FIRST: &[cipher::Name] = &[
        cipher::CHACHA20_POLY1305,
        cipher::AES_128_GCM,
        cipher::AES_256_GCM,
        cipher::AES_128_CTR,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
    ];
    #[cfg(target_arch = "x86_64")]
    let fast = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let fast = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let fast = false;
    if fast { AES_FIRST } else { CHACHA_FIRST }
}

/// Puts the types on file first. RSA with SHA-1 is not offered.
fn host_key_algorithms(on_file: &[&str]) -> Vec<Algorithm> {
    let mut algorithms: Vec<_> =
        Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None })).cloned().collect();
    algorithms.sort_by_key(|algorithm| {
        let name = if matches!(algorithm, Algorithm::Rsa { .. }) { "ssh-rsa" } else { algorithm.as_str() };
        !on_file.contains(&name)
    });
    algorithms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_on_file_are_asked_for_first_and_sha1_never() {
        let names = |on_file: &[&str]| -> Vec<_> {
            host_key_algorithms(on_file).iter().map(|algorithm| algorithm.as_str().to_owned()).collect()
        };
        assert_eq!(names(&["ssh-rsa"])[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
        assert_eq!(names(&["ecdsa-sha2-nistp256"])[0], "ecdsa-sha2-nistp256");
        assert!(!names(&["ssh-rsa"]).contains(&"ssh-rsa".to_owned()));
    }
}

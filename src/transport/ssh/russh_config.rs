//! What the `russh` engine asks for: algorithms, windows, keepalives.

use std::borrow::Cow;

use russh::client;
use russh::keys::Algorithm;
use russh::{Preferred, cipher, compression, kex, mac};

use super::algorithms::{Repertoire, Repertoires};
use super::known_hosts::KnownHosts;
use super::target::Target;

/// Bytes that the server may send before it hears from us. russh grants more only when half of it is used up, so the
/// effective window swings between this and its half. What is really in flight, the SFTP codec decides.
const WINDOW: u32 = 16 << 20;
/// The longest packet that the server may send; OpenSSH fills 32 KiB.
const PACKET: u32 = 32 << 10;
/// Stands in lists of key exchanges without being one.
const EXTENSIONS: [kex::Name; 4] = [
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];
/// With SHA-1: not offered unless somebody asks for it.
const RSA_BY_SHA1: &str = "ssh-rsa";

/// Returns the configuration for a target of which these keys are known.
pub(super) fn config(known: &KnownHosts, target: &Target) -> client::Config {
    let offer = &target.offer;
    let kex = named::<kex::Name>(&offer.kex).chain(EXTENSIONS).collect();
    let key = offer.host_keys_for(&known.key_types());
    client::Config {
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        keepalive_interval: Some(target.alive.interval),
        // `Watched` decides when silence is death: it also sees stalled writes, and slow progress doesn't deceive it.
        keepalive_max: 0,
        nodelay: true,
        preferred: Preferred {
            kex: Cow::Owned(kex),
            host_key_certificates: match known.has_authority() {
                true => Cow::Owned(named_keys(&offer.host_keys)),
                false => Cow::Borrowed(&[]),
            },
            key: Cow::Owned(named_keys(&key)),
            cipher: Cow::Owned(named(&offer.ciphers).collect()),
            mac: Cow::Owned(named(&offer.macs).collect()),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        ..client::Config::default()
    }
}

fn named_keys(names: &[String]) -> Vec<Algorithm> {
    names.iter().filter_map(|name| Algorithm::new(name).ok()).collect()
}

fn named<'a, T: TryFrom<&'a str>>(names: &'a [String]) -> impl Iterator<Item = T> {
    names.iter().filter_map(|name| T::try_from(name).ok())
}

/// Returns what russh has; what protects nothing is left out.
pub(super) fn repertoires() -> Repertoires {
    fn names<T: AsRef<str> + 'static>(list: impl IntoIterator<Item = &'static T>) -> Vec<&'static str> {
        let real = |name: &&str| !["none", "clear"].contains(name) && !EXTENSIONS.iter().any(|e| e.as_ref() == *name);
        list.into_iter().map(AsRef::as_ref).filter(real).collect()
    }
    let (Cow::Borrowed(kex), Cow::Borrowed(macs)) = (Preferred::DEFAULT.kex, Preferred::DEFAULT.mac) else {
        return Repertoires::default();
    };
    let host_keys: Vec<_> = vec![
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ];
    Repertoires {
        engine: "russh",
        kex: Repertoire { usual: names(kex), all: names(kex::ALL_KEX_ALGORITHMS.iter().copied()) },
        host_keys: Repertoire { usual: host_keys.clone(), all: host_keys.into_iter().chain([RSA_BY_SHA1]).collect() },
        ciphers: Repertoire { usual: names(ciphers()), all: names(cipher::ALL_CIPHERS.iter().copied()) },
        macs: Repertoire { usual: names(macs), all: names(mac::ALL_MAC_ALGORITHMS.iter().copied()) },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_algorithm_and_sha1_is_none_of_the_usual() {
        let has = repertoires();
        for of in [&has.kex, &has.host_keys, &has.ciphers, &has.macs] {
            assert!(!of.usual.is_empty() && of.usual.iter().all(|name| of.all.contains(name)), "{of:?}");
            assert!(!of.usual.iter().any(|name| name.ends_with("sha1") || *name == "ssh-rsa"), "{of:?}");
            assert!(!of.all.contains(&"none"), "{of:?}");
        }
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(named::<kex::Name>(&owned(&has.kex.all)).count(), has.kex.all.len());
        assert_eq!(named::<cipher::Name>(&owned(&has.ciphers.all)).count(), has.ciphers.all.len());
        assert_eq!(named::<mac::Name>(&owned(&has.macs.all)).count(), has.macs.all.len());
        assert!(has.host_keys.all.iter().all(|name| Algorithm::new(name).is_ok()));
    }
}

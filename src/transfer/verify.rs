//! Proving that what arrived is what was sent.

use sha2::Digest as _;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Algorithm, Capabilities, Follow, ReadRange};

use super::types::Location;

/// Fails unless the part has exactly this size; asks for it where closing the part didn't tell.
pub(super) async fn size_is(part: &Location, expected: u64, told: Option<u64>) -> Result<()> {
    let found = match told {
        Some(size) => Some(size),
        None => part.transport.stat(&part.path, Follow::Nothing).await?.size,
    };
    match found {
        Some(found) if found != expected => {
            Err(Error::new(ErrorKind::VerifyFailed, format!("{found} bytes arrived where {expected} were sent"))
                .at(part.shown()))
        }
        // Unknown is no proof of anything wrong: every byte was acknowledged by finish.
        _ => Ok(()),
    }
}

/// Returns the strongest digest that both ends can give.
pub(super) fn common_algorithm(source: &Capabilities, destination: &Capabilities) -> Option<Algorithm> {
    let gives = |end: &Capabilities, algorithm| end.local || end.digests.contains(&algorithm);
    [Algorithm::Sha512, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5, Algorithm::Crc32]
        .into_iter()
        // SHA-512 is asked for only where SHA-256 isn't there: it proves nothing more about accidents.
        .filter(|algorithm| gives(source, *algorithm) && gives(destination, *algorithm))
        .min_by_key(|algorithm| match algorithm {
            Algorithm::Sha256 => 0,
            Algorithm::Sha512 => 1,
            Algorithm::Sha1 => 2,
            Algorithm::Md5 => 3,
            Algorithm::Crc32 => 4,
        })
}

/// Fails with `VerifyFailed` unless both ends have the same digest.
pub(super) async fn digests_match(source: &Location, part: &Location, algorithm: Algorithm) -> Result<()> {
    let (sent, arrived) = tokio::try_join!(digest_of(source, algorithm), digest_of(part, algorithm))?;
    if sent == arrived {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::VerifyFailed,
        format!("its {} is {} where the source has {}", algorithm.name(), hex(&arrived), hex(&sent)),
    )
    .at(part.shown()))
}

async fn digest_of(at: &Location, algorithm: Algorithm) -> Result<Vec<u8>> {
    if !at.transport.capabilities().local {
        return at.transport.digest(&at.path, algorithm, ReadRange::ALL).await;
    }
    let mut stream = at.transport.open_read(&at.path, ReadRange::ALL).await?;
    let mut hasher = Hasher::new(algorithm);
    loop {
        let chunk = stream.read().await?;
        if chunk.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.update(&chunk);
    }
}

/// One of the digests that servers speak.
enum Hasher {
    Sha512(sha2::Sha512),
    Sha256(sha2::Sha256),
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
    Crc32(crc32fast::Hasher),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            Algorithm::Md5 => Self::Md5(md5::Md5::new()),
            Algorithm::Crc32 => Self::Crc32(crc32fast::Hasher::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha512(h) => h.update(bytes),
            Self::Sha256(h) => h.update(bytes),
            Self::Sha1(h) => h.update(bytes),
            Self::Md5(h) => h.update(bytes),
            Self::Crc32(h) => h.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha512(h) => h.finalize().to_vec(),
            Self::Sha256(h) => h.finalize().to_vec(),
            Self::Sha1(h) => h.finalize().to_vec(),
            Self::Md5(h) => h.finalize().to_vec(),
            Self::Crc32(h) => h.finalize().to_be_bytes().to_vec(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_everybody_computes() {
        let of = |algorithm| {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"ab");
            hasher.update(b"c");
            hex(&hasher.finish())
        };
        assert_eq!(of(Algorithm::Crc32), "352441c2");
        assert_eq!(of(Algorithm::Md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(of(Algorithm::Sha1), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(of(Algorithm::Sha256).starts_with("ba7816bf"));
        assert!(of(Algorithm::Sha512).starts_with("ddaf35a1"));
    }
}

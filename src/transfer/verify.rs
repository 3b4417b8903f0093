//! Proving that what arrived is what was sent.

use sha2::Digest as _;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Algorithm, Capabilities, FileKind, Follow, ReadRange};

use super::types::Location;

/// Fails unless the part has exactly this size; asks for it where closing the part didn't tell.
pub(super) async fn size_is(part: &Location, expected: u64, told: Option<u64>) -> Result<()> {
    let found = match told {
        Some(size) => Some(size),
        None => {
            let entry = part.transport.stat(&part.path, Follow::Nothing).await?;
            // A server that doesn't tell kinds tells a size.
            let is_file = entry.kind == FileKind::File || (entry.kind == FileKind::Other && entry.size.is_some());
            if !is_file {
                let text = "somebody put something else into the place of what was sent";
                return Err(Error::new(ErrorKind::Other, text).at(&part.path));
            }
            entry.size
        }
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

/// Compares both ends by the strongest digest that both give; returns which that was.
///
/// # Errors
/// `VerifyFailed` when they differ; `Unsupported` when there is none.
pub(super) async fn digests_alike(source: &Location, part: &Location) -> Result<Algorithm> {
    let algorithms = common_algorithms(&source.transport.capabilities(), &part.transport.capabilities());
    digests_match(source, part, &algorithms).await
}

/// Returns the digests that both ends can give, or may be asked for, strongest first.
pub(crate) fn common_algorithms(source: &Capabilities, destination: &Capabilities) -> Vec<Algorithm> {
    let gives = |end: &Capabilities, algorithm| end.local || end.digests.contains(&algorithm);
    let all = [Algorithm::Sha512, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5, Algorithm::Crc32];
    all.into_iter().filter(|algorithm| gives(source, *algorithm) && gives(destination, *algorithm)).collect()
}

/// Compares both ends by the strongest of these digests that both give after all; returns which that was.
///
/// # Errors
/// `VerifyFailed` when they differ; `Unsupported` when there is none.
pub(super) async fn digests_match(source: &Location, part: &Location, of: &[Algorithm]) -> Result<Algorithm> {
    for &algorithm in of {
        match tokio::try_join!(digest_of(source, algorithm), digest_of(part, algorithm)) {
            Ok((sent, arrived)) => return same(algorithm, &sent, &arrived).map_err(|e| e.at(part.shown())),
            // A server doesn't always say what it can't do before it is asked.
            Err(e) if e.kind() == ErrorKind::Unsupported => tracing::debug!("another digest: {}", e.chain()),
            Err(e) => return Err(e),
        }
    }
    Err(none(source, part))
}

/// Makes the error of ends that have no digest in common.
pub(super) fn none(source: &Location, part: &Location) -> Error {
    let far = if source.transport.capabilities().local { part } else { source };
    Error::new(ErrorKind::Unsupported, "the server gives no digest")
        .at(far.shown())
        .with_hint("use --verify auto, which proves what it can")
}

fn same(algorithm: Algorithm, sent: &[u8], arrived: &[u8]) -> Result<Algorithm> {
    if sent == arrived {
        return Ok(algorithm);
    }
    let text = format!("its {} is {} where the source has {}", algorithm.name(), hex(arrived), hex(sent));
    Err(Error::new(ErrorKind::VerifyFailed, text))
}

async fn digest_of(at: &Location, algorithm: Algorithm) -> Result<Vec<u8>> {
    if !at.transport.capabilities().local {
        return at.transport.digest(&at.path, algorithm, ReadRange::ALL).await;
    }
    read_digest(at, algorithm).await
}

/// Reads a file and digests what comes.
async fn read_digest(at: &Location, algorithm: Algorithm) -> Result<Vec<u8>> {
    let mut stream = at.transport.open_read(&at.path, ReadRange::ALL).await?;
    let mut hasher = Hasher::new(algorithm);
    loop {
        let chunk = stream.read().await?;
        if chunk.is_empty() {
            stream.finish().await?;
            return Ok(hasher.finish());
        }
        hasher.update(&chunk);
    }
}

/// The digests of what passes through a pipe, which can't be read twice: all that the other end may be asked for.
pub(super) struct Passing(Vec<(Algorithm, Hasher)>);

impl Passing {
    /// Begins, for a file at the other end.
    pub(super) fn new(of: &Location) -> Self {
        let capabilities = of.transport.capabilities();
        let algorithms = common_algorithms(&capabilities, &capabilities);
        Self(algorithms.into_iter().map(|algorithm| (algorithm, Hasher::new(algorithm))).collect())
    }

    /// Returns whether the other end gives no digest.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for (_, hasher) in &mut self.0 {
            hasher.update(bytes);
        }
    }

    /// Compares what passed with the file; errors as [`digests_match`].
    pub(super) async fn matches(self, file: &Location) -> Result<Algorithm> {
        for (algorithm, passed) in self.0 {
            match digest_of(file, algorithm).await {
                Ok(found) => return same(algorithm, &passed.finish(), &found).map_err(|e| e.at(file.shown())),
                Err(e) if e.kind() == ErrorKind::Unsupported => {}
                Err(e) => return Err(e),
            }
        }
        Err(none(file, file))
    }
}

/// A digest being computed.
pub(super) enum Hasher {
    Sha512(sha2::Sha512),
    Sha256(sha2::Sha256),
    Blake3(Box<blake3::Hasher>),
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
    Crc32(crc32fast::Hasher),
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Blake3 => Self::Blake3(Box::default()),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            Algorithm::Md5 => Self::Md5(md5::Md5::new()),
            Algorithm::Crc32 => Self::Crc32(crc32fast::Hasher::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha512(h) => h.update(bytes),
            Self::Sha256(h) => h.update(bytes),
            Self::Blake3(h) => {
                h.update(bytes);
            }
            Self::Sha1(h) => h.update(bytes),
            Self::Md5(h) => h.update(bytes),
            Self::Crc32(h) => h.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha512(h) => h.finalize().to_vec(),
            Self::Sha256(h) => h.finalize().to_vec(),
            Self::Blake3(h) => h.finalize().as_bytes().to_vec(),
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
        assert!(of(Algorithm::Blake3).starts_with("6437b3ac"));
    }
}

//! Digests of a part of a file, computed here so that the client needn't read it back.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use crate::transport::Algorithm;

/// Every algorithm offered, strongest first.
pub(crate) const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Sha512, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5, Algorithm::Crc32];

const CHUNK: usize = 256 * 1024;

/// Returns the digest of the bytes from `start` up to `end`, or to the end of the file if that comes first.
pub(crate) fn of_file(file: &File, algorithm: Algorithm, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; CHUNK];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let read = file.read_at(&mut buffer[..want], at)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(hasher.finish())
}

enum Hasher {
    Sha512(Sha512),
    Sha256(Sha256),
    Blake3(Box<blake3::Hasher>),
    Sha1(Sha1),
    Md5(Md5),
    Crc32(crc32fast::Hasher),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Blake3 => Self::Blake3(Box::default()),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Md5 => Self::Md5(Md5::new()),
            Algorithm::Crc32 => Self::Crc32(crc32fast::Hasher::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
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

    fn finish(self) -> Vec<u8> {
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

/// Writes bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"xx123456789yy").unwrap();
        let digest = |algorithm| hex(&of_file(&file, algorithm, 2, 11).unwrap());
        assert_eq!(digest(Algorithm::Crc32), "cbf43926");
        assert_eq!(digest(Algorithm::Md5), "25f9e794323b453885f5181f1b624d0b");
        assert_eq!(digest(Algorithm::Sha1), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        assert_eq!(digest(Algorithm::Sha256), "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225");
        assert!(
            digest(Algorithm::Sha512).starts_with("d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274a")
        );
        assert_eq!(of_file(&file, Algorithm::Md5, 50, 60).unwrap(), of_file(&file, Algorithm::Md5, 0, 0).unwrap());
    }
}

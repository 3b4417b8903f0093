//! Digests that the server computes: by `check-file`, else by `sha256sum` over SSH.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::channel::SLOW_FACTOR;
use super::client::Client;
use super::request::{CheckFile, Extended, Request};
use super::response::CheckedFile;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::ssh::Session;
use crate::transport::{Algorithm, ReadRange, RemotePath};

/// How long the probe may hold up a login when SFTP itself has already started.
const PROBE_PATIENCE: Duration = Duration::from_millis(300);
const SHA256_OF_X: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

/// Finds out whether the server runs `sha256sum`: has it digest a letter. Runs beside the start of SFTP and costs no
/// round trip of its own.
pub(super) async fn probe(session: Arc<dyn Session>) -> bool {
    let answer = session.exec(b"sh -c 'printf x | sha256sum'").await;
    answer.is_ok_and(|output| output.starts_with(SHA256_OF_X.as_bytes()))
}

/// Returns the algorithms that [`digest`] can be asked for, by what the server offers and what the probe finds.
pub(super) async fn algorithms(client: &Client, mut probe: JoinHandle<bool>) -> Vec<Algorithm> {
    if check_file(client) {
        probe.abort();
        return vec![Algorithm::Sha512, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5];
    }
    match tokio::time::timeout(PROBE_PATIENCE + 3 * client.round_trip(), &mut probe).await {
        Ok(Ok(true)) => vec![Algorithm::Sha256],
        outcome => {
            tracing::debug!("the server runs no sha256sum: {outcome:?}");
            probe.abort();
            Vec::new()
        }
    }
}

/// Asks for a digest. `Unsupported` where the server can't give this one.
pub(super) async fn digest(
    client: &Client,
    path: &RemotePath,
    algorithm: Algorithm,
    range: ReadRange,
) -> Result<Vec<u8>> {
    if check_file(client) {
        return by_extension(client, path, algorithm, range).await;
    }
    if range != ReadRange::ALL {
        return Err(Error::new(ErrorKind::Unsupported, "digest: the server digests whole files only"));
    }
    by_command(client, path).await
}

pub(super) fn unsupported(algorithm: Algorithm) -> Error {
    Error::new(ErrorKind::Unsupported, format!("digest: the server gives no {}", algorithm.name()))
}

/// Servers name it in one way or another when they greet.
fn check_file(client: &Client) -> bool {
    ["check-file", "check-file-name", "check-file-handle"].into_iter().any(|name| client.offers(name))
}

async fn by_extension(client: &Client, path: &RemotePath, algorithm: Algorithm, range: ReadRange) -> Result<Vec<u8>> {
    let (name, size) = match algorithm {
        Algorithm::Sha512 => ("sha512", 64),
        Algorithm::Sha256 => ("sha256", 32),
        Algorithm::Sha1 => ("sha1", 20),
        Algorithm::Md5 => ("md5", 16),
        Algorithm::Crc32 => return Err(unsupported(algorithm)),
    };
    let length = range.end.map_or(0, |end| end.saturating_sub(range.start));
    if range.end.is_some() && length == 0 {
        return Err(Error::new(ErrorKind::Unsupported, "digest: an empty range"));
    }
    let check = CheckFile {
        file: super::bytes_of(path),
        algorithms: Bytes::from_static(name.as_bytes()),
        start: range.start,
        length,
        block: 0,
    };
    let data = client.extended(Extended::CheckFileName(check), "digest").await?;
    let checked = CheckedFile::decode(data)?;
    if checked.algorithm != name.as_bytes() || checked.digests.len() != size {
        return Err(unsupported(algorithm));
    }
    Ok(checked.digests.to_vec())
}

async fn by_command(client: &Client, path: &RemotePath) -> Result<Vec<u8>> {
    // Tells what is wrong with the path better than a command can.
    client.attrs(Request::Stat(super::bytes_of(path)), "digest").await?;
    let command = command(path.as_bytes());
    let patience = client.timeout().saturating_mul(SLOW_FACTOR);
    let output = tokio::time::timeout(patience, client.session().exec(command.as_bytes()))
        .await
        .map_err(|_| Error::new(ErrorKind::Timeout, "digest: the command took too long"))?
        .map_err(|error| error.context("digest"))?;
    let digest = output.get(..64).and_then(|hex| from_hex(std::str::from_utf8(hex).ok()?));
    digest.ok_or_else(|| Error::new(ErrorKind::Other, "digest: sha256sum answered something else"))
}

/// Writes a command that any login shell hands to `sh` as it is: the path is in it as octal numbers only.
fn command(path: &[u8]) -> String {
    let mut octal = String::with_capacity(path.len() * 5);
    for byte in path {
        let _ = write!(octal, "\\0{byte:03o}");
    }
    // The x keeps newlines at the end of the name, which $(…) would drop.
    format!("sh -c 'p=$(printf %b \"{octal}x\") && sha256sum < \"${{p%x}}\"'")
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_reaches_the_command_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["plain", "a'b\"c", "$(touch x) `id` \\n %s !!", "-rf *", "end\n\n", "grün"] {
            let path = dir.path().join(name);
            std::fs::write(&path, "x").unwrap();
            for shell in ["sh", "bash"] {
                let command = command(path.as_os_str().as_encoded_bytes());
                let output = std::process::Command::new(shell).arg("-c").arg(&command).output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                assert_eq!(text, format!("{SHA256_OF_X}  -\n"), "{name:?} in {shell}");
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6);
    }
}

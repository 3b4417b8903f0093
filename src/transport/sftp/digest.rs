//! Digests that the server computes: by `check-file`, else by `sha256sum` over SSH.

use std::fmt::Write as _;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use super::channel::SLOW_FACTOR;
use super::client::Client;
use super::request::{CheckFile, Extended, Request};
use super::response::CheckedFile;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Algorithm, ReadRange, RemotePath};

/// Commands that run at once: OpenSSH's server lets one connection have ten channels.
const COMMANDS: usize = 6;
/// Below so many bytes, a few READs cost less than a command does.
const COMMAND_PAYS_FROM: u64 = 256 * 1024;
const SHA256_OF_X: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

/// The digests of one endpoint. How it computes them is found out when the first is wanted: a login has no time for it.
#[derive(Debug)]
pub(super) struct Digests {
    announced: bool,
    /// It is OpenSSH's server, which has no `check-file`.
    plain: bool,
    means: OnceCell<Means>,
    commands: Semaphore,
}

impl Digests {
    /// Takes note of what the server announces.
    pub(super) fn new(client: &Client) -> Self {
        Self {
            announced: announces_check_file(client),
            plain: is_plain(client),
            means: OnceCell::new(),
            commands: Semaphore::new(COMMANDS),
        }
    }

    /// Returns from which size on a digest costs less than reading.
    pub(super) fn pay_from(&self) -> u64 {
        match self.means.get() {
            None if self.plain && !self.announced => COMMAND_PAYS_FROM,
            Some(Means::Command) => COMMAND_PAYS_FROM,
            _ => 0,
        }
    }

    /// Returns the algorithms that it can be asked for; where the server announces nothing, those that it may have.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        match self.means.get() {
            None if self.plain && !self.announced => Means::Command.algorithms(),
            None => Means::Extension.algorithms(),
            Some(means) => means.algorithms(),
        }
    }

    /// Asks for a digest. `Unsupported` where the server can't give this one.
    pub(super) async fn digest(
        &self,
        client: &Client,
        path: &RemotePath,
        algorithm: Algorithm,
        range: ReadRange,
    ) -> Result<Vec<u8>> {
        let means = self.means.get_or_try_init(|| Means::find(client)).await?;
        let _turn = match means {
            // It is never closed.
            Means::Command => self.commands.acquire().await.ok(),
            _ => None,
        };
        means.digest(client, path, algorithm, range).await
    }
}

/// Returns whether the server runs `sha256sum`: has it digest a letter.
async fn runs_command(client: &Client) -> Result<bool> {
    let probe = client.session().exec(b"sh -c 'printf x | sha256sum'");
    let patience = client.timeout();
    match tokio::time::timeout(patience, probe).await {
        Ok(Ok(output)) => Ok(output.starts_with(SHA256_OF_X.as_bytes())),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionLost => Err(error.context("digest")),
        Ok(Err(error)) => {
            tracing::debug!("the server runs no sha256sum: {}", error.chain());
            Ok(false)
        }
        Err(_) => Err(Error::new(ErrorKind::Timeout, "digest: the server takes too long to run a command")),
    }
}

/// How a server computes digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// `check-file-name`.
    Extension,
    /// `sha256sum`.
    Command,
    /// Not at all.
    Nothing,
}

impl Means {
    async fn find(client: &Client) -> Result<Self> {
        if knows_check_file(client).await {
            return Ok(Self::Extension);
        }
        Ok(if runs_command(client).await? { Self::Command } else { Self::Nothing })
    }

    fn algorithms(self) -> Vec<Algorithm> {
        match self {
            Self::Extension => vec![Algorithm::Sha512, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5],
            Self::Command => vec![Algorithm::Sha256],
            Self::Nothing => Vec::new(),
        }
    }

    async fn digest(
        self,
        client: &Client,
        path: &RemotePath,
        algorithm: Algorithm,
        range: ReadRange,
    ) -> Result<Vec<u8>> {
        match self {
            Self::Extension => by_extension(client, path, algorithm, range).await,
            Self::Command if algorithm == Algorithm::Sha256 && range == ReadRange::ALL => {
                by_command(client, path).await
            }
            Self::Command | Self::Nothing => Err(unsupported(algorithm)),
        }
    }
}

fn unsupported(algorithm: Algorithm) -> Error {
    Error::new(ErrorKind::Unsupported, format!("digest: the server gives no {}", algorithm.name()))
}

fn announces_check_file(client: &Client) -> bool {
    ["check-file", "check-file-name", "check-file-handle"].into_iter().any(|name| client.offers(name))
}

/// Whether it is OpenSSH's server, which needs no asking.
fn is_plain(client: &Client) -> bool {
    client.offers("limits@openssh.com")
}

/// Whether the server has `check-file-name`. Servers name it in one way or another when they greet, but ProFTPD has it
/// and doesn't say so to clients of version 3: it tells that the root can't be digested, being a directory.
async fn knows_check_file(client: &Client) -> bool {
    if announces_check_file(client) {
        return true;
    }
    if is_plain(client) {
        return false;
    }
    let check = check_file(Bytes::from_static(b"/"), "sha256", ReadRange::ALL);
    let answer = client.extended(Extended::CheckFileName(check), "digest").await;
    answer.is_err_and(|error| error.kind() == ErrorKind::IsADirectory)
}

fn check_file(file: Bytes, algorithm: &'static str, range: ReadRange) -> CheckFile {
    let algorithms = Bytes::from_static(algorithm.as_bytes());
    let length = range.end.map_or(0, |end| end.saturating_sub(range.start));
    CheckFile { file, algorithms, start: range.start, length, block: 0 }
}

async fn by_extension(client: &Client, path: &RemotePath, algorithm: Algorithm, range: ReadRange) -> Result<Vec<u8>> {
    let (name, size) = match algorithm {
        Algorithm::Sha512 => ("sha512", 64),
        Algorithm::Sha256 => ("sha256", 32),
        Algorithm::Sha1 => ("sha1", 20),
        Algorithm::Md5 => ("md5", 16),
        Algorithm::Blake3 | Algorithm::Crc32 => return Err(unsupported(algorithm)),
    };
    // A length of 0 would mean "to the end". ProFTPD, which doesn't announce it, digests more than the range.
    let is_empty = range.end.is_some_and(|end| end <= range.start);
    if is_empty || range != ReadRange::ALL && !announces_check_file(client) {
        return Err(Error::new(ErrorKind::Unsupported, "digest: the server digests whole files only"));
    }
    let check = check_file(super::bytes_of(path), name, range);
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

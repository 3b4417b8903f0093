//! Digests that the server computes: by `check-file`, else by `sha256sum` and its sisters over SSH.

use std::fmt::Write as _;

use bytes::Bytes;

use super::channel::SLOW_FACTOR;
use super::client::Client;
use super::request::{CheckFile, Extended, Request};
use super::response::CheckedFile;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Algorithm, ReadRange, RemotePath};

/// Returns the algorithms that [`digest`] can be asked for.
///
/// Where there is no `check-file`, whether the server runs commands is not tried before a digest is wanted: a login
/// that runs a command would trip alarms and forced commands of servers that are used for files only.
pub(super) fn algorithms(client: &Client) -> Vec<Algorithm> {
    if check_file(client) {
        return vec![Algorithm::Sha512, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5];
    }
    vec![Algorithm::Sha256]
}

/// Asks for a digest. `Unsupported` where the server can't give this one.
pub(super) async fn digest(
    client: &Client,
    path: &RemotePath,
    algorithm: Algorithm,
    range: ReadRange,
) -> Result<Vec<u8>> {
    let wire = sizes(algorithm).ok_or_else(|| unsupported(algorithm))?;
    if check_file(client) {
        return by_extension(client, path, algorithm, wire, range).await;
    }
    if range != ReadRange::ALL {
        return Err(Error::new(ErrorKind::Unsupported, "digest: the server digests whole files only"));
    }
    by_command(client, path, algorithm, wire).await
}

/// An algorithm's name on the wire and in the command, its length, and its digest of the letter `x`.
#[derive(Clone, Copy)]
struct Known {
    name: &'static str,
    length: usize,
    of_x: &'static str,
}

fn sizes(algorithm: Algorithm) -> Option<Known> {
    let known = |name, length, of_x| Some(Known { name, length, of_x });
    match algorithm {
        Algorithm::Sha512 => known(
            "sha512",
            64,
            "a4abd4448c49562d828115d13a1fccea927f52b4d5459297f8b43e42da89238bc13626e43dcb38ddb082488927ec904fb42057443983e88585179d50551afe62",
        ),
        Algorithm::Sha256 => known("sha256", 32, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
        Algorithm::Sha1 => known("sha1", 20, "11f6ad8ec52a2984abaafd7c3b516503785c2072"),
        Algorithm::Md5 => known("md5", 16, "9dd4e461268c8034f5c8564e155c67a6"),
        Algorithm::Crc32 => None,
    }
}

fn unsupported(algorithm: Algorithm) -> Error {
    Error::new(ErrorKind::Unsupported, format!("digest: the server gives no {}", algorithm.name()))
}

/// Servers name it in one way or another when they greet.
fn check_file(client: &Client) -> bool {
    ["check-file", "check-file-name", "check-file-handle"].into_iter().any(|name| client.offers(name))
}

async fn by_extension(
    client: &Client,
    path: &RemotePath,
    algorithm: Algorithm,
    known: Known,
    range: ReadRange,
) -> Result<Vec<u8>> {
    let length = range.end.map_or(0, |end| end.saturating_sub(range.start));
    if range.end.is_some() && length == 0 {
        return Err(Error::new(ErrorKind::Unsupported, "digest: an empty range"));
    }
    let check = CheckFile {
        file: super::bytes_of(path),
        algorithms: Bytes::from_static(known.name.as_bytes()),
        start: range.start,
        length,
        block: 0,
    };
    let data = client.extended(Extended::CheckFileName(check), "digest").await?;
    let checked = CheckedFile::decode(data)?;
    if checked.algorithm != known.name.as_bytes() || checked.digests.len() != known.length {
        return Err(unsupported(algorithm));
    }
    Ok(checked.digests.to_vec())
}

/// Runs the command twice in one go: on a letter whose digest is known, to see that it is what it says, and on the file.
async fn by_command(client: &Client, path: &RemotePath, algorithm: Algorithm, known: Known) -> Result<Vec<u8>> {
    // Tells what is wrong with the path better than a command can.
    client.attrs(Request::Stat(super::bytes_of(path)), "digest").await?;
    let command = command(known.name, path.as_bytes());
    let patience = client.timeout().saturating_mul(SLOW_FACTOR);
    let output = tokio::time::timeout(patience, client.session().exec(command.as_bytes()))
        .await
        .map_err(|_| Error::new(ErrorKind::Timeout, "digest: the command took too long"))?
        .map_err(|error| match error.kind() {
            ErrorKind::ConnectionLost | ErrorKind::Timeout => error,
            _ => unsupported(algorithm).with_source(error),
        })?;
    let output = String::from_utf8_lossy(&output);
    let mut digests = output.lines().filter_map(|line| line.split_whitespace().next());
    match (digests.next(), digests.next().and_then(|digest| from_hex(digest, known.length))) {
        (Some(of_x), Some(digest)) if of_x == known.of_x => Ok(digest),
        _ => Err(unsupported(algorithm)),
    }
}

/// Writes a command that any login shell hands to `sh` as it is: the path is in it as octal numbers only.
fn command(name: &str, path: &[u8]) -> String {
    let mut octal = String::with_capacity(path.len() * 5);
    for byte in path {
        let _ = write!(octal, "\\0{byte:03o}");
    }
    // The x keeps newlines at the end of the name, which $(…) would drop.
    format!("sh -c 'printf x | {name}sum && p=$(printf %b \"{octal}x\") && {name}sum < \"${{p%x}}\"'")
}

fn from_hex(text: &str, length: usize) -> Option<Vec<u8>> {
    if text.len() != 2 * length || !text.is_ascii() {
        return None;
    }
    (0..length).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect()
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
                let command = command("sha256", path.as_os_str().as_encoded_bytes());
                let output = std::process::Command::new(shell).arg("-c").arg(&command).output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                let known = sizes(Algorithm::Sha256).unwrap().of_x;
                assert_eq!(text, format!("{known}  -\n{known}  -\n"), "{name:?} in {shell}");
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6);
    }

    #[test]
    fn the_known_digests_are_right() {
        use md5::{Digest, Md5};
        let of_x = |algorithm| {
            let known = sizes(algorithm).unwrap();
            from_hex(known.of_x, known.length).unwrap()
        };
        assert_eq!(sha2::Sha512::digest("x")[..], of_x(Algorithm::Sha512));
        assert_eq!(sha2::Sha256::digest("x")[..], of_x(Algorithm::Sha256));
        assert_eq!(sha1::Sha1::digest("x")[..], of_x(Algorithm::Sha1));
        assert_eq!(Md5::digest("x")[..], of_x(Algorithm::Md5));
    }
}

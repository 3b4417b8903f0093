//! The system's keyring, by the program that comes with it: `secret-tool` where there is a Secret Service (GNOME Keyring,
//! KWallet, KeePassXC), `security` on macOS. Secrets pass through pipes only, never through arguments.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use haul::endpoint::{Base, Endpoint, EndpointPath};
use haul::transport::{Account, Secret, escape};
use haul::{Error, ErrorKind};
use zeroize::Zeroizing;

/// How long the program may take: the person may have to unlock the keyring first.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often to look whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// The longest secret that is read, and the most that is kept of what the program complains of.
const LONGEST: u64 = 16 << 10;
const ELSEWHERE: &str = "without a keyring, ~/.netrc (chmod 600) or --password-file can keep a password";

/// How the keyring is called in messages.
pub(crate) const NAME: &str = if cfg!(target_os = "macos") { "keychain" } else { "keyring" };

/// Returns the URL that an account's password is filed under: `sftp://me@host`.
pub(crate) fn url_of(account: &Account) -> String {
    let Account { scheme, user, host, port } = account.clone();
    let path = EndpointPath { base: Base::Root, bytes: Vec::new(), pattern: Vec::new() };
    Endpoint { scheme, user: Some(user), password: None, host: host.to_ascii_lowercase(), port, path }.origin()
}

/// Says whether there can be a keyring, without asking it anything.
///
/// # Errors
/// `Unsupported`, with what is missing.
pub(crate) fn check() -> Result<(), Error> {
    let missing = |what: String, hint: String| Err(Error::new(ErrorKind::Unsupported, what).with_hint(hint));
    if !is_installed(PROGRAM) {
        let packages = "secret-tool comes with libsecret (Debian and Ubuntu: libsecret-tools)";
        return missing(format!("no {NAME} here: there is no {PROGRAM}"), format!("{packages}; {ELSEWHERE}"));
    }
    if cfg!(not(target_os = "macos")) && !has_session_bus() {
        return missing(format!("no {NAME} here: this is no desktop session (no D-Bus session bus)"), ELSEWHERE.into());
    }
    Ok(())
}

/// Returns the password of an account, if there is a keyring and it has one.
pub(crate) fn find(account: &Account) -> Option<Secret> {
    check().ok()?;
    let answer = run(&words_to_find(&url_of(account)), None);
    match answer {
        Ok(Answer { success: true, output, .. }) => secret(output),
        Ok(Answer { complaint, .. }) if complaint.is_empty() => None,
        Ok(Answer { complaint, .. }) => {
            tracing::info!("{NAME}: {complaint}");
            None
        }
        Err(error) => {
            tracing::info!("{NAME}: {PROGRAM}: {error}");
            None
        }
    }
}

/// Puts the password of an account into the keyring, in place of another.
///
/// # Errors
/// `Unsupported` with what the keyring says.
pub(crate) fn store(account: &Account, password: &Secret) -> Result<(), Error> {
    check()?;
    let (words, input) = words_to_store(&url_of(account), password);
    let answer = run(&words, Some(&input)).map_err(failed)?;
    if answer.success { Ok(()) } else { Err(refused("keep the password", &answer.complaint)) }
}

/// Removes the password filed under a URL; returns whether there was one.
///
/// # Errors
/// `Unsupported` with what the keyring says.
pub(crate) fn remove(url: &str) -> Result<bool, Error> {
    check()?;
    let answer = run(&words_to_remove(url), None).map_err(failed)?;
    match (answer.success, answer.complaint.is_empty() || is_not_found(&answer.complaint)) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err(refused("remove the password", &answer.complaint)),
    }
}

#[cfg(not(target_os = "macos"))]
const PROGRAM: &str = "secret-tool";
#[cfg(target_os = "macos")]
const PROGRAM: &str = "security";

#[cfg(not(target_os = "macos"))]
fn words_to_find(url: &str) -> Vec<String> {
    ["lookup", "application", "haul", "url", url].map(str::to_owned).into()
}

#[cfg(not(target_os = "macos"))]
fn words_to_store(url: &str, password: &Secret) -> (Vec<String>, Zeroizing<Vec<u8>>) {
    let label = format!("--label=haul: {url}");
    let words = ["store", &label, "application", "haul", "url", url].map(str::to_owned).into();
    (words, Zeroizing::new(password.expose().as_bytes().to_vec()))
}

#[cfg(not(target_os = "macos"))]
fn words_to_remove(url: &str) -> Vec<String> {
    ["clear", "application", "haul", "url", url].map(str::to_owned).into()
}

#[cfg(target_os = "macos")]
fn words_to_find(url: &str) -> Vec<String> {
    ["find-generic-password", "-s", "haul", "-a", url, "-w"].map(str::to_owned).into()
}

/// As an argument the password would be seen by everybody: `security -i` reads whole commands from standard input.
#[cfg(target_os = "macos")]
fn words_to_store(url: &str, password: &Secret) -> (Vec<String>, Zeroizing<Vec<u8>>) {
    let mut line = Zeroizing::new(Vec::with_capacity(64 + url.len() + 2 * password.expose().len()));
    line.extend_from_slice(format!("add-generic-password -U -s haul -a \"{url}\" -w \"").as_bytes());
    for byte in password.expose().bytes() {
        if matches!(byte, b'"' | b'\\') {
            line.push(b'\\');
        }
        line.push(byte);
    }
    line.extend_from_slice(b"\"\n");
    (vec!["-i".to_owned()], line)
}

#[cfg(target_os = "macos")]
fn words_to_remove(url: &str) -> Vec<String> {
    ["delete-generic-password", "-s", "haul", "-a", url].map(str::to_owned).into()
}

fn is_not_found(complaint: &str) -> bool {
    complaint.contains("could not be found")
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Without one, D-Bus would start one of its own, with nobody's secrets behind it.
fn has_session_bus() -> bool {
    let named = std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some_and(|address| !address.is_empty());
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    named || runtime.is_some_and(|folder| folder.join("bus").exists())
}

struct Answer {
    success: bool,
    output: Zeroizing<Vec<u8>>,
    /// One harmless line.
    complaint: String,
}

fn run(words: &[String], input: Option<&[u8]>) -> io::Result<Answer> {
    let mut child = Command::new(PROGRAM)
        .args(words)
        .env_remove("HAUL_PASSWORD")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let written = match (child.stdin.take(), input) {
        (Some(mut stdin), Some(input)) => stdin.write_all(input),
        _ => Ok(()),
    };
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(LOOK),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer for two minutes"));
            }
        }
    };
    // Room for all of it: a buffer that grows would leave copies behind.
    let mut output = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
    let mut complaint = Vec::new();
    if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
        stdout.take(LONGEST).read_to_end(&mut output)?;
        stderr.take(LONGEST).read_to_end(&mut complaint)?;
    }
    // One that ended without reading says itself what was wrong.
    if status.success() {
        written?;
    }
    let complaint = escape(complaint.trim_ascii());
    Ok(Answer { success: status.success(), output, complaint })
}

fn secret(mut output: Zeroizing<Vec<u8>>) -> Option<Secret> {
    if cfg!(target_os = "macos") && output.last() == Some(&b'\n') {
        output.pop();
    }
    match String::from_utf8(std::mem::take(&mut output)) {
        Ok(text) if !text.is_empty() => Some(Secret::new(text)),
        Ok(_) => None,
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            None
        }
    }
}

fn failed(error: io::Error) -> Error {
    Error::io(format!("start {PROGRAM}"), error).with_kind(ErrorKind::Unsupported).with_hint(ELSEWHERE)
}

fn refused(what: &str, complaint: &str) -> Error {
    let complaint = if complaint.is_empty() { "it doesn't say why" } else { complaint };
    Error::new(ErrorKind::Unsupported, format!("{what} in the {NAME}: {complaint}")).with_hint(ELSEWHERE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use haul::endpoint::Scheme;

    #[test]
    fn a_password_is_filed_under_the_login() {
        let account = |host: &str, port| Account { scheme: Scheme::Sftp, user: "me@x".into(), host: host.into(), port };
        assert_eq!(url_of(&account("Host.Example.org", Some(22))), "sftp://me%40x@host.example.org");
        assert_eq!(url_of(&account("::1", Some(2222))), "sftp://me%40x@[::1]:2222");
    }
}

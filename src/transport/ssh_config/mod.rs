//! What `~/.ssh/config` says about one host, as OpenSSH reads it (ssh_config(5)).
//!
//! For the engines that log in themselves. What they can't do is named.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{HostKeyPolicy, SshConfig};

mod lines;
mod matching;
mod read;
mod tokens;

use lines::{flag, time};
pub(crate) use matching::matches_pattern;
use read::{Found, Origin, Reader};
use tokens::Tokens;

/// The system's file.
const SYSTEM: &str = "/etc/ssh/ssh_config";
/// What changes how a connection is made or who gets in, and is not heeded here, with the value that changes nothing.
const LACKING: [(&str, &str); 18] = [
    ("AddressFamily", "any"),
    ("BindAddress", ""),
    ("BindInterface", ""),
    ("CanonicalizeHostname", "no"),
    ("CertificateFile", "none"),
    ("Ciphers", ""),
    ("HostKeyAlgorithms", ""),
    ("KexAlgorithms", ""),
    ("KnownHostsCommand", "none"),
    ("MACs", ""),
    ("PasswordAuthentication", "yes"),
    ("PKCS11Provider", "none"),
    ("PreferredAuthentications", ""),
    ("ProxyUseFdpass", "no"),
    ("PubkeyAcceptedAlgorithms", ""),
    ("PubkeyAuthentication", "yes"),
    ("RevokedHostKeys", "none"),
    ("SecurityKeyProvider", "internal"),
];

/// Whose configuration is asked for: what the URL says comes first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Typed<'a> {
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
    pub(super) user: Option<&'a str>,
    /// The user here.
    pub(super) local_user: &'a str,
}

/// Which agent to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Agent {
    /// The usual one.
    Usual,
    /// None.
    None,
    /// The one behind this socket.
    At(PathBuf),
}

/// How a host is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    Straight,
    /// Through these servers, one after the other.
    Jumps(Vec<String>),
    /// By a command for the shell, whose input and output lead there.
    Command(String),
}

/// What is to be done for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostConfig {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// In order; empty: the usual ones.
    pub(super) identities: Vec<PathBuf>,
    pub(super) identities_only: bool,
    pub(super) agent: Agent,
    /// The user's files of known hosts, new keys go into the first; `None`: the usual ones.
    pub(super) known_hosts: Option<Vec<PathBuf>>,
    /// The system's files of known hosts; `None`: the usual ones.
    pub(super) system_known_hosts: Option<Vec<PathBuf>>,
    pub(super) way: Way,
    /// The name that the host's key is filed under.
    pub(super) alias: Option<String>,
    pub(super) host_key: Option<HostKeyPolicy>,
    pub(super) connect_timeout: Option<Duration>,
    /// What is not heeded: keyword and place.
    pub(super) lacking: Vec<(String, String)>,
}

/// Reads what the files say about a host.
///
/// # Errors
/// `Usage` for a file or value that can't be read, with file and line.
pub(super) fn read(typed: Typed<'_>, from: &SshConfig) -> Result<HostConfig> {
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    let found = find(typed, from, home.as_deref())?;
    interpret(typed, &found, home.as_deref())
}

fn find(typed: Typed<'_>, from: &SshConfig, home: Option<&Path>) -> Result<Found> {
    let tokens = Tokens::of(typed, home);
    let host_name = |name: &str| tokens.expand(name).unwrap_or_else(|_| name.to_owned());
    let mut found = Found::default();
    for is_final in [false, true] {
        let Typed { host: original, user, local_user, .. } = typed;
        let reader = Reader { original, user, local_user, home, is_final, host_name: &host_name };
        match from {
            SshConfig::None => {}
            SshConfig::File(file) => reader.file(file, true, true, &mut found)?,
            SshConfig::Usual => {
                if let Some(home) = home {
                    reader.file(&home.join(".ssh/config"), false, false, &mut found)?;
                }
                reader.file(Path::new(SYSTEM), true, false, &mut found)?;
            }
        }
        if !found.again {
            break;
        }
    }
    Ok(found)
}

fn interpret(typed: Typed<'_>, found: &Found, home: Option<&Path>) -> Result<HostConfig> {
    let mut tokens = Tokens::of(typed, home);
    if let Some((name, origin)) = found.first("hostname") {
        tokens.host = tokens.expand(name).map_err(|e| e.at(origin))?;
    }
    if let (None, Some((port, origin))) = (typed.port, found.first("port")) {
        tokens.port = port.parse().ok().filter(|&port| port > 0).ok_or_else(|| wrong("Port", port, origin))?;
    }
    if let (None, Some((user, _))) = (typed.user, found.first("user")) {
        user.clone_into(&mut tokens.user);
    }
    let alias = found.first("hostkeyalias").map(|(alias, _)| alias.to_owned());
    tokens.alias = alias.clone().unwrap_or_else(|| tokens.host.clone());
    let paths = |keyword: &str| -> Result<Option<Vec<PathBuf>>> {
        let Some((arguments, origin)) = found.all(keyword) else { return Ok(None) };
        let given = arguments.iter().filter(|argument| !argument.eq_ignore_ascii_case("none"));
        given.map(|text| tokens.path(text).map_err(|e| e.at(origin))).collect::<Result<_>>().map(Some)
    };
    let mut identities = Vec::new();
    for (arguments, origin) in found.list("identityfile") {
        if let Some(text) = arguments.first().filter(|text| !text.eq_ignore_ascii_case("none")) {
            identities.push(tokens.path(text).map_err(|e| e.at(origin))?);
        }
    }
    Ok(HostConfig {
        identities,
        identities_only: value(found, "identitiesonly", "IdentitiesOnly", flag)?.unwrap_or(false),
        agent: agent(found, &tokens)?,
        known_hosts: paths("userknownhostsfile")?,
        system_known_hosts: paths("globalknownhostsfile")?,
        way: way(found, &tokens)?,
        alias,
        host_key: value(found, "stricthostkeychecking", "StrictHostKeyChecking", policy)?,
        connect_timeout: match found.first("connecttimeout") {
            Some((text, _)) if text.eq_ignore_ascii_case("none") => None,
            _ => value(found, "connecttimeout", "ConnectTimeout", time)?.filter(|time| !time.is_zero()),
        },
        lacking: lacking(found),
        host: tokens.host,
        port: tokens.port,
        user: tokens.user,
    })
}

fn way(found: &Found, tokens: &Tokens) -> Result<Way> {
    if let Some((text, origin)) = found.first("proxyjump") {
        let text = tokens.expand(text).map_err(|e| e.at(origin))?;
        let hops = text.split(',').map(|hop| hop.trim().to_owned()).collect();
        return Ok(if text.eq_ignore_ascii_case("none") { Way::Straight } else { Way::Jumps(hops) });
    }
    match found.first("proxycommand") {
        None => Ok(Way::Straight),
        Some((text, _)) if text.eq_ignore_ascii_case("none") || text.is_empty() => Ok(Way::Straight),
        Some((text, origin)) => {
            tokens.are_safe_in_a_shell().map_err(|e| e.at(origin))?;
            tokens.expand(text).map(Way::Command).map_err(|e| e.at(origin))
        }
    }
}

fn value<T>(found: &Found, keyword: &str, shown: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let Some((text, origin)) = found.first(keyword) else { return Ok(None) };
    parse(text).map(Some).ok_or_else(|| wrong(shown, text, origin))
}

fn wrong(shown: &str, text: &str, origin: &Origin) -> Error {
    Error::new(ErrorKind::Usage, format!("{shown} can't be {text:?}")).at(origin)
}

/// A changed key is refused whatever the files say.
fn policy(text: &str) -> Option<HostKeyPolicy> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(HostKeyPolicy::Strict),
        "ask" => Some(HostKeyPolicy::Ask),
        "accept-new" | "no" | "off" | "false" => Some(HostKeyPolicy::AcceptNew),
        _ => None,
    }
}

fn agent(found: &Found, tokens: &Tokens) -> Result<Agent> {
    let Some((text, origin)) = found.first("identityagent") else { return Ok(Agent::Usual) };
    if text.eq_ignore_ascii_case("none") {
        return Ok(Agent::None);
    }
    if text == "SSH_AUTH_SOCK" {
        return Ok(Agent::Usual);
    }
    // `$NAME`, as OpenSSH has it for this one.
    let braced = match text.strip_prefix('$') {
        Some(name) if !name.starts_with('{') => format!("${{{name}}}"),
        _ => text.to_owned(),
    };
    tokens.path(&braced).map(Agent::At).map_err(|e| e.at(origin))
}

fn lacking(found: &Found) -> Vec<(String, String)> {
    let set = LACKING.iter().filter_map(|&(keyword, usual)| {
        let (text, origin) = found.first(&keyword.to_ascii_lowercase())?;
        (!text.eq_ignore_ascii_case(usual)).then(|| (keyword.to_owned(), origin.to_string()))
    });
    set.chain(found.unknown.iter().cloned()).collect()
}

impl Tokens {
    fn of(typed: Typed<'_>, home: Option<&Path>) -> Self {
        Self {
            original: typed.host.into(),
            host: typed.host.into(),
            alias: typed.host.into(),
            port: typed.port.unwrap_or(22),
            user: typed.user.unwrap_or(typed.local_user).into(),
            local_user: typed.local_user.into(),
            home: home.map(Path::to_path_buf),
        }
    }
}

/// Reads any bytes as a file of settings; what it includes is left out.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(lines) = lines::lines(&text) else { return };
    let mut found = Found::default();
    let subject = matching::Subject { original: "host", host: "host", user: "me", local_user: "me", is_final: false };
    for line in lines {
        let _ = (matching::host(&line.arguments, subject), matching::criteria(&line.arguments, subject));
        let _ = line.arguments.iter().map(|word| (flag(word), time(word))).collect::<Vec<_>>();
        found.take(line, Path::new("config"));
    }
    let typed = Typed { host: "host", port: None, user: None, local_user: "me" };
    let _ = interpret(typed, &found, Some(Path::new("/home/me")));
}

#[cfg(test)]
mod tests;

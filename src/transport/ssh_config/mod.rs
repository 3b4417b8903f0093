//! What `~/.ssh/config` says about one host, as OpenSSH reads it (ssh_config(5)).
//!
//! For the engines that log in themselves. What they can't do is named.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{AddressFamily as Family, HostKeyPolicy, SshConfig, escape};

mod algorithms;
mod keywords;
mod lines;
mod matching;
mod read;
mod tokens;

pub(super) use algorithms::AlgorithmList;
use lines::{flag, time};
pub(crate) use matching::matches_pattern;
use read::{Found, Origin, Reader};
use tokens::Tokens;

/// The system's file.
const SYSTEM: &str = "/etc/ssh/ssh_config";
/// What changes how a connection is made or who gets in, and is not heeded here, with the value that changes nothing.
const LACKING: [(&str, &str); 11] = [
    ("BindInterface", ""),
    ("CanonicalizeHostname", "no"),
    ("CASignatureAlgorithms", ""),
    ("GSSAPIAuthentication", "no"),
    ("HostbasedAuthentication", "no"),
    ("KnownHostsCommand", "none"),
    ("PKCS11Provider", "none"),
    ("ProxyUseFdpass", "no"),
    ("RequiredRSASize", "1024"),
    ("RevokedHostKeys", "none"),
    ("SecurityKeyProvider", "internal"),
];
/// Of these, the system's file says nothing that its user would have to be told: distributions set them for all hosts.
const LACKING_BY_USER: [&str; 1] = ["GSSAPIAuthentication"];

/// Ways to log in, in the usual order, and the keyword that switches each off.
const METHODS: [(Method, &str); 3] = [
    (Method::PublicKey, "PubkeyAuthentication"),
    (Method::Password, "PasswordAuthentication"),
    (Method::KeyboardInteractive, "KbdInteractiveAuthentication"),
];
/// How often a person is asked for a password, as OpenSSH does.
const PASSWORD_PROMPTS: usize = 3;
/// How many questions for a sign of life may stay without an answer, as OpenSSH has it.
const ALIVE_COUNT: u32 = 3;

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

/// How to prove who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    PublicKey,
    Password,
    KeyboardInteractive,
}

impl Method {
    /// Returns its name (RFC 4252, section 5).
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PublicKey => "publickey",
            Self::Password => "password",
            Self::KeyboardInteractive => "keyboard-interactive",
        }
    }
}

/// Algorithms, where the files name any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Algorithms {
    pub(super) kex: Option<AlgorithmList>,
    pub(super) host_keys: Option<AlgorithmList>,
    pub(super) ciphers: Option<AlgorithmList>,
    pub(super) macs: Option<AlgorithmList>,
    /// To sign with at the login.
    pub(super) public_keys: Option<AlgorithmList>,
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
    /// Certificates; with any of them named, none is looked for beside the keys.
    pub(super) certificates: Vec<PathBuf>,
    /// Ways to log in, in the order to try them.
    pub(super) methods: Vec<Method>,
    /// How often a person is asked for a password.
    pub(super) password_prompts: usize,
    pub(super) algorithms: Algorithms,
    /// How long the server may be silent before it is asked for a sign of life.
    pub(super) alive_interval: Option<Duration>,
    /// How many of these questions may stay without an answer; 0: all of them.
    pub(super) alive_count: u32,
    pub(super) agent: Agent,
    /// The user's files of known hosts, new keys go into the first; `None`: the usual ones.
    pub(super) known_hosts: Option<Vec<PathBuf>>,
    /// The system's files of known hosts; `None`: the usual ones.
    pub(super) system_known_hosts: Option<Vec<PathBuf>>,
    /// New host keys are filed under a hash of the host's name.
    pub(super) hash_known_hosts: bool,
    pub(super) way: Way,
    /// The name that the host's key is filed under.
    pub(super) alias: Option<String>,
    pub(super) host_key: Option<HostKeyPolicy>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) family: Family,
    /// The address here that connections start from.
    pub(super) bind_address: Option<String>,
    /// What is not heeded: keyword and place.
    pub(super) lacking: Vec<(String, String)>,
    /// What is no keyword at all: word and place.
    pub(super) slips: Vec<(String, String)>,
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
    found.first("proxyjump").map_or("", |(jump, _)| jump).clone_into(&mut tokens.jump);
    let paths = |keyword: &str| -> Result<Option<Vec<PathBuf>>> {
        let Some((arguments, origin)) = found.all(keyword) else { return Ok(None) };
        let given = arguments.iter().filter(|argument| !argument.eq_ignore_ascii_case("none"));
        given.map(|text| tokens.path(text).map_err(|e| e.at(origin))).collect::<Result<_>>().map(Some)
    };
    let each = |keyword: &str| -> Result<Vec<PathBuf>> {
        let given = found.list(keyword).iter().filter_map(|(arguments, origin)| Some((arguments.first()?, origin)));
        let named = given.filter(|(text, _)| !text.eq_ignore_ascii_case("none"));
        named.map(|(text, origin)| tokens.path(text).map_err(|e| e.at(origin))).collect()
    };
    let mut lacking = lacking(found);
    Ok(HostConfig {
        identities: each("identityfile")?,
        certificates: each("certificatefile")?,
        methods: methods(found, &mut lacking)?,
        password_prompts: number(found, "NumberOfPasswordPrompts")?.map_or(PASSWORD_PROMPTS, |number| number as usize),
        algorithms: Algorithms::of(found)?,
        alive_interval: value(found, "serveraliveinterval", "ServerAliveInterval", time)?
            .filter(|time| !time.is_zero()),
        alive_count: number(found, "ServerAliveCountMax")?.unwrap_or(ALIVE_COUNT),
        identities_only: value(found, "identitiesonly", "IdentitiesOnly", flag)?.unwrap_or(false),
        agent: agent(found, &tokens)?,
        known_hosts: paths("userknownhostsfile")?,
        system_known_hosts: paths("globalknownhostsfile")?,
        hash_known_hosts: value(found, "hashknownhosts", "HashKnownHosts", flag)?.unwrap_or(false),
        way: way(found, &tokens)?,
        alias,
        host_key: value(found, "stricthostkeychecking", "StrictHostKeyChecking", policy)?,
        connect_timeout: match found.first("connecttimeout") {
            Some((text, _)) if text.eq_ignore_ascii_case("none") => None,
            _ => value(found, "connecttimeout", "ConnectTimeout", time)?.filter(|time| !time.is_zero()),
        },
        family: value(found, "addressfamily", "AddressFamily", family)?.unwrap_or_default(),
        bind_address: found.first("bindaddress").map(|(address, _)| address.to_owned()),
        lacking,
        slips: keywords::slips(found),
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

fn number(found: &Found, keyword: &str) -> Result<Option<u32>> {
    value(found, &keyword.to_ascii_lowercase(), keyword, |text| text.parse().ok())
}

/// Returns the ways to log in; those that are not known here are lacking.
fn methods(found: &Found, lacking: &mut Vec<(String, String)>) -> Result<Vec<Method>> {
    let is_on = |keyword: &str| -> Result<bool> {
        let parse = |text: &str| flag(text).or(matches!(text, "unbound" | "host-bound").then_some(true));
        Ok(value(found, &keyword.to_ascii_lowercase(), keyword, parse)?.unwrap_or(true))
    };
    let mut left = Vec::new();
    for (method, keyword) in METHODS {
        if is_on(keyword)? {
            left.push(method);
        }
    }
    let Some((text, origin)) = found.first("preferredauthentications") else { return Ok(left) };
    let mut preferred = Vec::new();
    for name in text.split(',') {
        match METHODS.iter().find(|(method, _)| method.name() == name) {
            Some((method, _)) if left.contains(method) && !preferred.contains(method) => preferred.push(*method),
            Some(_) => {}
            None => lacking.push((format!("PreferredAuthentications {}", escape(name.as_bytes())), origin.to_string())),
        }
    }
    if preferred.is_empty() {
        return Err(wrong("PreferredAuthentications", text, origin)
            .with_hint("the built-in engines log in by publickey, password and keyboard-interactive; others by --ssh-engine openssh"));
    }
    Ok(preferred)
}

impl Algorithms {
    fn of(found: &Found) -> Result<Self> {
        let list = |keyword: &'static str| -> Result<Option<AlgorithmList>> {
            let Some((text, origin)) = found.first(&keyword.to_ascii_lowercase()) else { return Ok(None) };
            AlgorithmList::parse(keyword, text, origin).map(Some).ok_or_else(|| wrong(keyword, text, origin))
        };
        Ok(Self {
            kex: list("KexAlgorithms")?,
            host_keys: list("HostKeyAlgorithms")?,
            ciphers: list("Ciphers")?,
            macs: list("MACs")?,
            public_keys: list("PubkeyAcceptedAlgorithms")?,
        })
    }
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

fn family(text: &str) -> Option<Family> {
    match text.to_ascii_lowercase().as_str() {
        "any" => Some(Family::Any),
        "inet" => Some(Family::Ipv4),
        "inet6" => Some(Family::Ipv6),
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
        let is_told = !(LACKING_BY_USER.contains(&keyword) && origin.file.starts_with("/etc/ssh"));
        (is_told && !text.eq_ignore_ascii_case(usual)).then(|| (keyword.to_owned(), origin.to_string()))
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
            jump: String::new(),
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

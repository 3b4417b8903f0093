//! From what the user typed, a URL or a plain path, to an [`Endpoint`]; no network.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{RemotePath, Secret, escape};

/// The protocols haul speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// This machine's files.
    File,
    /// FTP, upgraded to TLS when the server offers it.
    Ftp,
    /// FTP with explicit TLS (RFC 4217), required.
    Ftpes,
    /// FTP with implicit TLS, port 990.
    Ftps,
    /// SFTP version 3 over SSH.
    Sftp,
}

impl Scheme {
    /// Returns the name in front of `://`.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Ftp => "ftp",
            Self::Ftpes => "ftpes",
            Self::Ftps => "ftps",
            Self::Sftp => "sftp",
        }
    }

    /// Returns the port used when the URL names none; 0 for files.
    pub fn default_port(self) -> u16 {
        match self {
            Self::File => 0,
            Self::Ftp | Self::Ftpes => 21,
            Self::Ftps => 990,
            Self::Sftp => 22,
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::File, Self::Ftp, Self::Ftpes, Self::Ftps, Self::Sftp]
            .into_iter()
            .find(|scheme| scheme.name().eq_ignore_ascii_case(name))
    }
}

/// Where a URL's path starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// At the endpoint's root.
    Root,
    /// At the directory that the login starts in.
    Home,
}

/// The path of a URL, before the home directory is known.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndpointPath {
    /// Where it starts.
    pub base: Base,
    /// The decoded bytes behind the base, without a leading slash; a trailing slash is kept.
    pub bytes: Vec<u8>,
    /// The same as a glob: characters that came percent-encoded are escaped by a backslash.
    pub pattern: Vec<u8>,
}

impl EndpointPath {
    /// Returns the absolute path, given the directory that the login starts in.
    ///
    /// # Errors
    /// `InvalidPath` when it holds a NUL.
    pub fn resolve(&self, home: &RemotePath) -> Result<RemotePath> {
        self.base_at(home).resolve(&self.bytes)
    }

    /// Returns where the path starts, given the directory that the login starts in.
    pub fn base_at(&self, home: &RemotePath) -> RemotePath {
        match self.base {
            Base::Root => RemotePath::root(),
            Base::Home => home.clone(),
        }
    }

    /// Returns whether the user wrote a slash at the end, or nothing but the base: a directory is meant.
    pub fn names_directory(&self) -> bool {
        self.bytes.is_empty() || self.bytes.ends_with(b"/") || self.bytes.ends_with(b"/..") || self.bytes == b".."
    }
}

impl fmt::Debug for EndpointPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.base, escape(&self.bytes))
    }
}

/// What a URL or a plain path names. [`fmt::Display`] gives the URL without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The protocol.
    pub scheme: Scheme,
    /// The user name, if the URL has one.
    pub user: Option<String>,
    /// The password, if the URL has one; the command line warns about it.
    pub password: Option<Secret>,
    /// Host name or address, without brackets; empty for files.
    pub host: String,
    /// The port, if the URL has one.
    pub port: Option<u16>,
    /// The path.
    pub path: EndpointPath,
}

impl Endpoint {
    /// Reads a URL, or else a plain local path.
    ///
    /// # Errors
    /// `Usage` for an unknown scheme, a missing host, a bad port, user or percent code. The password is never part of
    /// the message.
    pub fn parse(text: impl AsRef<std::ffi::OsStr>) -> Result<Self> {
        let raw = text.as_ref().as_bytes();
        let Some((scheme, rest)) = split_scheme(raw) else { return Self::local(raw) };
        let Some(kind) = Scheme::parse(scheme) else {
            return Err(Error::new(ErrorKind::Usage, format!("unknown scheme \"{scheme}\""))
                .with_hint("haul speaks sftp://, ftp://, ftpes://, ftps:// and file://"));
        };
        let rest = std::str::from_utf8(rest)
            .map_err(|_| usage("the URL is not UTF-8").with_hint("write bytes that aren't UTF-8 as %XX in a URL"))?;
        if let Some(position) = bad_percent(rest) {
            let text = format!("character {position} behind :// is a % that isn't followed by two hex digits");
            return Err(usage(&text).with_hint("write a literal percent sign as %25"));
        }
        let slash = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(slash);
        if kind == Scheme::File {
            if !authority.is_empty() && authority != "localhost" {
                return Err(usage("a file URL names no host").with_hint("write file:///path, with three slashes"));
            }
            return Ok(Self { path: decode_path(path, Base::Root), ..Self::local(b"/")? });
        }
        Self::remote(kind, authority, path)
    }

    fn local(raw: &[u8]) -> Result<Self> {
        if raw.is_empty() {
            return Err(usage("an empty path"));
        }
        let base = if raw[0] == b'/' { Base::Root } else { Base::Home };
        let bytes = raw.strip_prefix(b"/").unwrap_or(raw).to_vec();
        // The shell has expanded its wildcards already: what is left of them is part of a name.
        let path = EndpointPath { base, pattern: escape_wildcards(&bytes), bytes };
        Ok(Self { scheme: Scheme::File, user: None, password: None, host: String::new(), port: None, path })
    }

    fn remote(scheme: Scheme, authority: &str, path: &str) -> Result<Self> {
        let (login, address) = match authority.rfind('@') {
            Some(at) => (Some(&authority[..at]), &authority[at + 1..]),
            None => (None, authority),
        };
        let (user, password) = login.map_or(Ok((None, None)), parse_login)?;
        let (host, port) = parse_address(address)?;
        let path = match scheme {
            Scheme::Sftp => sftp_path(path),
            _ => ftp_path(path),
        };
        Ok(Self { scheme, user, password, host, port, path })
    }

    /// Returns the same endpoint at a path as somebody types it behind a profile: below this one's path, from the root if
    /// it begins with a slash, from the login directory if it begins with `~/`. Nothing in it is percent-encoded, and
    /// wildcards count.
    #[must_use]
    pub fn below(&self, path: &[u8]) -> Self {
        let joined = |above: &[u8]| {
            let slash: &[u8] = if above.is_empty() || above.ends_with(b"/") || path.is_empty() { b"" } else { b"/" };
            [above, slash, path].concat()
        };
        let home = if path == b"~" { Some(&b""[..]) } else { path.strip_prefix(b"~/") };
        let root = path.iter().position(|&byte| byte != b'/').unwrap_or(path.len());
        let (base, bytes, pattern) = match (home, root) {
            (Some(rest), _) => (Base::Home, rest.to_vec(), rest.to_vec()),
            (None, 1..) => (Base::Root, path[root..].to_vec(), path[root..].to_vec()),
            (None, 0) => (self.path.base, joined(&self.path.bytes), joined(&self.path.pattern)),
        };
        Self { path: EndpointPath { base, bytes, pattern }, ..self.clone() }
    }

    /// Returns the port to connect to.
    pub fn effective_port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// Returns whether two URLs can share one login: same scheme, user, password, host and port.
    pub fn same_login(&self, other: &Self) -> bool {
        (self.scheme, &self.user, &self.password, &self.host, self.effective_port())
            == (other.scheme, &other.user, &other.password, &other.host, other.effective_port())
    }

    /// Returns the URL up to the path (`sftp://me@host:2222`), without the password; `file://` for files.
    pub fn origin(&self) -> String {
        let mut url = format!("{}://", self.scheme.name());
        if let Some(user) = &self.user {
            url.push_str(&percent_encode(user.as_bytes(), LOGIN).to_string());
            url.push('@');
        }
        // The zone of an IPv6 address follows a percent sign (RFC 6874).
        let host = self.host.chars().fold(String::new(), |mut host, c| {
            match c {
                _ if !c.is_ascii() || c.is_ascii_alphanumeric() || "-._~:".contains(c) => host.push(c),
                c => host.push_str(&format!("%{:02X}", u32::from(c))),
            }
            host
        });
        if host.contains(':') {
            url.extend(["[", &host, "]"]);
        } else {
            url.push_str(&host);
        }
        if let Some(port) = self.port.filter(|&port| port != self.scheme.default_port()) {
            url.extend([":", &port.to_string()]);
        }
        url
    }

    /// Returns the URL of an absolute path at this endpoint, percent-encoded, that reads back as the same bytes.
    pub fn url_of(&self, path: &RemotePath) -> String {
        let encoded = encode_path(path.as_bytes());
        match self.scheme {
            // The path of an FTP URL starts in the login directory; a second slash (RFC 1738: %2F) makes it absolute.
            Scheme::Ftp | Scheme::Ftpes | Scheme::Ftps => format!("{}/{encoded}", self.origin()),
            Scheme::Sftp if encoded == "/~" || encoded.starts_with("/~/") => {
                format!("{}/%7E{}", self.origin(), &encoded[2..])
            }
            _ => format!("{}{encoded}", self.origin()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = encode_path(&self.path.bytes);
        match (self.scheme, self.path.base) {
            (Scheme::File, Base::Home) => f.write_str(&escape(&self.path.bytes)),
            (Scheme::File, Base::Root) => write!(f, "/{}", escape(&self.path.bytes)),
            (Scheme::Sftp, Base::Home) => write!(f, "{}/~/{encoded}", self.origin()),
            (Scheme::Sftp, Base::Root) | (_, Base::Home) => write!(f, "{}/{encoded}", self.origin()),
            (_, Base::Root) => write!(f, "{}//{encoded}", self.origin()),
        }
    }
}

/// Percent-encodes bytes for the path of a URL; slashes stay.
pub fn encode_path(bytes: &[u8]) -> String {
    percent_encode(bytes, PATH).to_string()
}

/// Turns a local path as the program was given it into an absolute [`RemotePath`], from the current directory.
///
/// # Errors
/// `InvalidPath` for a NUL; the I/O error when the current directory is gone.
pub fn local_path(path: &Path) -> Result<RemotePath> {
    let here = std::env::current_dir().map_err(|e| Error::io("find the current directory", e))?;
    RemotePath::new(here.as_os_str().as_bytes())?.resolve(path.as_os_str().as_bytes())
}

/// Everything but unreserved characters and those that are plain in a path.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'*')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
const LOGIN: &AsciiSet = &PATH.add(b'/').add(b':').add(b'@').add(b';').add(b'&').add(b'=');

fn usage(message: &str) -> Error {
    Error::new(ErrorKind::Usage, message)
}

fn split_scheme(raw: &[u8]) -> Option<(&str, &[u8])> {
    let colon = raw.windows(3).position(|w| w == b"://")?;
    let name = std::str::from_utf8(&raw[..colon]).ok()?;
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    valid.then_some((name, &raw[colon + 3..]))
}

fn bad_percent(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len())
        .find(|&i| bytes[i] == b'%' && !bytes.get(i + 1..i + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit)))
        .map(|i| i + 1)
}

/// Reads `user[:password]` of a URL.
pub(crate) fn parse_login(login: &str) -> Result<(Option<String>, Option<Secret>)> {
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    let decode = |part: &str, what: &str| {
        let text = percent_decode_str(part).decode_utf8().map_err(|_| usage(&format!("the {what} is not UTF-8")))?;
        if text.contains(['\r', '\n', '\0']) {
            return Err(usage(&format!("the {what} holds a line break or NUL")));
        }
        Ok(text.into_owned())
    };
    let user = Some(decode(user, "user name")?).filter(|user| !user.is_empty());
    Ok((user, password.map(|p| decode(p, "password")).transpose()?.map(Secret::new)))
}

/// Reads `host[:port]` of a URL.
pub(crate) fn parse_address(address: &str) -> Result<(String, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, tail) = rest.split_once(']').ok_or_else(|| usage("a [ without ] in the host"))?;
            (host, tail.strip_prefix(':').or(if tail.is_empty() { None } else { Some(tail) }))
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let host = percent_decode_str(host).decode_utf8().map_err(|_| usage("the host is not UTF-8"))?.into_owned();
    if host.is_empty() {
        return Err(usage("the URL names no host").with_hint("write it like sftp://user@host/path"));
    }
    // A host that starts with a dash would be an option to `ssh`; the rest can't be part of a name or address.
    if host.starts_with('-')
        || host.chars().any(|c| c.is_control() || c.is_whitespace() || "/\\@'\"`$;|&<>(){}".contains(c))
    {
        return Err(usage("the host name has characters that no host name has"));
    }
    let port = match port {
        None | Some("") => None,
        Some(digits) => Some(digits.parse::<u16>().ok().filter(|&port| port != 0).ok_or_else(|| {
            // What is no number may be the beginning of a password with a slash in it.
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            let shown = if is_number { format!("\"{digits}\"") } else { "what follows the host's colon".into() };
            usage(&format!("{shown} is no port")).with_hint(match is_number {
                true => "a port is a number from 1 to 65535; write IPv6 addresses in brackets",
                false => {
                    "a port is a number from 1 to 65535; write IPv6 addresses in brackets, a / in a password as %2F"
                }
            })
        })?),
    };
    Ok((host, port))
}

/// `/~/x` starts at home, `/x` at the root, and no path at all means home.
fn sftp_path(path: &str) -> EndpointPath {
    match path {
        "" | "/~" => decode_path("", Base::Home),
        _ => match path.strip_prefix("/~/") {
            Some(rest) => decode_path(rest, Base::Home),
            None => decode_path(path, Base::Root),
        },
    }
}

/// RFC 1738, section 3.2.2: relative to the login directory; a leading `%2F` (or, as many write it, `//`) is the root.
fn ftp_path(path: &str) -> EndpointPath {
    let path = path.strip_prefix('/').unwrap_or(path);
    let absolute = path.strip_prefix("%2F").or_else(|| path.strip_prefix("%2f")).or_else(|| path.strip_prefix('/'));
    match absolute {
        Some(rest) => decode_path(rest, Base::Root),
        None => decode_path(path.strip_prefix("~/").unwrap_or(path), Base::Home),
    }
}

fn decode_path(encoded: &str, base: Base) -> EndpointPath {
    let encoded = encoded.trim_start_matches('/');
    let bytes = percent_decode_str(encoded).collect();
    EndpointPath { base, bytes, pattern: decode_pattern(encoded) }
}

/// Decodes like [`percent_decode_str`], but what came encoded loses its meaning as a wildcard.
fn decode_pattern(encoded: &str) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' if tail.len() >= 2 => {
                let decoded =
                    percent_encoding::percent_decode(&encoded.as_bytes()[encoded.len() - rest.len() - 1..][..3]).next();
                rest = &tail[2..];
                pattern.extend_from_slice(&escape_wildcards(&[decoded.unwrap_or(byte)]));
            }
            _ => pattern.push(byte),
        }
    }
    pattern
}

fn escape_wildcards(bytes: &[u8]) -> Vec<u8> {
    let escaped = |&byte: &u8| if b"*?[]{}\\,!".contains(&byte) { vec![b'\\', byte] } else { vec![byte] };
    bytes.iter().flat_map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap()
    }

    fn resolved(text: &str) -> String {
        parse(text).path.resolve(&RemotePath::new("/home/me").unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_path_behind_a_profile_is_below_its_url() {
        for (url, typed, there) in [
            ("sftp://me@h/~/data", "reports/", "sftp://me@h/~/data/reports/"),
            ("sftp://me@h/~/data/", "a%20b", "sftp://me@h/~/data/a%2520b"),
            ("sftp://me@h/~/data", "", "sftp://me@h/~/data"),
            ("sftp://me@h", "x", "sftp://me@h/~/x"),
            ("sftp://me@h/srv", "/etc/x", "sftp://me@h/etc/x"),
            ("sftp://me@h/srv", "~/x", "sftp://me@h/~/x"),
            ("ftp://me@h/pub", "x", "ftp://me@h/pub/x"),
            ("ftp://me@h/pub", "//x", "ftp://me@h//x"),
            ("file:///srv", "x", "/srv/x"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap().below(typed.as_bytes());
            assert_eq!(endpoint.to_string(), there, "{url} {typed}");
        }
        let glob = Endpoint::parse("sftp://h/a%2Ab").unwrap().below(b"*.gz").path;
        assert_eq!((glob.bytes, glob.pattern), (b"a*b/*.gz".to_vec(), b"a\\*b/*.gz".to_vec()));
    }

    #[test]
    fn reads_every_part() {
        let e = parse("sftp://me%40work:p%3Aw@[::1]:2222/abs/a%20b");
        assert_eq!(
            (e.scheme, e.user.as_deref(), e.host.as_str(), e.port),
            (Scheme::Sftp, Some("me@work"), "::1", Some(2222))
        );
        assert_eq!(e.password.as_ref().unwrap().expose(), "p:w");
        assert_eq!(e.path.bytes, b"abs/a b");
        assert_eq!(e.to_string(), "sftp://me%40work@[::1]:2222/abs/a%20b");
    }

    #[test]
    fn paths_start_where_the_scheme_says() {
        assert_eq!(resolved("sftp://h/abs"), "/abs");
        assert_eq!(resolved("sftp://h/~/rel"), "/home/me/rel");
        assert_eq!(resolved("sftp://h"), "/home/me");
        assert_eq!(resolved("sftp://h/"), "/");
        assert_eq!(resolved("ftp://h/rel/x"), "/home/me/rel/x");
        assert_eq!(resolved("ftp://h/%2Fabs"), "/abs");
        assert_eq!(resolved("ftp://h//abs"), "/abs");
        assert_eq!(resolved("ftp://h/~/rel"), "/home/me/rel");
        assert_eq!(resolved("ftp://h"), "/home/me");
        assert_eq!(resolved("file:///a/b"), "/a/b");
        assert_eq!(resolved("a/b"), "/home/me/a/b");
    }

    #[test]
    fn encoded_wildcards_are_literal() {
        let e = parse("sftp://h/*%2A%5Bx%5d");
        assert_eq!(e.path.pattern, b"*\\*\\[x\\]");
        assert_eq!(e.path.bytes, b"**[x]");
    }

    #[test]
    fn refuses_what_it_cannot_mean() {
        for bad in [
            "gopher://h/",
            "sftp:///x",
            "sftp://h:0/",
            "sftp://h:99999/",
            "sftp://h/%zz",
            "sftp://h/%2",
            "file://h/x",
            "ftp://a%0d%0aDELE@h/",
            "ftp://u:p%0a@h/",
            "sftp://-oProxyCommand=x/",
            "sftp://[::1/",
            "",
            "sftp://h%00/",
        ] {
            assert_eq!(Endpoint::parse(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let e = parse("ftp://u:hunter2@h/x");
        assert!(!format!("{e} {e:?} {}", e.origin()).contains("hunter2"));
    }

    #[test]
    fn a_host_survives_its_url() {
        for url in ["sftp://[fe80::1%25eth0]/x", "sftp://ms%25b/x", "sftp://a%5Db%3A/x", "ftp://münchen.example/x"] {
            let e = parse(url);
            assert_eq!(parse(&e.url_of(&RemotePath::root())).host, e.host, "{url}");
        }
    }

    proptest! {
        #[test]
        fn a_path_survives_its_url(path in prop::collection::vec(1u8..=255, 0..40), scheme in 0..4usize) {
            let scheme = ["sftp", "ftp", "ftps", "file"][scheme];
            let e = parse(&if scheme == "file" { "file:///".into() } else { format!("{scheme}://u@h:99/") });
            let path = RemotePath::root().resolve(&path).unwrap();
            let again = parse(&e.url_of(&path));
            prop_assert_eq!(again.path.resolve(&RemotePath::new("/home").unwrap()).unwrap(), path);
            prop_assert_eq!(again.origin(), e.origin());
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = Endpoint::parse(&text);
            let _ = Endpoint::parse(format!("sftp://{text}"));
        }
    }
}

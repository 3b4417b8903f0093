//! Proxies: which there is, who says so, and for which hosts it is used.

use std::fmt;
use std::sync::Arc;

use super::exempt::exempts;
use super::shown;
use crate::endpoint::{parse_address, parse_login};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Secret;

/// The longest name and password that SOCKS can carry (RFC 1929), and the longest host (RFC 1928).
pub(super) const LONGEST: usize = 255;
/// What curl assumes where a proxy's port isn't named.
const USUAL_PORT: u16 = 1080;
const SPOKEN: &str = "haul speaks to socks5://, socks5h:// and http:// proxies";

/// What is said to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Protocol {
    /// RFC 1928; names are resolved there.
    Socks5,
    /// `CONNECT` (RFC 9110, section 9.3.6).
    Http,
}

/// A proxy. `Display` and `Debug` show no login.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::transport) struct Proxy {
    pub(super) protocol: Protocol,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) login: Option<(String, Secret)>,
}

impl Proxy {
    /// Reads `[scheme://][user[:password]@]host[:port][/]`; without a scheme it is HTTP.
    ///
    /// # Errors
    /// `Usage`, without any part of what was given but the scheme: it may hold a password.
    fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let protocol = match scheme.to_ascii_lowercase().as_str() {
            "socks5" | "socks5h" => Protocol::Socks5,
            "http" => Protocol::Http,
            other if other.bytes().all(|b| b.is_ascii_alphanumeric()) && other.len() < 20 => {
                return Err(usage(&format!("no way to speak to a proxy by {other}://")).with_hint(SPOKEN));
            }
            _ => return Err(usage("this is no URL of a proxy").with_hint(SPOKEN)),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, address) = match rest.rsplit_once('@') {
            Some((login, address)) => (Some(parse_login(login)?), address),
            None => (None, rest),
        };
        if address.is_empty() || address.starts_with(':') {
            return Err(usage("the URL names no host").with_hint("write a proxy like socks5h://user@host:1080"));
        }
        let (host, port) = parse_address(address)?;
        let login =
            login.map(|(user, password)| (user.unwrap_or_default(), password.unwrap_or_else(|| Secret::new(""))));
        if let Some((user, password)) = &login {
            if user.len() > LONGEST || password.expose().len() > LONGEST {
                return Err(usage("the proxy's user or password is longer than 255 bytes"));
            }
            if protocol == Protocol::Http && user.contains(':') {
                return Err(usage("the user of an HTTP proxy can't hold a colon"));
            }
        }
        Ok(Self { protocol, host, port: port.unwrap_or(USUAL_PORT), login })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Socks5 => "socks5h",
            Protocol::Http => "http",
        };
        write!(f, "{scheme}://{}", shown(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Through which proxy hosts are reached; by default through none.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Choice);

#[derive(Debug, Clone, Default)]
enum Choice {
    #[default]
    Straight,
    Named(Arc<Proxy>),
    /// A proxy and the hosts that are reached without it.
    Environment(Arc<Proxy>, String),
    /// Why the proxy of the environment is of no use, and the hosts that are reached without it.
    Broken(&'static str, String, String),
}

impl Proxies {
    /// Reads `none`, or the URL of a proxy for all hosts: `socks5://`, `socks5h://` (the same: names are resolved
    /// there) or `http://`, with `user:password@` where it wants a login, port 1080 where none is named.
    ///
    /// # Errors
    /// `Usage`; the message never holds the password.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self::default());
        }
        Ok(Self(Choice::Named(Arc::new(Proxy::parse(text)?))))
    }

    /// Takes the proxy of `all_proxy` or `ALL_PROXY`, and from `no_proxy` or `NO_PROXY` the hosts that are reached
    /// without it, as curl reads them. One that can't be used is an error once a host is to be reached through it.
    pub fn from_environment() -> Self {
        let first = |names: [&'static str; 2]| {
            let set = |name| std::env::var_os(name).map(|value| (name, value.to_string_lossy().into_owned()));
            names.into_iter().filter_map(set).find(|(_, value)| !value.is_empty())
        };
        let Some((variable, url)) = first(["all_proxy", "ALL_PROXY"]) else { return Self::default() };
        let exempt = first(["no_proxy", "NO_PROXY"]).map(|(_, list)| list).unwrap_or_default();
        Self(match Proxy::parse(&url) {
            Ok(proxy) => Choice::Environment(Arc::new(proxy), exempt),
            Err(e) => Choice::Broken(variable, e.message().to_owned(), exempt),
        })
    }

    /// Returns whether no proxy is used for any host.
    pub fn are_none(&self) -> bool {
        matches!(self.0, Choice::Straight)
    }

    /// Returns whether there is a proxy that was named for this run: it goes before what a configuration says.
    pub fn is_named(&self) -> bool {
        matches!(self.0, Choice::Named(_))
    }

    /// Returns whether a password is part of what was named for this run.
    pub fn names_password(&self) -> bool {
        let login = if let Choice::Named(proxy) = &self.0 { proxy.login.as_ref() } else { None };
        login.is_some_and(|(_, password)| !password.expose().is_empty())
    }

    /// Returns the proxy through which a host is reached.
    ///
    /// # Errors
    /// `Usage` when the environment names one that can't be used.
    pub(in crate::transport) fn for_host(&self, host: &str) -> Result<Option<&Proxy>> {
        match &self.0 {
            Choice::Named(proxy) => Ok(Some(proxy)),
            Choice::Environment(proxy, exempt) if !exempts(exempt, host) => Ok(Some(proxy)),
            Choice::Broken(variable, why, exempt) if !exempts(exempt, host) => {
                Err(usage(why).at(variable).with_hint(format!("{SPOKEN}; --proxy none goes without")))
            }
            _ => Ok(None),
        }
    }
}

fn usage(message: &str) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(url: &str) -> Proxy {
        Proxy::parse(url).unwrap()
    }

    #[test]
    fn reads_every_part() {
        let proxy = parse("socks5h://me%40work:p%3Aw@[::1]:9050/");
        assert_eq!((proxy.protocol, proxy.host.as_str(), proxy.port), (Protocol::Socks5, "::1", 9050));
        let (user, password) = proxy.login.as_ref().unwrap();
        assert_eq!((user.as_str(), password.expose()), ("me@work", "p:w"));
        assert_eq!(parse("SOCKS5://h").protocol, Protocol::Socks5);
        assert_eq!((parse("h:3128").protocol, parse("h:3128").port), (Protocol::Http, 3128));
        assert_eq!((parse("h").port, parse("h").login), (1080, None));
        assert_eq!(parse("http://me@h").login, Some(("me".into(), Secret::new(""))));
    }

    #[test]
    fn refuses_what_it_cannot_speak_to() {
        for bad in [
            "",
            "socks4://h",
            "socks://h",
            "https://h",
            "http://",
            "http://:3128",
            "http://h:0",
            "http://h/path",
            "http://h\r\nx",
            "http://a%3Ab:c@h",
            "socks5://a%0ab@h",
            "socks5://\u{1b}://h",
        ] {
            assert_eq!(Proxies::parse(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
        let long = format!("socks5://u:{}@h", "x".repeat(256));
        assert!(Proxies::parse(&long).is_err());
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in ["http://me:hunter2@h", "me:hunter2@h:0", "socks4://me:hunter2@h", "me:hunter2://h", "me:hunter2@/"]
        {
            let said = match Proxies::parse(url) {
                Ok(proxies) => format!("{proxies:?} {}", proxies.for_host("x").unwrap().unwrap()),
                Err(e) => format!("{e:?} {}", e.chain()),
            };
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_proxy_of_the_environment_has_exceptions_and_one_that_was_named_has_none() {
        let proxy = Arc::new(parse("socks5://h"));
        let found = Proxies(Choice::Environment(Arc::clone(&proxy), "example.org".into()));
        assert_eq!(found.for_host("example.org").unwrap(), None);
        assert_eq!(found.for_host("example.com").unwrap(), Some(&*proxy));
        let named = Proxies(Choice::Named(Arc::clone(&proxy)));
        assert_eq!(named.for_host("example.org").unwrap(), Some(&*proxy));
        let broken = Proxies(Choice::Broken("ALL_PROXY", "no".into(), "example.org".into()));
        assert_eq!(broken.for_host("example.org").unwrap(), None);
        assert_eq!(broken.for_host("example.com").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(Proxies::parse("none").unwrap().for_host("example.com").unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_shown_without_a_login(text in ".{0,60}", password in "[A-Z]{6}") {
            let _ = Proxies::parse(&text);
            for scheme in ["", "socks5://", "http://", "x://"] {
                let said = format!("{:?}", Proxies::parse(&format!("{scheme}u{text}:{password}@{text}")));
                prop_assert!(!said.contains(&password) || text.contains(&password), "{said}");
            }
        }

        #[test]
        fn a_login_survives_its_url(user in "[^\u{0}-\u{1f}\u{7f}-\u{9f}:]{1,20}", password in "[^\u{0}-\u{1f}\u{7f}-\u{9f}]{1,20}") {
            let encode = |text: &str| percent_encoding::percent_encode(text.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string();
            let proxy = parse(&format!("socks5://{}:{}@h:1", encode(&user), encode(&password)));
            prop_assert_eq!(proxy.login, Some((user, Secret::new(password))));
        }
    }
}

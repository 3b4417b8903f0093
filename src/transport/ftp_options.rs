//! What only FTP has to be told: certificates and versions of TLS, who opens data connections, accounts.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::login::Secret;
use crate::error::{Error, ErrorKind, Result};

/// How to use FTP and its TLS, beyond whether and whom to trust.
#[derive(Debug, Clone, Default)]
pub struct FtpOptions {
    /// A PEM file with our certificate, and those up to its authority, for servers that ask who we are.
    pub tls_cert: Option<PathBuf>,
    /// The PEM file of its private key; `None`: it is in the same file.
    pub tls_key: Option<PathBuf>,
    /// Keys of which the server's must be one, beyond being trusted; empty: any. With a pin nothing goes unencrypted.
    pub tls_pins: Vec<TlsPin>,
    /// The oldest TLS to speak. With 1.3 nothing goes unencrypted.
    pub tls_min: TlsVersion,
    /// Ports at which the server may connect to us for data (active mode); `None`: we connect to it (passive mode).
    pub active: Option<ActivePorts>,
    /// What servers that ask for an account (ACCT) are told; `None`: the person is asked.
    pub account: Option<Secret>,
}

impl FtpOptions {
    /// Returns whether these options make no sense without TLS.
    pub(crate) fn demand_tls(&self) -> bool {
        !self.tls_pins.is_empty() || self.tls_min == TlsVersion::Tls13
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// A public key by the SHA-256 of its `SubjectPublicKeyInfo`, written `sha256//BASE64` as curl and RFC 7469 do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TlsPin([u8; 32]);

impl TlsPin {
    /// Makes a pin of the digest.
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Reads one or more pins with `;` between them.
    ///
    /// # Errors
    /// `Usage` for what is no pin.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        text.split(';').map(str::parse).collect()
    }
}

impl FromStr for TlsPin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digest = text.strip_prefix("sha256//").and_then(|digits| STANDARD.decode(digits).ok());
        digest.and_then(|digest| digest.try_into().ok()).map(Self).ok_or_else(|| {
            Error::new(ErrorKind::Usage, "a pin is sha256// and the base64 of 32 bytes; several have ; between them")
        })
    }
}

impl fmt::Display for TlsPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256//{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TlsPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The ports at which to wait for data connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivePorts {
    first: u16,
    last: u16,
}

impl ActivePorts {
    /// Whichever is free.
    pub const ANY: Self = Self { first: 0, last: 0 };

    /// Those from `first` to `last`.
    ///
    /// # Errors
    /// `Usage` when there is none among them, or 0.
    pub fn between(first: u16, last: u16) -> Result<Self> {
        match first {
            0 => Err(Error::new(ErrorKind::Usage, "0 is no port")),
            _ if first > last => Err(Error::new(ErrorKind::Usage, format!("no port from {first} to {last}"))),
            _ => Ok(Self { first, last }),
        }
    }

    /// Returns all of them, beginning anywhere, so that one that was in use just now is not the next.
    pub(crate) fn in_any_order(self) -> impl Iterator<Item = u16> {
        let count = u32::from(self.last - self.first) + 1;
        let start = getrandom::u32().unwrap_or(0) % count;
        (0..count).map(move |at| self.first + ((start + at) % count) as u16)
    }
}

impl FromStr for ActivePorts {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) => Self::between(first, last),
            _ => Err(Error::new(ErrorKind::Usage, "ports are written FIRST-LAST, like 50000-50100")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pins_are_read_as_curl_writes_them() {
        let text = "sha256//AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let pin = TlsPin::new(std::array::from_fn(|i| i as u8));
        assert_eq!(text.parse::<TlsPin>().unwrap(), pin);
        assert_eq!(TlsPin::parse_list(&format!("{text};{text}")).unwrap(), [pin, pin]);
        for bad in ["", "sha256//", "sha256//AAA", "sha1//AAAA", &text[8..], "sha256//AAECAwQ=", &format!("{text};")] {
            assert_eq!(TlsPin::parse_list(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn ports_are_a_range() {
        let ports = |text: &str| text.parse::<ActivePorts>();
        let mut all: Vec<u16> = ports("65530-65535").unwrap().in_any_order().collect();
        all.sort_unstable();
        assert_eq!(all, (65530..=65535).collect::<Vec<_>>());
        assert_eq!(ports("5000").unwrap().in_any_order().collect::<Vec<_>>(), [5000]);
        assert_eq!(ActivePorts::ANY.in_any_order().collect::<Vec<_>>(), [0]);
        for bad in ["", "0", "0-5", "9-8", "1-70000", "a-b", "-"] {
            assert_eq!(ports(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}", digest: [u8; 32]) {
            let _ = (TlsPin::parse_list(&text), text.parse::<ActivePorts>());
            let pin = TlsPin::new(digest);
            prop_assert_eq!(pin.to_string().parse::<TlsPin>().unwrap(), pin);
        }
    }
}

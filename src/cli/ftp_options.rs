//! Options that only FTP has. A flag, its help and its parse are neighbours.

use std::convert::Infallible;
use std::path::PathBuf;

use clap::Args;
use haul::transport::{ActivePorts, FtpOptions, Secret, TlsPin, TlsVersion};

use super::values::choice;

/// How to use FTP and its TLS.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection options")]
pub(crate) struct FtpArgs {
    /// Take no other public key from the FTP server: sha256//BASE64; several with a semicolon between them
    ///
    /// As curl's --pinnedpubkey: the SHA-256 of the key in the server's certificate, which must be trusted as well.
    /// ftp:// is then always encrypted. A key that doesn't match is shown as the pin that it would be.
    #[arg(long, value_name = "PIN", value_parser = |text: &str| TlsPin::parse_list(text).map(Pins))]
    tls_pin: Option<Pins>,

    /// Show FTP servers that ask for one the certificate of this PEM file
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// The PEM file of the key of --tls-cert [default: the same file]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Speak no older TLS; with 1.3, ftp:// is always encrypted
    #[arg(long, value_name = "VERSION", default_value = "1.2", value_parser = choice(&[
        ("1.2", "TLS 1.2", TlsVersion::Tls12),
        ("1.3", "TLS 1.3", TlsVersion::Tls13),
    ]))]
    tls_min: TlsVersion,

    /// Let the FTP server connect to this machine for data, as firewalls seldom allow
    #[arg(long)]
    active: bool,

    /// Be connected to at one of these ports, two for each connection; implies --active
    #[arg(long, value_name = "FIRST-LAST")]
    active_ports: Option<ActivePorts>,

    /// Give this account to FTP servers that ask for one beside user and password
    #[arg(long, value_name = "ACCOUNT", value_parser = |text: &str| Ok::<_, Infallible>(Secret::new(text)))]
    ftp_account: Option<Secret>,
}

impl FtpArgs {
    /// Makes the library's options of them.
    pub(crate) fn options(&self) -> FtpOptions {
        FtpOptions {
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
            tls_pins: self.tls_pin.clone().map(|pins| pins.0).unwrap_or_default(),
            tls_min: self.tls_min,
            active: self.active_ports.or(self.active.then_some(ActivePorts::ANY)),
            account: self.ftp_account.clone(),
        }
    }
}

/// What one `--tls-pin` says.
#[derive(Debug, Clone)]
struct Pins(Vec<TlsPin>);

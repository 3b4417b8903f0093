//! Options for the way to the server: proxies, families of addresses, the address here.

use std::net::IpAddr;

use clap::Args;
use haul::Error;
use haul::transport::{AddressFamily, ConnectOptions, Proxies};

use super::report::Report;

/// How servers are reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection options")]
pub(crate) struct NetworkArgs {
    /// Go through this proxy, or none [default: that of ALL_PROXY, but for the hosts of NO_PROXY]
    ///
    /// socks5h://HOST:PORT, socks5:// (the same: the proxy looks names up) or http://, with USER:PASSWORD@ in front of
    /// the host where the proxy wants that. All connections go through it, those for FTP's data too; of several
    /// servers on the way (ProxyJump), that to the first. A ProxyCommand of ~/.ssh/config goes before ALL_PROXY, and
    /// --proxy before both. A password here is seen by everybody who may list processes, one in ALL_PROXY is not.
    // Not read as an option's value: clap would show it, and the password in it, when it is wrong.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,

    /// Connect to IPv4 addresses only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,

    /// Connect to IPv6 addresses only
    #[arg(short = '6', long)]
    ipv6: bool,

    /// Connect from this address of this machine
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<IpAddr>,
}

impl NetworkArgs {
    /// Adds them to the library's options.
    pub(crate) fn apply(&self, options: &mut ConnectOptions) -> Result<(), Error> {
        options.proxies = match &self.proxy {
            Some(text) => Proxies::parse(text).map_err(|e| e.at("--proxy"))?,
            None => Proxies::from_environment(),
        };
        options.family = match (self.ipv4, self.ipv6) {
            (true, _) => Some(AddressFamily::Ipv4),
            (_, true) => Some(AddressFamily::Ipv6),
            _ => None,
        };
        options.bind = self.bind;
        Ok(())
    }

    /// Warns of a password that was typed; what can't be read is told when it is used.
    pub(crate) fn warn(&self, report: &Report) {
        let typed = self.proxy.as_deref().and_then(|text| Proxies::parse(text).ok());
        if typed.is_some_and(|proxies| proxies.names_password()) {
            report.warn(
                "a password in --proxy is seen by everybody who may list processes; the variable ALL_PROXY keeps it \
                 to yourself",
            );
        }
    }
}

//! Opening TCP connections, all of them: straight to the host or through a proxy.
//!
//! Every phase has the timeout for itself, and an error names the phase, and the proxy where it was there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use self::address::{Answered, Outset};
use self::proxy::{Protocol, Proxy};
use super::ConnectOptions;
use crate::error::{Error, ErrorKind, Result};

mod address;
mod exempt;
mod http;
mod proxy;
mod socks;

pub use proxy::Proxies;

/// Which addresses of a host are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// All of them, the families in turn.
    #[default]
    Any,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl AddressFamily {
    fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}

impl fmt::Display for AddressFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "usable",
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// How connections are made.
#[derive(Debug, Clone)]
pub(super) struct Dialler {
    outset: Outset,
    proxies: Proxies,
}

/// A new connection.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) tcp: TcpStream,
    /// The way to other ports of the same machine.
    pub(super) route: Route,
    /// How long the machine took to answer.
    pub(super) took: Duration,
}

/// The way to all ports of the machine that a connection leads to.
#[derive(Debug, Clone)]
pub(super) struct Route {
    dialler: Arc<Dialler>,
    machine: Machine,
}

#[derive(Debug, Clone)]
enum Machine {
    At(SocketAddr),
    /// What its name means, the proxy knows.
    Behind(Arc<str>),
}

impl Dialler {
    /// Makes one as the options have it; no network.
    pub(super) fn new(options: &ConnectOptions) -> Self {
        let (limit, family) = (options.timeout, options.family.unwrap_or_default());
        let outset = Outset { limit, family, bind: options.bind, keepalive: None };
        Self { outset, proxies: options.proxies.clone() }
    }

    /// Gives each phase this long.
    pub(super) fn within(mut self, limit: Duration) -> Self {
        self.outset.limit = limit;
        self
    }

    /// Starts from an address of this machine, towards addresses of a family.
    pub(super) fn starting_from(mut self, bind: Option<IpAddr>, family: AddressFamily) -> Self {
        (self.outset.bind, self.outset.family) = (bind, family);
        self
    }

    /// Has the system ask a peer that is silent for so long whether it is still there.
    pub(super) fn kept_alive(mut self, interval: Duration) -> Self {
        self.outset.keepalive = Some(interval);
        self
    }

    /// Returns whether a host is reached through a proxy: then nobody there can connect to this machine.
    ///
    /// # Errors
    /// `Usage` when the environment names a proxy that can't be used.
    pub(super) fn goes_through_proxy(&self, host: &str) -> Result<bool> {
        self.proxies.for_host(host).map(|proxy| proxy.is_some())
    }

    /// Connects to a port of a host.
    ///
    /// # Errors
    /// `ConnectionRefused` when the name is unknown or nobody answers; `Timeout`; of a proxy also `AuthFailed`,
    /// `PermissionDenied`, `Unsupported`, `Protocol`, `ConnectionLost`; `Usage` when the environment names one that
    /// can't be used.
    pub(super) async fn dial(self: &Arc<Self>, host: &str, port: u16) -> Result<Dialled> {
        let at_host = |e: Error| e.at(shown(host, port));
        let (tcp, machine, took) = match self.proxies.for_host(host)? {
            None => {
                let Answered { tcp, address, took } = self.outset.connect(host, port).await.map_err(at_host)?;
                (tcp, Machine::At(address), took)
            }
            Some(proxy) => {
                let (tcp, took) = Box::pin(self.pass(proxy, host, port)).await.map_err(at_host)?;
                (tcp, Machine::Behind(host.into()), took)
            }
        };
        Ok(Dialled { tcp, route: Route { dialler: Arc::clone(self), machine }, took })
    }

    /// Connects through the proxy; the time is that of its way to the host and ours to it together.
    async fn pass(&self, proxy: &Proxy, host: &str, port: u16) -> Result<(TcpStream, Duration)> {
        let passing = async {
            let mut tcp = self.outset.connect(&proxy.host, proxy.port).await?.tcp;
            let (login, limit) = (proxy.login.as_ref(), self.outset.limit);
            let took = match proxy.protocol {
                Protocol::Socks5 => socks::connect(&mut tcp, login, (host, port), limit).await?,
                Protocol::Http => http::connect(&mut tcp, login, (host, port), limit).await?,
            };
            Ok((tcp, took))
        };
        passing.await.map_err(|e: Error| e.context(format!("proxy {proxy}")))
    }
}

impl Route {
    /// Connects to a port of the machine, in the same way.
    ///
    /// # Errors
    /// Those of [`Dialler::dial`].
    pub(super) async fn dial(self, port: u16) -> Result<TcpStream> {
        let Self { dialler, machine } = self;
        match machine {
            Machine::At(mut address) => {
                address.set_port(port);
                dialler.outset.connect_to(address, "connect").await
            }
            Machine::Behind(host) => Passage::begin(dialler, host, port).await,
        }
    }
}

/// A connection being made through a proxy. Once it has begun it goes on whether anybody waits or not, as one that the
/// system makes does: servers wait for their data connection before they say what we wait for.
struct Passage(JoinHandle<Result<TcpStream>>);

impl Passage {
    fn begin(dialler: Arc<Dialler>, host: Arc<str>, port: u16) -> Self {
        Self(tokio::spawn(async move { dialler.dial(&host, port).await.map(|dialled| dialled.tcp) }))
    }
}

impl Future for Passage {
    type Output = Result<TcpStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(ended.unwrap_or_else(|e| Err(Error::new(ErrorKind::Other, "connect").with_source(e))))
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes host and port as they are written in URLs.
fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Waits for one phase.
async fn within<T>(limit: Duration, phase: &str, future: impl Future<Output = T>) -> Result<T> {
    let late = |_| Error::new(ErrorKind::Timeout, format!("{phase}: no answer for {} s", limit.as_secs_f32()));
    tokio::time::timeout(limit, future).await.map_err(late)
}

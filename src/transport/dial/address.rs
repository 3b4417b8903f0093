//! Connecting to a host by its name: looked up, each address tried, none waited for too long (RFC 8305).

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::{AddressFamily, within};
use crate::error::{Error, ErrorKind, Result};

/// How long an address gets before the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// From where and to which addresses connections are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outset {
    /// For the look-up, and for each address.
    pub(super) limit: Duration,
    pub(super) family: AddressFamily,
    /// The address here.
    pub(super) bind: Option<IpAddr>,
    /// After how much silence the system asks whether the peer is still there.
    pub(super) keepalive: Option<Duration>,
}

/// A connection, the address that answered, and how long that took.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) tcp: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) took: Duration,
}

impl Outset {
    /// Connects to the first address of a host that answers.
    ///
    /// # Errors
    /// `ConnectionRefused` when the name is unknown, has no address of the family, or no address answers; `Timeout`.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<Answered> {
        let addresses = self.usable(look_up(host, port, self.limit).await?)?;
        self.first_of(host, addresses).await
    }

    /// Connects to the first that answers; who comes later in the list starts later.
    async fn first_of(&self, host: &str, addresses: Vec<SocketAddr>) -> Result<Answered> {
        let mut waiting = in_turn(addresses).into_iter();
        let mut attempts = FuturesUnordered::new();
        let mut last = Error::new(ErrorKind::ConnectionRefused, "the host has no address");
        loop {
            match waiting.next() {
                Some(address) => attempts.push(self.attempt(host, address)),
                None if attempts.is_empty() => return Err(last),
                None => {}
            }
            tokio::select! {
                Some(attempt) = attempts.next() => match attempt {
                    Ok(answered) => return Ok(answered),
                    Err(e) => last = e,
                },
                () = sleep(HEAD_START), if waiting.len() > 0 => {}
            }
        }
    }

    /// Connects to one address.
    ///
    /// The kernel sizes the buffers: a fixed `SO_RCVBUF` turns its tuning off and is capped far below what a long link
    /// needs. Requests are small and each waits for its answer: Nagle would only delay them.
    pub(super) async fn connect_to(&self, address: SocketAddr, phase: &str) -> Result<TcpStream> {
        let connecting = async {
            let tcp = match self.bind {
                None => TcpStream::connect(address).await?,
                Some(from) => bound(from)?.connect(address).await?,
            };
            tcp.set_nodelay(true)?;
            if let Some(interval) = self.keepalive {
                rustix::net::sockopt::set_socket_keepalive(&tcp, true)?;
                rustix::net::sockopt::set_tcp_keepidle(&tcp, interval)?;
                rustix::net::sockopt::set_tcp_keepintvl(&tcp, interval)?;
            }
            Ok::<_, io::Error>(tcp)
        };
        within(self.limit, phase, connecting).await?.map_err(|e| Error::io(phase, e))
    }

    async fn attempt(&self, host: &str, address: SocketAddr) -> Result<Answered> {
        let began = Instant::now();
        // Of a host with a name, the address is news.
        let phase = if host.parse::<IpAddr>().is_ok() { "connect".into() } else { format!("connect to {address}") };
        let tcp = self.connect_to(address, &phase).await?;
        Ok(Answered { tcp, address, took: began.elapsed() })
    }

    /// Leaves out the addresses that can't be used from here.
    fn usable(&self, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
        let from = self.bind.map(|from| if from.is_ipv6() { AddressFamily::Ipv6 } else { AddressFamily::Ipv4 });
        for family in [self.family, from.unwrap_or_default()] {
            let any = !addresses.is_empty();
            addresses.retain(|address| family.has(address.ip()));
            if any && addresses.is_empty() {
                let text = format!("the host has no {family} address");
                return Err(Error::new(ErrorKind::ConnectionRefused, text)
                    .with_hint("-4, -6, --bind, or AddressFamily and BindAddress of ~/.ssh/config leave others out"));
            }
        }
        Ok(addresses)
    }
}

/// Makes a socket that starts from an address of this machine.
fn bound(from: IpAddr) -> io::Result<TcpSocket> {
    let socket = if from.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // Ports of connections that ended a moment ago would else be missing, after some thousand files.
    socket.set_reuseaddr(true)?;
    let named = |e: io::Error| io::Error::new(e.kind(), format!("from {from}: {e}"));
    socket.bind(SocketAddr::new(from, 0)).map_err(named)?;
    Ok(socket)
}

/// Returns the addresses of a host in the system's order.
///
/// The system's look-up blocks, for minutes where name servers are silent. It has a thread of its own, that nobody waits
/// for: the runtime waits for its own threads when it ends.
async fn look_up(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let refused = |e: io::Error| Error::io("look up the host", e).with_kind(ErrorKind::ConnectionRefused);
    let (answer, waiting) = oneshot::channel();
    let name = host.to_owned();
    let look = move || answer.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect));
    std::thread::Builder::new().name("look-up".into()).spawn(look).map_err(refused)?;
    match within(limit, "look up the host", waiting).await? {
        Ok(found) => found.map_err(refused),
        Err(_) => Err(Error::new(ErrorKind::Other, "look up the host")),
    }
}

/// Orders addresses so that the families take turns, beginning with the one that the system prefers.
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let longest = preferred.len().max(others.len());
    (0..longest).flat_map(|i| [preferred.get(i), others.get(i)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const OUTSET: Outset =
        Outset { limit: Duration::from_secs(5), family: AddressFamily::Any, bind: None, keepalive: None };

    #[test]
    fn families_take_turns() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (address("[::1]:1"), address("[::2]:1"), address("1.1.1.1:1"));
        assert_eq!(in_turn(vec![a, b, c]), [a, c, b]);
        assert_eq!(in_turn(vec![c, a]), [c, a]);
        assert_eq!(in_turn(vec![]), []);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_keep_from_a_living_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(OUTSET.connect("localhost", port).await.is_ok());
        drop(listener);
        let gone = OUTSET.connect("127.0.0.1", port).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_silent_address_does_not_keep_from_one_that_answers() {
        let silent = Silent::new().await;
        let living = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dead, alive) = (silent.address, living.local_addr().unwrap());
        let outset = Outset { limit: Duration::from_secs(3600), ..OUTSET };
        assert_eq!(outset.first_of("x", vec![dead, alive]).await.unwrap().address, alive);
    }

    #[tokio::test]
    async fn silence_ends_with_the_limit_and_names_the_phase() {
        let silent = Silent::new().await;
        let outset = Outset { limit: Duration::from_millis(20), ..OUTSET };
        let error = outset.connect("127.0.0.1", silent.address.port()).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Timeout, "connect: no answer for 0.02 s"));
        let error = outset.first_of("name", vec![silent.address; 2]).await.unwrap_err();
        assert_eq!(error.message(), format!("connect to {}: no answer for 0.02 s", silent.address));
    }

    #[tokio::test]
    async fn only_addresses_of_the_family_are_tried() {
        let living = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let four = living.local_addr().unwrap();
        let six: SocketAddr = format!("[::1]:{}", four.port()).parse().unwrap();
        for (outset, usable) in [
            (OUTSET, vec![six, four]),
            (Outset { family: AddressFamily::Ipv4, ..OUTSET }, vec![four]),
            (Outset { family: AddressFamily::Ipv6, ..OUTSET }, vec![six]),
            (Outset { bind: Some(four.ip()), ..OUTSET }, vec![four]),
        ] {
            assert_eq!(outset.usable(vec![six, four]).unwrap(), usable, "{outset:?}");
        }
        let outset = Outset { family: AddressFamily::Ipv6, ..OUTSET };
        let error = outset.connect("127.0.0.1", four.port()).await.unwrap_err();
        assert_eq!(error.message(), "the host has no IPv6 address");
        assert!(error.hint().is_some());
    }

    #[tokio::test]
    async fn connections_start_where_they_are_told_to() {
        let living = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = living.local_addr().unwrap().port();
        let outset = Outset { bind: Some("127.0.0.9".parse().unwrap()), ..OUTSET };
        let answered = outset.connect("127.0.0.1", port).await.unwrap();
        assert_eq!(answered.tcp.local_addr().unwrap().ip().to_string(), "127.0.0.9");
        let foreign = Outset { bind: Some("192.0.2.1".parse().unwrap()), ..OUTSET };
        let error = foreign.connect("127.0.0.1", port).await.unwrap_err();
        assert!(error.chain().contains("from 192.0.2.1"), "{}", error.chain());
    }

    /// A port that lets nobody in and turns nobody away: its queue is full.
    struct Silent {
        address: SocketAddr,
        _listener: TcpListener,
        _queue: Vec<TcpStream>,
    }

    impl Silent {
        async fn new() -> Self {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(1).unwrap();
            let address = listener.local_addr().unwrap();
            let mut queue = Vec::new();
            // As soon as one has to wait, all others do.
            while let Ok(Ok(tcp)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
            {
                queue.push(tcp);
            }
            Self { address, _listener: listener, _queue: queue }
        }
    }
}

//! Opening TCP connections: each address tried, none waited for too long.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, ErrorKind, Result};

/// How long an address gets before the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Keeps routers from forgetting a control connection that is silent during a long transfer.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Connects to the first address of a host that answers; returns how long that address took, too.
///
/// # Errors
/// `ConnectionRefused` when the name is unknown or no address answers; `Timeout`.
pub(super) async fn dial_host(host: &str, port: u16, limit: Duration) -> Result<(TcpStream, Duration)> {
    let refused = |what: &str, e: io::Error| {
        let kind = if e.kind() == io::ErrorKind::TimedOut { ErrorKind::Timeout } else { ErrorKind::ConnectionRefused };
        Error::new(kind, what).with_source(e).at(format!("{host}:{port}"))
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let found = timeout(limit, lookup_host((host, port))).await.map_err(late).and_then(|found| found);
    let mut waiting = in_turn(found.map_err(|e| refused("look up the host", e))?.collect()).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        match waiting.next() {
            Some(address) => attempts.push(timed(dial(address, limit))),
            None if attempts.is_empty() => return Err(refused("connect", last)),
            None => {}
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(tcp) => return Ok(tcp),
                Err(e) => last = e,
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

async fn timed<T, E>(attempt: impl Future<Output = Result<T, E>>) -> Result<(T, Duration), E> {
    let began = Instant::now();
    attempt.await.map(|value| (value, began.elapsed()))
}

/// Connects to one address.
///
/// The kernel sizes the buffers: a fixed `SO_RCVBUF` turns its tuning off and is capped far below what a long link needs.
pub(super) async fn dial(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let tcp = timeout(limit, TcpStream::connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    tcp.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&tcp, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&tcp, KEEPALIVE)?;
    rustix::net::sockopt::set_tcp_keepintvl(&tcp, KEEPALIVE)?;
    Ok(tcp)
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
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(dial_host("localhost", port, Duration::from_secs(5)).await.is_ok());
        drop(listener);
        let gone = dial_host("127.0.0.1", port, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
    }
}

//! Active mode: the server connects to us for data (RFC 959, PORT; RFC 2428, EPRT).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::wire::silence;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::ActivePorts;

/// Connections that may wait: the server makes one, and strangers shall not fill its place.
const BACKLOG: u32 = 16;

/// A port of ours for one data connection. A fresh one for each, so that none that came late is taken for the next.
pub(super) struct Offer {
    listener: TcpListener,
    here: SocketAddr,
}

impl Offer {
    /// Listens at the address that the server sees on the control connection.
    ///
    /// # Errors
    /// Those of the system where none of the ports is free.
    pub(super) fn new(mut here: SocketAddr, ports: ActivePorts) -> Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in ports.in_any_order() {
            here.set_port(port);
            match listen(here) {
                Ok(listener) => {
                    let here = listener.local_addr().map_err(|e| Error::io("listen for data", e))?;
                    return Ok(Self { listener, here });
                }
                Err(e) => last = e,
            }
        }
        Err(Error::io("listen for data", last)
            .with_kind(ErrorKind::Other)
            .with_hint("active mode needs a free port of this machine for each connection; see --active-ports"))
    }

    /// Returns the command that tells the server.
    ///
    /// # Errors
    /// `Unsupported` for PORT and IPv6.
    pub(super) fn command(&self, verb: Verb) -> Result<String> {
        let (ip, port) = (self.here.ip().to_canonical(), self.here.port());
        match (verb, ip) {
            (Verb::Eprt, IpAddr::V4(_)) => Ok(format!("EPRT |1|{ip}|{port}|")),
            (Verb::Eprt, IpAddr::V6(_)) => Ok(format!("EPRT |2|{ip}|{port}|")),
            (Verb::Port, IpAddr::V4(v4)) => {
                let [a, b, c, d] = v4.octets();
                Ok(format!("PORT {a},{b},{c},{d},{},{}", port >> 8, port & 0xff))
            }
            (Verb::Port, IpAddr::V6(_)) => {
                Err(Error::new(ErrorKind::Unsupported, "active mode over IPv6: the server refuses EPRT")
                    .with_hint("passive mode, without --active, may work"))
            }
        }
    }

    /// Waits for the server; who connects from elsewhere is sent away and changes nothing.
    pub(super) async fn accept(self, server: IpAddr, limit: Duration) -> io::Result<TcpStream> {
        let arrival = async {
            loop {
                let (tcp, from) = self.listener.accept().await?;
                if from.ip().to_canonical() == server.to_canonical() {
                    tcp.set_nodelay(true)?;
                    return Ok(tcp);
                }
                tracing::warn!("refused a data connection from {}, which is not the server", from.ip());
            }
        };
        timeout(limit, arrival).await.unwrap_or_else(|_| Err(silence(limit)))
    }
}

/// Which of the two commands a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// For both families of addresses.
    Eprt,
    /// For IPv4, and servers older than 1998.
    Port,
}

fn listen(here: SocketAddr) -> io::Result<TcpListener> {
    let socket = if here.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A port of a small range may still be remembered for a connection that has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(here)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn offer(ports: ActivePorts) -> Offer {
        Offer::new("127.0.0.1:21".parse().unwrap(), ports).unwrap()
    }

    #[tokio::test]
    async fn commands_are_those_of_the_standards() {
        let port = offer(ActivePorts::ANY).here.port();
        let free = ActivePorts::between(port, port).unwrap();
        assert_eq!(offer(free).command(Verb::Eprt).unwrap(), format!("EPRT |1|127.0.0.1|{port}|"));
        assert_eq!(offer(free).command(Verb::Port).unwrap(), format!("PORT 127,0,0,1,{},{}", port / 256, port % 256));
        let six = Offer::new("[::1]:21".parse().unwrap(), free).unwrap();
        assert_eq!(six.command(Verb::Eprt).unwrap(), format!("EPRT |2|::1|{port}|"));
        assert_eq!(six.command(Verb::Port).unwrap_err().kind(), ErrorKind::Unsupported);
        // IPv4 through a socket for IPv6.
        let mapped = Offer::new("[::ffff:127.0.0.1]:21".parse().unwrap(), free).unwrap();
        assert_eq!(mapped.command(Verb::Eprt).unwrap(), format!("EPRT |1|127.0.0.1|{port}|"));
    }

    #[tokio::test]
    async fn a_taken_range_is_an_error() {
        let first = offer(ActivePorts::ANY);
        let port = first.here.port();
        let taken = Offer::new("127.0.0.1:21".parse().unwrap(), ActivePorts::between(port, port).unwrap());
        assert!(taken.is_err_and(|e| e.hint().is_some()));
    }

    #[tokio::test]
    async fn only_the_server_is_let_in() {
        let offer = offer(ActivePorts::ANY);
        let here = offer.here;
        let connect = async |from: &str| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(from.parse().unwrap()).unwrap();
            socket.connect(here).await.unwrap()
        };
        let stranger = connect("127.0.0.9:0").await;
        let server = connect("127.0.0.2:0").await;
        let taken = offer.accept("127.0.0.2".parse().unwrap(), LIMIT).await.unwrap();
        assert_eq!(taken.peer_addr().unwrap(), server.local_addr().unwrap());
        drop(stranger);
    }

    #[tokio::test]
    async fn a_server_that_does_not_come_is_not_waited_for_long() {
        let late = offer(ActivePorts::ANY).accept("127.0.0.1".parse().unwrap(), Duration::from_millis(1)).await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}

//! Where the next data connection goes, or comes from: how to ask, what the server answers, and the way there, begun
//! before it is needed.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

use super::active::{Offer, Verb};
use super::dialogue::Dialogue;
use super::reply::Reply;
use crate::error::{Error, Result};
use crate::transport::ActivePorts;
use crate::transport::dial::Route;

/// Privileged ports that are meant for data: ftp-data and ftps-data.
const FOR_DATA: [u16; 2] = [20, 989];

/// How data connections are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataCommand {
    /// Where the server may connect to us.
    pub(super) active: Option<ActivePorts>,
    /// Whether it is PASV or PORT, not EPSV or EPRT.
    pub(super) classic: bool,
}

impl DataCommand {
    /// Returns the line to send next on a connection. In active mode that opens a port, which belongs to the answer.
    ///
    /// # Errors
    /// See [`Offer`].
    pub(super) fn line(self, dialogue: &mut Dialogue) -> Result<String> {
        let Some(ports) = self.active else { return Ok(self.verb().to_owned()) };
        let offer = Offer::new(dialogue.here()?, ports)?;
        let line = offer.command(if self.classic { Verb::Port } else { Verb::Eprt })?;
        dialogue.offer(offer);
        Ok(line)
    }

    /// Returns the name of the command.
    pub(super) fn verb(self) -> &'static str {
        match (self.active, self.classic) {
            (None, false) => "EPSV",
            (None, true) => "PASV",
            (Some(_), false) => "EPRT",
            (Some(_), true) => "PORT",
        }
    }
}

/// A data connection being made.
pub(super) struct Way {
    dialling: BoxFuture<'static, Result<TcpStream>>,
    /// Made before it was needed.
    pub(super) ahead: bool,
}

impl Way {
    /// Goes on from the answer to the question for a data connection: towards a port of the server itself, or, where we
    /// had offered one, from there. `None` where the answer is no or makes no sense.
    pub(super) fn answered(
        reply: &Reply,
        offer: Option<Offer>,
        server: SocketAddr,
        route: &Route,
        limit: Duration,
        ahead: bool,
    ) -> Option<Self> {
        match offer {
            // Not begun: the time that the server has begins when the transfer does.
            Some(offer) if reply.is_ok() => {
                let arrival = async move {
                    offer.accept(server.ip(), limit).await.map_err(|e| Error::io("wait for the server", e))
                };
                Some(Self { dialling: Box::pin(arrival), ahead })
            }
            Some(_) => None,
            None => Some(Self { dialling: Box::pin(route.clone().dial(port_in(reply)?)), ahead }.begun()),
        }
    }

    /// Waits for the connection.
    pub(super) async fn arrived(self) -> Result<Self> {
        let tcp = self.dialling.await?;
        Ok(Self { dialling: Box::pin(std::future::ready(Ok(tcp))), ..self })
    }

    /// Returns the connection.
    pub(super) async fn connected(self) -> Result<TcpStream> {
        self.dialling.await
    }

    /// Sends the first packet: after that the system goes on by itself.
    fn begun(mut self) -> Self {
        if let Some(result) = (&mut self.dialling).now_or_never() {
            self.dialling = Box::pin(std::future::ready(result));
        }
        self
    }
}

/// Reads the port out of a reply to EPSV (RFC 2428) or PASV (RFC 959). The address of a 227 is not believed. Nor is a
/// port that belongs to another service: what we send there could be a mail, say, that seems to come from us.
pub(super) fn port_in(reply: &Reply) -> Option<u16> {
    named_port(reply).filter(|port| *port >= 1024 || FOR_DATA.contains(port))
}

fn named_port(reply: &Reply) -> Option<u16> {
    let text = std::str::from_utf8(reply.last_text()).ok()?;
    match reply.code() {
        229 => {
            let inner = text.get(text.find('(')? + 1..text.rfind(')')?)?;
            let mut parts = inner.split(inner.chars().next()?);
            parts.nth(3)?.parse().ok()
        }
        227 => {
            let is_list = |word: &&str| word.split(',').count() == 6;
            let list = text.split(|c: char| !c.is_ascii_digit() && c != ',').find(is_list)?;
            let numbers: Vec<u8> = list.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
            Some(u16::from_be_bytes([numbers[4], numbers[5]]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> Option<u16> {
        port_in(&Reply::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn finds_the_port() {
        assert_eq!(port("229 Entering Extended Passive Mode (|||40001|)\r\n"), Some(40001));
        assert_eq!(port("229 ok (!!!2000!).\r\n"), Some(2000));
        assert_eq!(port("227 Entering Passive Mode (10,1,2,3,195,80).\r\n"), Some(50000));
        assert_eq!(port("227 Passive 10,1,2,3,4,0\r\n"), Some(1024));
        assert_eq!(port("227 Passive 10,1,2,3,0,20\r\n"), Some(20));
        for none in [
            "229 (|||70000|)",
            "229 nothing",
            "229 )(",
            "229 ()",
            "227 (1,2,3,4,5)",
            "227 1,2,3,4,5,999",
            "200 (|||2000|)",
            "229 (|||0|)",
            "229 (|||25|)",
            "229 (|||1023|)",
            "227 (10,1,2,3,0,0)",
            "227 (10,1,2,3,0,21)",
        ] {
            assert_eq!(port(&format!("{none}\r\n")), None, "{none}");
        }
    }
}

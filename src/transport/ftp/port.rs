//! Where the next data connection goes: the replies to EPSV and PASV, and the way there, begun before it is needed.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

use super::reply::Reply;
use crate::error::Result;
use crate::transport::dial::Route;

/// A data connection being made.
pub(super) struct Way {
    dialling: BoxFuture<'static, Result<TcpStream>>,
    /// Made before it was needed.
    pub(super) ahead: bool,
}

impl Way {
    /// Starts towards a port of the server itself.
    pub(super) fn to(server: &Route, port: u16, ahead: bool) -> Self {
        Self { dialling: Box::pin(server.clone().dial(port)), ahead }.begun()
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

/// Reads the port out of a reply to EPSV (RFC 2428) or PASV (RFC 959): the address of a 227 is not to be believed.
pub(super) fn port_in(reply: &Reply) -> Option<u16> {
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
        assert_eq!(port("229 ok (!!!7!).\r\n"), Some(7));
        assert_eq!(port("227 Entering Passive Mode (10,1,2,3,195,80).\r\n"), Some(50000));
        assert_eq!(port("227 Passive 10,1,2,3,0,21\r\n"), Some(21));
        for none in [
            "229 (|||70000|)",
            "229 nothing",
            "229 )(",
            "229 ()",
            "227 (1,2,3,4,5)",
            "227 1,2,3,4,5,999",
            "200 (|||1|)",
        ] {
            assert_eq!(port(&format!("{none}\r\n")), None, "{none}");
        }
    }
}

//! The end of transfers: the server's last word on one, why one failed, and how one is broken off.

use bytes::{BufMut, BytesMut};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::connection::{Connection, Health};
use super::data::Data;
use super::reply::Reply;
use super::transfer::{LAST_WORDS, Refusal};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::lease::Lease;

/// The most bytes that are read in vain rather than break a transfer off.
const MOST_UNWANTED: usize = 256 * 1024;

/// Breaks a transfer off and sees in the background to it that its connection can be used again, or is replaced.
pub(super) fn cut(mut connection: Lease<Connection>, data: Data) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            match connection.cut(data).await {
                Ok(()) => connection.give_back(),
                Err(_) => connection.replace(),
            }
        });
    }
}

impl Connection {
    /// Waits until the server agrees to what was begun at once.
    pub(super) async fn agreed(&mut self) -> Result<(), Refusal> {
        let reply = self.next_reply("STOR").await?;
        if reply.code() / 100 == 1 {
            return Ok(());
        }
        self.over();
        Err(self.refused(reply))
    }

    /// Asks, at the end of what a transfer brought, for the port of the next one.
    pub(super) async fn ask_behind(&mut self) -> Result<()> {
        if !self.behind {
            let port_line = self.port_line()?;
            self.tell(&[port_line]).await?;
            self.behind = true;
        }
        Ok(())
    }

    /// Waits for the server's last word on a transfer, which must be that all went well.
    pub(super) async fn complete(&mut self) -> Result<Reply, Refusal> {
        let reply = self.next_reply("finish").await?;
        self.over();
        // The answer to a question that was asked behind the transfer is none to how that went.
        if reply.is_ok() && !matches!(reply.code(), 213 | 227 | 229) {
            return Ok(reply);
        }
        self.health = Health::Broken;
        Err(self.refused(reply))
    }

    /// Makes the error of a data connection that broke; what the server says counts more than how.
    pub(super) async fn why_broken(&mut self, error: std::io::Error) -> Refusal {
        let last_words = async {
            loop {
                match self.next_reply("finish").await {
                    Ok(reply) if reply.code() / 100 == 1 => {}
                    other => return other,
                }
            }
        };
        let said = timeout(LAST_WORDS, last_words).await;
        self.health = Health::Broken;
        match said {
            Ok(Ok(reply)) if reply.code() >= 400 => self.refused(reply),
            _ => Refusal::Failed(Error::io("write", error)),
        }
    }

    /// Tells what a refusal of a transfer means.
    pub(super) fn refused(&mut self, reply: Reply) -> Refusal {
        match reply.code() {
            // The server demands a resumed session and doesn't take ours for one.
            // ProFTPD says no more than that it was "unable to build data connection".
            425 | 426 | 435 | 522 if mentions_tls(&reply) || (self.is_tls13() && reply.code() == 425) => {
                let error = reply.error("TLS on the data connection").with_kind(ErrorKind::Tls);
                Refusal::Failed(self.without_tls13(error))
            }
            _ => Refusal::Said(reply),
        }
    }

    /// Makes new connections use TLS 1.2 when this one has 1.3; then a fresh attempt can succeed.
    pub(super) fn without_tls13(&mut self, error: Error) -> Error {
        self.health = Health::Broken;
        if !self.is_tls13() || !self.login().give_up_tls13() {
            return error;
        }
        tracing::debug!("{error}: going on with TLS 1.2");
        error.with_kind(ErrorKind::ConnectionLost)
    }

    /// Ends a transfer that nobody wants: what little there is is read, since breaking it off costs some servers the
    /// session.
    pub(super) async fn let_pass(&mut self, mut data: Data) -> Result<(), Refusal> {
        let mut unwanted = BytesMut::with_capacity(MOST_UNWANTED).limit(MOST_UNWANTED);
        while unwanted.has_remaining_mut() {
            match data.fill(&mut unwanted).await {
                Ok(0) => {
                    drop(data);
                    // Whatever it thinks of a listing that wasn't meant.
                    let _ = self.next_reply("finish").await?;
                    self.over();
                    return Ok(());
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Ok(self.cut(data).await?)
    }

    /// Breaks a transfer off, and reads what the server says about that, up to its answer to the next question.
    pub(super) async fn cut(&mut self, mut data: Data) -> Result<()> {
        let was_behind = self.behind;
        let into_step = async {
            data.receive_tickets().await;
            drop(data);
            let _ = self.next_reply("finish").await?;
            self.over();
            if !was_behind {
                self.ask_ahead().await?;
            }
            self.control.settled().await
        };
        timeout(LAST_WORDS, into_step).await.unwrap_or_else(|_| Err(ErrorKind::Timeout.into()))
    }

    /// Notes that the server has said its last word on a transfer: what it says next is about the next one's port.
    pub(super) fn over(&mut self) {
        if std::mem::take(&mut self.behind) {
            self.expect_port();
        }
    }
}

fn mentions_tls(reply: &Reply) -> bool {
    let words = reply.words().to_ascii_lowercase();
    ["ssl", "tls", "session reuse"].iter().any(|word| words.contains(word))
}

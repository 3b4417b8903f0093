//! One connection through the link: both ways, until it ends or is broken.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::rules::Verdict;
use super::{On, State, Towards};

const CHUNK: usize = 64 << 10;

/// How a connection, or all of them, are broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// This one, with a reset.
    Reset,
    /// This one, with a FIN both ways.
    Close,
    /// All, with a reset.
    CutAll,
    /// All, with a FIN.
    CloseAll,
    /// This direction of this one.
    HalfClose,
    /// Nothing moves until it is healed.
    Stall,
}

/// Carries bytes both ways until both have ended, or until it is broken.
pub(super) async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    on: On,
    number: usize,
    state: &Arc<State>,
    mut breaks: watch::Receiver<(u32, Ending)>,
) {
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = Pump { state, way: (on, Towards::Server), number };
        let down = Pump { state, way: (on, Towards::Client), number };
        tokio::select! {
            biased;
            Ok(()) = breaks.changed() => Err(breaks.borrow().1),
            ended = async { tokio::try_join!(up.run(from_client, to_server), down.run(from_server, to_client)) } => ended,
        }
    };
    if let Err(Ending::Reset) = ended {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

struct Pump<'a> {
    state: &'a Arc<State>,
    way: (On, Towards),
    number: usize,
}

impl Pump<'_> {
    /// Passes bytes on until this direction ends; an error ends the whole connection.
    async fn run(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), Ending> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = self.gather(&mut from, &mut buffer).await?;
            self.while_stalled().await;
            if self.state.seeks && self.way == (On::Control, Towards::Client) {
                self.state.follow_ports();
            }
            let Verdict { passing, then } = self.state.rules().judge(&mut buffer[..count], self.way, self.number);
            self.send(&buffer[..passing], &mut to).await?;
            match then {
                None if count == 0 => {
                    let _ = to.shutdown().await;
                    return Ok(());
                }
                None => {}
                Some(Ending::HalfClose) => {
                    let _ = to.shutdown().await;
                    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
                    return Ok(());
                }
                Some(Ending::Stall) => {
                    self.state.stalled.send_replace(true);
                    self.while_stalled().await;
                    self.send(&buffer[passing..count], &mut to).await?;
                }
                Some(ending @ (Ending::CutAll | Ending::CloseAll)) => {
                    let how = if ending == Ending::CutAll { Ending::Reset } else { Ending::Close };
                    self.state.end_all(how);
                    return Err(how);
                }
                Some(how) => return Err(how),
            }
        }
    }

    /// Reads what there is, or as much as is to be held back; 0 is the end. A reset is passed on as one.
    async fn gather(&self, from: &mut ReadHalf<'_>, buffer: &mut Vec<u8>) -> Result<usize, Ending> {
        let mut count = from.read(&mut buffer[..CHUNK]).await.map_err(|_| Ending::Reset)?;
        let Some((wanted, quiet)) = self.state.rules().held(self.way.0) else { return Ok(count) };
        buffer.resize(buffer.len().max(wanted), 0);
        while count > 0 && count < wanted {
            match timeout(quiet, from.read(&mut buffer[count..])).await {
                Ok(Ok(more @ 1..)) => count += more,
                // The end, or an error, shows again with the next read.
                _ => break,
            }
        }
        Ok(count)
    }

    async fn send(&self, mut bytes: &[u8], to: &mut WriteHalf<'_>) -> Result<(), Ending> {
        while !bytes.is_empty() {
            let (piece, wait) = self.state.rules().piece(bytes.len(), self.way);
            to.write_all(&bytes[..piece]).await.map_err(|_| Ending::Reset)?;
            bytes = &bytes[piece..];
            match wait {
                Duration::ZERO => tokio::task::yield_now().await,
                wait => sleep(wait).await,
            }
            self.while_stalled().await;
        }
        Ok(())
    }

    async fn while_stalled(&self) {
        let _ = self.state.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }
}

//! A pair of sockets with a task between: libssh2 reads and writes a socket by itself, and what comes from the server is
//! looked at before it does.

use std::io;
use std::sync::Arc;

use tokio::io::{BufReader, copy_buf, split};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::GOODBYE;
use super::road::Road;
use super::tcp::Watched;
use crate::error::{Error, Result};

/// Bytes moved at once.
const CHUNK: usize = 256 << 10;

/// Ends the task, after what was sent last had its time, when dropped.
#[derive(Debug)]
pub(super) struct Relay(Arc<Notify>);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Puts a relay before a connection. It ends with either side.
pub(super) fn relay(connection: Watched) -> Result<(Road, Relay)> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("set up the connection", e))?;
    let unwanted = Arc::new(Notify::new());
    let end = Relay(Arc::clone(&unwanted));
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = move_bytes(connection, theirs) => ended,
            // A server that takes nothing would keep it for ever.
            () = async { unwanted.notified().await; sleep(GOODBYE).await } => Ok(()),
        };
        if let Err(e) = ended {
            tracing::debug!("the connection ended: {e}");
        }
    });
    Ok((Road::Local(ours), end))
}

async fn move_bytes(connection: Watched, theirs: UnixStream) -> io::Result<()> {
    let (from_server, mut to_server) = split(connection);
    let (from_us, mut to_us) = theirs.into_split();
    let (mut from_server, mut from_us) =
        (BufReader::with_capacity(CHUNK, from_server), BufReader::with_capacity(CHUNK, from_us));
    tokio::select! {
        moved = copy_buf(&mut from_server, &mut to_us) => moved?,
        moved = copy_buf(&mut from_us, &mut to_server) => moved?,
    };
    Ok(())
}

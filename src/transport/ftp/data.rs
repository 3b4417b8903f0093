//! A data connection: one file or listing, in one direction.

use std::io;

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::wire::Wire;

/// An open data connection.
pub(super) struct Data {
    wire: Wire,
}

impl Data {
    /// Wraps a connection.
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// Reads into the free part of a buffer; 0 is the end.
    pub(super) async fn fill(&mut self, buffer: &mut (impl BufMut + Send)) -> io::Result<usize> {
        self.wire.read_all_there_is(buffer).await
    }

    /// Writes a part of the bytes and returns how many.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wire.write(bytes).await
    }

    /// Tells the server that this was all. The connection stays open for reading: closing it while something that the
    /// server sent is unread (tickets of TLS 1.3) would take back what it hasn't read yet.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        self.wire.flush().await?;
        self.wire.shutdown().await
    }

    /// Takes in the tickets that came during an upload.
    pub(super) fn take_tickets(&mut self) {
        if self.wire.is_tls13() {
            while matches!(self.wire.read_now(&mut [0; 64]), Some(Ok(1..))) {}
        }
    }

    /// Waits for tickets, which come before the first byte: without them the next data connection may not be let in.
    pub(super) async fn receive_tickets(&mut self) {
        if self.wire.is_tls13() {
            let _ = self.wire.read(&mut [0; 64]).await;
        }
    }
}

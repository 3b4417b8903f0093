//! Cutting a connection from outside: what reads or writes it, on whatever thread, then ends.

use std::io;
use std::net::{Shutdown, TcpStream};

/// A second handle on a socket, which shuts it down when dropped.
pub(super) struct CutOnDrop(Option<TcpStream>);

impl CutOnDrop {
    /// Takes a second handle on a socket of the runtime.
    pub(super) fn new(stream: tokio::net::TcpStream) -> io::Result<(tokio::net::TcpStream, Self)> {
        let stream = stream.into_std()?;
        let cut = Self::of(&stream)?;
        Ok((tokio::net::TcpStream::from_std(stream)?, cut))
    }

    /// Takes a second handle on a blocking socket.
    pub(super) fn of(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self(Some(stream.try_clone()?)))
    }

    /// Lets go of the socket without cutting it.
    pub(super) fn spare(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        let _ = self.0.as_ref().map(|stream| stream.shutdown(Shutdown::Both));
    }
}

//! The way to a server: straight by TCP, through other servers (`ProxyJump`), or by a command (`ProxyCommand`).
//!
//! Whatever it is, the engines get a socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, copy_bidirectional};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::cache::LoginCache;
use super::russh;
use super::target::{Target, Way};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::ConnectOptions;
use crate::transport::dial::{Dialled, Dialler};

/// A socket that leads to the server.
#[derive(Debug)]
pub(super) enum Road {
    Tcp(TcpStream),
    /// What is behind it, the [`Keeper`] knows.
    Local(UnixStream),
}

/// Keeps a road open, and closes it when dropped.
#[derive(Debug)]
pub(super) enum Keeper {
    Nobody,
    /// The command that leads to the server.
    Command {
        _child: Child,
    },
    /// The task that moves bytes between us and the server before the last.
    Jump(JoinHandle<()>),
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Self::Jump(task) = self {
            task.abort();
        }
    }
}

/// How errors of servers on the way begin.
const ON_THE_WAY: &str = "on the way, at ";

/// A stream of bytes through another server.
pub(super) trait Tunnel: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Tunnel for T {}

/// Finds the way to a target.
///
/// # Errors
/// Those of TCP; those of a login at a server on the way, which its message names; `ConnectionRefused` when a command
/// can't be started or a server on the way lets nobody through.
pub(super) async fn open(target: &Target, options: &ConnectOptions, cache: &LoginCache) -> Result<(Road, Keeper)> {
    match &target.way {
        // A proxy that was named for this run goes before what the configuration says.
        Way::Command(command) if !options.proxies.is_named() => run(command),
        Way::Straight | Way::Command(_) => {
            let dialler =
                Dialler::new(options).within(target.connect_timeout).starting_from(target.bind_address, target.family);
            let Dialled { tcp, .. } = Arc::new(dialler).dial(&target.host, target.port).await?;
            Ok((Road::Tcp(tcp), Keeper::Nobody))
        }
        Way::Jumps(hops) => through(hops, target, options, cache).await,
    }
}

/// Starts a command whose input and output lead to the server.
fn run(command: &str) -> Result<(Road, Keeper)> {
    let failed = |e: io::Error| {
        Error::io("start the ProxyCommand", e).with_kind(ErrorKind::ConnectionRefused).at(format!("`{command}`"))
    };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let input = OwnedFd::from(theirs.try_clone().map_err(failed)?);
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    let child = Command::new(shell)
        .arg("-c")
        .arg(format!("exec {command}"))
        // It has no use for our password, and others may see its environment.
        .env_remove("HAUL_PASSWORD")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    Ok((Road::Local(UnixStream::from_std(ours).map_err(failed)?), Keeper::Command { _child: child }))
}

/// Logs in at one server after the other. Each checks its host key, and none is told the target's password.
async fn through(
    hops: &[String],
    target: &Target,
    options: &ConnectOptions,
    cache: &LoginCache,
) -> Result<(Road, Keeper)> {
    let options = ConnectOptions { password: None, identities: Vec::new(), ..options.clone() };
    let Some((last, before)) = hops.split_last() else {
        return Err(Error::new(ErrorKind::Usage, "ProxyJump names no host"));
    };
    let cache = cache.of_hop(last);
    let find = async {
        let hop = Target::of_hop(last, &options, target.depth + 1).await?;
        // What was asked for goes before what the hop's own configuration says.
        Ok(if before.is_empty() { hop } else { Target { way: Way::Jumps(before.to_vec()), ..hop } })
    };
    let hop = cache.target(find).await?;
    // The server that is nearest to the trouble is named, not all of them.
    let at_hop =
        |e: Error| if e.message().starts_with(ON_THE_WAY) { e } else { e.context(format!("{ON_THE_WAY}{}", hop.name)) };
    let session = Box::pin(russh::log_in_at(hop, &options, &cache)).await.map_err(at_hop)?;
    let mut tunnel = session.tunnel(&target.host, target.port).await.map_err(at_hop)?;
    let (ours, mut theirs) = UnixStream::pair().map_err(|e| Error::io("set up the connection", e))?;
    let task = tokio::spawn(async move {
        if let Err(e) = copy_bidirectional(&mut tunnel, &mut theirs).await {
            tracing::debug!("the way ended: {e}");
        }
        drop(session);
    });
    Ok((Road::Local(ours), Keeper::Jump(task)))
}

impl Road {
    /// Hands over the socket; it doesn't block.
    pub(super) fn into_fd(self) -> Result<OwnedFd> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(OwnedFd::from),
            Self::Local(stream) => stream.into_std().map(OwnedFd::from),
        }
        .map_err(|e| Error::io("set up the connection", e))
    }

    /// Is ready when there may be something to read.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Local(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Reads by `read`, which says `WouldBlock` when nothing is left.
    pub(super) fn try_read<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, read),
            Self::Local(stream) => stream.try_io(Interest::READABLE, read),
        }
    }

    pub(super) fn writer(&mut self) -> &mut (dyn AsyncWrite + Send + Unpin) {
        match self {
            Self::Tcp(stream) => stream,
            Self::Local(stream) => stream,
        }
    }
}

impl AsFd for Road {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Local(stream) => stream.as_fd(),
        }
    }
}

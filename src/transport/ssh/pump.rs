//! The thread of a libssh2 session: the only one that touches it once logged in.
//!
//! It sleeps in poll(2) until the socket or the asynchronous side has something.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc as commands;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use tokio::sync::oneshot;

use super::channels::{Channels, StartReply};
use super::libssh2::failure;
use super::target::{Alive, KEEPALIVES};
use super::{Ended, Inbound};
use crate::error::{Error, ErrorKind, Result};

/// libssh2 counts the time between keepalives in whole seconds, at least two.
const SHORTEST_KEEPALIVE: u32 = 2;

/// What the asynchronous side asks for.
pub(super) enum Command {
    Subsystem { name: String, inbound: Arc<dyn Inbound>, reply: StartReply },
    Exec { command: String, reply: oneshot::Sender<Result<Vec<u8>>> },
    CloseChannel { id: u64 },
    Goodbye { reply: oneshot::Sender<()> },
}

/// The asynchronous side's end.
#[derive(Clone)]
pub(super) struct Line {
    commands: commands::Sender<Command>,
    bell: Arc<UnixStream>,
    ended: Arc<Ended>,
}

impl Line {
    /// Hands over a command.
    pub(super) fn tell(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| self.reason())?;
        self.wake();
        Ok(())
    }

    /// Ends the thread's sleep.
    pub(super) fn wake(&self) {
        // A full buffer means that it is being woken already.
        let _ = (&*self.bell).write(&[0]);
    }

    /// Returns why the connection ended.
    pub(super) fn reason(&self) -> Error {
        self.ended.reason()
    }
}

/// Starts the thread. It ends when the socket is shut down.
pub(super) fn start(session: ssh2::Session, socket: OwnedFd, alive: Alive) -> Result<Line> {
    let setup = |e: io::Error| Error::io("set up the connection", e);
    let (bell, ear) = UnixStream::pair().map_err(setup)?;
    bell.set_nonblocking(true).map_err(setup)?;
    ear.set_nonblocking(true).map_err(setup)?;
    let (sender, receiver) = commands::channel();
    let ended = Arc::new(Ended::default());
    let line = Line { commands: sender, bell: Arc::new(bell), ended: Arc::clone(&ended) };

    let keepalive = u32::try_from(alive.interval.as_secs()).unwrap_or(u32::MAX / KEEPALIVES);
    let keepalive = keepalive.max(SHORTEST_KEEPALIVE);
    session.set_keepalive(true, keepalive);
    session.set_blocking(false);
    let pump = Pump {
        socket,
        ear,
        commands: receiver,
        silence: alive.silence.max(Duration::from_secs(u64::from(keepalive * KEEPALIVES))),
        heard: Instant::now(),
        sent: Instant::now(),
        channels: Channels::new(session),
    };
    std::thread::Builder::new().name("libssh2".into()).spawn(move || pump.run(&ended)).map_err(setup)?;
    Ok(line)
}

struct Pump {
    socket: OwnedFd,
    ear: UnixStream,
    commands: commands::Receiver<Command>,
    /// How long nothing may move.
    silence: Duration,
    heard: Instant,
    sent: Instant,
    channels: Channels,
}

impl Pump {
    fn run(mut self, ended: &Ended) {
        let reason = loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(goodbye)) => {
                    let _ = self.channels.session().disconnect(None, "", None);
                    let _ = goodbye.send(());
                    break Error::new(ErrorKind::ConnectionLost, "the connection is closed");
                }
                Err(reason) => break reason,
            }
        };
        // First of all: what libssh2 does when its parts are dropped would otherwise wait for the server.
        let _ = shutdown(&self.socket, Shutdown::Both);
        ended.set(reason.kind(), reason.chain());
        self.channels.end(ended);
    }

    /// Does what can be done now, then sleeps. Returns the reply to a goodbye.
    fn turn(&mut self) -> Result<Option<oneshot::Sender<()>>> {
        while let Ok(command) = self.commands.try_recv() {
            if let Some(goodbye) = self.take(command) {
                return Ok(Some(goodbye));
            }
        }
        let moved = self.channels.work()?;
        if self.channels.is_stuck() || !moved {
            self.sleep()?;
        }
        Ok(None)
    }

    fn take(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        if self.channels.is_idle() {
            self.heard = Instant::now();
        }
        match command {
            Command::Subsystem { name, inbound, reply } => self.channels.start_subsystem(name, inbound, reply),
            Command::Exec { command, reply } => self.channels.start_command(command, reply),
            Command::CloseChannel { id } => self.channels.close(id),
            Command::Goodbye { reply } => return Some(reply),
        }
        None
    }

    /// Sends a keepalive if it is time, and returns the seconds until the next. There must be room: libssh2 forgets one
    /// that it could send only in part, and then sends nothing any more.
    fn keep_alive(&self) -> Result<u32> {
        self.channels.session().keepalive_send().map(|next| next.max(1)).map_err(|e| failure(&e))
    }

    /// Sleeps until something can be done.
    ///
    /// # Errors
    /// `Timeout` when nothing moved for too long though it should have, `ConnectionLost` when the socket was shut.
    fn sleep(&mut self) -> Result<()> {
        let idle = self.channels.is_idle();
        let mut nap = self.silence;
        if !idle && !self.channels.is_stuck() {
            let next = if has_room(&self.socket)? { self.keep_alive()? } else { 1 };
            nap = nap.min(Duration::from_secs(u64::from(next)));
        }
        // Without channels nobody reads the socket: only its end is of interest then.
        let interest = match (idle, self.channels.is_stuck()) {
            (true, _) => PollFlags::empty(),
            (false, true) => PollFlags::OUT,
            (false, false) => PollFlags::IN,
        };
        let nap = Timespec { tv_sec: i64::try_from(nap.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
        let mut watched = [PollFd::new(&self.socket, interest), PollFd::new(&self.ear, PollFlags::IN)];
        match poll(&mut watched, Some(&nap)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::io("wait for the connection", e.into())),
        }
        let (socket, ear) = (watched[0].revents(), watched[1].revents());
        if ear.contains(PollFlags::IN) {
            let mut rings = [0; 256];
            while matches!((&self.ear).read(&mut rings), Ok(256)) {}
        }
        if socket.contains(PollFlags::IN) {
            self.heard = Instant::now();
        }
        if socket.contains(PollFlags::OUT) || !self.channels.is_stuck() {
            self.sent = Instant::now();
        }
        if idle && socket.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Err(Error::new(ErrorKind::ConnectionLost, "the connection is closed"));
        }
        let last = if self.channels.is_stuck() { self.sent } else { self.heard };
        if !idle && last.elapsed() >= self.silence {
            let silence = self.silence.as_secs_f32();
            let text = format!("no sign of life from the server for {silence} s");
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        Ok(())
    }
}

/// Returns whether a socket takes a small packet now.
fn has_room(socket: &impl AsFd) -> Result<bool> {
    match poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(Error::io("wait for the connection", e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_socket_has_no_room_for_a_keepalive() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        assert!(has_room(&one).unwrap());
        while one.write(&[0; 100]).is_ok() {}
        assert!(!has_room(&one).unwrap());
        while matches!(other.read(&mut [0; 4096]), Ok(1..)) {}
        assert!(has_room(&one).unwrap());
    }
}

//! How far a connection has come: each stage has a timeout of its own, and before the login a server may say only so much.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::no_answer;
use crate::error::{Error, ErrorKind, Result};

/// The most bytes that a server may send before somebody is logged in. Key exchange, banners and questions take a few
/// thousand; what leads nowhere (RFC 4253, section 11: messages to ignore) would come for ever, and libssh2 keeps it.
const MOST_BEFORE_LOGIN: u64 = 4 << 20;
/// How a server's own identification begins; other lines may come before it (RFC 4253, section 4.2).
const IDENTIFICATION: &[u8] = b"SSH-";

/// What the reader of a connection and who waits for its login share.
#[derive(Debug, Default)]
pub(super) struct Stage {
    greeted: AtomicBool,
    greeting: Notify,
    heard: AtomicU64,
    established: AtomicBool,
    /// A person is being asked about the host key.
    asking: AtomicBool,
}

impl Stage {
    /// Notes that somebody is logged in: from now on silence counts, and length doesn't.
    pub(super) fn establish(&self) {
        self.established.store(true, Ordering::Release);
    }

    pub(super) fn is_established(&self) -> bool {
        self.established.load(Ordering::Acquire)
    }

    /// Notes whether a person is being asked: that takes as long as it takes.
    pub(super) fn ask(&self, asking: bool) {
        self.asking.store(asking, Ordering::Release);
    }

    /// Waits for greeting and key exchange, each for `limit`.
    ///
    /// # Errors
    /// `Timeout`, with the name of the stage; `Protocol` for a server that says too much; those of `handshake`.
    pub(super) async fn pass<T>(&self, limit: Duration, handshake: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(handshake);
        let done = tokio::select! {
            done = &mut handshake => Some(done),
            () = self.until_greeted() => None,
            () = sleep(limit) => return Err(no_answer("waiting for the server's banner", limit)),
        };
        let done = match done {
            Some(done) => done,
            None => loop {
                match timeout(limit, &mut handshake).await {
                    Ok(done) => break done,
                    Err(_) if self.asking.load(Ordering::Acquire) => {}
                    Err(_) => return Err(no_answer("key exchange", limit)),
                }
            },
        };
        done.map_err(|e| self.explain(e))
    }

    /// Puts in the place of an error what really went wrong, if that is known here.
    pub(super) fn explain(&self, error: Error) -> Error {
        if self.is_established() || self.heard.load(Ordering::Acquire) <= MOST_BEFORE_LOGIN {
            return error;
        }
        let text = format!("the server sent more than {} MiB before the login", MOST_BEFORE_LOGIN >> 20);
        Error::new(ErrorKind::Protocol, text)
    }

    async fn until_greeted(&self) {
        loop {
            let mut greeting = std::pin::pin!(self.greeting.notified());
            greeting.as_mut().enable();
            if self.greeted.load(Ordering::Acquire) {
                return;
            }
            greeting.await;
        }
    }
}

/// Hears what comes in until somebody is logged in.
#[derive(Debug, Default)]
pub(super) struct Listener {
    /// The beginning of the present line.
    line: Vec<u8>,
}

impl Listener {
    /// Takes what has just come in.
    ///
    /// # Errors
    /// `InvalidData` when it is too much.
    pub(super) fn hear(&mut self, bytes: &[u8], stage: &Stage) -> io::Result<()> {
        if stage.is_established() {
            return Ok(());
        }
        if !stage.greeted.load(Ordering::Relaxed) && self.finds_identification(bytes) {
            stage.greeted.store(true, Ordering::Release);
            stage.greeting.notify_waiters();
        }
        let length = bytes.len() as u64;
        if stage.heard.fetch_add(length, Ordering::AcqRel) + length > MOST_BEFORE_LOGIN {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too much before the login"));
        }
        Ok(())
    }

    fn finds_identification(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < IDENTIFICATION.len() {
                    self.line.push(byte);
                }
            } else if self.line == IDENTIFICATION {
                return true;
            } else {
                self.line.clear();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_found_however_it_is_cut() {
        let text = b"Welcome\r\nto SSH-land\n\nSSH-2.0-x\r\nrest";
        for cut in 1..text.len() {
            let (mut listener, stage) = (Listener::default(), Stage::default());
            let end = text.iter().rposition(|&b| b == b'\n').unwrap() + 1;
            for (at, part) in text.chunks(cut).enumerate() {
                assert_eq!(stage.greeted.load(Ordering::Acquire), at * cut >= end, "{cut} {at}");
                listener.hear(part, &stage).unwrap();
            }
        }
        let (mut listener, stage) = (Listener::default(), Stage::default());
        listener.hear(b"XSSH-2.0-x\n SSH-\nSSH-2.0-unfinished", &stage).unwrap();
        assert!(!stage.greeted.load(Ordering::Acquire));
    }

    #[test]
    fn too_much_is_too_much_only_before_the_login() {
        let (mut listener, stage) = (Listener::default(), Stage::default());
        let most = vec![b'x'; MOST_BEFORE_LOGIN as usize];
        listener.hear(&most, &stage).unwrap();
        let other = || Error::new(ErrorKind::ConnectionLost, "x");
        assert_eq!(stage.explain(other()).kind(), ErrorKind::ConnectionLost);
        listener.hear(b"x", &stage).unwrap_err();
        assert_eq!(stage.explain(other()).kind(), ErrorKind::Protocol);
        stage.establish();
        listener.hear(&most, &stage).unwrap();
        assert_eq!(stage.explain(other()).kind(), ErrorKind::ConnectionLost);
    }
}

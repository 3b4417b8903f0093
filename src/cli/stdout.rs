//! Standard output: data only, and quiet when its reader leaves.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use haul::{Error, ErrorKind, Result};

use super::terminal;

/// Standard output as the commands see it.
#[derive(Debug)]
pub(crate) struct Stdout {
    /// Whether a person reads it.
    pub(crate) terminal: bool,
    closed: AtomicBool,
}

impl Stdout {
    /// Looks at standard output; nothing is written.
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), closed: AtomicBool::new(false) }
    }

    /// Writes and flushes.
    ///
    /// # Errors
    /// `Cancelled` when the reader has gone, as in `haul ls | head`: no more need be said.
    pub(crate) fn write(&self, data: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(data).and_then(|()| out.flush()).map_err(|e| self.error(e))
    }

    /// Makes the error of a failed write.
    pub(crate) fn error(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.closed.store(true, Ordering::Relaxed);
            return ErrorKind::Cancelled.into();
        }
        Error::io("write to standard output", error).with_hint("is the disk full that it goes to?")
    }

    /// Returns the error of something that wrote to standard output: that the reader has gone if that is its cause.
    pub(crate) fn closed_or(&self, error: Error) -> Error {
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
        if cause.is_none_or(|cause| cause.kind() != io::ErrorKind::BrokenPipe) {
            return error;
        }
        self.closed.store(true, Ordering::Relaxed);
        ErrorKind::Cancelled.into()
    }

    /// Returns whether the reader has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// Returns how many columns a line has.
pub(crate) fn columns() -> usize {
    terminal::columns(rustix::termios::tcgetwinsize(io::stdout()).ok())
}

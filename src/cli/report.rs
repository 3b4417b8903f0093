//! From errors to what the user reads and the exit status.

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use haul::transport::escape;
use haul::{Error, ErrorKind};

use super::json::ErrorObject;
use super::screen::{Level, Screen};

/// How the program ends; of several, the later in this list is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Exit {
    /// Everything is done.
    #[default]
    Done,
    /// A limit that was set stopped it in order; the rest is for another run.
    Stopped,
    /// Some items failed.
    Failed,
    /// Something arrived that isn't what was sent.
    VerifyFailed,
    /// Could not connect or log in.
    Connect,
    /// Another run holds the lock of this batch.
    Locked,
    /// The command line or a file of settings is wrong.
    Usage,
    /// Whoever read standard output has left.
    BrokenPipe,
    /// A signal stopped it.
    Interrupted,
}

impl Exit {
    /// Returns the number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Connect => 3,
            Self::VerifyFailed => 4,
            Self::Stopped => 5,
            Self::Locked => 6,
            Self::Interrupted => 130,
            // What a shell shows for a program that SIGPIPE ended.
            Self::BrokenPipe => 141,
        }
    }

    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::VerifyFailed => Self::VerifyFailed,
            ErrorKind::Cancelled => Self::Interrupted,
            kind if kind.is_fatal_to_endpoint() => Self::Connect,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// An error that ends a command, and the exit status that it stands for.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: Error,
}

impl Failure {
    /// Wraps an error from connecting or logging in: whatever its kind, nothing was done.
    pub(crate) fn connecting(error: Error) -> Self {
        let exit = match Exit::of(error.kind()) {
            Exit::Failed => Exit::Connect,
            exit => exit,
        };
        Self { exit, error }
    }

    /// Wraps an error of a lock that another run holds.
    pub(crate) fn locked(error: Error) -> Self {
        Self { exit: Exit::Locked, error }
    }
}

impl Failure {
    /// Wraps what was cancelled by a limit that was set.
    pub(crate) fn stopped(error: Error) -> Self {
        Self { exit: Exit::Stopped, error }
    }

    /// Returns the exit status.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Returns the error.
    pub(crate) fn error(&self) -> &Error {
        &self.error
    }

    /// Returns the error and the exit status.
    pub(crate) fn into_parts(self) -> (Error, Exit) {
        (self.error, self.exit)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { exit: Exit::of(error.kind()), error }
    }
}

/// What a command returns.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Tells the user what failed, and remembers how the program must end.
#[derive(Debug)]
pub(crate) struct Report {
    screen: Arc<Screen>,
    quiet: bool,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    exit: Exit,
    kinds: HashSet<ErrorKind>,
    hints: Vec<String>,
    first: Option<ErrorObject>,
}

impl Report {
    /// Makes a report of nothing. `quiet` leaves out warnings.
    pub(crate) fn new(screen: Arc<Screen>, quiet: bool) -> Self {
        Self { screen, quiet, told: Mutex::default() }
    }

    /// Tells of an error and keeps its hint for the end. The user knows of what they cancelled.
    pub(crate) fn failed(&self, failure: impl Into<Failure>) {
        let Failure { exit, error } = failure.into();
        self.ends(exit);
        if error.kind() != ErrorKind::Cancelled {
            self.told().first.get_or_insert_with(|| ErrorObject::new(&error));
            self.screen.line_of(Level::Error, &format!("haul: {}", text(&error)));
            self.keep_hint(&error);
        }
    }

    fn keep_hint(&self, error: &Error) {
        // Ten thousand files that fail alike need one hint.
        if let Some(hint) = hint(error)
            && self.told().kinds.insert(error.kind())
        {
            self.hint(&hint);
        }
    }

    /// Keeps advice for the end.
    pub(crate) fn hint(&self, hint: &str) {
        let mut told = self.told();
        if !told.hints.iter().any(|other| other == hint) {
            told.hints.push(hint.to_owned());
        }
    }

    /// Tells of something that is not wrong yet.
    pub(crate) fn warn(&self, warning: &str) {
        if !self.quiet {
            self.screen.line_of(Level::Warning, &format!("haul: warning: {}", escape(warning.as_bytes())));
        }
    }

    /// Remembers that the program must end at least this badly.
    pub(crate) fn ends(&self, exit: Exit) {
        let mut told = self.told();
        told.exit = told.exit.max(exit);
    }

    /// Leaves its hints to another report; returns how what was told here ends, and the first error.
    pub(crate) fn hand_on(&self, to: &Self) -> (Exit, Option<ErrorObject>) {
        let told = std::mem::take(&mut *self.told());
        for hint in &told.hints {
            to.hint(hint);
        }
        (told.exit, told.first)
    }

    /// Returns how the program must end, as far as is known.
    pub(crate) fn exit(&self) -> Exit {
        self.told().exit
    }

    /// Tells the hints and returns how to end.
    pub(crate) fn close(&self) -> Exit {
        let told = std::mem::take(&mut *self.told());
        if !told.hints.is_empty() {
            self.screen.line("");
        }
        for hint in told.hints {
            self.screen.line(&format!("hint: {hint}"));
        }
        told.exit
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns an error with its causes as one harmless line.
pub(crate) fn text(error: &Error) -> String {
    let mut text = error.chain();
    // "No such file or directory (os error 2)": the number says nothing more.
    while let Some(start) = text.find(" (os error ") {
        let Some(length) = text[start..].find(')') else { break };
        text.replace_range(start..=start + length, "");
    }
    escape(text.as_bytes())
}

/// Returns the advice that goes with an error: its own, or the usual one for its kind.
pub(crate) fn hint(error: &Error) -> Option<String> {
    let usual = || usual_hint(error.kind()).map(str::to_owned);
    error.hint().map(|hint| escape(hint.as_bytes())).or_else(usual)
}

fn usual_hint(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::NotFound => "check the spelling; `haul ls` on the directory above shows what is there",
        ErrorKind::PermissionDenied => "this login may not do that; `haul stat` shows the mode",
        ErrorKind::NoSpace => "make room, then run the same command again: it goes on where it stopped",
        ErrorKind::ConnectionRefused => "check host and port; is the server running, does a firewall let you through?",
        ErrorKind::ConnectionLost => "run the same command again: it goes on where it stopped",
        ErrorKind::Timeout => "server or network are slow or gone; --timeout 2m waits longer",
        ErrorKind::TooManyConnections => "use fewer connections with -c 1, or try again later",
        ErrorKind::Busy => "try again later",
        ErrorKind::AuthFailed => "check user and password (--password-file, HAUL_PASSWORD), or for SFTP the key (-i)",
        ErrorKind::HostKey => "compare the fingerprint with the one that the server's owner gives you",
        ErrorKind::Tls => "--tls-ca FILE trusts another certificate authority",
        ErrorKind::SourceChanged => "somebody is still writing it; run the same command again when it is complete",
        ErrorKind::VerifyFailed => "run the same command again; if it fails again, suspect the disk or the server",
        ErrorKind::Locked => "another haul is moving this file; wait until it is through",
        ErrorKind::Protocol => "-vvv shows more of what was said before",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_end_is_told() {
        let report = Report::new(Arc::default(), true);
        report.ends(Exit::Connect);
        report.ends(Exit::Failed);
        assert_eq!(report.close(), Exit::Connect);
    }

    #[test]
    fn errors_are_one_harmless_line() {
        let cause = std::io::Error::from_raw_os_error(2);
        let error = Error::io("open", cause).at("/x").context("server said \x1b[2J");
        assert_eq!(text(&error), "/x: server said \\u{1b}[2J: open: No such file or directory");
    }

    #[test]
    fn connecting_has_its_own_status() {
        let exit = |kind: ErrorKind| Failure::connecting(kind.into()).exit.code();
        assert_eq!((exit(ErrorKind::Timeout), exit(ErrorKind::Usage), exit(ErrorKind::Cancelled)), (3, 2, 130));
        assert_eq!(Failure::from(Error::from(ErrorKind::Timeout)).exit.code(), 1);
    }
}

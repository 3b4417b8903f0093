//! The one error type: what failed, on what, why, and whether trying again can help.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use rustix::io::Errno;

/// `Result` with haul's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Tells a caller what to do about an error; the text tells a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such file or directory.
    NotFound,
    /// The server or the system forbids it.
    PermissionDenied,
    /// Something of that name is there already.
    AlreadyExists,
    /// A component of the path is not a directory, or the target should be one.
    NotADirectory,
    /// A file was expected, a directory is there.
    IsADirectory,
    /// The directory to remove still has entries.
    DirectoryNotEmpty,
    /// The disk or the quota is full.
    NoSpace,
    /// The file system or the server is read-only.
    ReadOnly,
    /// A name or path that can't be used here: NUL, CR or LF, `..` from a server.
    InvalidPath,
    /// This server or engine can't do that.
    Unsupported,
    /// Nobody answered: refused, unreachable, or the host name is unknown.
    ConnectionRefused,
    /// The connection broke after it was made.
    ConnectionLost,
    /// A phase took longer than its timeout.
    Timeout,
    /// The server takes no more connections or sessions from us now (421, 530 "too many", `MaxSessions`).
    TooManyConnections,
    /// The server or this machine can't do it now but may later (4xx, lock held, too many open files).
    Busy,
    /// The login was refused.
    AuthFailed,
    /// The host key is unknown, changed or revoked.
    HostKey,
    /// The TLS handshake or certificate check failed.
    Tls,
    /// The peer broke the protocol.
    Protocol,
    /// The source changed while it was being moved.
    SourceChanged,
    /// What arrived is not what was sent.
    VerifyFailed,
    /// Another haul process holds this transfer.
    Locked,
    /// The user or the caller stopped it.
    Cancelled,
    /// The command line, a URL or a file of settings is wrong.
    Usage,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// Returns whether a new attempt on a fresh connection can succeed. The one table of this.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::ConnectionRefused
                | Self::ConnectionLost
                | Self::Timeout
                | Self::TooManyConnections
                | Self::Busy
                | Self::Protocol
                | Self::SourceChanged
        )
    }

    /// Returns whether no item of this endpoint can go on: login, host key, certificate, reachability.
    pub fn is_fatal_to_endpoint(self) -> bool {
        matches!(self, Self::ConnectionRefused | Self::AuthFailed | Self::HostKey | Self::Tls)
    }

    /// Returns the stable lower-case name used in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::PermissionDenied => "permission_denied",
            Self::AlreadyExists => "already_exists",
            Self::NotADirectory => "not_a_directory",
            Self::IsADirectory => "is_a_directory",
            Self::DirectoryNotEmpty => "directory_not_empty",
            Self::NoSpace => "no_space",
            Self::ReadOnly => "read_only",
            Self::InvalidPath => "invalid_path",
            Self::Unsupported => "unsupported",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionLost => "connection_lost",
            Self::Timeout => "timeout",
            Self::TooManyConnections => "too_many_connections",
            Self::Busy => "busy",
            Self::AuthFailed => "auth_failed",
            Self::HostKey => "host_key",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::SourceChanged => "source_changed",
            Self::VerifyFailed => "verify_failed",
            Self::Locked => "locked",
            Self::Cancelled => "cancelled",
            Self::Usage => "usage",
            Self::Other => "other",
        }
    }
}

/// An error with its kind, what was being done, on which path, and the cause.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error; `message` says what failed in a few words, in lower case, without the path.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { kind, message: message.into(), path: None, hint: None, source: None }) }
    }

    /// Makes an error of the kind that an I/O error stands for, with that error as its cause.
    pub fn io(message: impl Into<String>, source: io::Error) -> Self {
        let error = Self::new(kind_of_io(&source), message);
        let error = if is_out_of_files(&source) { error.with_hint(OUT_OF_FILES) } else { error };
        error.with_source(source)
    }

    /// Names the path or URL concerned; the first one given stays.
    #[must_use]
    pub fn at(mut self, path: impl fmt::Display) -> Self {
        self.inner.path.get_or_insert_with(|| path.to_string());
        self
    }

    /// Adds advice on what the user can do; the first one given stays.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Puts a sentence in front: "resume /x: read back the overlap: connection lost".
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.inner.message = format!("{what}: {}", self.inner.message);
        self
    }

    /// Returns what another is told who waited for the same: the causes are in the message.
    pub(crate) fn for_another(&self) -> Self {
        let chain = self.chain();
        let path_first = self.path().map(|path| format!("{path}: ")).unwrap_or_default();
        let message = chain.strip_prefix(&path_first).unwrap_or(&chain).to_owned();
        let (path, hint) = (self.inner.path.clone(), self.inner.hint.clone());
        Self { inner: Box::new(Inner { kind: self.kind(), message, path, hint, source: None }) }
    }

    /// Changes the kind, keeping everything else.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.inner.kind = kind;
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Returns the path or URL concerned, escaped for display.
    pub fn path(&self) -> Option<&str> {
        self.inner.path.as_deref()
    }

    /// Returns the advice, if somebody who knew gave one.
    pub fn hint(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// Returns the message without path and causes.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// Returns message, path and the chain of causes as one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            let part = error.to_string();
            // Wrappers that repeat their cause's text would say everything twice.
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner.path {
            Some(path) => write!(f, "{path}: {}", self.inner.message),
            None => f.write_str(&self.inner.message),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|e| e as _)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind, kind.name().replace('_', " "))
    }
}

const OUT_OF_FILES: &str =
    "this process may not have more files and connections open: raise its limit (ulimit -n), or use fewer --jobs";

/// The process or the machine has as many files open as it may: some will be closed.
fn is_out_of_files(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).contains(&code))
}

fn kind_of_io(error: &io::Error) -> ErrorKind {
    use io::ErrorKind as Io;
    match error.kind() {
        _ if is_out_of_files(error) => ErrorKind::Busy,
        Io::NotFound => ErrorKind::NotFound,
        Io::PermissionDenied => ErrorKind::PermissionDenied,
        Io::AlreadyExists => ErrorKind::AlreadyExists,
        Io::NotADirectory => ErrorKind::NotADirectory,
        Io::IsADirectory => ErrorKind::IsADirectory,
        Io::DirectoryNotEmpty => ErrorKind::DirectoryNotEmpty,
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::NoSpace,
        Io::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        Io::InvalidFilename => ErrorKind::InvalidPath,
        Io::Unsupported => ErrorKind::Unsupported,
        Io::ConnectionRefused | Io::HostUnreachable | Io::NetworkUnreachable | Io::AddrNotAvailable => {
            ErrorKind::ConnectionRefused
        }
        Io::ConnectionReset
        | Io::ConnectionAborted
        | Io::NotConnected
        | Io::BrokenPipe
        | Io::UnexpectedEof
        | Io::NetworkDown => ErrorKind::ConnectionLost,
        Io::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_path_and_causes_once() {
        let cause = io::Error::new(io::ErrorKind::StorageFull, "no space left on device");
        let error = Error::io("write the part file", cause).at("/tmp/x");
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.chain(), "/tmp/x: write the part file: no space left on device");
    }

    #[test]
    fn another_is_told_the_same() {
        let cause = io::Error::new(io::ErrorKind::TimedOut, "no answer");
        let error = Error::io("connect", cause).at("host:22").with_hint("wait");
        let other = error.for_another();
        assert_eq!((other.kind(), other.hint(), other.path()), (error.kind(), error.hint(), error.path()));
        assert_eq!(other.chain(), error.chain());
    }

    #[test]
    fn the_first_path_and_hint_stay() {
        let error = Error::from(ErrorKind::NotFound).at("/a").at("/b").with_hint("one").with_hint("two");
        assert_eq!((error.path(), error.hint()), (Some("/a"), Some("one")));
    }
}

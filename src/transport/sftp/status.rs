//! From a server's STATUS to an error: the only map of `SSH_FX_*`.

use super::response::{Status, StatusCode};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::escape;

/// How many bytes of what the server says are shown.
const SHOWN: usize = 1024;

/// Makes an error of a STATUS; `what` says what was being done.
pub(super) fn error(status: &Status, what: &str) -> Error {
    let said = escape(&status.message[..status.message.len().min(SHOWN)]);
    let error = Error::new(kind(status), what);
    match said.trim() {
        "" => error.with_source(format!("the server answered with status {}", status.code.0)),
        said => error.with_source(said.to_owned()),
    }
}

/// Turns OK into `Ok`.
pub(super) fn check(status: &Status, what: &str) -> Result<()> {
    if status.code == StatusCode::OK { Ok(()) } else { Err(error(status, what)) }
}

/// Version 3 ends at 8; some servers send the codes of later versions all the same.
fn kind(status: &Status) -> ErrorKind {
    match status.code {
        // OpenSSH also says so where a component of the path is no directory.
        StatusCode::NO_SUCH_FILE | StatusCode(10) => ErrorKind::NotFound,
        StatusCode::PERMISSION_DENIED => ErrorKind::PermissionDenied,
        // OpenSSH's word for EINVAL and ENAMETOOLONG.
        StatusCode::BAD_MESSAGE | StatusCode(20) => ErrorKind::InvalidPath,
        StatusCode::NO_CONNECTION | StatusCode::CONNECTION_LOST => ErrorKind::ConnectionLost,
        StatusCode::OP_UNSUPPORTED => ErrorKind::Unsupported,
        StatusCode(11) => ErrorKind::AlreadyExists,
        StatusCode(12) => ErrorKind::ReadOnly,
        StatusCode(14 | 15) => ErrorKind::NoSpace,
        StatusCode(17) => ErrorKind::Busy,
        StatusCode(18) => ErrorKind::DirectoryNotEmpty,
        StatusCode(19) => ErrorKind::NotADirectory,
        StatusCode(24) => ErrorKind::IsADirectory,
        _ => kind_of_text(&status.message),
    }
}

/// FAILURE says nothing; some servers (`ProFTPD`) put the text of `strerror` beside it.
fn kind_of_text(text: &[u8]) -> ErrorKind {
    const TEXTS: [(&str, ErrorKind); 8] = [
        ("file exists", ErrorKind::AlreadyExists),
        ("directory not empty", ErrorKind::DirectoryNotEmpty),
        ("not a directory", ErrorKind::NotADirectory),
        ("is a directory", ErrorKind::IsADirectory),
        ("no space left on device", ErrorKind::NoSpace),
        ("disk quota exceeded", ErrorKind::NoSpace),
        ("read-only file system", ErrorKind::ReadOnly),
        ("file name too long", ErrorKind::InvalidPath),
    ];
    let text = String::from_utf8_lossy(text).to_lowercase();
    TEXTS.iter().find(|(known, _)| text.contains(known)).map_or(ErrorKind::Other, |&(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: u32, text: &'static str) -> ErrorKind {
        error(&Status { code: StatusCode(code), message: text.into() }, "open").kind()
    }

    #[test]
    fn a_plain_failure_is_never_not_found() {
        assert_eq!(kind(4, "Failure"), ErrorKind::Other);
        assert_eq!(kind(4, ""), ErrorKind::Other);
        assert_eq!(kind(3, "No such file or directory"), ErrorKind::PermissionDenied);
        assert_eq!(kind(2, "No such file"), ErrorKind::NotFound);
    }

    #[test]
    fn the_text_beside_a_failure_counts() {
        assert_eq!(kind(4, "File exists"), ErrorKind::AlreadyExists);
        assert_eq!(kind(4, "write failed: No space left on device"), ErrorKind::NoSpace);
    }

    #[test]
    fn the_servers_words_are_kept_and_harmless() {
        let error = error(&Status { code: StatusCode::FAILURE, message: "no\x1b[2J".into() }, "open");
        assert_eq!(error.chain(), "open: no\\u{1b}[2J");
    }
}

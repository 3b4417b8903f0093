//! Replies of the server: reading their form, and the only map from their codes to [`ErrorKind`].

use crate::error::{Error, ErrorKind, Result};
use crate::transport::escape;

/// Words of a server shown in an error; more is noise.
const SHOWN: usize = 300;

/// One reply, complete with all its lines (RFC 959, section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    code: u16,
    text: Vec<u8>,
}

impl Reply {
    /// Reads a reply whose lines are all there.
    ///
    /// # Errors
    /// `Protocol` when it doesn't start with a code.
    pub(super) fn parse(raw: &[u8]) -> Result<Self> {
        let line = raw.split(|&b| b == b'\n').next().unwrap_or_default();
        match code_of(line) {
            Some(code) => Ok(Self { code, text: raw.to_vec() }),
            None => Err(Error::new(
                ErrorKind::Protocol,
                format!("the server does not speak FTP: \"{}\"", shorten(&escape(line.trim_ascii()))),
            )),
        }
    }

    /// Returns all of it as it came.
    pub(super) fn into_raw(self) -> Vec<u8> {
        self.text
    }

    /// Returns the three digits.
    pub(super) fn code(&self) -> u16 {
        self.code
    }

    /// Returns whether it is a positive completion (2xx).
    pub(super) fn is_ok(&self) -> bool {
        self.code / 100 == 2
    }

    /// Returns the lines between the first and the last, as `FEAT` and `MLST` use them.
    pub(super) fn inner_lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.lines();
        let last = lines.len().saturating_sub(1);
        lines.into_iter().take(last).skip(1)
    }

    /// Returns the text behind the code of the first line.
    pub(super) fn first_text(&self) -> &[u8] {
        without_code(self.lines().first().copied().unwrap_or_default())
    }

    /// Returns the text behind the code of the last line.
    pub(super) fn last_text(&self) -> &[u8] {
        without_code(self.lines().last().copied().unwrap_or_default())
    }

    /// Returns what the server said, as one escaped line without codes.
    pub(super) fn words(&self) -> String {
        let words: Vec<String> = self.lines().into_iter().map(|line| escape(without_code(line).trim_ascii())).collect();
        shorten(words.join(" ").trim())
    }

    /// Returns an error with the server's words and the kind that they stand for.
    pub(super) fn error(&self, what: &str) -> Error {
        self.error_at(what, b"")
    }

    /// Like [`Self::error`]; words that are part of `path` are not the server's.
    pub(super) fn error_at(&self, what: &str, path: &[u8]) -> Error {
        let kind = self.kind(path).unwrap_or(ErrorKind::Other);
        Error::new(kind, format!("{what}: the server said \"{} {}\"", self.code, self.words()))
    }

    /// Returns what the code and the words stand for; `None` where they can mean several things (a bare 550).
    pub(super) fn kind(&self, path: &[u8]) -> Option<ErrorKind> {
        let words = self.plain_words(path);
        let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
        let crowded = has(&["too many", "maximum", "max ", "limit", "connections", "sessions"]);
        let otherwise = |kind| kind_by_words(&words).or(Some(kind));
        match self.code {
            421 | 530 if crowded => Some(ErrorKind::TooManyConnections),
            421 if has(&["timeout", "timed out", "idle", "inactiv", "no transfer"]) => Some(ErrorKind::ConnectionLost),
            426 => otherwise(ErrorKind::ConnectionLost),
            430 | 530 => Some(ErrorKind::AuthFailed),
            450 | 451 => otherwise(ErrorKind::Busy),
            452 | 552 => Some(ErrorKind::NoSpace),
            522 if has(&["ssl", "tls", "session", "protect"]) => Some(ErrorKind::Tls),
            431 | 533..=537 => Some(ErrorKind::Tls),
            400..=499 => Some(ErrorKind::Busy),
            // vsftpd's last words when one of its processes was killed or failed it, whatever was being done. What is
            // wrong with its settings it says before the login, in words of its own.
            500 if has(&["oops: priv_sock", "oops: vsf_sysutil", "oops: child died"]) => {
                Some(ErrorKind::ConnectionLost)
            }
            500 | 502 | 504 | 522 | 554 | 555 => Some(ErrorKind::Unsupported),
            501 => otherwise(ErrorKind::InvalidPath),
            503 => Some(ErrorKind::Protocol),
            521 => otherwise(ErrorKind::AlreadyExists),
            532 => Some(ErrorKind::PermissionDenied),
            550 | 551 | 553 => kind_by_words(&words),
            500..=599 => Some(ErrorKind::Other),
            _ => Some(ErrorKind::Protocol),
        }
    }

    /// Returns whether the words of a listing's 226 say that it failed: vsftpd has "Transfer done (but failed to open
    /// directory).", Pure-FTPd "Can't read". Of an `empty` one less is enough to doubt it.
    pub(super) fn is_failure_in_disguise(&self, path: &[u8], empty: bool) -> bool {
        const ALWAYS: [&str; 3] = ["failed to", "permission denied", "access denied"];
        const EMPTY: [&str; 14] = [
            "fail",
            "denied",
            "cannot",
            "can't",
            "can not",
            "could not",
            "couldn't",
            "unable",
            "not permitted",
            "forbidden",
            "not allowed",
            "not authori",
            "not read",
            "not open",
        ];
        let words = self.plain_words(path);
        let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
        has(&ALWAYS) || (empty && has(&EMPTY))
    }

    /// Returns whether a refused listing means that there is nothing to list.
    pub(super) fn finds_nothing(&self) -> bool {
        let words = self.words().to_ascii_lowercase();
        let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
        let nothing = ["no such", "not found", "no file", "no match", "no entr", "no member", "no data", "empty"];
        has(&nothing) && !has(&["denied", "permission", "permitted", "forbidden", "not allowed"])
    }

    /// The words in lower case, with the path cut out: a file may well be called "no such".
    fn plain_words(&self, path: &[u8]) -> String {
        let words = String::from_utf8_lossy(&self.text).replace(['\r', '\n'], " ");
        let path = String::from_utf8_lossy(path);
        let name = path.rsplit('/').next().unwrap_or_default();
        let mut words = if path.len() > 1 { words.replace(&*path, " ") } else { words };
        // A short name could be part of the server's own words.
        if name.len() > 4 {
            words = words.replace(name, " ");
        }
        words.to_ascii_lowercase()
    }

    fn lines(&self) -> Vec<&[u8]> {
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect()
    }
}

/// Finds the end of the first reply in what arrived so far: the last line repeats the first line's code and a space.
///
/// # Errors
/// `Protocol` when the first line doesn't start with a code.
pub(super) fn reply_length(buffer: &[u8]) -> Result<Option<usize>> {
    let mut start = 0;
    let mut opening = None;
    while let Some(end) = buffer[start..].iter().position(|&b| b == b'\n').map(|at| start + at + 1) {
        let line = &buffer[start..end];
        start = end;
        let ends = matches!(line.get(3), None | Some(b' ' | b'\r' | b'\n'));
        match (opening, code_of(line)) {
            (None, None) => {
                Reply::parse(line)?;
            }
            (None, Some(_)) if ends => return Ok(Some(end)),
            (None, code) => opening = code,
            (Some(first), Some(code)) if code == first && ends => return Ok(Some(end)),
            (Some(_), _) => {}
        }
    }
    Ok(None)
}

fn kind_by_words(words: &str) -> Option<ErrorKind> {
    let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
    let missing = has(&["no such", "not found", "not exist", "n't exist", "cannot find", "can't find"]);
    let denied = has(&["permission", "denied", "not permitted", "forbidden", "not allowed", "not authori"]);
    Some(match (missing, denied) {
        (true, true) => return None,
        (true, false) => ErrorKind::NotFound,
        _ if has(&["read-only", "read only", "readonly"]) => ErrorKind::ReadOnly,
        (false, true) if has(&["restart", "append", "resum"]) => ErrorKind::Unsupported,
        (false, true) => ErrorKind::PermissionDenied,
        _ if has(&["not empty", "n't empty"]) => ErrorKind::DirectoryNotEmpty,
        _ if has(&["file exists", "already exist", "directory exists"]) => ErrorKind::AlreadyExists,
        _ if has(&["not a directory", "no directory"]) => ErrorKind::NotADirectory,
        _ if has(&["is a directory"]) => ErrorKind::IsADirectory,
        _ if has(&["no space", "disk full", "quota", "insufficient", "storage"]) => ErrorKind::NoSpace,
        _ if has(&["name too long"]) => ErrorKind::InvalidPath,
        _ => return None,
    })
}

fn code_of(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let separated = matches!(line.get(3), None | Some(b' ' | b'-' | b'\r' | b'\n'));
    (separated && (100..600).contains(&code)).then_some(code)
}

fn without_code(line: &[u8]) -> &[u8] {
    match code_of(line) {
        Some(_) => line.get(4..).unwrap_or_default(),
        None => line,
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(reply: &str, path: &str) -> Option<ErrorKind> {
        Reply::parse(reply.as_bytes()).unwrap().kind(path.as_bytes())
    }

    #[test]
    fn real_servers_are_understood() {
        for (reply, expected) in [
            ("421 There are too many connections from your internet address.", Some(ErrorKind::TooManyConnections)),
            (
                "530 Sorry, the maximum number of clients (2) from your host are already connected.",
                Some(ErrorKind::TooManyConnections),
            ),
            ("421 Timeout.", Some(ErrorKind::ConnectionLost)),
            ("530 Login incorrect.", Some(ErrorKind::AuthFailed)),
            ("550 /d/x: No such file or directory", Some(ErrorKind::NotFound)),
            ("550 Permission denied.", Some(ErrorKind::PermissionDenied)),
            ("550 Sorry, but that file doesn't exist", Some(ErrorKind::NotFound)),
            ("550 Failed to open file.", None),
            ("553 Could not create file.", None),
            ("550 File not found or access denied", None),
            ("550 /d: Directory not empty", Some(ErrorKind::DirectoryNotEmpty)),
            ("550 Can't create directory: File exists", Some(ErrorKind::AlreadyExists)),
            ("552 Disk quota exceeded", Some(ErrorKind::NoSpace)),
            ("451 /x: Append/Restart not permitted, try again", Some(ErrorKind::Unsupported)),
            ("450 No such file or directory", Some(ErrorKind::NotFound)),
            ("450 file busy", Some(ErrorKind::Busy)),
            ("522 SSL connection failed: session reuse required", Some(ErrorKind::Tls)),
            ("500 Unknown command.", Some(ErrorKind::Unsupported)),
            ("500 OOPS: priv_sock_get_cmd", Some(ErrorKind::ConnectionLost)),
            ("500 OOPS: child died", Some(ErrorKind::ConnectionLost)),
            ("500 OOPS: cannot change directory:/home/x", Some(ErrorKind::Unsupported)),
        ] {
            assert_eq!(kind(reply, "/d/file"), expected, "{reply}");
        }
    }

    #[test]
    fn a_success_may_be_a_failure() {
        let disguised =
            |reply: &str, empty| Reply::parse(reply.as_bytes()).unwrap().is_failure_in_disguise(b"/d/cannot", empty);
        for failed in ["226 Transfer done (but failed to open directory).", "226-/x: Permission denied\r\n226 done"] {
            assert!(disguised(failed, true) && disguised(failed, false), "{failed}");
        }
        for doubtful in ["226 Can't read [.]", "250 Unable to list", "226 not allowed here"] {
            assert!(disguised(doubtful, true) && !disguised(doubtful, false), "{doubtful}");
        }
        for fine in [
            "226 Directory send OK.",
            "226-Options: -a -l \r\n226 2 matches total",
            "226 Successfully transferred \"/d/cannot\"",
            "250 List completed successfully.",
            "226 Closing data connection",
        ] {
            assert!(!disguised(fine, true), "{fine}");
        }
    }

    #[test]
    fn a_refusal_may_mean_that_there_is_nothing() {
        let nothing = |reply: &str| Reply::parse(reply.as_bytes()).unwrap().finds_nothing();
        assert!(
            ["450 No files found", "550 No such file or directory", "550 Directory is empty"].into_iter().all(nothing)
        );
        assert!(
            !["450 busy", "550 Permission denied", "550 Not found or access denied", "550 no"].into_iter().any(nothing)
        );
    }

    #[test]
    fn words_of_the_path_are_not_the_servers() {
        assert_eq!(
            kind("550 /no such/not found: Permission denied", "/no such/not found"),
            Some(ErrorKind::PermissionDenied)
        );
    }

    #[test]
    fn a_reply_ends_with_its_own_code_only() {
        let raw = b"230-Hello\r\n220 users online\r\n 230 not this\r\n230-nor this\r\n230 Ready\r\n150 next";
        let end = reply_length(raw).unwrap().unwrap();
        assert!(raw[..end].ends_with(b"230 Ready\r\n"));
        assert_eq!(Reply::parse(&raw[..end]).unwrap().words(), "Hello users online 230 not this nor this Ready");
        assert_eq!(reply_length(b"220-a\r\n220").unwrap(), None);
        assert_eq!(reply_length(b"220\n").unwrap(), Some(4));
        assert_eq!(reply_length(b"SSH-2.0-x\r\n").unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn shows_what_a_terminal_would_act_on_escaped() {
        let error = Reply::parse(b"550 \x1b[2Jgone\r\n").unwrap().error("remove");
        assert_eq!(error.message(), "remove: the server said \"550 \\u{1b}[2Jgone\"");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_reply_or_not(bytes: Vec<u8>) {
            if let Ok(Some(end)) = reply_length(&bytes) {
                let reply = Reply::parse(&bytes[..end]).unwrap();
                let _ = (reply.words(), reply.kind(b"/x"), reply.inner_lines().count());
            }
        }
    }
}

//! What a journal says besides its blocks: who took the transfer up, how it was asked for, and why it stopped.
//!
//! A note is a line of JSON with its CRC behind it, appended as blocks are. The last one counts: a journal that ends with
//! somebody taking it up belongs to a process that is at work, or that had no time to say why it stopped.

use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::endpoint::encode_path;
use crate::error::{Error, ErrorKind};
use crate::transport::{Mtime, Precision, RemotePath, escape};

/// A reason is at most this long, in characters.
const LONGEST_REASON: usize = 300;

/// How a transfer was asked for: whoever goes on with it is told again.
///
/// It is written to disk as it is, so nothing in it may be secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Options, each as the caller wants to see it again.
    #[serde(default)]
    pub options: Vec<String>,
    /// The profiles that its endpoints were named by: where an endpoint's URL begins with the first, the second.
    #[serde(default)]
    pub profiles: Vec<(String, String)>,
    /// Whether the same command moves other files, too.
    #[serde(default)]
    pub several: bool,
}

/// Why an attempt ended before the file was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// When, in seconds since 1970.
    pub at: i64,
    /// The name of the error's kind; `cancelled` when the user did it.
    pub kind: String,
    /// The error in one harmless line.
    pub why: String,
}

/// What the notes of a journal come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    /// How it was asked for; `None` in journals from before there were notes.
    pub(super) request: Option<Request>,
    /// The directory here below which nothing is reached through a link, percent-encoded.
    below: Option<String>,
    /// Why it stopped, if that is the last that was said.
    pub(super) stopped: Option<Stopped>,
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "lowercase")]
enum Note {
    /// A run took the transfer up.
    Began {
        at: i64,
        request: Request,
        #[serde(default)]
        below: Option<String>,
    },
    /// Another attempt of the same run.
    Again { at: i64 },
    /// An attempt ended.
    Stopped { at: i64, kind: String, why: String },
}

impl Notes {
    /// A run takes the transfer up: returns the line that says so.
    pub(super) fn began(&mut self, request: &Request, below: Option<&RemotePath>) -> String {
        let below = below.map(|root| encode_path(root.as_bytes()));
        *self = Self { request: Some(request.clone()), below, stopped: None };
        self.lines()
    }

    /// Returns the directory below which nothing is reached through a link.
    pub(super) fn below(&self) -> Option<RemotePath> {
        RemotePath::new(percent_decode_str(self.below.as_ref()?).collect::<Vec<_>>()).ok()
    }

    /// The same run tries again: returns the line that says so.
    pub(super) fn again(&mut self) -> String {
        self.stopped = None;
        line_of(&Note::Again { at: now() })
    }

    /// An attempt ended: returns the line that says so.
    pub(super) fn stopped(&mut self, error: &Error) -> String {
        let stopped = Stopped { at: now(), kind: error.kind().name().into(), why: reason(error) };
        self.stopped = Some(stopped.clone());
        line_of(&stopped.into())
    }

    /// Returns what is to be written at the head of a journal that is written anew.
    pub(super) fn lines(&self) -> String {
        let below = self.below.clone();
        let began = self.request.clone().map(|request| line_of(&Note::Began { at: now(), request, below }));
        let stopped = self.stopped.clone().map(|stopped| line_of(&stopped.into()));
        [began, stopped].into_iter().flatten().collect()
    }

    /// Takes a line whose CRC was right; false for one that is no note.
    pub(super) fn take(&mut self, text: &str) -> bool {
        if !text.starts_with('{') {
            return false;
        }
        match serde_json::from_str(text) {
            Ok(Note::Began { request, below, .. }) => *self = Self { request: Some(request), below, stopped: None },
            Ok(Note::Again { .. }) => self.stopped = None,
            Ok(Note::Stopped { at, kind, why }) => self.stopped = Some(Stopped { at, kind, why }),
            // Of a newer haul: it says nothing about blocks.
            Err(_) => {}
        }
        true
    }
}

impl From<Stopped> for Note {
    fn from(Stopped { at, kind, why }: Stopped) -> Self {
        Self::Stopped { at, kind, why }
    }
}

/// Puts its CRC behind a line of a journal.
pub(super) fn checked(text: &str) -> String {
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// Returns a line of a journal without its CRC, if that is right.
pub(super) fn unchecked(line: &str) -> Option<&str> {
    let (text, check) = line.rsplit_once(' ')?;
    (u32::from_str_radix(check, 16).ok()? == crc32fast::hash(text.as_bytes())).then_some(text)
}

fn line_of(note: &Note) -> String {
    // It holds nothing that JSON has no form for, and JSON has no line feeds of its own.
    checked(&serde_json::to_string(note).unwrap_or_default())
}

/// Returns an error as a line to keep. What a server says about a login may hold the password: that is not kept.
fn reason(error: &Error) -> String {
    let text = match error.kind() {
        ErrorKind::AuthFailed => format!("{}: the login was refused", error.path().unwrap_or("the server")),
        _ => error.chain(),
    };
    escape(text.as_bytes()).chars().take(LONGEST_REASON).collect()
}

fn now() -> i64 {
    Mtime { time: SystemTime::now(), precision: Precision::Second }.unix()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Notes {
        let mut notes = Notes::default();
        for line in lines.lines() {
            assert!(notes.take(unchecked(line).unwrap()));
        }
        notes
    }

    #[test]
    fn the_last_note_counts() {
        let request = Request { options: vec!["--tls=require".into()], several: true, ..Request::default() };
        let mut notes = Notes::default();
        let root = RemotePath::new("/a b").unwrap();
        let mut text = notes.began(&request, Some(&root));
        assert_eq!((read(&text).request.as_ref(), read(&text).stopped), (Some(&request), None));
        assert_eq!(read(&text).below(), Some(root));
        text += &notes.stopped(&Error::new(ErrorKind::NoSpace, "write\n\x1b[2J").at("/x y"));
        let stopped = read(&text).stopped.unwrap();
        assert_eq!((&*stopped.kind, &*stopped.why), ("no_space", "/x y: write\\n\\u{1b}[2J"));
        assert_eq!(read(&notes.lines()).stopped, Some(stopped));
        text += &notes.again();
        assert_eq!((read(&text).request, read(&text).stopped), (Some(request), None));
    }

    #[test]
    fn what_a_server_says_of_a_login_is_not_kept() {
        let error = Error::new(ErrorKind::AuthFailed, "530 not with hunter2").at("ftp://h");
        assert_eq!(reason(&error), "ftp://h: the login was refused");
    }

    #[test]
    fn notes_of_a_newer_haul_are_passed_over() {
        let mut notes = read(&checked(r#"{"note":"verified","by":"magic"}"#));
        assert!(notes.request.is_none() && notes.stopped.is_none());
        assert!(!notes.take("0 abc"));
    }
}

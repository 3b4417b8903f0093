//! `.netrc`: logins and passwords by host, as ftp(1), curl and lftp read it.
//!
//! A word runs to the next space; one in double quotes may hold spaces, with `\"`, `\\`, `\n`, `\r` and `\t` in it. `#`
//! where a keyword could stand begins a comment. A macro (`macdef`) is skipped up to the next empty line.

use std::fmt;
use std::iter::Peekable;
use std::str::CharIndices;

use crate::transport::Secret;

/// What the file says about one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The host; `None` for `default`, which stands for all.
    pub machine: Option<String>,
    /// The user.
    pub login: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// What some servers want beside the password (FTP's `ACCT`).
    pub account: Option<Secret>,
    /// The line where the entry begins, from 1.
    pub line: usize,
}

/// The file's entries, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Netrc {
    entries: Vec<Entry>,
}

/// Something in the file that can't be read. The words in question are not told: one may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    what: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl Netrc {
    /// Reads the file's text.
    ///
    /// # Errors
    /// The first thing that can't be read.
    pub fn read(text: &str) -> Result<Self, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut words = Words { text, chars: text.char_indices().peekable(), line: 1 };
        while let Some(keyword) = words.keyword() {
            let line = words.line;
            let entry = entries.last_mut().ok_or(Fault { line, what: "this word belongs to no machine" });
            match keyword {
                "machine" => entries.push(Entry::new(Some(words.value()?), line)),
                "default" => entries.push(Entry::new(None, line)),
                "macdef" => words.skip_macro(),
                "login" => entry?.login = Some(words.value()?),
                "password" => entry?.password = Some(Secret::new(words.value()?)),
                "account" => entry?.account = Some(Secret::new(words.value()?)),
                _ => {
                    let what = "neither machine, default, login, password, account nor macdef; \
                                a password with a space in it stands in double quotes";
                    return Err(Fault { line, what });
                }
            }
        }
        Ok(Self { entries })
    }

    /// Returns the entry for a host: of that user if one is given, else of the first one named. An entry without a login
    /// is for every user; nothing is for another user than the one asked for.
    pub fn find(&self, host: &str, user: Option<&str>) -> Option<&Entry> {
        let is_for_host = |entry: &&Entry| entry.machine.as_deref().is_none_or(|name| name.eq_ignore_ascii_case(host));
        let suits = |entry: &&Entry| match (user, &entry.login) {
            (Some(user), Some(login)) => user == login,
            (Some(_), None) => entry.password.is_some(),
            (None, login) => login.is_some(),
        };
        let found = |entry: &&Entry| is_for_host(entry) && suits(entry);
        // What names the host goes before `default`, wherever that stands.
        let named = self.entries.iter().filter(|entry| entry.machine.is_some()).find(found);
        named.or_else(|| self.entries.iter().find(found))
    }

    /// Returns whether anybody who reads the file learns a password that isn't everybody's.
    pub fn holds_secrets(&self) -> bool {
        let anonymous = |entry: &Entry| matches!(entry.login.as_deref(), Some("anonymous" | "ftp"));
        self.entries.iter().any(|entry| !anonymous(entry) && (entry.password.is_some() || entry.account.is_some()))
    }
}

impl Entry {
    fn new(machine: Option<String>, line: usize) -> Self {
        Self { machine, login: None, password: None, account: None, line }
    }
}

struct Words<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    line: usize,
}

impl<'a> Words<'a> {
    fn step(&mut self) -> Option<char> {
        let (_, c) = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn skip_space(&mut self) {
        while self.chars.peek().is_some_and(|(_, c)| c.is_ascii_whitespace()) {
            self.step();
        }
    }

    fn skip_line(&mut self) {
        while self.step().is_some_and(|c| c != '\n') {}
    }

    fn keyword(&mut self) -> Option<&'a str> {
        loop {
            self.skip_space();
            match self.chars.peek()?.1 {
                '#' => self.skip_line(),
                _ => return Some(self.bare()),
            }
        }
    }

    fn bare(&mut self) -> &'a str {
        let start = self.at();
        while self.chars.peek().is_some_and(|(_, c)| !c.is_ascii_whitespace()) {
            self.step();
        }
        &self.text[start..self.at()]
    }

    fn value(&mut self) -> Result<String, Fault> {
        let line = self.line;
        self.skip_space();
        match self.chars.peek() {
            None => Err(Fault { line, what: "the value is missing" }),
            Some((_, '"')) => self.quoted(),
            Some(_) => Ok(self.bare().to_owned()),
        }
    }

    fn quoted(&mut self) -> Result<String, Fault> {
        let open = Fault { line: self.line, what: "the closing quote is missing" };
        self.step();
        // It never grows: no copy is left behind.
        let rest = &self.text[self.at()..];
        let mut value = String::with_capacity(rest.find('\n').unwrap_or(rest.len()));
        loop {
            match self.step().ok_or(open)? {
                '"' => return Ok(value),
                '\n' => return Err(open),
                '\\' => value.push(match self.step().ok_or(open)? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                }),
                c => value.push(c),
            }
        }
    }

    /// The macro's name ends its line; the macro ends with an empty one.
    fn skip_macro(&mut self) {
        self.skip_line();
        loop {
            let start = self.at();
            self.skip_line();
            if self.text[start..self.at()].trim().is_empty() {
                return;
            }
        }
    }

    fn at(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn netrc(text: &str) -> Netrc {
        Netrc::read(text).unwrap()
    }

    /// Who logs in where, by which password.
    fn found(netrc: &Netrc, host: &str, user: Option<&str>) -> Option<(Option<String>, Option<String>)> {
        let entry = netrc.find(host, user)?;
        Some((entry.login.clone(), entry.password.as_ref().map(|password| password.expose().to_owned())))
    }

    fn both(login: &str, password: &str) -> (Option<String>, Option<String>) {
        (Some(login.into()), Some(password.into()))
    }

    #[test]
    fn passwords_go_to_the_host_and_user_that_they_are_for() {
        let netrc = netrc(
            "# mine\nmachine ftp.example.org login me password one account books\n\
             machine ftp.example.org\n\tlogin you\n\tpassword two # yours\nmachine other.example.org password three\n\
             default login anonymous password me@example.org\n",
        );
        assert_eq!(found(&netrc, "ftp.example.org", None), Some(both("me", "one")));
        assert_eq!(found(&netrc, "FTP.Example.ORG", Some("you")), Some(both("you", "two")));
        assert_eq!(found(&netrc, "ftp.example.org", Some("root")), None);
        assert_eq!(found(&netrc, "other.example.org", Some("root")), Some((None, Some("three".into()))));
        assert_eq!(found(&netrc, "elsewhere", None), Some(both("anonymous", "me@example.org")));
        assert_eq!(found(&netrc, "elsewhere", Some("me")), None);
        assert_eq!(netrc.find("ftp.example.org", None).unwrap().account, Some(Secret::new("books")));
        assert_eq!(netrc.find("ftp.example.org", Some("you")).unwrap().line, 3);
    }

    #[test]
    fn a_named_host_goes_before_default_wherever_it_stands() {
        let netrc = netrc("default login anonymous password x\nmachine h login me password y\n");
        assert_eq!(found(&netrc, "h", None), Some(both("me", "y")));
    }

    #[test]
    fn words_are_read_as_curl_and_lftp_read_them() {
        for (text, password) in [
            ("machine h login u password a\\b", "a\\b"),
            ("machine h login u password \"a b\\\"c\\\\d\\te\"", "a b\"c\\d\te"),
            ("machine h login u password #no-comment", "#no-comment"),
            ("machine\th\r\nlogin u\r\npassword p\r\n", "p"),
            ("machine h login u password \"\"", ""),
            ("machine h login u password pässwörd", "pässwörd"),
            ("machine h login u password login", "login"),
        ] {
            assert_eq!(found(&netrc(text), "h", Some("u")), Some(both("u", password)), "{text}");
        }
    }

    #[test]
    fn macros_are_skipped() {
        let text = "machine h login u\nmacdef init\n  password not-this\n  machine nor-this\n\npassword p\n\
                    macdef last\nquit";
        let netrc = netrc(text);
        assert_eq!((found(&netrc, "h", None), netrc.entries.len()), (Some(both("u", "p")), 1));
    }

    #[test]
    fn what_cannot_be_read_is_told_without_the_words() {
        for (text, line) in [
            ("login me", 1),
            ("machine h login me password two words", 1),
            ("machine h\npassword \"open\n", 2),
            ("machine h password", 1),
            ("\n\nmachine", 3),
        ] {
            let fault = Netrc::read(text).unwrap_err();
            assert_eq!(fault.line, line, "{text}");
            assert!(!["words", "open"].iter().any(|word| fault.to_string().contains(word)), "{fault}");
        }
    }

    #[test]
    fn an_anonymous_password_is_no_secret() {
        assert!(!netrc("default login anonymous password me@here machine h login me").holds_secrets());
        assert!(
            netrc("machine h login me password x").holds_secrets() && netrc("machine h password x").holds_secrets()
        );
    }

    fn quote(word: &str) -> String {
        let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
        format!("\"{escaped}\"")
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(machine|default|login|password|account|macdef|[a-z#\"\\\\]{1,3}|[ \n\r]|\\PC){0,40}") {
            let _ = Netrc::read(&text);
        }

        #[test]
        fn every_password_can_be_written(logins in prop::collection::vec(("[a-z.]{1,9}", "\\PC{1,8}", any::<String>()), 0..6)) {
            let lines = logins.iter().map(|(host, user, password)| {
                format!("machine {host} login {} password {}\n", quote(user), quote(password))
            });
            let netrc = netrc(&lines.collect::<String>());
            for (host, user, _) in &logins {
                let first = logins.iter().find(|(h, u, _)| (h, u) == (host, user)).unwrap();
                prop_assert_eq!(found(&netrc, host, Some(user)), Some(both(user, &first.2)));
            }
        }
    }
}

//! Command scripts: which command a line is, with which flags and paths.

use super::action::{Action, CopyFlags, Line, ListFlags, SortBy};
use super::words::{self, Fault, Word, column, is_blank};
use crate::config::{Place, Problem, similar};
use crate::transport::{Owner, escape};

/// So long a line is none that somebody wrote.
const LONGEST_LINE: usize = 1 << 16;

/// Every command and the flags that it takes.
const COMMANDS: [(&str, &str); 37] = [
    ("bye", ""),
    ("cd", ""),
    ("chdir", ""),
    ("chgrp", ""),
    ("chmod", ""),
    ("chown", ""),
    ("copy", ""),
    ("cp", ""),
    ("df", "hi"),
    ("dir", "1Safhlnrt"),
    ("exit", ""),
    ("get", "afpPrR"),
    ("help", ""),
    ("lcd", ""),
    ("lchdir", ""),
    ("lls", ""),
    ("lmkdir", ""),
    ("ln", "s"),
    ("lpwd", ""),
    ("ls", "1Safhlnrt"),
    ("lumask", ""),
    ("mget", "afpPrR"),
    ("mkdir", ""),
    ("mput", "afpPrR"),
    ("progress", ""),
    ("put", "afpPrR"),
    ("pwd", ""),
    ("quit", ""),
    ("reget", "afpPrR"),
    ("rename", "l"),
    ("reput", "afpPrR"),
    ("rm", ""),
    ("rmdir", ""),
    ("symlink", ""),
    ("version", ""),
    ("?", ""),
    ("!", ""),
];

/// Reads all lines.
pub(super) fn read(text: &[u8]) -> Result<Vec<Line>, Vec<Problem>> {
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        match read_line(line, number + 1) {
            Ok(read) => lines.extend(read),
            Err(fault) => problems.push(Problem {
                place: Place { line: number + 1, column: fault.column },
                message: fault.message,
                hint: fault.hint,
            }),
        }
    }
    if problems.is_empty() { Ok(lines) } else { Err(problems) }
}

struct Wrong {
    column: usize,
    message: String,
    hint: Option<String>,
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self { column: fault.column, message: fault.message.into(), hint: None }
    }
}

fn wrong<T>(column: usize, message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { column, message: message.into(), hint: None })
}

fn read_line(line: &[u8], number: usize) -> Result<Option<Line>, Wrong> {
    let blanks = |at: usize| line[at..].iter().take_while(|&&byte| is_blank(byte)).count();
    let (mut at, mut ignores_failure, mut silent) = (blanks(0), false, false);
    loop {
        match line.get(at) {
            Some(b'-') => ignores_failure = true,
            Some(b'@') => silent = true,
            None | Some(b'#') => return Ok(None),
            Some(_) => break,
        }
        at += 1;
        at += blanks(at);
    }
    if line.len() > LONGEST_LINE {
        return wrong(1, "the line is too long");
    }
    if let Some(nul) = line.iter().position(|&byte| byte == 0) {
        return wrong(column(line, nul), "a NUL byte");
    }
    let action = match line[at] {
        b'!' => Action::Shell(line[at + 1..].trim_ascii().to_vec()),
        _ => match Parser::new(line, at)? {
            Some(parser) => parser.action()?,
            None => return Ok(None),
        },
    };
    let place = Place { line: number, column: column(line, at) };
    Ok(Some(Line { place, text: line.trim_ascii().to_vec(), ignores_failure, silent, action }))
}

/// The words of a line that are not used up yet.
struct Parser<'a> {
    line: &'a [u8],
    name: &'static str,
    column: usize,
    /// The flags that were given, each once.
    flags: Vec<u8>,
    words: std::vec::IntoIter<Word>,
    /// What stands behind the command's name.
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    /// Finds the command; `None` where a quoted nothing is the whole line.
    fn new(line: &'a [u8], start: usize) -> Result<Option<Self>, Wrong> {
        let written = line[start..].iter().take_while(|&&byte| !is_blank(byte)).count();
        let rest = line[start + written..].trim_ascii();
        let is_lls = line[start..start + written].eq_ignore_ascii_case(b"lls");
        // Those words are for the shell to split.
        let words = if is_lls { words::split(&line[..start + written], start)? } else { words::split(line, start)? };
        let mut words = words.into_iter();
        let Some(first) = words.next() else { return Ok(None) };
        let name = String::from_utf8_lossy(first.raw()).to_ascii_lowercase();
        let Some((name, allowed)) = COMMANDS.iter().find(|(known, _)| *known == name) else {
            let meant = similar(&name, COMMANDS.iter().map(|(known, _)| *known));
            return Err(Wrong {
                column: first.column,
                message: format!("unknown command: {}", escape(first.raw())),
                hint: meant.map(|meant| format!("did you mean {meant}?")),
            });
        };
        let mut parser = Self { line, name, column: first.column, flags: Vec::new(), words, rest };
        parser.take_flags(allowed)?;
        Ok(Some(parser))
    }

    /// Takes flags as getopt does: up to the first word that is none, or `--`.
    fn take_flags(&mut self, allowed: &str) -> Result<(), Wrong> {
        while let Some(word) = self.words.as_slice().first() {
            let (raw, column) = (word.raw().to_vec(), word.column);
            if raw.len() < 2 || raw[0] != b'-' {
                return Ok(());
            }
            self.words.next();
            if raw == b"--" {
                return Ok(());
            }
            for &flag in &raw[1..] {
                if !allowed.as_bytes().contains(&flag) {
                    let hint = match (allowed, self.name, flag) {
                        (_, "chmod" | "chown" | "chgrp", b'h') => "what a link leads to is changed".to_owned(),
                        ("", ..) => {
                            format!("{} takes none; a name that begins so is written ./{}", self.name, escape(&raw))
                        }
                        _ => format!("{} takes -{allowed}", self.name),
                    };
                    let message = format!("{} has no flag -{}", self.name, escape(&[flag]));
                    return Err(Wrong { column, message, hint: Some(hint) });
                }
                self.flags.push(flag);
            }
        }
        Ok(())
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.contains(&flag)
    }

    fn action(mut self) -> Result<Action, Wrong> {
        let action = match self.name {
            "get" | "mget" | "reget" | "put" | "mput" | "reput" => self.copy()?,
            "copy" | "cp" => Action::Copy(self.path("what to copy")?, self.path("where to")?),
            "ls" | "dir" => Action::List(self.words.next(), self.list_flags()),
            "cd" | "chdir" => Action::Cd(self.optional()),
            "lcd" | "lchdir" => Action::LocalCd(self.optional()),
            "pwd" => Action::Pwd,
            "lpwd" => Action::LocalPwd,
            "lls" => Action::LocalList(self.rest.to_vec()),
            "mkdir" => Action::Mkdir(self.path("a directory")?),
            "lmkdir" => Action::LocalMkdir(self.path("a directory")?),
            "rmdir" => Action::Rmdir(self.path("a directory")?),
            "rm" => Action::Rm(self.word("what to remove")?),
            "rename" => {
                let (from, to) = (self.path("the old name")?, self.path("the new name")?);
                Action::Rename { from, to, replaces: !self.has(b'l') }
            }
            "ln" | "symlink" => {
                let (target, link) = (self.path("where the link leads")?, self.path("the link")?);
                match self.name == "symlink" || self.has(b's') {
                    true => Action::Symlink(target, link),
                    false => Action::HardLink(target, link),
                }
            }
            "chmod" => Action::Chmod(self.number(8, 0o7777, "a mode like 644")?, self.word("a path")?),
            "chown" => Action::Chown(Owner::User(self.number(10, u32::MAX, "a user's number")?), self.word("a path")?),
            "chgrp" => {
                Action::Chown(Owner::Group(self.number(10, u32::MAX, "a group's number")?), self.word("a path")?)
            }
            "df" => Action::Df { human: self.has(b'h'), inodes: self.has(b'i'), path: self.optional() },
            "lumask" => Action::LocalUmask(self.number(8, 0o777, "a mask like 022")?),
            "progress" => Action::Progress,
            "version" => Action::Version,
            "help" | "?" => Action::Help,
            _ => Action::Quit,
        };
        match self.words.next() {
            None => Ok(action),
            Some(word) => {
                let message = format!("{} takes no more words than those before: {}", self.name, escape(&word.plain()));
                let hint = "a name with blanks is put in quotes; a * names several files".to_owned();
                Err(Wrong { column: word.column, message, hint: Some(hint) })
            }
        }
    }

    fn copy(&mut self) -> Result<Action, Wrong> {
        let flags = CopyFlags {
            resume: self.has(b'a') || self.name.starts_with("re"),
            durable: self.has(b'f'),
            preserve: self.has(b'p') || self.has(b'P'),
            recursive: self.has(b'r') || self.has(b'R'),
        };
        let (from, to) = (self.word("what to copy")?, self.optional());
        Ok(match self.name {
            "get" | "mget" | "reget" => Action::Get(from, to, flags),
            _ => Action::Put(from, to, flags),
        })
    }

    fn list_flags(&self) -> ListFlags {
        let mut flags = ListFlags::default();
        // Of those that exclude each other the last one counts.
        for flag in &self.flags {
            match flag {
                b'1' => (flags.single, flags.long) = (true, false),
                b'l' | b'n' => (flags.single, flags.long) = (false, true),
                b'a' => flags.all = true,
                b'h' => flags.human = true,
                b'r' => flags.reverse = true,
                b'S' => flags.sort = SortBy::Size,
                b't' => flags.sort = SortBy::Time,
                _ => flags.sort = SortBy::Nothing,
            }
        }
        flags
    }

    fn optional(&mut self) -> Option<Vec<u8>> {
        self.words.next().map(|word| word.plain())
    }

    fn path(&mut self, what: &str) -> Result<Vec<u8>, Wrong> {
        Ok(self.word(what)?.plain())
    }

    fn word(&mut self, what: &str) -> Result<Word, Wrong> {
        let end = column(self.line, self.line.trim_ascii_end().len());
        match self.words.next() {
            Some(word) if word.raw().is_empty() => wrong(word.column, format!("{}: {what} is empty", self.name)),
            Some(word) => Ok(word),
            None => wrong(end, format!("{} wants {what}", self.name)),
        }
    }

    fn number(&mut self, base: u32, most: u32, what: &str) -> Result<u32, Wrong> {
        let column = self.words.as_slice().first().map_or(self.column, |word| word.column);
        let word = self.path(what)?;
        let text = std::str::from_utf8(&word).unwrap_or_default();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match u32::from_str_radix(text, base).ok().filter(|number| digits && *number <= most) {
            Some(number) => Ok(number),
            None => wrong(column, format!("{} wants {what}: \"{}\" is none", self.name, escape(&word))),
        }
    }
}

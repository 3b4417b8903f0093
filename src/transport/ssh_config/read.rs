//! Reading the files: blocks that count, what they include, and the first value of each keyword.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lines::{Line, lines};
use super::matching::{Subject, Verdict, criteria, host};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::escape;

/// No honest file is longer.
const LONGEST: u64 = 1 << 20;
/// How deep files may include each other, as in OpenSSH.
const DEEPEST: usize = 16;
/// Keywords of which every value counts, not the first alone.
const LISTS: [&str; 2] = ["identityfile", "certificatefile"];
/// Older names of keywords, which still count.
const OLDER: [(&str, &str); 6] = [
    ("challengeresponseauthentication", "kbdinteractiveauthentication"),
    ("skeyauthentication", "kbdinteractiveauthentication"),
    ("tisauthentication", "kbdinteractiveauthentication"),
    ("dsaauthentication", "pubkeyauthentication"),
    ("identityfile2", "identityfile"),
    ("pubkeyacceptedkeytypes", "pubkeyacceptedalgorithms"),
];
/// Keywords that say how a host is reached.
const WAYS: [&str; 2] = ["proxyjump", "proxycommand"];

/// Where a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) file: PathBuf,
    pub(super) line: usize,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", escape(self.file.as_os_str().as_encoded_bytes()), self.line)
    }
}

/// The arguments of a keyword and where they were found.
pub(super) type Value = (Vec<String>, Origin);

/// What the files say about one host.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By keyword; more than one value for some.
    values: BTreeMap<String, Vec<Value>>,
    /// `Match` criteria that are not known here.
    pub(super) unknown: BTreeSet<(String, String)>,
    /// There is a `Match final`: everything is to be read once more.
    pub(super) again: bool,
}

impl Found {
    /// Returns every keyword that occurs, with its first place.
    pub(super) fn origins(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.values.iter().filter_map(|(keyword, values)| Some((keyword.as_str(), &values.first()?.1)))
    }

    /// Returns the first argument of a keyword.
    pub(super) fn first(&self, keyword: &str) -> Option<(&str, &Origin)> {
        let (arguments, origin) = self.values.get(keyword)?.first()?;
        Some((arguments.first()?, origin))
    }

    /// Returns the arguments of a keyword.
    pub(super) fn all(&self, keyword: &str) -> Option<(&[String], &Origin)> {
        let (arguments, origin) = self.values.get(keyword)?.first()?;
        Some((arguments, origin))
    }

    /// Returns every value of a keyword, in order.
    pub(super) fn list(&self, keyword: &str) -> &[Value] {
        self.values.get(keyword).map_or(&[], Vec::as_slice)
    }

    pub(super) fn take(&mut self, mut line: Line, file: &Path) {
        if let Some((_, now)) = OLDER.iter().find(|(older, _)| *older == line.keyword) {
            (*now).clone_into(&mut line.keyword);
        }
        // Of these, whichever comes first counts.
        if WAYS.contains(&line.keyword.as_str()) && WAYS.iter().any(|way| self.values.contains_key(*way)) {
            return;
        }
        let is_list = LISTS.contains(&line.keyword.as_str());
        let values = self.values.entry(line.keyword).or_default();
        let known = values.iter().any(|(arguments, _)| *arguments == line.arguments);
        if values.is_empty() || (is_list && !known) {
            values.push((line.arguments, Origin { file: file.to_path_buf(), line: line.number }));
        }
    }
}

/// What is read, for whom.
pub(super) struct Reader<'a> {
    /// The host as it was typed.
    pub(super) original: &'a str,
    /// The user of the URL.
    pub(super) user: Option<&'a str>,
    pub(super) local_user: &'a str,
    pub(super) home: Option<&'a Path>,
    pub(super) is_final: bool,
    /// The host to connect to, where `HostName` is expanded.
    pub(super) host_name: &'a dyn Fn(&str) -> String,
}

impl Reader<'_> {
    /// Reads a file; one that isn't there says nothing, unless it `must` be.
    ///
    /// # Errors
    /// `Usage`, with file and line, for what can't be read and for a user's file that others can write.
    pub(super) fn file(&self, path: &Path, is_system: bool, must: bool, found: &mut Found) -> Result<()> {
        self.included(path, is_system, must, 0, found)
    }

    fn included(&self, path: &Path, is_system: bool, must: bool, depth: usize, found: &mut Found) -> Result<()> {
        let failed = |text: &str| Error::new(ErrorKind::Usage, text).at(escape(path.as_os_str().as_encoded_bytes()));
        if depth > DEEPEST {
            return Err(failed("too many files that include each other"));
        }
        let text = match text_of(path, is_system) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !must => return Ok(()),
            Err(e) => return Err(failed("read the SSH configuration").with_source(e)),
        };
        let read = lines(&text).map_err(|line| failed(&format!("line {line}: an open quote")))?;
        let mut counts = true;
        for line in read {
            match line.keyword.as_str() {
                "host" => counts = self.judged(found, |subject| host(&line.arguments, subject)),
                "match" => counts = self.matches(&line, path, found),
                _ if !counts => {}
                "include" => {
                    for pattern in &line.arguments {
                        for file in self.files(pattern, is_system) {
                            self.included(&file, is_system, false, depth + 1, found)?;
                        }
                    }
                }
                _ => found.take(line, path),
            }
        }
        Ok(())
    }

    fn matches(&self, line: &Line, path: &Path, found: &mut Found) -> bool {
        match self.judged(found, |subject| criteria(&line.arguments, subject)) {
            Verdict::Yes => true,
            Verdict::No => false,
            Verdict::Later => {
                found.again = true;
                false
            }
            Verdict::Unknown(criterion) => {
                let origin = Origin { file: path.to_path_buf(), line: line.number };
                found.unknown.insert((format!("Match {}", escape(criterion.as_bytes())), origin.to_string()));
                false
            }
        }
    }

    fn judged<T>(&self, found: &Found, judge: impl Fn(Subject<'_>) -> T) -> T {
        let host = found.first("hostname").map_or_else(|| self.original.to_owned(), |(name, _)| (self.host_name)(name));
        let user = self.user.or(found.first("user").map(|(user, _)| user)).unwrap_or(self.local_user);
        judge(Subject {
            original: self.original,
            host: &host,
            user,
            local_user: self.local_user,
            is_final: self.is_final,
        })
    }

    /// Returns the files that an `Include` names, in order.
    fn files(&self, pattern: &str, is_system: bool) -> Vec<PathBuf> {
        let ssh = self.home.map(|home| home.join(".ssh"));
        let path = match (pattern.strip_prefix("~/"), self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ if pattern.starts_with('/') => pattern.into(),
            _ if is_system => Path::new("/etc/ssh").join(pattern),
            _ => ssh.unwrap_or_default().join(pattern),
        };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
        let is_pattern = name.as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte));
        let Some(glob) = name.to_str().filter(|_| is_pattern).and_then(|name| globset::Glob::new(name).ok()) else {
            return vec![path.clone()];
        };
        let glob = glob.compile_matcher();
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.file_name()));
        let hidden = name.as_encoded_bytes().starts_with(b".");
        let mut names: Vec<_> = entries
            .filter(|entry| glob.is_match(entry) && (hidden || !entry.as_encoded_bytes().starts_with(b".")))
            .collect();
        names.sort();
        names.into_iter().map(|name| folder.join(name)).collect()
    }
}

fn text_of(path: &Path, is_system: bool) -> io::Result<String> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let us = rustix::process::geteuid().as_raw();
    let foreign = metadata.uid() != 0 && metadata.uid() != us;
    if !is_system && metadata.is_file() && (foreign || metadata.mode() & 0o022 != 0) {
        return Err(io::Error::other("others can write to it; it must belong to you, with mode 600"));
    }
    let mut bytes = Vec::new();
    if file.take(LONGEST + 1).read_to_end(&mut bytes)? as u64 > LONGEST {
        return Err(io::Error::other("longer than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

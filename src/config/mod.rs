//! The file of settings: defaults, settings for hosts, profiles. From text to values; no disk, no network.
//!
//! Which settings there are, and what may be their values, is not known here: a [`Vocabulary`] tells, and the command
//! line makes one of its options.

use std::fmt;

use crate::endpoint::Endpoint;
use crate::transport::matches_pattern;

pub mod netrc;
mod read;

pub(crate) use read::{in_order, names_secret, place_in};

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// `true` or `false`.
    Switch,
    /// One word or number.
    Word,
    /// One word, or several in brackets.
    Words,
}

/// The settings that there are.
pub trait Vocabulary {
    /// Returns every setting's name.
    fn names(&self) -> Vec<&str>;

    /// Returns what a setting takes; `None` when there is none of this name.
    fn takes(&self, name: &str) -> Option<Takes>;

    /// Says what is wrong with a word for a setting.
    ///
    /// # Errors
    /// A sentence without a full stop.
    fn check(&self, name: &str, word: &str) -> Result<(), String>;
}

/// Where something stands in a file; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something that is wrong with a file. Neither text holds a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What a setting is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// On or off.
    Switch(bool),
    /// Words, at least one.
    Words(Vec<String>),
}

/// One line of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name as the vocabulary has it.
    pub name: String,
    /// The value.
    pub value: Value,
    /// Where it stands.
    pub place: Place,
}

/// The settings below one heading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// The heading: `defaults`, `host "*.example.org"`, `profile work`.
    pub title: String,
    /// In the order of the file.
    pub settings: Vec<Setting>,
}

impl Section {
    /// Returns a setting.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }
}

/// A name for a URL, with settings of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name in front of the colon.
    pub name: String,
    /// What the name stands for.
    pub endpoint: Endpoint,
    /// Its settings.
    pub section: Section,
}

/// The file of settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    defaults: Section,
    hosts: Vec<(String, Section)>,
    profiles: Vec<Profile>,
}

impl Config {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Everything that is wrong with it, from top to bottom.
    pub fn read(text: &str, vocabulary: &dyn Vocabulary) -> Result<Self, Vec<Problem>> {
        read::read(text, vocabulary)
    }

    /// Returns a profile.
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// Returns all profiles.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// Returns what counts for a host, the most important first: the profile, if one was named, then the sections whose
    /// pattern is the host's name, then the other patterns that match, the longest first, then the defaults.
    pub fn sections(&self, host: &str, profile: Option<&str>) -> Vec<&Section> {
        let host = host.to_ascii_lowercase();
        let named = profile.and_then(|name| self.profile(name)).map(|profile| &profile.section);
        let matches = |pattern: &str| matches_pattern(host.as_bytes(), pattern.as_bytes());
        let mut hosts: Vec<_> = self.hosts.iter().filter(|(pattern, _)| matches(pattern)).collect();
        // Sorting keeps the order of the file among equals.
        hosts.sort_by_key(|(pattern, _)| {
            let wild = pattern.contains(['*', '?']);
            (wild, std::cmp::Reverse(pattern.chars().filter(|c| !matches!(c, '*' | '?')).count()))
        });
        named.into_iter().chain(hosts.into_iter().map(|(_, section)| section)).chain([&self.defaults]).collect()
    }
}

/// Returns the word that somebody who wrote this one may have meant.
pub fn similar<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = words.into_iter().map(|known| (strsim::normalized_damerau_levenshtein(word, known), known));
    near.filter(|(likeness, _)| *likeness >= 0.6).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}

/// Returns what stands in front of a colon, if it could be the name of a profile, and what stands behind it.
///
/// A name is made of letters, digits, `_`, `-` and `.` and doesn't begin with a dash or point; a slash before the colon
/// means a file, and `://` a URL.
pub fn split_profile(operand: &[u8]) -> Option<(&str, &[u8])> {
    let colon = operand.iter().position(|&byte| byte == b':')?;
    let (name, rest) = (std::str::from_utf8(&operand[..colon]).ok()?, &operand[colon + 1..]);
    (is_profile_name(name) && !rest.starts_with(b"//")).then_some((name, rest))
}

fn is_profile_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

#[cfg(test)]
mod tests;

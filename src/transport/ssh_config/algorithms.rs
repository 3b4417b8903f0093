//! Lists of algorithms: `+`, `-`, `^` and wildcards (ssh_config(5) at `Ciphers`).

use super::matching::matches_pattern;
use super::read::Origin;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::escape;

/// What a keyword does to the usual list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Replace,
    Append,
    Prepend,
    Remove,
}

/// A list as it was written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlgorithmList {
    keyword: &'static str,
    origin: Origin,
    change: Change,
    patterns: Vec<String>,
}

/// What comes of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// In order of preference, each once.
    pub(crate) names: Vec<String>,
    /// Those of the list that nobody here knows.
    pub(crate) unknown: Vec<String>,
}

impl AlgorithmList {
    /// Reads a list; an empty one has no meaning.
    pub(super) fn parse(keyword: &'static str, text: &str, origin: &Origin) -> Option<Self> {
        let (change, rest) = match text.split_at_checked(1) {
            Some(("+", rest)) => (Change::Append, rest),
            Some(("^", rest)) => (Change::Prepend, rest),
            Some(("-", rest)) => (Change::Remove, rest),
            _ => (Change::Replace, text),
        };
        let patterns: Vec<_> = rest.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        // OpenSSH takes no negation here either.
        let is_right = !patterns.is_empty() && !patterns.iter().any(|pattern| pattern.starts_with('!'));
        is_right.then(|| Self { keyword, origin: origin.clone(), change, patterns })
    }

    /// Applies the list to the usual names; only names of `all` can come of it.
    ///
    /// # Errors
    /// `Usage` when nothing is left.
    pub(crate) fn apply(&self, usual: &[&str], all: &[&str]) -> Result<Chosen> {
        let patterns = self.patterns.iter().map(String::as_str);
        let listed = || patterns.clone().flat_map(|pattern| matching(pattern, all));
        let usual = usual.iter().copied();
        let wanted: Vec<&str> = match self.change {
            Change::Replace => listed().collect(),
            Change::Append => usual.chain(listed()).collect(),
            Change::Prepend => listed().chain(usual).collect(),
            Change::Remove => usual
                .filter(|name| !patterns.clone().any(|pattern| matches_pattern(name.as_bytes(), pattern.as_bytes())))
                .collect(),
        };
        let mut names: Vec<String> = Vec::new();
        for name in wanted {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        if names.is_empty() {
            let text = format!("{} leaves no algorithm that this engine has: {}", self.keyword, self.shown());
            return Err(Error::new(ErrorKind::Usage, text)
                .at(&self.origin)
                .with_hint("--ssh-engine openssh has more of them"));
        }
        let unknown = match self.change {
            Change::Remove => Vec::new(),
            _ => self.patterns.iter().filter(|pattern| matching(pattern, all).next().is_none()).cloned().collect(),
        };
        Ok(Chosen { names, unknown })
    }

    /// Returns whether the order is the user's, not ours.
    pub(crate) fn sets_order(&self) -> bool {
        matches!(self.change, Change::Replace | Change::Prepend)
    }

    pub(crate) fn keyword(&self) -> &'static str {
        self.keyword
    }

    pub(crate) fn place(&self) -> String {
        self.origin.to_string()
    }

    fn shown(&self) -> String {
        let sign = match self.change {
            Change::Replace => "",
            Change::Append => "+",
            Change::Prepend => "^",
            Change::Remove => "-",
        };
        format!("{sign}{}", escape(self.patterns.join(",").as_bytes()))
    }
}

fn matching<'a>(pattern: &'a str, all: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    all.iter().copied().filter(move |name| matches_pattern(name.as_bytes(), pattern.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [&str; 5] = ["aes-gcm", "aes-ctr", "aes-cbc", "chacha", "3des"];
    const USUAL: [&str; 3] = ["chacha", "aes-gcm", "aes-ctr"];

    fn list(text: &str) -> Option<AlgorithmList> {
        AlgorithmList::parse("Ciphers", text, &Origin { file: "/f".into(), line: 3 })
    }

    #[test]
    fn lists_replace_append_prepend_and_remove() {
        for (text, expected, unknown) in [
            ("aes-ctr,3des", "aes-ctr,3des", ""),
            ("aes-ctr,aes-ctr", "aes-ctr", ""),
            ("umac,aes-ctr", "aes-ctr", "umac"),
            ("aes-*", "aes-gcm,aes-ctr,aes-cbc", ""),
            ("+aes-cbc,chacha", "chacha,aes-gcm,aes-ctr,aes-cbc", ""),
            ("+blowfish", "chacha,aes-gcm,aes-ctr", "blowfish"),
            ("^aes-ctr,3des", "aes-ctr,3des,chacha,aes-gcm", ""),
            ("-aes-*", "chacha", ""),
            ("-blowfish", "chacha,aes-gcm,aes-ctr", ""),
        ] {
            let chosen = list(text).unwrap().apply(&USUAL, &ALL).unwrap();
            assert_eq!(
                (chosen.names.join(",").as_str(), chosen.unknown.join(",").as_str()),
                (expected, unknown),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_left_is_an_error_with_its_place() {
        for text in ["blowfish,arcfour", "-*"] {
            let error = list(text).unwrap().apply(&USUAL, &ALL).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
            assert!(error.to_string().contains("/f:3") && error.to_string().contains(text), "{error}");
            assert!(error.hint().unwrap().contains("openssh"));
        }
        for wrong in ["", "+", "!chacha", ","] {
            assert_eq!(list(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_only_known_names_come_out(text in "[+^-]?[a-z0-9*?,!-]{0,30}") {
            if let Some(chosen) = list(&text).and_then(|list| list.apply(&USUAL, &ALL).ok()) {
                prop_assert!(!chosen.names.is_empty());
                prop_assert!(chosen.names.iter().all(|name| ALL.contains(&name.as_str())));
            }
        }
    }
}

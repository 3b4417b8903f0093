//! Options that a transfer's journal keeps, so that whoever goes on with it need not type them again.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use haul::endpoint::encode_path;
use haul::transport::Proxies;
use percent_encoding::percent_decode_str;

use super::known::{Known, Set, opposite};

/// Options that are secret, that say how to show a run, that leave nothing to go on with, or that are about what to take.
const NOT_KEPT: [&str; 7] = ["dry-run", "exclude", "ftp-account", "json", "no-haulignore", "no-resume", "progress"];

impl Known {
    /// Returns the options of a command line as a journal keeps them: no secrets, and paths from the root.
    pub(crate) fn to_keep(&self, given: &[(String, Set)]) -> Vec<String> {
        let kept = given.iter().filter(|(name, _)| !NOT_KEPT.contains(&name.as_str()));
        let words = kept.flat_map(|(name, set)| match set {
            Set::Switch(true) => vec![format!("--{name}")],
            Set::Switch(false) => vec![format!("--{}", opposite(name))],
            Set::Words(words) => {
                let kept = words.iter().filter_map(|word| self.word_to_keep(name, word));
                kept.map(|word| format!("--{name}={}", encode_path(word.as_bytes()))).collect()
            }
        });
        words.collect()
    }

    /// Returns what counts of the command line when a transfer goes on: what was typed now, then what was kept.
    pub(crate) fn with_kept(&self, typed: &[(String, Set)], kept: &[String]) -> Vec<(String, Set)> {
        let is_on = |(_, set): &&(String, Set)| *set != Set::Switch(false);
        let mut merged = typed.to_vec();
        for (name, set) in kept.iter().filter_map(|word| self.read_kept(word)) {
            let excluded = typed.iter().filter(is_on).any(|(other, _)| self.conflict(&name, other));
            if excluded || typed.iter().any(|(other, _)| *other == name) {
                continue;
            }
            match (merged.iter_mut().find(|(other, _)| *other == name), set) {
                (Some((_, Set::Words(words))), Set::Words(more)) => words.extend(more),
                (Some(_), _) => {}
                (None, set) => merged.push((name, set)),
            }
        }
        merged
    }

    fn word_to_keep(&self, name: &str, word: &OsStr) -> Option<OsString> {
        match name {
            "proxy" => return word.to_str().map(|url| without_password(url).into()),
            // A pipe can't be read a second time.
            "password-file" if word == "-" || !Path::new(word).is_file() => return None,
            _ => {}
        }
        match self.takes_paths(name) && word != "none" {
            true => std::path::absolute(word).ok().map(Into::into),
            false => Some(word.to_owned()),
        }
    }

    /// Reads an option that was kept; `None` for one that another version of haul knows.
    fn read_kept(&self, word: &str) -> Option<(String, Set)> {
        let word = word.strip_prefix("--")?;
        let (name, set) = match word.split_once('=') {
            Some((name, value)) => {
                let value = OsString::from_vec(percent_decode_str(value).collect());
                (name.to_owned(), Set::Words(vec![value]))
            }
            None if self.is_flag(word) => (word.to_owned(), Set::Switch(true)),
            None => (opposite(word), Set::Switch(false)),
        };
        let fits = self.is_flag(&name) == matches!(set, Set::Switch(_));
        (fits && !NOT_KEPT.contains(&name.as_str()) && self.options().any(|(known, _)| known == name))
            .then_some((name, set))
    }
}

/// Returns a proxy without its password: asking it then ends in its refusal, not in going around it.
fn without_password(url: &str) -> String {
    if !Proxies::parse(url).is_ok_and(|proxies| proxies.names_password()) {
        return url.to_owned();
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (login, address) = rest.rsplit_once('@').unwrap_or(("", rest));
    format!("{scheme}://{}@{address}", login.split(':').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Set {
        Set::Words(words.iter().map(OsString::from).collect())
    }

    fn given(options: &[(&str, Set)]) -> Vec<(String, Set)> {
        options.iter().map(|(name, set)| ((*name).to_owned(), set.clone())).collect()
    }

    #[test]
    fn options_are_kept_and_read_back() {
        let known = Known::new();
        let typed = given(&[
            ("durable", Set::Switch(true)),
            ("active", Set::Switch(false)),
            ("identity", words(&["/keys/a b", "/keys/100%"])),
            ("verify", words(&["digest"])),
            ("known-hosts", words(&["none"])),
        ]);
        let kept = known.to_keep(&typed);
        assert!(kept.contains(&"--identity=/keys/a%20b".to_owned()) && kept.contains(&"--no-active".to_owned()));
        let mut read = known.with_kept(&[], &kept);
        read.sort_by_key(|(name, _)| typed.iter().position(|(other, _)| other == name));
        assert_eq!(read, typed);
        let relative = known.to_keep(&given(&[("tls-ca", words(&["ca.pem"]))]));
        let here = std::env::current_dir().unwrap().join("ca.pem");
        assert_eq!(known.with_kept(&[], &relative), given(&[("tls-ca", words(&[here.to_str().unwrap()]))]));
    }

    #[test]
    fn what_is_typed_now_wins() {
        let known = Known::new();
        let kept = known.to_keep(&given(&[
            ("force", Set::Switch(true)),
            ("ipv4", Set::Switch(true)),
            ("durable", Set::Switch(true)),
            ("limit-rate", words(&["5k"])),
        ]));
        let typed = given(&[
            ("update", Set::Switch(true)),
            ("ipv6", Set::Switch(true)),
            ("durable", Set::Switch(false)),
            ("limit-rate", words(&["5M"])),
        ]);
        assert_eq!(known.with_kept(&typed, &kept), typed);
        let unknown = ["--teleport", "--warp=9", "--durable=x", "--verify", "x", "--ftp-account=y"];
        assert_eq!(known.with_kept(&typed, &unknown.map(str::to_owned)), typed);
    }

    #[test]
    fn secrets_are_not_kept() {
        let known = Known::new();
        let kept = |name, word| known.to_keep(&given(&[(name, words(&[word]))]));
        assert_eq!(kept("ftp-account", "hunter2"), [""; 0]);
        assert_eq!(kept("password-file", "-"), [""; 0]);
        assert_eq!(kept("password-file", "/dev/null"), [""; 0]);
        for (typed, left) in [
            ("socks5h://me:hunter2@h:1080", "--proxy=socks5h://me@h:1080"),
            ("me:hunt@er2@h:1080", "--proxy=http://me@h:1080"),
            ("http://me@h", "--proxy=http://me@h"),
            ("none", "--proxy=none"),
        ] {
            assert_eq!(kept("proxy", typed), [left]);
        }
    }
}

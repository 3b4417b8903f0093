//! Values of a job file: words, operands, options, hooks.

use std::time::Duration;

use toml::de::DeValue;

use super::read::{Item, KEEP_ELSEWHERE, Key, Reader};
use super::{Hook, Lock, Placed, expand};
use crate::config::{Problem, Setting, Takes, Value, Vocabulary};
use crate::endpoint::Endpoint;

impl Reader<'_> {
    /// A string is the shell's, which expands `${}` itself; words are not, and are expanded here.
    pub(super) fn hook(&mut self, name: &str, value: &Item<'_>) -> Option<Hook> {
        match value.get_ref() {
            DeValue::String(line) if !line.trim().is_empty() => Some(Hook::Shell(line.as_ref().to_owned())),
            DeValue::Array(items) if !items.is_empty() => {
                let words = self.words(name, value);
                (words.len() == items.len()).then(|| Hook::Words(words.into_iter().map(|word| word.value).collect()))
            }
            _ => {
                let hint = "a list of words is run as it is, a string by sh -c";
                self.problem(
                    &value.span(),
                    format!("{name} is a command: [\"mail\", \"me\"] or \"mail me\""),
                    Some(hint),
                );
                None
            }
        }
    }

    pub(super) fn lock(&mut self, value: &Item<'_>) -> Option<Lock> {
        match value.get_ref() {
            DeValue::Boolean(true) => Some(Lock::Own),
            DeValue::Boolean(false) => None,
            DeValue::String(word) if ["yes", "no", "true", "false", "on", "off"].contains(&word.as_ref()) => {
                let hint = "without quotes; a file of this name is written ./…";
                self.problem(&value.span(), "lock is true, false, or a file".into(), Some(hint));
                None
            }
            DeValue::String(_) => self.word("lock", value).map(|word| Lock::At(word.value)),
            _ => {
                self.problem(&value.span(), "lock is true, false, or a file".into(), None);
                None
            }
        }
    }

    pub(super) fn name(&mut self, value: &Item<'_>) -> Option<String> {
        let name = value.get_ref().as_str().map(str::trim).filter(|name| !name.is_empty() && name.len() <= 200);
        if name.is_none_or(|name| name.chars().any(char::is_control)) {
            self.problem(&value.span(), "name is a word or a few".into(), None);
            return None;
        }
        name.map(str::to_owned)
    }

    pub(super) fn duration(&mut self, name: &str, value: &Item<'_>) -> Option<Duration> {
        let word = self.word(name, value)?;
        let read = self.around.duration(&word.value);
        read.map_err(|why| self.problem(&value.span(), format!("{name}: {why}"), None)).ok()
    }

    /// Reads one or several paths or URLs.
    pub(super) fn operands(&mut self, name: &str, value: &Item<'_>) -> Vec<Placed<String>> {
        if name == "to" && !matches!(value.get_ref(), DeValue::String(_)) {
            self.problem(&value.span(), "to is one path or URL in quotes".into(), None);
            return Vec::new();
        }
        if let Some(item) = items(value).into_iter().find(|item| !matches!(item.get_ref(), DeValue::String(_))) {
            self.problem(&item.span(), format!("{name}: it takes a path or URL in quotes"), None);
            return Vec::new();
        }
        let words = self.words(name, value);
        for word in &words {
            let parsed = Endpoint::parse(&word.value);
            let problem = match parsed {
                _ if word.value == "-" => Some((
                    format!("{name}: a job has no standard input or output"),
                    Some("a file that is called - is written ./-".to_owned()),
                )),
                Ok(endpoint) if endpoint.password.is_some() => {
                    Some(("passwords don't belong in this file".to_owned(), Some(KEEP_ELSEWHERE.to_owned())))
                }
                Err(error) => Some((format!("{name}: {}", error.message()), error.hint().map(str::to_owned))),
                Ok(_) => None,
            };
            if let Some((message, hint)) = problem {
                self.problems.push(Problem { place: word.place, message, hint });
            }
        }
        words
    }

    pub(super) fn setting(&mut self, key: &Key<'_>, value: &Item<'_>, vocabulary: &dyn Vocabulary) -> Option<Setting> {
        let written = key.get_ref().replace('_', "-");
        let (name, takes, inverted) = find(vocabulary, &written)?;
        let place = self.place(&key.span());
        let value = match takes {
            Takes::Switch => match value.get_ref().as_bool() {
                Some(on) => Value::Switch(on != inverted),
                None => {
                    self.problem(&value.span(), format!("{} is true or false", key.get_ref()), None);
                    return None;
                }
            },
            Takes::Word | Takes::Words => {
                if takes == Takes::Word && value.get_ref().as_array().is_some() {
                    self.problem(&value.span(), format!("{} takes one word or number", key.get_ref()), None);
                    return None;
                }
                let (words, before) = (self.words(key.get_ref(), value), self.problems.len());
                for word in &words {
                    if let Err(fault) = vocabulary.check(&name, &word.value) {
                        let message = format!("{}: {fault}", key.get_ref());
                        self.problems.push(Problem { place: word.place, message, hint: None });
                    }
                }
                // It is told; nobody need complain of it once more.
                if self.problems.len() > before {
                    return None;
                }
                Value::Words(words.into_iter().map(|word| word.value).collect())
            }
        };
        Some(Setting { name, value, place })
    }

    /// Reads one word, or several in brackets; at least one, or that is a problem.
    pub(super) fn words(&mut self, name: &str, value: &Item<'_>) -> Vec<Placed<String>> {
        let items = items(value);
        if items.is_empty() && name != "needs" {
            self.problem(&value.span(), format!("{name} is empty"), Some("leave the line out"));
        }
        items.into_iter().filter_map(|item| self.word(name, item)).collect()
    }

    pub(super) fn word(&mut self, name: &str, value: &Item<'_>) -> Option<Placed<String>> {
        let word = match value.get_ref() {
            DeValue::String(text) => expand(text, self.around),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
            DeValue::Float(number) => Ok(number.as_str().to_owned()),
            _ => Err("it takes a word in quotes or a number".into()),
        };
        let word = word.and_then(|word| match word.as_str() {
            "" => Err("it is empty".into()),
            word if word.contains(['\0', '\n', '\r']) => Err("it holds a line break or NUL".into()),
            _ => Ok(word),
        });
        match word {
            Ok(word) => Some(Placed { value: word, place: self.place(&value.span()) }),
            Err(fault) => {
                self.problem(&value.span(), format!("{name}: {fault}"), None);
                None
            }
        }
    }
}

/// Returns what stands in brackets, or the one thing that stands in none.
fn items<'i, 't>(value: &'i Item<'t>) -> Vec<&'i Item<'t>> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        _ => vec![value],
    }
}

/// Finds an option, or the one that it is the opposite of: `resume = false` is `no-resume`.
pub(super) fn find(vocabulary: &dyn Vocabulary, written: &str) -> Option<(String, Takes, bool)> {
    let negated = format!("no-{written}");
    match (vocabulary.takes(written), vocabulary.takes(&negated)) {
        (Some(takes), _) => Some((written.to_owned(), takes, false)),
        (None, Some(Takes::Switch)) => Some((negated, Takes::Switch, true)),
        _ => None,
    }
}

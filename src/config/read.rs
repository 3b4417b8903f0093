//! From the text of the file to its sections. What is wrong is gathered, so that one look shows all of it.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::{Config, Place, Problem, Profile, Section, Setting, Takes, Value, Vocabulary, is_profile_name, similar};
use crate::endpoint::{Endpoint, Scheme};
use crate::transport::escape;

/// What somebody calls a setting that would hold a secret.
const SECRETS: [&str; 6] = ["pass", "passwd", "password", "passphrase", "pwd", "secret"];
const KEEP_ELSEWHERE: &str =
    "haul login URL puts a password into the keyring; password-file names a file of yours; ~/.netrc works, too";
const TABLES: [&str; 3] = ["defaults", "host", "profile"];

type Table<'t> = DeTable<'t>;

/// Reads the whole file.
pub(super) fn read(text: &str, vocabulary: &dyn Vocabulary) -> Result<Config, Vec<Problem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, vocabulary, problems: Vec::new() };
    for error in errors {
        // Its own display would show the line, and there might be a password in it.
        reader.problem(&error.span().unwrap_or(0..0), error.message().to_owned(), None);
    }
    let broken: Vec<usize> = reader.problems.iter().map(|problem| problem.place.line).collect();
    let syntax = reader.problems.len();
    let config = reader.config(table.get_ref());
    // What was made of a line that can't be read is not worth a word.
    let sense = reader.problems.split_off(syntax);
    reader.problems.extend(sense.into_iter().filter(|problem| !broken.contains(&problem.place.line)));
    reader.problems.sort_by_key(|problem| problem.place);
    reader.problems.dedup();
    if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
}

struct Reader<'a> {
    text: &'a str,
    vocabulary: &'a dyn Vocabulary,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn config(&mut self, table: &Table<'_>) -> Config {
        let mut config = Config::default();
        for (name, value) in in_order(table) {
            match (name.get_ref().as_ref(), value.get_ref().as_table()) {
                ("defaults", Some(table)) => config.defaults = self.section("defaults".into(), table, None),
                ("host", Some(table)) => config.hosts = self.hosts(table),
                ("profile", Some(table)) => config.profiles = self.profiles(table),
                (known, None) if TABLES.contains(&known) => self.wants_table(&name.span(), known),
                (other, _) => self.unknown_table(name, other),
            }
        }
        config
    }

    fn hosts(&mut self, table: &Table<'_>) -> Vec<(String, Section)> {
        let mut hosts = Vec::new();
        for (pattern, value) in in_order(table) {
            let Some(table) = value.get_ref().as_table() else {
                self.wants_table(&pattern.span(), "host.\"PATTERN\"");
                continue;
            };
            let pattern = pattern.get_ref().to_ascii_lowercase();
            hosts.push((pattern.clone(), self.section(format!("host \"{pattern}\""), table, None)));
        }
        hosts
    }

    fn profiles(&mut self, table: &Table<'_>) -> Vec<Profile> {
        let mut profiles = Vec::new();
        for (key, value) in in_order(table) {
            let (name, span) = (key.get_ref().as_ref(), key.span());
            let Some(table) = value.get_ref().as_table() else {
                self.wants_table(&span, "profile.NAME");
                continue;
            };
            if !is_profile_name(name) || Scheme::parse(name).is_some() {
                let hint = "a name is made of letters, digits, _, - and ., and is none of sftp, ftp, ftpes, ftps, file";
                self.problem(&span, format!("\"{}\" is no name for a profile", shown(name)), Some(hint));
            }
            let mut url = Url::Missing;
            let section = self.section(format!("profile {name}"), table, Some(&mut url));
            match url {
                Url::Is(endpoint) => profiles.push(Profile { name: name.to_owned(), endpoint, section }),
                Url::Wrong => {}
                Url::Missing => {
                    let hint = "write url = \"sftp://user@host/~/\" below it";
                    self.problem(&span, format!("the profile {} has no url", shown(name)), Some(hint));
                }
            }
        }
        profiles
    }

    /// Reads the settings of a table. Where it may name a URL, that goes to `url`.
    fn section(&mut self, title: String, table: &Table<'_>, mut url: Option<&mut Url>) -> Section {
        let mut section = Section { title, settings: Vec::new() };
        for (key, value) in in_order(table) {
            if let (Some(url), "url") = (url.as_deref_mut(), key.get_ref().as_ref()) {
                *url = self.url(value).map_or(Url::Wrong, Url::Is);
                continue;
            }
            let Some(setting) = self.setting(key, value) else { continue };
            if section.get(&setting.name).is_some() {
                self.problem(&key.span(), format!("{} is set twice", setting.name), None);
            }
            section.settings.push(setting);
        }
        section
    }

    fn setting(&mut self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Option<Setting> {
        let written = key.get_ref().replace('_', "-");
        let place = self.place(key.span().start);
        let negated = format!("no-{written}");
        let (name, takes, inverted) = match (self.vocabulary.takes(&written), self.vocabulary.takes(&negated)) {
            (Some(takes), _) => (written, takes, false),
            (None, Some(Takes::Switch)) => (negated, Takes::Switch, true),
            _ => {
                self.unknown_setting(key, &written);
                return None;
            }
        };
        let value = match takes {
            Takes::Switch => self.switch(key.get_ref(), value, inverted),
            Takes::Word | Takes::Words => self.words(&name, takes, value),
        };
        Some(Setting { name, value: value?, place })
    }

    fn switch(&mut self, name: &str, value: &Spanned<DeValue<'_>>, inverted: bool) -> Option<Value> {
        let on = value.get_ref().as_bool();
        if on.is_none() {
            self.problem(&value.span(), format!("{name} is true or false"), None);
        }
        on.map(|on| Value::Switch(on != inverted))
    }

    fn words(&mut self, name: &str, takes: Takes, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let items: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
            DeValue::Array(items) if takes == Takes::Words => items.iter().collect(),
            _ => vec![value],
        };
        let words: Vec<String> = items.iter().filter_map(|item| self.word(name, item)).collect();
        if items.is_empty() {
            self.problem(&value.span(), format!("{name} is empty"), Some("leave the line out"));
        }
        (!words.is_empty() && words.len() == items.len()).then_some(Value::Words(words))
    }

    fn word(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let word = match value.get_ref() {
            DeValue::String(text) => text.as_ref().to_owned(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            _ => {
                self.problem(&value.span(), format!("{name} takes a word in quotes or a number"), None);
                return None;
            }
        };
        let fault = if word.contains(['\0', '\n', '\r']) {
            Some("it holds a line break or NUL".to_owned())
        } else {
            self.vocabulary.check(name, &word).err()
        };
        if let Some(fault) = fault {
            self.problem(&value.span(), format!("{name}: {fault}"), None);
            return None;
        }
        Some(word)
    }

    fn url(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Endpoint> {
        let span = value.span();
        let Some(text) = value.get_ref().as_str().filter(|text| text.contains("://")) else {
            self.problem(&span, "url wants a URL in quotes".into(), Some("like \"sftp://user@host/~/data\""));
            return None;
        };
        match Endpoint::parse(text) {
            Ok(endpoint) if endpoint.password.is_some() => {
                self.problem(&span, "passwords don't belong in this file".into(), Some(KEEP_ELSEWHERE));
                None
            }
            Ok(endpoint) => Some(endpoint),
            Err(error) => {
                self.problem(&span, format!("url: {}", error.message()), error.hint());
                None
            }
        }
    }

    fn unknown_table(&mut self, name: &Spanned<DeString<'_>>, text: &str) {
        let is_setting = self.vocabulary.takes(&text.replace('_', "-")).is_some();
        let (message, there_are) = match is_setting {
            true => (
                "a setting without a heading above it",
                "write it below [defaults], [host.\"PATTERN\"] or [profile.NAME]",
            ),
            false => ("unknown heading", "there are [defaults], [host.\"PATTERN\"] and [profile.NAME]"),
        };
        let hint = match similar(text, TABLES) {
            Some("defaults") => Some("did you mean [defaults]?"),
            Some("host") => Some("did you mean [host.\"PATTERN\"]?"),
            Some(_) => Some("did you mean [profile.NAME]?"),
            None => Some(there_are),
        };
        self.problem(&name.span(), format!("{message}: {}", shown(text)), hint);
    }

    fn unknown_setting(&mut self, key: &Spanned<DeString<'_>>, written: &str) {
        let lower = written.to_ascii_lowercase();
        if names_secret(&lower) {
            return self.problem(&key.span(), "passwords don't belong in this file".into(), Some(KEEP_ELSEWHERE));
        }
        let names = self.vocabulary.names();
        let positive = names.iter().filter_map(|name| name.strip_prefix("no-"));
        let known = names.iter().copied().chain(positive);
        let hint = match similar(&lower, known) {
            Some(known) => format!("did you mean {known}?"),
            None if lower == "url" => "only a profile has a url".into(),
            None => "haul config show lists the settings".into(),
        };
        self.problem(&key.span(), format!("unknown setting: {}", shown(key.get_ref())), Some(&hint));
    }

    fn wants_table(&mut self, span: &Range<usize>, name: &str) {
        self.problem(span, format!("{name} is a heading: write [{name}]"), None);
    }

    fn problem(&mut self, span: &Range<usize>, message: String, hint: Option<&str>) {
        let place = self.place(span.start);
        self.problems.push(Problem { place, message, hint: hint.map(str::to_owned) });
    }

    fn place(&self, offset: usize) -> Place {
        place_in(self.text, offset)
    }
}

/// Returns where a byte of a text stands.
pub(crate) fn place_in(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// Returns whether somebody who sets this, written with dashes, writes down a secret.
pub(crate) fn names_secret(name: &str) -> bool {
    SECRETS.contains(&name) || name.ends_with("-password")
}

/// What a profile's URL came to.
enum Url {
    Missing,
    Wrong,
    Is(Endpoint),
}

/// A table's lines, in the order of the file.
pub(crate) fn in_order<'a, 't>(table: &'a Table<'t>) -> Vec<(&'a Spanned<DeString<'t>>, &'a Spanned<DeValue<'t>>)> {
    let mut lines: Vec<_> = table.iter().collect();
    lines.sort_by_key(|(key, _)| key.span().start);
    lines
}

fn shown(text: &str) -> String {
    escape(text.as_bytes())
}

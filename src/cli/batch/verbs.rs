//! What a job file is read in the light of: the options of the commands, the environment, the time.

use std::time::Duration;

use haul::batch::{Surroundings, VERBS};
use haul::config::Vocabulary;
use jiff::Zoned;

use crate::cli::settings::{Known, OptionsOf};
use crate::cli::{commands, limits, reports, values};

/// What strftime(3) has behind a %, as far as it makes a part of a name.
const OF_DATES: &str = "aAbBcCdDeFgGhHIjklmMpPrRsSTuUVwWxXyYzZ%";

/// The commands that a job can be.
pub(super) struct Verbs {
    options: Vec<(&'static str, OptionsOf)>,
    /// What clap shows for a command that isn't there.
    none: OptionsOf,
    /// Those of `haul batch`.
    of_run: OptionsOf,
    /// When the run began: all dates in the file are of this moment.
    began: Zoned,
}

impl Verbs {
    /// Gathers the options of all of them.
    pub(super) fn new(known: &Known) -> Self {
        let all = commands(known);
        let options = VERBS.iter().filter_map(|verb| Some((*verb, OptionsOf::new(all.find_subcommand(verb)?.clone()))));
        let none = OptionsOf::new(clap::Command::new("none"));
        let run = reports::with_options(limits::with_options(all.clone()));
        let of_run = OptionsOf::new(run.find_subcommand("batch").cloned().unwrap_or_default());
        Self { options: options.collect(), none, of_run, began: Zoned::now() }
    }

    /// Returns the options of a command.
    pub(super) fn of(&self, verb: &str) -> &OptionsOf {
        self.options.iter().find(|(known, _)| *known == verb).map_or(&self.none, |(_, options)| options)
    }
}

impl Surroundings for Verbs {
    fn options(&self, verb: &str) -> &dyn Vocabulary {
        self.of(verb)
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        match std::env::var(name) {
            // What was meant to be a directory of a server would be its root.
            Ok(value) if value.is_empty() => Err("the variable is empty".into()),
            Ok(value) => Ok(value),
            Err(std::env::VarError::NotPresent) => Err("the variable isn't set".into()),
            Err(std::env::VarError::NotUnicode(_)) => Err("the variable isn't UTF-8".into()),
        }
    }

    fn is_of_run(&self, name: &str) -> bool {
        self.of_run.takes(name).is_some() && VERBS.iter().all(|verb| self.of(verb).takes(name).is_none())
    }

    fn date(&self, format: &str) -> Result<String, String> {
        if format.is_empty() {
            return Err("give a format like %Y-%m-%d".into());
        }
        let mut chars = format.chars();
        while chars.any(|c| c == '%') {
            // Flags and a width may stand between.
            let conversion = chars.find(|c| !c.is_ascii_digit() && !"-_0^#".contains(*c));
            if conversion.is_none_or(|c| !OF_DATES.contains(c)) {
                let what = conversion.map(String::from).unwrap_or_default();
                return Err(format!("%{what} is none of strftime(3); give a format like %Y-%m-%d"));
            }
        }
        jiff::fmt::strtime::format(format, &self.began)
            .map_err(|_| "the format isn't one of strftime, like %Y-%m-%d".into())
    }

    fn duration(&self, word: &str) -> Result<Duration, String> {
        values::duration(word)
    }
}

//! The options of one command, for files that name them.

use clap::{Arg, Command};
use haul::config::{Takes, Vocabulary};

use super::known::{check, conflict, opposite, option, takes};

/// Options that belong to a whole run.
const OF_A_RUN: [&str; 4] = ["help", "quiet", "verbose", "version"];

/// The options of one command.
#[derive(Debug)]
pub(crate) struct OptionsOf {
    command: Command,
}

impl OptionsOf {
    /// Takes what clap knows of a command.
    pub(crate) fn new(command: Command) -> Self {
        let mut command = command.no_binary_name(true).disable_help_flag(true).disable_version_flag(true);
        command.build();
        Self { command }
    }

    /// Returns whether two of them exclude each other.
    pub(crate) fn conflict(&self, one: &str, other: &str) -> bool {
        conflict(&self.command, one, other)
    }

    /// Returns the option that undoes a flag, if there is one.
    pub(crate) fn opposite(&self, name: &str) -> Option<String> {
        Some(opposite(name)).filter(|name| option(&self.command, name).is_some())
    }

    fn options(&self) -> impl Iterator<Item = (&str, &Arg)> {
        let named = self.command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
        named.filter(|(name, arg)| !arg.is_hide_set() && !OF_A_RUN.contains(name))
    }
}

impl Vocabulary for OptionsOf {
    fn names(&self) -> Vec<&str> {
        self.options().map(|(name, _)| name).collect()
    }

    fn takes(&self, name: &str) -> Option<Takes> {
        self.options().find(|(known, _)| *known == name).map(|(_, arg)| takes(arg))
    }

    fn check(&self, name: &str, word: &str) -> Result<(), String> {
        match (name, word) {
            ("password-file", "-") => Err("a job has no standard input; name a file".into()),
            _ => check(&self.command, name, word),
        }
    }
}

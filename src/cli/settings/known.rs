//! Which settings there are: the options of the command line, so that a new option is a setting at once, with the same
//! parser.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapKind};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args, Command, FromArgMatches};
use haul::config::{Takes, Value, Vocabulary};
use haul::transport::Proxies;

use crate::cli::filters::FilterSettings;
use crate::cli::options::{ConnectArgs, TransferArgs};

/// Options that say what one run is to do, and not how: no settings.
const OF_ONE_RUN: [&str; 6] = ["config", "dry-run", "force", "json", "no-clobber", "update"];

/// Every option by which commands connect or move files.
#[derive(Debug)]
pub(crate) struct Known {
    command: Command,
    /// Those by which commands connect.
    connecting: Command,
}

/// What an option was given, or a setting says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Set {
    /// A flag, or its opposite.
    Switch(bool),
    /// Values.
    Words(Vec<OsString>),
}

impl From<&Value> for Set {
    fn from(value: &Value) -> Self {
        match value {
            Value::Switch(on) => Self::Switch(*on),
            Value::Words(words) => Self::Words(words.iter().map(OsString::from).collect()),
        }
    }
}

impl Known {
    /// Gathers them.
    pub(crate) fn new() -> Self {
        let command = Command::new("settings").no_binary_name(true).disable_help_flag(true).disable_version_flag(true);
        let connecting = ConnectArgs::augment_args(command);
        let mut command = FilterSettings::augment_args(TransferArgs::augment_args(connecting.clone()));
        command.build();
        Self { command, connecting }
    }

    /// Returns all options, settings or not.
    pub(crate) fn options(&self) -> impl Iterator<Item = (&str, &Arg)> {
        self.command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)))
    }

    /// Returns the settings.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, &Arg)> {
        self.options().filter(|(name, _)| !OF_ONE_RUN.contains(name))
    }

    /// Returns whether the values of a setting are paths.
    pub(crate) fn takes_paths(&self, name: &str) -> bool {
        let path = std::any::TypeId::of::<PathBuf>();
        self.options().any(|(known, arg)| known == name && arg.get_value_parser().type_id() == path)
    }

    /// Returns whether this is an option without a value.
    pub(super) fn is_flag(&self, name: &str) -> bool {
        option(&self.command, name).is_some_and(is_flag)
    }

    /// Returns whether two options exclude each other.
    pub(crate) fn conflict(&self, one: &str, other: &str) -> bool {
        conflict(&self.command, one, other)
    }

    /// Returns whether an option says how to connect.
    pub(crate) fn is_of_connection(&self, name: &str) -> bool {
        option(&self.connecting, name).is_some()
    }

    /// Parses what was chosen, as if it had been typed.
    ///
    /// # Errors
    /// What clap says, for options that don't go together.
    pub(crate) fn parse(&self, chosen: &[(&str, &Set)]) -> Result<(ConnectArgs, TransferArgs), clap::Error> {
        let matches = self.matches(chosen)?;
        Ok((ConnectArgs::from_arg_matches(&matches)?, TransferArgs::from_arg_matches(&matches)?))
    }

    /// Parses what was chosen of the filters that can be settings.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn filters(&self, chosen: &[(&str, &Set)]) -> Result<FilterSettings, clap::Error> {
        FilterSettings::from_arg_matches(&self.matches(chosen)?)
    }

    fn matches(&self, chosen: &[(&str, &Set)]) -> Result<ArgMatches, clap::Error> {
        let mut args = Vec::new();
        for (name, set) in chosen {
            match set {
                Set::Switch(true) => args.push(format!("--{name}").into()),
                Set::Switch(false) => {}
                Set::Words(words) => args.extend(words.iter().map(|word| {
                    let mut arg = OsString::from(format!("--{name}="));
                    arg.push(word);
                    arg
                })),
            }
        }
        self.command.clone().try_get_matches_from(args)
    }

    /// Adds the opposite of every flag that is a setting to each command that has the flag, so that the command line has
    /// the last word.
    pub(crate) fn with_opposites(&self, command: Command) -> Command {
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        names.into_iter().fold(command, |command, name| {
            command.mut_subcommand(name, |sub| {
                let flags = self.settings().filter(|(_, arg)| is_flag(arg));
                let flags: Vec<_> = flags.filter(|(name, _)| option(&sub, name).is_some()).collect();
                flags.into_iter().fold(self.with_opposites(sub), |sub, (name, arg)| add_opposite(sub, name, arg))
            })
        })
    }

    /// Returns what was given on the command line, by name.
    pub(crate) fn given(&self, matches: &ArgMatches) -> Vec<(String, Set)> {
        // The options belong to the innermost command.
        let mut matches = matches;
        while let Some((_, inner)) = matches.subcommand() {
            matches = inner;
        }
        self.options().filter_map(|(name, arg)| Some((name.to_owned(), given(matches, name, arg)?))).collect()
    }
}

impl Vocabulary for Known {
    fn names(&self) -> Vec<&str> {
        self.settings().map(|(name, _)| name).collect()
    }

    fn takes(&self, name: &str) -> Option<Takes> {
        self.settings().find(|(known, _)| *known == name).map(|(_, arg)| takes(arg))
    }

    fn check(&self, name: &str, word: &str) -> Result<(), String> {
        check(&self.command, name, word)
    }
}

/// Says what is wrong with a word for an option of a file: what its own parser says, and that it is no secret.
pub(super) fn check(command: &Command, name: &str, word: &str) -> Result<(), String> {
    if word.is_empty() {
        return Err("it is empty".into());
    }
    match (name, Proxies::parse(word)) {
        ("ftp-account", _) => return Err("accounts don't belong here; a netrc takes them".into()),
        // Not shown: there may be a password in it.
        ("proxy", Err(_)) => return Err("it is none of socks5h://HOST:PORT, http://HOST:PORT, none".into()),
        ("proxy", Ok(proxies)) if proxies.names_password() => {
            return Err("passwords don't belong here; the variable ALL_PROXY takes one".into());
        }
        _ => {}
    }
    let typed = command.clone().try_get_matches_from([format!("--{name}={word}")]);
    match typed.as_ref().map_err(|error| (error.kind(), error)) {
        Err((ClapKind::InvalidValue, error)) => Err(not_one_of(word, error)),
        Err((ClapKind::ValueValidation | ClapKind::InvalidUtf8, error)) => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            Err(format!("\"{word}\": {}", cause.unwrap_or_else(|| "it can't be read".into())))
        }
        // That it needs another option beside it is seen when all are put together.
        _ => Ok(()),
    }
}

/// Returns what an option takes.
pub(super) fn takes(arg: &Arg) -> Takes {
    match arg.get_action() {
        _ if is_flag(arg) => Takes::Switch,
        ArgAction::Append => Takes::Words,
        _ => Takes::Word,
    }
}

/// Returns whether two options of a command exclude each other.
pub(super) fn conflict(command: &Command, one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (option(command, one), option(command, other)) else { return false };
    let excludes = |one, other: &Arg| {
        let excluded = command.get_arg_conflicts_with(one);
        excluded.iter().any(|arg| arg.get_id() == other.get_id())
    };
    let divides = |group: &ArgGroup| {
        let members: Vec<_> = group.get_args().collect();
        !group.clone().is_multiple() && members.contains(&one.get_id()) && members.contains(&other.get_id())
    };
    excludes(one, other) || excludes(other, one) || command.get_groups().any(divides)
}

fn is_flag(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

pub(super) fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name))
}

/// The opposite of `no-x` is `x`, that of `x` is `no-x`.
pub(super) fn opposite(name: &str) -> String {
    name.strip_prefix("no-").map_or_else(|| format!("no-{name}"), str::to_owned)
}

fn add_opposite(command: Command, name: &str, arg: &Arg) -> Command {
    let long = opposite(name);
    if option(&command, &long).is_some() {
        return command;
    }
    let id = arg.get_id().clone();
    let undo = Arg::new(long.clone()).long(long.clone()).hide(true).action(ArgAction::SetTrue).overrides_with(&id);
    command.mut_arg(id, |arg| arg.overrides_with(long)).arg(undo)
}

fn given(matches: &ArgMatches, name: &str, arg: &Arg) -> Option<Set> {
    let id = arg.get_id().as_str();
    let is_set = |id: &str| matches.try_get_one::<bool>(id).ok().flatten().copied().unwrap_or(false);
    if is_flag(arg) {
        return match (is_set(id), is_set(&opposite(name))) {
            (true, _) => Some(Set::Switch(true)),
            (_, true) => Some(Set::Switch(false)),
            _ => None,
        };
    }
    let words = matches.try_get_raw(id).ok().flatten()?;
    let default = matches.value_source(id) == Some(clap::parser::ValueSource::DefaultValue);
    (!default).then(|| Set::Words(words.map(ToOwned::to_owned).collect()))
}

fn not_one_of(word: &str, error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::Strings(words)) => Some(words.join(", ")),
        Some(ContextValue::String(word)) => Some(word.clone()),
        _ => None,
    };
    let known = text(ContextKind::ValidValue).unwrap_or_default();
    match text(ContextKind::SuggestedValue) {
        Some(meant) => format!("\"{word}\" is none of {known}; did you mean {meant}?"),
        None => format!("\"{word}\" is none of {known}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_a_setting_unless_it_is_of_one_run() {
        let known = Known::new();
        for name in ["jobs", "connections", "segments", "limit-rate", "tls", "tls-ca", "ssh-engine", "identity"] {
            assert!(known.takes(name).is_some(), "{name}");
        }
        assert!(known.options().count() > known.settings().count());
        assert!(OF_ONE_RUN.iter().all(|name| known.takes(name).is_none()));
        assert!(OF_ONE_RUN.iter().all(|name| known.options().any(|(known, _)| known == *name)));
        assert_eq!((known.takes("durable"), known.takes("identity")), (Some(Takes::Switch), Some(Takes::Words)));
        assert!(known.takes_paths("identity") && known.takes_paths("tls-ca") && !known.takes_paths("jobs"));
    }

    #[test]
    fn values_are_read_by_the_command_lines_parsers() {
        let known = Known::new();
        for (name, word) in [("jobs", "auto"), ("limit-rate", "1.5M"), ("timeout", "2m"), ("identity", "-odd")] {
            assert_eq!(known.check(name, word), Ok(()), "{name}");
        }
        let fault = |name, word| known.check(name, word).unwrap_err();
        assert_eq!(fault("tls", "required"), "\"required\" is none of off, allow, require; did you mean require?");
        assert_eq!(fault("limit-rate", "fast"), "\"fast\": give a size like 500k, 5M or 1.5G (1k is 1024)");
        assert_eq!(fault("retries", "-1").split(':').next(), Some("\"-1\""));
        assert_eq!(fault("jobs", ""), "it is empty");
    }
}

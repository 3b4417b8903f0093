//! What counts: the command line, the file of settings, and what is built in, in this order.
//!
//! Of the file: a profile, then the sections for the host, then the defaults. Each endpoint of a command has its own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use haul::config::{Config, Place, Problem, Value, similar, split_profile};
use haul::endpoint::Endpoint;
use haul::transport::escape;
use haul::{Error, ErrorKind};

use super::filters::FilterSettings;
use super::options::{ConnectArgs, TransferArgs};

pub(crate) mod files;
mod known;
mod options_of;
mod request;

use files::{Which, path_in, shown, usual_config};
pub(crate) use known::{Known, Set};
pub(crate) use options_of::OptionsOf;

/// The settings of one run.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    known: &'a Known,
    given: &'a [(String, Set)],
    file: Which,
    config: Config,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    /// It was typed.
    CommandLine,
    /// The file, below this heading.
    File(&'a str, Place),
    /// Nobody said anything.
    BuiltIn,
}

/// What one option comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen<'a> {
    pub(crate) name: &'a str,
    pub(crate) set: Set,
    pub(crate) source: Source<'a>,
}

impl<'a> Settings<'a> {
    /// Reads the file of settings, or the one named, or none.
    ///
    /// # Errors
    /// `Usage` for a file that can't be read, that others can write, or with something wrong in it.
    pub(crate) fn load(known: &'a Known, given: &'a [(String, Set)], named: Option<&Path>) -> Result<Self, Error> {
        Self::of(known, given, Which::new(named, usual_config))
    }

    /// The same with the file of which it is known already where it is.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn of(known: &'a Known, given: &'a [(String, Set)], file: Which) -> Result<Self, Error> {
        let config = match read(&file, known)? {
            Some(Ok(config)) => config,
            Some(Err(problems)) => return Err(first_of(&problems, &file)),
            None => Config::default(),
        };
        Ok(Self { known, given, file, config })
    }

    /// Returns the file, if one is heeded, whether it is there or not.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    /// Returns which file is heeded, and what was typed.
    pub(crate) fn origin(&self) -> (&Which, &[(String, Set)]) {
        (&self.file, self.given)
    }

    /// Returns the file's contents.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Reads a URL, a path, or a profile with a path behind it; the name of the profile comes along.
    ///
    /// `work:x` is the profile `work` if the file of settings has it, else the local file of this name; `./work:x` always
    /// is the file.
    ///
    /// # Errors
    /// `Usage` for what is none of them, and for what looks like a profile with a slip in its name.
    pub(crate) fn endpoint(&self, operand: &OsStr) -> Result<(Endpoint, Option<&str>), Error> {
        let Some((name, rest)) = split_profile(operand.as_bytes()) else {
            refuse_place_of_scp(operand)?;
            return Ok((Endpoint::parse(operand)?, None));
        };
        if let Some(profile) = self.config.profile(name) {
            return Ok((profile.endpoint.below(rest), Some(&profile.name)));
        }
        let meant = similar(name, self.config.profiles().iter().map(|profile| profile.name.as_str()));
        if Path::new(operand).symlink_metadata().is_ok() {
            return Ok((Endpoint::parse(operand)?, None));
        }
        // Not a new file of this name: who forgot the scheme, or the profile, would take a copy here for one there.
        let file = escape(operand.as_bytes());
        let hint = match meant {
            Some(meant) => format!("did you mean {meant}:? A file of this name is written ./{file}"),
            None => format!("a server is written sftp://{name}/, a file of this name ./{file}"),
        };
        Err(Error::new(ErrorKind::Usage, format!("no profile is called {name}")).with_hint(hint))
    }

    /// Returns how to connect to a host.
    ///
    /// # Errors
    /// `Usage` for settings that don't go together.
    pub(crate) fn connect(&self, host: &str, profile: Option<&str>) -> Result<ConnectArgs, Error> {
        Ok(self.parse(host, profile)?.0)
    }

    /// Returns how to move files, where a host or profile decides.
    ///
    /// # Errors
    /// `Usage` for settings that don't go together.
    pub(crate) fn transfer(&self, host: &str, profile: Option<&str>) -> Result<TransferArgs, Error> {
        Ok(self.parse(host, profile)?.1)
    }

    /// Returns what is left out and heeded in every run, where a host or profile decides.
    ///
    /// # Errors
    /// `Usage` for settings that don't go together.
    pub(crate) fn filters(&self, host: &str, profile: Option<&str>) -> Result<FilterSettings, Error> {
        self.parse_by(host, profile, |chosen| self.known.filters(chosen))
    }

    /// Returns every option with its value and where that comes from, the built-in ones included.
    pub(crate) fn explain(&self, host: &str, profile: Option<&str>) -> Vec<Chosen<'_>> {
        let chosen = self.choose(host, profile);
        let all = self.known.settings().map(|(name, arg)| {
            let found = chosen.iter().find(|chosen| chosen.name == name).cloned();
            found.unwrap_or_else(|| {
                let set = match arg.get_action().takes_values() {
                    true => Set::Words(arg.get_default_values().iter().map(Into::into).collect()),
                    false => Set::Switch(false),
                };
                Chosen { name, set, source: Source::BuiltIn }
            })
        });
        all.collect()
    }

    /// Returns the options by which a connection to a host differs from others.
    pub(crate) fn of_connection(&self, host: &str, profile: Option<&str>) -> Vec<(String, Set)> {
        let chosen = self.choose(host, profile).into_iter();
        let mut chosen: Vec<_> = chosen
            .filter(|chosen| self.known.is_of_connection(chosen.name) && chosen.set != Set::Switch(false))
            .map(|chosen| (chosen.name.to_owned(), chosen.set))
            .collect();
        chosen.sort_by(|(one, _), (other, _)| one.cmp(other));
        chosen
    }

    fn parse(&self, host: &str, profile: Option<&str>) -> Result<(ConnectArgs, TransferArgs), Error> {
        self.parse_by(host, profile, |chosen| self.known.parse(chosen))
    }

    fn parse_by<T>(
        &self,
        host: &str,
        profile: Option<&str>,
        parse: impl FnOnce(&[(&str, &Set)]) -> Result<T, clap::Error>,
    ) -> Result<T, Error> {
        let chosen = self.choose(host, profile);
        let words: Vec<_> = chosen.iter().map(|chosen| (chosen.name, &chosen.set)).collect();
        parse(&words).map_err(|error| {
            let text = error.render().to_string();
            let text = text.lines().next().unwrap_or_default();
            let text = format!("the settings for {host} don't go together: {}", text.trim_start_matches("error: "));
            Error::new(ErrorKind::Usage, text).with_hint("haul config show tells where each of them comes from")
        })
    }

    /// Goes from what counts most to what counts least; of two options that exclude each other, the first stays.
    fn choose(&self, host: &str, profile: Option<&str>) -> Vec<Chosen<'_>> {
        let typed = self.given.iter().map(|(name, set)| Chosen { name, set: set.clone(), source: Source::CommandLine });
        let mut chosen: Vec<Chosen<'_>> = typed.collect();
        for section in self.config.sections(host, profile) {
            let above = chosen.len();
            for setting in &section.settings {
                let name = setting.name.as_str();
                let is_on = |chosen: &&Chosen<'_>| chosen.set != Set::Switch(false);
                let excluded = chosen[..above].iter().filter(is_on).any(|other| self.known.conflict(name, other.name));
                if !excluded && chosen.iter().all(|chosen| chosen.name != name) {
                    let source = Source::File(&section.title, setting.place);
                    chosen.push(Chosen { name, set: self.set(name, &setting.value), source });
                }
            }
        }
        chosen
    }

    fn set(&self, name: &str, value: &Value) -> Set {
        match (value, self.file.path()) {
            (Value::Words(words), Some(file)) if self.known.takes_paths(name) => {
                Set::Words(words.iter().map(|word| path_in(file, word).into_os_string()).collect())
            }
            (value, _) => value.into(),
        }
    }
}

/// Refuses `user@host:path`, as scp and rsync have it, unless there is such a file.
fn refuse_place_of_scp(operand: &OsStr) -> Result<(), Error> {
    let text = escape(operand.as_bytes());
    let Some((place, path)) = text.split_once(':') else { return Ok(()) };
    if !place.contains('@') || place.contains('/') || path.starts_with("//") || Path::new(operand).exists() {
        return Ok(());
    }
    // What begins with a slash is from the root, all else from the home directory.
    let path = match path.strip_prefix('/') {
        Some(path) => path.to_owned(),
        None => format!("~/{}", path.strip_prefix("~/").unwrap_or(path)),
    };
    let hint = format!("a server is written sftp://{place}/{path}, a file of this name ./{text}");
    Err(Error::new(ErrorKind::Usage, "is the way of scp to name a server").at(&text).with_hint(hint))
}

/// Reads and checks the file of settings; `None` when there is none.
///
/// # Errors
/// `Usage` for a file that can't be read or that others can write; the inner one is all that is wrong with its text.
pub(crate) fn read(file: &Which, known: &Known) -> Result<Option<Result<Config, Vec<Problem>>>, Error> {
    let Some(text) = file.read()? else { return Ok(None) };
    if text.is_others() {
        let path = file.path().map(shown).unwrap_or_default();
        return Err(Error::new(ErrorKind::Usage, "somebody else can write this file, so haul won't heed it")
            .at(&path)
            .with_hint(format!("chmod go-w {path}, after a look at what is in it; it must be yours or root's")));
    }
    Ok(Some(Config::read(&text.text, known)))
}

/// Shows a problem as compilers do.
pub(crate) fn tell(problem: &Problem, file: &Which) -> String {
    let path = file.path().map(shown).unwrap_or_default();
    format!("{path}:{}: {}", problem.place, escape(problem.message.as_bytes()))
}

fn first_of(problems: &[Problem], file: &Which) -> Error {
    let Some(first) = problems.first() else { return Error::new(ErrorKind::Usage, "the file of settings is wrong") };
    let error = Error::new(ErrorKind::Usage, tell(first, file));
    match (&first.hint, problems.len()) {
        (_, 2..) => error.with_hint(format!("haul config check names all {} errors", problems.len())),
        (Some(hint), _) => error.with_hint(hint),
        (None, _) => error,
    }
}

#[cfg(test)]
mod tests;

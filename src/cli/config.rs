//! `haul config`: what the file of settings says, and whether it is right.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::{Args, Subcommand};
use haul::config::split_profile;
use haul::transport::escape;
use serde::Serialize;

use super::context::{Context, usage, without_password};
use super::json;
use super::options::ConfigArgs;
use super::report::{Exit, Result};
use super::settings::files::{Which, shown, usual_config};
use super::settings::{Chosen, Set, Settings, Source, read, tell};

/// Check and show the file of settings
#[derive(Debug, Args)]
#[command(after_long_help = "\
The file is $XDG_CONFIG_HOME/haul/config.toml, or ~/.config/haul/config.toml:

  [defaults]                       # for all hosts
  retries = 10

  [host.\"*.example.org\"]           # such hosts; the longer pattern counts more
  tls = \"require\"
  connections = 4

  [profile.work]                   # haul ls work:reports/
  url = \"sftp://me@host.example.org/~/data\"
  identity = \"~/.ssh/work\"

Every option that tells how to connect or to move files can be set, by its long name, and of the filters \
exclude and no-haulignore; flags are true or false. Paths begin where the file lies, or with ~/. What counts \
most comes first: the command line, the profile, the host, the defaults. --no-durable and the like undo a \
flag. Passwords don't belong here: see haul login, password-file, ~/.netrc.

A profile is written in front of a colon: work:reports/ is below its URL, work:/etc and work:~/x are not. A name that is \
no profile is that of a local file, and ./work:x always is.

Where a password comes from, first to last: the URL, --password-file, HAUL_PASSWORD, password-file of the settings, the \
keyring, the netrc, the terminal. SFTP tries keys before passwords.

Examples:
  haul config check                every error, with line and column
  haul config show work:           what counts for this profile, and why
  haul config show host.example.org")]
pub(crate) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Name every error in the file of settings
    Check(Check),
    /// Show what counts for a host, and where it comes from
    Show(Show),
    /// Write the path of the file of settings
    Path(ConfigArgs),
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
struct Show {
    /// A profile (work:), a URL or a host [default: the defaults]
    #[arg(value_name = "PROFILE|URL|HOST")]
    of: Option<OsString>,

    /// Write one JSON object for each setting
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArgs,
}

impl Config {
    /// Does what was asked for; nothing is connected.
    pub(crate) fn run(self, context: &Context) -> Result<()> {
        match self.command {
            ConfigCommand::Check(check) => check.run(context),
            ConfigCommand::Show(show) => show.run(context),
            ConfigCommand::Path(config) => {
                let file = Which::new(config.file.as_deref(), usual_config);
                let line = [path(&file)?.as_os_str().as_bytes(), b"\n"].concat();
                Ok(context.stdout.write(&line)?)
            }
        }
    }
}

impl Check {
    fn run(&self, context: &Context) -> Result<()> {
        let file = Which::new(self.config.file.as_deref(), usual_config);
        let shown = file.path().map_or_else(|| "none".into(), shown);
        match read(&file, &context.known)? {
            None => context.note(&format!("{shown}: no such file; nothing to check")),
            Some(Ok(config)) => {
                let profiles = config.profiles().len();
                let word = if profiles == 1 { "profile" } else { "profiles" };
                context.note(&format!("{shown}: no errors, {profiles} {word}"));
            }
            Some(Err(problems)) => {
                for problem in problems {
                    context.screen.line(&tell(&problem, &file));
                    if let Some(hint) = &problem.hint {
                        context.screen.line(&format!("    {}", escape(hint.as_bytes())));
                    }
                }
                context.report.ends(Exit::Usage);
            }
        }
        Ok(())
    }
}

/// One setting, for programs.
#[derive(Debug, Serialize)]
struct SettingLine<'a> {
    name: &'a str,
    value: Option<String>,
    source: &'static str,
    section: Option<&'a str>,
    line: Option<usize>,
}

impl Show {
    fn run(&self, context: &Context) -> Result<()> {
        let settings = Settings::load(&context.known, &context.given, self.config.file.as_deref())?;
        let (host, profile) = self.subject(&settings)?;
        let mut text = Vec::new();
        let chosen = settings.explain(&host, profile.as_deref());
        if self.json {
            for chosen in &chosen {
                json::line(&mut text, &line(chosen))?;
            }
        } else {
            let file = settings.path().map(shown).unwrap_or_default();
            text.extend_from_slice(table(&chosen, &file).as_bytes());
        }
        Ok(context.stdout.write(&text)?)
    }

    /// Returns the host and profile that were named; a word without a colon is a profile or else a host.
    fn subject(&self, settings: &Settings<'_>) -> Result<(String, Option<String>)> {
        let Some(operand) = self.of.as_deref() else { return Ok((String::new(), None)) };
        let is_address = operand.as_bytes().contains(&b':');
        if !is_address {
            let word = escape(operand.as_bytes());
            return Ok(match settings.config().profile(&word) {
                Some(profile) => (profile.endpoint.host.clone(), Some(word)),
                None => (word, None),
            });
        }
        let (endpoint, profile) = settings.endpoint(operand).map_err(|e| e.at(without_password(operand)))?;
        if profile.is_none()
            && let Some((name, _)) = split_profile(operand.as_bytes())
        {
            return Err(usage(format!("no profile is called {name}")).into());
        }
        Ok((endpoint.host.clone(), profile.map(str::to_owned)))
    }
}

fn path(file: &Which) -> Result<&Path> {
    match file.path() {
        Some(path) => Ok(path),
        None => Err(usage("there is no file of settings").with_hint("set HOME or XDG_CONFIG_HOME").into()),
    }
}

fn value(set: &Set) -> Option<String> {
    match set {
        Set::Switch(on) => Some(on.to_string()),
        Set::Words(words) if words.is_empty() => None,
        Set::Words(words) => Some(words.iter().map(|word| shown_word(word)).collect::<Vec<_>>().join(" ")),
    }
}

fn shown_word(word: &OsStr) -> String {
    escape(word.as_bytes())
}

fn line<'a>(chosen: &'a Chosen<'_>) -> SettingLine<'a> {
    let (source, section, place) = match chosen.source {
        Source::CommandLine => ("command_line", None, None),
        Source::File(section, place) => ("file", Some(section), Some(place)),
        Source::BuiltIn => ("built_in", None, None),
    };
    SettingLine { name: chosen.name, value: value(&chosen.set), source, section, line: place.map(|place| place.line) }
}

/// Settings that somebody made first, then what is built in.
fn table(chosen: &[Chosen<'_>], file: &str) -> String {
    let mut rows: Vec<(bool, &str, String, String)> = Vec::new();
    for chosen in chosen {
        let source = match chosen.source {
            Source::CommandLine => "command line".into(),
            Source::File(section, place) => format!("{} ({file}:{})", escape(section.as_bytes()), place.line),
            Source::BuiltIn => "built in".into(),
        };
        let value = value(&chosen.set).unwrap_or_else(|| "-".into());
        rows.push((chosen.source == Source::BuiltIn, chosen.name, value, source));
    }
    rows.sort_by_key(|row| (row.0, row.1));
    let width = |column: fn(&(bool, &str, String, String)) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (names, values) = (width(|row| row.1.len()), width(|row| row.2.chars().count()).min(40));
    let lines = rows.iter().map(|(_, name, value, source)| format!("{name:names$}  {value:values$}  {source}\n"));
    lines.collect::<Vec<_>>().concat()
}

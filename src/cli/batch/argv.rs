//! From a job to the command line that somebody would type for it, and what clap makes of that.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::error::{ContextKind, ContextValue};
use haul::batch::{Job, JobFile, Placed};
use haul::config::{Place, Problem, Setting, Takes, Vocabulary, split_profile};
use haul::endpoint::{Endpoint, Scheme, encode_path};

use super::verbs::Verbs;
use crate::cli::context::{Context, without_password};
use crate::cli::options::ConnectArgs;
use crate::cli::report::Result;
use crate::cli::settings::{Set, Settings};
use crate::cli::{Command, parse};

/// A job's command line.
#[derive(Debug, Clone)]
pub(super) struct Argv {
    /// What would be typed behind `haul`.
    pub(super) words: Vec<OsString>,
    /// Whether the command can tell what it would do.
    pub(super) has_dry_run: bool,
}

impl Argv {
    /// Reads it as the program reads its own.
    pub(super) fn command(&self, context: &Context) -> Result<(Command, Vec<(String, Set)>), clap::Error> {
        let (cli, given) = parse(&context.known, std::iter::once("haul".into()).chain(self.words.iter().cloned()))?;
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        Ok((cli.command.ok_or_else(missing)?, given))
    }

    /// Returns whether the job itself asks for a dry run.
    pub(super) fn is_dry(&self) -> bool {
        self.words.iter().take_while(|word| *word != "--").any(|word| word == "--dry-run")
    }

    /// Returns it for people, all of it.
    pub(super) fn shown(&self) -> String {
        show(self.words.iter())
    }

    /// Returns it for people without its options.
    pub(super) fn brief(&self) -> String {
        let operands = self.words.iter().skip_while(|word| *word != "--").skip(1);
        show(self.words.first().into_iter().chain(operands))
    }
}

fn show<'a>(words: impl Iterator<Item = &'a OsString>) -> String {
    let words = words.map(|word| {
        let word = without_password(word);
        let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=+.,:/@%~".contains(&b));
        if plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Makes command lines of jobs.
pub(super) struct Reader<'a> {
    context: &'a Context,
    verbs: &'a Verbs,
    /// Where profiles are named.
    settings: Settings<'a>,
    /// Bars of several would be in each other's way.
    without_bars: bool,
}

impl<'a> Reader<'a> {
    /// Reads the file of settings.
    pub(super) fn new(context: &'a Context, verbs: &'a Verbs, args: &ConnectArgs, without_bars: bool) -> Result<Self> {
        let settings = Settings::load(&context.known, &context.given, args.config.file.as_deref())?;
        Ok(Self { context, verbs, settings, without_bars })
    }

    /// Makes the command lines of all jobs. `problems` is what is wrong with the file already.
    ///
    /// # Errors
    /// That, and everything that clap and the file of settings find wrong with the jobs.
    pub(super) fn read(&self, file: &JobFile, mut problems: Vec<Problem>) -> Result<Vec<Argv>, Vec<Problem>> {
        let mut all = Vec::new();
        for (number, job) in file.jobs.iter().enumerate() {
            let end = file.jobs.get(number + 1).map_or(usize::MAX, |next| next.place.line);
            let lines: Vec<usize> = problems.iter().map(|problem| problem.place.line).collect();
            let is_known = |problem: &Problem| lines.contains(&problem.place.line);
            let argv = self.argv(job);
            problems.extend(self.misplaced(job).into_iter().filter(|problem| !is_known(problem)));
            // Of a job that can't be read as a whole clap would complain once more.
            if !problems.iter().any(|problem| (job.place.line..end).contains(&problem.place.line))
                && let Err(error) = argv.command(self.context)
            {
                problems.push(self.missing(job, &argv, &error).unwrap_or_else(|| problem_of(job, &error)));
            }
            all.push(argv);
        }
        problems.sort_by_key(|problem: &Problem| problem.place);
        if problems.is_empty() { Ok(all) } else { Err(problems) }
    }

    /// Names the option that is missing, and where the one stands that needs it.
    fn missing(&self, job: &Job, argv: &Argv, error: &clap::Error) -> Option<Problem> {
        let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else { return None };
        if error.kind() != clap::error::ErrorKind::MissingRequiredArgument {
            return None;
        }
        let keys = missing.iter().map(|word| {
            let name = word.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default();
            match self.verbs.of(job.verb).takes(name) {
                Some(Takes::Switch) => format!("{} = true", name.replace('-', "_")),
                _ => format!("{} = …", name.replace('-', "_")),
            }
        });
        let keys = keys.collect::<Vec<_>>().join(" and ");
        // The one without which nothing is missing.
        let needs = job.options.iter().find(|setting| {
            let (on, value) = (format!("--{}", setting.name), format!("--{}=", setting.name));
            let is_other = |word: &&OsString| *word != on.as_str() && !word.to_string_lossy().starts_with(&value);
            let words = argv.words.iter().filter(is_other).cloned().collect();
            Argv { words, ..argv.clone() }.command(self.context).is_ok()
        });
        let (place, message) = match needs {
            Some(setting) => (setting.place, format!("{} needs {keys}", setting.name.replace('-', "_"))),
            None => (job.place, format!("{} needs {keys}", job.verb)),
        };
        Some(Problem { place, message, hint: Some(format!("haul {} --help explains it", job.verb)) })
    }

    fn endpoint(&self, operand: &Placed<String>) -> Result<Endpoint, Problem> {
        let endpoint = self.settings.endpoint(OsStr::new(&operand.value)).map(|(endpoint, _)| endpoint);
        endpoint.map_err(|error| problem(operand.place, error.message(), error.hint()))
    }

    /// Finds operands that name nothing, or that the command would take for something else, or refuse.
    fn misplaced(&self, job: &Job) -> Vec<Problem> {
        let is_local =
            |operand: &Placed<String>| self.endpoint(operand).is_ok_and(|endpoint| endpoint.scheme == Scheme::File);
        let operands = job.sources.iter().chain(&job.to).chain(job.conditions.iter().map(|it| &it.operand));
        let mut problems: Vec<_> = operands.filter_map(|operand| self.endpoint(operand).err()).collect();
        if let ("get", Some(to)) = (job.verb, &job.to)
            && self.endpoint(to).is_ok()
            && !is_local(to)
        {
            let hint = Some("put copies between servers");
            problems.push(problem(to.place, "to is at a server, and get fetches to this machine", hint));
        }
        if job.verb == "rm" {
            let plain = job.sources.iter().filter(|source| is_local(source) && !source.value.contains("://"));
            let hint = Some("a local file is removed as file:///PATH");
            problems.extend(plain.map(|source| problem(source.place, "rm: is a local path", hint)));
        }
        problems
    }

    fn argv(&self, job: &Job) -> Argv {
        let options = self.verbs.of(job.verb);
        let has = |name: &str| options.takes(name).is_some();
        let mut words: Vec<OsString> = vec![job.verb.into()];
        // What was typed counts most, then the job, then the defaults; of two that exclude each other, the first stays.
        let mut chosen: Vec<(&str, Set)> = Vec::new();
        let typed =
            self.context.given.iter().filter(|(name, _)| has(name)).map(|(name, set)| (name.as_str(), set.clone()));
        chosen.extend(typed);
        for settings in [&job.options, &job.defaults] {
            let above = chosen.len();
            for Setting { name, value, .. } in settings {
                let is_on = |(_, set): &&(&str, Set)| *set != Set::Switch(false);
                let excluded = chosen[..above].iter().filter(is_on).any(|(other, _)| options.conflict(name, other));
                if !excluded && chosen.iter().all(|(other, _)| other != name) {
                    chosen.push((name, value.into()));
                }
            }
        }
        if self.without_bars && has("progress") && chosen.iter().all(|(name, set)| *name != "progress" || is_bars(set))
        {
            chosen.retain(|(name, _)| *name != "progress");
            chosen.push(("progress", Set::Words(vec!["plain".into()])));
        }
        for (name, set) in chosen {
            match set {
                Set::Switch(true) => words.push(format!("--{name}").into()),
                Set::Switch(false) => words.extend(options.opposite(name).map(|name| format!("--{name}").into())),
                Set::Words(values) => words.extend(values.into_iter().map(|value| {
                    let mut word = OsString::from(format!("--{name}="));
                    word.push(value);
                    word
                })),
            }
        }
        words.push("--".into());
        let expands = matches!(job.verb, "get" | "put" | "mv");
        words.extend(job.sources.iter().map(|source| match expands {
            true => expanding(&source.value),
            false => source.value.clone().into(),
        }));
        words.extend(job.to.iter().map(|to| OsString::from(&to.value)));
        Argv { words, has_dry_run: has("dry-run") }
    }
}

/// Returns an operand whose wildcards count, also in a path of this machine: no shell has expanded them here.
pub(super) fn expanding(operand: &str) -> OsString {
    let is_plain = !operand.contains("://") && split_profile(operand.as_bytes()).is_none();
    if !is_plain || !operand.contains(['*', '?', '[', '{']) {
        return operand.into();
    }
    let Ok(path) = std::path::absolute(operand) else { return operand.into() };
    let path = path.to_string_lossy().into_owned();
    let (above, written) = match path.strip_suffix(operand) {
        Some(above) => (above, operand),
        None => ("", path.as_str()),
    };
    let mut url = format!("file://{}", encode_path(above.as_bytes()));
    for piece in written.split_inclusive(|c| "*?[]{}^".contains(c)) {
        let (name, wildcard) = match piece.char_indices().last() {
            Some((at, c)) if "*?[]{}^".contains(c) => piece.split_at(at),
            _ => (piece, ""),
        };
        url.push_str(&encode_path(name.as_bytes()));
        url.push_str(wildcard);
    }
    url.into()
}

fn is_bars(set: &Set) -> bool {
    matches!(set, Set::Words(words) if words.iter().any(|word| Path::new(word) == Path::new("bar")))
}

/// Turns what clap says into a problem, at the option that it is about if that is the job's.
fn problem_of(job: &Job, error: &clap::Error) -> Problem {
    let text = error.render().to_string();
    let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':').to_owned();
    let named = job.options.iter().find(|setting| text.contains(&format!("--{}", setting.name)));
    let place = named.map_or(job.place, |setting| setting.place);
    let hint = format!("the job is as if you typed haul {} …; haul {} --help explains it", job.verb, job.verb);
    Problem { place, message: text, hint: Some(hint) }
}

fn problem(place: Place, message: &str, hint: Option<&str>) -> Problem {
    Problem { place, message: message.to_owned(), hint: hint.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_of_this_machine_count_as_no_shell_has_expanded_them() {
        let here = encode_path(std::env::current_dir().unwrap().as_os_str().as_encoded_bytes());
        for (operand, shown) in [
            ("a b/*.csv", format!("file://{here}/a%20b/*.csv")),
            ("/x/[a-c]?{1,2}%", "file:///x/[a-c]?{1,2}%25".to_owned()),
            ("plain", "plain".to_owned()),
            ("sftp://h/*", "sftp://h/*".to_owned()),
            ("work:*", "work:*".to_owned()),
        ] {
            assert_eq!(expanding(operand), OsString::from(shown), "{operand}");
        }
    }
}

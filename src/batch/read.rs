//! From the text of a job file to its jobs. What is wrong is gathered.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::values::find;
use super::{Condition, Hook, Hooks, Job, JobFile, OnError, Placed, Surroundings, VERBS, Wanted, order};
use crate::config::{Place, Problem, Setting, in_order, names_secret, place_in, similar};
use crate::transport::escape;

const TOP: [&str; 6] = ["defaults", "hook_timeout", "job", "lock", "on_failure", "on_success"];
const OF_JOBS: [&str; 12] = [
    "hook_timeout",
    "lock",
    "name",
    "needs",
    "on_error",
    "on_failure",
    "on_success",
    "retry",
    "retry_wait",
    "to",
    "unless",
    "when",
];
/// What the defaults may say beside options.
const OF_DEFAULTS: [&str; 6] = ["hook_timeout", "on_error", "on_failure", "on_success", "retry", "retry_wait"];
pub(super) const KEEP_ELSEWHERE: &str =
    "haul login URL puts a password into the keyring; password_file names a file of yours; ~/.netrc works, too";
/// How often `on_error = "retry"` tries again if nobody says, and how long it waits.
const RETRY: u32 = 3;
const RETRY_WAIT: Duration = Duration::from_secs(30);
const MOST_RETRIES: u32 = 1000;

pub(super) type Key<'t> = Spanned<DeString<'t>>;
pub(super) type Item<'t> = Spanned<DeValue<'t>>;
type Table<'t> = DeTable<'t>;

/// Reads the whole file.
pub(super) fn read(text: &str, around: &dyn Surroundings) -> (JobFile, Vec<Problem>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, around, problems: Vec::new() };
    for error in errors {
        // Its own display would show the line, and there might be a password in it.
        reader.problem(&error.span().unwrap_or(0..0), error.message().to_owned(), None);
    }
    let broken: Vec<usize> = reader.problems.iter().map(|problem| problem.place.line).collect();
    let syntax = reader.problems.len();
    let file = reader.file(table.get_ref());
    // What was made of a line that can't be read is not worth a word.
    let sense = reader.problems.split_off(syntax);
    reader
        .problems
        .extend(sense.into_iter().filter(|problem| broken.is_empty() || !broken.contains(&problem.place.line)));
    reader.problems.sort_by_key(|problem| problem.place);
    reader.problems.dedup();
    (file, reader.problems)
}

/// What is read, and what was found to be wrong with it.
pub(super) struct Reader<'a> {
    text: &'a str,
    pub(super) around: &'a dyn Surroundings,
    pub(super) problems: Vec<Problem>,
}

/// What a job or the defaults say beside options.
#[derive(Default)]
struct Rules {
    on_error: Option<OnError>,
    /// `on_error = "retry"`.
    retries: bool,
    retry: Option<u32>,
    retry_wait: Option<Duration>,
    hooks: FoundHooks,
}

#[derive(Default)]
struct FoundHooks {
    on_success: Option<Hook>,
    on_failure: Option<Hook>,
    timeout: Option<Duration>,
}

impl FoundHooks {
    fn or(self, defaults: &Self) -> Hooks {
        Hooks {
            on_success: self.on_success.or_else(|| defaults.on_success.clone()),
            on_failure: self.on_failure.or_else(|| defaults.on_failure.clone()),
            timeout: self.timeout.or(defaults.timeout).unwrap_or(Hooks::default().timeout),
        }
    }
}

impl Reader<'_> {
    fn file(&mut self, table: &Table<'_>) -> JobFile {
        let mut file = JobFile::default();
        let (mut hooks, mut rules, mut defaults) = (FoundHooks::default(), Rules::default(), Vec::new());
        // The defaults count for the jobs wherever they stand.
        for (key, value) in in_order(table).into_iter().filter(|(key, _)| key.get_ref() == "defaults") {
            match value.get_ref().as_table() {
                Some(table) => (rules, defaults) = self.defaults(table),
                None => self.problem(&key.span(), "defaults is a heading: write [defaults]".into(), None),
            }
        }
        let mut needs = Vec::new();
        for (key, value) in in_order(table) {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("defaults", _) => {}
                ("job", DeValue::Array(jobs)) => self.jobs(jobs, &rules, &defaults, &mut file.jobs, &mut needs),
                ("job", _) => self.problem(&key.span(), "jobs are a list: write [[job]]".into(), None),
                ("lock", _) => file.lock = self.lock(value),
                (name @ ("on_success" | "on_failure" | "hook_timeout"), _) => self.hook_key(&mut hooks, name, value),
                (other, _) => self.unknown_at_top(key, other),
            }
        }
        file.hooks = hooks.or(&FoundHooks::default());
        if file.jobs.is_empty() && self.problems.is_empty() {
            let hint = "a job is written [[job]], with lines like get = \"sftp://…\" and to = \"…\" below it";
            self.problem(&(0..0), "no job is in the file".into(), Some(hint));
        }
        order::resolve(&mut file.jobs, &needs, &mut self.problems);
        file
    }

    fn defaults(&mut self, table: &Table<'_>) -> (Rules, Vec<Setting>) {
        let (mut rules, mut options) = (Rules::default(), Vec::new());
        for (key, value) in in_order(table) {
            let name = key.get_ref().as_ref();
            if OF_DEFAULTS.contains(&name) {
                self.rule(&mut rules, name, value);
                continue;
            }
            let written = name.replace('_', "-");
            let around = self.around;
            let knows = |verb: &&&str| find(around.options(verb), &written).is_some();
            match VERBS.iter().find(knows) {
                Some(verb) => options.extend(self.setting(key, value, around.options(verb))),
                None => {
                    let names = VERBS.iter().flat_map(|verb| around.options(verb).names()).map(positive);
                    let there_are: Vec<String> = names.chain(OF_DEFAULTS.map(str::to_owned)).collect();
                    let hint = match OF_JOBS.contains(&name) || VERBS.contains(&name) {
                        true => Some("it belongs below a [[job]]".to_owned()),
                        false => None,
                    };
                    self.unknown(key, &there_are, hint);
                }
            }
        }
        (rules, options)
    }

    fn jobs(
        &mut self,
        items: &DeArray<'_>,
        rules: &Rules,
        defaults: &[Setting],
        jobs: &mut Vec<Job>,
        needs: &mut Vec<Vec<Placed<String>>>,
    ) {
        for item in items {
            let Some(table) = item.get_ref().as_table() else {
                self.problem(&item.span(), "jobs are a list: write [[job]]".into(), None);
                continue;
            };
            let Some((job, needed)) = self.job(item.span(), table, jobs.len() + 1, rules, defaults) else { continue };
            if let Some(other) = jobs.iter().find(|other| other.name == job.name) {
                let message =
                    format!("two jobs are called {}; the other begins at {}", escape(job.name.as_bytes()), other.place);
                self.problems.push(Problem { place: job.place, message, hint: None });
            }
            jobs.push(job);
            needs.push(needed);
        }
    }

    fn job(
        &mut self,
        span: Range<usize>,
        table: &Table<'_>,
        number: usize,
        rules: &Rules,
        defaults: &[Setting],
    ) -> Option<(Job, Vec<Placed<String>>)> {
        let lines = in_order(table);
        let verb_of = |key: &Key<'_>| VERBS.into_iter().find(|verb| *verb == key.get_ref().as_ref());
        let mut verbs = lines.iter().filter_map(|(key, value)| Some((verb_of(key)?, *key, *value)));
        let first = verbs.next();
        if let Some((other, key, _)) = verbs.next() {
            let verb = first.map_or("", |(verb, ..)| verb);
            self.problem(&key.span(), format!("a job does one thing: {verb}, or {other}"), Some("make two jobs of it"));
        }
        let Some((verb, key, sources)) = first else {
            self.without_verb(&span, &lines);
            return None;
        };
        let vocabulary = self.around.options(verb);
        let mut job = Job {
            name: format!("job {number}"),
            place: self.place(&span),
            verb,
            sources: self.operands(verb, sources),
            to: None,
            options: Vec::new(),
            defaults: Vec::new(),
            needs: Vec::new(),
            conditions: Vec::new(),
            on_error: OnError::Stop,
            retry: 0,
            retry_wait: RETRY_WAIT,
            hooks: Hooks::default(),
            lock: None,
        };
        let (mut own, mut needed) = (Rules::default(), Vec::new());
        for (key, value) in lines {
            match key.get_ref().as_ref() {
                "name" => job.name = self.name(value).unwrap_or(job.name),
                "to" => job.to = self.operands("to", value).into_iter().next(),
                "needs" => needed = self.words("needs", value),
                "lock" => job.lock = self.lock(value),
                name @ ("when" | "unless") => {
                    let wanted = if name == "when" { Wanted::There } else { Wanted::Missing };
                    let operands = self.operands(name, value);
                    job.conditions.extend(operands.into_iter().map(|operand| Condition { operand, wanted }));
                }
                name if OF_DEFAULTS.contains(&name) => self.rule(&mut own, name, value),
                name if VERBS.contains(&name) => {}
                name if find(vocabulary, &name.replace('_', "-")).is_some() => {
                    let Some(setting) = self.setting(key, value, vocabulary) else { continue };
                    if job.options.iter().any(|other| other.name == setting.name) {
                        self.problem(&key.span(), format!("{} is set twice", setting.name), None);
                    }
                    job.options.push(setting);
                }
                _ => {
                    let options = vocabulary.names().into_iter().map(positive);
                    let known: Vec<String> = options.chain(OF_JOBS.map(str::to_owned)).collect();
                    self.unknown(key, &known, Some(format!("haul {verb} --help shows the options")));
                }
            }
        }
        if matches!(verb, "get" | "put" | "sync" | "mv") && job.to.is_none() && !table.contains_key("to") {
            self.problem(&key.span(), format!("{verb} needs to = \"…\", where to"), None);
        }
        let most = if verb == "check" && job.to.is_none() { 2 } else { 1 };
        if let (true, Some(second)) = (matches!(verb, "sync" | "check"), job.sources.get(most)) {
            let message = format!("{verb} takes one thing, and to = \"…\" is the other");
            self.problems.push(Problem { place: second.place, message, hint: Some("make two jobs of it".into()) });
        }
        if let (true, Some(to)) = (matches!(verb, "rm" | "mkdir"), &job.to) {
            let problem =
                Problem { place: to.place, message: format!("{verb} goes nowhere: leave to out"), hint: None };
            self.problems.push(problem);
        }
        let taken = |setting: &&Setting| {
            vocabulary.takes(&setting.name).is_some() && job.options.iter().all(|own| own.name != setting.name)
        };
        job.defaults = defaults.iter().filter(taken).cloned().collect();
        apply(&mut job, own, rules);
        Some((job, needed))
    }

    fn without_verb(&mut self, span: &Range<usize>, lines: &[(&Key<'_>, &Item<'_>)]) {
        let meant = lines.iter().find_map(|(key, _)| Some((key, similar(key.get_ref(), VERBS)?)));
        let message = format!("the job does nothing: it has none of {}", VERBS.join(", "));
        match meant {
            Some((key, meant)) => self.problem(&key.span(), message, Some(&format!("did you mean {meant}?"))),
            None => self.problem(span, message, None),
        }
    }

    fn rule(&mut self, rules: &mut Rules, name: &str, value: &Item<'_>) {
        match name {
            "on_error" => match value.get_ref().as_str() {
                Some("stop") => rules.on_error = Some(OnError::Stop),
                Some("continue") => rules.on_error = Some(OnError::Continue),
                Some("retry") => (rules.on_error, rules.retries) = (Some(OnError::Stop), true),
                word => {
                    let meant = word.and_then(|word| similar(word, ["stop", "continue", "retry"]));
                    let hint = meant.map(|meant| format!("did you mean \"{meant}\"?"));
                    let message = "on_error is \"stop\", \"continue\" or \"retry\"".into();
                    self.problem(&value.span(), message, hint.as_deref());
                }
            },
            "retry" => {
                let number = value.get_ref().as_integer().and_then(|number| number.as_str().parse().ok());
                rules.retry = number.filter(|number| *number <= MOST_RETRIES);
                if rules.retry.is_none() {
                    self.problem(&value.span(), "retry is a whole number like 3; 0 is never".into(), None);
                }
            }
            "retry_wait" => rules.retry_wait = self.duration(name, value),
            _ => self.hook_key(&mut rules.hooks, name, value),
        }
    }

    fn hook_key(&mut self, hooks: &mut FoundHooks, name: &str, value: &Item<'_>) {
        match name {
            "on_success" => hooks.on_success = self.hook(name, value),
            "on_failure" => hooks.on_failure = self.hook(name, value),
            _ => hooks.timeout = self.duration(name, value),
        }
    }

    fn unknown_at_top(&mut self, key: &Key<'_>, text: &str) {
        if self.of_run(text).is_some() {
            return self.unknown(key, &[], None);
        }
        let hint = match similar(text, TOP) {
            Some("defaults") => "did you mean [defaults]?".to_owned(),
            Some("job") => "did you mean [[job]]?".to_owned(),
            Some(meant) => format!("did you mean {meant}?"),
            None if VERBS.contains(&text) || OF_JOBS.contains(&text) => "it belongs below a [[job]]".to_owned(),
            None => format!(
                "there are [defaults], [[job]], and above them {}",
                "lock, on_success, on_failure, hook_timeout"
            ),
        };
        self.problem(&key.span(), format!("unknown: {}", escape(text.as_bytes())), Some(&hint));
    }

    /// Returns advice on what is an option of the run.
    fn of_run(&self, written: &str) -> Option<String> {
        let name = written.replace('_', "-");
        self.around.is_of_run(&name).then(|| format!("it is an option of haul batch: haul batch --{name} …"))
    }

    fn unknown(&mut self, key: &Key<'_>, known: &[String], otherwise: Option<String>) {
        let written = key.get_ref().as_ref();
        if names_secret(&written.replace('_', "-").to_ascii_lowercase()) {
            return self.problem(&key.span(), "passwords don't belong in this file".into(), Some(KEEP_ELSEWHERE));
        }
        if let Some(hint) = self.of_run(written) {
            return self.problem(
                &key.span(),
                format!("{} counts for the whole run", escape(written.as_bytes())),
                Some(&hint),
            );
        }
        let meant = similar(&written.to_ascii_lowercase(), known.iter().map(String::as_str));
        let hint = meant.map(|meant| format!("did you mean {meant}?")).or(otherwise);
        self.problem(&key.span(), format!("unknown option: {}", escape(written.as_bytes())), hint.as_deref());
    }

    pub(super) fn problem(&mut self, span: &Range<usize>, message: String, hint: Option<&str>) {
        let place = self.place(span);
        self.problems.push(Problem { place, message, hint: hint.map(str::to_owned) });
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        place_in(self.text, span.start)
    }
}

fn apply(job: &mut Job, own: Rules, defaults: &Rules) {
    let retries = if own.on_error.is_some() { own.retries } else { defaults.retries };
    let usual = if retries { RETRY } else { 0 };
    job.on_error = own.on_error.or(defaults.on_error).unwrap_or_default();
    job.retry = own.retry.or(defaults.retry).unwrap_or(usual);
    job.retry_wait = own.retry_wait.or(defaults.retry_wait).unwrap_or(RETRY_WAIT);
    job.hooks = own.hooks.or(&defaults.hooks);
}

/// How an option is written in the file.
fn positive(name: &str) -> String {
    name.strip_prefix("no-").unwrap_or(name).replace('-', "_")
}

//! What is told of a run afterwards, to people and programs that weren't there: `--report`, `--metrics`, `--syslog`.
//!
//! A [`Recorder`] takes every event of a run, or of one job of several. JSON goes to a file as it happens; what the
//! others need is counted, with as many files kept as a person would read. All of it appears under its name at the end.

use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use haul::transfer::Event;
use haul::transport::escape;
use haul::{Error, ErrorKind, Result};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::context::{Context, without_password};
use super::report::Exit;

mod html;
mod job;
mod json;
mod metrics;
mod plot;
mod record;
mod syslog;
mod target;
mod timeline;

use job::{Job, Unrun};
pub(crate) use record::Item;
use record::Record;
use syslog::Syslog;
use target::Target;
use timeline::Timeline;

/// The commands that have something to report.
const COMMANDS: [&str; 6] = ["get", "put", "resume", "sync", "check", "batch"];
/// How long a program that is told to end at once takes for its reports.
const HURRY: Duration = Duration::from_millis(500);

// Not a doc comment: it would become that of the commands. Where to report to.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Report options")]
struct ReportArgs {
    /// Write a report of the run here, as the name says: .json for programs, .html for people; may be given several times
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,

    /// Write the run's numbers here for Prometheus, as node_exporter's textfile collector reads them; a dry run has none
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,

    /// Tell the system's log of failed files, retries, jobs and the end: on standard error where the journal reads that,
    /// else through /dev/log or the socket that is named; not of a dry run
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    syslog: Option<PathBuf>,

    /// What reports, metrics (as run="NAME") and the system's log call this run [default: the command's name]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    report_name: Option<String>,
}

/// Gives the options to every command that has something to report.
pub(crate) fn with_options(command: Command) -> Command {
    let commands = COMMANDS.into_iter().filter(|name| command.find_subcommand(name).is_some()).collect::<Vec<_>>();
    commands.into_iter().fold(command, |command, name| command.mut_subcommand(name, ReportArgs::augment_args))
}

/// What a report says about the run as a whole.
#[derive(Debug)]
struct About {
    /// What the run is called.
    name: String,
    command: String,
    /// What was named, without passwords.
    operands: Vec<String>,
    options: Vec<String>,
    /// Nothing is done, so nobody may take it for a success.
    dry_run: bool,
    host: String,
}

/// Takes what happens in a run or in one of its jobs; cheap to clone. Without an option that wants a report it does nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder {
    run: Arc<OnceLock<Mutex<Run>>>,
    job: usize,
}

/// One run, and where it is reported to.
#[derive(Debug)]
struct Run {
    about: About,
    started: Timestamp,
    jobs: Vec<Job>,
    timeline: Timeline,
    shown: html::Shown,
    json: Vec<json::Spool>,
    pages: Vec<Target>,
    metrics: Option<metrics::Metrics>,
    log: Option<Syslog>,
}

impl Recorder {
    /// Looks what is to be reported and makes sure that it can be, before anything is moved.
    ///
    /// # Errors
    /// `Usage` for a report that can't be written.
    pub(crate) fn open(&self, command: &Command, matches: &ArgMatches, context: &Context) -> Result<()> {
        let Some((name, matches)) = matches.subcommand().filter(|(name, _)| COMMANDS.contains(name)) else {
            return Ok(());
        };
        let args = ReportArgs::from_arg_matches(matches).unwrap_or_default();
        if args.report.is_empty() && args.metrics.is_none() && args.syslog.is_none() {
            return Ok(());
        }
        let about = About {
            name: args.report_name.clone().unwrap_or_else(|| name.to_owned()),
            command: name.to_owned(),
            operands: operands(command, name, matches),
            dry_run: matches.try_get_one::<bool>("dry_run").ok().flatten().copied().unwrap_or(false),
            options: context.known.to_keep(&context.given).iter().map(|option| readable(option)).collect(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        let run = Run::open(&args, about, context)?;
        // Only once in a process.
        let _ = self.run.set(Mutex::new(run));
        Ok(())
    }

    /// Returns a recorder for a job of this run. Two of one name are told apart by numbers.
    pub(crate) fn job(&self, name: &str) -> Self {
        let job = self.with(|run, _| {
            let taken = |name: &str| run.jobs.iter().any(|job| job.name == name);
            let mut unique = name.to_owned();
            let mut number = 2;
            while taken(&unique) {
                unique = format!("{name} ({number})");
                number += 1;
            }
            run.jobs.push(Job::new(unique));
            run.jobs.len() - 1
        });
        Self { run: Arc::clone(&self.run), job: job.unwrap_or(0) }
    }

    /// Takes an event.
    pub(crate) fn event(&self, event: &Event) {
        self.with(|run, job| run.event(job, event));
    }

    /// Takes how many were the same at both ends and need no line of their own.
    pub(crate) fn equal(&self, number: u64) {
        self.with(|run, job| run.jobs[job].totals.equal += number);
    }

    /// The job is tried once more: the last attempt is what counts.
    pub(crate) fn again(&self) {
        self.with(|run, job| {
            run.shown.forget(&run.jobs[job]);
            run.jobs[job].again();
            if let Some(log) = &mut run.log {
                log.again(&run.jobs[job]);
            }
        });
    }

    /// The job only tells what it would do.
    pub(crate) fn dry(&self) {
        self.with(|run, job| run.jobs[job].is_dry = true);
    }

    /// The job is not run: `status` says how in a word, `reason` why.
    pub(crate) fn unrun(&self, status: &'static str, reason: &str) {
        self.with(|run, job| {
            run.jobs[job].leave(Unrun { status, reason: reason.to_owned() });
            if let Some(log) = &mut run.log {
                log.unrun(&run.jobs[job].name, status, reason);
            }
        });
    }

    /// Takes something that was looked at and not moved, as a comparison does.
    pub(crate) fn item(&self, item: &Item<'_>) {
        self.with(|run, job| {
            let name = run.jobs[job].name.clone();
            let attempt = run.jobs[job].attempts;
            let record = Record { attempt, ..Record::of_item(&name, item, Timestamp::now()) };
            run.take(job, &record);
        });
    }

    /// A job has come to its end; what went wrong with all of it, beside its files, comes along.
    pub(crate) fn ended(&self, exit: Exit, error: Option<&Error>) {
        self.with(|run, job| {
            let error = error.filter(|error| error.kind() != ErrorKind::Cancelled);
            run.jobs[job].end(exit, error);
            if let Some(log) = &mut run.log
                && run.jobs[job].is_worth_telling(run.jobs.len())
            {
                log.job(&run.jobs[job], exit);
            }
        });
    }

    /// Writes the reports; a second time there is nothing left to write.
    ///
    /// # Errors
    /// The first of those of writing; the other reports are written all the same.
    pub(crate) fn close(&self, exit: Exit) -> Result<()> {
        self.with(|run, _| run.close(exit)).unwrap_or(Ok(()))
    }

    /// Writes the reports, but waits for no disk that hangs.
    pub(crate) fn close_soon(&self, exit: Exit) {
        let (done, is_done) = mpsc::channel();
        let recorder = self.clone();
        let close = move || {
            let _ = recorder.close(exit);
            let _ = done.send(());
        };
        if self.run.get().is_some() && std::thread::Builder::new().spawn(close).is_ok() {
            let _ = is_done.recv_timeout(HURRY);
        }
    }

    fn with<R>(&self, action: impl FnOnce(&mut Run, usize) -> R) -> Option<R> {
        let mut run: MutexGuard<'_, Run> = self.run.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(action(&mut run, self.job))
    }
}

impl Run {
    fn open(args: &ReportArgs, about: About, context: &Context) -> Result<Self> {
        let started = Timestamp::now();
        let (mut spools, mut pages, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for path in args.report.iter().chain(&args.metrics) {
            if taken.contains(&path) {
                return Err(Error::new(ErrorKind::Usage, "is named twice").at(path.display()));
            }
            taken.push(path);
        }
        for path in &args.report {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => spools.push(json::Spool::open(Target::open(path, target::PRIVATE)?, &about, started)?),
                Some("html" | "htm") => pages.push(Target::open(path, target::PRIVATE)?),
                _ => {
                    let error = Error::new(ErrorKind::Usage, "a report is called .json or .html").at(path.display());
                    return Err(error.with_hint("numbers for Prometheus are written by --metrics"));
                }
            }
        }
        // What watches over backups must not take a dry run for one.
        let (metrics, syslog) = match about.dry_run {
            true => (None, None),
            false => (args.metrics.as_deref(), args.syslog.as_deref()),
        };
        Ok(Self {
            started,
            jobs: vec![Job::frame(about.name.clone())],
            timeline: Timeline::default(),
            shown: html::Shown::default(),
            json: spools,
            pages,
            metrics: metrics.map(|path| metrics::Metrics::open(path, &about.name)).transpose()?,
            log: syslog.map(|socket| Syslog::open(socket, &context.screen)).transpose()?,
            about,
        })
    }

    fn event(&mut self, job: usize, event: &Event) {
        let now = Timestamp::now();
        let state = &mut self.jobs[job];
        match event {
            Event::Started { id, source, .. } => state.starts(*id, source, now),
            Event::Resumed { id, offset } => state.resumes(*id, *offset),
            Event::Progress { id, position } => {
                let moved = state.moves(*id, *position);
                self.timeline.moved(since(self.started, now), moved);
            }
            Event::Retrying { id, attempt, error, .. } => {
                let source = state.retries(*id).unwrap_or_default();
                if let Some(log) = &mut self.log {
                    log.retrying(&state.name, &source, *attempt, error);
                }
            }
            Event::Finished(outcome) => {
                let flight = state.lands(outcome.id);
                let name = state.name.clone();
                let record = Record { attempt: state.attempts, ..Record::new(&name, outcome, flight, now) };
                self.take(job, &record);
            }
            _ => {}
        }
    }

    fn take(&mut self, job: usize, record: &Record<'_>) {
        self.jobs[job].count(record);
        let (from, to) = (since(self.started, record.started), since(self.started, record.ended));
        self.timeline.ended(from, to, record);
        if !self.pages.is_empty() {
            self.shown.take(record);
        }
        for spool in &mut self.json {
            spool.take(record);
        }
        if let Some(log) = &mut self.log {
            log.file(record);
        }
    }

    fn close(&mut self, exit: Exit) -> Result<()> {
        let ended = Timestamp::now();
        for job in &mut self.jobs {
            job.end_if_open(exit);
        }
        let end = End { exit, started: self.started, ended, timeline: &self.timeline, jobs: told(&self.jobs) };
        let mut results = Vec::new();
        for spool in self.json.drain(..) {
            results.push(spool.close(&end));
        }
        let page = (!self.pages.is_empty()).then(|| html::page(&self.about, &self.shown, &end));
        for target in self.pages.drain(..) {
            results.push(target.write_all(page.as_deref().unwrap_or_default().as_bytes()));
        }
        if let Some(metrics) = self.metrics.take() {
            results.push(metrics.close(&end));
        }
        if let Some(mut log) = self.log.take() {
            log.end(&self.about.name, &end);
        }
        results.into_iter().collect()
    }
}

/// How a run ended.
struct End<'a> {
    exit: Exit,
    started: Timestamp,
    ended: Timestamp,
    timeline: &'a Timeline,
    jobs: Vec<&'a Job>,
}

impl End<'_> {
    fn elapsed(&self) -> Duration {
        Duration::from_secs_f64(since(self.started, self.ended))
    }

    fn totals(&self) -> job::Totals {
        self.jobs.iter().fold(job::Totals::default(), |sum, job| sum.with(&job.totals))
    }
}

/// Leaves out the run itself where all that happened, happened in its jobs.
fn told(jobs: &[Job]) -> Vec<&Job> {
    jobs.iter().filter(|job| job.is_worth_telling(jobs.len())).collect()
}

/// Returns the seconds between two times, none if the clock was set back meanwhile.
fn since(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64().max(0.0)
}

/// Undoes the percent-encoding that journals need.
fn readable(option: &str) -> String {
    escape(&percent_decode_str(option).collect::<Vec<_>>())
}

/// Returns what was named on the command line, whatever the command calls it.
fn operands(command: &Command, name: &str, matches: &ArgMatches) -> Vec<String> {
    let Some(command) = command.find_subcommand(name) else { return Vec::new() };
    let ids = command.get_positionals().map(|arg| arg.get_id().as_str());
    let words = ids.filter_map(|id| matches.try_get_raw(id).ok().flatten()).flatten();
    words.map(without_password).collect()
}

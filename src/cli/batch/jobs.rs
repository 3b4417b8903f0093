//! The jobs of a file, each as if it had been typed, in an order that their needs allow.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use haul::batch::{Condition, Hooks, Job, JobFile, Lock, OnError, Wanted};
use haul::{Error, ErrorKind};
use serde::Serialize;

use super::argv::{Argv, expanding};
use super::ends::{BatchEvent, End, Status, event};
use super::foresee::{is_there, is_unforeseeable};
use super::record::{Record, id_of};
use super::{hook, lock};
use crate::cli::context::{Connections, Context};
use crate::cli::json::{self, ErrorObject, milliseconds};
use crate::cli::open::Open;
use crate::cli::options::state_dir;
use crate::cli::report::{Exit, Failure, Result};
use crate::cli::reports::Recorder;
use crate::cli::transfer::unless;

/// How a file's jobs are run.
pub(super) struct Settings {
    pub(super) parallel: usize,
    pub(super) dry_run: bool,
    pub(super) json: bool,
    /// Forget what an interrupted run did.
    pub(super) fresh: bool,
}

/// Runs the jobs of a file.
pub(super) struct Runner<'a> {
    context: &'a Arc<Context>,
    /// How the file is called in messages, and where it lies.
    name: &'a str,
    path: Option<&'a Path>,
    file: &'a JobFile,
    commands: Vec<Argv>,
    settings: Settings,
    open: Arc<Open>,
    record: Option<Record>,
    /// What tells of each job in the reports.
    recorders: Vec<OnceLock<Recorder>>,
}

/// Where a job is.
#[derive(Debug)]
enum State {
    Waiting,
    Running,
    Ended(End),
}

/// How one attempt ended.
struct Attempt {
    exit: Exit,
    /// What was told first.
    first: Option<ErrorObject>,
    /// What ended it, beside what failed of it.
    failure: Option<Error>,
}

impl<'a> Runner<'a> {
    /// Prepares the run.
    pub(super) fn new(
        context: &'a Arc<Context>,
        name: &'a str,
        path: Option<&'a Path>,
        file: &'a JobFile,
        commands: Vec<Argv>,
        settings: Settings,
    ) -> Result<Self> {
        let state_dir = state_dir()?;
        let record = path.filter(|_| !settings.dry_run).and_then(|path| Record::open(&state_dir, path, settings.fresh));
        let recorders = file.jobs.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { context, name, path, file, commands, settings, open: Arc::default(), record, recorders })
    }

    /// Runs them, and tells what became of each.
    pub(super) async fn run(mut self) -> Result<()> {
        let started = Instant::now();
        let ends = self.all().await?;
        self.open.close().await;
        let exit = ends.iter().map(|end| end.exit).max().unwrap_or_default();
        let stopped = self.stopped();
        self.end(&ends, exit, started.elapsed()).await?;
        if stopped {
            return Err(Error::from(ErrorKind::Cancelled).into());
        }
        if let Some(record) = self.record.take() {
            record.end();
        }
        Ok(())
    }

    /// Runs what can be run; one end for each job.
    async fn all(&self) -> Result<Vec<End>> {
        let jobs = &self.file.jobs;
        let mut states: Vec<State> = jobs.iter().map(|_| State::Waiting).collect();
        let mut running = FuturesUnordered::new();
        let mut stopped = false;
        loop {
            while running.len() < self.settings.parallel && !stopped && !self.stopped() {
                let Some(next) = self.next(&mut states)? else { break };
                states[next] = State::Running;
                running.push(async move { (next, self.job(next).await) });
            }
            let Some((number, end)) = running.next().await else { break };
            self.context.report.ends(end.exit);
            stopped |= end.status == Status::Failed && jobs[number].on_error == OnError::Stop;
            // A limit of the whole run was reached.
            stopped |= end.status == Status::Interrupted;
            self.told(number, &end)?;
            states[number] = State::Ended(end);
        }
        let ends = states.into_iter().map(|state| match state {
            State::Ended(end) => end,
            _ => End::because(Status::Left, "it was not begun"),
        });
        Ok(ends.collect())
    }

    /// Returns the first job of the file that needs nothing any more; what needs one that failed ends here.
    fn next(&self, states: &mut [State]) -> Result<Option<usize>> {
        let jobs = &self.file.jobs;
        let mut number = 0;
        while number < jobs.len() {
            let ended = |need: &usize| matches!(&states[*need], State::Ended(_));
            let bad = |need: &&usize| matches!(&states[**need], State::Ended(end) if !matches!(end.status, Status::Done | Status::Skipped));
            if !matches!(states[number], State::Waiting) {
                number += 1;
            } else if let Some(&need) = jobs[number].needs.iter().find(bad) {
                let end = End::because(Status::Blocked, format!("it needs {}, which is not done", jobs[need].name));
                self.told(number, &end)?;
                states[number] = State::Ended(end);
                // One that stands above may need it.
                number = 0;
            } else if jobs[number].needs.iter().all(ended) {
                return Ok(Some(number));
            } else {
                number += 1;
            }
        }
        Ok(None)
    }

    fn stopped(&self) -> bool {
        self.context.cancel.is_cancelled() || self.context.stdout.is_closed()
    }

    /// Runs one job to its end, with its retries and hooks.
    async fn job(&self, number: usize) -> End {
        let job = &self.file.jobs[number];
        let started = Instant::now();
        let recorder = self.recorder(number);
        let mut end = match self.attempts(number).await {
            Ok(end) => end,
            Err(failure) => self.failed(job, &recorder, failure),
        };
        end.elapsed = started.elapsed();
        if !self.settings.dry_run && matches!(end.status, Status::Done | Status::Failed) {
            let event = event(job, &end);
            let about = [("HAUL_JOB", job.name.clone()), ("HAUL_EXIT", end.exit.code().to_string())];
            let worst = self.hooks(&job.hooks, end.status == Status::Done, &job.name, &event, &about).await;
            end.exit = end.exit.max(worst);
        }
        end
    }

    async fn attempts(&self, number: usize) -> Result<End> {
        let (job, argv) = (&self.file.jobs[number], &self.commands[number]);
        let (_, given) = argv.command(self.context).map_err(|error| unreadable(&error))?;
        let context = Arc::new(self.context.within(given, &self.open, &self.context.recorder));
        let recorder = self.recorder(number);
        if self.settings.dry_run || argv.is_dry() {
            recorder.dry();
        }
        if self.settings.dry_run && self.is_unforeseeable(number, &context).await? {
            let line = "what it needs is not there yet and an earlier job may make it: what it will do can't be known";
            self.context.note(&format!("haul: {}: {line}", job.name));
            self.context.stdout.write(format!("haul {}\n", argv.shown()).as_bytes())?;
            recorder.ended(Exit::Done, None);
            return Ok(End::because(Status::Done, line));
        }
        if let Some(reason) = self.condition(job, &context).await? {
            return Ok(End::because(Status::Skipped, reason));
        }
        if self.settings.dry_run && !argv.has_dry_run {
            self.context.stdout.write(format!("haul {}\n", argv.shown()).as_bytes())?;
            recorder.ended(Exit::Done, None);
            return Ok(End::new(Status::Done));
        }
        let id = id_of(&job.name, &argv.words);
        if self.record.as_ref().is_some_and(|record| record.has(&id)) {
            return Ok(End::because(Status::Skipped, "it was done before the run was interrupted"));
        }
        let _lock = self.lock(job)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            self.context.note(&format!("haul: {}: {}", job.name, argv.brief()));
            let attempt = self.attempt(argv, &recorder).await?;
            let exit = attempt.exit;
            let status = match exit {
                Exit::Done => Status::Done,
                Exit::Interrupted | Exit::BrokenPipe | Exit::Stopped => Status::Interrupted,
                _ => Status::Failed,
            };
            // A dry run changes nothing that a second look could find.
            let may = !self.settings.dry_run && !argv.is_dry();
            let again = may && status == Status::Failed && exit != Exit::Usage && attempts <= job.retry;
            if !again {
                if let (Status::Done, "mkdir" | "rm" | "mv", Some(record)) = (status, job.verb, &self.record) {
                    record.add(&id);
                }
                recorder.ended(exit, attempt.failure.as_ref());
                return Ok(End { attempts, exit, error: attempt.first, ..End::new(status) });
            }
            let wait = job.retry_wait.as_secs_f64();
            self.context.note(&format!("haul: {}: failed; retry {attempts} of {} in {wait} s", job.name, job.retry));
            let waiting = async {
                tokio::time::sleep(job.retry_wait).await;
                Ok(())
            };
            unless(&self.context.cancel, waiting).await?;
            recorder.again();
        }
    }

    /// Runs the command once.
    async fn attempt(&self, argv: &Argv, recorder: &Recorder) -> Result<Attempt> {
        let (command, given) = argv.command(self.context).map_err(|error| unreadable(&error))?;
        let context = Arc::new(self.context.within(given, &self.open, recorder));
        // A batch runs a command: the future would hold itself otherwise.
        let result = Box::pin(command.run_in(&context)).await;
        let failure = result.err().map(|failure| {
            let failure = context.limits.stopped_or(failure);
            let error = Error::new(failure.error().kind(), failure.error().chain());
            context.report.failed(failure);
            error
        });
        let (exit, first) = context.report.hand_on(&self.context.report);
        Ok(Attempt { exit, first, failure })
    }

    fn failed(&self, job: &Job, recorder: &Recorder, failure: Failure) -> End {
        let (error, exit) = self.context.limits.stopped_or(failure).into_parts();
        if error.kind() == ErrorKind::Cancelled {
            recorder.ended(exit, None);
            return End { exit, ..End::new(Status::Interrupted) };
        }
        let object = ErrorObject::new(&error);
        recorder.ended(exit.max(Exit::Failed), Some(&error));
        self.context.report.failed(error.at(&job.name));
        End { exit: exit.max(Exit::Failed), error: Some(object), ..End::new(Status::Failed) }
    }

    fn lock(&self, job: &Job) -> Result<Option<lock::Held>> {
        match (&job.lock, self.path) {
            _ if self.settings.dry_run => Ok(None),
            (None, _) => Ok(None),
            (Some(Lock::At(path)), _) => lock::take(Path::new(path)).map(Some),
            (Some(Lock::Own), path) => {
                let path = path.unwrap_or(Path::new("-"));
                lock::take(&lock::own(&state_dir()?, path, &job.name)).map(Some)
            }
        }
    }

    async fn is_unforeseeable(&self, number: usize, context: &Arc<Context>) -> Result<bool> {
        let mut connections = connections(context)?;
        let found = unless(&context.cancel, is_unforeseeable(&mut connections, &self.file.jobs, number)).await?;
        connections.close().await;
        Ok(found)
    }

    /// Returns why a job is not to be run.
    async fn condition(&self, job: &Job, context: &Arc<Context>) -> Result<Option<String>> {
        if job.conditions.is_empty() {
            return Ok(None);
        }
        let mut connections = connections(context)?;
        for Condition { operand, wanted } in &job.conditions {
            let endpoint = connections.parse_one(&expanding(&operand.value))?;
            let there = unless(&context.cancel, is_there(&mut connections, &endpoint)).await;
            match (wanted, there?) {
                (Wanted::There, false) => return Ok(Some(format!("{} is not there", operand.value))),
                (Wanted::Missing, true) => return Ok(Some(format!("{} is there", operand.value))),
                _ => {}
            }
        }
        connections.close().await;
        Ok(None)
    }

    async fn hooks(
        &self,
        hooks: &Hooks,
        success: bool,
        what: &str,
        event: &impl Serialize,
        about: &[(&str, String)],
    ) -> Exit {
        let (name, hook) = match success {
            true => ("on_success", &hooks.on_success),
            false => ("on_failure", &hooks.on_failure),
        };
        let Some(hook) = hook else { return Exit::Done };
        let mut text = Vec::new();
        let _ = json::line(&mut text, event);
        match hook::run(hook, text, about, hooks.timeout, self.context).await {
            Ok(()) => Exit::Done,
            Err(why) => {
                // It is told; what was done stays done.
                self.context.screen.line(&format!("haul: {what}: {name} {why}"));
                Exit::Failed
            }
        }
    }

    /// Tells of the end of a job.
    fn told(&self, number: usize, end: &End) -> Result<()> {
        let job = &self.file.jobs[number];
        match (end.status, &end.reason) {
            (Status::Skipped | Status::Blocked, Some(reason)) => {
                self.recorder(number).unrun(end.status.name(), reason);
                let line = format!("haul: {}: skipped: {reason}", job.name);
                if end.status == Status::Blocked {
                    self.context.screen.line(&line);
                } else {
                    self.context.note(&line);
                }
            }
            (Status::Failed, _) => self.context.screen.line(&format!("haul: {}: failed", job.name)),
            _ => {}
        }
        if self.settings.json {
            self.write(&event(job, end))?;
        }
        Ok(())
    }

    /// Tells of the end of the run.
    async fn end(&self, ends: &[End], exit: Exit, elapsed: Duration) -> Result<()> {
        let jobs = &self.file.jobs;
        let count = |wanted: &[Status]| ends.iter().filter(|end| wanted.contains(&end.status)).count();
        let each = jobs.iter().zip(ends).enumerate();
        let left: Vec<_> = each.filter(|(_, (_, end))| end.status == Status::Left).collect();
        for (number, (job, end)) in &left {
            self.recorder(*number).unrun(end.status.name(), end.reason.as_deref().unwrap_or_default());
            if self.settings.json {
                self.write(&event(job, end))?;
            }
        }
        let mut summary = BatchEvent {
            event: "batch",
            file: self.name,
            exit: exit.code(),
            done: count(&[Status::Done]),
            skipped: count(&[Status::Skipped, Status::Blocked]),
            failed: count(&[Status::Failed, Status::Interrupted]),
            left: left.len(),
            seconds: milliseconds(elapsed.as_secs_f64()),
            jobs: Vec::new(),
        };
        if self.settings.json {
            self.write(&summary)?;
        }
        let parts =
            [("done", summary.done), ("skipped", summary.skipped), ("failed", summary.failed), ("left", summary.left)];
        let parts = parts.iter().filter(|(word, number)| *number > 0 || *word == "done");
        let parts: Vec<_> = parts.map(|(word, number)| format!("{number} {word}")).collect();
        self.context.note(&format!("haul: {}: {}", self.name, parts.join(", ")));
        if !left.is_empty() {
            let names: Vec<_> = left.iter().map(|(_, (job, _))| job.name.as_str()).collect();
            self.context.screen.line(&format!("haul: not begun: {}", names.join(", ")));
        }
        if !self.settings.dry_run && !self.stopped() {
            summary.jobs = jobs.iter().zip(ends).map(|(job, end)| event(job, end)).collect();
            let about = [("HAUL_EXIT", exit.code().to_string())];
            let success = exit == Exit::Done && summary.left == 0;
            let worst = self.hooks(&self.file.hooks, success, self.name, &summary, &about).await;
            self.context.report.ends(worst);
        }
        Ok(())
    }

    /// Returns what tells of a job in the reports.
    fn recorder(&self, number: usize) -> Recorder {
        self.recorders[number].get_or_init(|| self.context.recorder.job(&self.file.jobs[number].name)).clone()
    }

    fn write(&self, object: &impl Serialize) -> Result<()> {
        let mut text = Vec::new();
        json::line(&mut text, object)?;
        Ok(self.context.stdout.write(&text)?)
    }
}

/// Makes what finds the servers of a job's operands.
fn connections(context: &Context) -> Result<Connections<'_>> {
    let given: Vec<_> = context.given.iter().map(|(name, set)| (name.as_str(), set)).collect();
    let (args, _) = context.known.parse(&given).map_err(|error| unreadable(&error))?;
    Connections::new(&args, context)
}

/// It was read before anything began.
fn unreadable(error: &clap::Error) -> Error {
    Error::new(ErrorKind::Usage, error.render().to_string())
}

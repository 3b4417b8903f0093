//! When a run begins, when it ends, and how fast it goes meanwhile: `--start-at`, `--stop-after`, `--max-transfer`, and
//! SIGUSR1, which reads the file of settings again.

use std::fs;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use haul::transfer::{Allowance, Limiter, Timetable};
use haul::{Error, ErrorKind};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::format::{bytes, duration, local_minute, whole};
use super::report::{Exit, Failure, Result};
use super::settings::files::Which;
use super::settings::{Set, Settings};
use super::values::{Moment, moment, size, span};

/// The commands that move files, and those that run them.
const COMMANDS: [&str; 6] = ["get", "put", "resume", "sync", "check", "batch"];
/// The clock on the wall may be set while a run waits for its time.
const LOOK: Duration = Duration::from_secs(30);

// Not a doc comment: it would become that of the commands. When a run begins and ends.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Schedule options")]
struct ScheduleArgs {
    /// Connect and begin only then: 22:30 (today or tomorrow), or 2026-11-23T02:00; local time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    start_at: Option<Moment>,

    /// Stop in order after so long: 90m, 2h, 1d; the same command goes on where it stopped
    #[arg(long, value_name = "TIME", value_parser = span)]
    stop_after: Option<Duration>,

    /// Stop in order once so many bytes were moved: 500M, 50G; the same command goes on where it stopped
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_transfer: Option<u64>,
}

/// Gives the options to every command that has files to move.
pub(crate) fn with_options(command: Command) -> Command {
    let commands = COMMANDS.into_iter().filter(|name| command.find_subcommand(name).is_some()).collect::<Vec<_>>();
    commands.into_iter().fold(command, |command, name| command.mut_subcommand(name, ScheduleArgs::augment_args))
}

/// Why a run was stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Signal,
    Time(Duration),
}

/// The limits of this process, over all that it runs.
#[derive(Debug)]
pub(crate) struct Limits {
    cancel: CancellationToken,
    args: OnceLock<ScheduleArgs>,
    allowance: OnceLock<Allowance>,
    begun: OnceCell<()>,
    stop: Arc<OnceLock<Stop>>,
    held: Mutex<Vec<Held>>,
}

/// A rate limit that is in use, and where it comes from.
#[derive(Debug)]
struct Held {
    limiter: Limiter,
    timetable: Timetable,
    origin: Origin,
}

/// What a rate limit comes from: read again, it may be another.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The file of settings.
    pub(crate) file: Which,
    /// What was typed.
    pub(crate) given: Vec<(String, Set)>,
    /// The host that decides.
    pub(crate) host: String,
    /// The profile that it was named by.
    pub(crate) profile: Option<String>,
}

impl Limits {
    /// Limits nothing yet. What stops a run cancels this.
    pub(crate) fn new(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            args: OnceLock::new(),
            allowance: OnceLock::new(),
            begun: OnceCell::new(),
            stop: Arc::default(),
            held: Mutex::default(),
        }
    }

    /// Takes what was typed; a dry run waits for nothing.
    pub(crate) fn take(&self, matches: &ArgMatches) {
        let Some((name, matches)) = matches.subcommand() else { return };
        if !COMMANDS.contains(&name) {
            return;
        }
        let mut args = ScheduleArgs::from_arg_matches(matches).unwrap_or_default();
        if matches.try_get_one::<bool>("dry_run").ok().flatten().copied().unwrap_or(false) {
            args.start_at = None;
        }
        if let Some(most) = args.max_transfer {
            let _ = self.allowance.set(Allowance::new(most, self.cancel.clone()));
        }
        let _ = self.args.set(args);
    }

    /// Returns how many bytes may be moved, all together.
    pub(crate) fn allowance(&self) -> Allowance {
        self.allowance.get().cloned().unwrap_or_default()
    }

    /// Refuses options that stop what can't be gone on with.
    pub(crate) fn refuse_for_pipes(&self) -> Result<(), Error> {
        match self.args.get() {
            Some(args) if args.stop_after.is_some() || args.max_transfer.is_some() => {
                let text = "--stop-after and --max-transfer don't go with standard input or output";
                Err(Error::new(ErrorKind::Usage, text).with_hint("nothing could go on where a pipe was stopped"))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the run may begin, and starts the clock that ends it; called before the first connection, whoever makes
    /// it. Only the first call waits.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(crate) async fn begin(&self, context: &Context) -> Result<()> {
        self.begun.get_or_try_init(|| self.begin_once(context)).await.copied()
    }

    async fn begin_once(&self, context: &Context) -> Result<()> {
        let Some(args) = self.args.get() else { return Ok(()) };
        if let Some(moment) = &args.start_at {
            self.wait_for(moment, context).await?;
        }
        if let Some(time) = args.stop_after {
            let (stop, cancel) = (Arc::clone(&self.stop), self.cancel.clone());
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                let _ = stop.set(Stop::Time(time));
                cancel.cancel();
            });
        }
        Ok(())
    }

    async fn wait_for(&self, moment: &Moment, context: &Context) -> Result<()> {
        let now = Timestamp::now();
        let begin = moment.after(&now.to_zoned(TimeZone::system()));
        let left = |now: Timestamp| Duration::try_from(begin.duration_since(now)).unwrap_or_default();
        if begin > now {
            context.note(&format!("haul: waiting until {} ({})", local_minute(begin), whole(left(now))));
        } else if begin < now {
            context.note(&format!("haul: beginning at once: {} is over", local_minute(begin)));
        }
        loop {
            let left = left(Timestamp::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK)) => {}
                () = self.cancel.cancelled() => return Err(Error::from(ErrorKind::Cancelled).into()),
            }
        }
    }

    /// A signal stops the run, unless a limit did before.
    pub(crate) fn stopped_by_signal(&self) {
        if !self.allowance().is_used_up() {
            let _ = self.stop.set(Stop::Signal);
        }
    }

    /// Returns by which limit the run was stopped.
    pub(crate) fn reached(&self) -> Option<String> {
        match (self.stop.get(), self.args.get()) {
            (Some(Stop::Time(time)), _) => Some(format!("stopped after {}, as --stop-after says", duration(*time))),
            (None, Some(ScheduleArgs { max_transfer: Some(most), .. })) if self.allowance().is_used_up() => {
                Some(format!("stopped after {}, as --max-transfer says", bytes(*most)))
            }
            _ => None,
        }
    }

    /// Returns an error with its exit status: what a limit has stopped was not interrupted.
    pub(crate) fn failure(&self, error: Error) -> Failure {
        match error.kind() == ErrorKind::Cancelled && self.reached().is_some() {
            true => Failure::stopped(error),
            false => error.into(),
        }
    }

    /// The same for what a command returned.
    pub(crate) fn stopped_or(&self, failure: Failure) -> Failure {
        match failure.error().kind() == ErrorKind::Cancelled && failure.exit() == Exit::Interrupted {
            true => self.failure(failure.into_parts().0),
            false => failure,
        }
    }

    /// Makes the rate limit of a job; those that say the same share one.
    pub(crate) fn limiter(&self, timetable: Timetable, origin: Origin) -> Limiter {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.iter().find(|held| held.timetable == timetable && held.origin.alike(&origin)) {
            return held.limiter.clone();
        }
        let limiter = Limiter::of(timetable.clone());
        held.push(Held { limiter: limiter.clone(), timetable, origin });
        limiter
    }

    /// Reads the files of settings again and applies their rate limits; says what counts from now on.
    pub(crate) fn read_again(&self, context: &Context) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = Vec::new();
        for held in held.iter_mut() {
            let line = match held.origin.read_again(context) {
                Ok(timetable) => {
                    held.limiter.set(timetable.clone());
                    held.timetable = timetable;
                    now_is(&held.limiter, &held.timetable)
                }
                Err(why) => format!("haul: the rate limit stays as it was: {why}"),
            };
            if !told.contains(&line) {
                context.note(&line);
                told.push(line);
            }
        }
    }
}

impl Origin {
    fn alike(&self, other: &Self) -> bool {
        self.file == other.file && self.profile == other.profile && self.is_typed() == other.is_typed()
    }

    fn is_typed(&self) -> bool {
        self.given.iter().any(|(name, _)| name == "limit-rate")
    }

    fn read_again(&self, context: &Context) -> Result<Timetable, String> {
        if self.is_typed() {
            return Err("it was given with --limit-rate".into());
        }
        let path = self.file.path().ok_or("no file of settings is heeded")?;
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err("the settings don't come from a file that can be read again".into()),
            Err(_) => return Err("there is no file of settings".into()),
        }
        let settings = Settings::of(&context.known, &self.given, self.file.clone());
        let args = settings.and_then(|settings| settings.transfer(&self.host, self.profile.as_deref()));
        args.map(|args| args.timetable()).map_err(|error| super::report::text(&error))
    }
}

fn now_is(limiter: &Limiter, timetable: &Timetable) -> String {
    let now = match limiter.rate() {
        Some(rate) => format!("haul: the rate limit is {}/s now", bytes(rate)),
        None => "haul: there is no rate limit now".to_owned(),
    };
    match timetable.next(&jiff::Zoned::now()) {
        Some(next) => format!("{now}, until {}", local_minute(next)),
        None => now,
    }
}

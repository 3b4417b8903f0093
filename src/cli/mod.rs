//! The command line: what the user types, and what they see. One file per command.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::error::{ContextKind, ErrorKind as ClapKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use haul::Error;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod batch;
mod cat;
mod check;
mod check_sums;
mod check_trees;
mod config;
mod context;
mod demo;
mod digest;
mod entry;
mod filters;
mod format;
mod ftp_options;
mod get;
mod going_on;
mod guard;
mod interrupted;
mod json;
mod kept;
mod keyring;
mod limits;
mod log;
mod login;
mod ls;
mod mkdir;
mod mv;
mod network;
mod open;
mod options;
mod progress;
mod prompt;
mod put;
mod reading;
mod report;
mod reports;
mod resume;
mod rm;
mod screen;
mod secret_line;
mod serve;
mod settings;
mod signals;
mod stat;
mod stdout;
mod sync;
mod synced;
mod terminal;
mod transfer;
mod values;
mod verdicts;

use context::Context;
use options::OutputArgs;
use report::{Exit, Result};
use settings::{Known, Set};

/// Moves files over SFTP, FTP and FTPS: resumable, verified, atomic
#[derive(Debug, Parser)]
#[command(
    name = "haul",
    version,
    disable_help_subcommand = true,
    override_usage = "haul [OPTIONS] COMMAND",
    after_help = "\
URLs:
  sftp://user@host:port/path   from the root; /~/path from the home directory
  ftp://host/path              from the login's directory; %2F in front: from the root
  ftpes://host/path            FTP over TLS; ftps://: with TLS from the first byte
  work:path                    below the URL that the profile work stands for (haul config --help)
  file:///path or a plain path this machine

haul COMMAND --help explains a command and shows examples.

Exit status:
  0 all done                          3 could not connect or log in
  1 some items failed                 4 verification failed
  2 wrong usage                       5 stopped by --stop-after or --max-transfer
  6 another run holds the lock        (haul batch)
                                      130 interrupted by Ctrl-C, SIGTERM or SIGHUP"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Get(get::Get),
    Put(put::Put),
    Sync(sync::Sync),
    Resume(resume::Resume),
    Cat(cat::Cat),
    Ls(ls::Ls),
    Stat(stat::Stat),
    Digest(digest::Digest),
    Check(check::Check),
    Mkdir(mkdir::Mkdir),
    Rm(rm::Rm),
    Mv(mv::Mv),
    Login(login::Login),
    Logout(login::Logout),
    Batch(batch::Batch),
    Config(config::Config),
    Serve(serve::Serve),
    Demo(demo::Demo),
}

/// Enough for every run.
const MANY_FILES: u64 = 4096;
/// What the runtime opens for itself, and a little more; where it can't, it panics.
const LEAST_FILES: u64 = 16;

impl Command {
    async fn run(self, context: &Arc<Context>) -> Result<()> {
        match self {
            Self::Get(get) => get.run(context).await,
            Self::Put(put) => put.run(context).await,
            Self::Sync(sync) => sync.run(context).await,
            Self::Resume(resume) => resume.run(context).await,
            Self::Cat(cat) => cat.run(context).await,
            Self::Ls(ls) => ls.run(context).await,
            Self::Stat(stat) => stat.run(context).await,
            Self::Digest(digest) => digest.run(context).await,
            Self::Check(check) => check.run(context).await,
            Self::Mkdir(mkdir) => mkdir.run(context).await,
            Self::Rm(rm) => rm.run(context).await,
            Self::Mv(mv) => mv.run(context).await,
            Self::Login(login) => login.run(context).await,
            Self::Logout(logout) => logout.run(context).await,
            Self::Batch(batch) => batch.run(context).await,
            Self::Config(config) => config.run(context),
            Self::Serve(serve) => serve.run(context).await,
            Self::Demo(demo) => demo.run(context).await,
        }
    }

    /// Runs it to its end, or until it is cancelled.
    async fn run_in(self, context: &Arc<Context>) -> Result<()> {
        let stops_in_order = self.stops_in_order();
        tokio::select! {
            result = self.run(context) => result,
            () = context.cancel.cancelled(), if !stops_in_order => Err(Error::from(haul::ErrorKind::Cancelled).into()),
        }
    }

    /// Returns whether the command sees the cancel token itself and ends in order; the others are just dropped.
    fn stops_in_order(&self) -> bool {
        matches!(
            self,
            Self::Get(_)
                | Self::Put(_)
                | Self::Sync(_)
                | Self::Resume(_)
                | Self::Batch(_)
                | Self::Serve(_)
                | Self::Demo(_)
        )
    }
}

/// Parses, runs and says how it ended.
pub(crate) fn main() -> ExitCode {
    signals::hold_back_early();
    let known = Known::new();
    let command = reports::with_options(limits::with_options(commands(&known)));
    let parsed = command.clone().try_get_matches_from(arguments());
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, known.given(&matches), matches)));
    let (cli, given, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage_error(&error),
    };
    let Some(wanted) = cli.command else {
        // Like any help it may be piped to a reader that leaves.
        let _ = Cli::command().print_help();
        return ExitCode::SUCCESS;
    };
    let context = Arc::new(Context::new(&cli.output, known, given));
    log::start(&context.screen, context.quiet, context.verbose);
    context.limits.take(&matches);
    let begun = context.recorder.open(&command, &matches, &context);
    match begun.map_err(Into::into).and_then(|()| run(wanted, &context)) {
        Ok(()) => context.recorder.ended(context.report.exit(), None),
        Err(failure) => {
            let failure = context.limits.stopped_or(failure);
            context.recorder.ended(context.report.exit().max(failure.exit()), Some(failure.error()));
            context.report.failed(failure);
        }
    }
    let exit = if context.stdout.is_closed() { Exit::BrokenPipe } else { context.report.exit() };
    if let Err(error) = context.recorder.close(exit) {
        context.report.failed(error);
    }
    if context.stdout.is_closed() {
        context.report.ends(Exit::BrokenPipe);
        return Exit::BrokenPipe.into();
    }
    context.report.close().into()
}

/// Returns the command line; `haul help COMMAND` asks for the same as `haul COMMAND --help`, as with other programs.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|word| word == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    arguments
}

/// Reads a command line, and which of its options can be settings.
fn parse(
    known: &Known,
    args: impl IntoIterator<Item = OsString>,
) -> std::result::Result<(Cli, Vec<(String, Set)>), clap::Error> {
    let matches = commands(known).try_get_matches_from(args)?;
    Ok((Cli::from_arg_matches(&matches)?, known.given(&matches)))
}

/// Returns what clap knows of all commands.
fn commands(known: &Known) -> clap::Command {
    known.with_opposites(Cli::command())
}

fn run(command: Command, context: &Arc<Context>) -> Result<()> {
    signals::hold_back_stops();
    raise_file_limit(&command)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Disks have threads of their own. Where all cores are workers, each event is handed back and forth between them.
        .worker_threads((cores / 2).clamp(1, 4))
        .enable_all()
        .build()
        .map_err(|e| Error::io("start the runtime", e))?;
    let result = runtime.block_on(async {
        signals::watch(context)?;
        Box::pin(command.run_in(context)).await
    });
    // A thread that waits for standard input or the terminal must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    prompt::restore_terminal();
    result
}

/// Lets the process have more files open than usual: each client of a server may have many, and so has a run.
///
/// # Errors
/// When it may not even have those without which nothing begins.
fn raise_file_limit(command: &Command) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = match command {
        Command::Serve(_) => limit.maximum,
        // Programs that haul starts inherit it, and some try to close each file that they might have.
        _ => Some(limit.maximum.map_or(MANY_FILES, |maximum| maximum.min(MANY_FILES))),
    };
    let enough = limit.current.is_none_or(|now| wanted.is_some_and(|wanted| now >= wanted));
    if !enough {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: limit.maximum });
    }
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64);
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < open + LEAST_FILES => Err(Error::io("start", Errno::MFILE.into()).into()),
        _ => Ok(()),
    }
}

/// Shows what clap found wrong, or the help or version that was asked for.
fn usage_error(error: &clap::Error) -> ExitCode {
    let screen = screen::Screen::default();
    let unknown = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string);
    if let (ClapKind::InvalidSubcommand, Some(true)) = (error.kind(), unknown.map(|word| word.contains("://"))) {
        screen.line("haul: a URL needs a command in front of it\n");
        screen.line("hint: haul get URL downloads it, haul ls URL lists it; haul --help shows all commands");
        return Exit::Usage.into();
    }
    if let Some((name, option)) = option_of_trees(error) {
        let more = if name == "sync" { ", with their times; -p keeps permissions as well" } else { "" };
        screen.line(&format!("haul: {name} has no option {option}\n"));
        screen.line(&format!("hint: {name} always takes whole trees{more}"));
        return Exit::Usage.into();
    }
    match error.use_stderr() {
        true => {
            let text = error.render().to_string();
            screen.line(&format!("haul: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end()));
        }
        false => drop(error.print()),
    }
    u8::try_from(error.exit_code()).unwrap_or(2).into()
}

/// Returns the command and the option where somebody says as with `cp` or `rsync` what is always done.
fn option_of_trees(error: &clap::Error) -> Option<(&'static str, String)> {
    let option = error.get(ContextKind::InvalidArg).filter(|_| error.kind() == ClapKind::UnknownArgument)?.to_string();
    let usage = error.get(ContextKind::Usage)?.to_string();
    let name = ["sync", "check"].into_iter().find(|name| usage.contains(&format!("haul {name} ")))?;
    ["-r", "-R", "-a", "--recursive", "--archive"].contains(&option.as_str()).then_some((name, option))
}

//! `haul batch`: the jobs of a file, or a script for `sftp -b`, one after the other over shared connections.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use haul::batch::{self, JobFile};
use haul::config::Problem;
use haul::transport::escape;
use haul::{Error, ErrorKind};

use super::context::{Context, usage};
use super::options::{ConnectArgs, TransferArgs, state_dir};
use super::progress::View;
use super::report::Result;
use super::values::choice;

mod argv;
mod ends;
mod foresee;
mod hook;
mod jobs;
mod listing;
mod local;
mod lock;
mod record;
mod remote;
mod session;
mod verbs;

use jobs::Runner;
use session::Session;
use verbs::Verbs;

/// The longest file that is read.
const LONGEST: u64 = 16 << 20;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Auto,
    Toml,
    Commands,
}

/// Run the jobs of a file, or a script for sftp
///
/// FILE is a job file in TOML, or a script of the commands that sftp -b takes; what it is, its name (.toml) or its first line
/// tells. All of it is read first: every mistake is told with line and column before anything moves. Each server is logged
/// in to once. Options given here count for all jobs and win over those of the file.
///
/// A job file has [[job]] sections, each with one of get, put, sync, check, rm, mkdir, mv (what: a path or URL, or a list
/// of them), to (where to), and any option of that command with _ for -. Beside them: name, needs (jobs that must be done
/// before), on_error ("stop", the default, "continue", or "retry"), retry and retry_wait, when and unless (something exists),
/// on_success and on_failure (a command that gets the result as JSON on its standard input), hook_timeout, lock.
/// [defaults] has options for all jobs. ${NAME} is a variable of the environment, ${date:%Y-%m-%d} the date; $${ is a literal
/// ${. Passwords stay out of it: password_file, haul login and ~/.netrc keep them. Paths are seen from the current directory.
///
/// In a script, - before a command ignores its failure, @ doesn't show it; any other failure ends the run. --endpoint names
/// the server.
///
/// --dry-run tells what each job would do, as far as that can be known: what an earlier job makes is not there yet.
///
/// After an interruption the same command goes on: files that are there are skipped, and of a job file so is every mkdir, rm
/// and mv that the run had done, if that is no more than 12 hours ago (--no-resume forgets it).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul batch night.toml
  haul batch --dry-run night.toml                     what each job would do
  haul batch --endpoint sftp://me@host upload.sftp    a script that was written for sftp -b
  echo 'get *.csv' | haul batch --endpoint work: -

A job file:
  lock = true                        # a second run says so and ends with status 6
  on_failure = [\"mail\", \"-s\", \"night job failed\", \"me@example.org\"]

  [defaults]
  limit_rate = \"5M\"
  on_error = \"continue\"

  [[job]]
  name = \"fetch\"
  get = [\"sftp://me@host/logs/${date:%Y-%m-%d}/*.gz\", \"ftp://other/pub/list\"]
  to = \"incoming/\"
  on_error = \"retry\"
  retry = 5

  [[job]]
  name = \"publish\"
  needs = [\"fetch\"]
  put = \"site/.\"
  to = \"sftp://me@${WEBHOST}/var/www\"
  recursive = true
  unless = \"site/.draft\"")]
pub(crate) struct Batch {
    /// What to run (- is standard input)
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// What FILE is
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = choice(&[
        ("auto", "Its name or its first line tells", Format::Auto),
        ("toml", "A job file", Format::Toml),
        ("commands", "A script for sftp -b", Format::Commands),
    ]))]
    format: Format,

    /// The server of a script: a URL or a profile, with the directory to start in
    #[arg(long, value_name = "URL")]
    endpoint: Option<OsString>,

    /// Run so many jobs at once, as far as needs lets them
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,

    #[command(flatten)]
    transfer: TransferArgs,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Batch {
    /// Reads the whole file, then runs it.
    pub(crate) async fn run(self, context: &Arc<Context>) -> Result<()> {
        let text = read(&self.file)?;
        let name = self.file_name();
        let is_jobs = match self.format {
            Format::Toml => true,
            Format::Commands => false,
            Format::Auto => self.file.extension().is_some_and(|it| it == "toml") || batch::is_job_file(&text),
        };
        if self.transfer.progress == View::Json {
            context.screen.speak_json();
        }
        match is_jobs {
            true => self.run_jobs(context, &name, &text).await,
            false => self.run_script(context, &name, &text).await,
        }
    }

    async fn run_jobs(&self, context: &Arc<Context>, name: &str, text: &[u8]) -> Result<()> {
        if self.endpoint.is_some() {
            let hint = "in a job file each job has its URLs; --format commands insists on a script";
            return Err(usage("--endpoint is for scripts").with_hint(hint).into());
        }
        let text = std::str::from_utf8(text).map_err(|e| {
            let line = text[..e.valid_up_to()].split(|&byte| byte == b'\n').count();
            usage("it isn't UTF-8").at(format!("{name}:{line}"))
        })?;
        let verbs = Verbs::new(&context.known);
        let (file, problems) = JobFile::read(text, &verbs);
        let reader = argv::Reader::new(context, &verbs, &self.connect, self.parallel > 1)?;
        let commands = reader.read(&file, problems).map_err(|problems| tell(context, name, &problems))?;
        let path = self.path();
        let lock = match (&file.lock, &path) {
            _ if self.transfer.dry_run => None,
            (None, _) => None,
            (Some(batch::Lock::At(at)), _) => Some(lock::take(Path::new(at))?),
            (Some(batch::Lock::Own), Some(path)) => Some(lock::take(&lock::own(&state_dir()?, path, ""))?),
            (Some(batch::Lock::Own), None) => {
                let hint = "name one: lock = \"/run/lock/night\"";
                return Err(usage("standard input has no lock file of its own").with_hint(hint).into());
            }
        };
        let settings = jobs::Settings {
            parallel: usize::from(self.parallel),
            dry_run: self.transfer.dry_run,
            json: self.transfer.json,
            fresh: self.transfer.is_fresh(),
        };
        let runner = Runner::new(context, name, path.as_deref(), &file, commands, settings)?;
        let result = runner.run().await;
        drop(lock);
        result
    }

    async fn run_script(&self, context: &Arc<Context>, name: &str, text: &[u8]) -> Result<()> {
        let lines = batch::read_script(text).map_err(|problems| tell(context, name, &problems))?;
        let Some(endpoint) = &self.endpoint else {
            let hint = "--endpoint sftp://me@host names it; a job file begins with [[job]] (--format toml insists)";
            return Err(usage("a script needs a server").with_hint(hint).into());
        };
        if self.parallel > 1 {
            return Err(usage("--parallel is for job files: a script goes line by line").into());
        }
        let session = Session::begin(context, &self.connect, endpoint, name).await?;
        session.run(&lines).await
    }

    /// How the file is called in messages.
    fn file_name(&self) -> String {
        match self.file == Path::new("-") {
            true => "standard input".into(),
            false => escape(self.file.as_os_str().as_bytes()),
        }
    }

    /// What the file is known by, however it is named.
    fn path(&self) -> Option<PathBuf> {
        if self.file == Path::new("-") {
            return None;
        }
        self.file.canonicalize().or_else(|_| std::path::absolute(&self.file)).ok()
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io("read the file", e).at(escape(file.as_os_str().as_bytes())).with_kind(ErrorKind::Usage);
    let mut text = Vec::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin().lock().take(LONGEST + 1).read_to_end(&mut text),
        false => std::fs::File::open(file).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut text)),
    };
    read.map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(usage("the file is too long for a batch").at(escape(file.as_os_str().as_bytes())).into());
    }
    Ok(text)
}

/// Tells everything that is wrong, and returns the error that ends the run.
fn tell(context: &Context, name: &str, problems: &[Problem]) -> Error {
    for problem in problems {
        context.screen.line(&format!("haul: {name}:{}: {}", problem.place, problem.message));
        if let Some(hint) = &problem.hint {
            context.screen.line(&format!("  {hint}"));
        }
    }
    let mistakes = if problems.len() == 1 { "1 mistake".to_owned() } else { format!("{} mistakes", problems.len()) };
    usage(format!("{mistakes}; nothing was done")).at(name)
}

//! Options that several commands share. A flag, its help and its parse are neighbours.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use haul::transfer::{self, Allowance, Existing, Limiter, Timetable, Verify};
use haul::transport::{ConnectOptions, Durability, HostKeyPolicy, Secret, SshConfig, SshEngine, TlsMode};
use haul::{Error, ErrorKind};

use super::ftp_options::FtpArgs;
use super::network::NetworkArgs;
use super::progress::View;
use super::report::Report;
use super::secret_line::read_secret;
use super::settings::files::{Which, usual_netrc};
use super::values::{Count, choice, count, duration, limit, retries};

/// How much is said; for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output options")]
pub(crate) struct OutputArgs {
    // First of its kind in every command: without a number, the place would depend on how many commands there are.
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 0)]
    pub(crate) quiet: bool,

    /// Say more; -vv and -vvv say what happens inside
    #[arg(short, long, global = true, action = clap::ArgAction::Count, display_order = 1)]
    pub(crate) verbose: u8,
}

/// How files are moved.
#[derive(Debug, Args)]
#[command(next_help_heading = "Transfer options")]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub(crate) struct TransferArgs {
    /// Replace files even if size and time are the same
    #[arg(short, long, group = "existing")]
    force: bool,

    /// Replace files only if the source is newer
    #[arg(short, long, group = "existing")]
    update: bool,

    /// Replace no file
    #[arg(short, long, group = "existing")]
    no_clobber: bool,

    /// Keep permissions (never setuid, setgid and sticky) and symbolic links as well; times are always kept
    #[arg(short, long)]
    pub(crate) preserve: bool,

    /// Move so many files at once
    #[arg(short, long, value_name = "N", default_value = "auto", value_parser = count)]
    jobs: Count,

    /// Move a large file in so many pieces at once, each on a connection of its own
    #[arg(long, value_name = "N", default_value = "auto", value_parser = count)]
    segments: Count,

    /// Leave holes for runs of zeros in files written here
    #[arg(long)]
    pub(crate) sparse: bool,

    /// Start anew instead of going on with what an interrupted run left
    #[arg(long)]
    no_resume: bool,

    /// How to prove what arrived
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = choice(&[
        ("auto", "Sizes; after a resume or retry also a digest or an overlap. Sees no bit that was flipped on the way", Verify::Auto),
        ("size", "Sizes only", Verify::Size),
        ("digest", "The strongest digest of the whole file that both ends give, or failure", Verify::Digest),
    ]))]
    verify: Verify,

    /// Make sure that files survive a loss of power before they count as done
    #[arg(long)]
    durable: bool,

    /// Move at most so many bytes a second, all files together: 500k, 5M, 1.5G (1k is 1024), off
    ///
    /// Also by the clock, each entry until the next: "08:00 2M, 18:00 off", "Mon-Fri 08:00 2M, Mon-Fri 18:00 off". The
    /// signal SIGUSR1 makes a run read it from the file of settings again.
    #[arg(long, value_name = "RATE", value_parser = limit)]
    limit_rate: Option<Timetable>,

    /// What came of it.
    #[arg(skip)]
    pub(crate) limiter: Option<Limiter>,

    /// How much may be moved at all.
    #[arg(skip)]
    pub(crate) allowance: Allowance,

    /// Try a file so often again after a broken connection that brought it no further
    #[arg(long, value_name = "N", default_value = "5", value_parser = retries)]
    pub(crate) retries: u32,

    /// Tell what would be copied, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Write one JSON object for each file, and a summary, to standard output
    #[arg(long, help_heading = "Output options")]
    pub(crate) json: bool,

    /// How to show progress, on standard error
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Output options",
        value_parser = choice(&[
        ("auto", "Bars on a terminal, lines otherwise", View::Auto),
        ("bar", "Bars", View::Bars),
        ("plain", "A line for each file", View::Lines),
        ("json", "An object for each event", View::Json),
        ("none", "Nothing but errors", View::Nothing),
    ]))]
    pub(crate) progress: View,
}

impl TransferArgs {
    /// Returns whether several connections may be of use.
    pub(crate) fn limits_nothing(&self) -> bool {
        !self.timetable().is_limit() && self.jobs.0 != Some(1) && !self.dry_run
    }

    /// Returns the rate limit that was asked for.
    pub(crate) fn timetable(&self) -> Timetable {
        self.limit_rate.clone().unwrap_or_else(|| Timetable::always(None))
    }

    /// Returns whether what an earlier run left is not to count.
    pub(crate) fn is_fresh(&self) -> bool {
        self.no_resume
    }

    /// Makes the library's options of them.
    pub(crate) fn options(&self) -> Result<transfer::Options, Error> {
        Ok(transfer::Options {
            limiter: self.limiter.clone().unwrap_or_else(|| Limiter::of(self.timetable())),
            allowance: self.allowance.clone(),
            jobs: self.jobs.0,
            segments: self.segments.0,
            resume: !self.no_resume,
            verify: self.verify,
            durability: if self.durable { Durability::Synced } else { Durability::Cached },
            retries: self.retries,
            preserve_mode: self.preserve,
            existing: match (self.force, self.update, self.no_clobber) {
                (true, _, _) => Existing::Replace,
                (_, true, _) => Existing::ReplaceOlder,
                (_, _, true) => Existing::Keep,
                _ => Existing::ReplaceDifferent,
            },
            dry_run: self.dry_run,
            ..transfer::Options::new(state_dir()?)
        })
    }
}

/// How to connect and log in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection options")]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Take the password from the first line of this file (- is standard input)
    ///
    /// The variable HAUL_PASSWORD works as well. Without either, the keyring (see haul login) and the netrc are looked
    /// into, and then haul asks on the terminal. A password in the URL is seen by everybody who may list processes.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// Look for logins and passwords here instead of $NETRC or ~/.netrc; none looks nowhere
    #[arg(long, value_name = "FILE")]
    netrc: Option<PathBuf>,

    /// Heed this SSH configuration instead of ~/.ssh/config; none heeds nothing
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,

    /// Try this SSH private key; may be given several times [default: as ~/.ssh/config says, else its usual files]
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,

    /// Read and write known SSH host keys here, or none [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,

    /// What to do about an SSH host key that is not known yet [default: as ~/.ssh/config says, else ask]
    #[arg(long, value_name = "POLICY", value_parser = choice(&[
        ("ask", "Ask on the terminal, refuse without one", HostKeyPolicy::Ask),
        ("strict", "Refuse", HostKeyPolicy::Strict),
        ("accept-new", "Accept and write it down; a changed key is still refused", HostKeyPolicy::AcceptNew),
    ]))]
    host_key: Option<HostKeyPolicy>,

    /// Which SSH implementation to use
    #[arg(long, value_name = "ENGINE", default_value = "russh", value_parser = choice(&[
        ("russh", "Built in, the fastest", SshEngine::Russh),
        ("libssh2", "Built in, for servers that the first can't talk to", SshEngine::Libssh2),
        ("openssh", "The system's ssh, with all of its configuration", SshEngine::Openssh),
    ]))]
    ssh_engine: SshEngine,

    /// Whether ftp:// is encrypted (ftpes:// and ftps:// always are)
    #[arg(long, value_name = "MODE", default_value = "allow", value_parser = choice(&[
        ("off", "Never", TlsMode::Off),
        ("allow", "When the server offers it", TlsMode::Allow),
        ("require", "Always: fail where the server doesn't offer it", TlsMode::Require),
    ]))]
    tls: TlsMode,

    /// Trust the certificate authorities of this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    #[command(flatten)]
    ftp: FtpArgs,

    #[command(flatten)]
    pub(crate) network: NetworkArgs,

    /// Give up a phase after so long without progress
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,

    /// Open at most so many connections to a server
    #[arg(short, long, value_name = "N", default_value = "auto", value_parser = count)]
    connections: Count,
}

/// Which file of settings is heeded.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection options")]
pub(crate) struct ConfigArgs {
    /// Read settings and profiles here instead of ~/.config/haul/config.toml; none reads none
    #[arg(long = "config", value_name = "FILE", id = "config")]
    pub(crate) file: Option<PathBuf>,
}

impl ConnectArgs {
    /// Makes the library's options of them, without a password.
    pub(crate) fn options(&self) -> Result<ConnectOptions, Error> {
        let mut options = ConnectOptions {
            timeout: self.timeout,
            ssh_config: match &self.ssh_config {
                None => SshConfig::Usual,
                Some(file) if file == Path::new("none") => SshConfig::None,
                Some(file) => SshConfig::File(file.clone()),
            },
            identities: self.identity.clone(),
            // As UserKnownHostsFile has it: nothing is known, nothing is written.
            known_hosts: match &self.known_hosts {
                Some(file) if file == Path::new("none") => Some("/dev/null".into()),
                file => file.clone(),
            },
            host_key: self.host_key,
            ssh_engine: self.ssh_engine,
            tls: self.tls,
            tls_ca: self.tls_ca.clone(),
            ftp: self.ftp.options(),
            max_connections: self.connections.0,
            ..ConnectOptions::default()
        };
        self.network.apply(&mut options)?;
        Ok(options)
    }

    /// Returns which netrc to read.
    pub(crate) fn netrc(&self) -> Which {
        Which::new(self.netrc.as_deref(), usual_netrc)
    }
}

/// Returns the password that was given for this run: from a file, else from the environment.
pub(crate) fn given_password(args: &ConnectArgs, report: &Report) -> Result<Option<Secret>, Error> {
    match &args.password_file {
        Some(file) => read_password(file, report).map(Some),
        None => std::env::var_os("HAUL_PASSWORD").map(password_from_environment).transpose(),
    }
}

/// Reads a password from the first line of a file; warns when others can read it too.
pub(crate) fn read_password(file: &Path, report: &Report) -> Result<Secret, Error> {
    let failed = |e| Error::io("read the password file", e).at(file.display()).with_kind(ErrorKind::Usage);
    if file == Path::new("-") {
        return first_line(io::stdin()).map_err(failed);
    }
    let opened = std::fs::File::open(file).map_err(failed)?;
    let mode = opened.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        report.warn(&format!("{}: others can read this password file; chmod 600 it", file.display()));
    }
    first_line(opened).map_err(failed)
}

fn first_line(file: impl AsFd) -> io::Result<Secret> {
    let line = read_secret(file)?.filter(|line| !line.expose().is_empty());
    line.ok_or_else(|| io::Error::other("its first line is empty"))
}

fn password_from_environment(value: OsString) -> Result<Secret, Error> {
    let text = value.into_string().map_err(|_| Error::new(ErrorKind::Usage, "HAUL_PASSWORD is not UTF-8"))?;
    Ok(Secret::new(text))
}

/// Returns the folder for journals, keys of embedded servers and the like: `$XDG_STATE_HOME/haul`.
pub(crate) fn state_dir() -> Result<PathBuf, Error> {
    transfer::usual_state_dir().ok_or_else(|| {
        Error::new(ErrorKind::Usage, "found no home directory to keep journals in")
            .with_hint("set HOME or XDG_STATE_HOME")
    })
}

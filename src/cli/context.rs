//! What every command is given, and the endpoints it connects to.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use haul::endpoint::{Endpoint, Scheme};
use haul::plan::{Filter, Place};
use haul::transfer;
use haul::transport::{self, ConnectOptions, Passwords, RemotePath, Secret, Transport, escape};
use haul::{Error, ErrorKind};
use tokio_util::sync::CancellationToken;

use super::filters::FilterArgs;
use super::kept::Kept;
use super::limits::{Limits, Origin};
use super::open::{Login, Open};
use super::options::{ConnectArgs, OutputArgs, TransferArgs, given_password, read_password, state_dir};
use super::prompt::TerminalPrompt;
use super::report::{Failure, Report, Result};
use super::reports::Recorder;
use super::screen::Screen;
use super::settings::{Known, Set, Settings};
use super::stdout::Stdout;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// Standard output.
    pub(crate) stdout: Arc<Stdout>,
    /// Standard error.
    pub(crate) screen: Arc<Screen>,
    /// Where errors go.
    pub(crate) report: Arc<Report>,
    /// Say nothing but errors.
    pub(crate) quiet: bool,
    /// How much more to say.
    pub(crate) verbose: u8,
    /// Cancelled by the first signal.
    pub(crate) cancel: CancellationToken,
    /// When the run begins and ends, and how fast it goes.
    pub(crate) limits: Arc<Limits>,
    /// What reports tell of it.
    pub(crate) recorder: Recorder,
    /// The options that can be settings.
    pub(crate) known: Arc<Known>,
    /// Those of them that were typed.
    pub(crate) given: Vec<(String, Set)>,
    /// The transports that outlive a command, where it is one of several.
    open: Option<Arc<Open>>,
}

impl Context {
    /// Sets up the outputs; nothing is written.
    pub(crate) fn new(output: &OutputArgs, known: Known, given: Vec<(String, Set)>) -> Self {
        let screen = Arc::<Screen>::default();
        let cancel = CancellationToken::new();
        Self {
            limits: Arc::new(Limits::new(cancel.clone())),
            recorder: Recorder::default(),
            stdout: Arc::new(Stdout::new()),
            report: Arc::new(Report::new(Arc::clone(&screen), output.quiet)),
            screen,
            quiet: output.quiet,
            verbose: output.verbose,
            cancel,
            known: Arc::new(known),
            given,
            open: None,
        }
    }

    /// Sets up a command inside of this one: it has options, errors and an end of its own, is cancelled with this one, and
    /// leaves its transports to the next.
    pub(crate) fn within(&self, given: Vec<(String, Set)>, open: &Arc<Open>, recorder: &Recorder) -> Self {
        Self {
            limits: Arc::clone(&self.limits),
            recorder: recorder.clone(),
            stdout: Arc::clone(&self.stdout),
            screen: Arc::clone(&self.screen),
            report: Arc::new(Report::new(Arc::clone(&self.screen), self.quiet)),
            quiet: self.quiet,
            verbose: self.verbose,
            cancel: self.cancel.child_token(),
            known: Arc::clone(&self.known),
            given,
            open: Some(Arc::clone(open)),
        }
    }

    /// Makes whom the connections may ask.
    pub(crate) fn prompt(&self) -> Arc<TerminalPrompt> {
        Arc::new(TerminalPrompt::new(Arc::clone(&self.screen), self.quiet))
    }

    /// Makes a note for people, left out by `-q`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.screen.line(text);
        }
    }
}

/// The endpoints of one command, each with settings of its own: each login is made once.
#[derive(Debug)]
pub(crate) struct Connections<'a> {
    context: &'a Context,
    settings: Settings<'a>,
    /// The password that was given for all of them.
    password: Option<Secret>,
    /// Where others may be kept.
    kept: Arc<Kept>,
    open: Vec<(Endpoint, Option<String>, Arc<dyn Transport>)>,
    /// The operands that named a profile, and which.
    profiles: Vec<(Endpoint, String)>,
    /// The endpoints whose user the netrc named.
    logins_of_netrc: Vec<Endpoint>,
    warned: bool,
    sparse: bool,
    /// Whether as many connections are opened at once as served a host best before.
    remembering: bool,
}

impl<'a> Connections<'a> {
    /// Reads the settings; nothing is connected yet.
    pub(crate) fn new(args: &ConnectArgs, context: &'a Context) -> Result<Self> {
        args.network.warn(&context.report);
        let password = given_password(args, &context.report)?;
        Self::with(args, &context.given, password, context)
    }

    /// The same with other options than those that were typed, of which `args` was made.
    pub(crate) fn with(
        args: &ConnectArgs,
        given: &'a [(String, Set)],
        password: Option<Secret>,
        context: &'a Context,
    ) -> Result<Self> {
        Ok(Self {
            context,
            settings: Settings::load(&context.known, given, args.config.file.as_deref())?,
            password,
            kept: Arc::new(Kept::new(Arc::clone(&context.report))),
            open: Vec::new(),
            profiles: Vec::new(),
            logins_of_netrc: Vec::new(),
            warned: false,
            sparse: false,
            remembering: false,
        })
    }

    /// Prepares for moving files between endpoints: returns what the command line and the settings for them come to.
    pub(crate) fn for_transfer(&mut self, sources: &[Endpoint], destination: &Endpoint) -> Result<TransferArgs> {
        // One rate, one number of retries for all.
        let decisive = decisive(sources, destination);
        let args = self.settings.transfer(&decisive.host, self.profile(decisive))?;
        let (file, given) = self.settings.origin();
        let profile = self.profile(decisive).map(str::to_owned);
        let origin = Origin { file: file.clone(), given: given.to_vec(), host: decisive.host.clone(), profile };
        let mut args = args;
        args.limiter = Some(self.context.limits.limiter(args.timetable(), origin));
        args.allowance = self.context.limits.allowance();
        self.sparse = args.sparse;
        self.remembering = args.limits_nothing();
        Ok(args)
    }

    /// Makes the filter of what was typed and the settings for these endpoints; reads the files that it names.
    pub(crate) async fn filter(
        &self,
        typed: &FilterArgs,
        sources: &[Endpoint],
        destination: &Endpoint,
    ) -> Result<Filter> {
        let decisive = decisive(sources, destination);
        let settings = self.settings.filters(&decisive.host, self.profile(decisive))?;
        typed.filter(&settings, self.context).await
    }

    /// Reads URLs, profiles and plain paths, all of them before anything is connected.
    pub(crate) fn parse(&mut self, operands: &[OsString]) -> Result<Vec<Endpoint>> {
        operands.iter().map(|operand| self.parse_one(operand)).collect()
    }

    /// Reads one URL, profile or plain path; a password in it is warned of once. An FTP login that isn't named is that of
    /// the netrc, if it has one for the host.
    pub(crate) fn parse_one(&mut self, operand: &OsStr) -> Result<Endpoint> {
        let (mut endpoint, profile) = self.settings.endpoint(operand).map_err(|e| e.at(without_password(operand)))?;
        if endpoint.password.is_some() && !self.warned {
            self.warned = true;
            self.context.report.warn(
                "a password in a URL is seen by everybody who may list processes; \
                 --password-file, HAUL_PASSWORD or the prompt keep it to yourself",
            );
        }
        if is_ftp(&endpoint) && endpoint.user.is_none() && endpoint.password.is_none() {
            let args = self.settings.connect(&endpoint.host, profile)?;
            endpoint.user = self.kept.user(&args.netrc(), &endpoint.host)?;
            if endpoint.user.is_some() {
                self.logins_of_netrc.push(endpoint.clone());
            }
        }
        if let Some(profile) = profile {
            let profile = profile.to_owned();
            self.profiles.push((endpoint.clone(), profile));
        }
        Ok(endpoint)
    }

    /// Reads a URL of a journal, with the settings of the profile that it was named by.
    pub(crate) fn parse_kept(&mut self, url: &str, profiles: &[(String, String)]) -> Result<Endpoint> {
        let endpoint = Endpoint::parse(url)?;
        if let Some((_, profile)) = profiles.iter().find(|(origin, _)| *origin == endpoint.origin()) {
            // What is set there is meant for the server that it names now, and may be a password.
            let same =
                |named: &Endpoint| (&named.host, named.effective_port()) == (&endpoint.host, endpoint.effective_port());
            match self.settings.config().profile(profile) {
                Some(named) if same(&named.endpoint) => self.profiles.push((endpoint.clone(), profile.clone())),
                _ => self.context.report.warn(&format!(
                    "the profile {profile} doesn't name {} any more: its settings don't count",
                    endpoint.origin()
                )),
            }
        }
        Ok(endpoint)
    }

    /// Returns which endpoints were named by a profile.
    pub(crate) fn named_by_profiles(&self) -> Vec<(String, String)> {
        self.profiles.iter().map(|(endpoint, profile)| (endpoint.origin(), profile.clone())).collect()
    }

    /// Returns whether an operand is a URL or names a profile.
    pub(crate) fn is_url(&self, operand: &OsStr) -> bool {
        let is_url = operand.as_bytes().windows(3).any(|bytes| bytes == b"://");
        is_url || self.settings.endpoint(operand).is_ok_and(|(_, profile)| profile.is_some())
    }

    /// Returns whether an operand names something on this machine.
    pub(crate) fn is_local(&self, operand: &OsStr) -> bool {
        self.settings.endpoint(operand).is_ok_and(|(endpoint, _)| endpoint.scheme == Scheme::File)
    }

    /// Connects and logs in, unless a connection with the same login and settings is open.
    pub(crate) async fn place(&mut self, endpoint: &Endpoint) -> Result<Place> {
        let profile = self.profile(endpoint);
        let same = |(other, settings, _): &&(Endpoint, Option<String>, _)| {
            other.same_login(endpoint) && settings.as_deref() == profile
        };
        let transport = match self.open.iter().find(same) {
            Some((_, _, transport)) => Arc::clone(transport),
            None => {
                self.context.limits.begin(self.context).await?;
                let (options, profile) = (self.options(endpoint)?, profile.map(str::to_owned));
                let transport = self.transport(endpoint, profile.as_deref(), &options);
                let transport = transport.await.map_err(|e| Failure::connecting(e.at(endpoint.origin())))?;
                self.open.push((endpoint.clone(), profile, Arc::clone(&transport)));
                transport
            }
        };
        Ok(Place { transport, endpoint: endpoint.clone() })
    }

    /// Connects, or takes what an earlier command of this run left open.
    async fn transport(
        &self,
        endpoint: &Endpoint,
        profile: Option<&str>,
        options: &ConnectOptions,
    ) -> Result<Arc<dyn Transport>, Error> {
        let Some(open) = &self.context.open else { return transport::connect(endpoint, options).await };
        let login = Login {
            endpoint: endpoint.clone(),
            settings: self.settings.of_connection(&endpoint.host, profile),
            password: options.password.clone(),
            sparse: options.sparse,
        };
        open.transport(login, options).await
    }

    /// Returns how to connect to an endpoint.
    pub(crate) fn options(&self, endpoint: &Endpoint) -> Result<ConnectOptions> {
        let args = self.settings.connect(&endpoint.host, self.profile(endpoint))?;
        let password = match (&self.password, &args.password_file) {
            // Login and password of a netrc belong together.
            _ if self.logins_of_netrc.contains(endpoint) => None,
            (None, Some(file)) => Some(read_password(file, &self.context.report)?),
            (given, _) => given.clone(),
        };
        let connections = match self.remembering {
            true => transfer::remembered_connections(&state_dir()?, endpoint),
            false => 1,
        };
        let passwords = self.kept.with(args.netrc())? as Arc<dyn Passwords>;
        let mut options = args.options()?;
        if let (true, None, Some(user)) = (is_ftp(endpoint), &options.ftp.account, &endpoint.user) {
            options.ftp.account = self.kept.ftp_account(&args.netrc(), &endpoint.host, user)?;
        }
        Ok(ConnectOptions {
            password,
            passwords,
            prompt: self.context.prompt(),
            sparse: self.sparse,
            connections,
            ..options
        })
    }

    fn profile(&self, endpoint: &Endpoint) -> Option<&str> {
        self.profiles.iter().find(|(known, _)| known == endpoint).map(|(_, profile)| profile.as_str())
    }

    /// Says goodbye to every server, unless other commands may need it. What the command did is done: a server that
    /// doesn't answer changes nothing.
    pub(crate) async fn close(self) {
        if self.context.open.is_some() {
            return;
        }
        for (endpoint, _, transport) in self.open {
            if let Err(error) = transport.close().await {
                tracing::debug!(endpoint = endpoint.origin(), "close: {}", error.chain());
            }
        }
    }
}

/// Returns whose settings count for all: the far destination's, or else those of the first far source.
fn decisive<'e>(sources: &'e [Endpoint], destination: &'e Endpoint) -> &'e Endpoint {
    let far = |endpoint: &&Endpoint| endpoint.scheme != Scheme::File;
    std::iter::once(destination).chain(sources).find(far).unwrap_or(destination)
}

fn is_ftp(endpoint: &Endpoint) -> bool {
    matches!(endpoint.scheme, Scheme::Ftp | Scheme::Ftpes | Scheme::Ftps)
}

/// Returns how a path at an endpoint is called in messages: a plain path here, a URL elsewhere.
pub(crate) fn name_of(endpoint: &Endpoint, path: &RemotePath) -> String {
    match endpoint.scheme {
        Scheme::File => path.to_string(),
        _ => endpoint.url_of(path),
    }
}

/// Returns an operand for messages about it, also when it can't be read as a URL.
pub(crate) fn without_password(operand: &OsStr) -> String {
    let text = escape(operand.as_bytes());
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}{path}")
        }
        // A password with a slash in it ends the authority too early.
        None => match (rest.find(':'), rest.rfind('@')) {
            (Some(colon), Some(at)) if colon < at => format!("{scheme}://{}{}", &rest[..colon], &rest[at..]),
            _ => text,
        },
    }
}

/// Makes an error about the command line.
pub(crate) fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_url_is_shown_without_its_password() {
        for (typed, shown) in [
            ("sftp://me:hunter2@h:0/x", "sftp://me@h:0/x"),
            ("gopher://me:hunter2@h", "gopher://me@h"),
            ("ftp://:p@ss@h/a@b:c", "ftp://@h/a@b:c"),
            ("sftp://me:hunt/er2@h:22/x", "sftp://me@h:22/x"),
            ("sftp://h/x@y", "sftp://h/x@y"),
            ("a:b@c", "a:b@c"),
        ] {
            assert_eq!(without_password(OsStr::new(typed)), shown);
        }
    }
}

//! What every command is given, and the endpoints it connects to.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use haul::endpoint::{Endpoint, Scheme};
use haul::plan::Place;
use haul::transfer;
use haul::transport::{self, ConnectOptions, RemotePath, Transport, escape};
use haul::{Error, ErrorKind};
use tokio_util::sync::CancellationToken;

use super::options::{ConnectArgs, OutputArgs, TransferArgs, state_dir};
use super::prompt::TerminalPrompt;
use super::report::{Failure, Report, Result};
use super::screen::Screen;
use super::stdout::Stdout;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// Standard output.
    pub(crate) stdout: Stdout,
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
}

impl Context {
    /// Sets up the outputs; nothing is written.
    pub(crate) fn new(output: &OutputArgs) -> Self {
        let screen = Arc::<Screen>::default();
        Self {
            stdout: Stdout::new(),
            report: Arc::new(Report::new(Arc::clone(&screen), output.quiet)),
            screen,
            quiet: output.quiet,
            verbose: output.verbose,
            cancel: CancellationToken::new(),
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

/// The endpoints of one command: each login is made once.
#[derive(Debug)]
pub(crate) struct Connections<'a> {
    context: &'a Context,
    options: ConnectOptions,
    open: Vec<(Endpoint, Arc<dyn Transport>)>,
    warned: bool,
    /// Whether as many connections are opened at once as served a host best before.
    remembering: bool,
}

impl<'a> Connections<'a> {
    /// Takes the options; nothing is connected yet.
    pub(crate) fn new(args: &ConnectArgs, context: &'a Context) -> Result<Self> {
        let options = args.options(context.prompt(), &context.report)?;
        Ok(Self { context, options, open: Vec::new(), warned: false, remembering: false })
    }

    /// Prepares for moving files, as the options tell and as earlier runs found the host.
    pub(crate) fn for_transfer(mut self, args: &TransferArgs) -> Self {
        self.options.sparse = args.sparse;
        self.remembering = args.limits_nothing();
        self
    }

    /// Reads URLs and plain paths, all of them before anything is connected.
    pub(crate) fn parse(&mut self, operands: &[OsString]) -> Result<Vec<Endpoint>> {
        operands.iter().map(|operand| self.parse_one(operand)).collect()
    }

    /// Reads one URL or plain path; a password in it is warned of once.
    pub(crate) fn parse_one(&mut self, operand: &OsStr) -> Result<Endpoint> {
        let endpoint = Endpoint::parse(operand).map_err(|e| e.at(without_password(operand)))?;
        if endpoint.password.is_some() && !self.warned {
            self.warned = true;
            self.context.report.warn(
                "a password in a URL is seen by everybody who may list processes; \
                 --password-file, HAUL_PASSWORD or the prompt keep it to yourself",
            );
        }
        Ok(endpoint)
    }

    /// Connects and logs in, unless a connection with the same login is open.
    pub(crate) async fn place(&mut self, endpoint: &Endpoint) -> Result<Place> {
        let open = self.open.iter().find(|(other, _)| other.same_login(endpoint));
        let transport = match open {
            Some((_, transport)) => Arc::clone(transport),
            None => {
                let mut options = self.options.clone();
                if self.remembering {
                    options.connections = transfer::remembered_connections(&state_dir()?, endpoint);
                }
                let transport = transport::connect(endpoint, &options)
                    .await
                    .map_err(|e| Failure::connecting(e.at(endpoint.origin())))?;
                self.open.push((endpoint.clone(), Arc::clone(&transport)));
                transport
            }
        };
        Ok(Place { transport, endpoint: endpoint.clone() })
    }

    /// Says goodbye to every server. What the command did is done: a server that doesn't answer changes nothing.
    pub(crate) async fn close(self) {
        for (endpoint, transport) in self.open {
            if let Err(error) = transport.close().await {
                tracing::debug!(endpoint = endpoint.origin(), "close: {}", error.chain());
            }
        }
    }
}

/// Returns how a path at an endpoint is called in messages: a plain path here, a URL elsewhere.
pub(crate) fn name_of(endpoint: &Endpoint, path: &RemotePath) -> String {
    match endpoint.scheme {
        Scheme::File => path.to_string(),
        _ => endpoint.url_of(path),
    }
}

/// Returns an operand for messages about it, also when it can't be read as a URL.
fn without_password(operand: &OsStr) -> String {
    let text = escape(operand.as_bytes());
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}{path}")
        }
        None => text,
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
            ("a:b@c", "a:b@c"),
        ] {
            assert_eq!(without_password(OsStr::new(typed)), shown);
        }
    }
}

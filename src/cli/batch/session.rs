//! A command script against one server: where it is on both sides, and one line after the other.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haul::batch::{Action, CopyFlags, Line};
use haul::endpoint::{Base, Endpoint, EndpointPath, Scheme};
use haul::plan::{self, Filter, Place};
use haul::transfer::Request;
use haul::transport::{Durability, Follow, RemotePath, escape};
use haul::{Error, ErrorKind};

use crate::cli::context::{Connections, Context, name_of};
use crate::cli::open::Open;
use crate::cli::options::{ConnectArgs, TransferArgs};
use crate::cli::progress::View;
use crate::cli::report::{Exit, Result};
use crate::cli::transfer::{copy, unless};

/// A script's run.
pub(super) struct Session<'a> {
    pub(super) context: &'a Arc<Context>,
    /// How the script is called in messages.
    name: &'a str,
    open: Arc<Open>,
    /// The server; nobody is connected to it in a dry run.
    server: Option<Place>,
    pub(super) endpoint: Endpoint,
    pub(super) args: TransferArgs,
    profiles: Vec<(String, String)>,
    /// Where the login starts, and where the script is there and here.
    pub(super) home: RemotePath,
    pub(super) here: RemotePath,
    pub(super) near: PathBuf,
    /// How progress is shown when it is.
    view: View,
}

/// Whether the script goes on behind a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Line,
    End,
}

impl<'a> Session<'a> {
    /// Logs in, unless nothing is to be done.
    pub(super) async fn begin(
        context: &'a Arc<Context>,
        connect: &ConnectArgs,
        endpoint: &OsStr,
        name: &'a str,
    ) -> Result<Self> {
        let open = Arc::<Open>::default();
        let inner = context.within(context.given.clone(), &open, &context.recorder);
        let mut connections = Connections::new(connect, &inner)?;
        let endpoint = connections.parse_one(endpoint)?;
        let mut args = connections.for_transfer(std::slice::from_ref(&endpoint), &Endpoint::parse(".")?)?;
        let view = args.progress;
        if view == View::Auto {
            // As with sftp -b: the command `progress` puts it on.
            args.progress = View::Nothing;
        }
        let near = std::env::current_dir().map_err(|e| Error::io("find the current directory", e))?;
        let mut session = Self {
            context,
            name,
            open: Arc::clone(&open),
            server: None,
            home: RemotePath::root(),
            here: RemotePath::root(),
            near,
            view,
            profiles: connections.named_by_profiles(),
            args,
            endpoint,
        };
        if session.args.dry_run {
            session.here = session.endpoint.path.resolve(&RemotePath::root())?;
            return Ok(session);
        }
        let place = unless(&context.cancel, connections.place(&session.endpoint)).await?;
        session.home = unless(&context.cancel, async { Ok(place.transport.home().await?) }).await?;
        session.here = session.endpoint.path.resolve(&session.home)?;
        session.server = Some(place);
        let start = session.here.clone();
        unless(&context.cancel, session.enter(start)).await?;
        Ok(session)
    }

    /// Runs the lines up to the first that fails and isn't allowed to.
    pub(super) async fn run(mut self, lines: &[Line]) -> Result<()> {
        let mut result = Ok(());
        for (number, line) in lines.iter().enumerate() {
            if !line.silent {
                self.context.note(&format!("sftp> {}", escape(&line.text)));
            }
            let (exit, next) = self.line(line).await;
            let stopped = self.context.cancel.is_cancelled() || self.context.stdout.is_closed();
            if exit != Exit::Done && (stopped || !line.ignores_failure) {
                self.ended(line, exit, lines.len() - number - 1);
                result = if stopped { Err(Error::from(ErrorKind::Cancelled).into()) } else { Ok(()) };
                break;
            }
            if next == Next::End {
                break;
            }
        }
        self.open.close().await;
        result
    }

    fn ended(&self, line: &Line, exit: Exit, left: usize) {
        self.context.report.ends(exit);
        let lines = if left == 1 { "1 command" } else { "commands" };
        let count = if left == 1 { String::new() } else { format!("{left} ") };
        let left = if left == 0 { "it was the last".to_owned() } else { format!("{count}{lines} not begun") };
        self.context.screen.line(&format!("haul: {}:{}: the script ends here; {left}", self.name, line.place));
    }

    /// Runs one line; a failure is told.
    async fn line(&mut self, line: &Line) -> (Exit, Next) {
        if self.args.dry_run {
            let told = self.describe(line);
            return (told.map_or_else(|failure| failure.into_parts().1, |()| Exit::Done), Next::Line);
        }
        let moves = matches!(line.action, Action::Get(..) | Action::Put(..) | Action::Copy(..));
        let recorder = match moves {
            true => self.context.recorder.job(&format!("{}: {}", line.place.line, escape(&line.text))),
            false => self.context.recorder.clone(),
        };
        let context = Arc::new(self.context.within(self.context.given.clone(), &self.open, &recorder));
        let cancel = context.cancel.clone();
        let result = match &line.action {
            // They see the cancel token themselves.
            _ if moves => self.transfer(&line.action, &context).await,
            _ => unless(&cancel, self.act(&line.action, &context)).await,
        };
        let next = match result {
            Ok(next) => next,
            Err(failure) => {
                context.report.failed(context.limits.stopped_or(failure));
                Next::Line
            }
        };
        if moves {
            recorder.ended(context.report.exit(), None);
        }
        // Advice on what need not succeed is none.
        let nobody = crate::cli::report::Report::new(Arc::clone(&self.context.screen), true);
        let to = if line.ignores_failure { &nobody } else { &*self.context.report };
        (context.report.hand_on(to).0, next)
    }

    async fn transfer(&mut self, action: &Action, context: &Arc<Context>) -> Result<Next> {
        let (source, destination, flags) = match action {
            Action::Get(from, to, flags) => {
                let source = self.far(&from.pattern(haul::batch::Braces::Literal), &from.literal())?;
                (source, self.near_place(to.as_deref().unwrap_or(b"."), None).await?, *flags)
            }
            Action::Put(from, to, flags) => {
                let pattern = from.pattern(haul::batch::Braces::Literal);
                let source = self.near_place(&from.literal(), Some(&pattern)).await?;
                let to = to.as_deref().unwrap_or(b".");
                (source, self.far(&escape_wildcards(to), to)?, *flags)
            }
            Action::Copy(from, to) => {
                let (from, to) = (self.far(&escape_wildcards(from), from)?, self.far(&escape_wildcards(to), to)?);
                (from, to, CopyFlags::default())
            }
            _ => return Ok(Next::Line),
        };
        let mut options = self.args.options()?;
        options.preserve_mode |= flags.preserve;
        if flags.durable {
            options.durability = Durability::Synced;
        }
        options.request = Request {
            options: context.known.to_keep(&context.given),
            profiles: self.profiles.clone(),
            several: flags.recursive || plan::has_wildcards(&source.endpoint),
        };
        let planned = plan::Options {
            recursive: flags.recursive,
            preserve: options.preserve_mode,
            retries: options.retries,
            retry_wait: options.retry_wait,
            // The scripts of sftp have none.
            filter: Filter::default(),
        };
        copy(context, (vec![source], destination), planned, &options, &self.args).await?;
        Ok(Next::Line)
    }

    /// Returns the server.
    pub(super) fn server(&self) -> Result<&Place> {
        Ok(self.server.as_ref().ok_or_else(|| Error::new(ErrorKind::Other, "not connected"))?)
    }

    /// Returns a path at the server.
    pub(super) fn path(&self, path: &[u8]) -> Result<RemotePath> {
        Ok(self.here.resolve(path)?)
    }

    /// Returns a place at the server whose path has wildcards.
    pub(super) fn far(&self, pattern: &[u8], literal: &[u8]) -> Result<Place> {
        let path = absolute(self.here.as_bytes(), pattern, literal);
        let endpoint = Endpoint { path, ..self.endpoint.clone() };
        Ok(Place { endpoint, ..self.server()?.clone() })
    }

    /// Returns a place on this machine.
    async fn near_place(&self, literal: &[u8], pattern: Option<&[u8]>) -> Result<Place> {
        let pattern = pattern.map_or_else(|| escape_wildcards(literal), <[u8]>::to_vec);
        let path = absolute(self.near.as_os_str().as_bytes(), &pattern, literal);
        let endpoint = Endpoint { path, ..Endpoint::parse("/")? };
        let context = self.context.within(self.context.given.clone(), &self.open, &self.context.recorder);
        let transport = local_transport(&context, &self.args).await?;
        Ok(Place { transport, endpoint })
    }

    /// Goes to a directory of the server.
    pub(super) async fn enter(&mut self, path: RemotePath) -> Result<()> {
        let place = self.server()?;
        let entry = place.transport.stat(&path, Follow::Links).await;
        let entry = entry.map_err(|e| e.at(name_of(&self.endpoint, &path)))?;
        if !entry.is_dir() {
            let error = Error::new(ErrorKind::NotADirectory, "is not a directory");
            return Err(error.at(name_of(&self.endpoint, &path)).into());
        }
        self.here = path;
        Ok(())
    }

    /// Returns a path on this machine; `~` is the home directory.
    pub(super) fn near(&self, path: &[u8]) -> PathBuf {
        let home = || std::env::home_dir().unwrap_or_else(|| PathBuf::from("/"));
        match path.strip_prefix(b"~") {
            Some(b"") => home(),
            Some([b'/', rest @ ..]) => home().join(OsStr::from_bytes(rest)),
            _ => self.near.join(OsStr::from_bytes(path)),
        }
    }

    /// Shows progress from now on, or not any more; returns which.
    pub(super) fn toggle_progress(&mut self) -> bool {
        let shows = self.args.progress == View::Nothing;
        let usual = if self.view == View::Nothing { View::Auto } else { self.view };
        self.args.progress = if shows { usual } else { View::Nothing };
        shows
    }

    /// Says what a line would do.
    fn describe(&mut self, line: &Line) -> Result<()> {
        let far = |path: &[u8]| -> Result<String> {
            let path = self.here.resolve(path)?;
            Ok(match (self.endpoint.path.base, self.endpoint.scheme) {
                (Base::Home, Scheme::Sftp) => format!("{}/~{path}", self.endpoint.origin()),
                (Base::Home, _) => format!("{}{path}", self.endpoint.origin()),
                (Base::Root, _) => self.endpoint.url_of(&path),
            })
        };
        let near = |path: &[u8]| escape(self.near(path).as_os_str().as_bytes());
        let here = || b".".to_vec();
        let text = match &line.action {
            Action::Get(from, to, _) => {
                format!("get {} -> {}", far(&from.literal())?, near(&to.clone().unwrap_or_default()))
            }
            Action::Put(from, to, _) => {
                format!("put {} -> {}", near(&from.literal()), far(&to.clone().unwrap_or_else(here))?)
            }
            Action::Cd(to) => {
                let to = to.clone().filter(|to| !to.is_empty()).unwrap_or_else(|| b"/".to_vec());
                self.here = self.here.resolve(to)?;
                return Ok(());
            }
            Action::LocalCd(to) => {
                self.near = self.near(to.as_deref().filter(|to| !to.is_empty()).unwrap_or(b"~"));
                return Ok(());
            }
            Action::Mkdir(path) => format!("mkdir {}", far(path)?),
            Action::Rmdir(path) => format!("rmdir {}", far(path)?),
            Action::Rm(word) => format!("rm {}", far(&word.literal())?),
            Action::Rename { from, to, .. } => format!("rename {} -> {}", far(from)?, far(to)?),
            _ => escape(&line.text),
        };
        Ok(self.context.stdout.write(format!("{}: {text}\n", line.place.line).as_bytes())?)
    }
}

async fn local_transport(context: &Context, args: &TransferArgs) -> Result<Arc<dyn haul::transport::Transport>> {
    let options = haul::transport::ConnectOptions { sparse: args.sparse, ..Default::default() };
    let connected =
        unless(&context.cancel, async { Ok(haul::transport::connect(&Endpoint::parse("/")?, &options).await?) });
    connected.await
}

/// Returns a path from the root, as somebody in a directory wrote it.
fn absolute(here: &[u8], pattern: &[u8], literal: &[u8]) -> EndpointPath {
    let join = |above: &[u8], below: &[u8]| -> Vec<u8> {
        let whole = if below.starts_with(b"/") { below.to_vec() } else { [above, b"/", below].concat() };
        let start = whole.iter().position(|&byte| byte != b'/').unwrap_or(whole.len());
        whole[start..].to_vec()
    };
    EndpointPath { base: Base::Root, bytes: join(here, literal), pattern: join(&escape_wildcards(here), pattern) }
}

pub(super) fn escape_wildcards(bytes: &[u8]) -> Vec<u8> {
    let escaped = |&byte: &u8| if b"*?[]{}\\,!".contains(&byte) { vec![b'\\', byte] } else { vec![byte] };
    bytes.iter().flat_map(escaped).collect()
}

/// Returns bytes of a script as a path of this machine.
pub(super) fn os_path(path: &Path, bytes: &[u8]) -> PathBuf {
    path.join(OsString::from_vec(bytes.to_vec()))
}

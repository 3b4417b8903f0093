//! The `openssh` engine: the system's `ssh`, with everything that its configuration can do.
//!
//! Each channel is a run of its own; a `ControlMaster` of the user's configuration makes them share a connection.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::askpass::{self, Knowledge};
use super::cache::LoginCache;
use super::openssh_child::Run;
use super::openssh_dial;
use super::openssh_target::Questioned;
use super::{EXEC_OUTPUT, EXEC_PATIENCE, Ended, Inbound, Outbound, Session, exec_result, keep_up_to, within};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{AddressFamily, ConnectOptions, HostKeyPolicy, SshConfig};

/// The subsystem that is asked for ahead: its run is the one that shows whether the login works.
const FIRST: &str = "sftp";
/// Bytes read from a run at once.
const CHUNK: usize = 256 << 10;
/// Messages waiting to be sent.
const QUEUE: usize = 8;

/// Starts `ssh` and waits for the login.
pub(super) async fn connect(
    endpoint: &Endpoint,
    options: &ConnectOptions,
    cache: &LoginCache,
) -> Result<Arc<dyn Session>> {
    let plan = Plan { endpoint: endpoint.clone(), options: options.clone(), cache: cache.clone() };
    // Login and connection are one here: the first of all is waited for.
    let turn = cache.turn().await?;
    let first = plan.run(&[OsStr::new("-s")], FIRST.as_ref()).await;
    cache.settle(first.as_ref().map(drop).map_err(Error::kind));
    drop(turn);
    let first = first?;
    let open = CancellationToken::new();
    Ok(Arc::new(OpensshSession { plan, first: Mutex::new(Some(first)), _guard: open.clone().drop_guard(), open }))
}

/// How to start `ssh`.
struct Plan {
    endpoint: Endpoint,
    options: ConnectOptions,
    cache: LoginCache,
}

impl Plan {
    async fn run(&self, flags: &[&OsStr], request: &OsStr) -> Result<Run> {
        let run = self.try_run(flags, request).await;
        run.map_err(|error| error.at(self.endpoint.origin()))
    }

    async fn try_run(&self, flags: &[&OsStr], request: &OsStr) -> Result<Run> {
        let arguments = arguments(&self.endpoint, &self.options)?;
        let mut asking = self.command();
        asking.args(&arguments).arg("-G").arg("--").arg(&self.endpoint.host);
        let (proxy, dialler) = openssh_dial::way(asking, askpass::program(), &self.options).await?.unzip();
        let knowledge = Knowledge {
            prompt: Arc::clone(&self.options.prompt),
            cache: self.cache.clone(),
            password: self.endpoint.password.clone().or_else(|| self.options.password.clone()),
            dialler: dialler.map(Arc::new),
            passwords: Arc::clone(&self.options.passwords),
            questioned: Questioned::new(&self.endpoint, arguments.clone()),
        };
        let mut command = self.command();
        command.args(arguments).args(proxy.unwrap_or_default());
        if askpass::program().is_none() {
            command.arg("-oBatchMode=yes");
        }
        command.args(flags).arg("--").arg(&self.endpoint.host).arg(request);
        Run::start(command, knowledge, self.options.timeout).await
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        // The secret is ours to give when asked; no child needs it around.
        command.env_remove("HAUL_PASSWORD");
        match &self.options.agent {
            Some(socket) => command.env("SSH_AUTH_SOCK", socket),
            None => command.env_remove("SSH_AUTH_SOCK"),
        };
        command
    }
}

/// Translates the options. What the URL doesn't say is left to ssh's configuration.
fn arguments(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Vec<OsString>> {
    let seconds = options.timeout.as_secs().max(1);
    let mut arguments: Vec<OsString> = [
        // `-v` is how we learn that the login is done.
        "-v",
        "-T",
        "-oForwardX11=no",
        "-oForwardAgent=no",
        "-oPermitLocalCommand=no",
        "-oClearAllForwardings=yes",
        "-oRemoteCommand=none",
        &format!("-oConnectTimeout={seconds}"),
        // Three silent intervals are the end.
        &format!("-oServerAliveInterval={}", (seconds / 3).max(1)),
        "-oServerAliveCountMax=2",
    ]
    .map(OsString::from)
    .into();
    match &options.ssh_config {
        SshConfig::Usual => {}
        SshConfig::None => arguments.push("-Fnone".into()),
        SshConfig::File(file) => arguments.extend(["-F".into(), file.into()]),
    }
    match options.family {
        None => {}
        Some(AddressFamily::Any) => arguments.push("-oAddressFamily=any".into()),
        Some(AddressFamily::Ipv4) => arguments.push("-4".into()),
        Some(AddressFamily::Ipv6) => arguments.push("-6".into()),
    }
    arguments.extend(options.bind.map(|address| format!("-oBindAddress={address}").into()));
    let policy = options.host_key.map(|policy| match policy {
        HostKeyPolicy::Ask => "ask",
        HostKeyPolicy::Strict => "yes",
        HostKeyPolicy::AcceptNew => "accept-new",
    });
    arguments.extend(policy.map(|policy| format!("-oStrictHostKeyChecking={policy}").into()));
    if let Some(port) = endpoint.port {
        arguments.push(format!("-p{port}").into());
    }
    if let Some(user) = &endpoint.user {
        if user.starts_with('-') {
            return Err(Error::new(ErrorKind::Usage, "a user name can't begin with a dash"));
        }
        arguments.push(format!("-l{user}").into());
    }
    if let Some(file) = &options.known_hosts {
        arguments.push(option_with_path("-oUserKnownHostsFile=", file));
        arguments.push("-oGlobalKnownHostsFile=/dev/null".into());
    }
    if !options.identities.is_empty() {
        arguments.push("-oIdentitiesOnly=yes".into());
        arguments.extend(options.identities.iter().map(|file| option_with_path("-oIdentityFile=", file)));
    }
    Ok(arguments)
}

/// Quotes a path as ssh_config(5) wants it; `%` would start a token.
fn option_with_path(option: &str, path: &Path) -> OsString {
    let mut text = option.as_bytes().to_vec();
    text.push(b'"');
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', byte]),
            b'%' => text.extend(b"%%"),
            _ => text.push(byte),
        }
    }
    text.push(b'"');
    OsString::from_vec(text)
}

struct OpensshSession {
    plan: Plan,
    first: Mutex<Option<Run>>,
    open: CancellationToken,
    _guard: DropGuard,
}

impl fmt::Debug for OpensshSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpensshSession").finish_non_exhaustive()
    }
}

#[async_trait]
impl Session for OpensshSession {
    async fn subsystem(&self, name: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>> {
        let first = if name == FIRST { self.first.lock().await.take() } else { None };
        let run = match first {
            Some(run) => run,
            None => self.plan.run(&[OsStr::new("-s")], name.as_ref()).await?,
        };
        let (queue, waiting) = mpsc::channel(QUEUE);
        let ended = Arc::new(Ended::default());
        tokio::spawn(attend(run, waiting, inbound, Arc::clone(&ended), self.open.clone()));
        Ok(Box::new(Channel { queue, ended }))
    }

    async fn exec(&self, command: &[u8]) -> Result<Vec<u8>> {
        if self.open.is_cancelled() {
            return Err(Ended::default().reason());
        }
        let mut run = self.plan.run(&[], OsStr::from_bytes(command)).await?;
        run.stdin = None;
        let limit = self.plan.options.timeout * EXEC_PATIENCE;
        let (mut stdout, mut buffer) = (Vec::new(), vec![0; CHUNK]);
        loop {
            let read = within(limit, "run a command", run.stdout.read(&mut buffer)).await?;
            match read.map_err(|e| Error::io("run a command", e))? {
                0 => break,
                length if keep_up_to(&mut stdout, &buffer[..length], EXEC_OUTPUT) => {}
                _ => return Err(Error::new(ErrorKind::Other, "the command says more than 1 MiB")),
            }
        }
        let (status, stderr) = run.command_status().await?;
        exec_result(status, stdout, stderr.as_bytes())
    }

    async fn close(&self) {
        let first = self.first.lock().await.take();
        self.open.cancel();
        drop(first);
    }
}

/// Moves the bytes of a run until one side ends it, then tells why.
async fn attend(
    mut run: Run,
    waiting: mpsc::Receiver<Bytes>,
    inbound: Arc<dyn Inbound>,
    ended: Arc<Ended>,
    open: CancellationToken,
) {
    let sending = tokio::spawn(send_all(run.stdin.take(), waiting));
    let mut buffer = vec![0; CHUNK];
    let cancelled = loop {
        let read = tokio::select! {
            () = open.cancelled() => break true,
            read = run.stdout.read(&mut buffer) => read,
        };
        match read {
            Ok(0) | Err(_) => break false,
            Ok(length) => inbound.data(&buffer[..length]),
        }
    };
    let reason = if cancelled {
        run.kill().await;
        ended.reason()
    } else {
        run.failure().await
    };
    ended.set(reason.kind(), reason.message().to_owned());
    sending.abort();
    inbound.closed(reason);
}

/// Ends, and with it the run's standard input, when the sender is dropped or the run is gone.
async fn send_all(stdin: Option<ChildStdin>, mut waiting: mpsc::Receiver<Bytes>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(bytes) = waiting.recv().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// The sending half of a channel.
struct Channel {
    queue: mpsc::Sender<Bytes>,
    ended: Arc<Ended>,
}

#[async_trait]
impl Outbound for Channel {
    async fn send(&self, bytes: Bytes) -> Result<()> {
        self.queue.send(bytes).await.map_err(|_| self.ended.reason())
    }
}

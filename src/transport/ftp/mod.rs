//! FTP and FTPS (RFC 959, 2389, 2428, 3659, 4217), with suppaftp.
//!
//! `dialogue` greets, secures and logs in on sockets that we open. Then the connection has two hands: suppaftp's client
//! asks single questions on it, and `transfer` opens data connections, with several lines a segment and the next port
//! asked for ahead. Every transfer has a connection of the pool for itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::lease::Lease;
use crate::transport::pool::Pool;
use crate::transport::{
    Algorithm, Capabilities, ConnectOptions, Durability, Entry, EntryStream, Follow, Precision, ReadRange, ReadStream,
    RemotePath, Replace, SetMetadata, Transport, WriteMode, WriteStream,
};

mod active;
mod adopt;
mod certificate;
mod connect;
mod connection;
mod data;
mod dialogue;
mod ending;
mod facts;
mod features;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod list;
mod listing;
mod look;
mod ops;
mod port;
mod reply;
mod server;
mod spool;
mod stream;
mod tls;
mod transfer;
mod trust;
mod wire;

use connect::Login;
use connection::{Connection, Health};
use features::Features;

/// How many connections are opened at most when the user doesn't say: where the machines set the pace; where the distance
/// does, which each file crosses several times; and at a server that is known for small sessions without a limit.
const NEAR: usize = 8;
const FAR: usize = 16;
const FAR_AND_ROOMY: usize = 32;
/// A round trip from here on is distance.
const DISTANCE: Duration = Duration::from_millis(5);
/// How long new connections are waited for; those that take longer serve when they are there.
const SETTLE: Duration = Duration::from_secs(5);

/// Connects and logs in.
///
/// # Errors
/// `ConnectionRefused`, `Timeout`, `Tls`, `AuthFailed`, `TooManyConnections`, `Protocol`.
pub async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Arc<dyn Transport>> {
    let login = Arc::new(Login::new(endpoint, options));
    let max = options.max_connections;
    let opener = Arc::clone(&login);
    let open = move || {
        let login = Arc::clone(&opener);
        async move { login.open().await }.boxed()
    };
    let pool = Pool::new(max.unwrap_or(FAR_AND_ROOMY), options.timeout, open);
    if options.connections > 1 {
        pool.want(options.connections);
    }
    let ftp = Ftp { pool, login, max, replaces: AtomicBool::new(true) };
    ftp.connection().await?.give_back();
    ftp.pool.set_max(ftp.max());
    Ok(Arc::new(ftp))
}

/// How many connections in a row may turn out to be dead before that is an error.
const TRIES: u32 = 3;

/// One login at one server.
struct Ftp {
    login: Arc<Login>,
    pool: Pool<Connection>,
    /// What the user says.
    max: Option<usize>,
    /// Whether renames replaced in one step so far.
    replaces: AtomicBool,
}

impl Ftp {
    /// Returns how many connections there may be.
    fn max(&self) -> usize {
        let far = self.login.round_trip().is_some_and(|trip| trip >= DISTANCE);
        self.max.unwrap_or(match (far, self.login.is_in_order()) {
            (false, _) => NEAR,
            (true, false) => FAR,
            (true, true) => FAR_AND_ROOMY,
        })
    }

    /// Returns a connection of the pool on which nothing is left to be said.
    async fn connection(&self) -> Result<Lease<Connection>> {
        let mut tries = 0..TRIES;
        loop {
            let mut connection = self.pool.checkout().await?;
            match connection.settle().await {
                Ok(()) => return Ok(connection),
                Err(e) if e.kind() == ErrorKind::Timeout => return Err(e),
                Err(e) => {
                    if tries.next().is_none() {
                        let is_nonsense = e.kind() == ErrorKind::Protocol;
                        return Err(if is_nonsense { e } else { e.with_kind(ErrorKind::ConnectionLost) });
                    }
                    tracing::debug!("{}: going on with one connection less", e.chain());
                    connection.was_too_many();
                }
            }
        }
    }

    /// Runs commands on a connection of the pool.
    async fn on_connection<T>(
        &self,
        path: &RemotePath,
        commands: impl AsyncFnOnce(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.connection().await?;
        let result = commands(&mut connection).await;
        connection.give_back();
        result.map_err(|e| e.at(path))
    }
}

/// Attempts to start one transfer.
struct Attempts<'a> {
    ftp: &'a Ftp,
    had_tls13: bool,
    was_stale: bool,
}

impl<'a> Attempts<'a> {
    fn new(ftp: &'a Ftp) -> Self {
        Self { ftp, had_tls13: false, was_stale: false }
    }

    /// Returns the connection to try on.
    async fn next(&mut self) -> Result<Lease<Connection>> {
        self.had_tls13 = !self.ftp.login.tls12_only();
        self.ftp.connection().await
    }

    /// Returns the error of a failed attempt, unless it failed for a reason that another connection doesn't share: it
    /// spoke TLS 1.3 to a server that takes only 1.2 for data, or the port that it had asked for is gone.
    fn failed(&mut self, connection: Lease<Connection>, error: Error, path: &RemotePath) -> Result<()> {
        let is_stale = connection.health == Health::Stale;
        let again = (self.had_tls13 && self.ftp.login.tls12_only()) || (is_stale && !self.was_stale);
        self.was_stale |= is_stale;
        connection.give_back();
        if again { Ok(()) } else { Err(error.at(path)) }
    }
}

impl fmt::Debug for Ftp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ftp").field("login", &self.login).field("pool", &self.pool).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for Ftp {
    fn capabilities(&self) -> Capabilities {
        let server = self.login.server();
        let features = server.map(|server| &server.features);
        let restarts = self.login.restarts();
        Capabilities {
            local: false,
            resume_read: restarts,
            // Without REST there is still APPE at the end of a file.
            resume_write: features.is_some_and(|features| restarts || features.has("SIZE")),
            random_write: false,
            set_mtime: features.and_then(Features::time_command).map(|_| Precision::Second),
            mtime_on_read: self.login.tells_times(),
            set_mode: features.is_some_and(|features| features.mode_command().is_some()),
            symlinks: false,
            atomic_replace: server.is_some_and(|server| server.unix) && self.replaces.load(Ordering::Relaxed),
            fsync: false,
            server_copy: false,
            digests: features
                .map(|features| features.digests().into_iter().map(|(algorithm, _)| algorithm).collect())
                .unwrap_or_default(),
            streams: 1,
            max_connections: self.max(),
        }
    }

    async fn set_connections(&self, wanted: usize) -> usize {
        self.pool.set_wanted(wanted, self.login.timeout().min(SETTLE)).await
    }

    fn round_trip(&self) -> Option<Duration> {
        self.login.round_trip()
    }

    fn check_path(&self, path: &RemotePath) -> Result<()> {
        connection::check(path)
    }

    async fn place(&self, path: &RemotePath) -> Option<Vec<u8>> {
        Some([self.login.place().as_bytes(), path.as_bytes()].concat())
    }

    async fn home(&self) -> Result<RemotePath> {
        match self.login.server() {
            Some(server) => Ok(server.home.clone()),
            None => Err(Error::new(ErrorKind::ConnectionLost, "not logged in")),
        }
    }

    async fn stat(&self, path: &RemotePath, follow: Follow) -> Result<Entry> {
        self.on_connection(path, async |connection| look::stat(connection, path, follow).await).await
    }

    async fn exact(&self, files: Vec<(RemotePath, Entry)>) -> Result<Vec<Entry>> {
        let Some((first, _)) = files.first() else { return Ok(Vec::new()) };
        let path = first.clone();
        self.on_connection(&path, async |connection| look::exact_all(connection, &files).await).await
    }

    async fn list(&self, path: &RemotePath) -> Result<EntryStream> {
        let mut attempts = Attempts::new(self);
        loop {
            let mut connection = attempts.next().await?;
            match list::open(&mut connection, path).await {
                Ok(source) => return Ok(list::stream(connection, source)),
                Err(e) => attempts.failed(connection, e, path)?,
            }
        }
    }

    async fn open_read(&self, path: &RemotePath, range: ReadRange) -> Result<Box<dyn ReadStream>> {
        let mut attempts = Attempts::new(self);
        loop {
            let mut connection = attempts.next().await?;
            match stream::open_read(&mut connection, path, range).await {
                Ok(started) => return Ok(Box::new(stream::FtpRead::new(connection, started, path.clone(), range))),
                Err(e) => attempts.failed(connection, e, path)?,
            }
        }
    }

    async fn open_write(&self, path: &RemotePath, mode: WriteMode) -> Result<Box<dyn WriteStream>> {
        let mut attempts = Attempts::new(self);
        loop {
            let mut connection = attempts.next().await?;
            match stream::open_write(&mut connection, path, mode).await {
                Ok(started) => return Ok(Box::new(stream::FtpWrite::new(connection, started, path.clone(), mode))),
                Err(e) => attempts.failed(connection, e, path)?,
            }
        }
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace, _: Durability) -> Result<()> {
        let renamed =
            self.on_connection(from, async |connection| ops::rename(connection, from, to, replace).await).await?;
        if renamed == ops::Renamed::InSteps {
            self.replaces.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn remove_file(&self, path: &RemotePath) -> Result<()> {
        self.on_connection(path, async |connection| ops::remove_file(connection, path).await).await
    }

    async fn remove_dir(&self, path: &RemotePath) -> Result<()> {
        self.on_connection(path, async |connection| ops::remove_dir(connection, path).await).await
    }

    async fn create_dir(&self, path: &RemotePath) -> Result<()> {
        self.on_connection(path, async |connection| ops::create_dir(connection, path).await).await
    }

    async fn set_metadata(&self, path: &RemotePath, metadata: SetMetadata) -> Result<()> {
        self.on_connection(path, async |connection| ops::set_metadata(connection, path, metadata).await).await
    }

    async fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        self.on_connection(path, async |connection| ops::read_link(connection, path).await).await
    }

    async fn symlink(&self, _: &[u8], path: &RemotePath) -> Result<()> {
        // ProFTPD's SITE SYMLINK takes no other target than an existing one, and rewrites it.
        Err(Error::new(ErrorKind::Unsupported, "FTP makes no symbolic links").at(path))
    }

    async fn digest(&self, path: &RemotePath, algorithm: Algorithm, range: ReadRange) -> Result<Vec<u8>> {
        self.on_connection(path, async |connection| ops::digest(connection, path, algorithm, range).await).await
    }

    async fn close(&self) -> Result<()> {
        join_all(self.pool.close().into_iter().map(Connection::quit)).await;
        Ok(())
    }
}

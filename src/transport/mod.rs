//! The seam: one [`Transport`] per endpoint, and what implements it.
//!
//! Above it everything is protocol-blind; below it nothing knows of jobs, journals or progress.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::endpoint::{Endpoint, Scheme};
use crate::error::{Error, ErrorKind, Result};

mod buffers;
mod dial;
pub mod ftp;
mod ftp_options;
mod lease;
pub mod local;
mod login;
mod path;
mod pool;
pub mod sftp;
pub mod ssh;
mod ssh_config;
mod types;

pub use dial::{AddressFamily, Proxies};
pub use ftp_options::{ActivePorts, FtpOptions, TlsPin, TlsVersion};
pub use login::{
    Account, ConnectOptions, HostKeyPolicy, NoPasswords, NoPrompt, Passwords, Prompt, Secret, SshConfig, SshEngine,
    TlsMode,
};
pub use path::{RemotePath, escape, is_harmless, is_plain_name};
pub(crate) use ssh_config::matches_pattern;
pub use types::{
    Algorithm, Capabilities, DiskSpace, Durability, Entry, FileKind, Finish, Finished, Follow, Mtime, Owner, Precision,
    ReadRange, Replace, SetMetadata, WriteMode,
};

#[cfg(fuzzing)]
pub(crate) use ssh_config::read_any as read_ssh_config;

/// The entries of one directory as they arrive, in the server's order, without `.` and `..`.
///
/// After an `Err` item the stream ends; a listing that ended without one is complete.
pub type EntryStream = Pin<Box<dyn Stream<Item = Result<Entry>> + Send>>;

/// One endpoint, logged in.
///
/// **Contract**
/// - Owns its connections. One that breaks is discarded; the next call opens another. A call is never retried here:
///   it fails with a kind that tells whether trying again helps, and the caller decides.
/// - Every method may run concurrently with every other on the same value.
/// - No current directory, no recursion, no whole-file verbs. Paths are absolute; FTP refuses CR and LF in them.
/// - Errors name the path and keep the server's words. `NotFound` is said only when the server said so, or a second
///   question showed it: a 550 or a plain failure that could mean either is not "not found".
/// - Every wait ends within `ConnectOptions::timeout` without progress, as `Timeout`.
/// - Dropping any future or stream half-way leaves the transport usable.
#[async_trait]
pub trait Transport: Send + Sync + Debug {
    /// Returns what this endpoint can do. Settled by login; never blocks.
    fn capabilities(&self) -> Capabilities;

    /// Opens connections, all at once, until there are `wanted`, and returns how many there are then. From now on new
    /// streams are spread over that many. A server that lets fewer in is no error: what is there goes on.
    async fn set_connections(&self, wanted: usize) -> usize {
        wanted
    }

    /// Returns how long a question takes to be answered; `None` where no network lies between.
    fn round_trip(&self) -> Option<Duration> {
        None
    }

    /// Returns this endpoint for a run that writes below `root`: there nothing is reached through a link, wherever one
    /// came from, so that no name and no race leads elsewhere. `root` itself may be reached through links, and need not
    /// be there yet. `None` where the server alone finds paths.
    fn beneath(&self, _root: &RemotePath) -> Option<Arc<dyn Transport>> {
        None
    }

    /// Returns the root that [`Self::beneath`] was given, if this came of it.
    fn held_root(&self) -> Option<&RemotePath> {
        None
    }

    /// Returns what a path is known by however it was called: through links to its directory, by another spelling of host
    /// or login. `None` where no more is known than its URL.
    async fn place(&self, _path: &RemotePath) -> Option<Vec<u8>> {
        None
    }

    /// Refuses a path that this endpoint has no way to name, before anything is done for it.
    ///
    /// # Errors
    /// `InvalidPath`.
    fn check_path(&self, _path: &RemotePath) -> Result<()> {
        Ok(())
    }

    /// Returns the directory that the login starts in; for local files, the current directory.
    async fn home(&self) -> Result<RemotePath>;

    /// Returns the entry of one path; its `name` is the path's last component, empty for the root.
    async fn stat(&self, path: &RemotePath, follow: Follow) -> Result<Entry>;

    /// Returns the exact sizes and times of files that a listing showed with less, in their order; many in one trip where
    /// the protocol can. What the endpoint doesn't tell stays as it was.
    async fn exact(&self, files: Vec<(RemotePath, Entry)>) -> Result<Vec<Entry>> {
        let mut exact = Vec::with_capacity(files.len());
        for (path, entry) in files {
            let found = self.stat(&path, Follow::Nothing).await?;
            if found.kind != entry.kind {
                return Err(Error::new(ErrorKind::Other, "it is another kind of file than it was").at(path));
            }
            exact.push(Entry { size: found.size.or(entry.size), mtime: found.mtime.or(entry.mtime), ..entry });
        }
        Ok(exact)
    }

    /// Lists a directory with full metadata in one trip (links not followed; `target` where it comes for free).
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `PermissionDenied` before or as the first item of the stream.
    async fn list(&self, path: &RemotePath) -> Result<EntryStream>;

    /// Opens a file for reading bytes from exactly `range.start`, or fails.
    ///
    /// A start behind the end of the file yields end of file or fails; it never yields other bytes.
    async fn open_read(&self, path: &RemotePath, range: ReadRange) -> Result<Box<dyn ReadStream>>;

    /// Opens a file for writing at exactly the place that `mode` tells, or fails. The parent must exist.
    async fn open_write(&self, path: &RemotePath, mode: WriteMode) -> Result<Box<dyn WriteStream>>;

    /// Renames within the endpoint. With `Synced` the new name survives a loss of power.
    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace, durability: Durability) -> Result<()>;

    /// Removes a file or a symbolic link.
    async fn remove_file(&self, path: &RemotePath) -> Result<()>;

    /// Removes an empty directory.
    async fn remove_dir(&self, path: &RemotePath) -> Result<()>;

    /// Makes one directory; `AlreadyExists` if anything is there, `NotFound` if the parent is missing.
    async fn create_dir(&self, path: &RemotePath) -> Result<()>;

    /// Forces a file, or the names in a directory, to the disk, so that they survive a loss of power. Does nothing where
    /// `capabilities().fsync` says that the endpoint can't.
    async fn sync(&self, _path: &RemotePath) -> Result<()> {
        Ok(())
    }

    /// Sets what is `Some`; symbolic links are followed by most servers, so give no link. `Unsupported` where the
    /// capabilities say so.
    async fn set_metadata(&self, path: &RemotePath, metadata: SetMetadata) -> Result<()>;

    /// Returns where a symbolic link points.
    async fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>>;

    /// Makes a symbolic link at `path` pointing to `target`.
    async fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()>;

    /// Gives a file a second name. `Unsupported` where the endpoint has no such thing.
    async fn hard_link(&self, path: &RemotePath, second: &RemotePath) -> Result<()> {
        let _ = second;
        Err(lacks("link", "names of one file", path))
    }

    /// Makes somebody else the owner; links are followed. `Unsupported` where the endpoint can't.
    async fn set_owner(&self, path: &RemotePath, owner: Owner) -> Result<()> {
        let _ = owner;
        Err(lacks("set the owner", "owners", path))
    }

    /// Returns how full the file system of a path is. `Unsupported` where the endpoint doesn't tell.
    async fn disk_space(&self, path: &RemotePath) -> Result<DiskSpace> {
        Err(lacks("look at the file system", "how full it is", path))
    }

    /// Asks the endpoint for the digest of a part of a file, which it computes itself. `Unsupported` where it can't.
    async fn digest(&self, path: &RemotePath, algorithm: Algorithm, range: ReadRange) -> Result<Vec<u8>>;

    /// Returns from which size on asking for a digest costs less than reading the file; 0 where asking is a question like
    /// any other.
    fn digest_pays_from(&self) -> u64 {
        0
    }

    /// Copies bytes of one file to the same offset of another that is there, without moving them over the network.
    /// `Unsupported` where `server_copy` is not among the capabilities.
    async fn copy_range(&self, _from: &RemotePath, _to: &RemotePath, _range: ReadRange) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "the server doesn't copy files by itself"))
    }

    /// Says goodbye and closes every connection; streams still open fail.
    async fn close(&self) -> Result<()>;
}

fn lacks(what: &str, which: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{what}: the protocol has no words for {which}")).at(path)
}

/// A file being read. Dropped unfinished, it poisons its FTP connection or closes its SFTP handle.
#[async_trait]
pub trait ReadStream: Send {
    /// Returns the next bytes in order; empty means end of the range or file and nothing else.
    async fn read(&mut self) -> Result<Bytes>;

    /// Tells how fast it will be read, in bytes a second, if that is limited: so that no more is brought ahead of it than
    /// keeps it flowing. May change while it is read.
    fn pace(&mut self, bytes_per_second: Option<u64>) {
        let _ = bytes_per_second;
    }

    /// Returns the file's modification time, where opening it told that.
    fn mtime(&self) -> Option<Mtime> {
        None
    }

    /// Ends a read after `read` returned empty; only its `Ok` says that the server is content (FTP: the 226 was read).
    #[must_use = "only finish tells whether the transfer succeeded"]
    async fn finish(self: Box<Self>) -> Result<()>;
}

/// A file being written. Dropped unfinished, what was written so far stays and nothing more is claimed.
#[async_trait]
pub trait WriteStream: Send {
    /// Queues bytes behind the ones before. An error may belong to an earlier chunk; after one, only drop it.
    async fn write(&mut self, chunk: Bytes) -> Result<()>;

    /// Returns how many bytes from the stream's start, without a gap, the endpoint has taken so far.
    fn acknowledged(&self) -> u64;

    /// Hands on what it has gathered, where it gathers: after a break elsewhere, so that little is moved again.
    async fn hand_on(&mut self) -> Result<()> {
        Ok(())
    }

    /// Waits until every byte is taken, sets what is to be set, and closes the file. Only its `Ok` says that all of it
    /// is there.
    #[must_use = "only finish tells whether the transfer succeeded"]
    async fn finish(self: Box<Self>, last: Finish) -> Result<Finished>;
}

/// Connects and logs in to what a URL names.
///
/// # Errors
/// `ConnectionRefused`, `Timeout`, `Tls`, `HostKey`, `AuthFailed`, `TooManyConnections`, `Protocol`.
pub async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Arc<dyn Transport>> {
    Ok(match endpoint.scheme {
        Scheme::File => Arc::new(local::Local::sparse(options.sparse)),
        Scheme::Sftp => sftp::connect(endpoint, options).await?,
        Scheme::Ftp | Scheme::Ftpes | Scheme::Ftps => ftp::connect(endpoint, options).await?,
    })
}

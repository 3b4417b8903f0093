//! SFTP version 3: our own client, fully multiplexed, over any SSH engine.
//!
//! - [`wire`]: packets, both directions; the embedded server uses it too.
//! - `mux`: requests under way and their answers, without I/O; `channel`: the task that drives it; [`Client`]: the calls;
//!   `lanes`: the connections, a client each.
//! - `read`, `write`, `list`: the streams. `status`, `explain`: from STATUS to error.
//! - [`Sftp`]: the transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;

use super::ssh::{self, LoginCache, Session};
use super::{
    Algorithm, Capabilities, ConnectOptions, DiskSpace, Durability, Entry, EntryStream, FileKind, Follow, Owner,
    Precision, ReadRange, ReadStream, RemotePath, Replace, SetMetadata, Transport, WriteMode, WriteStream,
};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};

mod calls;
mod channel;
mod client;
mod digest;
mod entry;
mod explain;
mod fields;
mod flow;
mod lanes;
mod list;
#[cfg(test)]
mod misbehaving;
mod mux;
mod read;
mod request;
mod response;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod wire;
mod write;

pub use client::Client;

use digest::Digests;
use lanes::Lanes;
use list::Listing;
use request::{OpenFlags, Request};
use wire::Attrs;

/// The most streams at once that are sensible on one connection.
const STREAMS: usize = 64;
/// The most connections where the user doesn't say: OpenSSH's server lets ten log in at the same time.
const CONNECTIONS: usize = 8;

/// Connects and logs in.
///
/// # Errors
/// Those of [`ssh::connect`]; `Protocol` and `Timeout` when SFTP doesn't start.
pub async fn connect(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Arc<dyn Transport>> {
    let (endpoint, options) = (endpoint.clone(), options.clone());
    let timeout = options.timeout;
    let (most, at_once) = (options.max_connections.unwrap_or(CONNECTIONS), options.connections);
    let cache = LoginCache::default();
    let login = Arc::new((endpoint, options, cache.clone()));
    let dial: Dial = Box::new(move || {
        let login = Arc::clone(&login);
        Box::pin(async move { ssh::connect(&login.0, &login.1, &login.2).await })
    });
    let sftp = Sftp::start(dial, timeout, most, at_once).await?;
    Ok(Arc::new(Sftp { place: cache.place(), ..sftp }))
}

/// Opens an SSH connection; called for each that is wanted, and again when one has broken.
pub type Dial = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Session>>> + Send + Sync>;

/// The SFTP transport.
#[derive(Debug)]
pub struct Sftp {
    lanes: Lanes,
    capabilities: Capabilities,
    digests: Digests,
    link_order: AtomicU8,
    /// Who is where, if that is known.
    place: Option<String>,
}

/// Which argument of SYMLINK comes first; see [`Request::Symlink`].
const ORDER_UNKNOWN: u8 = 0;
const TARGET_FIRST: u8 = 1;
const LINK_FIRST: u8 = 2;

impl Sftp {
    /// Opens `at_once` connections and returns when the first is ready; there will be `most` at most. `timeout` is the
    /// longest wait without a sign of life.
    ///
    /// # Errors
    /// Those of `dial` and of [`Client::start`].
    pub async fn start(dial: Dial, timeout: Duration, most: usize, at_once: usize) -> Result<Self> {
        let lanes = Lanes::open(dial, timeout, most, at_once).await?;
        let client = lanes.any().await?;
        Ok(Self {
            lanes,
            capabilities: capabilities(&client, most),
            digests: Digests::new(&client),
            link_order: AtomicU8::new(ORDER_UNKNOWN),
            place: None,
        })
    }

    /// Returns the least busy connection, a new one if the last has broken.
    ///
    /// # Errors
    /// Those of connecting anew.
    pub async fn client(&self) -> Result<Client> {
        self.lanes.any().await
    }
}

fn capabilities(client: &Client, most: usize) -> Capabilities {
    Capabilities {
        local: false,
        resume_read: true,
        resume_write: true,
        random_write: true,
        set_mtime: Some(Precision::Second),
        mtime_on_read: false,
        set_mode: true,
        symlinks: true,
        atomic_replace: client.offers("posix-rename@openssh.com"),
        fsync: client.offers("fsync@openssh.com"),
        server_copy: client.offers("copy-data"),
        digests: Vec::new(),
        streams: STREAMS,
        max_connections: most,
    }
}

#[async_trait]
impl Transport for Sftp {
    fn capabilities(&self) -> Capabilities {
        let streams = self.lanes.handle_limit().min(STREAMS);
        Capabilities { streams, digests: self.digests.algorithms(), ..self.capabilities.clone() }
    }

    async fn set_connections(&self, wanted: usize) -> usize {
        self.lanes.set_wanted(wanted).await
    }

    fn round_trip(&self) -> Option<Duration> {
        self.lanes.round_trip()
    }

    async fn place(&self, path: &RemotePath) -> Option<Vec<u8>> {
        Some([self.place.as_ref()?.as_bytes(), path.as_bytes()].concat())
    }

    async fn home(&self) -> Result<RemotePath> {
        let client = self.client().await?;
        let request = Request::Realpath(Bytes::from_static(b"."));
        RemotePath::new(client.name(request, "find the home directory").await?)
    }

    async fn stat(&self, path: &RemotePath, follow: Follow) -> Result<Entry> {
        let client = self.client().await?;
        let request = match follow {
            Follow::Links => Request::Stat(bytes_of(path)),
            Follow::Nothing => Request::Lstat(bytes_of(path)),
        };
        let attrs = client.attrs(request, "look at").await.map_err(|e| e.at(path))?;
        let mut entry = entry::entry(path.file_name().unwrap_or_default(), attrs);
        if entry.kind == FileKind::Symlink {
            entry.target = client.read_link(path).await.ok();
        }
        Ok(entry)
    }

    async fn list(&self, path: &RemotePath) -> Result<EntryStream> {
        let (client, claim) = self.lanes.for_stream().await?;
        let listing = match Listing::open(&client, path).await {
            Ok(listing) => (listing, claim),
            Err(error) => return Err(explain::list(&client, path, error).await),
        };
        let path = path.clone();
        Ok(Box::pin(stream::unfold(Some(listing), move |listing| {
            let path = path.clone();
            async move {
                let (mut listing, claim) = listing?;
                match listing.next().await {
                    Ok(entry) => Some((Ok(entry?), Some((listing, claim)))),
                    Err(error) => Some((Err(error.at(&path)), None)),
                }
            }
        })))
    }

    async fn open_read(&self, path: &RemotePath, range: ReadRange) -> Result<Box<dyn ReadStream>> {
        let (client, claim) = self.lanes.for_stream().await?;
        let request = Request::Open(bytes_of(path), OpenFlags::READ, Attrs::default());
        match client.open(request, "open").await {
            Ok(file) => Ok(Box::new(read::SftpRead::new(file, claim, path.clone(), range))),
            Err(error) => Err(explain::read(&client, path, error).await),
        }
    }

    async fn open_write(&self, path: &RemotePath, mode: WriteMode) -> Result<Box<dyn WriteStream>> {
        let (client, claim) = self.lanes.for_stream().await?;
        let (file, offset) = match mode {
            WriteMode::Create { mode, .. } => (client.create(path, mode).await, 0),
            WriteMode::At(offset) => {
                let request = Request::Open(bytes_of(path), OpenFlags::WRITE, Attrs::default());
                (client.open(request, "open for writing").await, offset)
            }
        };
        match file {
            Ok(file) => Ok(Box::new(write::SftpWrite::new(file, claim, path.clone(), offset))),
            Err(error) => Err(explain::open(&client, path, error).await),
        }
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace, durability: Durability) -> Result<()> {
        let client = self.client().await?;
        client.rename(from, to, replace).await.map_err(|e| e.at(from).context(format!("to {to}")))?;
        if durability == Durability::Synced && client.offers("fsync@openssh.com") {
            client.sync(&to.parent().unwrap_or_else(RemotePath::root)).await;
        }
        Ok(())
    }

    async fn sync(&self, path: &RemotePath) -> Result<()> {
        let client = self.client().await?;
        if client.offers("fsync@openssh.com") {
            client.sync(path).await;
        }
        Ok(())
    }

    async fn remove_file(&self, path: &RemotePath) -> Result<()> {
        let client = self.client().await?;
        match client.status(Request::Remove(bytes_of(path)), "remove").await {
            Ok(()) => Ok(()),
            Err(error) => Err(explain::remove_file(&client, path, error).await),
        }
    }

    async fn remove_dir(&self, path: &RemotePath) -> Result<()> {
        let client = self.client().await?;
        match client.status(Request::Rmdir(bytes_of(path)), "remove the directory").await {
            Ok(()) => Ok(()),
            Err(error) => Err(explain::remove_dir(&client, path, error).await),
        }
    }

    async fn create_dir(&self, path: &RemotePath) -> Result<()> {
        let client = self.client().await?;
        match client.status(Request::Mkdir(bytes_of(path), Attrs::default()), "make the directory").await {
            Ok(()) => Ok(()),
            Err(error) => Err(explain::create(&client, path, error).await),
        }
    }

    async fn set_metadata(&self, path: &RemotePath, metadata: SetMetadata) -> Result<()> {
        let attrs = attrs_of(metadata).map_err(|e| e.at(path))?;
        if attrs == Attrs::default() {
            return Ok(());
        }
        let request = Request::Setstat(bytes_of(path), attrs);
        self.client().await?.status(request, "set time and mode").await.map_err(|e| e.at(path))
    }

    async fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        self.client().await?.read_link(path).await.map_err(|e| e.at(path))
    }

    async fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        let client = self.client().await?;
        let order = match self.link_order.load(Ordering::Relaxed) {
            ORDER_UNKNOWN => None,
            order => Some(order == TARGET_FIRST),
        };
        match client.symlink(target, path, order).await {
            Ok(target_first) => {
                let order = if target_first { TARGET_FIRST } else { LINK_FIRST };
                self.link_order.store(order, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(explain::create(&client, path, error).await),
        }
    }

    async fn hard_link(&self, path: &RemotePath, second: &RemotePath) -> Result<()> {
        let linked = self.client().await?.hardlink(path, second).await;
        linked.map_err(|e| e.at(path).context(format!("to {second}")))
    }

    async fn set_owner(&self, path: &RemotePath, owner: Owner) -> Result<()> {
        self.client().await?.set_owner(path, owner).await.map_err(|e| e.at(path))
    }

    async fn disk_space(&self, path: &RemotePath) -> Result<DiskSpace> {
        Ok(self.client().await?.statvfs(path).await.map_err(|e| e.at(path))?.into())
    }

    async fn digest(&self, path: &RemotePath, algorithm: Algorithm, range: ReadRange) -> Result<Vec<u8>> {
        let client = self.client().await?;
        self.digests.digest(&client, path, algorithm, range).await.map_err(|e| e.at(path))
    }

    fn digest_pays_from(&self) -> u64 {
        self.digests.pay_from()
    }

    async fn copy_range(&self, from: &RemotePath, to: &RemotePath, range: ReadRange) -> Result<()> {
        self.client().await?.copy_range(from, to, range).await
    }

    async fn close(&self) -> Result<()> {
        let closing = self.lanes.close().into_iter().map(|client| async move {
            client.end();
            client.session().close().await;
        });
        futures_util::future::join_all(closing).await;
        Ok(())
    }
}

fn bytes_of(path: &RemotePath) -> Bytes {
    Bytes::copy_from_slice(path.as_bytes())
}

fn attrs_of(metadata: SetMetadata) -> Result<Attrs> {
    let times = metadata.mtime.map(wire_time).transpose()?;
    Ok(Attrs {
        permissions: metadata.mode.map(|mode| mode & 0o7777),
        times: times.map(|time| (time, time)),
        ..Attrs::default()
    })
}

/// Version 3 counts seconds since 1970 in 32 bits, up to the year 2106.
fn wire_time(time: SystemTime) -> Result<u32> {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u32::try_from(since.as_secs()).ok())
        .ok_or_else(|| Error::new(ErrorKind::Unsupported, "set the time: SFTP has no times before 1970 or after 2106"))
}

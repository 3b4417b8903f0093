//! What a conformance case runs against, and what is known of each target beforehand.

use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::TryStreamExt;
use haul::transport::local::Local;
use haul::transport::{
    Durability, Entry, Precision, ReadRange, RemotePath, SshEngine, TlsMode, Transport, WriteMode, connect,
};
use haul::{ErrorKind, Result};

use super::lab::Server;

/// What a target can do, as its manual and a look at it say. The transport must report the same.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // each is an independent fact about a server
pub struct Facts {
    pub random_write: bool,
    pub set_mtime: Option<Precision>,
    pub set_mode: bool,
    pub symlinks: bool,
    pub atomic_replace: bool,
    pub fsync: bool,
    pub digests: bool,
    /// A line feed can be part of a name.
    pub line_feed_in_names: bool,
    /// Bytes that are not UTF-8 can be part of a name.
    pub raw_names: bool,
    /// The server's words tell a missing file from a forbidden one.
    pub says_why: bool,
}

impl Facts {
    const LOCAL: Self = Self {
        random_write: true,
        set_mtime: Some(Precision::Nanosecond),
        set_mode: true,
        symlinks: true,
        atomic_replace: true,
        fsync: true,
        digests: false,
        line_feed_in_names: true,
        raw_names: true,
        says_why: true,
    };
    const OPENSSH: Self = Self { set_mtime: Some(Precision::Second), digests: true, ..Self::LOCAL };
    const FTP: Self = Self {
        random_write: false,
        set_mtime: Some(Precision::Second),
        set_mode: true,
        symlinks: false,
        atomic_replace: true,
        fsync: false,
        digests: false,
        line_feed_in_names: false,
        raw_names: true,
        says_why: false,
    };
}

/// One backend against one server.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    Local,
    Sftp(&'static str, SshEngine, Facts),
    Ftp(&'static str, Facts),
}

impl Target {
    pub const LOCAL: Self = Self::Local;
    pub const OPENSSH_RUSSH: Self = Self::Sftp("openssh", SshEngine::Russh, Facts::OPENSSH);
    pub const OPENSSH_LIBSSH2: Self = Self::Sftp("openssh", SshEngine::Libssh2, Facts::OPENSSH);
    pub const OPENSSH_OPENSSH: Self = Self::Sftp("openssh", SshEngine::Openssh, Facts::OPENSSH);
    pub const PROFTPD_SFTP: Self =
        Self::Sftp("proftpd_sftp", SshEngine::Russh, Facts { digests: true, ..Facts::OPENSSH });
    pub const VSFTPD: Self = Self::Ftp("vsftpd", Facts::FTP);
    pub const VSFTPD_TLS12: Self = Self::Ftp("vsftpd_tls12", Facts::FTP);
    pub const VSFTPD_TLS13: Self = Self::Ftp("vsftpd_tls13", Facts::FTP);
    pub const PROFTPD: Self = Self::Ftp("proftpd", Facts { digests: true, ..Facts::FTP });
    pub const PROFTPD_TLS: Self = Self::Ftp("proftpd_tls", Facts::FTP);
    pub const PUREFTPD: Self = Self::Ftp("pureftpd", Facts::FTP);
    pub const PUREFTPD_TLS: Self = Self::Ftp("pureftpd_tls", Facts::FTP);
    pub const PYFTPDLIB: Self = Self::Ftp("pyftpdlib", Facts::FTP);
    pub const PYFTPDLIB_TLS: Self = Self::Ftp("pyftpdlib_tls", Facts::FTP);

    pub fn facts(&self) -> Facts {
        match self {
            Self::Local => Facts::LOCAL,
            Self::Sftp(_, _, facts) | Self::Ftp(_, facts) => *facts,
        }
    }
}

/// A case's own empty directory at a target: through the transport, and behind its back on the disk.
pub struct Place {
    pub transport: Arc<dyn Transport>,
    pub dir: RemotePath,
    pub disk: PathBuf,
    pub facts: Facts,
}

/// Runs one case against one target in an empty directory, which is removed afterwards.
pub fn run<F: Future<Output = ()>>(target: Target, case: fn(Place) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    runtime.block_on(async {
        let Some(place) = Place::open(target).await else { return };
        let (disk, transport) = (place.disk.clone(), Arc::clone(&place.transport));
        case(place).await;
        transport.close().await.expect("a goodbye");
        let _ = std::process::Command::new("chmod").args(["-R", "u+rwX"]).arg(&disk).status();
        let _ = std::fs::remove_dir_all(&disk);
    });
}

impl Place {
    async fn open(target: Target) -> Option<Self> {
        let (transport, root, start): (Arc<dyn Transport>, _, _) = match target {
            Target::Local => {
                let root = std::env::temp_dir();
                (Arc::new(Local::new()), root.clone(), root.as_os_str().as_bytes().to_vec())
            }
            Target::Sftp(name, engine, _) => {
                let server = Server::get(name)?;
                let options = haul::transport::ConnectOptions { ssh_engine: engine, ..server.options() };
                let transport = connect(&server.endpoint(), &options).await.expect("a login");
                (transport, server.root, server.start.into_bytes())
            }
            Target::Ftp(name, _) => {
                let server = Server::get(name)?;
                let tls = if server.scheme == "ftp" { TlsMode::Off } else { TlsMode::Require };
                let options = haul::transport::ConnectOptions { tls, ..server.options() };
                let transport = connect(&server.endpoint(), &options).await.expect("a login");
                (transport, server.root, server.start.into_bytes())
            }
        };
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("haul-case-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let disk = root.join(&name);
        std::fs::create_dir(&disk).expect("a directory for the case");
        own_as(&root, &disk);
        let dir = RemotePath::new(start).expect("a path").join(&name).expect("a name");
        Some(Self { transport, dir, disk, facts: target.facts() })
    }

    /// Returns the path of a name here.
    pub fn path(&self, name: impl AsRef<[u8]>) -> RemotePath {
        self.dir.join(name).expect("a plain name")
    }

    /// Returns the same on the disk.
    pub fn on_disk(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.disk.join(OsStr::from_bytes(name.as_ref()))
    }

    /// Puts a file there behind the transport's back.
    pub fn plant(&self, name: impl AsRef<[u8]>, contents: &[u8]) {
        let file = self.on_disk(name);
        std::fs::write(&file, contents).expect("a file on the disk");
        own_as(&self.disk, &file);
    }

    pub fn plant_dir(&self, name: impl AsRef<[u8]>) {
        let dir = self.on_disk(name);
        std::fs::create_dir(&dir).expect("a directory on the disk");
        own_as(&self.disk, &dir);
    }

    pub fn set_mode_on_disk(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.on_disk(name), std::fs::Permissions::from_mode(mode)).expect("a mode");
    }

    /// Whether file modes bind the server's user; root reads everything.
    pub fn modes_bind(&self) -> bool {
        std::fs::metadata(&self.disk).expect("the directory").uid() != 0
    }

    pub async fn read(&self, name: impl AsRef<[u8]>, range: ReadRange) -> Result<Vec<u8>> {
        read(&*self.transport, &self.path(name), range).await
    }

    pub async fn write(&self, name: impl AsRef<[u8]>, mode: WriteMode, contents: &Bytes) -> Result<()> {
        write(&*self.transport, &self.path(name), mode, contents).await
    }

    pub async fn list(&self, path: &RemotePath) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = self.transport.list(path).await?.try_collect().await?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

/// Reads to the end and finishes.
pub async fn read(transport: &dyn Transport, path: &RemotePath, range: ReadRange) -> Result<Vec<u8>> {
    let mut stream = transport.open_read(path, range).await?;
    let mut contents = Vec::new();
    loop {
        let chunk = stream.read().await?;
        if chunk.is_empty() {
            break;
        }
        contents.extend_from_slice(&chunk);
    }
    stream.finish().await?;
    Ok(contents)
}

/// Writes in chunks of a size that is no block's and finishes.
pub async fn write(transport: &dyn Transport, path: &RemotePath, mode: WriteMode, contents: &Bytes) -> Result<()> {
    let mut stream = transport.open_write(path, mode).await?;
    let mut rest = contents.clone();
    while !rest.is_empty() {
        let chunk = rest.split_to(rest.len().min(700_001));
        stream.write(chunk).await?;
        assert!(stream.acknowledged() <= (contents.len() - rest.len()) as u64, "more acknowledged than written");
    }
    stream.finish(Durability::Cached).await
}

/// Asserts that a call failed, and how.
#[track_caller]
pub fn assert_kind<T>(result: Result<T>, wanted: ErrorKind, what: &str) {
    match result {
        Ok(_) => panic!("{what}: succeeded instead of {wanted:?}"),
        Err(error) => assert_eq!(error.kind(), wanted, "{what}: {}", error.chain()),
    }
}

fn own_as(model: &Path, path: &Path) {
    let model = std::fs::metadata(model).expect("the model");
    // Only root can, and only root's files would otherwise differ from the server user's.
    let _ = std::os::unix::fs::lchown(path, Some(model.uid()), Some(model.gid()));
}

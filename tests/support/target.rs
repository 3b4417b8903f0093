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
use haul::endpoint::Endpoint;
use haul::serve::{self, FtpTls, Identity, Protocol};
use haul::transport::local::Local;
use haul::transport::{
    ConnectOptions, Entry, Finish, HostKeyPolicy, Precision, ReadRange, RemotePath, Secret, SshConfig, SshEngine,
    TlsMode, Transport, WriteMode, connect,
};
use haul::{ErrorKind, Result};
use tempfile::TempDir;

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
    /// Bytes that are not UTF-8 can be part of a name; else the server makes a file of another name, and says nothing.
    pub raw_names: bool,
    /// READLINK and LSTAT show a link as it was made; else the server resolves it first. Listings always show links.
    pub links_as_made: bool,
    /// Names that the server refuses.
    pub refused_names: &'static [&'static str],
    /// Names that the server takes for others, and says nothing.
    pub mistaken_names: &'static [&'static str],
    /// Names that the server refuses for directories.
    pub refused_directories: &'static [&'static str],
    /// A file can be made with a mode.
    pub create_mode: bool,
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
        links_as_made: true,
        refused_names: &[],
        mistaken_names: &[],
        refused_directories: &[],
        create_mode: true,
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
        create_mode: false,
        ..Self::LOCAL
    };
    const EMBEDDED_FTP: Self = Self { digests: true, ..Self::FTP };
    const PROFTPD_SFTP: Self = Self { digests: true, links_as_made: false, ..Self::OPENSSH };
    /// Its MKD refuses `*` in a name.
    const PROFTPD: Self = Self { refused_directories: &["star*question?"], ..Self::FTP };
    /// It cuts spaces off the end of a command and makes tabs to spaces, whatever they belong to.
    const PUREFTPD: Self = Self {
        refused_names: &["back\\slash", "trailing backslash\\"],
        mistaken_names: &["trailing space ", "tab\tinside"],
        ..Self::FTP
    };
    /// It decodes names, and puts U+FFFD where it can't.
    const PYFTPDLIB: Self = Self { raw_names: false, ..Self::FTP };
}

/// One backend against one server.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    Local,
    Embedded(Protocol, Facts),
    Sftp(&'static str, SshEngine, Facts),
    Ftp(&'static str, Facts),
}

impl Target {
    pub const LOCAL: Self = Self::Local;
    pub const EMBEDDED_SFTP: Self = Self::Embedded(Protocol::Sftp, Facts::OPENSSH);
    pub const EMBEDDED_FTP: Self = Self::Embedded(Protocol::Ftp(FtpTls::Off), Facts::EMBEDDED_FTP);
    pub const EMBEDDED_FTPES: Self = Self::Embedded(Protocol::Ftp(FtpTls::Require), Facts::EMBEDDED_FTP);
    pub const EMBEDDED_FTPS: Self = Self::Embedded(Protocol::Ftp(FtpTls::Implicit), Facts::EMBEDDED_FTP);
    pub const OPENSSH_RUSSH: Self = Self::Sftp("openssh", SshEngine::Russh, Facts::OPENSSH);
    pub const OPENSSH_LIBSSH2: Self = Self::Sftp("openssh", SshEngine::Libssh2, Facts::OPENSSH);
    pub const OPENSSH_OPENSSH: Self = Self::Sftp("openssh", SshEngine::Openssh, Facts::OPENSSH);
    pub const PROFTPD_SFTP: Self = Self::Sftp("proftpd_sftp", SshEngine::Russh, Facts::PROFTPD_SFTP);
    pub const VSFTPD: Self = Self::Ftp("vsftpd", Facts::FTP);
    pub const VSFTPD_TLS12: Self = Self::Ftp("vsftpd_tls12", Facts::FTP);
    pub const VSFTPD_TLS13: Self = Self::Ftp("vsftpd_tls13", Facts::FTP);
    pub const PROFTPD: Self = Self::Ftp("proftpd", Facts { digests: true, ..Facts::PROFTPD });
    pub const PROFTPD_TLS: Self = Self::Ftp("proftpd_tls", Facts::PROFTPD);
    pub const PUREFTPD: Self = Self::Ftp("pureftpd", Facts::PUREFTPD);
    pub const PUREFTPD_TLS: Self = Self::Ftp("pureftpd_tls", Facts::PUREFTPD);
    pub const PYFTPDLIB: Self = Self::Ftp("pyftpdlib", Facts::PYFTPDLIB);
    pub const PYFTPDLIB_TLS: Self = Self::Ftp("pyftpdlib_tls", Facts::PYFTPDLIB);

    pub fn facts(&self) -> Facts {
        match self {
            Self::Local => Facts::LOCAL,
            Self::Embedded(_, facts) | Self::Sftp(_, _, facts) | Self::Ftp(_, facts) => *facts,
        }
    }
}

/// A case's own empty directory at a target: through the transport, and behind its back on the disk.
pub struct Place {
    pub transport: Arc<dyn Transport>,
    pub dir: RemotePath,
    pub disk: PathBuf,
    pub facts: Facts,
    /// Serves for as long as the case runs.
    _embedded: Option<Embedded>,
}

/// haul's own server for one case.
pub struct Embedded {
    pub server: serve::Server,
    pub root: TempDir,
    state: TempDir,
}

impl Embedded {
    const PASSWORD: &str = "open sesame";

    pub async fn start(protocol: Protocol) -> Self {
        let (root, state) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
        let mut options = serve::Options::new(protocol, root.path(), state.path());
        options.password = Some(Secret::new(Self::PASSWORD));
        Self { server: serve::start(options).await.expect("a server"), root, state }
    }

    pub fn login(&self) -> (Endpoint, ConnectOptions) {
        let mut options = ConnectOptions {
            password: Some(Secret::new(Self::PASSWORD)),
            ssh_config: SshConfig::None,
            host_key: Some(HostKeyPolicy::Strict),
            ..ConnectOptions::default()
        };
        match self.server.identity() {
            Identity::HostKey { public_key, .. } => {
                let known_hosts = self.state.path().join("known_hosts");
                let port = self.server.address().port();
                std::fs::write(&known_hosts, format!("[127.0.0.1]:{port} {public_key}\n")).expect("known_hosts");
                options.known_hosts = Some(known_hosts);
            }
            Identity::Certificate { path, .. } => options.tls_ca = Some(path.clone()),
            Identity::None => options.tls = TlsMode::Off,
        }
        (Endpoint::parse(self.server.url()).expect("a URL"), options)
    }
}

/// The cases of this process so far: under plain `cargo test` they share one.
static NUMBER: AtomicU32 = AtomicU32::new(0);

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
        let mut embedded = None;
        let (transport, root, start): (Arc<dyn Transport>, _, _) = match target {
            Target::Local => {
                let root = std::env::temp_dir();
                (Arc::new(Local::new()), root.clone(), root.as_os_str().as_bytes().to_vec())
            }
            Target::Embedded(protocol, _) => {
                let server = Embedded::start(protocol).await;
                let root = server.root.path().to_owned();
                let (endpoint, options) = server.login();
                let transport = connect(&endpoint, &options).await.expect("a login");
                embedded = Some(server);
                (transport, root, b"/".to_vec())
            }
            Target::Sftp(name, engine, _) => {
                let server = Server::get(name)?;
                let options = ConnectOptions { ssh_engine: engine, ..server.options() };
                let transport = connect(&server.endpoint(), &options).await.expect("a login");
                (transport, server.root, server.start.into_bytes())
            }
            Target::Ftp(name, _) => {
                let server = Server::get(name)?;
                let transport = connect(&server.endpoint(), &server.options()).await.expect("a login");
                (transport, server.root, server.start.into_bytes())
            }
        };
        let name = format!("haul-case-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let disk = root.join(&name);
        std::fs::create_dir(&disk).expect("a directory for the case");
        own_as(&root, &disk);
        let dir = RemotePath::new(start).expect("a path").join(&name).expect("a name");
        Some(Self { transport, dir, disk, facts: target.facts(), _embedded: embedded })
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
    stream.finish(Finish::CACHED).await.map(|_| ())
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

//! A served folder with something in it, something outside of it, and the client's own folder.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use haul::serve::{FtpTls, Identity, Options, Protocol, Server, start};
use haul::transport::Secret;
use tempfile::TempDir;

pub(crate) const USER: &str = "haul";
pub(crate) const PASSWORD: &str = "p w'\"$";
/// Names that break clients and servers.
pub(crate) const NAMES: [&[u8]; 7] =
    [b"plain", b"with  two spaces", b" leading", b"-dash", b"quote\"'s", b"br[ack]et{s}*?", b"not-utf8-\xff\xe9"];

pub(crate) struct Scene {
    pub(crate) served: TempDir,
    pub(crate) outside: TempDir,
    pub(crate) local: TempDir,
    pub(crate) state: TempDir,
    pub(crate) server: Option<Server>,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self::with(protocol, |_| {})
    }

    pub(crate) fn with(protocol: Protocol, change: impl FnOnce(&mut Options)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dir = || tempfile::tempdir().unwrap();
        let (folder, outside, local, state) = (dir(), dir(), dir(), dir());
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let mut options = Options::new(protocol, folder.path(), state.path());
        options.user = USER.into();
        options.password = Some(Secret::new(PASSWORD));
        change(&mut options);
        let server = runtime.block_on(start(options)).unwrap();
        Self { served: folder, outside, local, state, server: Some(server), runtime }
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.as_ref().unwrap().address().port()
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        match self.server.as_ref().unwrap().identity() {
            Identity::Certificate { path, .. } => path.clone(),
            other => panic!("no certificate: {other:?}"),
        }
    }

    pub(crate) fn served(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.served.path().join(OsStr::from_bytes(name.as_ref()))
    }

    pub(crate) fn local(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.local.path().join(OsStr::from_bytes(name.as_ref()))
    }

    pub(crate) fn stop(&mut self) {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.stop());
    }
}

/// Bytes that tell their place, so that a shift or a gap shows.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[i % 4]).collect()
}

pub(crate) fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns whether a client is there; if not, says that the test is skipped.
pub(crate) fn installed(client: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {client}")]).stdout(Stdio::null()).status();
    if found.unwrap().success() {
        return true;
    }
    assert!(std::env::var_os("HAUL_TEST_NO_SKIP").is_none(), "{client} is not installed");
    println!("SKIPPED: {client} is not installed");
    false
}

pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    println!("{command:?}\n{}\n{}\n{}", output.status, shown(&output.stdout), shown(&output.stderr));
    output
}

pub(crate) const TLS_MODES: [FtpTls; 4] = [FtpTls::Off, FtpTls::Allow, FtpTls::Require, FtpTls::Implicit];

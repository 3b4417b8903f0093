//! haul's own servers for tests, quick to start, known as the lab's are, and ready to be reached by a link.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use haul::serve::{self, FtpTls, Identity, Protocol};
use haul::transport::Secret;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::data::Dice;
use super::lab::Server;

const PASSWORD: &str = "open sesame";
/// The addresses in the server's network that its certificate and known_hosts name: its own and those of links.
pub(super) const ADDRESSES: std::ops::RangeInclusive<u8> = 1..=33;

/// A running server for an empty folder; dropped, it is gone.
pub struct Served {
    /// What a client needs.
    pub server: Server,
    options: serve::Options,
    running: Option<serve::Server>,
    runtime: Option<Runtime>,
    _dir: TempDir,
}

impl Served {
    /// Starts it on a loopback address of its own, in this process.
    pub fn start(protocol: Protocol) -> Self {
        Self::start_with(protocol, |_| {})
    }

    /// Starts it with other options than usual.
    pub fn start_with(protocol: Protocol, change: impl FnOnce(&mut serve::Options)) -> Self {
        let dir = TempDir::new().expect("a folder");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
        let (root, state) = (dir.path().join("root"), dir.path().join("state"));
        std::fs::create_dir(&root).expect("the folder to serve");
        let network = any_network();
        let mut options = serve::Options::new(protocol, &root, &state);
        options.listen = SocketAddr::new(address(network, *ADDRESSES.start()).into(), 0);
        options.password = Some(Secret::new(PASSWORD));
        change(&mut options);
        if protocol != Protocol::Sftp {
            write_certificate(&state.join("serve"), network);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let running = runtime.block_on(serve::start(options.clone())).expect("a server");
        // Started again, it is where it was.
        options.listen = running.address();
        let known_hosts = dir.path().join("known_hosts");
        let mut ca = PathBuf::new();
        match running.identity() {
            Identity::HostKey { public_key, .. } => {
                let line = |last| format!("[{}]:{} {public_key}\n", address(network, last), options.listen.port());
                std::fs::write(&known_hosts, ADDRESSES.map(line).collect::<String>()).expect("known_hosts");
            }
            Identity::Certificate { path, .. } => ca.clone_from(path),
            Identity::None => {}
        }
        let server = Server {
            name: format!("haul's own ({protocol:?})"),
            scheme: scheme(protocol).into(),
            host: options.listen.ip().to_string(),
            port: options.listen.port(),
            data_ports: (0, 0),
            login: options.user.clone(),
            password: Some(PASSWORD.into()),
            root,
            start: "/".into(),
            ca,
            known_hosts,
            identity: PathBuf::new(),
            log: PathBuf::new(),
        };
        Self { server, options, running: Some(running), runtime: Some(runtime), _dir: dir }
    }

    /// Ends every session at once, as when the server is killed; it is there again when this returns.
    pub fn restart(&mut self) {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(self.running.take().unwrap().stop());
        self.running = Some(runtime.block_on(serve::start(self.options.clone())).expect("the server again"));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.running.take());
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Chooses a loopback network; 127.0.0.0/24 is the lab's.
pub(super) fn any_network() -> [u8; 2] {
    let [a, b, ..] = Dice::new(getrandom::u64().expect("random numbers")).any().to_ne_bytes();
    [a.max(1), b]
}

fn scheme(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Sftp => "sftp",
        Protocol::Ftp(FtpTls::Off | FtpTls::Allow) => "ftp",
        Protocol::Ftp(FtpTls::Require) => "ftpes",
        Protocol::Ftp(FtpTls::Implicit) => "ftps",
    }
}

pub(super) fn address([a, b]: [u8; 2], last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, a, b, last)
}

/// Puts a certificate for the whole network where the server would make one for its own address.
pub(super) fn write_certificate(folder: &Path, network: [u8; 2]) {
    let names: Vec<_> = ADDRESSES.map(|last| address(network, last).to_string()).collect();
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(names).and_then(|p| p.self_signed(&key)).expect("a certificate");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).expect("the state folder");
    let path = folder.join(format!("tls-{}-key.pem", address(network, *ADDRESSES.start())));
    std::fs::write(&path, format!("{}{}", key.serialize_pem(), certificate.pem())).expect("the certificate");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
}

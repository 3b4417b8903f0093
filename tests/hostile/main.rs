//! Servers that call their files what would lead elsewhere, over real connections: SFTP and FTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ftp;
mod sftp;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haul::ErrorKind;
use haul::endpoint::Endpoint;
use haul::plan::{self, Place};
use haul::transfer::{Event, Observer, Options, Outcome, Status, run};
use haul::transport::{ConnectOptions, HostKeyPolicy, Secret, SshConfig, connect};
use tokio_util::sync::CancellationToken;

/// What every file of the servers holds.
const CONTENT: &[u8] = b"evil";
/// Names that must not be used.
const BAD: [&[u8]; 7] = [b"..", b".", b"../up", b"../../outside/victim", b"/tmp/haul-evil", b"a/b", b"a\0b"];
/// Names that look bad, and are names like others here.
const ODD: [&[u8]; 5] = [b"ok", b"..\\..\\up", b"C:\\x", b"...", b"-rf"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Link(&'static str),
}

/// What is in a directory of the servers.
fn entries(dir: &[u8]) -> Vec<(&'static [u8], Kind)> {
    match dir {
        b"/names" => {
            BAD.iter().chain(&ODD).map(|name| (*name, Kind::File)).chain([(&b"../d"[..], Kind::Directory)]).collect()
        }
        // First a link, then files below what it is called.
        b"/a/t" => vec![(b"l", Kind::Link("../../outside")), (b"f", Kind::Link("../../outside/victim"))],
        b"/b/t" => vec![(b"l", Kind::Directory), (b"f", Kind::File)],
        b"/b/t/l" => vec![(b"victim", Kind::File), (b"new", Kind::File)],
        _ => Vec::new(),
    }
}

fn is_directory(path: &[u8]) -> bool {
    matches!(path, b"/" | b"/names" | b"/a" | b"/b" | b"/a/t" | b"/b/t" | b"/b/t/l")
}

#[derive(Default)]
struct Log(Mutex<Vec<Outcome>>);

impl Observer for Log {
    fn event(&self, event: Event) {
        if let Event::Finished(outcome) = event {
            self.0.lock().unwrap().push(outcome);
        }
    }
}

/// Folders `out`, where files are to go, and `outside`, where none may go.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(scene.path("out")).unwrap();
        std::fs::create_dir(scene.path("outside")).unwrap();
        std::fs::write(scene.path("outside/victim"), "precious").unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `haul get -r -p URL out`; returns what came of each file.
    async fn get(&self, url: &str, known_hosts: Option<&Path>) -> Vec<Outcome> {
        let options = ConnectOptions {
            password: Some(Secret::new("secret")),
            agent: None,
            identities: Vec::new(),
            known_hosts: known_hosts.map(Path::to_path_buf),
            host_key: Some(HostKeyPolicy::Strict),
            ssh_config: SshConfig::None,
            timeout: Duration::from_secs(20),
            ..ConnectOptions::default()
        };
        let endpoint = Endpoint::parse(url).unwrap();
        let source = Place { transport: connect(&endpoint, &options).await.unwrap(), endpoint };
        let endpoint = Endpoint::parse(self.path("out")).unwrap();
        let target = Place { transport: connect(&endpoint, &options).await.unwrap(), endpoint };
        let log = Arc::new(Log::default());
        let observer: Arc<dyn Observer> = Arc::<Log>::clone(&log);
        let planned = plan::Options {
            recursive: true,
            preserve: true,
            retries: 0,
            retry_wait: Duration::ZERO,
            ..plan::Options::default()
        };
        let tasks = plan::copy(vec![source], target, planned, Arc::clone(&observer)).await.unwrap();
        let options = Options { preserve_mode: true, retries: 0, ..Options::new(self.path("state")) };
        run(tasks, &options, observer, CancellationToken::new()).await.unwrap();
        std::mem::take(&mut log.0.lock().unwrap())
    }

    async fn names_stay_below(&self, url: &str, known_hosts: Option<&Path>) {
        let outcomes = self.get(&format!("{url}names"), known_hosts).await;
        let mut names: Vec<_> = std::fs::read_dir(self.path("out/names"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_encoded_bytes())
            .collect();
        names.sort();
        let mut odd = ODD.map(<[u8]>::to_vec);
        odd.sort();
        assert_eq!(names, odd);
        for name in ["ok", "..."] {
            let path = self.path("out/names").join(name);
            assert_eq!(std::fs::read(&path).unwrap(), CONTENT);
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7000, 0, "setuid came along");
        }
        let refused = outcomes.iter().filter(
            |outcome| matches!(&outcome.status, Status::Failed(error) if error.kind() == ErrorKind::InvalidPath),
        );
        // `.` and `..` stand in every honest listing, and are skipped where the protocol says so.
        assert!(refused.count() >= BAD.len() - 2, "{outcomes:#?}");
        self.nothing_else_is_there();
    }

    async fn links_lead_nowhere(&self, url: &str, known_hosts: Option<&Path>) {
        self.get(&format!("{url}a/t"), known_hosts).await;
        assert!(self.path("out/t/l").is_symlink() && self.path("out/t/f").is_symlink(), "the links are kept");
        let outcomes = self.get(&format!("{url}b/t"), known_hosts).await;
        let failed = outcomes.iter().filter(|outcome| matches!(outcome.status, Status::Failed(_)));
        assert!(failed.count() >= 2, "{outcomes:#?}");
        assert_eq!(std::fs::read(self.path("out/t/f")).unwrap(), CONTENT);
        assert!(!self.path("out/t/f").is_symlink());
        self.nothing_else_is_there();
    }

    fn nothing_else_is_there(&self) {
        assert_eq!(std::fs::read_dir(self.path("outside")).unwrap().count(), 1);
        assert_eq!(std::fs::read(self.path("outside/victim")).unwrap(), b"precious");
        assert_eq!(std::fs::read_dir(self.path("out")).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(self.path("")).unwrap().count(), 3);
        assert!(!Path::new("/tmp/haul-evil").exists());
    }
}

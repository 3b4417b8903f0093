//! haul as a library: what the builders promise, against haul's own servers, and the examples as they stand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use haul::serve::{self, FtpTls, Protocol};
use haul::transfer::Limiter;
use haul::{ErrorKind, Event, Filter, HostKeyPolicy, Secret, Status, Transfer};
use tempfile::TempDir;

struct Scene {
    dir: TempDir,
    server: serve::Server,
}

impl Scene {
    async fn start(protocol: Protocol) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let mut options = serve::Options::new(protocol, dir.path().join("root"), dir.path().join("served"));
        options.password = Some(Secret::new("open sesame"));
        Self { server: serve::start(options).await.unwrap(), dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plant(&self, name: &str, contents: &[u8]) {
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        std::fs::write(self.at(name), contents).unwrap();
    }

    fn url(&self, name: &str) -> String {
        format!("{}{name}", self.server.url())
    }

    /// With what it takes to log in, and a state of its own.
    fn ready(&self, transfer: Transfer) -> Transfer {
        let transfer = transfer.password("open sesame").state_dir(self.at("state"));
        transfer.known_hosts(self.at("known_hosts")).host_key(HostKeyPolicy::AcceptNew)
    }
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Sftp, Protocol::Ftp(FtpTls::Off)];

#[tokio::test(flavor = "multi_thread")]
async fn files_go_there_and_back() {
    for protocol in PROTOCOLS {
        let scene = Scene::start(protocol).await;
        scene.plant("here/a.txt", b"a");
        scene.plant("here/sub/b.bin", &vec![7; 100_000]);
        scene.plant("here/sub/c.tmp", b"c");
        let filter = Filter::builder().exclude("*.tmp").build().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let put = scene.ready(haul::put(scene.at("here"), scene.url("there"))).recursive(true).filter(filter);
        let names = Arc::clone(&seen);
        let put = put.on_event(move |event| {
            if let Event::Finished(outcome) = event {
                assert!(matches!(outcome.status, Status::Done));
                names.lock().unwrap().push(outcome.source.clone());
            }
        });
        let summary = put.run().await.unwrap().into_result().unwrap();
        assert_eq!((summary.done, summary.bytes, seen.lock().unwrap().len()), (2, 100_001, 2));

        let mut get = scene.ready(haul::get(scene.url("there"), scene.at("back"))).recursive(true);
        let mut events = get.events();
        let read = async {
            let (mut finished, mut all_found) = (0, false);
            while let Some(event) = events.next().await {
                finished += usize::from(matches!(event, Event::Finished(_)));
                all_found |= matches!(event, Event::AllFound);
            }
            (finished, all_found)
        };
        let (report, seen) = tokio::join!(get.run(), read);
        assert!(report.unwrap().is_complete());
        assert_eq!(seen, (2, true), "the events end with the run");
        assert_eq!(std::fs::read(scene.at("back/sub/b.bin")).unwrap(), vec![7; 100_000]);

        let list = haul::list(scene.url("there")).password("open sesame").recursive(true).state_dir(scene.at("state"));
        let list = list.known_hosts(scene.at("known_hosts"));
        let mut paths: Vec<_> = list.run().await.unwrap().iter().map(|listed| listed.path().to_string()).collect();
        paths.sort();
        assert_eq!(paths, ["/there/a.txt", "/there/sub", "/there/sub/b.bin"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_files_are_in_the_report_and_others_are_errors() {
    let scene = Scene::start(Protocol::Sftp).await;
    scene.plant("root/a", b"a");
    std::fs::create_dir(scene.at("to")).unwrap();
    let get = scene.ready(haul::get(scene.url("a"), scene.at("to"))).source(scene.url("missing"));
    let report = get.run().await.unwrap();
    assert_eq!((report.summary().done, report.summary().failed, report.is_complete()), (1, 1, false));
    let failure = &report.failures()[0];
    assert_eq!((failure.source(), failure.error().kind()), (scene.url("missing").as_str(), ErrorKind::NotFound));
    assert_eq!(report.into_result().unwrap_err().kind(), ErrorKind::NotFound);

    let kind = async |transfer: Transfer| transfer.run().await.unwrap_err().kind();
    let url = scene.url("a");
    assert_eq!(kind(scene.ready(haul::get(&url, scene.at("to"))).password("wrong")).await, ErrorKind::AuthFailed);
    assert_eq!(kind(scene.ready(haul::get("gopher://h/x", scene.at("to")))).await, ErrorKind::Usage);
    let strict = scene.ready(haul::get(&url, scene.at("to"))).known_hosts(scene.at("none"));
    assert_eq!(kind(strict.host_key(HostKeyPolicy::Strict)).await, ErrorKind::HostKey);
    let shown = format!("{:?}", haul::get("sftp://me:hunter2@h/x", ".").password("hunter2"));
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// Nothing is deleted that a filter rules out, nor more than may be; a dry run tells all and does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn trees_are_made_equal() {
    for protocol in PROTOCOLS {
        let scene = Scene::start(protocol).await;
        for name in ["here/same", "here/sub/new", "root/there/old", "root/there/kept.log"] {
            scene.plant(name, name.as_bytes());
        }
        let sync = || {
            let filter = Filter::builder().exclude("*.log").build().unwrap();
            let sync = haul::sync(scene.at("here"), scene.url("there")).delete(true).filter(filter);
            let sync = sync.password("open sesame").state_dir(scene.at("state"));
            sync.known_hosts(scene.at("known_hosts")).host_key(HostKeyPolicy::AcceptNew)
        };
        let changes = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&changes);
        let dry = sync().dry_run(true).on_change(move |change| told.lock().unwrap().push(change.what.name()));
        assert_eq!(dry.run().await.unwrap().deleted(), 1);
        changes.lock().unwrap().sort_unstable();
        assert_eq!(*changes.lock().unwrap(), ["copy", "copy", "delete", "mkdir"]);
        assert!(scene.at("root/there/old").exists() && !scene.at("root/there/same").exists());

        let refused = sync().max_delete(0).run().await.unwrap();
        assert!(refused.refused().is_some() && !refused.is_complete() && scene.at("root/there/old").exists());
        let report = sync().run().await.unwrap();
        assert_eq!((report.deleted(), report.equal(), report.is_complete()), (1, 2, true));
        assert!(scene.at("root/there/kept.log").exists() && scene.at("root/there/sub/new").exists());
        assert_eq!(sync().run().await.unwrap().into_result().unwrap().done, 0);
    }
}

/// Stopped in the middle, the next run goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_stopped_goes_on_later() {
    let scene = Scene::start(Protocol::Sftp).await;
    let size = 24 << 20;
    scene.plant("root/large", &vec![3; size]);
    let get = || scene.ready(haul::get(scene.url("large"), scene.at("large")));
    let slow = get().options(|options| options.limiter = Limiter::new(Some(16 << 20)));
    let canceller = slow.canceller();
    let slow = slow.on_event(move |event| {
        if matches!(event, Event::Progress { position, .. } if *position > 4 << 20) {
            canceller.cancel();
        }
    });
    let report = slow.run().await.unwrap();
    assert!(report.summary().cancelled && !scene.at("large").exists());
    assert_eq!(report.into_result().unwrap_err().kind(), ErrorKind::Cancelled);
    let summary = get().run().await.unwrap().into_result().unwrap();
    assert!(summary.transferred < size as u64, "{} bytes were moved again", summary.transferred);
    assert_eq!(std::fs::read(scene.at("large")).unwrap(), vec![3; size]);

    let stopped = get();
    stopped.canceller().cancel();
    assert_eq!(stopped.run().await.unwrap_err().kind(), ErrorKind::Cancelled);
}

/// The future can be sent to another task.
#[test]
fn runs_can_be_spawned() {
    fn sendable<T: Send>(_: T) {}
    sendable(haul::get("a", "b").run());
    sendable(haul::sync("a", "b").run());
    sendable(haul::list("a").run());
}

/// As somebody runs them who has just found them: without arguments.
#[test]
fn the_examples_run_as_they_are() {
    let home = tempfile::tempdir().unwrap();
    for (name, said) in [("get", "2 files, 20971526 bytes"), ("put", "1 files, 9 bytes"), ("list", "new.txt")] {
        let output =
            Command::new(example(name)).env("HOME", home.path()).env_remove("XDG_STATE_HOME").output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.contains(said), "{name}: {told}{failed}");
    }
}

/// Returns the program, built if need be: not every way to run tests builds examples.
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_haul")).with_file_name("examples").join(name);
    if !path.exists() {
        let cargo = Command::new(env!("CARGO")).args(["build", "--quiet", "--example", name]).status();
        assert!(cargo.is_ok_and(|status| status.success()), "cargo builds the example {name}");
    }
    path
}

//! An SFTP server that lies about transfers: what can be known is found out, what arrived wrong never gets the final
//! name, and the same command against the same server, honest again, brings the right bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::case_sensitive_file_extension_comparisons)]

mod peer;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use haul::transport::sftp::wire::{Attrs, Request, Response, StatusCode};
use peer::{Act, Lie, Peer, Said};
use serde_json::Value;

const MIB: usize = 1 << 20;
const OLD: &[u8] = b"what was there before";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Get,
    Put,
}

use Way::{Get, Put};

/// A file to move between a folder and the peer's `/f`, and a home of its own for the program.
struct Scene {
    folder: tempfile::TempDir,
    way: Way,
    peer: Peer,
    contents: Vec<u8>,
}

/// How a run ended.
struct Ran {
    code: Option<i32>,
    /// What JSON says of the file.
    event: Value,
    told: String,
}

impl Scene {
    async fn new(way: Way, contents: Vec<u8>, digests: bool, lie: Lie) -> Self {
        let (peer, folder) = (Peer::start(digests, lie).await, tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.path().join("near")).unwrap();
        let (source, old) = if way == Put { (&contents[..], OLD) } else { (OLD, &contents[..]) };
        std::fs::write(folder.path().join("near/f"), source).unwrap();
        peer.files.put("/f", old);
        Self { folder, way, peer, contents }
    }

    fn near(&self) -> PathBuf {
        self.folder.path().join("near/f")
    }

    /// Runs the command that moves the file, while somebody reads what is under the final name.
    async fn run(&self, options: &[&str]) -> Ran {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_haul"));
        let far = format!("{}/f", self.peer.url);
        match self.way {
            Get => command.arg("get").arg(far).arg(self.near()),
            Put => command.arg("put").arg(self.near()).arg(far),
        };
        command.args(["--json", "--progress", "plain", "--timeout", "2s", "--retries", "2", "--ssh-config", "none"]);
        command.args(["--host-key", "strict", "--known-hosts"]).arg(self.peer.known_hosts()).args(options);
        let home = self.folder.path();
        command.env_clear().env("HOME", home).env("XDG_STATE_HOME", home.join("state")).env("HAUL_PASSWORD", "secret");
        let mut running = Box::pin(command.stdin(Stdio::null()).output());
        let mut wrong = false;
        let output = loop {
            tokio::select! {
                output = &mut running => break output.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(10)) => wrong |= !self.is_old_or_whole(),
            }
        };
        wrong |= !self.is_old_or_whole();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = format!("{}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
        assert!(!wrong, "something else was under the final name: {told}");
        let mut events = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ran { code: output.status.code(), event: events.next().unwrap_or_default(), told }
    }

    /// What is under the final name; nothing for the instant in which an old file is out of the way of the new one.
    fn arrived(&self) -> Option<Vec<u8>> {
        match self.way {
            Get => std::fs::read(self.near()).ok(),
            Put => self.peer.files.get("/f"),
        }
    }

    fn is_old_or_whole(&self) -> bool {
        self.arrived().is_none_or(|arrived| arrived == OLD || arrived == self.contents)
    }

    /// Part files at the destination and journals, by what follows the last dot.
    fn strays(&self) -> Vec<String> {
        let names = |dir: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let mut all = names(&self.folder.path().join("near"));
        all.extend(self.peer.files.names());
        all.extend(names(&self.folder.path().join("state/haul/transfers")));
        let is_stray = |name: &String| name.contains(".haul-") || name.ends_with(".journal") || name.ends_with(".new");
        let mut all: Vec<_> =
            all.into_iter().filter(is_stray).map(|name| name.rsplit('.').next().unwrap().into()).collect();
        all.sort();
        all
    }

    fn assert_whole(&self, told: &str) {
        assert!(self.arrived().as_ref() == Some(&self.contents), "{told}");
    }
}

/// What the run beside the liar comes to.
#[derive(Clone, Copy)]
enum Expected {
    Done,
    /// The file fails, of this kind and with these words.
    Fails(&'static str, &'static str),
    /// What arrived is wrong: exit 4, set aside.
    Wrong(&'static str),
}

use Expected::{Done, Fails, Wrong};

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// The whole life of one lie, for a file without a journal and one with: the run beside it, and the next one with an
/// honest server.
async fn cases(what: &str, way: Way, expected: Expected, lie: fn(&Said) -> Option<Act>) {
    for size in [100_000, 3 * MIB + 5] {
        let scene = Scene::new(way, random(size), false, Arc::new(lie)).await;
        let ran = scene.run(&[]).await;
        let told = format!("{way:?} of {size} bytes, {what}: {}", ran.told);
        let (code, kind, words) = match expected {
            Done => {
                assert_eq!(ran.code, Some(0), "{told}");
                scene.assert_whole(&told);
                assert_eq!(scene.strays(), [""; 0], "{told}");
                continue;
            }
            Fails(kind, words) => (1, kind, words),
            Wrong(words) => (4, "verify_failed", words),
        };
        assert_eq!((ran.code, ran.event["error"]["kind"].as_str()), (Some(code), Some(kind)), "{told}");
        assert!(ran.event["error"]["message"].as_str().unwrap().contains(words), "{told}");
        assert_eq!(scene.arrived().as_deref(), Some(OLD), "{told}");
        scene.peer.lies.store(false, SeqCst);
        let again = scene.run(&[]).await;
        assert_eq!(again.code, Some(0), "{told}\n{}", again.told);
        scene.assert_whole(&told);
        let aside: &[&str] = if code == 4 { &["bad"] } else { &[] };
        assert_eq!(scene.strays(), aside, "{told}\n{}", again.told);
    }
}

fn failure(words: &'static str) -> Response {
    Response::status(StatusCode::FAILURE, words)
}

/// Whether a request is about the end of a file of this size.
fn half_of(said: &Said, handle: &Bytes) -> u64 {
    said.files.size(handle).unwrap_or(0) / 2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_in_odd_pieces_arrive_all_the_same() {
    cases("pieces of odd sizes, some of one byte", Get, Done, |said| match said.request {
        Request::Read(handle, offset, length) => {
            let most = [1, 4093, 7, 9973, 32_768][said.before % 5];
            let request = Request::Read(handle.clone(), *offset, (*length).min(most));
            Some(Act::Say(Said { request: &request, ..*said }.honestly()))
        }
        _ => None,
    })
    .await;
    cases("answers in another order", Get, Done, |said| match said.request {
        // With the last one come those that are held.
        Request::Read(handle, offset, length) if offset + u64::from(*length) < said.files.size(handle)? => {
            Some(Act::Hold(said.honestly(), 3))
        }
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_that_end_early_or_break() {
    fn early(said: &Said) -> Option<Act> {
        match said.request {
            Request::Read(handle, offset, _) if *offset >= half_of(said, handle) => {
                Some(Act::Say(Response::status(StatusCode::EOF, "")))
            }
            _ => None,
        }
    }
    cases("the end before the end, always", Get, Fails("connection_lost", "bytes came"), early).await;
    cases("the handle is lost", Get, Fails("other", "invalid handle"), |said| match said.request {
        Request::Read(handle, offset, _) if *offset >= half_of(said, handle) => {
            Some(Act::Say(failure("invalid handle")))
        }
        _ => None,
    })
    .await;
    cases("more than was asked for", Get, Fails("protocol", ""), |said| match said.request {
        Request::Read(handle, offset, length) => {
            let request = Request::Read(handle.clone(), *offset, *length + 1);
            match (Said { request: &request, ..*said }).honestly() {
                // At the end of the file there is no more.
                Response::Data(data) if data.len() <= *length as usize => Some(Act::Say(Response::Data(
                    [&data[..], &vec![0; *length as usize + 1 - data.len()]].concat().into(),
                ))),
                response => Some(Act::Say(response)),
            }
        }
        _ => None,
    })
    .await;
    cases("hung up in the middle, once", Get, Done, |said| {
        said.first("READ").then(|| Act::SayAndPart(said.honestly()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_are_refused_somewhere() {
    cases("answers in another order, one of them a failure", Put, Fails("other", "bad sector"), |said| {
        let response = if said.before == 2 { failure("bad sector") } else { said.honestly() };
        (said.verb == "WRITE").then(|| Act::Hold(response, 8))
    })
    .await;
    cases("answers in another order", Put, Done, |said| (said.verb == "WRITE").then(|| Act::Hold(said.honestly(), 8)))
        .await;
    cases("no room when it is closed", Put, Fails("no_space", "close: No space left on device"), |said| {
        (said.verb == "CLOSE").then(|| Act::Say(failure("No space left on device")))
    })
    .await;
    cases("the time is refused", Put, Done, |said| {
        (said.verb == "FSETSTAT").then(|| Act::Say(Response::status(StatusCode::PERMISSION_DENIED, "no")))
    })
    .await;
    cases("the name is refused", Put, Fails("permission_denied", "rename"), |said| {
        (said.verb == "RENAME").then(|| Act::Say(Response::status(StatusCode::PERMISSION_DENIED, "no")))
    })
    .await;
    // The old file is put out of the way, then the new one is refused: the old one gets its name back.
    cases("the name is refused once the old file is gone", Put, Fails("other", "rename"), |said| match said.request {
        Request::Rename(from, to) if from.ends_with(b".part") && to == "/f" => Some(Act::Say(failure("no, not you"))),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_whose_end_is_a_lie() {
    cases("a wrong size", Put, Wrong("bytes arrived where"), |said| match said.verb {
        "FSTAT" => Some(Act::Say(Response::Attrs(Attrs { size: Some(7), ..Attrs::default() }))),
        _ => None,
    })
    .await;
    cases("the last bytes are taken and lost", Put, Wrong("bytes arrived where"), |said| match said.request {
        Request::Write(_, offset, data) if [100_000, 3 * MIB + 5].contains(&(*offset as usize + data.len())) => {
            Some(Act::Say(Response::status(StatusCode::OK, "")))
        }
        _ => None,
    })
    .await;
    cases("hung up behind the answer to CLOSE", Put, Done, |said| {
        said.first("CLOSE").then(|| Act::SayAndPart(said.honestly()))
    })
    .await;
    cases("a rename that was done and is never answered", Put, Done, |said| match said.request {
        Request::Rename(from, _) if from.ends_with(b".part") && said.files.get("/f").is_none() => {
            said.honestly();
            Some(Act::Silence)
        }
        _ => None,
    })
    .await;
}

/// A WRITE that was acknowledged and dropped, in the middle: no size tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_taken_and_lost_is_found_by_a_digest() {
    let lie: Lie = Arc::new(|said| match said.request {
        Request::Write(_, offset, _) if *offset == 32_768 => Some(Act::Say(Response::status(StatusCode::OK, ""))),
        _ => None,
    });
    for size in [100_000, 3 * MIB + 5] {
        let scene = Scene::new(Put, random(size), true, Arc::clone(&lie)).await;
        let ran = scene.run(&["--verify", "digest"]).await;
        assert_eq!((ran.code, scene.arrived().as_deref()), (Some(4), Some(OLD)), "{}", ran.told);
        // The server announces digests, and has no stronger one than this.
        assert!(ran.told.contains("its sha-256 is"), "{}", ran.told);
        assert_eq!(scene.strays(), ["bad", "journal"]);
        scene.peer.lies.store(false, SeqCst);
        let ran = scene.run(&["--verify", "digest"]).await;
        assert_eq!((ran.code, ran.event["digest"].as_str()), (Some(0), Some("sha-256")), "{}", ran.told);
        scene.assert_whole(&ran.told);
        assert_eq!(scene.strays(), ["bad"]);
    }
}

/// Every WRITE was confirmed, the file could not be closed, and something in the middle is lost: nobody knows what, so
/// that none of it is gone on with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_closed_is_not_gone_on_with() {
    let lie: Lie = Arc::new(|said| match said.request {
        Request::Write(_, 65_536, _) => Some(Act::Say(Response::status(StatusCode::OK, ""))),
        Request::Close(_) => Some(Act::Say(failure("No space left on device"))),
        _ => None,
    });
    let scene = Scene::new(Put, random(3 * MIB + 5), false, lie).await;
    let ran = scene.run(&[]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.told);
    scene.peer.lies.store(false, SeqCst);
    let ran = scene.run(&[]).await;
    assert_eq!((ran.code, &ran.event["resumed_from"]), (Some(0), &Value::Null), "{}", ran.told);
    scene.assert_whole(&ran.told);
    assert_eq!(scene.strays(), [""; 0]);
}

//! A server that lies about transfers: what can be known is found out, what arrived wrong never gets the final name, and
//! the same command against the same server, honest again, brings the right bytes.
//!
//! What the program can't know is here, too: those tests say so, and the README says it in words.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::peer::{Act, End, Peer};
use super::store::{DONE, Store, facts};

const MIB: usize = 1 << 20;
const OLD: &[u8] = b"what was there before";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Get,
    Put,
}

/// A command that the liar may answer in its own way.
struct Said<'a> {
    store: &'a Arc<Store>,
    connection: usize,
    verb: &'a str,
    path: &'a str,
    /// How often the verb was said before.
    before: usize,
}

impl Said<'_> {
    /// Where the transfer starts.
    fn rest(&self) -> usize {
        self.store.rest(self.connection)
    }

    /// What is to be sent from there.
    fn asked(&self) -> Vec<u8> {
        let rest = self.rest();
        self.store.get(self.path).unwrap_or_default().split_off(rest)
    }

    /// Takes so many bytes of an upload, where they belong.
    fn take(&self, length: usize, end: End) -> Act {
        self.store.store(self.path, self.rest(), length, end)
    }

    /// Sends the first half of what is to be sent.
    fn half(&self, end: End) -> Act {
        let mut bytes = self.asked();
        bytes.truncate(bytes.len() / 2);
        Act::Give(bytes, end)
    }
}

type Lie = Arc<dyn Fn(&Said) -> Option<Act> + Send + Sync>;

/// A file to move between a folder and the peer's `/f`, and a home of its own for the program.
struct Scene {
    folder: tempfile::TempDir,
    way: Way,
    store: Arc<Store>,
    peer: Peer,
    lies: Arc<AtomicBool>,
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
    async fn new(way: Way, contents: Vec<u8>, digests: &'static [&'static str], lie: Lie) -> Self {
        let (store, folder) = (Store::with(digests), tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.path().join("near")).unwrap();
        let near = folder.path().join("near/f");
        let (source, old) = if way == Way::Put { (&contents[..], OLD) } else { (OLD, &contents[..]) };
        std::fs::write(near, source).unwrap();
        store.put("/f", old);
        let lies = Arc::new(AtomicBool::new(true));
        let (lying, files) = (Arc::clone(&lies), Arc::clone(&store));
        let counts: Mutex<HashMap<String, usize>> = Mutex::default();
        let peer = Peer::start(move |connection, line| {
            let (verb, path) = line.split_once(' ').unwrap_or((line, ""));
            if lying.load(SeqCst) {
                let before = {
                    let mut counts = counts.lock().unwrap();
                    let count = counts.entry(verb.into()).or_default();
                    *count += 1;
                    *count - 1
                };
                let act = lie(&Said { store: &files, connection, verb, path, before });
                if act.is_some() {
                    return act;
                }
            }
            files.answer(connection, line)
        })
        .await;
        Self { folder, way, store, peer, lies, contents }
    }

    fn near(&self) -> PathBuf {
        self.folder.path().join("near/f")
    }

    /// Runs the command that moves the file, while somebody reads what is under the final name.
    async fn run(&self, options: &[&str]) -> Ran {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_haul"));
        let far = format!("ftp://me@127.0.0.1:{}//f", self.peer.port);
        match self.way {
            Way::Get => command.arg("get").arg(far).arg(self.near()),
            Way::Put => command.arg("put").arg(self.near()).arg(far),
        };
        command.args(["--json", "--tls", "off", "--progress", "plain", "--timeout", "1s"]).args(options);
        if !options.contains(&"--retries") {
            command.args(["--retries", "2"]);
        }
        let home = self.folder.path();
        command.env_clear().env("HOME", home).env("XDG_STATE_HOME", home.join("state")).env("HAUL_PASSWORD", "secret");
        let mut running = Box::pin(command.stdin(Stdio::null()).output());
        let mut wrong = false;
        let output = loop {
            let pause = tokio::time::sleep(std::time::Duration::from_millis(10));
            tokio::select! {
                output = &mut running => break output.unwrap(),
                () = pause => wrong |= !self.is_old_or_whole(),
            }
        };
        wrong |= !self.is_old_or_whole();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let events = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told = format!("{}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
        assert!(!wrong, "something else was under the final name: {told}");
        Ran { code: output.status.code(), event: events.into_iter().next().unwrap_or_default(), told }
    }

    fn arrived(&self) -> Vec<u8> {
        match self.way {
            Way::Get => std::fs::read(self.near()).unwrap(),
            Way::Put => self.store.get("/f").unwrap_or_default(),
        }
    }

    fn is_old_or_whole(&self) -> bool {
        let arrived = self.arrived();
        arrived == OLD || arrived == self.contents
    }

    /// Part files at the destination and journals, by what follows the last dot.
    fn strays(&self) -> Vec<String> {
        let names = |dir: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let mut all = names(&self.folder.path().join("near"));
        all.extend(self.store.names());
        all.extend(names(&self.folder.path().join("state/haul/transfers")));
        let is_stray = |name: &String| name.contains(".haul-") || name.ends_with(".journal") || name.ends_with(".new");
        let mut all: Vec<_> =
            all.into_iter().filter(is_stray).map(|name| name.rsplit('.').next().unwrap().into()).collect();
        all.sort();
        all
    }

    fn assert_whole(&self, told: &str) {
        assert!(self.arrived() == self.contents, "{told}");
    }

    /// From here on the server is honest: the same command does it, and leaves nothing behind but what is set aside.
    async fn honest(&self, aside: &[&str]) -> Ran {
        self.lies.store(false, SeqCst);
        let ran = self.run(&[]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.told);
        self.assert_whole(&ran.told);
        assert_eq!(self.strays(), aside, "{}", ran.told);
        ran
    }
}

/// What the run beside the liar comes to.
#[derive(Clone, Copy)]
enum Expected {
    /// Told once, the lie costs no more than another attempt.
    Done,
    /// The file fails, of this kind and with these words.
    Fails(&'static str, &'static str),
    /// What arrived is wrong: exit 4, set aside.
    Wrong(&'static str),
}

use Expected::{Done, Fails, Wrong};

fn small() -> Vec<u8> {
    random(10_000)
}

fn large() -> Vec<u8> {
    random(3 * MIB + 5)
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// The whole life of one lie: the run beside it, and the next one with an honest server.
async fn case(what: &str, way: Way, contents: Vec<u8>, expected: Expected, lie: fn(&Said) -> Option<Act>) {
    let size = contents.len();
    let scene = Scene::new(way, contents, &[], Arc::new(lie)).await;
    let ran = scene.run(&[]).await;
    let told = format!("{way:?} of {size} bytes, {what}: {}", ran.told);
    let failed = |code, kind: &str, words: &str| {
        assert_eq!(ran.code, Some(code), "{told}");
        assert_eq!(ran.event["error"]["kind"], kind, "{told}");
        assert!(ran.event["error"]["message"].as_str().unwrap().contains(words), "{told}");
        assert_eq!(scene.arrived(), OLD, "{told}");
    };
    match expected {
        Done => {
            assert_eq!(ran.code, Some(0), "{told}");
            scene.assert_whole(&told);
            assert_eq!(scene.strays(), [""; 0], "{told}");
        }
        Fails(kind, words) => {
            failed(1, kind, words);
            scene.honest(&[]).await;
        }
        Wrong(words) => {
            failed(4, "verify_failed", words);
            assert_eq!(scene.strays(), ["bad", "journal"], "{told}");
            let hint = ran.event["error"]["hint"].as_str().unwrap();
            assert!(hint.contains(".bad for a look; the next run starts anew"), "{told}");
            let again = scene.honest(&["bad"]).await;
            assert!(again.told.contains("is kept as") && again.told.contains(".bad: starting anew"), "{}", again.told);
            assert_eq!(again.event["resumed_from"], Value::Null);
        }
    }
}

/// The same for a file without a journal and one with.
async fn cases(what: &str, way: Way, expected: Expected, lie: fn(&Said) -> Option<Act>) {
    case(what, way, small(), expected, lie).await;
    case(what, way, large(), expected, lie).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_whose_end_is_a_lie() {
    use Way::Get;
    cases("a 226 with bytes missing, once", Get, Done, |said| {
        (said.verb == "RETR" && said.before == 0).then(|| said.half(DONE))
    })
    .await;
    case(
        "a 226 with bytes missing, always",
        Get,
        small(),
        Fails("connection_lost", "only 5000 of 10000 bytes came"),
        |said| (said.verb == "RETR").then(|| said.half(DONE)),
    )
    .await;
    cases("no 226, once", Get, Done, |said| {
        (said.verb == "RETR" && said.before == 0).then(|| Act::Give(said.asked(), End::Never))
    })
    .await;
    case("no 226, ever", Get, small(), Fails("timeout", "finish"), |said| {
        (said.verb == "RETR").then(|| Act::Give(said.asked(), End::Never))
    })
    .await;
    cases("a 226 before the data", Get, Done, |said| {
        (said.verb == "RETR").then(|| Act::Give(said.asked(), End::Early("226 done\r\n")))
    })
    .await;
    cases("a 226 before data that is short, once", Get, Done, |said| {
        (said.verb == "RETR" && said.before == 0).then(|| said.half(End::Early("226 done\r\n")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_that_end_with_a_refusal() {
    use Way::Get;
    cases("a 426 behind all of it, once", Get, Done, |said| {
        (said.verb == "RETR" && said.before == 0).then(|| Act::Give(said.asked(), End::Says("426 cut\r\n")))
    })
    .await;
    cases("a 451 behind all of it, once", Get, Done, |said| {
        (said.verb == "RETR" && said.before == 0).then(|| Act::Give(said.asked(), End::Says("451 disk\r\n")))
    })
    .await;
    case("a 451 behind half of it, always", Get, small(), Fails("busy", "451 disk"), |said| {
        (said.verb == "RETR").then(|| said.half(End::Says("451 disk\r\n")))
    })
    .await;
    cases("a 421 and the end in the middle, once", Get, Done, |said| {
        (said.verb == "RETR" && said.before == 0).then(|| said.half(End::Parts("421 bye\r\n")))
    })
    .await;
    // Each attempt brings more: that it breaks every time is no reason to give up.
    case("a 426 behind a third of the rest, five times", Get, large(), Done, |said| {
        let third = |said: &Said| {
            let mut bytes = said.asked();
            bytes.truncate(bytes.len() / 3 + MIB / 3);
            Act::Give(bytes, End::Says("426 cut\r\n"))
        };
        (said.verb == "RETR" && said.store.rest_is_below(said.connection, 2 * MIB)).then(|| third(said))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_begins_elsewhere_is_found_out() {
    let zeros = || {
        let mut bytes = vec![0; 3 * MIB + 5];
        bytes[3 * MIB..].copy_from_slice(b"tail!");
        bytes
    };
    for contents in [large as fn() -> Vec<u8>, zeros] {
        // Zeros are the same wherever they are read: no overlap shows the lie.
        case("REST is agreed to and not heeded", Way::Get, contents(), Done, |said| match (said.verb, said.before) {
            ("RETR", 0) => Some(said.half(End::Says("426 cut\r\n"))),
            ("RETR", _) => {
                said.rest();
                None
            }
            _ => None,
        })
        .await;
    }
    // And one that doesn't begin at the file's end, where nothing is left to be sent.
    case("REST is refused where the file ends", Way::Get, large(), Done, |said| match (said.verb, said.before) {
        ("RETR", 0) => Some(Act::Give(said.asked(), End::Says("426 cut\r\n"))),
        ("RETR", _) if !said.store.rest_is_below(said.connection, 3 * MIB + 5) => {
            Some(Act::Say("554 Invalid REST parameter.\r\n"))
        }
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_of_a_wrong_size() {
    use Way::Get;
    // SIZE and MLST tell the same lie, so that nothing but the data shows it.
    fn told(said: &Said, by: isize) -> Option<Act> {
        let size = said.store.get(said.path)?.len().checked_add_signed(by).unwrap();
        match said.verb {
            "SIZE" => Some(Act::Tell(format!("213 {size}\r\n"))),
            "MLST" => Some(Act::Tell(facts(said.path, size, "20200102030405"))),
            _ => None,
        }
    }
    case("too large", Get, small(), Fails("connection_lost", "only 10000 of 10002 bytes came"), |said| told(said, 2))
        .await;
    case("too large", Get, large(), Fails("source_changed", "the server sent 5 bytes where 7 were"), |said| {
        told(said, 2)
    })
    .await;
    cases("too small", Get, Fails("source_changed", "longer than it was said to be"), |said| told(said, -2)).await;
    case("another one each time", Get, large(), Fails("source_changed", ""), |said| {
        let by = isize::try_from(said.before).unwrap();
        told(said, by + 1)
    })
    .await;
    case("another time each time", Get, large(), Fails("source_changed", "changed while it was read"), |said| {
        let size = said.store.get(said.path)?.len();
        (said.verb == "MLST").then(|| Act::Tell(facts(said.path, size, &format!("202001020304{:02}", said.before))))
    })
    .await;
    // A time that is wrong and stays so can't be known: the file gets it.
    case("a time that never was", Get, small(), Done, |said| {
        (said.verb == "MLST").then(|| Act::Tell(facts(said.path, 10_000, "19700101000000")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_change_under_a_download() {
    for (what, change) in [("grows", 7isize), ("shrinks", -7)] {
        for size in [10_000, 3 * MIB + 5] {
            let (before, after) = (random(size), random(size.checked_add_signed(change).unwrap()));
            let changed = after.clone();
            let lie: Lie = Arc::new(move |said| {
                if said.verb == "RETR" && said.before == 0 {
                    said.store.put(said.path, changed.clone());
                }
                None
            });
            let scene = Scene { contents: after, ..Scene::new(Way::Get, before, &[], lie).await };
            let ran = scene.run(&[]).await;
            assert_eq!(ran.code, Some(0), "{what}: {}", ran.told);
            scene.assert_whole(&ran.told);
            assert_eq!(scene.strays(), [""; 0], "{what}: {}", ran.told);
        }
    }
}

/// Half of a file was moved; then it is another one of the same size and time, which differs in this byte.
async fn changed_unseen(at: usize, digests: &'static [&'static str], options: &[&str]) -> (Scene, Ran, Vec<u8>) {
    let lie: Lie = Arc::new(|said| (said.verb == "RETR").then(|| said.half(End::Says("426 cut\r\n"))));
    let scene = Scene::new(Way::Get, large(), digests, lie).await;
    let cut = scene.run(&["--retries", "0"]).await;
    assert_eq!(cut.code, Some(1), "{}", cut.told);
    let mut other = large();
    other[at] ^= 1;
    scene.store.put("/f", other.clone());
    scene.lies.store(false, SeqCst);
    // Whatever comes of it, the watcher may see: this is about what can't be known.
    let mut seen = other.clone();
    seen[at] ^= u8::from(digests.is_empty() && at < MIB - 64 * 1024);
    let scene = Scene { contents: seen, ..scene };
    let ran = scene.run(options).await;
    (scene, ran, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_at_equal_size_and_time_is_seen_where_it_can_be() {
    // In the overlap: what was moved before is moved again.
    let (scene, ran, other) = changed_unseen(MIB - 10, &[], &[]).await;
    assert_eq!((ran.code, scene.arrived() == other), (Some(0), true), "{}", ran.told);
    // Anywhere else the size says nothing, and `auto` has no more than the overlap: two files in one, and nobody knows.
    let (scene, ran, other) = changed_unseen(10, &[], &[]).await;
    assert_eq!((ran.code, scene.arrived() == other), (Some(0), false), "{}", ran.told);
    assert_eq!(ran.event["verified"], "overlap", "{}", ran.told);
    // A digest sees it, which `auto` asks for after a resume.
    for options in [&[][..], &["--verify", "digest"]] {
        let (scene, ran, other) = changed_unseen(10, &["XSHA256"], options).await;
        assert_eq!((ran.code, scene.arrived()), (Some(4), OLD.to_vec()), "{}", ran.told);
        assert_eq!(scene.strays(), ["bad", "journal"]);
        let again = scene.run(&[]).await;
        assert_eq!((again.code, scene.arrived() == other), (Some(0), true), "{}", again.told);
        assert!(again.told.contains(".bad: starting anew"), "{}", again.told);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_whose_end_is_a_lie() {
    use Way::Put;
    cases("a 226 with bytes missing", Put, Wrong("bytes arrived where"), |said| {
        let (store, path) = (Arc::clone(said.store), said.path.to_owned());
        (said.verb == "STOR").then(|| {
            let keep = move |bytes: Vec<u8>| store.write(&path, 0, &bytes[..bytes.len() - 3]);
            Act::Keep(usize::MAX, Box::new(keep), DONE)
        })
    })
    .await;
    cases("a wrong size afterwards", Put, Wrong("bytes arrived where"), |said| {
        (said.verb == "SIZE").then(|| Act::Say("213 7\r\n"))
    })
    .await;
    cases("no 226, once", Put, Done, |said| {
        (said.verb == "STOR" && said.before == 0).then(|| said.take(usize::MAX, End::Never))
    })
    .await;
    case("no 226, ever", Put, small(), Fails("timeout", "finish"), |said| {
        (said.verb == "STOR").then(|| said.take(usize::MAX, End::Never))
    })
    .await;
    cases("a 226 before the data has ended, all of which is kept", Put, Done, |said| {
        (said.verb == "STOR").then(|| said.take(usize::MAX, End::Early("226 done\r\n")))
    })
    .await;
    case("a 226 before the data has ended, of which the rest is lost", Put, large(), Wrong("bytes arrived"), |said| {
        (said.verb == "STOR").then(|| said.take(MIB, End::Early("226 done\r\n")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_end_with_a_refusal() {
    use Way::Put;
    for words in ["426 cut\r\n", "451 disk\r\n"] {
        let lie: Lie = Arc::new(move |said| {
            (said.verb == "STOR" && said.before == 0).then(|| said.take(usize::MAX, End::Says(words)))
        });
        for contents in [small(), large()] {
            let scene = Scene::new(Put, contents, &[], Arc::clone(&lie)).await;
            let ran = scene.run(&[]).await;
            assert_eq!(ran.code, Some(0), "{words}: {}", ran.told);
            scene.assert_whole(&ran.told);
            assert_eq!(scene.strays(), [""; 0], "{words}: {}", ran.told);
        }
    }
    cases("a 421 and the end in the middle, once", Put, Done, |said| {
        (said.verb == "STOR" && said.before == 0).then(|| said.take(5000, End::Parts("421 bye\r\n")))
    })
    .await;
    cases("no room at the end", Put, Fails("no_space", "552 quota"), |said| {
        (said.verb == "STOR" || said.verb == "APPE").then(|| said.take(usize::MAX, End::Says("552 quota exceeded\r\n")))
    })
    .await;
    cases("the name is refused", Put, Fails("permission_denied", "553"), |said| {
        (said.verb == "RNTO").then_some(Act::Say("553 Permission denied.\r\n"))
    })
    .await;
}

/// Writes bytes into a file somewhere.
type Write = fn(&mut Vec<u8>, &[u8]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_begins_elsewhere_is_found_out() {
    let cut = |said: &Said| said.take(2 * MIB, End::Says("426 cut\r\n"));
    let ways: [(&str, Write); 2] = [
        ("cuts the file off and writes at its start", |file, bytes| *file = bytes.to_vec()),
        ("writes at its start", |file, bytes| {
            let end = bytes.len().min(file.len());
            file[..end].copy_from_slice(&bytes[..end]);
        }),
    ];
    for (what, write) in ways {
        let lie: Lie = Arc::new(move |said| match (said.verb, said.before) {
            ("STOR", 0) => Some(cut(said)),
            ("STOR", _) if said.rest() > 0 => {
                let (store, path) = (Arc::clone(said.store), said.path.to_owned());
                let keep = move |bytes: Vec<u8>| {
                    let mut file = store.get(&path).unwrap();
                    write(&mut file, &bytes);
                    store.put(&path, file);
                };
                Some(Act::Keep(usize::MAX, Box::new(keep), DONE))
            }
            _ => None,
        });
        let scene = Scene::new(Way::Put, large(), &[], lie).await;
        let ran = scene.run(&[]).await;
        assert_eq!(ran.code, Some(0), "{what}: {}", ran.told);
        scene.assert_whole(&ran.told);
        assert_eq!(scene.strays(), [""; 0], "{what}: {}", ran.told);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_that_was_done_and_not_told_leaves_nothing_behind() {
    cases("RNTO is done, and never answered", Way::Put, Done, |said| {
        if said.verb == "RNTO" && said.before == 0 {
            let part = said.store.names().into_iter().find(|name| name.contains(".haul-")).unwrap();
            said.store.rename(&part, said.path);
            return Some(Act::Silence);
        }
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_found_whenever_there_is_a_digest() {
    let flip: Lie = Arc::new(|said| {
        let flipped = |mut bytes: Vec<u8>| {
            bytes[5000] ^= 4;
            bytes
        };
        let (store, path) = (Arc::clone(said.store), said.path.to_owned());
        match said.verb {
            "RETR" => Some(Act::Give(flipped(said.asked()), DONE)),
            "STOR" => {
                let keep = move |bytes| store.write(&path, 0, &flipped(bytes));
                Some(Act::Keep(usize::MAX, Box::new(keep), DONE))
            }
            _ => None,
        }
    });
    for way in [Way::Get, Way::Put] {
        for (digests, named) in
            [(&["XCRC"][..], "crc32"), (&["XSHA256", "XCRC"], "sha-256"), (&["XSHA256", "XSHA512", "XCRC"], "sha-512")]
        {
            for contents in [small(), large()] {
                let scene = Scene::new(way, contents, digests, Arc::clone(&flip)).await;
                let ran = scene.run(&["--verify", "digest"]).await;
                assert_eq!((ran.code, scene.arrived() == OLD), (Some(4), true), "{way:?}: {}", ran.told);
                assert!(ran.told.contains(&format!("its {named} is")), "{way:?}: {}", ran.told);
                assert_eq!(scene.strays(), ["bad", "journal"]);
                // A second time it isn't another file that is left behind, and the one is not gone on with.
                let ran = scene.run(&["--verify", "digest"]).await;
                assert_eq!((ran.code, scene.strays()), (Some(4), vec!["bad".into(), "journal".into()]), "{}", ran.told);
                scene.lies.store(false, SeqCst);
                let ran = scene.run(&["--verify", "digest"]).await;
                assert_eq!(ran.code, Some(0), "{}", ran.told);
                assert_eq!((&ran.event["verified"], &ran.event["digest"]), (&"digest".into(), &named.into()));
                scene.assert_whole(&ran.told);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_auto_cannot_see_and_digest_demands() {
    let flip: Lie = Arc::new(|said| {
        (said.verb == "RETR").then(|| {
            let mut bytes = said.asked();
            bytes[5000] ^= 4;
            Act::Give(bytes, DONE)
        })
    });
    let mut wrong = small();
    wrong[5000] ^= 4;
    // In a transfer that never broke `auto` compares sizes, whatever the server could tell.
    let scene = Scene { contents: wrong, ..Scene::new(Way::Get, small(), &["XSHA256"], Arc::clone(&flip)).await };
    let ran = scene.run(&[]).await;
    assert_eq!((ran.code, &ran.event["verified"]), (Some(0), &"size".into()), "{}", ran.told);
    // Where no digest is to be had, `digest` says so before a byte is moved.
    for way in [Way::Get, Way::Put] {
        let scene = Scene::new(way, small(), &[], Arc::new(|_| None)).await;
        let ran = scene.run(&["--verify", "digest"]).await;
        assert_eq!((ran.code, &ran.event["error"]["kind"]), (Some(1), &"unsupported".into()), "{}", ran.told);
        assert!(ran.told.contains("--verify auto"), "{}", ran.told);
        assert_eq!((scene.peer.heard("RETR"), scene.peer.heard("STOR"), scene.strays().len()), (0, 0, 0));
    }
}

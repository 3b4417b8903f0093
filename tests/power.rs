//! Loss of power, on an ext4 of each test's own (see `support/disk.rs` for what is simulated and how).
//!
//! With `--durable` what was reported done is there and whole. Without, some of it may be gone, but the same command
//! again makes it right: nothing is taken for whole because it looks so.
//!
//! `HAUL_POWER_CRASHES` sets how many crashes the tests with random instants make; the long form takes 100.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(clippy::case_sensitive_file_extension_comparisons)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::Value;
use support::data::{KIB, MIB, assert_same, bytes};
use support::disk::{Disk, Serving, no_disks, signal};
use tempfile::TempDir;

mod support;

/// A disk that can lose power, a place that can't, and a server that serves one of them.
struct Scene {
    dir: TempDir,
    protocol: &'static str,
}

impl Scene {
    fn new(protocol: &'static str) -> Option<Self> {
        if no_disks() {
            return None;
        }
        let dir = TempDir::new().unwrap();
        for name in ["disk", "safe"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Some(Self { dir, protocol })
    }

    fn disk(&self) -> Disk {
        Disk::new(&self.dir.path().join("disk"))
    }

    /// The place that loses nothing.
    fn safe(&self, name: &str) -> PathBuf {
        self.dir.path().join("safe").join(name)
    }

    fn make(&self, name: &str, seed: u64, length: usize) -> bytes::Bytes {
        let contents = bytes(seed, length);
        let path = self.safe(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &contents).unwrap();
        let old = UNIX_EPOCH + Duration::from_secs(1_500_000_000 + seed);
        File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        contents
    }

    /// A server of the safe place, to get from.
    fn server(&self) -> Serving {
        Serving::start(Command::new(env!("CARGO_BIN_EXE_haul")), self.protocol, &self.safe(""), 0)
    }

    /// A server of the disk, to put to; it runs where the disk is.
    fn server_on(&self, disk: &Disk, port: u16) -> Serving {
        Serving::start(disk.room.command(env!("CARGO_BIN_EXE_haul")), self.protocol, &disk.at, port)
    }

    /// `haul get` in the room of the disk, with its state on the disk, too.
    fn get(&self, disk: &Disk, server: &Serving, args: &[&str], from: &str, to: &str) -> Command {
        let mut command = disk.room.command(env!("CARGO_BIN_EXE_haul"));
        command.arg("get").args(args).arg(format!("{}/{from}", server.url)).arg(disk.at.join(to));
        self.finished(command, server, &disk.at.join("state"))
    }

    /// `haul put` outside; only the server's side loses power.
    fn put(&self, server: &Serving, args: &[&str], from: &str, to: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
        command.arg("put").args(args).arg(self.safe(from)).arg(format!("{}/{to}", server.url));
        self.finished(command, server, &self.dir.path().join("client"))
    }

    fn finished(&self, mut command: Command, server: &Serving, state: &Path) -> Command {
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.dir.path());
        command.env("XDG_STATE_HOME", state).arg("--json");
        server.let_in(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

#[track_caller]
fn succeeds(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    output
}

fn told(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    format!("{}: {}", output.status, String::from_utf8_lossy(&text))
}

fn events(output: &Output) -> Vec<Value> {
    output.stdout.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// The bytes of a file, none if it isn't there.
fn contents(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

/// Part files anywhere below a directory, and journals of transfers that are not complete.
fn strays(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap_or_default());
        if entry.file_type().unwrap().is_dir() {
            // What is kept for the next boot is no stray.
            found.extend(strays(&path).into_iter().filter(|p| !p.components().any(|c| c.as_os_str() == "unsettled")));
        } else if name.contains(".haul-") || name.ends_with(".journal") || name.ends_with(".new") {
            found.push(path);
        }
    }
    found
}

fn crashes(quick: u64) -> u64 {
    std::env::var("HAUL_POWER_CRASHES").map_or(quick, |number| number.parse().expect("a number"))
}

#[test]
fn without_durable_a_loss_of_power_right_after_done_takes_files_so_that_the_other_tests_prove_something() {
    let Some(scene) = Scene::new("sftp") else { return };
    let (small, large) = (scene.make("small", 1, 30 * KIB), scene.make("large", 2, 9 * MIB));
    let (disk, server) = (scene.disk(), scene.server());
    disk.settle();
    for name in ["small", "large"] {
        succeeds(scene.get(&disk, &server, &[], name, name));
    }
    assert_same(&contents(&disk.path("large")), &large, "before the crash");
    let after = disk.crash();
    assert!(contents(&after.path("small")) != small, "the small file survived");
    assert!(contents(&after.path("large")) != large, "the large file survived");
}

#[test]
fn durable_files_that_were_fetched_are_there_and_whole_by_sftp() {
    durable_get("sftp");
}

#[test]
fn durable_files_that_were_fetched_are_there_and_whole_by_ftp() {
    durable_get("ftp");
}

fn durable_get(protocol: &'static str) {
    let Some(scene) = Scene::new(protocol) else { return };
    let names = ["empty", "small", "edge", "large", "parts"];
    let sizes = [0, 30 * KIB, MIB, 9 * MIB + 5, 12 * MIB];
    let files: Vec<_> = (0..).zip(sizes).map(|(n, size)| scene.make(names[n as usize], n, size)).collect();
    let (disk, server) = (scene.disk(), scene.server());
    for (name, wanted) in names.iter().zip(&files) {
        let args: &[&str] =
            if *name == "parts" { &["--durable", "--segments", "4", "-c", "4"] } else { &["--durable"] };
        succeeds(scene.get(&disk, &server, args, name, name));
        let after = disk.crash();
        assert!(after.path(name).exists(), "{name} is not there");
        assert_same(&contents(&after.path(name)), wanted, name);
        assert_eq!(
            fs::metadata(after.path(name)).unwrap().modified().unwrap(),
            fs::metadata(scene.safe(name)).unwrap().modified().unwrap()
        );
    }
    // What was replaced, too.
    let other = scene.make("large", 77, 2 * MIB);
    succeeds(scene.get(&disk, &server, &["--durable"], "large", "large"));
    let after = disk.crash();
    assert_same(&contents(&after.path("large")), &other, "replaced");
    assert_eq!(strays(&after.at), Vec::<PathBuf>::new());
}

/// A tree with directories in directories, an empty one, and a link.
fn make_tree(scene: &Scene) -> Vec<(String, bytes::Bytes)> {
    let names = ["top", "a/one", "a/two", "a/b/c/deep", "d/large"];
    let files = (0..).zip(names).map(|(n, name)| {
        let size = if name == "d/large" { 5 * MIB } else { 3 * KIB };
        (name.to_owned(), scene.make(&format!("tree/{name}"), 100 + n, size))
    });
    let files = files.collect();
    fs::create_dir(scene.safe("tree/void")).unwrap();
    fs::set_permissions(scene.safe("tree/d"), fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("a/one", scene.safe("tree/link")).unwrap();
    files
}

fn assert_tree(disk: &Disk, at: &str, files: &[(String, bytes::Bytes)]) {
    for (name, wanted) in files {
        assert_same(&contents(&disk.path(&format!("{at}/{name}"))), wanted, name);
    }
    assert!(disk.path(&format!("{at}/void")).is_dir(), "the empty directory");
}

#[test]
fn a_durable_tree_that_was_fetched_is_there_with_all_its_directories() {
    let Some(scene) = Scene::new("sftp") else { return };
    let files = make_tree(&scene);
    let (disk, server) = (scene.disk(), scene.server());
    succeeds(scene.get(&disk, &server, &["--durable", "-r", "-p"], "tree", "new"));
    let after = disk.crash();
    assert_tree(&after, "new", &files);
    assert_eq!(fs::read_link(after.path("new/link")).unwrap(), Path::new("a/one"));
    assert_eq!(fs::metadata(after.path("new/d")).unwrap().permissions().mode() & 0o777, 0o750);
    // With no file in it whose fsync would take the directories along.
    fs::create_dir_all(scene.safe("hollow/a/b")).unwrap();
    succeeds(scene.get(&disk, &server, &["--durable", "-r"], "hollow", "hollow"));
    assert!(disk.crash().path("hollow/a/b").is_dir());
}

#[test]
fn durable_says_done_of_nothing_that_is_not_there() {
    let Some(scene) = Scene::new("sftp") else { return };
    let files: Vec<_> = (0..12).map(|n| scene.make(&format!("many/{n}/file"), n, 40 * KIB)).collect();
    let (disk, server) = (scene.disk(), scene.server());
    let args = ["--durable", "-r", "--limit-rate", "600k", "--jobs", "2"];
    let mut child = scene.get(&disk, &server, &args, "many", "many").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut done = Vec::new();
    while let Some(Ok(line)) = lines.next() {
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] != "file" {
            continue;
        }
        done.push(event["destination"].as_str().unwrap().to_owned());
        if done.len() % 4 == 1 {
            signal(child.id(), "STOP");
            let after = disk.crash();
            signal(child.id(), "CONT");
            for name in &done {
                let number: usize = name.rsplit('/').nth(1).unwrap().parse().unwrap();
                assert_same(&contents(&after.path(&format!("many/{number}/file"))), &files[number], name);
            }
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(done.len(), files.len());
}

#[test]
fn durable_covers_what_was_there_already() {
    let Some(scene) = Scene::new("sftp") else { return };
    let wanted = scene.make("file", 3, 3 * MIB);
    let (disk, server) = (scene.disk(), scene.server());
    succeeds(scene.get(&disk, &server, &[], "file", "file"));
    let again = succeeds(scene.get(&disk, &server, &["--durable"], "file", "file"));
    assert_eq!(events(&again)[0]["status"], "skipped", "{}", told(&again));
    assert_same(&contents(&disk.crash().path("file")), &wanted, "skipped with --durable");
}

#[test]
fn durable_uploads_are_there_and_whole() {
    let Some(scene) = Scene::new("sftp") else { return };
    let files = make_tree(&scene);
    let (small, large) = (scene.make("small", 1, 30 * KIB), scene.make("large", 2, 12 * MIB));
    let disk = scene.disk();
    let server = scene.server_on(&disk, 0);
    succeeds(scene.put(&server, &["--durable"], "small", "small"));
    assert_same(&contents(&disk.crash().path("small")), &small, "small");
    succeeds(scene.put(&server, &["--durable", "--segments", "4", "-c", "4"], "large", "large"));
    assert_same(&contents(&disk.crash().path("large")), &large, "in segments");
    succeeds(scene.put(&server, &["--durable", "-r"], "tree", "new"));
    let after = disk.crash();
    assert_tree(&after, "new", &files);
    assert_eq!(strays(&after.at), Vec::<PathBuf>::new());
}

#[test]
fn a_server_without_fsync_is_named() {
    let Some(scene) = Scene::new("ftp") else { return };
    scene.make("small", 1, 30 * KIB);
    let disk = scene.disk();
    let server = scene.server_on(&disk, 0);
    let output = succeeds(scene.put(&server, &["--durable", "--progress", "plain"], "small", "small"));
    assert!(told(&output).contains("no fsync"), "{}", told(&output));
}

#[test]
fn without_durable_the_same_command_again_makes_it_right_by_sftp() {
    same_command_after_done("sftp");
}

#[test]
fn without_durable_the_same_command_again_makes_it_right_by_ftp() {
    same_command_after_done("ftp");
}

fn same_command_after_done(protocol: &'static str) {
    let Some(scene) = Scene::new(protocol) else { return };
    let files = make_tree(&scene);
    let (disk, server) = (scene.disk(), scene.server());
    disk.settle();
    succeeds(scene.get(&disk, &server, &["-r"], "tree", ""));
    // Names, sizes and times reach the disk before the content does.
    disk.room.sh(&format!("echo > '{0}/other'; sync '{0}/other'", disk.at.display()));
    let after = disk.crash();
    succeeds(scene.get(&after, &server, &["-r"], "tree", ""));
    assert_tree(&after, "tree", &files);
    assert_eq!(strays(&after.at), Vec::<PathBuf>::new());
}

/// What XFS, or an unlucky instant of ext4, leaves: name, size and time are right, and there are zeros in the file.
#[test]
fn files_that_only_look_whole_are_made_whole() {
    let Some(scene) = Scene::new("sftp") else { return };
    let (small, large) = (scene.make("small", 1, 90 * KIB), scene.make("large", 2, 9 * MIB));
    let (tail, fine) = (scene.make("tail", 3, 10 * KIB + 7), scene.make("fine", 4, 5 * MIB));
    let wanted = [("small", small), ("large", large), ("tail", tail), ("fine", fine)];
    let (disk, server) = (scene.disk(), scene.server());
    for (name, _) in &wanted {
        succeeds(scene.get(&disk, &server, &[], name, name));
    }
    lose(&disk.path("small"), 8 * KIB as u64, 4 * KIB);
    lose(&disk.path("large"), 3 * MIB as u64, 2 * MIB);
    lose(&disk.path("tail"), 10 * KIB as u64, 7);
    disk.settle();
    let after = disk.crash();
    for (name, wanted) in &wanted {
        let same_size = fs::metadata(after.path(name)).unwrap().len() == wanted.len() as u64;
        assert!(same_size && (contents(&after.path(name)) != *wanted) == (*name != "fine"), "{name} before");
        let again = succeeds(scene.get(&after, &server, &[], name, name));
        assert_same(&contents(&after.path(name)), wanted, name);
        let event = &events(&again)[0];
        match *name {
            // Only what was lost is moved again, where a journal tells what is right.
            "large" => assert_eq!(event["transferred"], 2 * MIB, "{event}"),
            "fine" => assert_eq!(event["status"], "skipped", "{event}"),
            _ => assert_eq!(event["status"], "done", "{event}"),
        }
    }
    assert_eq!(strays(&after.at), Vec::<PathBuf>::new());
}

/// Makes zeros of a range and keeps the time.
fn lose(path: &Path, at: u64, length: usize) {
    let file = File::options().write(true).open(path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&vec![0; length], at).unwrap();
    file.set_modified(time).unwrap();
}

/// Crashes at random instants of a transfer whose disk the kernel writes back now and then.
#[test]
fn power_that_fails_in_the_middle_of_a_fetch_leaves_nothing_wrong() {
    let Some(scene) = Scene::new("sftp") else { return };
    let size = 6 * MIB;
    let wanted = scene.make("file", 5, size);
    let server = scene.server();
    for seed in 0..crashes(2) {
        eprintln!("seed {seed}");
        let (disk, mut random) = (scene.disk(), Random(seed));
        let mut run = scene.get(&disk, &server, &["--limit-rate", "6M", "--segments", "3", "-c", "3"], "file", "file");
        let mut child = run.spawn().unwrap();
        let stop = random.below(size as u64 * 5 / 4);
        let sync = random.below(size as u64);
        let mut synced = false;
        let is_over = wait_for(&mut child, || {
            let there = part_blocks(&disk.path(""));
            if there >= sync && !synced {
                disk.settle();
                synced = true;
            }
            there >= stop
        });
        if !is_over {
            signal(child.id(), "STOP");
        }
        let after = disk.crash();
        let _ = child.kill();
        let _ = child.wait();
        // Whole, or something that nobody takes for whole.
        succeeds(scene.get(&after, &server, &[], "file", "file"));
        assert_same(&contents(&after.path("file")), &wanted, &format!("seed {seed}"));
        assert_eq!(strays(&after.at), Vec::<PathBuf>::new(), "seed {seed}");
    }
}

#[test]
fn power_that_fails_at_the_server_in_the_middle_of_an_upload_leaves_nothing_wrong() {
    for protocol in ["sftp", "ftp"] {
        let Some(scene) = Scene::new(protocol) else { return };
        let size = 6 * MIB;
        let wanted = scene.make("file", 5, size);
        for seed in 0..crashes(1) {
            eprintln!("{protocol} seed {seed}");
            let (disk, mut random) = (scene.disk(), Random(seed));
            let server = scene.server_on(&disk, 0);
            let args = ["--limit-rate", "6M", "--segments", "3", "-c", "3", "--retries", "0"];
            let mut child = scene.put(&server, &args, "file", "file").spawn().unwrap();
            let (stop, sync) = (random.below(size as u64), random.below(size as u64));
            let mut synced = false;
            wait_for(&mut child, || {
                let there = part_blocks(&disk.path(""));
                if there >= sync && !synced {
                    disk.settle();
                    synced = true;
                }
                there >= stop
            });
            signal(server.id(), "STOP");
            let after = disk.crash();
            let port = server.port();
            signal(server.id(), "KILL");
            let _ = child.wait();
            drop(server);
            let server = scene.server_on(&after, port);
            // The server of before had another host key.
            let again = scene.put(&server, &[], "file", "file").output().unwrap();
            // Kept bytes that the server lost show in a digest: then the next run starts anew.
            if !again.status.success() {
                assert_eq!(again.status.code(), Some(4), "{protocol} seed {seed}: {}", told(&again));
                assert!(!after.path("file").exists(), "a wrong file: {protocol} seed {seed}");
                succeeds(scene.put(&server, &[], "file", "file"));
            }
            assert_same(&contents(&after.path("file")), &wanted, &format!("{protocol} seed {seed}"));
            assert_eq!(strays(&after.path("")), Vec::<PathBuf>::new(), "{protocol} seed {seed}");
        }
    }
}

/// Bytes that part files take on the disk, or the whole of the file once it has its name.
fn part_blocks(dir: &Path) -> u64 {
    if dir.join("file").exists() {
        return u64::MAX;
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| entry.file_name().to_string_lossy().contains(".haul-"));
    parts.filter_map(|part| part.metadata().ok()).map(|part| part.len()).sum()
}

/// Waits until it is so, or the program has ended; returns whether it has.
fn wait_for(child: &mut std::process::Child, mut is_so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !is_so() {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nothing happens");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.try_wait().unwrap().is_some()
}

/// Numbers that look random; the same seed gives the same.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

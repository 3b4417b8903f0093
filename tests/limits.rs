//! haul where there is little: 64 open files, 64 MiB of memory.
//!
//! `HAUL_LIMITS_MIB` and `HAUL_LIMITS_FILES` make the transfers larger whose memory is measured; the long form takes 1024
//! and 5000. With `HAUL_LIMITS_CGROUP=1`, as root, it gets no more than 64 MiB, page cache and all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::client::{Client, events, names_below, told};
use support::data::{MIB, assert_same, bytes};
use support::serving::Serving;
use tempfile::TempDir;

mod support;

const HAUL: &str = env!("CARGO_BIN_EXE_haul");
const MEMORY: u64 = 64 << 20;
const FOLDERS: usize = 100;

/// A server, a home, and a folder to move files from and to.
struct Scene {
    serving: Serving,
    client: Client,
    home: TempDir,
}

impl Scene {
    fn new(scheme: &str) -> Self {
        let home = TempDir::new().unwrap();
        Self { serving: Serving::start(Path::new(HAUL), scheme), client: Client::new(HAUL, home.path()), home }
    }

    fn near(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn far(&self, name: &str) -> PathBuf {
        self.serving.server.root.join(name)
    }

    fn url(&self, name: &str) -> String {
        format!("{}{name}", self.serving.server.url())
    }

    /// Returns the command `haul ARGUMENTS`, started by a shell that does `before`.
    fn after(&self, before: &str, arguments: &[&str]) -> Command {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let plain = self.client.command(&self.serving.server, &arguments);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} && exec \"$@\""), "sh"]).arg(plain.get_program()).args(plain.get_args());
        command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    }
}

/// Writes so many files of this size, in a hundred folders.
fn write_tree(folder: &Path, files: usize, size: usize) {
    std::fs::create_dir_all(folder).unwrap();
    for number in 0..files {
        let folder = folder.join(format!("d{}", number % FOLDERS));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("f{number}")), bytes(number as u64, size)).unwrap();
    }
}

#[track_caller]
fn assert_same_trees(one: &Path, other: &Path) {
    let names = names_below(one);
    assert_eq!(names, names_below(other));
    for name in names {
        assert_same(&std::fs::read(one.join(&name)).unwrap(), &std::fs::read(other.join(&name)).unwrap(), &name);
    }
}

/// Returns an output whose run has moved everything.
#[track_caller]
fn done(output: Output) -> Output {
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(events(&output, "summary")[0]["failed"], 0);
    output
}

#[test]
fn sftp_loses_nothing_with_64_open_files() {
    with_64_open_files("sftp");
}

#[test]
fn ftp_loses_nothing_with_64_open_files() {
    with_64_open_files("ftp");
}

fn with_64_open_files(scheme: &str) {
    let scene = Scene::new(scheme);
    write_tree(&scene.far("tree/small"), 500, 2_000);
    // These have a journal each, and are open from their first byte on.
    write_tree(&scene.far("tree/larger"), 24, MIB + 30_000);
    std::fs::write(scene.far("large"), bytes(1, 20 * MIB)).unwrap();
    let run = |arguments: &[&str]| done(scene.after("ulimit -n 64", arguments).output().unwrap());
    let (tree, back) = (scene.near("tree"), scene.near("large"));
    run(&["get", "-r", "-j", "64", "-c", "32", &scene.url("tree"), scene.home.path().to_str().unwrap()]);
    assert_same_trees(&scene.far("tree"), &tree);
    run(&["put", "-r", "-j", "64", "-c", "32", tree.to_str().unwrap(), &scene.url("again/")]);
    assert_same_trees(&tree, &scene.far("again"));
    run(&["get", "--segments", "40", "-c", "40", &scene.url("large"), back.to_str().unwrap()]);
    run(&["put", "--segments", "40", "-c", "40", back.to_str().unwrap(), &scene.url("larger")]);
    assert_same(&std::fs::read(scene.far("larger")).unwrap(), &bytes(1, 20 * MIB), "there and back");
    assert_eq!(scene.client.left_in_state(), [""; 0]);
}

/// Nobody can work like this; but everybody can be told why.
#[test]
fn too_few_open_files_are_named() {
    let scene = Scene::new("sftp");
    write_tree(&scene.far("tree"), 8, MIB + 30_000);
    for limit in [6, 18, 20, 22, 26] {
        let folder = scene.near(&format!("copy{limit}"));
        std::fs::create_dir(&folder).unwrap();
        let arguments = ["get", "-r", "--retries", "1", &scene.url("tree"), folder.to_str().unwrap()];
        let output = scene.after(&format!("ulimit -n {limit}"), &arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let named = error.contains("Too many open files") || error.contains("too many open files");
        assert!(output.status.success() || (named && error.contains("ulimit -n")), "{limit}: {}", told(&output));
        assert!(!error.contains("panicked"), "{limit}: {error}");
        if output.status.success() {
            assert_same_trees(&scene.far("tree"), &folder.join("tree"));
        }
    }
}

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn sftp_needs_no_more_than_64_mib() {
    memory_of("sftp");
}

#[test]
fn ftp_needs_no_more_than_64_mib() {
    memory_of("ftp");
}

#[test]
fn ftps_needs_no_more_than_64_mib() {
    memory_of("ftpes");
}

fn memory_of(scheme: &str) {
    let scene = Scene::new(scheme);
    write_tree(&scene.far("tree"), number("HAUL_LIMITS_FILES", 300), 1_000);
    let large = bytes(1, number("HAUL_LIMITS_MIB", 32) * MIB);
    std::fs::write(scene.far("large"), &large).unwrap();
    let cgroup = Cgroup::new(scheme);
    let before = cgroup.as_ref().map_or("true".to_owned(), Cgroup::enter);
    let run = |arguments: &[&str]| {
        let (output, peak) = measured(scene.after(&before, arguments).spawn().unwrap());
        done(output);
        eprintln!("{scheme} {}: {} MiB", arguments[..2].join(" "), peak >> 20);
        assert!(peak <= MEMORY, "{} MiB: {arguments:?}", peak >> 20);
    };
    let (tree, back) = (scene.near("tree"), scene.near("large"));
    run(&["get", "-r", &scene.url("tree"), scene.home.path().to_str().unwrap()]);
    run(&["put", "-r", tree.to_str().unwrap(), &scene.url("again/")]);
    assert_same_trees(&tree, &scene.far("again"));
    run(&["get", &scene.url("large"), back.to_str().unwrap()]);
    run(&["put", "--segments", "8", back.to_str().unwrap(), &scene.url("larger")]);
    assert_same(&std::fs::read(scene.far("larger")).unwrap(), &large, "there and back");
}

/// Returns what a run said, and the most memory that it has had in use at once.
fn measured(child: Child) -> (Output, u64) {
    let status = format!("/proc/{}/status", child.id());
    let running = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&running);
    let meter = std::thread::spawn(move || {
        let mut peak = 0;
        while still.load(Ordering::SeqCst) {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
            peak = peak.max(kib.unwrap_or(0) << 10);
            std::thread::sleep(Duration::from_millis(2));
        }
        peak
    });
    let output = child.wait_with_output().unwrap();
    running.store(false, Ordering::SeqCst);
    (output, meter.join().unwrap())
}

/// A group of processes with little memory; removed when they have ended.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        std::env::var_os("HAUL_LIMITS_CGROUP")?;
        let name = format!("haul-test-{}-{name}", std::process::id());
        let (first, second) = (Path::new("/sys/fs/cgroup/memory").join(&name), Path::new("/sys/fs/cgroup").join(&name));
        let of_version_1 = Path::new("/sys/fs/cgroup/memory").is_dir();
        let (path, file) = if of_version_1 { (first, "memory.limit_in_bytes") } else { (second, "memory.max") };
        std::fs::create_dir(&path).expect("a group of processes: this needs root");
        std::fs::write(path.join(file), MEMORY.to_string()).expect("a limit of memory");
        Some(Self(path))
    }

    /// What a shell does to be in it.
    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

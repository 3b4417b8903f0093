//! Two at once: two haul processes for the same file, the same tree, the same folder. One is refused, or both end well
//! and the last one wins whole; what is under the final name is never anything else, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(clippy::case_sensitive_file_extension_comparisons)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use support::data::{MIB, bytes};
use support::lab::Server;
use tempfile::TempDir;

mod support;

const REFUSED: &str = "another haul transfer is writing this file";
/// So slow, in bytes a second, that there is a middle.
const SLOW: &str = "2M";

/// A folder of this machine, one of a server, and two installations.
struct Scene {
    home: TempDir,
    server: Server,
    far: String,
}

impl Scene {
    fn new(server: &str, test: &str) -> Option<Self> {
        let server = Server::get(server)?;
        let scene = Self { home: TempDir::new().unwrap(), far: format!("two-{test}-{}", std::process::id()), server };
        for dir in [scene.near(""), scene.far("")] {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        Some(scene)
    }

    fn near(&self, name: &str) -> PathBuf {
        self.home.path().join("near").join(name)
    }

    fn far(&self, name: &str) -> PathBuf {
        self.server.root.join(&self.far).join(name)
    }

    fn url(&self, name: &str) -> String {
        format!("{}{}/{name}", self.server.url(), self.far)
    }

    /// Makes a file that the server may read, too.
    fn make(path: &Path, seed: u64, length: usize) -> bytes::Bytes {
        let contents = bytes(seed, length);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &contents).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seed);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        contents
    }

    /// A command of one of the installations.
    fn haul(&self, state: &str, arguments: &[&str]) -> Command {
        let server = &self.server;
        let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
        command.args(arguments).arg("--known-hosts").arg(&server.known_hosts);
        if ["get", "put"].contains(&arguments[0]) {
            command.args(["--progress", "none"]);
        }
        match server.scheme.as_str() {
            "sftp" => command.args(["--host-key", "strict", "--identity"]).arg(&server.identity),
            _ => command.args(["--tls", "off"]),
        };
        command
            .current_dir(self.near(""))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("USER", &server.login)
            .env("HOME", self.home.path())
            .env("XDG_STATE_HOME", self.home.path().join(state))
            .env("HAUL_PASSWORD", server.password.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, state: &str, arguments: &[&str]) -> Child {
        self.haul(state, arguments).spawn().unwrap()
    }

    /// Starts one, waits until it writes in `folder`, and holds it there: whoever comes now comes in the middle.
    fn start_and_hold(&self, state: &str, arguments: &[&str], folder: &Path) -> Child {
        let before = parts(folder);
        let mut child = self.haul(state, arguments).args(["--limit-rate", SLOW]).spawn().unwrap();
        let begin = Instant::now();
        while parts(folder) <= before {
            assert_eq!(child.try_wait().unwrap(), None, "ended before it began: {}", told(child.wait_with_output()));
            assert!(begin.elapsed() < Duration::from_secs(60), "never began");
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(&child, "STOP");
        assert_eq!(child.try_wait().unwrap(), None, "ended before it was held");
        child
    }

    fn assert_nothing_is_left(&self, folder: &Path) {
        let names = |dir: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let mut left: Vec<_> = names(folder).into_iter().filter(|name| name.contains(".haul-")).collect();
        for state in ["one", "other"] {
            let journals = names(&self.home.path().join(state).join("haul/transfers"));
            left.extend(journals.into_iter().filter(|name| name.ends_with(".journal")));
        }
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.far(""));
    }
}

/// How many part files are being written in a folder.
fn parts(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part")).count()
}

fn told(output: std::io::Result<Output>) -> String {
    let output = output.unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Lets one go on that is held, to its good end.
fn done(child: Child) {
    signal(&child, "CONT");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", told(Ok(output)));
}

fn refused(child: Child) {
    let output = child.wait_with_output().unwrap();
    let text = told(Ok(output.clone()));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(REFUSED) && text.contains("run the same command again"), "{text}");
}

/// Reads a file all the time; at the end, what it saw must be nothing or one of these.
struct Watcher {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Option<usize>>,
}

impl Watcher {
    fn of(path: PathBuf, may_be: Vec<bytes::Bytes>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut wrong = None;
            while !ends.load(SeqCst) {
                if let Ok(seen) = std::fs::read(&path)
                    && !may_be.iter().any(|whole| whole[..] == seen[..])
                {
                    wrong = Some(seen.len());
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            wrong
        });
        Self { over, thread }
    }

    fn saw_nothing_else(self) {
        self.over.store(true, SeqCst);
        assert_eq!(self.thread.join().unwrap(), None, "bytes that are no file were under the final name");
    }
}

macro_rules! suite {
    ($($server:ident)*) => {
        $(mod $server {
            use super::*;

            #[test]
            fn the_same_file_is_refused() {
                same_file(stringify!($server));
            }

            #[test]
            fn without_a_common_lock_the_last_one_wins_whole() {
                strangers(stringify!($server));
            }

            #[test]
            fn the_same_tree_arrives_whole() {
                same_tree(stringify!($server));
            }

            #[test]
            fn neighbours_do_not_disturb_each_other() {
                neighbours(stringify!($server));
            }
        })*
    };
}

suite! { openssh proftpd pyftpdlib }

/// A second process for a file that is being written is refused: from the same source, from another, from a pipe.
fn same_file(server: &str) {
    let Some(scene) = Scene::new(server, "same") else { return };
    let (one, other) = (Scene::make(&scene.near("one"), 1, MIB), Scene::make(&scene.near("other"), 2, MIB));
    let watcher = Watcher::of(scene.far("x"), vec![one.clone(), other]);
    let (url, far) = (scene.url("x"), scene.far(""));
    let first = scene.start_and_hold("one", &["put", "one", &url], &far);
    refused(scene.start("one", &["put", "one", &url]));
    refused(scene.start("one", &["put", "other", &url]));
    refused(scene.start("one", &["put", "-", &url]));
    done(first);
    assert!(std::fs::read(scene.far("x")).unwrap() == one);
    watcher.saw_nothing_else();
    scene.assert_nothing_is_left(&far);

    let near = scene.near("");
    let watcher = Watcher::of(scene.near("back"), vec![one.clone()]);
    let first = scene.start_and_hold("one", &["get", &url, "back"], &near);
    refused(scene.start("one", &["get", &url, "back"]));
    done(first);
    watcher.saw_nothing_else();
    // It is free again.
    done(scene.start("one", &["get", "--force", &url, "back"]));
    assert!(std::fs::read(scene.near("back")).unwrap() == one);
    scene.assert_nothing_is_left(&near);
}

/// Two machines, two users, two state folders: each has a part of its own, and the last rename wins.
fn strangers(server: &str) {
    let Some(scene) = Scene::new(server, "strangers") else { return };
    let (one, other) = (Scene::make(&scene.near("one"), 1, MIB + 77), Scene::make(&scene.near("other"), 2, 2 * MIB));
    for name in ["one", "other"] {
        let copied = std::fs::copy(scene.near(name), scene.far(name)).unwrap();
        assert!(copied > 0);
    }
    let may_be = vec![one, other];
    for (get, folder) in [(false, scene.far("")), (true, scene.near(""))] {
        let watcher = Watcher::of(folder.join("x"), may_be.clone());
        let (x, from) = match get {
            false => (scene.url("x"), [scene.near("one"), scene.near("other")].map(|path| path.display().to_string())),
            true => (scene.near("x").display().to_string(), [scene.url("one"), scene.url("other")]),
        };
        let verb = if get { "get" } else { "put" };
        let first = scene.start_and_hold("one", &[verb, &from[0], &x], &folder);
        let second = scene.start_and_hold("other", &[verb, &from[1], &x], &folder);
        // The same source and the same name from both: they have nothing in common but those.
        let third = scene.start_and_hold("third", &[verb, &from[0], &x], &folder);
        for child in [first, second, third] {
            done(child);
        }
        watcher.saw_nothing_else();
        let last = std::fs::read(folder.join("x")).unwrap();
        assert!(may_be.iter().any(|whole| whole[..] == last[..]), "{} bytes", last.len());
        scene.assert_nothing_is_left(&folder);
    }
}

/// The same tree twice, by one installation and by two: every file is whole, whoever brought it.
fn same_tree(server: &str) {
    let Some(scene) = Scene::new(server, "tree") else { return };
    let files: Vec<_> = (0..40u64).map(|n| (format!("d{}/s{}/f{n}", n % 3, n % 5), n)).collect();
    let size = |n: u64| 1000 + usize::try_from(n).unwrap() * 7919;
    for (name, n) in &files {
        Scene::make(&scene.near("tree").join(name), *n, size(*n));
    }
    let assert_whole = |root: &Path| {
        for (name, n) in &files {
            assert!(std::fs::read(root.join(name)).unwrap() == bytes(*n, size(*n)), "{name}");
            scene.assert_nothing_is_left(root.join(name).parent().unwrap());
        }
    };
    let url = scene.url("");
    for second in ["one", "other"] {
        let (copy, tree) = (scene.url("tree"), format!("back-{second}"));
        let _ = std::fs::remove_dir_all(scene.far("tree"));
        let both =
            [scene.start("one", &["put", "-r", "tree", &url]), scene.start(second, &["put", "-r", "tree", &url])];
        all_done_or_refused(both);
        // What one of two was refused, the other one does.
        assert_whole(&scene.far("tree"));
        let both =
            [scene.start("one", &["get", "-r", &copy, &tree]), scene.start(second, &["get", "-r", &copy, &tree])];
        all_done_or_refused(both);
        let root = scene.near(&tree);
        // Who comes second to a folder that was made meanwhile copies into it.
        let root = if root.join("d0").exists() { root } else { root.join("tree") };
        assert_whole(&root);
    }
}

fn all_done_or_refused(both: [Child; 2]) {
    for child in both {
        let output = child.wait_with_output().unwrap();
        let text = told(Ok(output.clone()));
        match output.status.code() {
            Some(0) => {}
            Some(1) => assert!(
                text.lines().filter(|line| line.starts_with("haul: ")).all(|line| line.contains(REFUSED)),
                "{text}"
            ),
            _ => panic!("{text}"),
        }
    }
}

fn neighbours(server: &str) {
    let Some(scene) = Scene::new(server, "neighbours") else { return };
    let (a, b) = (Scene::make(&scene.near("a"), 1, MIB), Scene::make(&scene.near("b"), 2, MIB + 1));
    let far = scene.far("");
    let first = scene.start_and_hold("one", &["put", "a", &scene.url("a")], &far);
    let second = scene.start_and_hold("one", &["put", "b", &scene.url("b")], &far);
    done(first);
    done(second);
    assert!(std::fs::read(scene.far("a")).unwrap() == a && std::fs::read(scene.far("b")).unwrap() == b);
    scene.assert_nothing_is_left(&far);
}

/// However a place is spelled, it is one place.
#[test]
fn spellings_of_a_local_name_are_one() {
    let Some(scene) = Scene::new("openssh", "spelled") else { return };
    let contents = Scene::make(&scene.far("x"), 1, MIB);
    Scene::make(&scene.far("y"), 2, 10);
    std::fs::create_dir(scene.near("dir")).unwrap();
    symlink(scene.near("dir"), scene.near("link")).unwrap();
    let (x, y) = (scene.url("x"), scene.url("y"));
    let first = scene.start_and_hold("one", &["get", &x, "dir/a"], &scene.near("dir"));
    let absolute = scene.near("dir/a").display().to_string();
    let as_url = format!("file://{}", absolute.replace("/a", "/%61"));
    for name in ["./dir/a", &absolute, "dir/../dir//a", "link/a", &as_url] {
        refused(scene.start("one", &["get", &y, name]));
    }
    // A name of its own is another file, also where both are one now: what is renamed is the name.
    std::fs::write(scene.near("dir/old"), "old").unwrap();
    std::fs::hard_link(scene.near("dir/old"), scene.near("dir/second")).unwrap();
    symlink("a", scene.near("dir/pointer")).unwrap();
    done(scene.start("one", &["get", &y, "dir/second"]));
    done(scene.start("one", &["get", &y, "dir/pointer"]));
    done(first);
    assert!(std::fs::read(scene.near("dir/a")).unwrap() == contents);
    assert_eq!(std::fs::read(scene.near("dir/old")).unwrap(), b"old");
    assert!(std::fs::read(scene.near("dir/second")).unwrap() == bytes(2, 10));
    assert!(!scene.near("dir/pointer").is_symlink());
    scene.assert_nothing_is_left(&scene.near("dir"));
}

#[test]
fn spellings_of_a_url_are_one() {
    for name in ["openssh", "pyftpdlib"] {
        let Some(scene) = Scene::new(name, "urls") else { continue };
        let contents = Scene::make(&scene.near("x"), 1, MIB);
        Scene::make(&scene.near("y"), 2, 10);
        let Server { scheme, host, port, login, start, .. } = &scene.server;
        let path = format!("{}/{}/a", start.trim_end_matches('/'), scene.far);
        let first = scene.start_and_hold("one", &["put", "x", &scene.url("a")], &scene.far(""));
        let mut spelled = vec![
            format!("{scheme}://{login}@{host}:0{port}/{path}"),
            format!("{scheme}://{login}@{host}:{port}/{}", path.replace("/a", "/b/..//%61")),
        ];
        if scheme == "sftp" {
            // The user of this machine is that of the server where nobody says another.
            spelled.push(format!("sftp://{host}:{port}{path}"));
        } else {
            spelled.push(scene.url("a").replace("ftp://", "FTP://"));
        }
        for url in &spelled {
            refused(scene.start("one", &["put", "y", url]));
        }
        done(first);
        assert!(std::fs::read(scene.far("a")).unwrap() == contents);
        scene.assert_nothing_is_left(&scene.far(""));
    }
}

/// Without its lock file the state folder is another installation: both end well.
#[test]
fn a_lock_file_that_is_removed_meanwhile_costs_nothing_but_the_refusal() {
    let Some(scene) = Scene::new("openssh", "unlocked") else { return };
    let contents = Scene::make(&scene.far("x"), 1, 2 * MIB);
    let url = scene.url("x");
    let watcher = Watcher::of(scene.near("a"), vec![contents.clone()]);
    let first = scene.start_and_hold("one", &["get", &url, "a"], &scene.near(""));
    let transfers = scene.home.path().join("one/haul/transfers");
    let is_lock = |path: &PathBuf| path.is_file() && path.extension().is_none_or(|end| end != "journal");
    for entry in std::fs::read_dir(&transfers).unwrap().map(|entry| entry.unwrap().path()).filter(is_lock) {
        std::fs::remove_file(entry).unwrap();
    }
    let second = scene.start_and_hold("one", &["get", &url, "a"], &scene.near(""));
    done(first);
    done(second);
    watcher.saw_nothing_else();
    assert!(std::fs::read(scene.near("a")).unwrap() == contents);
    scene.assert_nothing_is_left(&scene.near(""));
}

#[test]
fn a_state_folder_that_cannot_be_used_is_named_before_anything_is_begun() {
    let Some(scene) = Scene::new("openssh", "unusable") else { return };
    Scene::make(&scene.far("x"), 1, 10);
    // Root may write anywhere, but not below a file.
    std::fs::write(scene.home.path().join("one"), "").unwrap();
    let output = scene.start("one", &["get", &scene.url("x"), "a"]).wait_with_output().unwrap();
    let text = told(Ok(output.clone()));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("one/haul/transfers") && text.contains("XDG_STATE_HOME"), "{text}");
    assert!(!scene.near("a").exists());
    // And one whose lock file is none.
    std::fs::create_dir_all(scene.home.path().join("other/haul/transfers/installation")).unwrap();
    let output = scene.start("other", &["get", &scene.url("x"), "a"]).wait_with_output().unwrap();
    let text = told(Ok(output.clone()));
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("transfers/installation") && text.contains("XDG_STATE_HOME"), "{text}");
}

/// What is removed or renamed while a file is being written under its name is what was there before: the file comes all
/// the same.
#[test]
fn removing_and_renaming_meanwhile_is_about_what_was_there() {
    let Some(scene) = Scene::new("openssh", "meanwhile") else { return };
    let contents = Scene::make(&scene.near("x"), 1, MIB);
    let url = scene.url("a");
    for command in [vec!["rm", &url], vec!["mv", &url, &*scene.url("b")]] {
        std::fs::write(scene.far("a"), "old").unwrap();
        let first = scene.start_and_hold("one", &["put", "x", &url], &scene.far(""));
        done(scene.start("one", &command));
        done(first);
        assert!(std::fs::read(scene.far("a")).unwrap() == contents);
        scene.assert_nothing_is_left(&scene.far(""));
    }
}

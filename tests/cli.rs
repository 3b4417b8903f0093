//! The command line as a user meets it: snapshots of standard output, standard error and exit status.
//!
//! Each test is a transcript in `tests/snapshots`. After a wanted change: `INSTA_UPDATE=always cargo test --test cli`,
//! then read the difference.
//!
//! Every program runs with a home, a working directory and settings of its own in a temporary folder, and every path
//! that it is given lies in there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are outside of tests

use std::fmt::{self, Write as _};
use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use haul::serve::{self, FtpTls, Protocol};
use haul::transport::Secret;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A folder with a home and a working directory, and what was done there so far.
struct Session {
    dir: TempDir,
    base: PathBuf,
    transcript: String,
    env: Vec<(String, String)>,
    /// What differs from run to run, and what is shown instead.
    placeholders: Vec<(String, String)>,
}

impl Session {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for folder in ["home/me", "work", "state"] {
            std::fs::create_dir_all(base.join(folder)).unwrap();
        }
        let placeholders = vec![(base.to_str().unwrap().to_owned(), "[DIR]".to_owned())];
        Self { dir, base, transcript: String::new(), env: Vec::new(), placeholders }
    }

    /// Returns a path in the temporary folder.
    fn at(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Writes a file of 2001 with mode 644, with the directories above it.
    fn file(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_permissions(Permissions::from_mode(0o644)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    }

    /// Gives a directory the mode 755 and the time of the files.
    fn settle(&self, name: &str) {
        let dir = std::fs::File::open(self.at(name)).unwrap();
        dir.set_permissions(Permissions::from_mode(0o755)).unwrap();
        dir.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
        command
            .args(args.iter().map(|arg| self.fill_in(arg)))
            .current_dir(self.at("work"))
            .env_clear()
            .env("HOME", self.at("home/me"))
            .env("XDG_STATE_HOME", self.at("state"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC"), ("COLUMNS", "100")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs haul and adds what it said to the transcript. `[DIR]` in an argument is the temporary folder.
    fn haul(&mut self, args: &[&str]) -> Output {
        self.haul_with(args, b"")
    }

    /// The same with something on standard input.
    fn haul_with(&mut self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // It may end without reading all of it.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        writeln!(self.transcript, "$ haul {}", args.join(" ")).unwrap();
        for (name, text) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if text.is_empty() {
                continue;
            }
            writeln!(self.transcript, "{name}:").unwrap();
            for line in self.with_placeholders(text).lines() {
                writeln!(self.transcript, "{}", format!("  {line}").trim_end()).unwrap();
            }
        }
        writeln!(self.transcript, "exit status: {}\n", output.status.code().unwrap()).unwrap();
        output
    }

    fn with_placeholders(&self, text: &[u8]) -> String {
        let text = text.escape_ascii().to_string().replace("\\n", "\n").replace("\\\"", "\"").replace("\\'", "'");
        self.placeholders.iter().fold(text, |text, (real, shown)| text.replace(real, shown))
    }

    fn fill_in(&self, arg: &str) -> String {
        self.placeholders.iter().fold(arg.to_owned(), |arg, (real, shown)| arg.replace(shown, real))
    }

    /// Adds every file below a folder, with its size, to the transcript.
    fn tree(&mut self, name: &str) {
        fn walk(path: &Path, base: &Path, lines: &mut Vec<String>) {
            for entry in std::fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                let shown = path.strip_prefix(base).unwrap().as_os_str().as_encoded_bytes().escape_ascii();
                match metadata.is_dir() {
                    true => {
                        lines.push(format!("  {shown}/"));
                        walk(&path, base, lines);
                    }
                    false => lines.push(format!("  {shown}  {} bytes", metadata.len())),
                }
            }
        }
        let mut lines = Vec::new();
        walk(&self.at(name), &self.base, &mut lines);
        lines.sort();
        writeln!(self.transcript, "files:\n{}\n", lines.join("\n")).unwrap();
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(self.dir.path().exists());
        f.write_str(self.transcript.trim_end())
    }
}

macro_rules! assert_transcript {
    ($session:expr) => {
        insta::with_settings!({
            omit_expression => true,
            prepend_module_to_snapshot => false,
            filters => vec![
                (r"in \d[\d.]* (s|min \d+ s)( \([\d.]+ [KMG]?i?B/s\))?", "in [TIME]"),
                (r#""seconds":[\d.]+"#, r#""seconds":[SECONDS]"#),
            ],
        }, { insta::assert_snapshot!($session.to_string()) });
    };
}

/// Whoever may write below a tree that another removes could lead the removal elsewhere (as in CVE-2022-21658).
#[test]
fn rm_follows_no_link_that_comes_meanwhile() {
    for _ in 0..5 {
        let mut s = Session::new();
        s.file("victim/precious", "1");
        for number in 0..600 {
            s.file(&format!("work/tree/z/{number}"), "1");
        }
        for name in ["a", "b", "c", "d"] {
            s.file(&format!("work/tree/{name}/precious"), "1");
        }
        let (tree, victim) = (s.at("work/tree"), s.at("victim"));
        let full = std::fs::read_dir(tree.join("z")).unwrap().count();
        let swaps = std::thread::spawn(move || {
            let begun = || std::fs::read_dir(tree.join("z")).map_or(0, Iterator::count) < full;
            while tree.join("z").exists() && !begun() {}
            for name in ["a", "b", "c", "d"] {
                let _ = std::fs::rename(tree.join(name), tree.join(format!("{name}.away")));
                let _ = std::os::unix::fs::symlink(&victim, tree.join(name));
            }
        });
        s.haul(&["rm", "-r", "file://[DIR]/work/tree"]);
        swaps.join().unwrap();
        assert!(s.at("victim/precious").exists());
    }
}

#[test]
fn a_file_that_a_pipe_replaces_keeps_its_mode() {
    use std::os::unix::fs::MetadataExt;
    let mut s = Session::new();
    s.file("work/secret", "old");
    std::fs::set_permissions(s.at("work/secret"), Permissions::from_mode(0o600)).unwrap();
    s.haul_with(&["put", "-q", "-", "secret"], b"new");
    assert_eq!(std::fs::read(s.at("work/secret")).unwrap(), b"new");
    assert_eq!(s.at("work/secret").metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn rm_removes_files_links_and_trees() {
    let mut s = Session::new();
    for name in ["a", "b.log", "c.log", "tree/x", "tree/deep/er/y", "kept/z"] {
        s.file(&format!("work/{name}"), "1");
    }
    std::os::unix::fs::symlink("../../kept", s.at("work/tree/deep/link")).unwrap();
    std::os::unix::fs::symlink("kept", s.at("work/top-link")).unwrap();
    s.haul(&["rm", "file://[DIR]/work/a"]);
    s.haul(&["rm", "file://[DIR]/work/*.log"]);
    s.haul(&["rm", "file://[DIR]/work/tree"]);
    s.haul(&["rm", "-r", "-v", "file://[DIR]/work/tree", "file://[DIR]/work/top-link"]);
    s.haul(&["rm", "file://[DIR]/work/a"]);
    s.haul(&["rm", "-f", "file://[DIR]/work/a", "file://[DIR]/work/*.log"]);
    s.tree("work");
    assert_transcript!(s);
}

#[test]
fn rm_keeps_homes_and_what_holds_them() {
    let mut s = Session::new();
    s.file("home/me/file", "1");
    s.file("work/file", "1");
    s.file("other/file", "1");
    std::os::unix::fs::symlink("home", s.at("alias")).unwrap();
    std::os::unix::fs::symlink("me", s.at("home/link-to-me")).unwrap();
    s.haul(&["rm", "-rf", "work"]);
    s.haul(&["rm", "-rf", "[DIR]/other"]);
    for kept in ["home/me", "home/me/", "home", "alias/me", "alias/link-to-me/../me", "work", "work/../home", ""] {
        let url = format!("file://[DIR]/{kept}");
        let output = s.haul(&["rm", "-rf", &url]);
        assert_eq!(output.status.code(), Some(2), "{kept}");
    }
    s.tree("");
    assert_transcript!(s);
}

#[test]
fn get_and_put_place_things_as_cp_does() {
    let mut s = Session::new();
    s.file("far/a.txt", "first");
    s.file("far/b.txt", "second");
    s.file("far/tree/inner/c.txt", "third");
    s.file("far/tree/d.txt", "");
    std::fs::create_dir(s.at("work/into")).unwrap();
    s.haul(&["get", "-j1", "file://[DIR]/far/a.txt"]);
    s.haul(&["get", "-j1", "file://[DIR]/far/a.txt"]);
    s.haul(&["get", "-j1", "file://[DIR]/far/a.txt", "renamed"]);
    s.haul(&["get", "-j1", "file://[DIR]/far/*.txt", "into"]);
    s.haul(&["get", "-j1", "file://[DIR]/far/tree"]);
    s.haul(&["get", "-j1", "-r", "file://[DIR]/far/tree", "new-name"]);
    s.haul(&["put", "-j1", "-r", "new-name/.", "into", "file://[DIR]/far"]);
    s.haul(&["get", "-j1", "file://[DIR]/far/a.txt", "file://[DIR]/far/b.txt", "missing-dir"]);
    s.haul(&["get", "-j1", "file://[DIR]/far/a.txt", "missing-dir/"]);
    s.haul(&["get", "-j1", "file://[DIR]/far/nothing", "file://[DIR]/far/a.txt", "into"]);
    s.tree("work");
    s.tree("far");
    assert_transcript!(s);
}

#[test]
fn what_is_there_is_treated_as_asked() {
    let mut s = Session::new();
    s.file("far/a", "new contents");
    s.file("work/a", "old");
    s.haul(&["get", "-j1", "--dry-run", "file://[DIR]/far/a"]);
    s.haul(&["get", "-j1", "--no-clobber", "file://[DIR]/far/a"]);
    s.haul(&["get", "-j1", "--update", "file://[DIR]/far/a"]);
    s.haul(&["get", "-j1", "-q", "file://[DIR]/far/a"]);
    s.haul(&["get", "-j1", "--force", "file://[DIR]/far/a"]);
    s.haul(&["get", "-j1", "--force", "--update", "file://[DIR]/far/a"]);
    s.haul(&["get", "-j1", "-n", "--dry-run", "file://[DIR]/far/a", "other"]);
    s.tree("work");
    assert_transcript!(s);
}

#[test]
fn pipes_carry_files() {
    let mut s = Session::new();
    s.file("far/a", "first\n");
    s.file("far/b", b"second \xff\n");
    s.haul(&["cat", "file://[DIR]/far/a", "file://[DIR]/far/none", "file://[DIR]/far/b"]);
    s.haul(&["get", "-j1", "file://[DIR]/far/*", "-"]);
    s.haul(&["get", "-j1", "file://[DIR]/far", "-"]);
    s.haul(&["get", "-j1", "--json", "file://[DIR]/far/a", "-"]);
    s.haul_with(&["put", "-", "file://[DIR]/far/c"], b"from a pipe");
    s.haul_with(&["put", "-q", "-", "file://[DIR]/far/empty"], b"");
    s.haul_with(&["put", "-", "file://[DIR]/far/"], b"from a pipe");
    s.haul_with(&["put", "-", "a", "file://[DIR]/far/"], b"from a pipe");
    s.tree("far");
    assert_transcript!(s);
}

#[test]
fn json_tells_every_file() {
    let mut s = Session::new();
    s.file("far/a b%.txt", "first");
    s.file("far/tree/c", "third");
    // What fails at once comes first: it would be told at any time otherwise.
    s.haul(&[
        "get",
        "-j1",
        "--json",
        "file://[DIR]/far/tree",
        "file://[DIR]/far/none",
        "file://[DIR]/far/a%20b%25.txt",
        ".",
    ]);
    s.haul(&["get", "-j1", "--json", "-r", "file://[DIR]/far"]);
    s.haul(&["get", "-j1", "--json", "-r", "file://[DIR]/far"]);
    s.haul(&["get", "-j1", "-f", "--progress", "json", "file://[DIR]/far/none", "file://[DIR]/far/tree/c", "."]);
    s.haul(&["get", "-j1", "--json", "--dry-run", "file://[DIR]/far/tree/c", "other"]);
    assert_transcript!(s);
}

#[test]
fn the_overview_is_short_and_every_command_explains_itself() {
    let mut s = Session::new();
    s.haul(&[]);
    for command in
        ["get", "put", "resume", "cat", "ls", "stat", "mkdir", "rm", "mv", "login", "logout", "config", "serve", "demo"]
    {
        s.haul(&[command, "--help"]);
    }
    s.haul(&["get", "-h"]);
    s.haul(&["--version"]);
    assert_transcript!(s);
}

#[test]
fn help_is_found_by_either_word_order() {
    let mut s = Session::new();
    for command in [&[][..], &["sync"], &["config", "show"]] {
        let one = s.haul(&[&["help"][..], command].concat());
        let other = s.haul(&[command, &["--help"]].concat());
        assert!(one.status.success() && !one.stdout.is_empty(), "{command:?}");
        assert_eq!(one.stdout, other.stdout, "{command:?}");
    }
}

#[test]
fn wrong_usage_is_explained() {
    let mut s = Session::new();
    s.haul(&["sftp://host/file"]);
    s.haul(&["fetch"]);
    s.haul(&["get"]);
    s.haul(&["put", "only-one"]);
    s.haul(&["ls"]);
    s.haul(&["ls", "gopher://me:secret@host/"]);
    s.haul(&["ls", "sftp://host:99999/"]);
    s.haul(&["ls", "sftp:///nowhere"]);
    s.haul(&["get", "sftp://host/100%"]);
    s.haul(&["get", "--limit-rate", "fast", "sftp://host/x"]);
    s.haul(&["get", "--timeout", "0", "sftp://host/x"]);
    s.haul(&["get", "--jobs", "0", "sftp://host/x"]);
    s.haul(&["get", "--tls", "maybe", "sftp://host/x"]);
    s.haul(&["get", "--password-file", "[DIR]/none", "sftp://host/x"]);
    s.haul(&["mv", "sftp://one/a", "sftp://two/b"]);
    s.haul(&["sync", "me@host:/x", "t2"]);
    s.haul(&["sync", "-r", "t1", "t2"]);
    s.haul(&["sync", "-av", "t1", "t2"]);
    s.haul(&["check", "-r", "t1", "t2"]);
    s.haul(&["sync", "--max-delete", "x", "t1", "t2"]);
    s.file("work/t1/x", "1");
    s.file("work/a", "1");
    s.haul(&["sync", "t1", "a"]);
    s.haul(&["help", "nonsense"]);
    assert_transcript!(s);
}

#[test]
fn ls_and_stat_show_what_is_there() {
    let mut s = Session::new();
    s.file("far/b.txt", "12345");
    s.file("far/a.bin", vec![0; 1_300_000]);
    s.file("far/.hidden", "");
    s.file("far/sub/inner", "1");
    s.file("far/sub/deep/x", "");
    std::os::unix::fs::symlink("b.txt", s.at("far/link")).unwrap();
    for name in ["far/sub/deep", "far/sub", "far"] {
        s.settle(name);
    }
    std::fs::write(s.at("work").join(std::ffi::OsStr::from_bytes(b"odd \xff\x1b[2J")), "").unwrap();
    s.haul(&["ls", "file://[DIR]/work"]);
    s.haul(&["ls", "file://[DIR]/far"]);
    s.haul(&["ls", "-a", "[DIR]/far"]);
    s.haul(&["ls", "-l", "file://[DIR]/far/*.{txt,bin}"]);
    s.haul(&["ls", "-lh", "file://[DIR]/far/a.bin"]);
    s.haul(&["ls", "-R", "file://[DIR]/far"]);
    s.haul(&["ls", "-ld", "file://[DIR]/far/b.txt"]);
    s.haul(&["ls", "--json", "file://[DIR]/far/b.txt"]);
    s.haul(&["ls", "file://[DIR]/none", "file://[DIR]/far/b.txt", "file://[DIR]/far/sub"]);
    s.haul(&["ls", "file://[DIR]/far/*.none"]);
    s.haul(&["stat", "file://[DIR]/far/a.bin", "file://[DIR]/far/b.txt"]);
    s.haul(&["stat", "--json", "file://[DIR]/far/b.txt"]);
    s.haul(&["stat", "file://[DIR]/far/none"]);
    assert_transcript!(s);
}

#[test]
fn mkdir_and_mv_change_what_is_there() {
    let mut s = Session::new();
    s.file("far/a", "1");
    s.file("far/b", "2");
    s.file("far/c", "3");
    s.haul(&["mkdir", "file://[DIR]/far/new", "file://[DIR]/far/a"]);
    s.haul(&["mkdir", "file://[DIR]/far/x/y/z"]);
    s.haul(&["mkdir", "-p", "file://[DIR]/far/x/y/z", "file://[DIR]/far/x"]);
    s.haul(&["mkdir", "-p", "file://[DIR]/far/a/below"]);
    s.haul(&["mv", "-v", "file://[DIR]/far/a", "file://[DIR]/far/renamed"]);
    s.haul(&["mv", "-n", "file://[DIR]/far/b", "file://[DIR]/far/c"]);
    s.haul(&["mv", "file://[DIR]/far/{b,c}", "file://[DIR]/far/new"]);
    s.haul(&["mv", "file://[DIR]/far/new/b", "file://[DIR]/far/new/c", "file://[DIR]/far/renamed"]);
    s.haul(&["mv", "file://[DIR]/far/none", "file://[DIR]/far/new"]);
    s.tree("far");
    assert_transcript!(s);
}

/// A server of the folder `served`, on a thread of its own until it is dropped.
struct TestServer {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TestServer {
    fn start(s: &mut Session, protocol: Protocol) -> Self {
        std::fs::create_dir_all(s.at("served")).unwrap();
        let mut options = serve::Options::new(protocol, s.at("served"), s.at("state"));
        options.user = "me".into();
        options.password = Some(Secret::new("right"));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let server = serve::start(options).await.unwrap();
                tell.send(server.address().port()).unwrap();
                let _ = stopped.await;
                server.stop().await;
            });
        });
        s.placeholders.push((told.recv().unwrap().to_string(), "[PORT]".into()));
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

#[test]
fn logins_are_refused_with_a_reason() {
    let mut s = Session::new();
    s.file("served/a", "1");
    let _server = TestServer::start(&mut s, Protocol::Ftp(FtpTls::Off));
    s.file("password", "right\n");
    s.haul(&["ls", "ftp://me:right@127.0.0.1:[PORT]/"]);
    s.haul(&["ls", "--password-file", "[DIR]/password", "ftp://me@127.0.0.1:[PORT]/"]);
    s.haul_with(&["ls", "-q", "--password-file", "-", "ftp://me@127.0.0.1:[PORT]/"], b"right\n");
    s.haul(&["ls", "--tls", "require", "ftp://me:right@127.0.0.1:[PORT]/"]);
    s.haul(&["ls", "ftp://me@127.0.0.1:[PORT]/"]);
    s.env.push(("HAUL_PASSWORD".into(), "wrong".into()));
    s.haul(&["ls", "ftp://me@127.0.0.1:[PORT]/"]);
    s.haul(&["get", "ftp://me@127.0.0.1:[PORT]/a"]);
    s.env[0].1 = "right".into();
    s.haul(&["get", "-j1", "ftp://me@127.0.0.1:[PORT]/a"]);
    s.haul(&["put", "-j1", "a", "ftp://me@127.0.0.1:[PORT]/b"]);
    s.haul(&["rm", "ftp://me@127.0.0.1:[PORT]/b", "ftp://me@127.0.0.1:[PORT]/"]);
    s.tree("served");
    assert_transcript!(s);
}

#[test]
fn certificates_are_checked() {
    let mut s = Session::new();
    s.file("served/a", "1");
    let _server = TestServer::start(&mut s, Protocol::Ftp(FtpTls::Require));
    s.env.push(("HAUL_PASSWORD".into(), "right".into()));
    s.haul(&["ls", "ftpes://me@127.0.0.1:[PORT]/"]);
    s.haul(&["ls", "--tls", "off", "ftp://me@127.0.0.1:[PORT]/"]);
    let pem = std::fs::read_dir(s.at("state/haul/serve")).or_else(|_| std::fs::read_dir(s.at("state/serve"))).unwrap();
    let pem = pem.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|e| e == "pem")).unwrap();
    s.placeholders.push((pem.to_str().unwrap().into(), "[CERTIFICATE]".into()));
    s.haul(&["ls", "--tls-ca", "[CERTIFICATE]", "ftpes://me@127.0.0.1:[PORT]/"]);
    s.haul(&["ls", "--tls-ca", "[DIR]/none", "ftpes://me@127.0.0.1:[PORT]/"]);
    assert_transcript!(s);
}

#[test]
fn nobody_answers() {
    let mut s = Session::new();
    // Bound but not listening: refused, and nobody else can take it meanwhile.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    s.placeholders.push((socket.local_addr().unwrap().port().to_string(), "[PORT]".into()));
    s.haul(&["ls", "ftp://127.0.0.1:[PORT]/"]);
    s.haul(&["get", "-q", "sftp://me@127.0.0.1:[PORT]/x"]);
    s.haul(&["cat", "ftps://127.0.0.1:[PORT]/x"]);
    assert_transcript!(s);
}

/// Waits until a part file in the working directory has so many bytes.
fn wait_for_part(s: &Session, bytes: u64) {
    let start = std::time::Instant::now();
    let long = |entry: std::fs::DirEntry| {
        entry.file_name().as_bytes().ends_with(b".part") && entry.metadata().is_ok_and(|m| m.len() >= bytes)
    };
    while !std::fs::read_dir(s.at("work")).unwrap().any(|entry| entry.is_ok_and(long)) {
        assert!(start.elapsed() < Duration::from_secs(60), "no part file");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_interrupted_get_goes_on_where_it_was() {
    for (signal, status) in [(Signal::INT, Some(130)), (Signal::TERM, Some(130)), (Signal::KILL, None)] {
        let s = Session::new();
        let contents: Vec<u8> = (0..24u32 << 18).flat_map(u32::to_le_bytes).collect();
        s.file("far/big", &contents);
        let child = s.command(&["get", "--limit-rate", "8M", "file://[DIR]/far/big"]).spawn().unwrap();
        wait_for_part(&s, 8 << 20);
        // Twice, as timeout(1) does.
        kill_process(Pid::from_child(&child), signal).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), status);
        assert!(!s.at("work/big").exists());
        if status.is_some() {
            let stderr = s.with_placeholders(&output.stderr);
            assert!(
                stderr.contains("nothing copied, 1 interrupted\nhaul: interrupted\n\nhint: run the same"),
                "{stderr}"
            );
        }
        let output = s.command(&["get", "file://[DIR]/far/big"]).output().unwrap();
        let stderr = s.with_placeholders(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("far/big: resumed at ") && stderr.contains(" of 24.0 MiB ("), "{stderr}");
        assert!(stderr.contains("1 file, 24.0 MiB in "), "{stderr}");
        assert!(stderr.contains(", resumed at "), "{stderr}");
        assert!(std::fs::read(s.at("work/big")).unwrap() == contents);
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let s = Session::new();
    s.file("far/big", vec![b'x'; 4 << 20]);
    for args in [&["cat", "file://[DIR]/far/big"][..], &["get", "-q", "file://[DIR]/far/big", "-"]] {
        let mut child = s.command(args).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 10]).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), s.with_placeholders(&output.stderr)), (Some(141), String::new()));
    }
}

#[test]
fn ten_thousand_files_make_few_lines() {
    let s = Session::new();
    std::fs::create_dir_all(s.at("far")).unwrap();
    for number in 0..10_000 {
        std::fs::write(s.at(&format!("far/{number}")), "").unwrap();
    }
    let output = s.command(&["get", "-r", "file://[DIR]/far"]).output().unwrap();
    let stderr = s.with_placeholders(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.lines().count() < 200, "{stderr}");
    assert!(stderr.lines().last().unwrap().starts_with("10000 files, 0 B in "), "{stderr}");
}

#[test]
fn the_demo_works_and_leaves_nothing() {
    let mut s = Session::new();
    std::fs::create_dir(s.at("tmp")).unwrap();
    s.env.push(("TMPDIR".into(), s.at("tmp").to_str().unwrap().into()));
    let output = s.command(&["demo"]).output().unwrap();
    let (stdout, stderr) = (s.with_placeholders(&output.stdout), s.with_placeholders(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("all the same, by BLAKE3") && stdout.contains("\nEverything worked, in "), "{stdout}");
    assert_eq!(stderr.matches("huge.bin: resumed at ").count(), 2, "{stderr}");
    assert_eq!(std::fs::read_dir(s.at("tmp")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(s.at("home/me")).unwrap().count(), 0);
}

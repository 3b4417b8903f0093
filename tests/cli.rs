//! The command line as a user meets it: snapshots of standard output, standard error and exit status.
//!
//! Each test is a transcript in `tests/snapshots`. After a wanted change: `INSTA_UPDATE=always cargo test --test cli`,
//! then read the difference.
//!
//! Every program runs with a home, a working directory and settings of its own in a temporary folder, and every path
//! that it is given lies in there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are outside of tests

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

/// A folder with a home and a working directory, and what was done there so far.
struct Session {
    dir: TempDir,
    base: PathBuf,
    transcript: String,
}

impl Session {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for folder in ["home/me", "work", "state"] {
            std::fs::create_dir_all(base.join(folder)).unwrap();
        }
        Self { dir, base, transcript: String::new() }
    }

    /// Returns a path in the temporary folder.
    fn at(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Writes a file of 2001, with the directories above it.
    fn file(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
        command
            .args(args.iter().map(|arg| arg.replace("[DIR]", self.base.to_str().unwrap())))
            .current_dir(self.at("work"))
            .env_clear()
            .env("HOME", self.at("home/me"))
            .env("XDG_STATE_HOME", self.at("state"))
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
        text.replace(self.base.to_str().unwrap(), "[DIR]")
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
                (r"in \d[\d.]* (s|min \d+ s) \([\d.]+ [KMG]?i?B/s\)", "in [TIME] ([RATE])"),
                (r#""seconds":[\d.]+"#, r#""seconds":[SECONDS]"#),
            ],
        }, { insta::assert_snapshot!($session.to_string()) });
    };
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

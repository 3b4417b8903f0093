//! A server, a room with disks of its own, and a client in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use tempfile::TempDir;

use crate::support::data::{assert_same, bytes};
use crate::support::disk::{Room, Serving, no_disks};

/// Which way a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Get,
    Put,
}

/// A file to move: from `safe`, which has no trouble, to `trouble`, where disks are mounted.
pub(crate) struct Scene {
    room: Option<Room>,
    pub(crate) way: Way,
    pub(crate) wanted: Bytes,
    server: Serving,
    dir: TempDir,
}

impl Scene {
    /// Mounts with a script of `sh`, in which `$T` is the folder `trouble` and `$S` that of the client's state; `None`
    /// where that can't be. The user who writes at the troubled end is `nobody` if `user` says so.
    pub(crate) fn new(protocol: &str, way: Way, mounts: &str, as_nobody: bool, size: usize) -> Option<Self> {
        (!no_disks()).then(|| Self::make(protocol, way, Some(mounts), as_nobody, size))
    }

    /// Without disks of its own.
    pub(crate) fn plain(protocol: &str, way: Way, size: usize) -> Self {
        Self::make(protocol, way, None, false, size)
    }

    fn make(protocol: &str, way: Way, mounts: Option<&str>, as_nobody: bool, size: usize) -> Self {
        let dir = TempDir::new().unwrap();
        for name in ["trouble", "safe", "state"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let wanted = bytes(size as u64, size);
        let source = dir.path().join("safe/file");
        fs::write(&source, &wanted).unwrap();
        let old = UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        File::options().write(true).open(&source).unwrap().set_modified(old).unwrap();
        let all = Command::new("chmod").args(["-R", "a+rwX"]).arg(dir.path()).status().unwrap();
        assert!(all.success());
        let (trouble, state) = (dir.path().join("trouble"), dir.path().join("state"));
        let room =
            mounts.map(|mounts| Room::with(&format!("T='{}'\nS='{}'\n{mounts}", trouble.display(), state.display())));
        let server = match way {
            Way::Get => Serving::start(haul(None, false), protocol, &dir.path().join("safe"), 0),
            Way::Put => Serving::start(haul(room.as_ref(), as_nobody), protocol, &trouble, 0),
        };
        Self { room, way, wanted, server, dir }
    }

    /// The command that moves the file.
    pub(crate) fn command(&self, as_nobody: bool, args: &[&str]) -> Command {
        let here = self.dir.path();
        let mut command = haul(self.room.as_ref(), as_nobody && self.way == Way::Get);
        match self.way {
            Way::Get => {
                command.arg("get").args(args).arg(format!("{}/file", self.server.url)).arg(here.join("trouble/file"))
            }
            Way::Put => {
                command.arg("put").args(args).arg(here.join("safe/file")).arg(format!("{}/file", self.server.url))
            }
        };
        command.env("XDG_STATE_HOME", here.join("state")).env("HOME", here).arg("--progress").arg("plain");
        self.server.let_in(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it so that it fails with this status, and says these words.
    #[track_caller]
    pub(crate) fn fails(&self, mut command: Command, status: i32, words: &[&str]) -> String {
        let output = command.output().unwrap();
        let text = told(&output);
        assert_eq!(output.status.code(), Some(status), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text}");
        }
        assert!(!text.contains("panic"), "{text}");
        assert!(!self.at("file").exists(), "a file that isn't complete under the final name: {text}");
        text
    }

    /// Runs it so that it works, and returns what it said.
    #[track_caller]
    pub(crate) fn works(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        assert_same(&fs::read(self.at("file")).unwrap(), &self.wanted, "what arrived");
        assert_eq!(self.strays(), Vec::<String>::new());
        told(&output)
    }

    /// Where something at the troubled end is for the test itself.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.seen(&self.dir.path().join("trouble").join(name))
    }

    /// Where something of the client's state is.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.seen(&self.dir.path().join("state").join(name))
    }

    fn seen(&self, path: &Path) -> PathBuf {
        self.room.as_ref().map_or(path.to_owned(), |room| room.path(path))
    }

    /// Runs a line of `sh` where the disks are, with `$T` and `$S`.
    pub(crate) fn sh(&self, line: &str) {
        let here = self.dir.path().display();
        self.room.as_ref().expect("a room").sh(&format!("T='{here}/trouble'\nS='{here}/state'\n{line}"));
    }

    /// Part files, and journals of what isn't complete.
    pub(crate) fn strays(&self) -> Vec<String> {
        let mut found = names(&self.at(""));
        found.retain(|name| name.contains(".haul-"));
        let mut journals = names(&self.state("haul/transfers"));
        journals.retain(|name| name.ends_with(".journal") || name.ends_with(".new"));
        found.extend(journals);
        found
    }

    /// Stops a transfer in the middle and leaves part and journal.
    pub(crate) fn interrupt(&self, as_nobody: bool) {
        let rate = (self.wanted.len() / 2).to_string();
        let mut child = self.command(as_nobody, &["--limit-rate", &rate]).spawn().unwrap();
        // Once a block is written down, there is something to be kept.
        Self::wait_for(&mut child, || self.blocks() > 0);
        crate::support::disk::signal(child.id(), "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }

    /// Waits until so much of the part is there.
    pub(crate) fn wait_for_part(&self, child: &mut std::process::Child, length: u64) {
        let there = || self.part().and_then(|part| Some(fs::symlink_metadata(part).ok()?.len()));
        Self::wait_for(child, || self.blocks() > 0 && there().is_some_and(|there| there >= length));
    }

    fn wait_for(child: &mut std::process::Child, is_so: impl Fn() -> bool) {
        let began = std::time::Instant::now();
        while !is_so() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before");
            assert!(began.elapsed() < Duration::from_secs(60), "nothing happens");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// How many blocks the journal tells of.
    fn blocks(&self) -> usize {
        let dir = self.state("haul/transfers");
        let journal = names(&dir).into_iter().find(|name| name.ends_with(".journal"));
        let text = journal.and_then(|name| fs::read(dir.join(name)).ok()).unwrap_or_default();
        // Between them are notes, and before them the head.
        text.split(|&byte| byte == b'\n').filter(|line| line.first().is_some_and(u8::is_ascii_digit)).count()
    }

    pub(crate) fn part(&self) -> Option<PathBuf> {
        let name = names(&self.at("")).into_iter().find(|name| name.contains(".haul-"))?;
        Some(self.at(&name))
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

pub(crate) fn told(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    format!("{}: {}", output.status, String::from_utf8_lossy(&text))
}

/// The program, in a room and as another user if wanted; what it inherits is not the tester's.
fn haul(room: Option<&Room>, as_nobody: bool) -> Command {
    let program = env!("CARGO_BIN_EXE_haul");
    let mut command = match (room, as_nobody) {
        (Some(room), true) => {
            let mut command = room.command("sh");
            // Opened by root, since the way to it may be closed to nobody.
            let run = format!(
                "exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \\
                 sh -c 'exec /proc/self/fd/9 \"$@\"' haul \"$@\" 9< '{program}'"
            );
            command.args(["-c", &run, "sh"]);
            command
        }
        (Some(room), false) => room.command(program),
        (None, _) => Command::new(program),
    };
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

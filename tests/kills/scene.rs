//! One file to move, again and again, each time into a folder and from a home of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use crate::support::client::{Client, Traces, events, names_below, told, traces};
use crate::support::data::{Dice, MIB, bytes};
use crate::support::lab::Server;
use crate::support::watch::Watcher;

/// Blocks of a MiB each.
pub(crate) const SIZE: usize = 6 * MIB + 12_345;
/// Longer than any run takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Get,
    Put,
}

/// How a file is moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) direction: Direction,
    pub(crate) segments: u32,
}

/// The file, where it is, and where the copies go.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) way: Way,
    folder: TempDir,
    /// The scene's folder at the server, as it is on this disk.
    far: PathBuf,
    contents: Bytes,
    copies: u32,
}

/// One copy in the making.
pub(crate) struct Copy {
    pub(crate) client: Client,
    pub(crate) destination: PathBuf,
    arguments: Vec<String>,
    contents: Bytes,
    old: Option<Bytes>,
    _home: TempDir,
}

impl Scene {
    pub(crate) fn new(server: &Server, way: Way, seed: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let far = server.root.join(format!("kills-{}-{seed:x}", std::process::id()));
        let scene = Self { server: server.clone(), way, folder, far, contents: bytes(seed, SIZE), copies: 0 };
        make_folder(&scene.server, &scene.far);
        std::fs::write(scene.source(), &scene.contents).unwrap();
        scene
    }

    fn source(&self) -> PathBuf {
        if self.way.direction == Direction::Get { self.far.join("file") } else { self.folder.path().join("file") }
    }

    /// Prepares a further copy; half of them replace an older file.
    pub(crate) fn copy(&mut self, dice: &mut Dice) -> Copy {
        self.copies += 1;
        let home = TempDir::new().unwrap();
        let name = format!("copy-{}", self.copies);
        let near = home.path().join("near");
        std::fs::create_dir(&near).unwrap();
        let far = self.far.join(&name);
        let at = format!("{}{}", self.server.url(), self.far.file_name().unwrap().to_str().unwrap());
        let (mut arguments, folder) = match self.way.direction {
            Direction::Get => {
                (vec!["get".to_owned(), format!("{at}/file"), near.join("file").display().to_string()], near)
            }
            Direction::Put => {
                make_folder(&self.server, &far);
                (vec!["put".to_owned(), self.source().display().to_string(), format!("{at}/{name}/file")], far)
            }
        };
        arguments.extend(["--segments".into(), self.way.segments.to_string()]);
        let destination = folder.join("file");
        let old = dice.once_in(2).then(|| bytes(7, 2 * MIB + 5));
        if let Some(old) = &old {
            std::fs::write(&destination, old).unwrap();
            hand_over(&self.server, &destination);
        }
        let client = Client::new(env!("CARGO_BIN_EXE_haul"), home.path());
        Copy { client, destination, arguments, contents: self.contents.clone(), old, _home: home }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.far);
    }
}

impl Copy {
    /// The command that makes it; `paced`: so slowly that the moving itself takes most of the time.
    pub(crate) fn command(&self, server: &Server, paced: bool) -> Command {
        let mut arguments: Vec<&OsStr> = self.arguments.iter().map(OsStr::new).collect();
        if paced {
            arguments.extend(["--limit-rate", "30M"].map(OsStr::new));
        }
        self.client.command(server, &arguments)
    }

    /// Looks at everything that changes while it is made.
    pub(crate) fn traces(&self) -> Traces {
        traces(&[&self.client.journals(), self.folder()])
    }

    pub(crate) fn folder(&self) -> &Path {
        self.destination.parent().unwrap()
    }

    pub(crate) fn watch(&self) -> Watcher {
        Watcher::start(&self.destination, self.old.clone(), self.contents.clone())
    }

    /// Bytes that the journal says are there.
    pub(crate) fn written_down(&self) -> u64 {
        let is_journal = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "journal");
        let journal = names_below(&self.client.journals()).into_iter().find(is_journal);
        let text = journal.map(|name| std::fs::read(self.client.journals().join(name)).unwrap()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        // Behind the head, a line for each block, which begins with its number; the last one may be torn.
        let lines = text.split_inclusive('\n').skip(1).filter(|line| line.ends_with('\n'));
        let blocks = lines.filter_map(|line| line.split(' ').next()?.parse::<usize>().ok());
        blocks.map(|block| SIZE.saturating_sub(block * MIB).min(MIB) as u64).sum()
    }

    /// Returns what is wrong once all is over: contents, and files that nobody asked for.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if std::fs::read(&self.destination).ok().as_deref() != Some(&self.contents[..]) {
            faults.push("wrong contents".to_owned());
        }
        let beside = names_below(self.folder()).into_iter().filter(|name| name != "file");
        faults.extend(beside.map(|name| format!("left beside the file: {name}")));
        faults.extend(self.client.left_in_state().into_iter().map(|name| format!("left in the state folder: {name}")));
        faults
    }
}

/// Makes a folder at the server that its user may write to.
fn make_folder(server: &Server, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    hand_over(server, folder);
}

fn hand_over(server: &Server, path: &Path) {
    if path.starts_with(&server.root) {
        use std::os::unix::fs::{MetadataExt, chown};
        let owner = std::fs::metadata(&server.root).unwrap();
        let _ = chown(path, Some(owner.uid()), Some(owner.gid()));
    }
}

/// Waits for a run's end.
pub(crate) fn ended(mut child: Child, what: &str) -> Output {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("{what}: haul hangs: {}", told(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

/// Returns the bytes that a run moved.
pub(crate) fn transferred(output: &Output) -> u64 {
    events(output, "summary").first().and_then(|summary| summary["transferred"].as_u64()).unwrap_or(0)
}

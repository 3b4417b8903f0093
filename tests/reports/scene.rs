//! A server, a home, and a folder to move files from and to.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use haul::serve::Protocol;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::data::bytes;
use crate::support::lab::Server;
use crate::support::served::Served;

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Scene {
    pub(crate) server: Server,
    client: Client,
    home: TempDir,
    folder: String,
    own: Option<Served>,
}

impl Scene {
    /// With a server of haul's own.
    pub(crate) fn own(protocol: Protocol) -> Self {
        let served = Served::start(protocol);
        Self::with(served.server.clone(), Some(served), "own")
    }

    /// With one of the real servers; `None` where it can't be had.
    pub(crate) fn real(name: &str, test: &str) -> Option<Self> {
        Some(Self::with(Server::get(name)?, None, test))
    }

    fn with(server: Server, own: Option<Served>, test: &str) -> Self {
        let home = TempDir::new().unwrap();
        let client = Client::new(env!("CARGO_BIN_EXE_haul"), home.path().join("home"));
        let folder = format!("reports-{test}-{}", std::process::id());
        let scene = Self { server, client, home, folder, own };
        for dir in [scene.near(""), scene.near("into"), scene.far("")] {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        scene
    }

    pub(crate) fn near(&self, name: &str) -> PathBuf {
        self.home.path().join("near").join(name)
    }

    pub(crate) fn far(&self, name: &str) -> PathBuf {
        self.server.root.join(&self.folder).join(name)
    }

    pub(crate) fn url(&self, name: &str) -> String {
        self.url_by(&self.server, name)
    }

    /// The same by another way to the server.
    pub(crate) fn url_by(&self, server: &Server, name: &str) -> String {
        let start =
            if self.own.is_some() && server.scheme == "sftp" { server.url().replace("/~/", "/") } else { server.url() };
        format!("{start}{}/{name}", self.folder)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_by(&self.server, arguments)
    }

    pub(crate) fn command_by(&self, server: &Server, arguments: &[&str]) -> Command {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let mut command = self.client.command(server, &arguments);
        command.current_dir(self.near("")).env("TZ", "UTC");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Writes the file of settings.
    pub(crate) fn config(&self, text: &str) {
        write(&self.home.path().join("home/.config/haul/config.toml"), text.as_bytes());
    }

    /// Returns a report of this name as JSON.
    #[track_caller]
    pub(crate) fn report(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.near(name)).unwrap()).unwrap()
    }

    pub(crate) fn password(&self) -> &str {
        self.server.password.as_deref().unwrap_or("no password")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.far(""));
    }
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        self
    }

    /// Returns the events about files.
    pub(crate) fn files(&self) -> Vec<Value> {
        let values = self.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        values.filter(|value| value["event"] == "file").collect()
    }

    /// Returns how many bytes were moved.
    pub(crate) fn transferred(&self) -> u64 {
        self.files().iter().map(|file| file["transferred"].as_u64().unwrap()).sum()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Writes a file that everybody may read.
pub(crate) fn write(path: &Path, contents: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

/// Writes so many files of this size, and returns their names.
pub(crate) fn write_tree(folder: &Path, files: u64, size: usize) -> Vec<String> {
    let names: Vec<_> = (0..files).map(|number| format!("d{}/f{number}", number % 3)).collect();
    for (number, name) in names.iter().enumerate() {
        write(&folder.join(name), &bytes(number as u64, size));
    }
    names
}

pub(crate) fn send(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[track_caller]
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !reached() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many bytes of part files lie in a folder.
pub(crate) fn part_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
    parts.filter_map(|part| Some(part.metadata().ok()?.len())).sum()
}

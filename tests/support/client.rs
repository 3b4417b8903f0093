//! The program as a user runs it, in a home of its own, and what it leaves there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::lab::Server;

/// A user's home and the program.
#[derive(Debug, Clone)]
pub struct Client {
    pub program: PathBuf,
    pub home: PathBuf,
}

impl Client {
    pub fn new(program: impl Into<PathBuf>, home: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), home: home.into() }
    }

    /// Returns a command with what it takes to log in at the server.
    pub fn command(&self, server: &Server, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--json", "--progress", "none"]);
        match server.scheme.as_str() {
            "sftp" => {
                command.args(["--ssh-config", "none", "--host-key", "strict"]);
                command.arg("--known-hosts").arg(&server.known_hosts);
                if !server.identity.as_os_str().is_empty() {
                    command.arg("--identity").arg(&server.identity);
                }
            }
            "ftp" => drop(command.args(["--tls", "off"])),
            _ => drop(command.arg("--tls-ca").arg(&server.ca)),
        }
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.home)
            .env("XDG_STATE_HOME", self.home.join("state"))
            .env("HAUL_PASSWORD", server.password.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Where journals are.
    pub fn journals(&self) -> PathBuf {
        self.home.join("state/haul/transfers")
    }

    /// Returns what is in the state folder and should not be once all transfers are complete.
    pub fn left_in_state(&self) -> Vec<String> {
        // What a loss of power might still take is remembered for some minutes, in marks.
        let lasting = ["hosts.json", "transfers/cleared", "transfers/installation", "transfers/unsettled/"];
        let found = names_below(&self.home.join("state/haul"));
        found.into_iter().filter(|name| !lasting.iter().any(|kept| name.starts_with(kept))).collect()
    }
}

/// Returns the paths of all files below a folder, seen from there.
pub fn names_below(folder: &Path) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                _ => found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    found.sort();
    found
}

/// Whether a name is that of a part.
pub fn is_part(name: impl AsRef<Path>) -> bool {
    name.as_ref().extension().is_some_and(|extension| extension == "part")
}

/// What can be seen from outside of how far a transfer is: each file's length and place on the disk, by name.
pub type Traces = BTreeMap<PathBuf, (u64, u64)>;

/// Looks at journals, parts and files in these folders.
pub fn traces(folders: &[&Path]) -> Traces {
    let entries = folders.iter().flat_map(std::fs::read_dir).flatten().flatten();
    let seen = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some((entry.path(), (metadata.len(), metadata.ino())))
    });
    seen.collect()
}

/// Returns the events of a kind that a run wrote with `--json`.
pub fn events(output: &Output, kind: &str) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let values = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values.filter(|value| value["event"] == kind).collect()
}

/// Returns all that a run said.
pub fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

//! Where one case happens: a folder at each end, a home, and haul.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use super::support::lab::Server;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Get,
    Put,
}

/// One case's places; what it made is removed with it.
pub(crate) struct Scene {
    home: TempDir,
    server: Server,
    way: Way,
    name: String,
}

impl Scene {
    pub(crate) fn new(server: &Server, way: Way, name: String, source: &Bytes, old: Option<&Bytes>) -> Self {
        let scene = Self { home: TempDir::new().unwrap(), server: server.clone(), way, name };
        std::fs::create_dir(scene.near()).unwrap();
        std::fs::create_dir(scene.far()).unwrap();
        std::fs::write(scene.source(), source).unwrap();
        if let Some(old) = old {
            std::fs::write(scene.destination(), old).unwrap();
        }
        // The server's user, where that is another one, owns all of its end.
        let theirs = scene.far();
        let _ = Command::new("chown").arg("-R").arg("--reference").arg(&scene.server.root).arg(theirs).status();
        scene
    }

    fn near(&self) -> PathBuf {
        self.home.path().join("near")
    }

    fn far(&self) -> PathBuf {
        self.server.root.join(&self.name)
    }

    pub(crate) fn source(&self) -> PathBuf {
        if self.way == Way::Get { self.far() } else { self.near() }.join("file")
    }

    pub(crate) fn destination(&self) -> PathBuf {
        if self.way == Way::Get { self.near() } else { self.far() }.join("file")
    }

    /// Runs the command that moves the file, by way of this server or of a link to it.
    pub(crate) fn haul(&self, server: &Server, options: &[&str]) -> Output {
        let url = format!("{}{}/file", server.url(), self.name);
        let near = self.near().join("file");
        let program = std::env::var_os("HAUL_CHAOS_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_haul").into());
        let mut command = Command::new(program);
        match self.way {
            Way::Get => command.arg("get").arg(url).arg(near),
            Way::Put => command.arg("put").arg(near).arg(url),
        };
        command.args(["--json", "--host-key", "strict"]).arg("--known-hosts").arg(&server.known_hosts);
        match server.scheme.as_str() {
            "sftp" if server.identity.as_os_str().is_empty() => &mut command,
            "sftp" => command.arg("--identity").arg(&server.identity),
            "ftp" => command.args(["--tls", "off"]),
            _ => command.arg("--tls-ca").arg(&server.ca),
        };
        command
            .args(options)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("XDG_STATE_HOME", self.home.path().join("state"))
            .env("HAUL_PASSWORD", server.password.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The part file, while there is one.
    pub(crate) fn part(&self) -> Option<PathBuf> {
        let folder = self.destination().parent().unwrap().to_owned();
        listed(&folder).into_iter().find(|name| name.ends_with(".part")).map(|name| folder.join(name))
    }

    /// Whatever is at either end, or among the journals, besides the two files.
    pub(crate) fn strays(&self) -> Vec<String> {
        let mut all: Vec<String> = [self.near(), self.far()].iter().flat_map(|dir| listed(dir)).collect();
        all.retain(|name| name != "file");
        let journals = listed(&self.home.path().join("state/haul/transfers"));
        all.extend(journals.into_iter().filter(|name| name.ends_with(".journal") || name.contains("new")));
        all
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.far());
    }
}

fn listed(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// What haul reported about the file.
pub(crate) fn event(output: &Output) -> Option<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|value| value["event"] == "file")
}

pub(crate) fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

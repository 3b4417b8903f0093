//! Two ends, what lies at them, and the program between.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use haul::serve::{FtpTls, Protocol};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::data::Dice;
use crate::support::lab::Server;
use crate::support::served::Served;

/// What a tree is made of: by path, contents and time, or a directory (`None`).
pub(crate) type Spec<'a> = &'a [(&'a str, Option<(&'a str, u64)>)];

/// One end: a folder of this machine, or of a server.
pub(crate) struct End {
    pub(crate) disk: PathBuf,
    pub(crate) url: String,
}

/// A home, a folder of this machine and one of a server, if there is one.
pub(crate) struct Scene {
    pub(crate) home: TempDir,
    pub(crate) server: Option<Server>,
    far: String,
    _served: Option<Served>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File(Vec<u8>, i64),
    Link(PathBuf),
}

impl Scene {
    /// `local`, `embedded sftp`, `embedded ftp`, or a server of the lab; `None` where this machine can't run that.
    pub(crate) fn new(kind: &str) -> Option<Self> {
        let own = match kind {
            "embedded sftp" => Some(Served::start(Protocol::Sftp)),
            "embedded ftp" => Some(Served::start(Protocol::Ftp(FtpTls::Off))),
            _ => None,
        };
        let server = match (&own, kind) {
            (Some(own), _) => Some(own.server.clone()),
            (None, "local") => None,
            (None, lab) => Some(Server::get(lab)?),
        };
        let number = Dice::new(getrandom::u64().unwrap()).any();
        let scene = Self { home: TempDir::new().unwrap(), server, far: format!("sync-{number:016x}"), _served: own };
        std::fs::create_dir_all(scene.home.path().join("near")).unwrap();
        if let Some(far) = scene.far_disk() {
            std::fs::create_dir_all(&far).unwrap();
            scene.own(&far);
        }
        Some(scene)
    }

    fn far_disk(&self) -> Option<PathBuf> {
        self.server.as_ref().map(|server| server.root.join(&self.far))
    }

    /// A folder of this machine.
    pub(crate) fn near(&self, name: &str) -> End {
        let disk = self.home.path().join("near").join(name);
        End { url: disk.display().to_string(), disk }
    }

    /// A folder of the server; of this machine if there is none.
    pub(crate) fn far(&self, name: &str) -> End {
        match (&self.server, self.far_disk()) {
            (Some(server), Some(disk)) => {
                End { disk: disk.join(name), url: format!("{}{}/{name}", server.url(), self.far) }
            }
            _ => self.near(&format!("far-{name}")),
        }
    }

    /// Makes something the server's own.
    fn own(&self, path: &Path) {
        if let Some(server) = self.server.as_ref().filter(|server| path.starts_with(&server.root)) {
            let owner = std::fs::metadata(&server.root).unwrap();
            let _ = std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()));
        }
    }

    /// Makes a tree.
    pub(crate) fn plant(&self, end: &End, spec: Spec<'_>) {
        self.plant_dir(&end.disk);
        for (name, what) in spec {
            let path = end.disk.join(name);
            match what {
                None => self.plant_dir(&path),
                Some((contents, seconds)) => self.plant_file(&path, contents.as_bytes(), *seconds),
            }
        }
    }

    pub(crate) fn plant_file(&self, path: &Path, contents: &[u8], seconds: u64) {
        self.plant_dir(path.parent().unwrap());
        std::fs::write(path, contents).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        set_time(path, seconds);
        self.own(path);
    }

    pub(crate) fn plant_dir(&self, path: &Path) {
        let mut missing: Vec<_> = path.ancestors().take_while(|above| !above.exists()).collect();
        while let Some(dir) = missing.pop() {
            std::fs::create_dir(dir).unwrap();
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
            self.own(dir);
        }
    }

    pub(crate) fn plant_link(&self, path: &Path, target: &str) {
        symlink(target, path).unwrap();
        self.own(path);
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
        command.args(arguments).args(["--json", "--ssh-config", "none"]);
        if !arguments.contains(&"--progress") && arguments[0] != "ls" {
            command.args(["--progress", "none"]);
        }
        if let Some(server) = &self.server {
            reach(&mut command, server);
        }
        command
            .env_remove("SSH_AUTH_SOCK")
            .env("HOME", self.home.path())
            .env("XDG_STATE_HOME", self.home.path().join("state"))
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Syncs, and returns what was told.
    pub(crate) fn sync(&self, from: &End, to: &End, options: &[&str]) -> Told {
        let arguments = [&["sync", &from.url, &to.url][..], options].concat();
        Told(self.command(&arguments).output().unwrap())
    }

    pub(crate) fn start(&self, from: &End, to: &End, options: &[&str]) -> Child {
        let arguments = [&["sync", &from.url, &to.url][..], options].concat();
        self.command(&arguments).spawn().unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(far) = self.far_disk() {
            let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(&far).status();
            let _ = std::fs::remove_dir_all(far);
        }
    }
}

/// What a run said.
pub(crate) struct Told(pub(crate) Output);

impl Told {
    pub(crate) fn status(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    /// Asserts that all went well.
    #[track_caller]
    pub(crate) fn fine(&self) -> &Self {
        assert_eq!(self.status(), 0, "{}", self.text());
        self
    }

    pub(crate) fn text(&self) -> String {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        format!("{}\n{}", text(&self.0.stdout), text(&self.0.stderr))
    }

    pub(crate) fn objects(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.0.stdout).into_owned();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A number of the summary.
    #[track_caller]
    pub(crate) fn total(&self, name: &str) -> u64 {
        let summary = self.objects().into_iter().find(|object| object["event"] == "summary");
        summary.unwrap_or_else(|| panic!("no summary: {}", self.text()))[name].as_u64().unwrap()
    }

    /// What was done, or would be: `file .../a`, sorted; directories that are made are left out.
    pub(crate) fn changes(&self, below: &str) -> Vec<String> {
        let mut changes: Vec<_> = self
            .objects()
            .into_iter()
            .filter(|object| !["summary", "mkdir"].contains(&object["event"].as_str().unwrap()))
            .filter(|object| object["status"] != "skipped")
            .map(|object| {
                let at = object["destination"].as_str().unwrap();
                let at = at.rsplit_once(below).map_or(at, |(_, rest)| rest);
                format!("{} {at}", object["event"].as_str().unwrap())
            })
            .collect();
        changes.sort();
        changes
    }
}

/// Says what it takes to log in at a server.
pub(crate) fn reach(command: &mut Command, server: &Server) {
    match server.scheme.as_str() {
        "sftp" => {
            command.args(["--host-key", "strict", "--known-hosts"]).arg(&server.known_hosts);
            if !server.identity.as_os_str().is_empty() {
                command.arg("--identity").arg(&server.identity);
            }
        }
        _ => drop(command.args(["--tls", "off"])),
    }
    command.env("HAUL_PASSWORD", server.password.as_deref().unwrap_or_default());
}

/// Waits until something is so, while a program runs.
#[track_caller]
pub(crate) fn wait_for(child: &mut Child, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be stopped");
        assert!(begin.elapsed() < Duration::from_secs(60), "it never came that far");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn set_time(path: &Path, seconds: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Everything below a folder, by path.
pub(crate) fn tree(folder: &Path) -> BTreeMap<String, Node> {
    let (mut found, mut open) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            let metadata = path.symlink_metadata().unwrap();
            let node = if metadata.is_dir() {
                open.push(path);
                Node::Directory
            } else if metadata.is_symlink() {
                Node::Link(std::fs::read_link(&path).unwrap())
            } else {
                Node::File(std::fs::read(&path).unwrap(), metadata.mtime())
            };
            found.insert(name, node);
        }
    }
    found
}

/// The same without times.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let nodes = tree(folder).into_iter().map(|(name, node)| match node {
        Node::Directory => (name, None),
        Node::File(contents, _) => (name, Some(contents)),
        Node::Link(target) => (name, Some(target.as_os_str().as_bytes().to_vec())),
    });
    nodes.collect()
}

pub(crate) fn mtime(path: impl AsRef<Path>) -> i64 {
    path.as_ref().metadata().unwrap().mtime()
}

pub(crate) fn mode(path: impl AsRef<Path>) -> u32 {
    path.as_ref().metadata().unwrap().mode() & 0o7777
}

pub(crate) fn set_mode(path: impl AsRef<Path>, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn raw(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

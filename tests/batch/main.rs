//! `haul batch`: job files and scripts against real servers and haul's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)] // helpers of tests are outside of tests

mod jobs;
mod script;
#[path = "../support/mod.rs"]
mod support;
mod trouble;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use support::client::{Client, events};
use support::lab::Server;
use support::serving::Serving;
use tempfile::TempDir;

/// A user's home and folder on this machine, and one at a server.
struct Scene {
    home: TempDir,
    server: Server,
    /// The folder at the server, by the URL of a login.
    far: String,
    /// What goes with haul's own server.
    _serving: Option<Serving>,
}

impl Scene {
    /// With a server of the lab; `None` where this machine can't run it.
    fn lab(server: &str, test: &str) -> Option<Self> {
        Some(Self::with(Server::get(server)?, test, None))
    }

    /// With haul's own server.
    fn own(scheme: &str, test: &str) -> Self {
        let serving = Serving::start(Path::new(env!("CARGO_BIN_EXE_haul")), scheme);
        Self::with(serving.server.clone(), test, Some(serving))
    }

    fn with(server: Server, test: &str, serving: Option<Serving>) -> Self {
        let scene = Self {
            home: TempDir::new().unwrap(),
            far: format!("batch-{test}-{}", std::process::id()),
            server,
            _serving: serving,
        };
        for dir in [scene.near(""), scene.far("")] {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        scene
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

    /// Writes a file here; `[URL]` in it is the folder at the server.
    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.near(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents.replace("[URL]", self.url("").trim_end_matches('/'))).unwrap();
        path
    }

    /// Writes a file at the server that anybody may change.
    fn far_file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.far(name);
        let dir = path.parent().unwrap();
        std::fs::create_dir_all(dir).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let client = Client::new(env!("CARGO_BIN_EXE_haul"), self.home.path());
        let arguments: Vec<&OsStr> =
            std::iter::once("batch").chain(arguments.iter().copied()).map(OsStr::new).collect();
        let mut command = client.command(&self.server, &arguments);
        command.current_dir(self.near(""));
        command
    }

    fn batch(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Writes a job file and runs it.
    fn jobs(&self, text: &str) -> Output {
        self.file("jobs.toml", text);
        self.batch(&["jobs.toml"])
    }

    /// Writes a script and runs it in the folder at the server.
    fn script(&self, text: &str) -> Output {
        self.file("script", text);
        self.batch(&["--endpoint", &self.url(""), "script"])
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.far(""));
    }
}

/// What became of each job, by its name.
fn ends(output: &Output) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events(output, "job").iter().map(|job| (text(&job["name"]), text(&job["status"]))).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// Sends a signal to a program.
fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Hands connections on to a server and counts them.
fn counting(server: &Server) -> (u16, Arc<AtomicUsize>) {
    // Where the server is, so that the data connections of FTP find it.
    let listener = TcpListener::bind((server.host.as_str(), 0)).unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let (to, counted) = ((server.host.clone(), server.port), Arc::clone(&count));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(near) = stream else { return };
            counted.fetch_add(1, Ordering::SeqCst);
            let far = TcpStream::connect((to.0.as_str(), to.1)).unwrap();
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(length @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..length]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (port, count)
}

//! The number of connections, found by the program itself: behind a cap per connection, at a server that lets two in,
//! behind one narrow link.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use support::data::{MIB, assert_same, bytes};
use support::lab::{Apart, Server};
use support::wan::{Link, cannot, unused_name, wanlink};
use tempfile::TempDir;

mod support;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Get,
    Put,
}

/// A tree of one large file and many small ones at one end, nothing at the other.
struct Scene {
    home: TempDir,
    large: bytes::Bytes,
    small: usize,
    way: Way,
    there: std::path::PathBuf,
}

impl Scene {
    fn new(server: &Server, way: Way, large: usize, small: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let there = server.root.join(unused_name());
        std::fs::create_dir(&there).unwrap();
        let scene = Self { home, large: bytes(1, large), small, way, there };
        let tree = scene.end(way == Way::Put).join("tree");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::create_dir_all(scene.end(way == Way::Get)).unwrap();
        std::fs::write(tree.join("large"), &scene.large).unwrap();
        for number in 0..small {
            std::fs::write(tree.join(format!("{number}")), bytes(number as u64, 4096)).unwrap();
        }
        let owner = Command::new("chown").args(["-R", "--reference"]).args([&server.root, &scene.there]).status();
        assert!(owner.unwrap().success());
        scene
    }

    fn end(&self, here: bool) -> std::path::PathBuf {
        if here { self.home.path().join("here") } else { self.there.clone() }
    }

    /// Moves the tree by the program, perhaps run by another command, and returns the summary.
    fn go(&self, server: &Server, port: u16, host: &str, within: &[&str]) -> Value {
        let program = env!("CARGO_BIN_EXE_haul");
        let mut command = match within {
            [] => Command::new(program),
            [wrapper, arguments @ ..] => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program);
                command
            }
        };
        let sftp = server.scheme == "sftp";
        // The SFTP server shows the whole disk, the FTP server its folder.
        let name = self.there.file_name().unwrap().to_str().unwrap();
        let path = if sftp { self.there.display().to_string() } else { format!("/{name}") };
        let url = format!("{}://{}@{host}:{port}{path}", server.scheme, server.login);
        let here = self.end(true);
        match self.way {
            Way::Get => command.args(["get", "-r", "--json", &format!("{url}/tree")]).arg(here),
            Way::Put => command.args(["put", "-r", "--json"]).arg(here.join("tree")).arg(format!("{url}/")),
        };
        if sftp {
            command.arg("-i").arg(&server.identity).arg("--known-hosts").arg(&server.known_hosts);
        } else {
            command.env("HAUL_PASSWORD", server.password.as_deref().unwrap_or_default()).args(["--tls", "off"]);
        }
        command.env("XDG_STATE_HOME", self.home.path()).env("HOME", self.home.path());
        let output = command.args(["--progress", "none"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).unwrap();
        self.assert_moved();
        serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
    }

    fn assert_moved(&self) {
        let tree = self.end(self.way == Way::Get).join("tree");
        assert_same(&std::fs::read(tree.join("large")).unwrap(), &self.large, "the large file");
        for number in 0..self.small {
            let found = std::fs::read(tree.join(format!("{number}"))).unwrap();
            assert_same(&found, &bytes(number as u64, 4096), "a small file");
        }
        assert_eq!(std::fs::read_dir(&tree).unwrap().count(), self.small + 1, "nothing else is left");
    }

    /// Returns the number of connections that the program remembers.
    fn remembered(&self) -> u64 {
        let text = std::fs::read_to_string(self.home.path().join("haul/hosts.json")).unwrap_or_default();
        let hosts: Value = serde_json::from_str(&text).unwrap_or_default();
        let host = hosts.as_object().and_then(|hosts| hosts.values().next());
        host.and_then(|host| host["connections"].as_u64()).unwrap_or(0)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.there);
    }
}

/// Starts a proxy in front of a server, at its port on one of the addresses that are kept for this (34 to 40): fault
/// links of other tests look for free ones below.
fn cap(server: &Server, address: &str, options: &[&str]) -> Link {
    let (listen, to) = (format!("{address}:{}", server.port), format!("{}:{}", server.host, server.port));
    Link::start(String::new(), &[&["cap", "--listen", &listen, "--to", &to], options].concat())
}

/// Returns a number of the proxy's statistics.
fn statistic(cap: &mut Link, name: &str) -> u64 {
    let text = cap.end(Signal::TERM);
    let value = text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text:?}"))
}

#[test]
fn sftp_beats_a_cap_per_connection() {
    let Some(server) = Server::get("openssh") else { return };
    for (way, address) in [(Way::Get, "127.0.0.34"), (Way::Put, "127.0.0.35")] {
        let mut cap = cap(&server, address, &["--mbyte-per-s", "2"]);
        let scene = Scene::new(&server, way, 24 * MIB, 0);
        assert_eq!(scene.go(&server, server.port, address, &[])["failed"], 0);
        let most = statistic(&mut cap, "most_at_once");
        assert!(most >= 4, "{way:?}: {most} connections");
    }
}

#[test]
fn ftp_beats_a_cap_per_connection() {
    let apart = Apart::new();
    let Some(server) = apart.server("vsftpd", &[("HAUL_LAB_RATE", "2000000")], &[]) else { return };
    let scene = Scene::new(&server, Way::Get, 24 * MIB, 0);
    assert_eq!(scene.go(&server, server.port, &server.host, &[])["failed"], 0);
    assert!(scene.remembered() >= 4, "{} connections", scene.remembered());
}

#[test]
fn an_sftp_server_that_lets_two_in_gets_two_and_no_file_fails() {
    let Some(server) = Server::get("openssh") else { return };
    for (way, address) in [(Way::Get, "127.0.0.36"), (Way::Put, "127.0.0.37")] {
        let mut cap = cap(&server, address, &["--mbyte-per-s", "3", "--max-connections", "2"]);
        // Long enough for a busy machine to measure that the second is worth it.
        let scene = Scene::new(&server, way, 48 * MIB, 100);
        let summary = scene.go(&server, server.port, address, &[]);
        assert_eq!((&summary["failed"], &summary["done"]), (&0.into(), &101.into()));
        assert_eq!(scene.remembered(), 2);
        assert_eq!(statistic(&mut cap, "most_at_once"), 2);
    }
}

#[test]
fn an_ftp_server_that_lets_two_in_gets_two_and_no_file_fails() {
    let apart = Apart::new();
    let settings = [("HAUL_LAB_RATE", "3000000"), ("HAUL_LAB_CLIENTS", "2")];
    let Some(server) = apart.server("vsftpd", &settings, &[]) else { return };
    for way in [Way::Get, Way::Put] {
        let scene = Scene::new(&server, way, 16 * MIB, 100);
        let summary = scene.go(&server, server.port, &server.host, &[]);
        assert_eq!((&summary["failed"], &summary["done"]), (&0.into(), &101.into()));
        assert!(scene.remembered() <= 2, "{}", scene.remembered());
    }
}

#[test]
fn behind_one_narrow_link_there_are_few() {
    if cannot() {
        return;
    }
    let link = Link::up(&["--delay-ms", "10", "--rate-mbit", "40", "--net", "7"]).unwrap();
    let (program, apart) = (wanlink(), Apart::new());
    let exec = |side: &'static str| {
        [program.to_str().unwrap(), "exec", "--name", &link.name, "--side", side, "--"].map(str::to_owned)
    };
    let (on_a, on_b) = (exec("a"), exec("b"));
    let settings = [("HAUL_LAB_ADDRESS", "10.77.7.1")];
    let Some(server) = apart.server("openssh", &settings, &on_a.each_ref().map(String::as_str)) else { return };
    let scene = Scene::new(&server, Way::Get, 40 * MIB, 0);
    scene.go(&server, server.port, "10.77.7.1", &on_b.each_ref().map(String::as_str));
    // It starts with four at a distance, and more would help no more than fewer hurt.
    assert!((1..=4).contains(&scene.remembered()), "{} connections", scene.remembered());
}

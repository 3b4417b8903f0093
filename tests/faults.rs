//! What a user may do to haul, and a network: kill it, interrupt it, cut the connection. Then the same command again.
//!
//! `HAUL_FAULT_MIB` sets the size of the file that is moved; the long form takes 512.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use haul::serve::{FtpTls, Protocol};
use serde_json::Value;
use support::client::Client;
use support::data::{MIB, assert_same, bytes};
use support::fault::{Fault, Link, On, Towards};
use support::lab::Server;
use support::served::Served;
use tempfile::TempDir;

mod support;

macro_rules! suite {
    ($($server:ident)*) => {
        $(mod $server {
            use super::*;

            #[test]
            fn get_goes_on_after_a_kill() {
                stopped_and_again(stringify!($server), Way::Get, "KILL");
            }

            #[test]
            fn put_goes_on_after_a_kill() {
                stopped_and_again(stringify!($server), Way::Put, "KILL");
            }

            #[test]
            fn get_goes_on_after_an_interrupt() {
                stopped_and_again(stringify!($server), Way::Get, "INT");
            }

            #[test]
            fn put_goes_on_after_an_interrupt() {
                stopped_and_again(stringify!($server), Way::Put, "INT");
            }

            #[test]
            fn get_survives_a_cut() {
                cut_in_one_run(stringify!($server), Way::Get);
            }

            #[test]
            fn put_survives_a_cut() {
                cut_in_one_run(stringify!($server), Way::Put);
            }

            #[test]
            fn a_stalled_line_times_out() {
                stalled(stringify!($server));
            }
        })*
    };
}

suite! { openssh proftpd_sftp vsftpd vsftpd_tls12 vsftpd_tls13 proftpd proftpd_tls pureftpd pureftpd_tls pyftpdlib }

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Get,
    Put,
}

/// A file to move, where from, where to, and a home of its own for the program.
struct Scene {
    home: TempDir,
    server: Server,
    way: Way,
    name: String,
    contents: bytes::Bytes,
}

impl Scene {
    fn new(name: &str, way: Way) -> Option<Self> {
        let server = Server::get(name)?;
        let home = TempDir::new().unwrap();
        let size = std::env::var("HAUL_FAULT_MIB").map_or(24, |mib| mib.parse().expect("a number"));
        let contents = bytes(size as u64, size * MIB + 12_345);
        let scene = Self { name: format!("fault-{}", std::process::id()), home, server, way, contents };
        for dir in [scene.near(), scene.far()] {
            std::fs::create_dir_all(&dir).unwrap();
        }
        let _ = Command::new("chown").arg("--reference").arg(&scene.server.root).arg(scene.far()).status();
        std::fs::write(scene.source(), &scene.contents).unwrap();
        let _ = Command::new("chmod").arg("644").arg(scene.source()).status();
        Some(scene)
    }

    fn near(&self) -> PathBuf {
        self.home.path().join("near")
    }

    fn far(&self) -> PathBuf {
        self.server.root.join(&self.name)
    }

    fn source(&self) -> PathBuf {
        if self.way == Way::Get { self.far() } else { self.near() }.join("file")
    }

    fn destination(&self) -> PathBuf {
        if self.way == Way::Get { self.near() } else { self.far() }.join("file")
    }

    /// The command that moves the file, by way of the server or of a link to it.
    fn command(&self, server: &Server) -> Command {
        let url = format!("{}{}/file", server.url(), self.name);
        let near = self.near().join("file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
        match self.way {
            Way::Get => command.arg("get").arg(url).arg(near),
            Way::Put => command.arg("put").arg(near).arg(url),
        };
        command.args(["--json", "--host-key", "strict"]).arg("--known-hosts").arg(&server.known_hosts);
        match server.scheme.as_str() {
            "sftp" => command.arg("--identity").arg(&server.identity),
            "ftp" => command.args(["--tls", "off"]),
            _ => command.arg("--tls-ca").arg(&server.ca),
        };
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("XDG_STATE_HOME", self.home.path().join("state"))
            .env("HAUL_PASSWORD", server.password.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Bytes of the part file, while there is one.
    fn part_size(&self) -> u64 {
        let dir = self.destination();
        let entries = std::fs::read_dir(dir.parent().unwrap()).unwrap();
        let parts = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            entry.path().extension().is_some_and(|e| e == "part").then(|| entry.metadata().ok())?
        });
        parts.map(|part| part.len()).sum()
    }

    /// The file is there, whole, and nothing else.
    fn assert_arrived(&self) {
        assert_same(&std::fs::read(self.destination()).unwrap(), &self.contents, "what arrived");
        let left: Vec<_> = std::fs::read_dir(self.destination().parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "file")
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.far());
    }
}

/// Stops haul in the middle, and runs the same command again: it goes on, and the result is right.
fn stopped_and_again(server: &str, way: Way, signal: &str) {
    let Some(scene) = Scene::new(server, way) else { return };
    let third = scene.contents.len() as u64 / 3;
    // So slow that there is a middle to be stopped in.
    let rate = scene.contents.len() / 2;
    let mut child = scene.command(&scene.server).args(["--limit-rate", &rate.to_string()]).spawn().unwrap();
    wait_until("a third is there", &mut child, || scene.part_size() > third);
    let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let stopped = child.wait_with_output().unwrap();
    if signal == "INT" {
        assert_eq!(stopped.status.code(), Some(130), "{}", told(&stopped));
    }
    assert!(!scene.destination().exists(), "a partial file under the final name");

    let again = scene.command(&scene.server).output().unwrap();
    assert!(again.status.success(), "{}", told(&again));
    scene.assert_arrived();
    let event = file_event(&again);
    let size = scene.contents.len() as u64;
    let resumed = event["resumed_from"].as_u64().unwrap_or_else(|| panic!("not resumed: {event}"));
    assert!(resumed + (4 << 20) >= third, "resumed at {resumed} though {third} were there");
    let transferred = event["transferred"].as_u64().unwrap();
    assert!(transferred <= size - resumed + (1 << 20), "moved {transferred} of {size} after {resumed}");
}

/// Cuts the line in the middle of one run, which goes on by itself.
fn cut_in_one_run(server: &str, way: Way) {
    let Some(scene) = Scene::new(server, way) else { return };
    let link = Link::to(&scene.server);
    let size = scene.contents.len() as u64;
    let towards = if way == Way::Get { Towards::Client } else { Towards::Server };
    link.set(Fault::Cut { after: size / 2, towards, on: On::Any });
    let run = scene.command(&link.far_end(&scene.server)).output().unwrap();
    assert!(run.status.success(), "{}", told(&run));
    assert_eq!(link.cuts(), 1);
    scene.assert_arrived();
    let transferred = file_event(&run)["transferred"].as_u64().unwrap();
    // One block, the overlap that proves the part, and what lay in the sender's socket.
    assert!(transferred <= size + (6 << 20), "moved {transferred} bytes for a file of {size}");
}

/// A line that goes silent ends in the timeout, with a word about it, and the part is kept.
fn stalled(server: &str) {
    let Some(scene) = Scene::new(server, Way::Get) else { return };
    let link = Link::to(&scene.server);
    let mut command = scene.command(&link.far_end(&scene.server));
    let rate = (scene.contents.len() / 2).to_string();
    let mut child = command.args(["--timeout", "1s", "--retries", "0", "--limit-rate", &rate]).spawn().unwrap();
    wait_until("a third is there", &mut child, || scene.part_size() > scene.contents.len() as u64 / 3);
    link.set(Fault::Stall { after: 0, towards: Towards::Client, on: On::Any });
    let stalled_at = Instant::now();
    let run = child.wait_with_output().unwrap();
    assert!(stalled_at.elapsed() < Duration::from_secs(15), "took {:?}", stalled_at.elapsed());
    assert_eq!(run.status.code(), Some(1), "{}", told(&run));
    let event = file_event(&run);
    assert_eq!(event["error"]["kind"], "timeout", "{event}");
    assert!(!scene.destination().exists(), "a partial file under the final name");
    assert!(scene.part_size() > 0, "the part is gone");
}

/// A line that stays silent costs one timeout each time it is tried, however many files wait for it.
#[test]
fn many_files_wait_for_a_silent_line_together() {
    for protocol in [Protocol::Sftp, Protocol::Ftp(FtpTls::Off)] {
        let served = Served::start(protocol);
        let tree = served.server.root.join("tree");
        std::fs::create_dir(&tree).unwrap();
        for number in 0..40 {
            std::fs::write(tree.join(number.to_string()), bytes(number, 60_000)).unwrap();
        }
        let home = TempDir::new().unwrap();
        let link = Link::to(&served.server);
        link.set(Fault::Stall { after: 500_000, towards: Towards::Client, on: On::Any });
        let far = link.far_end(&served.server);
        let (url, near) = (format!("{}tree", far.url()), home.path().join("near"));
        let arguments = ["get", "-r", &url, near.to_str().unwrap(), "--timeout", "1s", "--retries", "2"];
        let mut command =
            Client::new(env!("CARGO_BIN_EXE_haul"), home.path()).command(&far, &arguments.map(std::ffi::OsStr::new));
        let run = command.output().unwrap();
        assert!(matches!(run.status.code(), Some(1 | 3)), "{}", told(&run));
        let tried = link.connections(On::Control);
        assert!(tried <= 20, "{protocol:?}: {tried} connections for three attempts\n{}", told(&run));
    }
}

fn wait_until(what: &str, child: &mut Child, mut reached: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !reached() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "ended before {what}: {ended:?}");
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn file_event(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|value| value["event"] == "file")
        .unwrap_or_else(|| panic!("no file event: {}", told(output)))
}

fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

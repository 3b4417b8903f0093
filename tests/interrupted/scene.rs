//! A transfer between a folder and a server of its own, slow enough to be stopped in the middle.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use bytes::Bytes;
use haul::serve::{FtpTls, Protocol};
use haul::transfer::{About, Interrupted, interrupted};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stage::{Ran, Server, Stage};
use crate::support::{MIB, assert_same, bytes};

/// Bytes of the file that is moved: a few blocks, and a bit.
pub(crate) const SIZE: usize = 10 * MIB + 12_345;
/// So much is there when a transfer is stopped.
pub(crate) const SOME: u64 = 3 * MIB as u64;
/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Get,
    Put,
}

pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) server: Option<Server>,
    pub(crate) way: Way,
    pub(crate) contents: Bytes,
    scheme: &'static str,
    port: u16,
}

pub(crate) const SFTP: Protocol = Protocol::Sftp;
pub(crate) const FTP: Protocol = Protocol::Ftp(FtpTls::Off);
pub(crate) const FTPES: Protocol = Protocol::Ftp(FtpTls::Require);

impl Scene {
    pub(crate) fn new(protocol: Protocol, way: Way) -> Self {
        let mut stage = Stage::new();
        stage.env.push(("HAUL_PASSWORD", "right".into()));
        let server = stage.serve(protocol, "me", "right");
        let scheme = match protocol {
            Protocol::Sftp => "sftp",
            Protocol::Ftp(FtpTls::Off) => "ftp",
            Protocol::Ftp(_) => "ftpes",
        };
        let port = server.port;
        let scene = Self { stage, server: Some(server), way, contents: bytes(7, SIZE), scheme, port };
        std::fs::write(scene.source(), &scene.contents).unwrap();
        scene
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.stage.at(if self.way == Way::Get { "served/big" } else { "work/big" })
    }

    pub(crate) fn destination(&self) -> PathBuf {
        self.stage.at(if self.way == Way::Get { "work/big" } else { "served/big" })
    }

    /// Returns the URL of a file on the server.
    pub(crate) fn url(&self, name: &str) -> String {
        let slash = if self.scheme == "sftp" { "/" } else { "//" };
        format!("{}://me@127.0.0.1:{}{slash}{name}", self.scheme, self.port)
    }

    /// Returns the options by which the server is trusted.
    pub(crate) fn trust(&self) -> Vec<String> {
        match self.scheme {
            "sftp" => self.stage.trust(),
            "ftp" => vec!["--tls".into(), "off".into()],
            _ => vec!["--tls-ca".into(), self.stage.certificate()],
        }
    }

    /// The command that moves the file, with these options more.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let mut command = match self.way {
            Way::Get => self.stage.command(&["get", &self.url("big"), "big"]),
            Way::Put => self.stage.command(&["put", "big", &self.url("big")]),
        };
        command.args(self.trust()).args(more);
        command
    }

    /// Begins to move the file, slowly, and returns once a part of it is there.
    pub(crate) fn begin(&self, more: &[&str]) -> Child {
        let mut child = self.command(&["--limit-rate", "4M"]).args(more).spawn().unwrap();
        self.wait_for(&mut child, SOME);
        child
    }

    /// Waits until the journal has so many bytes.
    pub(crate) fn wait_for(&self, child: &mut Child, bytes: u64) {
        until("enough is there", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "ended too early: {ended:?}");
            self.left().iter().any(|transfer| transfer.about.as_ref().is_ok_and(|about| about.kept >= bytes))
        });
    }

    /// Stops the transfer in the middle by a signal, and returns what it said.
    pub(crate) fn stopped_by(&self, signal: Signal, more: &[&str]) -> Ran {
        let child = self.begin(more);
        send(&child, signal);
        child.wait_with_output().unwrap().into()
    }

    /// Returns the transfers that have a journal.
    pub(crate) fn left(&self) -> Vec<Interrupted> {
        interrupted(&self.stage.at("state/haul")).unwrap()
    }

    /// Returns the only one, and what its journal says.
    pub(crate) fn only(&self) -> (String, About) {
        let left = self.left();
        assert_eq!(left.len(), 1, "{left:?}");
        (left[0].id.clone(), left[0].about.clone().unwrap())
    }

    /// Asserts that the file is there, whole, and nothing is left of the transfer.
    pub(crate) fn assert_arrived(&self) {
        assert_same(&std::fs::read(self.destination()).unwrap(), &self.contents, "what arrived");
        assert_eq!(self.parts(), [""; 0]);
        assert!(self.left().is_empty(), "{:?}", self.left());
    }

    /// Returns the names beside the destination that are not the file's.
    pub(crate) fn parts(&self) -> Vec<String> {
        let folder = self.destination();
        let entries = std::fs::read_dir(folder.parent().unwrap()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.strip_suffix(".part").is_some()).collect()
    }
}

pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[track_caller]
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !reached() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the first event about a file.
#[track_caller]
pub(crate) fn file_event(ran: &Ran) -> Value {
    let out = ran.out();
    let mut events = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.find(|value| value["event"] == "file").unwrap_or_else(|| panic!("no file event: {ran:?}"))
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

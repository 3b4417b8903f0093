//! The two namespaces of a link: making, entering and removing them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;

use rustix::fs::{FlockOperation, flock};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::about;

/// An end of the link: servers run on a, clients on b.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Side {
    /// The servers'
    A,
    /// The clients'
    B,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }

    /// Returns the last number of its address.
    pub(crate) fn host(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }
}

/// What belongs to a link of one name.
#[derive(Clone)]
pub(crate) struct Names(String);

impl FromStr for Names {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        // The kernel allows 15 bytes for a device's name, and a suffix follows.
        match (1..=9).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            true => Ok(Self(name.into())),
            false => Err("1 to 9 letters or digits".into()),
        }
    }
}

impl Names {
    pub(crate) fn namespace(&self, side: Side) -> String {
        format!("{}-{}", self.0, side.letter())
    }

    pub(crate) fn device(&self, side: Side) -> String {
        format!("{}-{}0", self.0, side.letter())
    }

    fn lock_file(&self) -> PathBuf {
        format!("/run/wanlink-{}.lock", self.0).into()
    }

    /// Takes the name for this process; the kernel gives it back even after SIGKILL.
    pub(crate) fn lock(&self) -> io::Result<File> {
        let path = self.lock_file();
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(about(path.display()))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::other(format!("a link named {} is up already: choose another --name and --net", self.0))
        })?;
        Ok(file)
    }

    /// Makes one namespace, its loopback device up.
    pub(crate) fn create(&self, side: Side) -> io::Result<()> {
        let name = self.namespace(side);
        ip(&["netns", "add", &name])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])
    }

    /// Removes namespaces and lock file; only for who holds the lock.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.remove_namespaces()?;
        fs::remove_file(self.lock_file())
    }

    /// Removes the namespaces; only for who holds the lock.
    pub(crate) fn remove_namespaces(&self) -> io::Result<()> {
        for side in Side::BOTH {
            let name = self.namespace(side);
            if fs::exists(path_of(&name))? {
                ip(&["netns", "del", &name])?;
            }
        }
        Ok(())
    }

    /// Moves the calling thread, and what it will start, into a namespace.
    pub(crate) fn enter(&self, side: Side) -> io::Result<()> {
        let name = self.namespace(side);
        let file = File::open(path_of(&name)).map_err(about(format_args!("the namespace {name}")))?;
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(file.as_fd(), kind).map_err(|e| about(format_args!("entering {name}"))(e.into()))
    }

    /// Becomes the command, on one side.
    pub(crate) fn exec(&self, side: Side, command: &[String]) -> io::Result<ExitCode> {
        self.enter(side)?;
        Err(about(&command[0])(Command::new(&command[0]).args(&command[1..]).exec()))
    }
}

fn path_of(namespace: &str) -> String {
    format!("/run/netns/{namespace}")
}

/// Runs `ip` of iproute2.
pub(crate) fn ip(args: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output();
    let output = output.map_err(about("ip (package iproute2)"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("ip {}: {}", args.join(" "), why.trim())))
        }
    }
}

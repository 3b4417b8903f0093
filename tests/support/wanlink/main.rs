//! A slow link on this machine, for tests and measurements: two network namespaces, joined by a pair of TUN devices
//! with a delay, a rate, a queue and losses between them. For kernels without netem; needs root and `ip`.
//!
//! ```text
//! wanlink run --delay-ms 25 --rate-mbit 1000 &       # a round trip of 50 ms; a is 10.77.0.1, b is 10.77.0.2
//! wanlink exec --side a -- vsftpd /etc/vsftpd.conf   # the server, on 10.77.0.1
//! wanlink exec --side b -- curl ftp://10.77.0.1/f    # the client
//! wanlink cap --listen 127.0.0.2:22 --to 127.0.0.1:22 --mbyte-per-s 10 --max-connections 8
//! ```
//!
//! `cap` is for servers that can't limit the rate of a connection themselves; it needs no rights.
//!
//! What one TCP connection carries over a delay is limited by the buffers of both ends, too: the namespaces start with
//! Linux's own `tcp_rmem` and `tcp_wmem`.

// No delay, rate or number of bytes is negative here.
#![allow(clippy::print_stderr, clippy::cast_sign_loss)]

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod cap;
mod device;
mod link;
mod namespace;
mod pump;
mod signals;

use namespace::{Names, Side};

/// Makes slow links between two network namespaces, and slow connections to a server.
#[derive(Parser)]
#[command(name = "wanlink")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a link; run COMMAND on side b, or stay until SIGINT or SIGTERM
    Run(link::Options),
    /// Run COMMAND on one side of a running link
    Exec {
        #[command(flatten)]
        name: Name,
        #[arg(long)]
        side: Side,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Remove what a link left behind that was killed (the next run of its name does so, too)
    Clean(Name),
    /// Pass TCP connections on, each with a limited rate
    Cap(cap::Options),
}

#[derive(Args)]
struct Name {
    /// Which link: its namespaces are NAME-a and NAME-b
    #[arg(long, default_value = "wan")]
    name: Names,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => link::run(&options),
        Command::Exec { name, side, command } => name.name.exec(side, &command),
        Command::Clean(name) => name.name.lock().and_then(|_lock| name.name.remove()).map(|()| ExitCode::SUCCESS),
        Command::Cap(options) => cap::run(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("wanlink: {error}");
        ExitCode::from(2)
    })
}

/// Puts what was tried in front of an error.
fn about(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// A file that says "ready" to who waits for it, for as long as this value lives.
struct ReadyFile(PathBuf);

impl ReadyFile {
    /// Makes the file, complete from its first moment on.
    fn create(path: &std::path::Path, text: &str) -> io::Result<Self> {
        let new = path.with_extension("new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)).map_err(about(path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

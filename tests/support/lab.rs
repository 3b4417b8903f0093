//! The real servers: started by `tests/support/lab/start` when the first test asks, shared by the whole run.

use std::collections::HashMap;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::Command;

use haul::endpoint::Endpoint;
use haul::transport::{ConnectOptions, HostKeyPolicy, Secret, SshConfig, TlsMode};

/// A running server and what a client needs to use it.
#[derive(Debug, Clone)]
pub struct Server {
    pub name: String,
    pub scheme: String,
    pub host: String,
    pub port: u16,
    /// First and last passive port of an FTP server; 0 to 0: it takes any.
    pub data_ports: (u16, u16),
    pub login: String,
    /// `None`: only the key opens it.
    pub password: Option<String>,
    /// The served folder on this machine's disk.
    pub root: PathBuf,
    /// The same folder as the server calls it; also where a login starts.
    pub start: String,
    pub ca: PathBuf,
    pub known_hosts: PathBuf,
    /// Empty: only the password opens it.
    pub identity: PathBuf,
    pub log: PathBuf,
}

impl Server {
    /// Returns the server, started if need be; `None` with a line on stderr when this machine can't run it.
    ///
    /// # Panics
    /// When it can't be had and `CI=true`: what isn't tested there must not look tested.
    pub fn get(name: &str) -> Option<Self> {
        Self::start(name, Command::new(script("start")).env("HAUL_LAB", directory()))
    }

    /// Runs the command, which is or wraps `tests/support/lab/start` without arguments, and reads what it says.
    fn start(name: &str, command: &mut Command) -> Option<Self> {
        let output = command.args([name, &owner()]).output().expect("bash runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let values: HashMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).collect();
        if let Some(why) = values.get("MISSING") {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{name} is missing in CI: {why}");
            eprintln!("SKIPPED: no {name}: {why}");
            return None;
        }
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let number = |text: &str| text.parse().expect("a port");
        let (first, last) = values["DATA_PORTS"].split_once('-').expect("a range");
        Some(Self {
            name: name.into(),
            scheme: values["SCHEME"].into(),
            host: values["HOST"].into(),
            port: number(values["PORT"]),
            data_ports: (number(first), number(last)),
            login: values["LOGIN"].into(),
            password: Some(values["PASSWORD"].to_owned()).filter(|p| !p.is_empty()),
            root: values["ROOT"].into(),
            start: values["START"].into(),
            ca: values["CA"].into(),
            known_hosts: values["KNOWN_HOSTS"].into(),
            identity: values["IDENTITY"].into(),
            log: values["LOG"].into(),
        })
    }

    /// Returns the URL of the login directory, without the password.
    pub fn url(&self) -> String {
        let home = if self.scheme == "sftp" { "~/" } else { "" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{}://{}@{host}:{}/{home}", self.scheme, self.login, self.port)
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::parse(self.url()).expect("a URL")
    }

    /// Returns options with which a connection succeeds.
    pub fn options(&self) -> ConnectOptions {
        let sftp = self.scheme == "sftp";
        ConnectOptions {
            password: self.password.clone().map(Secret::new),
            identities: Some(self.identity.clone()).filter(|i| sftp && !i.as_os_str().is_empty()).into_iter().collect(),
            known_hosts: sftp.then(|| self.known_hosts.clone()),
            ssh_config: SshConfig::None,
            host_key: Some(HostKeyPolicy::Strict),
            tls: if self.scheme == "ftp" { TlsMode::Off } else { TlsMode::Require },
            tls_ca: Some(self.ca.clone()),
            ..ConnectOptions::default()
        }
    }
}

/// Servers of one test's own, stopped at its end.
#[derive(Debug)]
pub struct Apart(tempfile::TempDir);

impl Apart {
    /// Makes a folder for them that their user can reach.
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
        Self(dir)
    }

    /// Starts a server with settings of the lab's, by a command in front of the script if there is one.
    pub fn server(&self, name: &str, settings: &[(&str, &str)], within: &[&str]) -> Option<Server> {
        let mut command = match within {
            [] => Command::new(script("start")),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(script("start"));
                command
            }
        };
        // Servers are unpacked once for all.
        command.envs(settings.iter().copied()).env("HAUL_LAB", self.0.path().join("lab"));
        Server::start(name, &mut command)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = Command::new(script("stop")).env("HAUL_LAB", self.0.path().join("lab")).output();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/lab").join(name)
}

/// The process whose end stops the servers: the runner of this run, or else this process.
fn owner() -> String {
    match std::env::var_os("NEXTEST_RUN_ID") {
        Some(_) => parent_id().to_string(),
        None => std::process::id().to_string(),
    }
}

/// One folder a run; `scripts/test` and people with `scripts/lab up` name it themselves.
fn directory() -> PathBuf {
    match std::env::var_os("HAUL_LAB") {
        Some(given) => given.into(),
        None => std::env::temp_dir().join(format!("haul-lab-of-{}", owner())),
    }
}

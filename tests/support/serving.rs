//! `haul serve` as a process of its own, which can be killed and started again at the same port; a link reaches it, too.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::lab::Server;
use super::served::{ADDRESSES, address, any_network, write_certificate};

/// A served folder, and the process that serves it, if that runs.
pub struct Serving {
    program: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
    folder: TempDir,
    pub server: Server,
}

impl Serving {
    /// Serves a new folder: `sftp`, `ftp`, `ftpes` or `ftps`.
    pub fn start(program: &Path, scheme: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
        let password = "open sesame";
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, password).expect("a file");
        std::fs::set_permissions(&password_file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        let protocol = match scheme {
            "sftp" => &["serve", "sftp"][..],
            "ftp" => &["serve", "ftp", "--tls", "off"],
            "ftpes" => &["serve", "ftp", "--tls", "require"],
            _ => &["serve", "ftp", "--tls", "implicit"],
        };
        let mut arguments: Vec<String> = protocol.iter().map(ToString::to_string).collect();
        arguments.extend(["--password-file".into(), password_file.display().to_string(), root.display().to_string()]);
        let network = any_network();
        let here = address(network, *ADDRESSES.start());
        if scheme != "sftp" {
            write_certificate(&folder.path().join("state/haul/serve"), network);
        }
        let server = Server {
            name: format!("haul serve {scheme}"),
            scheme: scheme.into(),
            host: here.to_string(),
            port: 0,
            data_ports: (0, 0),
            login: "haul".into(),
            password: Some(password.into()),
            root,
            start: "/".into(),
            ca: folder.path().join("state/haul/serve").join(format!("tls-{here}-certificate.pem")),
            known_hosts: folder.path().join("known_hosts"),
            identity: PathBuf::new(),
            log: folder.path().join("log"),
        };
        let mut serving = Self { program: program.to_owned(), arguments, process: None, folder, server };
        serving.up();
        if scheme == "sftp" {
            serving.learn_host_key();
        }
        serving
    }

    /// Starts the process again, at the port that it had.
    pub fn up(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("--listen").arg(format!("{}:{}", self.server.host, self.server.port));
        command.env_clear().env("XDG_STATE_HOME", self.folder.path().join("state")).env("HOME", self.folder.path());
        let log = std::fs::File::options().create(true).append(true).open(&self.server.log).expect("a log");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("haul serve");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("its output")).read_line(&mut line).expect("a line");
        let port = line.trim().trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        let log = || std::fs::read_to_string(&self.server.log).unwrap_or_default();
        self.server.port = port.unwrap_or_else(|| panic!("haul serve doesn't start: {line}{}", log()));
        self.process = Some(child);
    }

    /// Kills the process as `kill -9` does; what it had open is cut.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Makes clients know the host key, by whatever address they come.
    fn learn_host_key(&self) {
        let known_hosts = &self.server.known_hosts;
        let output = Command::new(&self.program)
            .args(["ls", "--ssh-config", "none", "--host-key", "accept-new", "--known-hosts"])
            .arg(known_hosts)
            .arg(self.server.url())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("HAUL_PASSWORD", self.server.password.as_deref().unwrap_or_default())
            .output()
            .expect("haul ls");
        let text = std::fs::read_to_string(known_hosts).unwrap_or_default();
        let key = text.trim().split_once(' ').map(|(_, key)| key);
        let key = key.unwrap_or_else(|| panic!("no host key: {}", String::from_utf8_lossy(&output.stderr)));
        std::fs::write(known_hosts, format!("* {key}\n")).expect("known_hosts");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.kill();
    }
}

//! An OpenSSH server for one test, with keys of its own, and a person who answers.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use haul::endpoint::Endpoint;
use haul::transport::{Prompt, Secret};
use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Sshd {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Sshd {
    /// Starts a server; `extra` is put in front of its configuration.
    pub(crate) fn start(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for kind in ["ed25519", "ecdsa", "rsa"] {
            new_key(&path(&format!("host_{kind}")), kind, "");
            new_key(&path(&format!("login_{kind}")), kind, "");
        }
        new_key(&path("login_locked"), "ed25519", "open sesame");
        new_key(&path("login_rsa_pem"), "pem", "");
        let public = ["login_ed25519", "login_ecdsa", "login_rsa", "login_locked", "login_rsa_pem"]
            .map(|name| std::fs::read_to_string(path(&format!("{name}.pub"))).unwrap());
        std::fs::write(path("authorized_keys"), public.concat()).unwrap();
        std::fs::write(path("banner"), "").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let home = folder.path().display();
        // bash takes the user's own start-up file for a shell of the first level that sshd started: not in tests.
        let config = format!(
            "{extra}ListenAddress 127.0.0.1\nPort {port}\nPidFile none\nUsePAM no\nStrictModes no\n\
             HostKey {home}/host_rsa\nHostKey {home}/host_ecdsa\nHostKey {home}/host_ed25519\n\
             AuthorizedKeysFile {home}/authorized_keys\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nBanner {home}/banner\nMaxStartups 100\nSubsystem sftp internal-sftp\n\
             SetEnv SHLVL=1\nSubsystem echo /bin/cat\n"
        );
        std::fs::write(path("sshd_config"), config).unwrap();
        // Where the system's own server never ran, the folder it insists on is missing.
        let _ = std::fs::create_dir_all("/run/sshd");
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let sshd = Self { folder, port, child };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "sshd does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        sshd
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        Endpoint::parse(format!("sftp://{user}@127.0.0.1:{}/", self.port)).unwrap()
    }

    /// Returns type and key of a host key, as known_hosts has them.
    pub(crate) fn host_key(&self, kind: &str) -> String {
        std::fs::read_to_string(self.path(&format!("host_{kind}.pub"))).unwrap()
    }

    /// Writes a known_hosts file with these keys for this server.
    pub(crate) fn known_hosts(&self, keys: &[&str]) -> PathBuf {
        let lines: Vec<_> = keys.iter().map(|key| format!("[127.0.0.1]:{} {}\n", self.port, key.trim())).collect();
        let (mut file, path) = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap().keep().unwrap();
        file.write_all(lines.concat().as_bytes()).unwrap();
        path
    }

    /// Kills the server and the processes of its sessions.
    pub(crate) fn kill(&mut self) {
        self.signal_all("-KILL");
    }

    /// Stops all of them: connections stay, nobody answers.
    pub(crate) fn freeze(&mut self) {
        self.signal_all("-STOP");
    }

    fn signal_all(&self, signal: &str) {
        // The parents first: else a session would still tell its client that the child is gone.
        for pid in descendants(self.child.id()).into_iter().rev() {
            let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.signal_all("-KILL");
        let _ = self.child.wait();
    }
}

/// Returns a process and everything below it, children first.
fn descendants(pid: u32) -> Vec<u32> {
    let children = Command::new("ps").args(["--ppid", &pid.to_string(), "-o", "pid="]).output().unwrap().stdout;
    let children = String::from_utf8(children).unwrap();
    let mut all: Vec<u32> = children.split_whitespace().flat_map(|child| descendants(child.parse().unwrap())).collect();
    all.push(pid);
    all
}

/// Makes a key pair and returns the private key's path.
pub(crate) fn new_key(path: &Path, kind: &str, passphrase: &str) -> PathBuf {
    let mut command = Command::new("ssh-keygen");
    match kind {
        "pem" => command.args(["-t", "rsa", "-b", "2048", "-m", "PEM"]),
        "rsa" => command.args(["-t", "rsa", "-b", "2048"]),
        other => command.args(["-t", other]),
    };
    let made = command.args(["-q", "-N", passphrase, "-f"]).arg(path).stdin(Stdio::null()).status().unwrap();
    assert!(made.success());
    path.to_path_buf()
}

/// A running ssh-agent.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    _folder: TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts an agent that holds these keys.
pub(crate) fn agent_with(keys: &[&Path]) -> (Agent, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent");
    let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let agent = Agent { child, _folder: folder };
    let start = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "ssh-agent does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    for key in keys {
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).status().unwrap();
        assert!(added.success());
    }
    (agent, socket)
}

/// A person who always answers the same and remembers what was asked.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    secret: Option<String>,
    confirm: Option<bool>,
    questions: Mutex<Vec<String>>,
    notices: Mutex<Vec<String>>,
}

impl Answers {
    pub(crate) fn secret(text: &str) -> Arc<Self> {
        Arc::new(Self { secret: Some(text.into()), ..Self::default() })
    }

    pub(crate) fn confirm(answer: bool) -> Arc<Self> {
        Arc::new(Self { confirm: Some(answer), ..Self::default() })
    }

    pub(crate) fn secret_and_confirm(text: &str, answer: bool) -> Arc<Self> {
        Arc::new(Self { secret: Some(text.into()), confirm: Some(answer), ..Self::default() })
    }

    pub(crate) fn questions(&self) -> Vec<String> {
        self.questions.lock().unwrap().clone()
    }

    pub(crate) fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap().clone()
    }
}

impl Prompt for Answers {
    fn secret(&self, question: &str) -> Option<Secret> {
        self.questions.lock().unwrap().push(question.into());
        self.secret.clone().map(Secret::new)
    }

    fn line(&self, question: &str) -> Option<String> {
        self.questions.lock().unwrap().push(question.into());
        self.secret.clone()
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        self.questions.lock().unwrap().push(question.into());
        self.confirm
    }

    fn notice(&self, text: &str) {
        self.notices.lock().unwrap().push(text.into());
    }
}

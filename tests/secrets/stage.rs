//! A home, a working directory and a server of one test, and the program run there.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use haul::serve::{self, Protocol};
use haul::transport::Secret;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A folder of one test.
pub(crate) struct Stage {
    _dir: TempDir,
    base: PathBuf,
    pub(crate) env: Vec<(&'static str, OsString)>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Ran {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Asserts the exit status.
    #[track_caller]
    pub(crate) fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}{}", self.out(), self.err());
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self { status: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr: output.stderr }
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for folder in ["home", "work", "state", "served", "bin"] {
            std::fs::create_dir(base.join(folder)).unwrap();
        }
        Self { _dir: dir, base, env: Vec::new() }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    /// Writes a file of this mode.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>, mode: u32) -> String {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        self.path(name)
    }

    /// Writes the file of settings.
    pub(crate) fn config(&self, text: &str) -> String {
        self.file("home/.config/haul/config.toml", text, 0o600)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
        self.set_up(&mut command);
        command.args(args);
        command
    }

    /// Gives a program the surroundings of this test.
    pub(crate) fn set_up(&self, command: &mut Command) {
        let path = format!("{}:/usr/bin:/bin", self.path("bin"));
        command
            .current_dir(self.at("work"))
            .env_clear()
            .env("HOME", self.at("home"))
            .env("XDG_STATE_HOME", self.at("state"))
            .envs([("PATH", path.as_str()), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC"), ("COLUMNS", "200")])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    pub(crate) fn haul(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    pub(crate) fn haul_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child: Child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // It may end without reading all of it.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap().into()
    }

    /// Runs haul on a terminal and returns all that it wrote there.
    pub(crate) fn haul_at_terminal(&self, args: &[&str]) -> Ran {
        self.terminal(args).output().unwrap().into()
    }

    /// The same, with an answer typed as soon as the question is there.
    pub(crate) fn haul_asked(&self, args: &[&str], question: &str, answer: &str) -> Ran {
        let mut child = self.terminal(args).stdin(Stdio::piped()).spawn().unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (mut said, mut answered) = (Vec::new(), false);
        let mut buffer = [0; 4096];
        loop {
            let length = stdout.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            said.extend_from_slice(&buffer[..length]);
            if !answered && holds(&said, question.as_bytes()) {
                stdin.write_all(answer.as_bytes()).unwrap();
                answered = true;
            }
        }
        let ran = Ran { stdout: said, ..child.wait_with_output().unwrap().into() };
        assert!(answered, "nobody was asked: {}", ran.out());
        ran
    }

    fn terminal(&self, args: &[&str]) -> Command {
        let quote = |arg: &&str| format!("'{}'", arg.replace('\'', r"'\''"));
        let words = args.iter().map(quote).collect::<Vec<_>>().join(" ");
        let mut command = Command::new("script");
        self.set_up(&mut command);
        command.env("TERM", "xterm").env("SHELL", "/bin/sh");
        command.args(["-qec", &format!("{} {words}", env!("CARGO_BIN_EXE_haul")), "/dev/null"]);
        command
    }

    /// Serves the folder `served`.
    pub(crate) fn serve(&self, protocol: Protocol, user: &str, password: &str) -> Server {
        let mut options = serve::Options::new(protocol, self.at("served"), self.at("server"));
        options.user = user.into();
        options.password = Some(Secret::new(password));
        Server::start(options)
    }

    /// Returns the options by which SFTP trusts a server of this test.
    pub(crate) fn trust(&self) -> Vec<String> {
        let known_hosts = self.path("known_hosts");
        ["--host-key", "accept-new", "--known-hosts", &known_hosts, "--ssh-config", "none"].map(str::to_owned).into()
    }

    /// Returns the certificate of the embedded servers.
    pub(crate) fn certificate(&self) -> String {
        let mut files = std::fs::read_dir(self.at("server/serve")).unwrap().map(|entry| entry.unwrap().path());
        files.find(|path| path.extension().is_some_and(|e| e == "pem")).unwrap().to_str().unwrap().to_owned()
    }
}

/// An embedded server on a thread of its own, until it is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(options: serve::Options) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let server = serve::start(options).await.unwrap();
                tell.send(server.address().port()).unwrap();
                let _ = stopped.await;
                server.stop().await;
            });
        });
        Self { port: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

/// Returns every file below a folder: its path, and what is in it.
pub(crate) fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let contents = std::fs::read(&path).unwrap_or_default();
                    found.push((path, contents));
                }
            }
        }
    }
    found
}

/// Returns whether some bytes hold others.
pub(crate) fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

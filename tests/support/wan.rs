//! The slow link, and the cap per connection, as tests start them.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

pub const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running `wanlink`.
pub struct Link {
    pub name: String,
    process: Child,
    folder: TempDir,
}

impl Link {
    /// Returns a link that is up; `None` with a line on stderr where there can be none.
    pub fn up(options: &[&str]) -> Option<Self> {
        (!cannot()).then(|| Self::up_as(&unused_name(), options))
    }

    pub fn up_as(name: &str, options: &[&str]) -> Self {
        Self::start(name.into(), &[&["run", "--name", name], options].concat())
    }

    pub fn start(name: String, arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(wanlink());
        command.args(arguments).arg("--ready-file").arg(folder.path().join("ready"));
        let process = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let mut link = Self { name, process, folder };
        wait_until(|| {
            let ended = link.process.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", link.log());
            link.ready().exists()
        });
        link
    }

    pub fn ready(&self) -> PathBuf {
        self.folder.path().join("ready")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Sends a signal, waits for the end, and returns what was said.
    pub fn end(&mut self, signal: Signal) -> String {
        if self.process.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&self.process), signal).unwrap();
        }
        self.process.wait().unwrap();
        self.log()
    }

    /// Runs something in one of the namespaces.
    pub fn on<T: Send + 'static>(&self, side: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}-{side}", self.name)).unwrap();
        thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    /// Returns a listener on side a, and what runs a client of it on side b.
    pub fn listener<T: Send + 'static, F>(&self) -> (TcpListener, impl FnOnce(F) -> T)
    where
        F: FnOnce(TcpStream) -> T + Send + 'static,
    {
        let listener = self.on("a", || TcpListener::bind((A, 0)).unwrap()).join().unwrap();
        let address = listener.local_addr().unwrap();
        let client = move |work: F| self.on("b", move || work(TcpStream::connect(address).unwrap())).join().unwrap();
        (listener, client)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

/// Whether this machine can't make links; then it's said.
///
/// # Panics
/// In CI, where nothing may be skipped.
pub fn cannot() -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !Path::new("/dev/net/tun").exists() {
        "no /dev/net/tun"
    } else if Command::new("ip").arg("-V").output().is_err() {
        "no ip (package iproute2)"
    } else {
        return false;
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "no slow link in CI: {why}");
    eprintln!("SKIPPED: no slow link: {why}");
    true
}

/// Returns the program, built if need be: not every way to run tests builds examples.
pub fn wanlink() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push("examples/wanlink");
    if !path.exists() {
        let cargo = Command::new(env!("CARGO")).args(["build", "--quiet", "--example", "wanlink"]).status();
        assert!(cargo.unwrap().success() && path.exists(), "{} isn't there", path.display());
    }
    path
}

/// Returns a name that no other test takes, of this run or another.
pub fn unused_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("t{}x{}", std::process::id() % 100_000, NUMBER.fetch_add(1, Ordering::Relaxed) % 10)
}

/// Returns what there is of a link outside of its process.
pub fn left_of(name: &str) -> Vec<PathBuf> {
    let places = [format!("/run/netns/{name}-a"), format!("/run/netns/{name}-b"), format!("/run/wanlink-{name}.lock")];
    places.map(PathBuf::from).into_iter().filter(|path| path.exists()).collect()
}

pub fn wait_until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "it doesn't happen");
        thread::sleep(Duration::from_millis(5));
    }
}

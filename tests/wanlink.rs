//! The slow link that measurements stand on does what it says: delay, rate, loss, cap, and nothing left behind.
//!
//! A busy machine makes everything later, never earlier: so times have only a lower bound here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_round_trip_takes_twice_the_delay() {
    let Some(link) = Link::up(&["--delay-ms", "20"]) else { return };
    let (listener, client) = link.listener();
    let server = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        connection.write_all(&byte).unwrap();
    });
    let took = client(|mut connection| {
        let began = Instant::now();
        connection.write_all(b"x").unwrap();
        connection.read_exact(&mut [0]).unwrap();
        began.elapsed()
    });
    server.join().unwrap();
    assert!(took >= Duration::from_millis(40), "{took:?}");
}

#[test]
fn no_more_passes_than_the_rate() {
    let Some(link) = Link::up(&["--delay-ms", "0", "--rate-mbit", "16"]) else { return };
    let (listener, client) = link.listener();
    let sent = 500_000;
    let server = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        connection.read_to_end(&mut received).unwrap();
        connection.write_all(b"x").unwrap();
        received.len()
    });
    let took = client(move |mut connection| {
        let began = Instant::now();
        connection.write_all(&vec![7; sent]).unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        connection.read_exact(&mut [0]).unwrap();
        began.elapsed()
    });
    assert_eq!(server.join().unwrap(), sent);
    assert!(took >= Duration::from_millis(250), "{sent} bytes at 2 MB/s in {took:?}");
}

#[test]
fn the_same_seed_loses_the_same_packets() {
    let (Some(first), Some(second), Some(other)) = (arrived("5"), arrived("5"), arrived("6")) else { return };
    assert!((60..140).contains(&first.len()), "half of 200 packets: {}", first.len());
    assert_eq!(first, second);
    assert_ne!(first, other);
}

/// Returns which of 200 packets arrive over a link that loses half of them.
fn arrived(seed: &str) -> Option<Vec<u8>> {
    let link = Link::up(&["--delay-ms", "0", "--loss-percent", "50", "--seed", seed])?;
    let receiver = link.on("a", || UdpSocket::bind((A, 0)).unwrap()).join().unwrap();
    let (end, address) = (u8::MAX, receiver.local_addr().unwrap());
    let (done, is_done) = mpsc::channel();
    let sender = link.on("b", move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for number in 0..200 {
            socket.send_to(&[number], address).unwrap();
        }
        // Until one of them arrives.
        while is_done.recv_timeout(Duration::from_millis(5)).is_err() {
            socket.send_to(&[end], address).unwrap();
        }
    });
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut numbers = Vec::new();
    loop {
        let mut number = [0];
        receiver.recv(&mut number).unwrap();
        if number[0] == end {
            break;
        }
        numbers.push(number[0]);
    }
    done.send(()).unwrap();
    sender.join().unwrap();
    Some(numbers)
}

#[test]
fn a_command_runs_on_side_b_and_its_status_is_told() {
    if cannot() {
        return;
    }
    let name = unused_name();
    let script = "ip -o addr | grep -q 10.77.0.2 && exit 7";
    let status = Command::new(wanlink()).args(["run", "--quiet", "--name", &name, "--", "sh", "-c", script]).status();
    assert_eq!(status.unwrap().code(), Some(7));
    assert_eq!(left_of(&name), Vec::<PathBuf>::new());
}

#[test]
fn nothing_is_left_of_a_link() {
    let Some(mut link) = Link::up(&[]) else { return };
    let again = Command::new(wanlink()).args(["run", "--quiet", "--name", &link.name, "--", "true"]).output().unwrap();
    assert!(!again.status.success(), "two links of one name");
    link.end(Signal::KILL);
    assert_eq!(left_of(&link.name).len(), 3, "a killed link can't clean up: {:?}", left_of(&link.name));
    let mut next = Link::up_as(&link.name, &[]);
    let statistics = next.end(Signal::TERM);
    assert!(statistics.contains("a->b packets=") && statistics.contains("b->a packets="), "{statistics}");
    assert_eq!(left_of(&link.name), Vec::<PathBuf>::new());
    assert!(!next.ready().exists());
}

#[test]
fn a_cap_slows_each_connection_and_refuses_those_above_its_number() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().to_string();
    let sent = vec![7; 300_000];
    let echo = thread::spawn(move || {
        // Two get through, the one between them doesn't.
        for _ in 0..2 {
            let (mut connection, _) = server.accept().unwrap();
            let mut received = Vec::new();
            connection.read_to_end(&mut received).unwrap();
            connection.write_all(&received).unwrap();
        }
    });
    let options = ["cap", "--listen", "127.0.0.1:0", "--to", &to, "--mbyte-per-s", "1", "--max-connections", "1"];
    let mut cap = Link::start(String::new(), &options);
    let address = fs::read_to_string(cap.ready()).unwrap();
    let connect = || {
        let connection = TcpStream::connect(address.trim()).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection
    };
    let began = Instant::now();
    let mut first = connect();
    first.write_all(&sent).unwrap();
    assert_eq!(connect().read(&mut [0]).unwrap_or(0), 0, "a second connection");
    first.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    first.read_to_end(&mut back).unwrap();
    let took = began.elapsed();
    assert_eq!(back, sent);
    assert!(took >= Duration::from_millis(580), "300 kB there and back at 1 MB/s in {took:?}");
    drop(first);
    // The place is free again, as soon as the proxy has noticed.
    wait_until(|| {
        let mut next = connect();
        let _ = next.write_all(b"x").and_then(|()| next.shutdown(std::net::Shutdown::Write));
        next.read(&mut [0]).is_ok_and(|length| length == 1)
    });
    echo.join().unwrap();
    let statistics = cap.end(Signal::TERM);
    assert!(statistics.contains("most_at_once=1"), "{statistics}");
}

/// A running `wanlink`.
struct Link {
    name: String,
    process: Child,
    folder: TempDir,
}

impl Link {
    /// Returns a link that is up; `None` with a line on stderr where there can be none.
    fn up(options: &[&str]) -> Option<Self> {
        (!cannot()).then(|| Self::up_as(&unused_name(), options))
    }

    fn up_as(name: &str, options: &[&str]) -> Self {
        Self::start(name.into(), &[&["run", "--name", name], options].concat())
    }

    fn start(name: String, arguments: &[&str]) -> Self {
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

    fn ready(&self) -> PathBuf {
        self.folder.path().join("ready")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Sends a signal, waits for the end, and returns what was said.
    fn end(&mut self, signal: Signal) -> String {
        if self.process.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&self.process), signal).unwrap();
        }
        self.process.wait().unwrap();
        self.log()
    }

    /// Runs something in one of the namespaces.
    fn on<T: Send + 'static>(&self, side: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}-{side}", self.name)).unwrap();
        thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    /// Returns a listener on side a, and what runs a client of it on side b.
    fn listener<T: Send + 'static, F>(&self) -> (TcpListener, impl FnOnce(F) -> T)
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
fn cannot() -> bool {
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
fn wanlink() -> PathBuf {
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
fn unused_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("t{}x{}", std::process::id() % 100_000, NUMBER.fetch_add(1, Ordering::Relaxed) % 10)
}

/// Returns what there is of a link outside of its process.
fn left_of(name: &str) -> Vec<PathBuf> {
    let places = [format!("/run/netns/{name}-a"), format!("/run/netns/{name}-b"), format!("/run/wanlink-{name}.lock")];
    places.map(PathBuf::from).into_iter().filter(|path| path.exists()).collect()
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "it doesn't happen");
        thread::sleep(Duration::from_millis(5));
    }
}

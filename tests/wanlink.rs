//! The slow link that measurements stand on does what it says: delay, rate, loss, cap, and nothing left behind.
//!
//! A busy machine makes everything later, never earlier: so times have only a lower bound here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::wan::{A, Link, PATIENCE, cannot, left_of, unused_name, wait_until, wanlink};

mod support;

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

//! The link that breaks does what it says: what the tests of faults stand on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::data::{Dice, bytes};
use support::fault::{Fault, Link, On, Towards};
use support::lab::Server;

mod support;

/// A server that sends back what it gets, and ends a connection when its client does.
fn echo(address: &str) -> Server {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut out = connection.try_clone().unwrap();
                let _ = std::io::copy(&mut connection, &mut out);
                let _ = out.shutdown(Shutdown::Write);
            });
        }
    });
    Server {
        name: "echo".into(),
        scheme: "ftp".into(),
        host: address.into(),
        port,
        data_ports: (0, 0),
        login: String::new(),
        password: None,
        root: PathBuf::new(),
        start: String::new(),
        ca: PathBuf::new(),
        known_hosts: PathBuf::new(),
        identity: PathBuf::new(),
        log: PathBuf::new(),
    }
}

struct Case {
    server: Server,
    link: Link,
    /// What keeps a network of this test's own.
    far: Server,
}

impl Case {
    fn new(network: &str) -> Self {
        let server = echo(&format!("127.0.{network}.1"));
        let link = Link::to(&server);
        let far = link.far_end(&server);
        Self { server, link, far }
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect((self.far.host.as_str(), self.far.port)).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        connection
    }
}

/// Sends all of it from a thread of its own, and then the end.
fn send(connection: &TcpStream, contents: &[u8]) -> JoinHandle<()> {
    let (mut connection, contents) = (connection.try_clone().unwrap(), contents.to_vec());
    std::thread::spawn(move || {
        let _ = connection.write_all(&contents);
        let _ = connection.shutdown(Shutdown::Write);
    })
}

/// Reads to the end; also says how it ended.
fn receive(mut connection: TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let (mut found, mut buffer) = (Vec::new(), vec![0; 65536]);
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return (found, None),
            Ok(count) => found.extend_from_slice(&buffer[..count]),
            Err(e) => return (found, Some(e.kind())),
        }
    }
}

#[test]
fn without_a_fault_everything_passes() {
    let case = Case::new("101");
    let contents = bytes(1, 1_000_003);
    let connection = case.connect();
    let sending = send(&connection, &contents);
    assert!(receive(connection) == (contents.to_vec(), None));
    sending.join().unwrap();
    assert_eq!(case.link.passed(Towards::Client, On::Control), 1_000_003);
    assert_eq!(case.link.passed(Towards::Server, On::Any), 1_000_003);
    assert_eq!((case.link.cuts(), case.link.connections(On::Any)), (0, 1));
    case.link.wait_until_idle();
}

#[test]
fn a_cut_lets_so_much_pass_and_resets_all() {
    let case = Case::new("102");
    for after in [0, 1, 5000, 99_999] {
        let (other, connection) = (case.connect(), case.connect());
        case.link.set(Fault::Cut { after, towards: Towards::Client, on: On::Control });
        let sending = send(&connection, &bytes(2, 100_000));
        let (found, end) = receive(connection);
        assert_eq!((found.len() as u64, end), (after, Some(ErrorKind::ConnectionReset)));
        assert_eq!(receive(other).1, Some(ErrorKind::ConnectionReset));
        sending.join().unwrap();
    }
    assert_eq!(case.link.cuts(), 4);
    // It came once: the line is whole again.
    let connection = case.connect();
    send(&connection, b"again").join().unwrap();
    assert_eq!(receive(connection), (b"again".to_vec(), None));
}

#[test]
fn a_fault_after_the_last_byte_takes_the_end() {
    let case = Case::new("103");
    case.link.set(Fault::Cut { after: 5, towards: Towards::Client, on: On::Any });
    let connection = case.connect();
    send(&connection, b"12345").join().unwrap();
    assert_eq!(receive(connection), (b"12345".to_vec(), Some(ErrorKind::ConnectionReset)));
}

#[test]
fn a_reset_spares_other_connections() {
    let case = Case::new("104");
    let (other, connection) = (case.connect(), case.connect());
    case.link.set(Fault::Reset { after: 10, towards: Towards::Server, on: On::Any });
    send(&connection, &bytes(3, 100)).join().unwrap();
    assert_eq!(receive(connection).1, Some(ErrorKind::ConnectionReset));
    send(&other, b"whole").join().unwrap();
    assert_eq!(receive(other), (b"whole".to_vec(), None));
}

#[test]
fn a_half_close_looks_like_a_good_end() {
    let case = Case::new("105");
    case.link.set(Fault::HalfClose { after: 77, towards: Towards::Client, on: On::Any });
    let connection = case.connect();
    let sending = send(&connection, &bytes(4, 100_000));
    let (found, end) = receive(connection);
    assert_eq!((found.len(), end), (77, None));
    sending.join().unwrap();
    case.link.wait_until_idle();
    assert_eq!(case.link.passed(Towards::Server, On::Any), 100_000);
}

#[test]
fn a_close_ends_all_without_a_reset() {
    let case = Case::new("106");
    let (other, mut connection) = (case.connect(), case.connect());
    connection.write_all(b"x").unwrap();
    connection.read_exact(&mut [0]).unwrap();
    case.link.set(Fault::Close { after: 1, towards: Towards::Client, on: On::Any });
    connection.write_all(b"yz").unwrap();
    assert_eq!(receive(connection).1, None);
    assert_eq!(receive(other).1, None);
}

#[test]
fn a_stalled_line_moves_again_when_healed() {
    let case = Case::new("107");
    case.link.set(Fault::Stall { after: 3, towards: Towards::Client, on: On::Any });
    let mut connection = case.connect();
    send(&connection, b"123456").join().unwrap();
    connection.read_exact(&mut [0; 3]).unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let silence = connection.read(&mut [0; 3]).unwrap_err().kind();
    assert!(matches!(silence, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence:?}");
    case.link.heal();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(receive(connection), (b"456".to_vec(), None));
}

#[test]
fn a_slow_line_is_slow_one_way() {
    let case = Case::new("108");
    case.link.set(Fault::Slow { rate: 100_000, towards: Towards::Client, on: On::Any });
    let (begin, connection) = (Instant::now(), case.connect());
    let sending = send(&connection, &bytes(5, 20_000));
    assert_eq!(receive(connection).0.len(), 20_000);
    // A busy machine makes everything later, never earlier.
    assert!(begin.elapsed() >= Duration::from_millis(190), "{:?}", begin.elapsed());
    sending.join().unwrap();
}

#[test]
fn pieces_are_small_or_large_and_nothing_is_lost() {
    let case = Case::new("109");
    let contents = bytes(6, 60_000);
    let faults = [
        Fault::Split { largest: 9, seed: 7, on: On::Any },
        Fault::Coalesce { bytes: 16_384, quiet: Duration::from_millis(5), on: On::Any },
    ];
    for fault in faults {
        case.link.heal();
        case.link.set(fault);
        let connection = case.connect();
        let sending = send(&connection, &contents);
        assert!(receive(connection) == (contents.to_vec(), None), "{fault:?}");
        sending.join().unwrap();
    }
}

#[test]
fn what_is_held_back_comes_at_once() {
    let case = Case::new("110");
    case.link.set(Fault::Coalesce { bytes: 1 << 20, quiet: Duration::from_millis(200), on: On::Any });
    let mut connection = case.connect();
    for _ in 0..10 {
        connection.write_all(&[1; 100]).unwrap();
        std::thread::yield_now();
    }
    let mut buffer = [0; 4096];
    assert_eq!(connection.read(&mut buffer).unwrap(), 1000);
}

#[test]
fn one_bit_flips_where_it_should() {
    let case = Case::new("111");
    let contents = bytes(7, 200_000);
    let mut dice = Dice::new(8);
    for _ in 0..5 {
        let (at, bit) = (dice.below(200_000), dice.below(8) as u8);
        case.link.heal();
        case.link.set(Fault::Flip { at, bit, towards: Towards::Client, on: On::Any });
        let connection = case.connect();
        let sending = send(&connection, &contents);
        let (found, _) = receive(connection);
        let differ: Vec<_> = (0..contents.len()).filter(|&i| found[i] != contents[i]).collect();
        assert_eq!(differ, [at as usize]);
        assert_eq!(found[at as usize] ^ contents[at as usize], 1 << bit);
        sending.join().unwrap();
    }
}

#[test]
fn connections_are_refused_as_often_as_said() {
    let case = Case::new("112");
    case.link.set(Fault::Refuse { connections: 2, on: On::Control });
    for refused in [true, true, false] {
        let mut connection = case.connect();
        let _ = connection.write_all(b"x");
        assert_eq!(connection.read_exact(&mut [0]).is_err(), refused);
    }
    assert_eq!(case.link.refused(), 2);
}

#[test]
fn data_connections_are_told_apart_and_their_ports_found() {
    let case = Case::new("113");
    let data = echo(&case.server.host);
    let mut control = case.connect();
    // Whatever the server says may tell a port: behind its words, the port is there.
    control.write_all(b"227").unwrap();
    control.read_exact(&mut [0; 3]).unwrap();
    case.link.set(Fault::Cut { after: 4, towards: Towards::Client, on: On::Data });
    control.write_all(b"longer than four").unwrap();
    control.read_exact(&mut [0; 16]).unwrap();
    let connection = TcpStream::connect((case.far.host.as_str(), data.port)).unwrap();
    let sending = send(&connection, b"123456");
    assert_eq!(receive(connection).0, b"1234");
    sending.join().unwrap();
    assert_eq!(case.link.connections(On::Data), 1);
    assert_eq!(case.link.turns(Towards::Client, On::Control), [0, 3]);
}

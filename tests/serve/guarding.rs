//! Guessing passwords, standing in the door, going away in the middle.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use haul::serve::{FtpTls, Protocol};
use haul::transport::sftp::wire::Request;

use crate::packets::{Packets, Ssh};
use crate::raw::{Raw, connect_from};
use crate::scene::{PASSWORD, Scene, pattern, read, write};

/// Waits until something is so.
fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn guessing_passwords_over_ssh_is_locked_out() {
    let scene = Scene::new(Protocol::Sftp);
    let start = Instant::now();
    let mut guesses = 0;
    while guesses < 20 {
        let Ok(mut ssh) = Ssh::connect("127.0.0.1", &scene) else { break };
        let mut wrong = 0;
        while wrong < 3 && ssh.password("guess").is_ok() {
            wrong += 1;
        }
        guesses += wrong;
        if wrong < 3 {
            break;
        }
    }
    assert!(guesses <= 6, "{guesses} guesses");
    assert!(start.elapsed() > Duration::from_secs(3), "the answers come too fast");
    let right = Ssh::connect("127.0.0.1", &scene).and_then(|mut ssh| ssh.password(PASSWORD));
    assert!(!right.unwrap_or(false), "locked out means that the right one doesn't help either");
    // That is between the server and that address.
    let mut other = Packets::from("127.0.0.2", &scene);
    let _ = other.open("/new", 2 | 8);
}

#[test]
fn guessing_at_many_connections_at_once_helps_nobody() {
    let scene = Scene::new(Protocol::Ftp(FtpTls::Off));
    let port = scene.port();
    let guess = move || {
        let mut control = connect_from("127.0.0.1", port);
        let mut all = String::new();
        let _ = control.write_all(b"USER haul\r\nPASS guess\r\nQUIT\r\n");
        let _ = control.read_to_string(&mut all);
        all.contains("530 ")
    };
    let threads: Vec<_> = (0..24).map(|_| std::thread::spawn(guess)).collect();
    let judged =
        threads.into_iter().filter(|_| true).map(|thread| thread.join().unwrap()).filter(|judged| *judged).count();
    // Two may be judged at the same instant.
    assert!(judged <= 8, "{judged} guesses were judged");
}

#[test]
fn who_stands_in_the_door_keeps_nobody_out() {
    for protocol in [Protocol::Ftp(FtpTls::Off), Protocol::Ftp(FtpTls::Implicit), Protocol::Sftp] {
        let scene = Scene::with(protocol, |options| options.max_sessions = 16);
        let silent: Vec<_> = (0..60).map(|_| connect_from("127.0.0.1", scene.port())).collect();
        let others: Vec<_> = (3..40).map(|n| connect_from(&format!("127.0.0.{n}"), scene.port())).collect();
        for address in ["127.0.0.1", "127.0.0.2"] {
            match protocol {
                Protocol::Sftp => drop(Packets::from(address, &scene)),
                Protocol::Ftp(FtpTls::Off) => drop(Raw::logged_in_from(address, &scene)),
                // The handshake gets an answer: it was let in.
                Protocol::Ftp(_) => {
                    let mut socket = connect_from(address, scene.port());
                    socket.write_all(b"no TLS at all, but an answer comes\r\n").unwrap();
                    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 1);
                }
            }
        }
        drop((silent, others));
    }
}

#[test]
fn who_is_inside_is_not_sent_away() {
    let scene = Scene::with(Protocol::Ftp(FtpTls::Off), |options| options.max_sessions = 8);
    let mut inside: Vec<_> = (0..5).map(|_| Raw::logged_in_from("127.0.0.1", &scene)).collect();
    let _silent: Vec<_> = (2..60).map(|n| connect_from(&format!("127.0.0.{n}"), scene.port())).collect();
    for raw in &mut inside {
        raw.expect("PWD", 257);
    }
}

/// Waits until the server closes; says something now and then meanwhile, if anything.
fn is_closed(mut socket: TcpStream, words: &[u8]) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        match socket.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Err(e) if !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return true;
            }
            _ => {}
        }
        if socket.write_all(words).is_err() {
            return true;
        }
    }
    false
}

#[test]
fn who_does_not_log_in_is_sent_away_in_time() {
    let all = [
        (Protocol::Ftp(FtpTls::Off), &b""[..], &b""[..]),
        (Protocol::Ftp(FtpTls::Off), b"", b"NOOP\r\n"),
        (Protocol::Ftp(FtpTls::Off), b"", b"x"),
        (Protocol::Ftp(FtpTls::Allow), b"AUTH TLS\r\n", b""),
        (Protocol::Ftp(FtpTls::Implicit), b"", b""),
        // The start of a handshake message that never ends.
        (Protocol::Ftp(FtpTls::Implicit), b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc", b"\0"),
        (Protocol::Sftp, b"", b""),
        (Protocol::Sftp, b"SSH-2.0-slow", b"."),
        (Protocol::Sftp, b"SSH-2.0-slow\r\n", b""),
        (Protocol::Sftp, b"SSH-2.0-slow\r\n\x00\x00\x40\x00", b"\0"),
    ];
    for (protocol, first, then) in all {
        let scene = Scene::with(protocol, |options| options.login_timeout = Duration::from_millis(300));
        let mut socket = connect_from("127.0.0.1", scene.port());
        socket.write_all(first).unwrap();
        assert!(is_closed(socket, then), "{protocol:?} {first:?} {then:?}");
    }
}

/// Returns how many files of the served folder this process, which is the server, has open.
fn open_files(scene: &Scene) -> usize {
    let root = scene.served.path().join("");
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    open.filter(|path| path.starts_with(&root) && path != scene.served.path()).count()
}

/// Returns the memory of this process in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn ftp_clients_who_vanish_leave_nothing_open() {
    let scene = Scene::new(Protocol::Ftp(FtpTls::Off));
    write(&scene.served("big"), &pattern(64 << 20));
    let round = || {
        let mut sessions = Vec::new();
        for command in ["STOR up", "APPE log", "RETR big"] {
            let mut raw = Raw::logged_in_from("127.0.0.1", &scene);
            let mut data = raw.passive();
            raw.expect(command, 150);
            if command == "RETR big" {
                data.read_exact(&mut [0; 1000]).unwrap();
            } else {
                data.write_all(&pattern(100_000)).unwrap();
            }
            sessions.push((raw, data));
        }
        until("the transfers are under way", || open_files(&scene) >= 3);
        // The control connection is gone; the data connection of one who vanished says nothing either way.
        let data: Vec<_> = sessions.into_iter().map(|(_, data)| data).collect();
        until("files stay open", || open_files(&scene) == 0);
        drop(data);
    };
    (0..5).for_each(|_| round());
    let before = memory();
    (0..20).for_each(|_| round());
    assert!(memory() < before + 32 * 1024, "memory grows: {} KiB", memory() - before);
    // What came stays, for the client to go on from; nothing else is left.
    assert!(pattern(100_000).starts_with(&read(&scene.served("up"))));
    assert_eq!(std::fs::read_dir(scene.served.path()).unwrap().count(), 3);
}

#[test]
fn sftp_clients_who_vanish_leave_nothing_open() {
    let scene = Scene::new(Protocol::Sftp);
    write(&scene.served("big"), &pattern(8 << 20));
    let round = || {
        let mut packets = Packets::new(&scene);
        for _ in 0..20 {
            let (up, big) = (packets.open("/up", 2 | 8), packets.open("/big", 1));
            packets.ok(Request::Write(up, 0, Bytes::from(pattern(1000))));
            packets.ask(Request::Read(big, 0, 200_000));
        }
        packets.ask(Request::Opendir("/".into()));
        assert!(open_files(&scene) >= 40);
        drop(packets);
        until("files stay open", || open_files(&scene) == 0);
    };
    (0..3).for_each(|_| round());
    let before = memory();
    (0..12).for_each(|_| round());
    assert!(memory() < before + 32 * 1024, "memory grows: {} KiB", memory() - before);
    assert_eq!(read(&scene.served("up")), pattern(1000));
}

#[test]
fn silent_clients_are_let_go() {
    let scene = Scene::with(Protocol::Sftp, |options| options.idle_timeout = Duration::from_millis(500));
    let mut packets = Packets::new(&scene);
    let _ = packets.open("/up", 2 | 8);
    // Its side of the connection stays open, and says nothing more.
    std::mem::forget(packets);
    until("files stay open", || open_files(&scene) == 0);
    let scene = Scene::with(Protocol::Ftp(FtpTls::Off), |options| options.idle_timeout = Duration::from_millis(500));
    let mut raw = Raw::logged_in_from("127.0.0.1", &scene);
    assert!(raw.reply().starts_with("421 "));
}

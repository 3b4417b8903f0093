//! Lines for the system's log: through a socket, or on standard error where the journal reads it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use haul::serve::Protocol;

use crate::scene::{Scene, write};

fn received(socket: &UnixDatagram) -> Vec<String> {
    socket.set_nonblocking(true).unwrap();
    let mut lines = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        lines.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
    }
    lines
}

/// Takes a line apart as RFC 3164 has it, without the host: priority and text.
#[track_caller]
fn parts(line: &str) -> (u8, &str) {
    let (priority, rest) = line.strip_prefix('<').and_then(|rest| rest.split_once('>')).unwrap();
    let (time, rest) = rest.split_at(16);
    assert!(jiff::civil::DateTime::strptime("%Y %b %e %H:%M:%S ", format!("2024 {time}")).is_ok(), "{line}");
    let (tag, text) = rest.split_once("]: ").unwrap();
    assert!(tag.strip_prefix("haul[").unwrap().parse::<u32>().is_ok(), "{line}");
    (priority.parse().unwrap(), text)
}

#[test]
fn failures_and_the_end_are_logged() {
    let scene = Scene::own(Protocol::Sftp);
    let socket = UnixDatagram::bind(scene.near("log")).unwrap();
    write(&scene.far("a"), b"12345");
    let none = format!("{}no\u{7}ne", scene.url(""));
    scene.run(&["get", &scene.url("a"), &none, ".", "--syslog=log", "--report-name", "nightly"]).ends(1);
    let lines = received(&socket);
    let lines: Vec<_> = lines.iter().map(|line| parts(line)).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let failed = lines.iter().find(|(_, text)| text.contains("failed: sftp://")).unwrap();
    assert!(failed.0 == 11 && failed.1.starts_with("nightly: ") && failed.1.contains("No such file"), "{failed:?}");
    assert!(failed.1.contains("hint: ") && !failed.1.contains('\u{7}'), "{failed:?}");
    let (priority, end) = lines[1];
    assert_eq!(priority, 11);
    assert!(end.starts_with("nightly: exit status 1: 2 files, 1 done, 1 failed, 5 B moved in "), "{end}");
    assert!(lines.iter().all(|(_, text)| !text.contains(scene.password())));

    scene.run(&["get", &scene.url("a"), ".", "--syslog=log"]).ends(0);
    let lines = received(&socket);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(parts(&lines[0]).0, 14);
}

#[test]
fn who_could_not_connect_is_logged() {
    let scene = Scene::own(Protocol::Sftp);
    let socket = UnixDatagram::bind(scene.near("log")).unwrap();
    scene.command(&["get", &scene.url("a"), "--syslog=log"]).env("HAUL_PASSWORD", "hunter2-wrong").output().unwrap();
    let lines = received(&socket);
    assert!(lines.iter().any(|line| line.contains("refused")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("exit status 3")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("hunter2")), "{lines:?}");
}

/// A log that takes nothing, like a daemon that is stopped, holds up nobody.
#[test]
fn a_log_that_is_full_holds_up_nobody() {
    let scene = Scene::own(Protocol::Sftp);
    let _socket = UnixDatagram::bind(scene.near("log")).unwrap();
    let mut arguments = vec!["get".to_owned(), "-q".to_owned()];
    arguments.extend((0..2000).map(|number| scene.url(&format!("none-{number}"))));
    arguments.extend([".".to_owned(), "--syslog=log".to_owned()]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    scene.run(&arguments).ends(1);
}

/// As sd-daemon(3) has it: a priority in front of each line, and each failure once.
#[test]
fn the_journal_reads_priorities() {
    let scene = Scene::own(Protocol::Sftp);
    write(&scene.far("a"), b"12345");
    let stderr = File::create(scene.near("stderr")).unwrap();
    let metadata = stderr.metadata().unwrap();
    let stream = format!("{}:{}", metadata.dev(), metadata.ino());
    let mut command = scene.command(&["get", &scene.url("a"), &scene.url("none"), ".", "--syslog"]);
    command.env("JOURNAL_STREAM", stream).stderr(stderr);
    assert_eq!(command.status().unwrap().code(), Some(1));
    let text = std::fs::read_to_string(scene.near("stderr")).unwrap();
    assert!(text.lines().all(|line| ["<3>", "<4>", "<6>"].iter().any(|mark| line.starts_with(mark))), "{text}");
    assert_eq!(text.matches("No such file").count(), 1, "{text}");
    assert!(text.contains("<3>haul: ") && text.contains("<3>haul: get: exit status 1: 2 files"), "{text}");
    assert!(text.contains("<6>hint: "), "{text}");
}

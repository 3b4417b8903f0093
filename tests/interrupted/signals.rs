//! Once stops in order, twice at once; nothing that arrived is lost, and the same command or `haul resume` goes on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::scene::{FTP, FTPES, SFTP, Scene, Way, file_event, number, send, until};
use crate::stage::{Ran, Stage};
use crate::support::{KIB, MIB, assert_same, bytes};

macro_rules! interrupts {
    ($($name:ident: $protocol:ident $way:ident $segments:literal,)*) => {
        mod interrupted {
            $(#[test]
            fn $name() {
                super::loses_no_more_than_a_block($crate::scene::$protocol, $crate::scene::Way::$way, $segments);
            })*
        }
    };
}

interrupts! {
    sftp_get: SFTP Get 1,
    sftp_put: SFTP Put 1,
    sftp_get_in_segments: SFTP Get 3,
    sftp_put_in_segments: SFTP Put 3,
    ftp_get: FTP Get 1,
    ftp_put: FTP Put 1,
    ftp_get_in_segments: FTP Get 3,
    ftpes_get: FTPES Get 1,
    ftpes_put: FTPES Put 1,
    ftpes_get_in_segments: FTPES Get 3,
}

/// What was moved when the signal came is written down but for a block of each stream, and isn't moved again.
fn loses_no_more_than_a_block(protocol: haul::serve::Protocol, way: Way, streams: u64) {
    let scene = Scene::new(protocol, way);
    let segments = streams.to_string();
    let stopped = scene.stopped_by(Signal::INT, &["--json", "--segments", &segments]).ends(130);
    let (id, about) = scene.only();
    assert!(!scene.destination().exists(), "a partial file under the final name");
    let hint = format!("haul resume {}", &id[..8]);
    assert!(stopped.err().contains(&hint) && stopped.err().contains("same command again"), "{}", stopped.err());
    let moved = number(&file_event(&stopped)["transferred"]);
    let lost = moved - about.kept;
    // What is behind the last whole block, and on top of that what a server's socket had not taken yet.
    let most = streams * MIB as u64 + 512 * KIB as u64;
    assert!(lost <= most, "{moved} bytes were moved and {} are written down", about.kept);

    let again = Ran::from(scene.command(&["--json"]).output().unwrap()).ends(0);
    scene.assert_arrived();
    let event = file_event(&again);
    assert_eq!(number(&event["resumed_from"]), about.kept, "{event}");
    assert_eq!(number(&event["transferred"]), scene.contents.len() as u64 - about.kept, "{event}");
}

#[test]
fn term_and_hup_stop_in_order_too() {
    for signal in [Signal::TERM, Signal::HUP] {
        let scene = Scene::new(SFTP, Way::Get);
        let stopped = scene.stopped_by(signal, &[]).ends(130);
        assert!(stopped.err().contains("haul: interrupted"), "{}", stopped.err());
        assert!(matches!(scene.only().1.state, haul::transfer::State::Stopped(ref s) if s.kind == "cancelled"));
    }
}

#[test]
fn twice_stops_at_once_and_what_is_there_counts() {
    for way in [Way::Get, Way::Put] {
        let scene = Scene::new(SFTP, way);
        // So slow that a block takes longer than the time between the two.
        let mut child = scene.command(&["--segments", "1", "--limit-rate", "700k"]).spawn().unwrap();
        scene.wait_for(&mut child, MIB as u64);
        send(&child, Signal::INT);
        // As close together as a hand presses them: closer is taken for one.
        std::thread::sleep(Duration::from_millis(150));
        send(&child, Signal::INT);
        Ran::from(child.wait_with_output().unwrap()).ends(130);
        let (id, about) = scene.only();
        assert!(about.kept >= MIB as u64, "{about:?}");
        assert!(matches!(about.state, haul::transfer::State::Stopped(ref s) if s.kind == "cancelled"), "{about:?}");
        let again = scene.stage.haul(&["resume", "--json", "--limit-rate", "1G", &id]).ends(0);
        assert_eq!(number(&file_event(&again)["resumed_from"]), about.kept);
        scene.assert_arrived();
    }
}

/// As in `haul get … 2>&1 | less`, with nobody turning the pages.
#[test]
fn twice_stops_at_once_even_where_nobody_reads_what_it_says() {
    let scene = Scene::new(SFTP, Way::Get);
    let (reader, writer) = std::io::pipe().unwrap();
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    let never_waits = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut filler = std::fs::File::options().write(true).custom_flags(never_waits).open(again).unwrap();
    let mut child = scene.command(&["--limit-rate", "2M"]).stderr(writer).spawn().unwrap();
    scene.wait_for(&mut child, MIB as u64);
    // Whatever is written next waits.
    while filler.write(b".").is_ok() {}
    send(&child, Signal::INT);
    // Long enough that it wants to say how to hurry it.
    std::thread::sleep(Duration::from_millis(2500));
    send(&child, Signal::INT);
    let mut status = None;
    until("it has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(130));
    drop(reader);
}

#[test]
fn nohup_stays_nohup() {
    let scene = Scene::new(SFTP, Way::Get);
    let mut nohup = std::process::Command::new("nohup");
    scene.stage.set_up(&mut nohup);
    nohup
        .arg(env!("CARGO_BIN_EXE_haul"))
        .args(["get", &scene.url("big"), "big", "--limit-rate", "8M"])
        .args(scene.trust());
    let mut child = nohup.spawn().unwrap();
    scene.wait_for(&mut child, crate::scene::SOME);
    send(&child, Signal::HUP);
    Ran::from(child.wait_with_output().unwrap()).ends(0);
    scene.assert_arrived();
}

/// A program that is stopped for longer than the timeout was not left alone by the server.
#[test]
fn stopped_for_a_while_it_goes_on() {
    for (protocol, way) in [(SFTP, Way::Get), (SFTP, Way::Put), (FTP, Way::Get), (FTPES, Way::Put)] {
        let scene = Scene::new(protocol, way);
        let child = scene.begin(&["--timeout", "1s", "--retries", "2"]);
        send(&child, Signal::STOP);
        // This is what is tried, and waits for nothing.
        std::thread::sleep(Duration::from_millis(2500));
        send(&child, Signal::CONT);
        Ran::from(child.wait_with_output().unwrap()).ends(0);
        scene.assert_arrived();
    }
}

/// `haul get --json … | head -1`
#[test]
fn a_reader_that_leaves_stops_the_run() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stage.file("served/small", "1", 0o644);
    let mut child = scene
        .stage
        .command(&["get", "--json", "-j1", "--limit-rate", "2M", &scene.url("small"), &scene.url("big"), "."])
        .args(scene.trust())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("small"), "{line}");
    scene.wait_for(&mut child, MIB as u64);
    drop(stdout);
    // The next line finds the pipe closed.
    send(&child, Signal::INT);
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!([130, 141].contains(&ran.status), "{ran:?}");
    assert!(!ran.err().contains("panicked"), "{}", ran.err());
    let about = scene.only().1;
    scene.stage.haul(&["resume", "--all"]).ends(0);
    assert!(about.kept > 0);
    scene.assert_arrived();
}

#[test]
fn closed_outputs_are_no_reason_to_panic() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stage.file("served/small", "1", 0o644);
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let run = |args: &[&str], stdout: Stdio, stderr: Stdio| {
        scene.stage.command(args).args(scene.trust()).stdout(stdout).stderr(stderr).output().unwrap()
    };
    let ran = run(&["ls", &scene.url("")], closed(), Stdio::piped());
    assert_eq!(ran.status.code(), Some(141));
    assert!(ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    let ran = run(&["get", "--json", &scene.url("small")], closed(), Stdio::piped());
    assert_eq!(ran.status.code(), Some(141));
    assert!(ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    let ran = run(&["get", "-vvv", &scene.url("big")], closed(), closed());
    assert_eq!(ran.status.code(), Some(0));
    scene.assert_arrived();
}

#[test]
fn what_is_done_stays_done() {
    let scene = Scene::new(SFTP, Way::Get);
    for name in ["a", "b", "c"] {
        scene.stage.file(&format!("served/{name}"), name, 0o644);
    }
    let urls: Vec<_> = ["a", "b", "c", "big"].iter().map(|name| scene.url(name)).collect();
    let mut command = scene.stage.command(&["get", "--limit-rate", "4M"]);
    let mut child = command.args(&urls).args(["."]).args(scene.trust()).spawn().unwrap();
    scene.wait_for(&mut child, crate::scene::SOME);
    send(&child, Signal::INT);
    Ran::from(child.wait_with_output().unwrap()).ends(130);
    for name in ["a", "b", "c"] {
        assert_eq!(std::fs::read(scene.stage.at(&format!("work/{name}"))).unwrap(), name.as_bytes());
    }
    assert!(scene.only().1.request.several);
    scene.stage.haul(&["resume", "--all"]).ends(0);
    scene.assert_arrived();
}

/// A server that takes connections and never says a word: nothing to wait for.
#[test]
fn waiting_for_a_server_ends_at_once() {
    let stage = Stage::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("sftp://me@{}/x", silent.local_addr().unwrap());
    for args in [["ls", url.as_str()], ["get", &url], ["rm", &url]] {
        let child = stage.command(&args).spawn().unwrap();
        let _connection = silent.accept().unwrap();
        send(&child, Signal::INT);
        Ran::from(child.wait_with_output().unwrap()).ends(130);
    }
}

#[test]
fn an_interrupted_pipe_leaves_nothing() {
    let scene = Scene::new(SFTP, Way::Put);
    let mut command = scene.stage.command(&["put", "-", &scene.url("piped")]);
    let mut child = command.args(scene.trust()).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&scene.contents[..MIB]).unwrap();
    until("the part is there", || !scene.parts().is_empty());
    send(&child, Signal::INT);
    Ran::from(child.wait_with_output().unwrap()).ends(130);
    assert_eq!(scene.parts(), [""; 0]);
    assert!(!scene.stage.at("served/piped").exists());
}

#[test]
fn an_interrupted_output_ends_where_it_was() {
    let scene = Scene::new(SFTP, Way::Get);
    let mut command = scene.stage.command(&["get", &scene.url("big"), "-", "--limit-rate", "4M"]);
    let mut child = command.args(scene.trust()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut read = vec![0; MIB];
    stdout.read_exact(&mut read).unwrap();
    send(&child, Signal::TERM);
    stdout.read_to_end(&mut read).unwrap();
    Ran::from(child.wait_with_output().unwrap()).ends(130);
    assert!(read.len() < scene.contents.len());
    assert_same(&read, &scene.contents[..read.len()], "what was written out");
}

#[test]
fn a_tree_goes_on_with_what_is_missing() {
    let scene = Scene::new(FTP, Way::Get);
    for number in 0..20 {
        scene.stage.file(&format!("served/tree/{number}"), bytes(number, 10_000), 0o644);
    }
    std::fs::rename(scene.source(), scene.stage.at("served/tree/big")).unwrap();
    let run = |more: &[&str]| {
        let mut command = scene.stage.command(&["get", "-r", &scene.url("tree"), "."]);
        command.args(scene.trust()).args(more);
        command
    };
    let mut child = run(&["--limit-rate", "4M"]).spawn().unwrap();
    scene.wait_for(&mut child, MIB as u64);
    send(&child, Signal::INT);
    Ran::from(child.wait_with_output().unwrap()).ends(130);
    Ran::from(run(&[]).output().unwrap()).ends(0);
    assert_same(&std::fs::read(scene.stage.at("work/tree/big")).unwrap(), &scene.contents, "the large one");
    for number in 0..20 {
        let found = std::fs::read(scene.stage.at(&format!("work/tree/{number}"))).unwrap();
        assert_same(&found, &bytes(number, 10_000), "a small one");
    }
    assert!(scene.left().is_empty());
}

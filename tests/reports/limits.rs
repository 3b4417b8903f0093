//! Runs that begin later, end earlier, or go slower: nothing is lost, and the same command does the rest.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::Stdio;

use haul::serve::{FtpTls, Protocol};

use crate::scene::{Scene, part_bytes, send, until, write, write_tree};
use crate::support::data::{MIB, assert_same, bytes};

/// What may be in flight when a run is stopped: a block of each stream, and what a small file has left.
const IN_FLIGHT: u64 = 3 * MIB as u64;

fn stops_after_so_many_bytes(scene: &Scene) {
    let contents = bytes(1, 12 * MIB + 345);
    write(&scene.near("big"), &contents);
    let url = scene.url("big");
    for (command, there) in [(["put", "big", &url], scene.far("big")), (["get", &url, "back"], scene.near("back"))] {
        let with = |more: &[&'static str]| [&command[..], more].concat();
        // So slow that what is in flight is little.
        let stopped = scene.run(&with(&["--max-transfer", "4M", "--limit-rate", "40M"])).ends(5);
        assert!(stopped.err.contains("stopped after 4.0 MiB, as --max-transfer says"), "{}", stopped.err);
        assert!(stopped.err.contains("run the same command again"), "{}", stopped.err);
        let first = stopped.transferred();
        assert!((4 << 20..(4 << 20) + IN_FLIGHT).contains(&first), "{first}");
        assert!(!there.exists(), "a part of it under the final name");
        let again = scene.run(&with(&["--report", "r.json"])).ends(0);
        assert_same(&std::fs::read(&there).unwrap(), &contents, command[0]);
        let rest = again.transferred();
        assert!(
            first + rest <= contents.len() as u64 + IN_FLIGHT && rest < contents.len() as u64,
            "{first} and {rest}"
        );
        let report = scene.report("r.json");
        crate::told::assert_is_report(&report);
        assert!(report["files"][0]["resumed_from"].as_u64() > Some(0), "{report}");
    }
}

#[test]
fn max_transfer_with_sftp_of_our_own() {
    stops_after_so_many_bytes(&Scene::own(Protocol::Sftp));
}

#[test]
fn max_transfer_with_ftp_of_our_own() {
    stops_after_so_many_bytes(&Scene::own(Protocol::Ftp(FtpTls::Off)));
}

#[test]
fn max_transfer_with_openssh() {
    let Some(scene) = Scene::real("openssh", "max") else { return };
    stops_after_so_many_bytes(&scene);
}

#[test]
fn max_transfer_with_vsftpd() {
    let Some(scene) = Scene::real("vsftpd", "max") else { return };
    stops_after_so_many_bytes(&scene);
}

#[test]
fn a_tree_takes_as_many_runs_as_it_needs() {
    let scene = Scene::own(Protocol::Sftp);
    let names = write_tree(&scene.near("tree"), 60, 100_000);
    let mut runs = 0;
    loop {
        runs += 1;
        let arguments = ["put", "-r", "-j2", "tree", &scene.url(""), "--max-transfer", "2M", "--report", "r.json"];
        let ran = scene.run(&arguments);
        assert_eq!(scene.report("r.json")["exit_status"], ran.status);
        match ran.status {
            0 => break,
            _ => assert!(ran.ends(5).transferred() >= 2 << 20),
        }
        assert!(runs < 10);
    }
    assert!(runs >= 3, "{runs}");
    for name in names {
        let (here, there) = (scene.near("tree").join(&name), scene.far("tree").join(&name));
        assert_same(&std::fs::read(there).unwrap(), &std::fs::read(here).unwrap(), &name);
    }
}

/// What failed must not look like what is only not done yet.
#[test]
fn failures_count_more_than_a_limit() {
    let scene = Scene::own(Protocol::Sftp);
    write_tree(&scene.far("tree"), 20, 100_000);
    let arguments = ["get", "-r", "-j1", &scene.url("none"), &scene.url("tree"), "into", "--max-transfer", "500k"];
    let ran = scene.run(&arguments).ends(1);
    assert!(ran.err.contains("as --max-transfer says") && ran.err.contains("No such file"), "{}", ran.err);
}

#[test]
fn what_is_just_allowed_is_done() {
    let scene = Scene::own(Protocol::Sftp);
    write_tree(&scene.near("tree"), 4, 1024);
    scene.run(&["put", "-r", "tree", &scene.url(""), "--max-transfer", "4k"]).ends(0);
}

#[test]
fn stop_after_stops_in_order() {
    for protocol in [Protocol::Sftp, Protocol::Ftp(FtpTls::Require)] {
        let scene = Scene::own(protocol);
        let contents = bytes(1, 10 * MIB);
        write(&scene.far("big"), &contents);
        let url = scene.url("big");
        let stopped = scene.run(&["get", &url, "--stop-after", "1s", "--limit-rate", "3M"]).ends(5);
        assert!(stopped.err.contains("stopped after 1.0 s, as --stop-after says"), "{}", stopped.err);
        assert!(!scene.near("big").exists());
        let again = scene.run(&["get", &url]).ends(0);
        assert!(again.files()[0]["resumed_from"].as_u64() > Some(0), "{}", again.out);
        assert_same(&std::fs::read(scene.near("big")).unwrap(), &contents, "what arrived");
    }
}

#[test]
fn a_run_waits_for_its_time_without_a_connection() {
    let scene = Scene::own(Protocol::Sftp);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("sftp://me@{}/x", silent.local_addr().unwrap());
    let mut child =
        scene.command(&["get", &url, "--start-at", "2222-02-22 22:22", "--report", "r.json"]).spawn().unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("haul: waiting until 2222-02-22 22:22"), "{line}");
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_err(), "connected before its time");
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(scene.report("r.json")["exit_status"], 130);
}

#[test]
fn a_time_that_is_over_is_now() {
    let scene = Scene::own(Protocol::Sftp);
    write(&scene.far("a"), b"1");
    let ran = scene.run(&["get", &scene.url("a"), "--start-at", "2001-01-01"]).ends(0);
    assert!(ran.err.contains("haul: beginning at once: 2001-01-01"), "{}", ran.err);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1);
    scene.run(&["get", &scene.url("a"), "--start-at", &soon.to_string()]).ends(0);
    let ran = scene.run(&["get", &scene.url("a"), "--start-at", "tomorrow"]).ends(2);
    assert!(ran.err.contains("give a time like 22:30"), "{}", ran.err);
}

#[test]
fn pipes_are_not_stopped() {
    let scene = Scene::own(Protocol::Sftp);
    for limit in [["--stop-after", "1h"], ["--max-transfer", "1G"]] {
        let ran = scene.run(&[&["put", "-", &scene.url("a")], &limit[..]].concat()).ends(2);
        assert!(ran.err.contains("don't go with standard input or output"), "{}", ran.err);
    }
}

/// The only way to this file's end within the test's time is that the signal is heard.
#[test]
fn sigusr1_changes_the_rate_of_a_running_transfer() {
    for protocol in [Protocol::Sftp, Protocol::Ftp(FtpTls::Off)] {
        let scene = Scene::own(protocol);
        let contents = bytes(1, 40 * MIB);
        write(&scene.near("big"), &contents);
        scene.config("[defaults]\nlimit_rate = \"20k\"\n");
        let mut child = scene.command(&["put", "big", &scene.url("big")]).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut told = || {
            let mut line = String::new();
            stderr.read_line(&mut line).unwrap();
            line
        };
        until("it has begun", || part_bytes(&scene.far("")) > 0);
        scene.config("[defaults]\nlimit_rate = \"quick\"\n");
        send(&child, "USR1");
        let line = told();
        assert!(line.starts_with("haul: the rate limit stays as it was: ") && line.contains("quick"), "{line}");
        scene.config("[defaults]\nlimit_rate = \"30k\"\n");
        send(&child, "USR1");
        assert_eq!(told(), "haul: the rate limit is 30.0 KiB/s now\n");
        scene.config("[defaults]\nlimit_rate = \"00:00 off\"\n");
        send(&child, "USR1");
        let line = told();
        assert!(line.starts_with("haul: there is no rate limit now, until "), "{line}");
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_same(&std::fs::read(scene.far("big")).unwrap(), &contents, "what arrived");
    }
}

#[test]
fn sigusr1_is_no_end() {
    let scene = Scene::own(Protocol::Sftp);
    write(&scene.near("big"), &bytes(1, 6 * MIB));
    // Without a file of settings, and with a limit that was typed, which stays.
    for (limit, said) in [("off", "it was given with --limit-rate"), ("", "there is no file of settings")] {
        let url = scene.url("big");
        let mut arguments = vec!["put", "-f", "-", &url];
        if !limit.is_empty() {
            arguments.extend(["--limit-rate", limit]);
        }
        let mut child = scene.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
        until("it has begun", || {
            part_bytes(&scene.far("")) > 0 || std::fs::read_dir(scene.far("")).unwrap().count() > 0
        });
        send(&child, "USR1");
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.contains(said), "{line}");
        drop(child.stdin.take());
        let status = child.wait().unwrap();
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(status.code(), Some(0), "{rest}");
        std::fs::remove_file(scene.far("big")).unwrap();
    }
}

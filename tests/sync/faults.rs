//! Kills and interruptions, and the same command again.

use crate::scene::*;
use crate::support::client::names_below;
use crate::support::data::{MIB, bytes};
use crate::support::fault::{Fault, Link, On, Towards};

#[test]
fn after_a_kill_the_same_command_goes_on() {
    for (kind, signal) in [("embedded sftp", "KILL"), ("embedded ftp", "KILL"), ("local", "TERM"), ("openssh", "INT")] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        for number in 0..40 {
            let path = from.disk.join(format!("{}/{number}", number % 3));
            scene.plant_file(&path, &bytes(number, 30_000), 1_600_000_000 + number);
        }
        scene.plant_file(&from.disk.join("big"), &bytes(99, 24 * MIB), 1_600_000_000);
        scene.plant(&to, &[("old", Some(("old", 1)))]);
        let mut child = scene.start(&from, &to, &["--delete", "--limit-rate", "8M"]);
        let arrived = || names_below(&to.disk).iter().filter(|name| !name.contains(".haul-")).count();
        wait_for(&mut child, || arrived() >= 10);
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{signal}"), &*pid]).status().unwrap().success());
        let ended = Told(child.wait_with_output().unwrap());
        if signal != "KILL" {
            assert_eq!(ended.status(), 130, "{kind}: {}", ended.text());
        }
        assert!(to.disk.join("old").exists(), "{kind}: deleted before all was copied");
        let told = scene.sync(&from, &to, &["--delete"]);
        told.fine();
        assert_eq!(tree(&from.disk), tree(&to.disk), "{kind}");
        assert!(told.total("equal") > 0, "{kind}: it began anew: {}", told.text());
        assert_eq!(scene.sync(&from, &to, &["--delete"]).fine().changes("to/"), [""; 0], "{kind}");
    }
}

#[test]
fn with_checksum_a_restart_hashes_nothing_twice() {
    let scene = Scene::new("local").unwrap();
    let (from, to) = (scene.near("from"), scene.near("to"));
    for number in 0..20 {
        for end in [&from, &to] {
            scene.plant_file(&end.disk.join(format!("{number}")), &bytes(number, 100_000), 1_600_000_000);
        }
    }
    scene.sync(&from, &to, &["--checksum"]).fine();
    // Only its memory can know now what is in it: it has another content, of the same size and time.
    scene.plant_file(&to.disk.join("7"), &bytes(1007, 100_000), 1_600_000_000);
    let told = scene.sync(&from, &to, &["--checksum"]);
    assert_eq!(told.fine().changes("to/"), [""; 0], "it was hashed again");
    set_time(&to.disk.join("7"), 1_600_000_001);
    assert_eq!(scene.sync(&from, &to, &["--checksum"]).fine().changes("to/"), ["file 7"]);
    assert_eq!(tree(&from.disk), tree(&to.disk));
}

#[test]
fn a_comparison_goes_on_when_a_connection_breaks() {
    // Neither gives digests: all of the file is read.
    for kind in ["vsftpd", "pyftpdlib"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        for end in [&from, &to] {
            scene.plant_file(&end.disk.join("big"), &bytes(1, 5 * MIB), 1_600_000_000);
        }
        let server = scene.server.as_ref().unwrap();
        let link = Link::to(server);
        let far = link.far_end(server);
        link.set(Fault::Cut { after: 3 * MIB as u64, towards: Towards::Client, on: On::Any });
        let at = to.url.replacen(&server.url(), &far.url(), 1);
        let told = scene.sync(&from, &End { disk: to.disk.clone(), url: at }, &["--checksum"]);
        assert_eq!(told.fine().changes("to/"), [""; 0], "{kind}: {}", told.text());
        assert_eq!((told.total("equal"), link.cuts()), (1, 1), "{kind}: {}", told.text());
        let moved = link.passed(Towards::Client, On::Data);
        assert!(moved < 7 * MIB as u64, "{kind}: it began anew: {moved}");
    }
}

#[test]
fn any_name_arrives() {
    let scene = Scene::new("local").unwrap();
    let (from, to) = (scene.near("from"), scene.near("to"));
    scene.plant(&from, &[("fine", Some(("f", 1_600_000_000)))]);
    scene.plant_file(&from.disk.join(raw(b"\xff\xfe raw \n name")), b"raw", 1_600_000_000);
    scene.sync(&from, &to, &["--delete"]).fine();
    assert_eq!(tree(&from.disk), tree(&to.disk));
}

#[test]
fn names_that_ftp_can_not_say_fail_by_themselves() {
    for kind in ["vsftpd", "embedded ftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(&from, &[("fine", Some(("f", 1_600_000_000)))]);
        scene.plant_file(&from.disk.join(raw(b"two\nlines")), b"raw", 1_600_000_000);
        let told = scene.sync(&from, &to, &[]);
        assert_eq!((told.status(), told.total("done"), told.total("failed")), (1, 1, 1), "{kind}: {}", told.text());
        let text = told.text();
        assert!(text.contains("line break") && text.contains("two") && !text.contains(".part"), "{kind}: {text}");
        let put = scene.command(&["put", "-r", "--dry-run", &from.url, &scene.far("other").url]).output().unwrap();
        let text = String::from_utf8_lossy(&put.stderr).into_owned();
        assert!(put.status.code() == Some(1) && text.contains("line break"), "{kind}: {text}");
    }
}

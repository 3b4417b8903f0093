//! `haul resume ID` and `--all` end what was begun, with the right bytes, as the same command would.

use std::os::unix::fs::{PermissionsExt, symlink};

use haul::transfer::State;
use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{FTP, FTPES, SFTP, SOME, Scene, Way, file_event, number, send};
use crate::stage::Ran;
use crate::support::{MIB, assert_same, bytes};

#[test]
fn what_was_killed_is_ended_by_its_id() {
    for (protocol, way) in [(SFTP, Way::Get), (SFTP, Way::Put), (FTP, Way::Get), (FTPES, Way::Put)] {
        let scene = Scene::new(protocol, way);
        scene.stopped_by(Signal::KILL, &[]);
        let (id, about) = scene.only();
        assert_eq!(about.state, State::Killed);
        let ran = scene.stage.haul(&["resume", "--json", &id[..4]]).ends(0);
        scene.assert_arrived();
        let event = file_event(&ran);
        assert_eq!((event["status"].as_str(), number(&event["resumed_from"])), (Some("done"), about.kept), "{event}");
        assert!(number(&event["transferred"]) <= scene.contents.len() as u64 - about.kept, "{event}");
        let last: Value = serde_json::from_str(ran.out().lines().last().unwrap()).unwrap();
        assert_eq!((last["event"].as_str(), number(&last["done"])), (Some("summary"), 1));
    }
}

#[test]
fn all_of_them_at_once_are_one_run() {
    let scene = Scene::new(SFTP, Way::Get);
    let other = scene.stage.serve(FTP, "me", "right");
    std::fs::write(scene.stage.at("served/second"), bytes(8, 4 * MIB)).unwrap();
    let url = format!("ftp://me@127.0.0.1:{}//second", other.port);
    scene.stopped_by(Signal::INT, &["--segments", "1"]);
    let mut child = scene.stage.command(&["get", "--tls", "off", "--limit-rate", "1M", &url]).spawn().unwrap();
    crate::scene::until("the second has begun", || {
        scene.left().iter().filter(|left| left.about.as_ref().is_ok_and(|about| about.kept > 0)).count() == 2
    });
    send(&child, Signal::KILL);
    child.wait().unwrap();
    let ran = scene.stage.haul(&["resume", "--all", "--json"]).ends(0);
    let lines: Vec<Value> = ran.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{}", ran.out());
    assert_eq!((number(&lines[2]["files"]), number(&lines[2]["done"])), (2, 2));
    assert_same(&std::fs::read(scene.stage.at("work/second")).unwrap(), &bytes(8, 4 * MIB), "the second");
    scene.assert_arrived();
}

#[test]
fn one_server_that_is_gone_does_not_hold_up_the_others() {
    let mut scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::INT, &["--segments", "1"]);
    let other = Scene::new(FTP, Way::Put);
    let kept = scene.left()[0].about.clone().unwrap().kept;
    // Both are listed in one state folder.
    scene.stage.env.push(("XDG_STATE_HOME", scene.stage.at("state").into()));
    let mut command = other.command(&["--limit-rate", "4M"]);
    let mut child = command.env("XDG_STATE_HOME", scene.stage.at("state")).spawn().unwrap();
    crate::scene::until("the other has begun", || {
        scene.left().len() == 2 && scene.left().iter().all(|left| left.about.as_ref().is_ok_and(|about| about.kept > 0))
    });
    send(&child, Signal::INT);
    child.wait().unwrap();
    scene.server = None;
    let ran = scene.stage.haul(&["resume", "--all", "--json"]).ends(3);
    assert_same(&std::fs::read(other.destination()).unwrap(), &other.contents, "that of the other server");
    let events: Vec<Value> = ran.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let failed = events.iter().find(|event| event["status"] == "failed").unwrap();
    assert_eq!(failed["error"]["kind"], "connection_refused", "{failed}");
    assert_eq!(scene.only().1.kept, kept, "what could not be reached stays as it is");
}

#[test]
fn what_is_at_work_is_left_to_it() {
    let scene = Scene::new(SFTP, Way::Get);
    let child = scene.begin(&["--segments", "1"]);
    let (id, about) = scene.only();
    assert_eq!(about.state, State::Running);
    let list = scene.stage.haul(&["resume", "--list"]).ends(0);
    assert!(list.out().contains("at work now"), "{}", list.out());
    let ran = scene.stage.haul(&["resume", &id]).ends(1);
    assert!(ran.err().contains("another haul"), "{}", ran.err());
    let ran = scene.stage.haul(&["resume", "--all"]).ends(0);
    assert!(ran.err().contains("at work now"), "{}", ran.err());
    let ran = scene.stage.haul(&["resume", "--forget", &id]).ends(1);
    assert!(ran.err().contains("another haul"), "{}", ran.err());
    assert_eq!(scene.parts().len(), 1);
    Ran::from(child.wait_with_output().unwrap()).ends(0);
    scene.assert_arrived();
}

/// Between two attempts as well: whoever waits to try again has not let go of the file.
#[test]
fn what_waits_for_its_next_attempt_is_at_work() {
    let mut scene = Scene::new(SFTP, Way::Get);
    let mut child = scene.command(&["--limit-rate", "4M", "--retries", "20", "--segments", "1"]).spawn().unwrap();
    scene.wait_for(&mut child, SOME);
    let id = scene.only().0;
    scene.server = None;
    // The note of the failed attempt comes before the wait.
    let journal = scene.stage.at(&format!("state/haul/transfers/{id}.journal"));
    crate::scene::until("an attempt failed", || {
        String::from_utf8_lossy(&std::fs::read(&journal).unwrap()).contains("\"note\":\"stopped\"")
    });
    assert_eq!(scene.only().1.state, State::Running);
    let ran = scene.stage.haul(&["resume", "--forget", &id]).ends(1);
    assert!(ran.err().contains("another haul"), "{}", ran.err());
    send(&child, Signal::INT);
    Ran::from(child.wait_with_output().unwrap()).ends(130);
    assert!(matches!(scene.only().1.state, State::Stopped(ref s) if s.kind == "cancelled"));
}

#[test]
fn a_lost_connection_is_the_reason_that_is_told() {
    let mut scene = Scene::new(SFTP, Way::Get);
    let child = scene.begin(&["--retries", "0"]);
    scene.server = None;
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert!([1, 3].contains(&ran.status), "{ran:?}");
    let about = scene.only().1;
    let State::Stopped(stopped) = about.state else { panic!("{about:?}") };
    assert!(["connection_lost", "connection_refused"].contains(&stopped.kind.as_str()), "{stopped:?}");
    let list = scene.stage.haul(&["resume"]).ends(0);
    assert!(list.out().contains(&stopped.why), "{}", list.out());
}

#[test]
fn a_source_that_is_gone_or_another_is_told() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::INT, &[]);
    std::fs::rename(scene.source(), scene.stage.at("served/away")).unwrap();
    let ran = scene.stage.haul(&["resume", "--all"]).ends(1);
    assert!(ran.err().contains("big") && ran.err().to_lowercase().contains("no such file"), "{}", ran.err());
    assert_eq!(scene.left().len(), 1, "it may come back");
    let other = bytes(9, 5 * MIB);
    std::fs::write(scene.source(), &other).unwrap();
    let ran = scene.stage.haul(&["resume", "--all"]).ends(0);
    assert!(ran.err().contains("the source is another than when it was interrupted"), "{}", ran.err());
    assert_same(&std::fs::read(scene.destination()).unwrap(), &other, "the new one");
    assert!(scene.left().is_empty() && scene.parts().is_empty());
}

#[test]
fn a_destination_that_is_gone_is_told() {
    let scene = Scene::new(SFTP, Way::Get);
    std::fs::create_dir(scene.stage.at("work/sub")).unwrap();
    let mut command = scene.stage.command(&["get", "--limit-rate", "4M", &scene.url("big"), "sub/"]);
    let mut child = command.args(scene.trust()).spawn().unwrap();
    scene.wait_for(&mut child, SOME);
    send(&child, Signal::INT);
    child.wait().unwrap();
    let kept = scene.only().1.kept;
    std::fs::rename(scene.stage.at("work/sub"), scene.stage.at("work/away")).unwrap();
    let ran = scene.stage.haul(&["resume", "--all"]).ends(1);
    assert!(ran.err().contains("work/sub: the directory is not there"), "{}", ran.err());
    // As with a disk that is there again: what was moved still counts.
    std::fs::rename(scene.stage.at("work/away"), scene.stage.at("work/sub")).unwrap();
    let ran = scene.stage.haul(&["resume", "--all", "--json"]).ends(0);
    assert_eq!(number(&file_event(&ran)["resumed_from"]), kept);
    assert_same(&std::fs::read(scene.stage.at("work/sub/big")).unwrap(), &scene.contents, "what arrived");
}

/// What lies below the directory that the user named is reached through no link, now as at the beginning.
#[test]
fn a_link_that_was_planted_meanwhile_leads_nowhere() {
    let scene = Scene::new(SFTP, Way::Get);
    std::fs::create_dir_all(scene.stage.at("served/tree/sub")).unwrap();
    std::fs::rename(scene.source(), scene.stage.at("served/tree/sub/big")).unwrap();
    std::fs::create_dir(scene.stage.at("victim")).unwrap();
    let mut command = scene.stage.command(&["get", "-r", "--limit-rate", "4M", &scene.url("tree"), "."]);
    let mut child = command.args(scene.trust()).spawn().unwrap();
    scene.wait_for(&mut child, SOME);
    send(&child, Signal::INT);
    child.wait().unwrap();
    assert!(scene.only().1.request.several);
    std::fs::rename(scene.stage.at("work/tree/sub"), scene.stage.at("work/tree/away")).unwrap();
    symlink(scene.stage.at("victim"), scene.stage.at("work/tree/sub")).unwrap();
    let ran = scene.stage.haul(&["resume", "--all"]).ends(1);
    assert!(ran.err().contains("link"), "{}", ran.err());
    assert_eq!(std::fs::read_dir(scene.stage.at("victim")).unwrap().count(), 0);
    // Forgetting removes nothing through it either.
    std::fs::remove_file(scene.stage.at("work/tree/sub")).unwrap();
    std::fs::rename(scene.stage.at("work/tree/away"), scene.stage.at("work/tree/sub")).unwrap();
    scene.stage.haul(&["resume", "--all"]).ends(0);
    assert_same(&std::fs::read(scene.stage.at("work/tree/sub/big")).unwrap(), &scene.contents, "what arrived");
}

#[test]
fn a_file_that_is_there_meanwhile_leaves_nothing_to_resume() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::INT, &[]);
    std::fs::copy(scene.source(), scene.destination()).unwrap();
    let modified = scene.source().metadata().unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(scene.destination()).unwrap().set_modified(modified).unwrap();
    scene.stage.haul(&["resume", "--all"]).ends(0);
    scene.assert_arrived();
}

#[test]
fn journals_and_their_folder_are_nobody_elses() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::INT, &[]);
    let folder = scene.stage.at("state/haul/transfers");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), wanted, "{}", path.display());
    }
}

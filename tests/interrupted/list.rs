//! What the list says, and which ids it takes.

use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{SFTP, Scene, Way, number};
use crate::stage::Stage;

#[test]
fn the_list_says_what_where_how_much_and_why() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::INT, &[]);
    let (id, about) = scene.only();
    let ran = scene.stage.haul(&["resume"]).ends(0);
    let (out, to) = (ran.out(), scene.stage.path("work/big"));
    let percent = format!("({} %)", about.kept * 100 / scene.contents.len() as u64);
    for part in [&id[..8], "of 10.0 MiB", &percent, "interrupted", &scene.url("big"), &to] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(ran.err().contains("haul resume --all"), "{}", ran.err());
    let ran = scene.stage.haul(&["resume", "--list"]).ends(0);
    assert_eq!((ran.out(), ran.err().as_str()), (out, ""));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = scene.stage.command(&["resume"]).stdout(writer).output().unwrap();
    assert_eq!((gone.status.code(), gone.stderr.len()), (Some(141), 0), "as with haul resume | head");

    let ran = scene.stage.haul(&["resume", "--list", "--json"]).ends(0);
    let line: Value = serde_json::from_str(&ran.out()).unwrap();
    assert_eq!((line["id"].as_str(), line["state"].as_str()), (Some(id.as_str()), Some("stopped")));
    assert_eq!((number(&line["bytes"]), number(&line["size"])), (about.kept, scene.contents.len() as u64));
    assert_eq!(line["source"].as_str(), Some(scene.url("big").as_str()));
    assert_eq!(line["destination"], format!("file://{to}"));
    assert_eq!((line["reason"]["kind"].as_str(), line["several"].as_bool()), (Some("cancelled"), Some(false)));
    assert!(line["last"].as_str().is_some_and(|last| last.ends_with('Z')), "{line}");
}

#[test]
fn where_nothing_was_interrupted_there_is_nothing_to_do() {
    let stage = Stage::new();
    for args in [&["resume"][..], &["resume", "--list"], &["resume", "--all"], &["resume", "--forget", "--all"]] {
        let ran = stage.haul(args).ends(0);
        assert_eq!((ran.out().as_str(), ran.err().trim()), ("", "haul: nothing was interrupted"), "{args:?}");
    }
    let ran = stage.haul(&["resume", "--list", "--json"]).ends(0);
    assert_eq!((ran.out(), ran.err()), (String::new(), String::new()));
    assert!(!stage.at("state/haul").exists(), "looking makes nothing");
}

#[test]
fn ids_that_name_nothing_or_several_are_wrong_usage() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stage.haul(&["resume", "abc"]).ends(2);
    scene.stopped_by(Signal::INT, &[]);
    let id = scene.only().0;
    let other = if id.starts_with('0') { "1" } else { "0" };
    for args in [&["resume", other][..], &["resume", "--forget", other], &["resume", &id, other]] {
        let ran = scene.stage.haul(args).ends(2);
        assert!(ran.err().contains(&id[..8]), "what there is: {}", ran.err());
    }
    let journals = scene.stage.at("state/haul/transfers");
    let twin = format!("{}{}", &id[..15], if id.ends_with('0') { '1' } else { '0' });
    std::fs::write(journals.join(format!("{twin}.journal")), "?").unwrap();
    let ran = scene.stage.haul(&["resume", &id[..8]]).ends(2);
    assert!(ran.err().contains("several") && ran.err().contains(&id) && ran.err().contains(&twin), "{}", ran.err());
    for args in [
        &["resume", "--forget"][..],
        &["resume", "--all", &id],
        &["resume", "--list", &id],
        &["resume", "--leave-part", &id],
        &["resume", "--list", "--forget"],
        &["resume", "--forget", "--dry-run", &id],
    ] {
        scene.stage.haul(args).ends(2);
    }
    scene.stage.haul(&["resume", "--dry-run", &id]).ends(0);
    assert_eq!(scene.parts().len(), 1);
    assert!(!scene.destination().exists());
}

#[test]
fn journals_that_are_of_no_use_are_listed_and_can_be_forgotten() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::INT, &[]);
    let id = scene.only().0;
    let journal = scene.stage.at(&format!("state/haul/transfers/{id}.journal"));
    let whole = std::fs::read_to_string(&journal).unwrap();
    let newer = whole.replacen("\"version\":1", "\"version\":2", 1);
    let moved = whole.replacen("/big", "/pig", 1);
    for text in ["", "{", "garbage\n", newer.as_str(), moved.as_str()] {
        std::fs::write(&journal, text).unwrap();
        let list = scene.stage.haul(&["resume", "--list"]).ends(0);
        assert!(list.out().contains(&id[..8]) && list.out().contains("of another"), "{text:?}: {}", list.out());
        let ran = scene.stage.haul(&["resume", "--all"]).ends(0);
        assert!(ran.err().contains("--forget"), "{}", ran.err());
        let ran = scene.stage.haul(&["resume", &id]).ends(1);
        assert!(ran.err().contains("--forget"), "{}", ran.err());
    }
    // The same command starts anew, whatever is there.
    std::fs::write(&journal, "garbage\n").unwrap();
    scene.stage.haul(&["resume", "--forget", &id]).ends(0);
    assert!(scene.left().is_empty());
    crate::stage::Ran::from(scene.command(&[]).output().unwrap()).ends(0);
    scene.assert_arrived();
}

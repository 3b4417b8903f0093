//! `haul resume --forget` removes part and journal, or says what it can't.

use rustix::process::Signal;

use crate::scene::{FTP, SFTP, Scene, Way};

#[test]
fn part_and_journal_are_removed_here_and_there() {
    for (protocol, way) in [(SFTP, Way::Get), (SFTP, Way::Put), (FTP, Way::Put)] {
        let scene = Scene::new(protocol, way);
        scene.stopped_by(Signal::KILL, &[]);
        let id = scene.only().0;
        assert_eq!(scene.parts().len(), 1);
        let ran = scene.stage.haul(&["resume", "--forget", &id[..6]]).ends(0);
        assert!(ran.err().contains("forgot") && scene.left().is_empty(), "{}", ran.err());
        assert_eq!(scene.parts(), [""; 0]);
        assert!(scene.source().exists() && !scene.destination().exists());
    }
}

#[test]
fn all_are_forgotten_in_json() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::KILL, &[]);
    let id = scene.only().0;
    let ran = scene.stage.haul(&["resume", "--forget", "--all", "--json"]).ends(0);
    let line: serde_json::Value = serde_json::from_str(&ran.out()).unwrap();
    assert_eq!((line["event"].as_str(), line["id"].as_str()), (Some("forgotten"), Some(id.as_str())));
    assert!(scene.left().is_empty() && scene.parts().is_empty());
}

#[test]
fn a_server_that_is_gone_keeps_it_listed() {
    let mut scene = Scene::new(SFTP, Way::Put);
    scene.stopped_by(Signal::INT, &[]);
    scene.server = None;
    let ran = scene.stage.haul(&["resume", "--forget", "--all"]).ends(3);
    assert!(ran.err().contains("stays listed") && ran.err().contains("--leave-part"), "{}", ran.err());
    assert_eq!((scene.left().len(), scene.parts().len()), (1, 1));
    scene.stage.haul(&["resume", "--forget", "--all", "--leave-part"]).ends(0);
    assert_eq!((scene.left().len(), scene.parts().len()), (0, 1));
}

#[test]
fn a_part_that_is_gone_is_no_reason_to_keep_the_journal() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::INT, &[]);
    std::fs::remove_file(scene.stage.at("work").join(&scene.parts()[0])).unwrap();
    scene.stage.haul(&["resume", "--forget", "--all"]).ends(0);
    assert!(scene.left().is_empty());
}

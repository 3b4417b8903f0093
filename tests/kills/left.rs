//! What a process leaves that is killed in the blink of an eye between two steps, put there by hand.

use std::path::Path;

use crate::scene::{Direction, Scene, Way, ended};
use crate::support::client::{events, told};
use crate::support::data::{Dice, seed};
use crate::support::serving::Serving;

/// Behind the rename, before its journal is gone.
#[test]
fn a_journal_of_what_is_complete_goes_with_the_next_run() {
    let serving = Serving::start(Path::new(env!("CARGO_BIN_EXE_haul")), "sftp");
    for direction in [Direction::Get, Direction::Put] {
        let way = Way { direction, segments: 1 };
        let mut scene = Scene::new(&serving.server, way, seed());
        let copy = scene.copy(&mut Dice::new(0));
        let mut child = copy.command(&serving.server, true).spawn().unwrap();
        let aside = tempfile::tempdir().unwrap();
        let mut kept = Vec::new();
        while child.try_wait().unwrap().is_none() && kept.is_empty() {
            if copy.written_down() == 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
                continue;
            }
            for path in copy.traces().into_keys().filter(|path| is_temporary(path)) {
                let to = aside.path().join(kept.len().to_string());
                if std::fs::copy(&path, &to).is_ok() {
                    kept.push((path, to));
                }
            }
        }
        assert_eq!(kept.len(), 2, "a journal and a part: {kept:?}");
        ended(child, "the first run");
        assert!(copy.faults().is_empty(), "{:?}", copy.faults());
        for (path, from) in &kept {
            std::fs::copy(from, path).unwrap();
        }
        let again = ended(copy.command(&serving.server, false).spawn().unwrap(), "the second run");
        assert_eq!(events(&again, "file")[0]["status"], "skipped", "{}", told(&again));
        assert!(copy.faults().is_empty(), "{direction:?}: {:?}", copy.faults());
    }
}

fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "part" || extension == "journal")
}

/// While something in the state folder is written for the first time.
#[test]
fn what_was_being_written_in_the_state_folder_is_finished_or_removed() {
    let serving = Serving::start(Path::new(env!("CARGO_BIN_EXE_haul")), "sftp");
    let mut scene = Scene::new(&serving.server, Way { direction: Direction::Get, segments: 1 }, seed());
    let copy = scene.copy(&mut Dice::new(1));
    let journals = copy.client.journals();
    std::fs::create_dir_all(&journals).unwrap();
    std::fs::write(journals.join("installation.new"), "half of").unwrap();
    std::fs::write(journals.with_file_name("hosts.new"), "{\"sftp://").unwrap();
    let run = ended(copy.command(&serving.server, false).spawn().unwrap(), "a run");
    assert!(run.status.success(), "{}", told(&run));
    assert!(copy.faults().is_empty(), "{:?}", copy.faults());
    assert_eq!(std::fs::read(journals.join("installation")).unwrap().len(), 16);
}

//! What nobody has worked on for 30 days is cleared away; nothing else is.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::scene::{SFTP, Scene, Way};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes a file as old as this.
fn age(path: &Path, days: u32) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - DAY * days).unwrap();
}

/// Makes journal and part so old, and lets the next run clear away.
fn make_old(scene: &Scene, journal: u32, part: u32) {
    let folder = scene.stage.at("state/haul/transfers");
    age(&folder.join(format!("{}.journal", scene.only().0)), journal);
    age(&scene.destination().with_file_name(&scene.parts()[0]), part);
    let _ = std::fs::remove_file(folder.join("cleared"));
}

/// A run that has nothing to do with it.
fn run_another(scene: &Scene) {
    scene.stage.file("work/small", "1", 0o644);
    let target = scene.stage.path("work/copied");
    scene.stage.haul(&["put", "-f", "small", &format!("file://{target}")]).ends(0);
}

#[test]
fn after_thirty_days_journal_and_part_are_removed() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::KILL, &[]);
    make_old(&scene, 29, 29);
    run_another(&scene);
    assert_eq!((scene.left().len(), scene.parts().len()), (1, 1), "it is not old enough");
    make_old(&scene, 31, 29);
    run_another(&scene);
    assert_eq!((scene.left().len(), scene.parts().len()), (1, 1), "its part is not old enough");
    make_old(&scene, 31, 31);
    std::fs::write(scene.stage.at("state/haul/transfers/cleared"), "1").unwrap();
    run_another(&scene);
    assert_eq!((scene.left().len(), scene.parts().len()), (1, 1), "it was done today");
    make_old(&scene, 31, 31);
    run_another(&scene);
    assert_eq!((scene.left().len(), scene.parts().len()), (0, 0));
}

#[test]
fn what_lies_on_a_server_is_listed_for_a_year() {
    let scene = Scene::new(SFTP, Way::Put);
    scene.stopped_by(Signal::KILL, &[]);
    make_old(&scene, 364, 364);
    run_another(&scene);
    assert_eq!((scene.left().len(), scene.parts().len()), (1, 1));
    make_old(&scene, 366, 366);
    run_another(&scene);
    assert_eq!((scene.left().len(), scene.parts().len()), (0, 1));
}

#[test]
fn whoever_goes_on_with_it_in_time_finds_it() {
    let scene = Scene::new(SFTP, Way::Get);
    scene.stopped_by(Signal::INT, &[]);
    make_old(&scene, 400, 400);
    let kept = scene.only().1.kept;
    let ran = crate::stage::Ran::from(scene.command(&["--json"]).output().unwrap()).ends(0);
    assert_eq!(crate::scene::file_event(&ran)["resumed_from"], kept);
    scene.assert_arrived();
}

#[test]
fn nothing_is_taken_from_who_is_at_work() {
    let scene = Scene::new(SFTP, Way::Get);
    let child = scene.begin(&["--segments", "1"]);
    make_old(&scene, 31, 31);
    run_another(&scene);
    crate::stage::Ran::from(child.wait_with_output().unwrap()).ends(0);
    scene.assert_arrived();
}

#[test]
fn a_disk_that_is_away_may_come_back() {
    let scene = Scene::new(SFTP, Way::Get);
    std::fs::create_dir(scene.stage.at("work/disk")).unwrap();
    let mut command = scene.stage.command(&["get", "--limit-rate", "4M", &scene.url("big"), "disk/"]);
    let mut child = command.args(scene.trust()).spawn().unwrap();
    scene.wait_for(&mut child, crate::scene::SOME);
    crate::scene::send(&child, Signal::KILL);
    child.wait().unwrap();
    let folder = scene.stage.at("state/haul/transfers");
    age(&folder.join(format!("{}.journal", scene.only().0)), 40);
    std::fs::rename(scene.stage.at("work/disk"), scene.stage.at("work/away")).unwrap();
    run_another(&scene);
    assert_eq!(scene.left().len(), 1);
    std::fs::rename(scene.stage.at("work/away"), scene.stage.at("work/disk")).unwrap();
    scene.stage.haul(&["resume", "--all"]).ends(0);
    assert_eq!(std::fs::read(scene.stage.at("work/disk/big")).unwrap().len(), scene.contents.len());
}

//! Two runs at once, runs that are cut, and going on behind them.

use std::time::{Duration, Instant};

use super::*;
use support::client::{is_part, names_below, told};

/// Waits for a part in the folder at the server: then a large file is on its way.
fn wait_for_part(scene: &Scene, child: &mut Child) {
    let begin = Instant::now();
    while !names_below(&scene.far("")).iter().any(is_part) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it was in the middle");
        assert!(begin.elapsed() < Duration::from_secs(60), "never began");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory, then a file that takes long, then another directory.
fn slow(scene: &Scene) {
    scene.file("large", &"x".repeat(24 << 20));
    scene.file(
        "jobs.toml",
        "lock = true\n[[job]]\nname = \"dir\"\nmkdir = \"[URL]/dir\"\n[[job]]\nname = \"large\"\nput = \"large\"\n\
         to = \"[URL]/dir/\"\n[[job]]\nname = \"last\"\nmkdir = \"[URL]/last\"\n",
    );
}

const SLOW: [&str; 3] = ["--limit-rate", "4M", "jobs.toml"];

#[test]
fn a_second_run_says_who_holds_the_lock() {
    let scene = Scene::own("sftp", "lock");
    slow(&scene);
    let mut first = scene.command(&SLOW).spawn().unwrap();
    wait_for_part(&scene, &mut first);
    let second = scene.batch(&["jobs.toml"]);
    assert_eq!(second.status.code(), Some(6), "{}", told(&second));
    assert!(stderr(&second).contains(&format!("process {} holds the lock since 20", first.id())), "{}", told(&second));
    signal(&first, "KILL");
    first.wait().unwrap();
    // Nobody holds it now, though the file lies there.
    let third = scene.batch(&["jobs.toml"]);
    assert_eq!(third.status.code(), Some(0), "{}", told(&third));
}

#[test]
fn a_run_that_was_killed_is_gone_on_with() {
    let scene = Scene::own("sftp", "killed");
    slow(&scene);
    let mut child = scene.command(&SLOW).spawn().unwrap();
    wait_for_part(&scene, &mut child);
    signal(&child, "KILL");
    child.wait().unwrap();
    let output = scene.batch(&["jobs.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let statuses: Vec<_> = ends(&output).into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, ["skipped", "done", "done"], "{}", told(&output));
    assert_eq!(std::fs::metadata(scene.far("dir/large")).unwrap().len(), 24 << 20);
    // Behind a run that came to its end, the next does all of it: here the directory is there.
    let again = scene.batch(&["jobs.toml"]);
    assert_eq!(ends(&again)[0].1, "failed", "{}", told(&again));
    assert_eq!(scene.batch(&["--no-resume", "jobs.toml"]).status.code(), Some(1));
}

#[test]
fn ctrl_c_stops_in_order_and_tells_what_is_left() {
    let scene = Scene::own("ftp", "ctrl-c");
    slow(&scene);
    let mut child = scene.command(&SLOW).spawn().unwrap();
    wait_for_part(&scene, &mut child);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", told(&output));
    assert!(stderr(&output).contains("not begun: last"), "{}", told(&output));
    let statuses: Vec<_> = ends(&output).into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, ["done", "interrupted", "left"], "{}", told(&output));
    let output = scene.batch(&["jobs.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(events(&output, "file")[0]["resumed_from"].as_u64().is_some_and(|from| from > 0), "{}", told(&output));
}

#[test]
fn a_script_stops_in_order_too() {
    let scene = Scene::own("sftp", "script-ctrl-c");
    scene.file("large", &"x".repeat(24 << 20));
    scene.file("script", "put large\nmkdir never\n");
    let mut child = scene.command(&["--limit-rate", "4M", "--endpoint", &scene.url(""), "script"]).spawn().unwrap();
    wait_for_part(&scene, &mut child);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", told(&output));
    assert!(stderr(&output).contains("script:1:1: the script ends here; 1 command not begun"), "{}", told(&output));
    assert!(!scene.far("never").exists());
}

//! Reports that can't be written: found before anything moves, or told at the end.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use haul::serve::Protocol;

use crate::scene::{Ran, Scene, write};

#[test]
fn what_cannot_be_written_is_found_before_anything_moves() {
    let scene = Scene::own(Protocol::Sftp);
    write(&scene.near("file"), b"1");
    std::fs::create_dir(scene.near("d.json")).unwrap();
    for (options, said) in [
        (&["--report", "none/r.json"][..], "none/r.json"),
        (&["--report", "d.json"], "d.json: is there and is no file"),
        (&["--report", "/proc/r.html"], "/proc/r.html"),
        (&["--report", "r.txt"], "r.txt: a report is called .json or .html"),
        (&["--report", "r.json", "--report", "r.json"], "r.json: is named twice"),
        (&["--report", "ok.json", "--metrics", "none/m.prom"], "none/m.prom"),
        (&["--metrics", "/dev/null"], "/dev/null: is there and is no file"),
        (&["--syslog=none/log"], "none/log: reach the system's log"),
    ] {
        let ran = scene.run(&[&["put", "file", &scene.url("")], options].concat()).ends(2);
        assert!(ran.err.contains(said), "{options:?}: {}", ran.err);
        assert!(!scene.far("file").exists(), "{options:?}");
    }
    // None of them has left anything.
    let left: Vec<_> = std::fs::read_dir(scene.near("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

/// A full disk, as far as a program that may write no longer files can tell.
#[test]
fn a_report_that_fails_in_the_end_changes_the_exit_status() {
    let scene = Scene::own(Protocol::Sftp);
    for number in 0..60 {
        write(&scene.near(&format!("tree/{number}")), b"1");
    }
    write(&scene.near("r.json"), b"before");
    let plain = scene.command(&["put", "-r", "tree", &scene.url(""), "--report", "r.json", "--metrics", "m.prom"]);
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -f 16 && exec \"$@\"", "bash"]).arg(plain.get_program()).args(plain.get_args());
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = Ran::from(command.current_dir(scene.near("")).output().unwrap()).ends(1);
    assert!(ran.err.contains("r.json: write the report"), "{}", ran.err);
    assert_eq!(std::fs::read_dir(scene.far("tree")).unwrap().count(), 60, "the files are there all the same");
    assert_eq!(std::fs::read(scene.near("r.json")).unwrap(), b"before", "and so is the last report");
    assert!(scene.near("m.prom").exists(), "and the other one");
    let names = std::fs::read_dir(scene.near("")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names.filter(|name| name.starts_with('.')).count() == 0);
}

#[test]
fn reports_are_private_and_numbers_are_not() {
    let scene = Scene::own(Protocol::Sftp);
    write(&scene.near("file"), b"1");
    scene.run(&["put", "file", &scene.url(""), "--report", "r.json", "--metrics", "m.prom"]).ends(0);
    let mode = |name: &str| std::fs::metadata(scene.near(name)).unwrap().mode() & 0o777;
    assert_eq!(mode("r.json"), 0o600);
    assert_eq!(mode("m.prom"), 0o644);
}

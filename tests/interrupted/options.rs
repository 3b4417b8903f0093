//! A transfer goes on with the options that it was begun with; secrets are not among what is kept.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::scene::{FTPES, SFTP, SOME, Scene, Way, file_event, send};
use crate::stage::{Ran, files_below, holds};

#[test]
fn options_come_back_from_wherever_it_is_called() {
    let scene = Scene::new(SFTP, Way::Get);
    std::fs::set_permissions(scene.source(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let password = scene.stage.file("home/pw", "right\n", 0o600);
    // All of them relative to where it is called; without them, nobody trusts the server or logs in.
    let mut command =
        scene.stage.command(&["get", &scene.url("big"), "--limit-rate", "4M", "-p", "--verify", "digest"]);
    command.env_remove("HAUL_PASSWORD").args(["--password-file", "../home/pw", "--ssh-config", "none"]);
    command.args(["--known-hosts", "../home/known", "--host-key", "accept-new"]);
    let mut child = command.spawn().unwrap();
    scene.wait_for(&mut child, SOME);
    send(&child, Signal::KILL);
    child.wait().unwrap();
    let resume = |more: &[&str]| {
        let mut command = scene.stage.command(&["resume", "--all", "--json"]);
        command.args(more).current_dir("/").env_remove("HAUL_PASSWORD");
        Ran::from(command.output().unwrap())
    };
    // What is typed now wins.
    resume(&["--known-hosts", "none", "--host-key", "strict"]).ends(3);
    let wrong = scene.stage.file("home/wrong", "wrong\n", 0o600);
    resume(&["--password-file", &wrong]).ends(3);
    let ran = resume(&["--limit-rate", "1G"]).ends(0);
    assert_eq!(file_event(&ran)["verified"], "digest");
    assert_eq!(scene.destination().metadata().unwrap().permissions().mode() & 0o777, 0o640);
    scene.assert_arrived();
    assert!(std::path::Path::new(&password).exists());
}

#[test]
fn what_is_gone_on_with_keeps_its_options_once_more() {
    let scene = Scene::new(FTPES, Way::Get);
    scene.stopped_by(Signal::KILL, &["--verify", "digest"]);
    let mut command = scene.stage.command(&["resume", "--all", "--durable", "--limit-rate", "2M"]);
    let before = scene.only().1;
    let mut child = command.spawn().unwrap();
    scene.wait_for(&mut child, before.kept + 1);
    send(&child, Signal::KILL);
    child.wait().unwrap();
    let kept = scene.only().1.request.options;
    for option in ["--verify=digest", "--durable", "--limit-rate=2M"] {
        assert!(kept.iter().any(|kept| kept == option), "{option} in {kept:?}");
    }
    assert!(kept.iter().any(|kept| kept.starts_with("--tls-ca=/")), "{kept:?}");
    scene.stage.haul(&["resume", "--all", "--limit-rate", "1G"]).ends(0);
    scene.assert_arrived();
}

#[test]
fn no_secret_is_kept() {
    let mut scene = Scene::new(crate::scene::FTP, Way::Get);
    scene.stage.env.push(("ALL_PROXY", String::new().into()));
    let marker = "m4rK3r-n0b0dy-5ees";
    scene.stage.env.push(("NO_PROXY", "*".into()));
    scene.stopped_by(Signal::KILL, &["--ftp-account", marker]);
    for (path, contents) in files_below(&scene.stage.at("state")) {
        let found = holds(&contents, marker.as_bytes()) || holds(&contents, b"right");
        assert!(!found, "a secret in {}", path.display());
    }
    scene.stage.haul(&["resume", "--all"]).ends(0);
    scene.assert_arrived();
}

#[test]
fn settings_of_a_profile_count() {
    let mut scene = Scene::new(SFTP, Way::Get);
    scene.stage.env.clear();
    scene.stage.file("home/.config/haul/pw", "right\n", 0o600);
    let profile = |url: &str| {
        format!(
            "[profile.work]\nurl = \"{url}\"\nhost-key = \"accept-new\"\nknown-hosts = \"known\"\nssh-config = \"none\"\n\
             password-file = \"pw\"\n"
        )
    };
    scene.stage.config(&profile(&scene.url("")));
    let mut child = scene.stage.command(&["get", "--limit-rate", "4M", "work:big", "."]).spawn().unwrap();
    scene.wait_for(&mut child, SOME);
    send(&child, Signal::INT);
    child.wait().unwrap();
    // A profile that names another server now is none of this transfer's, nor is its password.
    scene.stage.config(&profile("sftp://me@127.0.0.1:1/"));
    let ran = scene.stage.haul(&["resume", "--all"]).ends(3);
    assert!(ran.err().contains("the profile work doesn't name"), "{}", ran.err());
    scene.stage.config(&profile(&scene.url("")));
    scene.stage.haul(&["resume", "--all"]).ends(0);
    scene.assert_arrived();
}

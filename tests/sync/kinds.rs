//! Links, and one kind of thing in the way of another.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::scene::*;
use crate::support::client::names_below;
use crate::support::data::{MIB, bytes};

#[test]
fn links_are_kept_followed_or_skipped() {
    for kind in ["local", "openssh", "embedded sftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let from = scene.near("from");
        scene.plant(&from, &[("file", Some(("file", 1_600_000_000))), ("dir/x", Some(("x", 1_600_000_000)))]);
        for (name, target) in [("to-file", "file"), ("to-dir", "dir"), ("broken", "no/where")] {
            scene.plant_link(&from.disk.join(name), target);
        }
        let keep = scene.far("keep");
        scene.plant(&keep, &[]);
        scene.plant_link(&keep.disk.join("to-file"), "elsewhere");
        scene.plant_file(&keep.disk.join("to-dir"), b"in the place of a link", 1);
        scene.sync(&from, &keep, &["--delete"]).fine();
        assert_eq!(tree(&from.disk), tree(&keep.disk), "{kind}");
        assert_eq!(scene.sync(&from, &keep, &["--delete"]).fine().changes(""), [""; 0], "{kind}");

        let skip = scene.far("skip");
        scene.sync(&from, &skip, &["--links", "skip"]).fine();
        assert_eq!(contents(&skip.disk).into_keys().collect::<Vec<_>>(), ["dir", "dir/x", "file"], "{kind}");

        let follow = scene.far("follow");
        let told = scene.sync(&from, &follow, &["--links", "follow"]);
        assert_eq!(told.status(), 1, "{kind}: a link that leads nowhere can't be followed");
        let names: Vec<_> = contents(&follow.disk).into_keys().collect();
        assert_eq!(names, ["dir", "dir/x", "file", "to-file"], "{kind}");
        std::fs::remove_file(from.disk.join("broken")).unwrap();
        let again = scene.sync(&from, &follow, &["--links", "follow", "--delete"]);
        assert_eq!(again.fine().changes("follow/"), [""; 0], "{kind}: {}", again.text());
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    for kind in ["local", "openssh", "embedded sftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to, outside) = (scene.near("from"), scene.far("to"), scene.far("outside"));
        scene.plant(&from, &[("f", Some(("evil", 1_600_000_000))), ("d/x", Some(("evil", 1_600_000_000)))]);
        scene.plant(&outside, &[("f", Some(("precious", 1))), ("d", None)]);
        scene.plant(&to, &[]);
        scene.plant_link(&to.disk.join("f"), "../outside/f");
        scene.plant_link(&to.disk.join("d"), "../outside/d");
        let told = scene.sync(&from, &to, &[]);
        assert_eq!(told.status(), 1, "{kind}: {}", told.text());
        assert_eq!(contents(&outside.disk)["f"].as_deref(), Some(&b"precious"[..]), "{kind}");
        assert_eq!(contents(&outside.disk).len(), 2, "{kind}: {}", told.text());
        assert_eq!(std::fs::read(to.disk.join("f")).unwrap(), b"evil");
        scene.sync(&from, &to, &["--replace-kinds"]).fine();
        assert_eq!(tree(&from.disk), tree(&to.disk), "{kind}");
        assert_eq!(contents(&outside.disk).len(), 2, "{kind}");
    }
}

#[test]
fn another_kind_of_thing_stays_in_the_way_unless_that_is_asked_for() {
    for kind in ["local", "openssh", "vsftpd", "embedded ftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(
            &from,
            &[
                ("x", Some(("file", 1_600_000_000))),
                ("y/z/inside", Some(("i", 1_600_000_000))),
                ("fine", Some(("f", 1_600_000_000))),
            ],
        );
        scene.plant(&to, &[("x/deep/kept", Some(("kept", 1))), ("y", Some(("file", 1)))]);
        for options in [&[][..], &["--dry-run"]] {
            let told = scene.sync(&from, &to, options);
            assert_eq!(told.status(), 1, "{kind}: {}", told.text());
            assert!(told.text().contains("in the way") && told.text().contains("--replace-kinds"), "{kind}");
        }
        assert!(to.disk.join("x/deep/kept").exists() && to.disk.join("y").is_file(), "{kind}");
        let planned = scene.sync(&from, &to, &["--delete", "--dry-run"]);
        let told = scene.sync(&from, &to, &["--delete", "--max-delete", "4"]);
        let wanted = ["delete x", "delete x/deep", "delete x/deep/kept", "delete y", "file x", "file y/z/inside"];
        assert_eq!(told.fine().changes("to/"), wanted, "{kind}: {}", told.text());
        assert_eq!(planned.fine().changes("to/"), wanted, "{kind}");
        assert_eq!(tree(&from.disk), tree(&to.disk), "{kind}");
    }
}

#[test]
fn neither_may_lie_in_the_other() {
    for kind in ["local", "openssh", "embedded sftp", "embedded ftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let outer = scene.far("outer");
        scene.plant(&outer, &[("inner/x", Some(("x", 1)))]);
        let inner = End { disk: outer.disk.join("inner"), url: format!("{}/inner", outer.url) };
        let deeper = End { disk: PathBuf::new(), url: format!("{}/not/there/yet", outer.url) };
        for (from, to) in [(&outer, &inner), (&inner, &outer), (&outer, &outer), (&outer, &deeper)] {
            let told = scene.sync(from, to, &["--delete"]);
            assert_eq!(told.status(), 2, "{kind}: {} {}: {}", from.url, to.url, told.text());
        }
        assert_eq!(contents(&outer.disk).len(), 2, "{kind}");
        if kind == "local" {
            scene.plant_link(&scene.near("link").disk, &outer.disk.display().to_string());
            assert_eq!(scene.sync(&scene.near("link"), &inner, &[]).status(), 2);
        }
    }
}

/// The tree and its times stay as they were until the file that takes its place is complete, whatever keeps it from that.
#[test]
fn a_directory_stays_until_the_file_in_its_place_is_complete() {
    for (kind, up) in [("embedded ftp", false), ("embedded sftp", false), ("local", true)] {
        let scene = Scene::new(kind).unwrap();
        let (near, far) = (scene.near("near"), scene.far("far"));
        let (from, to) = if up { (near, far) } else { (far, near) };
        scene.plant_file(&from.disk.join("x"), &bytes(1, 4 * MIB), 1_600_000_000);
        scene.plant(&to, &[("x/deep/kept", Some(("kept", 1))), ("x/y", Some(("y", 1)))]);
        let before = tree(&to.disk);
        let mut child = scene.start(&from, &to, &["--delete", "--limit-rate", "1M"]);
        wait_for(&mut child, || names_below(&to.disk).iter().any(|name| name.contains(".haul-")));
        assert!(to.disk.join("x/deep/kept").exists(), "{kind}: it went before the file had come");
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &*pid]).status().unwrap().success());
        let ended = Told(child.wait_with_output().unwrap());
        assert_eq!(ended.status(), 130, "{kind}: {}", ended.text());
        let mut after = tree(&to.disk);
        after.retain(|name, _| !name.contains(".haul-"));
        assert_eq!(after, before, "{kind}");
        let told = scene.sync(&from, &to, &["--delete"]);
        assert_eq!(told.fine().total("deleted"), 4, "{kind}: {}", told.text());
        assert_eq!(tree(&from.disk), tree(&to.disk), "{kind}");
    }
}

#[test]
fn what_can_not_be_read_or_made_takes_no_place() {
    for kind in ["openssh", "vsftpd", "proftpd"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.far("from"), scene.near("to"));
        scene.plant(&from, &[("x", Some(("file", 1_600_000_000)))]);
        if std::fs::metadata(from.disk.join("x")).unwrap().uid() == 0 {
            eprintln!("{kind} runs as root, who may read everything");
            continue;
        }
        set_mode(from.disk.join("x"), 0);
        scene.plant(&to, &[("x/deep/kept", Some(("kept", 1)))]);
        let before = tree(&to.disk);
        let told = scene.sync(&from, &to, &["--delete"]);
        assert_eq!(told.status(), 1, "{kind}: {}", told.text());
        assert_eq!(tree(&to.disk), before, "{kind}");
    }
}

/// As a kill may leave them: displaced, and what replaces them there or not.
#[test]
fn what_a_killed_run_displaced_is_put_right_by_the_next() {
    for kind in ["local", "openssh"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(&from, &[("in/x", Some(("file", 1_600_000_000)))]);
        let aside = |name: &str| {
            let id = blake3::hash(format!("{}/in/{name}", to.disk.display()).as_bytes()).to_hex();
            to.disk.join(format!("in/.{name}.haul-{}.displaced", &id[..16]))
        };
        scene.plant(&to, &[]);
        for name in ["x", "gone"] {
            scene.plant_file(&aside(name).join("deep/kept"), b"kept", 1);
        }
        // Without --delete nothing of it goes, but a free name is taken back.
        let told = scene.sync(&from, &to, &[]);
        told.fine();
        assert_eq!(std::fs::read(to.disk.join("in/gone/deep/kept")).unwrap(), b"kept", "{kind}: {}", told.text());
        assert!(aside("x").join("deep/kept").exists(), "{kind}");
        let refused = scene.sync(&from, &to, &["--delete", "--max-delete", "5"]);
        assert_eq!(refused.status(), 1, "{kind}: {}", refused.text());
        assert!(aside("x").join("deep/kept").exists(), "{kind}");
        let old = scene.far("old");
        let told = scene.sync(&from, &to, &["--delete", "--backup-dir", &old.url]);
        assert_eq!(told.fine().total("deleted"), 6, "{kind}: {}", told.text());
        assert_eq!(contents(&from.disk), contents(&to.disk), "{kind}");
        for name in ["x", "gone"] {
            let kept = old.disk.join(format!("in/{name}/deep/kept"));
            assert_eq!(std::fs::read(kept).unwrap(), b"kept", "{kind}");
        }
    }
}

#[test]
fn a_file_comes_back_if_no_directory_can_take_its_place() {
    let scene = Scene::new("embedded ftp").unwrap();
    let (from, to) = (scene.near("from"), scene.far("to"));
    // FTP can't say the name in it, so that the directory is made and not filled.
    scene.plant(&from, &[("y/a\nb", Some(("b", 1_600_000_000)))]);
    scene.plant(&to, &[("y", Some(("precious", 1)))]);
    let told = scene.sync(&from, &to, &["--delete", "--progress", "plain"]);
    assert_eq!(told.status(), 1, "{}", told.text());
    let kept = contents(&to.disk).into_values().flatten().any(|contents| contents == b"precious");
    assert!(kept && told.text().contains("is kept as"), "{}", told.text());
    std::fs::remove_file(from.disk.join("y/a\nb")).unwrap();
    scene.plant(&from, &[("y/fine", Some(("fine", 1_600_000_000)))]);
    scene.sync(&from, &to, &["--delete"]).fine();
    assert_eq!(tree(&from.disk), tree(&to.disk));
}

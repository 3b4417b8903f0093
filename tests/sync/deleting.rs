//! What is deleted, when, and what never is.

use crate::scene::*;

#[test]
fn without_delete_nothing_goes() {
    let scene = Scene::new("local").unwrap();
    let (from, to) = (scene.near("from"), scene.near("to"));
    scene.plant(&from, &[("a", Some(("a", 1_600_000_000)))]);
    scene.plant(&to, &[("old/b", Some(("b", 1_600_000_000)))]);
    scene.sync(&from, &to, &[]).fine();
    assert_eq!(contents(&to.disk).into_keys().collect::<Vec<_>>(), ["a", "old", "old/b"]);
}

#[test]
fn an_empty_source_deletes_nothing_unless_forced() {
    for kind in ["local", "openssh", "vsftpd", "embedded sftp", "embedded ftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.far("from"), scene.near("to"));
        scene.plant(&from, &[]);
        scene.plant(&to, &[("a/b", Some(("b", 1_600_000_000))), ("c", Some(("c", 1_600_000_000)))]);
        let told = scene.sync(&from, &to, &["--delete"]);
        assert_eq!(told.status(), 1, "{kind}: {}", told.text());
        assert!(told.text().contains("the source is empty") && told.text().contains("--force-delete"), "{kind}");
        assert_eq!(contents(&to.disk).len(), 3, "{kind}");
        scene.sync(&from, &to, &["--delete", "--force-delete"]).fine();
        assert_eq!(contents(&to.disk).len(), 0, "{kind}");
        // A source that isn't there is not an empty one.
        std::fs::remove_dir(&from.disk).unwrap();
        scene.plant(&to, &[("c", Some(("c", 1_600_000_000)))]);
        assert_eq!(scene.sync(&from, &to, &["--delete", "--force-delete"]).status(), 1, "{kind}");
        assert_eq!(contents(&to.disk).len(), 1, "{kind}");
    }
}

#[test]
fn no_more_is_deleted_than_is_allowed() {
    let scene = Scene::new("embedded sftp").unwrap();
    let (from, to) = (scene.near("from"), scene.far("to"));
    scene.plant(&from, &[("new", Some(("new", 1_600_000_000)))]);
    scene.plant(&to, &[("a/b", Some(("b", 1_600_000_000))), ("c", Some(("c", 1_600_000_000)))]);
    for dry in [&["--dry-run"][..], &[]] {
        let told = scene.sync(&from, &to, &[&["--delete", "--max-delete", "2"], dry].concat());
        assert_eq!(told.status(), 1, "{}", told.text());
        assert!(told.text().contains("that would be 3, and --max-delete allows 2"), "{}", told.text());
        assert_eq!(told.total("deleted"), 0);
    }
    assert_eq!(contents(&to.disk).into_keys().collect::<Vec<_>>(), ["a", "a/b", "c", "new"], "but all is copied");
    assert_eq!(scene.sync(&from, &to, &["--delete", "--max-delete", "3"]).fine().total("deleted"), 3);
}

#[test]
fn nothing_is_deleted_after_a_failure() {
    for kind in ["embedded ftp", "vsftpd"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        // FTP has no way to say a line feed.
        scene.plant(&from, &[("a\nb", Some(("b", 1_600_000_000))), ("fine", Some(("x", 1_600_000_000)))]);
        scene.plant(&to, &[("old", Some(("b", 1_600_000_000)))]);
        let told = scene.sync(&from, &to, &["--delete", "--force-delete"]);
        assert_eq!(told.status(), 1, "{kind}: {}", told.text());
        assert!(told.text().contains("nothing is deleted: not everything was copied"), "{kind}: {}", told.text());
        assert_eq!(contents(&to.disk).into_keys().collect::<Vec<_>>(), ["fine", "old"], "{kind}");
    }
}

#[test]
fn a_source_directory_that_cannot_be_listed_deletes_nothing() {
    for kind in ["vsftpd", "proftpd", "openssh"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.far("from"), scene.near("to"));
        scene.plant(&from, &[("shut/a", Some(("a", 1_600_000_000))), ("b", Some(("b", 1_600_000_000)))]);
        scene.plant(&to, &[("shut/old", Some(("o", 1_600_000_000))), ("old", Some(("o", 1_600_000_000)))]);
        set_mode(from.disk.join("shut"), 0o000);
        let told = scene.sync(&from, &to, &["--delete"]);
        if told.status() == 0 {
            // The server's user is root, whom no mode stops.
            continue;
        }
        assert!(told.text().contains("could not be listed"), "{kind}: {}", told.text());
        assert_eq!(contents(&to.disk).into_keys().collect::<Vec<_>>(), ["b", "old", "shut", "shut/old"], "{kind}");
        // Forced, but not where nothing is known.
        let told = scene.sync(&from, &to, &["--delete", "--force-delete"]);
        assert_eq!(told.status(), 1, "{kind}");
        assert_eq!(contents(&to.disk).into_keys().collect::<Vec<_>>(), ["b", "shut", "shut/old"], "{kind}");
    }
}

#[test]
fn what_goes_is_kept_in_the_backup() {
    for kind in ["local", "openssh", "proftpd", "embedded sftp", "embedded ftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        for round in ["1", "2"] {
            scene.plant(&from, &[("f", Some((&*format!("new{round}"), 1_600_000_000))), ("k", Some(("k", 1)))]);
            scene.plant(&to, &[("f", Some((&*format!("old-{round}"), 1_500_000_000))), ("k", Some(("k", 1)))]);
            scene.plant(&to, &[("gone/g", Some((round, 1_500_000_000)))]);
            let told = scene.sync(&from, &to, &["--delete", "--backup-dir", ".old/kept"]);
            assert_eq!(told.fine().changes("to/"), ["delete gone", "delete gone/g", "file f"], "{kind}");
        }
        let found = contents(&to.disk.join(".old/kept"));
        let text = |name: &str| found[name].clone().map(|bytes| String::from_utf8(bytes).unwrap());
        let wanted = [("f", "old-1"), ("f.1", "old-2"), ("gone/g", "1"), ("gone/g.1", "2")];
        for (name, contents) in wanted {
            assert_eq!(text(name).as_deref(), Some(contents), "{kind}: {found:?}");
        }
        assert_eq!(std::fs::read(to.disk.join("f")).unwrap(), b"new2");
        // Around the destination it would be in the way of itself; elsewhere it can't be renamed to.
        for bad in [".", "..", "sftp://elsewhere/x"] {
            assert_eq!(scene.sync(&from, &to, &["--backup-dir", bad]).status(), 2, "{kind} {bad}");
        }
    }
}

#[test]
fn a_backup_that_is_called_by_a_link_is_the_same_one() {
    for kind in ["local", "openssh", "embedded sftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to, outside) = (scene.near("from"), scene.far("to"), scene.far("outside"));
        scene.plant(&from, &[("a", Some(("a", 1_600_000_000)))]);
        scene.plant(&to, &[("d/old/kept", Some(("kept", 1))), ("gone", Some(("gone", 1)))]);
        scene.plant(&outside, &[]);
        let name = |end: &End| end.disk.file_name().unwrap().to_str().unwrap().to_owned();
        scene.plant_link(&outside.disk.join("in"), &format!("../{}/d", name(&to)));
        scene.plant_link(&outside.disk.join("around"), "..");
        scene.plant_link(&outside.disk.join("itself"), &format!("../{}", name(&to)));
        let beside = name(&outside);
        for bad in ["around", "itself"] {
            let told = scene.sync(&from, &to, &["--delete", "--backup-dir", &format!("../{beside}/{bad}")]);
            assert_eq!(told.status(), 2, "{kind} {bad}: {}", told.text());
        }
        assert!(to.disk.join("gone").exists() && to.disk.join("d/old/kept").exists(), "{kind}");
        for _ in 0..2 {
            scene.sync(&from, &to, &["--delete", "--backup-dir", &format!("../{beside}/in/old")]).fine();
            let kept = contents(&to.disk).into_keys().collect::<Vec<_>>();
            assert_eq!(kept, ["a", "d", "d/old", "d/old/gone", "d/old/kept"], "{kind}");
        }
        // A link in the destination goes like any other; what it leads to stays.
        scene.plant_link(&to.disk.join("dl"), "d");
        scene.sync(&from, &to, &["--delete", "--backup-dir", "dl/old"]).fine();
        assert!(to.disk.join("d/old/kept").exists() && to.disk.join("d/old/gone").exists(), "{kind}");
    }
}

#[test]
fn what_only_has_another_name_is_renamed() {
    for kind in ["local", "openssh", "proftpd", "embedded sftp", "embedded ftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(
            &from,
            &[
                ("new place/film", Some(("a long film", 1_600_000_000))),
                ("other", Some(("something!!", 1_600_000_000))),
                ("twice", Some(("a long film", 1_600_000_001))),
            ],
        );
        scene.plant(
            &to,
            &[("film", Some(("a long film", 1_500_000_000))), ("same size", Some(("anything??!", 1_500_000_000)))],
        );
        let options = ["--delete", "--detect-moves"];
        let planned = scene.sync(&from, &to, &[&options[..], &["--dry-run"]].concat());
        let told = scene.sync(&from, &to, &options);
        let wanted = ["delete same%20size", "file other", "file twice", "move new%20place/film"];
        assert_eq!(told.fine().changes("to/"), wanted, "{kind}: {}", told.text());
        assert_eq!(planned.fine().changes("to/"), wanted, "{kind}");
        assert_eq!((told.total("moved"), told.total("transferred")), (1, 22), "{kind}");
        assert_eq!(tree(&from.disk), tree(&to.disk), "{kind}");
        assert_eq!(scene.sync(&from, &to, &options).fine().changes("to/"), [""; 0], "{kind}");
    }
}

#[test]
fn where_nothing_proves_moves_that_is_told_once() {
    let Some(scene) = Scene::new("vsftpd") else { return };
    let (from, to) = (scene.near("from"), scene.far("to"));
    scene.plant(&from, &[("new", Some(("a film", 1_600_000_000))), ("newer", Some(("a song", 1_600_000_000)))]);
    scene.plant(&to, &[("old", Some(("a film", 1_600_000_000)))]);
    let told = scene.sync(&from, &to, &["--delete", "--detect-moves", "--progress", "plain"]);
    assert_eq!(told.fine().changes("to/"), ["delete old", "file new", "file newer"], "{}", told.text());
    assert_eq!(told.text().matches("computes no digests: moves are not detected").count(), 1, "{}", told.text());
}

#[test]
fn links_are_deleted_and_what_they_lead_to_is_not() {
    for kind in ["local", "openssh", "vsftpd", "proftpd", "pureftpd", "pyftpdlib", "embedded sftp", "embedded ftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to, outside) = (scene.near("from"), scene.far("to"), scene.far("outside"));
        scene.plant(&from, &[("a", Some(("a", 1_600_000_000))), ("both", None)]);
        scene.plant(&to, &[("dir/x", Some(("x", 1_600_000_000)))]);
        scene.plant(&outside, &[("precious", Some(("p", 1_600_000_000))), ("deep/precious", Some(("p", 1)))]);
        scene.plant_link(&to.disk.join("link"), "../outside");
        scene.plant_link(&to.disk.join("dir/link"), "../../outside/deep");
        scene.plant_link(&to.disk.join("both"), "../outside");
        let told = scene.sync(&from, &to, &["--delete"]);
        assert_eq!(contents(&outside.disk).len(), 3, "{kind}: {}", told.text());
        assert!(outside.disk.join("precious").exists() && outside.disk.join("deep/precious").exists(), "{kind}");
    }
}

#[test]
fn parts_of_transfers_are_neither_copied_nor_deleted() {
    let scene = Scene::new("embedded sftp").unwrap();
    let (from, to) = (scene.near("from"), scene.far("to"));
    let part = ".x.haul-0123456789abcdef.part";
    scene.plant(&from, &[(part, Some(("p", 1))), ("a", Some(("a", 1_600_000_000)))]);
    let inside = format!("old/{part}");
    scene.plant(&to, &[(&*inside, Some(("q", 1))), ("old/b", Some(("b", 1)))]);
    let told = scene.sync(&from, &to, &["--delete"]);
    assert_eq!(told.fine().changes("to/"), ["delete old/b", "file a"], "{}", told.text());
    assert_eq!(contents(&to.disk).into_keys().collect::<Vec<_>>(), ["a", "old", &*inside]);
    assert_eq!(scene.sync(&from, &to, &["--delete"]).fine().changes("to/"), [""; 0]);
}

//! Trees become equal, and stay so without another byte moved.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use crate::scene::*;
use crate::support::data::{Dice, MIB, bytes, seed};

const ENDS: [&str; 6] = ["local", "openssh", "vsftpd", "proftpd", "embedded sftp", "embedded ftp"];

const SOURCE: Spec<'_> = &[
    ("same", Some(("same", 1_600_000_000))),
    ("changed", Some(("new", 1_600_000_000))),
    ("longer", Some(("longer than before", 1_600_000_000))),
    ("new", Some(("new", 1_600_000_000))),
    ("empty file", Some(("", 1_600_000_000))),
    ("empty/directory", None),
    ("a/b/c/deep", Some(("deep", 1_600_000_000))),
    ("d\u{e9}j\u{e0} vu/#1 50%.txt", Some(("odd", 1_600_000_000))),
];
const DESTINATION: Spec<'_> = &[
    ("same", Some(("same", 1_600_000_000))),
    ("changed", Some(("old", 1_500_000_000))),
    ("longer", Some(("shorter", 1_600_000_000))),
    ("extra", Some(("extra", 1_600_000_000))),
    ("extra directory/with/more", Some(("more", 1_600_000_000))),
    ("a/b/stale", Some(("stale", 1_600_000_000))),
];

#[test]
fn trees_become_equal_and_a_second_run_does_nothing() {
    for kind in ENDS {
        let Some(scene) = Scene::new(kind) else { continue };
        for up in [true, false] {
            let name = if up { "up" } else { "down" };
            let (near, far) = (scene.near(name), scene.far(name));
            let (from, to) = if up { (near, far) } else { (far, near) };
            scene.plant(&from, SOURCE);
            scene.plant(&to, DESTINATION);
            let what = format!("{kind}, {name}");
            let first = scene.sync(&from, &to, &["--delete"]);
            first.fine();
            assert_eq!(contents(&from.disk), contents(&to.disk), "{what}: {}", first.text());
            assert_eq!(first.total("equal"), 1, "{what}: {}", first.text());
            assert_eq!(first.total("deleted"), 5, "{what}: {}", first.text());
            assert_eq!(tree(&from.disk), tree(&to.disk), "{what}: times are kept");
            let second = scene.sync(&from, &to, &["--delete"]);
            assert_eq!(second.fine().changes(""), [""; 0], "{what}: {}", second.text());
            assert_eq!((second.total("equal"), second.total("transferred")), (7, 0), "{what}");
            let dry = scene.sync(&from, &to, &["--delete", "--dry-run"]);
            assert_eq!(dry.fine().objects().len(), 1, "{what}: {}", dry.text());
        }
    }
}

#[test]
fn a_destination_that_is_not_there_is_made_whatever_the_slashes() {
    for kind in ["local", "embedded sftp", "embedded ftp"] {
        let scene = Scene::new(kind).unwrap();
        let from = scene.near("from");
        scene.plant(&from, &[("a/b", Some(("b", 1_600_000_000)))]);
        for (name, slashes) in [("x", ("", "")), ("y", ("/", "")), ("z", ("/", "/"))] {
            let mut ends = (scene.near("from"), scene.far(name));
            ends.0.url.push_str(slashes.0);
            ends.1.url.push_str(slashes.1);
            scene.sync(&ends.0, &ends.1, &[]).fine();
            assert_eq!(tree(&from.disk), tree(&ends.1.disk), "{kind} {name}");
        }
        let file = End { disk: from.disk.join("a/b"), url: format!("{}/a/b", from.url) };
        assert_eq!(scene.sync(&file, &scene.far("f"), &[]).status(), 1);
    }
}

#[test]
fn times_and_modes_of_directories_are_those_of_the_source() {
    for kind in ["local", "openssh", "proftpd", "embedded sftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(&from, &[("a/b/file", Some(("x", 1_600_000_000))), ("c", None)]);
        scene.plant(&to, &[("a/b/old", Some(("x", 1_600_000_000)))]);
        set_mode(from.disk.join("a"), 0o500);
        set_mode(from.disk.join("c"), 0o711);
        for (name, seconds) in [("a/b", 1_500_000_000), ("a", 1_500_000_001), ("c", 1_500_000_002)] {
            set_time(&from.disk.join(name), seconds);
        }
        scene.sync(&from, &to, &["--delete", "-p"]).fine();
        for name in ["a", "a/b", "c"] {
            assert_eq!(mtime(to.disk.join(name)), mtime(from.disk.join(name)), "{kind}: {name}");
            assert_eq!(mode(to.disk.join(name)), mode(from.disk.join(name)), "{kind}: {name}");
        }
        // A mode alone is set without moving the file.
        set_mode(from.disk.join("a/b/file"), 0o600);
        let again = scene.sync(&from, &to, &["--delete", "-p"]);
        assert_eq!(again.fine().total("transferred"), 0);
        assert_eq!(mode(to.disk.join("a/b/file")), 0o600, "{kind}: {}", again.text());
        assert_eq!(scene.sync(&from, &to, &["--delete", "-p"]).fine().changes(""), [""; 0], "{kind}");
    }
}

#[test]
fn checksums_find_what_sizes_and_times_hide() {
    for kind in ["local", "openssh", "vsftpd", "proftpd", "embedded sftp", "embedded ftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(&from, &[("f", Some(("one", 1_600_000_000))), ("g", Some(("same", 1_600_000_000)))]);
        scene.plant(&to, &[("f", Some(("two", 1_600_000_000))), ("g", Some(("same", 1_500_000_000)))]);
        assert_eq!(scene.sync(&from, &to, &["--size-only"]).fine().changes("to/"), [""; 0], "{kind}");
        let told = scene.sync(&from, &to, &["--checksum"]);
        assert_eq!(told.fine().changes("to/"), ["file f", "file g"], "{kind}: {}", told.text());
        assert_eq!(told.total("transferred"), 3, "{kind}: only the time of g is set");
        assert_eq!(tree(&from.disk), tree(&to.disk), "{kind}");
        assert_eq!(scene.sync(&from, &to, &["--checksum"]).fine().changes("to/"), [""; 0], "{kind}");
    }
}

#[test]
fn a_server_that_keeps_no_times_of_directories_is_asked_once() {
    const NOTE: &str = "this server doesn't keep times of directories";
    for kind in ["vsftpd", "pyftpdlib"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        for name in ["a/file", "b/c/file", "d/file"] {
            scene.plant_file(&from.disk.join(name), b"x", 1_600_000_000);
        }
        for name in ["b/c", "a", "b", "d", ""] {
            set_time(&from.disk.join(name), 1_500_000_000);
        }
        set_mode(from.disk.join("a"), 0o711);
        set_mode(from.disk.join("d"), 0o711);
        let noted = ["-p", "--progress", "plain"];
        let first = scene.sync(&from, &to, &noted);
        assert_eq!(first.fine().text().matches(NOTE).count(), 1, "{kind}: {}", first.text());
        assert_eq!(tree(&from.disk), tree(&to.disk), "{kind}");
        for name in ["a", "b", "b/c", "d"] {
            assert_eq!(
                mode(to.disk.join(name)),
                mode(from.disk.join(name)),
                "{kind} {name}: modes are kept all the same"
            );
        }
        let again = scene.sync(&from, &to, &noted);
        assert_eq!(again.fine().changes("to/"), [""; 0], "{kind}: {}", again.text());
        assert!(!again.text().contains(NOTE), "{kind}: asked again: {}", again.text());
        // Where nobody remembers, it is found out again.
        std::fs::remove_file(scene.home.path().join("state/haul/compared")).unwrap();
        assert!(scene.sync(&from, &to, &noted).fine().text().contains(NOTE), "{kind}: it isn't asked at all");
    }
}

#[test]
fn one_directory_that_cannot_be_set_stops_no_other() {
    let Some(scene) = Scene::new("openssh") else { return };
    let (from, to) = (scene.near("from"), scene.far("to"));
    // More than are set at once.
    let names: Vec<_> = (10..60).map(|number| number.to_string()).collect();
    for name in &names {
        scene.plant_dir(&from.disk.join(name));
        set_time(&from.disk.join(name), 1_500_000_000);
        scene.plant_dir(&to.disk.join(name));
    }
    if std::fs::metadata(to.disk.join("10")).unwrap().uid() == 0 {
        // The server's user is root, who may set anybody's.
        return;
    }
    // Somebody else's; the last is the first to be set.
    std::os::unix::fs::chown(to.disk.join("59"), Some(0), Some(0)).unwrap();
    let told = scene.sync(&from, &to, &["--progress", "plain"]);
    assert!(told.fine().text().contains("59: time and mode of the directory are not kept"), "{}", told.text());
    for name in names.iter().filter(|name| *name != "59") {
        assert_eq!(mtime(to.disk.join(name)), 1_500_000_000, "{name}: {}", told.text());
    }
}

#[test]
fn a_server_that_holds_both_trees_copies_large_files_by_itself() {
    for kind in ["openssh", "embedded sftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.far("from"), scene.far("to"));
        let big = bytes(1, 3 * MIB);
        scene.plant_file(&from.disk.join("dir/big"), &big, 1_600_000_000);
        scene.plant_file(&from.disk.join("dir/small"), b"small", 1_600_000_000);
        let told = scene.sync(&from, &to, &[]);
        assert_eq!(told.fine().total("transferred"), 5, "{kind}: {}", told.text());
        assert_eq!(tree(&from.disk), tree(&to.disk), "{kind}");
        assert_eq!(scene.sync(&from, &to, &[]).fine().changes("to/"), [""; 0], "{kind}");
        // Down to this machine all of it is moved.
        let through = scene.sync(&from, &scene.near("near"), &[]);
        assert_eq!(through.fine().total("transferred"), 5 + 3 * MIB as u64);
    }
}

#[test]
fn filters_leave_out_on_both_sides() {
    for kind in ["local", "embedded sftp"] {
        let scene = Scene::new(kind).unwrap();
        let (from, to) = (scene.near("from"), scene.far("to"));
        let spec: Spec<'_> = &[
            ("keep", Some(("new", 1_600_000_000))),
            ("a.tmp", Some(("new", 1_600_000_000))),
            ("cache/x", Some(("new", 1_600_000_000))),
            ("only-excluded/b.tmp", Some(("new", 1_600_000_000))),
        ];
        scene.plant(&from, spec);
        scene.plant(
            &to,
            &[
                ("a.tmp", Some(("old", 1_500_000_000))),
                ("gone/c.tmp", Some(("old", 1_500_000_000))),
                ("gone/d", Some(("old", 1_500_000_000))),
                ("cache/y", Some(("old", 1_500_000_000))),
            ],
        );
        let options = ["--delete", "--exclude", "*.tmp", "--exclude", "/cache/"];
        let told = scene.sync(&from, &to, &options);
        assert_eq!(told.fine().changes("to/"), ["delete gone/d", "file keep"], "{kind}");
        let left: Vec<_> = contents(&to.disk).into_keys().collect();
        assert_eq!(left, ["a.tmp", "cache", "cache/y", "gone", "gone/c.tmp", "keep"], "{kind}");
        assert_eq!(scene.sync(&from, &to, &options).fine().changes("to/"), [""; 0], "{kind}");
        let told = scene.sync(&from, &to, &[&options[..], &["--delete-excluded"]].concat());
        assert_eq!(told.fine().total("deleted"), 5, "{kind}: {}", told.text());
        assert_eq!(contents(&to.disk).into_keys().collect::<Vec<_>>(), ["keep"], "{kind}");
    }
}

/// Draws a tree: few names, so that the two ends meet in every way.
fn draw(dice: &mut Dice) -> BTreeMap<String, Option<(String, u64)>> {
    let mut drawn: BTreeMap<String, Option<(String, u64)>> = BTreeMap::new();
    for _ in 0..dice.below(14) {
        let depth = 1 + dice.below(3);
        let path: Vec<_> = (0..depth).map(|_| dice.one_of(&["a", "b", "c", "\u{fc} x"])).collect();
        let path = path.join("/");
        let above = path.match_indices('/').any(|(at, _)| drawn.get(&path[..at]).is_some_and(Option::is_some));
        let below = drawn.keys().any(|other| other.starts_with(&format!("{path}/")));
        if above || drawn.contains_key(&path) {
            continue;
        }
        let file = (dice.one_of(&["", "x", "y", "longer"]).to_owned(), 1_600_000_000 + dice.below(3));
        drawn.insert(path, if below || dice.once_in(4) { None } else { Some(file) });
    }
    drawn
}

#[test]
fn any_tree_becomes_any_other() {
    let seed = seed();
    for kind in ["local", "embedded sftp", "embedded ftp"] {
        let scene = Scene::new(kind).unwrap();
        let mut dice = Dice::new(seed);
        for round in 0..12 {
            let (from, to) = (scene.near(&format!("from{round}")), scene.far(&format!("to{round}")));
            for end in [&from, &to] {
                let drawn = draw(&mut dice);
                let spec: Vec<_> = drawn
                    .iter()
                    .map(|(name, file)| (name.as_str(), file.as_ref().map(|(text, time)| (text.as_str(), *time))))
                    .collect();
                scene.plant(end, &spec);
            }
            let what = format!("HAUL_SEED={seed}, {kind}, round {round}");
            let mut options = vec!["--delete", "--force-delete"];
            if dice.once_in(2) {
                options.push("--checksum");
            }
            if dice.once_in(2) {
                options.push("--detect-moves");
            }
            let before = tree(&to.disk);
            let planned = scene.sync(&from, &to, &[&options[..], &["--dry-run"]].concat());
            assert_eq!(tree(&to.disk), before, "{what}: a dry run changed something");
            let below = format!("to{round}/");
            let told = scene.sync(&from, &to, &options);
            told.fine();
            if options.contains(&"--checksum") {
                assert_eq!(tree(&from.disk), tree(&to.disk), "{what} {options:?}: {}", told.text());
            } else {
                let times = |end: &End| {
                    tree(&end.disk).into_iter().map(|(name, node)| match node {
                        Node::File(contents, time) => (name, Some((contents.len(), time))),
                        _ => (name, None),
                    })
                };
                assert!(times(&from).eq(times(&to)), "{what} {options:?}: {}", told.text());
            }
            assert_eq!(planned.fine().changes(&below), told.changes(&below), "{what} {options:?}");
            let again = scene.sync(&from, &to, &options);
            assert_eq!(again.fine().changes(&below), [""; 0], "{what} {options:?}: {}", again.text());
        }
    }
}

#[test]
fn a_link_to_the_destination_is_the_way_there() {
    let scene = Scene::new("local").unwrap();
    let (from, to, link) = (scene.near("from"), scene.near("to"), scene.near("link"));
    scene.plant(&from, &[("a/b", Some(("b", 1_600_000_000)))]);
    scene.plant(&to, &[]);
    scene.plant_link(&link.disk, "to");
    for _ in 0..2 {
        let told = scene.sync(&from, &link, &["--progress", "plain"]);
        assert!(!told.fine().text().contains("symbolic links"), "{}", told.text());
    }
    assert_eq!((tree(&from.disk), mtime(&from.disk)), (tree(&to.disk), mtime(&to.disk)));
}

#[test]
fn what_is_made_set_and_held_back_is_told() {
    for kind in ["local", "openssh", "embedded sftp"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(&from, &[("a/b", None), ("f", Some(("new", 1_600_000_000))), ("g", Some(("new", 1_600_000_000)))]);
        scene.plant(&to, &[("f", Some(("newer", 1_700_000_000))), ("g", Some(("older", 1_500_000_000)))]);
        let numbers =
            |told: &Told| ["directories", "directories_set", "held_back", "done"].map(|name| told.total(name));
        for (options, wanted) in [
            (&["-n", "--dry-run"][..], [2, 0, 2, 0]),
            (&["-n"], [2, 0, 2, 0]),
            (&["-u", "--dry-run"], [0, 0, 1, 1]),
            (&["-u"], [0, 0, 1, 1]),
        ] {
            let told = scene.sync(&from, &to, options);
            assert_eq!(numbers(told.fine()), wanted, "{kind} {options:?}: {}", told.text());
        }
        set_mode(from.disk.join("a"), 0o700);
        for (options, wanted) in [(&["-p", "-u", "--dry-run"][..], 1), (&["-p", "-u"], 1), (&["-p", "-u"], 0)] {
            let told = scene.sync(&from, &to, options);
            assert_eq!(numbers(told.fine()), [0, wanted, 1, 0], "{kind} {options:?}: {}", told.text());
        }
    }
}

#[test]
fn times_that_a_server_can_not_have_are_not_moved_for_again() {
    for kind in ["openssh", "vsftpd", "proftpd", "embedded sftp", "embedded ftp", "local"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(&from, &[("old", Some(("old", 0))), ("late", Some(("late", 5_000_000_000)))]);
        let before = std::time::UNIX_EPOCH - std::time::Duration::from_secs(86_400);
        std::fs::File::open(from.disk.join("old")).unwrap().set_modified(before).unwrap();
        assert_eq!(scene.sync(&from, &to, &[]).fine().total("done"), 2, "{kind}");
        let again = scene.sync(&from, &to, &[]);
        assert_eq!(again.fine().changes("to/"), [""; 0], "{kind}: {}", again.text());
        scene.plant_file(&from.disk.join("old"), b"another", 1_600_000_000);
        assert_eq!(scene.sync(&from, &to, &[]).fine().changes("to/"), ["file old"], "{kind}");
    }
}

#[test]
fn nobody_is_told_of_links_that_were_to_be_left_out() {
    for kind in ["embedded ftp", "local"] {
        let scene = Scene::new(kind).unwrap();
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(&from, &[("a", Some(("a", 1_600_000_000)))]);
        scene.plant_link(&from.disk.join("link"), "a");
        let told = scene.sync(&from, &to, &["--links", "skip", "--progress", "plain"]);
        assert!(!told.fine().text().contains("links are left out"), "{kind}: {}", told.text());
        if kind == "embedded ftp" {
            let told = scene.sync(&from, &to, &["--progress", "plain"]);
            assert!(told.fine().text().contains("links are left out"), "{}", told.text());
        }
    }
}

#[test]
fn a_directory_that_its_owner_may_not_write_is_changed_all_the_same() {
    for kind in ["openssh", "proftpd", "embedded sftp", "local"] {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.near("from"), scene.far("to"));
        scene.plant(&from, &[("d/e/old", Some(("old", 1_600_000_000))), ("d/f", Some(("f", 1_600_000_000)))]);
        let shut = |mode| ["d/e", "d"].map(|name| set_mode(from.disk.join(name), mode));
        shut(0o555);
        scene.sync(&from, &to, &["-p"]).fine();
        assert_eq!(mode(to.disk.join("d/e")), 0o555, "{kind}");
        shut(0o755);
        std::fs::remove_file(from.disk.join("d/e/old")).unwrap();
        scene.plant(&from, &[("d/e/new", Some(("new", 1_600_000_000))), ("d/f", Some(("other", 1_600_000_001)))]);
        shut(0o555);
        scene.sync(&from, &to, &["-p", "--delete"]).fine();
        assert_eq!(tree(&from.disk), tree(&to.disk), "{kind}");
        assert_eq!([mode(to.disk.join("d")), mode(to.disk.join("d/e"))], [0o555; 2], "{kind}");
        assert_eq!(scene.sync(&from, &to, &["-p"]).fine().changes("to/"), [""; 0], "{kind}");
        // Whoever tidies up may not be root.
        shut(0o755);
    }
}

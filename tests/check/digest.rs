//! `haul digest`.

use std::os::unix::fs::symlink;

use crate::scene::{ALL, Kind, Scene, objects};
use crate::support::data::bytes;

#[test]
fn sha256sum_reads_what_is_told_of_a_tree_whatever_its_names() {
    for kind in ALL {
        let Some(scene) = Scene::new(kind) else { continue };
        let names = scene.plant_names();
        scene.plant("large", bytes(1, 700_000));
        let ran = scene.haul(&["digest", "-r", &scene.url("")]).ends(0);
        assert_eq!(ran.err(), "", "{kind:?}");
        let count = ran.stdout.split(|&b| b == b'\n').filter(|line| !line.is_empty()).count();
        assert_eq!(count, names.len() + 1, "{kind:?}: {}", ran.out());
        let checked = scene.sum("sha256sum", &["--check", "--strict", "--quiet"], &ran.stdout);
        assert_eq!((checked.status, checked.out(), checked.err()), (0, String::new(), String::new()), "{kind:?}");

        // The order is that of `sort`, and a second run gives the same.
        let again = scene.haul(&["digest", "-r", "--read", "-j", "3", &scene.url("")]).ends(0);
        assert_eq!(again.stdout, ran.stdout, "{kind:?}");
        if scene.kind == Kind::Local {
            let theirs = scene.sums_of_all("sha256sum", &[]);
            let plain = |text: &[u8]| String::from_utf8_lossy(text).replace("  ./", "  ");
            assert_eq!(plain(&ran.stdout), plain(&theirs));
        }
    }
}

#[test]
fn who_computed_it_is_told_and_reading_gives_the_same() {
    for kind in ALL {
        let Some(scene) = Scene::new(kind) else { continue };
        scene.plant("small", b"x");
        scene.plant("large", bytes(2, 700_000));
        let told = objects(&scene.haul(&["digest", "-r", "--json", &scene.url("")]).ends(0));
        let read = objects(&scene.haul(&["digest", "-r", "--json", "--read", &scene.url("")]).ends(0));
        let names: Vec<_> = told.iter().map(|line| line["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["large", "small"], "{kind:?}");
        for (told, read) in told.iter().zip(&read) {
            assert_eq!((&told["digest"], &told["url"]), (&read["digest"], &read["url"]), "{kind:?}");
            assert_eq!((read["by"].as_str(), told["algorithm"].as_str()), (Some("read"), Some("sha-256")));
            assert_eq!(told["size"], read["size"], "{kind:?}");
        }
        assert_eq!(told[1]["by"], scene.digests_small(), "{kind:?}");
        // A shell for each file would cost more than reading a small one.
        let large = if kind == Kind::Lab("openssh") { "server" } else { scene.digests_small() };
        assert_eq!(told[0]["by"], large, "{kind:?}");
    }
}

#[test]
fn every_algorithm_is_the_one_that_everybody_means() {
    for kind in [Kind::Local, Kind::Sftp, Kind::Lab("proftpd"), Kind::Lab("openssh")] {
        let Some(scene) = Scene::new(kind) else { continue };
        scene.plant_names();
        for algorithm in ["sha256", "sha512", "sha1", "md5"] {
            for tag in [false, true] {
                let (url, program) = (scene.url(""), format!("{algorithm}sum"));
                let mut args = vec!["digest", "-r", "-a", algorithm, &url];
                args.extend(tag.then_some("--tag"));
                let ran = scene.haul(&args).ends(0);
                let checked = scene.sum(&program, &["--check", "--strict", "--quiet"], &ran.stdout);
                assert_eq!((checked.status, checked.err()), (0, String::new()), "{kind:?} {algorithm} {tag}");
            }
        }
        scene.plant("abc", b"abc");
        for (algorithm, digest) in [
            ("blake3", "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
            ("CRC32", "352441c2"),
            ("sha-1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ] {
            let ran = scene.haul(&["digest", "-a", algorithm, &scene.url("abc")]).ends(0);
            assert_eq!(ran.out(), format!("{digest}  abc\n"), "{kind:?}");
        }
    }
    let scene = Scene::new(Kind::Local).unwrap();
    let ran = scene.haul(&["digest", "-a", "sha3", "x"]).ends(2);
    assert!(ran.err().contains("blake3"), "{}", ran.err());
}

#[test]
fn names_are_as_get_would_place_them() {
    for kind in [Kind::Local, Kind::Ftp, Kind::Lab("openssh")] {
        let Some(scene) = Scene::new(kind) else { continue };
        for name in ["a/x", "a/y.txt", "b/x", "z.txt"] {
            scene.plant(name, name);
        }
        let names = |operands: &[&str]| {
            let urls: Vec<_> = operands.iter().map(|name| scene.url(name)).collect();
            let mut args = vec!["digest", "-r"];
            args.extend(urls.iter().map(String::as_str));
            let out = scene.haul(&args).ends(0).out();
            out.lines().map(|line| line[66..].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&["a"]), ["x", "y.txt"], "{kind:?}");
        assert_eq!(names(&["a/x"]), ["x"]);
        assert_eq!(names(&["b", "a"]), ["b/x", "a/x", "a/y.txt"], "in the order of the operands");
        if kind != Kind::Local {
            assert_eq!(names(&["?"]), ["a/x", "a/y.txt", "b/x"]);
            assert_eq!(names(&["*.txt"]), ["z.txt"]);
        }
        assert_eq!(names(&["b/.", "z.txt"]), ["x", "z.txt"]);
        let ran = scene.haul(&["digest", &scene.url("a/x"), &scene.url("b/x")]);
        assert_eq!((ran.status, ran.out().lines().count()), (2, 1), "{}", ran.err());
    }
}

#[test]
fn a_downloaded_copy_is_what_was_digested() {
    for kind in [Kind::Sftp, Kind::Ftp, Kind::Lab("openssh"), Kind::Lab("proftpd"), Kind::Lab("vsftpd")] {
        let Some(scene) = Scene::new(kind) else { continue };
        for name in ["one/a", "one/sub/b c", "other/back\\slash", "other/x"] {
            scene.plant(name, name);
        }
        let (one, other) = (scene.url("one"), scene.url("other"));
        for (operands, folder) in [(vec![one.as_str()], "work/copy/one"), (vec![&other, &one], "work/copy")] {
            let list = scene.haul(&[&["digest", "-r"], &operands[..]].concat()).ends(0).stdout;
            std::fs::create_dir_all(scene.stage.at("work/copy")).unwrap();
            scene.haul(&[&["get", "-r", "-q"], &operands[..], &["copy"]].concat()).ends(0);
            let checked =
                scene.sum_in(&scene.stage.at(folder), "sha256sum", &["--check", "--strict", "--quiet"], &list);
            assert_eq!((checked.status, checked.err()), (0, String::new()), "{kind:?} {operands:?}");
            let changed = scene.stage.at(folder).join(if operands.len() > 1 { "one/a" } else { "a" });
            std::fs::write(changed, "another").unwrap();
            let checked = scene.sum_in(&scene.stage.at(folder), "sha256sum", &["--check", "--quiet"], &list);
            assert_eq!(checked.status, 1, "{kind:?}");
        }
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let scene = Scene::new(Kind::Local).unwrap();
    scene.plant_names();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = scene.command(&["digest", "-r", &scene.url("")]).stdout(writer).output().unwrap();
    assert_eq!((gone.status.code(), gone.stderr.len()), (Some(141), 0), "as with haul digest | head");
}

#[test]
fn what_fails_is_told_and_the_rest_goes_on() {
    for kind in [Kind::Local, Kind::Sftp, Kind::Ftp, Kind::Lab("openssh"), Kind::Lab("vsftpd")] {
        let Some(scene) = Scene::new(kind) else { continue };
        scene.plant("a", "a");
        scene.plant("b/c", "c");
        let ran = scene.haul(&["digest", &scene.url("nothing"), &scene.url("b"), &scene.url("a")]).ends(1);
        assert!(ran.out().ends_with("  a\n") && ran.out().lines().count() == 1, "{kind:?}: {}", ran.out());
        assert!(ran.err().contains("nothing") && ran.err().contains("use -r"), "{kind:?}: {}", ran.err());
        if kind != Kind::Ftp && kind != Kind::Sftp {
            symlink("nowhere", scene.folder.join("broken")).unwrap();
            symlink("a", scene.folder.join("link")).unwrap();
            symlink("b", scene.folder.join("to-dir")).unwrap();
            let ran = scene.haul(&["digest", "-r", "--json", &scene.url("")]).ends(0);
            let told = objects(&ran);
            let of = |name: &str| told.iter().find(|line| line["name"] == name).unwrap();
            assert_eq!(of("link")["digest"], of("a")["digest"], "{kind:?}: a copy has a file there");
            for name in ["broken", "to-dir"] {
                let left_out = |line: &str| line.contains("left out, not a regular file") && line.ends_with(name);
                assert!(ran.err().lines().any(left_out), "{kind:?}: {}", ran.err());
            }
            assert_eq!(told.len(), 3, "{kind:?}");
            let ran = scene.haul(&["digest", &scene.url("broken")]).ends(1);
            assert!(ran.err().contains("broken"), "it was named: {}", ran.err());
        }
    }
}

#[test]
fn a_terminal_is_shown_nothing_that_it_would_obey() {
    let scene = Scene::new(Kind::Local).unwrap();
    scene.plant("a\x1b[2Jb", "x");
    let ran = scene.stage.haul_at_terminal(&["digest", "-r", &scene.url("")]).ends(0);
    assert!(!ran.stdout.contains(&0x1b) && ran.out().contains("\\u{1b}[2J"), "{}", ran.out());
}

#[test]
fn a_pipe_holds_nobody_up() {
    let scene = Scene::new(Kind::Local).unwrap();
    scene.plant("a", "x");
    scene.sum("mkfifo", &["pipe"], b"").ends(0);
    let ran = scene.haul(&["digest", "-r", &scene.url("")]).ends(0);
    assert!(ran.out().lines().count() == 1 && ran.err().contains("pipe"), "{}{}", ran.out(), ran.err());
    let ran = scene.haul(&["digest", &scene.url("pipe")]).ends(1);
    assert!(ran.err().contains("not a regular file"), "{}", ran.err());
}

#[test]
fn without_a_connection_it_ends_with_three() {
    let scene = Scene::new(Kind::Local).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    scene.haul(&["digest", &format!("sftp://me@127.0.0.1:{port}/x"), "--retries", "0"]).ends(3);
}

//! `haul check --sums`.

use std::os::unix::fs::symlink;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::scene::{ALL, Kind, Scene, objects};
use crate::stage::Ran;
use crate::support::data::bytes;

fn summary(ran: &Ran) -> Value {
    objects(ran).pop().unwrap()
}

#[test]
fn what_sha256sum_wrote_is_checked_whatever_the_names() {
    for kind in ALL {
        let Some(scene) = Scene::new(kind) else { continue };
        let names = scene.plant_names();
        scene.plant("large", bytes(3, 700_000));
        for (program, args) in [
            ("sha256sum", &[][..]),
            ("sha256sum", &["--binary"]),
            ("sha256sum", &["--tag"]),
            ("md5sum", &[]),
            ("sha512sum", &[]),
        ] {
            let list = scene.sums_of_all(program, args);
            let list_file = scene.stage.file("work/list", &list, 0o600);
            for more in [&[][..], &["--read"]] {
                let url = scene.url("");
                let args = [&["check", "--json", "--sums", &list_file, &url], more].concat();
                let ran = scene.haul(&args);
                let told = summary(&ran);
                let counts = ["equal", "different", "missing", "extra", "unreadable", "malformed"].map(|c| &told[c]);
                let wanted = [names.len() as u64 + 1, 0, 0, 0, 0, 0];
                assert_eq!(counts, wanted.map(Value::from).each_ref(), "{kind:?} {program} {args:?}: {}", ran.err());
                assert_eq!(ran.status, 0, "{kind:?}");
            }
        }
    }
}

#[test]
fn what_digest_wrote_is_checked_and_what_differs_is_told() {
    for kind in ALL {
        let Some(scene) = Scene::new(kind) else { continue };
        for name in ["same", "changed", "gone", "sub/same", "sub/changed"] {
            scene.plant(name, name);
        }
        let url = scene.url("");
        let list = scene.haul(&["digest", "-r", &url]).ends(0).stdout;
        let ran = scene.haul_with(&["check", "--sums", "-", &url], &list).ends(0);
        assert_eq!((ran.out(), ran.err().trim().starts_with("haul: 5 equal")), (String::new(), true), "{}", ran.err());
        scene.plant("changed", "CHANGED");
        scene.plant("sub/changed", "longer than before");
        scene.plant("sub/new", "new");
        std::fs::remove_file(scene.folder.join("gone")).unwrap();
        let ran = scene.haul_with(&["check", "--sums", "-", &url], &list).ends(1);
        let lines = "different (by its sha-256): changed\nmissing: gone\ndifferent (by its sha-256): sub/changed\n";
        assert_eq!(ran.out(), format!("{lines}extra: sub/new\n"), "{kind:?}: {}", ran.err());
        assert!(ran.err().contains("haul: 2 equal, 2 different, 1 missing, 1 extra"), "{kind:?}: {}", ran.err());
        let ran = scene.haul_with(&["check", "-q", "--one-way", "--sums", "-", &url], &list).ends(1);
        assert_eq!((ran.out().as_str(), ran.err().as_str()), (lines, ""), "{kind:?}");
        let ran = scene.haul_with(&["check", "-v", "--one-way", "--sums", "-", &url], &list).ends(1);
        assert!(ran.out().contains("equal: same\n") && ran.out().contains("equal: sub/same\n"), "{}", ran.out());

        let ran = scene.haul_with(&["check", "--json", "--sums", "-", &url], &list).ends(1);
        let told = objects(&ran);
        let of = |name: &str| told.iter().find(|line| line["name"] == name).unwrap();
        let verdicts = ["same", "changed", "gone", "sub/new"].map(|name| of(name)["verdict"].as_str().unwrap());
        assert_eq!(verdicts, ["equal", "different", "missing", "extra"], "{kind:?}");
        assert_ne!(of("changed")["wanted"], of("changed")["found"]);
        assert_eq!(
            (of("same")["by"].as_str(), &of("same")["wanted"]),
            (Some(scene.digests_small()), &of("same")["found"])
        );
        assert_eq!(of("gone")["error"]["kind"], "not_found", "{kind:?}");
        assert_eq!(summary(&ran)["different"], 2);
    }
}

#[test]
fn links_that_lead_to_no_file_are_nothing_that_a_list_lacks() {
    for kind in [Kind::Local, Kind::Lab("openssh"), Kind::Lab("proftpd"), Kind::Lab("vsftpd")] {
        let Some(scene) = Scene::new(kind) else { continue };
        scene.plant("a", "a");
        scene.plant("b/c", "c");
        for (target, name) in
            [("nowhere", "dangling"), ("b", "dirlink"), ("/", "abslink"), ("round", "round"), ("a/x", "through")]
        {
            symlink(target, scene.folder.join(name)).unwrap();
        }
        let url = scene.url("");
        for list in [scene.haul(&["digest", "-r", &url]).ends(0).stdout, scene.sums_of_all("sha256sum", &[])] {
            let ran = scene.haul_with(&["check", "--sums", "-", &url], &list).ends(0);
            assert_eq!(ran.out(), "", "{kind:?}: {}", ran.err());
        }
        // One that leads to a file is listed, and so it is extra where it isn't.
        let before = scene.haul(&["digest", "-r", &url]).ends(0).stdout;
        symlink("a", scene.folder.join("link")).unwrap();
        let ran = scene.haul_with(&["check", "--sums", "-", &url], &before).ends(1);
        assert_eq!(ran.out(), "extra: link\n", "{kind:?}: {}", ran.err());
        let list = scene.haul(&["digest", "-r", &url]).ends(0).stdout;
        scene.haul_with(&["check", "--sums", "-", &url], &list).ends(0);
    }
}

#[test]
fn no_name_of_a_list_leads_out() {
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for kind in [Kind::Local, Kind::Sftp, Kind::Ftp] {
        let Some(scene) = Scene::new(kind) else { continue };
        scene.plant("inside/a", "abc");
        scene.plant("outside", "abc");
        let root = scene.folder.join("outside");
        let mut list = format!("{digest}  a\n");
        let names =
            ["../outside", "a/../../outside", root.to_str().unwrap(), "/outside", "..", ".", "x\\..\\..\\outside"];
        for name in names {
            list += &format!("{digest}  {name}\n");
        }
        let ran = scene.haul_with(&["check", "-v", "--sums", "-", &scene.url("inside")], list.as_bytes()).ends(1);
        assert_eq!(ran.out(), "equal: a\n", "{kind:?}");
        for number in 2..names.len() + 2 {
            assert!(ran.err().contains(&format!("line {number} of the list")), "{kind:?}: {}", ran.err());
        }
        assert!(ran.err().contains(&format!("{} lines of the list can't be used", names.len())), "{}", ran.err());
    }
}

#[test]
fn lines_that_are_none_are_named_and_fail_the_check() {
    let scene = Scene::new(Kind::Local).unwrap();
    scene.plant("a", "abc");
    let list = scene.haul(&["digest", &scene.url("a")]).ends(0).out();
    let url = scene.url("");
    let broken = format!("# made by hand\n\n{list}hello\n{}\n{}", &list[1..].trim(), "x".repeat(100_000));
    let ran = scene.haul_with(&["check", "-v", "--sums", "-", &url], broken.as_bytes()).ends(1);
    assert_eq!(ran.out(), "equal: a\n");
    for line in ["line 4 of", "line 5 of", "line 6 of", "too long", "3 lines of the list can't be used"] {
        assert!(ran.err().contains(line), "{line}: {}", ran.err());
    }
    let ran = scene.haul_with(&["check", "--sums", "-", &url], &b"no list\n".repeat(1000)).ends(1);
    assert!(ran.err().contains("is no list of checksums") && ran.err().lines().count() < 30, "{}", ran.err());
    for nothing in [&b""[..], b"# nothing\n"] {
        assert!(scene.haul_with(&["check", "--sums", "-", &url], nothing).ends(1).err().contains("is empty"));
    }
    let ran = scene.haul_with(&["check", "--sums", "-", "-a", "md5", &url], list.as_bytes()).ends(1);
    assert!(ran.err().contains("line 1 of the list"), "{}", ran.err());
    scene.haul(&["check", "--sums", "nowhere", &url]).ends(1);
    scene.haul(&["check", "--sums", "-", &url, &url]).ends(2);
    scene.haul(&["check", &url]).ends(2);
    scene.haul(&["check", "-a", "md5", &url, &url]).ends(2);
}

#[test]
fn a_list_lies_beside_its_files_or_on_a_server() {
    for kind in [Kind::Local, Kind::Sftp, Kind::Ftp, Kind::Lab("vsftpd")] {
        let Some(scene) = Scene::new(kind) else { continue };
        scene.plant("a", "a");
        scene.plant("b", "b");
        let url = scene.url("");
        let list = scene.haul(&["digest", "-r", &url]).ends(0).stdout;
        scene.plant("SHA256SUMS", &list);
        let ran = scene.haul(&["check", "-v", "--sums", &scene.url("SHA256SUMS"), &url]).ends(0);
        assert_eq!(ran.out(), "equal: a\nequal: b\n", "{kind:?}: {}", ran.err());
        scene.plant("other", &list);
        let ran = scene.haul(&["check", "--sums", &scene.url("SHA256SUMS"), &url]).ends(1);
        assert_eq!(ran.out(), "extra: other\n", "{kind:?}");
    }
}

#[test]
fn names_stay_one_line_each() {
    let scene = Scene::new(Kind::Sftp).unwrap();
    for name in ["a\nmissing: b", "back\\slash"] {
        scene.plant(name, "x");
    }
    let ran =
        scene.haul_with(&["check", "--sums", "-", &scene.url("")], b"d41d8cd98f00b204e9800998ecf8427e  gone\n").ends(1);
    assert_eq!(ran.out(), "missing: gone\nextra: \\a\\nmissing: b\nextra: \\back\\\\slash\n");
}

#[test]
fn a_signal_ends_it() {
    let scene = Scene::new(Kind::Sftp).unwrap();
    scene.plant("a", "a");
    let list = scene.haul(&["digest", "-r", &scene.url("")]).ends(0).stdout;
    let mut command = scene.command(&["check", "-v", "--sums", "-", &scene.url("")]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &list).unwrap();
    // The first file is told while the list goes on.
    let mut told = [0; 9];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut told).unwrap();
    assert_eq!(&told, b"equal: a\n");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    drop(stdin);
    ran.ends(130);
}

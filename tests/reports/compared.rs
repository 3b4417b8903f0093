//! What `check` finds and what `sync` changes besides copies are in the report, each by its own word.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use haul::serve::{FtpTls, Protocol};
use serde_json::Value;

use crate::scene::{Scene, write};
use crate::told::assert_is_report;

/// What the report says of each file, by what its path ends in.
#[track_caller]
fn told(scene: &Scene) -> BTreeMap<String, (String, Value)> {
    let report = scene.report("r.json");
    assert_is_report(&report);
    let mut told = BTreeMap::new();
    for file in report["files"].as_array().unwrap() {
        let text = |name: &str| file[name].as_str().unwrap().to_owned();
        let at = if text("destination").is_empty() { text("source") } else { text("destination") };
        let name = at.rsplit_once("/tree/").map_or(&*at, |(_, name)| name).to_owned();
        let twice = told.insert(name, (text("status"), file["reason"].clone()));
        assert!(twice.is_none(), "told twice: {file}");
    }
    told
}

/// The same without reasons, as `name status`.
#[track_caller]
fn statuses(scene: &Scene) -> Vec<String> {
    told(scene).into_iter().map(|(name, (status, _))| format!("{name} {status}")).collect()
}

fn check_is_told(scene: &Scene, unreadable: &[&str]) {
    for folder in [scene.near("tree"), scene.far("tree")] {
        for name in ["equal", "sub/equal", "different", "shut"] {
            write(&folder.join(name), name.as_bytes());
        }
    }
    write(&scene.far("tree/different"), b"DIFFERENT");
    write(&scene.near("tree/missing"), b"x");
    write(&scene.far("tree/extra"), b"x");
    std::fs::set_permissions(scene.far("tree/shut"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut wanted = vec!["different different", "equal equal", "extra extra", "missing missing", "sub/equal equal"];
    wanted.insert(4, if unreadable.is_empty() { "shut equal" } else { "shut unreadable" });
    let url = scene.url("tree");
    let check = ["check", "tree", &url, "--checksum", "-a", "sha256", "--report", "r.json"];
    for read in [&[][..], &["--read"]] {
        scene.run(&[&check[..], read].concat()).ends(1);
        assert_eq!(statuses(scene), wanted, "{read:?}");
        assert_eq!(told(scene)["different"].1, "sha-256", "by what they differ");
        let report = scene.report("r.json");
        assert_eq!((&report["command"], &report["totals"]["transferred"]), (&"check".into(), &0.into()));
        assert_eq!(report["exit_status"], 1);
    }
}

#[test]
fn check_tells_what_each_file_was_found_to_be() {
    check_is_told(&Scene::own(Protocol::Sftp), &[]);
    check_is_told(&Scene::own(Protocol::Ftp(FtpTls::Require)), &[]);
    if let Some(scene) = Scene::real("openssh", "compared") {
        check_is_told(&scene, &["shut"]);
    }
}

#[test]
fn check_of_a_list_is_told_as_well() {
    let scene = Scene::own(Protocol::Sftp);
    for name in ["a", "b", "c"] {
        write(&scene.far("tree").join(name), name.as_bytes());
    }
    let url = scene.url("tree");
    let list = scene.run(&["digest", "-r", &url]).ends(0);
    let lines: Vec<_> = list.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect();
    let digest = |name: &str| {
        let line = lines.iter().find(|line| line["name"].as_str().is_some_and(|found| found.ends_with(name))).unwrap();
        format!("{}  {name}\n", line["digest"].as_str().unwrap())
    };
    let sums: String = ["a", "b", "c"].map(digest).concat();
    write(&scene.near("sums"), sums.as_bytes());
    write(&scene.far("tree/b"), b"B");
    std::fs::remove_file(scene.far("tree/c")).unwrap();
    scene.run(&["check", "--sums", "sums", &url, "--report", "r.json"]).ends(1);
    assert_eq!(statuses(&scene), ["a equal", "b different", "c missing"]);
}

#[test]
fn sync_tells_what_it_copied_moved_and_deleted() {
    for protocol in [Protocol::Sftp, Protocol::Ftp(FtpTls::Require)] {
        let scene = Scene::own(protocol);
        write(&scene.near("tree/copied"), b"copied");
        write(&scene.near("tree/new name"), b"has got another name");
        write(&scene.far("tree/old name"), b"has got another name");
        write(&scene.far("tree/gone/file"), b"gone");
        let url = scene.url("tree");
        let sync = ["sync", "tree", &url, "--delete", "--detect-moves", "--report", "r.json"];
        scene.run(&[&sync[..], &["--dry-run"]].concat()).ends(0);
        let planned = ["copied planned", "gone planned", "gone/file planned", "new%20name planned"];
        assert_eq!(statuses(&scene), planned, "{protocol:?}");
        scene.run(&sync).ends(0);
        let done = ["copied done", "gone deleted", "gone/file deleted", "new%20name moved"];
        assert_eq!(statuses(&scene), done, "{protocol:?}");
        let report = scene.report("r.json");
        assert_eq!(report["totals"]["transferred"], 6, "{protocol:?}");
        let moved = report["files"].as_array().unwrap().iter().find(|file| file["status"] == "moved").unwrap();
        assert!(moved["source"].as_str().unwrap().ends_with("/tree/old%20name"), "{moved}");
    }
}

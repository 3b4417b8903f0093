//! `haul check SRC DST`.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::scene::{ALL, Kind, Scene, objects, set_time, write};
use crate::stage::Ran;

/// A tree here and one at the scene's, alike.
fn alike(scene: &Scene) -> PathBuf {
    let here = scene.stage.at("work/here");
    for folder in [&here, &scene.folder] {
        for name in ["a", "b", "c", "sub/a", "sub/b", "sub/deep/a"] {
            write(folder, name, format!("in {name}"));
        }
    }
    here
}

fn check(scene: &Scene, args: &[&str]) -> Ran {
    let url = scene.url("");
    scene.haul(&[&["check", "here", &url], args].concat())
}

/// Everything that a look could have changed.
fn state(folder: &Path) -> Vec<(PathBuf, i64, i64)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        let metadata = std::fs::metadata(&dir).unwrap();
        found.push((dir.clone(), metadata.mtime(), metadata.ctime_nsec()));
        open.extend(std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
    }
    found
}

#[test]
fn trees_that_are_alike_are_equal_and_nothing_is_changed() {
    for kind in ALL {
        let Some(scene) = Scene::new(kind) else { continue };
        let here = alike(&scene);
        let before = (state(&here), state(&scene.folder));
        for args in [&[][..], &["--checksum"], &["--checksum", "--read"], &["--size-only"], &["--one-way"]] {
            let ran = check(&scene, args).ends(0);
            assert_eq!(ran.out(), "", "{kind:?} {args:?}");
            assert!(ran.err().contains("haul: 6 equal"), "{kind:?} {args:?}: {}", ran.err());
        }
        assert_eq!((state(&here), state(&scene.folder)), before, "{kind:?}");
    }
}

#[test]
fn what_differs_is_told_with_the_reason() {
    for kind in ALL {
        let Some(scene) = Scene::new(kind) else { continue };
        let here = alike(&scene);
        write(&here, "only here", "x");
        write(&here, "new dir/x", "x");
        write(&here, "b", "in b, and more");
        scene.plant("extra", "x");
        scene.plant("extras/x", "x");
        scene.plant("sub/b", "IN sub/b");
        set_time(&here.join("c"), 1_700_000_100);
        let lines = |args: &[&str], status| {
            let ran = check(&scene, args).ends(status);
            let mut lines: Vec<_> = ran.out().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let always = ["different (size: 14, 4): b", "missing: new dir/", "missing: new dir/x", "missing: only here"];
        let extra = ["extra: extra", "extra: extras/", "extra: extras/x"];
        let time = "different (time: 2023-11-14T22:15:00Z, 2023-11-14T22:13:20Z): c";
        let mut wanted = [&always[..1], &[time], &extra, &always[1..]].concat();
        assert_eq!(lines(&[], 1), wanted, "{kind:?}");
        wanted.retain(|line| !line.starts_with("extra"));
        assert_eq!(lines(&["--one-way"], 1), wanted, "{kind:?}");
        assert_eq!(lines(&["--size-only", "--one-way"], 1), always, "{kind:?}");
        for read in [&[][..], &["--read"], &["-a", "sha1"]] {
            let found = lines(&[&["--checksum", "--one-way"], read].concat(), 1);
            let digest: Vec<_> = found.iter().filter(|line| line.ends_with("): sub/b")).collect();
            assert_eq!((digest.len(), found.len()), (1, 5), "{kind:?}: {found:?}");
            assert!(!digest[0].contains("size"), "{kind:?}: {found:?}");
        }
        let equal = lines(&["-v", "--checksum", "--one-way"], 1);
        assert!(equal.contains(&"equal: c".to_owned()), "{kind:?}: by its contents: {equal:?}");
    }
}

#[test]
fn json_tells_both_sides_and_a_summary() {
    for kind in [Kind::Local, Kind::Sftp, Kind::Lab("proftpd"), Kind::Lab("openssh")] {
        let Some(scene) = Scene::new(kind) else { continue };
        let here = alike(&scene);
        write(&here, "b", "IN b");
        write(&here, "d", "d");
        let ran = check(&scene, &["--checksum", "--json"]).ends(1);
        let told = objects(&ran);
        let of = |name: &str| told.iter().find(|line| line["name"] == name).unwrap();
        assert_eq!(
            (of("b")["verdict"].as_str(), of("b")["why"].as_str()),
            (Some("different"), Some("digest")),
            "{kind:?}"
        );
        assert_ne!(of("b")["digests"]["source"], of("b")["digests"]["destination"]);
        assert_eq!(of("a")["digests"]["destination_by"], scene.digests_small(), "{kind:?}");
        assert_eq!(of("a")["digests"]["source_by"], "read");
        assert_eq!((of("a")["verdict"].as_str(), &of("a")["source"]["size"]), (Some("equal"), &Value::from(4)));
        assert_eq!(of("a")["destination"]["url"].as_str().unwrap().rsplit('/').next(), Some("a"));
        assert!(of("d")["destination"].is_null() && of("d")["verdict"] == "missing", "{kind:?}");
        let summary = told.last().unwrap();
        assert_eq!(
            (&summary["event"], &summary["equal"], &summary["different"], &summary["missing"]),
            (&"summary".into(), &5.into(), &1.into(), &1.into()),
            "{kind:?}"
        );
        assert!(summary["algorithm"].is_string(), "{kind:?}");
    }
}

#[test]
fn links_are_links() {
    for kind in [Kind::Local, Kind::Lab("openssh")] {
        let Some(scene) = Scene::new(kind) else { continue };
        let here = alike(&scene);
        for (folder, target) in [(&here, "a"), (&scene.folder, "b")] {
            symlink(target, folder.join("link")).unwrap();
            symlink("sub", folder.join("to-dir")).unwrap();
        }
        let ran = check(&scene, &[]).ends(1);
        assert_eq!(ran.out(), "different (link target): link\n", "{kind:?}: {}", ran.err());
        check(&scene, &["--links", "skip"]).ends(0);
        std::fs::remove_file(here.join("a")).unwrap();
        symlink("b", here.join("a")).unwrap();
        let ran = check(&scene, &["--links", "skip"]).ends(0);
        assert_eq!(ran.out(), "", "{kind:?}");
        let ran = check(&scene, &[]).ends(1);
        assert!(ran.out().contains("different (kind: symlink, file): a\n"), "{kind:?}: {}", ran.out());
    }
}

#[test]
fn what_can_t_be_looked_at_is_no_difference_but_a_failure() {
    let Some(scene) = Scene::new(Kind::Lab("openssh")) else { return };
    alike(&scene);
    let closed = scene.folder.join("sub/deep");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let ran = check(&scene, &[]).ends(1);
    assert_eq!(ran.out(), "unreadable: sub/deep\n", "{}", ran.err());
    assert!(ran.err().contains("1 unreadable") && ran.err().contains("sub/deep:"), "{}", ran.err());
}

#[test]
fn two_trees_that_are_no_trees_are_refused() {
    let scene = Scene::new(Kind::Sftp).unwrap();
    alike(&scene);
    for (left, right) in [("here/a", "sub"), ("here/sub", "a")] {
        let ran = scene.haul(&["check", left, &scene.url(right)]).ends(1);
        assert!(ran.err().contains("a: is not a directory"), "{}", ran.err());
    }
    scene.haul(&["check", "here", &scene.url("nowhere")]).ends(1);
    scene.haul(&["check", "--checksum", "--size-only", "here", &scene.url("")]).ends(2);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    scene.haul(&["check", "here", &format!("sftp://me@127.0.0.1:{port}/"), "--retries", "0"]).ends(3);
}

#[test]
fn filters_hold_for_both_trees_and_for_lists() {
    for kind in [Kind::Local, Kind::Ftp, Kind::Lab("openssh")] {
        let Some(scene) = Scene::new(kind) else { continue };
        let here = alike(&scene);
        write(&here, "here.tmp", "x");
        scene.plant("there.tmp", "x");
        scene.plant("sub/there.tmp", "x");
        let ran = check(&scene, &["--exclude", "*.tmp"]).ends(0);
        assert!(ran.err().contains("haul: 6 equal"), "{kind:?}: {}", ran.err());
        let ran = check(&scene, &["--checksum", "--include", "/sub/**", "--exclude", "*.tmp"]).ends(0);
        assert!(ran.err().contains("haul: 3 equal"), "{kind:?}: {}", ran.err());
        let url = scene.url("");
        let list = scene.haul(&["digest", "-r", "--exclude", "*.tmp", &url]).ends(0);
        assert_eq!(list.out().lines().count(), 6, "{kind:?}: {}", list.out());
        let ran = scene.haul_with(&["check", "--sums", "-", "--exclude", "*.tmp", &url], &list.stdout).ends(0);
        assert!(ran.err().contains("haul: 6 equal"), "{kind:?}: {}", ran.err());
        scene.haul_with(&["check", "--sums", "-", &url], &list.stdout).ends(1);
        scene.plant(".haulignore", "*.tmp\n.haulignore\n");
        assert_eq!(scene.haul(&["digest", "-r", &url]).ends(0).stdout, list.stdout, "{kind:?}");
    }
}

#[test]
fn two_files_are_compared_as_well() {
    for kind in ALL {
        let Some(scene) = Scene::new(kind) else { continue };
        let here = alike(&scene);
        let check = |args: &[&str], status| {
            let url = scene.url("b");
            scene.haul(&[&["check", "here/b", &url], args].concat()).ends(status).out()
        };
        assert_eq!(check(&["-v"], 0), "equal: b\n", "{kind:?}");
        assert_eq!(check(&["-v", "--checksum"], 0), "equal: b\n", "{kind:?}");
        write(&here, "b", "IN b");
        assert_eq!(check(&[], 0), "", "{kind:?}: size and time are the same");
        let told = check(&["--checksum"], 1);
        assert!(told.starts_with("different (") && told.ends_with("): b\n"), "{kind:?}: {told}");
        write(&here, "b", "longer");
        assert_eq!(check(&["--size-only"], 1), "different (size: 6, 4): b\n", "{kind:?}");
    }
}

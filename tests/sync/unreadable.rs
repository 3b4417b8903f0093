//! Folders of a server that may not be read: they are no empty ones.

use std::os::unix::fs::PermissionsExt;

use crate::scene::*;

/// Servers, and the modes that keep even the owner from listing what is in a folder, or from looking at it.
const SERVERS: [&str; 4] = ["vsftpd", "proftpd", "pureftpd", "pyftpdlib"];
const MODES: [u32; 2] = [0o111, 0o444];

#[test]
fn a_folder_that_cannot_be_read_is_not_empty() {
    for (kind, mode) in SERVERS.into_iter().flat_map(|kind| MODES.map(|mode| (kind, mode))) {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to, got) = (scene.far("from"), scene.near("to"), scene.near("got"));
        let spec: Spec<'_> = &[("fine", Some(("f", 1_600_000_000))), ("sub/a", Some(("a", 1_600_000_000)))];
        scene.plant(&from, spec);
        scene.sync(&from, &to, &["--delete"]).fine();
        let sub = from.disk.join("sub");
        std::fs::set_permissions(&sub, std::fs::Permissions::from_mode(mode)).unwrap();
        let what = format!("{kind}, {mode:o}");
        for options in [&["--delete"][..], &["--delete", "--force-delete"]] {
            let told = scene.sync(&from, &to, options);
            assert_eq!(told.status(), 1, "{what}: {}", told.text());
            assert!(told.text().contains("from/sub"), "{what}: {}", told.text());
            assert_eq!(told.total("deleted"), 0, "{what}: {}", told.text());
            assert!(to.disk.join("sub/a").exists(), "{what}");
        }
        let url = format!("{}/sub", from.url);
        for arguments in [&["ls", &url][..], &["get", "-r", &from.url, &got.url]] {
            let told = Told(scene.command(arguments).output().unwrap());
            assert_eq!(told.status(), 1, "{what}, {}: {}", arguments[0], told.text());
            assert!(told.text().contains("from/sub"), "{what}, {}: {}", arguments[0], told.text());
        }
    }
}

#[test]
fn an_empty_folder_is_empty() {
    for kind in [&SERVERS[..], &["embedded ftp"]].concat() {
        let Some(scene) = Scene::new(kind) else { continue };
        let (from, to) = (scene.far("from"), scene.near("to"));
        scene.plant(&from, &[("fine", Some(("f", 1_600_000_000))), ("sub", None)]);
        scene.plant(&to, &[("sub/a", Some(("a", 1_600_000_000)))]);
        let told = scene.sync(&from, &to, &["--delete"]);
        assert_eq!(told.fine().total("deleted"), 1, "{kind}: {}", told.text());
        assert_eq!(contents(&to.disk), contents(&from.disk), "{kind}");
        let told = Told(scene.command(&["ls", &format!("{}/sub", from.url)]).output().unwrap());
        assert_eq!(told.fine().objects().len(), 0, "{kind}: {}", told.text());
    }
}

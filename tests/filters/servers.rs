//! Filters at real servers and at haul's own.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::scene::{Scene, Watch, found, plant, plant_aged};
use super::support::client::{events, told};

const SERVERS: [&str; 5] = ["openssh", "proftpd", "pureftpd", "own sftp", "own ftp"];

fn each(servers: &[&str], test: fn(&Scene)) {
    servers.iter().filter_map(|name| Scene::new(name)).for_each(|scene| test(&scene));
}

#[test]
fn a_directory_that_is_ruled_out_is_not_listed() {
    each(&SERVERS, |scene| {
        plant(&scene.far("tree"), &["a.txt", "a.tmp", "sub/b.txt", "cache/x", "sub/cache/y", "deep/er/z", "kept/a"]);
        std::fs::write(scene.far("tree/.haulignore"), "deep/er/\n").unwrap();
        let closed = ["cache", "sub/cache", "deep/er"].map(|dir| Watch::over(&scene.far(&format!("tree/{dir}"))));
        let (tree, copy) = (scene.url("tree"), scene.near("copy"));
        scene.run(&["get", "-r", &tree, copy.to_str().unwrap(), "--exclude=*.tmp", "--exclude=cache/"]);
        assert_eq!(found(&copy), [".haulignore", "a.txt", "kept/a", "sub/b.txt"], "{}", scene.server.name);
        assert!(!closed.iter().any(Watch::was_opened), "{}", scene.server.name);

        let all = scene.near("all");
        scene.run(&["get", "-r", &tree, all.to_str().unwrap(), "--no-haulignore"]);
        assert_eq!(found(&all).len(), 8);
        assert!(closed.iter().all(Watch::was_opened), "the watch sees what is listed: {}", scene.server.name);
    });
}

#[test]
fn put_heeds_what_the_source_says() {
    each(&SERVERS, |scene| {
        let tree = scene.near("tree");
        plant(
            &tree,
            &["a.c", "a.o", "target/x", "lib/b.c", "lib/b.o", "lib/keep.o", "lib/target/x", "empty/", "o/x.o"],
        );
        std::fs::write(tree.join(".haulignore"), "*.o\n/target/\n").unwrap();
        std::fs::write(tree.join("lib/.haulignore"), "!keep.o\n").unwrap();
        let closed = Watch::over(&tree.join("target"));
        scene.run(&["put", "-r", tree.to_str().unwrap(), &scene.url("copy")]);
        let all = [".haulignore", "a.c", "empty/", "lib/.haulignore", "lib/b.c", "lib/keep.o", "lib/target/x"];
        assert_eq!(found(&scene.far("copy")), all, "{}", scene.server.name);
        assert!(!closed.was_opened());
    });
}

#[test]
fn only_what_a_list_names_is_looked_at() {
    each(&SERVERS, |scene| {
        plant(&scene.far("tree"), &["a", "b", "sub/x", "sub/y", "whole/p/q", "whole/r", "other/z"]);
        let (tree, copy) = (scene.url("tree/."), scene.near("copy"));
        let closed = ["other", "sub"].map(|dir| Watch::over(&scene.far(&format!("tree/{dir}"))));
        let arguments = ["get", "-r", "--files-from=-", &tree, copy.to_str().unwrap()];
        let output = scene.run_with(&arguments, b"a\nsub/x\nwhole\nno/such\nmissing\n");
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert_eq!(found(&copy), ["a", "sub/x", "whole/p/q", "whole/r"], "{}", scene.server.name);
        let mut failed: Vec<_> =
            events(&output, "file").into_iter().filter(|file| file["status"] == "failed").collect();
        failed.sort_by_key(|file| file["source"].to_string());
        let sources: Vec<_> = failed.iter().map(|file| file["source"].as_str().unwrap()).collect();
        let kinds: Vec<_> = failed.iter().map(|file| file["error"]["kind"].as_str().unwrap()).collect();
        assert!(
            sources.len() == 2 && sources[0].ends_with("/missing") && sources[1].ends_with("/no/such"),
            "{sources:?}"
        );
        assert_eq!(kinds, ["not_found"; 2], "{}", scene.server.name);
        assert!(!closed[0].was_opened());
        // FTP without MLST has no other way to look at a file than the listing of its directory.
        assert!(!closed[1].was_opened() || scene.server.scheme != "sftp", "{}", scene.server.name);

        let copy = scene.near("again");
        let arguments = ["get", "--files-from=-", &tree, copy.to_str().unwrap()];
        let output = scene.run_with(&arguments, b"./sub/y\0whole\0");
        assert_eq!((output.status.code(), found(&copy)), (Some(1), vec!["sub/y".to_owned()]));
        assert!(told(&output).contains("use -r"), "{}", told(&output));
    });
}

/// Listings of some servers tell times to the minute or day, in a zone of their own: then the exact time decides.
#[test]
fn ages_and_sizes_decide_as_exactly_as_can_be() {
    each(&["openssh", "vsftpd", "pureftpd", "own ftp"], |scene| {
        let tree = scene.far("tree");
        plant(&tree, &["sub/", "old/"]);
        let hour = Duration::from_secs(3600);
        for (name, hours) in [("sub/new", 1), ("sub/23h", 23), ("sub/25h", 25), ("old/year", 400 * 24)] {
            plant_aged(&tree.join(name), hour * hours);
        }
        std::fs::write(tree.join("large"), [0; 3000]).unwrap();
        let copied = |name: &str, options: &[&str]| {
            let (url, copy) = (scene.url("tree"), scene.near(name));
            scene.run(&[&["get", "-r", &url, copy.to_str().unwrap()], options].concat());
            found(&copy)
        };
        assert_eq!(copied("newer", &["--newer=24h"]), ["large", "sub/23h", "sub/new"], "{}", scene.server.name);
        assert_eq!(copied("older", &["--older=24h"]), ["old/year", "sub/25h"], "{}", scene.server.name);
        assert_eq!(copied("large", &["--min-size=2k"]), ["large"]);
        assert_eq!(copied("small", &["--max-size=2k", "--newer=2d"]), ["sub/23h", "sub/25h", "sub/new"]);
        assert_eq!(copied("depth", &["--max-depth=1"]), ["large"]);
    });
}

/// A listing that is longer than what is waited for: the file of patterns is asked for.
#[test]
fn patterns_are_heeded_however_long_the_listing_is() {
    each(&["openssh", "own ftp"], |scene| {
        let tree = scene.far("tree");
        std::fs::create_dir(&tree).unwrap();
        for number in 0..9000 {
            std::fs::write(tree.join(format!("-{number:05}.{}", if number % 100 == 0 { "log" } else { "no" })), "")
                .unwrap();
        }
        let (url, copy) = (scene.url("tree"), scene.near("copy"));
        scene.run(&["get", "-r", &url, copy.to_str().unwrap(), "--include=*.log"]);
        assert_eq!(found(&copy).len(), 90, "{}", scene.server.name);
        std::fs::write(tree.join(".haulignore"), "*\n!/-000*\n").unwrap();
        let copy = scene.near("again");
        scene.run(&["get", "-r", &url, copy.to_str().unwrap()]);
        assert_eq!(found(&copy).len(), 100, "{}", scene.server.name);
    });
}

/// What the patterns would rule out is not known, so nothing of the directory is moved.
#[test]
fn patterns_that_cant_be_read_stop_their_directory() {
    each(&["openssh", "proftpd"], |scene| {
        plant(&scene.far("tree"), &["a", "sub/secret", "sub/.haulignore", "odd/x", "odd/.haulignore/"]);
        let locked = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(scene.far("tree/sub/.haulignore"), locked).unwrap();
        let (tree, copy) = (scene.url("tree"), scene.near("copy"));
        let output = scene.run_with(&["get", "-r", &tree, copy.to_str().unwrap()], b"");
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(told(&output).contains("--no-haulignore"), "{}", told(&output));
        assert_eq!(found(&copy), ["a", "odd/.haulignore/", "odd/x", "sub/"], "{}", scene.server.name);
    });
}

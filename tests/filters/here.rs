//! What a user types: the order of patterns, files of them, operands, mistakes.

use super::scene::{Scene, found, plant};
use super::support::client::{events, told};

/// Copies a tree of this machine with options, and returns what arrived.
fn copied(scene: &Scene, name: &str, options: &[&str]) -> Vec<String> {
    let copy = scene.near(name);
    let (from, to) = (scene.near("tree"), copy.to_str().unwrap().to_owned());
    scene.run(&[&["put", "-r", from.to_str().unwrap(), &format!("file://{to}")], options].concat());
    found(&copy)
}

fn scene(names: &[&str]) -> Scene {
    let scene = Scene::new("own sftp").unwrap();
    plant(&scene.near("tree"), names);
    scene
}

#[test]
fn the_order_of_patterns_counts_across_options() {
    let scene = scene(&["a.log", "keep.log", "b.txt", "sub/c.log", "sub/keep.log"]);
    let rules = scene.near("rules");
    std::fs::write(&rules, "# logs\n*.log\n!keep.log\n").unwrap();
    let from = format!("--filter-from={}", rules.display());
    let keep = ["b.txt", "keep.log", "sub/keep.log"];
    assert_eq!(copied(&scene, "1", &["--exclude=*.log", "--include=keep.log"]), keep);
    assert_eq!(copied(&scene, "2", &[&from]), keep);
    assert_eq!(copied(&scene, "3", &[&from, "--exclude", "sub/"]), ["b.txt", "keep.log"]);
    assert_eq!(
        copied(&scene, "4", &["--exclude=b.*", &from, "--include", "/a.log"]),
        ["a.log", "keep.log", "sub/keep.log"]
    );
    assert_eq!(copied(&scene, "5", &["--include=keep.log", "--exclude=*.log"]), [""; 0]);
    assert_eq!(copied(&scene, "6", &["--include=*.log", "--exclude=sub/"]), ["a.log", "keep.log"]);
}

#[test]
fn a_directory_in_which_nothing_is_left_is_not_made() {
    let scene = scene(&["a/x.jpg", "a/b/y.txt", "empty/", "c/d/e/"]);
    assert_eq!(copied(&scene, "1", &["--exclude=*.txt"]), ["a/x.jpg", "c/d/e/", "empty/"]);
    assert_eq!(copied(&scene, "2", &["--include=*.jpg"]), ["a/x.jpg", "c/d/e/", "empty/"]);
    assert_eq!(copied(&scene, "3", &["--include=*.gif", "--exclude=c", "--exclude=empty"]), [""; 0]);
    assert!(!scene.near("3").exists());
}

#[test]
fn operands_are_filtered_by_their_names() {
    let scene = scene(&["a.txt", "b.tmp", "dir/c.txt", "dir/d.tmp", "skip/e.txt"]);
    let tree = |name: &str| scene.near("tree").join(name).display().to_string();
    let copy = scene.near("copy");
    std::fs::create_dir(&copy).unwrap();
    let to = format!("file://{}", copy.display());
    let operands = ["a.txt", "b.tmp", "dir", "skip"].map(tree);
    let mut arguments = vec!["put", "-r", "--exclude=*.tmp", "--exclude=skip", "--exclude=/a.txt"];
    arguments.extend(operands.iter().map(String::as_str));
    arguments.push(&to);
    let output = scene.run_with(&arguments, b"");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(found(&copy), ["a.txt", "dir/c.txt"]);
    assert_eq!(events(&output, "file").len(), 2);
}

#[test]
fn mistakes_are_told_before_anything_is_moved() {
    let scene = scene(&["a"]);
    let (from, to) = (scene.near("tree").display().to_string(), format!("file://{}", scene.near("copy").display()));
    std::fs::write(scene.near("rules"), "ok\n\n[z\n").unwrap();
    std::fs::write(scene.near("list"), "a\n../../etc/passwd\n").unwrap();
    std::fs::write(scene.near("long"), "x".repeat(70_000)).unwrap();
    let long = format!("--files-from={}", scene.near("long").display());
    let rules = format!("--filter-from={}", scene.near("rules").display());
    let list = format!("--files-from={}", scene.near("list").display());
    for (options, words) in [
        (vec!["--exclude=a[b"], "a bracket is not closed"),
        (vec![rules.as_str()], "rules:3"),
        (vec!["--filter-from=/no/such"], "/no/such"),
        (vec!["--files-from=/no/such"], "/no/such"),
        (vec!["--files-from=ftp://me:hidden@h/q"], "ftp://me@h/q"),
        (vec![&long], "long:1"),
        (vec![&list], "list:2"),
        (vec!["--newer=yesterday"], "2026-11-20"),
        (vec!["--max-depth=0"], "--max-depth"),
        (vec!["--files-from=/dev/null", "--max-size=0"], "--max-size"),
    ] {
        let arguments = [&["put", "-r", &from, &to], options.as_slice()].concat();
        let output = scene.run_with(&arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(words), "{arguments:?}: {}", told(&output));
        assert!(!told(&output).contains("hidden") && told(&output).len() < 2000, "{}", told(&output));
        assert!(!scene.near("copy").exists());
    }
    let output = scene.run_with(&["put", "-r", &from, &from, &to, "--files-from=/dev/null"], b"");
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("exactly one source"), "{}", told(&output));
    let output = scene.run_with(&["put", "-", &to, "--exclude=x"], b"");
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
}

/// A dry run tells of what the filters leave, and makes nothing.
#[test]
fn a_dry_run_heeds_filters() {
    let scene = scene(&["a.c", "a.o", "d/b.o"]);
    let (from, to) = (scene.near("tree").display().to_string(), format!("file://{}", scene.near("copy").display()));
    let output = scene.run_with(&["put", "-r", "-n", "--dry-run", "--exclude=*.o", &from, &to], b"");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let files = events(&output, "file");
    assert!(files.len() == 1 && files[0]["source"].as_str().unwrap().ends_with("a.c"), "{files:?}");
    assert!(!scene.near("copy").exists());
}

/// What is no file has no patterns; a pipe is not waited for.
#[test]
fn a_haulignore_that_is_no_file_is_none() {
    let scene = scene(&["a.o", "b.c", "linked/a.o", "linked/b.c", "dir/.haulignore/", "dir/a.o"]);
    let tree = scene.near("tree");
    let pipe = tree.join(".haulignore");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::write(scene.near("patterns"), "*.o\n").unwrap();
    std::os::unix::fs::symlink(scene.near("patterns"), tree.join("linked/.haulignore")).unwrap();
    let copied = copied(&scene, "1", &["--exclude=.haulignore"]);
    assert_eq!(copied, ["a.o", "b.c", "dir/a.o", "linked/b.c"]);
    // Nor is one that is to be copied itself.
    let to = format!("file://{}", scene.near("copy").display());
    let output = scene.run_with(&["put", pipe.to_str().unwrap(), &to], b"");
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
}

/// What is left out in every run counts for less than what is typed, and doesn't make an include come second.
#[test]
fn excludes_can_be_settings() {
    let scene = scene(&["a.tmp", "b.jpg", "c.txt", ".haulignore", "d.o"]);
    std::fs::write(scene.near("tree/.haulignore"), "*.o\n").unwrap();
    let config = scene.near("config.toml");
    std::fs::write(&config, "[defaults]\nexclude = [\"*.tmp\", \".haulignore\"]\n").unwrap();
    let config = format!("--config={}", config.display());
    assert_eq!(copied(&scene, "1", &[&config]), ["b.jpg", "c.txt"]);
    assert_eq!(copied(&scene, "2", &[&config, "--include=*.jpg"]), ["b.jpg"]);
    assert_eq!(copied(&scene, "3", &[&config, "--include=a.tmp", "--no-haulignore"]), ["a.tmp"]);
    assert_eq!(copied(&scene, "4", &[&config, "--exclude=c.txt"]), [".haulignore", "a.tmp", "b.jpg"]);
    let off = scene.near("off.toml");
    std::fs::write(&off, "[defaults]\nhaulignore = false\nexclude = \"*.tmp\"\n").unwrap();
    let off = format!("--config={}", off.display());
    assert_eq!(copied(&scene, "5", &[&off]), [".haulignore", "b.jpg", "c.txt", "d.o"]);
    assert_eq!(copied(&scene, "6", &[&off, "--haulignore"]), [".haulignore", "b.jpg", "c.txt"]);
    let wrong = scene.near("wrong.toml");
    std::fs::write(&wrong, "[defaults]\nexclude = \"a[\"\n").unwrap();
    let wrong = format!("--config={}", wrong.display());
    let output = scene.run_with(&["config", "check", &wrong], b"");
    assert!(told(&output).contains("wrong.toml:2") || output.status.code() == Some(2), "{}", told(&output));
}

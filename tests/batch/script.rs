//! Scripts for `sftp -b`: the same file by both programs leaves the same trees and says the same.

use std::os::unix::fs::{MetadataExt, chown};
use std::process::Stdio;

use super::*;
use support::client::{names_below, told};

const SCRIPT: &str = r#"# what people write
pwd
lpwd
ls -1
ls -1a
ls
ls dir
ls -1r *.txt
ls -1 dir/*
ls -1S
ls -1 {one,two}.txt
@ls -1 dir
get one.txt
get two.txt renamed
get "with space" copy
get star\*
get *.txt tree
get -R dir
reget one.txt again
put a.c
put *.c dir
put -r tree
put -p run.sh ran
put b.c "b c"
mkdir new
-mkdir new
-@rm nothing
- get absent
rename one.txt new/uno
ln -s two.txt lnk
symlink two.txt lnk2
ln two.txt hard
chmod 600 two.txt
chmod 640 *.c
rm 'with space'
mkdir gone
rmdir gone
lmkdir made
lcd made
lpwd
get two.txt
!echo from the shell > shell
!echo to be seen
!false
lls -1
lcd ..
progress
lumask 077
get two.txt masked
version
cd dir
cd ..
cd dir/deep
pwd
cd ../..
mkdir "a b"
cd a\ b
put a.c
put 'run.sh' x.sh
rm absent
mkdir never
"#;

#[test]
fn a_script_does_what_sftp_does() {
    let Some(scene) = Scene::lab("openssh", "differential") else { return };
    if Command::new("sftp").arg("-h").stderr(Stdio::null()).status().is_err() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "sftp is missing");
        eprintln!("SKIPPED: no sftp");
        return;
    }
    let by = |who: &str| {
        let folder = format!("by-{who}");
        prepare(&scene, &folder);
        let server = &scene.server;
        let mut command = match who {
            "sftp" => {
                let mut command = Command::new("sftp");
                command.args(["-b", "../script", "-F", "none", "-o", "StrictHostKeyChecking=yes", "-P"]);
                command.arg(server.port.to_string()).arg("-i").arg(&server.identity);
                command.arg("-o").arg(format!("UserKnownHostsFile={}", server.known_hosts.display()));
                command.arg(format!("{}@{}:{}/{folder}", server.login, server.host, scene.far));
                command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", scene.home.path());
                command
            }
            _ => scene.command(&["--endpoint", &scene.url(&folder), "../script"]),
        };
        command.env("SHELL", "/bin/sh").env("LC_ALL", "C").current_dir(scene.near(&folder)).output().unwrap()
    };
    scene.file("script", SCRIPT);
    let (sftp, haul) = (by("sftp"), by("haul"));
    assert_eq!(haul.status.code(), sftp.status.code(), "{}{}", told(&sftp), told(&haul));
    // Echo and notes of sftp stand on standard output.
    let notes = ["sftp> ", "Changing to", "Retrieving ", "Entering "];
    let said: Vec<_> = stdout(&sftp).lines().map(|line| line.replace("/by-sftp", "/[X]")).collect();
    let said: Vec<_> = said.into_iter().filter(|line| !notes.iter().any(|note| line.starts_with(note))).collect();
    let same: Vec<_> = stdout(&haul)
        .lines()
        .filter(|line| !line.starts_with("{\"event\""))
        .map(|line| line.replace("/by-haul", "/[X]"))
        .collect();
    assert_eq!(same, said, "{}", told(&haul));
    assert_eq!(tree(&scene.near("by-haul")), tree(&scene.near("by-sftp")));
    assert_eq!(tree(&scene.far("by-haul")), tree(&scene.far("by-sftp")));
    assert!(names_below(&scene.far("by-haul")).iter().any(|name| name == "new/uno"), "nothing was done");
}

/// Makes the same trees for each.
fn prepare(scene: &Scene, who: &str) {
    for (name, contents) in [
        ("one.txt", "one"),
        ("two.txt", "two, longer"),
        ("with space", "s"),
        ("star*", "star"),
        ("dir/d", "d"),
        ("dir/deep/e", "e"),
        (".hidden", "h"),
    ] {
        scene.far_file(&format!("{who}/{name}"), contents);
    }
    let owner = std::fs::metadata(&scene.server.root).unwrap();
    for name in ["", "one.txt", "two.txt", "with space", "star*", "dir", "dir/d", "dir/deep", "dir/deep/e", ".hidden"] {
        chown(scene.far(&format!("{who}/{name}")), Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    for (name, contents) in [("a.c", "a"), ("b.c", "bb"), ("tree/in/i", "i"), ("run.sh", "#!/bin/sh\n")] {
        let path = scene.file(&format!("{who}/{name}"), contents);
        let mode = if name == "run.sh" { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Every name below a folder: what it is, its mode and contents.
fn tree(folder: &Path) -> Vec<String> {
    let (mut lines, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            let what = match metadata.file_type() {
                kind if kind.is_symlink() => format!("-> {}", path.read_link().unwrap().display()),
                kind if kind.is_dir() => "/".to_owned(),
                _ => read(&path),
            };
            let mode = if metadata.is_symlink() { 0 } else { metadata.mode() & 0o7777 };
            lines.push(format!("{name} {mode:o} {} {what}", if metadata.is_file() { metadata.nlink() } else { 0 }));
            if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_script_runs_against_every_server() {
    let script = "mkdir d\nput a d/b\ncd d\nls -1\nrename b c\nget c ../near/got\n-rm nothing\nrm c\ncd ..\nrmdir d\nbye\nmkdir never\n";
    let run = |scene: &Scene| {
        scene.file("a", "contents");
        let output = scene.script(script);
        assert_eq!(output.status.code(), Some(0), "{}: {}", scene.server.name, told(&output));
        assert!(stdout(&output).lines().any(|line| line == "b"), "{}", told(&output));
        assert_eq!(read(scene.near("got")), "contents");
        assert_eq!(std::fs::read_dir(scene.far("")).unwrap().count(), 0, "{}", scene.server.name);
    };
    for server in ["openssh", "vsftpd", "proftpd"] {
        if let Some(scene) = Scene::lab(server, "script") {
            run(&scene);
        }
    }
    for scheme in ["sftp", "ftp"] {
        run(&Scene::own(scheme, "script"));
    }
}

#[test]
fn what_a_server_cannot_do_is_said_with_the_line() {
    let scene = Scene::own("ftp", "unsupported");
    scene.file("a", "a");
    for line in ["ln a b", "chown 1 a", "df"] {
        scene.far_file("a", "a");
        let output = scene.script(&format!("pwd\n{line}\nmkdir never\n"));
        assert_eq!(output.status.code(), Some(1), "{line}: {}", told(&output));
        assert!(stderr(&output).contains("the protocol has no words for"), "{line}: {}", told(&output));
        assert!(stderr(&output).contains("script:2:1: the script ends here"), "{line}: {}", told(&output));
        assert!(!scene.far("never").exists());
    }
}

#[test]
fn every_mistake_of_a_script_is_told_before_anything_moves() {
    let scene = Scene::own("sftp", "script-mistakes");
    let output = scene.script("mkdir d\nptu a\nget 'x\nchmod 9 y\n");
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    insta::assert_snapshot!(stderr(&output), @r#"
    haul: script:2:1: unknown command: ptu
      did you mean put?
    haul: script:3:5: a quote that isn't closed
    haul: script:4:7: chmod wants a mode like 644: "9" is none
    haul: script: 3 mistakes; nothing was done
    "#);
    assert!(!scene.far("d").exists());
    let output = scene.batch(&["script"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    scene.file("script", "mkdir d\n");
    let output = scene.batch(&["script"]);
    assert!(stderr(&output).contains("a script needs a server"), "{}", told(&output));
}

#[test]
fn a_dry_run_shows_each_line() {
    let scene = Scene::own("sftp", "script-dry");
    scene.file("script", "cd sub\nlcd x\nput a\nget b c\nmkdir 'd e'\n");
    let output = scene.batch(&["--dry-run", "--endpoint", &scene.url(""), "script"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let near = scene.near("");
    let shown =
        stdout(&output).replace(near.to_str().unwrap().trim_end_matches('/'), "[NEAR]").replace(&scene.far, "[FAR]");
    let url = scene.server.endpoint().origin();
    assert_eq!(
        shown.replace(&url, "[URL]"),
        "3: put [NEAR]/x/a -> [URL]/~/[FAR]/sub\n4: get [URL]/~/[FAR]/sub/b -> [NEAR]/x/c\n5: mkdir [URL]/~/[FAR]/sub/d e\n"
    );
    assert!(!scene.far("sub").exists());
}

#[test]
fn a_profile_names_the_server_and_its_directory() {
    let scene = Scene::own("sftp", "profile");
    let settings = scene.home.path().join(".config/haul/config.toml");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(settings, format!("[profile.work]\nurl = \"{}\"\n", scene.url(""))).unwrap();
    scene.far_file("sub/b", "b");
    scene.file("script", "get b\nmkdir made\n");
    let output = scene.batch(&["--endpoint", "work:sub", "script"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(scene.near("b").exists() && scene.far("sub/made").is_dir());
    // Where it can't start, nothing is done.
    let output = scene.batch(&["--endpoint", "work:nowhere", "script"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(!stderr(&output).contains("sftp>"), "{}", told(&output));
}

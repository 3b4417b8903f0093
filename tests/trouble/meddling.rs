//! Somebody meddles with what haul writes: between two runs, and in the middle of one.
//!
//! `HAUL_TROUBLE=all` tries by FTP, too, all that is tried by SFTP.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::scene::{Scene, Way, told};
use crate::support::data::{MIB, assert_same, bytes};

const SIZE: usize = 4 * MIB + 77;

macro_rules! all {
    ($($test:ident)*) => {
        mod sftp_get { $(#[test] fn $test() { super::$test("sftp", super::Way::Get); })* }
        mod sftp_put { $(#[test] fn $test() { super::$test("sftp", super::Way::Put); })* }
        mod ftp_get { $(#[test] fn $test() { super::$test("ftp", super::Way::Get); })* }
        mod ftp_put { $(#[test] fn $test() { super::$test("ftp", super::Way::Put); })* }
    };
}

all! {
    a_part_that_somebody_touched_between_two_runs
    a_part_that_somebody_replaced_in_the_middle
    a_target_that_becomes_something_else_in_the_middle
}

/// What somebody does to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Truncate,
    Grow,
    Edit,
    Remove,
    File,
    LongFile,
    Directory,
    FullDirectory,
    Symlink,
    Pipe,
}

impl Deed {
    const ALL: [Self; 10] = [
        Self::Truncate,
        Self::Grow,
        Self::Edit,
        Self::Remove,
        Self::File,
        Self::LongFile,
        Self::Directory,
        Self::FullDirectory,
        Self::Symlink,
        Self::Pipe,
    ];

    fn to(self, path: &Path, elsewhere: &Path) {
        let open = || File::options().write(true).open(path).unwrap();
        match self {
            Self::Truncate => return open().set_len(MIB as u64 / 2).unwrap(),
            Self::Grow => return open().set_len(9 * MIB as u64).unwrap(),
            Self::Edit => return open().write_all_at(b"what is this", 100).unwrap(),
            _ => {}
        }
        fs::remove_file(path).unwrap();
        match self {
            Self::File => fs::write(path, bytes(9, MIB)).unwrap(),
            Self::LongFile => fs::write(path, bytes(9, 6 * MIB)).unwrap(),
            Self::Directory => fs::create_dir(path).unwrap(),
            Self::FullDirectory => {
                fs::create_dir(path).unwrap();
                fs::write(path.join("x"), "x").unwrap();
            }
            Self::Symlink => symlink(elsewhere, path).unwrap(),
            Self::Pipe => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            _ => {}
        }
    }

    fn is_directory(self) -> bool {
        matches!(self, Self::Directory | Self::FullDirectory)
    }
}

/// What to try: by FTP, in the quick form, what the protocols don't have in common.
fn deeds(protocol: &str) -> Vec<Deed> {
    if protocol == "sftp" || std::env::var_os("HAUL_TROUBLE").is_some() {
        return Deed::ALL.to_vec();
    }
    vec![Deed::Edit, Deed::Remove, Deed::LongFile, Deed::Directory, Deed::Pipe]
}

/// A file that no transfer has anything to do with.
fn elsewhere(scene: &Scene) -> (std::path::PathBuf, bytes::Bytes) {
    let (path, contents) = (scene.state("elsewhere"), bytes(8, 5 * MIB));
    fs::write(&path, &contents).unwrap();
    (path, contents)
}

fn a_part_that_somebody_touched_between_two_runs(protocol: &str, way: Way) {
    for deed in deeds(protocol) {
        eprintln!("{deed:?}");
        let scene = Scene::plain(protocol, way, SIZE);
        let (elsewhere, contents) = elsewhere(&scene);
        scene.interrupt(false);
        let part = scene.part().unwrap();
        deed.to(&part, &elsewhere);
        let output = scene.command(false, &[]).output().unwrap();
        assert_same(&fs::read(&elsewhere).unwrap(), &contents, "a file elsewhere");
        if output.status.success() {
            assert_same(&fs::read(scene.at("file")).unwrap(), &scene.wanted, "the file");
            assert_eq!(scene.strays(), Vec::<String>::new(), "{deed:?}");
            continue;
        }
        // An edit in the middle of what a server holds shows in its digest; a directory is not haul's to remove.
        let text = told(&output);
        let expected = match deed {
            Deed::Edit => 4,
            deed if deed.is_directory() || matches!(deed, Deed::Symlink | Deed::Pipe) => 1,
            _ => panic!("{deed:?}: {text}"),
        };
        assert_eq!(output.status.code(), Some(expected), "{deed:?}: {text}");
        assert!(!scene.at("file").exists(), "{deed:?}: {text}");
        put_right(&scene, &text);
        scene.works(scene.command(false, &[]));
    }
}

fn a_part_that_somebody_replaced_in_the_middle(protocol: &str, way: Way) {
    for deed in deeds(protocol).into_iter().filter(|deed| !matches!(deed, Deed::Truncate | Deed::Grow | Deed::Edit)) {
        eprintln!("{deed:?}");
        let scene = Scene::plain(protocol, way, SIZE);
        let (elsewhere, contents) = elsewhere(&scene);
        let mut child = scene.command(false, &["--limit-rate", "4M"]).spawn().unwrap();
        scene.wait_for_part(&mut child, MIB as u64);
        let part = scene.part().unwrap();
        deed.to(&part, &elsewhere);
        let output = child.wait_with_output().unwrap();
        let text = told(&output);
        assert_same(&fs::read(&elsewhere).unwrap(), &contents, "a file elsewhere");
        if scene.at("file").symlink_metadata().is_ok() {
            assert!(scene.at("file").symlink_metadata().unwrap().is_file(), "{deed:?}: {text}");
            assert_same(&fs::read(scene.at("file")).unwrap(), &scene.wanted, &format!("{deed:?}: {text}"));
        } else {
            let code = output.status.code();
            assert!(code == Some(1) || code == Some(4), "{deed:?}: {text}");
            put_right(&scene, &text);
        }
        scene.works(scene.command(false, &[]));
    }
}

fn a_target_that_becomes_something_else_in_the_middle(protocol: &str, way: Way) {
    for deed in [Deed::File, Deed::Directory, Deed::FullDirectory, Deed::Symlink, Deed::Pipe] {
        eprintln!("{deed:?}");
        let scene = Scene::plain(protocol, way, SIZE);
        let (elsewhere, contents) = elsewhere(&scene);
        let mut child = scene.command(false, &["--limit-rate", "4M"]).spawn().unwrap();
        scene.wait_for_part(&mut child, MIB as u64);
        let target = scene.at("file");
        fs::write(&target, "").unwrap();
        deed.to(&target, &elsewhere);
        let output = child.wait_with_output().unwrap();
        let text = told(&output);
        assert_same(&fs::read(&elsewhere).unwrap(), &contents, "a file elsewhere");
        if deed.is_directory() {
            assert_eq!(output.status.code(), Some(1), "{deed:?}: {text}");
            let part = scene.part().expect("what arrived is kept");
            assert!(text.contains(part.file_name().unwrap().to_str().unwrap()), "the part is not named: {text}");
            fs::remove_dir_all(&target).unwrap();
            let text = scene.works(scene.command(false, &[]));
            assert!(text.contains("resumed"), "{deed:?}: {text}");
        } else {
            assert!(output.status.success(), "{deed:?}: {text}");
            assert!(target.symlink_metadata().unwrap().is_file(), "{deed:?}");
            assert_same(&fs::read(&target).unwrap(), &scene.wanted, "the file");
        }
    }
}

/// What is left is named; the user puts it out of the way.
fn put_right(scene: &Scene, text: &str) {
    let left = scene.strays().into_iter().filter(|name| name.contains(".haul-"));
    for name in left {
        assert!(text.contains(&name), "{name} is left and not named: {text}");
        let path = scene.at(&name);
        let found = path.symlink_metadata().unwrap();
        if found.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
}

//! Disks that are full, read-only, limited, or not this user's.

use std::fs;

use crate::scene::{Scene, Way};
use crate::support::data::MIB;

const SIZE: usize = 5 * MIB;
const WAYS: [Way; 2] = [Way::Get, Way::Put];
/// A disk of 4 MiB, too small for the file, that can be made larger.
const SMALL: &str = "mount -t tmpfs -o size=4m,mode=777 none $T";
const ENOUGH: &str = "mount -o remount,size=16m $T";

macro_rules! both {
    ($($test:ident)*) => {
        mod sftp { $(#[test] fn $test() { super::$test("sftp"); })* }
        mod ftp { $(#[test] fn $test() { super::$test("ftp"); })* }
    };
}

both! {
    a_full_disk_says_so_and_the_next_run_goes_on_once_there_is_room
    a_full_disk_in_the_middle_keeps_what_arrived
    nothing_is_written_to_a_read_only_disk
    a_disk_that_becomes_read_only_in_the_middle
    permission_that_is_missing_or_goes_in_the_middle
}

fn a_full_disk_says_so_and_the_next_run_goes_on_once_there_is_room(protocol: &str) {
    for way in WAYS {
        let Some(scene) = Scene::new(protocol, way, SMALL, false, SIZE) else { return };
        let words: &[&str] = match way {
            Way::Get => &["No space left", "5242880 bytes more", "are free"],
            Way::Put => &["make room"],
        };
        let said = scene.fails(scene.command(false, &[]), 1, words);
        assert!(!scene.at("file").exists(), "a partial file under the final name");
        if way == Way::Get {
            // It was known before the first byte.
            assert_eq!(scene.strays(), Vec::<String>::new());
        }
        scene.sh(ENOUGH);
        let text = scene.works(scene.command(false, &[]));
        // A server may have taken a block by then, or not.
        assert_eq!(said.contains("goes on where it stopped"), text.contains("resumed"), "{protocol}: {said}{text}");
    }
}

/// Room was there at first, and somebody else took it.
fn a_full_disk_in_the_middle_keeps_what_arrived(protocol: &str) {
    for way in WAYS {
        let Some(scene) = Scene::new(protocol, way, SMALL, false, SIZE) else { return };
        scene.sh(ENOUGH);
        // Nothing can be reserved for a sparse file.
        let mut child = scene.command(false, &["--limit-rate", "2M", "--sparse"]).spawn().unwrap();
        scene.wait_for_part(&mut child, MIB as u64 * 3 / 2);
        scene.sh("head -c 20m /dev/zero > $T/other 2> /dev/null || true");
        let output = child.wait_with_output().unwrap();
        let text = crate::scene::told(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let part = scene.part().expect("the part is kept");
        assert!(text.contains("hint: make room") && text.contains("goes on where it stopped"), "{text}");
        assert!(text.contains(part.file_name().unwrap().to_str().unwrap()), "the part is not named: {text}");
        fs::remove_file(scene.at("other")).unwrap();
        let text = scene.works(scene.command(false, &[]));
        assert!(text.contains("resumed"), "{protocol} {way:?}: {text}");
    }
}

fn nothing_is_written_to_a_read_only_disk(protocol: &str) {
    for way in WAYS {
        let Some(scene) = Scene::new(protocol, way, "mount -t tmpfs -o ro none $T", false, SIZE) else { return };
        let words: &[&str] = if protocol == "ftp" && way == Way::Put { &[] } else { &["ead-only"] };
        scene.fails(scene.command(false, &[]), 1, words);
        assert_eq!(scene.strays(), Vec::<String>::new());
        scene.sh("mount -o remount,rw $T");
        scene.works(scene.command(false, &[]));
    }
}

/// As ext4 does to itself after an error: what is open for writing is so no more.
fn a_disk_that_becomes_read_only_in_the_middle(protocol: &str) {
    for way in WAYS {
        let Some(scene) = Scene::new(protocol, way, "mount -t tmpfs -o size=16m,mode=777 none $T", false, SIZE) else {
            return;
        };
        scene.interrupt(false);
        scene.sh("mount -o remount,ro $T");
        let part = scene.part().expect("a part");
        let text = scene.fails(scene.command(false, &[]), 1, &[]);
        assert!(part.exists(), "what arrived is kept: {text}");
        assert!(text.contains(part.file_name().unwrap().to_str().unwrap()), "the part is not named: {text}");
        scene.sh("mount -o remount,rw $T");
        let text = scene.works(scene.command(false, &[]));
        assert!(text.contains("resumed"), "{protocol} {way:?}: {text}");
    }
}

fn permission_that_is_missing_or_goes_in_the_middle(protocol: &str) {
    for way in WAYS {
        let mounts = "mount -t tmpfs -o size=16m,mode=755 none $T";
        let Some(scene) = Scene::new(protocol, way, mounts, true, SIZE) else { return };
        scene.fails(scene.command(true, &[]), 1, &["ermission"]);
        scene.sh("chmod 777 $T");
        let mut child = scene.command(true, &["--limit-rate", "3M"]).spawn().unwrap();
        scene.wait_for_part(&mut child, MIB as u64);
        // The rename at the end is refused.
        scene.sh("chmod 755 $T");
        let output = child.wait_with_output().unwrap();
        let text = crate::scene::told(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let part = scene.part().expect("what arrived is kept");
        assert!(text.contains("hint: ") && text.contains("ermission"), "{text}");
        assert!(text.contains(part.file_name().unwrap().to_str().unwrap()), "the part is not named: {text}");
        assert!(!scene.at("file").exists());
        scene.sh("chmod 777 $T");
        let text = scene.works(scene.command(true, &[]));
        assert!(text.contains("resumed"), "{protocol} {way:?}: {text}");
    }
}

#[test]
fn a_full_state_folder_says_what_to_do() {
    let mounts = "mount -t tmpfs -o size=64k,mode=777 none $S; head -c 200k /dev/zero > $S/full 2> /dev/null || true";
    for way in WAYS {
        let Some(scene) = Scene::new("sftp", way, mounts, false, SIZE) else { return };
        scene.fails(scene.command(false, &[]), 1, &["No space left", "XDG_STATE_HOME"]);
        assert!(!scene.at("file").exists());
        fs::remove_file(scene.state("full")).unwrap();
        scene.works(scene.command(false, &[]));
    }
}

/// Room for the number of the installation, and for the beginning of a journal.
#[test]
fn a_state_folder_that_is_full_in_the_middle_loses_nothing() {
    for way in WAYS {
        let mounts = "mount -t tmpfs -o size=64k,mode=777 none $S; mount -t tmpfs -o mode=777 none $T";
        let Some(scene) = Scene::new("sftp", way, mounts, false, SIZE) else { return };
        let mut child = scene.command(false, &["--limit-rate", "3M"]).spawn().unwrap();
        scene.wait_for_part(&mut child, MIB as u64);
        scene.sh("head -c 200k /dev/zero > $S/full 2> /dev/null || true");
        // What the journal's last page holds is enough for this file: it may well go on to the end.
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            assert!(crate::scene::told(&output).contains("XDG_STATE_HOME"), "{}", crate::scene::told(&output));
            fs::remove_file(scene.state("full")).unwrap();
        }
        scene.works(scene.command(false, &[]));
    }
}

#[test]
fn a_state_folder_that_cannot_be_written_says_what_to_do() {
    let Some(scene) = Scene::new("sftp", Way::Get, "mount -t tmpfs -o ro none $S", false, SIZE) else { return };
    scene.fails(scene.command(false, &[]), 1, &["XDG_STATE_HOME"]);
    let mounts = "mount -t tmpfs -o mode=755 none $S; chmod 777 $T";
    let Some(scene) = Scene::new("sftp", Way::Get, mounts, true, SIZE) else { return };
    scene.sh("chmod 755 $S");
    scene.fails(scene.command(true, &[]), 1, &["XDG_STATE_HOME"]);
}

/// What a quota does to a file: it may not grow beyond a size.
#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_end_of_the_program() {
    let Some(scene) = Scene::new("sftp", Way::Get, "true", false, SIZE) else { return };
    let inner = scene.command(false, &[]);
    let mut limited = std::process::Command::new("sh");
    // In blocks of 512 bytes.
    limited.args(["-c", "ulimit -f 4000; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        limited.env(name, value.unwrap());
    }
    scene.fails(limited, 1, &["too large"]);
    assert!(!scene.at("file").exists());
    scene.works(scene.command(false, &[]));
}

/// An ext4 that runs out of device: what was taken into memory can't be written, which fsync tells, and nothing else.
#[test]
fn durable_is_not_done_when_the_device_fails() {
    let mounts = "mount -t tmpfs -o size=11m none /mnt; truncate -s 64m /mnt/image; mkfs.ext4 -q -F /mnt/image
                  mount -o loop /mnt/image $T; chmod 777 $T";
    for way in WAYS {
        let Some(scene) = Scene::new("sftp", way, mounts, false, 16 * MIB) else { return };
        let output = scene.command(false, &["--durable"]).output().unwrap();
        let text = crate::scene::told(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(way == Way::Put || text.contains("nput/output error") || text.contains("No space left"), "{text}");
        assert!(!scene.at("file").exists(), "{text}");
    }
}

//! Transfers go on while keys are exchanged anew: often, because the server wants it, and after a gibibyte, because our
//! side does.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::sshd::Sshd;

fn haul(sshd: &Sshd, engine: &str, arguments: &[&str]) {
    let state = sshd.path("state");
    let output = Command::new(env!("CARGO_BIN_EXE_haul"))
        .args(arguments)
        .args(["--ssh-engine", engine, "--progress", "none", "--retries", "0", "--host-key", "accept-new"])
        .arg("--known-hosts")
        .arg(sshd.path("known"))
        .arg("-i")
        .arg(sshd.path("login_ed25519"))
        .env("HOME", sshd.path(""))
        .env("XDG_STATE_HOME", state)
        .env_remove("SSH_AUTH_SOCK")
        .output()
        .unwrap();
    assert!(output.status.success(), "{engine} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn url(sshd: &Sshd, name: &str) -> String {
    format!("{}{}", sshd.endpoint(), sshd.path(name).display()).replace("//tmp", "/tmp")
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8).collect()
}

fn assert_same(one: &Path, other: &Path) {
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    assert_eq!(one.metadata().unwrap().len(), other.metadata().unwrap().len());
    let (mut a, mut b) = (vec![0; 4 << 20], vec![0; 4 << 20]);
    loop {
        let length = one.read(&mut a).unwrap();
        if length == 0 {
            return;
        }
        other.read_exact(&mut b[..length]).unwrap();
        assert!(a[..length] == b[..length], "they differ before {}", one.stream_position().unwrap());
    }
}

fn there_and_back(engine: &str) {
    // Each exchange is a line at this level.
    let sshd = Sshd::start("RekeyLimit 256K\nLogLevel DEBUG1\n");
    let local = sshd.path("local");
    std::fs::create_dir_all(local.join("many")).unwrap();
    std::fs::write(local.join("big"), pattern(64 << 20)).unwrap();
    for number in 0..500 {
        std::fs::write(local.join(format!("many/{number}")), pattern(8000 + number)).unwrap();
    }
    let (there, back) = (url(&sshd, "remote"), sshd.path("back"));
    std::fs::create_dir_all(sshd.path("remote")).unwrap();
    std::fs::create_dir_all(&back).unwrap();
    let begun = Instant::now();
    haul(&sshd, engine, &["put", "-r", "--segments", "3", "-j", "8", local.to_str().unwrap(), &format!("{there}/")]);
    let put = begun.elapsed();
    haul(
        &sshd,
        engine,
        &["get", "-r", "--segments", "3", "-j", "8", &format!("{there}/local"), back.to_str().unwrap()],
    );
    eprintln!("{engine}: put after {put:?}, all after {:?}", begun.elapsed());
    for folder in ["remote", "back"] {
        let copy = sshd.path(folder).join("local");
        assert_same(&local.join("big"), &copy.join("big"));
        for number in 0..500 {
            assert_same(&local.join(format!("many/{number}")), &copy.join(format!("many/{number}")));
        }
    }
    let exchanges = std::fs::read_to_string(sshd.path("log")).unwrap().matches("SSH2_MSG_KEXINIT sent").count();
    assert!(exchanges > 200, "{engine}: only {exchanges} key exchanges");
}

#[test]
fn with_russh_keys_change_every_256_kibibytes() {
    there_and_back("russh");
}

#[test]
fn with_libssh2_keys_change_every_256_kibibytes() {
    there_and_back("libssh2");
}

/// A file of 1.2 GiB with data at its beginning, around the first gibibyte, and at its end.
fn sparse(path: &Path) {
    let mut file = File::create(path).unwrap();
    for at in [0, (1 << 30) - (1 << 20), (1 << 30) + (200 << 20) - (2 << 20)] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&pattern(2 << 20)).unwrap();
    }
}

fn more_than_a_gibibyte(engine: &str) {
    // russh changes keys after a gibibyte by itself; libssh2 only does so when the server wants to.
    let limit = if engine == "libssh2" { "RekeyLimit 512M\n" } else { "" };
    let sshd = Sshd::start(&format!("{limit}LogLevel DEBUG1\n"));
    let (local, back, there) = (sshd.path("local"), sshd.path("back"), url(&sshd, "remote"));
    sparse(&local);
    let begun = Instant::now();
    haul(&sshd, engine, &["get", "-c", "1", &url(&sshd, "local"), back.to_str().unwrap()]);
    let get = begun.elapsed();
    assert_same(&local, &back);
    haul(&sshd, engine, &["put", "-c", "1", local.to_str().unwrap(), &there]);
    eprintln!("{engine}: get after {get:?}, all after {:?}", begun.elapsed());
    assert_same(&local, &sshd.path("remote"));
    let log = std::fs::read_to_string(sshd.path("log")).unwrap();
    let exchanges = log.matches("SSH2_MSG_KEXINIT sent").count();
    assert!(exchanges >= 4, "{engine}: {exchanges} key exchanges: two logins, and one more each way");
}

#[test]
fn with_russh_more_than_a_gibibyte_arrives() {
    more_than_a_gibibyte("russh");
}

#[test]
fn with_libssh2_more_than_a_gibibyte_arrives() {
    more_than_a_gibibyte("libssh2");
}

//! Proof: the strongest digest that both ends can give, and what a flipped bit comes to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use haul::serve::{FtpTls, Protocol};
use serde_json::Value;
use support::data::{KIB, MIB, bytes};
use support::fault::{Fault, Link, On, Towards};
use support::lab::Server;
use support::served::Served;
use tempfile::TempDir;

mod support;

/// A folder of this machine and one of a server.
struct Scene {
    home: TempDir,
    far: String,
    server: Server,
}

impl Scene {
    fn new(server: &Server) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let home = TempDir::new().unwrap();
        let far = format!("proof-{}-{}", std::process::id(), home.path().file_name().unwrap().display());
        let scene = Self { home, far, server: server.clone() };
        std::fs::create_dir(scene.far("")).unwrap();
        std::fs::set_permissions(scene.far(""), std::fs::Permissions::from_mode(0o777)).unwrap();
        scene
    }

    fn near(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn far(&self, name: &str) -> PathBuf {
        self.server.root.join(&self.far).join(name)
    }

    fn url(&self, server: &Server, name: &str) -> String {
        format!("{}{}/{name}", server.url(), self.far)
    }

    fn haul(&self, arguments: &[&str]) -> Command {
        let server = &self.server;
        let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
        command.args(arguments).args(["--progress", "plain", "--known-hosts"]).arg(&server.known_hosts);
        match server.scheme.as_str() {
            "sftp" if server.password.is_none() => command.arg("--identity").arg(&server.identity),
            "sftp" => &mut command,
            "ftp" => command.args(["--tls", "off"]),
            _ => command.arg("--tls-ca").arg(&server.ca),
        };
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("HAUL_PASSWORD", server.password.as_deref().unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    /// Runs one that tells by JSON.
    fn run(&self, arguments: &[&str]) -> (Value, String, Option<i32>) {
        let output = self.haul(arguments).arg("--json").output().unwrap();
        let told = told(&output);
        let event = told.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        (event, told, output.status.code())
    }

    /// What is in both folders and no file of the test.
    fn stray_files(&self) -> Vec<PathBuf> {
        let folders = [self.home.path().to_owned(), self.far("")];
        let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        let files = files.map(|entry| entry.unwrap().path());
        files.filter(|file| file.to_str().unwrap().contains(".haul-")).collect()
    }

    /// The same by what follows the last dot.
    fn strays(&self) -> Vec<String> {
        let ending = |file: &PathBuf| file.extension().unwrap().to_str().unwrap().to_owned();
        self.stray_files().iter().map(ending).collect()
    }

    fn clear(&self) {
        self.stray_files().iter().for_each(|file| std::fs::remove_file(file).unwrap());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.far(""));
    }
}

fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Both ways and through pipes: proven by this digest, or refused where the server has none.
fn proven_by(server: &Server, digest: Option<&str>) {
    let scene = Scene::new(server);
    let contents = bytes(7, MIB + 5);
    std::fs::write(scene.near("a"), &contents).unwrap();
    std::fs::write(scene.far("b"), &contents).unwrap();
    let (near, far) = ([scene.near("a"), scene.near("b")], [scene.url(server, "a"), scene.url(server, "b")]);
    for arguments in [["put", &near[0], &far[0]], ["get", &far[1], &near[1]]] {
        let (event, told, code) = scene.run(&[&arguments[..], &["--verify", "digest"]].concat());
        let Some(digest) = digest else {
            assert_eq!((code, &event["error"]["kind"]), (Some(1), &"unsupported".into()), "{}: {told}", server.name);
            assert!(told.contains("--verify auto"), "{told}");
            continue;
        };
        assert_eq!((code, &event["verified"]), (Some(0), &"digest".into()), "{}: {told}", server.name);
        assert_eq!(event["digest"], digest, "{}: {told}", server.name);
    }
    let input = std::fs::File::open(scene.near("a")).unwrap();
    let written =
        scene.haul(&["put", "-", &scene.url(server, "c"), "--verify", "digest"]).stdin(input).output().unwrap();
    assert_eq!(written.status.success(), digest.is_some(), "{}: {}", server.name, told(&written));
    let read = scene.haul(&["get", &far[1], "-", "--verify", "digest"]).output().unwrap();
    assert_eq!(read.status.success(), digest.is_some(), "{}: {}", server.name, told(&read));
    if digest.is_some() {
        assert!(read.stdout == contents && std::fs::read(scene.far("c")).unwrap() == contents);
        assert!(
            std::fs::read(scene.far("a")).unwrap() == contents && std::fs::read(scene.near("b")).unwrap() == contents
        );
    }
    assert_eq!(scene.strays(), [""; 0]);
}

#[test]
fn the_strongest_digest_that_both_ends_give_is_compared() {
    for (name, digest) in [
        ("openssh", Some("sha-256")),
        ("proftpd", Some("sha-512")),
        ("proftpd_sftp", Some("sha-512")),
        ("pyftpdlib", None),
        ("vsftpd", None),
    ] {
        if let Some(server) = Server::get(name) {
            proven_by(&server, digest);
        }
    }
    for protocol in [Protocol::Sftp, Protocol::Ftp(FtpTls::Off)] {
        proven_by(&Served::start(protocol).server, Some("sha-512"));
    }
}

#[test]
fn copies_on_this_machine_are_proven_too() {
    let served = Served::start(Protocol::Sftp);
    let scene = Scene::new(&served.server);
    std::fs::write(scene.near("a"), bytes(1, MIB)).unwrap();
    let (event, told, code) = scene.run(&["get", &scene.near("a"), &scene.near("b"), "--verify", "digest"]);
    assert_eq!((code, &event["digest"]), (Some(0), &"sha-512".into()), "{told}");
    assert!(told.contains("verified by SHA-512"), "{told}");
}

/// FTP without TLS notices nothing by itself. `HAUL_CHAOS_FLIPS` sets how many bits are flipped each way.
#[test]
fn a_bit_flipped_on_a_plain_link_is_found_by_a_digest() {
    let flips: usize = std::env::var("HAUL_CHAOS_FLIPS").map_or(3, |flips| flips.parse().unwrap());
    let served = Served::start(Protocol::Ftp(FtpTls::Off));
    let link = Link::to(&served.server);
    let far = link.far_end(&served.server);
    let scene = Scene::new(&served.server);
    let size = 600 * KIB + 5;
    let contents = bytes(3, size);
    std::fs::write(scene.near("source"), &contents).unwrap();
    std::fs::write(scene.far("source"), &contents).unwrap();
    let (there, here) = (scene.url(&far, "x"), scene.near("x"));
    for (towards, from, to, arrives) in [
        (Towards::Client, scene.url(&far, "source"), &here, scene.near("x").into()),
        (Towards::Server, scene.near("source"), &there, scene.far("x")),
    ] {
        let verb = if matches!(towards, Towards::Client) { "get" } else { "put" };
        let arrives: PathBuf = arrives;
        for flip in 0..flips {
            // First and last byte, and those between.
            let at = (size - 1) * flip / (flips - 1).max(1);
            let fault = Fault::Flip { at: at as u64, bit: (flip % 8) as u8, towards, on: On::Data };
            link.set(fault);
            let (event, told, code) = scene.run(&[verb, &from, to, "--verify", "digest"]);
            assert_eq!(
                (code, &event["error"]["kind"]),
                (Some(4), &"verify_failed".into()),
                "{verb}, byte {at}: {told}"
            );
            assert!(!arrives.exists() && scene.strays() == ["bad"], "{verb}, byte {at}: {:?}", scene.strays());
            link.heal();
            let (event, told, code) = scene.run(&[verb, &from, to, "--verify", "digest"]);
            assert_eq!((code, &event["digest"]), (Some(0), &"sha-512".into()), "{verb}, byte {at}: {told}");
            assert!(told.contains(".bad: starting anew"), "{told}");
            assert!(std::fs::read(&arrives).unwrap() == contents, "{verb}, byte {at}");
            std::fs::remove_file(&arrives).unwrap();
            scene.clear();
        }
        // And through a pipe.
        link.set(Fault::Flip { at: 300_000, bit: 3, towards, on: On::Data });
        let output = match verb {
            "get" => scene.haul(&["get", &from, "-", "--verify", "digest"]).output().unwrap(),
            _ => {
                let input = std::fs::File::open(scene.near("source")).unwrap();
                scene.haul(&["put", "-", to, "--verify", "digest"]).stdin(input).output().unwrap()
            }
        };
        link.heal();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{verb}: {text}");
        assert!(!arrives.exists() && text.contains("its sha-512 is"), "{verb}: {text}");
        scene.clear();
    }
}

//! FTP and FTPS, by `curl` and `lftp`.

use std::os::unix::fs::{MetadataExt, symlink};

use haul::serve::{Access, FtpTls, Protocol, TlsVersions};

use crate::clients::{curl, joined, lftp, quoted};
use crate::scene::{NAMES, Scene, TLS_MODES, installed, pattern, read, run, write};

fn ftp(tls: FtpTls) -> Scene {
    Scene::new(Protocol::Ftp(tls))
}

#[test]
fn curl_moves_files_both_ways_and_resumes() {
    if !installed("curl") {
        return;
    }
    let content = pattern(3_000_001);
    for tls in TLS_MODES {
        let scene = ftp(tls);
        write(&scene.local("up"), &content);
        assert!(run(curl(&scene, tls, b"there").args(["-T", "up"])).status.success());
        assert!(read(&scene.served("there")) == content);
        assert!(run(curl(&scene, tls, b"there").args(["-o", "down"])).status.success());
        assert!(read(&scene.local("down")) == content);

        write(&scene.served("there"), &content[..1_000_003]);
        assert!(run(curl(&scene, tls, b"there").args(["-T", "up", "-C", "-"])).status.success());
        assert!(read(&scene.served("there")) == content, "{tls:?}: resumed upload");
        write(&scene.local("down"), &content[..2_000_003]);
        assert!(run(curl(&scene, tls, b"there").args(["-o", "down", "-C", "-"])).status.success());
        assert!(read(&scene.local("down")) == content, "{tls:?}: resumed download");

        let listing = run(&mut curl(&scene, tls, b""));
        assert!(String::from_utf8_lossy(&listing.stdout).contains(" 3000001 "));
    }
}

#[test]
fn curl_speaks_either_tls_version() {
    if !installed("curl") {
        return;
    }
    for versions in [TlsVersions::Only12, TlsVersions::Only13] {
        let scene = Scene::with(Protocol::Ftp(FtpTls::Require), |o| o.tls_versions = versions);
        write(&scene.served("f"), b"text");
        assert_eq!(run(&mut curl(&scene, FtpTls::Require, b"f")).stdout, b"text");
    }
}

#[test]
fn curl_without_tls_is_refused_where_tls_is_required() {
    if !installed("curl") {
        return;
    }
    let scene = ftp(FtpTls::Require);
    write(&scene.served("f"), b"text");
    let output = run(&mut curl(&scene, FtpTls::Off, b"f"));
    assert!(!output.status.success() && output.stdout.is_empty());
}

#[test]
fn active_mode_reaches_the_client() {
    if !installed("curl") {
        return;
    }
    let scene = ftp(FtpTls::Off);
    write(&scene.served("f"), b"text");
    for options in [&["-P", "-"][..], &["-P", "-", "--disable-eprt"], &["--disable-epsv"]] {
        assert_eq!(run(curl(&scene, FtpTls::Off, b"f").args(options)).stdout, b"text");
    }
}

#[test]
fn active_mode_reaches_lftp_with_tls() {
    if !installed("lftp") {
        return;
    }
    let scene = ftp(FtpTls::Require);
    write(&scene.local("up"), b"text");
    let script = b"set ftp:passive-mode no; put up; cat up; quit";
    assert_eq!(run(&mut lftp(&scene, FtpTls::Require, script)).stdout, b"text");
}

#[test]
fn odd_names_survive_curl() {
    if !installed("curl") {
        return;
    }
    let scene = ftp(FtpTls::Off);
    write(&scene.local("up"), b"content");
    for name in NAMES {
        assert!(run(curl(&scene, FtpTls::Off, name).args(["-T", "up"])).status.success());
        assert_eq!(read(&scene.served(name)), b"content");
        assert_eq!(run(&mut curl(&scene, FtpTls::Off, name)).stdout, b"content");
    }
    let listing = run(curl(&scene, FtpTls::Off, b"").arg("-l")).stdout;
    let mut listed: Vec<_> = listing.split(|&b| b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l)).collect();
    listed.retain(|name| !name.is_empty());
    listed.sort_unstable();
    let mut names = NAMES.to_vec();
    names.sort_unstable();
    assert_eq!(listed, names);
}

#[test]
fn lftp_does_everything() {
    if !installed("lftp") {
        return;
    }
    let content = pattern(2_000_001);
    for tls in TLS_MODES {
        let scene = ftp(tls);
        write(&scene.local("up"), &content);
        let script =
            b"mkdir -p a/b; put up -o a/b/f; get a/b/f -o down; mv a/b/f a/g; chmod 640 a/g; rmdir a/b; ls a; quit";
        let output = run(&mut lftp(&scene, tls, script));
        assert!(output.status.success(), "{tls:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("-rw-r-----"), "{tls:?}");
        assert!(read(&scene.local("down")) == content, "{tls:?}");
        assert_eq!(scene.served("a/g").metadata().unwrap().mode() & 0o777, 0o640);
        // lftp keeps times with MFMT.
        assert_eq!(scene.served("a/g").metadata().unwrap().mtime(), scene.local("up").metadata().unwrap().mtime());

        write(&scene.served("a/g"), &content[..700_001]);
        assert!(run(&mut lftp(&scene, tls, b"put -c up -o a/g; quit")).status.success());
        assert!(read(&scene.served("a/g")) == content, "{tls:?}: resumed upload");
        write(&scene.local("down"), &content[..1_700_001]);
        assert!(run(&mut lftp(&scene, tls, b"get -c a/g -o down; quit")).status.success());
        assert!(read(&scene.local("down")) == content, "{tls:?}: resumed download");
        assert!(run(&mut lftp(&scene, tls, b"pget -n 4 a/g -o parts; rm a/g; rm -r a; quit")).status.success());
        assert!(read(&scene.local("parts")) == content, "{tls:?}: in parts");
        assert!(!scene.served("a").exists());
    }
}

#[test]
fn odd_names_survive_lftp() {
    if !installed("lftp") {
        return;
    }
    let scene = ftp(FtpTls::Allow);
    // lftp recodes names that are not UTF-8.
    let names: Vec<_> = NAMES.into_iter().filter(|name| name.is_ascii()).collect();
    write(&scene.local("up"), b"content");
    for name in &names {
        let name = quoted(&[b"./", *name].concat());
        let script = joined(&[b"put up -o ", &name, b"; get -e ", &name, b" -o down; rm -f ", &name, b"; quit"]);
        assert!(run(&mut lftp(&scene, FtpTls::Allow, script.as_encoded_bytes())).status.success());
        assert_eq!(read(&scene.local("down")), b"content");
    }
    assert_eq!(std::fs::read_dir(scene.served.path()).unwrap().count(), 0);
}

#[test]
fn lftp_mirrors_a_tree_with_links() {
    if !installed("lftp") {
        return;
    }
    let scene = ftp(FtpTls::Allow);
    std::fs::create_dir_all(scene.served("t/d")).unwrap();
    write(&scene.served("t/d/f"), b"f");
    symlink("d/f", scene.served("t/l")).unwrap();
    symlink(scene.outside.path().join("secret"), scene.served("t/evil")).unwrap();
    assert!(run(&mut lftp(&scene, FtpTls::Allow, b"mirror t; quit")).status.success());
    assert_eq!(read(&scene.local("t/l")), b"f");
    assert_eq!(std::fs::read_link(scene.local("t/l")).unwrap().to_str(), Some("d/f"));
    // With links followed, the one that leads outside brings nothing.
    run(&mut lftp(&scene, FtpTls::Allow, b"mirror -L t u; quit"));
    assert_eq!(read(&scene.local("u/l")), b"f");
    assert!(!scene.local("u/evil").exists());
}

#[test]
fn nothing_outside_is_reached_by_curl() {
    if !installed("curl") {
        return;
    }
    let scene = ftp(FtpTls::Off);
    symlink(scene.outside.path(), scene.served("dir")).unwrap();
    symlink(scene.outside.path().join("secret"), scene.served("file")).unwrap();
    let outside = scene.outside.path().join("secret");
    let absolute = joined(&[b"%2F", outside.as_os_str().as_encoded_bytes()]);
    let up = joined(&[b"../../../../../..", outside.as_os_str().as_encoded_bytes()]);
    write(&scene.local("up"), b"evil");
    for path in [&b"dir/secret"[..], b"file", absolute.as_encoded_bytes(), up.as_encoded_bytes()] {
        let get = run(curl(&scene, FtpTls::Off, path).arg("--path-as-is"));
        assert!(!get.status.success() && get.stdout.is_empty());
        assert!(!run(curl(&scene, FtpTls::Off, path).args(["--path-as-is", "-T", "up"])).status.success());
    }
    assert_eq!(read(&outside), b"secret");
}

#[test]
fn read_only_takes_nothing() {
    if !installed("lftp") {
        return;
    }
    let scene = Scene::with(Protocol::Ftp(FtpTls::Off), |o| o.access = Access::ReadOnly);
    write(&scene.served("f"), b"f");
    write(&scene.local("up"), b"evil");
    for script in ["put up -o f", "rm f", "mv f g", "mkdir d", "chmod 777 f", "put up -o new"] {
        let output = run(&mut lftp(&scene, FtpTls::Off, format!("{script}; quit").as_bytes()));
        assert!(!output.status.success(), "{script}");
    }
    assert_eq!(read(&scene.served("f")), b"f");
    assert_eq!(std::fs::read_dir(scene.served.path()).unwrap().count(), 1);
}

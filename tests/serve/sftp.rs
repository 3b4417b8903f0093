//! SFTP, by OpenSSH's `sftp`, `curl` and `lftp`.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use haul::serve::{Access, Identity, Options, Protocol};

use crate::clients::joined;
use crate::scene::{NAMES, PASSWORD, Scene, USER, installed, pattern, read, run, write};

/// A server that takes a key made for it, and the client's files to use it.
fn with_key(change: impl FnOnce(&mut Options)) -> Scene {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    let made = run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    assert!(made.status.success());
    let scene = Scene::with(Protocol::Sftp, |options| {
        options.authorized_keys = Some(keys.path().join("key.pub"));
        change(options);
    });
    std::fs::rename(&key, scene.state.path().join("key")).unwrap();
    let Identity::HostKey { public_key, .. } = scene.server.as_ref().unwrap().identity() else { panic!() };
    let line = format!("[127.0.0.1]:{} {public_key}\n", scene.port());
    write(&scene.state.path().join("known_hosts"), line.as_bytes());
    scene
}

fn ssh_options(scene: &Scene) -> Vec<String> {
    let state = scene.state.path().display();
    [
        format!("UserKnownHostsFile={state}/known_hosts"),
        format!("IdentityFile={state}/key"),
        "GlobalKnownHostsFile=/dev/null".into(),
        "StrictHostKeyChecking=yes".into(),
        "IdentitiesOnly=yes".into(),
        "BatchMode=yes".into(),
    ]
    .into_iter()
    .flat_map(|option| ["-o".into(), option])
    .collect()
}

/// Runs OpenSSH's `sftp` with a batch; it stops at the first command that fails.
fn sftp(scene: &Scene, extra: &[&str], batch: &[u8]) -> Output {
    let mut command = Command::new("sftp");
    command.args(["-F", "/dev/null", "-q"]).args(ssh_options(scene)).args(extra);
    command.args(["-P", &scene.port().to_string(), "-b", "-"]).arg(format!("{USER}@127.0.0.1"));
    command.current_dir(scene.local.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(batch).unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    println!("{}\n{}\n{}{}", shown(batch), output.status, shown(&output.stdout), shown(&output.stderr));
    output
}

/// Writes a name for `sftp`: in quotes, where wildcards are plain letters.
fn quoted(name: &[u8]) -> Vec<u8> {
    let mut out = b"\"./".to_vec();
    for &byte in name {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
    out
}

#[test]
fn sftp_does_everything() {
    if !installed("sftp") {
        return;
    }
    let scene = with_key(|_| {});
    let content = pattern(5_000_001);
    write(&scene.local("up"), &content);
    let batch = b"mkdir a\nput -p up a/f\nget a/f down\nrename a/f a/g\nchmod 640 a/g\nln -s g a/l\nln a/g a/h\nls -la a\ndf a\npwd\n";
    let output = sftp(&scene, &[], batch);
    assert!(output.status.success());
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("-rw-r-----") && shown.contains("lrwxrwxrwx") && shown.contains("5000001"), "{shown}");
    assert!(read(&scene.local("down")) == content);
    assert_eq!(scene.served("a/g").metadata().unwrap().mode() & 0o777, 0o640);
    assert_eq!(scene.served("a/g").metadata().unwrap().nlink(), 2);
    assert_eq!(scene.served("a/g").metadata().unwrap().mtime(), scene.local("up").metadata().unwrap().mtime());
    assert_eq!(std::fs::read_link(scene.served("a/l")).unwrap().to_str(), Some("g"));

    write(&scene.served("a/part"), &content[..1_700_001]);
    write(&scene.local("part"), &content[..2_700_001]);
    assert!(sftp(&scene, &[], b"reput up a/part\nreget a/g part\n").status.success());
    assert!(read(&scene.served("a/part")) == content, "resumed upload");
    assert!(read(&scene.local("part")) == content, "resumed download");
    assert!(sftp(&scene, &[], b"rm a/*\nrmdir a\n").status.success());
    assert!(!scene.served("a").exists());
}

#[test]
fn sftp_moves_whole_trees() {
    if !installed("sftp") {
        return;
    }
    let scene = with_key(|_| {});
    for dir in 0..5 {
        std::fs::create_dir_all(scene.local(format!("t/{dir}"))).unwrap();
        (0..40).for_each(|file| write(&scene.local(format!("t/{dir}/{file}")), &pattern(file * 1000)));
    }
    assert!(sftp(&scene, &[], b"put -r t\nget -r t u\nls -1 t/3\n").status.success());
    for dir in 0..5 {
        for file in 0..40 {
            assert!(read(&scene.served(format!("t/{dir}/{file}"))) == pattern(file * 1000));
            assert!(read(&scene.local(format!("u/{dir}/{file}"))) == pattern(file * 1000));
        }
    }
}

#[test]
fn large_files_survive_rekeying_and_many_requests() {
    if !installed("sftp") {
        return;
    }
    let scene = with_key(|_| {});
    let content = pattern(64 << 20);
    write(&scene.local("up"), &content);
    let options = ["-o", "RekeyLimit=1M", "-R", "256", "-B", "200000"];
    assert!(sftp(&scene, &options, b"put up f\nget f down\n").status.success());
    assert!(read(&scene.served("f")) == content);
    assert!(read(&scene.local("down")) == content);
}

#[test]
fn odd_names_survive_sftp() {
    if !installed("sftp") {
        return;
    }
    let scene = with_key(|_| {});
    write(&scene.local("up"), b"content");
    for name in NAMES {
        let name = quoted(name);
        let batch = [b"put up ", &name[..], b"\nget ", &name, b" down\n"].concat();
        assert!(sftp(&scene, &[], &batch).status.success());
        assert_eq!(read(&scene.local("down")), b"content");
    }
    let mut served: Vec<_> = std::fs::read_dir(scene.served.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    served.sort();
    let mut names = NAMES.map(|name| OsStr::from_bytes(name).to_owned());
    names.sort();
    assert_eq!(served, names);
}

#[test]
fn curl_moves_files_with_a_password() {
    if !installed("curl") {
        return;
    }
    let scene = Scene::new(Protocol::Sftp);
    let content = pattern(3_000_001);
    write(&scene.local("up"), &content);
    let Identity::HostKey { fingerprint, .. } = scene.server.as_ref().unwrap().identity() else { panic!() };
    let curl = |args: &[&str], password: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "-q", "--max-time", "60", "--compressed-ssh", "--hostpubsha256"]);
        command.arg(fingerprint.strip_prefix("SHA256:").unwrap()).args(["--user", &format!("{USER}:{password}")]);
        command.arg(format!("sftp://127.0.0.1:{}/f%20x", scene.port())).args(args);
        run(command.current_dir(scene.local.path())).status.success()
    };
    assert!(curl(&["-T", "up"], PASSWORD));
    assert!(read(&scene.served("f x")) == content);
    write(&scene.local("down"), &content[..1_000_000]);
    assert!(curl(&["-o", "down", "-C", "-"], PASSWORD));
    assert!(read(&scene.local("down")) == content);
    write(&scene.served("f x"), &content[..1_000_000]);
    assert!(curl(&["-T", "up", "-C", "-"], PASSWORD));
    assert!(read(&scene.served("f x")) == content);
    assert!(!curl(&["-o", "no"], "wrong"));
    assert!(!scene.local("no").exists());
}

#[test]
fn lftp_mirrors_both_ways() {
    if !installed("lftp") {
        return;
    }
    let scene = with_key(|_| {});
    std::fs::create_dir_all(scene.local("t/d")).unwrap();
    write(&scene.local("t/d/f"), &pattern(1_000_001));
    symlink("d/f", scene.local("t/l")).unwrap();
    let program = format!("ssh -a -x -F /dev/null {}", ssh_options(&scene).join(" "));
    let script = format!(
        "set cmd:fail-exit yes; set net:max-retries 1; set net:timeout 20; set sftp:connect-program \"{program}\"; \
         open -u {USER}, sftp://127.0.0.1:{}; mirror -R t; chmod 600 t/d/f; mirror t u; rm -r t; quit",
        scene.port()
    );
    let mut lftp = Command::new("lftp");
    lftp.args(["--norc", "-c", &script]).current_dir(scene.local.path()).env("HOME", scene.state.path());
    assert!(run(&mut lftp).status.success());
    assert!(read(&scene.local("u/d/f")) == pattern(1_000_001));
    assert_eq!(std::fs::read_link(scene.local("u/l")).unwrap().to_str(), Some("d/f"));
    assert!(!scene.served("t").exists());
}

#[test]
fn nothing_outside_is_reached_by_sftp() {
    if !installed("sftp") {
        return;
    }
    let scene = with_key(|_| {});
    symlink(scene.outside.path(), scene.served("dir")).unwrap();
    symlink(scene.outside.path().join("secret"), scene.served("file")).unwrap();
    write(&scene.local("up"), b"evil");
    write(&scene.served("f"), b"f");
    let outside = scene.outside.path().join("secret");
    let absolute = outside.as_os_str().as_encoded_bytes();
    let batches: [&[u8]; 14] = [
        b"get dir/secret",
        b"get file",
        b"put up file",
        b"put up dir/secret",
        b"put up dir/new",
        b"cd dir",
        b"mkdir dir/new",
        b"rm dir/secret",
        b"chmod 777 file",
        b"rename f dir/f",
        b"ln dir/secret stolen",
        b"ln -s /etc/passwd link",
        b"ln -s ../x link",
        b"get ../../../../../../../../etc/passwd",
    ];
    for batch in batches {
        assert!(!sftp(&scene, &[], batch).status.success(), "{}", String::from_utf8_lossy(batch));
    }
    assert!(!sftp(&scene, &[], joined(&[b"get ", absolute]).as_encoded_bytes()).status.success());
    assert_eq!(read(&outside), b"secret");
    assert_eq!(std::fs::read_dir(scene.outside.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(scene.local.path()).unwrap().count(), 1);
}

#[test]
fn read_only_takes_nothing() {
    if !installed("sftp") {
        return;
    }
    let scene = with_key(|options| options.access = Access::ReadOnly);
    write(&scene.served("f"), b"f");
    write(&scene.local("up"), b"evil");
    for batch in ["put up f", "put up new", "rm f", "rename f g", "mkdir d", "chmod 777 f", "ln -s f l", "ln f l"] {
        assert!(!sftp(&scene, &[], batch.as_bytes()).status.success(), "{batch}");
    }
    assert!(sftp(&scene, &[], b"get f").status.success());
    assert_eq!(read(&scene.served("f")), b"f");
    assert_eq!(std::fs::read_dir(scene.served.path()).unwrap().count(), 1);
}

#[test]
fn only_the_known_key_logs_in_and_no_command_runs() {
    if !installed("ssh") {
        return;
    }
    let scene = with_key(|options| options.password = None);
    let port = scene.port().to_string();
    let ssh = |user: &str, args: &[&str]| {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null"]).args(ssh_options(&scene)).args(["-p", &port, "-l", user, "127.0.0.1"]);
        run(command.args(args))
    };
    let refused = ssh("stranger", &["true"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"));
    assert!(!ssh(USER, &["echo", "hello"]).status.success());
    std::fs::remove_file(scene.state.path().join("key")).unwrap();
    let other = scene.state.path().join("key");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other));
    assert!(!sftp(&scene, &[], b"ls").status.success());
}

#[test]
fn stopping_ends_sessions() {
    if !installed("ssh") {
        return;
    }
    let mut scene = with_key(|_| {});
    let mut command = Command::new("ssh");
    command.args(["-F", "/dev/null"]).args(ssh_options(&scene)).args(["-p", &scene.port().to_string(), "-s"]);
    command.arg(format!("{USER}@127.0.0.1")).arg("sftp");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // INIT, and the length of VERSION: the session is under way.
    stdin.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    let start = Instant::now();
    scene.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!child.wait().unwrap().success());
}

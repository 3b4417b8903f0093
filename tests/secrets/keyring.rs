//! `haul login` and `haul logout`: with a stand-in for the keyring's program, and with a real keyring.

use std::process::Command;

use haul::serve::{FtpTls, Protocol};

use crate::stage::{Ran, Stage, holds};

/// Keeps passwords in files, and writes down what it was called with.
const SECRET_TOOL: &str = r#"#!/bin/sh
printf '%s\n' "$*" >>"$HOME/calls"
env >>"$HOME/calls"
[ ! -e "$HOME/locked" ] || { echo "secret-tool: the keyring is locked" >&2; exit 1; }
verb=$1; shift
case $1 in --label=*) shift ;; esac
file="$HOME/ring/$(printf '%s' "$*" | tr '/ ' '_-')"
mkdir -p "$HOME/ring"
case $verb in
store) cat >"$file" ;;
lookup) [ -e "$file" ] && cat "$file" ;;
clear) [ -e "$file" ] && rm "$file" ;;
esac
"#;

/// Puts a program of the same behaviour in the place of `secret-tool`.
pub(crate) fn stand_in(stage: &mut Stage) {
    stage.file("bin/secret-tool", SECRET_TOOL, 0o755);
    stage.env.push(("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent".into()));
}

/// Files a password as `haul login` would.
pub(crate) fn put(stage: &Stage, url: &str, password: &str) {
    let name = format!("application haul url {url}").replace('/', "_").replace(' ', "-");
    stage.file(&format!("home/ring/{name}"), password, 0o600);
}

fn kept(stage: &Stage) -> usize {
    std::fs::read_dir(stage.at("home/ring")).map_or(0, Iterator::count)
}

const MARKER: &str = "m4rker \"'\\ päss";

#[test]
fn login_keeps_what_the_server_took_and_logout_removes_it() {
    for (protocol, scheme) in [(Protocol::Ftp(FtpTls::Off), "ftp"), (Protocol::Sftp, "sftp")] {
        let mut stage = Stage::new();
        stand_in(&mut stage);
        stage.file("served/a", "1", 0o644);
        stage.config("defaults.tls = \"off\"\n");
        let server = stage.serve(protocol, "me", MARKER);
        let (url, trust) = (format!("{scheme}://me@127.0.0.1:{}", server.port), stage.trust());
        let with = |args: &[&str]| {
            let args: Vec<&str> = args.iter().copied().chain(trust.iter().map(String::as_str)).collect();
            stage.haul(&args)
        };
        stage.file("right", format!("{MARKER}\n"), 0o600);
        stage.file("wrong", "hunter2\n", 0o600);
        let (right, wrong) = (stage.path("right"), stage.path("wrong"));
        with(&["ls", &url]).ends(3);
        with(&["login", "--password-file", &wrong, &url]).ends(3);
        assert_eq!(kept(&stage), 0, "{scheme}: a wrong password was kept");
        let ran = with(&["login", "--password-file", &right, &url]).ends(0);
        assert_eq!(ran.err(), format!("the password for {url} is in the keyring now\n"));
        assert_eq!((ran.out().as_str(), kept(&stage)), ("", 1));
        let ran = with(&["ls", "-v", &url]).ends(0);
        assert!(ran.err().contains(&format!("{url}: the password comes from the keyring")), "{}", ran.err());
        let logout = |url: &str| {
            let mut command = stage.command(&["logout", url]);
            Ran::from(command.env("HAUL_PASSWORD", MARKER).output().unwrap())
        };
        assert!(logout(&url).ends(0).err().contains("no longer in the keyring"));
        assert_eq!(kept(&stage), 0);
        assert!(logout(&url).ends(1).err().contains("no password in the keyring"));
        with(&["ls", &url]).ends(3);
        let calls = std::fs::read(stage.at("home/calls")).unwrap();
        assert!(holds(&calls, b"store ") && !holds(&calls, b"m4rker") && !holds(&calls, b"hunter2"), "{scheme}");
    }
}

#[test]
fn a_password_is_for_one_user_host_protocol_and_port() {
    let mut stage = Stage::new();
    stand_in(&mut stage);
    let server = stage.serve(Protocol::Ftp(FtpTls::Off), "me", "right");
    put(&stage, &format!("ftp://me@127.0.0.1:{}", server.port), "right");
    let ls = |url: String| stage.haul(&["ls", &url]);
    ls(format!("ftp://me@127.0.0.1:{}/", server.port)).ends(0);
    for url in [format!("ftp://you@127.0.0.1:{}/", server.port), format!("ftp://me@localhost:{}/", server.port)] {
        assert!(ls(url).ends(3).err().contains("no password for the login"));
    }
}

#[test]
fn a_kept_password_that_is_refused_is_named() {
    for (protocol, scheme) in [(Protocol::Ftp(FtpTls::Off), "ftp"), (Protocol::Sftp, "sftp")] {
        let mut stage = Stage::new();
        stand_in(&mut stage);
        let server = stage.serve(protocol, "me", "right");
        let (url, trust) = (format!("{scheme}://me@127.0.0.1:{}", server.port), stage.trust());
        put(&stage, &url, "outdated");
        let args: Vec<&str> = ["ls", &url].into_iter().chain(trust.iter().map(String::as_str)).collect();
        let ran = stage.haul(&args).ends(3);
        assert!(ran.err().contains(&format!("haul login {url}")), "{}", ran.err());
        assert!(!ran.err().contains("outdated"), "{}", ran.err());
    }
}

#[test]
fn without_a_keyring_it_says_so_before_it_asks() {
    let mut stage = Stage::new();
    let url = "sftp://me@127.0.0.1:1";
    // No such program in the path of this test, whatever is installed.
    stage.env.push(("PATH", stage.at("bin").into()));
    for args in [&["login", url][..], &["logout", url]] {
        let ran = stage.haul(args).ends(1);
        assert!(ran.err().contains("no keyring here: there is no secret-tool"), "{}", ran.err());
        assert!(ran.err().contains("hint: ") && ran.err().contains("~/.netrc"), "{}", ran.err());
    }
    stage.file("bin/secret-tool", SECRET_TOOL, 0o755);
    assert!(stage.haul(&["logout", url]).ends(1).err().contains("no D-Bus session bus"));
    let mut stage = Stage::new();
    stand_in(&mut stage);
    stage.file("home/locked", "", 0o600);
    assert!(stage.haul(&["logout", url]).ends(1).err().contains("the keyring is locked"));
}

#[test]
fn a_password_is_typed_unseen() {
    let mut stage = Stage::new();
    stand_in(&mut stage);
    let server = stage.serve(Protocol::Ftp(FtpTls::Off), "me", "t0p-5ecret");
    let url = format!("ftp://me@127.0.0.1:{}", server.port);
    let ran = stage.haul_asked(&["login", &url], "Password for me at 127.0.0.1: ", "t0p-5ecret\n").ends(0);
    assert!(ran.out().contains("is in the keyring now") && !ran.out().contains("5ecret"), "{}", ran.out());
    assert_eq!(kept(&stage), 1);
    // Nobody asks now.
    stage.haul(&["ls", &url]).ends(0);
    let ran = stage.haul_asked(&["login", &url], "Password for me at 127.0.0.1: ", "m15typed\n").ends(3);
    assert!(!ran.out().contains("m15typed"), "{}", ran.out());
}

#[test]
fn login_wants_a_user_and_no_password_in_the_url() {
    let mut stage = Stage::new();
    stand_in(&mut stage);
    for (url, said) in [
        ("sftp://me:hunter2@127.0.0.1:1", "leave the password out of the URL"),
        ("ftp://127.0.0.1:1", "names no user"),
        ("/tmp", "names no server"),
    ] {
        let ran = stage.haul(&["login", url]).ends(2);
        assert!(ran.err().contains(said) && !ran.err().contains("hunter2"), "{}", ran.err());
    }
}

/// GNOME Keyring behind a D-Bus of this test's own.
#[test]
fn a_real_secret_service_keeps_a_password() {
    let missing = ["/usr/bin/dbus-run-session", "/usr/bin/gnome-keyring-daemon", "/usr/bin/secret-tool"]
        .into_iter()
        .find(|program| !std::path::Path::new(program).exists());
    if let Some(missing) = missing {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing} is missing in CI");
        eprintln!("SKIPPED: no {missing}");
        return;
    }
    let stage = Stage::new();
    stage.file("served/a", "1", 0o644);
    let server = stage.serve(Protocol::Ftp(FtpTls::Off), "me", MARKER);
    let url = format!("ftp://me@127.0.0.1:{}", server.port);
    stage.file("right", MARKER, 0o600);
    std::fs::create_dir(stage.at("run")).unwrap();
    let steps = r#"
        printf 'unlock' | gnome-keyring-daemon --foreground --unlock --components=secrets >/dev/null 2>&1 &
        daemon=$!
        trap 'kill $daemon; wait $daemon' EXIT
        for i in $(seq 200); do
            secret-tool search x y >/dev/null 2>"$HOME/why" && ! [ -s "$HOME/why" ] && break
            sleep 0.05
        done
        "$HAUL" login --password-file "$1/right" "$2" && "$HAUL" ls -v "$2" && "$HAUL" logout "$2" && ! "$HAUL" ls -q "$2"
    "#;
    let mut command = Command::new("dbus-run-session");
    stage.set_up(&mut command);
    command.env("HAUL", env!("CARGO_BIN_EXE_haul")).env("XDG_RUNTIME_DIR", stage.at("run"));
    command.args(["--", "sh", "-c", steps, "sh", &stage.path(""), &url]);
    let ran: Ran = command.output().unwrap().into();
    let ran = ran.ends(0);
    assert_eq!(ran.out(), "a\n", "{}", ran.err());
    for said in ["is in the keyring now", "the password comes from the keyring", "is no longer in the keyring"] {
        assert!(ran.err().contains(said), "{said}: {}", ran.err());
    }
    assert!(!ran.err().contains("m4rker"), "{}", ran.err());
}

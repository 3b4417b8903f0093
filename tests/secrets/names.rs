//! What a server says or calls its files reaches no terminal as it is, on no way out; JSON tells the truth.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;

use haul::serve::{FtpTls, Protocol};
use percent_encoding::percent_decode_str;

use crate::stage::{Ran, Stage, holds};

/// Names that would set a title, clear the screen, ring, colour, turn text around or hide some of it.
const NAMES: [&[u8]; 6] = [
    b"title\x1b]0;pwned\x07.txt",
    b"clear\x1b[2J",
    "c1\u{9b}31mred".as_bytes(),
    "bidi\u{202e}gpj.exe".as_bytes(),
    "hidden\u{200b}\u{2066}x".as_bytes(),
    b"not\xffutf8\x9b1m",
];

/// What of it must never be written.
const HARM: [&[u8]; 8] = [
    b"\x1b]0;",
    b"\x1b[2Jhidden",
    b"clear\x1b",
    b"\x07",
    b"\xc2\x9b",
    "\u{202e}".as_bytes(),
    "\u{200b}".as_bytes(),
    "\u{2066}".as_bytes(),
];

#[track_caller]
fn assert_harmless(what: &str, bytes: &[u8]) {
    let found: Vec<_> =
        HARM.iter().filter(|harm| holds(bytes, harm)).map(|harm| harm.escape_ascii().to_string()).collect();
    assert!(found.is_empty(), "{what} has {found:?}: {}", bytes.escape_ascii());
}

/// Asserts that the names were shown at all.
#[track_caller]
fn assert_shown(what: &str, ran: &Ran) {
    let shown = ran.out() + &ran.err();
    assert!(shown.contains("\\u{1b}]0;pwned\\u{7}") && shown.contains("\\u{202e}gpj"), "{what}: {shown}");
}

fn serve_names(stage: &Stage) {
    for name in NAMES {
        let folder = stage.at("served/dir").join(OsStr::from_bytes(name));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(OsStr::from_bytes(name)), "1").unwrap();
        std::fs::write(stage.at("served").join(OsStr::from_bytes(name)), vec![b'x'; 3000]).unwrap();
    }
}

fn every_command(protocol: Protocol, scheme: &str) {
    let mut stage = Stage::new();
    stage.file("served/plain", "1", 0o644);
    serve_names(&stage);
    let server = stage.serve(protocol, "me", "right");
    stage.env.push(("HAUL_PASSWORD", "right".into()));
    let (base, trust) = (format!("{scheme}://me@127.0.0.1:{}", server.port), stage.trust());
    let url = |path: &str| format!("{base}/{path}");
    let with = |args: &[&str]| -> Vec<String> {
        args.iter().map(|&arg| arg.to_owned()).chain(trust.iter().cloned()).collect()
    };
    let at_terminal = |args: &[&str]| {
        let args = with(args);
        let ran = stage.haul_at_terminal(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_harmless(&format!("{scheme} {args:?} at a terminal"), &ran.stdout);
        ran
    };
    let piped = |args: &[&str]| {
        let args = with(args);
        let ran = stage.haul(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_harmless(&format!("{scheme} {args:?}"), &ran.stderr);
        ran
    };
    for args in [&["ls"][..], &["ls", "-l"], &["ls", "-R"], &["ls", "-lR"], &["ls", "-vvv"], &["ls", "--json"]] {
        let ran = at_terminal(&[args, &[&url("")]].concat());
        assert_eq!(ran.status, 0, "{args:?}: {}", ran.out());
        if !args.contains(&"--json") {
            assert_shown(&format!("{args:?}"), &ran);
        }
    }
    assert_shown("stat", &at_terminal(&["stat", &url("*")]));
    at_terminal(&["get", "-vvv", "-f", "-r", &url("dir"), "with-bars"]);
    at_terminal(&["get", "-f", "--progress", "bar", "--limit-rate", "8k", &url("*x*"), "."]);
    assert_shown("get", &piped(&["get", "-f", "-r", "--progress", "plain", "-v", &url("dir"), "plain"]));
    let json = piped(&["get", "-f", "-r", "--json", "--progress", "json", &url("dir"), "json"]);
    assert_harmless("get --json", &json.stdout);
    assert_harmless("stat", &piped(&["stat", &url("*")]).stdout);
    assert_shown("put", &piped(&["put", "-v", "-r", "plain", &url("up")]));
    piped(&["mkdir", "-v", &url("made%1B]0;pwned%07")]);
    piped(&["mv", "-v", &url("clear*"), &url("dir")]);
    piped(&["cat", &url("dir*/"), &url("none%1B]0;pwned%07%E2%80%AE")]);
    piped(&["get", &url("none%1B]0;pwned%07"), "."]);
    piped(&["rm", "-v", "-r", &url("dir"), &url("title*"), &url("plain")]);
}

#[test]
fn names_of_an_sftp_server_are_harmless_on_every_way_out() {
    every_command(Protocol::Sftp, "sftp");
}

#[test]
fn names_of_an_ftp_server_are_harmless_on_every_way_out() {
    every_command(Protocol::Ftp(FtpTls::Off), "ftp");
}

#[test]
fn json_tells_the_true_names() {
    let mut stage = Stage::new();
    serve_names(&stage);
    let server = stage.serve(Protocol::Sftp, "me", "right");
    stage.env.push(("HAUL_PASSWORD", "right".into()));
    let (url, trust) = (format!("sftp://me@127.0.0.1:{}/", server.port), stage.trust());
    let args: Vec<&str> = ["ls", "--json", &url].into_iter().chain(trust.iter().map(String::as_str)).collect();
    let ran = stage.haul(&args).ends(0);
    let mut told: Vec<Vec<u8>> = Vec::new();
    for line in ran.out().lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let path = entry["url"].as_str().unwrap().strip_prefix(&url).unwrap();
        let name: Vec<u8> = percent_decode_str(path).collect();
        assert_eq!(entry["name"].as_str().unwrap(), String::from_utf8_lossy(&name));
        told.push(name);
    }
    let mut names: Vec<Vec<u8>> = NAMES.iter().map(|name| name.to_vec()).chain([b"dir".to_vec()]).collect();
    names.sort();
    assert_eq!(told, names);
}

/// A server whose every word is meant for the terminal.
fn rude_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let words = "\x1b]0;pwned\x07\u{202e}evil";
            let _ = write!(stream, "220-{words}\r\n220 {words}\r\n");
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines.map_while(Result::ok) {
                let code = if line.starts_with("USER") { 331 } else { 530 };
                let _ = write!(stream, "{code} {words} {line}\r\n");
            }
        }
    });
    port
}

#[test]
fn the_words_of_a_server_are_harmless() {
    let mut stage = Stage::new();
    stage.env.push(("HAUL_PASSWORD", "right".into()));
    let url = format!("ftp://me@127.0.0.1:{}/x", rude_server());
    for args in [&["ls", "-vvv"][..], &["ls", "-q"], &["get", "--json", "--progress", "json"]] {
        let ran = stage.haul(&[args, &["--tls", "off", &url]].concat()).ends(3);
        assert_harmless("stderr", &ran.stderr);
        assert_harmless("stdout", &ran.stdout);
        assert!(ran.err().contains("evil"), "{}", ran.err());
    }
    assert_harmless("a terminal", &stage.haul_at_terminal(&["ls", "-vvv", "--tls", "off", &url]).stdout);
}

#[test]
fn files_of_settings_are_harmless() {
    let stage = Stage::new();
    let name = "odd\x1b]0;pwned\x07\u{202e}";
    let config = stage.file(
        name,
        "[defaults]\n\"x\\u001b]0;pwned\\u0007\" = 1\ntls = \"\\u001b]0;pwned\\u0007\"\n[profile.\"\\u202e\"]\nurl = \"\\u001b]0;://\"\n",
        0o600,
    );
    for args in [&["config", "check"][..], &["config", "show"], &["ls", "/"]] {
        let ran = stage.haul(&[args, &["--config", &config]].concat()).ends(2);
        assert_harmless("a wrong file of settings", &ran.stderr);
        assert!(ran.err().contains("pwned"), "{}", ran.err());
    }
    let netrc = stage.file(name, "machine x login y \x1b]0;pwned\x07 z", 0o600);
    let ran = stage.haul(&["ls", "--netrc", &netrc, "ftp://127.0.0.1:1/"]).ends(2);
    assert_harmless("a wrong netrc", &ran.stderr);
    let right =
        stage.file("c.toml", "[profile.x]\nurl = \"sftp://me@h/\"\nidentity = \"\\u001b]0;pwned\\u0007\"\n", 0o600);
    assert_harmless("config show", &stage.haul(&["config", "show", "x:", "--config", &right]).ends(0).stdout);
}

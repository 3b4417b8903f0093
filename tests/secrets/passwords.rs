//! Where a password comes from: the order, and that it goes to nobody else.

use std::io::{BufRead, Write};

use haul::serve::{FtpTls, Protocol};

use crate::stage::{Ran, Stage};

/// Where a password can be put, in the order in which they count, with a way to put one there.
const SOURCES: [&str; 6] = ["URL", "--password-file", "HAUL_PASSWORD", "settings", "keyring", "netrc"];

/// Puts the right password into one place and wrong ones into all that count less, then looks whether it works.
fn run(best: usize, protocol: Protocol, scheme: &str) -> Ran {
    let mut stage = Stage::new();
    stage.file("served/a", "1", 0o644);
    let server = stage.serve(protocol, "me", "right");
    let password = |place: usize| if place == best { "right" } else { "wrong" };
    let has = |place: usize| place >= best;
    let place = format!("127.0.0.1:{}", server.port);
    stage.file("typed", format!("{}\n", password(1)), 0o600);
    stage.file("set", format!("{}\n", password(3)), 0o600);
    let setting = if has(3) { format!("password-file = \"{}\"\n", stage.path("set")) } else { String::new() };
    stage.config(&format!("[host.\"127.0.0.1\"]\n{setting}"));
    crate::keyring::stand_in(&mut stage);
    if has(4) {
        crate::keyring::put(&stage, &format!("{scheme}://me@{place}"), password(4));
    }
    stage.file("home/.netrc", format!("machine 127.0.0.1 login me password {}\n", password(5)), 0o600);
    if has(2) {
        stage.env.push(("HAUL_PASSWORD", password(2).into()));
    }
    let url = match best {
        0 => format!("{scheme}://me:right@{place}/"),
        _ => format!("{scheme}://me@{place}/"),
    };
    let (typed, trust) = (stage.path("typed"), stage.trust());
    let mut args = vec!["ls", url.as_str()];
    args.extend(trust.iter().map(String::as_str));
    if has(1) && best <= 1 {
        args.extend(["--password-file", &typed]);
    }
    stage.haul(&args)
}

#[test]
fn the_order_of_passwords_is_as_told() {
    for (best, source) in SOURCES.iter().enumerate() {
        for (protocol, scheme) in [(Protocol::Ftp(FtpTls::Off), "ftp"), (Protocol::Sftp, "sftp")] {
            let ran = run(best, protocol, scheme);
            assert_eq!((ran.status, ran.out().as_str()), (0, "a\n"), "{source} {scheme}: {}", ran.err());
        }
    }
}

#[test]
fn a_password_file_may_be_standard_input() {
    let stage = Stage::new();
    stage.file("served/a", "1", 0o644);
    let server = stage.serve(Protocol::Ftp(FtpTls::Off), "me", "right");
    let url = format!("ftp://me@127.0.0.1:{}/", server.port);
    let ran = stage.haul_with(&["ls", "--password-file", "-", &url, &url], b"right\nnot read\n");
    assert_eq!(ran.ends(0).out().matches("a\n").count(), 2);
    let ran = stage.haul_with(&["ls", "--password-file", "-", &url], b"").ends(2);
    assert!(ran.err().contains("its first line is empty"), "{}", ran.err());
}

#[test]
fn the_netrc_names_who_logs_in_by_ftp() {
    let mut stage = Stage::new();
    stage.file("served/a", "1", 0o644);
    stage.config("defaults.tls = \"off\"\n");
    let server = stage.serve(Protocol::Ftp(FtpTls::Off), "me", "p w");
    let url = format!("ftp://127.0.0.1:{}/", server.port);
    stage.haul(&["ls", &url]).ends(3);
    stage.file("home/.netrc", "machine 127.0.0.1\n  login me\n  password \"p w\" # quoted\n", 0o600);
    let ran = stage.haul(&["ls", "--json", &url]).ends(0);
    assert!(ran.out().contains(&format!("ftp://me@127.0.0.1:{}/", server.port)), "{}", ran.out());
    assert!(ran.err().is_empty(), "{}", ran.err());
    // A password for other logins is not mixed with this one.
    stage.env.push(("HAUL_PASSWORD", "for somebody else".into()));
    stage.haul(&["ls", &url]).ends(0);
    stage.env.pop();
    stage.haul(&["ls", "--netrc", "none", &url]).ends(3);
    let other = stage.file("other", "default login me password \"p w\"\n", 0o600);
    stage.file("home/.netrc", "", 0o600);
    stage.haul(&["ls", "--netrc", &other, &url]).ends(0);
    stage.env.push(("NETRC", other.into()));
    stage.haul(&["ls", &url]).ends(0);
}

#[test]
fn the_netrc_gives_the_account_that_an_ftp_server_asks_for() {
    let stage = Stage::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut lines = std::io::BufReader::new(tcp.try_clone().unwrap()).lines();
        tcp.write_all(b"220 hello\r\n").unwrap();
        loop {
            let line = lines.next().unwrap().unwrap();
            let answer: &[u8] = match line.split(' ').next().unwrap() {
                "USER" => b"331 go on\r\n",
                "PASS" => b"332 go on\r\n",
                "ACCT" => return line,
                _ => b"502 no\r\n",
            };
            tcp.write_all(answer).unwrap();
        }
    });
    stage.file("home/.netrc", "machine 127.0.0.1 login me password right account sales\n", 0o600);
    stage.haul(&["ls", "--tls", "off", &format!("ftp://me@127.0.0.1:{port}/")]).ends(3);
    assert_eq!(peer.join().unwrap(), "ACCT sales");
}

#[test]
fn the_netrc_gives_no_password_to_another_user_or_host() {
    let stage = Stage::new();
    let trust = stage.trust();
    let server = stage.serve(Protocol::Sftp, "me", "right");
    let ls = |netrc: &str, url: String| {
        stage.file("home/.netrc", netrc, 0o600);
        let mut args = vec!["ls", "-v", url.as_str()];
        args.extend(trust.iter().map(String::as_str));
        stage.haul(&args)
    };
    let url = |user: &str| format!("sftp://{user}@127.0.0.1:{}/", server.port);
    ls("machine 127.0.0.1 login me password right", url("me")).ends(0);
    ls("machine 127.0.0.1 password right", url("me")).ends(0);
    for netrc in [
        "machine 127.0.0.1 login you password right",
        "machine localhost login me password right",
        "default login you password right",
    ] {
        let ran = ls(netrc, url("me")).ends(3);
        assert!(!ran.err().contains("the password comes from"), "{netrc}: {}", ran.err());
    }
}

#[test]
fn a_netrc_that_others_can_read_or_nobody_can_is_told() {
    let stage = Stage::new();
    stage.file("served/a", "1", 0o644);
    stage.config("defaults.tls = \"off\"\n");
    let server = stage.serve(Protocol::Ftp(FtpTls::Off), "me", "right");
    let url = format!("ftp://127.0.0.1:{}/", server.port);
    let netrc = stage.file("home/.netrc", "machine 127.0.0.1 login me password right\n", 0o644);
    let ran = stage.haul(&["ls", &url]).ends(0);
    let warning = format!("haul: warning: {netrc}: others can read the passwords in this file; chmod 600 it\n");
    assert_eq!(ran.err(), warning);
    stage.file("home/.netrc", "machine 127.0.0.1 login anonymous password me@here\n", 0o644);
    assert!(!stage.haul(&["ls", &url]).err().contains("warning"));
    stage.file("home/.netrc", "machine 127.0.0.1 login me password two wordy\n", 0o600);
    let ran = stage.haul(&["ls", &url]).ends(3);
    assert!(
        ran.err().contains(&format!("{netrc}:1: neither machine")) && !ran.err().contains("wordy"),
        "{}",
        ran.err()
    );
    let ran = stage.haul(&["ls", "--netrc", &netrc, &url]).ends(2);
    assert!(!ran.err().contains("wordy"), "{}", ran.err());
}

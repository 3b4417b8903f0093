//! The file of settings, on the command line.

use haul::serve::{FtpTls, Protocol};

use crate::stage::Stage;

#[test]
fn a_profile_stands_for_its_url_and_settings() {
    let stage = Stage::new();
    let server = stage.serve(Protocol::Sftp, "me", "right");
    stage.file("served/data/reports/a.csv", "1", 0o644);
    stage.file("served/data/b.txt", "2", 0o644);
    stage.file("home/.config/haul/secret", "right\n", 0o600);
    let known_hosts = stage.path("known_hosts");
    stage.config(&format!(
        "[profile.work]\nurl = \"sftp://me@127.0.0.1:{}/data\"\npassword-file = \"secret\"\nhost-key = \"accept-new\"\n\
         known_hosts = \"{known_hosts}\"\nssh-config = \"none\"\n",
        server.port
    ));
    assert_eq!(stage.haul(&["ls", "work:"]).ends(0).out(), "b.txt\nreports\n");
    assert_eq!(stage.haul(&["ls", "work:reports/"]).ends(0).out(), "a.csv\n");
    assert_eq!(stage.haul(&["cat", "work:*.txt"]).ends(0).out(), "2");
    assert_eq!(stage.haul(&["ls", "work:/"]).ends(0).out(), "data\n");
    stage.haul(&["get", "-q", "-r", "work:reports", "."]).ends(0);
    stage.haul(&["put", "-q", "reports/a.csv", "work:up.csv"]).ends(0);
    stage.haul(&["mv", "work:up.csv", "work:reports/b.csv"]).ends(0);
    assert_eq!(stage.haul(&["get", "-q", "work:reports/b.csv", "work:b.txt", "reports"]).ends(0).out(), "");
    assert_eq!(std::fs::read(stage.at("work/reports/b.csv")).unwrap(), b"1");
    stage.haul(&["rm", "work:reports/b.csv"]).ends(0);
    assert!(!stage.at("served/data/reports/b.csv").exists());
    // Nothing of it counts without the file.
    stage.haul(&["ls", "--config", "none", "work:"]).ends(2);
}

#[test]
fn a_local_file_may_be_called_like_a_profile() {
    let stage = Stage::new();
    stage.config("[profile.work]\nurl = \"file:///nonexistent\"\n");
    stage.file("work/work:x", "local", 0o644);
    stage.file("work/c:y", "local too", 0o644);
    assert_eq!(stage.haul(&["cat", "./work:x"]).ends(0).out(), "local");
    assert_eq!(stage.haul(&["cat", "c:y"]).ends(0).out(), "local too");
    assert!(stage.haul(&["cat", "work:x"]).ends(1).err().contains("/nonexistent/x"));
    assert!(stage.haul(&["cat", "wrok:x"]).ends(2).err().contains("did you mean work:?"));
    // What was meant to go to a server doesn't become a file here.
    for (there, hint) in [("nix:x", "sftp://nix/"), ("me@nix:x", "sftp://me@nix/~/x")] {
        assert!(stage.haul(&["put", "c:y", there]).ends(2).err().contains(hint));
        assert!(!stage.at("work").join(there).exists());
    }
    stage.haul(&["put", "-q", "c:y", "./me@nix:x"]).ends(0);
}

#[test]
fn a_wrong_url_is_shown_without_its_password() {
    let stage = Stage::new();
    stage.config("[profile.x]\nurl = \"sftp://me:Hunter/2@h/\"\n");
    for args in [
        &["ls", "sftp://me:Hunter/2@h:22/"][..],
        &["logout", "sftp://me:Hunter2@h:0/"],
        &["config", "show", "sftp://me:Hunter2@h:x/"],
        &["config", "check"],
    ] {
        let ran = stage.haul(args).ends(2);
        assert!(!format!("{}{}", ran.out(), ran.err()).contains("Hunter"), "{}{}", ran.out(), ran.err());
    }
}

#[test]
fn each_endpoint_has_settings_of_its_own() {
    let (near, far) = (Stage::new(), Stage::new());
    near.file("served/a", "from near", 0o644);
    let plain = near.serve(Protocol::Ftp(FtpTls::Off), "me", "one");
    let secure = far.serve(Protocol::Ftp(FtpTls::Require), "me", "two");
    far.file("secret", "two\n", 0o600);
    near.file("secret", "one\n", 0o600);
    near.config(&format!(
        "[profile.near]\nurl = \"ftp://me@127.0.0.1:{}/\"\npassword-file = \"{}\"\ntls = \"off\"\n\
         [profile.far]\nurl = \"ftp://me@127.0.0.1:{}/\"\npassword-file = \"{}\"\ntls = \"require\"\ntls-ca = \"{}\"\n",
        plain.port,
        near.path("secret"),
        secure.port,
        far.path("secret"),
        far.certificate(),
    ));
    near.haul(&["put", "-q", "near:a", "far:b"]).ends(0);
    assert_eq!(std::fs::read(far.at("served/b")).unwrap(), b"from near");
    // What is typed counts for both, and more.
    let refused = near.haul(&["put", "-q", "--tls", "require", "near:a", "far:c"]).ends(3);
    assert!(refused.err().contains("TLS"), "{}", refused.err());
}

/// Two names for one login, one of which insists on TLS: it must not be given the other's connection.
#[test]
fn a_profile_never_shares_a_connection_with_looser_settings() {
    let stage = Stage::new();
    stage.file("served/a", "1", 0o644);
    let server = stage.serve(Protocol::Ftp(FtpTls::Off), "me", "right");
    let url = format!("ftp://me@127.0.0.1:{}/", server.port);
    stage.config(&format!("[defaults]\ntls = \"off\"\n[profile.strict]\nurl = \"{url}\"\ntls = \"require\"\n"));
    let mut stage = stage;
    stage.env.push(("HAUL_PASSWORD", "right".into()));
    stage.haul(&["cat", &format!("{url}a")]).ends(0);
    stage.file("served/b", "2", 0o644);
    let refused = stage.haul(&["cat", &format!("{url}a"), "strict:b"]).ends(3);
    assert_eq!(refused.out(), "1");
    assert!(refused.err().contains("refuses TLS"), "{}", refused.err());
}

#[test]
fn the_command_line_undoes_flags_of_the_file() {
    let stage = Stage::new();
    stage.file("work/a", "1", 0o644);
    stage.config("[defaults]\npreserve = true\n");
    std::fs::create_dir(stage.at("work/to")).unwrap();
    stage.file("work/x", "1", 0o666);
    let mode = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        stage.at(name).metadata().unwrap().mode() & 0o777
    };
    stage.haul(&["get", "-q", "x", "to/kept"]).ends(0);
    stage.haul(&["get", "-q", "--no-preserve", "x", "to/plain"]).ends(0);
    stage.haul(&["get", "-q", "--no-preserve", "-p", "x", "to/last"]).ends(0);
    assert_eq!((mode("work/to/kept"), mode("work/to/last")), (0o666, 0o666));
    assert_ne!(mode("work/to/plain"), 0o666);
}

#[test]
fn a_wrong_file_is_told_and_nothing_is_done() {
    let stage = Stage::new();
    let path = stage.config("[defaults]\njobs = \"many\"\nhunter2 = 1\npassword = \"hunter2\"\nretries = 3\n");
    let ran = stage.haul(&["ls", "/"]).ends(2);
    assert!(ran.err().contains(&format!("{path}:2:8: jobs: ")), "{}", ran.err());
    assert!(ran.err().contains("haul config check names all 3 errors"), "{}", ran.err());
    let ran = stage.haul(&["config", "check"]).ends(2);
    let lines: Vec<_> = ran.err().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with(&format!("{path}:2:8: ")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with(&format!("{path}:3:1: unknown setting: hunter2"))), "{lines:#?}");
    assert!(lines.iter().any(|line| line == &format!("{path}:4:1: passwords don't belong in this file")), "{lines:#?}");
    // The name was shown, the password was not.
    assert!(!ran.err().contains("\"hunter2\""));
    assert!(stage.haul(&["ls", "--config", "/nonexistent", "/"]).ends(2).err().contains("/nonexistent"));
    stage.config("[defaults]\nretries = 3\n");
    assert!(stage.haul(&["config", "check"]).ends(0).err().contains("no errors"));
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let stage = Stage::new();
    stage.file("home/.config/haul/config.toml", "[defaults]\ntls = \"off\"\n", 0o666);
    for args in [&["ls", "/"][..], &["config", "check"], &["config", "show"]] {
        assert!(stage.haul(args).ends(2).err().contains("somebody else can write this file"));
    }
    stage.haul(&["ls", "--config", "none", "/"]).ends(0);
}

#[test]
fn show_tells_where_values_come_from() {
    let stage = Stage::new();
    let path = stage.config(
        "[defaults]\nretries = 9\n[host.\"*.example.org\"]\ntls = \"require\"\n[profile.work]\n\
         url = \"ftp://ftp.example.org/\"\njobs = 2\n",
    );
    let shown = stage.haul(&["config", "show", "work:"]).ends(0).out();
    let row = |name: &str| {
        shown.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("jobs"), format!("jobs 2 profile work ({path}:7)"));
    assert_eq!(row("tls "), format!("tls require host \"*.example.org\" ({path}:4)"));
    assert_eq!(row("retries"), format!("retries 9 defaults ({path}:2)"));
    assert_eq!(row("timeout"), "timeout 30s built in");
    assert!(stage.haul(&["config", "show", "x.example.org"]).ends(0).out().contains("require"));
    assert!(
        stage
            .haul(&["config", "show", "--json"])
            .ends(0)
            .out()
            .contains("{\"name\":\"retries\",\"value\":\"9\",\"source\":\"file\",\"section\":\"defaults\",\"line\":2}")
    );
    assert_eq!(stage.haul(&["config", "path"]).ends(0).out(), format!("{path}\n"));
}

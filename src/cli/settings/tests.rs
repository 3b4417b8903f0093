use super::*;
use std::io::Write;
use std::time::Duration;

use haul::transport::{SshEngine, TlsMode};
use tempfile::NamedTempFile;

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn given(options: &[(&str, &str)]) -> Vec<(String, Set)> {
    let set = |value: &str| match value {
        "true" | "false" => Set::Switch(value == "true"),
        words => Set::Words(words.split(' ').map(Into::into).collect()),
    };
    options.iter().map(|(name, value)| ((*name).to_owned(), set(value))).collect()
}

const ALL: &str = "\
    [defaults]\ntimeout = \"1s\"\n\
    [host.\"*.org\"]\ntimeout = \"2s\"\n\
    [host.\"ftp.*.org\"]\ntimeout = \"3s\"\n\
    [host.\"ftp.example.org\"]\ntimeout = \"4s\"\n\
    [profile.work]\nurl = \"ftp://ftp.example.org/\"\ntimeout = \"5s\"\n";

/// The order of precedence, as `haul config --help` and decision 16 tell it: each row leaves out one more of what counts
/// more.
#[test]
fn what_counts_more_wins() {
    let known = Known::new();
    let rows = [
        (Some("6s"), "ftp.example.org", Some("work"), ALL, 6),
        (None, "ftp.example.org", Some("work"), ALL, 5),
        (None, "ftp.example.org", None, ALL, 4),
        (None, "ftp.other.org", None, ALL, 3),
        (None, "other.org", None, ALL, 2),
        (None, "other.net", None, ALL, 1),
        (None, "other.net", None, "", 30),
    ];
    for (typed, host, profile, text, seconds) in rows {
        let typed: Vec<_> = typed.map(|time| ("timeout", time)).into_iter().collect();
        let (file, typed) = (file(text), given(&typed));
        let settings = Settings::load(&known, &typed, Some(file.path())).unwrap();
        let options = settings.connect(host, profile).unwrap().options().unwrap();
        assert_eq!(options.timeout, Duration::from_secs(seconds), "{host} {profile:?}");
    }
}

#[test]
fn each_setting_is_found_by_itself() {
    let known = Known::new();
    let file = file(
        "[defaults]\ntls = \"off\"\nconnections = 8\nidentity = [\"a\", \"~/b\"]\ndurable = true\n\
         [host.h]\ntls = \"require\"\nssh_engine = \"libssh2\"\nretries = 9\nresume = false\n",
    );
    let typed = given(&[("connections", "2"), ("durable", "false")]);
    let settings = Settings::load(&known, &typed, Some(file.path())).unwrap();
    let options = settings.connect("h", None).unwrap().options().unwrap();
    assert_eq!(
        (options.tls, options.ssh_engine, options.max_connections),
        (TlsMode::Require, SshEngine::Libssh2, Some(2))
    );
    let folder = file.path().parent().unwrap();
    assert_eq!(options.identities, [folder.join("a"), std::env::home_dir().unwrap().join("b")]);
    assert_eq!(settings.connect("other", None).unwrap().options().unwrap().tls, TlsMode::Off);
    let moving = settings.transfer("h", None).unwrap();
    // Switched off on the command line what the file switches on.
    assert_eq!((moving.retries, moving.options().unwrap().resume), (9, false));
    assert_eq!(moving.options().unwrap().durability, haul::transport::Durability::Cached);
}

#[test]
fn several_values_replace_those_that_count_less() {
    let known = Known::new();
    let file = file("[defaults]\nidentity = [\"/a\", \"/b\"]\n[host.h]\nidentity = \"/c\"\n");
    let typed = given(&[("identity", "/x /y")]);
    let identities = |given, host| {
        let settings = Settings::load(&known, given, Some(file.path())).unwrap();
        settings.connect(host, None).unwrap().options().unwrap().identities
    };
    assert_eq!(identities(&typed, "h"), [Path::new("/x"), Path::new("/y")]);
    assert_eq!(identities(&[], "h"), [Path::new("/c")]);
    assert_eq!(identities(&[], "other"), [Path::new("/a"), Path::new("/b")]);
}

#[test]
fn operands_are_profiles_urls_or_files() {
    let known = Known::new();
    let file = file("[profile.work]\nurl = \"sftp://me@h/~/data\"\n");
    let settings = Settings::load(&known, &[], Some(file.path())).unwrap();
    let read = |operand: &str| {
        let (endpoint, profile) = settings.endpoint(OsStr::new(operand)).unwrap();
        (endpoint.to_string(), profile.map(str::to_owned))
    };
    let work = Some("work".to_owned());
    assert_eq!(read("work:reports/"), ("sftp://me@h/~/data/reports/".into(), work.clone()));
    assert_eq!(read("work:"), ("sftp://me@h/~/data".into(), work.clone()));
    assert_eq!(read("work:/etc"), ("sftp://me@h/etc".into(), work));
    assert_eq!(read("./work:x"), ("./work:x".into(), None));
    assert_eq!(read("a/10:30.log"), ("a/10:30.log".into(), None));
    for like_a_server in ["c:/x", "10:30.log", "me@h:x"] {
        let refused = settings.endpoint(OsStr::new(like_a_server)).unwrap_err();
        let hint = format!("./{like_a_server}");
        assert!(refused.kind() == ErrorKind::Usage && refused.hint().unwrap().ends_with(&hint), "{refused:?}");
    }
    assert_eq!(read("sftp://work/x"), ("sftp://work/x".into(), None));
    let slip = settings.endpoint(OsStr::new("wrok:x")).unwrap_err();
    assert_eq!((slip.kind(), slip.hint().unwrap().contains("work:?")), (ErrorKind::Usage, true));
}

#[test]
fn a_file_that_others_can_write_is_not_heeded() {
    use std::os::unix::fs::PermissionsExt;
    let known = Known::new();
    let file = file("[defaults]\ntls = \"off\"\n");
    for (mode, heeded) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = Settings::load(&known, &[], Some(file.path()));
        assert_eq!(loaded.is_ok(), heeded, "{mode:o}");
        assert!(loaded.err().is_none_or(|error| error.kind() == ErrorKind::Usage));
    }
}

#[test]
fn where_each_value_comes_from_is_told() {
    let known = Known::new();
    let (file, typed) = (file(ALL), given(&[("retries", "2")]));
    let settings = Settings::load(&known, &typed, Some(file.path())).unwrap();
    let all = settings.explain("ftp.example.org", None);
    let source = |name| all.iter().find(|chosen| chosen.name == name).unwrap().source;
    assert_eq!(source("retries"), Source::CommandLine);
    assert_eq!(source("timeout"), Source::File("host \"ftp.example.org\"", Place { line: 8, column: 1 }));
    assert_eq!(source("tls"), Source::BuiltIn);
}

/// Asking clap which options exclude each other must not panic for any of them.
#[test]
fn any_two_options_can_be_compared() {
    let known = Known::new();
    let names: Vec<_> = known.options().map(|(name, _)| name).collect();
    for one in &names {
        let _ = names.iter().filter(|other| known.conflict(one, other)).count();
    }
    assert!(known.conflict("force", "update"));
}

#[test]
fn a_proxy_with_a_password_has_no_place_in_the_file() {
    for (url, fits) in [
        ("socks5h://me:hunter2@proxy", false),
        ("https://me:hunter2@proxy", false),
        ("socks5h://me@proxy", true),
        ("http://proxy:8080", true),
    ] {
        let file = file(&format!("[defaults]\nproxy = \"{url}\"\n"));
        let known = Known::new();
        let read = Settings::load(&known, &[], Some(file.path()));
        assert_eq!(read.is_ok(), fits, "{url}");
        assert!(read.err().is_none_or(|e| !e.chain().contains("hunter2")), "{url}");
    }
}

#[test]
fn what_scp_means_is_told_as_a_url() {
    let known = Known::new();
    let settings = Settings::of(&known, &[], Which::Nothing).unwrap();
    for (typed, url) in [
        ("me@host:/x/y", "sftp://me@host/x/y,"),
        ("me@host:/", "sftp://me@host/,"),
        ("me@host:x/y", "sftp://me@host/~/x/y,"),
        ("me@host:~/x", "sftp://me@host/~/x,"),
        ("me@host:", "sftp://me@host/~/,"),
    ] {
        let error = settings.endpoint(OsStr::new(typed)).unwrap_err();
        assert!(error.hint().unwrap().contains(url), "{typed}: {:?}", error.hint());
    }
}

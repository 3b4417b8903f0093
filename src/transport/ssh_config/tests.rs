//! What `ssh -G` says for the same files is what is expected here.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn typed(host: &str) -> Typed<'_> {
    Typed { host, port: None, user: None, local_user: "me" }
}

fn with(text: &str, typed: Typed<'_>) -> Result<HostConfig> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    fs::write(&file, text).unwrap();
    read(typed, &SshConfig::File(file))
}

#[test]
fn the_first_value_counts() {
    let config = "
        Host web
            HostName %h.example.org
            User deploy
            IdentityFile /keys/%r@%h
        Host db
            User nobody
        Host *
            User other
            Port 2222
            IdentityFile /keys/all
            IdentityFile /keys/all
            ConnectTimeout 1m
            StrictHostKeyChecking accept-new
    ";
    let found = with(config, typed("web")).unwrap();
    assert_eq!((found.host.as_str(), found.port, found.user.as_str()), ("web.example.org", 2222, "deploy"));
    assert_eq!(found.identities, [PathBuf::from("/keys/deploy@web.example.org"), "/keys/all".into()]);
    assert_eq!(found.connect_timeout, Some(Duration::from_secs(60)));
    assert_eq!(found.host_key, Some(HostKeyPolicy::AcceptNew));
    let url = Typed { port: Some(22), user: Some("root"), ..typed("web") };
    let found = with(config, url).unwrap();
    assert_eq!((found.port, found.user.as_str()), (22, "root"));
}

#[test]
fn match_sees_what_was_found_before() {
    let config = "
        Host short
            HostName long.example.org
        Match host *.example.org user me
            Port 2200
        Match final host long.*
            User last
        Match !all
            HostKeyAlias never
    ";
    let found = with(config, typed("short")).unwrap();
    assert_eq!((found.port, found.user.as_str(), found.alias), (2200, "last", None));
    assert_eq!(with(config, typed("other")).unwrap().port, 22);
}

#[test]
fn files_are_included_where_their_block_counts() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/1.conf"), "Host a\n Port 1001\n").unwrap();
    fs::write(at("d/2.conf"), "Port 1002\nUser two\n").unwrap();
    fs::write(at("d/not"), "Port 1\n").unwrap();
    let main =
        format!("Host a b\n Include {0}/d/*.conf\nHost *\n User late\n Include {0}/missing\n", folder.path().display());
    fs::write(at("config"), main).unwrap();
    let read = |host| read(typed(host), &SshConfig::File(at("config"))).unwrap();
    assert_eq!((read("a").port, read("a").user), (1001, "two".into()));
    assert_eq!((read("b").port, read("b").user), (1002, "two".into()));
    assert_eq!((read("c").port, read("c").user), (22, "late".into()));
    fs::write(at("config"), format!("Include {}/config\n", folder.path().display())).unwrap();
    assert_eq!(super::read(typed("a"), &SshConfig::File(at("config"))).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn keys_agents_and_known_hosts() {
    let found = with(
        "IdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile /a \"/b c\"\nGlobalKnownHostsFile none\nHostKeyAlias the-key\n",
        typed("h"),
    )
    .unwrap();
    assert!(found.identities_only);
    assert_eq!(found.agent, Agent::None);
    assert_eq!(found.known_hosts, Some(vec!["/a".into(), "/b c".into()]));
    assert_eq!(found.system_known_hosts, Some(vec![]));
    assert_eq!(found.alias.as_deref(), Some("the-key"));
    assert_eq!(with("IdentityAgent /run/%u\n", typed("h")).unwrap().agent, Agent::At("/run/me".into()));
    assert_eq!(with("IdentityAgent SSH_AUTH_SOCK\n", typed("h")).unwrap().agent, Agent::Usual);
}

#[test]
fn what_is_not_heeded_is_named() {
    let found = with("AddressFamily any\nCiphers aes256-ctr\nMatch exec true\n Port 7\n", typed("h")).unwrap();
    let names: Vec<_> = found.lacking.iter().map(|(keyword, _)| keyword.as_str()).collect();
    assert_eq!(names, ["Ciphers", "Match exec"]);
    assert!(found.lacking[0].1.ends_with("config:2"), "{:?}", found.lacking);
    assert_eq!(found.port, 22);
}

#[test]
fn ways_to_a_host() {
    let command = |text: &str| Way::Command(text.into());
    for (text, expected) in [
        (
            "ProxyJump me@gate:22, %r@second\nProxyCommand no\n",
            Way::Jumps(vec!["me@gate:22".into(), "me@second".into()]),
        ),
        ("ProxyCommand nc -X \"5\" %h %p # 100%%\nProxyJump no\n", command("nc -X \"5\" h 22 # 100%")),
        ("ProxyJump none\nProxyCommand nc %h %p\n", Way::Straight),
        ("ProxyCommand none\nProxyJump gate\n", Way::Straight),
        ("Host other\nProxyJump gate\n", Way::Straight),
    ] {
        assert_eq!(with(text, typed("h")).unwrap().way, expected, "{text}");
    }
}

#[test]
fn no_url_gets_into_a_shell() {
    for host in ["$(reboot)", "a;b", "-oX", "a b", "`x`", "a'b", "a|b"] {
        let error = with("ProxyCommand nc %h %p", typed(host)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{host}");
        let as_user = Typed { user: Some(host), ..typed("h") };
        assert_eq!(with("ProxyCommand nc %h %p", as_user).unwrap_err().kind(), ErrorKind::Usage, "{host}");
    }
}

#[test]
fn mistakes_are_told_with_their_line() {
    for (text, place) in [
        ("\nPort many", "config:2"),
        ("Port 0", "config:1"),
        ("User \"x", "line 1"),
        ("IdentityFile %Z", "config:1"),
        ("#\n#\nConnectTimeout soon", "config:3"),
        ("StrictHostKeyChecking perhaps", "config:1"),
    ] {
        let error = with(text, typed("h")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
        assert!(error.to_string().contains(place), "{text}: {error}");
    }
    let missing = SshConfig::File("/nonexistent/config".into());
    assert_eq!(read(typed("h"), &missing).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(read(typed("h"), &SshConfig::None).unwrap().port, 22);
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    fs::write(&file, "Port 1\n").unwrap();
    let expand = |name: &str| name.to_owned();
    let reader =
        Reader { original: "h", user: None, local_user: "me", home: None, is_final: false, host_name: &expand };
    for (mode, is_system, is_fine) in [(0o600, false, true), (0o622, false, false), (0o622, true, true)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let read = reader.file(&file, is_system, true, &mut Found::default());
        assert_eq!(read.is_ok(), is_fine, "{mode:o}");
    }
}

/// The same files, read by OpenSSH.
#[test]
fn openssh_reads_the_same() {
    let configs = [
        "Host web\n HostName web.example.org\n User deploy\nHost *\n Port 2200\n User other\n",
        "Host w* !web\n User one\nHost web\n User=two\n  Port \"2222\" # x\nMatch host web\n IdentitiesOnly yes\n",
        "Match originalhost web user deploy\n Port 1\nMatch !localuser nobody\n Port 2\n ConnectTimeout 1m30\n",
        "Host web\n HostName %h.lan\nMatch host *.lan\n User lan\nMatch final host web.lan\n Port 99\nMatch final\n User no\n",
        "StrictHostKeyChecking accept-new\nHostKeyAlias k\nHost db\nHostKeyAlias no\nMatch all\nConnectTimeout 7\n",
    ];
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    let local_user = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let folder = tempfile::tempdir().unwrap();
    for (number, text) in configs.iter().enumerate() {
        let file = folder.path().join(format!("config{number}"));
        fs::write(&file, text).unwrap();
        for host in ["web", "w2", "db"] {
            let output = std::process::Command::new("ssh").arg("-G").arg("-F").arg(&file).arg(host).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let told = |keyword: &str| {
                let mut lines = text.lines().filter_map(|line| line.split_once(' '));
                lines.find(|(name, _)| *name == keyword).map(|(_, value)| value.to_owned())
            };
            let typed = Typed { local_user: &local_user, ..typed(host) };
            let found = read(typed, &SshConfig::File(file.clone())).unwrap();
            let shown = format!("{text}\n{found:?}");
            assert_eq!(told("hostname").as_deref(), Some(found.host.as_str()), "{shown}");
            assert_eq!(told("port"), Some(found.port.to_string()), "{shown}");
            assert_eq!(told("user").as_deref(), Some(found.user.as_str()), "{shown}");
            assert_eq!(told("hostkeyalias"), found.alias, "{shown}");
            assert_eq!(
                told("identitiesonly").as_deref(),
                Some(if found.identities_only { "yes" } else { "no" }),
                "{shown}"
            );
            let timeout = found.connect_timeout.map_or("none".into(), |time| time.as_secs().to_string());
            assert_eq!(told("connecttimeout"), Some(timeout), "{shown}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(
        text: Vec<u8>,
        lines in proptest::collection::vec(("(Host|Match|Port|HostName|User|IdentityFile|ProxyJump|ProxyCommand|ConnectTimeout|x)", "[ -~]{0,20}"), 0..8),
    ) {
        read_any(&text);
        let lines: Vec<_> = lines.into_iter().map(|(keyword, rest)| format!("{keyword} {rest}\n")).collect();
        read_any(lines.concat().as_bytes());
    }
}

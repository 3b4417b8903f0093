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
    let found = with("ProxyUseFdpass no\nGSSAPIAuthentication yes\nPreferredAuthentications hostbased,publickey\nPKCS11Provider /x\nMatch exec true\n Port 7\n", typed("h")).unwrap();
    let names: Vec<_> = found.lacking.iter().map(|(keyword, _)| keyword.as_str()).collect();
    assert_eq!(names, ["GSSAPIAuthentication", "PKCS11Provider", "Match exec", "PreferredAuthentications hostbased"]);
    assert!(found.lacking[0].1.ends_with("config:2"), "{:?}", found.lacking);
    assert_eq!(found.port, 22);
}

#[test]
fn slips_of_the_pen_are_named() {
    let text = "IgnoreUnknown UseFoo,Mac*\nUseFoo yes\nMacThing 1\nStrictHostKeyCheking yes\nUpdateHostKeys no\n";
    let slips = with(text, typed("h")).unwrap().slips;
    assert_eq!(slips.len(), 1, "{slips:?}");
    assert!(slips[0].0 == "stricthostkeycheking" && slips[0].1.ends_with("config:4"), "{slips:?}");
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
        ("AddressFamily inet4", "config:1"),
        ("Ciphers !aes128-ctr", "config:1"),
        ("MACs +", "config:1"),
        ("ServerAliveInterval often", "config:1"),
        ("NumberOfPasswordPrompts -1", "config:1"),
        ("PreferredAuthentications gssapi-with-mic,hostbased", "config:1"),
        ("PubkeyAuthentication no\nPreferredAuthentications publickey", "config:2"),
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

/// What OpenSSH makes of a file.
struct Told(Vec<(String, String)>);

impl Told {
    fn of(file: &Path, host: &str) -> Self {
        let output = std::process::Command::new("ssh").arg("-G").arg("-F").arg(file).arg(host).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        Self(text.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect())
    }

    fn all(&self, keyword: &str) -> Vec<&str> {
        self.0.iter().filter(|(name, _)| name == keyword).map(|(_, value)| value.as_str()).collect()
    }

    fn first(&self, keyword: &str) -> Option<&str> {
        self.all(keyword).first().copied()
    }
}

fn local_user() -> String {
    let output = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The same files, read by OpenSSH.
#[test]
fn openssh_reads_the_same() {
    let configs = [
        "Host web\n HostName web.example.org\n User deploy\nHost *\n Port 2200\n User other\n",
        "Host w* !web\n User one\nHost web\n User=two\n  Port \"2222\" # x\nMatch host web\n IdentitiesOnly yes\n",
        "Match originalhost web user deploy\n Port 1\nMatch !localuser nobody\n Port 2\n ConnectTimeout 1m30\n",
        "Host web\n HostName %h.lan\nMatch host *.lan\n User lan\nMatch final host web.lan\n Port 99\nMatch final\n User no\n",
        "AddressFamily inet6\nHost web\nBindAddress 127.0.0.1\nHost *\nAddressFamily inet\nBindAddress ::1\n",
        "StrictHostKeyChecking accept-new\nHostKeyAlias k\nHost db\nHostKeyAlias no\nMatch all\nConnectTimeout 7\n",
        "Host web\nCertificateFile /a/%%r\nServerAliveInterval 1m\nHost *\nCertificateFile /b\nServerAliveCountMax 0\n",
        "Host db\nNumberOfPasswordPrompts 1\nServerAliveInterval 0\nMatch all\nPreferredAuthentications password,publickey\n",
        "PreferredAuthentications keyboard-interactive,password\nPasswordAuthentication no\n",
        "KbdInteractiveAuthentication yes\nChallengeResponseAuthentication no\nDSAAuthentication no\n",
        "PubkeyAuthentication no\nHost web\nChallengeResponseAuthentication no\nHost *\nKbdInteractiveAuthentication yes\n",
    ];
    let local_user = local_user();
    let folder = tempfile::tempdir().unwrap();
    for (number, text) in configs.iter().enumerate() {
        let file = folder.path().join(format!("config{number}"));
        fs::write(&file, text).unwrap();
        for host in ["web", "w2", "db"] {
            let told = Told::of(&file, host);
            let typed = Typed { local_user: &local_user, ..typed(host) };
            let found = read(typed, &SshConfig::File(file.clone())).unwrap();
            let shown = format!("{text}\n{found:?}");
            assert_eq!(told.first("hostname"), Some(found.host.as_str()), "{shown}");
            assert_eq!(told.first("port"), Some(found.port.to_string().as_str()), "{shown}");
            assert_eq!(told.first("user"), Some(found.user.as_str()), "{shown}");
            assert_eq!(told.first("hostkeyalias"), found.alias.as_deref(), "{shown}");
            let only = if found.identities_only { "yes" } else { "no" };
            assert_eq!(told.first("identitiesonly"), Some(only), "{shown}");
            let timeout = found.connect_timeout.map_or("none".into(), |time| time.as_secs().to_string());
            assert_eq!(told.first("connecttimeout"), Some(timeout.as_str()), "{shown}");
            let family = match found.family {
                Family::Any => "any",
                Family::Ipv4 => "inet",
                Family::Ipv6 => "inet6",
            };
            assert_eq!(told.first("addressfamily"), Some(family), "{shown}");
            assert_eq!(told.first("bindaddress"), found.bind_address.as_deref(), "{shown}");
            let certificates: Vec<_> = found.certificates.iter().map(|path| path.to_str().unwrap()).collect();
            let expected: Vec<_> = told.all("certificatefile").iter().map(|path| path.replace("%%", "%")).collect();
            assert_eq!(certificates, expected, "{shown}");
            let alive = found.alive_interval.map_or(0, |time| time.as_secs()).to_string();
            assert_eq!(told.first("serveraliveinterval"), Some(alive.as_str()), "{shown}");
            assert_eq!(told.first("serveralivecountmax"), Some(found.alive_count.to_string().as_str()), "{shown}");
            let prompts = found.password_prompts.to_string();
            assert_eq!(told.first("numberofpasswordprompts"), Some(prompts.as_str()), "{shown}");
            assert_eq!(methods_of(&told), found.methods, "{shown}");
        }
    }
}

/// Returns the ways to log in that OpenSSH would try, in our usual order where none is set.
fn methods_of(told: &Told) -> Vec<Method> {
    let is_on = |keyword: &str| told.first(keyword) != Some("no") && told.first(keyword) != Some("false");
    let on: Vec<_> =
        METHODS.iter().filter(|(_, keyword)| is_on(&keyword.to_ascii_lowercase())).map(|(method, _)| *method).collect();
    match told.first("preferredauthentications") {
        None => on,
        Some(list) => list.split(',').filter_map(|name| on.iter().copied().find(|m| m.name() == name)).collect(),
    }
}

#[test]
fn openssh_makes_the_same_of_lists_of_algorithms() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let get = |text: &str| {
        fs::write(&file, text).unwrap();
        Told::of(&file, "h")
    };
    let usual = get("");
    for (keyword, query, values) in [
        (
            "Ciphers",
            "cipher",
            &["aes256-ctr,aes128-ctr", "+aes128-cbc", "^aes256-ctr", "-*ctr,chacha*", "-nothing"][..],
        ),
        (
            "KexAlgorithms",
            "kex",
            &["curve25519-sha256", "+diffie-hellman-group1-sha1", "^ecdh-sha2-nistp521", "-diffie-*"],
        ),
        ("MACs", "mac", &["hmac-sha2-256", "+hmac-md5", "^hmac-sha1", "-*etm*,umac-64*"]),
        (
            "HostKeyAlgorithms",
            "HostKeyAlgorithms",
            &["ssh-ed25519,ssh-rsa", "+ssh-rsa", "^rsa-*", "-*cert*,sk-*", "*ed25519"],
        ),
        (
            "PubkeyAcceptedAlgorithms",
            "PubkeyAcceptedAlgorithms",
            &["ssh-ed25519", "+ssh-rsa*", "^ecdsa-*256", "-*rsa*"],
        ),
    ] {
        let output = std::process::Command::new("ssh").args(["-Q", query]).output().unwrap();
        let all = String::from_utf8(output.stdout).unwrap();
        let all: Vec<_> = all.lines().collect();
        let usual: Vec<_> = usual.first(&keyword.to_ascii_lowercase()).unwrap().split(',').collect();
        for value in values {
            let text = format!("{keyword} {value}\n");
            let told = get(&text);
            let found = with(&text, typed("h")).unwrap().algorithms;
            let lists = [found.kex, found.host_keys, found.ciphers, found.macs, found.public_keys];
            let list = lists.into_iter().flatten().next().unwrap();
            assert_eq!(list.keyword(), keyword);
            let chosen = list.apply(&usual, &all).unwrap().names.join(",");
            assert_eq!(told.first(&keyword.to_ascii_lowercase()), Some(chosen.as_str()), "{text}");
        }
    }
}

#[test]
fn openssh_knows_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let local_user = local_user();
    // Of all paths, `ssh -G` shows this one with its tokens replaced.
    fs::write(&file, "User me\nHostName h.lan\nPort 2\nControlPath /%C/%l/%L/%h/%n/%p/%r/%u/%i/100%%\n").unwrap();
    let expected = Told::of(&file, "h").first("controlpath").unwrap().to_owned();
    fs::write(&file, "User me\nHostName h.lan\nPort 2\nIdentityFile /%C/%l/%L/%h/%n/%p/%r/%u/%i/100%%\n").unwrap();
    let typed = Typed { local_user: &local_user, ..typed("h") };
    let found = read(typed, &SshConfig::File(file)).unwrap();
    assert_eq!(found.identities, [PathBuf::from(expected)]);
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

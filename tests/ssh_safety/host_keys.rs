//! Who answers is checked at each connection, by key or certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use haul::ErrorKind;
use haul::transport::{ConnectOptions, HostKeyPolicy, SshConfig, SshEngine};

use super::middle::{Middle, Then};
use super::sshd::{Sshd, new_key};
use super::{ENGINES, at_port, options, options_for, try_login, try_sftp};

const ALL: [SshEngine; 3] = [SshEngine::Russh, SshEngine::Libssh2, SshEngine::Openssh];

fn address(sshd: &Sshd) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], sshd.endpoint().port.unwrap()))
}

/// Writes a known_hosts file with this server's key for that port.
fn known_at(sshd: &Sshd, port: u16) -> std::path::PathBuf {
    let file = sshd.path(&format!("known_{port}"));
    std::fs::write(&file, format!("[127.0.0.1]:{port} {}", sshd.host_key("ed25519"))).unwrap();
    file
}

/// How often somebody tried to log in.
fn tries(sshd: &Sshd) -> usize {
    let log = std::fs::read_to_string(sshd.path("log")).unwrap();
    ["Accepted", "Failed", "Postponed", "userauth"].iter().map(|word| log.matches(word).count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_that_changes_between_connections_is_refused() {
    let (server, other) = (Sshd::start("LogLevel VERBOSE\n"), Sshd::start("LogLevel VERBOSE\n"));
    let (to_server, to_other) = (address(&server), address(&other));
    for engine in ENGINES {
        // The user's own file, one that is empty each time, and one that can't be written at all.
        for file in ["on file", "new", "/dev/null"] {
            let middle = Middle::open(move |n| (if n == 0 { to_server } else { to_other }, Then::Pass)).await;
            let known = match file {
                "on file" => known_at(&server, middle.port),
                "new" => server.path(&format!("new_{engine:?}")),
                file => file.into(),
            };
            let options =
                ConnectOptions { max_connections: Some(4), ..options(engine, server.path("login_ed25519"), known) };
            let transport = haul::transport::connect(&at_port(middle.port), &options).await.unwrap();
            assert_eq!(transport.set_connections(4).await, 1, "{engine:?} {file}: an extra connection");
            assert!(middle.met.load(Ordering::SeqCst) > 1, "nothing was tried");
            transport.home().await.unwrap();

            middle.cut();
            // The first call may find the old connection broken; the next makes a new one.
            let mut error = transport.home().await.unwrap_err();
            for _ in 0..20 {
                if error.kind() == ErrorKind::HostKey {
                    break;
                }
                error = transport.home().await.unwrap_err();
            }
            assert_eq!(error.kind(), ErrorKind::HostKey, "{engine:?} {file}: after a reconnect: {}", error.chain());
            assert!(error.message().contains("SHA256:"), "{}", error.chain());
        }
    }
    assert_eq!(tries(&other), 0, "somebody logged in at the other server");
    assert!(tries(&server) > 0, "the log tells nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_is_checked_at_each_connection() {
    let (gate, other, inner) = (Sshd::start("LogLevel VERBOSE\n"), Sshd::start("LogLevel VERBOSE\n"), Sshd::start(""));
    let (to_gate, to_other) = (address(&gate), address(&other));
    for engine in ENGINES {
        let middle = Middle::open(move |n| (if n == 0 { to_gate } else { to_other }, Then::Pass)).await;
        let (known, config) = (inner.path("known"), inner.path("config"));
        let line = |port, sshd: &Sshd| format!("[127.0.0.1]:{port} {}", sshd.host_key("ed25519"));
        let inner_port = inner.endpoint().port.unwrap();
        std::fs::write(&known, line(middle.port, &gate) + &line(inner_port, &inner)).unwrap();
        let text = format!(
            "Host gate\n HostName 127.0.0.1\n Port {}\n IdentityFile {}\nHost 127.0.0.1\n ProxyJump gate\n IdentityFile {}\n",
            middle.port,
            gate.path("login_ed25519").display(),
            inner.path("login_ed25519").display(),
        );
        std::fs::write(&config, text).unwrap();
        let options = ConnectOptions {
            identities: Vec::new(),
            ssh_config: SshConfig::File(config),
            max_connections: Some(3),
            ..options(engine, "x".into(), known)
        };
        let transport = haul::transport::connect(&inner.endpoint(), &options).await.unwrap();
        assert_eq!(transport.set_connections(3).await, 1, "{engine:?}");
        assert!(middle.met.load(Ordering::SeqCst) > 1, "nothing was tried");
        assert_eq!(tries(&other), 0, "{engine:?}: somebody logged in at the wrong gate");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_several_keys_may_show_any_that_is_on_file() {
    // Two servers behind one name, each with a key of its own.
    let (one, two) = (Sshd::start(""), Sshd::start(""));
    std::fs::copy(one.path("authorized_keys"), two.path("authorized_keys")).unwrap();
    let (to_one, to_two) = (address(&one), address(&two));
    for engine in ALL {
        haul::transport::ssh::use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
        let middle = Middle::open(move |n| (if n % 2 == 0 { to_one } else { to_two }, Then::Pass)).await;
        let known = one.path("both");
        let lines = [&one, &two].map(|sshd| format!("[127.0.0.1]:{} {}", middle.port, sshd.host_key("ed25519")));
        std::fs::write(&known, lines.concat()).unwrap();
        let options = ConnectOptions {
            host_key: Some(HostKeyPolicy::Strict),
            max_connections: Some(2),
            ..options(engine, one.path("login_ed25519"), known)
        };
        let transport = haul::transport::connect(&at_port(middle.port), &options).await.unwrap();
        assert_eq!(transport.set_connections(2).await, 2, "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_type_of_key_is_refused_under_every_policy() {
    // The server has an RSA key only; on file is one of another type.
    let server = Sshd::start("HostKeyAlgorithms rsa-sha2-512,rsa-sha2-256\n");
    for engine in ENGINES {
        for policy in [HostKeyPolicy::AcceptNew, HostKeyPolicy::Ask, HostKeyPolicy::Strict] {
            let known = server.known_hosts(&[&server.host_key("ed25519")]);
            let options = ConnectOptions {
                host_key: Some(policy),
                prompt: super::sshd::Answers::confirm(true),
                ..options(engine, server.path("login_ed25519"), known.clone())
            };
            let error = try_login(&server.endpoint(), &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HostKey, "{engine:?}: {}", error.chain());
            assert!(error.message().contains("another type"), "{}", error.chain());
            assert_eq!(error.message().matches("SHA256:").count(), 2, "{}", error.chain());
            assert!(error.message().contains(&format!("{}:1", known.display())), "{}", error.chain());
            assert_eq!(std::fs::read_to_string(&known).unwrap().lines().count(), 1, "it was written down");
        }
    }
}

fn sign(authority: &Path, key: &Path, how: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    command.arg("-q").arg("-s").arg(authority).args(["-I", "host"]).args(how).arg(key);
    assert!(command.status().unwrap().success());
}

/// Accepted and refused as by `ssh`, the third engine.
#[tokio::test(flavor = "multi_thread")]
async fn host_certificates_are_believed_as_by_ssh() {
    haul::transport::ssh::use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
    let folder = tempfile::tempdir().unwrap();
    let authority = new_key(&folder.path().join("ca"), "ed25519", "");
    let authority_line = std::fs::read_to_string(authority.with_extension("pub")).unwrap();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        for (how, expected) in [
            (&["-h", "-n", "127.0.0.1,other", "-V", "-1m:+1d"][..], true),
            (&["-h", "-n", "other"], false),
            (&["-h", "-n", "127.0.0.1", "-V", "20200101:20210101"], false),
            (&["-n", "127.0.0.1"], false),
        ] {
            if kind != "ed25519" && !expected {
                continue;
            }
            let key = folder.path().join("host");
            for old in ["host", "host.pub", "host-cert.pub"] {
                let _ = std::fs::remove_file(folder.path().join(old));
            }
            new_key(&key, kind, "");
            sign(&authority, &key.with_extension("pub"), how);
            let at = folder.path().display();
            let server = Sshd::start(&format!("HostKey {at}/host\nHostCertificate {at}/host-cert.pub\n"));
            for engine in ALL {
                let known = server.path("authority");
                std::fs::write(&known, format!("@cert-authority * {authority_line}")).unwrap();
                let options = ConnectOptions {
                    host_key: Some(HostKeyPolicy::Strict),
                    ..options(engine, server.path("login_ed25519"), known.clone())
                };
                let result = try_login(&server.endpoint(), &options).await;
                assert_eq!(result.is_ok(), expected, "{engine:?} {kind} {how:?}: {result:?}");
                if !expected {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::HostKey, "{engine:?} {kind} {how:?}");
                    continue;
                }
                // The same authority, revoked.
                let text = format!("@cert-authority * {authority_line}@revoked * {authority_line}");
                std::fs::write(&known, text).unwrap();
                let error = try_login(&server.endpoint(), &options).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::HostKey, "{engine:?} {kind}: {}", error.chain());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_read_and_written_as_by_ssh() {
    let server = Sshd::start("");
    let port = server.endpoint().port.unwrap();
    let user = server.endpoint().user.unwrap();
    let ssh = |known: &Path| {
        let mut command = Command::new("ssh");
        command.args([
            "-F",
            "none",
            "-oBatchMode=yes",
            "-oGlobalKnownHostsFile=/dev/null",
            "-oStrictHostKeyChecking=yes",
        ]);
        command.arg(format!("-oUserKnownHostsFile={}", known.display())).arg("-i").arg(server.path("login_ed25519"));
        command.args(["-p", &port.to_string(), &format!("{user}@127.0.0.1"), "true"]).status().unwrap().success()
    };
    let config = server.path("config");
    for hashed in ["yes", "no"] {
        std::fs::write(&config, format!("HashKnownHosts {hashed}\n")).unwrap();
        for engine in ENGINES {
            let known = server.path(&format!("known_{hashed}_{engine:?}"));
            let options = ConnectOptions {
                ssh_config: SshConfig::File(config.clone()),
                ..options(engine, server.path("login_ed25519"), known.clone())
            };
            try_login(&server.endpoint(), &options).await.unwrap();
            let text = std::fs::read_to_string(&known).unwrap();
            assert_eq!(text.starts_with("|1|"), hashed == "yes", "{text}");
            assert!(ssh(&known), "ssh does not find {text}");
            // And ours what ssh-keygen hashed.
            assert!(Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&known).status().unwrap().success());
            let strict = ConnectOptions { host_key: Some(HostKeyPolicy::Strict), ..options };
            try_login(&server.endpoint(), &strict).await.unwrap();
        }
    }
}

/// Sixteen programs at once, each new to the server.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_file_a_key_at_once_tear_no_line() {
    let server = Sshd::start("");
    let known = server.path("shared");
    std::fs::write(&known, "# no line break").unwrap();
    let running: Vec<_> = (0..16)
        .map(|_| {
            let mut haul = Command::new(env!("CARGO_BIN_EXE_haul"));
            haul.args(["ls", "--host-key", "accept-new", "--known-hosts"]).arg(&known).arg("-i");
            haul.arg(server.path("login_ed25519")).arg(format!("{}", server.endpoint()));
            haul.env("HOME", server.path("")).env_remove("SSH_AUTH_SOCK").stdout(std::process::Stdio::null());
            haul.spawn().unwrap()
        })
        .collect();
    for mut haul in running {
        assert!(haul.wait().unwrap().success());
    }
    let text = std::fs::read_to_string(&known).unwrap();
    // The system's configuration may want the name hashed.
    let key = server.host_key("ed25519").split(' ').nth(1).unwrap().to_owned();
    assert!(text.starts_with("# no line break\n") && text.ends_with(&format!("ssh-ed25519 {key}\n")), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_person_is_asked_about_one_key_once() {
    let server = Sshd::start("");
    for engine in ENGINES {
        let prompt = super::sshd::Answers::confirm(true);
        let asked = Arc::clone(&prompt);
        let options = ConnectOptions {
            host_key: Some(HostKeyPolicy::Ask),
            prompt,
            connections: 3,
            max_connections: Some(3),
            ..options_for(&server, engine)
        };
        let options = ConnectOptions { known_hosts: Some("/dev/null".into()), ..options };
        try_sftp(&server.endpoint(), &options).await.unwrap();
        assert_eq!(asked.questions().len(), 1, "{engine:?}: {:?}", asked.questions());
    }
}

//! The SSH engines against a real OpenSSH server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod sshd;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use haul::endpoint::Endpoint;
use haul::transport::ssh::{Inbound, LoginCache, Session, connect, use_askpass_program};
use haul::transport::{ConnectOptions, HostKeyPolicy, SshConfig, SshEngine};
use haul::{Error, ErrorKind, Result};
use sshd::{Answers, Sshd, agent_with, new_key};

const ENGINES: [SshEngine; 3] = [SshEngine::Russh, SshEngine::Libssh2, SshEngine::Openssh];

/// Options that touch nothing of the user's own.
fn options(sshd: &Sshd, engine: SshEngine) -> ConnectOptions {
    use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
    ConnectOptions {
        timeout: Duration::from_secs(10),
        identities: vec![sshd.path("login_ed25519")],
        agent: None,
        ssh_config: SshConfig::None,
        known_hosts: Some(sshd.known_hosts(&[&sshd.host_key("ed25519")])),
        host_key: Some(HostKeyPolicy::Strict),
        ssh_engine: engine,
        ..ConnectOptions::default()
    }
}

async fn open(sshd: &Sshd, options: &ConnectOptions) -> Result<Arc<dyn Session>> {
    connect(&sshd.endpoint(), options, &LoginCache::default()).await
}

async fn whoami(sshd: &Sshd, options: &ConnectOptions) -> Result<String> {
    let session = open(sshd, options).await?;
    let output = session.exec(b"echo me").await?;
    session.close().await;
    Ok(String::from_utf8(output).unwrap().trim().to_owned())
}

/// What a channel got, for a test to look at.
struct Sink {
    data: Sender<Bytes>,
    closed: Sender<Error>,
}

fn sink() -> (Arc<Sink>, Receiver<Bytes>, Receiver<Error>) {
    let (data, got) = channel();
    let (closed, reason) = channel();
    (Arc::new(Sink { data, closed }), got, reason)
}

impl Inbound for Sink {
    fn data(&self, bytes: &[u8]) {
        let _ = self.data.send(Bytes::copy_from_slice(bytes));
    }

    fn closed(&self, reason: Error) {
        let _ = self.closed.send(reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_key_opens_the_door() {
    let sshd = Sshd::start("");
    for engine in ENGINES {
        for key in ["login_ed25519", "login_ecdsa", "login_rsa", "login_rsa_pem"] {
            let options = ConnectOptions { identities: vec![sshd.path(key)], ..options(&sshd, engine) };
            assert_eq!(whoami(&sshd, &options).await.unwrap(), "me", "{engine:?} {key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_is_asked_once_for_all_connections() {
    let sshd = Sshd::start("");
    for engine in ENGINES {
        let prompt = Answers::secret("open sesame");
        let options = ConnectOptions {
            identities: vec![sshd.path("login_locked")],
            prompt: prompt.clone(),
            ..options(&sshd, engine)
        };
        let cache = LoginCache::default();
        for _ in 0..3 {
            connect(&sshd.endpoint(), &options, &cache).await.unwrap();
        }
        assert_eq!(prompt.questions().len(), 1, "{engine:?}: {:?}", prompt.questions());
        assert!(prompt.questions()[0].contains("login_locked"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_passphrase_or_nobody_to_ask_is_a_refusal() {
    let sshd = Sshd::start("");
    for engine in ENGINES {
        let base = ConnectOptions { identities: vec![sshd.path("login_locked")], ..options(&sshd, engine) };
        let error = open(&sshd, &base).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}");
        let wrong = ConnectOptions { prompt: Answers::secret("wrong"), ..base };
        let error = open(&sshd, &wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}");
        assert!(!format!("{error:?} {}", error.chain()).contains("wrong"), "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_signs() {
    let sshd = Sshd::start("");
    let (_agent, socket) = agent_with(&[&sshd.path("login_ed25519"), &sshd.path("login_rsa")]);
    for engine in ENGINES {
        // The public half stands for the key that the agent holds.
        for public in ["login_ed25519.pub", "login_rsa.pub"] {
            let options = ConnectOptions {
                identities: vec![sshd.path(public)],
                agent: Some(socket.clone()),
                ..options(&sshd, engine)
            };
            assert_eq!(whoami(&sshd, &options).await.unwrap(), "me", "{engine:?} {public}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_server_does_not_know_is_refused_by_name() {
    let sshd = Sshd::start("");
    let stranger = new_key(&sshd.path("stranger"), "ed25519", "");
    for engine in ENGINES {
        let options = ConnectOptions { identities: vec![stranger.clone()], ..options(&sshd, engine) };
        let error = open(&sshd, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", error.chain());
        if engine != SshEngine::Openssh {
            assert!(error.message().contains("stranger"), "{engine:?}: {}", error.chain());
            assert!(error.message().contains("offers publickey"), "{engine:?}: {}", error.chain());
        }
        assert!(error.hint().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_refused_accepted_or_asked_about() {
    let sshd = Sshd::start("");
    for engine in ENGINES {
        let file = sshd.path(&format!("fresh_{engine:?}"));
        let base = ConnectOptions { known_hosts: Some(file.clone()), ..options(&sshd, engine) };

        for policy in [HostKeyPolicy::Strict, HostKeyPolicy::Ask] {
            let error = open(&sshd, &ConnectOptions { host_key: Some(policy), ..base.clone() }).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HostKey, "{engine:?} {policy:?}: {}", error.chain());
            assert!(error.hint().unwrap().contains("accept-new"), "{engine:?}");
        }
        let no = Answers::confirm(false);
        let asking = ConnectOptions { host_key: Some(HostKeyPolicy::Ask), prompt: no.clone(), ..base.clone() };
        assert_eq!(open(&sshd, &asking).await.unwrap_err().kind(), ErrorKind::HostKey, "{engine:?}");
        assert!(no.questions()[0].contains("SHA256:"), "{engine:?}: {:?}", no.questions());
        assert!(!file.exists() || std::fs::read(&file).unwrap().is_empty(), "{engine:?}");

        let yes = ConnectOptions { host_key: Some(HostKeyPolicy::Ask), prompt: Answers::confirm(true), ..base.clone() };
        open(&sshd, &yes).await.unwrap();
        open(&sshd, &base).await.expect("the key is on file now");

        std::fs::remove_file(&file).unwrap();
        open(&sshd, &ConnectOptions { host_key: Some(HostKeyPolicy::AcceptNew), ..base.clone() }).await.unwrap();
        open(&sshd, &base).await.expect("the key is on file now");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_or_revoked_key_is_refused_under_every_policy() {
    let sshd = Sshd::start("");
    let other = new_key(&sshd.path("other_host"), "ed25519", "");
    let other = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    let changed = sshd.known_hosts(&[&other]);
    let revoked = sshd.path("revoked");
    std::fs::write(&revoked, format!("@revoked * {}\n", sshd.host_key("ed25519"))).unwrap();
    for engine in ENGINES {
        for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
            for file in [&changed, &revoked] {
                let options = ConnectOptions {
                    known_hosts: Some(file.clone()),
                    host_key: Some(policy),
                    ..options(&sshd, engine)
                };
                let error = open(&sshd, &options).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::HostKey, "{engine:?} {policy:?}: {}", error.chain());
                if file == &changed && engine != SshEngine::Openssh {
                    assert_eq!(error.message().matches("SHA256:").count(), 2, "{engine:?}: {}", error.chain());
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_asked_for_the_key_type_on_file() {
    let sshd = Sshd::start("");
    for engine in ENGINES {
        for kind in ["ed25519", "ecdsa", "rsa"] {
            let file = sshd.known_hosts(&[&sshd.host_key(kind)]);
            let options = ConnectOptions { known_hosts: Some(file), ..options(&sshd, engine) };
            assert_eq!(whoami(&sshd, &options).await.unwrap(), "me", "{engine:?} {kind}");
        }
    }
}

/// Sends pattern bytes through `cat` and compares what comes back.
async fn echo(session: &Arc<dyn Session>, total: usize) {
    const CHUNK: usize = 255 * 1024;
    let chunk: Vec<u8> = (0..CHUNK).map(|i| (i * 7 + i / 251) as u8).collect();
    let pattern = Bytes::from([chunk.clone(), chunk].concat());
    let (inbound, got, _) = sink();
    let outbound = session.subsystem("echo", inbound).await.unwrap();
    let expected = pattern.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let mut at = 0;
        while at < total {
            let bytes = got.recv_timeout(Duration::from_secs(30)).expect("more bytes");
            for part in bytes.chunks(CHUNK) {
                let from = at % CHUNK;
                assert!(part == &expected[from..from + part.len()], "wrong bytes at {at}");
                at += part.len();
            }
        }
        assert_eq!(at, total);
    });
    let mut sent = 0;
    while sent < total {
        let length = CHUNK.min(total - sent);
        outbound.send(pattern.slice(..length)).await.unwrap();
        sent += length;
    }
    reader.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_mebibytes_come_back_intact() {
    let sshd = Sshd::start("");
    for engine in ENGINES {
        let session = open(&sshd, &options(&sshd, engine)).await.unwrap();
        let start = Instant::now();
        echo(&session, 200 << 20).await;
        eprintln!("{engine:?}: 200 MiB both ways in {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rekeying_every_mebibyte_loses_nothing() {
    let sshd = Sshd::start("RekeyLimit 1M\n");
    for engine in ENGINES {
        let session = open(&sshd, &options(&sshd, engine)).await.unwrap();
        echo(&session, 30 << 20).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_told_when_the_server_goes() {
    for engine in ENGINES {
        let mut sshd = Sshd::start("");
        let session = open(&sshd, &options(&sshd, engine)).await.unwrap();
        let (inbound, _, closed) = sink();
        let outbound = session.subsystem("echo", inbound).await.unwrap();
        sshd.kill();
        let reason = tokio::task::spawn_blocking(move || closed.recv_timeout(Duration::from_secs(10)));
        let reason = reason.await.unwrap().expect("closed is told");
        assert_eq!(reason.kind(), ErrorKind::ConnectionLost, "{engine:?}: {}", reason.chain());
        assert!(outbound.send(Bytes::from_static(b"x")).await.is_err(), "{engine:?}");
        assert!(session.exec(b"true").await.is_err(), "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_noticed_within_the_timeout() {
    for engine in ENGINES {
        let mut sshd = Sshd::start("");
        let options = ConnectOptions { timeout: Duration::from_secs(3), ..options(&sshd, engine) };
        let session = open(&sshd, &options).await.unwrap();
        let (inbound, _, closed) = sink();
        let _outbound = session.subsystem("echo", inbound).await.unwrap();
        sshd.freeze();
        let start = Instant::now();
        let reason = tokio::task::spawn_blocking(move || closed.recv_timeout(Duration::from_secs(20)));
        let reason = reason.await.unwrap().expect("closed is told");
        assert!(start.elapsed() < Duration::from_secs(8), "{engine:?}: {:?}", start.elapsed());
        assert!(
            matches!(reason.kind(), ErrorKind::Timeout | ErrorKind::ConnectionLost),
            "{engine:?}: {}",
            reason.chain()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_stays() {
    let sshd = Sshd::start("");
    for engine in ENGINES {
        let options = ConnectOptions { timeout: Duration::from_secs(1), ..options(&sshd, engine) };
        let session = open(&sshd, &options).await.unwrap();
        let (inbound, _, closed) = sink();
        let _outbound = session.subsystem("echo", inbound).await.unwrap();
        let told = tokio::task::spawn_blocking(move || closed.recv_timeout(Duration::from_secs(4)));
        assert!(told.await.unwrap().is_err(), "{engine:?}: closed although the server lives");
        assert_eq!(session.exec(b"echo x").await.unwrap(), b"x\n", "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_session_ends_its_connection() {
    let sshd = Sshd::start("");
    for engine in ENGINES {
        let session = open(&sshd, &options(&sshd, engine)).await.unwrap();
        let (inbound, _, closed) = sink();
        let _outbound = session.subsystem("echo", inbound).await.unwrap();
        let start = Instant::now();
        drop(session);
        assert!(start.elapsed() < Duration::from_millis(200), "{engine:?}: drop blocks");
        let told = tokio::task::spawn_blocking(move || closed.recv_timeout(Duration::from_secs(5)));
        told.await.unwrap().unwrap_or_else(|_| panic!("{engine:?}: the channel lives on"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_give_output_or_an_error() {
    let sshd = Sshd::start("");
    for engine in ENGINES {
        let session = open(&sshd, &options(&sshd, engine)).await.unwrap();
        assert_eq!(session.exec(b"printf 'a\\0b'").await.unwrap(), b"a\0b", "{engine:?}");
        let error = session.exec(b"echo 'no \x1b[1m' >&2; exit 3").await.unwrap_err();
        assert!(error.message().contains("status 3") && error.message().contains("no \\u{1b}"), "{engine:?}: {error}");
        let error = session.exec(b"head -c 2000000 /dev/zero").await.unwrap_err();
        assert!(error.message().contains("1 MiB"), "{engine:?}: {error}");
        let error = session.exec(b"no-such-command-here").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{engine:?}: {error}");
        let (inbound, _, closed) = sink();
        let error = match session.subsystem("nonsense", inbound).await {
            Err(error) => error,
            Ok(_outbound) => tokio::task::spawn_blocking(move || closed.recv()).await.unwrap().unwrap(),
        };
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{engine:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_and_somebody_silent() {
    let sshd = Sshd::start("");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for engine in ENGINES {
        let options = ConnectOptions { timeout: Duration::from_secs(1), ..options(&sshd, engine) };
        let refused = Endpoint::parse(format!("sftp://root@127.0.0.1:{free}/")).unwrap();
        let error = connect(&refused, &options, &LoginCache::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{engine:?}: {}", error.chain());
        let mute = Endpoint::parse(format!("sftp://root@127.0.0.1:{}/", silent.local_addr().unwrap().port())).unwrap();
        let error = connect(&mute, &options, &LoginCache::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{engine:?}: {}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn banners_are_shown_harmless() {
    let sshd = Sshd::start("");
    std::fs::write(sshd.path("banner"), "Welcome\n\x1b[2Jto prison\n").unwrap();
    for engine in ENGINES {
        let prompt = Answers::secret("");
        let options = ConnectOptions { prompt: prompt.clone(), ..options(&sshd, engine) };
        open(&sshd, &options).await.unwrap();
        assert!(
            prompt.notices().iter().any(|text| text.contains("Welcome\n\\") && text.contains("[2Jto prison")),
            "{engine:?}: {:?}",
            prompt.notices()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_connections_log_in_together() {
    let sshd = Sshd::start("LogLevel VERBOSE\n");
    for (number, engine) in ENGINES.into_iter().enumerate() {
        // A host that is new and a key that has to be unlocked, so that there is something to ask.
        let prompt = Answers::secret_and_confirm("open sesame", true);
        let options = ConnectOptions {
            prompt: prompt.clone(),
            identities: vec![sshd.path("login_locked")],
            known_hosts: Some(sshd.known_hosts(&[])),
            host_key: Some(HostKeyPolicy::Ask),
            connections: 3,
            ..options(&sshd, engine)
        };
        let transport = haul::transport::connect(&sshd.endpoint(), &options).await.unwrap();
        assert_eq!(transport.set_connections(4).await, 4, "{engine:?}");
        assert_eq!(prompt.questions().len(), 2, "{engine:?}: {:?}", prompt.questions());
        transport.close().await.unwrap();
        let log = std::fs::read_to_string(sshd.path("log")).unwrap();
        let logins = log.matches("Accepted publickey").count();
        assert!(logins >= 4 * (number + 1), "{engine:?}: {logins} logins");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_further_logins_still_serves() {
    let sshd = Sshd::start("MaxStartups 2:100:2\n");
    for engine in ENGINES {
        let options = ConnectOptions { connections: 6, max_connections: Some(6), ..options(&sshd, engine) };
        let transport = haul::transport::connect(&sshd.endpoint(), &options).await.unwrap();
        assert!((1..=6).contains(&transport.set_connections(6).await), "{engine:?}");
        assert!(transport.home().await.is_ok(), "{engine:?}");
    }
}

#[test]
fn the_test_keys_are_there() {
    assert!(Path::new("/usr/sbin/sshd").exists(), "these tests need OpenSSH's server");
}

/// What works with `ssh web` works with `haul ls sftp://web/`.
#[tokio::test(flavor = "multi_thread")]
async fn the_ssh_configuration_tells_how_to_reach_a_host() {
    let sshd = Sshd::start("");
    let endpoint = sshd.endpoint();
    let known = sshd.path("known");
    std::fs::write(&known, format!("filed-name {}", sshd.host_key("ed25519"))).unwrap();
    let config = sshd.path("config");
    let text = format!(
        "Host web\n HostName 127.0.0.1\n Port {}\n User {}\n HostKeyAlias filed-name\n\
         Match originalhost web\n UserKnownHostsFile {}\n GlobalKnownHostsFile /dev/null\n\
         StrictHostKeyChecking yes\n IdentityFile {}/no_such_key\n IdentityFile {}\n IdentitiesOnly yes\n",
        endpoint.port.unwrap(),
        endpoint.user.as_ref().unwrap(),
        known.display(),
        sshd.path("").display(),
        sshd.path("login_ecdsa").display(),
    );
    std::fs::write(&config, text).unwrap();
    for engine in ENGINES {
        use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
        let options = ConnectOptions {
            agent: None,
            ssh_config: SshConfig::File(config.clone()),
            ssh_engine: engine,
            ..ConnectOptions::default()
        };
        let web = Endpoint::parse("sftp://web/").unwrap();
        let session = connect(&web, &options, &LoginCache::default()).await.unwrap();
        assert_eq!(session.exec(b"echo me").await.unwrap(), b"me\n", "{engine:?}");
        session.close().await;
        // A key that is filed under that name, but another one.
        let other = sshd.path("other");
        let key = std::fs::read_to_string(sshd.path("login_ed25519.pub")).unwrap();
        std::fs::write(&other, format!("filed-name {key}")).unwrap();
        let options = ConnectOptions { known_hosts: Some(other), ..options };
        let error = connect(&web, &options, &LoginCache::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostKey, "{engine:?}: {error}");
    }
}

/// Writes a configuration in which `gate` and `inner` are these servers, both with their keys on file.
fn gate_and_inner(gate: &Sshd, inner: &Sshd, how: &str) -> SshConfig {
    let (at_gate, at_inner) = (gate.endpoint(), inner.endpoint());
    let known = inner.path("known");
    let line = |endpoint: &Endpoint, sshd: &Sshd| {
        format!("[127.0.0.1]:{} {}\n", endpoint.port.unwrap(), sshd.host_key("ed25519").trim())
    };
    std::fs::write(&known, line(&at_gate, gate) + &line(&at_inner, inner)).unwrap();
    let config = inner.path("config");
    let text = format!(
        "Host gate\n Port {}\n IdentityFile {}\nHost inner\n Port {}\n IdentityFile {}\n {how}\n\
         Host *\n HostName 127.0.0.1\n User {}\n IdentitiesOnly yes\n UserKnownHostsFile {}\n\
         GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n",
        at_gate.port.unwrap(),
        gate.path("login_ed25519").display(),
        at_inner.port.unwrap(),
        inner.path("login_ed25519").display(),
        at_gate.user.as_ref().unwrap(),
        known.display(),
    );
    std::fs::write(&config, text).unwrap();
    SshConfig::File(config)
}

async fn say_me(config: &SshConfig, engine: SshEngine) -> Result<Vec<u8>> {
    use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
    let options = ConnectOptions {
        timeout: Duration::from_secs(10),
        agent: None,
        ssh_config: config.clone(),
        ssh_engine: engine,
        ..ConnectOptions::default()
    };
    let inner = Endpoint::parse("sftp://inner/").unwrap();
    let session = connect(&inner, &options, &LoginCache::default()).await?;
    let said = session.exec(b"echo me").await?;
    session.close().await;
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_may_lead_through_other_servers_or_a_command() {
    let (gate, inner) = (Sshd::start(""), Sshd::start(""));
    let command = "ProxyCommand bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3'";
    for how in ["ProxyJump gate", "ProxyJump gate,gate", command] {
        let config = gate_and_inner(&gate, &inner, how);
        for engine in ENGINES {
            assert_eq!(say_me(&config, engine).await.unwrap(), b"me\n", "{how} {engine:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_the_way_is_checked_and_not_gone_around() {
    let inner = Sshd::start("");
    let closed = Sshd::start("AllowTcpForwarding no\n");
    for engine in [SshEngine::Russh, SshEngine::Libssh2] {
        let config = gate_and_inner(&closed, &inner, "ProxyJump gate");
        let error = say_me(&config, engine).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        assert!(error.chain().contains("gate"), "{}", error.chain());

        // The gate's key on file is another server's.
        let known = inner.path("known");
        let wrong = std::fs::read_to_string(&known).unwrap().replace(
            closed.host_key("ed25519").split_whitespace().nth(1).unwrap(),
            inner.host_key("ed25519").split_whitespace().nth(1).unwrap(),
        );
        std::fs::write(&known, wrong).unwrap();
        let error = say_me(&config, engine).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostKey, "{error}");

        let config = gate_and_inner(&closed, &inner, "ProxyCommand false");
        let error = say_me(&config, engine).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{}", error.chain());

        let config = gate_and_inner(&closed, &inner, "ProxyJump inner");
        let error = say_me(&config, engine).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "a way without an end: {}", error.chain());
    }
}

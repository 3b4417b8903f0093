//! Keywords of `ssh_config` whose effect a server can see.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use haul::ErrorKind;
use haul::transport::ssh::Inbound;

use super::*;

fn log_of(sshd: &Sshd) -> String {
    std::fs::read_to_string(sshd.path("log")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn algorithms_are_those_of_the_configuration() {
    let sshd = Sshd::start("LogLevel DEBUG1\n");
    for engine in OURS {
        for (lines, expected) in [
            ("Ciphers aes256-ctr\nMACs hmac-sha2-256", "cipher: aes256-ctr MAC: hmac-sha2-256 "),
            ("Ciphers ^aes192-ctr", "cipher: aes192-ctr "),
            ("Ciphers -aes*gcm*,chacha*,aes128*\nMACs ^hmac-sha2-512", "MAC: hmac-sha2-512 "),
            ("KexAlgorithms ecdh-sha2-nistp384", "kex: algorithm: ecdh-sha2-nistp384"),
            ("KexAlgorithms ^diffie-hellman-group14-sha256", "kex: algorithm: diffie-hellman-group14-sha256"),
            ("HostKeyAlgorithms rsa-sha2-256", "host key algorithm: rsa-sha2-256"),
            ("HostKeyAlgorithms ^ecdsa-*", "host key algorithm: ecdsa-sha2-nistp256"),
            ("HostKeyAlgorithms -ssh-ed25519*,ecdsa*", "host key algorithm: rsa-sha2-512"),
        ] {
            let before = log_of(&sshd).len();
            let lines = format!("{lines}\nIdentityFile {}\n", sshd.path("login_ed25519").display());
            let prompt = Answers::confirm(false);
            let options = ConnectOptions { prompt: prompt.clone(), ..configured(&sshd, engine, &lines) };
            enter(&sshd, &options).await.unwrap_or_else(|e| panic!("{engine:?} {lines}: {}", told(&e)));
            let log = log_of(&sshd).split_off(before);
            assert!(log.contains(expected), "{engine:?} {lines}: {log}");
            assert!(prompt.notices().is_empty(), "{engine:?} {lines}: {:?}", prompt.notices());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_those_of_the_configuration() {
    let sshd = Sshd::start("LogLevel DEBUG1\n");
    let key = sshd.path("login_rsa");
    for engine in OURS {
        for (accepted, expected) in [("rsa-sha2-256", "pkalg rsa-sha2-256"), ("-rsa-sha2-256*", "pkalg rsa-sha2-512")] {
            let before = log_of(&sshd).len();
            let lines = format!("PubkeyAcceptedAlgorithms {accepted}\nIdentityFile {}\n", key.display());
            let options = configured(&sshd, engine, &lines);
            enter(&sshd, &options).await.unwrap_or_else(|e| panic!("{engine:?} {accepted}: {}", told(&e)));
            let log = log_of(&sshd).split_off(before);
            assert!(log.contains(expected), "{engine:?} {accepted}: {log}");
        }
        let lines = format!("PubkeyAcceptedAlgorithms ssh-ed25519\nIdentityFile {}\n", key.display());
        let error = enter(&sshd, &configured(&sshd, engine, &lines)).await.unwrap_err();
        assert!(told(&error).contains("PubkeyAcceptedAlgorithms forbids it"), "{engine:?}: {}", told(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_an_engine_lacks_are_told_once_and_nothing_left_is_an_error() {
    let sshd = Sshd::start("");
    let key = sshd.path("login_ed25519");
    for engine in OURS {
        for keyword in ["Ciphers", "KexAlgorithms", "MACs", "HostKeyAlgorithms"] {
            let lines = format!("IdentityFile {}\n{keyword} frobnicate@example.org\n", key.display());
            let error = enter(&sshd, &configured(&sshd, engine, &lines)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{engine:?} {keyword}: {}", told(&error));
            assert!(
                error.to_string().contains("config:2") && told(&error).contains("openssh"),
                "{engine:?}: {}",
                told(&error)
            );

            let lines = format!("IdentityFile {}\n{keyword} +frobnicate@example.org\n", key.display());
            let prompt = Answers::confirm(false);
            let options = ConnectOptions { prompt: prompt.clone(), ..configured(&sshd, engine, &lines) };
            let cache = LoginCache::default();
            for _ in 0..2 {
                connect(&sshd.endpoint(), &options, &cache).await.unwrap();
            }
            assert_eq!(prompt.notices().len(), 1, "{engine:?} {keyword}: {:?}", prompt.notices());
            let notice = &prompt.notices()[0];
            assert!(notice.contains("config:2") && notice.contains("frobnicate"), "{engine:?} {keyword}: {notice}");
            assert!(notice.contains("--ssh-engine openssh"), "{engine:?} {keyword}: {notice}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_heeded_is_told_once_with_its_line() {
    let sshd = Sshd::start("");
    for engine in OURS {
        let lines = format!(
            "IdentityFile {}\nGSSAPIAuthentication yes\nPKCS11Provider /nowhere.so\nMatch exec true\n Port 7\n",
            sshd.path("login_ed25519").display()
        );
        let prompt = Answers::confirm(false);
        let options = ConnectOptions { prompt: prompt.clone(), ..configured(&sshd, engine, &lines) };
        let cache = LoginCache::default();
        for _ in 0..2 {
            connect(&sshd.endpoint(), &options, &cache).await.unwrap();
        }
        let notices = prompt.notices();
        assert_eq!(notices.len(), 3, "{engine:?}: {notices:?}");
        for (keyword, line) in [("GSSAPIAuthentication", 2), ("PKCS11Provider", 3), ("Match exec", 4)] {
            let place = format!("config:{line}: {keyword}");
            let notice = notices.iter().find(|notice| notice.contains(&place));
            assert!(notice.is_some_and(|notice| notice.contains("--ssh-engine openssh")), "{engine:?}: {notices:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_keys_that_cannot_be_read_are_no_reason_to_go_on() {
    let sshd = Sshd::start("");
    for engine in OURS {
        let lines = format!("IdentityFile {}\nRevokedHostKeys /revoked\n", sshd.path("login_ed25519").display());
        let options = configured(&sshd, engine, &lines);
        let error = connect(&sshd.endpoint(), &options, &LoginCache::default()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.chain().contains("config:2"), "{}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_are_not_preferred_are_not_tried() {
    let sshd = Sshd::start("LogLevel DEBUG1\n");
    for engine in OURS {
        for lines in ["PreferredAuthentications password", "PubkeyAuthentication no"] {
            let before = log_of(&sshd).len();
            let lines = format!("{lines}\nIdentityFile {}\n", sshd.path("login_ed25519").display());
            let error = enter(&sshd, &configured(&sshd, engine, &lines)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", told(&error));
            let log = log_of(&sshd).split_off(before);
            assert!(!log.contains("method publickey"), "{engine:?} {lines}: {log}");
        }
    }
}

/// Is told of the end of a channel.
struct End(Sender<Error>);

impl Inbound for End {
    fn data(&self, _: &[u8]) {}

    fn closed(&self, reason: Error) {
        let _ = self.0.send(reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_gives_no_sign_of_life_is_noticed_when_the_configuration_says() {
    for engine in OURS {
        let mut sshd = Sshd::start("");
        let key = sshd.path("login_ed25519");
        let lines = format!("IdentityFile {}\nServerAliveInterval 1\nServerAliveCountMax 2\n", key.display());
        let options = ConnectOptions { timeout: Duration::from_secs(300), ..configured(&sshd, engine, &lines) };
        let session = connect(&sshd.endpoint(), &options, &LoginCache::default()).await.unwrap();
        let (closed, reason) = channel();
        let _outbound = session.subsystem("echo", Arc::new(End(closed))).await.unwrap();
        sshd.freeze();
        let start = Instant::now();
        let reason = tokio::task::spawn_blocking(move || reason.recv_timeout(Duration::from_secs(60)));
        let reason = reason.await.unwrap().expect("closed is told");
        assert_eq!(reason.kind(), ErrorKind::Timeout, "{engine:?} after {:?}: {}", start.elapsed(), reason.chain());
    }
}

/// A command of the configuration, and whatever it starts, has no use for our password.
#[test]
fn a_proxy_command_does_not_see_the_password() {
    let sshd = Sshd::start("");
    let seen = sshd.path("seen");
    let endpoint = sshd.endpoint();
    let known = sshd.known_hosts(&[&sshd.host_key("ed25519")]);
    let (port, user) = (endpoint.port.unwrap(), user(&sshd));
    let (key, known) = (sshd.path("login_ed25519"), known.display());
    let common = format!(" User {user}\n IdentityFile {}\n UserKnownHostsFile {known}\n", key.display());
    let lines = format!(
        "Host web\n HostName 127.0.0.1\n Port {port}\n{common}\
         ProxyCommand bash -c 'env > {}; exec ssh -F none -i {} -o UserKnownHostsFile={known} -p {port} -W %h:%p {user}@127.0.0.1'\n",
        seen.display(),
        key.display(),
    );
    let config = sshd.path("config");
    std::fs::write(&config, lines).unwrap();
    for engine in ["russh", "libssh2", "openssh"] {
        let _ = std::fs::remove_file(&seen);
        let output = Command::new(env!("CARGO_BIN_EXE_haul"))
            .args(["ls", "--ssh-engine", engine, "--ssh-config", text(&config), "sftp://web/"])
            .env("HAUL_PASSWORD", "correct horse battery")
            .env("A_MARK", "here")
            .env("HOME", sshd.path(""))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{engine}: {error}");
        let seen = std::fs::read_to_string(&seen).unwrap();
        assert!(seen.contains("A_MARK=here"), "{engine}: {seen}");
        assert!(!seen.contains("HAUL_PASSWORD") && !seen.contains("correct horse"), "{engine}: {seen}");
    }
}

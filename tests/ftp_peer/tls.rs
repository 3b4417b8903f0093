//! TLS: pins, versions, certificates of our own, and sessions that stay with their login.

use std::path::PathBuf;
use std::process::Command;

use haul::transport::{Prompt, Secret, TlsPin, TlsVersion};
use rustls::HandshakeKind;

use super::*;
use crate::peer::{Identity, Tls, secure};

fn pinned(pins: &[TlsPin]) -> ConnectOptions {
    let mut options = ConnectOptions { max_connections: Some(1), ..secure() };
    options.ftp.tls_pins = pins.to_vec();
    options
}

#[tokio::test]
async fn a_pin_is_demanded_beyond_trust() {
    for implicit in [false, true] {
        for versions in [vec![&rustls::version::TLS12], vec![&rustls::version::TLS13]] {
            let tls = Tls { implicit, versions, ..Tls::new() };
            let (right, wrong) = (tls.control.pin, Identity::new().pin);
            let peer = Peer::start_tls(tls, |_, _| None).await;
            for pins in [&[right][..], &[wrong, right]] {
                let transport = peer.connect_with(pinned(pins)).await.unwrap();
                assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
            }
            let users = peer.heard("USER");
            let refused = peer.connect_with(pinned(&[wrong])).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Tls);
            assert!(refused.chain().contains(&right.to_string()), "{}", refused.chain());
            assert!(refused.hint().is_some_and(|hint| hint.contains("--tls-pin")));
            assert_eq!(peer.heard("USER"), users, "somebody else was told the name");
        }
    }
}

#[tokio::test]
async fn a_pin_does_not_make_a_stranger_trusted() {
    let tls = Tls::new();
    let pin = tls.control.pin;
    let peer = Peer::start_tls(tls, |_, _| None).await;
    let other = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other.path(), Identity::new().pem).unwrap();
    let options = ConnectOptions { tls_ca: Some(other.path().to_owned()), ..pinned(&[pin]) };
    let refused = peer.connect_exactly(options).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Tls);
    assert_eq!(peer.heard("USER"), 0);
}

#[tokio::test]
async fn a_pin_holds_on_data_connections() {
    let tls = Tls { data: Identity::new(), ..Tls::new() };
    let (control, data) = (tls.control.pin, tls.data.pin);
    let peer = Peer::start_tls(tls, |_, _| None).await;
    let transport = peer.connect_with(pinned(&[control, data])).await.unwrap();
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    let transport = peer.connect_with(pinned(&[control])).await.unwrap();
    for refused in [
        read(&*transport, ReadRange::ALL).await.unwrap_err(),
        write(&*transport, WriteMode::CREATE).await.unwrap_err(),
        list(&*transport).await.unwrap_err(),
    ] {
        assert!(refused.chain().contains(&data.to_string()), "{}", refused.chain());
    }
}

#[tokio::test]
async fn a_pin_without_tls_makes_no_sense() {
    let peer = Peer::start(|_, _| None).await;
    let options = ConnectOptions { tls: TlsMode::Off, ..pinned(&[TlsPin::new([0; 32])]) };
    assert_eq!(peer.connect_with(options).await.unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(peer.all_heard(), 0);
}

#[tokio::test]
async fn an_older_tls_is_not_spoken() {
    let mut newest = secure();
    newest.ftp.tls_min = TlsVersion::Tls13;
    let old = Tls { versions: vec![&rustls::version::TLS12], ..Tls::new() };
    let peer = Peer::start_tls(old, |_, _| None).await;
    let refused = peer.connect_with(newest.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Tls, "{}", refused.chain());
    assert!(refused.hint().is_some_and(|hint| hint.contains("--tls-min 1.2")), "{}", refused.chain());
    assert_eq!(peer.heard("USER"), 0);
    let transport = peer.connect_with(secure()).await.unwrap();
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");

    // Nor where data connections don't work otherwise.
    let peer = Peer::start_tls(Tls::new(), |_, line| {
        line.starts_with("RETR").then_some(Act::Say("522 TLS session reuse required\r\n"))
    })
    .await;
    let transport = peer.connect_with(newest).await.unwrap();
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap_err().kind(), ErrorKind::Tls);
    assert_eq!(peer.heard("PASS"), 1, "another login, with an older TLS");
    let transport = peer.connect_with(secure()).await.unwrap();
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap_err().kind(), ErrorKind::Tls);
    assert_eq!(peer.heard("PASS"), 3);
}

/// Answers the questions for a passphrase one after the other.
#[derive(Debug)]
struct Passphrases(std::sync::Mutex<Vec<&'static str>>);

impl Prompt for Passphrases {
    fn secret(&self, _: &str) -> Option<Secret> {
        self.0.lock().unwrap().pop().map(Secret::new)
    }

    fn line(&self, _: &str) -> Option<String> {
        None
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }

    fn notice(&self, _: &str) {}
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, contents: &str) -> PathBuf {
        let file = self.0.path().join(name);
        std::fs::write(&file, contents).unwrap();
        file
    }

    /// Encrypts a key as `openssl` does with these options.
    fn encrypted(&self, name: &str, plain: &std::path::Path, how: &[&str]) -> PathBuf {
        let file = self.0.path().join(name);
        let mut command = Command::new("openssl");
        command.args(how).args(["-passout", "pass:open sesame"]);
        let made = command.arg("-in").arg(plain).arg("-out").arg(&file).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        file
    }
}

fn with_certificate(certificate: PathBuf, key: Option<PathBuf>) -> ConnectOptions {
    let mut options = single();
    options.tls = TlsMode::Require;
    (options.ftp.tls_cert, options.ftp.tls_key) = (Some(certificate), key);
    options
}

/// A peer that wants this client's certificate, of either version.
async fn demanding(client: &Identity, version: &'static rustls::SupportedProtocolVersion) -> Peer {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(client.certificate.clone()).unwrap();
    let tls = Tls { clients: Some(roots), versions: vec![version], ..Tls::new() };
    Peer::start_tls(tls, |_, _| None).await
}

#[tokio::test]
async fn a_certificate_is_shown_to_who_asks_for_it() {
    let (client, other, files) = (Identity::new(), Identity::new(), Files::new());
    let certificate = files.write("cert.pem", &client.pem);
    let key = files.write("key.pem", &client.key_pem);
    let both = files.write("both.pem", &format!("{}{}", client.key_pem, client.pem));
    let others = with_certificate(files.write("other.pem", &other.pem), Some(files.write("other.key", &other.key_pem)));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let peer = demanding(&client, version).await;
        for options in [with_certificate(certificate.clone(), Some(key.clone())), with_certificate(both.clone(), None)]
        {
            let transport = peer.connect_with(options).await.unwrap();
            assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
            write(&*transport, WriteMode::CREATE).await.unwrap();
        }
        let passwords = peer.heard("PASS");
        let refused = peer.connect_with(secure()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Tls, "{}", refused.chain());
        assert!(refused.hint().is_some_and(|hint| hint.contains("--tls-cert")), "{}", refused.chain());
        let refused = peer.connect_with(others.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Tls, "{}", refused.chain());
        assert_eq!(peer.heard("PASS"), passwords);
    }
}

#[tokio::test]
async fn an_encrypted_key_is_opened_by_its_passphrase() {
    let (client, files) = (Identity::new(), Files::new());
    let certificate = files.write("cert.pem", &client.pem);
    let plain = files.write("key.pem", &client.key_pem);
    let key = files.encrypted("new.key", &plain, &["pkcs8", "-topk8", "-v2", "aes-256-cbc"]);
    let peer = demanding(&client, &rustls::version::TLS13).await;
    let options = with_certificate(certificate.clone(), Some(key));
    for (answers, expected) in [
        (vec!["open sesame"], Ok(())),
        (vec!["open sesame", "wrong", "wrong"], Ok(())),
        (vec!["wrong"; 4], Err("wrong passphrase")),
        (vec![], Err("nobody is there to give its passphrase")),
    ] {
        let prompt = Arc::new(Passphrases(answers.into()));
        let outcome = peer.connect_with(ConnectOptions { prompt, ..options.clone() }).await;
        match expected {
            Ok(()) => assert_eq!(read(&*outcome.unwrap(), ReadRange::ALL).await.unwrap(), b"0123456789"),
            Err(words) => {
                let failed = outcome.unwrap_err();
                assert_eq!(failed.kind(), ErrorKind::Usage);
                assert!(failed.chain().contains(words), "{}", failed.chain());
            }
        }
    }
    let old = files.encrypted("old.key", &plain, &["ec", "-aes128"]);
    let failed = peer.connect_with(with_certificate(certificate, Some(old))).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Usage);
    assert!(failed.hint().is_some_and(|hint| hint.contains("openssl pkcs8 -topk8")), "{}", failed.chain());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_before_anybody_is_called() {
    let (client, other, files) = (Identity::new(), Identity::new(), Files::new());
    let certificate = files.write("cert.pem", &client.pem);
    let peer = Peer::start_tls(Tls::new(), |_, _| None).await;
    for (options, words) in [
        (with_certificate(files.0.path().join("none"), None), "read the certificate"),
        (with_certificate(files.write("empty", ""), None), "no certificate in the file"),
        (with_certificate(certificate.clone(), None), "no private key in the file"),
        (with_certificate(certificate.clone(), Some(files.write("odd", "odd"))), "no private key in the file"),
        (with_certificate(certificate, Some(files.write("key", &other.key_pem))), "the certificate and its key"),
    ] {
        for tls in [TlsMode::Allow, TlsMode::Require] {
            let failed = peer.connect_with(ConnectOptions { tls, ..options.clone() }).await.unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Usage, "{}", failed.chain());
            assert!(failed.chain().contains(words), "{}", failed.chain());
        }
    }
    assert_eq!(peer.all_heard(), 0);
}

#[tokio::test]
async fn logins_share_no_sessions() {
    for versions in [vec![&rustls::version::TLS12], vec![&rustls::version::TLS13]] {
        let peer = Peer::start_tls(Tls { versions, ..Tls::new() }, |_, _| None).await;
        let transport = peer.connect_with(secure()).await.unwrap();
        assert_eq!(transport.set_connections(3).await, 3);
        for _ in 0..3 {
            let reads = (0..3).map(|_| read(&*transport, ReadRange::ALL));
            for bytes in futures_util::future::join_all(reads).await {
                assert_eq!(bytes.unwrap(), b"0123456789");
            }
        }
        let handshakes = peer.tls().handshakes.lock().unwrap().clone();
        let of = |wanted: &str| -> Vec<_> {
            handshakes.iter().filter(|(_, what, _)| *what == wanted).map(|(_, _, kind)| *kind).collect()
        };
        // Each login's server knows no sessions but its own: what isn't resumed was offered to the wrong one.
        assert!(of("control").iter().all(|kind| *kind == HandshakeKind::Full), "{handshakes:?}");
        assert_eq!((of("data").len(), of("control").len()), (9, 3));
        assert!(of("data").iter().all(|kind| *kind == HandshakeKind::Resumed), "{handshakes:?}");
        let logins: std::collections::BTreeSet<_> = handshakes.iter().map(|(number, _, _)| *number).collect();
        assert_eq!(logins.len(), 3);
    }
}

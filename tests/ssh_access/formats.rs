//! Formats of private keys, as ssh-keygen and OpenSSL write them.

use haul::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

const PASSPHRASE: &str = "open sesame";

/// Writes the server's login key anew, in this format.
fn rewritten(sshd: &Sshd, kind: &str, arguments: &[&str]) -> PathBuf {
    let key = sshd.path(&format!("copy_{kind}"));
    std::fs::copy(sshd.path(&format!("login_{kind}")), &key).unwrap();
    run("ssh-keygen", &[&["-q", "-p", "-P", "", "-f", text(&key)], arguments].concat());
    key
}

/// The same by OpenSSL, from a PEM file without passphrase.
fn by_openssl(sshd: &Sshd, kind: &str, name: &str, arguments: &[&str]) -> PathBuf {
    let plain = rewritten(sshd, kind, &["-m", "PEM", "-N", ""]);
    let key = sshd.path(name);
    run("openssl", &[arguments, &["-in", text(&plain), "-out", text(&key)]].concat());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_opens_the_door() {
    let sshd = Sshd::start("");
    let sealed = format!("pass:{PASSPHRASE}");
    for kind in ["rsa", "ecdsa", "ed25519"] {
        for (format, passphrase, begins) in [
            ("RFC4716", "", "OPENSSH PRIVATE KEY"),
            ("RFC4716", PASSPHRASE, "OPENSSH PRIVATE KEY"),
            ("PEM", "", "C PRIVATE KEY"),
            ("PEM", PASSPHRASE, "DEK-Info: AES-128-CBC"),
            ("PKCS8", "", "BEGIN PRIVATE KEY"),
            ("PKCS8", PASSPHRASE, "BEGIN ENCRYPTED PRIVATE KEY"),
        ] {
            // This kind has but one format.
            if kind == "ed25519" && format != "RFC4716" {
                continue;
            }
            let key = rewritten(&sshd, kind, &["-m", format, "-N", passphrase]);
            let begins = if kind == "rsa" { begins.replace("C PRIVATE", "RSA PRIVATE") } else { begins.into() };
            assert!(std::fs::read_to_string(&key).unwrap().contains(&begins), "{kind} {format}");
            opens(&sshd, &key, passphrase, &format!("{kind} {format}")).await;
        }
    }
    for (kind, name, arguments) in [
        ("rsa", "aes256", &["rsa", "-traditional", "-aes256", "-passout", &sealed][..]),
        ("rsa", "aes192", &["rsa", "-traditional", "-aes192", "-passout", &sealed]),
        ("rsa", "des3", &["rsa", "-traditional", "-des3", "-passout", &sealed]),
        ("ecdsa", "ec_aes256", &["ec", "-aes256", "-passout", &sealed]),
        ("rsa", "pkcs8", &["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", &sealed]),
        ("ecdsa", "scrypt", &["pkcs8", "-topk8", "-scrypt", "-passout", &sealed]),
    ] {
        let key = by_openssl(&sshd, kind, name, arguments);
        opens(&sshd, &key, PASSPHRASE, name).await;
    }
}

async fn opens(sshd: &Sshd, key: &Path, passphrase: &str, case: &str) {
    for engine in OURS {
        let prompt = Answers::secret(passphrase);
        let options = ConnectOptions { identities: vec![key.into()], prompt: prompt.clone(), ..options(sshd, engine) };
        enter(sshd, &options).await.unwrap_or_else(|e| panic!("{engine:?} {case}: {}", told(&e)));
        assert_eq!(prompt.questions().len(), usize::from(!passphrase.is_empty()), "{engine:?} {case}");
        if !passphrase.is_empty() {
            let wrong = ConnectOptions { prompt: Answers::secret("wrong"), ..options };
            let error = enter(sshd, &wrong).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?} {case}: {}", told(&error));
            assert!(told(&error).contains("no passphrase"), "{engine:?} {case}: {}", told(&error));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_can_read_is_not_used() {
    let sshd = Sshd::start("");
    let key = sshd.path("login_ed25519");
    for (mode, is_fine) in [(0o640, false), (0o604, false), (0o400, true)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        for engine in OURS {
            let options = ConnectOptions { identities: vec![key.clone()], ..options(&sshd, engine) };
            match enter(&sshd, &options).await {
                Ok(()) => assert!(is_fine, "{engine:?} {mode:o}"),
                Err(e) => assert!(!is_fine && told(&e).contains("chmod 600"), "{engine:?} {mode:o}: {}", told(&e)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_told_with_its_file() {
    let sshd = Sshd::start("");
    let junk = sshd.path("junk");
    std::fs::write(&junk, "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n").unwrap();
    std::fs::set_permissions(&junk, std::fs::Permissions::from_mode(0o600)).unwrap();
    for engine in OURS {
        for key in [junk.clone(), sshd.path("nowhere")] {
            let options = ConnectOptions { identities: vec![key.clone()], ..options(&sshd, engine) };
            let error = enter(&sshd, &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{engine:?}: {}", told(&error));
            assert!(error.to_string().contains(text(&key)), "{engine:?}: {error}");
        }
    }
}

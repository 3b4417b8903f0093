//! Certificates of users (PROTOCOL.certkeys): the server knows the authority and no key.

use std::path::PathBuf;

use haul::ErrorKind;
use tempfile::TempDir;

use super::*;

/// A server that trusts an authority, and keys that it certified.
struct Scene {
    sshd: Sshd,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = new_key(&folder.path().join("authority"), "ed25519", "");
        let extra = format!("TrustedUserCAKeys {}.pub\nAuthorizedKeysFile none\n", authority.display());
        Self { sshd: Sshd::start(&extra), folder }
    }

    /// Makes a key; with a `principal`, also its certificate, beside it.
    fn key(&self, name: &str, kind: &str, certified: Option<&[&str]>) -> PathBuf {
        let key = new_key(&self.folder.path().join(name), kind, "");
        if let Some(more) = certified {
            let (authority, public) = (self.folder.path().join("authority"), format!("{}.pub", key.display()));
            let user = user(&self.sshd);
            let arguments = ["-q", "-s", text(&authority), "-I", "a user", "-n", &user];
            run("ssh-keygen", &[&arguments[..], more, &[&public]].concat());
        }
        key
    }
}

fn certificate_of(key: &Path) -> PathBuf {
    format!("{}-cert.pub", key.display()).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_beside_its_key_opens_the_door() {
    let scene = Scene::new();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = scene.key(kind, kind, Some(&[]));
        for engine in ENGINES {
            let options = ConnectOptions { identities: vec![key.clone()], ..options(&scene.sshd, engine) };
            enter(&scene.sshd, &options).await.unwrap_or_else(|e| panic!("{engine:?} {kind}: {}", told(&e)));
        }
    }
    let bare = scene.key("bare", "ed25519", None);
    for engine in ENGINES {
        let options = ConnectOptions { identities: vec![bare.clone()], ..options(&scene.sshd, engine) };
        assert_eq!(enter(&scene.sshd, &options).await.unwrap_err().kind(), ErrorKind::AuthFailed, "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_elsewhere_is_named_in_the_configuration() {
    let scene = Scene::new();
    for kind in ["ed25519", "rsa"] {
        let key = scene.key(kind, kind, Some(&[]));
        let elsewhere = scene.folder.path().join(format!("elsewhere_{kind}"));
        std::fs::rename(certificate_of(&key), &elsewhere).unwrap();
        let lines = format!(
            "IdentityFile {}\nIdentitiesOnly yes\nCertificateFile {0}.missing\nCertificateFile {}\n",
            key.display(),
            elsewhere.display()
        );
        for engine in ENGINES {
            let options = configured(&scene.sshd, engine, &lines);
            enter(&scene.sshd, &options).await.unwrap_or_else(|e| panic!("{engine:?} {kind}: {}", told(&e)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_key_with_a_certificate_is_unlocked_once() {
    let scene = Scene::new();
    let key = scene.key("locked", "ed25519", Some(&[]));
    run("ssh-keygen", &["-q", "-p", "-P", "", "-N", "open sesame", "-f", text(&key)]);
    for engine in OURS {
        let prompt = Answers::secret("open sesame");
        let options =
            ConnectOptions { identities: vec![key.clone()], prompt: prompt.clone(), ..options(&scene.sshd, engine) };
        enter(&scene.sshd, &options).await.unwrap_or_else(|e| panic!("{engine:?}: {}", told(&e)));
        assert_eq!(prompt.questions().len(), 1, "{engine:?}: {:?}", prompt.questions());
        let prompt = Answers::secret("wrong");
        let options = ConnectOptions { identities: vec![key.clone()], prompt: prompt.clone(), ..options };
        assert_eq!(enter(&scene.sshd, &options).await.unwrap_err().kind(), ErrorKind::AuthFailed, "{engine:?}");
        assert_eq!(prompt.questions().len(), 3, "{engine:?}: {:?}", prompt.questions());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_holds_certificates_or_the_keys_for_them() {
    let scene = Scene::new();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = scene.key(kind, kind, Some(&[]));
        // ssh-add adds the certificate that lies beside.
        let (_holder, with_certificate) = agent_with(&[&key]);
        let certificate = certificate_of(&key);
        let hidden = scene.folder.path().join("hidden");
        std::fs::rename(&certificate, &hidden).unwrap();
        let (_other, key_alone) = agent_with(&[&key]);
        std::fs::rename(&hidden, &certificate).unwrap();
        std::fs::rename(&key, scene.folder.path().join("away")).unwrap();

        let configured = |engine, socket: &Path, lines: &str| ConnectOptions {
            agent: Some(socket.to_path_buf()),
            ..configured(&scene.sshd, engine, lines)
        };
        let named = format!("CertificateFile {}\n", certificate.display());
        let beside = format!("IdentityFile {}\n", key.display());
        for engine in ENGINES {
            for (socket, lines) in [(&with_certificate, ""), (&key_alone, &named), (&key_alone, &beside)] {
                let result = enter(&scene.sshd, &configured(engine, socket, lines)).await;
                let lacks = engine == SshEngine::Libssh2 && (kind == "rsa" || !lines.is_empty());
                let case = format!("{engine:?} {kind} {lines}");
                match result {
                    Ok(()) => assert!(!lacks, "{case}"),
                    Err(e) => {
                        assert!(lacks && told(&e).contains("--ssh-engine russh or openssh"), "{case}: {}", told(&e));
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_certificate_is_refused_is_told() {
    let scene = Scene::new();
    let expired = scene.key("expired", "ed25519", Some(&["-V", "-2d:-1d"]));
    let early = scene.key("early", "ed25519", Some(&["-V", "+1d:+2d"]));
    for engine in OURS {
        for (key, expected) in [(&expired, "it has expired"), (&early, "it is not valid yet")] {
            let options = ConnectOptions { identities: vec![key.clone()], ..options(&scene.sshd, engine) };
            let error = enter(&scene.sshd, &options).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}");
            assert!(told(&error).contains(expected), "{engine:?}: {}", told(&error));
        }
        let lines = format!("IdentityFile {}\nCertificateFile {0}.pub\n", expired.display());
        let error = enter(&scene.sshd, &configured(&scene.sshd, engine, &lines)).await.unwrap_err();
        assert!(told(&error).contains("no certificate of a user"), "{engine:?}: {}", told(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_on_the_way_take_certificates_too() {
    let (scene, inner) = (Scene::new(), Sshd::start(""));
    let key = scene.key("key", "ed25519", Some(&[]));
    let (gate_at, inner_at) = (scene.sshd.endpoint(), inner.endpoint());
    let known = inner.path("known");
    let line = |endpoint: &Endpoint, sshd: &Sshd| {
        format!("[127.0.0.1]:{} {}\n", endpoint.port.unwrap(), sshd.host_key("ed25519").trim())
    };
    std::fs::write(&known, line(&gate_at, &scene.sshd) + &line(&inner_at, &inner)).unwrap();
    let lines = format!(
        "Host gate\n Port {}\n IdentityFile {}\nHost inner\n Port {}\n IdentityFile {}\n ProxyJump gate\n\
         Host *\n HostName 127.0.0.1\n User {}\n IdentitiesOnly yes\n UserKnownHostsFile {}\n GlobalKnownHostsFile none\n",
        gate_at.port.unwrap(),
        key.display(),
        inner_at.port.unwrap(),
        inner.path("login_ed25519").display(),
        user(&inner),
        known.display(),
    );
    for engine in ENGINES {
        let options = ConnectOptions { known_hosts: None, ..configured(&inner, engine, &lines) };
        let inner = Endpoint::parse("sftp://inner/").unwrap();
        enter_at(&inner, &options).await.unwrap_or_else(|e| panic!("{engine:?}: {}", told(&e)));
    }
}

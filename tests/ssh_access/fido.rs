//! FIDO keys: a file of one, and an agent that speaks for one. The security key is played by the agent.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use haul::ErrorKind;
use russh::keys::signature::Signer;
use russh::keys::ssh_encoding::{Decode, Encode};
use russh::keys::ssh_key::private::{KeypairData, SkEd25519};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{self, LineEnding, Signature};
use russh::keys::{PrivateKey, PublicKey, load_secret_key};
use sha2::{Digest, Sha256};

use super::*;

const APPLICATION: &str = "ssh:";

/// A FIDO key: its public half, and what a security key would keep to itself.
struct Token {
    secret: PrivateKey,
    public: PublicKey,
}

impl Token {
    fn new(sshd: &Sshd) -> Self {
        let secret = load_secret_key(new_key(&sshd.path("token"), "ed25519", ""), None).unwrap();
        let KeyData::Ed25519(inner) = secret.public_key().key_data() else { panic!("another kind of key") };
        let public = ssh_key::public::SkEd25519::from(*inner);
        assert_eq!(public.application(), APPLICATION);
        Self { secret, public: PublicKey::new(KeyData::SkEd25519(public), "token") }
    }

    /// Writes the key as `ssh-keygen -t ed25519-sk` would: with a handle in place of the private half.
    fn write(&self, sshd: &Sshd) -> PathBuf {
        let KeyData::SkEd25519(public) = self.public.key_data() else { panic!("another kind of key") };
        let handle = SkEd25519::new(public.clone(), 1, b"handle".to_vec()).unwrap();
        let key = PrivateKey::new(KeypairData::SkEd25519(handle), "token").unwrap();
        let path = sshd.path("login_sk");
        std::fs::write(&path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(sshd.path("login_sk.pub"), self.public.to_openssh().unwrap()).unwrap();
        path
    }

    /// Signs as a security key does when it is touched (PROTOCOL.u2f).
    fn sign(&self, data: &[u8]) -> Vec<u8> {
        let (flags, counter) = (1u8, 7u32);
        let mut message = Sha256::digest(APPLICATION).to_vec();
        message.push(flags);
        message.extend(counter.to_be_bytes());
        message.extend(Sha256::digest(data));
        let signature: Signature = self.secret.try_sign(&message).unwrap();
        let mut blob = Vec::new();
        "sk-ssh-ed25519@openssh.com".encode(&mut blob).unwrap();
        signature.as_bytes().encode(&mut blob).unwrap();
        blob.push(flags);
        blob.extend(counter.to_be_bytes());
        blob
    }

    /// Answers one request (draft-miller-ssh-agent).
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let blob = self.public.to_bytes().unwrap();
        let mut answer = Vec::new();
        match request.split_first() {
            Some((&11, _)) => {
                answer.push(12);
                1u32.encode(&mut answer).unwrap();
                blob.encode(&mut answer).unwrap();
                "token".encode(&mut answer).unwrap();
            }
            Some((&13, mut rest)) => {
                assert_eq!(Vec::<u8>::decode(&mut rest).unwrap(), blob);
                let data = Vec::<u8>::decode(&mut rest).unwrap();
                answer.push(14);
                self.sign(&data).encode(&mut answer).unwrap();
            }
            _ => answer.push(5),
        }
        answer
    }

    fn serve(self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        // It ends with the test's process.
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let _ = self.talk(stream);
            }
        });
    }

    fn talk(&self, mut stream: UnixStream) -> std::io::Result<()> {
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut request)?;
            let answer = self.answer(&request);
            stream.write_all(&u32::try_from(answer.len()).unwrap().to_be_bytes())?;
            stream.write_all(&answer)?;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fido_key_signs_through_the_agent_or_is_told_how_to() {
    let sshd = Sshd::start("");
    let token = Token::new(&sshd);
    let file = token.write(&sshd);
    std::fs::copy(sshd.path("login_sk.pub"), sshd.path("authorized_keys")).unwrap();
    for engine in OURS {
        let options = ConnectOptions { identities: vec![file.clone()], ..options(&sshd, engine) };
        let error = enter(&sshd, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", told(&error));
        let told = told(&error);
        assert!(told.contains("login_sk") && told.contains("FIDO"), "{engine:?}: {told}");
        assert!(told.contains("ssh-agent") && told.contains("--ssh-engine openssh"), "{engine:?}: {told}");
    }

    let socket = sshd.path("agent");
    token.serve(&socket);
    for identities in [vec![file], vec![]] {
        let with_agent = |engine| ConnectOptions {
            identities: identities.clone(),
            agent: Some(socket.clone()),
            ..options(&sshd, engine)
        };
        for engine in [SshEngine::Russh, SshEngine::Openssh] {
            enter(&sshd, &with_agent(engine)).await.unwrap_or_else(|e| panic!("{engine:?}: {}", told(&e)));
        }
        let error = enter(&sshd, &with_agent(SshEngine::Libssh2)).await.unwrap_err();
        assert!(told(&error).contains("--ssh-engine russh or openssh"), "{}", told(&error));
    }
}

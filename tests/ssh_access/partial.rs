//! More than one proof, asked for by OpenSSH's server with PAM.

use haul::ErrorKind;
use haul::transport::{NoPrompt, Secret};
use std::sync::Arc;

use super::support::lab::Apart;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_several_proofs_gets_them_in_turn() {
    use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
    for methods in [
        "publickey,password",
        "publickey,keyboard-interactive",
        "password,publickey",
        "publickey,password,keyboard-interactive",
    ] {
        let apart = Apart::new();
        let Some(server) = apart.server("openssh", &[("HAUL_LAB_LOGIN", methods)], &[]) else { return };
        let Some(password) = server.password.clone() else { return };
        for engine in ENGINES {
            let twice = methods.contains("password,keyboard-interactive");
            let person = Answers::secret(&password);
            let right = ConnectOptions {
                ssh_engine: engine,
                agent: None,
                prompt: if twice { person.clone() } else { Arc::new(NoPrompt) },
                ..server.options()
            };
            let entered = enter_at(&server.endpoint(), &right).await;
            entered.unwrap_or_else(|e| panic!("{engine:?} {methods}: {}", told(&e)));
            // A known password is used once, the person is asked for the second time.
            if twice && engine != SshEngine::Openssh {
                assert_eq!(person.questions().len(), 1, "{engine:?} {methods}: {:?}", person.questions());
            }
            if engine == SshEngine::Openssh || twice {
                continue;
            }
            let wrong = ConnectOptions { password: Some(Secret::new("wrong")), ..right.clone() };
            let no_password = ConnectOptions { password: None, ..right };
            for options in [wrong, no_password] {
                let error = enter_at(&server.endpoint(), &options).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?} {methods}: {}", told(&error));
                assert!(!told(&error).contains("wrong"), "{engine:?} {methods}: {}", told(&error));
            }
        }
    }
}

//! Several keys: in which order, how many, and what is said when the server has had enough.

use haul::ErrorKind;
use std::path::PathBuf;

use super::*;

/// Keys that the server doesn't know.
fn strangers(sshd: &Sshd, count: usize) -> Vec<PathBuf> {
    (0..count).map(|number| new_key(&sshd.path(&format!("stranger{number}")), "ed25519", "")).collect()
}

fn paths(keys: &[PathBuf]) -> Vec<&Path> {
    keys.iter().map(PathBuf::as_path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_key_that_a_file_names_comes_first() {
    let sshd = Sshd::start("MaxAuthTries 2\n");
    let strangers = strangers(&sshd, 4);
    let right = sshd.path("login_ecdsa");
    let (_agent, socket) = agent_with(&[&paths(&strangers)[..], &[&right]].concat());
    // Its public half is enough, and may stand beside a private half that is elsewhere.
    let elsewhere = sshd.path("elsewhere");
    std::fs::copy(sshd.path("login_ecdsa.pub"), sshd.path("elsewhere.pub")).unwrap();
    for file in [&right, &elsewhere] {
        for engine in ENGINES {
            let options = configured(&sshd, engine, &format!("IdentityFile {}\n", file.display()));
            let options = ConnectOptions { agent: Some(socket.clone()), ..options };
            enter(&sshd, &options).await.unwrap_or_else(|e| panic!("{engine:?}: {}", told(&e)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_try_that_a_server_grants_may_be_a_key() {
    let sshd = Sshd::start("");
    let strangers = strangers(&sshd, 5);
    let right = sshd.path("login_ed25519");
    let (_agent, socket) = agent_with(&[&paths(&strangers)[..], &[&right]].concat());
    for engine in ENGINES {
        let options = ConnectOptions { agent: Some(socket.clone()), ..options(&sshd, engine) };
        enter(&sshd, &options).await.unwrap_or_else(|e| panic!("{engine:?}: {}", told(&e)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_had_enough_is_told_with_what_was_tried() {
    let sshd = Sshd::start("MaxAuthTries 4\n");
    let strangers = strangers(&sshd, 6);
    let (_agent, socket) = agent_with(&paths(&strangers));
    for engine in OURS {
        let options = ConnectOptions { agent: Some(socket.clone()), ..options(&sshd, engine) };
        let error = enter(&sshd, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", told(&error));
        let told = told(&error);
        assert!(told.matches("agent key").count() == 4, "{engine:?}: {told}");
        assert!(
            told.contains("at try 4") && told.contains("-i") && told.contains("IdentitiesOnly"),
            "{engine:?}: {told}"
        );
    }
}

/// Were it a lost connection, it would be tried again and again, until the server locks us out.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_at_a_wrong_key_is_no_lost_connection() {
    let sshd = Sshd::start("MaxAuthTries 1\n");
    let stranger = new_key(&sshd.path("stranger"), "ed25519", "");
    for engine in OURS {
        let options = ConnectOptions { identities: vec![stranger.clone()], ..options(&sshd, engine) };
        let error = enter(&sshd, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", told(&error));
        assert!(told(&error).contains("stranger"), "{engine:?}: {}", told(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_offered_twice() {
    let sshd = Sshd::start("LogLevel VERBOSE\n");
    let stranger = new_key(&sshd.path("stranger"), "ed25519", "");
    let copy = sshd.path("copy");
    std::fs::copy(&stranger, &copy).unwrap();
    let (_agent, socket) = agent_with(&[&stranger]);
    for (number, engine) in OURS.into_iter().enumerate() {
        let lines = format!("IdentityFile {}\nIdentityFile {}\n", stranger.display(), copy.display());
        let options = ConnectOptions { agent: Some(socket.clone()), ..configured(&sshd, engine, &lines) };
        assert_eq!(enter(&sshd, &options).await.unwrap_err().kind(), ErrorKind::AuthFailed, "{engine:?}");
        let log = std::fs::read_to_string(sshd.path("log")).unwrap();
        assert_eq!(log.matches("Failed publickey").count(), number + 1, "{engine:?}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_only_keeps_the_agents_other_keys_back() {
    let sshd = Sshd::start("LogLevel VERBOSE\n");
    let stranger = new_key(&sshd.path("stranger"), "ed25519", "");
    let (_agent, socket) = agent_with(&[&sshd.path("login_ed25519")]);
    for engine in ENGINES {
        for only in ["yes", "no"] {
            let lines = format!("IdentityFile {}\nIdentitiesOnly {only}\n", stranger.display());
            let options = ConnectOptions { agent: Some(socket.clone()), ..configured(&sshd, engine, &lines) };
            assert_eq!(enter(&sshd, &options).await.is_ok(), only == "no", "{engine:?} {only}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_where_the_server_wants_two() {
    let sshd = Sshd::start("AuthenticationMethods publickey,publickey\n");
    let keys = [sshd.path("login_ed25519"), sshd.path("login_rsa")];
    for engine in ENGINES {
        let both = ConnectOptions { identities: keys.to_vec(), ..options(&sshd, engine) };
        enter(&sshd, &both).await.unwrap_or_else(|e| panic!("{engine:?}: {}", told(&e)));
        let one = ConnectOptions { identities: keys[..1].to_vec(), ..both };
        let error = enter(&sshd, &one).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AuthFailed, "{engine:?}: {}", told(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_half_alone_is_told() {
    let sshd = Sshd::start("");
    for engine in OURS {
        let options = ConnectOptions { identities: vec![sshd.path("login_rsa.pub")], ..options(&sshd, engine) };
        let error = enter(&sshd, &options).await.unwrap_err();
        assert!(told(&error).contains("only its public half") && told(&error).contains("ssh-add"), "{}", told(&error));
    }
}

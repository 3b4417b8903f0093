//! A server that goes silent is given up within the timeout, and the error says where. Requests of SFTP are tested in
//! the crate itself.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use haul::transport::ConnectOptions;
use haul::transport::ssh::{LoginCache, connect};
use haul::{Error, ErrorKind};
use russh::Preferred;

use super::middle::{Middle, Then};
use super::sshd::Sshd;
use super::stub::{Stop, Stub};
use super::{ENGINES, HANG, LIMIT, at_port, options, options_for, try_login, try_sftp};

fn assert_stalled(error: &Error, words: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.chain());
    assert!(words.iter().any(|word| error.chain().contains(word)), "{words:?}: {}", error.chain());
    assert!(error.chain().contains(" for 1 s"), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_banner() {
    // The system accepts, the server doesn't.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known_hosts");
    for engine in ENGINES {
        let options = ConnectOptions { timeout: LIMIT, ..options(engine, "/nonexistent".into(), known.clone()) };
        let error = try_login(&at_port(silent.local_addr().unwrap().port()), &options).await.unwrap_err();
        assert_stalled(&error, &["waiting for the server's banner: no answer"]);
    }
    // In the middle of it.
    let sshd = Sshd::start("");
    let address = SocketAddr::from(([127, 0, 0, 1], sshd.endpoint().port.unwrap()));
    for engine in ENGINES {
        let middle = Middle::open(move |_| (address, Then::Stall(6))).await;
        let options = ConnectOptions { timeout: LIMIT, ..options_for(&sshd, engine) };
        let error = try_login(&at_port(middle.port), &options).await.unwrap_err();
        assert_stalled(&error, &["waiting for the server's banner: no answer"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_key_exchange() {
    let sshd = Sshd::start("");
    let address = SocketAddr::from(([127, 0, 0, 1], sshd.endpoint().port.unwrap()));
    // Behind the banner, in its KEXINIT, behind it: OpenSSH's is about a thousand bytes long.
    for after in [45, 300, 1300] {
        for engine in ENGINES {
            let middle = Middle::open(move |_| (address, Then::Stall(after))).await;
            let options = ConnectOptions { timeout: LIMIT, ..options_for(&sshd, engine) };
            let error = try_login(&at_port(middle.port), &options).await.unwrap_err();
            assert_stalled(&error, &["key exchange: no answer"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_each_step_behind_it() {
    for (stop, words) in [
        (Stop::Login, &["login: no answer", "login by key: no answer"][..]),
        (Stop::ChannelOpen, &["open a channel: ", "start the subsystem: "]),
        // russh doesn't wait for the subsystem before it sends INIT.
        (Stop::Subsystem, &["start the subsystem: ", "answer to INIT: "]),
        (Stop::Sftp, &["answer to INIT: "]),
    ] {
        let stub = Stub::open(stop, Preferred::DEFAULT).await;
        for engine in ENGINES {
            let error = try_sftp(&at_port(stub.port), &stub.options(engine)).await.unwrap_err();
            assert_stalled(&error, words);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_chatters_instead_of_answering() {
    let stub = Stub::open(Stop::Chatter, Preferred::DEFAULT).await;
    for engine in ENGINES {
        let error = try_sftp(&at_port(stub.port), &stub.options(engine)).await.unwrap_err();
        assert_stalled(&error, &["answer to INIT"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_command_and_at_the_end() {
    let stub = Stub::open(Stop::Exec, Preferred::DEFAULT).await;
    for engine in ENGINES {
        let options = ConnectOptions { timeout: Duration::from_millis(300), ..stub.options(engine) };
        let session = connect(&at_port(stub.port), &options, &LoginCache::default()).await.unwrap();
        let running = tokio::time::timeout(HANG, session.exec(b"sleep")).await.expect("it hangs");
        let error = running.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{engine:?}: {}", error.chain());
        assert!(error.chain().contains("run a command: no answer for 3 s"), "{engine:?}: {}", error.chain());
    }
    for engine in ENGINES {
        let mut sshd = Sshd::start("");
        let options = ConnectOptions { timeout: LIMIT, ..options_for(&sshd, engine) };
        let session = connect(&sshd.endpoint(), &options, &LoginCache::default()).await.unwrap();
        sshd.freeze();
        tokio::time::timeout(HANG, session.close()).await.expect("the goodbye hangs");
    }
}

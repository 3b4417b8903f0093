//! Terrapin (CVE-2023-48795): strict key exchange is offered, and what can be attacked without it is not used.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::TcpListener;

use haul::ErrorKind;
use haul::transport::SshEngine;
use russh::{Preferred, cipher, kex, mac};

use super::stub::{Stop, Stub};
use super::{ENGINES, at_port, options, try_login};

/// What a server offers that is strict, or isn't.
fn offer(is_strict: bool, ciphers: &'static [cipher::Name], macs: &'static [mac::Name]) -> Preferred {
    let mut kexes = Preferred::DEFAULT.kex.to_vec();
    kexes.retain(|name| is_strict || *name != kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER);
    Preferred { kex: Cow::Owned(kexes), cipher: Cow::Borrowed(ciphers), mac: Cow::Borrowed(macs), ..Preferred::DEFAULT }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_offer_strict_key_exchange() {
    let folder = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let offered = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(b"SSH-2.0-test\r\n").unwrap();
            let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
            while !said.windows(28).any(|bytes| bytes == b"kex-strict-c-v00@openssh.com") {
                match client.read(&mut buffer).unwrap() {
                    0 => return false,
                    length => said.extend_from_slice(&buffer[..length]),
                }
            }
            true
        });
        let options = options(engine, "/nonexistent".into(), folder.path().join("known_hosts"));
        try_login(&at_port(port), &options).await.unwrap_err();
        assert!(offered.join().unwrap(), "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_attacked_is_not_used_with_a_server_that_is_not_strict() {
    const CHACHA: &[cipher::Name] = &[cipher::CHACHA20_POLY1305];
    const CHACHA_FIRST: &[cipher::Name] = &[cipher::CHACHA20_POLY1305, cipher::AES_256_CTR];
    const GCM: &[cipher::Name] = &[cipher::AES_128_GCM];
    const CBC: &[cipher::Name] = &[cipher::AES_128_CBC];
    const MACS: &[mac::Name] = &[mac::HMAC_SHA256];
    const ETM: &[mac::Name] = &[mac::HMAC_SHA256_ETM];
    use SshEngine::{Libssh2, Russh};
    for (engine, is_strict, ciphers, macs, expected) in [
        (Russh, true, CHACHA, MACS, true),
        (Russh, false, CHACHA, MACS, false),
        (Russh, false, CHACHA_FIRST, ETM, true),
        (Russh, false, GCM, MACS, true),
        // libssh2 doesn't tell whether the server is strict: never.
        (Libssh2, true, CHACHA, MACS, false),
        (Libssh2, false, CHACHA, MACS, false),
        (Libssh2, false, CHACHA_FIRST, ETM, true),
        (Libssh2, false, GCM, MACS, true),
        (Libssh2, false, CBC, MACS, true),
        (Libssh2, false, CBC, ETM, false),
    ] {
        let stub = Stub::open(Stop::Sftp, offer(is_strict, ciphers, macs)).await;
        let result = try_login(&at_port(stub.port), &stub.options(engine)).await;
        let case = format!("{engine:?}, strict: {is_strict}, {ciphers:?}, {macs:?}: {result:?}");
        assert_eq!(result.is_ok(), expected, "{case}");
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{case}");
            assert!(error.hint().is_some(), "{case}");
            if engine == Russh || ciphers == CBC {
                assert!(error.message().contains("Terrapin"), "{case}");
            }
        }
    }
}

//! What FTP can do beyond the defaults, against the real servers and our own: active mode, IPv6, client certificates,
//! pins, the oldest TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use haul::ErrorKind;
use haul::endpoint::Endpoint;
use haul::serve::{self, FtpTls, Identity, Protocol};
use haul::transport::{
    ActivePorts, ConnectOptions, Follow, ReadRange, RemotePath, Secret, TlsMode, TlsPin, TlsVersion, Transport,
    WriteMode, connect,
};
use support::data::{assert_same, bytes};
use support::lab::{Apart, Server};
use support::target::{read, write};

mod support;

/// More than fits into any socket.
const LARGE: usize = 5_000_011;

/// Lists, puts, gets, goes on in the middle, and does several at once, again and again, by one login.
async fn move_everything(transport: &Arc<dyn Transport>, name: &str) {
    let dir = transport.home().await.unwrap().join(format!("{name}-{}", std::process::id())).unwrap();
    transport.create_dir(&dir).await.unwrap();
    let (small, large) = (bytes(1, 1000), bytes(2, LARGE));
    for round in 0..3 {
        let file = |name: &str| dir.join(format!("{name}-{round}")).unwrap();
        write(&**transport, &file("small"), WriteMode::CREATE, &small).await.unwrap();
        write(&**transport, &file("large"), WriteMode::CREATE, &large).await.unwrap();
        assert_same(&read(&**transport, &file("small"), ReadRange::ALL).await.unwrap(), &small, "small");
        assert_same(&read(&**transport, &file("large"), ReadRange::ALL).await.unwrap(), &large, "large");
        let rest = read(&**transport, &file("large"), ReadRange::from(4_000_001)).await.unwrap();
        assert_same(&rest, &large[4_000_001..], "the rest");
        let middle = read(&**transport, &file("large"), ReadRange::between(7, 100_007)).await.unwrap();
        assert_same(&middle, &large[7..100_007], "the middle");
        append(transport, &file("part"), &large).await;
        // Given up in the middle: what is left of it is not taken for the next one's.
        drop(transport.open_read(&file("large"), ReadRange::ALL).await.unwrap());
        assert_eq!(names(transport, &dir).await.len(), 3 * (round + 1));
    }
    let at_once = (0..4).map(|number| {
        let (transport, file, large) =
            (Arc::clone(transport), dir.join(format!("at-once-{number}")).unwrap(), large.clone());
        async move {
            write(&*transport, &file, WriteMode::CREATE, &large).await.unwrap();
            assert_same(&read(&*transport, &file, ReadRange::ALL).await.unwrap(), &large, "at once");
        }
    });
    join_all(at_once).await;
    for name in names(transport, &dir).await {
        transport.remove_file(&dir.join(name).unwrap()).await.unwrap();
    }
    transport.remove_dir(&dir).await.unwrap();
    transport.close().await.unwrap();
}

/// Puts a file in two parts.
async fn append(transport: &Arc<dyn Transport>, file: &RemotePath, contents: &Bytes) {
    let half = contents.len() / 2;
    write(&**transport, file, WriteMode::CREATE, &contents.slice(..half)).await.unwrap();
    write(&**transport, file, WriteMode::At(half as u64), &contents.slice(half..)).await.unwrap();
    assert_same(&read(&**transport, file, ReadRange::ALL).await.unwrap(), contents, "in two parts");
    assert_eq!(transport.stat(file, Follow::Links).await.unwrap().size, Some(contents.len() as u64));
}

async fn names(transport: &Arc<dyn Transport>, dir: &RemotePath) -> Vec<Vec<u8>> {
    transport.list(dir).await.unwrap().map_ok(|entry| entry.name).try_collect().await.unwrap()
}

fn active(mut options: ConnectOptions) -> ConnectOptions {
    options.ftp.active = Some(ActivePorts::ANY);
    options
}

macro_rules! on_servers {
    ($($test:ident: $($server:ident)*;)*) => {
        $(mod $test {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $server() {
                super::$test(stringify!($server)).await;
            })*
        })*
    };
}

on_servers! {
    active_mode: vsftpd vsftpd_tls12 vsftpd_tls13 proftpd proftpd_tls pureftpd pureftpd_tls pyftpdlib pyftpdlib_tls;
    over_ipv6: vsftpd vsftpd_tls proftpd proftpd_tls pureftpd pureftpd_tls pyftpdlib pyftpdlib_tls;
    client_certificate: vsftpd_tlscert proftpd_tlscert;
    pins: vsftpd_tls12 vsftpd_tls13 proftpd_tls pureftpd_tls pyftpdlib_tls;
}

async fn active_mode(name: &str) {
    let lab = Apart::new();
    let server = if name.starts_with("pyftpdlib") { lab.server(name, &[], &[]) } else { Server::get(name) };
    let Some(server) = server else { return };
    let transport = connect(&server.endpoint(), &active_at(&server)).await.unwrap();
    move_everything(&transport, "active").await;
}

/// Options for active mode at a server. At the next EPRT of a session pyftpdlib forgets the descriptor that the data
/// connection before had, whosever that is by then: there, one connection at a time, and nobody else.
fn active_at(server: &Server) -> ConnectOptions {
    let most = server.name.starts_with("pyftpdlib").then_some(1);
    ConnectOptions { max_connections: most, ..active(server.options()) }
}

/// Returns whether this machine has ::1; in CI it must.
fn has_ipv6() -> bool {
    let there = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    assert!(there || std::env::var("CI").as_deref() != Ok("true"), "no ::1 in CI");
    if !there {
        eprintln!("SKIPPED: this machine has no ::1");
    }
    there
}

async fn over_ipv6(name: &str) {
    if !has_ipv6() {
        return;
    }
    for is_active in [false, true] {
        // Now and then it refuses EPRT over IPv6 (seen with TLS); its active mode is tested over IPv4.
        if is_active && name.starts_with("pyftpdlib") {
            continue;
        }
        let lab = Apart::new();
        let Some(server) = lab.server(name, &[("HAUL_LAB_ADDRESS", "::1")], &[]) else { return };
        let options = if is_active { active_at(&server) } else { server.options() };
        let transport = connect(&server.endpoint(), &options).await.unwrap();
        move_everything(&transport, "six").await;
    }
}

async fn client_certificate(name: &str) {
    let Some(server) = Server::get(name) else { return };
    let key = |file: &str| Some(server.ca.with_file_name(file));
    let mut options = server.options();
    (options.ftp.tls_cert, options.ftp.tls_key) = (key("client.pem"), key("client.key"));
    let transport = connect(&server.endpoint(), &options).await.unwrap();
    move_everything(&transport, "certificate").await;
    let refused = connect(&server.endpoint(), &server.options()).await.unwrap_err();
    assert!(!refused.kind().is_retryable() || refused.kind() == ErrorKind::ConnectionLost, "{}", refused.chain());
    let told = format!("{} {:?}", refused.chain(), refused.hint());
    assert!(told.contains("certificate"), "{told}");
}

/// What `openssl` finds for the pin of a certificate.
fn pin_of(certificate: &Path) -> TlsPin {
    let script = r#"openssl x509 -in "$0" -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64"#;
    let output = Command::new("bash").args(["-c", script]).arg(certificate).output().unwrap();
    format!("sha256//{}", String::from_utf8(output.stdout).unwrap().trim()).parse().unwrap()
}

async fn pins(name: &str) {
    let Some(server) = Server::get(name) else { return };
    let right = pin_of(&server.ca.with_file_name("server.pem"));
    let wrong = pin_of(&server.ca);
    let pinned = |pins: &[TlsPin]| {
        let mut options = server.options();
        options.ftp.tls_pins = pins.to_vec();
        options
    };
    let transport = connect(&server.endpoint(), &pinned(&[wrong, right])).await.unwrap();
    move_everything(&transport, "pins").await;
    let refused = connect(&server.endpoint(), &pinned(&[wrong])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Tls);
    assert!(refused.chain().contains(&right.to_string()), "{}", refused.chain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_tls_is_a_limit() {
    for (name, newest_works) in [("vsftpd_tls12", false), ("vsftpd_tls13", true), ("pureftpd_tls", true)] {
        let Some(server) = Server::get(name) else { continue };
        let mut options = server.options();
        options.ftp.tls_min = TlsVersion::Tls13;
        match connect(&server.endpoint(), &options).await {
            Ok(transport) => {
                assert!(newest_works, "{name} was spoken to");
                move_everything(&transport, "newest").await;
            }
            Err(refused) => {
                assert!(!newest_works, "{name}: {}", refused.chain());
                assert_eq!(refused.kind(), ErrorKind::Tls);
                assert!(refused.hint().is_some_and(|hint| hint.contains("--tls-min 1.2")), "{}", refused.chain());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_server_does_all_of_it() {
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
    if has_ipv6() {
        addresses.push(Ipv6Addr::LOCALHOST.into());
    }
    for address in addresses {
        for tls in [FtpTls::Off, FtpTls::Require, FtpTls::Implicit] {
            let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut settings = serve::Options::new(Protocol::Ftp(tls), root.path(), state.path());
            settings.password = Some(Secret::new("open sesame"));
            settings.listen = SocketAddr::new(address, 0);
            let server = serve::start(settings).await.unwrap();
            let mut options =
                ConnectOptions { password: Some(Secret::new("open sesame")), ..ConnectOptions::default() };
            match server.identity() {
                Identity::Certificate { path, .. } => {
                    options.tls_ca = Some(path.clone());
                    options.ftp.tls_pins = vec![pin_of(path)];
                }
                _ => options.tls = TlsMode::Off,
            }
            let endpoint = Endpoint::parse(server.url()).unwrap();
            for options in [options.clone(), active(options)] {
                let transport = connect(&endpoint, &options).await.unwrap();
                move_everything(&transport, "own").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_ports_is_kept() {
    let Some(server) = Server::get("vsftpd") else { return };
    // Two for a connection: the next one is offered before the one before is made.
    let run_of_two = || {
        let first = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        TcpListener::bind(("127.0.0.1", first.checked_add(1)?)).ok().map(|_| first)
    };
    let first = std::iter::repeat_with(run_of_two).flatten().next().unwrap();
    let mut options = ConnectOptions { max_connections: Some(1), ..server.options() };
    options.ftp.active = Some(ActivePorts::between(first, first + 1).unwrap());
    let transport = connect(&server.endpoint(), &options).await.unwrap();
    let home = transport.home().await.unwrap();
    for _ in 0..5 {
        names(&transport, &home).await;
    }
}

//! Phases that never end by themselves: each ends within its timeout, as `Timeout`, and the error names it.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use crate::peer::{Tls, secure};

/// Everything that a user does with a file of ten bytes, by one transport.
async fn everything(transport: &dyn Transport) -> Result<()> {
    read(transport, ReadRange::ALL).await?;
    read(transport, ReadRange::from(4)).await?;
    write(transport, WriteMode::CREATE).await?;
    list(transport).await?;
    Ok(())
}

/// Runs it against a peer that is silent after one command, and returns what that led to.
async fn silent_at(at: &'static str, tls: Option<Tls>) -> String {
    let script = move |_: usize, line: &str| (line == at || line.split(' ').next() == Some(at)).then_some(Act::Silence);
    stalled(tls, script).await
}

async fn stalled(tls: Option<Tls>, script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static) -> String {
    let options = ConnectOptions { max_connections: Some(1), ..quick() };
    let (peer, options) = match tls {
        None => (Peer::start(script).await, options),
        Some(tls) => (Peer::start_tls(tls, script).await, ConnectOptions { tls: secure().tls, ..options }),
    };
    let outcome = match peer.connect_with(options).await {
        Ok(transport) => everything(&*transport).await,
        Err(e) => Err(e),
    };
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.chain());
    error.chain()
}

#[tokio::test]
async fn a_silence_is_named_after_what_was_waited_for() {
    for (at, phase) in [
        ("", "greeting: "),
        ("USER", "login (USER): "),
        ("PASS", "login (PASS): "),
        ("FEAT", "FEAT: "),
        ("PWD", "PWD: "),
        ("TYPE", "TYPE: "),
        ("EPSV", "EPSV: "),
        ("RETR", "RETR: "),
        ("REST", "REST: "),
        ("SIZE", "SIZE: "),
        ("STOR", "STOR: "),
        ("MLSD", "MLSD: "),
    ] {
        let told = silent_at(at, None).await;
        assert!(told.contains(phase) && told.contains("no answer for 0.4 seconds"), "{at}: {told}");
    }
    let told = silent_at("AUTH TLS", None).await;
    assert!(told.contains("AUTH: "), "{told}");
    for at in ["PBSZ", "PROT"] {
        let told = silent_at(at, Some(Tls::new())).await;
        assert!(told.contains(&format!("{at} ")), "{told}");
    }
}

#[tokio::test]
async fn an_account_that_is_not_answered_is_named() {
    let script = |_: usize, line: &str| match line.split(' ').next() {
        Some("PASS") => Some(Act::Say("332 which account?\r\n")),
        Some("ACCT") => Some(Act::Silence),
        _ => None,
    };
    let peer = Peer::start(script).await;
    let mut options = quick();
    options.ftp.account = Some(haul::transport::Secret::new("sales"));
    let late = peer.connect_with(options).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert!(late.chain().contains("login (ACCT): "), "{}", late.chain());
}

#[tokio::test]
async fn a_silent_tls_handshake_is_named() {
    let on_control = stalled(Some(Tls::new()), |_, line| (line == "AUTH TLS").then_some(Act::NoTls)).await;
    assert!(on_control.contains("TLS handshake") && !on_control.contains("data"), "{on_control}");
    for verb in ["RETR", "STOR", "MLSD"] {
        let on_data =
            stalled(Some(Tls::new()), move |_, line| line.starts_with(verb).then_some(Act::NoHandshake)).await;
        assert!(on_data.contains("data connection: TLS handshake"), "{verb}: {on_data}");
    }
}

#[tokio::test]
async fn a_greeting_that_never_comes_under_implicit_tls_is_named() {
    let told = silent_at("", Some(Tls { implicit: true, ..Tls::new() })).await;
    assert!(told.contains("greeting: "), "{told}");
}

#[tokio::test]
async fn a_stalled_download_is_named_by_how_far_it_came() {
    for tls in [false, true] {
        let tls = || tls.then(Tls::new);
        let first = stalled(tls(), |_, line| line.starts_with("RETR").then_some(Act::Stall(b""))).await;
        assert!(first.contains("read the first byte: "), "{first}");
        let between = stalled(tls(), |_, line| line.starts_with("RETR").then_some(Act::Stall(b"0123"))).await;
        assert!(between.contains("read on: "), "{between}");
        let listing =
            stalled(tls(), |_, line| line.starts_with("MLSD").then_some(Act::Stall(b"type=file; a\r\n"))).await;
        assert!(listing.contains("read the listing: "), "{listing}");
    }
}

#[tokio::test]
async fn a_last_word_that_never_comes_is_named() {
    for tls in [false, true] {
        for verb in ["RETR", "STOR", "MLSD"] {
            let script = move |_: usize, line: &str| match line.split(' ').next() {
                Some(said) if said != verb => None,
                Some("STOR") => Some(Act::Take("")),
                Some("RETR") => Some(Act::Send(b"0123456789", "")),
                _ => Some(Act::Send(b"type=file;size=1; a\r\n", "")),
            };
            let told = stalled(tls.then(Tls::new), script).await;
            assert!(told.contains("finish: "), "{verb}: {told}");
        }
    }
}

#[tokio::test]
async fn an_upload_that_nobody_reads_ends() {
    for tls in [false, true] {
        let script = |_: usize, line: &str| line.starts_with("STOR").then_some(Act::Deaf);
        let peer = match tls {
            false => Peer::start(script).await,
            true => Peer::start_tls(Tls::new(), script).await,
        };
        let transport = peer.connect_with(quick()).await.unwrap();
        let mut stream = transport.open_write(&path("/f"), WriteMode::CREATE).await.unwrap();
        let chunk = Bytes::from(vec![0; 1 << 20]);
        let stalled = loop {
            if let Err(e) = stream.write(chunk.clone()).await {
                break e;
            }
        };
        assert_eq!(stalled.kind(), ErrorKind::Timeout, "{}", stalled.chain());
        assert!(stalled.chain().contains("write: "), "{}", stalled.chain());
    }
}

/// A port whose queue of connections is full: the system drops what asks for another one, as a firewall does.
#[tokio::test]
async fn a_data_connection_that_is_never_made_is_named() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fill = fill_queue(address).await;
    let reply: &'static str = format!("229 there (|||{}|)\r\n", address.port()).leak();
    // PASV, which is tried next, leads there as well.
    let classic: &'static str = format!("227 (1,2,3,4,{},{})\r\n", address.port() / 256, address.port() % 256).leak();
    let told = stalled(None, move |_, line| match line {
        "EPSV" => Some(Act::Say(reply)),
        "PASV" => Some(Act::Say(classic)),
        _ => None,
    })
    .await;
    assert!(told.contains("open a data connection: "), "{told}");
    drop((fill, listener));
}

async fn fill_queue(address: SocketAddr) -> Vec<TcpStream> {
    let mut made = Vec::new();
    let short = Duration::from_millis(300);
    while let Ok(tcp) = tokio::time::timeout(short, TcpStream::connect(address)).await {
        made.push(tcp.unwrap());
    }
    made
}

#[tokio::test]
async fn a_server_that_never_connects_in_active_mode_is_named() {
    for verb in ["RETR", "STOR", "MLSD"] {
        let peer =
            Peer::start(move |_, line| line.starts_with(verb).then_some(Act::Say("150 I am on my way\r\n"))).await;
        let transport = peer.connect_with(active(quick())).await.unwrap();
        let late = everything(&*transport).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Timeout, "{}", late.chain());
        assert!(late.chain().contains("open a data connection: "), "{}", late.chain());
        assert!(late.hint().is_some_and(|hint| hint.contains("--active")), "{}", late.chain());
    }
}

#[tokio::test]
async fn a_reply_in_drops_ends() {
    for (at, drop) in [("", "220-again\r\n"), ("", "2"), ("PASS", "230-again\r\n"), ("FEAT", "x")] {
        let pause = Duration::from_millis(20);
        let told = stalled(None, move |_, line| (line.split(' ').next() == Some(at)).then_some(Act::Drip(drop, pause)));
        if (at, drop) == ("FEAT", "x") || drop == "2" {
            // Neither is a reply, however it goes on; the first line decides once it is there, or the time.
            let _ = tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
            continue;
        }
        let told = tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
        assert!(told.contains("has no end"), "{at}: {told}");
    }
}

#[tokio::test]
async fn nobody_waits_for_a_goodbye() {
    let peer = Peer::start(|_, line| (line == "QUIT").then_some(Act::Silence)).await;
    let transport = peer.connect().await.unwrap();
    everything(&*transport).await.unwrap();
    // Thirty seconds is what a transfer may wait.
    tokio::time::timeout(Duration::from_secs(10), transport.close()).await.unwrap().unwrap();
    assert_eq!(peer.heard("QUIT"), 1);
}

#[tokio::test]
async fn a_host_that_takes_no_connection_is_named() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fill = fill_queue(address).await;
    let url = format!("ftp://127.0.0.1:{}/", address.port());
    let endpoint = haul::endpoint::Endpoint::parse(url).unwrap();
    let late = haul::transport::connect(&endpoint, &quick()).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert!(late.chain().contains("connect"), "{}", late.chain());
    drop(fill);
}

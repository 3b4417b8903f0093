//! Transfers, listings and logins as real servers play them on bad days.

use super::*;

#[tokio::test]
async fn odd_greetings_are_understood() {
    let peer = Peer::start(|_, line| match line {
        "" => Some(Act::Say("120 soon\r\n120-really\r\n120 soon\r\n220-hi\n 220 x\n230 users\n220-\n220 \n")),
        l if l.starts_with("PASS") => Some(Act::Say("230-\r\n200 files are new\r\n550 of them yours\r\n230 in\r\n")),
        _ => None,
    })
    .await;
    let transport = peer.connect().await.unwrap();
    assert_eq!(transport.home().await.unwrap(), path("/home"));
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    assert_eq!(peer.heard("USER"), 1, "the connection was not used again");
}

#[tokio::test]
async fn what_is_no_ftp_server_is_said_to_be_none() {
    for greeting in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 400 Bad Request\r\n", "200 OK\r\n"] {
        let peer = Peer::start(move |_, line| line.is_empty().then_some(Act::Say(greeting))).await;
        assert_eq!(peer.connect().await.unwrap_err().kind(), ErrorKind::Protocol, "{greeting}");
    }
}

#[tokio::test]
async fn a_refused_login_keeps_the_servers_words() {
    let peer = Peer::start(|_, line| line.starts_with("PASS").then_some(Act::Say("530 Not \x1b[31mtoday\r\n"))).await;
    let refused = peer.connect().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AuthFailed);
    assert!(refused.message().contains("530 Not \\u{1b}[31mtoday"), "{}", refused.message());
    assert!(!refused.chain().contains("secret"));
}

#[tokio::test]
async fn the_address_of_a_227_is_not_believed() {
    let peer = Peer::start(|_, line| (line == "EPSV").then_some(Act::Say("502 no\r\n"))).await;
    let transport = peer.connect().await.unwrap();
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    assert_eq!(peer.heard("EPSV"), 1, "the refusal of EPSV is remembered");
}

#[tokio::test]
async fn a_data_connection_refused_for_now_is_asked_for_again() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let peer = Peer::start(move |_, line| {
        let early = line == "EPSV" && tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
        early.then_some(Act::Say("425 Address already in use\r\n"))
    })
    .await;
    let transport = peer.connect().await.unwrap();
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
}

#[tokio::test]
async fn a_transfer_counts_only_when_the_server_says_so() {
    for (end, kind) in [
        ("426 cut\r\n", ErrorKind::ConnectionLost),
        ("451 read error\r\n", ErrorKind::Busy),
        ("552 quota exceeded\r\n", ErrorKind::NoSpace),
        ("421 bye\r\n", ErrorKind::Busy),
        // The answer to what was asked behind the transfer, whose own end is missing.
        ("229 there (|||2000|)\r\n", ErrorKind::Protocol),
    ] {
        let peer = Peer::start(move |_, line| match line.split(' ').next() {
            Some("RETR") => Some(Act::Send(b"0123456789", end)),
            Some("STOR") => Some(Act::Take(end)),
            Some("MLSD") => Some(Act::Send(b"type=file;size=1; a\r\n", end)),
            _ => None,
        })
        .await;
        let transport = peer.connect().await.unwrap();
        assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap_err().kind(), kind, "read, {end}");
        assert_eq!(write(&*transport, WriteMode::CREATE).await.unwrap_err().kind(), kind, "write, {end}");
        assert_eq!(list(&*transport).await.unwrap_err().kind(), kind, "list, {end}");
    }
}

#[tokio::test]
async fn a_server_that_ignores_rest_is_found_out() {
    let peer = Peer::start(|_, line| match line.split(' ').next() {
        Some("RETR") => Some(Act::Send(b"0123456789", "226 done\r\n")),
        Some("STOR") => Some(Act::Take("226 done\r\n")),
        _ => None,
    })
    .await;
    let transport = peer.connect().await.unwrap();
    assert!(transport.capabilities().resume_read);
    assert_eq!(read(&*transport, ReadRange::from(4)).await.unwrap_err().kind(), ErrorKind::Protocol);
    assert!(!transport.capabilities().resume_read, "it would be asked again");
    let transport = peer.connect().await.unwrap();
    assert_eq!(write(&*transport, WriteMode::At(10)).await.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn short_data_with_a_226_is_no_success() {
    let peer = Peer::start(|_, line| line.starts_with("RETR").then_some(Act::Send(b"456", "226 done\r\n"))).await;
    let transport = peer.connect().await.unwrap();
    assert_eq!(read(&*transport, ReadRange::from(4)).await.unwrap_err().kind(), ErrorKind::SourceChanged);
}

#[tokio::test]
async fn a_listing_that_cannot_be_read_is_an_error() {
    for (lines, end) in [
        (&b"type=file;size=1; a\r\nls: no memory\r\n"[..], "226 done\r\n"),
        (b"type=file;size=1; a\r\n", "226 Output truncated to 1 matches\r\n"),
    ] {
        let peer = Peer::start(move |_, line| line.starts_with("MLSD").then_some(Act::Send(lines, end))).await;
        let transport = peer.connect().await.unwrap();
        assert!(list(&*transport).await.is_err(), "{end}");
    }
}

#[tokio::test]
async fn a_server_for_one_connection_serves_all_callers() {
    let peer = Peer::start(|number, line| {
        (number > 0 && line.is_empty()).then_some(Act::Say("421 Too many connections from your address\r\n"))
    })
    .await;
    let transport = peer.connect().await.unwrap();
    let reads = (0..6).map(|_| read(&*transport, ReadRange::ALL));
    for bytes in futures_util::future::join_all(reads).await {
        assert_eq!(bytes.unwrap(), b"0123456789");
    }
}

#[tokio::test]
async fn a_dropped_transfer_leaves_the_transport_usable() {
    let peer = Peer::start(|_, _| None).await;
    let transport = peer.connect_with(single()).await.unwrap();
    drop(transport.open_read(&path("/f"), ReadRange::ALL).await.unwrap());
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    assert_eq!(peer.heard("USER"), 1, "a connection that came into step again was given up");
    drop(transport.open_write(&path("/f"), WriteMode::CREATE).await.unwrap());
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    assert_eq!(peer.heard("USER"), 2, "a connection of unknown state was used again");
}

#[tokio::test]
async fn connections_are_opened_before_they_are_used() {
    let peer = Peer::start(|number, line| {
        (number >= 3 && line.is_empty()).then_some(Act::Say("421 Too many connections from your address\r\n"))
    })
    .await;
    let transport = peer.connect().await.unwrap();
    assert!(transport.round_trip().is_some());
    assert_eq!(transport.set_connections(2).await, 2);
    assert_eq!(peer.heard("PASS"), 2);
    assert_eq!(transport.set_connections(6).await, 3, "a refusal is no error");
    let reads = (0..6).map(|_| read(&*transport, ReadRange::ALL));
    for bytes in futures_util::future::join_all(reads).await {
        assert_eq!(bytes.unwrap(), b"0123456789");
    }
    assert_eq!(transport.set_connections(1).await, 1);
    assert_eq!(peer.heard("PASS"), 3);
}

#[tokio::test]
async fn as_many_as_hoped_for_log_in_together() {
    let peer = Peer::start(|_, _| None).await;
    let options = ConnectOptions { connections: 3, ..ConnectOptions::default() };
    let transport = peer.connect_with(options).await.unwrap();
    while peer.heard("TYPE") < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!((peer.heard("FEAT"), peer.heard("PASS")), (1, 3), "what one found out is good for all");
    assert_eq!(transport.set_connections(3).await, 3);
}

#[tokio::test]
async fn a_wrong_password_is_sent_once() {
    let peer = Peer::start(|_, line| line.starts_with("PASS").then_some(Act::Say("530 Login incorrect.\r\n"))).await;
    let options = ConnectOptions { connections: 4, ..ConnectOptions::default() };
    let refused = peer.connect_with(options).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AuthFailed);
    assert_eq!(peer.heard("PASS"), 1);
}

#[tokio::test]
async fn a_listing_leaves_the_connection_to_who_reads_it() {
    let lines: Vec<String> = (0..20_000).map(|number| format!("type=file;size=1; {number}\r\n")).collect();
    let lines: &'static [u8] = lines.concat().leak().as_bytes();
    let peer = Peer::start(move |_, line| line.starts_with("MLSD").then_some(Act::Send(lines, "226 done\r\n"))).await;
    let transport = peer.connect_with(single()).await.unwrap();
    let mut entries = transport.list(&path("/d")).await.unwrap();
    let mut count = 0;
    while let Some(entry) = entries.try_next().await.unwrap() {
        assert_eq!(entry.name, count.to_string().into_bytes());
        if count % 5000 == 0 {
            assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
        }
        count += 1;
    }
    assert_eq!((count, peer.heard("USER")), (20_000, 1));
}

#[tokio::test]
async fn a_range_costs_no_connection_and_no_trip() {
    let peer = Peer::start(|_, line| match line.split(' ').next() {
        Some("SIZE") => Some(Act::Say("213 30\r\n")),
        Some("RETR") => Some(Act::Send(b"0123456789abcdefghijABCDEFGHIJ", "226 done\r\n")),
        _ => None,
    })
    .await;
    let transport = peer.connect_with(single()).await.unwrap();
    for end in [1, 10, 29] {
        let bytes = read(&*transport, ReadRange::between(0, end)).await.unwrap();
        assert_eq!(bytes, b"0123456789abcdefghijABCDEFGHIJ"[..end as usize]);
    }
    assert_eq!((peer.heard("USER"), peer.heard("SIZE")), (1, 0));
}

#[tokio::test]
async fn a_port_that_is_gone_is_asked_for_again() {
    let transfers = std::sync::atomic::AtomicUsize::new(0);
    let peer = Peer::start(move |_, line| {
        let second = line.starts_with("RETR") && transfers.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1;
        second.then_some(Act::Say("425 Use PORT or PASV first.\r\n"))
    })
    .await;
    let transport = peer.connect_with(single()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    }
    assert_eq!((peer.heard("USER"), peer.heard("RETR")), (1, 4));
}

#[tokio::test]
async fn a_server_that_runs_out_of_ports_costs_no_file() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let peer = Peer::start(move |_, line| {
        let unlucky = line == "EPSV" && asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 3 == 2;
        unlucky.then_some(Act::Part("500 OOPS: vsf_sysutil_bind\r\n"))
    })
    .await;
    let transport = peer.connect().await.unwrap();
    for _ in 0..8 {
        assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
        write(&*transport, WriteMode::CREATE).await.unwrap();
        assert_eq!(transport.stat(&path("/f"), Follow::Links).await.unwrap().size, Some(10));
    }
    assert!(peer.heard("USER") > 1);
}

#[tokio::test]
async fn one_trip_for_each_step_of_a_file() {
    let peer = Peer::start(|_, line| match line.split(' ').next() {
        Some("FEAT") => Some(Act::Say("211-so:\r\n MFMT\r\n MLST type*;size*;modify*;\r\n211 end\r\n")),
        Some("MFMT") => Some(Act::Say("213 set\r\n")),
        Some("RNFR") => Some(Act::Say("350 to what?\r\n")),
        Some("RNTO") => Some(Act::Say("250 done\r\n")),
        _ => None,
    })
    .await;
    let transport = peer.connect_with(single()).await.unwrap();
    write(&*transport, WriteMode::CREATE).await.unwrap();
    let begun = peer.heard.lock().unwrap().len();
    let mode = WriteMode::Create { mode: None, length: Some(10) };
    let mut stream = transport.open_write(&path("/f"), mode).await.unwrap();
    stream.write(Bytes::from_static(b"0123456789")).await.unwrap();
    let metadata = SetMetadata { mtime: Some(std::time::UNIX_EPOCH), mode: None };
    let finished = stream.finish(Finish { metadata, ..Finish::CACHED }).await.unwrap();
    assert_eq!(finished.size, Some(10));
    assert!(finished.metadata.is_ok());
    transport.rename(&path("/f"), &path("/g"), Replace::Yes, Durability::Cached).await.unwrap();
    let said = peer.heard.lock().unwrap()[begun..].to_vec();
    assert_eq!(said, ["STOR /f", "MFMT 19700101000000 /f", "SIZE /f", "EPSV", "RNFR /f", "RNTO /g"]);
}

#[tokio::test]
async fn a_small_file_that_is_refused_says_why() {
    let peer = Peer::start(|_, line| match line.split(' ').next() {
        Some("STOR") => Some(Act::Say("553 Could not create file.\r\n")),
        Some("MLST") => Some(Act::Say("550 no\r\n")),
        _ => None,
    })
    .await;
    let transport = peer.connect_with(single()).await.unwrap();
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    let mode = WriteMode::Create { mode: None, length: Some(10) };
    let mut stream = transport.open_write(&path("/f"), mode).await.unwrap();
    let mut outcome = stream.write(Bytes::from_static(b"0123456789")).await;
    if outcome.is_ok() {
        outcome = stream.finish(Finish::CACHED).await.map(|_| ());
    }
    let refused = outcome.unwrap_err();
    assert!(refused.message().contains("553 Could not create file."), "{}", refused.chain());
}

/// Without MLSD, a listing knows times to the minute at best.
#[tokio::test]
async fn a_files_exact_time_comes_with_the_file_where_listings_have_none() {
    for (reply, expected) in [("213 20200102030405\r\n", Some(1_577_934_245)), ("550 no\r\n", None)] {
        let peer = Peer::start(move |_, line| match line.split(' ').next() {
            Some("") => Some(Act::Say("220 (vsFTPd 3.0.3)\r\n")),
            Some("FEAT") => Some(Act::Say("211-so:\r\n MDTM\r\n SIZE\r\n REST STREAM\r\n211 end\r\n")),
            Some("MDTM") => Some(Act::Say(reply)),
            _ => None,
        })
        .await;
        let transport = peer.connect_with(single()).await.unwrap();
        assert!(transport.capabilities().mtime_on_read);
        let begun = peer.heard.lock().unwrap().len();
        let mut stream = transport.open_read(&path("/f"), ReadRange::ALL).await.unwrap();
        let seconds = |mtime: Mtime| mtime.time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(stream.mtime().map(seconds), expected);
        assert_eq!(stream.read().await.unwrap(), "0123456789");
        assert!(stream.read().await.unwrap().is_empty());
        stream.finish().await.unwrap();
        let said = peer.heard.lock().unwrap()[begun..].to_vec();
        assert_eq!(said, ["MDTM /f", "RETR /f", "EPSV"], "one trip, and nothing asked before");
    }
}

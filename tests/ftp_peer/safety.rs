//! A server that lies, floods and injects: nothing of what the user relies on gives way.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use haul::endpoint::Endpoint;
use haul::transport::{Algorithm, Prompt, Secret};

use super::*;
use crate::peer::{Tls, secure};

const EVIL: [&str; 5] = ["a\r\nDELE b", "a\nDELE b", "a\rDELE b", "a\0DELE b", "\r"];

/// Writes each byte as a URL may.
fn in_url(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat()
}

/// Answers every question with the same secret.
#[derive(Debug)]
struct Answers(&'static str);

impl Prompt for Answers {
    fn secret(&self, _: &str) -> Option<Secret> {
        Some(Secret::new(self.0))
    }

    fn line(&self, _: &str) -> Option<String> {
        None
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }

    fn notice(&self, _: &str) {}
}

#[tokio::test]
async fn who_logs_in_never_becomes_a_second_command() {
    let peer = Peer::start(|_, _| None).await;
    let endpoint = Endpoint::parse(format!("ftp://me:secret@127.0.0.1:{}/", peer.port)).unwrap();
    for evil in EVIL {
        let user = Endpoint { user: Some(evil.into()), ..endpoint.clone() };
        let password = Endpoint { password: Some(Secret::new(evil)), ..endpoint.clone() };
        let mut account = ConnectOptions::default();
        account.ftp.account = Some(Secret::new(evil));
        for (endpoint, options) in
            [(user, ConnectOptions::default()), (password, ConnectOptions::default()), (endpoint.clone(), account)]
        {
            let refused = haul::transport::connect(&endpoint, &options).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Usage, "{}", refused.chain());
            assert!(!refused.chain().contains("DELE"), "{}", refused.chain());
        }
        let encoded = in_url(evil);
        for url in [format!("ftp://{encoded}@h/"), format!("ftp://me:{encoded}@h/")] {
            assert_eq!(Endpoint::parse(url).unwrap_err().kind(), ErrorKind::Usage);
        }
    }
    assert_eq!(peer.all_heard(), 0, "somebody was called");
}

#[tokio::test]
async fn an_answer_of_the_person_never_becomes_a_second_command() {
    for (script, asked) in [("PASS", false), ("ACCT", true)] {
        let peer = Peer::start(move |_, line| {
            (asked && line.starts_with("PASS")).then_some(Act::Say("332 which account?\r\n"))
        })
        .await;
        let evil = ConnectOptions { prompt: Arc::new(Answers("x\r\nDELE b")), ..ConnectOptions::default() };
        let login = if asked { "me:secret@" } else { "me@" };
        let endpoint = Endpoint::parse(format!("ftp://{login}127.0.0.1:{}/", peer.port)).unwrap();
        let refused = haul::transport::connect(&endpoint, &evil).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Usage, "{}", refused.chain());
        assert_eq!((peer.heard(script), peer.heard("DELE")), (0, 0));
    }
}

#[tokio::test]
async fn a_path_never_becomes_a_second_command() {
    let peer = Peer::start(|_, line| {
        let offers =
            "211-so:\r\n MFMT\r\n XMD5\r\n SITE CHMOD\r\n SIZE\r\n REST STREAM\r\n MLST type*;size*;\r\n211 end\r\n";
        (line == "FEAT").then_some(Act::Say(offers))
    })
    .await;
    let transport = peer.connect_with(single()).await.unwrap();
    let said = async || {
        // What was asked ahead is over when this is answered.
        let _ = transport.stat(&path("/x"), Follow::Links).await;
        peer.heard.lock().unwrap().iter().filter(|line| !line.contains("/x") && *line != "EPSV").count()
    };
    let begun = said().await;
    for evil in &EVIL[..3] {
        let (name, evil) = (evil, path("/").resolve(evil).unwrap());
        let mode = SetMetadata { mtime: None, mode: Some(0o644) };
        let time = SetMetadata { mtime: Some(std::time::UNIX_EPOCH), mode: None };
        let outcomes = [
            transport.remove_file(&evil).await,
            transport.remove_dir(&evil).await,
            transport.create_dir(&evil).await,
            transport.rename(&path("/a"), &evil, Replace::Yes, Durability::Cached).await,
            transport.rename(&path("/a"), &evil, Replace::No, Durability::Cached).await,
            transport.rename(&evil, &path("/a"), Replace::Yes, Durability::Cached).await,
            transport.set_metadata(&evil, mode).await,
            transport.set_metadata(&evil, time).await,
            transport.digest(&evil, Algorithm::Md5, ReadRange::ALL).await.map(|_| ()),
            transport.read_link(&evil).await.map(|_| ()),
            transport.stat(&evil, Follow::Links).await.map(|_| ()),
            transport.stat(&evil, Follow::Nothing).await.map(|_| ()),
            transport.open_read(&evil, ReadRange::ALL).await.map(|_| ()),
            transport.open_read(&evil, ReadRange::from(3)).await.map(|_| ()),
            transport.open_write(&evil, WriteMode::CREATE).await.map(|_| ()),
            transport.open_write(&evil, WriteMode::At(3)).await.map(|_| ()),
            transport.list(&evil).await.map(|_| ()),
        ];
        for (number, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidPath, "{number}: {name:?}");
        }
        // As a user would write it in a URL.
        let encoded = in_url(name);
        let url = Endpoint::parse(format!("ftp://h/{encoded}")).unwrap();
        let decoded = url.path.resolve(&path("/home")).unwrap();
        let refused = transport.open_read(&decoded, ReadRange::ALL).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidPath);
    }
    assert_eq!(RemotePath::new("/a\0b").unwrap_err().kind(), ErrorKind::InvalidPath);
    assert_eq!(said().await, begun, "something was sent: {:?}", peer.heard.lock().unwrap());
}

#[tokio::test]
async fn a_home_with_a_line_break_is_never_sent_back() {
    let peer = Peer::start(|_, line| (line == "PWD").then_some(Act::Say("257 \"/home\rDELE b\" is it\r\n"))).await;
    let transport = peer.connect().await.unwrap();
    let home = transport.home().await.unwrap();
    let refused = transport.list(&home).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidPath);
    assert!(!refused.chain().contains('\r'));
}

#[tokio::test]
async fn a_port_of_another_service_is_not_followed() {
    for reply in [
        "229 there (|||0|)\r\n",
        "229 there (|||25|)\r\n",
        "229 there (|||1023|)\r\n",
        "229 there (|1|10.0.0.1|22|)\r\n",
        "227 there (127,0,0,1,0,25)\r\n",
        "227 there (127,0,0,1,0,0)\r\n",
    ] {
        let peer = Peer::start(move |_, line| (line == "EPSV").then_some(Act::Say(reply))).await;
        let transport = peer.connect().await.unwrap();
        let refused = read(&*transport, ReadRange::ALL).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Protocol, "{reply}: {}", refused.chain());
        assert!(refused.chain().contains("no port that is meant for data"), "{}", refused.chain());
        assert_eq!(peer.heard("RETR"), 0);
    }
}

#[tokio::test]
async fn bytes_injected_before_tls_end_the_session() {
    for act in [
        || Act::Say("234 go\r\n230 you are in\r\n"),
        || Act::SayThen("234 go\r\n", "230 you are in\r\n220 hello\r\n331 password?\r\n"),
    ] {
        for options in [ConnectOptions::default(), secure()] {
            let peer = Peer::start_tls(Tls::new(), move |_, line| (line == "AUTH TLS").then(act)).await;
            let injected = peer.connect_with(options).await.unwrap_err();
            assert!(matches!(injected.kind(), ErrorKind::Protocol | ErrorKind::Tls), "{}", injected.chain());
            assert_eq!((peer.heard("USER"), peer.heard("PASS")), (0, 0));
        }
    }
}

#[tokio::test]
async fn no_password_goes_to_a_server_without_the_tls_that_was_demanded() {
    for refusal in ["500 what?\r\n", "530 no\r\n", "431 not now\r\n", "200 ok\r\n", "334 go on\r\n", "421 bye\r\n"] {
        let script = move |_: usize, line: &str| (line == "AUTH TLS").then_some(Act::Say(refusal));
        let peer = Peer::start(script).await;
        let mut pinned = ConnectOptions::default();
        pinned.ftp.tls_pins = vec![haul::transport::TlsPin::new([7; 32])];
        let mut newest = ConnectOptions::default();
        newest.ftp.tls_min = haul::transport::TlsVersion::Tls13;
        for options in [secure(), pinned, newest] {
            let refused = peer.connect_with(options).await.unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Tls | ErrorKind::Busy), "{refusal}: {}", refused.chain());
        }
        let url = format!("ftpes://me:secret@127.0.0.1:{}/", peer.port);
        haul::transport::connect(&Endpoint::parse(url).unwrap(), &ConnectOptions::default()).await.unwrap_err();
        assert_eq!((peer.heard("AUTH"), peer.heard("USER"), peer.heard("PASS")), (4, 0, 0), "{refusal}");
        let url = format!("ftps://me:secret@127.0.0.1:{}/", peer.port);
        let refused = haul::transport::connect(&Endpoint::parse(url).unwrap(), &quick()).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Tls | ErrorKind::Timeout), "{}", refused.chain());
        assert_eq!((peer.heard("USER"), peer.heard("PASS")), (0, 0));
    }
}

/// Notes what a person is told.
#[derive(Debug, Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Prompt for Told {
    fn secret(&self, _: &str) -> Option<Secret> {
        None
    }

    fn line(&self, _: &str) -> Option<String> {
        None
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }

    fn notice(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

#[tokio::test]
async fn going_on_without_tls_is_told_once() {
    let told = Arc::new(Told::default());
    for (tls, expected) in [(TlsMode::Off, 0), (TlsMode::Allow, 1)] {
        let peer = Peer::start(|_, _| None).await;
        let options = ConnectOptions { tls, prompt: Arc::clone(&told) as _, ..ConnectOptions::default() };
        let transport = peer.connect_with(options).await.unwrap();
        assert_eq!(transport.set_connections(3).await, 3);
        assert_eq!((peer.heard("PASS"), told.0.lock().unwrap().len()), (3, expected));
    }
    assert!(told.0.lock().unwrap()[0].contains("offers no TLS: password and files go unencrypted"));
}

#[tokio::test]
async fn data_that_would_go_in_the_open_ends_the_login_in_every_mode() {
    for (verb, refusal) in [("PROT", "536 no\r\n"), ("PROT", "431 not now\r\n"), ("PBSZ", "500 what?\r\n")] {
        for (tls, implicit) in [(TlsMode::Allow, false), (TlsMode::Require, false), (TlsMode::Allow, true)] {
            let secured = Tls { implicit, ..Tls::new() };
            let script = move |_: usize, line: &str| line.starts_with(verb).then_some(Act::Say(refusal));
            let peer = Peer::start_tls(secured, script).await;
            let refused = peer.connect_with(ConnectOptions { tls, ..quick() }).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Tls, "{}", refused.chain());
            assert_eq!((peer.heard("PASS"), peer.heard("EPSV"), peer.heard("RETR")), (0, 0, 0));
        }
    }
}

#[tokio::test]
async fn tls_stays_once_it_is_up() {
    let peer = Peer::start_tls(Tls::new(), |_, _| None).await;
    let transport = peer.connect_with(single()).await.unwrap();
    for _ in 0..3 {
        read(&*transport, ReadRange::ALL).await.unwrap();
        write(&*transport, WriteMode::CREATE).await.unwrap();
        list(&*transport).await.unwrap();
    }
    transport.close().await.unwrap();
    let heard = peer.heard.lock().unwrap().clone();
    assert!(heard.contains(&"PROT P".to_owned()));
    let bare = |line: &&String| line.starts_with("CCC") || line.starts_with("CDC") || *line == "PROT C";
    assert_eq!(heard.iter().find(bare), None);
    let data = peer.tls().handshakes.lock().unwrap().iter().filter(|(_, what, _)| *what == "data").count();
    assert_eq!(data, 9, "something went past TLS");
}

#[tokio::test]
async fn a_server_that_took_tls_before_may_not_leave_it() {
    let peer = Peer::start_tls(Tls::new(), |number, line| {
        (number > 0 && line == "AUTH TLS").then_some(Act::Say("500 what?\r\n"))
    })
    .await;
    let transport = peer.connect().await.unwrap();
    assert_eq!(transport.set_connections(3).await, 1);
    assert_eq!((peer.heard("AUTH") > 1, peer.heard("PASS")), (true, 1));
}

#[tokio::test]
async fn a_download_that_ends_without_close_notify_counts_only_when_the_size_says_so() {
    for (size, expected) in [
        ("213 10\r\n", Ok(10)),
        ("213 11\r\n", Err(ErrorKind::ConnectionLost)),
        ("213 9\r\n", Err(ErrorKind::ConnectionLost)),
        ("550 no\r\n", Err(ErrorKind::ConnectionLost)),
        ("500 what?\r\n", Err(ErrorKind::ConnectionLost)),
    ] {
        let peer = Peer::start_tls(Tls::new(), move |_, line| match line.split(' ').next() {
            Some("SIZE") => Some(Act::Say(size)),
            Some("RETR") => Some(Act::Tear(b"0123456789", "226 done\r\n")),
            _ => None,
        })
        .await;
        let transport = peer.connect_with(single()).await.unwrap();
        let outcome = read(&*transport, ReadRange::ALL).await;
        assert_eq!(outcome.map(|bytes| bytes.len()).map_err(|e| e.kind()), expected, "{size}");
    }
}

#[tokio::test]
async fn a_listing_that_ends_without_close_notify_is_an_error() {
    let torn = Act::Tear;
    let script =
        move |_: usize, line: &str| line.starts_with("MLSD").then(|| torn(b"type=file;size=1; a\r\n", "226 done\r\n"));
    let peer = Peer::start_tls(Tls::new(), script).await;
    let transport = peer.connect_with(single()).await.unwrap();
    assert_eq!(list(&*transport).await.unwrap_err().kind(), ErrorKind::ConnectionLost);
}

/// Gets the ten bytes of `/f`, by the program, with one retry; returns how that ended and what arrived.
async fn get(peer: &Peer) -> (std::process::Output, Option<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (folder.path().join("f"), folder.path().join("state"));
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_haul"));
    command.args(["get", "--retries", "1", "--timeout", "5s", "--segments", "1"]);
    command.arg(format!("ftp://me@127.0.0.1:{}//f", peer.port)).arg(&file);
    if let Some(ca) = peer.ca() {
        command.arg("--tls-ca").arg(ca);
    }
    command.env_clear().env("HOME", folder.path()).env("XDG_STATE_HOME", state).env("HAUL_PASSWORD", "secret");
    let output = command.stdin(std::process::Stdio::null()).output().await.unwrap();
    (output, arrived(&file))
}

fn arrived(file: &Path) -> Option<Vec<u8>> {
    std::fs::read(file).ok()
}

/// Makes the TLS of a peer that has any.
type Make = fn() -> Option<Tls>;

const ENTRY: &str = "250-so:\r\n type=file;size=10;modify=20200101000000; /f\r\n250 end\r\n";

#[tokio::test]
async fn what_arrived_in_part_is_fetched_again_and_never_shown_whole() {
    let short = || Act::Send(b"01234", "226 done\r\n");
    let torn = || Act::Tear(b"01234", "226 done\r\n");
    let cut = || Act::Send(b"0123456789", "426 cut\r\n");
    let failed = || Act::Send(b"0123456789", "451 read error\r\n");
    let (plain, tls) = (|| None, || Some(Tls::new()));
    let cases: [(fn() -> Act, Make); 5] = [(short, plain), (short, tls), (torn, tls), (cut, plain), (failed, plain)];
    for (number, (act, tls)) in cases.into_iter().enumerate() {
        for bad in [1, usize::MAX] {
            let reads = AtomicUsize::new(0);
            let script = move |_: usize, line: &str| match line.split(' ').next() {
                Some("MLST") => Some(Act::Say(ENTRY)),
                Some("RETR") => (reads.fetch_add(1, SeqCst) < bad).then(act),
                _ => None,
            };
            let peer = match tls() {
                None => Peer::start(script).await,
                Some(tls) => Peer::start_tls(tls, script).await,
            };
            let (output, arrived) = get(&peer).await;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            if bad == 1 {
                assert!(output.status.success(), "{number}: {told}");
                assert_eq!(arrived.as_deref(), Some(&b"0123456789"[..]), "{number}");
            } else {
                assert_eq!(output.status.code(), Some(1), "{number}: {told}");
                assert_eq!(arrived, None, "{number}: {told}");
            }
            assert!(peer.heard("RETR") > 1, "{number}: not tried again: {told}");
        }
    }
}

#[tokio::test]
async fn in_active_mode_only_the_server_may_bring_data() {
    for extended in [true, false] {
        let script = move |_: usize, line: &str| match line.split(' ').next() {
            Some("EPRT") if !extended => Some(Act::Say("500 what?\r\n")),
            Some("RETR") => Some(Act::Impostor(b"evil", b"0123456789")),
            Some("MLSD") => Some(Act::Impostor(b"type=file;size=1; evil\r\n", b"type=file;size=1; a\r\n")),
            _ => None,
        };
        let peer = Peer::start(script).await;
        let transport = peer.connect_with(active(single())).await.unwrap();
        for _ in 0..3 {
            assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
            assert_eq!(list(&*transport).await.unwrap()[0].name, b"a");
        }
        assert_eq!((peer.heard("PASV"), peer.heard("EPSV"), peer.heard("PORT") > 0), (0, 0, !extended));

        let peer = Peer::start(|_, line| line.starts_with("RETR").then_some(Act::Impostor(b"evil", b""))).await;
        let transport = peer.connect_with(active(quick())).await.unwrap();
        let refused = read(&*transport, ReadRange::ALL).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Timeout, "{}", refused.chain());
    }
}

#[tokio::test]
async fn active_mode_moves_everything() {
    for tls in [false, true] {
        let peer = match tls {
            false => Peer::start(|_, _| None).await,
            true => Peer::start_tls(Tls::new(), |_, _| None).await,
        };
        let transport = peer.connect_with(active(single())).await.unwrap();
        for _ in 0..3 {
            assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
            write(&*transport, WriteMode::CREATE).await.unwrap();
            assert_eq!(list(&*transport).await.unwrap().len(), 1);
            drop(transport.open_read(&path("/f"), ReadRange::ALL).await.unwrap());
        }
        assert_eq!((peer.heard("EPSV"), peer.heard("PASV"), peer.heard("USER")), (0, 0, 1));
        let ports: std::collections::BTreeSet<_> =
            peer.heard.lock().unwrap().iter().filter(|line| line.starts_with("EPRT")).cloned().collect();
        assert_eq!(ports.len(), peer.heard("EPRT"), "a port was offered twice");
    }
}

#[tokio::test]
async fn a_server_that_cannot_reach_us_is_quoted_with_advice() {
    let peer = Peer::start(|_, line| line.starts_with("RETR").then_some(Act::Say("425 Failed to connect.\r\n"))).await;
    let transport = peer.connect_with(active(ConnectOptions::default())).await.unwrap();
    let refused = read(&*transport, ReadRange::ALL).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Busy);
    assert!(refused.chain().contains("425 Failed to connect."), "{}", refused.chain());
    assert!(refused.hint().is_some_and(|hint| hint.contains("--active")));
}

#[tokio::test]
async fn a_server_that_refuses_active_mode_is_quoted() {
    let peer = Peer::start(|_, line| {
        (line.starts_with("EPRT") || line.starts_with("PORT")).then_some(Act::Say("550 Permission denied.\r\n"))
    })
    .await;
    let transport = peer.connect_with(active(ConnectOptions::default())).await.unwrap();
    let refused = read(&*transport, ReadRange::ALL).await.unwrap_err();
    assert!(refused.chain().contains("550 Permission denied."), "{}", refused.chain());
    assert_eq!(peer.heard("RETR"), 0);
}

/// The most memory that this process has had, in KiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn endless_replies_end() {
    let before = most_memory();
    for (at, text) in [
        ("", "220 for ever and ever "),
        ("", "220-again\r\n"),
        ("", "120 soon\r\n"),
        ("USER", "331-again\r\n"),
        ("FEAT", "211-again\r\n"),
        ("EPSV", "229 "),
        ("MLST", "250-again\r\n"),
        ("RETR", "150 again\r\n"),
        ("RETR", "150-again\r\n"),
        ("STOR", "150 again\r\n"),
        ("SIZE", "213-again\r\n"),
        ("MLSD", "150 "),
    ] {
        let peer = Peer::start(move |_, line| (line.split(' ').next() == Some(at)).then_some(Act::Repeat(text))).await;
        let all = async {
            let transport = peer.connect_with(quick()).await?;
            transport.stat(&path("/x"), Follow::Links).await?;
            read(&*transport, ReadRange::from(4)).await?;
            write(&*transport, WriteMode::CREATE).await?;
            list(&*transport).await
        };
        let outcome = tokio::time::timeout(Duration::from_secs(60), all).await;
        let error = outcome.unwrap_or_else(|_| panic!("{at} {text}: no end")).unwrap_err();
        let expected = matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Timeout | ErrorKind::NotFound);
        assert!(expected, "{at} {text}: {:?}: {}", error.kind(), error.chain());
    }
    assert!(most_memory() - before < 64 << 10, "{} KiB more", most_memory() - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_at_an_idle_connection_is_no_trap() {
    // Behind the answer to a question that was asked ahead, where nobody reads.
    for text in ["229-again\r\n", "229 ", "200 fine\r\n"] {
        let peer = Peer::start(move |_, line| (line == "EPSV").then_some(Act::Repeat(text))).await;
        let before = most_memory();
        let all = async {
            let transport = peer.connect_with(quick()).await?;
            read(&*transport, ReadRange::ALL).await.unwrap_err();
            transport.set_connections(2).await;
            read(&*transport, ReadRange::ALL).await
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), all).await.unwrap().is_err());
        assert!(most_memory() - before < 64 << 10, "{} KiB more", most_memory() - before);
    }
}

/// `HAUL_FLOOD` sets the number of entries; the long form takes ten million.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_of_any_length_needs_little_memory() {
    let wanted: usize = std::env::var("HAUL_FLOOD").map_or(1_000_000, |count| count.parse().unwrap());
    let lines: &'static [u8] = b"type=file;size=1;modify=20200101000000; some name\r\n".repeat(10_000).leak();
    let peer = Peer::start(move |_, line| line.starts_with("MLSD").then_some(Act::Flood(lines, wanted / 10_000))).await;
    let transport = peer.connect_with(single()).await.unwrap();
    let before = most_memory();
    let mut entries = transport.list(&path("/d")).await.unwrap();
    assert!(entries.try_next().await.unwrap().is_some());
    // On the one connection: so by now all of the listing is here, and nobody has taken it.
    assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
    let mut count = 1;
    while entries.try_next().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, wanted);
    assert!(most_memory() - before < 32 << 10, "{} KiB more", most_memory() - before);
}

#[tokio::test]
async fn a_line_of_a_listing_without_an_end_is_an_error() {
    let line: &'static [u8] = vec![b'x'; 1 << 20].leak();
    for first in ["MLSD", "LIST"] {
        let peer = Peer::start(move |_, said| match said.split(' ').next() {
            Some("FEAT") if first == "LIST" => Some(Act::Say("211 no\r\n")),
            Some("CWD") => Some(Act::Say("250 in\r\n")),
            Some(verb) if verb == first => Some(Act::Flood(line, 1024)),
            _ => None,
        })
        .await;
        let transport = peer.connect_with(single()).await.unwrap();
        let before = most_memory();
        let endless = list(&*transport).await.unwrap_err();
        assert_eq!(endless.kind(), ErrorKind::Protocol, "{}", endless.chain());
        assert!(endless.chain().contains("has no end"), "{:.300}", endless.chain());
        assert!(most_memory() - before < 64 << 10, "{} KiB more", most_memory() - before);
    }
}

#[tokio::test]
async fn replies_in_a_wrong_order_are_errors() {
    for (at, reply) in [
        ("", "150 here it comes\r\n"),
        ("", "331 password?\r\n"),
        ("USER", "150 here it comes\r\n"),
        ("USER", "226 done\r\n226 done\r\n"),
        ("PASS", "331 password?\r\n"),
        ("PASS", "350 go on\r\n"),
        ("TYPE", "150 here it comes\r\n"),
        ("EPSV", "226 done\r\n"),
        ("EPSV", "150 here it comes\r\n"),
        ("RETR", "226 done\r\n"),
        ("RETR", "331 password?\r\n"),
        ("RETR", "150 here it comes\r\n150 here it comes\r\n"),
        ("RETR", "229 there (|||PORT|)\r\n"),
        ("REST", "150 here it comes\r\n"),
        ("STOR", "226 done\r\n"),
        ("STOR", "350 go on\r\n"),
        ("RNFR", "250 done\r\n"),
        ("RNTO", "350 go on\r\n"),
        ("DELE", "350 go on\r\n"),
        ("MLSD", "226 done\r\n"),
    ] {
        let script = move |_: usize, line: &str| match line.split(' ').next() {
            Some(verb) if verb == at => Some(Act::Say(reply)),
            Some("RNFR") => Some(Act::Say("350 to what?\r\n")),
            Some("RNTO" | "DELE") => Some(Act::Say("250 done\r\n")),
            _ => None,
        };
        let peer = Peer::start(script).await;
        let all = async {
            let transport = peer.connect_with(quick()).await?;
            read(&*transport, ReadRange::ALL).await?;
            read(&*transport, ReadRange::from(4)).await.map(|_| ()).or_else(|e| match e.kind() {
                // The peer sends all of it, whatever it said to REST.
                ErrorKind::SourceChanged => Ok(()),
                _ => Err(e),
            })?;
            write(&*transport, WriteMode::CREATE).await?;
            transport.rename(&path("/a"), &path("/b"), Replace::Yes, Durability::Cached).await?;
            transport.remove_file(&path("/a")).await?;
            list(&*transport).await
        };
        let outcome = tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        assert!(outcome.is_err(), "{at}: {reply}");
    }
}

#[tokio::test]
async fn nothing_that_a_server_says_acts_on_a_terminal() {
    let evil = "\x1b[2J\u{9b}31m\u{202e}\x07\r not \u{200b}today";
    let say = |code: &str| -> &'static str { format!("{code} {evil}\r\n").leak() };
    for (at, text) in [
        ("", say("421")),
        ("USER", say("530")),
        ("PASS", say("530")),
        ("TYPE", say("504")),
        ("EPSV", say("229")),
        ("RETR", say("550")),
        ("PWD", format!("257 \"/{evil}\" is it\r\n").leak()),
    ] {
        let peer = Peer::start(move |_, line| (line.split(' ').next() == Some(at)).then_some(Act::Say(text))).await;
        let all = async {
            let transport = peer.connect_with(quick()).await?;
            let home = transport.home().await?;
            transport.open_read(&home, ReadRange::ALL).await?;
            read(&*transport, ReadRange::ALL).await
        };
        let told = all.await.unwrap_err();
        let shown = format!("{} {:?}", told.chain(), told.hint());
        let acts = |c: &char| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}');
        assert_eq!(shown.chars().find(acts), None, "{at}: {shown:?}");
    }
    let line: &'static [u8] = format!("{evil}\r\n").leak().as_bytes();
    let peer = Peer::start(move |_, said| said.starts_with("MLSD").then_some(Act::Send(line, "226 done\r\n"))).await;
    let transport = peer.connect().await.unwrap();
    let told = list(&*transport).await.unwrap_err().chain();
    assert!(!told.chars().any(char::is_control), "{told:?}");
}

#[tokio::test]
async fn an_account_is_given_to_who_asks() {
    let mut with = single();
    with.ftp.account = Some(Secret::new("sales-7"));
    for when in ["USER", "PASS"] {
        let script = move |_: usize, line: &str| match line.split(' ').next() {
            Some(verb) if verb == when => Some(Act::Say("332 which account?\r\n")),
            Some("ACCT") => Some(Act::Say("230 welcome\r\n")),
            _ => None,
        };
        let peer = Peer::start(script).await;
        let transport = peer.connect_with(with.clone()).await.unwrap();
        assert_eq!(read(&*transport, ReadRange::ALL).await.unwrap(), b"0123456789");
        assert!(peer.heard.lock().unwrap().contains(&"ACCT sales-7".to_owned()));

        let none = peer.connect_with(single()).await.unwrap_err();
        assert_eq!(none.kind(), ErrorKind::AuthFailed);
        assert!(none.hint().is_some_and(|hint| hint.contains("--ftp-account")), "{}", none.chain());
        let asked = ConnectOptions { prompt: Arc::new(Answers("sales-8")), ..single() };
        peer.connect_with(asked).await.unwrap();
        assert!(peer.heard.lock().unwrap().contains(&"ACCT sales-8".to_owned()));
    }
}

#[tokio::test]
async fn an_account_is_given_when_a_file_needs_one() {
    let given = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&given);
    let peer = Peer::start(move |number, line| match line.split(' ').next() {
        Some("ACCT") => {
            seen.fetch_or(1 << number, SeqCst);
            Some(Act::Say("230 fine\r\n"))
        }
        Some("STOR" | "RNTO") if seen.load(SeqCst) & (1 << number) == 0 => Some(Act::Say("532 need account\r\n")),
        Some("RNFR") => Some(Act::Say("350 to what?\r\n")),
        Some("RNTO") => Some(Act::Say("250 done\r\n")),
        _ => None,
    })
    .await;
    let mut with = single();
    with.ftp.account = Some(Secret::new("sales-7"));
    let transport = peer.connect_with(with.clone()).await.unwrap();
    write(&*transport, WriteMode::CREATE).await.unwrap();
    let mode = WriteMode::Create { mode: None, length: Some(10) };
    write(&*transport, mode).await.unwrap();
    let transport = peer.connect_with(with).await.unwrap();
    transport.rename(&path("/a"), &path("/b"), Replace::Yes, Durability::Cached).await.unwrap();
    assert_eq!(peer.heard("ACCT"), 2);

    let transport = peer.connect_with(single()).await.unwrap();
    let none = write(&*transport, WriteMode::CREATE).await.unwrap_err();
    assert!(none.chain().contains("532 need account"), "{}", none.chain());
    assert!(none.hint().is_some_and(|hint| hint.contains("--ftp-account")), "{}", none.chain());
}

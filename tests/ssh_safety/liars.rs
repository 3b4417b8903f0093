//! Servers that break the protocol: an error within the timeout, little taken from them, no panic, no loop.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use haul::transport::{ConnectOptions, SshEngine};
use haul::{Error, ErrorKind};
use russh::Preferred;

use super::middle::{Middle, Then};
use super::sshd::{Answers, Sshd};
use super::stub::{Stop, Stub};
use super::{ENGINES, LIMIT, assert_harmless, at_port, options, options_for, try_login, try_sftp};

/// More than a client ever takes before the login, with all that may lie in the sockets between.
const MOST_TAKEN: usize = 24 << 20;
const BANNER: &[u8] = b"SSH-2.0-liar\r\n";

/// Counts panics of any thread; `cargo nextest` runs each test in a process of its own.
fn count_panics() -> Arc<AtomicUsize> {
    let panics = Arc::new(AtomicUsize::new(0));
    let (counter, before) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        counter.fetch_add(1, Ordering::SeqCst);
        before(info);
    }));
    panics
}

/// Serves one connection by a script and counts what the client took.
struct Liar {
    port: u16,
    taken: Arc<AtomicUsize>,
}

struct Said {
    client: TcpStream,
    taken: Arc<AtomicUsize>,
}

impl Said {
    /// Says something; returns whether the client is still there.
    fn say(&mut self, bytes: &[u8]) -> bool {
        let said = self.client.write_all(bytes).is_ok();
        self.taken.fetch_add(if said { bytes.len() } else { 0 }, Ordering::SeqCst);
        said
    }

    fn say_for_ever(&mut self, bytes: &[u8]) {
        // Not a byte at a time.
        let many = bytes.repeat((64 << 10) / bytes.len() + 1);
        while self.say(&many) {}
    }

    /// Listens until the client has gone.
    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.client.read(&mut buffer), Ok(1..)) {}
    }
}

impl Liar {
    fn new(script: impl FnOnce(&mut Said) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        std::thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let mut said = Said { client, taken: counter };
            script(&mut said);
            said.listen();
        });
        Self { port, taken }
    }
}

/// An unencrypted packet (RFC 4253, section 6).
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 8 - (payload.len() + 5) % 8 + 4;
    let length = u32::try_from(payload.len() + padding + 1).unwrap();
    [&length.to_be_bytes()[..], &[padding as u8], payload, &vec![0; padding]].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// KEXINIT with these lists.
fn kexinit(lists: &[Vec<u8>; 10]) -> Vec<u8> {
    packet(&[&[20][..], &[7; 16], &lists.concat(), &[0; 5]].concat())
}

fn good_lists() -> [Vec<u8>; 10] {
    [
        "curve25519-sha256",
        "ssh-ed25519",
        "aes128-ctr",
        "aes128-ctr",
        "hmac-sha2-256",
        "hmac-sha2-256",
        "none",
        "none",
        "",
        "",
    ]
    .map(|names| string(names.as_bytes()))
}

fn with_list(at: usize, list: Vec<u8>) -> Vec<u8> {
    let mut lists = good_lists();
    lists[at] = list;
    kexinit(&lists)
}

async fn meet(engine: SshEngine, what: &str, script: impl FnOnce(&mut Said) + Send + 'static) -> Error {
    let liar = Liar::new(script);
    let folder = tempfile::tempdir().unwrap();
    let options = options(engine, "/nonexistent".into(), folder.path().join("known_hosts"));
    let options = ConnectOptions { timeout: LIMIT, ..options };
    let error = try_login(&at_port(liar.port), &options).await.unwrap_err();
    let taken = liar.taken.load(Ordering::SeqCst);
    assert!(taken < MOST_TAKEN, "{engine:?}, {what}: took {taken} bytes");
    assert!(
        matches!(
            error.kind(),
            ErrorKind::Protocol | ErrorKind::ConnectionLost | ErrorKind::Timeout | ErrorKind::Unsupported
        ),
        "{engine:?}, {what}: {}",
        error.chain()
    );
    assert_harmless(&error);
    assert!(!folder.path().join("known_hosts").exists(), "{engine:?}, {what}: a key was filed");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn greetings_that_are_none() {
    let panics = count_panics();
    for engine in ENGINES {
        for (what, greeting) in [
            ("HTTP", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()),
            ("version 1", b"SSH-1.5-ancient\r\n".to_vec()),
            ("NUL", b"SSH-2.0-\0\0\0\r\n\0\0\0\0".to_vec()),
            ("escapes", b"SSH-2.0-\x1b[2J\x07\xe2\x80\xae\r\n\x1b]0;x\x07\r\n".to_vec()),
            ("no text", vec![0xff; 300]),
            ("a long line", [b"SSH-2.0-".as_slice(), &vec![b'x'; 100_000], b"\r\n"].concat()),
            ("nothing but line ends", b"\r\n".repeat(1000)),
        ] {
            meet(engine, what, move |said| {
                said.say(&greeting);
            })
            .await;
        }
        for (what, bytes) in [
            ("a greeting without an end", b"x".as_slice()),
            ("an identification without an end", b"SSH-2.0-x"),
            ("lines for ever", b"Welcome to the server!\r\n"),
            ("empty lines for ever", b"\r\n"),
            ("zeroes for ever", b"\0"),
        ] {
            meet(engine, what, move |said| said.say_for_ever(bytes)).await;
        }
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_absurd_lengths() {
    let panics = count_panics();
    for engine in ENGINES {
        for length in [0u32, 1, 3, 5, 8, 35_001, 300_000, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            for padding in [0u8, 4, 255] {
                meet(engine, &format!("length {length}, padding {padding}"), move |said| {
                    said.say(BANNER);
                    said.say(&length.to_be_bytes());
                    said.say(&[padding]);
                    said.say_for_ever(&[20]);
                })
                .await;
            }
        }
        for padding in [0, 3, 100, 255] {
            // Padding longer than the packet.
            meet(engine, "all padding", move |said| {
                said.say(BANNER);
                said.say(&[0, 0, 0, 12, padding, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            })
            .await;
        }
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_exchanges_of_absurd_lists() {
    let panics = count_panics();
    let claims = |length: u32| [&length.to_be_bytes()[..], b"curve25519-sha256"].concat();
    let many = string(b"a,".repeat(15_000).as_slice());
    for engine in ENGINES {
        for at in [0, 1, 2, 4, 6, 9] {
            for (what, list) in [
                ("nothing in common", string(b"\x1b[2Junknown,\xff\xfe")),
                ("a length behind the end", claims(u32::MAX)),
                ("a length past the packet", claims(100_000)),
                ("thousands of names", many.clone()),
                ("commas", string(&b",".repeat(3000))),
                ("one long name", string(&b"x".repeat(30_000))),
            ] {
                meet(engine, &format!("{what} in list {at}"), move |said| {
                    said.say(BANNER);
                    said.say(&with_list(at, list));
                })
                .await;
            }
        }
        for (what, packets) in [
            ("a cut KEXINIT", packet(&[20, 1, 2, 3])),
            ("an empty packet", packet(&[])),
            ("NEWKEYS at once", [kexinit(&good_lists()), packet(&[21])].concat()),
            ("a reply of nothing", [kexinit(&good_lists()), packet(&[31])].concat()),
            (
                "a reply of nonsense",
                [
                    kexinit(&good_lists()),
                    packet(&[&[31][..], &string(&[9; 51]), &string(&[9; 32]), &string(&[9; 83])].concat()),
                ]
                .concat(),
            ),
            ("a reply of zeroes", {
                let key = [string(b"ssh-ed25519"), string(&[0; 32])].concat();
                let signature = [string(b"ssh-ed25519"), string(&[0; 64])].concat();
                let reply = [&[31][..], &string(&key), &string(&[0; 32]), &string(&signature)].concat();
                [kexinit(&good_lists()), packet(&reply)].concat()
            }),
            ("KEXINIT again and again", kexinit(&good_lists()).repeat(1000)),
        ] {
            meet(engine, what, move |said| {
                said.say(BANNER);
                said.say(&packets);
            })
            .await;
        }
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_end_that_lead_nowhere() {
    let panics = count_panics();
    let ignore = packet(&[&[2][..], &string(&vec![b'x'; 30_000])].concat());
    let small = packet(&[&[2][..], &string(b"")].concat());
    let debug = packet(&[&[4, 1][..], &string(b"\x1b[2Jhello"), &string(b"")].concat());
    let unknown = packet(&[&[192][..], &vec![0; 30_000]].concat());
    let disordered = packet(&[&[52][..], &[0; 1000]].concat());
    for engine in ENGINES {
        for (what, flood) in [
            ("IGNORE", &ignore),
            ("small IGNORE", &small),
            ("DEBUG", &debug),
            ("unknown messages", &unknown),
            ("a login that nobody asked for", &disordered),
        ] {
            let first = flood.clone();
            meet(engine, &format!("{what} before KEXINIT"), move |said| {
                said.say(BANNER);
                said.say_for_ever(&first);
            })
            .await;
            let then = flood.clone();
            meet(engine, &format!("{what} behind KEXINIT"), move |said| {
                said.say(BANNER);
                said.say(&kexinit(&good_lists()));
                said.say_for_ever(&then);
            })
            .await;
        }
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

/// From some byte on, what a real server says is replaced by noise: in greeting, key exchange, login, channel.
#[tokio::test(flavor = "multi_thread")]
async fn noise_from_any_byte_on() {
    let panics = count_panics();
    let sshd = Sshd::start("");
    let address = SocketAddr::from(([127, 0, 0, 1], sshd.endpoint().port.unwrap()));
    for engine in ENGINES {
        let mut ends = 0;
        for after in (0..3000).step_by(97).chain([1, 41, 42, 43]) {
            let middle = Middle::open(move |_| (address, Then::Spoil(after))).await;
            let options = ConnectOptions { timeout: LIMIT, ..options_for(&sshd, engine) };
            match try_sftp(&at_port(middle.port), &options).await {
                Ok(()) => ends += 1,
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::Other, "{engine:?} after {after}: {}", error.chain());
                    assert_harmless(&error);
                }
            }
        }
        assert!(ends < 8, "{engine:?}: the noise came too late {ends} times");
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn giant_banners_and_goodbyes_are_cut_and_harmless() {
    let panics = count_panics();
    let sshd = Sshd::start("");
    std::fs::write(sshd.path("banner"), "\x1b[2J\u{202e}owned\r\n".repeat(2000)).unwrap();
    for engine in ENGINES {
        let prompt = Answers::secret("");
        let options = ConnectOptions { prompt: prompt.clone(), ..options_for(&sshd, engine) };
        try_login(&sshd.endpoint(), &options).await.unwrap();
        let notices = prompt.notices();
        assert_eq!(notices.len(), 1, "{engine:?}");
        assert!(notices[0].contains("owned") && notices[0].len() < 10_000, "{engine:?}: {}", notices[0].len());
        let shown = notices[0].replace('\n', "");
        assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{engine:?}: {shown:?}");
    }
    let text: &'static str = Box::leak(format!("go \x1b[2J\u{202e}{}", "away ".repeat(5000)).into_boxed_str());
    let stub = Stub::open(Stop::Goodbye(text), Preferred::DEFAULT).await;
    for engine in ENGINES {
        let options = ConnectOptions { timeout: Duration::from_secs(3), ..stub.options(engine) };
        let error = try_sftp(&at_port(stub.port), &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{engine:?}: {}", error.chain());
        assert_harmless(&error);
        if engine == SshEngine::Russh {
            assert!(error.chain().contains("go \\u{1b}[2J"), "{}", error.chain());
        }
    }
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

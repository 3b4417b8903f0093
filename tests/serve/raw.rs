//! FTP by hand: what no client does, or does by itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use haul::serve::{FtpTls, Protocol};

use crate::scene::{PASSWORD, Scene, USER, pattern, read, write};

pub(crate) struct Raw {
    control: BufReader<TcpStream>,
}

impl Raw {
    fn new(scene: &Scene) -> Self {
        Self::from("127.0.0.1", scene)
    }

    fn from(address: &str, scene: &Scene) -> Self {
        let mut raw = Self { control: BufReader::new(connect_from(address, scene.port())) };
        assert!(raw.reply().starts_with("220 "));
        raw
    }

    fn logged_in(scene: &Scene) -> Self {
        Self::logged_in_from("127.0.0.1", scene)
    }

    pub(crate) fn logged_in_from(address: &str, scene: &Scene) -> Self {
        let mut raw = Self::from(address, scene);
        raw.expect(&format!("USER {USER}"), 331);
        raw.expect(&format!("PASS {PASSWORD}"), 230);
        raw.expect("TYPE I", 200);
        raw
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.control.get_mut().write_all(bytes).unwrap();
    }

    /// Reads a whole reply; empty when the server is gone.
    pub(crate) fn reply(&mut self) -> String {
        let mut all = String::new();
        loop {
            let mut line = Vec::new();
            self.control.read_until(b'\n', &mut line).unwrap();
            let line = String::from_utf8_lossy(&line).into_owned();
            all += &line;
            if line.is_empty() || (line.as_bytes()[0].is_ascii_digit() && line.as_bytes()[3] == b' ') {
                return all;
            }
        }
    }

    pub(crate) fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    pub(crate) fn expect(&mut self, line: &str, code: u16) -> String {
        let reply = self.say(line);
        assert!(reply.starts_with(&code.to_string()), "{line}: {reply}");
        reply
    }

    pub(crate) fn passive(&mut self) -> TcpStream {
        let reply = self.expect("EPSV", 229);
        let port = reply.split('|').nth(3).unwrap().parse::<u16>().unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn get(&mut self, command: &str) -> Vec<u8> {
        let mut data = self.passive();
        self.expect(command, 150);
        let mut all = Vec::new();
        data.read_to_end(&mut all).unwrap();
        assert!(self.reply().starts_with("226 "));
        all
    }

    fn put(&mut self, command: &str, content: &[u8]) {
        let mut data = self.passive();
        self.expect(command, 150);
        data.write_all(content).unwrap();
        drop(data);
        assert!(self.reply().starts_with("226 "));
    }
}

fn plain() -> Scene {
    Scene::new(Protocol::Ftp(FtpTls::Allow))
}

#[test]
fn offsets_are_exact() {
    let scene = plain();
    write(&scene.served("f"), b"0123456789");
    let mut raw = Raw::logged_in(&scene);
    raw.expect("REST 4", 350);
    assert_eq!(raw.get("RETR f"), b"456789");
    assert_eq!(raw.get("RETR f"), b"0123456789");
    raw.expect("RANG 2 5", 350);
    assert_eq!(raw.get("RETR f"), b"2345");
    raw.expect("REST 3", 350);
    raw.put("STOR f", b"xyz");
    assert_eq!(read(&scene.served("f")), b"012xyz6789");
    raw.put("APPE f", b"!");
    raw.put("STOR g", b"short");
    raw.put("STOR f", b"short");
    assert_eq!(read(&scene.served("f")), b"short");
    for command in ["RETR f", "STOR f"] {
        raw.expect("REST 6", 350);
        raw.expect("EPSV", 229);
        raw.expect(command, 550);
    }
    raw.expect("REST 5", 350);
    assert_eq!(raw.get("RETR f"), b"");
}

#[test]
fn digests_are_computed_here() {
    let scene = plain();
    write(&scene.served("f 1 2"), b"123456789");
    let mut raw = Raw::logged_in(&scene);
    assert_eq!(raw.expect("XCRC f 1 2", 250).trim_end(), "250 cbf43926");
    assert_eq!(raw.expect("XCRC \"f 1 2\" 0 9", 250).trim_end(), "250 cbf43926");
    let part = raw.expect("XMD5 f 1 2 1 3", 250);
    raw.expect("OPTS HASH MD5", 200);
    raw.expect("RANG 1 2", 350);
    let hash = raw.expect("HASH f 1 2", 213);
    assert_eq!(hash.trim_end(), format!("213 MD5 1-2 {} f 1 2", part[4..].trim_end()));
    assert!(raw.expect("FEAT", 211).contains("HASH SHA-256;SHA-512;SHA-1;MD5*;CRC32"));
}

#[test]
fn commands_in_one_segment_are_obeyed_in_turn() {
    let scene = plain();
    write(&scene.served("f"), b"text");
    let mut raw = Raw::logged_in(&scene);
    raw.send(b"EPSV\r\nRETR f\r\n");
    let reply = raw.reply();
    let port = reply.split('|').nth(3).unwrap().parse::<u16>().unwrap();
    let mut data = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut text = String::new();
    data.read_to_string(&mut text).unwrap();
    raw.send(b"EPSV\r\n");
    assert_eq!(text, "text");
    assert!(raw.reply().starts_with("150 "));
    assert!(raw.reply().starts_with("226 "));
    assert!(raw.reply().starts_with("229 "));
}

#[test]
fn an_abort_leaves_the_session_in_step() {
    let scene = plain();
    write(&scene.served("big"), &pattern(64 << 20));
    let mut raw = Raw::logged_in(&scene);
    let mut data = raw.passive();
    raw.expect("RETR big", 150);
    let mut some = [0; 1000];
    data.read_exact(&mut some).unwrap();
    raw.send(b"\xff\xf4\xff\xf2ABOR\r\n");
    assert!(raw.reply().starts_with("426 "));
    assert!(raw.reply().starts_with("226 "));
    raw.expect("NOOP", 200);
    // Before the data connection is made, too.
    raw.expect("EPSV", 229);
    raw.expect("RETR big", 150);
    raw.expect("ABOR", 426);
    assert!(raw.reply().starts_with("226 "));
    raw.expect("ABOR", 226);
    assert_eq!(raw.get("NLST"), b"big\r\n");
}

#[test]
fn type_a_turns_line_ends() {
    let scene = plain();
    write(&scene.served("f"), b"a\nb\n");
    let mut raw = Raw::logged_in(&scene);
    raw.expect("TYPE A", 200);
    assert_eq!(raw.get("RETR f"), b"a\r\nb\r\n");
    raw.put("STOR g", b"a\r\nb\rc");
    assert_eq!(read(&scene.served("g")), b"a\nb\rc");
    raw.expect("SIZE f", 550);
    raw.expect("REST 1", 350);
    raw.expect("RETR f", 504);
}

#[test]
fn strangers_and_other_addresses_are_refused() {
    let scene = plain();
    let mut raw = Raw::logged_in(&scene);
    raw.expect("PORT 127,0,0,2,100,100", 504);
    raw.expect("PORT 127,0,0,1,0,22", 504);
    raw.expect("EPRT |1|192.0.2.1|9999|", 504);
    raw.expect("RETR nothing", 550);
    // Only the control connection's address may make the data connection.
    write(&scene.served("f"), b"text");
    let reply = raw.expect("EPSV", 229);
    let port = reply.split('|').nth(3).unwrap().parse::<u16>().unwrap();
    raw.expect("RETR f", 150);
    let mut stranger = connect_from("127.0.0.2", port);
    let mut text = String::new();
    let _ = stranger.read_to_string(&mut text);
    assert_eq!(text, "");
    TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    assert!(raw.reply().starts_with("226 "));
}

pub(crate) fn connect_from(address: &str, port: u16) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(format!("127.0.0.1:{port}").parse().unwrap()).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    })
}

#[test]
fn nothing_goes_before_the_login() {
    let scene = plain();
    let mut raw = Raw::new(&scene);
    for command in ["PWD", "LIST", "RETR f", "EPSV", "STOR f", "DELE f", "RNTO x", "SITE CHMOD 777 f", "MLST", "STAT"] {
        raw.expect(command, 530);
    }
    raw.expect("PASS x", 503);
    raw.expect("USER nobody", 331);
    raw.expect(&format!("PASS {PASSWORD}"), 530);
    raw.expect("PROT P", 503);
    raw.expect("PWD", 530);
}

#[test]
fn guessing_passwords_is_locked_out() {
    let scene = plain();
    let start = Instant::now();
    let last = (0..20).map(|_| {
        let mut raw = Raw::new(&scene);
        raw.expect(&format!("USER {USER}"), 331);
        raw.say("PASS guess")
    });
    let locked = last.take_while(|reply| !reply.starts_with("421 ")).count();
    assert!(locked <= 6, "{locked} guesses");
    assert!(start.elapsed() > Duration::from_secs(3), "the answers come too fast");
    let mut raw = Raw::new(&scene);
    raw.expect(&format!("USER {USER}"), 331);
    raw.expect(&format!("PASS {PASSWORD}"), 421);
    // That is between the server and that address.
    Raw::logged_in_from("127.0.0.2", &scene).expect("PWD", 257);
}

#[test]
fn bytes_before_tls_end_the_session() {
    let scene = plain();
    let mut raw = Raw::new(&scene);
    raw.send(b"AUTH TLS\r\nUSER evil\r\n");
    assert!(raw.reply().starts_with("503 "));
    assert_eq!(raw.reply(), "");
}

#[test]
fn endless_lines_end_the_session() {
    let scene = plain();
    let mut raw = Raw::new(&scene);
    raw.send(&vec![b'x'; 20_000]);
    assert!(raw.reply().starts_with("500 "));
    let scene = Scene::with(Protocol::Ftp(FtpTls::Off), |o| o.idle_timeout = Duration::from_millis(200));
    let mut raw = Raw::new(&scene);
    assert!(raw.reply().starts_with("421 "));
}

#[test]
fn too_many_clients_are_turned_away() {
    let scene = Scene::with(Protocol::Ftp(FtpTls::Off), |o| o.max_sessions = 2);
    let (_one, two) = (Raw::logged_in(&scene), Raw::logged_in(&scene));
    let stream = TcpStream::connect(("127.0.0.1", scene.port())).unwrap();
    let mut third = Raw { control: BufReader::new(stream) };
    assert!(third.reply().starts_with("421 "));
    drop(two);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stream = TcpStream::connect(("127.0.0.1", scene.port())).unwrap();
        if (Raw { control: BufReader::new(stream) }).reply().starts_with("220 ") {
            break;
        }
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn links_that_lead_out_are_shown_and_not_followed() {
    let scene = plain();
    std::os::unix::fs::symlink(scene.outside.path(), scene.served("d")).unwrap();
    let mut raw = Raw::logged_in(&scene);
    assert!(String::from_utf8_lossy(&raw.get("MLSD")).contains("type=OS.unix=slink:"));
    for command in ["CWD d", "MLSD d", "SIZE d/secret", "MDTM d/secret", "DELE d/secret", "MKD d/x", "RETR d/secret"] {
        assert!(raw.say(command).starts_with("550 "), "{command}");
    }
    raw.expect("STOR d/secret", 550);
    write(&scene.served("f"), b"f");
    raw.expect("RNFR f", 350);
    raw.expect("RNTO d/f", 550);
    raw.expect("RNFR d/secret", 550);
    raw.expect("CWD ../../..", 250);
    assert!(raw.expect("PWD", 257).contains("\"/\""));
    assert_eq!(read(&scene.outside.path().join("secret")), b"secret");
}

#[test]
fn stopping_ends_transfers_and_frees_the_port() {
    let mut scene = plain();
    write(&scene.served("big"), &pattern(64 << 20));
    let mut raw = Raw::logged_in(&scene);
    let mut data = raw.passive();
    raw.expect("RETR big", 150);
    let mut some = [0; 1000];
    data.read_exact(&mut some).unwrap();
    let port = scene.port();
    let start = Instant::now();
    scene.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(raw.reply(), "");
}

//! SOCKS 5 (RFC 1928), with user and password (RFC 1929). Names are resolved by the proxy.
//!
//! Nothing is sent before the answer to what came before: servers that read a greeting and what follows it at once lose
//! that. Nothing is read beyond an answer either: what follows is the host's.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::proxy::LONGEST;
use super::{shown, within};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Secret;

const VERSION: u8 = 5;
/// The version of the login (RFC 1929).
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
const CONNECT: u8 = 1;

/// Has the proxy connect to a host; returns how long that last step took. Each step has `limit`.
///
/// # Errors
/// `AuthFailed`; `PermissionDenied` and `ConnectionRefused` as the proxy says; `Unsupported`; `Timeout`; `Protocol` for
/// what is no SOCKS 5; `ConnectionLost`; `Usage` for a host that is longer than 255 bytes.
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    login: Option<&(String, Secret)>,
    (host, port): (&str, u16),
    limit: Duration,
) -> Result<Duration> {
    let request = request(host, port)?;
    let method = within(limit, "greeting", greet(stream, login.is_some())).await??;
    match (method, login) {
        (NO_LOGIN, _) => {}
        (PASSWORD, Some((user, password))) => within(limit, "login", log_in(stream, user, password)).await??,
        (0xff, None) => {
            return Err(Error::new(ErrorKind::AuthFailed, "login: the proxy wants one")
                .with_hint("name it in the proxy's URL: socks5h://user:password@host:port"));
        }
        (0xff, Some(_)) => {
            return Err(Error::new(ErrorKind::AuthFailed, "login: the proxy takes no password"));
        }
        _ => return Err(protocol("greeting")),
    }
    let phase = format!("open a connection to {}", shown(host, port));
    let began = Instant::now();
    within(limit, &phase, open(stream, &request)).await?.map_err(|e| e.context(&phase))?;
    Ok(began.elapsed())
}

async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), has_login: bool) -> Result<u8> {
    let methods: &[u8] = if has_login { &[NO_LOGIN, PASSWORD] } else { &[NO_LOGIN] };
    let greeting = [&[VERSION, methods.len() as u8], methods].concat();
    let lost = |e| Error::io("greeting", e);
    stream.write_all(&greeting).await.map_err(lost)?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.map_err(lost)?;
    if answer[0] == VERSION { Ok(answer[1]) } else { Err(protocol("greeting")) }
}

async fn log_in(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), user: &str, password: &Secret) -> Result<()> {
    let password = password.expose();
    let mut message = Zeroizing::new(Vec::with_capacity(3 + user.len() + password.len()));
    message.extend([LOGIN_VERSION, user.len() as u8]);
    message.extend(user.bytes());
    message.push(password.len() as u8);
    message.extend(password.bytes());
    let lost = |e| Error::io("login", e);
    stream.write_all(&message).await.map_err(lost)?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.map_err(lost)?;
    // Not every proxy gets the version right, and curl doesn't mind either.
    if answer[1] == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::AuthFailed, "login: the proxy refuses user or password")
        .with_hint("check user and password in the proxy's URL; write : @ / % in them as %3A %40 %2F %25"))
}

fn request(host: &str, port: u16) -> Result<Vec<u8>> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => request.extend([&[1], &address.octets()[..]].concat()),
        Ok(IpAddr::V6(address)) => request.extend([&[4], &address.octets()[..]].concat()),
        Err(_) if host.len() > LONGEST => {
            return Err(Error::new(ErrorKind::Usage, "SOCKS carries no host name of more than 255 bytes"));
        }
        Err(_) => request.extend([&[3, host.len() as u8], host.as_bytes()].concat()),
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

async fn open(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> Result<()> {
    let lost = |e| Error::io("the proxy's answer", e);
    stream.write_all(request).await.map_err(lost)?;
    // Some say no more than this when they refuse.
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.map_err(lost)?;
    match answer {
        [VERSION, 0] => {}
        [VERSION, reason] => return Err(refusal(reason)),
        _ => return Err(protocol("the proxy's answer")),
    }
    // From where it connected: of no interest, but for its length. The byte behind the kind belongs to every kind.
    let mut from = [0; 3];
    stream.read_exact(&mut from).await.map_err(lost)?;
    let rest = match from[1] {
        1 => 4 + 2 - 1,
        3 => usize::from(from[2]) + 2,
        4 => 16 + 2 - 1,
        _ => return Err(protocol("the proxy's answer")),
    };
    stream.read_exact(&mut [0; LONGEST + 2][..rest]).await.map_err(lost)?;
    Ok(())
}

/// The map from SOCKS's reasons (RFC 1928, section 6) to kinds.
fn refusal(reason: u8) -> Error {
    let (kind, text) = match reason {
        1 => (ErrorKind::ConnectionRefused, "the proxy can't".to_owned()),
        2 => {
            return Error::new(ErrorKind::PermissionDenied, "the proxy's rules forbid it")
                .with_hint("many proxies let some ports through only; --proxy none and NO_PROXY go without");
        }
        3 => (ErrorKind::ConnectionRefused, "network unreachable from the proxy".to_owned()),
        4 => (ErrorKind::ConnectionRefused, "host unreachable from the proxy, or unknown there".to_owned()),
        5 => (ErrorKind::ConnectionRefused, "connection refused".to_owned()),
        6 => (ErrorKind::Timeout, "the proxy got no answer in time".to_owned()),
        7 => (ErrorKind::Unsupported, "the proxy doesn't make connections".to_owned()),
        8 => (ErrorKind::Unsupported, "the proxy doesn't know this type of address".to_owned()),
        other => (ErrorKind::ConnectionRefused, format!("the proxy can't, reason {other}")),
    };
    Error::new(kind, text)
}

fn protocol(phase: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("{phase}: this is no SOCKS 5"))
        .with_hint("is it the proxy's port, and a SOCKS proxy? http:// is the scheme of HTTP proxies")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::duplex;

    const LIMIT: Duration = Duration::from_millis(50);
    const BANNER: &[u8] = b"SSH-2.0-x\r\n";

    /// Lets a proxy say this and close, and returns what came of it, what was sent, and what was left to read.
    fn told(answers: &[u8], login: Option<(&str, &str)>) -> (Result<()>, Vec<u8>, Vec<u8>) {
        let login = login.map(|(user, password)| (user.to_owned(), Secret::new(password)));
        let (mut sent, mut answers) = (Vec::new(), answers);
        let mut stream = tokio::io::join(&mut answers, &mut sent);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let connecting = connect(&mut stream, login.as_ref(), ("host.example", 22), LIMIT);
        let outcome = runtime.block_on(connecting).map(drop);
        (outcome, sent, answers.to_vec())
    }

    #[test]
    fn says_what_the_standard_says_and_leaves_the_rest_to_the_host() {
        for from in [&[1, 127, 0, 0, 1][..], &[3, 2, b'h', b'i'], &[3, 0], &[4; 17]] {
            let answers = [&[5, 0, 5, 0, 0], from, &[0x1f, 0x90], BANNER].concat();
            let (outcome, sent, left) = told(&answers, None);
            outcome.unwrap();
            assert_eq!(sent, [b"\x05\x01\x00\x05\x01\x00\x03\x0chost.example", &[0u8, 22][..]].concat());
            assert_eq!(left, BANNER, "{from:?}");
        }
        let (outcome, sent, _) = told(&[&[5, 2, 1, 0, 5, 0, 0, 1][..], &[0; 6]].concat(), Some(("me", "p\u{e4}ss")));
        outcome.unwrap();
        assert!(sent.starts_with("\u{5}\u{2}\u{0}\u{2}\u{1}\u{2}me\u{5}p\u{e4}ss".as_bytes()), "{sent:?}");
    }

    #[test]
    fn addresses_are_sent_as_such_and_names_as_they_are() {
        assert_eq!(request("127.0.0.1", 258).unwrap(), [5, 1, 0, 1, 127, 0, 0, 1, 1, 2]);
        let six = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 21]].concat();
        assert_eq!(request("::1", 21).unwrap(), six);
        assert_eq!(request("\u{e4}", 1).unwrap(), [5, 1, 0, 3, 2, 0xc3, 0xa4, 0, 1]);
        assert_eq!(request(&"x".repeat(256), 1).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn refusals_say_what_and_why() {
        let me = Some(("me", "hunter2"));
        for (answers, login, kind, words) in [
            (&[][..], None, ErrorKind::ConnectionLost, "greeting"),
            (&[5], None, ErrorKind::ConnectionLost, "greeting"),
            (b"HTTP/1.1 400 Bad Request\r\n", None, ErrorKind::Protocol, "no SOCKS 5"),
            (&[4, 0], None, ErrorKind::Protocol, "no SOCKS 5"),
            (&[5, 0xff], None, ErrorKind::AuthFailed, "wants one"),
            (&[5, 0xff], me, ErrorKind::AuthFailed, "takes no password"),
            // A login that was not offered, and one that nobody knows.
            (&[5, 2], None, ErrorKind::Protocol, "greeting"),
            (&[5, 1], me, ErrorKind::Protocol, "greeting"),
            (&[5, 2], me, ErrorKind::ConnectionLost, "login"),
            (&[5, 2, 1, 1], me, ErrorKind::AuthFailed, "refuses user or password"),
            (&[5, 0], None, ErrorKind::ConnectionLost, "open a connection to host.example:22"),
            (&[5, 0, 5, 0, 0, 1, 127], None, ErrorKind::ConnectionLost, "open a connection to host.example:22"),
            (&[5, 0, 4, 0], None, ErrorKind::Protocol, "no SOCKS 5"),
            (&[5, 0, 5, 0, 0, 2, 0], None, ErrorKind::Protocol, "no SOCKS 5"),
            (&[5, 0, 5, 2], None, ErrorKind::PermissionDenied, "rules"),
            (&[5, 0, 5, 5, 0, 1], None, ErrorKind::ConnectionRefused, "host.example:22: connection refused"),
            (&[5, 0, 5, 77], None, ErrorKind::ConnectionRefused, "reason 77"),
        ] {
            let error = told(answers, login).0.unwrap_err();
            assert_eq!(error.kind(), kind, "{answers:?}: {}", error.chain());
            assert!(error.message().contains(words), "{answers:?}: {}", error.chain());
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn a_silent_proxy_is_left_in_every_phase() {
        let login = ("me".to_owned(), Secret::new("hunter2"));
        for (answers, phase) in [
            (&[][..], "greeting: no answer for 0.05 s"),
            (&[5], "greeting: no answer for 0.05 s"),
            (&[5, 2], "login: no answer for 0.05 s"),
            (&[5, 2, 1, 0], "open a connection to host.example:22: no answer for 0.05 s"),
            (&[5, 0, 5, 0, 0, 3, 9, 0], "open a connection to host.example:22: no answer for 0.05 s"),
        ] {
            let (mut ours, mut theirs) = duplex(4096);
            theirs.write_all(answers).await.unwrap();
            let error = connect(&mut ours, Some(&login), ("host.example", 22), LIMIT).await.unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::Timeout, phase));
        }
    }

    proptest! {
        #[test]
        fn any_answer_ends_and_takes_no_more_than_its_own(answers in prop::collection::vec(any::<u8>(), 0..600)) {
            let (outcome, _, left) = told(&answers, Some(("u", "p")));
            prop_assert!(outcome.is_err() || answers.ends_with(&left));
        }
    }
}

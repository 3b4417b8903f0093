//! HTTP proxies: `CONNECT` (RFC 9110, section 9.3.6), with a login by `Basic` (RFC 7617).

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::{shown, within};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Secret, escape};

/// The longest header of an answer.
const LONGEST_HEADER: usize = 16 * 1024;
/// How much of an answer's first line is shown.
const SHOWN: usize = 200;

/// Has the proxy connect to a host; returns how long that took. All of it has `limit`.
///
/// # Errors
/// `AuthFailed` (407; some say 401); `PermissionDenied`, `ConnectionRefused`, `Timeout` as the proxy says; `Timeout`; `Protocol` for
/// what is no HTTP and for a header of more than 16 KiB; `ConnectionLost`; `Usage` for a host that is no host.
pub(super) async fn connect(
    tcp: &mut TcpStream,
    login: Option<&(String, Secret)>,
    (host, port): (&str, u16),
    limit: Duration,
) -> Result<Duration> {
    let request = request(host, port, login)?;
    let phase = format!("open a connection to {}", shown(host, port));
    let began = Instant::now();
    let opening = async {
        tcp.write_all(&request).await.map_err(lost)?;
        loop {
            let header = read_header(tcp).await?;
            match status(&header)? {
                // More will be said.
                (100..=199, _) => {}
                (200..=299, _) => return Ok(()),
                (code, words) => return Err(refusal(code, &words, login.is_some())),
            }
        }
    };
    within(limit, &phase, opening).await?.map_err(|e: Error| e.context(&phase))?;
    Ok(began.elapsed())
}

fn request(host: &str, port: u16, login: Option<&(String, Secret)>) -> Result<Zeroizing<Vec<u8>>> {
    let is_name = |c: char| !c.is_control() && !c.is_whitespace() && !"/@?#:[]".contains(c);
    if host.is_empty() || !(host.parse::<Ipv6Addr>().is_ok() || host.chars().all(is_name)) {
        let text = format!("\"{}\" is no host to name to an HTTP proxy", escape(host.as_bytes()));
        return Err(Error::new(ErrorKind::Usage, text));
    }
    let authority = shown(host, port);
    let mut request = Zeroizing::new(Vec::with_capacity(1024));
    request.extend(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").bytes());
    request.extend(concat!("User-Agent: haul/", env!("CARGO_PKG_VERSION"), "\r\n").bytes());
    if let Some((user, password)) = login {
        let plain = Zeroizing::new(format!("{user}:{}", password.expose()));
        let encoded = Zeroizing::new(STANDARD.encode(plain.as_bytes()));
        request.extend([b"Proxy-Authorization: Basic ", encoded.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    Ok(request)
}

/// Reads one header to its end and nothing behind it: that may be the host's first words already.
async fn read_header(tcp: &mut TcpStream) -> Result<Vec<u8>> {
    let mut header = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let seen = tcp.peek(&mut buffer).await.map_err(lost)?;
        if seen == 0 {
            return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let before = header.len();
        header.extend_from_slice(&buffer[..seen]);
        let end = header_length(&header);
        let taken = end.unwrap_or(header.len()) - before;
        tcp.read_exact(&mut buffer[..taken]).await.map_err(lost)?;
        if let Some(end) = end {
            header.truncate(end);
            return Ok(header);
        }
        if header.len() > LONGEST_HEADER {
            return Err(Error::new(ErrorKind::Protocol, "the proxy's answer has no end"));
        }
        if !b"HTTP/".starts_with(&header[..header.len().min(5)]) {
            return Err(no_http());
        }
    }
}

/// Returns the length of a header with the empty line behind it; `None` while that isn't there. Bare line feeds are let
/// pass (RFC 9112, section 2.2).
fn header_length(bytes: &[u8]) -> Option<usize> {
    let line_feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let mut start = 0;
    for at in line_feeds {
        let line = &bytes[start..at];
        if start > 0 && (line.is_empty() || line == b"\r") {
            return Some(at + 1);
        }
        start = at + 1;
    }
    None
}

/// Reads the first line of a header: the status, and the words for people.
fn status(header: &[u8]) -> Result<(u16, String)> {
    let line = header.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let rest = line.strip_prefix(b"HTTP/1.").ok_or_else(no_http)?;
    let code = rest.get(1..).and_then(|rest| rest.strip_prefix(b" ")).and_then(|rest| rest.get(..3));
    let code = code.filter(|code| code.iter().all(u8::is_ascii_digit)).ok_or_else(no_http)?;
    let code = code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    Ok((code, escape(&line[..line.len().min(SHOWN)])))
}

/// The map from statuses to kinds.
fn refusal(code: u16, words: &str, has_login: bool) -> Error {
    let said = |kind, what: &str| Error::new(kind, format!("{what}: {words}"));
    match (code, has_login) {
        (401 | 407, true) => said(ErrorKind::AuthFailed, "the proxy refuses user or password")
            .with_hint("check user and password in the proxy's URL; write : @ / % in them as %3A %40 %2F %25"),
        (401 | 407, false) => said(ErrorKind::AuthFailed, "the proxy wants a login")
            .with_hint("name it in the proxy's URL: http://user:password@host:port"),
        (400 | 402 | 403 | 405, _) => said(ErrorKind::PermissionDenied, "the proxy refuses")
            .with_hint("many HTTP proxies let some ports through only, and FTP needs any for data"),
        (408 | 504, _) => said(ErrorKind::Timeout, "the proxy got no answer in time"),
        _ => said(ErrorKind::ConnectionRefused, "the proxy can't"),
    }
}

fn lost(error: std::io::Error) -> Error {
    Error::io("the proxy's answer", error)
}

fn no_http() -> Error {
    Error::new(ErrorKind::Protocol, "this is no HTTP")
        .with_hint("is it the proxy's port, and an HTTP proxy? socks5h:// is the scheme of SOCKS proxies")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Lets a proxy say these, piece by piece, and returns what came of it, what it heard, and what was left to read.
    async fn told(pieces: &[&[u8]], login: Option<(&str, &str)>, limit: Duration) -> (Result<()>, String, Vec<u8>) {
        let login = login.map(|(user, password)| (user.to_owned(), Secret::new(password)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        theirs.set_nodelay(true).unwrap();
        let saying = async {
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                heard.push(theirs.read_u8().await.unwrap());
            }
            for piece in pieces {
                let _ = theirs.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = theirs.shutdown().await;
            (String::from_utf8(heard).unwrap(), theirs)
        };
        let connecting = connect(&mut ours, login.as_ref(), ("host.example", 21), limit);
        let ((heard, _theirs), outcome) = tokio::join!(saying, connecting);
        let mut left = Vec::new();
        if outcome.is_ok() {
            ours.read_to_end(&mut left).await.unwrap();
        }
        (outcome.map(drop), heard, left)
    }

    #[tokio::test]
    async fn what_follows_the_header_is_the_host_s() {
        for pieces in [
            &[&b"HTTP/1.1 200 OK\r\n\r\n220 hello\r\n"[..]][..],
            &[b"HTTP/1.0 200\nx: y\n\n220 hello\r\n"],
            &[b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n220 hello\r\n"],
            &[b"HT", b"TP/1.1 200 OK\r", b"\n\r", b"\n2", b"20 hello\r\n"],
            &[b"HTTP/1.1 204 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n220 hello\r\n"],
        ] {
            let (outcome, heard, left) = told(pieces, None, LIMIT).await;
            outcome.unwrap();
            assert_eq!(left, b"220 hello\r\n", "{pieces:?}");
            assert!(heard.starts_with("CONNECT host.example:21 HTTP/1.1\r\nHost: host.example:21\r\n"), "{heard}");
            assert!(!heard.contains("Authorization"));
        }
        let (_, heard, _) = told(&[b"HTTP/1.1 200 OK\r\n\r\n"], Some(("me", "hunter2")), LIMIT).await;
        assert!(heard.contains("\r\nProxy-Authorization: Basic bWU6aHVudGVyMg==\r\n"), "{heard}");
    }

    #[tokio::test]
    async fn refusals_say_what_and_why() {
        let me = Some(("me", "hunter2"));
        let endless = [&b"HTTP/1.1 200 OK\r\n"[..], &b"x: y\r\n".repeat(4000)].concat();
        for (answer, login, kind, words) in [
            (&b""[..], None, ErrorKind::ConnectionLost, "open a connection to host.example:21"),
            (b"HTTP/1.1 200 OK\r\n", None, ErrorKind::ConnectionLost, "open a connection to host.example:21"),
            (
                b"HTTP/1.1 407 Sign\x1b[2J in\r\n\r\n",
                None,
                ErrorKind::AuthFailed,
                "wants a login: HTTP/1.1 407 Sign\\u{1b}",
            ),
            (b"HTTP/1.1 407 No\r\n\r\n", me, ErrorKind::AuthFailed, "refuses user or password"),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", me, ErrorKind::PermissionDenied, "403 Forbidden"),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", me, ErrorKind::ConnectionRefused, "502 Bad Gateway"),
            (b"HTTP/1.1 504 Late\r\n\r\n", me, ErrorKind::Timeout, "504 Late"),
            (b"HTTP/1.1 x\r\n\r\n", me, ErrorKind::Protocol, "no HTTP"),
            (b"SSH-2.0-x\r\n", me, ErrorKind::Protocol, "no HTTP"),
            (b"\x05\xff", me, ErrorKind::Protocol, "no HTTP"),
            (&endless, me, ErrorKind::Protocol, "has no end"),
        ] {
            let error = told(&[answer], login, LIMIT).await.0.unwrap_err();
            assert_eq!(error.kind(), kind, "{}", error.chain());
            assert!(error.message().contains(words), "{}", error.chain());
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn hosts_are_named_as_urls_name_them_and_smuggle_nothing_in() {
        let said = |host: &str| request(host, 21, None).map(|request| String::from_utf8(request.to_vec()).unwrap());
        assert!(said("::1").unwrap().starts_with("CONNECT [::1]:21 HTTP/1.1\r\nHost: [::1]:21\r\n"));
        for bad in ["", "a b", "a\r\nX: y", "a/b", "a@b", "a:1", "[::1]"] {
            assert_eq!(said(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_header_ends_at_the_first_empty_line(lines in prop::collection::vec("[a-zA-Z0-9 /.:]{1,20}", 1..6), behind: Vec<u8>) {
            let header = lines.join("\r\n") + "\r\n\r\n";
            let all = [header.as_bytes(), &behind].concat();
            prop_assert_eq!(header_length(&all), Some(header.len()));
            prop_assert_eq!(header_length(&all[..header.len() - 1]), None);
        }

        #[test]
        fn any_header_is_read_or_refused(bytes: Vec<u8>, code in 0u16..1000, words in "[ -~]{0,300}") {
            let _ = (header_length(&bytes), status(&bytes));
            let (read, shown) = status(format!("HTTP/1.1 {code:03} {words}\r\n\r\n").as_bytes()).unwrap();
            prop_assert!(read == code && shown.len() <= SHOWN);
        }
    }
}

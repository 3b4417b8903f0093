//! A proxy, SOCKS 5 or HTTP, that knows one host by an address and a name that nobody else knows.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

/// The name that the proxy knows.
pub const NAME: &str = "server.invalid";
/// The address that the proxy takes for the servers' own, where nobody listens. Certificates and known_hosts name it.
pub const ADDRESS: &str = "127.0.0.33";
/// Where the proxy's connections come from.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 41);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Socks,
    Http,
}

/// A running proxy; dropped, it is gone.
pub struct Proxy {
    kind: Kind,
    login: Option<(&'static str, &'static str)>,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
    runtime: Option<Runtime>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Proxy {
    pub fn start(kind: Kind, login: Option<(&'static str, &'static str)>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&asked);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    client.set_nodelay(true).unwrap();
                    // The client going away is part of some tests.
                    let _ = match kind {
                        Kind::Socks => socks(client, login, &log).await,
                        Kind::Http => http(client, login, &log).await,
                    };
                });
            }
        });
        Self { kind, login, address, asked, runtime: Some(runtime) }
    }

    /// Returns its URL with the login.
    pub fn url(&self) -> String {
        let login = self.login.map(|(user, password)| format!("{user}:{password}@")).unwrap_or_default();
        self.url_with(&login)
    }

    pub fn url_with(&self, login: &str) -> String {
        let scheme = if self.kind == Kind::Socks { "socks5h" } else { "http" };
        format!("{scheme}://{login}{}", self.address)
    }

    /// Returns which hosts and ports were asked for.
    pub fn asked(&self) -> Vec<(String, u16)> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns how often a port of this host was asked for, and asserts that no other host was.
    pub fn count(&self, host: &str, is_wanted: impl Fn(u16) -> bool) -> usize {
        let asked = self.asked();
        assert!(asked.iter().all(|(asked, _)| asked == host), "{asked:?}");
        asked.iter().filter(|(_, port)| is_wanted(*port)).count()
    }
}

/// Connects to what was asked for: the host that only we know, or any address.
async fn reach(host: &str, port: u16, log: &Mutex<Vec<(String, u16)>>) -> std::io::Result<TcpStream> {
    log.lock().unwrap().push((host.to_owned(), port));
    let address = match host {
        NAME | ADDRESS => Ipv4Addr::LOCALHOST.into(),
        _ => host.parse().map_err(|_| std::io::ErrorKind::NotFound)?,
    };
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(PROXY.into(), 0))?;
    let server = socket.connect(SocketAddr::new(address, port)).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

async fn socks(
    mut client: TcpStream,
    login: Option<(&str, &str)>,
    log: &Mutex<Vec<(String, u16)>>,
) -> std::io::Result<()> {
    if client.read_u8().await? != 5 {
        return Ok(());
    }
    let methods = read(&mut client).await?;
    let wanted = if login.is_some() { 2 } else { 0 };
    let method = if methods.contains(&wanted) { wanted } else { 0xff };
    client.write_all(&[5, method]).await?;
    if let (2, Some((user, password))) = (method, login) {
        assert_eq!(client.read_u8().await?, 1);
        let given = (read(&mut client).await?, read(&mut client).await?);
        let is_right = given == (user.into(), password.into());
        client.write_all(&[1, u8::from(!is_right)]).await?;
        if !is_right {
            return Ok(());
        }
    }
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    assert_eq!(request[..3], [5, 1, 0]);
    let host = match request[3] {
        1 => Ipv4Addr::from(client.read_u32().await?).to_string(),
        3 => String::from_utf8(read(&mut client).await?).unwrap(),
        _ => std::net::Ipv6Addr::from(client.read_u128().await?).to_string(),
    };
    let port = client.read_u16().await?;
    match reach(&host, port, log).await {
        Ok(mut server) => {
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => client.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).await,
        Err(_) => client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await,
    }
}

/// Reads bytes behind their number.
async fn read(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn http(
    mut client: TcpStream,
    login: Option<(&str, &str)>,
    log: &Mutex<Vec<(String, u16)>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    let request = String::from_utf8(request).unwrap();
    let mut words = request.lines().next().unwrap().split(' ');
    assert_eq!(words.next(), Some("CONNECT"));
    let (host, port) = words.next().unwrap().rsplit_once(':').unwrap();
    if let Some((user, password)) = login {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        if !request.contains(&format!("\r\nProxy-Authorization: Basic {encoded}\r\n")) {
            return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").await;
        }
    }
    match reach(host, port.parse().unwrap(), log).await {
        Ok(mut server) => {
            let mut answer = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n".to_vec();
            // The first words of a server that speaks first come in one piece with the header.
            let mut words = [0; 512];
            if let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(50), server.read(&mut words)).await {
                answer.extend_from_slice(&words[..length]);
            }
            client.write_all(&answer).await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
        Err(_) => client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await,
    }
}

//! The scripted peer: an FTP server that behaves, except where a test tells it not to.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haul::Result;
use haul::endpoint::Endpoint;
use haul::transport::{ConnectOptions, TlsMode, TlsPin, Transport};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What the peer does about one command.
pub(crate) enum Act {
    /// Says this.
    Say(&'static str),
    /// Says the first, and the second a moment later.
    SayThen(&'static str, &'static str),
    /// Opens with a 150, sends these bytes on the data connection, and ends with this; with "", never.
    Send(&'static [u8], &'static str),
    /// The same, but ends the data connection without TLS's close_notify.
    Tear(&'static [u8], &'static str),
    /// Opens with a 150 and sends the bytes so often; then ends with a 226.
    Flood(&'static [u8], usize),
    /// Opens with a 150, reads the data connection to its end, and ends with this.
    Take(&'static str),
    /// Opens with a 150, sends these bytes on the data connection, and then nothing happens any more.
    Stall(&'static [u8]),
    /// The same, before the TLS handshake of the data connection.
    NoHandshake,
    /// Opens with a 150, takes the data connection, and reads nothing.
    Deaf,
    /// Opens with a 150 and lets somebody else connect for data, who sends these bytes; then itself, if it has any, too.
    Impostor(&'static [u8], &'static [u8]),
    /// Agrees to TLS and says nothing any more.
    NoTls,
    /// The same as `Say` and `Send`, of what isn't known before.
    Tell(String),
    Give(Vec<u8>, End),
    /// Opens with a 150, reads so many bytes of the data connection, hands them over, and ends.
    Keep(usize, Box<dyn FnOnce(Vec<u8>) + Send>, End),
    /// Says this again and again.
    Repeat(&'static str),
    /// Says this again and again, with pauses.
    Drip(&'static str, Duration),
    /// Says this and closes the connection.
    Part(&'static str),
    /// Closes the connection.
    HangUp,
    /// Says nothing.
    Silence,
}

/// How a transfer ends on the control connection.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// With these words.
    Says(&'static str),
    /// With these words before the data has ended; of an upload, what comes behind them is read and lost.
    Early(&'static str),
    /// With these words, and the connection is closed, too.
    Parts(&'static str),
    /// Never.
    Never,
}

/// A server on a loopback port that lives as long as the test.
pub(crate) struct Peer {
    pub(crate) port: u16,
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
    tls: Option<Arc<Tls>>,
}

/// TLS as a peer speaks it.
pub(crate) struct Tls {
    pub(crate) implicit: bool,
    pub(crate) control: Identity,
    /// Of data connections; usually the same.
    pub(crate) data: Identity,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    /// Authorities of clients' certificates, which are then demanded.
    pub(crate) clients: Option<rustls::RootCertStore>,
    /// Whose handshakes there were: the number of the login, what for, and whether a session was resumed.
    pub(crate) handshakes: Mutex<Vec<(usize, &'static str, HandshakeKind)>>,
    pub(crate) folder: tempfile::TempDir,
}

/// A certificate of its own authority, and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: Vec<u8>,
    pub(crate) pem: String,
    pub key_pem: String,
    pub(crate) pin: TlsPin,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: key.serialize_der(),
            pin: TlsPin::new(Sha256::digest(key.subject_public_key_info()).into()),
            certificate: certificate.into(),
        }
    }
}

impl Tls {
    /// Explicit TLS of both versions, with one certificate.
    pub(crate) fn new() -> Self {
        let identity = Identity::new();
        Self {
            implicit: false,
            data: identity.clone(),
            control: identity,
            versions: rustls::ALL_VERSIONS.to_vec(),
            clients: None,
            handshakes: Mutex::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Settings of one login, which shares no sessions with others.
    fn config(&self, identity: &Identity) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&self.versions)
            .unwrap();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(identity.key.clone()).unwrap();
        builder.with_single_cert(vec![identity.certificate.clone()], key).unwrap()
    }
}

type Script = dyn Fn(usize, &str) -> Option<Act> + Send + Sync;

impl Peer {
    /// Starts a peer; `script` is given the number of the connection and the command, `""` for the greeting. Where it
    /// returns `None`, the peer behaves.
    pub(crate) async fn start(script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    /// The same with TLS.
    pub(crate) async fn start_tls(
        tls: Tls,
        script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(Arc::new(tls)), script).await
    }

    async fn start_with(
        tls: Option<Arc<Tls>>,
        script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let script: Arc<Script> = Arc::new(script);
        let (log, secure) = (Arc::clone(&heard), tls.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let Ok((socket, _)) = listener.accept().await else { return };
                let (log, script, tls) = (Arc::clone(&log), Arc::clone(&script), secure.clone());
                tokio::spawn(async move {
                    let session = Session::new(socket, number, tls);
                    // The client going away is part of some tests.
                    let _ = session.serve(&*script, &log).await;
                });
            }
        });
        Self { port, heard, tls }
    }

    pub(crate) async fn connect(&self) -> Result<Arc<dyn Transport>> {
        self.connect_with(ConnectOptions::default()).await
    }

    /// Connects, with a peer that has TLS by TLS, whose certificate is trusted.
    pub(crate) async fn connect_with(&self, mut options: ConnectOptions) -> Result<Arc<dyn Transport>> {
        options.tls_ca = self.ca();
        self.connect_exactly(options).await
    }

    /// Connects as the options say.
    pub(crate) async fn connect_exactly(&self, options: ConnectOptions) -> Result<Arc<dyn Transport>> {
        let scheme = if self.tls.as_ref().is_some_and(|tls| tls.implicit) { "ftps" } else { "ftp" };
        let url = format!("{scheme}://me:secret@127.0.0.1:{}/", self.port);
        haul::transport::connect(&Endpoint::parse(&url).unwrap(), &options).await
    }

    /// Returns the file of its certificates, if it has any.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        let tls = self.tls.as_ref()?;
        let file = tls.folder.path().join("ca.pem");
        std::fs::write(&file, format!("{}{}", tls.control.pem, tls.data.pem)).unwrap();
        Some(file)
    }

    pub(crate) fn heard(&self, verb: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|line| line.split(' ').next() == Some(verb)).count()
    }

    pub(crate) fn all_heard(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    pub(crate) fn tls(&self) -> &Tls {
        self.tls.as_deref().unwrap()
    }
}

/// Options that insist on TLS.
pub(crate) fn secure() -> ConnectOptions {
    ConnectOptions { tls: TlsMode::Require, ..ConnectOptions::default() }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// Where the next data connection comes from.
enum Data {
    None,
    Passive(TcpListener),
    Active(SocketAddr),
}

struct Session {
    control: BufReader<Box<dyn Duplex>>,
    number: usize,
    data: Data,
    tls: Option<Arc<Tls>>,
    configs: Option<(Arc<ServerConfig>, Arc<ServerConfig>)>,
    private: bool,
    /// Where the next file starts.
    rest: usize,
}

impl Session {
    fn new(socket: TcpStream, number: usize, tls: Option<Arc<Tls>>) -> Self {
        let configs = tls.as_ref().map(|tls| {
            let control = Arc::new(tls.config(&tls.control));
            // The same settings know the same sessions.
            let same = tls.control.certificate == tls.data.certificate;
            let data = if same { Arc::clone(&control) } else { Arc::new(tls.config(&tls.data)) };
            (control, data)
        });
        Self {
            control: BufReader::new(Box::new(socket)),
            number,
            data: Data::None,
            tls,
            configs,
            private: false,
            rest: 0,
        }
    }

    async fn serve(mut self, script: &Script, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
        let mut line = String::new();
        if self.tls.as_ref().is_some_and(|tls| tls.implicit) {
            self = self.secured().await?;
        }
        loop {
            let act = match script(self.number, &line) {
                Some(act) => act,
                None if line == "AUTH TLS" && self.tls.is_some() => {
                    self.control.write_all(b"234 go\r\n").await?;
                    self = self.secured().await?;
                    line.clear();
                    self.read(&mut line, heard).await?;
                    continue;
                }
                None => self.behave(&line).await?,
            };
            if !self.act(act).await? {
                return Ok(());
            }
            line.clear();
            if self.read(&mut line, heard).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn read(&mut self, line: &mut String, heard: &Mutex<Vec<String>>) -> std::io::Result<usize> {
        let count = self.control.read_line(line).await?;
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        if count > 0 {
            heard.lock().unwrap().push(line.clone());
        }
        Ok(count)
    }

    /// Goes on under TLS.
    async fn secured(mut self) -> std::io::Result<Self> {
        let (config, _) = self.configs.clone().unwrap();
        let control = TlsAcceptor::from(config).accept(self.control.into_inner()).await?;
        self.tls.as_ref().unwrap().note(self.number, "control", control.get_ref().1.handshake_kind());
        self.control = BufReader::new(Box::new(control));
        Ok(self)
    }

    /// Returns whether the session goes on.
    async fn act(&mut self, act: Act) -> std::io::Result<bool> {
        match act {
            Act::Say(text) => self.say(text).await?,
            Act::SayThen(first, second) => {
                self.say(first).await?;
                tokio::time::sleep(Duration::from_millis(30)).await;
                self.say(second).await?;
            }
            Act::Send(bytes, end) => {
                let mut socket = self.open().await?;
                socket.write_all(bytes).await?;
                socket.shutdown().await?;
                self.end(end).await?;
            }
            Act::Tear(bytes, end) => {
                let mut socket = self.open().await?;
                socket.write_all(bytes).await?;
                socket.flush().await?;
                drop(socket);
                self.say(end).await?;
            }
            Act::Flood(bytes, times) => {
                let mut socket = self.open().await?;
                for _ in 0..times {
                    socket.write_all(bytes).await?;
                }
                socket.shutdown().await?;
                self.say("226 done\r\n").await?;
            }
            Act::Take(end) => {
                let mut socket = self.open().await?;
                socket.read_to_end(&mut Vec::new()).await?;
                drop(socket);
                self.end(end).await?;
            }
            Act::Tell(text) => self.say(&text).await?,
            Act::Give(bytes, end) => return self.give(&bytes, end).await,
            Act::Keep(length, keep, end) => return self.keep(length, keep, end).await,
            Act::Impostor(evil, good) => self.impersonate(evil, good).await?,
            Act::Stall(bytes) => {
                let mut socket = self.open().await?;
                socket.write_all(bytes).await?;
                socket.flush().await?;
                std::future::pending::<()>().await;
            }
            Act::NoHandshake => {
                self.say("150 here it comes\r\n").await?;
                let _socket = self.accept().await?;
                std::future::pending::<()>().await;
            }
            Act::Deaf => {
                let _socket = self.open().await?;
                std::future::pending::<()>().await;
            }
            Act::NoTls => {
                self.say("234 go\r\n").await?;
                std::future::pending::<()>().await;
            }
            Act::Repeat(text) => loop {
                self.control.write_all(text.as_bytes()).await?;
            },
            Act::Drip(text, pause) => loop {
                self.say(text).await?;
                tokio::time::sleep(pause).await;
            },
            Act::Part(text) => {
                self.say(text).await?;
                return Ok(false);
            }
            Act::HangUp => return Ok(false),
            Act::Silence => std::future::pending().await,
        }
        Ok(true)
    }

    async fn give(&mut self, bytes: &[u8], end: End) -> std::io::Result<bool> {
        let mut socket = self.open().await?;
        if let End::Early(text) = end {
            self.say(text).await?;
        }
        socket.write_all(bytes).await?;
        socket.shutdown().await?;
        self.ended(end).await
    }

    async fn keep(&mut self, length: usize, keep: Box<dyn FnOnce(Vec<u8>) + Send>, end: End) -> std::io::Result<bool> {
        let mut socket = self.open().await?;
        let mut bytes = Vec::new();
        (&mut socket).take(length as u64).read_to_end(&mut bytes).await?;
        keep(bytes);
        if let End::Early(text) = end {
            self.say(text).await?;
            socket.read_to_end(&mut Vec::new()).await?;
        }
        drop(socket);
        self.ended(end).await
    }

    /// Says the last word on a transfer; returns whether the session goes on.
    async fn ended(&mut self, end: End) -> std::io::Result<bool> {
        match end {
            End::Early(_) => {}
            End::Never => std::future::pending().await,
            End::Says(text) | End::Parts(text) => self.say(text).await?,
        }
        Ok(!matches!(end, End::Parts(_)))
    }

    /// Says the last word on a transfer; an empty one never comes.
    async fn end(&mut self, text: &str) -> std::io::Result<()> {
        match text {
            "" => std::future::pending().await,
            text => self.say(text).await,
        }
    }

    async fn say(&mut self, text: &str) -> std::io::Result<()> {
        let port = match &self.data {
            Data::Passive(listener) => listener.local_addr()?.port(),
            _ => 0,
        };
        let text = text
            .replace("PORT", &port.to_string())
            .replace("HIGH", &(port / 256).to_string())
            .replace("LOW", &(port % 256).to_string());
        self.control.write_all(text.as_bytes()).await?;
        self.control.flush().await
    }

    /// Opens the data connection, under TLS where that was agreed.
    async fn open(&mut self) -> std::io::Result<Box<dyn Duplex>> {
        self.say("150 here it comes\r\n").await?;
        let socket = self.accept().await?;
        let Some((_, config)) = self.configs.clone().filter(|_| self.private) else { return Ok(Box::new(socket)) };
        let socket = TlsAcceptor::from(config).accept(socket).await?;
        self.tls.as_ref().unwrap().note(self.number, "data", socket.get_ref().1.handshake_kind());
        Ok(Box::new(socket))
    }

    async fn accept(&mut self) -> std::io::Result<TcpStream> {
        match std::mem::replace(&mut self.data, Data::None) {
            Data::Passive(listener) => Ok(listener.accept().await?.0),
            Data::Active(address) => TcpStream::connect(address).await,
            Data::None => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    async fn impersonate(&mut self, evil: &[u8], good: &[u8]) -> std::io::Result<()> {
        self.say("150 here it comes\r\n").await?;
        let Data::Active(address) = self.data else { return Err(std::io::ErrorKind::NotConnected.into()) };
        let elsewhere = TcpSocket::new_v4()?;
        elsewhere.bind(SocketAddr::new(Ipv4Addr::new(127, 0, 0, 9).into(), 0))?;
        let mut stranger = elsewhere.connect(address).await?;
        stranger.write_all(evil).await?;
        if !good.is_empty() {
            let mut socket = TcpStream::connect(address).await?;
            socket.write_all(good).await?;
            socket.shutdown().await?;
        }
        self.say("226 done\r\n").await?;
        // Held open: whoever let it in would wait for more.
        tokio::spawn(async move {
            let _ = stranger.read_to_end(&mut Vec::new()).await;
        });
        Ok(())
    }

    async fn behave(&mut self, line: &str) -> std::io::Result<Act> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        Ok(Act::Say(match verb {
            "" => "220 hello\r\n",
            "USER" => "331 password?\r\n",
            "PASS" => "230 welcome\r\n",
            "PBSZ" if self.tls.is_some() => "200 fine\r\n",
            "PROT" if self.tls.is_some() => {
                self.private = argument == "P";
                "200 fine\r\n"
            }
            "FEAT" => "211-so:\r\n SIZE\r\n MDTM\r\n REST STREAM\r\n MLST type*;size*;modify*;\r\n211 end\r\n",
            "SYST" => "215 UNIX\r\n",
            "PWD" => "257 \"/home\" is it\r\n",
            "TYPE" | "OPTS" => "200 fine\r\n",
            "REST" => {
                self.rest = argument.parse().unwrap();
                "350 go on\r\n"
            }
            "SIZE" => "213 10\r\n",
            "EPSV" | "PASV" => {
                self.data = Data::Passive(TcpListener::bind("127.0.0.1:0").await?);
                if line == "EPSV" { "229 there (|||PORT|)\r\n" } else { "227 there (10,11,12,13,HIGH,LOW)\r\n" }
            }
            "EPRT" => {
                let mut parts = argument.split('|').skip(2);
                let (ip, port) = (parts.next().unwrap(), parts.next().unwrap());
                self.data = Data::Active(SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap()));
                "200 fine\r\n"
            }
            "PORT" => {
                let numbers: Vec<u8> = argument.split(',').map(|number| number.parse().unwrap()).collect();
                let ip = Ipv4Addr::new(numbers[0], numbers[1], numbers[2], numbers[3]);
                self.data = Data::Active(SocketAddr::new(ip.into(), u16::from_be_bytes([numbers[4], numbers[5]])));
                "200 fine\r\n"
            }
            "RETR" => return Ok(Act::Send(&b"0123456789"[std::mem::take(&mut self.rest)..], "226 done\r\n")),
            "STOR" => return Ok(Act::Take("226 done\r\n")),
            "MLSD" => return Ok(Act::Send(b"type=file;size=1; a\r\n", "226 done\r\n")),
            "QUIT" => return Ok(Act::HangUp),
            _ => "500 what?\r\n",
        }))
    }
}

impl Tls {
    fn note(&self, number: usize, what: &'static str, kind: Option<HandshakeKind>) {
        self.handshakes.lock().unwrap().push((number, what, kind.unwrap()));
    }
}

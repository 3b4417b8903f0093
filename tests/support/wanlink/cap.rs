//! A TCP proxy that slows down each connection by itself, as servers do that share their line among their users.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until};

use crate::signals::Signals;
use crate::{ReadyFile, about};

/// The options of `wanlink cap`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where clients connect to; port 0 is any, and the ready file tells which
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The server
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Rate of each direction of each connection, in 1,000,000 bytes a second
    #[arg(long, value_name = "N", value_parser = rate)]
    mbyte_per_s: f64,
    /// Close further connections at once
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    max_connections: usize,
    /// Make this file, with the address in it, when connections are taken
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Say nothing, no statistics at the end either
    #[arg(long, short)]
    quiet: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    (number > 0.0 && number < 1e6).then_some(number).ok_or_else(|| "not above 0 and below 1000000".to_owned())
}

/// What a socket takes in before the other end must wait: little, so that a limit is felt at once.
const RECEIVE_BUFFER: u32 = 256 << 10;
const CHUNK: usize = 32 << 10;
/// How far a connection may run ahead of its rate, and how much it may catch up: timers are no finer than this.
const SLACK: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Statistics {
    open: AtomicUsize,
    most_open: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

/// Passes connections on until a signal comes.
pub(crate) fn run(options: &Options) -> io::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut signals = Signals::catch()?;
        let listener = listen(options.listen).map_err(about(options.listen))?;
        let address = listener.local_addr()?;
        let ready = options.ready_file.as_deref();
        let _ready = ready.map(|path| ReadyFile::create(path, &format!("{address}\n"))).transpose()?;
        if !options.quiet {
            eprintln!("wanlink: passing {address} on to {}", options.to);
        }
        let statistics = Arc::new(Statistics::default());
        tokio::select! {
            result = accept(&listener, options, &statistics) => result?,
            () = signals.next() => {}
        }
        if !options.quiet {
            let Statistics { most_open, accepted, refused, bytes, .. } = &*statistics;
            eprintln!(
                "wanlink: connections={} refused={} most_at_once={} bytes={}",
                accepted.load(Relaxed),
                refused.load(Relaxed),
                most_open.load(Relaxed),
                bytes.load(Relaxed)
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn accept(listener: &TcpListener, options: &Options, statistics: &Arc<Statistics>) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        if statistics.open.load(Relaxed) >= options.max_connections {
            statistics.refused.fetch_add(1, Relaxed);
            continue;
        }
        statistics.accepted.fetch_add(1, Relaxed);
        let open = statistics.open.fetch_add(1, Relaxed) + 1;
        statistics.most_open.fetch_max(open, Relaxed);
        let (statistics, to, rate) = (Arc::clone(statistics), options.to, options.mbyte_per_s * 1e6);
        tokio::spawn(async move {
            // An end that breaks off is nothing to report: the other one learns of it by the closed connection.
            let _ = pass_on(client, to, rate, &statistics).await;
            statistics.open.fetch_sub(1, Relaxed);
        });
    }
}

async fn pass_on(client: TcpStream, to: SocketAddr, rate: f64, statistics: &Statistics) -> io::Result<()> {
    let server = socket(to)?.connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((client_out, client_in), (server_out, server_in)) = (client.into_split(), server.into_split());
    tokio::try_join!(
        copy(client_out, server_in, Pace::new(rate), statistics),
        copy(server_out, client_in, Pace::new(rate), statistics)
    )?;
    Ok(())
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut pace: Pace,
    statistics: &Statistics,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        pace.wait_for(length).await;
        statistics.bytes.fetch_add(length as u64, Relaxed);
        to.write_all(&chunk[..length]).await?;
    }
}

/// A token bucket of [`SLACK`]'s size.
struct Pace {
    seconds_per_byte: f64,
    /// When everything so far has been sent at this rate.
    free_at: Instant,
}

impl Pace {
    fn new(rate: f64) -> Self {
        Self { seconds_per_byte: 1.0 / rate, free_at: Instant::now() }
    }

    /// Returns when so many bytes may go. Small answers go at once, unless much went before.
    async fn wait_for(&mut self, bytes: usize) {
        let now = Instant::now();
        let starts = self.free_at.max(now.checked_sub(SLACK).unwrap_or(now));
        self.free_at = starts + Duration::from_secs_f64(bytes as f64 * self.seconds_per_byte);
        if self.free_at > now + SLACK {
            sleep_until(self.free_at).await;
        }
    }
}

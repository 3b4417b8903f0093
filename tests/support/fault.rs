//! A link between client and server that can break: cut after so many bytes, refuse, stall.
//!
//! It listens on another loopback address at the server's own ports, the passive ports of an FTP server among them.
//! A client that connects there, and for data to the same address (as one must that doesn't believe a 227), sends
//! everything through it, with TLS or without.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::lab::Server;

/// More than any test moves.
const UNLIMITED: i64 = i64::MAX / 2;
/// What may lie in the link's own sockets: little, since a cut loses it, and a wire holds little.
const BUFFER: u32 = 128 << 10;

/// The running link; dropped, it is cut for good.
pub struct Link {
    address: Ipv4Addr,
    state: Arc<State>,
    _runtime: Runtime,
}

struct State {
    /// Bytes that still pass towards the client, and towards the server, before everything is cut.
    to_client: AtomicI64,
    to_server: AtomicI64,
    /// Connections that will be closed as soon as they are made.
    refuse: AtomicU32,
    stalled: AtomicBool,
    cuts: watch::Sender<u32>,
}

/// Which way bytes flow.
#[derive(Debug, Clone, Copy)]
pub enum Towards {
    Client,
    Server,
}

impl Link {
    /// Opens a link to a server.
    pub fn to(server: &Server) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let state = Arc::new(State {
            to_client: AtomicI64::new(UNLIMITED),
            to_server: AtomicI64::new(UNLIMITED),
            refuse: AtomicU32::new(0),
            stalled: AtomicBool::new(false),
            cuts: watch::Sender::new(0),
        });
        let inside = runtime.enter();
        let mut ports = vec![server.port];
        if server.scheme != "sftp" {
            ports.extend(server.data_ports.0..=server.data_ports.1);
        }
        // Another test may have a link to the same server; the certificate and known_hosts name these addresses.
        let (address, listeners) = (2..=33)
            .find_map(|last| {
                let address = Ipv4Addr::new(127, 0, 0, last);
                let listeners: Option<Vec<_>> =
                    ports.iter().map(|&port| listen(SocketAddr::new(address.into(), port)).ok()).collect();
                Some((address, listeners?))
            })
            .expect("a free loopback address");
        let target: IpAddr = server.host.parse().expect("an address");
        drop(inside);
        for listener in listeners {
            runtime.spawn(accept(listener, target, Arc::clone(&state)));
        }
        Self { address, state, _runtime: runtime }
    }

    /// Returns the server as a client beyond the link sees it.
    pub fn far_end(&self, server: &Server) -> Server {
        Server { host: self.address.to_string(), ..server.clone() }
    }

    /// Cuts every connection once so many more bytes have passed; the bytes before that arrive.
    pub fn cut_after(&self, bytes: u64, towards: Towards) {
        let left = match towards {
            Towards::Client => &self.state.to_client,
            Towards::Server => &self.state.to_server,
        };
        left.store(i64::try_from(bytes).unwrap(), Ordering::SeqCst);
    }

    /// Closes the next connections as soon as they are made.
    pub fn refuse_next(&self, connections: u32) {
        self.state.refuse.store(connections, Ordering::SeqCst);
    }

    /// From now on nothing passes, and nothing is closed.
    pub fn stall(&self) {
        self.state.stalled.store(true, Ordering::SeqCst);
    }

    /// How often it was cut.
    pub fn cuts(&self) -> u32 {
        *self.state.cuts.borrow()
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(128)
}

async fn connect(address: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.connect(address).await
}

async fn accept(listener: TcpListener, target: IpAddr, state: Arc<State>) {
    let port = listener.local_addr().unwrap().port();
    while let Ok((client, _)) = listener.accept().await {
        let one_less = |left: u32| left.checked_sub(1);
        if state.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            continue;
        }
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let Ok(server) = connect(SocketAddr::new(target, port)).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let mut cuts = state.cuts.subscribe();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let both = async {
                tokio::join!(
                    pump(from_client, to_server, &state, &state.to_server),
                    pump(from_server, to_client, &state, &state.to_client),
                )
            };
            // Dropping both sockets with bytes unread resets them, as a lost connection looks.
            tokio::select! {
                _ = cuts.changed() => {}
                _ = both => {}
            }
        });
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, left: &AtomicI64) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(count) if count > 0 => count,
            _ => break,
        };
        if state.stalled.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let before = left.fetch_sub(i64::try_from(count).unwrap(), Ordering::SeqCst);
        let passing = count.min(usize::try_from(before).unwrap_or(0));
        if to.write_all(&buffer[..passing]).await.is_err() {
            break;
        }
        if passing < count {
            // The first to get here cuts; after that the line is whole again, for the next attempt.
            if left.swap(UNLIMITED, Ordering::SeqCst) < UNLIMITED / 2 {
                state.cuts.send_modify(|cuts| *cuts += 1);
            }
            return;
        }
    }
    let _ = to.shutdown().await;
}

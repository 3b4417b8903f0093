//! A link between client and server that can break in every way that a network can, and some more.
//!
//! It listens on another address of the server's own network (`.2` to `.33`, which the certificates and `known_hosts`
//! of the test servers name) at the server's own ports, the passive ports of an FTP server among them. A client that
//! connects there, and for data to the same address (as one must that doesn't believe a 227), sends everything through
//! it, with TLS or without. Active mode goes past it.
//!
//! ```ignore
//! let link = Link::to(&server);                    // of the lab, or `Served` for haul's own
//! let far = link.far_end(&server);                 // the same server, as a client beyond the link sees it
//! link.set(Fault::Cut { after: 70_000, towards: Towards::Client, on: On::Data });
//! link.set(Fault::Split { largest: 100, seed, on: On::Any });   // as many at once as there should be
//! run_haul(&far);
//! assert_eq!(link.cuts(), 1);
//! link.heal();                                     // no faults are left, and a stalled line moves again
//! ```
//!
//! Bytes are counted from the call of [`Link::set`] on, over all connections of that kind together, each way for
//! itself. An FTP server's own port has its control connections, every other port data; SFTP has control connections
//! only, so say `On::Any` there. The fault comes when the next byte would pass, or the end of the connection, so that a
//! fault after the last byte is one too. Those that break something do it once, the others stay until the link is healed.
//!
//! [`Link::passed`] counts what came through; [`Link::turns`] tells where messages began, to break just there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::lab::Server;
use listeners::listening_at;
use pump::{Ending, carry};
use rules::Rules;

mod listeners;
mod pump;
mod rules;

/// What may lie in the link's own sockets: little, since a cut loses it, and a wire holds little.
const BUFFER: u32 = 128 << 10;

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Resets every connection once so many bytes have passed on those of this kind.
    Cut { after: u64, towards: Towards, on: On },
    /// Ends every connection with a FIN both ways, as those of a server that was killed end.
    Close { after: u64, towards: Towards, on: On },
    /// Resets only the connection on which the next byte would pass.
    Reset { after: u64, towards: Towards, on: On },
    /// Ends that direction of that connection with a FIN and swallows what follows; the other direction goes on.
    HalfClose { after: u64, towards: Towards, on: On },
    /// Nothing passes any more on any connection, either way, and nothing is closed; until the link is healed.
    Stall { after: u64, towards: Towards, on: On },
    /// At most so many bytes a second pass that way, over all connections of this kind together.
    Slow { rate: u64, towards: Towards, on: On },
    /// What passes comes in pieces of one to `largest` bytes.
    Split { largest: usize, seed: u64, on: On },
    /// What passes is held back until there are so many bytes, or until nothing more has come for so long.
    Coalesce { bytes: usize, quiet: Duration, on: On },
    /// One bit, 0 to 7, of the byte at this place is turned over.
    Flip { at: u64, bit: u8, towards: Towards, on: On },
    /// The next connections are reset as soon as they are made.
    Refuse { connections: u32, on: On },
}

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Towards {
    Client,
    Server,
}

/// On which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum On {
    Any,
    /// Those to the server's own port: FTP's control connections, and all of SFTP's.
    Control,
    /// FTP's data connections.
    Data,
}

impl On {
    fn covers(self, other: Self) -> bool {
        self == Self::Any || self == other
    }
}

/// The running link; dropped, it is cut for good.
pub struct Link {
    state: Arc<State>,
    runtime: Option<Runtime>,
}

/// What all connections share.
struct State {
    here: Ipv4Addr,
    target: IpAddr,
    /// The port of the control connections.
    control: u16,
    /// Whether the server's passive ports are looked for whenever it may have told one.
    seeks: bool,
    rules: Mutex<Rules>,
    refused: AtomicU32,
    /// How often everything was broken, and how the last time.
    breaks: watch::Sender<(u32, Ending)>,
    stalled: watch::Sender<bool>,
    listeners: Mutex<HashMap<u16, JoinHandle<()>>>,
}

impl Link {
    /// Opens a link to a server; one that names no data ports (0 to 0) is watched for those that it opens.
    pub fn to(server: &Server) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let inside = runtime.enter();
        let seeks = server.scheme != "sftp" && server.data_ports == (0, 0);
        let mut ports = vec![server.port];
        if server.scheme != "sftp" && !seeks {
            ports.extend(server.data_ports.0..=server.data_ports.1);
        }
        let target: Ipv4Addr = server.host.parse().expect("an address");
        let [a, b, c, _] = target.octets();
        // Another test may have a link to the same server.
        let (here, listeners) = (2..=33)
            .find_map(|last| {
                let here = Ipv4Addr::new(a, b, c, last);
                let listeners: Option<Vec<_>> = ports.iter().map(|&port| listen(here, port).ok()).collect();
                Some((here, listeners?))
            })
            .expect("a free loopback address");
        let state = Arc::new(State {
            here,
            target: target.into(),
            control: server.port,
            seeks,
            rules: Mutex::default(),
            refused: AtomicU32::new(0),
            breaks: watch::Sender::new((0, Ending::Reset)),
            stalled: watch::Sender::new(false),
            listeners: Mutex::default(),
        });
        for (port, listener) in ports.into_iter().zip(listeners) {
            state.serve(port, listener);
        }
        drop(inside);
        Self { state, runtime: Some(runtime) }
    }

    /// Returns the server as a client beyond the link sees it.
    pub fn far_end(&self, server: &Server) -> Server {
        Server { host: self.state.here.to_string(), ..server.clone() }
    }

    /// Adds a fault to those that are set.
    pub fn set(&self, fault: Fault) {
        self.state.rules().add(fault);
    }

    /// Takes all faults back; what was broken stays so.
    pub fn heal(&self) {
        self.state.rules().clear();
        self.state.stalled.send_replace(false);
    }

    /// Breaks every connection at once, whatever passes.
    pub fn cut_now(&self) {
        self.state.end_all(Ending::Reset);
    }

    /// How often it was broken, as told by the first five faults.
    pub fn cuts(&self) -> u32 {
        self.state.rules().broken()
    }

    /// How many connections were refused.
    pub fn refused(&self) -> u32 {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// How many connections were made.
    pub fn connections(&self, on: On) -> u32 {
        self.state.rules().connections(on)
    }

    /// How many bytes have passed since the link was opened.
    pub fn passed(&self, towards: Towards, on: On) -> u64 {
        self.state.rules().passed(towards, on)
    }

    /// Where messages began: how many bytes had passed that way whenever a connection changed its direction to it.
    pub fn turns(&self, towards: Towards, on: On) -> Vec<u64> {
        self.state.rules().turns(towards, on)
    }

    /// Returns when no connection through the link is open.
    pub fn wait_until_idle(&self) {
        let begin = std::time::Instant::now();
        while self.state.rules().open() > 0 {
            assert!(begin.elapsed() < Duration::from_secs(60), "connections stay open");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Sockets are closed with the tasks that own them; waiting for that is not allowed everywhere.
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl State {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kind_of(&self, port: u16) -> On {
        if port == self.control { On::Control } else { On::Data }
    }

    fn end_all(&self, how: Ending) {
        self.breaks.send_modify(|breaks| *breaks = (breaks.0 + 1, how));
    }

    fn serve(self: &Arc<Self>, port: u16, listener: TcpListener) {
        let task = tokio::spawn(accept(listener, port, Arc::clone(self)));
        self.listeners.lock().unwrap().insert(port, task);
    }

    /// Listens where the server listens: called before anything that may tell a port is passed on.
    fn follow_ports(self: &Arc<Self>) {
        // The table may be missing one while it changes; not twice.
        let there = [listening_at(self.target), listening_at(self.target)].concat();
        self.listeners.lock().unwrap().retain(|port, task| {
            let stays = *port == self.control || there.contains(port);
            if !stays {
                task.abort();
            }
            stays
        });
        for port in there {
            let is_new = !self.listeners.lock().unwrap().contains_key(&port);
            // A port that is taken here belongs to another server of this address, and to its link.
            if is_new && let Ok(listener) = listen(self.here, port) {
                self.serve(port, listener);
            }
        }
    }
}

fn listen(address: Ipv4Addr, port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(address.into(), port))?;
    socket.listen(128)
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.connect(address).await
}

async fn accept(listener: TcpListener, port: u16, state: Arc<State>) {
    let on = state.kind_of(port);
    while let Ok((client, _)) = listener.accept().await {
        if state.rules().refuses(on) {
            state.refused.fetch_add(1, Ordering::SeqCst);
            let _ = client.set_zero_linger();
            continue;
        }
        let (state, breaks) = (Arc::clone(&state), state.breaks.subscribe());
        tokio::spawn(async move {
            let Ok(server) = connect(SocketAddr::new(state.target, port)).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let number = state.rules().opened(on);
            carry(client, server, on, number, &state, breaks).await;
            state.rules().closed();
        });
    }
}

//! Somebody between client and server: sends connections to different servers, stalls, cuts, spoils.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to what the server says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// Nothing.
    Pass,
    /// After so many bytes no more comes.
    Stall(usize),
    /// After so many bytes there is only noise, without end.
    Spoil(usize),
}

/// Listens at a port of its own; dropped, it ends with its connections.
#[derive(Debug)]
pub(crate) struct Middle {
    pub(crate) port: u16,
    /// Connections so far.
    pub(crate) met: Arc<AtomicUsize>,
    cuts: watch::Sender<()>,
    serving: JoinHandle<()>,
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.serving.abort();
        self.cut();
    }
}

impl Middle {
    /// The connection with number `n` goes to `route(n)`.
    pub(crate) async fn open(route: impl Fn(usize) -> (SocketAddr, Then) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let met = Arc::new(AtomicUsize::new(0));
        let (counter, cuts) = (Arc::clone(&met), watch::Sender::new(()));
        let cut = cuts.clone();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, then) = route(counter.fetch_add(1, Ordering::SeqCst));
                let mut cut = cut.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cut.changed() => {}
                        () = carry(client, to, then) => {}
                    }
                });
            }
        });
        Self { port, met, cuts, serving }
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        let _ = self.cuts.send(());
    }
}

async fn carry(client: TcpStream, to: SocketAddr, then: Then) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    let down = async {
        let mut left = match then {
            Then::Pass => usize::MAX,
            Then::Stall(after) | Then::Spoil(after) => after,
        };
        let mut buffer = vec![0; 16 << 10];
        while left > 0 {
            let most = left.min(buffer.len());
            match from_server.read(&mut buffer[..most]).await {
                Ok(length @ 1..) if to_client.write_all(&buffer[..length]).await.is_ok() => left -= length,
                _ => return,
            }
        }
        match then {
            Then::Spoil(seed) => noise(&mut to_client, seed).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! { _ = up => {}, () = down => {} }
}

async fn noise(to: &mut (impl AsyncWriteExt + Unpin), seed: usize) {
    let mut state = seed as u64 | 1;
    loop {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        })
        .take(4096)
        .collect();
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

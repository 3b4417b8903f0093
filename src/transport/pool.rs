//! The pool of connections that a backend owns: checked out one user at a time, given back or discarded.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// What a pool needs to know of its connections.
pub(super) trait Pooled: Send + 'static {
    /// Returns whether an idle connection can still be used, without waiting.
    fn is_usable(&self) -> bool;
}

/// Connections to one endpoint, at most so many at once.
pub(super) struct Pool<C> {
    inner: Arc<Inner<C>>,
}

struct Inner<C> {
    state: Mutex<State<C>>,
    changed: Notify,
    /// Counts what moves on any connection, so that waiting behind a busy one is not mistaken for a stall.
    activity: AtomicU64,
    patience: Duration,
}

struct State<C> {
    idle: VecDeque<C>,
    open: usize,
    max: usize,
    closed: bool,
}

impl<C: Pooled> Pool<C> {
    /// Makes an empty pool for at most `max` connections; who waits for one gives up after `patience` in which nothing
    /// moved on any of them.
    pub(super) fn new(max: usize, patience: Duration) -> Self {
        let state = State { idle: VecDeque::new(), open: 0, max: max.max(1), closed: false };
        let inner = Inner { state: Mutex::new(state), changed: Notify::new(), activity: AtomicU64::new(0), patience };
        Self { inner: Arc::new(inner) }
    }

    /// Returns an idle connection, or opens one, or waits until one is free.
    ///
    /// When `open` fails with `TooManyConnections` while others are alive, the maximum becomes their number for the
    /// life of the pool, and the caller waits for one of them.
    ///
    /// # Errors
    /// What `open` failed with; `Timeout` when nothing moves; `ConnectionLost` once closed.
    pub(super) async fn checkout<F>(&self, open: impl Fn() -> F) -> Result<Lease<C>>
    where
        F: Future<Output = Result<C>>,
    {
        loop {
            let changed = self.inner.changed.notified();
            let step = self.inner.lock().next_step()?;
            match step {
                Step::Reuse(connection) => return Ok(self.lease(connection)),
                Step::Open => {
                    let slot = Slot { inner: Arc::clone(&self.inner) };
                    match open().await {
                        Ok(connection) => {
                            return Ok(Lease { connection: Some(connection), slot });
                        }
                        Err(e) if e.kind() == ErrorKind::TooManyConnections && self.inner.lower_max() => {
                            tracing::debug!("{e}: going on with fewer connections");
                        }
                        Err(e) => return Err(e),
                    }
                }
                Step::Wait => self.inner.wait(changed).await?,
            }
        }
    }

    /// Refuses further use and returns the idle connections, so that the backend can say goodbye on them.
    pub(super) fn close(&self) -> Vec<C> {
        let mut state = self.inner.lock();
        state.closed = true;
        state.open -= state.idle.len();
        let idle = state.idle.drain(..).collect();
        drop(state);
        self.inner.changed.notify_waiters();
        idle
    }

    fn lease(&self, connection: C) -> Lease<C> {
        Lease { connection: Some(connection), slot: Slot { inner: Arc::clone(&self.inner) } }
    }
}

impl<C> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.lock();
        write!(f, "Pool({} open, {} idle, at most {})", state.open, state.idle.len(), state.max)
    }
}

enum Step<C> {
    Reuse(C),
    Open,
    Wait,
}

impl<C: Pooled> State<C> {
    fn next_step(&mut self) -> Result<Step<C>> {
        if self.closed {
            return Err(Error::new(ErrorKind::ConnectionLost, "the endpoint was closed"));
        }
        // The one used last is the least likely to have been closed by the server.
        while let Some(connection) = self.idle.pop_back() {
            if connection.is_usable() {
                return Ok(Step::Reuse(connection));
            }
            self.open -= 1;
        }
        if self.open >= self.max {
            return Ok(Step::Wait);
        }
        self.open += 1;
        Ok(Step::Open)
    }
}

impl<C> Inner<C> {
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called while the refused connection still holds its slot; returns whether there are others to wait for.
    fn lower_max(&self) -> bool {
        let mut state = self.lock();
        let alive = state.open - 1;
        if alive > 0 {
            state.max = state.max.min(alive);
        }
        alive > 0
    }

    async fn wait(&self, changed: tokio::sync::futures::Notified<'_>) -> Result<()> {
        tokio::pin!(changed);
        loop {
            let before = self.activity.load(Ordering::Relaxed);
            if tokio::time::timeout(self.patience, &mut changed).await.is_ok() {
                return Ok(());
            }
            if self.activity.load(Ordering::Relaxed) == before {
                return Err(Error::new(ErrorKind::Timeout, "no connection became free"));
            }
        }
    }
}

/// A place among the open connections; frees it when dropped.
struct Slot<C> {
    inner: Arc<Inner<C>>,
}

impl<C> Drop for Slot<C> {
    fn drop(&mut self) {
        self.inner.lock().open -= 1;
        self.inner.changed.notify_waiters();
    }
}

/// A connection in use. Dropped without [`Lease::give_back`], it is discarded: nobody knows what state it is in.
pub(super) struct Lease<C: Pooled> {
    connection: Option<C>,
    slot: Slot<C>,
}

impl<C: Pooled> Lease<C> {
    /// Puts the connection back for others, or discards it when it broke.
    pub(super) fn give_back(mut self) {
        let Some(connection) = self.connection.take().filter(Pooled::is_usable) else { return };
        let mut state = self.slot.inner.lock();
        if !state.closed {
            // The slot, which is dropped next, counts one down.
            state.open += 1;
            state.idle.push_back(connection);
        }
    }

    /// Notes that something moves on this connection.
    pub(super) fn touch(&self) {
        self.slot.inner.activity.fetch_add(1, Ordering::Relaxed);
    }
}

impl<C: Pooled> Deref for Lease<C> {
    type Target = C;

    fn deref(&self) -> &C {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("only give_back takes it, and that consumes the lease"),
        }
    }
}

impl<C: Pooled> DerefMut for Lease<C> {
    fn deref_mut(&mut self) -> &mut C {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("only give_back takes it, and that consumes the lease"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    struct Fake {
        number: usize,
        alive: Arc<AtomicBool>,
    }

    impl Pooled for Fake {
        fn is_usable(&self) -> bool {
            self.alive.load(Ordering::SeqCst)
        }
    }

    /// A server that accepts so many connections at once.
    struct Server {
        limit: usize,
        made: AtomicUsize,
        alive: Arc<AtomicBool>,
    }

    impl Server {
        fn new(limit: usize) -> Self {
            Self { limit, made: AtomicUsize::new(0), alive: Arc::new(AtomicBool::new(true)) }
        }

        fn open(&self) -> std::future::Ready<Result<Fake>> {
            let number = self.made.fetch_add(1, Ordering::SeqCst);
            let fake = Fake { number, alive: Arc::clone(&self.alive) };
            std::future::ready(if number < self.limit { Ok(fake) } else { Err(ErrorKind::TooManyConnections.into()) })
        }
    }

    fn pool(max: usize) -> Pool<Fake> {
        Pool::new(max, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn a_connection_given_back_is_used_again_and_a_dropped_one_is_not() {
        let (pool, server) = (pool(4), Server::new(9));
        let first = pool.checkout(|| server.open()).await.unwrap();
        first.give_back();
        let again = pool.checkout(|| server.open()).await.unwrap();
        assert_eq!(again.number, 0);
        drop(again);
        assert_eq!(pool.checkout(|| server.open()).await.unwrap().number, 1);
    }

    #[tokio::test]
    async fn one_that_died_while_idle_is_replaced() {
        let (pool, server) = (pool(1), Server::new(9));
        pool.checkout(|| server.open()).await.unwrap().give_back();
        server.alive.store(false, Ordering::SeqCst);
        assert_eq!(pool.checkout(|| server.open()).await.unwrap().number, 1);
    }

    #[tokio::test]
    async fn at_the_servers_limit_callers_wait_for_a_free_one() {
        let (pool, server) = (pool(4), Server::new(2));
        let first = pool.checkout(|| server.open()).await.unwrap();
        let _second = pool.checkout(|| server.open()).await.unwrap();
        let third = pool.checkout(|| server.open());
        let free = async {
            while server.made.load(Ordering::SeqCst) < 3 {
                tokio::task::yield_now().await;
            }
            first.give_back();
        };
        let (third, ()) = tokio::join!(third, free);
        assert_eq!(third.unwrap().number, 0);
        assert!(format!("{pool:?}").ends_with("at most 2)"));
    }

    #[tokio::test]
    async fn the_first_connection_refused_is_an_error() {
        let (pool, server) = (pool(4), Server::new(0));
        let refused = pool.checkout(|| server.open()).await.map(|lease| lease.number).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooManyConnections);
    }

    #[tokio::test]
    async fn waiting_ends_when_nothing_moves() {
        let (pool, server) = (Pool::new(1, Duration::from_millis(20)), Server::new(9));
        let _held = pool.checkout(|| server.open()).await.unwrap();
        let stuck = pool.checkout(|| server.open()).await.map(|lease| lease.number).unwrap_err();
        assert_eq!(stuck.kind(), ErrorKind::Timeout);
    }

    #[tokio::test]
    async fn a_closed_pool_hands_out_nothing() {
        let (pool, server) = (pool(2), Server::new(9));
        pool.checkout(|| server.open()).await.unwrap().give_back();
        assert_eq!(pool.close().len(), 1);
        assert!(pool.checkout(|| server.open()).await.is_err());
    }
}

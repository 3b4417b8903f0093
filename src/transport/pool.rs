//! The pool of connections that a backend owns: checked out one user at a time, given back or discarded.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout};

use super::lease::Lease;
use crate::error::{Error, ErrorKind, Result};

/// How long the number of connections that a server let in counts as all that it lets in.
const REFUSAL: Duration = Duration::from_secs(30);

/// What a pool needs to know of its connections.
pub(super) trait Pooled: Send + 'static {
    /// Returns whether an idle connection can still be used, without waiting.
    fn is_usable(&mut self) -> bool;

    /// Ends a connection that is not needed any more, without waiting.
    fn part(self);
}

/// Opens one connection.
type Open<C> = Box<dyn Fn() -> BoxFuture<'static, Result<C>> + Send + Sync>;

/// Connections to one endpoint, at most so many at once.
pub(super) struct Pool<C> {
    inner: Arc<Inner<C>>,
}

/// What the pool and its leases share.
pub(super) struct Inner<C> {
    open: Open<C>,
    state: Mutex<State<C>>,
    changed: Notify,
    /// Counts what moves on any connection, so that waiting behind a busy one is not mistaken for a stall.
    activity: AtomicU64,
    patience: Duration,
}

struct State<C> {
    idle: Vec<C>,
    /// Connections that are there, idle ones among them.
    there: usize,
    /// Connections that are being opened.
    opening: usize,
    max: usize,
    /// How many the caller wants; `None`: as many as it uses at once.
    wanted: Option<usize>,
    refused: Option<Refused>,
    /// Connections that could not be opened while there was none, and why the latest could not.
    failures: u64,
    failure: Option<Error>,
    /// How long a refusal counts.
    memory: Duration,
    closed: bool,
}

/// A server that let no more in.
struct Refused {
    at: usize,
    until: Instant,
}

impl<C: Pooled> Pool<C> {
    /// Makes an empty pool for at most `max` connections; who waits for one gives up after `patience` in which nothing
    /// moved on any of them.
    pub(super) fn new(
        max: usize,
        patience: Duration,
        open: impl Fn() -> BoxFuture<'static, Result<C>> + Send + Sync + 'static,
    ) -> Self {
        let state = Mutex::new(State {
            idle: Vec::new(),
            there: 0,
            opening: 0,
            max: max.max(1),
            wanted: None,
            refused: None,
            failures: 0,
            failure: None,
            memory: REFUSAL,
            closed: false,
        });
        let (changed, activity) = (Notify::new(), AtomicU64::new(0));
        Self { inner: Arc::new(Inner { open: Box::new(open), state, changed, activity, patience }) }
    }

    /// Returns an idle connection, or opens one, or waits until one is free, whichever comes first.
    ///
    /// A connection that can't be opened while others are there is taken for the server's limit: for a while no more
    /// are tried, and the caller waits for one of those. Who waits while the only one can't be opened is told the same:
    /// a server that doesn't answer would cost each of many its own timeout, one after the other.
    ///
    /// # Errors
    /// What opening the only one failed with; `Timeout` when nothing moves; `ConnectionLost` once closed.
    pub(super) async fn checkout(&self) -> Result<Lease<C>> {
        let mut opening = None;
        let mut failed = None;
        let since = self.inner.lock().failures;
        loop {
            let changed = self.inner.changed.notified();
            let step = self.inner.lock().next_step(opening.is_none() && failed.is_none(), since)?;
            match step {
                Step::Reuse(connection) => return Ok(self.lease(connection)),
                Step::Open => opening = Some(self.inner.start_opening()),
                Step::Wait(until) => match self.inner.wait(changed, until, &mut opening).await {
                    Ok(()) => {}
                    // Another that is being opened may do.
                    Err(e) if self.inner.lock().opening > 0 => failed = Some(e),
                    Err(e) => return Err(e),
                },
                Step::GiveUp => match opening.take() {
                    Some(task) => ended(task.await)?,
                    None => return Err(failed.unwrap_or_else(|| ErrorKind::ConnectionLost.into())),
                },
            }
        }
    }

    /// Opens connections, all at once, until there are `wanted`, ends idle ones that are more, and returns how many
    /// there are when all are settled, or after `patience`. From now on there are no more than that.
    pub(super) async fn set_wanted(&self, wanted: usize, patience: Duration) -> usize {
        self.inner.want(wanted);
        let settled = async {
            loop {
                let changed = self.inner.changed.notified();
                if self.inner.lock().opening == 0 {
                    return;
                }
                changed.await;
            }
        };
        let _ = timeout(patience, settled).await;
        // Those in use beyond that end when they are given back.
        self.inner.lock().there.min(wanted)
    }

    /// Starts to open connections, all at once, without waiting for them.
    pub(super) fn want(&self, wanted: usize) {
        self.inner.want(wanted);
    }

    /// Sets how many there may be at once.
    pub(super) fn set_max(&self, max: usize) {
        self.inner.lock().max = max.max(1);
    }

    /// Refuses further use and returns the idle connections, so that the backend can say goodbye on them.
    pub(super) fn close(&self) -> Vec<C> {
        let mut state = self.inner.lock();
        state.closed = true;
        state.there -= state.idle.len();
        let idle = state.idle.drain(..).collect();
        drop(state);
        self.inner.changed.notify_waiters();
        idle
    }

    fn lease(&self, connection: C) -> Lease<C> {
        Lease::new(connection, Arc::clone(&self.inner))
    }
}

impl<C> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.lock();
        write!(f, "Pool({} there, {} idle, at most {})", state.there, state.idle.len(), state.limit())
    }
}

enum Step<C> {
    Reuse(C),
    /// Counted as being opened already.
    Open,
    /// Until a connection is free, or, at the latest, until the server may be tried again.
    Wait(Option<Instant>),
    /// There is none and none is being opened.
    GiveUp,
}

impl<C> State<C> {
    fn limit(&self) -> usize {
        let refused = self.refused.as_ref().map_or(usize::MAX, |refused| refused.at);
        self.max.min(self.wanted.unwrap_or(usize::MAX)).min(refused).max(1)
    }
}

impl<C: Pooled> State<C> {
    fn next_step(&mut self, may_open: bool, since: u64) -> Result<Step<C>> {
        if self.closed {
            return Err(Error::new(ErrorKind::ConnectionLost, "the endpoint was closed"));
        }
        // The one used last is the least likely to have been closed by the server.
        while let Some(mut connection) = self.idle.pop() {
            if connection.is_usable() {
                return Ok(Step::Reuse(connection));
            }
            self.there -= 1;
        }
        self.forget_refusal();
        if may_open
            && self.failures > since
            && self.there + self.opening == 0
            && let Some(failure) = &self.failure
        {
            return Err(failure.for_another());
        }
        if !may_open && self.there + self.opening == 0 {
            return Ok(Step::GiveUp);
        }
        if !may_open || self.there + self.opening >= self.limit() {
            let until = self.refused.as_ref().filter(|_| may_open).map(|refused| refused.until);
            return Ok(Step::Wait(until));
        }
        self.opening += 1;
        Ok(Step::Open)
    }

    fn forget_refusal(&mut self) {
        if self.refused.as_ref().is_some_and(|refused| refused.until <= Instant::now()) {
            self.refused = None;
        }
    }

    /// Counts what is missing as being opened, and returns how many that are.
    fn count_missing(&mut self) -> usize {
        self.forget_refusal();
        let missing = match self.wanted {
            Some(_) if !self.closed => self.limit().saturating_sub(self.there + self.opening),
            _ => 0,
        };
        self.opening += missing;
        missing
    }

    /// Notes that the server let no more in than are there; returns whether there are any.
    fn refuse(&mut self) -> bool {
        if self.there > 0 {
            self.refused = Some(Refused { at: self.there, until: Instant::now() + self.memory });
        }
        self.there > 0
    }
}

impl<C: Pooled> Inner<C> {
    /// Opens a connection that is counted already, and puts it with the idle ones. It goes on if nobody waits for it.
    fn start_opening(self: &Arc<Self>) -> JoinHandle<Result<()>> {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let mut place = Opening(Some(&inner));
            let opened = (inner.open)().await;
            let mut state = inner.lock();
            place.0 = None;
            state.opening -= 1;
            let result = match opened {
                Ok(connection) if state.closed => {
                    connection.part();
                    Ok(())
                }
                Ok(connection) => {
                    state.there += 1;
                    state.idle.push(connection);
                    Ok(())
                }
                Err(e) if state.refuse() => {
                    tracing::debug!("{}: going on with {} connections", e.chain(), state.there);
                    Ok(())
                }
                Err(e) => {
                    state.failures += 1;
                    state.failure = Some(e.for_another());
                    Err(e)
                }
            };
            drop(state);
            inner.changed.notify_waiters();
            result
        })
    }

    fn want(self: &Arc<Self>, wanted: usize) {
        let mut state = self.lock();
        state.wanted = Some(wanted.max(1));
        let mut idle = std::mem::take(&mut state.idle);
        idle.retain_mut(|connection| {
            let usable = connection.is_usable();
            state.there -= usize::from(!usable);
            usable
        });
        while state.there > wanted.max(1)
            && let Some(surplus) = idle.pop()
        {
            state.there -= 1;
            surplus.part();
        }
        state.idle = idle;
        drop(state);
        self.refill();
    }
}

/// What a [`Lease`] needs.
impl<C: Pooled> Inner<C> {
    /// Takes a connection back, unless there are enough.
    pub(super) fn take_back(&self, mut connection: C) {
        let wanted = connection.is_usable();
        let mut state = self.lock();
        if wanted && !state.closed && state.wanted.is_none_or(|wanted| state.there <= wanted) {
            // The lease, which is dropped next, counts one down.
            state.there += 1;
            state.idle.push(connection);
        } else if wanted {
            drop(state);
            connection.part();
        }
    }

    /// Opens another connection in the place of one that is gone, if it is wanted.
    pub(super) fn refill(self: &Arc<Self>) {
        let missing = self.lock().count_missing();
        for _ in 0..missing {
            self.start_opening();
        }
    }

    /// Notes that the server could serve no more than are there.
    pub(super) fn refuse(&self) {
        self.lock().refuse();
    }
}

impl<C> Inner<C> {
    /// Counts out a connection that was in use.
    pub(super) fn count_out(&self) {
        self.lock().there -= 1;
        self.changed.notify_waiters();
    }

    /// Notes that something moves.
    pub(super) fn touch(&self) {
        self.activity.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes, a connection is opened, or the server may be tried again.
    async fn wait(
        &self,
        changed: tokio::sync::futures::Notified<'_>,
        until: Option<Instant>,
        opening: &mut Option<JoinHandle<Result<()>>>,
    ) -> Result<()> {
        if let Some(task) = opening {
            // Opening has timeouts of its own.
            let opened = tokio::select! {
                opened = task => opened,
                () = changed => return Ok(()),
            };
            *opening = None;
            return ended(opened);
        }
        tokio::pin!(changed);
        loop {
            let before = self.activity.load(Ordering::Relaxed);
            let end = Instant::now() + self.patience;
            tokio::select! {
                () = &mut changed => return Ok(()),
                () = sleep_until(end.min(until.unwrap_or(end))) => {}
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(());
            }
            if self.activity.load(Ordering::Relaxed) == before {
                return Err(Error::new(ErrorKind::Timeout, "no connection became free"));
            }
        }
    }
}

fn ended(opening: Result<Result<()>, JoinError>) -> Result<()> {
    opening.unwrap_or_else(|e| Err(Error::new(ErrorKind::Other, "open a connection").with_source(e)))
}

/// A place among the connections being opened; frees it should opening be given up.
struct Opening<'a, C>(Option<&'a Inner<C>>);

impl<C> Drop for Opening<'_, C> {
    fn drop(&mut self) {
        if let Some(inner) = self.0 {
            inner.lock().opening -= 1;
            inner.changed.notify_waiters();
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
        parted: Arc<AtomicUsize>,
    }

    impl Pooled for Fake {
        fn is_usable(&mut self) -> bool {
            self.alive.load(Ordering::SeqCst)
        }

        fn part(self) {
            self.parted.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A server that lets so many in, from then on nobody.
    struct Server {
        limit: AtomicUsize,
        made: AtomicUsize,
        alive: Arc<AtomicBool>,
        parted: Arc<AtomicUsize>,
    }

    impl Server {
        fn new(limit: usize) -> Arc<Self> {
            Arc::new(Self {
                limit: limit.into(),
                made: AtomicUsize::new(0),
                alive: Arc::new(true.into()),
                parted: Arc::default(),
            })
        }

        async fn open(self: Arc<Self>) -> Result<Fake> {
            let number = self.made.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let fake = Fake { number, alive: Arc::clone(&self.alive), parted: Arc::clone(&self.parted) };
            if number < self.limit.load(Ordering::SeqCst) {
                Ok(fake)
            } else {
                Err(ErrorKind::TooManyConnections.into())
            }
        }

        fn pool(self: &Arc<Self>, max: usize) -> Pool<Fake> {
            self.pool_of(max, Duration::from_secs(5))
        }

        fn pool_of(self: &Arc<Self>, max: usize, patience: Duration) -> Pool<Fake> {
            let server = Arc::clone(self);
            Pool::new(max, patience, move || Box::pin(Arc::clone(&server).open()))
        }

        fn made(&self) -> usize {
            self.made.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn a_connection_given_back_is_used_again_and_a_dropped_one_is_not() {
        let pool = Server::new(9).pool(4);
        pool.checkout().await.unwrap().give_back();
        let again = pool.checkout().await.unwrap();
        assert_eq!(again.number, 0);
        drop(again);
        assert_eq!(pool.checkout().await.unwrap().number, 1);
    }

    #[tokio::test]
    async fn one_that_died_while_idle_is_replaced() {
        let server = Server::new(9);
        let pool = server.pool(1);
        pool.checkout().await.unwrap().give_back();
        server.alive.store(false, Ordering::SeqCst);
        let replaced = pool.checkout();
        let revive = async {
            while server.made() < 2 {
                tokio::task::yield_now().await;
            }
            server.alive.store(true, Ordering::SeqCst);
        };
        assert_eq!(tokio::join!(replaced, revive).0.unwrap().number, 1);
    }

    #[tokio::test]
    async fn at_the_servers_limit_callers_wait_for_a_free_one() {
        let server = Server::new(2);
        let pool = server.pool(4);
        let first = pool.checkout().await.unwrap();
        let _second = pool.checkout().await.unwrap();
        let free = async {
            while !format!("{pool:?}").ends_with("at most 2)") {
                tokio::task::yield_now().await;
            }
            first.give_back();
        };
        let (third, ()) = tokio::join!(pool.checkout(), free);
        assert_eq!(third.unwrap().number, 0);
    }

    #[tokio::test]
    async fn a_server_that_refused_is_tried_again_later() {
        let server = Server::new(1);
        let pool = server.pool(4);
        let first = pool.checkout().await.unwrap();
        assert_eq!(pool.set_wanted(3, Duration::from_secs(5)).await, 1);
        assert_eq!(pool.set_wanted(3, Duration::from_secs(5)).await, 1);
        assert_eq!(server.made(), 3, "tried again at once");
        server.limit.store(9, Ordering::SeqCst);
        pool.inner.lock().refused = None;
        assert_eq!(pool.checkout().await.unwrap().number, 3);
        drop(first);
    }

    #[tokio::test]
    async fn who_waits_tries_again_when_a_refusal_is_forgotten() {
        let server = Server::new(1);
        let pool = server.pool(4);
        pool.inner.lock().memory = Duration::from_millis(1);
        let _first = pool.checkout().await.unwrap();
        let allow = async {
            while server.made() < 3 {
                tokio::task::yield_now().await;
            }
            server.limit.store(9, Ordering::SeqCst);
        };
        assert!(tokio::join!(pool.checkout(), allow).0.unwrap().number > 1);
    }

    #[tokio::test]
    async fn the_first_connection_refused_is_an_error() {
        let refused = Server::new(0).pool(4).checkout().await.map(|lease| lease.number).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TooManyConnections);
    }

    #[tokio::test]
    async fn who_waits_for_an_opening_that_fails_is_told_so() {
        let server = Server::new(0);
        let pool = server.pool(1);
        let all = futures_util::future::join_all((0..5).map(|_| pool.checkout())).await;
        assert!(all.into_iter().all(|one| one.is_err_and(|e| e.kind() == ErrorKind::TooManyConnections)));
        assert_eq!(server.made(), 1);
        server.limit.store(9, Ordering::SeqCst);
        assert!(pool.checkout().await.is_ok(), "who comes later tries again");
    }

    #[tokio::test]
    async fn one_that_gets_in_is_enough_at_the_start() {
        for limit in 0..3 {
            let server = Server::new(limit);
            let pool = server.pool(4);
            pool.want(3);
            let outcome = pool.checkout().await.map(|_| ()).map_err(|e| e.kind());
            assert_eq!(outcome, if limit > 0 { Ok(()) } else { Err(ErrorKind::TooManyConnections) });
            assert!(server.made() <= 4, "{} tries", server.made());
        }
    }

    #[tokio::test]
    async fn as_many_as_wanted_are_opened_and_the_rest_is_ended() {
        let server = Server::new(9);
        let pool = server.pool(6);
        assert_eq!(pool.set_wanted(4, Duration::from_secs(5)).await, 4);
        assert_eq!(pool.set_wanted(9, Duration::from_secs(5)).await, 6);
        let lease = pool.checkout().await.unwrap();
        assert_eq!(pool.set_wanted(1, Duration::from_secs(5)).await, 1);
        assert_eq!((server.made(), server.parted.load(Ordering::SeqCst)), (6, 5));
        lease.give_back();
        assert_eq!(server.parted.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn a_connection_that_is_replaced_leaves_no_gap() {
        let server = Server::new(9);
        let pool = server.pool(6);
        assert_eq!(pool.set_wanted(2, Duration::from_secs(5)).await, 2);
        pool.checkout().await.unwrap().replace();
        while server.made() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.set_wanted(2, Duration::from_secs(5)).await, 2);
    }

    #[tokio::test]
    async fn a_connection_opened_for_one_who_left_serves_the_next() {
        let server = Server::new(9);
        let pool = server.pool(1);
        let mut left = Box::pin(pool.checkout());
        assert!(futures_util::poll!(&mut left).is_pending());
        drop(left);
        assert_eq!(pool.checkout().await.unwrap().number, 0);
        assert_eq!(server.made(), 1);
    }

    #[tokio::test]
    async fn waiting_ends_when_nothing_moves() {
        let pool = Server::new(9).pool_of(1, Duration::from_millis(20));
        let _held = pool.checkout().await.unwrap();
        let stuck = pool.checkout().await.map(|lease| lease.number).unwrap_err();
        assert_eq!(stuck.kind(), ErrorKind::Timeout);
    }

    #[tokio::test]
    async fn a_closed_pool_hands_out_nothing() {
        let pool = Server::new(9).pool(2);
        pool.checkout().await.unwrap().give_back();
        assert_eq!(pool.close().len(), 1);
        assert!(pool.checkout().await.is_err());
    }
}

//! The connections of one endpoint: opened together, and each new stream on the one that has the fewest.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Dial;
use super::client::{Claim, Client, WeakClient};
use crate::error::{Error, ErrorKind, Result};

/// How long a server that let no further connection in is not asked again.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// Up to so many connections, each with an SFTP channel; called lanes, since streams are spread over them.
///
/// A lane that breaks fails its own streams and is left out. Another takes its place in the background while others
/// live; the last one is replaced by the next call. A further lane that can't be opened is no error: what is there
/// goes on.
pub(super) struct Lanes(Arc<Inner>);

struct Inner {
    dial: Dial,
    timeout: Duration,
    most: usize,
    state: Mutex<State>,
    /// A lane was opened, or one could not be.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// In the order of their opening; never more than wanted.
    live: Vec<Client>,
    /// Not wanted any more: they end with their streams, unless they are wanted again before.
    retired: Vec<WeakClient>,
    wanted: usize,
    opening: usize,
    refused: Option<Refusal>,
    /// How often the last lane could not be replaced, and why the latest could not.
    failures: u64,
    failure: Option<Error>,
    /// Counts picks, so that lanes that are equally busy take turns.
    picks: usize,
    closed: bool,
}

/// The server let no more than so many in.
struct Refusal {
    lanes: usize,
    at: Instant,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state();
        write!(f, "Lanes({} of {})", state.live.len(), state.wanted)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        drop(self.close());
    }
}

impl Lanes {
    /// Opens `at_once` lanes of at most `most`, and returns when the first is ready; the others may follow.
    ///
    /// # Errors
    /// Those of `dial` and of [`Client::start`], when no lane can be opened; what is wrong with the login itself ends
    /// all of them, so that nobody is asked twice.
    pub(super) async fn open(dial: Dial, timeout: Duration, most: usize, at_once: usize) -> Result<Self> {
        let most = most.max(1);
        let wanted = at_once.clamp(1, most);
        let state = Mutex::new(State { wanted, ..State::default() });
        let lanes = Self(Arc::new(Inner { dial, timeout, most, state, changed: Notify::new() }));
        let mut opening = JoinSet::new();
        for _ in 0..wanted {
            let inner = Arc::clone(&lanes.0);
            opening.spawn(async move { inner.open_one().await });
        }
        let mut failure = None;
        while let Some(opened) = opening.join_next().await {
            match opened.map_err(|e| Error::new(ErrorKind::Other, "connect").with_source(e))? {
                Ok(first) => {
                    lanes.0.welcome(first, opening);
                    return Ok(lanes);
                }
                // Trying the same elsewhere at the same time would end the same.
                Err(error) if !error.kind().is_retryable() => return Err(error),
                Err(error) => failure = Some(failure.unwrap_or(error)),
            }
        }
        Err(failure.unwrap_or_else(closed))
    }

    /// Wants so many lanes from now on, waits for those that are missing, and returns how many there are.
    pub(super) async fn set_wanted(&self, wanted: usize) -> usize {
        let wanted = wanted.clamp(1, self.0.most);
        self.0.state().want(wanted);
        self.0.fill();
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.0.state();
                state.leave_out_dead();
                if state.opening == 0 || state.live.len() >= wanted || state.closed {
                    return state.live.len().max(1);
                }
            }
            changed.await;
        }
    }

    /// Returns the lane that has the fewest streams, with one more from now on.
    ///
    /// # Errors
    /// Those of connecting anew, when none is left; for all who wait for that.
    pub(super) async fn for_stream(&self) -> Result<(Client, Claim)> {
        self.pick(|client| (client.clone(), client.claim())).await
    }

    /// Returns the lane that has the fewest streams.
    ///
    /// # Errors
    /// Those of connecting anew, when none is left.
    pub(super) async fn any(&self) -> Result<Client> {
        self.pick(Client::clone).await
    }

    /// Returns the shortest time that any answer took.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.0.state().live.iter().filter_map(Client::round_trip).min()
    }

    /// Returns how many files may be open at once on one lane.
    pub(super) fn handle_limit(&self) -> usize {
        self.0.state().live.iter().map(Client::handle_limit).min().unwrap_or(1)
    }

    /// Opens no more lanes, and returns those that are there.
    pub(super) fn close(&self) -> Vec<Client> {
        let mut state = self.0.state();
        state.closed = true;
        let live = std::mem::take(&mut state.live);
        drop(state);
        self.0.changed.notify_waiters();
        live
    }

    async fn pick<T>(&self, take: impl Fn(&Client) -> T) -> Result<T> {
        let since = self.0.state().failures;
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let picked = self.0.state().pick(&take)?;
            if let Some(picked) = picked {
                self.0.fill();
                return Ok(picked);
            }
            // A server that doesn't answer would cost each of many its own timeout, one after the other.
            if let Some(failure) = self.0.state().failed_since(since) {
                return Err(failure);
            }
            if self.0.begin_last() {
                let replacing = Opening(&self.0);
                // Awaited here: who needs the lane is told why there is none.
                let opened = self.0.open_one().await;
                self.0.state().replaced(opened)?;
                drop(replacing);
            } else {
                changed.await;
            }
        }
    }
}

/// A lane being opened by a caller, who may stop waiting.
struct Opening<'a>(&'a Inner);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.state().opening -= 1;
        self.0.changed.notify_waiters();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_one(&self) -> Result<Client> {
        Client::start((self.dial)().await?, self.timeout).await
    }

    /// Takes the first lane; the others follow in the background.
    fn welcome(self: &Arc<Self>, first: Client, mut others: JoinSet<Result<Client>>) {
        let mut state = self.state();
        state.admit(first);
        state.opening = others.len();
        drop(state);
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(opened) = others.join_next().await {
                inner.opened(opened.unwrap_or_else(|_| Err(closed())));
            }
        });
    }

    /// Opens what is missing, in the background and all at once.
    fn fill(self: &Arc<Self>) {
        let missing = self.state().take_missing();
        for _ in 0..missing {
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                let opened = inner.open_one().await;
                inner.opened(opened);
            });
        }
    }

    /// Returns whether the caller shall replace the last lane: nobody else does.
    fn begin_last(&self) -> bool {
        let mut state = self.state();
        let is_mine = state.opening == 0;
        state.opening += usize::from(is_mine);
        is_mine
    }

    fn opened(&self, opened: Result<Client>) {
        let mut state = self.state();
        state.opening -= 1;
        match opened {
            Ok(client) => state.admit(client),
            Err(error) => {
                let lanes = state.live.len().max(1);
                // The server's limits are its own affair; that somebody else answered there is not.
                match error.kind() {
                    ErrorKind::HostKey => tracing::warn!("going on with {lanes} connections: {}", error.chain()),
                    _ => tracing::debug!("going on with {lanes} connections: {}", error.chain()),
                }
                state.refused = Some(Refusal { lanes, at: Instant::now() });
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    fn want(&mut self, wanted: usize) {
        self.wanted = wanted;
        self.leave_out_dead();
        while self.live.len() > wanted
            && let Some(client) = self.live.pop()
        {
            self.retired.push(client.downgrade());
        }
        while self.live.len() < wanted
            && let Some(retired) = self.retired.pop()
        {
            self.live.extend(retired.upgrade().filter(Client::is_alive));
        }
    }

    fn leave_out_dead(&mut self) {
        self.live.retain(Client::is_alive);
    }

    fn admit(&mut self, client: Client) {
        if !self.closed && self.live.len() < self.wanted {
            self.live.push(client);
        }
    }

    /// Takes the lane that replaces the last one, or notes why there is none.
    fn replaced(&mut self, opened: Result<Client>) -> Result<()> {
        match opened {
            Ok(client) => self.admit(client),
            Err(error) => {
                self.failures += 1;
                self.failure = Some(error.for_another());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Returns why the last lane could not be replaced while somebody waited for it, who had seen so many failures.
    fn failed_since(&self, seen: u64) -> Option<Error> {
        let failed = self.failures > seen && self.opening == 0;
        self.failure.as_ref().filter(|_| failed).map(Error::for_another)
    }

    /// Returns how many lanes are to be opened now, and counts them as being opened. The last one is not among them:
    /// it is opened by who needs it.
    fn take_missing(&mut self) -> usize {
        self.leave_out_dead();
        if self.refused.as_ref().is_some_and(|refusal| refusal.at.elapsed() >= REFUSED_FOR) {
            self.refused = None;
        }
        let allowed = self.refused.as_ref().map_or(self.wanted, |refusal| refusal.lanes.min(self.wanted));
        if self.closed || self.live.is_empty() {
            return 0;
        }
        let missing = allowed.saturating_sub(self.live.len() + self.opening);
        self.opening += missing;
        missing
    }

    fn pick<T>(&mut self, take: impl Fn(&Client) -> T) -> Result<Option<T>> {
        if self.closed {
            return Err(closed());
        }
        self.leave_out_dead();
        self.picks = self.picks.wrapping_add(1);
        let first = self.picks.checked_rem(self.live.len()).unwrap_or(0);
        let (before, from) = self.live.split_at(first);
        Ok(from.iter().chain(before).min_by_key(|client| client.load()).map(take))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::ConnectionLost, "the endpoint was closed")
}

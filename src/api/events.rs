//! What is told while a copy runs and at its end, and what stops it.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{Event, Observer, Status, Summary};

/// Failures that a report names; their number is in the summary in any case.
const MOST_FAILURES: usize = 10_000;
/// Events that wait to be read, beyond which progress is left out: the next one says more anyway.
const MOST_WAITING: usize = 1024;

type Call = Box<dyn FnMut(&Event) + Send>;

/// Tells the caller, and keeps what failed.
#[derive(Default)]
pub(super) struct Teller {
    calls: Mutex<Vec<Call>>,
    /// One at most: the error in an event has one owner.
    stream: Option<(mpsc::UnboundedSender<Event>, Arc<AtomicUsize>)>,
    failures: Mutex<Vec<Failure>>,
}

impl Teller {
    pub(super) fn call(&mut self, call: impl FnMut(&Event) + Send + 'static) {
        lock(&self.calls).push(Box::new(call));
    }

    pub(super) fn events(&mut self) -> Events {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        self.stream = Some((sender, Arc::clone(&waiting)));
        Events { receiver, waiting }
    }

    pub(super) fn report(&self, summary: Summary) -> Report {
        Report { summary, failures: std::mem::take(&mut lock(&self.failures)) }
    }
}

impl Observer for Teller {
    fn event(&self, event: Event) {
        if let Event::Finished(outcome) = &event
            && let Status::Failed(error) = &outcome.status
        {
            let mut failures = lock(&self.failures);
            if failures.len() < MOST_FAILURES {
                let (source, destination) = (outcome.source.clone(), outcome.destination.clone());
                failures.push(Failure { source, destination, error: error.for_another() });
            }
        }
        lock(&self.calls).iter_mut().for_each(|call| call(&event));
        let Some((sender, waiting)) = &self.stream else { return };
        let superseded = matches!(event, Event::Progress { .. });
        if superseded && waiting.load(Ordering::Relaxed) >= MOST_WAITING {
            return;
        }
        waiting.fetch_add(1, Ordering::Relaxed);
        // Nobody may want to know any more.
        let _ = sender.send(event);
    }
}

/// The events of one run, in order for each file.
///
/// Reading them late costs memory for each file that ended meanwhile; progress is left out then. Dropped, nothing is kept.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::UnboundedReceiver<Event>,
    waiting: Arc<AtomicUsize>,
}

impl Events {
    /// Returns the next event, or `None` when the run has ended.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let event = self.receiver.poll_recv(cx);
        if let Poll::Ready(Some(_)) = event {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        event
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(cx)
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    summary: Summary,
    failures: Vec<Failure>,
}

impl Report {
    /// Returns the totals.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Returns what failed, the first ten thousand of them.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Returns whether nothing failed, and nobody stopped it.
    pub fn is_complete(&self) -> bool {
        self.summary.failed == 0 && !self.summary.cancelled
    }

    /// Returns the totals if all went well.
    ///
    /// # Errors
    /// The first failure, or `Cancelled`.
    pub fn into_result(self) -> Result<Summary> {
        match self.failures.into_iter().next() {
            Some(failure) => Err(failure.error),
            None if self.summary.cancelled => Err(ErrorKind::Cancelled.into()),
            None => Ok(self.summary),
        }
    }
}

/// A file, link or directory that failed.
#[derive(Debug)]
pub struct Failure {
    source: String,
    destination: String,
    error: Error,
}

impl Failure {
    /// Returns the URL of the source; empty if it is about a directory to make.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the URL of the destination; empty if it never got that far.
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// Returns why.
    pub fn error(&self) -> &Error {
        &self.error
    }
}

/// Stops a run; clones stop the same one.
#[derive(Debug, Clone, Default)]
pub struct Canceller(CancellationToken);

impl Canceller {
    /// Ends the run soon. What is under way is kept, so that the same run goes on with it later.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    pub(super) fn token(&self) -> CancellationToken {
        self.0.clone()
    }

    /// Waits, unless the run is stopped.
    pub(super) async fn unless<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = future => result,
            () = self.0.cancelled() => Err(ErrorKind::Cancelled.into()),
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

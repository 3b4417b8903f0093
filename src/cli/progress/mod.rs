//! What happens to transfers, shown as they go: bars, lines or JSON on standard error, results as JSON on standard
//! output.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use haul::transfer::{Event, Observer, Outcome, Status};
use haul::transport::escape;

use super::context::Context;
use super::format::path_of;
use super::json::{ErrorObject, FileEvent, FlightEvent, SummaryEvent, line, milliseconds};
use super::reports::Recorder;
use super::terminal;

mod bars;
mod block;
mod lines;
mod tally;

pub(crate) use bars::Bars;
use block::Canvas;
use lines::Throttle;
pub(crate) use tally::Tally;

/// How often bars are drawn.
const DRAWING: Duration = Duration::from_millis(100);
/// How often lines say how far a long run is.
const STANDING: Duration = Duration::from_secs(10);
/// How often JSON tells the position of one file.
const TELLING: Duration = Duration::from_millis(500);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Bars on a terminal, lines otherwise.
    Auto,
    /// Bars, redrawn in place.
    Bars,
    /// A line for each file.
    Lines,
    /// An object for each event.
    Json,
    /// Nothing but errors.
    Nothing,
}

/// Shows a run. [`Progress::end`] must be called.
pub(crate) struct Progress {
    context: Arc<Context>,
    recorder: Recorder,
    view: View,
    /// Whether each result is an object on standard output.
    results: bool,
    retries: AtomicU32,
    state: Mutex<State>,
    ticker: Mutex<Option<Ticker>>,
}

struct State {
    tally: Tally,
    throttle: Throttle,
    /// How many files were through when that was last told.
    told: (u64, u64),
}

struct Ticker {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Starts to show a run that tries each file again so often.
    pub(crate) fn start(context: &Arc<Context>, view: View, results: bool, retries: u32) -> Arc<Self> {
        Self::start_for(context.recorder.clone(), context, view, results, retries)
    }

    /// The same for files that are only read to be compared: reports are told what came of it, not that they were read.
    pub(crate) fn start_unrecorded(context: &Arc<Context>, view: View, results: bool, retries: u32) -> Arc<Self> {
        Self::start_for(Recorder::default(), context, view, results, retries)
    }

    fn start_for(recorder: Recorder, context: &Arc<Context>, view: View, results: bool, retries: u32) -> Arc<Self> {
        let now = Instant::now();
        let state = State { tally: Tally::new(now), throttle: Throttle::new(now), told: (0, 0) };
        let progress = Arc::new(Self {
            context: Arc::clone(context),
            recorder,
            view: choose(view, results, context.quiet),
            results,
            retries: AtomicU32::new(retries),
            state: Mutex::new(state),
            ticker: Mutex::default(),
        });
        let every = match progress.view {
            View::Bars => DRAWING,
            View::Lines => STANDING,
            View::Json | View::Nothing | View::Auto => return progress,
        };
        if progress.view == View::Bars {
            context.screen.put_up(Bars::new());
        }
        let (stop, stopped) = mpsc::channel();
        let shown = Arc::clone(&progress);
        let tick = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                shown.tick();
            }
        };
        // Without a thread there are no bars; the transfers don't need them.
        if let Ok(thread) = std::thread::Builder::new().name("progress".into()).spawn(tick) {
            *progress.ticker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ticker { stop, thread });
        }
        progress
    }

    /// From now on each file is tried again so often.
    pub(crate) fn set_retries(&self, retries: u32) {
        self.retries.store(retries, Ordering::Relaxed);
    }

    fn retries(&self) -> u32 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Takes the bars away and, if the run came to its end, says what it came to.
    pub(crate) fn end(&self, complete: bool) {
        if let Some(ticker) = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(ticker.stop);
            let _ = ticker.thread.join();
        }
        self.context.screen.take_down();
        if !complete {
            return;
        }
        let now = Instant::now();
        let state = self.state();
        if self.results {
            self.result(&SummaryEvent::new(&state.tally, now));
        }
        if matches!(self.view, View::Bars | View::Lines) {
            self.context.screen.line(&lines::summary(&state.tally, now));
        }
    }

    fn tick(&self) {
        let now = Instant::now();
        let mut state = self.state();
        match self.view {
            View::Bars => {
                let (columns, rows) = terminal::size();
                let canvas = Canvas { columns, rows, unicode: terminal::is_utf8(), retries: self.retries() };
                let lines = block::lay_out(&mut state.tally, now, canvas);
                drop(state);
                self.context.screen.draw(&lines);
            }
            _ => {
                let standing = (state.tally.settled(), state.tally.position());
                if std::mem::replace(&mut state.told, standing) != standing {
                    let text = lines::standing(&mut state.tally, now);
                    self.context.screen.line(&text);
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says in a line what is worth one; before the event is counted, since names are forgotten then.
    fn say(&self, event: &Event, state: &mut State, now: Instant) {
        let flight = |id: &u64| state.tally.flights.get(id);
        let text = match event {
            Event::Resumed { id, offset } => flight(id).map(|flight| lines::resumed(flight, *offset)),
            Event::Retrying { id, attempt, wait, error } if self.view == View::Lines => flight(id).map(|flight| {
                let reason = super::report::text(error);
                format!("{}: {}", flight.name, lines::retrying(*wait, *attempt, self.retries(), &reason))
            }),
            Event::Note { id, text } => Some(match flight(id) {
                Some(flight) => format!("{}: {}", flight.name, escape(text.as_bytes())),
                None => format!("haul: {}", escape(text.as_bytes())),
            }),
            Event::Finished(outcome) if self.view == View::Lines => {
                lines::finished(outcome).filter(|_| state.throttle.allows(now))
            }
            _ => None,
        };
        if let Some(text) = text {
            self.context.screen.line(&text);
        }
    }

    fn say_json(&self, event: &Event, state: &mut State, now: Instant) {
        let flights = &mut state.tally.flights;
        if let Event::Progress { id, .. } = event {
            let Some(flight) = flights.get_mut(id) else { return };
            if flight.told.is_some_and(|told| now.duration_since(told) < TELLING) {
                return;
            }
            flight.told = Some(now);
        }
        let flight = |id: &u64| flights.get(id);
        let source = |id: &u64| flight(id).map_or("", |flight| &flight.source);
        let object = match event {
            Event::Started { source, destination, size, .. } => {
                FlightEvent::Started { source, destination, size: *size }
            }
            Event::Resumed { id, offset } => FlightEvent::Resumed { source: source(id), offset: *offset },
            Event::Progress { id, position } => {
                let size = flight(id).and_then(|flight| flight.size);
                FlightEvent::Progress { source: source(id), position: *position, size }
            }
            Event::Retrying { id, attempt, wait, error } => FlightEvent::Retrying {
                source: source(id),
                attempt: *attempt,
                retries: self.retries(),
                seconds: milliseconds(wait.as_secs_f64()),
                error: ErrorObject::new(error),
            },
            Event::Note { id, text } => FlightEvent::Note { source: source(id), text },
            _ => return,
        };
        self.context.screen.raw_line(object.to_line());
    }

    /// Writes a result to standard output. A reader that went away wants no more files either.
    fn result(&self, object: &impl serde::Serialize) {
        let mut text = Vec::new();
        let mut write = || line(&mut text, object).and_then(|()| self.context.stdout.write(&text));
        let written = if self.context.stdout.terminal { self.context.screen.suspend(&mut write) } else { write() };
        if let Err(error) = written {
            self.context.report.failed(error);
            self.context.cancel.cancel();
        }
    }

    fn finished(&self, outcome: Outcome) {
        if self.results {
            self.result(&FileEvent::new(&outcome));
        }
        match outcome.status {
            Status::Failed(error) => {
                let failure = self.context.limits.failure(error.at(path_of(&outcome.source)));
                self.context.report.failed(failure);
            }
            Status::Planned if !self.results => {
                let text = format!("{} -> {}\n", path_of(&outcome.source), path_of(&outcome.destination));
                if let Err(error) = self.context.stdout.write(text.as_bytes()) {
                    self.context.report.failed(error);
                    self.context.cancel.cancel();
                }
            }
            _ => {}
        }
    }
}

impl Observer for Progress {
    fn event(&self, event: Event) {
        let now = Instant::now();
        self.recorder.event(&event);
        let mut state = self.state();
        match self.view {
            View::Bars | View::Lines => self.say(&event, &mut state, now),
            View::Json => self.say_json(&event, &mut state, now),
            View::Nothing | View::Auto => {}
        }
        state.tally.take(&event, now);
        drop(state);
        if let Event::Finished(outcome) = event {
            self.finished(outcome);
        }
    }
}

fn choose(view: View, results: bool, quiet: bool) -> View {
    match view {
        _ if quiet => View::Nothing,
        View::Auto | View::Bars if terminal::can_draw() => View::Bars,
        // Each file is told on standard output already.
        View::Auto if results => View::Nothing,
        View::Auto | View::Bars => View::Lines,
        other => other,
    }
}

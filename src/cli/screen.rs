//! Standard error: lines for people, above the bars where there are any.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use haul::transport::escape;

use super::json::FlightEvent;
use super::progress::Bars;

/// So many lines may wait for the next time that the bars are drawn.
const MOST_WAITING: usize = 500;

/// How much a line matters, as syslog counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// Standard error, shared by progress, reports, prompts and logs so that none tears another.
#[derive(Default)]
pub(crate) struct Screen {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bars: Option<Bars>,
    /// Lines to write above the bars: each alone would redraw them.
    waiting: Vec<String>,
    json: bool,
    /// Whether the system's journal reads the lines.
    journal: bool,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Screen")
    }
}

impl Screen {
    /// Writes a line for people, harmlessly whatever it holds. A standard error that can't be written to is no reason to
    /// stop.
    pub(crate) fn line(&self, text: &str) {
        self.line_of(Level::Info, text);
    }

    /// The same with how much it matters.
    pub(crate) fn line_of(&self, level: Level, text: &str) {
        let mut state = self.state();
        let line = match (state.json, state.journal) {
            (true, _) | (_, true) if text.is_empty() => return,
            (true, _) => FlightEvent::Message { text }.to_line(),
            // As sd-daemon(3) has it, in front of each line.
            (_, true) => {
                format!("<{0}>{1}", level as u8, escape_lines(text).replace('\n', &format!("\n<{}>", level as u8)))
            }
            _ => escape_lines(text),
        };
        state.waiting.push(line);
        if state.bars.is_none() || state.waiting.len() >= MOST_WAITING {
            flush(state);
        }
    }

    /// Writes a line as it is.
    pub(crate) fn raw_line(&self, line: String) {
        let mut state = self.state();
        state.waiting.push(line);
        flush(state);
    }

    /// Makes every line for people an object of JSON.
    pub(crate) fn speak_json(&self) {
        self.state().json = true;
    }

    /// Writes in front of every line for people how much it matters.
    pub(crate) fn speak_journal(&self) {
        self.state().journal = true;
    }

    /// Runs something that writes to the terminal or asks there, with the bars out of the way.
    pub(crate) fn suspend<R>(&self, action: impl FnOnce() -> R) -> R {
        let bars = self.state().bars.clone();
        match bars {
            Some(bars) => bars.suspend(action),
            None => action(),
        }
    }

    /// Puts up bars.
    pub(crate) fn put_up(&self, bars: Bars) {
        self.state().bars = Some(bars);
    }

    /// Draws the bars anew, below the lines that came in between.
    pub(crate) fn draw(&self, lines: &[String]) {
        let state = self.state();
        if let Some(bars) = state.bars.clone() {
            flush(state);
            bars.draw(&lines.iter().map(|line| escape(line.as_bytes())).collect::<Vec<_>>());
        }
    }

    /// Takes the bars away.
    pub(crate) fn take_down(&self) {
        let bars = self.state().bars.take();
        if let Some(bars) = bars {
            bars.clear();
        }
        flush(self.state());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes text harmless, keeping its lines.
pub(crate) fn escape_lines(text: &str) -> String {
    text.split('\n').map(|line| escape(line.as_bytes())).collect::<Vec<_>>().join("\n")
}

/// Writes what waits. With bars, not under the lock: somebody may be typing an answer while they are out of the way.
fn flush(mut state: MutexGuard<'_, State>) {
    if state.waiting.is_empty() {
        return;
    }
    let mut text = std::mem::take(&mut state.waiting).join("\n");
    text.push('\n');
    let write = || {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    };
    match state.bars.clone() {
        Some(bars) => {
            drop(state);
            bars.suspend(write);
        }
        None => write(),
    }
}

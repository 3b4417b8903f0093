//! Standard error: lines for people, above the bars where there are any.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::progress::Bars;

/// Standard error, shared by progress, reports, prompts and logs so that none tears another.
#[derive(Default)]
pub(crate) struct Screen {
    bars: Mutex<Option<Bars>>,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Screen")
    }
}

impl Screen {
    /// Writes a line. A standard error that can't be written to is no reason to stop.
    pub(crate) fn line(&self, text: &str) {
        self.suspend(|| {
            let _ = writeln!(io::stderr().lock(), "{text}");
        });
    }

    /// Runs something that writes to the terminal or asks there, with the bars out of the way.
    pub(crate) fn suspend<R>(&self, action: impl FnOnce() -> R) -> R {
        let bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bars {
            Some(bars) => bars.suspend(action),
            None => action(),
        }
    }

    /// Puts up bars, or takes them away.
    pub(crate) fn set_bars(&self, bars: Option<Bars>) {
        let old = std::mem::replace(&mut *self.bars.lock().unwrap_or_else(PoisonError::into_inner), bars);
        if let Some(bars) = old {
            bars.clear();
        }
    }
}

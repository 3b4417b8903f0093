//! Bars on a terminal. The only file that knows indicatif.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::terminal;

/// A block of lines at the bottom of the terminal that is redrawn in place.
#[derive(Debug, Clone)]
pub(crate) struct Bars(ProgressBar);

impl Bars {
    /// Makes an empty block.
    pub(crate) fn new() -> Self {
        terminal::hush();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        // The lines are laid out by us, whole: one template with one hole can't fail.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Draws these lines instead of the ones before.
    pub(crate) fn draw(&self, lines: &[String]) {
        self.0.set_message(lines.join("\n"));
    }

    /// Runs something that writes to the terminal, with the block out of the way.
    pub(crate) fn suspend<R>(&self, action: impl FnOnce() -> R) -> R {
        self.0.suspend(action)
    }

    /// Takes the block away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
        terminal::unhush();
    }
}

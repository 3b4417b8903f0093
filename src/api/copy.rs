//! Copying files and trees.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;

use super::events::Report;
use super::moving::{Moving, Started, moving_methods};
use crate::error::Result;
use crate::plan;
use crate::transfer::Observer;

/// A copy of files or trees between any two places, made by [`get`](super::get) or [`put`](super::put).
#[must_use = "nothing is copied until run is awaited"]
pub struct Transfer {
    sources: Vec<OsString>,
    destination: OsString,
    plan: plan::Options,
    moving: Moving,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // URLs may hold passwords.
        let sources = self.sources.len();
        f.debug_struct("Transfer").field("sources", &sources).field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Transfer {
    pub(super) fn new(source: &OsStr, destination: &OsStr) -> Self {
        let (sources, destination) = (vec![source.to_owned()], destination.to_owned());
        Self { sources, destination, plan: plan::Options::default(), moving: Moving::default() }
    }

    moving_methods!();

    /// Copies this as well; the destination has to be a directory then.
    pub fn source(mut self, source: impl AsRef<OsStr>) -> Self {
        self.sources.push(source.as_ref().to_owned());
        self
    }

    /// Takes directories with all that is in them; without it a directory fails.
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.plan.recursive = recursive;
        self
    }

    /// Keeps permissions, and symbolic links as links; otherwise links to files are followed. Times are always kept.
    pub fn preserve(mut self, preserve: bool) -> Self {
        self.plan.preserve = preserve;
        self.options(move |options| options.preserve_mode = preserve)
    }

    /// Copies. Files that are there with the same size and time are skipped, interrupted ones go on where they were.
    ///
    /// Dropping the future stops it, too, but less gently than [`Canceller::cancel`](super::Canceller::cancel).
    ///
    /// # Errors
    /// What keeps it from beginning: a URL that is none, no connection, no login, sources that can't land at the
    /// destination. A file that fails is in the report. `Cancelled` only if nothing had begun.
    pub async fn run(mut self) -> Result<Report> {
        let options = self.moving.take_options()?;
        let teller = self.moving.take_teller();
        let filter = self.moving.filter.clone();
        let planned = plan::Options { filter, retries: options.retries, retry_wait: options.retry_wait, ..self.plan };
        let Moving { login, canceller, .. } = &self.moving;
        let started = Started::new(login, canceller, &options, &self.sources, &self.destination).await?;
        let observer = Arc::clone(&teller) as Arc<dyn Observer>;
        let cancel = canceller.token();
        let run = plan::carry_out(started.sources, started.destination, planned, &options, observer, cancel);
        let summary = run.await?;
        if !summary.cancelled {
            started.connections.close().await;
        }
        Ok(teller.report(summary))
    }
}

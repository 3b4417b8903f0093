//! How jobs and whole runs ended, for people, programs and hooks.

use std::time::Duration;

use haul::batch::Job;
use serde::Serialize;

use crate::cli::json::{ErrorObject, milliseconds};
use crate::cli::report::Exit;

/// How a job ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) status: Status,
    /// Why it was skipped.
    pub(super) reason: Option<String>,
    pub(super) exit: Exit,
    pub(super) attempts: u32,
    pub(super) elapsed: Duration,
    pub(super) error: Option<ErrorObject>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Done,
    /// Its condition, or an interrupted run that did it already: what needs it goes on.
    Skipped,
    /// What it needs has failed.
    Blocked,
    Failed,
    Interrupted,
    /// The run ended before.
    Left,
}

impl Status {
    /// Returns the word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Left => "left",
        }
    }

    /// Returns whether the job was begun.
    pub(super) fn has_run(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Interrupted)
    }
}

/// A job's end, for programs.
#[derive(Debug, Serialize)]
pub(super) struct JobEvent<'a> {
    pub(super) event: &'static str,
    pub(super) name: &'a str,
    pub(super) command: &'a str,
    pub(super) status: Status,
    pub(super) reason: Option<&'a str>,
    /// `null` where there was nothing that could end.
    pub(super) exit: Option<u8>,
    pub(super) attempts: u32,
    pub(super) seconds: f64,
    pub(super) error: Option<&'a ErrorObject>,
}

/// The run's end, for programs.
#[derive(Debug, Serialize)]
pub(super) struct BatchEvent<'a> {
    pub(super) event: &'static str,
    pub(super) file: &'a str,
    pub(super) exit: u8,
    pub(super) done: usize,
    pub(super) skipped: usize,
    pub(super) failed: usize,
    pub(super) left: usize,
    pub(super) seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) jobs: Vec<JobEvent<'a>>,
}

impl End {
    pub(super) fn new(status: Status) -> Self {
        let (reason, exit, error) = (None, Exit::Done, None);
        Self { status, reason, exit, attempts: 0, elapsed: Duration::ZERO, error }
    }

    pub(super) fn because(status: Status, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(status) }
    }
}

/// Describes a job's end.
pub(super) fn event<'a>(job: &'a Job, end: &'a End) -> JobEvent<'a> {
    JobEvent {
        event: "job",
        name: &job.name,
        command: job.verb,
        status: end.status,
        reason: end.reason.as_deref(),
        exit: end.status.has_run().then(|| end.exit.code()),
        attempts: end.attempts,
        seconds: milliseconds(end.elapsed.as_secs_f64()),
        error: end.error.as_ref(),
    }
}

//! The end of one file, as all reports have it.

use haul::transfer::{Outcome, Status, Verified};
use haul::{Error, ErrorKind};
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use super::job::Flight;
use crate::cli::json::milliseconds;
use crate::cli::report;

/// Something that was looked at and not moved.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// What was looked at: URLs; empty where there is none.
    pub(crate) source: &'a str,
    pub(crate) destination: &'a str,
    /// What was found, in a word: `equal`, `different`, `missing`, `extra`, `removed`.
    pub(crate) status: &'static str,
    /// Why, or how.
    pub(crate) reason: Option<&'a str>,
    pub(crate) bytes: Option<u64>,
}

/// The end of one file, link or directory.
#[derive(Debug, Serialize)]
pub(super) struct Record<'a> {
    pub(super) job: &'a str,
    pub(super) source: &'a str,
    pub(super) destination: &'a str,
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'a str>,
    pub(super) bytes: Option<u64>,
    pub(super) transferred: u64,
    /// Bytes a second.
    pub(super) rate: Option<u64>,
    #[serde(serialize_with = "to_the_millisecond")]
    pub(super) started: Timestamp,
    #[serde(serialize_with = "to_the_millisecond")]
    pub(super) ended: Timestamp,
    pub(super) seconds: f64,
    pub(super) retries: u32,
    /// Of the job: only the last counts.
    pub(super) attempt: u32,
    pub(super) resumed_from: Option<u64>,
    pub(super) verified: Option<&'static str>,
    pub(super) digest: Option<&'static str>,
    #[serde(skip)]
    pub(super) proof: Option<Verified>,
    pub(super) error: Option<Problem>,
}

/// An error with its advice, without what must stay secret.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Problem {
    pub(super) kind: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl<'a> Record<'a> {
    /// Describes an outcome.
    pub(super) fn new(job: &'a str, outcome: &'a Outcome, flight: Option<Flight>, ended: Timestamp) -> Self {
        let elapsed = SignedDuration::try_from(outcome.elapsed).unwrap_or_default();
        let started = flight.as_ref().map(|flight| flight.started);
        let seconds = outcome.elapsed.as_secs_f64();
        let (status, reason, error) = match &outcome.status {
            Status::Done => ("done", None, None),
            Status::Skipped(reason) => ("skipped", Some(*reason), None),
            Status::Planned => ("planned", None, None),
            Status::Failed(error) if error.kind() == ErrorKind::Cancelled => ("interrupted", None, None),
            Status::Failed(error) => ("failed", None, Some(Problem::new(error))),
        };
        Self {
            job,
            source: &outcome.source,
            destination: &outcome.destination,
            status,
            reason,
            bytes: outcome.bytes,
            transferred: outcome.transferred,
            rate: rate(outcome.transferred, seconds),
            started: started.or_else(|| ended.checked_sub(elapsed).ok()).unwrap_or(ended).min(ended),
            ended,
            seconds: milliseconds(seconds),
            retries: flight.map_or(0, |flight| flight.retries),
            attempt: 1,
            resumed_from: outcome.resumed_from,
            verified: outcome.verified.map(|verified| match verified {
                Verified::Digest(_) => "digest",
                Verified::Overlap => "overlap",
                Verified::Size => "size",
            }),
            digest: match outcome.verified {
                Some(Verified::Digest(algorithm)) => Some(algorithm.name()),
                _ => None,
            },
            proof: outcome.verified,
            error,
        }
    }

    /// Describes what was looked at.
    pub(super) fn of_item(job: &'a str, item: &Item<'a>, now: Timestamp) -> Self {
        Self {
            job,
            source: item.source,
            destination: item.destination,
            status: item.status,
            reason: item.reason,
            bytes: item.bytes,
            transferred: 0,
            rate: None,
            started: now,
            ended: now,
            seconds: 0.0,
            retries: 0,
            attempt: 1,
            resumed_from: None,
            verified: None,
            digest: None,
            proof: None,
            error: None,
        }
    }

    /// Returns how it was proven, in a word.
    pub(super) fn verified(&self) -> &'static str {
        self.digest.or(self.verified).unwrap_or("")
    }
}

impl Problem {
    /// Describes an error. What a server says about a login may hold the password: that is left out.
    pub(super) fn new(error: &Error) -> Self {
        let message = match error.kind() {
            ErrorKind::AuthFailed => format!("{}: the login was refused", error.path().unwrap_or("the server")),
            _ => report::text(error),
        };
        Self { kind: error.kind().name(), message, hint: report::hint(error) }
    }
}

/// Returns the bytes a second; what took no time has no rate that means anything.
pub(super) fn rate(bytes: u64, seconds: f64) -> Option<u64> {
    (bytes > 0 && seconds >= 0.001).then(|| (bytes as f64 / seconds) as u64)
}

/// Writes an instant as RFC 3339 has it, in UTC.
pub(super) fn instant(time: Timestamp) -> String {
    format!("{time:.3}")
}

fn to_the_millisecond<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&instant(*time))
}

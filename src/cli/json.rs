//! Machine-readable output: one object a line.

use std::time::Instant;

use haul::transfer::{Outcome, Status, Verified};
use haul::transport::is_harmless;
use haul::{Error, ErrorKind, Result};
use serde::Serialize;

use super::progress::Tally;
use super::report;

/// Adds an object as a line.
pub(crate) fn line(to: &mut Vec<u8>, object: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(object).map_err(|e| Error::new(ErrorKind::Other, "write JSON").with_source(e))?;
    to.extend_from_slice(harmless(text).as_bytes());
    to.push(b'\n');
    Ok(())
}

/// Writes what a terminal would obey as `\u202e`, which reads back as the same. Outside of strings there is none of it.
fn harmless(json: String) -> String {
    if json.chars().all(is_harmless) {
        return json;
    }
    let mut text = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        match is_harmless(c) {
            true => text.push(c),
            false => text.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    text
}

/// The end of one file. Source and destination are URLs, so no name is lost.
#[derive(Debug, Serialize)]
pub(crate) struct FileEvent<'a> {
    event: &'static str,
    source: &'a str,
    destination: &'a str,
    status: &'static str,
    bytes: Option<u64>,
    transferred: u64,
    resumed_from: Option<u64>,
    seconds: f64,
    verified: Option<&'static str>,
    /// Which digest, where one was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'static str>,
    error: Option<ErrorObject>,
}

impl<'a> FileEvent<'a> {
    /// Describes an outcome.
    pub(crate) fn new(outcome: &'a Outcome) -> Self {
        let (status, error) = match &outcome.status {
            Status::Done => ("done", None),
            Status::Skipped(_) => ("skipped", None),
            Status::Planned => ("planned", None),
            Status::Failed(error) => ("failed", Some(ErrorObject::new(error))),
        };
        Self {
            event: "file",
            source: &outcome.source,
            destination: &outcome.destination,
            status,
            bytes: outcome.bytes,
            transferred: outcome.transferred,
            resumed_from: outcome.resumed_from,
            seconds: milliseconds(outcome.elapsed.as_secs_f64()),
            verified: outcome.verified.map(|verified| match verified {
                Verified::Digest(_) => "digest",
                Verified::Overlap => "overlap",
                Verified::Size => "size",
            }),
            digest: match outcome.verified {
                Some(Verified::Digest(algorithm)) => Some(algorithm.name()),
                _ => None,
            },
            error,
        }
    }
}

/// What happens to a file in flight.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum FlightEvent<'a> {
    /// Its transfer began.
    Started { source: &'a str, destination: &'a str, size: Option<u64> },
    /// It goes on where an earlier run or attempt stopped.
    Resumed { source: &'a str, offset: u64 },
    /// So much of it is at the destination.
    Progress { source: &'a str, position: u64, size: Option<u64> },
    /// An attempt failed; the next begins in so many seconds.
    Retrying { source: &'a str, attempt: u32, retries: u32, seconds: f64, error: ErrorObject },
    /// Something worth knowing.
    Note { source: &'a str, text: &'a str },
    /// A line for people.
    Message { text: &'a str },
}

impl FlightEvent<'_> {
    /// Writes it as JSON.
    pub(crate) fn to_line(&self) -> String {
        // It holds nothing that JSON has no form for.
        harmless(serde_json::to_string(self).unwrap_or_default())
    }
}

/// An error with its advice.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorObject {
    kind: &'static str,
    message: String,
    hint: Option<String>,
}

impl ErrorObject {
    /// Describes an error.
    pub(crate) fn new(error: &Error) -> Self {
        Self { kind: error.kind().name(), message: report::text(error), hint: report::hint(error) }
    }
}

/// The totals at the end.
#[derive(Debug, Serialize)]
pub(crate) struct SummaryEvent {
    event: &'static str,
    files: u64,
    done: u64,
    skipped: u64,
    failed: u64,
    bytes: u64,
    transferred: u64,
    seconds: f64,
}

impl SummaryEvent {
    /// Describes what a run came to; a dry run's plan counts as done.
    pub(crate) fn new(tally: &Tally, now: Instant) -> Self {
        Self {
            event: "summary",
            files: tally.settled(),
            done: tally.done + tally.planned,
            skipped: tally.skipped,
            failed: tally.failed + tally.interrupted,
            bytes: tally.bytes,
            transferred: tally.transferred,
            seconds: milliseconds(now.duration_since(tally.started).as_secs_f64()),
        }
    }
}

/// Rounds: more digits would only pretend to be exact.
pub(crate) fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn json_is_harmless_and_true(name in "[a\"\\\\\u{1b}\u{7}\u{9b}\u{202e}\u{200b}\u{e0041}\\PC]{0,12}", number: u64) {
            let mut text = Vec::new();
            line(&mut text, &serde_json::json!({ "name": name, "number": number })).unwrap();
            let text = String::from_utf8(text).unwrap();
            prop_assert!(text.strip_suffix('\n').unwrap().chars().all(is_harmless));
            let back: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back["name"].as_str(), Some(name.as_str()));
        }
    }
}

//! What `check` finds, told: a line or an object for each file, and a summary.

use haul::Error;
use haul::plan::sums::escaped;
use haul::transport::{Algorithm, escape};
use serde::Serialize;

use super::context::Context;
use super::digest::{for_terminal, write};
use super::format;
use super::json::{self, ErrorObject};
use super::report::{Exit, Result};
use super::reports::Item;

/// What a file was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be.
    Equal,
    /// Not the same.
    Different,
    /// It should be there.
    Missing,
    /// It should not be there.
    Extra,
    /// It could not be looked at.
    Unreadable,
}

impl Verdict {
    /// Returns the word that a line begins with.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Tells what was found, and counts.
pub(crate) struct Verdicts<'a> {
    context: &'a Context,
    json: bool,
    counts: [u64; 5],
    malformed: u64,
    /// Bytes that were read for it.
    pub(crate) read: u64,
    /// By which digest contents were compared, if they were.
    pub(crate) by: Option<Algorithm>,
}

/// The counts at the end. `malformed` are lines of a list.
#[derive(Debug, Serialize)]
struct SummaryLine {
    event: &'static str,
    equal: u64,
    different: u64,
    missing: u64,
    extra: u64,
    unreadable: u64,
    malformed: u64,
    read: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<&'static str>,
}

impl<'a> Verdicts<'a> {
    /// Begins with nothing.
    pub(crate) fn new(context: &'a Context, json: bool) -> Self {
        Self { context, json, counts: [0; 5], malformed: 0, read: 0, by: None }
    }

    /// Tells of a file. `why` is said of what is different; `at` is the URL at the source, or none, and that at the
    /// destination; `object` is its JSON.
    pub(crate) fn tell(
        &mut self,
        verdict: Verdict,
        name: &[u8],
        why: &str,
        at: (&str, &str),
        object: &impl Serialize,
    ) -> Result<()> {
        self.counts[verdict as usize] += 1;
        let reason = Some(why).filter(|why| !why.is_empty());
        let (source, destination) = at;
        let item = Item { source, destination, status: verdict.word(), reason, bytes: None };
        self.context.recorder.item(&item);
        if verdict != Verdict::Equal {
            self.context.report.ends(Exit::Failed);
        }
        let mut text = Vec::new();
        if self.json {
            json::line(&mut text, object)?;
        } else if verdict != Verdict::Equal || self.context.verbose > 0 {
            let (mark, name) = escaped(name);
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            let line = [verdict.word().as_bytes(), why.as_bytes(), b": ", mark, &name, b"\n"].concat();
            text = for_terminal(self.context, line);
        }
        write(self.context, &text)
    }

    /// Tells of a line of a list that can't be used.
    pub(crate) fn malformed(&mut self, error: &Error) -> Result<()> {
        self.malformed += 1;
        if self.json {
            let mut text = Vec::new();
            let object = serde_json::json!({ "event": "malformed", "error": ErrorObject::new(error) });
            json::line(&mut text, &object)?;
            write(self.context, &text)?;
        }
        self.context.report.ends(Exit::Failed);
        // A file that is no list at all has a fault in every line.
        if self.malformed <= MOST_MALFORMED {
            self.context.screen.line(&format!("haul: {}", escape(error.chain().as_bytes())));
        }
        Ok(())
    }

    /// Returns how many files were looked for or found.
    pub(crate) fn files(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns how many lines could not be used.
    pub(crate) fn malformed_lines(&self) -> u64 {
        self.malformed
    }

    /// Tells the summary.
    pub(crate) fn end(self) -> Result<()> {
        let [equal, different, missing, extra, unreadable] = self.counts;
        let (malformed, read) = (self.malformed, self.read);
        if self.json {
            let mut text = Vec::new();
            let algorithm = self.by.map(Algorithm::name);
            let event = "summary";
            let summary =
                SummaryLine { event, equal, different, missing, extra, unreadable, malformed, read, algorithm };
            json::line(&mut text, &summary)?;
            write(self.context, &text)?;
        }
        let words = [Verdict::Different, Verdict::Missing, Verdict::Extra, Verdict::Unreadable];
        let mut said = format!("haul: {equal} equal");
        for verdict in words {
            let count = self.counts[verdict as usize];
            if count > 0 {
                said.push_str(&format!(", {count} {}", verdict.word()));
            }
        }
        if malformed > 0 {
            let lines = if malformed == 1 { "line" } else { "lines" };
            said.push_str(&format!(", {malformed} {lines} of the list can't be used"));
        }
        if let Some(algorithm) = self.by {
            said.push_str(&format!(", compared by {}", algorithm.name()));
        }
        if read > 0 {
            said.push_str(&format!("; {} read", format::bytes(read)));
        }
        self.context.note(&said);
        Ok(())
    }
}

/// So many lines of a list are named; the others are counted.
const MOST_MALFORMED: u64 = 20;

//! What a job of a run has come to: totals, and the files in flight.

use std::collections::{BTreeMap, HashMap};

use haul::Error;
use haul::transfer::Verified;
use jiff::Timestamp;

use super::record::{Problem, Record};
use crate::cli::report::Exit;

/// Why a job was not run.
#[derive(Debug)]
pub(super) struct Unrun {
    /// In a word, the same as everywhere: `skipped`, `blocked`, `left`.
    pub(super) status: &'static str,
    pub(super) reason: String,
}

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) started: Timestamp,
    pub(super) ended: Option<Timestamp>,
    pub(super) exit: Option<Exit>,
    /// What went wrong with all of it.
    pub(super) error: Option<Problem>,
    pub(super) totals: Totals,
    pub(super) unrun: Option<Unrun>,
    /// Whether it only told what it would do.
    pub(super) is_dry: bool,
    /// How often it was begun.
    pub(super) attempts: u32,
    /// Whether it is the run itself, in which other jobs may be.
    is_frame: bool,
    flights: HashMap<u64, Flight>,
}

/// A file in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) source: String,
    pub(super) started: Timestamp,
    pub(super) retries: u32,
    position: u64,
}

/// What files come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) files: u64,
    /// How many came to each end.
    pub(super) statuses: BTreeMap<&'static str, u64>,
    /// Bytes of the files that were done.
    pub(super) bytes: u64,
    pub(super) transferred: u64,
    pub(super) retries: u64,
    pub(super) retried_files: u64,
    pub(super) resumed: u64,
    /// What was the same at both ends and is told of nowhere else.
    pub(super) equal: u64,
    pub(super) by_digest: u64,
    pub(super) by_overlap: u64,
    pub(super) by_size: u64,
}

impl Job {
    /// Begins the run itself.
    pub(super) fn frame(name: String) -> Self {
        Self { is_frame: true, ..Self::new(name) }
    }

    /// Begins one of its jobs.
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            started: Timestamp::now(),
            ended: None,
            exit: None,
            error: None,
            totals: Totals::default(),
            unrun: None,
            is_dry: false,
            attempts: 1,
            is_frame: false,
            flights: HashMap::new(),
        }
    }

    pub(super) fn starts(&mut self, id: u64, source: &str, now: Timestamp) {
        self.flights.insert(id, Flight { source: source.to_owned(), started: now, retries: 0, position: 0 });
    }

    pub(super) fn resumes(&mut self, id: u64, offset: u64) {
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.position = offset;
        }
    }

    /// Returns how many bytes more were moved.
    pub(super) fn moves(&mut self, id: u64, position: u64) -> u64 {
        let Some(flight) = self.flights.get_mut(&id) else { return 0 };
        let before = std::mem::replace(&mut flight.position, position);
        position.saturating_sub(before)
    }

    /// Returns of which file that was.
    pub(super) fn retries(&mut self, id: u64) -> Option<String> {
        let flight = self.flights.get_mut(&id)?;
        flight.retries += 1;
        Some(flight.source.clone())
    }

    pub(super) fn lands(&mut self, id: u64) -> Option<Flight> {
        self.flights.remove(&id)
    }

    pub(super) fn count(&mut self, record: &Record<'_>) {
        let totals = &mut self.totals;
        totals.files += 1;
        *totals.statuses.entry(record.status).or_default() += 1;
        totals.transferred += record.transferred;
        totals.retries += u64::from(record.retries);
        totals.retried_files += u64::from(record.retries > 0);
        if matches!(record.status, "done" | "planned") {
            totals.bytes += record.bytes.unwrap_or(0);
            totals.resumed += u64::from(record.resumed_from.is_some());
        }
        match record.proof {
            Some(Verified::Digest(_)) => totals.by_digest += 1,
            Some(Verified::Overlap) => totals.by_overlap += 1,
            Some(Verified::Size) => totals.by_size += 1,
            None => {}
        }
    }

    /// Begins once more: what counts of files is what the last attempt made of them. Bytes that were moved stay moved.
    pub(super) fn again(&mut self) {
        self.attempts += 1;
        let Totals { transferred, retries, retried_files, .. } = self.totals;
        self.totals = Totals { transferred, retries: retries + 1, retried_files, ..Totals::default() };
        self.flights.clear();
    }

    /// Returns how it ended, in a word that is the same in all reports.
    pub(super) fn status(&self, run: Exit) -> &'static str {
        match (&self.unrun, self.exit.unwrap_or(run)) {
            (Some(unrun), _) => unrun.status,
            (None, Exit::Done) => "done",
            (None, Exit::Stopped | Exit::Interrupted | Exit::BrokenPipe) => "interrupted",
            (None, _) => "failed",
        }
    }

    /// Returns whether it has changed anything that numbers could tell of.
    pub(super) fn has_run(&self) -> bool {
        self.unrun.is_none() && !self.is_dry
    }

    /// Leaves it as it was: it is not run.
    pub(super) fn leave(&mut self, unrun: Unrun) {
        self.ended = Some(Timestamp::now());
        self.unrun = Some(unrun);
    }

    pub(super) fn end(&mut self, exit: Exit, error: Option<&Error>) {
        self.ended = Some(Timestamp::now());
        self.exit = Some(exit);
        self.error = error.map(Problem::new);
    }

    /// Ends what nobody has ended: the run was stopped at once.
    pub(super) fn end_if_open(&mut self, exit: Exit) {
        if self.ended.is_none() {
            self.end(exit, None);
        }
    }

    /// Returns whether it is more than the frame of others.
    pub(super) fn is_worth_telling(&self, jobs: usize) -> bool {
        jobs == 1 || self.totals.files + self.totals.equal > 0 || self.error.is_some() || !self.is_frame
    }
}

impl Totals {
    /// Returns how many came to this end.
    pub(super) fn of(&self, status: &str) -> u64 {
        self.statuses.get(status).copied().unwrap_or(0)
    }

    /// Returns how many were the same at both ends, whether each is told of or not.
    pub(super) fn equal(&self) -> u64 {
        self.equal + self.of("equal")
    }

    /// Returns the sum of both.
    pub(super) fn with(mut self, other: &Self) -> Self {
        for (status, number) in &other.statuses {
            *self.statuses.entry(status).or_default() += number;
        }
        Self {
            files: self.files + other.files,
            bytes: self.bytes + other.bytes,
            transferred: self.transferred + other.transferred,
            retries: self.retries + other.retries,
            retried_files: self.retried_files + other.retried_files,
            resumed: self.resumed + other.resumed,
            equal: self.equal + other.equal,
            by_digest: self.by_digest + other.by_digest,
            by_overlap: self.by_overlap + other.by_overlap,
            by_size: self.by_size + other.by_size,
            statuses: self.statuses,
        }
    }
}

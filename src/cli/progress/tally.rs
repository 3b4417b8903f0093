//! What is known of a run while it goes on: counts, files in flight, rates. No output.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use haul::ErrorKind;
use haul::transfer::{Event, Outcome, Status, Verified};
use haul::transport::Algorithm;

use crate::cli::format::path_of;

/// A rate is the mean of this time, so that it can be read.
const WINDOW: Duration = Duration::from_secs(4);
/// How often a sample is kept for it.
const SAMPLE: Duration = Duration::from_millis(200);

/// The state of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    /// When it began.
    pub(crate) started: Instant,
    /// Files found so far, and whether those are all.
    pub(crate) found: u64,
    pub(crate) found_bytes: u64,
    pub(crate) all_found: bool,
    /// Files that are through.
    pub(crate) done: u64,
    pub(crate) planned: u64,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
    pub(crate) interrupted: u64,
    /// Of those done: their bytes, how many went on from an earlier run or attempt, and how they were proven.
    pub(crate) bytes: u64,
    pub(crate) resumed: u64,
    pub(crate) resumed_from: Option<u64>,
    pub(crate) by_digest: u64,
    /// Which digests those were.
    pub(crate) digests: BTreeSet<Algorithm>,
    pub(crate) by_overlap: u64,
    /// Bytes that crossed the network for files that are through.
    pub(crate) transferred: u64,
    /// Files in flight.
    pub(crate) flights: BTreeMap<u64, Flight>,
    settled_bytes: u64,
    moved: u64,
    rate: Rate,
}

/// One file in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The source's URL, and its path for people.
    pub(crate) source: String,
    pub(crate) name: String,
    pub(crate) size: Option<u64>,
    pub(crate) position: u64,
    pub(crate) started: Instant,
    /// Set between two attempts.
    pub(crate) waiting: Option<Waiting>,
    /// When its position was last told.
    pub(crate) told: Option<Instant>,
    moved: u64,
    rate: Rate,
}

/// A wait for the next attempt.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) until: Instant,
    pub(crate) attempt: u32,
    pub(crate) reason: String,
}

impl Tally {
    /// Starts a run.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            found: 0,
            found_bytes: 0,
            all_found: false,
            done: 0,
            planned: 0,
            skipped: 0,
            failed: 0,
            interrupted: 0,
            bytes: 0,
            resumed: 0,
            resumed_from: None,
            by_digest: 0,
            digests: BTreeSet::new(),
            by_overlap: 0,
            transferred: 0,
            flights: BTreeMap::new(),
            settled_bytes: 0,
            moved: 0,
            rate: Rate::default(),
        }
    }

    /// Takes an event.
    pub(crate) fn take(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Found { bytes } => {
                self.found += 1;
                self.found_bytes += bytes.unwrap_or(0);
            }
            Event::AllFound => self.all_found = true,
            Event::Started { id, source, size, .. } => {
                let flight = Flight {
                    name: path_of(source),
                    source: source.clone(),
                    size: *size,
                    position: 0,
                    started: now,
                    waiting: None,
                    told: None,
                    moved: 0,
                    rate: Rate::default(),
                };
                self.flights.insert(*id, flight);
            }
            Event::Resumed { id, offset } => {
                if let Some(flight) = self.flights.get_mut(id) {
                    flight.position = *offset;
                    flight.waiting = None;
                }
            }
            Event::Progress { id, position } => self.progress(*id, *position, now),
            Event::Retrying { id, attempt, wait, error } => {
                if let Some(flight) = self.flights.get_mut(id) {
                    let reason = crate::cli::report::text(error);
                    flight.waiting = Some(Waiting { until: now + *wait, attempt: *attempt, reason });
                }
            }
            Event::Finished(outcome) => self.finish(outcome),
            _ => {}
        }
    }

    fn progress(&mut self, id: u64, position: u64, now: Instant) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let step = position.saturating_sub(flight.position);
        flight.position = position;
        flight.waiting = None;
        flight.moved += step;
        flight.rate.add(flight.moved, now);
        self.moved += step;
        self.rate.add(self.moved, now);
    }

    fn finish(&mut self, outcome: &Outcome) {
        self.flights.remove(&outcome.id);
        self.transferred += outcome.transferred;
        self.settled_bytes += outcome.bytes.unwrap_or(0);
        match outcome.status {
            Status::Done => {
                self.done += 1;
                self.bytes += outcome.bytes.unwrap_or(0);
                self.resumed += u64::from(outcome.resumed_from.is_some());
                self.resumed_from = outcome.resumed_from.or(self.resumed_from);
                if let Some(Verified::Digest(algorithm)) = outcome.verified {
                    self.by_digest += 1;
                    self.digests.insert(algorithm);
                }
                self.by_overlap += u64::from(outcome.verified == Some(Verified::Overlap));
            }
            Status::Planned => {
                self.planned += 1;
                self.bytes += outcome.bytes.unwrap_or(0);
            }
            Status::Skipped(_) => self.skipped += 1,
            Status::Failed(ref error) if error.kind() == ErrorKind::Cancelled => self.interrupted += 1,
            Status::Failed(_) => self.failed += 1,
        }
    }

    /// Returns how many files are through.
    pub(crate) fn settled(&self) -> u64 {
        self.done + self.planned + self.skipped + self.failed + self.interrupted
    }

    /// Returns how many bytes of those found are through or at the destination.
    pub(crate) fn position(&self) -> u64 {
        self.settled_bytes + self.flights.values().map(|flight| flight.position).sum::<u64>()
    }

    /// Returns the bytes a second, once they can be told.
    pub(crate) fn rate(&mut self, now: Instant) -> Option<u64> {
        self.rate.per_second(self.moved, now)
    }

    /// Returns the time left, once everything is found and something moves.
    pub(crate) fn time_left(&mut self, now: Instant) -> Option<Duration> {
        let rate = self.rate(now).filter(|&rate| rate > 0 && self.all_found)?;
        Some(Duration::from_secs(self.found_bytes.saturating_sub(self.position()) / rate))
    }
}

impl Flight {
    /// Returns the bytes a second, once they can be told.
    pub(crate) fn rate(&mut self, now: Instant) -> Option<u64> {
        self.rate.per_second(self.moved, now)
    }
}

/// Bytes a second over the last seconds.
#[derive(Debug, Default)]
struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn add(&mut self, moved: u64, now: Instant) {
        if self.samples.back().is_none_or(|(then, _)| now.duration_since(*then) >= SAMPLE) {
            self.samples.push_back((now, moved));
        }
    }

    fn per_second(&mut self, moved: u64, now: Instant) -> Option<u64> {
        while self.samples.len() > 1 && self.samples.front().is_some_and(|(then, _)| now - *then > WINDOW) {
            self.samples.pop_front();
        }
        let (then, before) = self.samples.front()?;
        let time = now.duration_since(*then);
        // A shorter time says more about buffers than about the network.
        if time < SAMPLE {
            return None;
        }
        u64::try_from(u128::from(moved - before) * 1000 / time.as_millis()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(id: u64, status: Status, bytes: u64) -> Event {
        Event::Finished(Outcome {
            id,
            source: "sftp://h/x".into(),
            destination: "file:///x".into(),
            status,
            bytes: Some(bytes),
            transferred: bytes,
            resumed_from: None,
            elapsed: Duration::ZERO,
            verified: Some(Verified::Size),
        })
    }

    fn started(id: u64, size: u64) -> Event {
        Event::Started { id, source: format!("sftp://h/{id}"), destination: "x".into(), size: Some(size) }
    }

    #[test]
    fn rates_leave_out_what_was_kept_and_follow_stalls() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut tally = Tally::new(start);
        tally.take(&Event::Found { bytes: Some(100_000) }, start);
        tally.take(&Event::AllFound, start);
        tally.take(&started(1, 100_000), start);
        tally.take(&Event::Resumed { id: 1, offset: 50_000 }, start);
        tally.take(&Event::Progress { id: 1, position: 50_000 }, start);
        assert_eq!(tally.rate(at(100)), None);
        for step in 1..=10 {
            tally.take(&Event::Progress { id: 1, position: 50_000 + step * 1000 }, at(step * 1000));
        }
        assert_eq!(tally.rate(at(10_000)), Some(1000));
        assert_eq!(tally.time_left(at(10_000)), Some(Duration::from_secs(40)));
        assert_eq!(tally.rate(at(60_000)), Some(0));
        assert_eq!(tally.time_left(at(60_000)), None);
    }

    #[test]
    fn a_file_that_starts_anew_moves_its_bytes_twice() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        tally.take(&started(1, 100), now);
        for position in [0, 80, 0, 100] {
            tally.take(&Event::Progress { id: 1, position }, now);
        }
        assert_eq!((tally.position(), tally.moved), (100, 180));
    }

    #[test]
    fn ends_are_counted() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        for (id, status) in
            [Status::Done, Status::Skipped("x"), Status::Failed(ErrorKind::Other.into()), Status::Planned]
                .into_iter()
                .enumerate()
        {
            tally.take(&started(id as u64, 10), now);
            tally.take(&outcome(id as u64, status, 10), now);
        }
        assert_eq!((tally.done, tally.skipped, tally.failed, tally.planned), (1, 1, 1, 1));
        assert_eq!((tally.settled(), tally.position(), tally.flights.len()), (4, 40, 0));
    }
}

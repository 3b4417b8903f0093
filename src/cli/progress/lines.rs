//! What is said of a run in lines: as files finish, while it goes on, and at its end.

use std::time::{Duration, Instant};

use haul::transfer::{Outcome, Status};

use super::tally::{Flight, Tally};
use crate::cli::format::{self, bytes, duration, files, path_of, percent};

/// Returns the line of a file that is through; `None` for one that failed, which is told as an error.
pub(super) fn finished(outcome: &Outcome) -> Option<String> {
    let name = path_of(&outcome.source);
    Some(match &outcome.status {
        Status::Done => {
            let size = outcome.bytes.map_or_else(String::new, |size| format!(" {}", bytes(size)));
            format!("{name}:{size} {}", in_time(outcome.transferred, outcome.elapsed))
        }
        Status::Skipped(reason) => format!("{name}: skipped, {reason}"),
        Status::Planned | Status::Failed(_) => return None,
    })
}

/// Returns the line of a file that goes on where an earlier run or attempt stopped.
pub(super) fn resumed(flight: &Flight, offset: u64) -> String {
    let of = flight.size.map_or_else(String::new, |size| format!(" of {} ({} %)", bytes(size), percent(offset, size)));
    format!("{}: resumed at {}{of}", flight.name, bytes(offset))
}

/// Returns what is said of a file between two attempts.
pub(super) fn retrying(wait: Duration, attempt: u32, retries: u32, reason: &str) -> String {
    format!("retrying in {} ({attempt} of {retries}): {reason}", seconds(wait))
}

/// Returns how far a run is: files, bytes, rate, time left.
pub(super) fn standing(tally: &mut Tally, now: Instant) -> String {
    let more = if tally.all_found { "" } else { "+" };
    let found = tally.found.max(tally.settled());
    let mut text = format!("{} of {}{more} files, {}", tally.settled(), found, bytes(tally.position()));
    if tally.found_bytes > 0 {
        text.push_str(&format!(" of {}{more}", bytes(tally.found_bytes)));
    }
    if let Some(rate) = tally.rate(now) {
        text.push_str(&format!(", {}/s", bytes(rate)));
    }
    if let Some(left) = tally.time_left(now) {
        text.push_str(&format!(", {} left", format::whole(left.max(Duration::from_secs(1)))));
    }
    text
}

/// Returns what a run came to; `verified` says nothing where only sizes were compared.
pub(super) fn summary(tally: &Tally, now: Instant) -> String {
    let mut parts = Vec::new();
    if tally.planned > 0 {
        parts.push(format!("would copy {}, {}; nothing was changed", files(tally.planned), bytes(tally.bytes)));
    } else if tally.done > 0 {
        let time = in_time(tally.transferred, now.duration_since(tally.started));
        parts.push(format!("{}, {} {time}", files(tally.done), bytes(tally.bytes)));
    } else {
        let wanted = tally.failed + tally.interrupted > 0;
        parts.push(if wanted { "nothing copied" } else { "nothing to do" }.to_owned());
    }
    match (tally.resumed, tally.resumed_from) {
        (1, Some(offset)) if tally.done == 1 => parts.push(format!("resumed at {}", bytes(offset))),
        (0, _) => {}
        (resumed, _) => parts.push(format!("{resumed} resumed")),
    }
    // A weak one is called by its name, too.
    let by: Vec<_> = tally.digests.iter().map(|algorithm| algorithm.name().to_uppercase()).collect();
    let by = by.join(" or ");
    match (tally.by_digest, tally.by_overlap) {
        (0, 0) => {}
        (digest, 0) if digest == tally.done.max(tally.resumed) => parts.push(format!("verified by {by}")),
        (0, overlap) if overlap == tally.done => parts.push("verified by overlap".into()),
        (digest, 0) => parts.push(format!("{digest} verified by {by}")),
        (0, overlap) => parts.push(format!("{overlap} verified by overlap")),
        (digest, overlap) => parts.push(format!("{digest} verified by {by}, {overlap} by overlap")),
    }
    for (number, what) in [(tally.skipped, "skipped"), (tally.failed, "failed"), (tally.interrupted, "interrupted")] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    parts.join(", ")
}

fn in_time(transferred: u64, time: Duration) -> String {
    match transferred {
        // What took no time has no rate that means anything.
        _ if time < Duration::from_millis(100) => format!("in {}", duration(time)),
        0 => format!("in {}", duration(time)),
        _ => format!("in {} ({})", duration(time), format::rate(transferred, time)),
    }
}

/// Whole seconds are enough for a wait, but not none at all.
fn seconds(wait: Duration) -> String {
    if wait < Duration::from_secs(1) { duration(wait) } else { format::whole(wait) }
}

/// Lets a few lines through at once and then a few a second.
#[derive(Debug)]
pub(super) struct Throttle {
    left: f64,
    filled: Instant,
}

impl Throttle {
    const MOST: f64 = 10.0;
    const EACH_SECOND: f64 = 2.0;

    pub(super) fn new(now: Instant) -> Self {
        Self { left: Self::MOST, filled: now }
    }

    /// Returns whether one more line may be written now.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let since = now.duration_since(std::mem::replace(&mut self.filled, now));
        self.left = (self.left + since.as_secs_f64() * Self::EACH_SECOND).min(Self::MOST);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use haul::transport::Algorithm;

    use super::*;

    fn tally(change: impl FnOnce(&mut Tally)) -> String {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        change(&mut tally);
        summary(&tally, now + Duration::from_millis(3400))
    }

    #[test]
    fn summaries_say_what_happened() {
        let text = tally(|t| {
            (t.done, t.bytes, t.transferred, t.skipped, t.failed) = (12, 1_288_490_189, 1_288_490_189, 2, 1);
        });
        assert_eq!(text, "12 files, 1.2 GiB in 3.4 s (361 MiB/s), 2 skipped, 1 failed");
        let text = tally(|t| {
            (t.done, t.bytes, t.transferred) = (1, 512 << 20, 448 << 20);
            (t.resumed, t.resumed_from, t.by_overlap) = (1, Some(64 << 20), 1);
        });
        assert_eq!(text, "1 file, 512 MiB in 3.4 s (132 MiB/s), resumed at 64.0 MiB, verified by overlap");
        let text = tally(|t| {
            (t.done, t.resumed, t.by_digest, t.by_overlap) = (9, 3, 1, 2);
            t.digests = [Algorithm::Crc32, Algorithm::Sha256].into();
        });
        assert_eq!(text, "9 files, 0 B in 3.4 s, 3 resumed, 1 verified by SHA-256 or CRC32, 2 by overlap");
        assert_eq!(tally(|t| t.skipped = 5), "nothing to do, 5 skipped");
        assert_eq!(tally(|t| t.planned = 5), "would copy 5 files, 0 B; nothing was changed");
    }

    #[test]
    fn waits_are_told_once_in_a_line() {
        let text = retrying(Duration::from_millis(1999), 1, 5, "timeout");
        assert_eq!(text, "retrying in 2 s (1 of 5): timeout");
        assert_eq!(retrying(Duration::from_millis(400), 2, 5, "x"), "retrying in 0.4 s (2 of 5): x");
    }

    #[test]
    fn a_flood_of_lines_is_thinned() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let lines = |throttle: &mut Throttle, now| (0..1000).filter(|_| throttle.allows(now)).count();
        assert_eq!(lines(&mut throttle, start), 10);
        assert_eq!(lines(&mut throttle, start + Duration::from_secs(2)), 4);
    }
}

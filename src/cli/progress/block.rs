//! The block of bars: one line for each file that takes a while, and one for all of them.

use std::time::{Duration, Instant};

use super::lines;
use super::tally::{Flight, Tally};
use crate::cli::format::{bytes, fit, percent, whole};

/// A file that is through sooner never gets a bar.
const PATIENCE: Duration = Duration::from_millis(300);
/// Files up to this many bytes wait in line rather than move: they get a bar later.
const SMALL: u64 = 1 << 20;
const PATIENCE_WITH_SMALL: Duration = Duration::from_secs(2);
/// No more bars than this, however high the terminal is.
const MOST_BARS: usize = 16;

/// The terminal that the block is drawn on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canvas {
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// Whether it shows more than ASCII.
    pub(super) unicode: bool,
    /// How often a transfer is tried again.
    pub(super) retries: u32,
}

/// Lays out the block; nothing while everything is quick.
pub(super) fn lay_out(tally: &mut Tally, now: Instant, canvas: Canvas) -> Vec<String> {
    if now.duration_since(tally.started) < PATIENCE {
        return Vec::new();
    }
    let alone = tally.all_found && tally.found == 1;
    let room = canvas.rows.saturating_sub(3).clamp(1, MOST_BARS);
    let slow = |flight: &Flight| {
        let small = flight.size.is_some_and(|size| size <= SMALL) && flight.waiting.is_none();
        now.duration_since(flight.started) >= if small { PATIENCE_WITH_SMALL } else { PATIENCE }
    };
    let hidden = tally.flights.values().filter(|flight| slow(flight)).count().saturating_sub(room);
    let slow = tally.flights.values_mut().filter(|flight| slow(flight)).take(room);
    let mut block: Vec<String> = slow.map(|flight| line(flight, now, canvas, alone)).collect();
    if !alone || block.is_empty() {
        let mut total = lines::standing(tally, now);
        if hidden > 0 {
            total.push_str(&format!(" (and {hidden} more in flight)"));
        }
        block.push(cut(&total, canvas.columns));
    }
    block
}

fn line(flight: &mut Flight, now: Instant, canvas: Canvas, alone: bool) -> String {
    let columns = canvas.columns.saturating_sub(1);
    if let Some(waiting) = &flight.waiting {
        let wait = waiting.until.saturating_duration_since(now);
        let text = lines::retrying(wait, waiting.attempt, canvas.retries, &waiting.reason);
        let name = fit(&flight.name, (columns / 3).max(10)).trim_end().to_owned();
        return cut(&format!("{name}  {text}"), canvas.columns);
    }
    let rate = flight.rate(now);
    let left = rate.filter(|&rate| rate > 0).zip(flight.size);
    let left = left.map(|(rate, size)| Duration::from_secs(size.saturating_sub(flight.position) / rate));
    let mut tail = String::new();
    if let Some(size) = flight.size {
        let share = percent(flight.position, size);
        tail.push_str(&bar(share, columns, canvas.unicode));
        tail.push_str(&format!("  {share:>3} %"));
    }
    tail.push_str(&format!("  {:>8}", bytes(flight.size.unwrap_or(flight.position))));
    if columns >= 60 {
        tail.push_str(&format!("  {:>10}", rate.map_or_else(String::new, |rate| format!("{}/s", bytes(rate)))));
    }
    if alone && columns >= 90 {
        tail.push_str(&format!("  {:>15}", left.map_or_else(String::new, |left| format!("{} left", whole(left)))));
    }
    let name = fit(&flight.name, columns.saturating_sub(tail.chars().count()).max(1));
    cut(&format!("{name}{tail}"), canvas.columns)
}

fn bar(share: u64, columns: usize, unicode: bool) -> String {
    let width = match columns {
        0..60 => return String::new(),
        60..90 => 12,
        _ => 24,
    };
    let (full, rest) = if unicode { ("█", "░") } else { ("#", ".") };
    let filled = usize::try_from(share).unwrap_or(0) * width / 100;
    format!("  {}{}", full.repeat(filled), rest.repeat(width - filled))
}

/// Cuts on the right, so that a line stays one line.
fn cut(text: &str, columns: usize) -> String {
    use unicode_width::UnicodeWidthChar;
    let mut left = columns.saturating_sub(1);
    let fits = |character: &char| match left.checked_sub(character.width().unwrap_or(0)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use haul::transfer::Event;
    use haul::{Error, ErrorKind};
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    const CANVAS: Canvas = Canvas { columns: 80, rows: 24, unicode: true, retries: 5 };

    /// A run of three files: one half-way, one waiting for another attempt, one just begun.
    fn run(start: Instant, found: usize) -> Tally {
        let mut tally = Tally::new(start);
        for _ in 0..found {
            tally.take(&Event::Found { bytes: Some(512 << 20) }, start);
        }
        tally.take(&Event::AllFound, start);
        for (id, delay) in [(1, 0), (2, 0), (3, 4900)].into_iter().take(found) {
            let source = format!("sftp://me@host/pub/releases/2026/linux-image-{id}.iso");
            let now = start + Duration::from_millis(delay);
            tally.take(&Event::Started { id, source, destination: "x".into(), size: Some(512 << 20) }, now);
        }
        for step in 0..=16u64 {
            tally.take(&Event::Progress { id: 1, position: step << 24 }, start + Duration::from_millis(step * 250));
        }
        let error = Error::new(ErrorKind::ConnectionLost, "connection reset");
        let wait = Duration::from_secs(3);
        tally.take(&Event::Retrying { id: 2, attempt: 1, wait, error }, start + Duration::from_secs(4));
        tally
    }

    #[test]
    fn a_run_looks_like_this() {
        let start = Instant::now();
        let block = lay_out(&mut run(start, 3), start + Duration::from_secs(5), CANVAS);
        insta::assert_snapshot!(block.join("\n"), @r"
        /pub/releases/2026/linux-image-1.iso  ██████░░░░░░   50 %   512 MiB  48.0 MiB/s
        …es/2026/linux-image-2.iso  retrying in 2 s (1 of 5): connection reset
        0 of 3 files, 256 MiB of 1.5 GiB, 48.0 MiB/s, 26 s left
        ");
        let wide = Canvas { columns: 110, unicode: false, ..CANVAS };
        let block = lay_out(&mut run(start, 1), start + Duration::from_secs(5), wide);
        insta::assert_snapshot!(block.join("\n"), @r"
        /pub/releases/2026/linux-image-1.iso   ############............   50 %   512 MiB  48.0 MiB/s         5 s left
        ");
    }

    #[test]
    fn what_is_quick_is_not_shown() {
        let start = Instant::now();
        assert!(lay_out(&mut run(start, 3), start + Duration::from_millis(299), CANVAS).is_empty());
    }

    proptest! {
        #[test]
        fn no_line_is_too_long(columns in 1..200usize, rows in 0..60usize, unicode: bool, found in 1..4usize) {
            let start = Instant::now();
            let canvas = Canvas { columns, rows, unicode, ..CANVAS };
            let block = lay_out(&mut run(start, found), start + Duration::from_secs(5), canvas);
            prop_assert!(block.iter().all(|line| line.width() < columns.max(1)), "{block:?}");
            prop_assert!(block.len() <= rows.max(2));
        }
    }
}

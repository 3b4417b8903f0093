//! What happened when, in as much memory for a million files as for one.

use super::record::Record;

/// The time of a run is cut into so many pieces at most.
const BINS: usize = 240;
/// The seconds of a piece at first: it doubles whenever there are too many. Less would show how a limited rate is cut.
const FIRST_WIDTH: f64 = 0.1;
/// So many files are drawn one by one; more are counted.
pub(super) const MOST_SPANS: usize = 40;

/// What happened in a piece of time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bin {
    pub(super) bytes: u64,
    pub(super) failed: u64,
    /// Seconds that files were under way, all together.
    pub(super) busy: f64,
}

/// When one file was under way.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) status: &'static str,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// A run over its time; seconds count from its start.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) width: f64,
    pub(super) bins: Vec<Bin>,
    /// The first files, if there are no more than can be drawn.
    pub(super) spans: Vec<Span>,
    pub(super) files: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width: FIRST_WIDTH, bins: Vec::new(), spans: Vec::new(), files: 0 }
    }
}

impl Timeline {
    /// Bytes were moved.
    pub(super) fn moved(&mut self, at: f64, bytes: u64) {
        if bytes > 0 {
            self.bin(at).bytes += bytes;
        }
    }

    /// A file came to its end.
    pub(super) fn ended(&mut self, from: f64, to: f64, record: &Record<'_>) {
        self.files += 1;
        let failed = u64::from(is_bad(record.status));
        self.bin(to).failed += failed;
        let (first, last) = ((from / self.width) as usize, (to / self.width) as usize);
        for number in first..=last {
            let (begin, end) = (number as f64 * self.width, (number + 1) as f64 * self.width);
            if let Some(bin) = self.bins.get_mut(number) {
                bin.busy += (to.min(end) - from.max(begin)).max(0.0);
            }
        }
        // What took no time, like a file that was skipped, is no bar.
        if self.spans.len() < MOST_SPANS && (record.transferred > 0 || failed > 0) {
            let name = if record.source.is_empty() { record.destination } else { record.source };
            self.spans.push(Span { name: crate::cli::format::path_of(name), status: record.status, from, to });
        }
    }

    fn bin(&mut self, at: f64) -> &mut Bin {
        let mut number = (at.max(0.0) / self.width) as usize;
        while number >= BINS {
            self.widen();
            number = (at / self.width) as usize;
        }
        if number >= self.bins.len() {
            self.bins.resize(number + 1, Bin::default());
        }
        &mut self.bins[number]
    }

    fn widen(&mut self) {
        self.width *= 2.0;
        let pairs = self.bins.chunks(2).map(|pair| {
            pair.iter().fold(Bin::default(), |sum, bin| Bin {
                bytes: sum.bytes + bin.bytes,
                failed: sum.failed + bin.failed,
                busy: sum.busy + bin.busy,
            })
        });
        self.bins = pairs.collect();
    }
}

/// Returns whether somebody must look at it.
pub(super) fn is_bad(status: &str) -> bool {
    matches!(status, "failed" | "missing" | "extra" | "different" | "unreadable")
}

#[cfg(test)]
mod tests {
    use super::super::record::Item;
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn record(status: &'static str) -> Record<'static> {
        let item = Item { source: "sftp://h/a", destination: "", status, reason: None, bytes: None };
        Record::of_item("job", &item, Timestamp::UNIX_EPOCH)
    }

    proptest! {
        /// However long it takes, nothing is lost and nothing swells.
        #[test]
        fn all_is_counted_in_bounded_memory(events in proptest::collection::vec((0.0..1e7f64, 0.0..1e6f64, 0..1u64 << 40), 0..200)) {
            let mut timeline = Timeline::default();
            for (at, took, bytes) in &events {
                timeline.moved(*at, *bytes);
                timeline.ended(*at, at + took, &record("failed"));
            }
            prop_assert!(timeline.bins.len() <= BINS && timeline.spans.len() <= MOST_SPANS);
            prop_assert_eq!(timeline.bins.iter().map(|bin| bin.bytes).sum::<u64>(), events.iter().map(|e| e.2).sum::<u64>());
            prop_assert_eq!(timeline.bins.iter().map(|bin| bin.failed).sum::<u64>(), events.len() as u64);
            let (busy, took) = (timeline.bins.iter().map(|bin| bin.busy).sum::<f64>(), events.iter().map(|e| e.1).sum::<f64>());
            prop_assert!((busy - took).abs() <= 1e-6 * took.max(1.0), "{busy} {took}");
        }
    }
}

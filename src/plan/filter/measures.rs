//! Sizes and times of files.

use std::time::{Duration, SystemTime};

use crate::transport::{Entry, FileKind, Mtime, Precision};

/// Between the clocks of any two zones, and so what a listing by LIST may be off.
const ZONES: Duration = Duration::from_secs(86_400);

/// Bounds of size and time, each of which a file must keep.
#[derive(Debug, Default)]
pub(super) struct Measures {
    pub(super) min_size: Option<u64>,
    pub(super) max_size: Option<u64>,
    pub(super) since: Option<SystemTime>,
    pub(super) before: Option<SystemTime>,
}

/// Whether an entry is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plan) enum Verdict {
    /// It is.
    Takes,
    /// It isn't.
    Leaves,
    /// It is, unless more can be learned about its size or time.
    Unsure,
}

impl Measures {
    /// Returns whether there is no bound.
    pub(super) fn are_none(&self) -> bool {
        self.min_size.is_none() && self.max_size.is_none() && self.since.is_none() && self.before.is_none()
    }

    /// Returns what a file's size and time come to; anything else is taken.
    pub(super) fn verdict(&self, entry: &Entry) -> Verdict {
        if entry.kind != FileKind::File {
            return Verdict::Takes;
        }
        self.of_size(entry.size).and(|| self.of_time(entry.mtime))
    }

    fn of_size(&self, size: Option<u64>) -> Verdict {
        match size {
            _ if self.min_size.is_none() && self.max_size.is_none() => Verdict::Takes,
            None => Verdict::Unsure,
            Some(size) => Verdict::from(
                self.min_size.is_none_or(|least| size >= least) && self.max_size.is_none_or(|most| size <= most),
            ),
        }
    }

    fn of_time(&self, mtime: Option<Mtime>) -> Verdict {
        if self.since.is_none() && self.before.is_none() {
            return Verdict::Takes;
        }
        let Some((earliest, latest)) = mtime.and_then(span) else { return Verdict::Unsure };
        let suits = |time: SystemTime| {
            self.since.is_none_or(|since| time >= since) && self.before.is_none_or(|before| time < before)
        };
        let outside =
            self.since.is_some_and(|since| latest < since) || self.before.is_some_and(|before| earliest >= before);
        match (outside, suits(earliest) && suits(latest)) {
            (true, _) => Verdict::Leaves,
            (_, true) => Verdict::Takes,
            _ => Verdict::Unsure,
        }
    }
}

impl Verdict {
    fn and(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Leaves => Self::Leaves,
            Self::Takes => other(),
            Self::Unsure if other() == Self::Leaves => Self::Leaves,
            Self::Unsure => Self::Unsure,
        }
    }
}

impl From<bool> for Verdict {
    fn from(taken: bool) -> Self {
        if taken { Self::Takes } else { Self::Leaves }
    }
}

/// Returns the first and the last instant that a time may mean. A whole second is one instant: that is how times of files
/// are compared everywhere else.
fn span(mtime: Mtime) -> Option<(SystemTime, SystemTime)> {
    match mtime.precision {
        Precision::Nanosecond | Precision::Second => Some((mtime.time, mtime.time)),
        Precision::Minute | Precision::Day => {
            let last = mtime.time.checked_add(ZONES + mtime.precision.unit())?;
            Some((mtime.time.checked_sub(ZONES)?, last))
        }
    }
}

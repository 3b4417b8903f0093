//! How many connections serve best, found while running: no I/O and no clock of its own.
//!
//! It doubles their number while the goodput grows with it, goes back where it doesn't, and then holds; from time to
//! time it tries half or twice as many again, and half when the goodput stays low. A server that refuses sets the limit.

/// Twice the connections are worth it when they bring at least so much more.
const WORTH: f64 = 1.25;
/// Half of the connections are as good when they still bring so much.
const AS_GOOD: f64 = 0.92;
/// Goodput below this share of what it was, so many times in a row, means that the link has changed.
const DROPPED: f64 = 0.6;
const DROPPED_TIMES: u32 = 8;
/// Measurements for which a result is trusted: one of an earlier run, one of this run at first, and at most.
const HOLD_REMEMBERED: u32 = 4;
const HOLD: u32 = 16;
const LONGEST_HOLD: u32 = 256;

/// Decides about the number of connections after each measurement.
#[derive(Debug)]
pub(super) struct Controller {
    now: usize,
    most: usize,
    step: Step,
    hold: u32,
    /// How often another number was tried after a hold.
    tries: u32,
    /// Whether there is something to remember: a number was compared with another, or served for want of a comparison.
    settled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// The number was never measured.
    Unknown,
    /// Higher than `from`, which brought `rate`; `first` when nothing was tried before.
    Up { from: usize, rate: f64 },
    /// Lower than `from`, which brought `rate`.
    Down { from: usize, rate: f64 },
    /// Good for `left` more measurements; `low` of the last ones were far below `rate`.
    Hold { left: u32, rate: f64, low: u32 },
}

impl Controller {
    /// Starts with `start` connections and never wants more than `most`.
    pub(super) fn new(start: usize, most: usize) -> Self {
        let most = most.max(1);
        Self { now: start.clamp(1, most), most, step: Step::Unknown, hold: HOLD, tries: 0, settled: false }
    }

    /// Starts with a number that served well before: it is held until it is proven wrong.
    pub(super) fn remembered(start: usize, most: usize) -> Self {
        let mut controller = Self::new(start, most);
        controller.step = Step::Hold { left: HOLD_REMEMBERED, rate: 0.0, low: 0 };
        controller
    }

    /// Returns how many connections are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.now
    }

    /// Returns the number that was found, if one was.
    pub(super) fn found(&self) -> Option<usize> {
        self.settled.then_some(match self.step {
            Step::Up { from, .. } | Step::Down { from, .. } => from,
            _ => self.now,
        })
    }

    /// Wants at least so many, since work for them is waiting and trying costs next to nothing.
    pub(super) fn raise_to(&mut self, wanted: usize) {
        if self.step == Step::Unknown && self.now < wanted {
            self.now = wanted.min(self.most);
            self.settled = true;
        }
    }

    /// The server lets only so many in.
    pub(super) fn limit(&mut self, most: usize) {
        self.most = self.most.min(most.max(1));
        if self.now > self.most {
            self.now = self.most;
            self.settled = true;
            self.hold_at(0.0);
        }
    }

    /// Takes a measurement made with as many connections as wanted; returns how many are wanted now.
    pub(super) fn measured(&mut self, rate: f64) -> usize {
        match self.step {
            Step::Unknown => self.climb(rate),
            Step::Up { from, rate: before } => {
                self.settled = true;
                if rate >= before * WORTH {
                    self.climb(rate);
                } else {
                    self.now = from;
                    self.hold_at(before);
                }
            }
            Step::Down { from, rate: before } => {
                self.settled = true;
                if rate < before * AS_GOOD {
                    self.now = from;
                    self.hold_at(before);
                } else if self.now == 1 {
                    self.hold_at(rate);
                } else {
                    self.descend(before);
                }
            }
            Step::Hold { left, rate: held, low } => {
                let low = if rate < held * DROPPED { low + 1 } else { 0 };
                let held = if held == 0.0 { rate } else { held };
                if low >= DROPPED_TIMES {
                    self.descend(rate);
                } else if left == 0 {
                    // In turn: fewer may do as well, or more may do better by now.
                    self.tries += 1;
                    if self.tries % 2 == 1 { self.descend(rate) } else { self.climb(rate) }
                } else {
                    self.step = Step::Hold { left: left - 1, rate: held, low };
                }
            }
        }
        self.now
    }

    fn climb(&mut self, rate: f64) {
        if self.now >= self.most {
            return self.hold_at(rate);
        }
        self.step = Step::Up { from: self.now, rate };
        self.now = (self.now * 2).min(self.most);
    }

    fn descend(&mut self, rate: f64) {
        if self.now == 1 {
            return self.climb(rate);
        }
        self.step = Step::Down { from: self.now, rate };
        self.now = self.now.div_ceil(2);
    }

    fn hold_at(&mut self, rate: f64) {
        self.step = Step::Hold { left: self.hold, rate, low: 0 };
        self.hold = (self.hold * 2).min(LONGEST_HOLD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs against a link whose goodput depends on the number of connections; returns the numbers it held.
    fn run(controller: &mut Controller, measurements: usize, link: impl Fn(usize) -> f64) -> Vec<usize> {
        (0..measurements)
            .map(|_| {
                let rate = link(controller.wanted());
                controller.measured(rate)
            })
            .collect()
    }

    #[test]
    fn a_cap_per_connection_is_beaten_by_more_of_them() {
        let mut controller = Controller::new(1, 8);
        run(&mut controller, 10, |n| 10.0 * n as f64);
        assert_eq!(controller.wanted(), 8);
        assert_eq!(controller.found(), Some(8));
    }

    #[test]
    fn it_stops_where_the_link_is_full() {
        let mut controller = Controller::new(1, 16);
        run(&mut controller, 10, |n| (10.0 * n as f64).min(40.0));
        assert_eq!(controller.wanted(), 4);
    }

    #[test]
    fn a_shared_bottleneck_keeps_it_small() {
        let mut controller = Controller::new(4, 8);
        assert!(run(&mut controller, 12, |_| 100.0)[2..].iter().all(|&n| n <= 4));
        run(&mut controller, 12, |_| 100.0);
        assert_eq!(controller.wanted(), 1);
    }

    #[test]
    fn a_dip_changes_nothing() {
        let mut controller = Controller::new(4, 4);
        controller.measured(100.0);
        for rate in [30.0, 20.0, 50.0, 100.0, 30.0, 100.0] {
            assert_eq!(controller.measured(rate), 4);
        }
    }

    #[test]
    fn more_that_hurts_is_taken_back() {
        let mut controller = Controller::new(1, 8);
        run(&mut controller, 5, |n| 100.0 / n as f64);
        assert_eq!(controller.wanted(), 1);
    }

    #[test]
    fn a_server_that_lets_two_in_is_heeded() {
        let mut controller = Controller::new(1, 8);
        controller.measured(10.0);
        controller.measured(20.0);
        assert_eq!(controller.wanted(), 4);
        controller.limit(2);
        assert_eq!(controller.wanted(), 2);
        run(&mut controller, 50, |n| 10.0 * n as f64);
        assert_eq!((controller.wanted(), controller.found()), (2, Some(2)));
    }

    #[test]
    fn what_was_remembered_is_held_until_it_fails() {
        let mut controller = Controller::remembered(4, 8);
        assert!(run(&mut controller, 4, |_| 100.0).iter().all(|&n| n == 4));
        // The link became another one: a single connection fills it.
        run(&mut controller, 24, |_| 20.0);
        assert_eq!(controller.wanted(), 1);
    }

    proptest! {
        #[test]
        fn never_outside_its_bounds(
            start in 0usize..20, most in 0usize..20, rates in prop::collection::vec(0.0f64..1e12, 0..200), limit in 0usize..20,
        ) {
            let mut controller = Controller::new(start, most);
            for (n, rate) in rates.into_iter().enumerate() {
                if n == 50 {
                    controller.limit(limit);
                }
                let wanted = controller.measured(rate);
                prop_assert!((1..=most.max(1)).contains(&wanted));
            }
        }
    }
}

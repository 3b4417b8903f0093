//! What is to go wrong, and when: the counting, without a network.

use std::time::{Duration, Instant};

use super::super::data::Dice;
use super::pump::Ending;
use super::{Fault, On, Towards};

/// A slow line passes its bytes in so many pieces a second.
const PIECES_A_SECOND: u64 = 50;
/// No test looks at more.
const MOST_TURNS: usize = 100_000;

/// The faults that are set, and what has passed.
#[derive(Default)]
pub(super) struct Rules {
    armed: Vec<Armed>,
    broken: u32,
    open: u32,
    made: [u32; 2],
    passed: [[u64; 2]; 2],
    turns: Vec<(On, Towards, u64)>,
    /// Of each connection, which way it spoke last.
    last: Vec<Option<Towards>>,
}

struct Armed {
    fault: Fault,
    /// Bytes that still pass before it comes.
    left: u64,
    /// When a slow line takes the next byte.
    free: Option<Instant>,
    dice: Dice,
}

/// What to do with bytes that came.
pub(super) struct Verdict {
    /// How many of them pass.
    pub(super) passing: usize,
    /// What happens behind them.
    pub(super) then: Option<Ending>,
}

impl Rules {
    pub(super) fn add(&mut self, fault: Fault) {
        let (left, seed) = match fault {
            Fault::Cut { after, .. }
            | Fault::Close { after, .. }
            | Fault::Reset { after, .. }
            | Fault::HalfClose { after, .. }
            | Fault::Stall { after, .. } => (after, 0),
            Fault::Flip { at, .. } => (at, 0),
            Fault::Refuse { connections, .. } => (connections.into(), 0),
            Fault::Split { seed, .. } => (0, seed),
            Fault::Slow { .. } | Fault::Coalesce { .. } => (0, 0),
        };
        self.armed.push(Armed { fault, left, free: None, dice: Dice::new(seed) });
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    pub(super) fn broken(&self) -> u32 {
        self.broken
    }

    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// Counts a connection in; returns its number.
    pub(super) fn opened(&mut self, on: On) -> usize {
        self.made[index(on)] += 1;
        self.open += 1;
        self.last.push(None);
        self.last.len() - 1
    }

    pub(super) fn closed(&mut self) {
        self.open -= 1;
    }

    pub(super) fn connections(&self, on: On) -> u32 {
        KINDS.into_iter().filter(|kind| on.covers(*kind)).map(|kind| self.made[index(kind)]).sum()
    }

    pub(super) fn passed(&self, towards: Towards, on: On) -> u64 {
        KINDS.into_iter().filter(|kind| on.covers(*kind)).map(|kind| self.passed[index(kind)][towards as usize]).sum()
    }

    pub(super) fn turns(&self, towards: Towards, on: On) -> Vec<u64> {
        let mine = self.turns.iter().filter(|(kind, way, _)| on.covers(*kind) && *way == towards);
        mine.map(|(_, _, at)| *at).collect()
    }

    /// Whether a connection that was made is one too many.
    pub(super) fn refuses(&mut self, on: On) -> bool {
        let refusal = self
            .armed
            .iter_mut()
            .find(|armed| matches!(armed.fault, Fault::Refuse { on: kind, .. } if kind.covers(on) && armed.left > 0));
        refusal.is_some_and(|armed| {
            armed.left -= 1;
            true
        })
    }

    /// Decides about bytes that came; none mean that the connection ends this way.
    pub(super) fn judge(&mut self, bytes: &mut [u8], way: (On, Towards), connection: usize) -> Verdict {
        self.note_turn(way, connection);
        let length = bytes.len() as u64;
        let due = self.armed.iter().enumerate().filter_map(|(i, armed)| {
            let ending = armed.ending(way)?;
            (armed.left < length || (length == 0 && armed.left == 0)).then_some((armed.left, i, ending))
        });
        let first = due.min_by_key(|(left, ..)| *left);
        let passing = first.map_or(length, |(left, ..)| left);
        for armed in self.armed.iter_mut().filter(|armed| armed.counts(way)) {
            if let Fault::Flip { bit, .. } = armed.fault
                && armed.left < passing
            {
                bytes[armed.left as usize] ^= 1 << (bit % 8);
                armed.left = u64::MAX;
            }
            armed.left = armed.left.saturating_sub(if armed.left == u64::MAX { 0 } else { passing });
        }
        self.passed[index(way.0)][way.1 as usize] += passing;
        if let Some((_, i, _)) = first {
            self.armed.remove(i);
            self.broken += 1;
        }
        Verdict { passing: passing as usize, then: first.map(|(_, _, ending)| ending) }
    }

    /// Returns how many of these bytes are sent at once, and how long to wait behind them.
    pub(super) fn piece(&mut self, length: usize, way: (On, Towards)) -> (usize, Duration) {
        let (mut piece, mut wait) = (length, Duration::ZERO);
        let now = Instant::now();
        for armed in &mut self.armed {
            match armed.fault {
                Fault::Split { largest, on, .. } if on.covers(way.0) => {
                    piece = piece.min(1 + armed.dice.below(largest as u64) as usize);
                }
                Fault::Slow { rate, .. } if armed.counts(way) => {
                    piece = piece.min((rate / PIECES_A_SECOND).max(1) as usize);
                }
                _ => {}
            }
        }
        for armed in &mut self.armed {
            if let Fault::Slow { rate, .. } = armed.fault
                && armed.counts(way)
            {
                let takes = Duration::from_secs_f64(piece as f64 / rate as f64);
                let free = armed.free.filter(|free| *free > now).unwrap_or(now) + takes;
                armed.free = Some(free);
                wait = wait.max(free - now);
            }
        }
        (piece, wait)
    }

    /// Returns what to hold back bytes for.
    pub(super) fn held(&self, on: On) -> Option<(usize, Duration)> {
        self.armed.iter().find_map(|armed| match armed.fault {
            Fault::Coalesce { bytes, quiet, on: kind } if kind.covers(on) => Some((bytes, quiet)),
            _ => None,
        })
    }

    fn note_turn(&mut self, (on, towards): (On, Towards), connection: usize) {
        if self.last[connection].replace(towards) != Some(towards) && self.turns.len() < MOST_TURNS {
            self.turns.push((on, towards, self.passed[index(on)][towards as usize]));
        }
    }
}

impl Armed {
    /// Whether it counts these bytes.
    fn counts(&self, way: (On, Towards)) -> bool {
        match self.fault {
            Fault::Cut { towards, on, .. }
            | Fault::Close { towards, on, .. }
            | Fault::Reset { towards, on, .. }
            | Fault::HalfClose { towards, on, .. }
            | Fault::Stall { towards, on, .. }
            | Fault::Slow { towards, on, .. }
            | Fault::Flip { towards, on, .. } => on.covers(way.0) && towards == way.1,
            Fault::Split { .. } | Fault::Coalesce { .. } | Fault::Refuse { .. } => false,
        }
    }

    /// What it does to these bytes once it comes, if it is one that breaks.
    fn ending(&self, way: (On, Towards)) -> Option<Ending> {
        let ending = match self.fault {
            Fault::Cut { .. } => Ending::CutAll,
            Fault::Close { .. } => Ending::CloseAll,
            Fault::Reset { .. } => Ending::Reset,
            Fault::HalfClose { .. } => Ending::HalfClose,
            Fault::Stall { .. } => Ending::Stall,
            _ => return None,
        };
        self.counts(way).then_some(ending)
    }
}

const KINDS: [On; 2] = [On::Control, On::Data];

fn index(on: On) -> usize {
    usize::from(on == On::Data)
}

//! When to kill: drawn from what an undisturbed run is like.

use std::process::Child;
use std::time::{Duration, Instant};

use crate::scene::{Copy, Scene};
use crate::support::client::{Traces, told};
use crate::support::data::Dice;

/// An instant of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// So long after the start.
    After(Duration),
    /// As soon as journals, parts and files have changed so often, and a little later.
    Change(u32, Duration),
}

/// What an undisturbed run is like.
pub(crate) struct Life {
    lasts: Duration,
    changes: u32,
}

impl Life {
    /// Runs a copy undisturbed, and looks.
    pub(crate) fn of(scene: &mut Scene, dice: &mut Dice, paced: bool) -> Self {
        let copy = scene.copy(dice);
        let began = Instant::now();
        let mut child = copy.command(&scene.server, paced).spawn().unwrap();
        let mut changes = Changes::new(&copy);
        while child.try_wait().unwrap().is_none() {
            changes.look(&copy);
        }
        let lasts = began.elapsed();
        let run = child.wait_with_output().unwrap();
        assert!(run.status.success(), "{}", told(&run));
        Self { lasts, changes: changes.count.max(1) }
    }

    /// Draws an instant: any of its life, or one at which something is written, in turns.
    pub(crate) fn moment(&self, dice: &mut Dice, number: u32) -> Moment {
        match number % 2 {
            0 => Moment::After(self.lasts.mul_f64(dice.share() * 1.1)),
            _ => Moment::Change(
                1 + dice.below(self.changes.into()) as u32,
                Duration::from_micros(dice.one_of(&[0, 0, 100, 1000])),
            ),
        }
    }
}

/// Counts how often something changed.
struct Changes {
    before: Traces,
    count: u32,
}

impl Changes {
    fn new(copy: &Copy) -> Self {
        Self { before: copy.traces(), count: 0 }
    }

    fn look(&mut self, copy: &Copy) {
        let now = copy.traces();
        if now != self.before {
            self.before = now;
            self.count += 1;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

impl Moment {
    /// Waits for it; returns whether the run hasn't ended before.
    pub(crate) fn wait(self, child: &mut Child, copy: &Copy) -> bool {
        let began = Instant::now();
        let mut changes = Changes::new(copy);
        let mut running = true;
        while running {
            match self {
                Self::After(time) if began.elapsed() >= time => break,
                Self::Change(wanted, _) if changes.count >= wanted => break,
                Self::After(time) => {
                    std::thread::sleep(time.saturating_sub(began.elapsed()).min(Duration::from_millis(1)));
                }
                Self::Change(..) => changes.look(copy),
            }
            running = child.try_wait().unwrap().is_none();
        }
        if let Self::Change(_, later) = self {
            std::thread::sleep(later);
        }
        running && child.try_wait().unwrap().is_none()
    }
}

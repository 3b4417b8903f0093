//! What to do: one transfer, and what goes wrong in it.

use std::fmt;

use crate::stage::Stage;
use crate::support::data::Dice;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Get,
    Put,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    Cut,
    Close,
    Reset,
    HalfClose,
    Stall,
    Slow,
    Split,
    Coalesce,
    Refuse,
    Flip,
    KillHaul,
    Interrupt,
    Terminate,
    KillServer,
    FullDisk,
    TwoAtOnce,
}

impl Trouble {
    pub(crate) const ALL: [Self; 16] = [
        Self::Cut,
        Self::Close,
        Self::Reset,
        Self::HalfClose,
        Self::Stall,
        Self::Slow,
        Self::Split,
        Self::Coalesce,
        Self::Refuse,
        Self::Flip,
        Self::KillHaul,
        Self::Interrupt,
        Self::Terminate,
        Self::KillServer,
        Self::FullDisk,
        Self::TwoAtOnce,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Close => "close",
            Self::Reset => "reset of one connection",
            Self::HalfClose => "half-close",
            Self::Stall => "stall",
            Self::Slow => "slow",
            Self::Split => "split",
            Self::Coalesce => "coalesce",
            Self::Refuse => "refuse",
            Self::Flip => "bit flip",
            Self::KillHaul => "SIGKILL of haul",
            Self::Interrupt => "SIGINT of haul",
            Self::Terminate => "SIGTERM of haul",
            Self::KillServer => "SIGKILL of the server",
            Self::FullDisk => "full disk",
            Self::TwoAtOnce => "two hauls at once",
        }
    }

    /// How often it is drawn, compared with others: SIGKILL and cuts are what the promises are about.
    fn weight(self) -> u64 {
        match self {
            Self::KillHaul | Self::Cut => 4,
            Self::KillServer | Self::Reset => 2,
            _ => 1,
        }
    }
}

/// One transfer.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) number: u64,
    pub(crate) trouble: Trouble,
    /// Which of the stage's servers.
    pub(crate) server: usize,
    pub(crate) direction: Direction,
    /// Which of the stage's loads.
    pub(crate) load: usize,
    pub(crate) segments: Option<u32>,
    /// Whether older files are there.
    pub(crate) old: bool,
    /// Whether it is slowed down, so that the moving itself takes most of the time.
    pub(crate) paced: bool,
    /// For what is drawn while it runs.
    pub(crate) dice: Dice,
    pub(crate) title: String,
}

impl Case {
    pub(crate) fn draw(stage: &Stage, seed: u64, number: u64) -> Self {
        let mut dice = Dice::new(seed.rotate_left(32) ^ number.wrapping_mul(0x9e37_79b9));
        let drawn: Vec<_> =
            Trouble::ALL.into_iter().flat_map(|trouble| (0..trouble.weight()).map(move |_| trouble)).collect();
        let mut trouble = dice.one_of(&drawn);
        let direction = dice.one_of(&[Direction::Get, Direction::Put]);
        let mut servers = stage.servers_for(trouble, direction);
        if servers.is_empty() {
            // What can't be had on this machine: without root there is no disk to fill.
            trouble = Trouble::Cut;
            servers = stage.servers_for(trouble, direction);
        }
        let server = dice.one_of(&servers);
        let single = matches!(trouble, Trouble::Flip);
        let load = dice.one_of(&stage.loads_for(single));
        let segments = dice.one_of(&[None, Some(1), Some(4)]);
        let (old, paced) = (dice.once_in(2), dice.once_in(2));
        let title = format!(
            "{} by {direction:?} of {} {} ({}{}{})",
            trouble.name(),
            stage.loads[load].name,
            stage.places[server].server().name,
            segments.map_or("segments auto".into(), |segments| format!("segments {segments}")),
            if old { ", over old files" } else { "" },
            if paced { ", paced" } else { "" },
        );
        Self { seed, number, trouble, server, direction, load, segments, old, paced, dice, title }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "case {} of seed {}: {}", self.number, self.seed, self.title)
    }
}

//! What is told at the end.

use std::collections::BTreeMap;
use std::fmt;

use crate::case::Trouble;
use crate::run::Outcome;
use crate::soak::Report;

/// All outcomes together.
#[derive(Debug, Default)]
pub(crate) struct Table {
    troubles: BTreeMap<Trouble, Row>,
    transfers: u64,
    files: u64,
    bytes: u64,
    again: u64,
    measured: u64,
    twice: u64,
    most_beyond: u64,
    wrong: u64,
    stray: u64,
    seen: u64,
    hangs: u64,
    unfinished: u64,
    soaks: Vec<Report>,
    told: Vec<String>,
    loud: bool,
}

#[derive(Debug, Default)]
struct Row {
    cases: u64,
    injected: u64,
    again: u64,
}

impl Table {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let needed_more = u64::from(outcome.runs > 1 && outcome.trouble != Some(Trouble::TwoAtOnce));
        if let Some(trouble) = outcome.trouble {
            let row = self.troubles.entry(trouble).or_default();
            row.cases += 1;
            row.injected += u64::from(outcome.injected);
            row.again += needed_more;
        }
        self.transfers += 1;
        self.files += outcome.files;
        self.bytes += outcome.bytes;
        self.again += needed_more;
        self.measured += u64::from(outcome.twice.is_some());
        self.twice += outcome.twice.unwrap_or(0);
        self.most_beyond = self.most_beyond.max(outcome.beyond);
        self.wrong += outcome.wrong.len() as u64;
        self.stray += outcome.stray.len() as u64;
        self.seen += outcome.seen.len() as u64;
        self.hangs += u64::from(outcome.hangs);
        self.unfinished += u64::from(outcome.unfinished);
        if self.loud {
            self.told.push(outcome.to_string());
        }
    }

    pub(crate) fn add_soak(&mut self, report: Report) {
        self.wrong += report.wrong.len() as u64;
        self.stray += report.stray.len() as u64;
        self.soaks.push(report);
    }

    /// Tells what every run said, too.
    pub(crate) fn loud(&mut self) {
        self.loud = true;
    }

    pub(crate) fn is_clean(&self) -> bool {
        let faults = self.wrong + self.stray + self.seen + self.hangs + self.unfinished;
        faults == 0 && self.soaks.iter().all(|soak| soak.growth().is_empty())
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "{} transfers, {} of them needed another run; wrong {}, stray {}, seen {}, hangs {}",
            self.transfers, self.again, self.wrong, self.stray, self.seen, self.hangs
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.loud {
            self.told.iter().try_for_each(|told| write!(f, "{told}"))?;
        }
        writeln!(f, "\n{:<28}{:>10}{:>12}{:>16}", "fault", "cases", "injected", "another run")?;
        for (trouble, row) in &self.troubles {
            writeln!(f, "{:<28}{:>10}{:>12}{:>16}", trouble.name(), row.cases, row.injected, row.again)?;
        }
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        let injected: u64 = self.troubles.values().map(|row| row.injected).sum();
        let rows = [
            ("faults injected", injected.to_string()),
            ("transfers", format!("{} ({} files, {})", self.transfers, self.files, mib(self.bytes))),
            ("needed another run", self.again.to_string()),
            ("bytes moved twice", format!("{} in {} transfers of one large file", mib(self.twice), self.measured)),
            (
                "  most in one, beyond a block and an overlap per stream",
                format!("{} (what was on its way)", mib(self.most_beyond)),
            ),
            ("wrong files (must be 0)", self.wrong.to_string()),
            ("stray files (must be 0)", self.stray.to_string()),
            ("wrong files seen under a final name (must be 0)", self.seen.to_string()),
            ("hangs (must be 0)", self.hangs.to_string()),
            ("never finished (must be 0)", self.unfinished.to_string()),
        ];
        writeln!(f)?;
        for (name, value) in rows {
            writeln!(f, "{name:<58}{value}")?;
        }
        self.soaks.iter().try_for_each(|soak| write!(f, "{soak}"))
    }
}

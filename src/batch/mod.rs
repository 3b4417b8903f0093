//! Batches: from the text of a job file or a command script to what is to be done; no disk, no network.
//!
//! - `read`, `values`: job files, in TOML; [`JobFile`] is what they come to. `expand`: what stands in `${}`. `order`: which job
//!   waits for which.
//! - `words`, `script`, `action`: command scripts, as `sftp -b` takes them.
//!
//! Which options there are is not known here: [`Surroundings`] tells. All that is wrong with a file is gathered, so that
//! one look shows all of it.

use std::time::Duration;

use crate::config::{Place, Problem, Setting, Vocabulary};

mod action;
mod expand;
mod order;
mod read;
mod script;
mod values;
mod words;

pub use action::{Action, CopyFlags, Line, ListFlags, SortBy};
pub use expand::expand;
pub use words::{Braces, Word};

/// The commands that a job can be.
pub const VERBS: [&str; 7] = ["get", "put", "sync", "check", "rm", "mkdir", "mv"];

/// What a batch is read in the light of.
pub trait Surroundings {
    /// Returns the options of a command, one of [`VERBS`].
    fn options(&self, verb: &str) -> &dyn Vocabulary;

    /// Returns a variable of the environment.
    ///
    /// # Errors
    /// A sentence without a full stop, when it isn't set, is empty, or is no text.
    fn variable(&self, name: &str) -> Result<String, String>;

    /// Returns the time of the run in a format of `strftime`.
    ///
    /// # Errors
    /// A sentence without a full stop.
    fn date(&self, format: &str) -> Result<String, String>;

    /// Returns whether a name is that of an option of the run and of no job.
    fn is_of_run(&self, name: &str) -> bool;

    /// Reads a time like `30s`.
    ///
    /// # Errors
    /// A sentence without a full stop.
    fn duration(&self, word: &str) -> Result<Duration, String>;
}

/// Something that stands in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    /// What stands there.
    pub value: T,
    /// Where.
    pub place: Place,
}

/// A job file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFile {
    /// In the order of the file.
    pub jobs: Vec<Job>,
    /// What keeps two runs apart.
    pub lock: Option<Lock>,
    /// What is run at the end of the whole.
    pub hooks: Hooks,
}

impl JobFile {
    /// Reads a job file's text. Everything that is wrong with it comes along, from top to bottom: only without any is
    /// there something to run.
    pub fn read(text: &str, around: &dyn Surroundings) -> (Self, Vec<Problem>) {
        read::read(text, around)
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What other jobs and people know it by.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// One of [`VERBS`].
    pub verb: &'static str,
    /// What is copied, removed, made or moved.
    pub sources: Vec<Placed<String>>,
    /// Where to.
    pub to: Option<Placed<String>>,
    /// Its own options.
    pub options: Vec<Setting>,
    /// Those of the defaults that its command has and that it doesn't set itself.
    pub defaults: Vec<Setting>,
    /// The jobs that must be done before, by their place in the list.
    pub needs: Vec<usize>,
    /// What must be there, or must not.
    pub conditions: Vec<Condition>,
    /// What a failure means for the others.
    pub on_error: OnError,
    /// How often it is tried again before it has failed.
    pub retry: u32,
    /// How long to wait before that.
    pub retry_wait: Duration,
    /// What is run at its end.
    pub hooks: Hooks,
    /// What keeps it apart from others.
    pub lock: Option<Lock>,
}

/// What becomes of the other jobs when one has failed. Those that need it are skipped in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// No other is begun.
    #[default]
    Stop,
    /// They are run.
    Continue,
}

/// Something that decides whether a job is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// A path, a URL, or a path at a profile.
    pub operand: Placed<String>,
    /// Whether it must be there or must not.
    pub wanted: Wanted,
}

/// Whether something must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// `when`.
    There,
    /// `unless`.
    Missing,
}

/// What keeps two runs from overlapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lock {
    /// A file that haul names by the job file.
    Own,
    /// This file.
    At(String),
}

/// Programs that are told how something ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// After success.
    pub on_success: Option<Hook>,
    /// After a failure.
    pub on_failure: Option<Hook>,
    /// How long each may take.
    pub timeout: Duration,
}

/// How long a hook may take if nobody says.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

impl Default for Hooks {
    fn default() -> Self {
        Self { on_success: None, on_failure: None, timeout: HOOK_TIMEOUT }
    }
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// A line for `sh -c`.
    Shell(String),
    /// A program and its arguments.
    Words(Vec<String>),
}

/// Returns whether the text of a batch is a job file: a line that is no comment begins with a heading or sets a key.
///
/// No command of a script begins so.
pub fn is_job_file(text: &[u8]) -> bool {
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    first.is_some_and(|line| {
        let key = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte)).count();
        line.starts_with(b"[") || (key > 0 && line[key..].trim_ascii_start().starts_with(b"="))
    })
}

/// Reads a command script: every line that does something.
///
/// # Errors
/// Everything that is wrong with it, from top to bottom.
pub fn read_script(text: &[u8]) -> Result<Vec<Line>, Vec<Problem>> {
    script::read(text)
}

#[cfg(test)]
mod tests;

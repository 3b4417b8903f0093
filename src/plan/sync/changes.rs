//! What is told of a run besides the files that move.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::NO_FILE;
use crate::error::Error;
use crate::plan::compare::Why;
use crate::transfer::{Event, Observer, Outcome, Status};

/// One thing that is done, or would be, to the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A directory is made.
    MakeDirectory,
    /// A file that isn't there is copied.
    Copy,
    /// A file is replaced; `None`: whether or not it is alike.
    Replace(Option<Why>),
    /// A symbolic link is made, or another put in its place.
    Link,
    /// Nothing but the time or the mode is set.
    Set(Why),
    /// A file gets another name.
    Move {
        /// The path that it had.
        from: Vec<u8>,
    },
    /// A file or link is deleted, or goes into the backup.
    Delete,
    /// An empty directory is deleted.
    DeleteDirectory,
}

impl What {
    /// Returns the word used in lines and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MakeDirectory => "mkdir",
            Self::Copy => "copy",
            Self::Replace(_) => "replace",
            Self::Link => "link",
            Self::Set(_) => "set",
            Self::Move { .. } => "move",
            Self::Delete => "delete",
            Self::DeleteDirectory => "rmdir",
        }
    }

    /// Returns in what the two ends differ, if both are there.
    pub fn why(&self) -> Option<Why> {
        match self {
            Self::Replace(why) => *why,
            Self::Set(why) => Some(*why),
            _ => None,
        }
    }
}

/// Whether something was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A dry run would do it.
    Planned,
    /// It is done.
    Done,
}

/// Something that is done, or would be.
#[derive(Debug, Clone)]
pub struct Change {
    /// What.
    pub what: What,
    /// To what: the path below the destination.
    pub path: Vec<u8>,
    /// URL of the source; of a move, of where it was. `None` where the source has no part in it.
    pub source: Option<String>,
    /// URL at the destination.
    pub destination: String,
    /// Size of the file in bytes, if known.
    pub bytes: Option<u64>,
    /// Whether it was done.
    pub stage: Stage,
}

/// Is told what changes: in a dry run everything, else moves and deletions, as the files that are copied are told to the
/// [`Observer`]. Must not block.
pub trait Changes: Send + Sync {
    /// Takes one.
    fn change(&self, change: &Change);
}

/// Who is told, and whether anything is to be done at all.
#[derive(Clone)]
pub(super) struct Teller {
    pub(super) observer: Arc<dyn Observer>,
    pub(super) changes: Arc<dyn Changes>,
    pub(super) cancel: CancellationToken,
    pub(super) dry_run: bool,
}

impl Teller {
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        self.observer.event(Event::Note { id: NO_FILE, text: text.into() });
    }

    /// Tells of something that failed outside of the engine.
    pub(super) fn fail(&self, at: String, error: Error) {
        self.observer.event(Event::Finished(Outcome {
            id: NO_FILE,
            source: at.clone(),
            destination: at,
            status: Status::Failed(error),
            bytes: None,
            transferred: 0,
            resumed_from: None,
            elapsed: Duration::ZERO,
            verified: None,
        }));
    }

    pub(super) fn change(&self, change: Change) {
        let stage = if self.dry_run { Stage::Planned } else { Stage::Done };
        self.changes.change(&Change { stage, ..change });
    }
}

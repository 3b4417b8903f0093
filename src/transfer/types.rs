//! The words of transfers: tasks, options, events, outcomes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::encode_path;
use crate::error::{Error, Result};
use crate::transport::{Algorithm, Durability, Entry, RemotePath, SetMetadata, Transport};

use super::backup::Backup;
use super::folder::Folder;
use super::notes::Request;
use super::rate::{Allowance, Limiter};
use super::settled::Boot;

/// A path at a connected endpoint.
#[derive(Debug, Clone)]
pub struct Location {
    /// The endpoint.
    pub transport: Arc<dyn Transport>,
    /// The path there.
    pub path: RemotePath,
    /// Its URL, percent-encoded and without a password: what journals and JSON know it by.
    pub url: String,
}

impl Location {
    /// Returns it for people: the plain path of a local file, the URL of any other.
    pub fn shown(&self) -> String {
        if self.transport.capabilities().local { self.path.to_string() } else { self.url.clone() }
    }

    /// Returns what a directory holds under a name that a listing gave.
    ///
    /// # Errors
    /// `InvalidPath` for a name that would lead elsewhere.
    pub fn child(&self, name: &[u8]) -> Result<Self> {
        let path = self.path.join(name)?;
        let slash = if self.url.ends_with('/') { "" } else { "/" };
        // At the root of an SFTP server a plain ~ would be the home directory.
        let home = name == b"~" && self.path == RemotePath::root();
        let encoded = if home { "%7E".to_owned() } else { encode_path(name) };
        let url = format!("{}{slash}{encoded}", self.url);
        Ok(Self { transport: Arc::clone(&self.transport), path, url })
    }

    /// Returns another path at the same endpoint; the URL stays, for paths that only haul knows of.
    pub(crate) fn sibling(&self, path: RemotePath) -> Self {
        Self { path, ..self.clone() }
    }
}

/// One file to move.
#[derive(Debug, Clone)]
pub struct Job {
    /// From where.
    pub source: Location,
    /// To where: the final name.
    pub destination: Location,
    /// The source's entry if a listing or `stat` has told it already.
    pub entry: Option<Entry>,
    /// The directory that it goes into, if that is a part of the plan.
    pub folder: Option<Arc<Folder>>,
}

impl Job {
    /// Returns the longer of both ends' round trips; `None` where no network is involved.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.source.transport.round_trip().max(self.destination.transport.round_trip())
    }
}

/// One thing to do, in an order in which a directory comes before what is in it.
#[derive(Debug)]
pub enum Task {
    /// Make this directory unless it is there.
    Directory(Arc<Folder>),
    /// Make this symbolic link.
    Symlink {
        /// The link that was found.
        source: Location,
        /// The link to make.
        at: Location,
        /// Where it points.
        target: Vec<u8>,
        /// The directory that it goes into, if that is a part of the plan.
        folder: Option<Arc<Folder>>,
    },
    /// Move this file.
    File(Job),
    /// Set time or mode of what is there and is alike otherwise.
    Metadata {
        /// What it is to be like.
        source: Location,
        /// What is there; no link.
        at: Location,
        /// What to set.
        metadata: SetMetadata,
    },
    /// Nothing can be done: planning failed for this source.
    Failed {
        /// The URL or path that it is about.
        source: String,
        /// Why.
        error: Error,
    },
}

/// What to do with a file whose final name exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// Skip it if size and mtime are the same, replace it otherwise.
    #[default]
    ReplaceDifferent,
    /// Replace it in any case.
    Replace,
    /// Replace it only if the source is newer.
    ReplaceOlder,
    /// Leave it.
    Keep,
}

/// How a moved file is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Sizes always; after a resume or retry also a digest where the server gives one, else an overlap.
    #[default]
    Auto,
    /// Sizes only.
    Size,
    /// A digest of the whole file at both ends, or failure.
    Digest,
}

/// How a file was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verified {
    /// Its size is right.
    Size,
    /// Its size is right and bytes before the resumed offset were compared with what was moved earlier.
    Overlap,
    /// This digest of it is the same at both ends.
    Digest(Algorithm),
}

/// How [`crate::transfer::run`] moves files.
#[derive(Debug, Clone)]
pub struct Options {
    /// Files in flight; `None`: found while running.
    pub jobs: Option<usize>,
    /// Streams of one large file; `None`: found while running.
    pub segments: Option<usize>,
    /// Go on with an interrupted transfer's part file.
    pub resume: bool,
    /// How to prove what arrived.
    pub verify: Verify,
    /// Whether finished files must survive a loss of power.
    pub durability: Durability,
    /// How many bytes a second may pass, over all runs that hold a copy of it; may be changed while they run.
    pub limiter: Limiter,
    /// How many bytes may be moved at all, over all runs that hold a copy of it.
    pub allowance: Allowance,
    /// How often one job may be tried again without having come further in between.
    pub retries: u32,
    /// The longest wait before a retry; waits start at half a second and double.
    pub retry_wait: Duration,
    /// Keep the permission bits (without setuid, setgid and sticky).
    pub preserve_mode: bool,
    /// What to do with files that are there already.
    pub existing: Existing,
    /// Decide and tell, but change nothing.
    pub dry_run: bool,
    /// Where files go that are replaced; `None`: they are gone.
    pub backup: Option<Arc<Backup>>,
    /// Where journals are kept.
    pub state_dir: PathBuf,
    /// How the transfers were asked for; written to their journals, so nothing in it may be secret.
    pub request: Request,
    /// Which boot of this machine this is: what an earlier one wrote may have been lost with the power.
    pub boot: Boot,
}

impl Options {
    /// Returns the options that the command line uses when nothing is said.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            jobs: None,
            segments: None,
            resume: true,
            verify: Verify::Auto,
            durability: Durability::Cached,
            limiter: Limiter::default(),
            allowance: Allowance::default(),
            retries: 5,
            retry_wait: Duration::from_secs(30),
            preserve_mode: false,
            existing: Existing::ReplaceDifferent,
            dry_run: false,
            backup: None,
            state_dir: state_dir.into(),
            request: Request::default(),
            boot: Boot::current(),
        }
    }
}

/// What happened to one task.
#[derive(Debug)]
pub enum Status {
    /// It is there now.
    Done,
    /// It was not needed; why.
    Skipped(&'static str),
    /// A dry run would have moved it.
    Planned,
    /// It failed.
    Failed(Error),
}

/// The end of one file, link or directory.
#[derive(Debug)]
pub struct Outcome {
    /// The number that its events carry.
    pub id: u64,
    /// URL of the source; `-` is a pipe.
    pub source: String,
    /// URL of the destination; `-` is a pipe.
    pub destination: String,
    /// What happened.
    pub status: Status,
    /// Size of the file in bytes, if known.
    pub bytes: Option<u64>,
    /// Bytes that crossed the network in this run for it.
    pub transferred: u64,
    /// Where a resumed transfer went on.
    pub resumed_from: Option<u64>,
    /// Time from start to end.
    pub elapsed: Duration,
    /// How it was proven.
    pub verified: Option<Verified>,
}

/// What an [`Observer`] is told, in order for each `id`. There may be more to tell in later versions.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Planning found one more file of this size.
    Found {
        /// Size in bytes, if known.
        bytes: Option<u64>,
    },
    /// Planning is complete: the totals are final.
    AllFound,
    /// A file is in flight.
    Started {
        /// Number of the file in this run.
        id: u64,
        /// URL of the source; `-` is a pipe.
        source: String,
        /// URL of the destination; `-` is a pipe.
        destination: String,
        /// Size in bytes, if known.
        size: Option<u64>,
    },
    /// A file goes on from an offset that an earlier run or attempt reached.
    Resumed {
        /// Number of the file.
        id: u64,
        /// Bytes that are kept.
        offset: u64,
    },
    /// So much of the file is at the destination.
    Progress {
        /// Number of the file.
        id: u64,
        /// Bytes from the start of the file; may go back after a broken attempt.
        position: u64,
    },
    /// An attempt failed and will be repeated.
    Retrying {
        /// Number of the file.
        id: u64,
        /// Attempts made so far.
        attempt: u32,
        /// How long until the next.
        wait: Duration,
        /// Why the attempt failed.
        error: Error,
    },
    /// Something that the user should know and that changes no outcome.
    Note {
        /// Number of the file.
        id: u64,
        /// The sentence.
        text: String,
    },
    /// A file, link or failed task is through. Directories that were made are not reported.
    Finished(Outcome),
}

/// Is told what happens. Called from many tasks; must not block.
pub trait Observer: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// The totals of a run.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// Files and links looked at.
    pub files: u64,
    /// Made at the destination.
    pub done: u64,
    /// Directories made.
    pub directories: u64,
    /// Not needed.
    pub skipped: u64,
    /// Failed.
    pub failed: u64,
    /// Bytes of the files done.
    pub bytes: u64,
    /// Bytes that crossed the network.
    pub transferred: u64,
    /// Time from start to end.
    pub elapsed: Duration,
    /// Failures by verification: they have an exit status of their own.
    pub verify_failed: u64,
    /// Whether the run was cancelled before its end.
    pub cancelled: bool,
}

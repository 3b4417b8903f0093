//! The words of comparing: how, and what is found.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::plan::Filter;
use crate::transfer::Limiter;
use crate::transport::{Entry, RemotePath};

/// By what two files count as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// Size and time of modification.
    #[default]
    Time,
    /// Size.
    Size,
    /// Size and a digest of what is in them.
    Digest,
}

/// What becomes of symbolic links of the left tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// They are compared as links, by where they point.
    #[default]
    Keep,
    /// What they lead to is compared, if that is a file; those to directories are left alone.
    Follow,
    /// They are left alone.
    Skip,
}

/// How trees are compared.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // each is a question of its own
pub struct Comparing {
    /// By what files count as the same.
    pub by: By,
    /// What becomes of links.
    pub links: Links,
    /// What takes part; what it rules out in one tree is left alone in both.
    pub filter: Filter,
    /// What the filter rules out counts as extra where the right tree has it.
    pub excluded_is_extra: bool,
    /// Whether modes count.
    pub modes: bool,
    /// Whether what is in a directory that only the right tree has is told, too.
    pub inside_extra: bool,
    /// What is at this path of the right endpoint, and below, is left alone.
    pub apart: Option<RemotePath>,
    /// Whether a small file may be written into the right tree for a moment, to find out what its server does with times.
    pub may_probe: bool,
    /// How often a broken listing, or the digest of a file, is tried again.
    pub retries: u32,
    /// The longest wait before that.
    pub retry_wait: Duration,
    /// How fast files of servers are read for their digests, together with all who hold a copy of this.
    pub limiter: Limiter,
    /// Where digests and exact times are remembered; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
}

impl Default for Comparing {
    fn default() -> Self {
        Self {
            by: By::Time,
            links: Links::Keep,
            filter: Filter::default(),
            excluded_is_extra: false,
            modes: false,
            inside_extra: true,
            apart: None,
            may_probe: false,
            retries: 5,
            retry_wait: Duration::from_secs(30),
            limiter: Limiter::default(),
            state_dir: None,
        }
    }
}

/// One of the two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The source.
    Left,
    /// The destination.
    Right,
}

/// In what two entries differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// One is a file, the other a directory, and so on.
    Kind,
    /// Their sizes.
    Size,
    /// Their times: the left one is newer.
    Newer,
    /// Their times: the left one is older.
    Older,
    /// What is in them.
    Digest,
    /// Where they point.
    Target,
    /// Nothing but their times: what is in them is the same.
    OnlyTime,
    /// Nothing but their modes.
    OnlyMode,
}

impl Why {
    /// Returns the word used in lines and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Size => "size",
            Self::Newer => "newer",
            Self::Older => "older",
            Self::Digest => "digest",
            Self::Target => "target",
            Self::OnlyTime => "time",
            Self::OnlyMode => "mode",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a comparison of two entries of one name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Only the left tree has it.
    Missing,
    /// Only the right tree has it.
    Extra,
    /// Both have it, but not alike.
    Different(Why),
    /// Both have it alike. Directories are, whatever is in them.
    Equal,
}

/// One name that at least one of the trees has.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The path below the roots: names with `/` between them, as bytes.
    pub path: Vec<u8>,
    /// What the left tree has; of a link that is followed, what it leads to.
    pub left: Option<Entry>,
    /// What the right tree has.
    pub right: Option<Entry>,
    /// How they compare.
    pub verdict: Verdict,
}

/// Why an entry takes no part in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Apart {
    /// A filter rules it out.
    Excluded,
    /// It is a part file of a transfer, or lies where the caller said.
    Own,
    /// A device, socket or pipe.
    NotRegular,
    /// A link, and links are skipped.
    Link,
    /// A link to a directory, and links are followed.
    LinkToDirectory,
}

/// What comparing two trees finds.
#[derive(Debug)]
pub enum Finding {
    /// An entry of one or both.
    Pair(Difference),
    /// An entry that takes no part: whatever is there, in either tree, is to be left alone.
    Apart {
        /// The path below the roots.
        path: Vec<u8>,
        /// Why.
        why: Apart,
    },
    /// A directory could not be listed, or an entry not looked at: nothing is known about what is there.
    Failed {
        /// In which tree.
        side: Side,
        /// The path below the roots.
        path: Vec<u8>,
        /// Why.
        error: Error,
    },
    /// All that is right in this directory, but not what is in those below, was told.
    Listed {
        /// Its path below the roots; empty for the roots.
        path: Vec<u8>,
        /// It as the left tree has it.
        left: Option<Entry>,
        /// It as the right tree has it.
        right: Option<Entry>,
        /// Whether anything right in it was not equal.
        changed: bool,
        /// How many entries of the left directory take part.
        entries: usize,
        /// Whether the left directory holds nothing at all.
        is_bare: bool,
    },
    /// A sentence that the user should know.
    Note(String),
}

//! What a line of a command script does.

use super::words::Word;
use crate::config::Place;
use crate::transport::Owner;

/// A line that does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where its command begins.
    pub place: Place,
    /// The line as it was written, without blanks around it.
    pub text: Vec<u8>,
    /// Its failure is ignored: `-`.
    pub ignores_failure: bool,
    /// It isn't shown: `@`.
    pub silent: bool,
    /// What it does.
    pub action: Action,
}

/// What a line does. A [`Word`] may have wildcards, bytes are a plain path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `get`, `reget`, `mget`.
    Get(Word, Option<Vec<u8>>, CopyFlags),
    /// `put`, `reput`, `mput`.
    Put(Word, Option<Vec<u8>>, CopyFlags),
    /// `copy`, `cp`: within the server.
    Copy(Vec<u8>, Vec<u8>),
    /// `ls`, `dir`.
    List(Option<Word>, ListFlags),
    /// `cd`, `chdir`; without a path to where the login starts.
    Cd(Option<Vec<u8>>),
    /// `lcd`, `lchdir`; without a path home.
    LocalCd(Option<Vec<u8>>),
    /// `pwd`.
    Pwd,
    /// `lpwd`.
    LocalPwd,
    /// `lls`: what stands behind it goes to `ls`.
    LocalList(Vec<u8>),
    /// `mkdir`.
    Mkdir(Vec<u8>),
    /// `lmkdir`.
    LocalMkdir(Vec<u8>),
    /// `rmdir`.
    Rmdir(Vec<u8>),
    /// `rm`.
    Rm(Word),
    /// `rename`; `-l` replaces nothing.
    Rename {
        /// The old name.
        from: Vec<u8>,
        /// The new name.
        to: Vec<u8>,
        /// Whether what has the new name is replaced.
        replaces: bool,
    },
    /// `ln`: a second name for a file.
    HardLink(Vec<u8>, Vec<u8>),
    /// `ln -s`, `symlink`: the target as it is written, then the link.
    Symlink(Vec<u8>, Vec<u8>),
    /// `chmod`.
    Chmod(u32, Word),
    /// `chown`, `chgrp`.
    Chown(Owner, Word),
    /// `df`.
    Df {
        /// With units.
        human: bool,
        /// Inodes instead of bytes.
        inodes: bool,
        /// Of which file system.
        path: Option<Vec<u8>>,
    },
    /// `lumask`.
    LocalUmask(u32),
    /// `progress`: shows it from now on, or not.
    Progress,
    /// `version`.
    Version,
    /// `help`, `?`.
    Help,
    /// `!`: a line for the shell; an empty one is a shell.
    Shell(Vec<u8>),
    /// `quit`, `exit`, `bye`.
    Quit,
}

/// How files are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub struct CopyFlags {
    /// `-a`, `reget`, `reput`: go on with what is there.
    pub resume: bool,
    /// `-f`: must survive a loss of power.
    pub durable: bool,
    /// `-p`, `-P`: keep modes.
    pub preserve: bool,
    /// `-r`, `-R`: whole directories.
    pub recursive: bool,
}

/// How a directory is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub struct ListFlags {
    /// `-1`: one name a line.
    pub single: bool,
    /// `-a`: names that begin with a dot, too.
    pub all: bool,
    /// `-h`: sizes with units.
    pub human: bool,
    /// `-l`, `-n`: all that is known.
    pub long: bool,
    /// `-r`: backwards.
    pub reverse: bool,
    /// In which order.
    pub sort: SortBy,
}

/// In which order a directory is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortBy {
    /// By name.
    #[default]
    Name,
    /// `-S`: the largest first.
    Size,
    /// `-t`: the newest first.
    Time,
    /// `-f`: as the server has it.
    Nothing,
}

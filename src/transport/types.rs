//! The words of the seam: entries, times, ranges, capabilities, digests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Result;

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (not followed).
    Symlink,
    /// A device, socket, pipe, or something the server didn't tell.
    Other,
}

impl FileKind {
    /// Returns the word used in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "dir",
            Self::Symlink => "symlink",
            Self::Other => "other",
        }
    }
}

/// How exactly a time is known; ordered from fine to coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// Below a second.
    Nanosecond,
    /// A whole second (SFTP v3, MLSD, MDTM).
    Second,
    /// A minute (LIST of recent files); the time zone is the server's and unknown.
    Minute,
    /// A day (LIST of older files); the time zone is the server's and unknown.
    Day,
}

impl Precision {
    /// Returns the length of the interval that a time of this precision stands for.
    pub fn unit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Nanosecond => return Duration::from_nanos(1),
            Self::Second => 1,
            Self::Minute => 60,
            Self::Day => 86_400,
        })
    }
}

/// A modification time and how exactly it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mtime {
    /// The time, UTC; the start of the interval where the precision is coarse.
    pub time: SystemTime,
    /// How exactly `time` is known.
    pub precision: Precision,
}

impl Mtime {
    /// Makes a time of whole seconds since 1970, which may be negative.
    pub fn from_unix(seconds: i64) -> Self {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
        Self { time: time.unwrap_or(UNIX_EPOCH), precision: Precision::Second }
    }

    /// Returns whole seconds since 1970, rounded down.
    pub fn unix(self) -> i64 {
        match self.time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            Err(before) => {
                let before = before.duration();
                let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                -whole - i64::from(before.subsec_nanos() > 0)
            }
        }
    }

    /// Returns whether both can be the same instant, as far as the coarser of the two can tell.
    ///
    /// Times coarser than a second come from LIST in an unknown zone; they match nothing, since equal would be a guess.
    pub fn matches(self, other: Self) -> bool {
        match self.precision.max(other.precision) {
            Precision::Nanosecond => self.time == other.time,
            Precision::Second => self.unix() == other.unix(),
            Precision::Minute | Precision::Day => false,
        }
    }
}

impl From<SystemTime> for Mtime {
    fn from(time: SystemTime) -> Self {
        Self { time, precision: Precision::Nanosecond }
    }
}

/// One name in a directory with what the endpoint tells about it. `None` means unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as the server gave it, one component; not to be trusted, see [`super::RemotePath::join`].
    pub name: Vec<u8>,
    /// File, directory, link or other.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of last modification.
    pub mtime: Option<Mtime>,
    /// The twelve permission bits (`0o7777`).
    pub mode: Option<u32>,
    /// Where a symbolic link points, as its raw bytes.
    pub target: Option<Vec<u8>>,
}

impl Entry {
    /// Makes an entry of which only name and kind are known.
    pub fn new(name: impl Into<Vec<u8>>, kind: FileKind) -> Self {
        Self { name: name.into(), kind, size: None, mtime: None, mode: None, target: None }
    }

    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// Who shall own a file; the other number stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The user of this number.
    User(u32),
    /// The group of this number.
    Group(u32),
}

/// How full a file system is: bytes, and files that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskSpace {
    /// Bytes that there are.
    pub bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes that are free to this user.
    pub available_bytes: u64,
    /// Files that there can be; 0 where that isn't fixed.
    pub files: u64,
    /// Files that can still be made.
    pub free_files: u64,
    /// Files that this user can still make.
    pub available_files: u64,
}

/// Whether `stat` reports a symbolic link itself or what it points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// What it points to.
    Links,
    /// The link itself.
    Nothing,
}

/// Which bytes of a file to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset behind the last byte; `None` reads to the end of the file, whatever its size.
    pub end: Option<u64>,
}

impl WriteMode {
    /// Make it with the endpoint's default permissions.
    pub const CREATE: Self = Self::Create { mode: None, length: None };
}

impl ReadRange {
    /// The whole file.
    pub const ALL: Self = Self { start: 0, end: None };

    /// From `start` to the end of the file.
    pub fn from(start: u64) -> Self {
        Self { start, end: None }
    }

    /// From `start` up to, not including, `end`.
    pub fn between(start: u64, end: u64) -> Self {
        Self { start, end: Some(end) }
    }
}

/// How a file is opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Make it, empty; a regular file that was there loses its contents. A symbolic link in its place is not followed
    /// where the endpoint can help it.
    Create {
        /// Permission bits to make it with, less the endpoint's umask; `None`: the endpoint's default. FTP can't.
        mode: Option<u32>,
        /// Bytes that will be written, if known: room is reserved where that is possible.
        length: Option<u64>,
    },
    /// Open the existing file and write from this offset; bytes beyond what is written stay.
    At(u64),
}

/// Whether a rename may replace what is at the new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Replace it, in one step where `atomic_replace` says so.
    Yes,
    /// Fail with `AlreadyExists` if something is there.
    No,
}

/// Whether a change must survive a loss of power when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As durable as the endpoint makes it by itself.
    Cached,
    /// Forced to the disk: fsync of file and directory here, `fsync@openssh.com` there. Where `fsync` is not among
    /// the capabilities this is the same as `Cached`; the caller tells the user.
    Synced,
}

/// How a file that was written is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// Whether its contents must survive a loss of power.
    pub durability: Durability,
    /// What to set on it before anybody sees it closed.
    pub metadata: SetMetadata,
}

impl Finish {
    /// Close it, and nothing else.
    pub const CACHED: Self = Self::new(Durability::Cached);
    /// Force it to the disk first.
    pub const SYNCED: Self = Self::new(Durability::Synced);

    const fn new(durability: Durability) -> Self {
        Self { durability, metadata: SetMetadata { mtime: None, mode: None } }
    }
}

/// What an endpoint tells about a file that it has taken and closed.
#[derive(Debug)]
pub struct Finished {
    /// Its size now, where that came at no extra trip.
    pub size: Option<u64>,
    /// Whether time and mode could be set: no reason to fail the file.
    pub metadata: Result<()>,
}

/// What to set on a file; `None` leaves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetMetadata {
    /// Modification time.
    pub mtime: Option<SystemTime>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// What an endpoint can do, once logged in. A field exists only where a caller branches on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is an independent fact about a server
pub struct Capabilities {
    /// Reading it costs no network: kept bytes are proven whole instead of by an overlap.
    pub local: bool,
    /// `open_read` works at any offset.
    pub resume_read: bool,
    /// `open_write(At)` works at the end of a file.
    pub resume_write: bool,
    /// `open_write(At)` works at any offset, from several streams at once.
    pub random_write: bool,
    /// Modification times can be set, this exactly.
    pub set_mtime: Option<Precision>,
    /// Opening a file for reading from its start tells its exact time ([`ReadStream::mtime`](super::ReadStream::mtime)),
    /// which its listings don't.
    pub mtime_on_read: bool,
    /// Permission bits can be set.
    pub set_mode: bool,
    /// Symbolic links can be made and read.
    pub symlinks: bool,
    /// `rename(Replace::Yes)` replaces in one step.
    pub atomic_replace: bool,
    /// `Durability::Synced` is honoured.
    pub fsync: bool,
    /// The endpoint copies one of its files to another by itself ([`Transport::copy_range`](super::Transport::copy_range)).
    pub server_copy: bool,
    /// Digests that the endpoint computes by itself, strongest first; where it doesn't say, what it may be asked for.
    pub digests: Vec<Algorithm>,
    /// How many streams at once are sensible on one connection.
    pub streams: usize,
    /// How many connections may be opened at most: what the user said, or else what few servers mind.
    pub max_connections: usize,
}

/// A digest that servers or haul compute over file contents; ordered from strong to weak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-512.
    Sha512,
    /// SHA-256.
    Sha256,
    /// BLAKE3 with 256 bits: no server is known to offer it.
    Blake3,
    /// SHA-1: finds accidents, not attacks.
    Sha1,
    /// MD5: finds accidents, not attacks.
    Md5,
    /// CRC-32 (ISO-HDLC): finds accidents, not attacks.
    Crc32,
}

impl Algorithm {
    /// Returns the name of the IANA hash function registry (`sha-256`), as FTP `HASH` and SFTP `check-file` use it
    /// apart from case and dashes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha512 => "sha-512",
            Self::Sha256 => "sha-256",
            Self::Blake3 => "blake3",
            Self::Sha1 => "sha-1",
            Self::Md5 => "md5",
            Self::Crc32 => "crc32",
        }
    }

    /// Returns how many bytes its digests have.
    pub fn length(self) -> usize {
        match self {
            Self::Sha512 => 64,
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha1 => 20,
            Self::Md5 => 16,
            Self::Crc32 => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_match_as_exactly_as_the_coarser_knows() {
        let exact = Mtime::from(UNIX_EPOCH + Duration::from_millis(1_500));
        assert!(exact.matches(Mtime::from_unix(1)));
        assert!(!exact.matches(Mtime::from_unix(2)));
        assert!(!exact.matches(Mtime::from(UNIX_EPOCH + Duration::from_secs(1))));
        let listed = Mtime { precision: Precision::Minute, ..exact };
        assert!(!listed.matches(listed));
    }

    #[test]
    fn seconds_before_1970_round_down() {
        assert_eq!(Mtime::from_unix(-5).unix(), -5);
        assert_eq!(Mtime::from(UNIX_EPOCH - Duration::from_millis(500)).unix(), -1);
    }
}

//! The journal of one transfer: what is being moved, and the BLAKE3 digest of each block that was.
//!
//! One file per transfer in the state folder: a line of JSON that says what it is about, then one line per block. The
//! head is written beside and renamed into place; lines are appended, each in one write, each checked when read, so a
//! process killed at any instant leaves a journal that tells the truth about what came before. A line that doesn't
//! check ends the journal: what follows is moved again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::transport::{Entry, Mtime};

/// Blocks are at least this long; files up to this size have no journal, since resuming them saves nothing.
pub(super) const SMALLEST_BLOCK: u64 = 1 << 20;
/// Blocks are at most this long: no more is moved twice after an interruption.
const LARGEST_BLOCK: u64 = 16 << 20;
/// Blocks grow with the file up to here, so that a journal stays small.
const BLOCKS_WANTED: u64 = 4096;
/// No honest journal is longer.
const LONGEST_JOURNAL: u64 = 256 << 20;
const VERSION: u32 = 1;
/// The folder is the user's alone; should it not be, a link in the place of a journal leads nowhere.
const NO_FOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// What a transfer is about. All of it must be the same again for its part file to count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    version: u32,
    /// URL of the source.
    pub(super) source: String,
    /// URL of the final name.
    pub(super) destination: String,
    /// Size of the source in bytes.
    pub(super) size: u64,
    /// Modification time of the source: seconds and nanoseconds since 1970.
    mtime: Option<(i64, u32)>,
    /// Length of a block in bytes; the last one may be shorter.
    pub(super) block: u64,
}

impl Head {
    pub(super) fn new(source: &str, destination: &str, entry: &Entry, size: u64) -> Self {
        let block = (size / BLOCKS_WANTED).next_power_of_two().clamp(SMALLEST_BLOCK, LARGEST_BLOCK);
        Self {
            version: VERSION,
            source: source.to_owned(),
            destination: destination.to_owned(),
            size,
            mtime: entry.mtime.map(exact),
            block,
        }
    }

    /// Returns the bytes of a block.
    pub(super) fn range_of(&self, block: u64) -> Range<u64> {
        let start = block.saturating_mul(self.block);
        start..start.saturating_add(self.length_of(block))
    }

    /// Returns the length of a block, 0 behind the last one.
    pub(super) fn length_of(&self, block: u64) -> u64 {
        self.size.saturating_sub(block.saturating_mul(self.block)).min(self.block)
    }
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) head: Head,
    path: PathBuf,
    file: File,
    blocks: BTreeMap<u64, blake3::Hash>,
}

impl Journal {
    /// Opens the journal of this transfer, or starts one; a journal of anything else under this id is replaced.
    pub(super) fn open(state_dir: &Path, id: &str, head: Head) -> Result<Self> {
        let path = path_of(state_dir, id);
        match read(&path, &head) {
            Some((blocks, end)) => {
                let file = File::options().write(true).custom_flags(NO_FOLLOW).open(&path);
                let file = file.and_then(|mut file| {
                    // A torn line would make the next one unreadable too.
                    file.set_len(end)?;
                    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
                    Ok(file)
                });
                let file = file.map_err(|e| Error::io("open the journal", e).at(path.display()))?;
                Ok(Self { head, path, file, blocks })
            }
            None => Self::start(path, head),
        }
    }

    /// Forgets the blocks: the file is moved from its start.
    pub(super) fn restart(&mut self, head: Head) -> Result<()> {
        *self = Self::start(self.path.clone(), head)?;
        Ok(())
    }

    /// Removes what may be left of a journal by this id, when the transfer doesn't use one.
    pub(super) fn forget(state_dir: &Path, id: &str) {
        let _ = fs::remove_file(path_of(state_dir, id));
    }

    fn start(path: PathBuf, head: Head) -> Result<Self> {
        let failed = |e| Error::io("write the journal", e).at(path.display());
        let new = path.with_extension("new");
        let mut line = serde_json::to_vec(&head).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        file.write_all(&line).and_then(|()| fs::rename(&new, &path)).map_err(failed)?;
        Ok(Self { head, path, file, blocks: BTreeMap::new() })
    }

    /// Writes down that a block is at the destination.
    pub(super) fn add(&mut self, block: u64, digest: blake3::Hash) -> Result<()> {
        let line = line_of(block, &digest);
        self.file.write_all(line.as_bytes()).map_err(|e| Error::io("write the journal", e).at(self.path.display()))?;
        self.blocks.insert(block, digest);
        Ok(())
    }

    /// Returns the digest of a block that was moved.
    pub(super) fn digest(&self, block: u64) -> Option<blake3::Hash> {
        self.blocks.get(&block).copied()
    }

    /// Returns how many bytes are written down.
    pub(super) fn kept(&self) -> u64 {
        self.blocks.keys().map(|block| self.head.length_of(*block)).sum()
    }

    /// Returns the byte ranges that are written down, in order, joined where they touch.
    pub(super) fn runs(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for range in self.blocks.keys().map(|block| self.head.range_of(*block)) {
            match runs.last_mut().filter(|run| run.end == range.start) {
                Some(run) => run.end = range.end,
                None => runs.push(range),
            }
        }
        runs
    }

    /// Returns the byte ranges that are not written down, in order.
    pub(super) fn missing(&self) -> Vec<Range<u64>> {
        let (mut missing, mut from) = (Vec::new(), 0);
        for run in self.runs() {
            if from < run.start {
                missing.push(from..run.start);
            }
            from = run.end;
        }
        if from < self.head.size {
            missing.push(from..self.head.size);
        }
        missing
    }

    /// Forgets the blocks for which `keep` says no, given their number, byte range and digest: they are moved again.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u64, &Range<u64>) -> bool) -> Result<()> {
        let (head, before) = (self.head.clone(), self.blocks.len());
        self.blocks.retain(|&block, _| keep(block, &head.range_of(block)));
        if self.blocks.len() < before {
            let blocks = std::mem::take(&mut self.blocks);
            self.restart(head)?;
            for (block, digest) in blocks {
                self.add(block, digest)?;
            }
        }
        Ok(())
    }

    /// Removes the journal: the transfer is complete, or its part is not to be used again.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the folder of journals, for the user alone.
pub(super) fn make_folder(state_dir: &Path) -> Result<PathBuf> {
    let dir = state_dir.join("transfers");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|e| Error::io("make the folder for journals", e).at(dir.display()))?;
    Ok(dir)
}

/// Returns the number of this installation, made once: two machines that run the same command don't share a part file.
pub(super) fn installation(dir: &Path) -> Result<[u8; 16]> {
    let path = dir.join("installation");
    let failed = |e| Error::io("read or make the installation's number", e).at(path.display());
    for _ in 0..2 {
        match fs::read(&path) {
            Ok(bytes) if bytes.len() == 16 => {
                return bytes.try_into().map_err(|_| failed(std::io::ErrorKind::Other.into()));
            }
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let mut number = [0; 16];
        getrandom::fill(&mut number).map_err(|e| failed(std::io::Error::other(e.to_string())))?;
        let new = dir.join(format!("installation.{}", std::process::id()));
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new);
        file.and_then(|mut file| file.write_all(&number)).map_err(failed)?;
        // Another process may be first: link refuses, and the next round reads what that one wrote.
        let linked = fs::hard_link(&new, &path);
        let _ = fs::remove_file(&new);
        match linked {
            Ok(()) => return Ok(number),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                // A damaged number can't be waited for.
                if fs::metadata(&path).is_ok_and(|m| m.len() != 16) {
                    let _ = fs::remove_file(&path);
                }
            }
            Err(e) => return Err(failed(e)),
        }
    }
    Err(failed(std::io::ErrorKind::InvalidData.into()))
}

fn path_of(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.journal"))
}

fn exact(mtime: Mtime) -> (i64, u32) {
    let seconds = mtime.unix();
    let nanos = mtime.time.duration_since(Mtime::from_unix(seconds).time).map_or(0, |rest| rest.subsec_nanos());
    (seconds, nanos)
}

fn line_of(block: u64, digest: &blake3::Hash) -> String {
    let text = format!("{block} {}", digest.to_hex());
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
}

fn parse_line(line: &str) -> Option<(u64, blake3::Hash)> {
    let (text, check) = line.rsplit_once(' ')?;
    if u32::from_str_radix(check, 16).ok()? != crc32fast::hash(text.as_bytes()) {
        return None;
    }
    let (block, digest) = text.split_once(' ')?;
    Some((block.parse().ok()?, blake3::Hash::from_hex(digest).ok()?))
}

/// Reads the blocks of a journal that is about the same transfer, and where its last whole line ends.
fn read(path: &Path, head: &Head) -> Option<(BTreeMap<u64, blake3::Hash>, u64)> {
    let mut text = Vec::new();
    let file = File::options().read(true).custom_flags(NO_FOLLOW).open(path).ok()?;
    file.take(LONGEST_JOURNAL).read_to_end(&mut text).ok()?;
    parse(&text, head)
}

fn parse(text: &[u8], head: &Head) -> Option<(BTreeMap<u64, blake3::Hash>, u64)> {
    let end_of_head = text.iter().position(|&b| b == b'\n')?;
    let found: Head = serde_json::from_slice(&text[..end_of_head]).ok()?;
    if found != *head {
        return None;
    }
    let mut blocks = BTreeMap::new();
    let mut end = end_of_head + 1;
    while let Some(length) = text[end..].iter().position(|&b| b == b'\n') {
        let line = std::str::from_utf8(&text[end..end + length]).ok().and_then(parse_line);
        let Some((block, digest)) = line.filter(|(block, _)| head.length_of(*block) > 0) else { break };
        blocks.insert(block, digest);
        end += length + 1;
    }
    Some((blocks, end as u64))
}

/// Reads any bytes as the journal of the transfer that they say they are of, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read_any(text: &[u8]) {
    let first = text.split(|&b| b == b'\n').next().unwrap_or_default();
    let Ok(head) = serde_json::from_slice::<Head>(first) else { return };
    let Some((blocks, end)) = parse(text, &head) else { return };
    assert!(end <= text.len() as u64);
    for block in blocks.into_keys() {
        let range = head.range_of(block);
        assert!(range.start < range.end && range.end <= head.size, "{range:?} of {}", head.size);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::transport::FileKind;
    use proptest::prelude::*;

    pub(crate) fn head(size: u64) -> Head {
        let entry = Entry { mtime: Some(Mtime::from_unix(1_000_000_000)), ..Entry::new("x", FileKind::File) };
        Head::new("sftp://h/x", "file:///x", &entry, size)
    }

    fn digest(n: u64) -> blake3::Hash {
        blake3::hash(&n.to_le_bytes())
    }

    #[test]
    fn what_was_added_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), "id", head(5 << 20)).unwrap();
        for block in [0, 1, 3] {
            journal.add(block, digest(block)).unwrap();
        }
        drop(journal);
        let journal = Journal::open(dir.path(), "id", head(5 << 20)).unwrap();
        assert_eq!(journal.kept(), 3 << 20);
        assert_eq!(journal.runs(), [0..2 << 20, 3 << 20..4 << 20]);
        assert_eq!(journal.missing(), [2 << 20..3 << 20, 4 << 20..5 << 20]);
        assert_eq!(journal.digest(3), Some(digest(3)));
    }

    #[test]
    fn another_source_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        Journal::open(dir.path(), "id", head(5 << 20)).unwrap().add(0, digest(0)).unwrap();
        assert_eq!(Journal::open(dir.path(), "id", head(6 << 20)).unwrap().kept(), 0);
    }

    #[test]
    fn a_torn_line_is_cut_off_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), "id", head(9 << 20)).unwrap();
        journal.add(0, digest(0)).unwrap();
        journal.file.write_all(b"1 00ff").unwrap();
        drop(journal);
        let mut journal = Journal::open(dir.path(), "id", head(9 << 20)).unwrap();
        journal.add(1, digest(1)).unwrap();
        drop(journal);
        assert_eq!(Journal::open(dir.path(), "id", head(9 << 20)).unwrap().kept(), 2 << 20);
    }

    #[test]
    fn what_is_forgotten_stays_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), "id", head(5 << 20)).unwrap();
        for block in 0..5 {
            journal.add(block, digest(block)).unwrap();
        }
        journal.retain(|block, range| block != 2 && range.end <= 4 << 20).unwrap();
        drop(journal);
        let journal = Journal::open(dir.path(), "id", head(5 << 20)).unwrap();
        assert_eq!(journal.missing(), [2 << 20..3 << 20, 4 << 20..5 << 20]);
    }

    #[test]
    fn blocks_grow_with_the_file_within_bounds() {
        assert_eq!(head(10 << 20).block, 1 << 20);
        assert_eq!(head(8 << 30).block, 2 << 20);
        assert_eq!(head(1 << 50).block, 16 << 20);
    }

    #[test]
    fn the_number_of_the_installation_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(installation(dir.path()).unwrap(), installation(dir.path()).unwrap());
        fs::write(dir.path().join("installation"), "short").unwrap();
        assert_eq!(installation(dir.path()).unwrap(), installation(dir.path()).unwrap());
    }

    proptest! {
        #[test]
        fn damage_anywhere_never_adds_a_block(blocks in 1u64..6, at in 0usize..400, flip in 1u8..=255) {
            let head = head(6 << 20);
            let mut text = serde_json::to_vec(&head).unwrap();
            text.push(b'\n');
            for block in 0..blocks {
                text.extend_from_slice(line_of(block, &digest(block)).as_bytes());
            }
            let at = at % text.len();
            text[at] ^= flip;
            if let Some((found, _)) = parse(&text, &head) {
                prop_assert!(found.iter().all(|(&block, &hash)| block < blocks && hash == digest(block)));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(text: Vec<u8>) {
            let _ = parse(&text, &head(6 << 20));
        }
    }
}

//! The journal of one transfer: what is being moved, and the BLAKE3 digest of each block that was.
//!
//! One file per transfer in the state folder: a line of JSON that says what it is about, then one line per block or
//! [note](super::notes). The head is written beside and renamed into place; lines are appended, each in one write, each
//! checked when read, so a process killed at any instant leaves a journal that tells the truth about what came before. A
//! line that doesn't check ends the journal: what follows is moved again. Versions of haul that know no notes take the
//! first one for such a line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::transport::{Entry, Mtime, RemotePath};

use super::notes::{Notes, Request, checked, unchecked};

/// Blocks are at least this long; files up to this size have no journal, since resuming them saves nothing.
pub(super) const SMALLEST_BLOCK: u64 = 1 << 20;
/// Blocks are at most this long: no more is moved twice after an interruption.
const LARGEST_BLOCK: u64 = 16 << 20;
/// Blocks grow with the file up to here, so that a journal stays small.
const BLOCKS_WANTED: u64 = 4096;
/// No honest journal is longer.
const LONGEST_JOURNAL: u64 = 256 << 20;
const VERSION: u32 = 1;
/// The folder is the user's alone; should it not be, a link in the place of a journal leads nowhere, and a pipe keeps
/// nobody waiting.
pub(super) const NO_FOLLOW: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

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

/// What a journal says.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    pub(super) head: Head,
    pub(super) notes: Notes,
    blocks: BTreeMap<u64, blake3::Hash>,
    /// Where its last whole line ends.
    end: u64,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) head: Head,
    path: PathBuf,
    file: File,
    notes: Notes,
    blocks: BTreeMap<u64, blake3::Hash>,
    end: u64,
}

/// What [`Journal::open`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing of use.
    Nothing,
    /// The journal of this transfer.
    Same,
    /// That of another state of the source, which is of no use any more.
    OtherSource,
}

impl Journal {
    /// Opens the journal of this transfer, or starts one, and notes that a run takes it up; a journal of anything else
    /// under this id is replaced.
    pub(super) fn open(
        state_dir: &Path,
        id: &str,
        head: Head,
        request: &Request,
        below: Option<&RemotePath>,
    ) -> Result<(Self, Found)> {
        let path = path_of(state_dir, id);
        let (contents, found) = match read(&path) {
            Some(contents) if contents.head == head => (contents, Found::Same),
            Some(other) if !other.blocks.is_empty() => (Contents::new(head), Found::OtherSource),
            _ => (Contents::new(head), Found::Nothing),
        };
        let mut journal = match found {
            Found::Same => Self::reopen(path, contents)?,
            _ => Self::start(path, contents)?,
        };
        let line = journal.notes.began(request, below);
        journal.append(&line)?;
        Ok((journal, found))
    }

    /// Returns whether an earlier run left a journal by this id, or the beginning of one.
    pub(super) fn is_left(state_dir: &Path, id: &str) -> bool {
        let path = path_of(state_dir, id);
        [path.with_extension("new"), path].iter().any(|path| fs::symlink_metadata(path).is_ok())
    }

    /// Opens the journal of this transfer if it is there.
    pub(super) fn find(state_dir: &Path, id: &str, head: &Head) -> Option<Self> {
        let path = path_of(state_dir, id);
        let contents = read(&path).filter(|contents| contents.head == *head)?;
        Self::reopen(path, contents).ok()
    }

    /// Moves the journal to another folder; where that fails, it is of no use any more.
    pub(super) fn keep_in(&mut self, dir: &Path) {
        let kept = dir.join(self.path.file_name().unwrap_or_default());
        if fs::rename(&self.path, &kept).is_err() {
            let _ = fs::remove_file(&self.path);
        }
        self.path = kept;
    }

    /// Removes what may be left of a journal by this id, when the transfer doesn't use one.
    pub(super) fn forget(state_dir: &Path, id: &str) -> bool {
        let path = path_of(state_dir, id);
        let begun = fs::remove_file(path.with_extension("new"));
        fs::remove_file(path).or(begun).is_ok()
    }

    fn reopen(path: PathBuf, contents: Contents) -> Result<Self> {
        let Contents { head, notes, blocks, end } = contents;
        let file = File::options().write(true).custom_flags(NO_FOLLOW).open(&path);
        // A torn line would make the next one unreadable too.
        let file = file.and_then(|file| file.set_len(end).map(|()| file));
        let file = file.map_err(|e| Error::io("open the journal", e).at(path.display()))?;
        Ok(Self { head, path, file, notes, blocks, end })
    }

    /// Writes a journal beside its place, whole, and renames it there.
    fn start(path: PathBuf, contents: Contents) -> Result<Self> {
        let failed = |e| Error::io("write the journal", e).at(path.display());
        let Contents { head, notes, blocks, .. } = contents;
        let mut text = serde_json::to_string(&head).map_err(|e| failed(e.into()))?;
        text.push('\n');
        text.push_str(&notes.lines());
        text.extend(blocks.iter().map(|(block, digest)| line_of(*block, digest)));
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        if let Err(e) = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, &path)) {
            let _ = fs::remove_file(&new);
            return Err(failed(e));
        }
        Ok(Self { head, path, file, notes, blocks, end: text.len() as u64 })
    }

    /// Notes that the run which has it open tries once more.
    pub(super) fn again(&mut self) -> Result<()> {
        let line = self.notes.again();
        self.append(&line)
    }

    /// Notes why an attempt ended. That this can't be written is no reason to fail: the error is told anyway.
    pub(super) fn stopped(&mut self, error: &Error) {
        if self.notes.stopped.as_ref().is_some_and(|stopped| stopped.kind == error.kind().name()) {
            return;
        }
        let line = self.notes.stopped(error);
        let _ = self.append(&line);
    }

    /// Writes down that a block is at the destination.
    pub(super) fn add(&mut self, block: u64, digest: blake3::Hash) -> Result<()> {
        self.append(&line_of(block, &digest))?;
        self.blocks.insert(block, digest);
        Ok(())
    }

    fn append(&mut self, line: &str) -> Result<()> {
        // What an earlier write left of a line, as on a full disk, is written over.
        let written = self.file.write_all_at(line.as_bytes(), self.end);
        written.map_err(|e| Error::io("write the journal", e).at(self.path.display()))?;
        self.end += line.len() as u64;
        Ok(())
    }

    /// Returns the digest of a block that was moved.
    pub(super) fn digest(&self, block: u64) -> Option<blake3::Hash> {
        self.blocks.get(&block).copied()
    }

    /// Returns how many bytes are written down.
    pub(super) fn kept(&self) -> u64 {
        kept(&self.head, &self.blocks)
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

    /// Returns whether every block is written down.
    pub(super) fn is_complete(&self) -> bool {
        self.kept() == self.head.size
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
            let (notes, blocks) = (std::mem::take(&mut self.notes), std::mem::take(&mut self.blocks));
            *self = Self::start(self.path.clone(), Contents { notes, blocks, ..Contents::new(head) })?;
        }
        Ok(())
    }

    /// Removes the journal: the transfer is complete, or its part is not to be used again.
    pub(super) fn remove(self) {
        // Beside it, what a process left that was killed as it started a journal anew.
        let _ = fs::remove_file(self.path.with_extension("new"));
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

/// Returns where the journal of a transfer lies.
pub(super) fn path_of(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.journal"))
}

fn exact(mtime: Mtime) -> (i64, u32) {
    let seconds = mtime.unix();
    let nanos = mtime.time.duration_since(Mtime::from_unix(seconds).time).map_or(0, |rest| rest.subsec_nanos());
    (seconds, nanos)
}

fn line_of(block: u64, digest: &blake3::Hash) -> String {
    checked(&format!("{block} {}", digest.to_hex()))
}

fn parse_block(text: &str) -> Option<(u64, blake3::Hash)> {
    let (block, digest) = text.split_once(' ')?;
    Some((block.parse().ok()?, blake3::Hash::from_hex(digest).ok()?))
}

/// Reads a journal; `None` for one that isn't there or whose head is of no use.
fn read(path: &Path) -> Option<Contents> {
    Contents::parse(&read_text(path).ok()?)
}

/// Reads the bytes of a journal.
pub(super) fn read_text(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::options().read(true).custom_flags(NO_FOLLOW).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("is no file"));
    }
    file.take(LONGEST_JOURNAL).read_to_end(&mut text)?;
    Ok(text)
}

impl Contents {
    fn new(head: Head) -> Self {
        Self { head, notes: Notes::default(), blocks: BTreeMap::new(), end: 0 }
    }

    /// Reads a journal as far as it checks; `None` where its head is of no use.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let end_of_head = text.iter().position(|&b| b == b'\n')?;
        let mut contents = Self::new(serde_json::from_slice(&text[..end_of_head]).ok()?);
        if contents.head.version != VERSION {
            return None;
        }
        let mut end = end_of_head + 1;
        while let Some(length) = text[end..].iter().position(|&b| b == b'\n') {
            let line = std::str::from_utf8(&text[end..end + length]).ok().and_then(unchecked);
            if line.is_none_or(|line| !contents.take(line)) {
                break;
            }
            end += length + 1;
        }
        contents.end = end as u64;
        Some(contents)
    }

    /// Takes a line whose CRC was right; false for what is neither a note nor a block of the file.
    fn take(&mut self, line: &str) -> bool {
        if self.notes.take(line) {
            return true;
        }
        let block = parse_block(line).filter(|(block, _)| self.head.length_of(*block) > 0);
        block.map(|(block, digest)| self.blocks.insert(block, digest)).is_some()
    }

    /// Returns how many bytes are written down.
    pub(super) fn kept(&self) -> u64 {
        kept(&self.head, &self.blocks)
    }
}

fn kept(head: &Head, blocks: &BTreeMap<u64, blake3::Hash>) -> u64 {
    blocks.keys().map(|block| head.length_of(*block)).sum()
}

/// Reads any bytes as a journal, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read_any(text: &[u8]) {
    let Some(contents) = Contents::parse(text) else { return };
    assert!(contents.end <= text.len() as u64 && contents.kept() <= contents.head.size);
    for block in contents.blocks.into_keys() {
        let range = contents.head.range_of(block);
        assert!(range.start < range.end && range.end <= contents.head.size, "{range:?} of {}", contents.head.size);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::transport::FileKind;
    use proptest::prelude::*;

    pub(crate) fn head(size: u64) -> Head {
        let entry = Entry { mtime: Some(Mtime::from_unix(1_000_000_000)), ..Entry::new("x", FileKind::File) };
        Head::new("sftp://h/x", "file:///x", &entry, size)
    }

    pub(crate) fn open(dir: &Path, head: Head) -> Journal {
        Journal::open(dir, "id", head, &Request::default(), None).unwrap().0
    }

    fn digest(n: u64) -> blake3::Hash {
        blake3::hash(&n.to_le_bytes())
    }

    #[test]
    fn what_was_added_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path(), head(5 << 20));
        for block in [0, 1, 3] {
            journal.add(block, digest(block)).unwrap();
        }
        drop(journal);
        let journal = open(dir.path(), head(5 << 20));
        assert_eq!(journal.kept(), 3 << 20);
        assert_eq!(journal.runs(), [0..2 << 20, 3 << 20..4 << 20]);
        assert_eq!(journal.missing(), [2 << 20..3 << 20, 4 << 20..5 << 20]);
        assert_eq!(journal.digest(3), Some(digest(3)));
    }

    #[test]
    fn another_source_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), head(5 << 20)).add(0, digest(0)).unwrap();
        assert_eq!(open(dir.path(), head(6 << 20)).kept(), 0);
    }

    #[test]
    fn a_torn_line_is_cut_off_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path(), head(9 << 20));
        journal.add(0, digest(0)).unwrap();
        journal.file.write_all_at(b"1 00ff", journal.end).unwrap();
        drop(journal);
        let mut journal = open(dir.path(), head(9 << 20));
        journal.add(1, digest(1)).unwrap();
        drop(journal);
        assert_eq!(open(dir.path(), head(9 << 20)).kept(), 2 << 20);
    }

    #[test]
    fn notes_are_kept_beside_the_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let request = Request { options: vec!["--durable".into()], ..Request::default() };
        let (mut journal, found) = Journal::open(dir.path(), "id", head(5 << 20), &request, None).unwrap();
        assert_eq!(found, Found::Nothing);
        for block in 0..3 {
            journal.add(block, digest(block)).unwrap();
        }
        journal.stopped(&ErrorKind::ConnectionLost.into());
        journal.again().unwrap();
        journal.add(3, digest(3)).unwrap();
        journal.stopped(&ErrorKind::Cancelled.into());
        journal.retain(|block, _| block > 0).unwrap();
        drop(journal);
        let contents = read(&path_of(dir.path(), "id")).unwrap();
        assert_eq!((contents.kept(), contents.notes.request), (3 << 20, Some(request)));
        assert_eq!(contents.notes.stopped.unwrap().kind, "cancelled");
        // Taken up again, nothing says why it stops until it does.
        let (journal, found) = Journal::open(dir.path(), "id", head(5 << 20), &Request::default(), None).unwrap();
        assert_eq!((found, journal.kept()), (Found::Same, 3 << 20));
        drop(journal);
        assert_eq!(read(&path_of(dir.path(), "id")).unwrap().notes.stopped, None);
        let (journal, found) = Journal::open(dir.path(), "id", head(6 << 20), &Request::default(), None).unwrap();
        assert_eq!((found, journal.kept()), (Found::OtherSource, 0));
    }

    #[test]
    fn journals_from_before_there_were_notes_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{}\n{}", serde_json::to_string(&head(5 << 20)).unwrap(), line_of(0, &digest(0)));
        fs::write(path_of(dir.path(), "id"), text).unwrap();
        let contents = read(&path_of(dir.path(), "id")).unwrap();
        assert!(contents.notes.request.is_none() && contents.kept() == 1 << 20);
        assert_eq!(open(dir.path(), head(5 << 20)).kept(), 1 << 20);
    }

    #[test]
    fn what_is_forgotten_stays_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path(), head(5 << 20));
        for block in 0..5 {
            journal.add(block, digest(block)).unwrap();
        }
        journal.retain(|block, range| block != 2 && range.end <= 4 << 20).unwrap();
        drop(journal);
        let journal = open(dir.path(), head(5 << 20));
        assert_eq!(journal.missing(), [2 << 20..3 << 20, 4 << 20..5 << 20]);
    }

    #[test]
    fn blocks_grow_with_the_file_within_bounds() {
        assert_eq!(head(10 << 20).block, 1 << 20);
        assert_eq!(head(8 << 30).block, 2 << 20);
        assert_eq!(head(1 << 50).block, 16 << 20);
    }

    proptest! {
        #[test]
        fn damage_anywhere_never_adds_a_block(blocks in 1u64..6, at in 0usize..900, flip in 1u8..=255) {
            let head = head(6 << 20);
            let mut text = serde_json::to_vec(&head).unwrap();
            text.push(b'\n');
            let mut notes = Notes::default();
            text.extend_from_slice(notes.began(&Request::default(), None).as_bytes());
            for block in 0..blocks {
                text.extend_from_slice(line_of(block, &digest(block)).as_bytes());
            }
            text.extend_from_slice(notes.stopped(&ErrorKind::Cancelled.into()).as_bytes());
            let at = at % text.len();
            text[at] ^= flip;
            if let Some(found) = Contents::parse(&text).filter(|found| found.head == head) {
                prop_assert!(found.blocks.iter().all(|(&block, &hash)| block < blocks && hash == digest(block)));
                prop_assert!(found.notes.stopped.is_none_or(|stopped| stopped.kind == "cancelled"));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(text: Vec<u8>) {
            let _ = Contents::parse(&text);
        }
    }
}

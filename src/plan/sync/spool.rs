//! Records that are kept on the disk until their turn comes, so that a large tree needs no more memory than a small one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Entry, FileKind, Mtime, Precision};

/// Bytes that are gathered before they are written.
const GATHERED: usize = 256 << 10;

/// One thing to come back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// The path below the roots.
    pub(super) path: Vec<u8>,
    /// What is there; `None`: something that is to stay there.
    pub(super) entry: Option<Entry>,
}

/// Records in the order in which they came; can be read from either end. Nobody else sees the file.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    file: Option<File>,
    written: u64,
    gathered: Vec<u8>,
    count: u64,
}

impl Spool {
    /// Makes one that writes nothing before it is large.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: None, written: 0, gathered: Vec::new(), count: 0 }
    }

    /// Returns how many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Adds one.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn push(&mut self, record: &Record) -> Result<()> {
        let start = self.gathered.len();
        put(&mut self.gathered, record);
        let length = u32::try_from(self.gathered.len() - start).unwrap_or(u32::MAX).to_le_bytes();
        self.gathered.extend(length);
        self.count += 1;
        if self.gathered.len() >= GATHERED { self.write() } else { Ok(()) }
    }

    /// Reads them all, the last one first.
    pub(super) fn backwards(&self) -> Backwards<'_> {
        Backwards { spool: self, end: self.written + self.gathered.len() as u64 }
    }

    /// Reads them all in their order.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn forwards(&self) -> Result<impl Iterator<Item = Result<Record>> + Send + '_> {
        // Where each begins is only known from the end.
        let mut starts = Vec::new();
        let mut backwards = self.backwards();
        while backwards.end > 0 {
            backwards.step()?;
            starts.push(backwards.end);
        }
        Ok(starts.into_iter().rev().map(|start| self.record_at(start)))
    }

    fn record_at(&self, start: u64) -> Result<Record> {
        let mut length = [0; 4];
        self.read(start, &mut length)?;
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.read(start, &mut bytes)?;
        take(&bytes).ok_or_else(torn)
    }

    fn write(&mut self) -> Result<()> {
        let failed = |e| Error::io("keep what is to be done later", e).at(self.folder.display());
        if self.file.is_none() {
            std::fs::create_dir_all(&self.folder).map_err(failed)?;
            let name = format!("spool-{}-{:08x}", std::process::id(), getrandom::u32().unwrap_or_default());
            let path = self.folder.join(name);
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            self.file = Some(file.map_err(failed)?);
            // It goes with the process, however that ends.
            std::fs::remove_file(&path).map_err(failed)?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.gathered).map_err(failed)?;
        }
        self.written += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        if at >= self.written {
            let at = usize::try_from(at - self.written).unwrap_or(usize::MAX);
            let found = self.gathered.get(at..at.saturating_add(into.len())).ok_or_else(torn)?;
            into.copy_from_slice(found);
            return Ok(());
        }
        let file = self.file.as_ref().ok_or_else(torn)?;
        file.read_exact_at(into, at).map_err(|e| Error::io("read what is to be done", e).at(self.folder.display()))
    }
}

/// Goes through the records from the last to the first.
pub(super) struct Backwards<'a> {
    spool: &'a Spool,
    end: u64,
}

impl Backwards<'_> {
    fn step(&mut self) -> Result<usize> {
        let mut length = [0; 4];
        let tail = self.end.checked_sub(4).ok_or_else(torn)?;
        self.spool.read(tail, &mut length)?;
        let length = u32::from_le_bytes(length);
        self.end = tail.checked_sub(length.into()).ok_or_else(torn)?;
        Ok(length as usize)
    }
}

impl Iterator for Backwards<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end == 0 {
            return None;
        }
        let record = self.step().and_then(|_| self.spool.record_at(self.end));
        if record.is_err() {
            self.end = 0;
        }
        Some(record)
    }
}

fn torn() -> Error {
    Error::new(ErrorKind::Other, "what is to be done was changed on the disk")
}

/// Writes a record: its length, then fields of a fixed size, then the path, then the name.
fn put(out: &mut Vec<u8>, record: &Record) {
    let start = out.len();
    out.extend([0; 4]);
    let kind = match record.entry.as_ref().map(|entry| entry.kind) {
        None => 0,
        Some(FileKind::File) => 1,
        Some(FileKind::Directory) => 2,
        Some(FileKind::Symlink) => 3,
        Some(FileKind::Other) => 4,
    };
    let entry = record.entry.clone().unwrap_or_else(|| Entry::new("", FileKind::Other));
    let precision = entry.mtime.map_or(0, |mtime| match mtime.precision {
        Precision::Nanosecond => 1,
        Precision::Second => 2,
        Precision::Minute => 3,
        Precision::Day => 4,
    });
    out.extend([kind, precision, u8::from(entry.size.is_some()), u8::from(entry.mode.is_some())]);
    out.extend(entry.size.unwrap_or(0).to_le_bytes());
    out.extend(entry.mode.unwrap_or(0).to_le_bytes());
    let since = entry.mtime.map_or(Duration::ZERO, |mtime| mtime.time.duration_since(UNIX_EPOCH).unwrap_or_default());
    out.extend(entry.mtime.map_or(0, Mtime::unix).to_le_bytes());
    out.extend(since.subsec_nanos().to_le_bytes());
    out.extend(&record.path);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX).to_le_bytes();
    out[start..start + 4].copy_from_slice(&length);
}

fn take(bytes: &[u8]) -> Option<Record> {
    let number = |range: std::ops::Range<usize>| bytes.get(range);
    let kind = match bytes.get(4)? {
        0 => None,
        1 => Some(FileKind::File),
        2 => Some(FileKind::Directory),
        3 => Some(FileKind::Symlink),
        _ => Some(FileKind::Other),
    };
    let precision = match bytes.get(5)? {
        1 => Some(Precision::Nanosecond),
        2 => Some(Precision::Second),
        3 => Some(Precision::Minute),
        4 => Some(Precision::Day),
        _ => None,
    };
    let (has_size, has_mode) = (*bytes.get(6)? == 1, *bytes.get(7)? == 1);
    let size = u64::from_le_bytes(number(8..16)?.try_into().ok()?);
    let mode = u32::from_le_bytes(number(16..20)?.try_into().ok()?);
    let seconds = i64::from_le_bytes(number(20..28)?.try_into().ok()?);
    let nanos = u32::from_le_bytes(number(28..32)?.try_into().ok()?);
    let path = bytes.get(32..)?.to_vec();
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default().to_vec();
    let mtime = precision.map(|precision| {
        let whole: SystemTime = Mtime::from_unix(seconds).time;
        Mtime { time: whole.checked_add(Duration::from_nanos(nanos.into())).unwrap_or(whole), precision }
    });
    let entry = kind.map(|kind| Entry {
        size: has_size.then_some(size),
        mode: has_mode.then_some(mode),
        mtime,
        ..Entry::new(name, kind)
    });
    Some(Record { path, entry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(number: u64) -> Record {
        let kinds = [FileKind::File, FileKind::Directory, FileKind::Symlink, FileKind::Other];
        let path = format!("dir/sub {number}/{}", "n".repeat(number as usize % 50 + 1)).into_bytes();
        let name = path.rsplit(|&b| b == b'/').next().unwrap().to_vec();
        let mtime = Mtime::from(UNIX_EPOCH + Duration::from_nanos(number * 1_000_000_007));
        let entry = Entry {
            size: (!number.is_multiple_of(3)).then_some(number),
            mtime: (!number.is_multiple_of(5)).then_some(mtime),
            mode: (!number.is_multiple_of(7)).then_some(0o644),
            ..Entry::new(name, kinds[number as usize % 4])
        };
        Record { path, entry: (!number.is_multiple_of(11)).then_some(entry) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn all_come_back_from_either_end(count in 0..20_000_u64) {
            let dir = tempfile::tempdir().unwrap();
            let mut spool = Spool::new(dir.path());
            for number in 0..count {
                spool.push(&record(number)).unwrap();
            }
            prop_assert_eq!(spool.count(), count);
            let mut back: Vec<_> = spool.backwards().collect::<Result<_>>().unwrap();
            back.reverse();
            let forth: Vec<_> = spool.forwards().unwrap().collect::<Result<_>>().unwrap();
            let wanted: Vec<_> = (0..count).map(record).collect();
            prop_assert!(back == wanted && forth == wanted);
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a file is left");
        }
    }
}

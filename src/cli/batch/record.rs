//! Which jobs a run has done, for the next one if this one is cut: what can't be done twice isn't tried twice.
//!
//! Transfers find out themselves what is there. A directory that was made, a file that was removed or moved would fail the
//! second time. A run that comes to its end, well or not, leaves no record: the next night is another one.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// What a run did that was cut so long ago is another night's work.
const LASTS: Duration = Duration::from_secs(12 * 60 * 60);

/// The record of one job file.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    /// Locked: of two runs at once only one has a record.
    file: File,
    done: Mutex<HashSet<String>>,
}

impl Record {
    /// Opens the record of a job file; `fresh` forgets what is in it. `None` where there can be none: nothing depends on
    /// it but how much is tried again.
    pub(super) fn open(state_dir: &Path, job_file: &Path, fresh: bool) -> Option<Self> {
        let name = blake3::hash(job_file.as_os_str().as_encoded_bytes()).to_hex();
        let path = state_dir.join("batch").join(format!("{}.done", &name[..16]));
        std::fs::create_dir_all(path.parent()?).ok()?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        let age = file.metadata().ok()?.modified().ok()?.elapsed().unwrap_or_default();
        let mut text = String::new();
        if fresh || age > LASTS || file.read_to_string(&mut text).is_err() {
            text.clear();
            file.set_len(0).ok()?;
            file.rewind().ok()?;
        }
        // A line that was cut short with the run doesn't count.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let done = whole.lines().map(str::to_owned).collect();
        file.seek(std::io::SeekFrom::Start(whole.len() as u64)).ok()?;
        Some(Self { path, file, done: Mutex::new(done) })
    }

    /// Returns whether the run before did this job before it was cut.
    pub(super) fn has(&self, job: &str) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(job)
    }

    /// Notes that a job is done.
    pub(super) fn add(&self, job: &str) {
        let _ = (&self.file).write_all(format!("{job}\n").as_bytes()).and_then(|()| self.file.sync_data());
    }

    /// Forgets all: the run has come to its end.
    pub(super) fn end(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns what a job is known by: its name and all that it says.
pub(super) fn id_of(name: &str, words: &[std::ffi::OsString]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes());
    for word in words {
        hasher.update(b"\0").update(word.as_encoded_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_known_until_the_run_ends() {
        let dir = tempfile::tempdir().unwrap();
        let open = |fresh| Record::open(dir.path(), Path::new("/night.toml"), fresh);
        let first = open(false).unwrap();
        first.add("a");
        assert!(open(false).is_none(), "two runs shared a record");
        drop(first);
        let second = open(false).unwrap();
        assert!(second.has("a") && !second.has("b"));
        drop(second);
        assert!(!open(true).unwrap().has("a"));
        let third = open(false).unwrap();
        third.add("c");
        third.end();
        assert!(!open(false).unwrap().has("c"));
    }
}

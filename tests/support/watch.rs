//! A reader who looks at a final name all the time.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

/// How often it looks.
const PAUSE: Duration = Duration::from_micros(500);

/// Reads a file again and again until [`Watcher::end`].
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

/// What a file may be like.
struct Contents {
    path: PathBuf,
    old: Option<Bytes>,
    new: Bytes,
    /// The new one was there: from then on there is no other.
    replaced: bool,
    /// What was read last.
    before: Option<(u64, u64, i64, i64)>,
}

impl Watcher {
    /// Starts looking: there may be the old file, or nothing where there is none, and then the new one.
    pub fn start(path: &Path, old: Option<Bytes>, new: Bytes) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut contents = Contents { path: path.to_owned(), old, new, replaced: false, before: None };
        let thread = std::thread::spawn(move || {
            let mut wrong = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                wrong.extend(contents.look());
                std::thread::sleep(PAUSE);
            }
            wrong.extend(contents.look());
            wrong
        });
        Self { stop, thread: Some(thread) }
    }

    /// Returns each instant at which something else was there.
    pub fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("it runs").join().expect("it doesn't panic")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Contents {
    fn look(&mut self) -> Option<String> {
        let Ok(mut file) = File::open(&self.path) else {
            self.before = None;
            return match (self.replaced, &self.old) {
                (true, _) => Some("the new file vanished".into()),
                (false, Some(_)) => Some("the old file vanished before there was a new one".into()),
                (false, None) => None,
            };
        };
        let metadata = file.metadata().ok()?;
        let now = (metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec());
        if self.before.replace(now) == Some(now) {
            return None;
        }
        let mut found = Vec::new();
        file.read_to_end(&mut found).ok()?;
        if found == self.new {
            self.replaced = true;
            return None;
        }
        if !self.replaced && self.old.as_ref().is_some_and(|old| found == *old) {
            return None;
        }
        let same = found.iter().zip(&self.new).take_while(|(a, b)| a == b).count();
        Some(format!("{} bytes of {} under the final name, right up to {same}", found.len(), self.new.len()))
    }
}

//! Somebody who looks at the final name all the time.

use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

/// What may be seen under the final name.
pub(crate) struct Allowed {
    pub(crate) old: Option<Bytes>,
    pub(crate) new: Bytes,
}

impl Allowed {
    /// Says what is wrong with what is there; `Ok(true)` when it is the new contents.
    pub(crate) fn judge(&self, file: &Path) -> Result<bool, String> {
        // One open file is one file, whatever is renamed meanwhile.
        let mut found = Vec::new();
        match std::fs::File::open(file).and_then(|mut open| open.read_to_end(&mut found)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.old.is_none() => Ok(false),
            Err(e) => Err(format!("the final name can't be read: {e}")),
            Ok(_) if found == self.new => Ok(true),
            Ok(_) if self.old.as_ref().is_some_and(|old| found == *old) => Ok(false),
            Ok(count) => Err(format!("{count} wrong bytes under the final name, {} are right", self.new.len())),
        }
    }

    /// Looks again and again until told to stop; returns what was wrong first.
    pub(crate) fn watch(&self, file: &Path, stop: &AtomicBool) -> Result<(), String> {
        let mut seen = None;
        while !stop.load(Ordering::Relaxed) {
            let now = std::fs::symlink_metadata(file).ok().map(|metadata| look_of(&metadata));
            // What looks as it did was read already.
            if now.is_none() || now != seen {
                self.judge(file)?;
                seen = now;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        self.judge(file).map(drop)
    }
}

fn look_of(metadata: &Metadata) -> [i64; 6] {
    [
        metadata.ino().cast_signed(),
        metadata.size().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
}

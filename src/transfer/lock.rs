//! One transfer per destination at a time, among all haul processes of a user.
//!
//! A byte of one file is locked per destination (an open-file-description lock on the byte that the destination's
//! digest names): it costs one system call, leaves nothing behind, and ends with the process, however that ends.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::{Error, ErrorKind, Result};

/// The locks that this run holds.
#[derive(Debug)]
pub(super) struct Locks {
    file: File,
    held: Mutex<HashSet<i64>>,
}

/// Holds one destination until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    locks: Arc<Locks>,
    byte: i64,
}

impl Locks {
    /// Opens the lock file in the folder of journals.
    pub(super) fn open(dir: &Path) -> Result<Arc<Self>> {
        let path = dir.join("locks");
        let file = File::options().create(true).truncate(false).write(true).read(true).open(&path);
        let file = file.map_err(|e| Error::io("open the lock file", e).at(path.display()))?;
        Ok(Arc::new(Self { file, held: Mutex::default() }))
    }

    /// Takes a destination, or says that another transfer has it.
    pub(super) fn take(self: &Arc<Self>, destination: &str) -> Result<Held> {
        let byte = byte_of(destination);
        let busy = || {
            Error::new(ErrorKind::Locked, "another haul transfer is writing this file")
                .at(destination)
                .with_hint("wait until the other one has finished, or stop it; then run the same command again")
        };
        if !self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(byte) {
            return Err(busy());
        }
        let held = Held { locks: Arc::clone(self), byte };
        match self.set(byte, libc::F_WRLCK) {
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Err(busy()),
            // On a file system without locks nothing can be promised between processes; within this one it still holds.
            Ok(()) | Err(_) => Ok(held),
        }
    }

    fn set(&self, byte: i64, kind: libc::c_int) -> nix::Result<()> {
        let range = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range)).map(drop)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.locks.set(self.byte, libc::F_UNLCK);
        self.locks.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.byte);
    }
}

fn byte_of(destination: &str) -> i64 {
    let digest = blake3::hash(destination.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    i64::from_le_bytes(first) & (i64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let (here, other) = (Locks::open(dir.path()).unwrap(), Locks::open(dir.path()).unwrap());
        let held = here.take("sftp://h/x").unwrap();
        assert_eq!(here.take("sftp://h/x").unwrap_err().kind(), ErrorKind::Locked);
        // A second open file stands for a second process: these locks belong to the open file, not the process.
        assert_eq!(other.take("sftp://h/x").unwrap_err().kind(), ErrorKind::Locked);
        let _neighbour = other.take("sftp://h/y").unwrap();
        drop(held);
        other.take("sftp://h/x").unwrap();
    }
}

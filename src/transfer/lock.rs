//! One transfer per destination at a time, among all haul processes of an installation.
//!
//! A destination is locked under its URL and under what it really is (a directory's inode, a login's host and port), so
//! that two spellings of one place are one. Each is a byte of the file that holds the installation's number, which names
//! the parts: whoever has the same number, and so could write to the same part, has the same file to lock. Should it be
//! removed, the next process makes another number. A lock costs one system call, leaves nothing behind, and ends with the
//! process, however that ends.

use std::collections::HashSet;
use std::fs::File;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::installation;
use crate::error::{Error, ErrorKind, Result};

/// The locks that this run holds.
#[derive(Debug)]
pub(super) struct Locks {
    file: File,
    number: [u8; 16],
    held: Mutex<HashSet<i64>>,
}

/// Holds one destination until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _bytes: Vec<HeldByte>,
}

#[derive(Debug)]
struct HeldByte {
    locks: Arc<Locks>,
    byte: i64,
    /// The lock, where the file system has none.
    socket: Option<UnixListener>,
}

impl Locks {
    /// Opens the installation's file in the folder of journals, which is made if need be.
    pub(super) fn open(dir: &Path) -> Result<Arc<Self>> {
        let (file, number) = installation::open(dir)?;
        Ok(Arc::new(Self { file, number, held: Mutex::default() }))
    }

    /// Returns the installation's number.
    pub(super) fn number(&self) -> &[u8; 16] {
        &self.number
    }

    /// Takes a destination by its URL and by what it really is, if that is known, or says that another transfer has it.
    pub(super) fn take(self: &Arc<Self>, destination: &str, place: Option<&[u8]>) -> Result<Held> {
        let mut bytes = vec![byte_of(destination.as_bytes())];
        bytes.extend(place.map(byte_of).filter(|byte| *byte != bytes[0]));
        let held: Option<Vec<_>> = bytes.into_iter().map(|byte| self.take_byte(byte)).collect();
        held.map(|bytes| Held { _bytes: bytes }).ok_or_else(|| {
            Error::new(ErrorKind::Locked, "another haul transfer is writing this file")
                .at(destination)
                .with_hint("wait until the other one has finished, or stop it; then run the same command again")
        })
    }

    fn take_byte(self: &Arc<Self>, byte: i64) -> Option<HeldByte> {
        if !self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(byte) {
            return None;
        }
        // From here on it is given back when dropped.
        let mut held = HeldByte { locks: Arc::clone(self), byte, socket: None };
        match self.set(byte, libc::F_WRLCK) {
            Ok(()) => Some(held),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => None,
            Err(e) => {
                tracing::debug!("the file system of the state folder has no locks: {e}");
                match self.bind(byte) {
                    Ok(socket) => held.socket = Some(socket),
                    Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => return None,
                    // Neither: between processes nothing can be promised; within this one it still holds.
                    Err(_) => {}
                }
                Some(held)
            }
        }
    }

    /// Returns whether another process has a destination now.
    pub(super) fn is_taken(&self, destination: &str) -> bool {
        let mut range = range(byte_of(destination.as_bytes()), libc::F_WRLCK);
        let asked = fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut range));
        asked.is_ok() && range.l_type != libc::F_UNLCK as libc::c_short
    }

    fn set(&self, byte: i64, kind: libc::c_int) -> nix::Result<()> {
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range(byte, kind))).map(drop)
    }

    /// Takes a name of a socket that only this installation knows: it belongs to one process of this machine, and the
    /// kernel gives it back.
    fn bind(&self, byte: i64) -> std::io::Result<UnixListener> {
        let digest = blake3::Hasher::new().update(&self.number).update(&byte.to_le_bytes()).finalize();
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("haul-{}", digest.to_hex()))?)
    }
}

impl Drop for HeldByte {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = self.locks.set(self.byte, libc::F_UNLCK);
        self.locks.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.byte);
    }
}

fn range(byte: i64, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

fn byte_of(destination: &[u8]) -> i64 {
    let digest = blake3::hash(destination);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    i64::from_le_bytes(first) & (i64::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processes of one installation: these locks belong to the open file, not the process.
    fn two(dir: &Path) -> [Arc<Locks>; 2] {
        [Locks::open(dir).unwrap(), Locks::open(dir).unwrap()]
    }

    #[test]
    fn a_destination_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let [here, other] = two(dir.path());
        let held = here.take("sftp://h/x", None).unwrap();
        assert_eq!(here.take("sftp://h/x", None).unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(other.take("sftp://h/x", None).unwrap_err().kind(), ErrorKind::Locked);
        assert!(other.is_taken("sftp://h/x") && !other.is_taken("sftp://h/y"));
        let _neighbour = other.take("sftp://h/y", None).unwrap();
        drop(held);
        assert!(!other.is_taken("sftp://h/x"));
        other.take("sftp://h/x", None).unwrap();
    }

    #[test]
    fn two_spellings_of_one_place_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let [here, other] = two(dir.path());
        let held = here.take("sftp://h/x", Some(b"place")).unwrap();
        for (url, place) in
            [("sftp://me@h:22/x", Some(&b"place"[..])), ("sftp://h/x", Some(b"elsewhere")), ("sftp://h/x", None)]
        {
            assert_eq!(other.take(url, place).unwrap_err().kind(), ErrorKind::Locked, "{url} {place:?}");
            assert_eq!(here.take(url, place).unwrap_err().kind(), ErrorKind::Locked, "{url} {place:?}");
        }
        drop(held);
        // A refusal has left nothing held.
        other.take("sftp://me@h:22/x", Some(b"elsewhere")).unwrap();
    }

    #[test]
    fn where_the_file_has_no_locks_the_machine_has() {
        let dir = tempfile::tempdir().unwrap();
        let number = *Locks::open(dir.path()).unwrap().number();
        // A file that is open for reading only can't be locked for writing.
        let lockless = || {
            let file = File::open(dir.path().join("installation")).unwrap();
            Arc::new(Locks { file, number, held: Mutex::default() })
        };
        let (here, other) = (lockless(), lockless());
        let held = here.take("sftp://h/x", None).unwrap();
        assert_eq!(other.take("sftp://h/x", None).unwrap_err().kind(), ErrorKind::Locked);
        other.take("sftp://h/y", None).unwrap();
        drop(held);
        other.take("sftp://h/x", None).unwrap();
    }

    #[test]
    fn who_finds_no_lock_file_makes_another_number() {
        let dir = tempfile::tempdir().unwrap();
        let here = Locks::open(dir.path()).unwrap();
        let _held = here.take("sftp://h/x", None).unwrap();
        std::fs::remove_file(dir.path().join("installation")).unwrap();
        let other = Locks::open(dir.path()).unwrap();
        let _both = other.take("sftp://h/x", None).unwrap();
        assert_ne!(here.number(), other.number(), "both would write to one part");
    }
}

//! A file that keeps two runs apart.
//!
//! The system lets go of it when its holder ends, however that ends: a file that lies there locks nothing by itself.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use haul::transport::escape;
use haul::{Error, ErrorKind};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::cli::format;
use crate::cli::report::{Failure, Result};

/// What every lock file begins with: no other file is written over.
const MARK: &str = "haul batch lock\n";

/// Holds a lock until it is dropped.
#[derive(Debug)]
pub(super) struct Held(#[allow(dead_code)] File); // the lock goes with it

/// Returns the lock file that haul names for a job file, or for one of its jobs.
pub(super) fn own(state_dir: &Path, file: &Path, job: &str) -> PathBuf {
    let mut name = blake3::Hasher::new();
    name.update(file.as_os_str().as_encoded_bytes()).update(b"\0").update(job.as_bytes());
    state_dir.join("batch").join(format!("{}.lock", &name.finalize().to_hex()[..16]))
}

/// Takes a lock.
///
/// # Errors
/// That another run holds it, which has an exit status of its own; `Usage` for a file that is no lock; those of the disk.
pub(super) fn take(path: &Path) -> Result<Held> {
    let shown = escape(path.as_os_str().as_encoded_bytes());
    let failed = |e: std::io::Error| Error::io("lock", e).at(&shown);
    let mut file = open(path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(Failure::locked(held(&mut file).at(&shown))),
        Err(e) => return Err(failed(e.into()).into()),
    }
    let mut text = String::new();
    let read = Read::by_ref(&mut file).take(4096).read_to_string(&mut text);
    if read.is_err() || !(text.is_empty() || text.starts_with(MARK)) {
        let hint = "name a file that isn't there, or one that haul batch made";
        return Err(Error::new(ErrorKind::Usage, "is no lock file").at(&shown).with_hint(hint).into());
    }
    let text = format!("{MARK}{}\n{}\n", std::process::id(), Timestamp::now().as_second());
    file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(text.as_bytes())).map_err(failed)?;
    Ok(Held(file))
}

fn open(path: &Path) -> std::io::Result<File> {
    let open = || {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
    };
    match (open(), path.parent()) {
        (Err(e), Some(parent)) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(parent)?;
            open()
        }
        (opened, _) => opened,
    }
}

/// Says who holds it, as far as they wrote that down.
fn held(file: &mut File) -> Error {
    let mut text = String::new();
    // Its holder may be writing it at this moment.
    let _ = Read::by_ref(file).take(4096).read_to_string(&mut text);
    let mut lines = text.strip_prefix(MARK).unwrap_or_default().lines();
    let pid = lines.next().and_then(|line| line.parse::<u32>().ok());
    let since = lines.next().and_then(|line| line.parse().ok()).and_then(|second| Timestamp::from_second(second).ok());
    let who = match (pid, since) {
        (Some(pid), Some(since)) => format!("process {pid} holds the lock since {}", format::local_second(since)),
        _ => "another run holds the lock".to_owned(),
    };
    Error::new(ErrorKind::Locked, who).with_hint("another run of this batch is at work; wait until it is through")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/lock");
        let first = take(&path).unwrap();
        let (error, exit) = take(&path).unwrap_err().into_parts();
        assert_eq!(exit.code(), 6);
        assert!(error.message().contains(&format!("process {}", std::process::id())), "{}", error.message());
        drop(first);
        drop(take(&path).unwrap());
        let other = dir.path().join("file");
        std::fs::write(&other, "precious").unwrap();
        assert_eq!(take(&other).unwrap_err().into_parts().0.kind(), ErrorKind::Usage);
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "precious");
    }
}

//! The number of this installation, and the file that holds it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::journal::NO_FOLLOW;
use crate::error::{Error, Result};

/// Opens the file with the number, made once: two machines that run the same command don't share a part file, and who
/// shares the number has the same file to lock.
pub(super) fn open(dir: &Path) -> Result<(File, [u8; 16])> {
    let path = dir.join("installation");
    let failed = |e| Error::io("read or make the installation's number", e).at(path.display());
    if let Some(found) = read(&path).map_err(failed)? {
        return Ok(found);
    }
    // Of several processes one makes it; what one leaves that was killed at it, the next one uses.
    let new = dir.join("installation.new");
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(NO_FOLLOW)
        .open(&new);
    let mut file = file.map_err(failed)?;
    // Where there are no locks, two that begin at the same instant may disagree, and one starts its first file anew.
    let _ = flock(&file, FlockOperation::LockExclusive);
    if let Some(found) = read(&path).map_err(failed)? {
        let _ = fs::remove_file(&new);
        return Ok(found);
    }
    let mut number = [0; 16];
    getrandom::fill(&mut number).map_err(|e| failed(io::Error::other(e.to_string())))?;
    let written = file.set_len(0).and_then(|()| file.write_all(&number));
    // Synced, once for all: without its number nothing that was begun is found again.
    written.and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, &path)).map_err(failed)?;
    // The file stays open as long as this process lives; the others needn't wait so long.
    let _ = flock(&file, FlockOperation::Unlock);
    Ok((file, number))
}

/// Reads the number from the very file that is open; `None` where it isn't there, or was damaged by a loss of power.
fn read(path: &Path) -> io::Result<Option<(File, [u8; 16])>> {
    let mut file = match File::options().read(true).write(true).custom_flags(NO_FOLLOW).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        (&mut file).take(17).read_to_end(&mut bytes)?;
    }
    let number = bytes.try_into().ok().filter(|number: &[u8; 16]| *number != [0; 16]);
    Ok(number.map(|number| (file, number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_begins_at_the_same_time_does_not_wait_for_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let begin = || {
            std::thread::scope(|all| {
                let first: Vec<_> = (0..8).map(|_| all.spawn(|| open(dir.path()).unwrap())).collect();
                first.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
            })
        };
        let opened = begin();
        assert!(opened.iter().all(|(_, number)| *number == opened[0].1));
    }

    #[test]
    fn the_number_of_the_installation_stays() {
        let dir = tempfile::tempdir().unwrap();
        let number = || open(dir.path()).unwrap().1;
        assert_eq!(number(), number());
        for damaged in ["", "short", "seventeen letters"] {
            fs::write(dir.path().join("installation"), damaged).unwrap();
            assert_eq!(number(), number());
        }
    }
}

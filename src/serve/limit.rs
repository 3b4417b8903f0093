//! How large a file may become by what clients do.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError, RwLock};

/// The most bytes that a file may have; one for all files of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limit {
    most: Option<u64>,
    /// Who appends has to be alone: where the end is, and what is written there, must be one step.
    appending: Arc<RwLock<()>>,
}

impl Limit {
    /// Lets no file grow beyond so many bytes; `None`: no limit.
    pub(crate) fn new(most: Option<u64>) -> Self {
        Self { most, appending: Arc::default() }
    }

    /// Writes at an offset.
    ///
    /// # Errors
    /// `FileTooLarge`; then nothing was written.
    pub(crate) fn write_at(&self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        self.allow(offset.checked_add(data.len() as u64))?;
        let _others_write_too = self.most.map(|_| self.appending.read().unwrap_or_else(PoisonError::into_inner));
        file.write_all_at(data, offset)
    }

    /// Writes at the end of a file that was opened for that.
    ///
    /// # Errors
    /// `FileTooLarge`; then nothing was written.
    pub(crate) fn append(&self, file: &File, data: &[u8]) -> io::Result<()> {
        let _alone = self.most.map(|_| self.appending.write().unwrap_or_else(PoisonError::into_inner));
        if self.most.is_some() {
            self.allow(file.metadata()?.len().checked_add(data.len() as u64))?;
        }
        io::Write::write_all(&mut &*file, data)
    }

    /// Sets a file's length.
    ///
    /// # Errors
    /// `FileTooLarge`; then it has the length that it had.
    pub(crate) fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        self.allow(Some(length))?;
        let _others_write_too = self.most.map(|_| self.appending.read().unwrap_or_else(PoisonError::into_inner));
        file.set_len(length)
    }

    /// Fails for a length beyond the limit; `None` is beyond all.
    pub(crate) fn allow(&self, length: Option<u64>) -> io::Result<()> {
        match (length, self.most) {
            (Some(length), Some(most)) if length > most => Err(too_large(most)),
            (None, Some(most)) => Err(too_large(most)),
            _ => Ok(()),
        }
    }
}

/// "Disk quota exceeded" is what clients know: with SFTP there is no code for it.
fn too_large(most: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("Disk quota exceeded: no file may be larger than {most} bytes here"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_grows_beyond_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create(&path).unwrap();
        let end = File::options().append(true).open(&path).unwrap();
        let limit = Limit::new(Some(10));
        limit.write_at(&file, 5, b"12345").unwrap();
        for refused in [
            limit.write_at(&file, 5, b"123456"),
            limit.write_at(&file, 11, b""),
            limit.write_at(&file, u64::MAX, b"1"),
            limit.append(&end, b"1"),
            limit.set_len(&file, 11),
        ] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        }
        assert_eq!(file.metadata().unwrap().len(), 10);
        limit.set_len(&file, 3).unwrap();
        limit.append(&end, b"1234567").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10);
        Limit::default().append(&end, b"more").unwrap();
    }

    #[test]
    fn appending_at_once_stays_within_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        File::create(&path).unwrap();
        let limit = Limit::new(Some(100_000));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let end = File::options().append(true).open(&path).unwrap();
                    while limit.append(&end, &[0; 77]).is_ok() {}
                });
            }
            let file = File::options().write(true).open(&path).unwrap();
            for offset in (0..100_000).step_by(77) {
                let _ = limit.write_at(&file, offset, &[0; 77]);
            }
        });
        assert!(path.metadata().unwrap().len() <= 100_000);
    }
}

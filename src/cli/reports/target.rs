//! A file that appears under its name when all of it is written.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use haul::{Error, ErrorKind, Result};

/// The mode of a new report: names of files and hosts are nobody else's business.
pub(super) const PRIVATE: u32 = 0o600;
/// The mode of new numbers: whoever collects them is another user.
pub(super) const PUBLIC: u32 = 0o644;

/// A file being written beside its final name; dropped, it is removed.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    beside: PathBuf,
    to: Option<BufWriter<File>>,
    /// The first error of writing: the rest is not written then.
    failed: Option<std::io::Error>,
}

impl Target {
    /// Begins a file. One of ours that is there keeps its mode, another gets `mode` as far as the umask lets it.
    ///
    /// # Errors
    /// `Usage` when it can't be written there.
    pub(super) fn open(path: &Path, mode: u32) -> Result<Self> {
        let failed = |e| Error::io("write the report", e).at(path.display()).with_kind(ErrorKind::Usage);
        let Some(name) = path.file_name() else {
            return Err(Error::new(ErrorKind::Usage, "is no name of a file").at(path.display()));
        };
        let there = fs::metadata(path).ok();
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            return Err(Error::new(ErrorKind::Usage, "is there and is no file").at(path.display()));
        }
        let path = std::path::absolute(path).map_err(failed)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".haul-{}", std::process::id()));
        let beside = path.with_file_name(hidden);
        // Of another process of this number, long ago.
        let _ = fs::remove_file(&beside);
        let file = File::options().write(true).create_new(true).mode(mode).open(&beside).map_err(failed)?;
        let target = Self { path, beside, to: Some(BufWriter::new(file)), failed: None };
        // Somebody else may have put one there, or a link, to have the report readable for all.
        let there = fs::symlink_metadata(&target.path).ok().filter(fs::Metadata::is_file);
        if let (Some(there), Some(to)) = (there, &target.to)
            && to.get_ref().metadata().map_err(failed)?.uid() == there.uid()
        {
            to.get_ref().set_permissions(fs::Permissions::from_mode(there.mode() & 0o777)).map_err(failed)?;
        }
        Ok(target)
    }

    /// Returns where it will appear.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes more. What fails is told at the end.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if let (Some(to), None) = (&mut self.to, &self.failed) {
            self.failed = to.write_all(bytes).err();
        }
    }

    /// Writes all of it and gives it its name.
    ///
    /// # Errors
    /// Those of the disk; what was there before stays then.
    pub(super) fn write_all(mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes);
        self.close()
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// Those of the disk, now or earlier; what was there before stays then.
    pub(super) fn close(mut self) -> Result<()> {
        let failed = |e| {
            Error::io("write the report", e)
                .at(self.path.display())
                .with_hint("the files themselves are not touched by it")
        };
        if let Some(error) = self.failed.take() {
            return Err(failed(error));
        }
        let Some(to) = self.to.take() else { return Ok(()) };
        let file = to.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        fs::rename(&self.beside, &self.path).map_err(failed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = fs::remove_file(&self.beside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_report_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut target = Target::open(&path, PRIVATE).unwrap();
        target.write(b"half");
        drop(target);
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path()).len()), ("before", 1));
        Target::open(&path, PRIVATE).unwrap().write_all(b"after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!((fs::metadata(&path).unwrap().mode() & 0o777, names(dir.path()).len()), (0o640, 1));
    }

    #[test]
    fn only_a_file_of_ours_tells_who_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("r.json"), dir.path().join("open"));
        fs::write(&elsewhere, "").unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o666)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        Target::open(&path, PRIVATE).unwrap().write_all(b"report").unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, PRIVATE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
            Target::open(&path, PRIVATE).unwrap().write_all(b"report").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, PRIVATE);
        }
    }

    #[test]
    fn what_cannot_be_written_is_found_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d.json")).unwrap();
        for name in ["d.json", "none/r.json", "..", "/"] {
            assert_eq!(Target::open(&dir.path().join(name), PRIVATE).unwrap_err().kind(), ErrorKind::Usage, "{name}");
        }
        assert_eq!(Target::open(Path::new("/dev/full"), PRIVATE).unwrap_err().kind(), ErrorKind::Usage);
    }
}

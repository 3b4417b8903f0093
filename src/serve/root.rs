//! The served folder: every path is resolved beneath it, and nothing outside of it can be reached.
//!
//! The folder is held open; paths are followed from there with `openat2(RESOLVE_BENEATH)` (by cap-std, which walks by
//! hand where the system has none). So `..`, absolute links, links that lead outside, and links swapped while a request
//! runs all end as "permission denied", not outside. All calls block.

use std::ffi::OsStr;
use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt};
pub(crate) use cap_std::fs::{Metadata, MetadataExt};
use rustix::fs::{AtFlags, OFlags, RenameFlags, StatVfs, Timespec, Timestamps};

use super::limit::Limit;
use crate::transport::{FileKind, RemotePath, Replace};

/// Whether clients may change what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// They may.
    #[default]
    ReadWrite,
    /// They may only look and read.
    ReadOnly,
}

/// Bits that clients may set: a share hands out no set-user-ID or set-group-ID programs.
const SETTABLE_MODE: u32 = 0o1777;

/// How a file is opened for writing.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)] // the flags of open(2), independent of each other
pub(crate) struct WriteFlags {
    /// Also for reading.
    pub(crate) read: bool,
    /// Every write goes to the end.
    pub(crate) append: bool,
    /// Make it if it isn't there.
    pub(crate) create: bool,
    /// Make it, and fail if it is there.
    pub(crate) exclusive: bool,
    /// Empty it.
    pub(crate) truncate: bool,
    /// Permission bits of a new file, before the umask; `None`: 0666.
    pub(crate) mode: Option<u32>,
}

/// The served folder, held open.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    dir: Arc<Dir>,
    access: Access,
    limit: Limit,
}

impl Root {
    /// Opens the folder.
    pub(crate) fn open(path: &Path, access: Access, limit: Limit) -> io::Result<Self> {
        Ok(Self { dir: Arc::new(Dir::open_ambient_dir(path, ambient_authority())?), access, limit })
    }

    /// Returns how large files may become; whoever writes to one asks it.
    pub(crate) fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Opens a regular file for reading; pipes and devices are refused, without waiting for their other end.
    pub(crate) fn open_read(&self, path: &RemotePath) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nonblocking());
        regular(self.dir.open_with(inside(path), &options)?.into_std())
    }

    /// Opens a regular file for writing.
    pub(crate) fn open_write(&self, path: &RemotePath, flags: WriteFlags) -> io::Result<File> {
        self.writable()?;
        let mut options = OpenOptions::new();
        options.read(flags.read).custom_flags(nonblocking());
        options.write(true).append(flags.append);
        options.create(flags.create).create_new(flags.create && flags.exclusive);
        options.truncate(flags.truncate && !flags.append);
        options.mode(flags.mode.unwrap_or(0o666) & 0o777);
        let file = regular(self.dir.open_with(inside(path), &options)?.into_std())?;
        // std refuses append together with truncate; the system doesn't.
        if flags.truncate && flags.append {
            file.set_len(0)?;
        }
        Ok(file)
    }

    /// Returns the metadata of what a path leads to.
    pub(crate) fn metadata(&self, path: &RemotePath) -> io::Result<Metadata> {
        self.dir.metadata(inside(path))
    }

    /// Returns the metadata of a link itself.
    pub(crate) fn link_metadata(&self, path: &RemotePath) -> io::Result<Metadata> {
        self.dir.symlink_metadata(inside(path))
    }

    /// Opens a directory for listing; entries come without `.` and `..`.
    pub(crate) fn list(&self, path: &RemotePath) -> io::Result<Listing> {
        let dir = self.dir.open_dir(inside(path))?;
        Ok(Listing { entries: dir.entries()?, dir })
    }

    /// Makes a directory.
    pub(crate) fn create_dir(&self, path: &RemotePath, mode: Option<u32>) -> io::Result<()> {
        self.writable()?;
        if path.is_root() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut builder = DirBuilder::new();
        builder.mode(mode.unwrap_or(0o777) & SETTABLE_MODE);
        self.dir.create_dir_with(inside(path), &builder)
    }

    /// Removes a file or link.
    pub(crate) fn remove_file(&self, path: &RemotePath) -> io::Result<()> {
        self.changeable(path)?;
        self.dir.remove_file(inside(path))
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, path: &RemotePath) -> io::Result<()> {
        self.changeable(path)?;
        self.dir.remove_dir(inside(path))
    }

    /// Renames; `Replace::No` fails with `AlreadyExists` if something is at the new name.
    pub(crate) fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace) -> io::Result<()> {
        self.changeable(from)?;
        self.changeable(to)?;
        if replace == Replace::Yes {
            return self.dir.rename(inside(from), &self.dir, inside(to));
        }
        let (from_dir, from_name) = self.parent_of(from)?;
        let (to_dir, to_name) = self.parent_of(to)?;
        match rustix::fs::renameat_with(&from_dir, from_name, &to_dir, to_name, RenameFlags::NOREPLACE) {
            // Not every file system has NOREPLACE; a link fails when the name is taken, but takes files only.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                if from_dir.symlink_metadata(Path::new(from_name))?.is_dir() {
                    return match to_dir.symlink_metadata(Path::new(to_name)) {
                        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                        Err(_) => Ok(rustix::fs::renameat(&from_dir, from_name, &to_dir, to_name)?),
                    };
                }
                rustix::fs::linkat(&from_dir, from_name, &to_dir, to_name, AtFlags::empty())?;
                Ok(rustix::fs::unlinkat(&from_dir, from_name, AtFlags::empty())?)
            }
            result => Ok(result?),
        }
    }

    /// Gives a file a second name.
    pub(crate) fn hard_link(&self, existing: &RemotePath, new: &RemotePath) -> io::Result<()> {
        self.changeable(existing)?;
        self.changeable(new)?;
        self.dir.hard_link(inside(existing), &self.dir, inside(new))
    }

    /// Makes a symbolic link. One that leads outside is refused here too: haul would never follow it, but others who
    /// work in this folder might.
    pub(crate) fn symlink(&self, target: &[u8], path: &RemotePath) -> io::Result<()> {
        self.changeable(path)?;
        let depth = path.components().count() - 1;
        if leads_outside(target, depth) {
            let why = "links that lead out of the served folder are refused";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.dir.symlink(Path::new(OsStr::from_bytes(target)), inside(path))
    }

    /// Returns where a link points.
    pub(crate) fn read_link(&self, path: &RemotePath) -> io::Result<Vec<u8>> {
        Ok(self.dir.read_link_contents(inside(path))?.into_os_string().into_vec())
    }

    /// Sets permission bits of what a path leads to.
    pub(crate) fn set_mode(&self, path: &RemotePath, mode: u32) -> io::Result<()> {
        self.writable()?;
        self.dir.set_permissions(inside(path), Permissions::from_mode(mode & SETTABLE_MODE))
    }

    /// Sets the size of a file.
    pub(crate) fn set_size(&self, path: &RemotePath, size: u64) -> io::Result<()> {
        self.limit.set_len(&self.open_write(path, WriteFlags::default())?, size)
    }

    /// Sets times of what a path leads to; `None` leaves one as it is.
    pub(crate) fn set_times(
        &self,
        path: &RemotePath,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> io::Result<()> {
        self.writable()?;
        let open = |write: bool| {
            let mut options = OpenOptions::new();
            options.read(!write).write(write).custom_flags(nonblocking());
            self.dir.open_with(inside(path), &options)
        };
        let file = match open(false) {
            // A file that its owner may write but not read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(true).map_err(|_| error)?,
            other => other?,
        };
        set_file_times(&file.into_std(), accessed, modified)
    }

    /// Sets times of a link itself.
    pub(crate) fn set_link_times(
        &self,
        path: &RemotePath,
        accessed: SystemTime,
        modified: SystemTime,
    ) -> io::Result<()> {
        self.changeable(path)?;
        let (dir, name) = self.parent_of(path)?;
        let times = Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) };
        Ok(rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Returns the state of the file system that a path is on.
    pub(crate) fn statvfs(&self, path: &RemotePath) -> io::Result<StatVfs> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nonblocking());
        Ok(rustix::fs::fstatvfs(self.dir.open_with(inside(path), &options)?)?)
    }

    /// Fails where clients may not write.
    pub(crate) fn writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    /// Fails where clients may not write, and for the folder itself, which must stay.
    fn changeable(&self, path: &RemotePath) -> io::Result<()> {
        self.writable()?;
        if path.is_root() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the served folder itself must stay"));
        }
        Ok(())
    }

    /// Opens the directory that holds a name, for calls that act on the name itself.
    fn parent_of<'a>(&self, path: &'a RemotePath) -> io::Result<(Dir, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or_else(RemotePath::root);
        Ok((self.dir.open_dir(inside(&parent))?, OsStr::from_bytes(name)))
    }
}

/// A directory being listed.
#[derive(Debug)]
pub(crate) struct Listing {
    dir: Dir,
    entries: cap_std::fs::ReadDir,
}

impl Listing {
    /// Returns the next entry with its own metadata (links not followed), `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Item>> {
        for entry in self.entries.by_ref() {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            return Ok(Some(Item { name: entry.file_name().into_vec(), metadata }));
        }
        Ok(None)
    }

    /// Returns where a link among the entries points.
    pub(crate) fn read_link(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.dir.read_link_contents(OsStr::from_bytes(name)).ok().map(|t| t.into_os_string().into_vec())
    }

    /// Returns the metadata of the directory itself.
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.dir.dir_metadata()
    }

    /// Forces the directory's names to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        // A directory handle that came by O_PATH can't be synced; "." opens it anew.
        self.dir.open(".")?.sync_all()
    }
}

/// One entry of a directory.
#[derive(Debug)]
pub(crate) struct Item {
    /// Its name, one component.
    pub(crate) name: Vec<u8>,
    /// Its own metadata.
    pub(crate) metadata: Metadata,
}

/// Sets times of an open file; `None` leaves one as it is.
pub(crate) fn set_file_times(
    file: &File,
    accessed: Option<SystemTime>,
    modified: Option<SystemTime>,
) -> io::Result<()> {
    let mut times = FileTimes::new();
    if let Some(time) = accessed {
        times = times.set_accessed(time);
    }
    if let Some(time) = modified {
        times = times.set_modified(time);
    }
    file.set_times(times)
}

/// Sets permission bits of an open file.
pub(crate) fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode & SETTABLE_MODE))
}

/// Returns what kind of entry the metadata tell of.
pub(crate) fn kind_of(metadata: &Metadata) -> FileKind {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => FileKind::File,
        () if kind.is_dir() => FileKind::Directory,
        () if kind.is_symlink() => FileKind::Symlink,
        () => FileKind::Other,
    }
}

/// Turns whole seconds since 1970, as protocols carry them, into a time.
pub(crate) fn from_unix(seconds: i64) -> SystemTime {
    crate::transport::Mtime::from_unix(seconds).time
}

/// The path relative to the root, as the system takes it.
fn inside(path: &RemotePath) -> &Path {
    let relative = &path.as_bytes()[1..];
    Path::new(OsStr::from_bytes(if relative.is_empty() { b"." } else { relative }))
}

/// Keeps `open` from waiting for the other end of a pipe, or for a terminal to become ours.
fn nonblocking() -> i32 {
    (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed()
}

fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    match () {
        () if kind.is_file() => Ok(file),
        () if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        () => Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a regular file")),
    }
}

/// Returns whether a link target, read from `depth` directories below the root, climbs out at any point.
fn leads_outside(target: &[u8], depth: usize) -> bool {
    if target.is_empty() || target[0] == b'/' || target.contains(&0) {
        return true;
    }
    let mut depth = depth;
    for component in target.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

fn timespec(time: SystemTime) -> Timespec {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration() + Duration::from_nanos(999_999_999);
            (-i64::try_from(before.as_secs()).unwrap_or(i64::MAX), 0)
        }
    };
    Timespec { tv_sec: seconds, tv_nsec: nanos.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Sandbox {
        root: Root,
        outside: tempfile::TempDir,
        inside: tempfile::TempDir,
    }

    fn sandbox() -> Sandbox {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        std::fs::create_dir(inside.path().join("d")).unwrap();
        std::fs::write(inside.path().join("d/f"), "inside").unwrap();
        Sandbox { root: Root::open(inside.path(), Access::ReadWrite, Limit::default()).unwrap(), outside, inside }
    }

    fn path(text: impl AsRef<[u8]>) -> RemotePath {
        RemotePath::root().resolve(text).unwrap()
    }

    fn refused<T: std::fmt::Debug>(result: io::Result<T>) {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn planted_links_lead_nowhere() {
        let s = sandbox();
        let up = format!("../{}/secret", s.outside.path().file_name().unwrap().to_str().unwrap());
        symlink(s.outside.path(), s.inside.path().join("dir")).unwrap();
        symlink(s.outside.path().join("secret"), s.inside.path().join("file")).unwrap();
        symlink(up, s.inside.path().join("up")).unwrap();
        symlink(s.inside.path().join("d/f"), s.inside.path().join("absolute")).unwrap();
        let write = WriteFlags { create: true, truncate: true, ..WriteFlags::default() };
        for link in ["dir/secret", "file", "up", "absolute", "dir/../dir/secret"] {
            refused(s.root.open_read(&path(link)));
            refused(s.root.open_write(&path(link), write));
            refused(s.root.metadata(&path(link)));
            refused(s.root.set_mode(&path(link), 0o777));
            refused(s.root.set_size(&path(link), 0));
            refused(s.root.set_times(&path(link), None, Some(UNIX_EPOCH)));
        }
        refused(s.root.list(&path("dir")));
        refused(s.root.create_dir(&path("dir/new"), None));
        refused(s.root.remove_file(&path("dir/secret")));
        refused(s.root.rename(&path("d/f"), &path("dir/f"), Replace::Yes));
        refused(s.root.rename(&path("d/f"), &path("dir/f"), Replace::No));
        refused(s.root.rename(&path("dir/secret"), &path("d/g"), Replace::Yes));
        refused(s.root.hard_link(&path("dir/secret"), &path("d/g")));
        refused(s.root.symlink(b"x", &path("dir/link")));
        refused(s.root.set_link_times(&path("dir/secret"), UNIX_EPOCH, UNIX_EPOCH));
        assert_eq!(std::fs::read(s.outside.path().join("secret")).unwrap(), b"secret");
        assert_eq!(std::fs::read_dir(s.outside.path()).unwrap().count(), 1);
        // A hard link to a planted link is the link again, which leads nowhere.
        s.root.hard_link(&path("file"), &path("again")).unwrap();
        refused(s.root.open_read(&path("again")));
        s.root.remove_file(&path("file")).unwrap();
    }

    #[test]
    fn links_inside_are_followed_and_made() {
        let s = sandbox();
        s.root.symlink(b"../d/f", &path("d/l")).unwrap();
        assert_eq!(s.root.read_link(&path("d/l")).unwrap(), b"../d/f");
        assert_eq!(s.root.metadata(&path("d/l")).unwrap().len(), 6);
        for outside in [&b"/etc/passwd"[..], b"../../x", b"..//..", b""] {
            refused(s.root.symlink(outside, &path("d/bad")));
        }
    }

    #[test]
    fn a_link_swapped_during_the_run_never_leads_outside() {
        let s = sandbox();
        let stop = AtomicBool::new(false);
        let (name, evil) = (s.inside.path().join("n"), s.inside.path().join("evil"));
        std::fs::create_dir(&name).unwrap();
        std::fs::write(name.join("secret"), "inside").unwrap();
        symlink(s.outside.path(), &evil).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    use rustix::fs::{CWD, renameat_with};
                    renameat_with(CWD, &name, CWD, &evil, RenameFlags::EXCHANGE).unwrap();
                }
            });
            let mut seen = 0;
            for _ in 0..20_000 {
                if let Ok(mut file) = s.root.open_read(&path("n/secret")) {
                    let text = io::read_to_string(&mut file).unwrap();
                    assert_ne!(text, "secret");
                    seen += 1;
                }
                let _ = s.root.create_dir(&path("n/made"), None);
                let _ = s.root.remove_dir(&path("n/made"));
            }
            stop.store(true, Ordering::Relaxed);
            assert!(seen > 0, "the folder was never the real one");
        });
        assert_eq!(std::fs::read(s.outside.path().join("secret")).unwrap(), b"secret");
        assert_eq!(std::fs::read_dir(s.outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_are_bytes() {
        let s = sandbox();
        let name = b"a\xff \"[\n";
        s.root.open_write(&path(name), WriteFlags { create: true, ..WriteFlags::default() }).unwrap();
        let mut listing = s.root.list(&RemotePath::root()).unwrap();
        let mut names = Vec::new();
        while let Some(item) = listing.next().unwrap() {
            names.push(item.name);
        }
        names.sort();
        assert_eq!(names, [&name[..], b"d"]);
        listing.sync().unwrap();
    }

    #[test]
    fn rename_without_replacing_keeps_what_is_there() {
        let s = sandbox();
        std::fs::write(s.inside.path().join("g"), "g").unwrap();
        let error = s.root.rename(&path("d/f"), &path("g"), Replace::No).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        s.root.rename(&path("d/f"), &path("g"), Replace::Yes).unwrap();
        assert_eq!(std::fs::read(s.inside.path().join("g")).unwrap(), b"inside");
    }

    #[test]
    fn read_only_changes_nothing() {
        let s = sandbox();
        let root = Root::open(s.inside.path(), Access::ReadOnly, Limit::default()).unwrap();
        let file = path("d/f");
        let results = [
            root.open_write(&file, WriteFlags::default()).map(drop),
            root.remove_file(&file),
            root.remove_dir(&path("d")),
            root.rename(&file, &path("g"), Replace::Yes),
            root.create_dir(&path("n"), None),
            root.set_mode(&file, 0o600),
            root.set_times(&file, None, Some(UNIX_EPOCH)),
            root.symlink(b"f", &path("d/l")),
            root.hard_link(&file, &path("h")),
            root.set_size(&file, 0),
            root.set_link_times(&file, UNIX_EPOCH, UNIX_EPOCH),
        ];
        for result in results {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
        assert!(root.open_read(&file).is_ok());
    }

    #[test]
    fn modes_and_times_are_set() {
        let s = sandbox();
        s.root.set_mode(&path("d/f"), 0o4751).unwrap();
        s.root.set_times(&path("d"), None, Some(from_unix(1_000_000_000))).unwrap();
        s.root.symlink(b"f", &path("d/l")).unwrap();
        s.root.set_link_times(&path("d/l"), from_unix(5), from_unix(7)).unwrap();
        assert_eq!(s.root.metadata(&path("d/f")).unwrap().mode() & 0o7777, 0o751);
        assert_eq!(s.root.link_metadata(&path("d/l")).unwrap().mtime(), 7);
        assert_ne!(s.root.metadata(&path("d/l")).unwrap().mtime(), 7);
        assert!(s.root.statvfs(&path("d/f")).unwrap().f_blocks > 0);
    }

    #[test]
    fn pipes_are_refused_without_waiting() {
        let s = sandbox();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            s.inside.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        refused(s.root.open_read(&path("pipe")));
        assert!(s.root.open_write(&path("pipe"), WriteFlags::default()).is_err());
        assert_eq!(kind_of(&s.root.metadata(&path("pipe")).unwrap()), FileKind::Other);
    }
}

//! Calls of the client that take more than one request, and those of extensions.

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::bytes_of;
use super::client::{Client, File};
use super::entry::kind_of;
use super::request::{CopyData, Extended, OpenFlags, Request};
use super::response::StatVfs;
use super::wire::Attrs;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{FileKind, Owner, ReadRange, RemotePath, Replace};

impl Client {
    /// Returns how full the file system of a path is (`statvfs@openssh.com`).
    ///
    /// # Errors
    /// `Unsupported` where the server doesn't offer it.
    pub async fn statvfs(&self, path: &RemotePath) -> Result<StatVfs> {
        StatVfs::decode(self.extended(Extended::StatVfs(bytes_of(path)), "look at the file system").await?)
    }

    /// Makes a second name for a file (`hardlink@openssh.com`).
    ///
    /// # Errors
    /// `Unsupported` where the server doesn't offer it.
    pub async fn hardlink(&self, from: &RemotePath, to: &RemotePath) -> Result<()> {
        self.status(Request::Extended(Extended::Hardlink(bytes_of(from), bytes_of(to))), "link").await
    }

    /// Changes the user or the group of a file; the protocol sets both at once, so the other is asked for.
    pub(super) async fn set_owner(&self, path: &RemotePath, owner: Owner) -> Result<()> {
        let what = "set the owner";
        let (user, group) = self.attrs(Request::Stat(bytes_of(path)), what).await?.owner.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("{what}: the server doesn't tell whose it is"))
        })?;
        let owner = match owner {
            Owner::User(user) => (user, group),
            Owner::Group(group) => (user, group),
        };
        let attrs = Attrs { owner: Some(owner), ..Attrs::default() };
        self.status(Request::Setstat(bytes_of(path), attrs), what).await
    }

    /// Sets attributes without following a link (`lsetstat@openssh.com`).
    ///
    /// # Errors
    /// `Unsupported` where the server doesn't offer it.
    pub async fn lsetstat(&self, path: &RemotePath, attrs: Attrs) -> Result<()> {
        self.status(Request::Extended(Extended::Lsetstat(bytes_of(path), attrs)), "set attributes").await
    }

    /// Copies a file on the server (`copy-data`); what was at `to` is overwritten.
    ///
    /// # Errors
    /// `Unsupported` where the server doesn't offer it.
    pub async fn copy(&self, from: &RemotePath, to: &RemotePath) -> Result<()> {
        let source = Request::Open(bytes_of(from), OpenFlags::READ, Attrs::default());
        let source = self.open(source, "open").await.map_err(|e| e.at(from))?;
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
        let target = Request::Open(bytes_of(to), flags, Attrs::default());
        let mut target = self.open(target, "open for writing").await.map_err(|e| e.at(to))?;
        let copy = CopyData { from: source.handle(), from_offset: 0, length: 0, to: target.handle(), to_offset: 0 };
        self.status(Request::Extended(Extended::CopyData(copy)), "copy").await.map_err(|e| e.at(from))?;
        target.send_close().status("close").await.map_err(|e| e.at(to))
    }

    /// Copies a part of a file on the server to the same place of another that is there (`copy-data`).
    pub(super) async fn copy_range(&self, from: &RemotePath, to: &RemotePath, range: ReadRange) -> Result<()> {
        let length = range.end.map_or(0, |end| end.saturating_sub(range.start));
        if range.end.is_some() && length == 0 {
            // A length of 0 would mean "to the end".
            return Ok(());
        }
        let open = |path, flags| self.open(Request::Open(bytes_of(path), flags, Attrs::default()), "open");
        let (source, target) = futures_util::future::try_join(
            async { open(from, OpenFlags::READ).await.map_err(|e| e.at(from)) },
            async { open(to, OpenFlags::WRITE).await.map_err(|e| e.at(to)) },
        )
        .await?;
        let mut target = target;
        let (from_offset, to_offset) = (range.start, range.start);
        let copy = CopyData { from: source.handle(), from_offset, length, to: target.handle(), to_offset };
        self.status(Request::Extended(Extended::CopyData(copy)), "copy").await.map_err(|e| e.at(from))?;
        target.send_close().status("close").await.map_err(|e| e.at(to))
    }

    pub(super) async fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        Ok(self.name(Request::Readlink(bytes_of(path)), "read the link").await?.to_vec())
    }

    /// Makes a file, empty. One that is there already is removed first, so that neither its mode nor a second name of
    /// it lives on, or else truncated where that is forbidden; what is no file is refused.
    ///
    /// OPEN with `EXCLUSIVE` comes first: it costs nothing where the file is new, and never follows a link.
    pub(super) async fn create(&self, path: &RemotePath, mode: Option<u32>) -> Result<File> {
        let what = "open for writing";
        let attrs = Attrs { permissions: mode.map(|mode| mode & 0o777), ..Attrs::default() };
        let open =
            |flags| self.open(Request::Open(bytes_of(path), OpenFlags::WRITE | OpenFlags::CREATE | flags, attrs), what);
        let error = match open(OpenFlags::EXCLUSIVE).await {
            Err(e) if is_vague_refusal(&e) => e,
            other => return other,
        };
        let Ok(there) = self.attrs(Request::Lstat(bytes_of(path)), what).await else {
            // Nothing is there: perhaps the server doesn't know the flag.
            return open(OpenFlags::TRUNCATE).await;
        };
        let is_typed = there.permissions.is_some_and(|bits| bits >> 12 != 0);
        match kind_of(there) {
            FileKind::Directory => Err(Error::new(ErrorKind::IsADirectory, format!("{what}: it is a directory"))),
            FileKind::Symlink => Err(Error::new(ErrorKind::AlreadyExists, format!("{what}: a symbolic link is there"))),
            FileKind::Other if is_typed => Err(error.with_kind(ErrorKind::AlreadyExists)),
            FileKind::File | FileKind::Other => match self.status(Request::Remove(bytes_of(path)), what).await {
                Ok(()) => open(OpenFlags::EXCLUSIVE).await,
                Err(_) => open(OpenFlags::TRUNCATE).await,
            },
        }
    }

    pub(super) async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace) -> Result<()> {
        let what = "rename";
        let plain = || self.status(Request::Rename(bytes_of(from), bytes_of(to)), what);
        if replace == Replace::No {
            // Version 3 forbids RENAME to replace, and OpenSSH's server, which alone offers limits, heeds it.
            if !self.offers("limits@openssh.com") && self.is_there(to).await? {
                return Err(taken(what));
            }
            return match plain().await {
                Err(e) if is_vague_refusal(&e) && self.is_there(to).await? => Err(taken(what)),
                other => other,
            };
        }
        if self.offers("posix-rename@openssh.com") {
            let request = Extended::PosixRename(bytes_of(from), bytes_of(to));
            return self.status(Request::Extended(request), what).await;
        }
        let error = match plain().await {
            Err(e) if is_vague_refusal(&e) => e,
            other => return other,
        };
        match self.attrs(Request::Lstat(bytes_of(to)), what).await.map(kind_of) {
            Ok(FileKind::Directory) | Err(_) => Err(error),
            Ok(_) => self.rename_in_steps(from, to, error).await,
        }
    }

    /// Puts what is in the way under another name, renames, and removes it only then: should the server refuse the rename
    /// for another reason, or the connection break, nothing is lost.
    async fn rename_in_steps(&self, from: &RemotePath, to: &RemotePath, refused: Error) -> Result<()> {
        let old = to.out_of_the_way()?;
        let rename = |from: &RemotePath, to: &RemotePath| {
            self.status(Request::Rename(bytes_of(from), bytes_of(to)), "rename").boxed()
        };
        if rename(to, &old).await.is_err() {
            // One that a broken rename left is of no use beside what is there now.
            let stale = self.status(Request::Remove(bytes_of(&old)), "remove").await.is_ok();
            if !stale || rename(to, &old).await.is_err() {
                return Err(refused);
            }
        }
        if let Err(error) = rename(from, to).await {
            return Err(match rename(&old, to).await {
                Ok(()) => error,
                Err(_) => error.with_hint(format!("what was there before is {old} now")),
            });
        }
        if let Err(e) = self.status(Request::Remove(bytes_of(&old)), "remove").await {
            tracing::warn!("{to}: what was there before is left as {old}: {}", e.chain());
        }
        Ok(())
    }

    /// Forces a file or a directory to the disk, so that a new name in it survives.
    ///
    /// OpenSSH's server opens a directory like a file and takes fsync on it, but not on one that OPENDIR opened; others
    /// have it the other way round. Where a server can't, the rename has happened all the same, so this is a warning
    /// and no error.
    pub(super) async fn sync(&self, path: &RemotePath) {
        let as_file = Request::Open(bytes_of(path), OpenFlags::READ, Attrs::default());
        let what = "open";
        let opened = match self.open(as_file, what).await {
            Err(_) => self.open(Request::Opendir(bytes_of(path)), what).await,
            dir => dir,
        };
        let synced = match opened {
            Ok(dir) => self.status(Request::Extended(Extended::Fsync(dir.handle())), "force to disk").await,
            Err(error) => Err(error),
        };
        if let Err(error) = synced {
            tracing::warn!("{path}: the server can't force it to its disk: {}", error.chain());
        }
    }

    /// Makes a link and returns whether the server takes the target first; `target_first` is what is known of that.
    ///
    /// Nearly all servers take it first, as OpenSSH's does by mistake, but the draft has the link first. The first
    /// link is read back to find out; one made the wrong way round is undone.
    pub(super) async fn symlink(&self, target: &[u8], path: &RemotePath, target_first: Option<bool>) -> Result<bool> {
        let what = "make the link";
        let (target, link) = (Bytes::copy_from_slice(target), bytes_of(path));
        if target_first != Some(false) {
            self.status(Request::Symlink(target.clone(), link.clone()), what).await?;
            let is_right = target_first.is_some() || self.is_there(path).await?;
            if is_right {
                return Ok(true);
            }
            let misplaced = self.name(Request::Readlink(target.clone()), what).await;
            if misplaced.is_ok_and(|name| name == link) {
                self.status(Request::Remove(target.clone()), what).await?;
            }
        }
        self.status(Request::Symlink(link, target), what).await?;
        Ok(false)
    }

    async fn is_there(&self, path: &RemotePath) -> Result<bool> {
        match self.attrs(Request::Lstat(bytes_of(path)), "look at").await {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e.at(path)),
        }
    }
}

/// Whether the server may have meant "it is there already".
fn is_vague_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Other | ErrorKind::AlreadyExists | ErrorKind::Unsupported | ErrorKind::InvalidPath
    )
}

fn taken(what: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{what}: something of that name is there already"))
}

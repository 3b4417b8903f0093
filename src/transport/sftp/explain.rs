//! Second questions: what a plain FAILURE meant.
//!
//! Version 3 has few codes, and OpenSSH answers FAILURE to most errors. Where the caller needs to know more, one more
//! question after the failure decides; when that fails too, the first error stands as it is.

use super::client::Client;
use super::entry::kind_of;
use super::request::Request;
use super::wire::Attrs;
use crate::error::{Error, ErrorKind};
use crate::transport::{FileKind, RemotePath};

/// Free bytes below which a failed WRITE is put down to a full disk: the longest WRITE.
const FULL_BELOW: u64 = 255 * 1024;

/// Explains a failed OPEN for reading, or READ: a directory, or nothing at all?
pub(super) async fn read(client: &Client, path: &RemotePath, error: Error) -> Error {
    let error = error.at(path);
    // ProFTPD forbids directories, and what would be below a file, to be opened.
    if !is_vague(&error) && error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    match client.attrs(Request::Stat(super::bytes_of(path)), "look at").await {
        Ok(attrs) if kind_of(attrs) == FileKind::Directory => decided(error, ErrorKind::IsADirectory),
        Err(e) if e.kind() == ErrorKind::NotFound => decided(error, ErrorKind::NotFound),
        Err(_) => match stat(client, &path.parent().unwrap_or_else(RemotePath::root)).await {
            Some(FileKind::File) => decided(error, ErrorKind::NotADirectory),
            _ => error,
        },
        Ok(_) => error,
    }
}

/// Explains a failed OPEN for writing: a directory, a disk that takes nothing?
pub(super) async fn open(client: &Client, path: &RemotePath, error: Error) -> Error {
    let error = error.at(path);
    if !is_vague(&error) && error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    match stat(client, path).await {
        Some(FileKind::Directory) => decided(error, ErrorKind::IsADirectory),
        _ => disk(client, &path.parent().unwrap_or_else(RemotePath::root), error).await,
    }
}

/// Explains why something could not be made at `path`: is something there?
pub(super) async fn create(client: &Client, path: &RemotePath, error: Error) -> Error {
    let error = error.at(path);
    if !is_vague(&error) {
        return error;
    }
    match lstat(client, path).await {
        Some(_) => decided(error, ErrorKind::AlreadyExists),
        None => disk(client, &path.parent().unwrap_or_else(RemotePath::root), error).await,
    }
}

/// Explains a failed REMOVE: a directory?
pub(super) async fn remove_file(client: &Client, path: &RemotePath, error: Error) -> Error {
    let error = error.at(path);
    // POSIX lets unlink say EPERM for a directory, and BSD and macOS do.
    if !is_vague(&error) && error.kind() != ErrorKind::PermissionDenied {
        return error;
    }
    match lstat(client, path).await {
        Some(FileKind::Directory) => decided(error, ErrorKind::IsADirectory),
        _ => error,
    }
}

/// Explains a failed RMDIR: no directory, or not empty?
pub(super) async fn remove_dir(client: &Client, path: &RemotePath, error: Error) -> Error {
    let error = error.at(path);
    // OpenSSH answers ENOTDIR with NO_SUCH_FILE.
    if !is_vague(&error) && error.kind() != ErrorKind::NotFound {
        return error;
    }
    match lstat(client, path).await {
        Some(FileKind::Directory) if has_entries(client, path).await => decided(error, ErrorKind::DirectoryNotEmpty),
        Some(FileKind::File | FileKind::Symlink) => decided(error, ErrorKind::NotADirectory),
        _ => error,
    }
}

/// Explains a failed OPENDIR: no directory?
pub(super) async fn list(client: &Client, path: &RemotePath, error: Error) -> Error {
    let error = error.at(path);
    if !is_vague(&error) && error.kind() != ErrorKind::NotFound {
        return error;
    }
    match stat(client, path).await {
        Some(FileKind::File | FileKind::Other) => decided(error, ErrorKind::NotADirectory),
        _ => error,
    }
}

/// Explains a failed WRITE, fsync or CLOSE: a full disk?
pub(super) async fn write(client: &Client, path: &RemotePath, error: Error) -> Error {
    disk(client, path, error.at(path)).await
}

async fn disk(client: &Client, path: &RemotePath, error: Error) -> Error {
    if !is_vague(&error) || !client.offers("statvfs@openssh.com") {
        return error;
    }
    match client.statvfs(path).await {
        Ok(disk) if disk.flags & 1 != 0 => decided(error, ErrorKind::ReadOnly),
        Ok(disk) if disk.available_blocks.saturating_mul(disk.fragment_size) < FULL_BELOW => {
            let free = disk.available_blocks.saturating_mul(disk.fragment_size);
            explained(error, ErrorKind::NoSpace, &format!("the disk is full, {free} bytes are free"))
        }
        _ => error,
    }
}

fn is_vague(error: &Error) -> bool {
    error.kind() == ErrorKind::Other
}

fn decided(error: Error, kind: ErrorKind) -> Error {
    let why = match kind {
        ErrorKind::NotFound => "it is not there",
        ErrorKind::IsADirectory => "it is a directory",
        ErrorKind::AlreadyExists => "something of that name is there already",
        ErrorKind::NotADirectory => "it or what should hold it is not a directory",
        ErrorKind::DirectoryNotEmpty => "it is not empty",
        ErrorKind::NoSpace => "the disk is full",
        ErrorKind::ReadOnly => "the file system is read-only",
        other => other.name(),
    };
    explained(error, kind, why)
}

fn explained(error: Error, kind: ErrorKind, why: &str) -> Error {
    let decided = Error::new(kind, format!("{}: {why}", error.message()));
    match error.path() {
        Some(path) => decided.at(path.to_owned()),
        None => decided,
    }
    .with_source(error)
}

async fn stat(client: &Client, path: &RemotePath) -> Option<FileKind> {
    kind(client, Request::Stat(super::bytes_of(path))).await
}

async fn lstat(client: &Client, path: &RemotePath) -> Option<FileKind> {
    kind(client, Request::Lstat(super::bytes_of(path))).await
}

async fn kind(client: &Client, request: Request) -> Option<FileKind> {
    client.attrs(request, "look at").await.ok().map(|attrs: Attrs| kind_of(attrs))
}

async fn has_entries(client: &Client, path: &RemotePath) -> bool {
    let Ok(mut listing) = super::list::Listing::open(client, path).await else { return false };
    matches!(listing.next().await, Ok(Some(_)))
}

//! Between the system's words and SFTP's: metadata and attributes, errors and statuses.

use std::io;
use std::time::SystemTime;

use crate::serve::root::{Metadata, MetadataExt, from_unix};
use crate::transport::sftp::wire::{Attrs, Response, StatusCode};

/// Returns the attributes that metadata stand for; times that don't fit are cut.
pub(super) fn attrs_of(metadata: &Metadata) -> Attrs {
    let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    Attrs {
        size: Some(metadata.len()),
        owner: Some((metadata.uid(), metadata.gid())),
        permissions: Some(metadata.mode()),
        times: Some((seconds(metadata.atime()), seconds(metadata.mtime()))),
    }
}

/// Returns access and modification time.
pub(super) fn times_of(attrs: &Attrs) -> Option<(SystemTime, SystemTime)> {
    attrs.times.map(|(accessed, modified)| (from_unix(accessed.into()), from_unix(modified.into())))
}

/// Returns the status that says "done".
pub(super) fn ok() -> Response {
    Response::status(StatusCode::OK, "")
}

/// Returns the status for an error. Version 3 has few codes; the text beside FAILURE tells the rest.
pub(super) fn failed(error: &io::Error) -> Response {
    use io::ErrorKind as Kind;
    let (code, text) = match error.kind() {
        Kind::NotFound => (StatusCode::NO_SUCH_FILE, "No such file or directory"),
        Kind::PermissionDenied => (StatusCode::PERMISSION_DENIED, "Permission denied"),
        Kind::InvalidFilename => (StatusCode::BAD_MESSAGE, "File name too long"),
        Kind::InvalidInput => (StatusCode::BAD_MESSAGE, "Invalid argument"),
        Kind::Unsupported => (StatusCode::OP_UNSUPPORTED, "Operation unsupported"),
        Kind::UnexpectedEof => (StatusCode::EOF, "End of file"),
        Kind::AlreadyExists => (StatusCode::FAILURE, "File exists"),
        Kind::NotADirectory => (StatusCode::FAILURE, "Not a directory"),
        Kind::IsADirectory => (StatusCode::FAILURE, "Is a directory"),
        Kind::DirectoryNotEmpty => (StatusCode::FAILURE, "Directory not empty"),
        Kind::StorageFull => (StatusCode::FAILURE, "No space left on device"),
        Kind::QuotaExceeded => (StatusCode::FAILURE, "Disk quota exceeded"),
        Kind::ReadOnlyFilesystem => (StatusCode::FAILURE, "Read-only file system"),
        _ => return Response::status(StatusCode::FAILURE, error.to_string()),
    };
    Response::status(code, text)
}

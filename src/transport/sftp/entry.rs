//! From SFTP's attributes to haul's entries.

use super::response::Name;
use super::wire::Attrs;
use crate::transport::{Entry, FileKind, Mtime};

const TYPE: u32 = 0o170_000;

/// Makes the entry of a path's attributes.
pub(super) fn entry(name: &[u8], attrs: Attrs) -> Entry {
    Entry {
        size: attrs.size,
        mtime: attrs.times.map(|(_, modified)| Mtime::from_unix(i64::from(modified))),
        mode: attrs.permissions.map(|bits| bits & 0o7777),
        ..Entry::new(name, kind_of(attrs))
    }
}

/// Makes the entry of one name of a listing.
pub(super) fn named(name: &Name) -> Entry {
    let mut entry = entry(&name.name, name.attrs);
    if name.attrs.permissions.is_none_or(|bits| bits & TYPE == 0) {
        // Some appliances tell the type only in the line for people.
        entry.kind = match name.long.first() {
            Some(b'-') => FileKind::File,
            Some(b'd') => FileKind::Directory,
            Some(b'l') => FileKind::Symlink,
            _ => FileKind::Other,
        };
    }
    entry
}

/// Tells the kind by the type bits of `st_mode`.
pub(super) fn kind_of(attrs: Attrs) -> FileKind {
    match attrs.permissions.map(|bits| bits & TYPE) {
        Some(0o100_000) => FileKind::File,
        Some(0o040_000) => FileKind::Directory,
        Some(0o120_000) => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

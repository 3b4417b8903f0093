//! The files and directories that a client has open.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::lanes::{Lane, Shared};
use crate::serve::root::{Item, Listing};

/// Open files and directories of one session.
pub(super) const MAX_HANDLES: usize = 1000;

/// What is open under a handle, and the lane that its requests run in.
pub(super) struct Handle {
    pub(super) open: Open,
    pub(super) lane: Arc<Lane>,
}

pub(super) enum Open {
    File(OpenFile),
    /// The listing, and the entry that didn't fit into the last answer.
    Directory(Box<Mutex<(Listing, Option<Item>)>>),
}

pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) append: bool,
    pub(super) writable: bool,
}

impl Open {
    pub(super) fn directory(listing: Listing) -> Self {
        Self::Directory(Box::new(Mutex::new((listing, None))))
    }

    /// Returns the file, or an error for a directory.
    pub(super) fn file(&self) -> io::Result<&OpenFile> {
        match self {
            Self::File(file) => Ok(file),
            Self::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }
}

/// The table; handles are never used twice.
pub(super) struct Handles {
    shared: Arc<Shared>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: HashMap<[u8; 8], Arc<Handle>>,
}

impl Handles {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, table: Mutex::default() }
    }

    pub(super) fn add(&self, open: Open) -> io::Result<Bytes> {
        let mut table = self.lock();
        if table.open.len() >= MAX_HANDLES {
            return Err(io::Error::other("Too many open handles"));
        }
        table.next += 1;
        let name = table.next.to_be_bytes();
        table.open.insert(name, Arc::new(Handle { open, lane: Lane::new(Arc::clone(&self.shared)) }));
        Ok(Bytes::copy_from_slice(&name))
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<Arc<Handle>> {
        self.lock().open.get(name).cloned()
    }

    /// Takes a handle out: later requests don't find it, those before still hold it.
    pub(super) fn take(&self, name: &[u8]) -> Option<Arc<Handle>> {
        self.lock().open.remove(name)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Where what is replaced or deleted goes: into another directory of the endpoint, under the path that it had.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::types::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Durability, RemotePath, Replace};

/// Other names that are tried for one that is taken.
const NAMES: u32 = 10_000;

/// A directory that takes what was in another one.
#[derive(Debug)]
pub struct Backup {
    /// What it stands in for.
    root: RemotePath,
    into: RemotePath,
    /// Directories that are there.
    made: Mutex<HashSet<RemotePath>>,
}

impl Backup {
    /// Names both directories, which are at one endpoint; `into` is made when it is first needed.
    pub fn new(root: RemotePath, into: RemotePath) -> Self {
        Self { root, into, made: Mutex::default() }
    }

    /// Returns where it keeps things.
    pub fn path(&self) -> &RemotePath {
        &self.into
    }

    /// Renames a file or link into the backup, under the path that `known_as` has, with a number behind its name where that is taken, and returns where it is
    /// now; `None` if nothing was there.
    ///
    /// # Errors
    /// Those of renaming, then it is where it was; the directory may lie on another file system.
    pub async fn take(&self, at: &Location, known_as: &Location) -> Result<Option<RemotePath>> {
        let depth = self.root.components().count();
        let mut names: Vec<&[u8]> = known_as.path.components().skip(depth).collect();
        let (true, Some(name)) = (known_as.path.is_at_or_below(&self.root), names.pop()) else {
            return Err(Error::new(ErrorKind::InvalidPath, "is not below what is backed up").at(at.shown()));
        };
        let dir = names.into_iter().try_fold(self.into.clone(), |dir, name| dir.join(name))?;
        self.make(at, dir.clone()).await?;
        for number in 0..NAMES {
            let ending = if number == 0 { String::new() } else { format!(".{number}") };
            let to = dir.join([name, ending.as_bytes()].concat())?;
            match at.transport.rename(&at.path, &to, Replace::No, Durability::Cached).await {
                Ok(()) => return Ok(Some(to)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => {
                    let error = error.context("move it to the backup directory");
                    return Err(error.with_hint("the backup directory must be on the file system of the destination"));
                }
            }
        }
        Err(Error::new(ErrorKind::AlreadyExists, "the backup directory has too many of this name").at(at.shown()))
    }

    /// Makes a directory of the backup, and those above it.
    fn make<'a>(&'a self, at: &'a Location, dir: RemotePath) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(&dir) {
                return Ok(());
            }
            let mut made = at.transport.create_dir(&dir).await;
            if let Err(error) = &made
                && error.kind() == ErrorKind::NotFound
                && let Some(parent) = dir.parent()
            {
                self.make(at, parent).await?;
                made = at.transport.create_dir(&dir).await;
            }
            match made {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    Err(error.context("make the backup directory"))
                }
                _ => {
                    self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(dir);
                    Ok(())
                }
            }
        })
    }
}

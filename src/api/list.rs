//! Listing.

use std::ffi::{OsStr, OsString};
use std::fmt;

use futures_util::TryStreamExt;

use super::login::{Login, login_methods};
use crate::error::Result;
use crate::plan::{self, Filter};
use crate::transport::{Entry, RemotePath};

/// A listing, made by [`list`](super::list()).
#[must_use = "nothing is listed until run is awaited"]
pub struct List {
    url: OsString,
    login: Login,
    plan: plan::Options,
}

/// What was found: a file, directory or link.
#[derive(Debug, Clone)]
pub struct Listed {
    url: String,
    path: RemotePath,
    entry: Entry,
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl List {
    pub(super) fn new(url: &OsStr) -> Self {
        Self { url: url.to_owned(), login: Login::default(), plan: plan::Options::default() }
    }

    login_methods!(login);

    /// Goes into directories.
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.plan.recursive = recursive;
        self
    }

    /// Lists only what a filter takes.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.plan.filter = filter;
        self
    }

    /// Lists: each directory before what is in it, otherwise in the server's order.
    ///
    /// # Errors
    /// The first thing that fails: a URL that is none, no connection, no login, a directory that can't be listed.
    pub async fn run(self) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        self.for_each(|listed| found.push(listed)).await?;
        Ok(found)
    }

    /// Lists, and hands over each entry as it comes: for directories of any length.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn for_each(self, mut take: impl FnMut(Listed)) -> Result<()> {
        let state_dir = self.login.state_dir()?;
        let mut connections = self.login.connections(&state_dir);
        let place = connections.place(&self.url).await?;
        let mut found = plan::list(&place, self.plan).await?;
        while let Some((at, entry)) = found.try_next().await? {
            take(Listed { url: at.url, path: at.path, entry });
        }
        drop(found);
        connections.close().await;
        Ok(())
    }
}

impl Listed {
    /// Returns its URL, percent-encoded and without a password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns its absolute path at the server.
    pub fn path(&self) -> &RemotePath {
        &self.path
    }

    /// Returns what the server tells about it.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

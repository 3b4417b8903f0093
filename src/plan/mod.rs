//! Deciding what to move: globs, filters, walks, and where things land.

pub mod check;
pub mod check_trees;
pub mod compare;
mod copy;
pub mod digest;
mod filter;
mod glob;
mod list;
pub mod sums;
pub mod sync;
#[cfg(test)]
mod testing;
mod tree;
mod walk;

use std::sync::Arc;

use crate::endpoint::{Base, Endpoint};
use crate::error::Result;
use crate::transfer::Location;
use crate::transport::{RemotePath, Transport};

pub use copy::{Options, carry_out, copy};
pub use filter::{Filter, FilterBuilder, HAULIGNORE, Scope};
pub use glob::{expand, has_wildcards};
pub use list::list;

/// What the user named, connected.
#[derive(Debug, Clone)]
pub struct Place {
    /// The endpoint, logged in.
    pub transport: Arc<dyn Transport>,
    /// What the user typed.
    pub endpoint: Endpoint,
}

impl Place {
    /// Returns the absolute path that the user named, wildcards taken literally.
    pub async fn path(&self) -> Result<RemotePath> {
        let base = self.base().await?;
        self.endpoint.path.resolve(&base)
    }

    /// Returns where the path starts; asks the server only if that is the directory which the login starts in.
    pub(super) async fn base(&self) -> Result<RemotePath> {
        match self.endpoint.path.base {
            Base::Root => Ok(RemotePath::root()),
            Base::Home => self.transport.home().await,
        }
    }

    /// Returns a path at this endpoint as a location.
    pub fn location(&self, path: RemotePath) -> Location {
        let url = self.endpoint.url_of(&path);
        Location { transport: Arc::clone(&self.transport), path, url }
    }
}

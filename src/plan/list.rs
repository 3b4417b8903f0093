//! Listing what a place holds, file by file.

use std::collections::VecDeque;

use futures_util::{Stream, stream};

use super::filter::Scope;
use super::walk::{Listing, Retries};
use super::{Options, Place, expand};
use crate::error::Result;
use crate::transfer::Location;
use crate::transport::{Entry, FileKind, Follow};

/// Lists what a place names, as they come: a file itself, a directory's entries; with `recursive` also those below it, each
/// directory before what is in it. Links are not followed, but for the place itself.
///
/// The filter of the options holds as for copies; `preserve` means nothing here. After an error the stream ends.
///
/// # Errors
/// `NotFound` when nothing is there, or nothing matches its wildcards; `Usage` for a malformed pattern.
pub async fn list(
    place: &Place,
    options: Options,
) -> Result<impl Stream<Item = Result<(Location, Entry)>> + Send + Unpin + use<>> {
    let mut walk = Walk { options, ready: VecDeque::new(), waiting: Vec::new(), open: None };
    for (path, entry) in expand(place).await? {
        let at = place.location(path);
        let entry = match entry.filter(|entry| entry.kind != FileKind::Symlink) {
            Some(entry) => entry,
            None => at.transport.stat(&at.path, Follow::Links).await?,
        };
        match entry.kind {
            FileKind::Directory => walk.waiting.push((at, walk.options.filter.root())),
            _ => walk.ready.push_back((at, entry)),
        }
    }
    walk.waiting.reverse();
    Ok(Box::pin(stream::try_unfold(walk, async |mut walk| Ok(walk.next().await?.map(|found| (found, walk))))))
}

struct Walk {
    options: Options,
    /// Files that were named themselves.
    ready: VecDeque<(Location, Entry)>,
    /// Directories to list, the next one last.
    waiting: Vec<(Location, Scope)>,
    open: Option<Open>,
}

/// The directory that is being listed, and those that were found in it.
struct Open {
    at: Location,
    listing: Listing,
    below: Vec<(Location, Scope)>,
}

impl Walk {
    async fn next(&mut self) -> Result<Option<(Location, Entry)>> {
        if let Some(found) = self.ready.pop_front() {
            return Ok(Some(found));
        }
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                none => {
                    let Some((at, scope)) = self.waiting.pop() else { return Ok(None) };
                    let retries = Retries { retries: self.options.retries, wait: self.options.retry_wait };
                    none.insert(Open { listing: Listing::new(at.clone(), scope, retries), at, below: Vec::new() })
                }
            };
            while let Some(found) = open.listing.next().await.map_err(|error| error.at(open.at.shown()))? {
                if !found.taken {
                    continue;
                }
                let at = open.at.child(&found.entry.name)?;
                if self.options.recursive && found.entry.is_dir() {
                    open.below.push((at.clone(), open.listing.scope().await?.enter(&found.entry.name)));
                }
                return Ok(Some((at, found.entry)));
            }
            if let Some((_, error)) = open.listing.take_missing().pop() {
                return Err(error);
            }
            let below = self.open.take().map(|open| open.below).unwrap_or_default();
            self.waiting.extend(below.into_iter().rev());
        }
    }
}

//! Both ends of a run: what they are, and that neither lies in the other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::plan::Place;
use crate::plan::compare::Root;
use crate::transfer::{Backup, Location};
use crate::transport::{Entry, Follow, RemotePath};

/// Links that are followed in one path.
const MOST_HOPS: usize = 40;

/// The destination.
pub(super) struct Target {
    pub(super) at: Location,
    /// What is there; `None`: nothing yet.
    pub(super) entry: Option<Entry>,
}

/// Looks at both ends, and where the backup is, through whatever links it is called.
///
/// # Errors
/// When one is no directory, or one lies in the other; `NotFound` for a source that isn't there.
pub(super) async fn find(
    source: &Place,
    mut destination: Place,
    backup: Option<&Backup>,
) -> Result<(Root, Target, Option<Backup>)> {
    let from = source.path().await?;
    let entry = source.transport.stat(&from, Follow::Links).await?;
    let left = Root { at: source.location(from), entry };
    if !left.entry.is_dir() {
        return Err(Error::new(ErrorKind::NotADirectory, "is not a directory")
            .at(left.at.shown())
            .with_hint("sync makes one directory equal to another; get and put copy files"));
    }
    let to = destination.path().await?;
    let entry = match destination.transport.stat(&to, Follow::Links).await {
        Ok(entry) => Some(entry),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    // The way to the destination is the user's; below it, no link is followed.
    if let Some(held) = destination.transport.beneath(&to) {
        destination.transport = held;
    }
    let at = destination.location(to);
    if entry.as_ref().is_some_and(|entry| !entry.is_dir()) {
        return Err(Error::new(ErrorKind::NotADirectory, "is not a directory")
            .at(at.shown())
            .with_hint("sync makes one directory equal to another; get and put copy files"));
    }
    refuse_nested(&left.at, &at, "the source").await?;
    let backup = match backup {
        Some(backup) => Some(settled(&left.at, &at, backup).await?),
        None => None,
    };
    Ok((left, Target { at, entry }, backup))
}

async fn refuse_nested(left: &Location, right: &Location, what: &str) -> Result<()> {
    let (one, other) = (really(left).await, really(right).await);
    let nested = one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| {
        one.0 == other.0 && (one.1.is_at_or_below(&other.1) || other.1.is_at_or_below(&one.1))
    });
    match nested {
        true if one == other => Err(Error::new(ErrorKind::Usage, format!("is the same directory as {what}"))),
        true => Err(Error::new(ErrorKind::Usage, format!("{what} and this lie in one another"))
            .with_hint("sync between directories that have nothing in common")),
        false => Ok(()),
    }
    .map_err(|error| error.at(right.shown()))
}

/// The backup may lie in the destination, where it is left alone, but not around it, nor in the source or around that.
async fn settled(left: &Location, right: &Location, backup: &Backup) -> Result<Backup> {
    let held = followed(right).await;
    let mut into = followed(&right.sibling(backup.path().clone())).await;
    if right.path.is_at_or_below(backup.path()) || held.is_at_or_below(&into) {
        return Err(Error::new(ErrorKind::Usage, "the backup directory holds the destination")
            .at(backup.path())
            .with_hint("give it a directory of its own, beside the destination or in it"));
    }
    refuse_nested(left, &right.sibling(into.clone()), "the source").await?;
    if into.is_at_or_below(&held) {
        // As the destination is called, by which it is known there.
        let depth = held.components().count();
        let names: Vec<_> = into.components().skip(depth).collect();
        let inside = names.into_iter().try_fold(right.path.clone(), |path, name| path.join(name))?;
        into = inside;
    }
    Ok(Backup::new(right.path.clone(), into))
}

/// Returns which endpoint a location is at, and its path there with links followed as far as they can be.
async fn really(at: &Location) -> Option<(Vec<u8>, RemotePath)> {
    if at.transport.capabilities().local {
        return Some((b"file".to_vec(), resolved(&at.path)));
    }
    let known = match at.transport.place(&at.path).await {
        Some(place) => place.strip_suffix(at.path.as_bytes())?.to_vec(),
        None => at.url.split('/').take(3).collect::<Vec<_>>().join("/").into_bytes(),
    };
    Some((known, at.path.clone()))
}

/// Follows the links in a path, of which the end need not be there. What a server doesn't tell is taken for no link.
async fn followed(at: &Location) -> RemotePath {
    if at.transport.capabilities().local {
        return resolved(&at.path);
    }
    // The next one at the end.
    let names_of = |path: &RemotePath| {
        let mut names: Vec<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        names.reverse();
        names
    };
    let mut names = names_of(&at.path);
    let (mut path, mut hops) = (RemotePath::root(), 0);
    while let Some(name) = names.pop() {
        let Ok(next) = path.join(&name) else { return at.path.clone() };
        match at.transport.read_link(&next).await.map(|target| path.resolve(target)) {
            Ok(Ok(_)) if hops == MOST_HOPS => return at.path.clone(),
            Ok(Ok(target)) => {
                hops += 1;
                names.extend(names_of(&target));
                path = RemotePath::root();
            }
            _ => path = next,
        }
    }
    path
}

/// Follows the links in a path of this machine, of which the end need not be there.
fn resolved(path: &RemotePath) -> RemotePath {
    let whole = PathBuf::from(OsStr::from_bytes(path.as_bytes()));
    let found = whole.ancestors().find_map(|above| {
        let real = above.canonicalize().ok()?;
        let rest = whole.strip_prefix(above).unwrap_or(Path::new(""));
        RemotePath::new(real.join(rest).as_os_str().as_bytes()).ok()
    });
    found.unwrap_or_else(|| path.clone())
}

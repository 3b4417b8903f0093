//! Two trees compared: walked together, one pair of directories at a time and many pairs at once.
//!
//! `list` takes a directory whole, `judge` compares two entries, `clock` and `memory` find out and remember what a
//! listing doesn't tell. Memory: the names of the directories that are under way, and nothing of those that are through.

mod clock;
mod digests;
mod judge;
mod list;
pub(crate) mod memory;
mod words;

use std::cmp::Ordering;

use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind};
use crate::plan::filter::Scope;
use crate::plan::walk::Retries;
use crate::transfer::{Budget, Location, is_part_name};
use crate::transport::{Entry, FileKind, Follow};

pub(crate) use digests::Prover;
use judge::Judge;
pub(crate) use list::whole;
use list::{Filtered, Seen, filtered};
pub use words::{Apart, By, Comparing, Difference, Finding, Links, Side, Verdict, Why};

/// Findings that wait to be taken.
const FINDINGS_AHEAD: usize = 1024;
/// Pairs of directories under way at once, and where a connection carries only one listing.
const PAIRS: usize = 32;
const PAIRS_ALONE: usize = 4;
/// Entries of a directory that are looked at closely at once.
const LOOKS: usize = 32;

/// A directory of a tree, and what is known of it.
#[derive(Debug, Clone)]
pub struct Root {
    /// Where it is.
    pub at: Location,
    /// What it is.
    pub entry: Entry,
}

/// Compares two directories and all that is below them; of a tree that isn't there, nothing is.
///
/// A directory is told before what is in it; of one directory what the right tree has comes first, then what it hasn't, each
/// in the order of the names' bytes. The comparison goes on by itself as its findings are taken, and ends when they are dropped. `path` goes in front of every path.
pub fn compare(
    left: Option<Root>,
    right: Option<Root>,
    path: Vec<u8>,
    options: Comparing,
) -> impl Stream<Item = Finding> + Send + Unpin {
    let (findings, mut receiver) = mpsc::channel(FINDINGS_AHEAD);
    tokio::spawn(async move {
        let mut scope = options.filter.root();
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            scope = scope.enter(name);
        }
        let walk =
            Walk { judge: Judge::new(left.as_ref(), right.as_ref(), &options, findings.clone()), options, findings };
        // It fails only when nobody takes the findings any more.
        let _ = walk.run(Pair { path, left, right, scope }).await;
    });
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

/// Returns a path below a root, as a location.
///
/// # Errors
/// `InvalidPath` for a path with a name in it that would lead elsewhere.
pub fn below(root: &Location, path: &[u8]) -> crate::Result<Location> {
    path.split(|&b| b == b'/').filter(|name| !name.is_empty()).try_fold(root.clone(), |at, name| at.child(name))
}

/// Two directories of one path.
struct Pair {
    path: Vec<u8>,
    left: Option<Root>,
    right: Option<Root>,
    /// What the filter says here.
    scope: Scope,
}

/// Nobody takes the findings any more.
struct Stopped;

struct Walk {
    judge: Judge,
    options: Comparing,
    findings: mpsc::Sender<Finding>,
}

/// What became of one name.
enum Looked {
    Found(Box<Difference>),
    Apart(Apart),
    Failed(Side, Error),
}

impl Walk {
    async fn run(&self, roots: Pair) -> Result<(), Stopped> {
        let streams = |root: &Option<Root>| root.as_ref().map_or(usize::MAX, |r| r.at.transport.capabilities().streams);
        // Where a connection carries only one listing, most of them are for the files.
        let at_once = if streams(&roots.left).min(streams(&roots.right)) > 1 { PAIRS } else { PAIRS_ALONE };
        let mut pending = vec![roots];
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < at_once
                && let Some(pair) = pending.pop()
            {
                under_way.push(self.directory(pair));
            }
            let Some(found) = under_way.next().await else { return Ok(()) };
            // The last one is taken next: deep before wide, so that few directories wait.
            pending.extend(found?.into_iter().rev());
        }
    }

    /// Compares what is right in two directories, and returns the pairs below.
    async fn directory(&self, mut pair: Pair) -> Result<Vec<Pair>, Stopped> {
        let Some((mut lefts, mut rights)) = self.list(&mut pair).await? else { return Ok(Vec::new()) };
        if let (Some(left), Some(right)) = (&pair.left, &pair.right) {
            self.judge.look_closer_at_all(&left.at, &mut lefts, &right.at, &mut rights).await;
        }
        let mut inside =
            Inside { pair: &pair, is_bare: lefts.is_empty(), changed: false, entries: 0, below: Vec::new() };
        let mut looks = FuturesOrdered::new();
        // What is there comes first: only then is it known what another name may land on.
        let (there, missing): (Vec<_>, Vec<_>) = joined(lefts, rights).partition(|(_, right)| right.is_some());
        for (left, right) in there.into_iter().chain(missing) {
            looks.push_back(self.look(&pair, left, right));
            if looks.len() >= LOOKS
                && let Some((name, looked)) = looks.next().await
            {
                self.take(&mut inside, name, looked).await?;
            }
        }
        while let Some((name, looked)) = looks.next().await {
            self.take(&mut inside, name, looked).await?;
        }
        drop(looks);
        let Inside { is_bare, changed, entries, below, .. } = inside;
        let entry = |root: Option<Root>| root.map(|root| root.entry);
        let Pair { path, left, right, .. } = pair;
        let (left, right) = (entry(left), entry(right));
        self.tell(Finding::Listed { path, left, right, changed, entries, is_bare }).await?;
        Ok(below)
    }

    /// Lists both directories at once, and takes the left one's own patterns into the scope; `None` when that failed.
    async fn list(&self, pair: &mut Pair) -> Result<Option<(Vec<Seen>, Vec<Seen>)>, Stopped> {
        let (retries, wait) = (self.options.retries, self.options.retry_wait);
        let (left, right) = (pair.left.as_ref(), pair.right.as_ref());
        let scope = pair.scope.clone();
        let lefts = async {
            match left {
                Some(root) => filtered(&root.at, scope, Retries { retries, wait }).await,
                None => Ok(Filtered { entries: Vec::new(), scope, missing: Vec::new() }),
            }
        };
        let rights = async {
            match right {
                Some(root) => whole(&root.at, Budget::new(retries, wait)).await,
                None => Ok(Vec::new()),
            }
        };
        match tokio::join!(lefts, rights) {
            (Ok(lefts), Ok(rights)) => {
                for (_, error) in lefts.missing {
                    self.tell(Finding::Failed { side: Side::Left, path: pair.path.clone(), error }).await?;
                }
                pair.scope = lefts.scope;
                let seen = |entry: Entry| Seen { taken: pair.scope.takes(&entry), entry };
                Ok(Some((lefts.entries, rights.into_iter().map(seen).collect())))
            }
            (lefts, rights) => {
                for (side, error) in [(Side::Left, lefts.err()), (Side::Right, rights.err())] {
                    if let Some(error) = error {
                        self.tell(Finding::Failed { side, path: pair.path.clone(), error }).await?;
                    }
                }
                Ok(None)
            }
        }
    }

    /// Tells of one name, and remembers the directory that is to be entered.
    async fn take(&self, inside: &mut Inside<'_>, name: Vec<u8>, looked: Looked) -> Result<(), Stopped> {
        let path = joined_path(&inside.pair.path, &name);
        let difference = match looked {
            Looked::Apart(why) => return self.tell(Finding::Apart { path, why }).await,
            Looked::Failed(side, error) => return self.tell(Finding::Failed { side, path, error }).await,
            Looked::Found(difference) => Difference { path, ..*difference },
        };
        inside.entries += usize::from(difference.left.is_some());
        inside.changed |= difference.verdict != Verdict::Equal;
        match self.enter(inside.pair, &name, &difference) {
            Ok(Some(pair)) => inside.below.push(pair),
            Ok(None) => {}
            Err((side, error)) => {
                return self.tell(Finding::Failed { side, path: difference.path, error }).await;
            }
        }
        self.tell(Finding::Pair(difference)).await
    }

    /// Returns the pair of directories to go on with, if this is one.
    fn enter(&self, pair: &Pair, name: &[u8], difference: &Difference) -> Result<Option<Pair>, (Side, Error)> {
        let is_dir = |entry: &Option<Entry>| entry.as_ref().is_some_and(Entry::is_dir);
        let (left, right) = (is_dir(&difference.left), is_dir(&difference.right));
        let goes_on = match difference.verdict {
            Verdict::Missing => left,
            Verdict::Extra => right && self.options.inside_extra,
            Verdict::Equal | Verdict::Different(_) => left && right,
        };
        if !goes_on {
            return Ok(None);
        }
        let child = |side, root: &Option<Root>, entry: &Option<Entry>| match (root, entry) {
            (Some(root), Some(entry)) => {
                let at = root.at.child(name).map_err(|error| (side, error))?;
                Ok(Some(Root { at, entry: entry.clone() }))
            }
            _ => Ok(None),
        };
        Ok(Some(Pair {
            path: difference.path.clone(),
            left: child(Side::Left, &pair.left, &difference.left)?,
            right: child(Side::Right, &pair.right, &difference.right)?,
            scope: pair.scope.enter(name),
        }))
    }

    /// Compares what two directories have under one name.
    async fn look(&self, pair: &Pair, left: Option<Seen>, right: Option<Seen>) -> (Vec<u8>, Looked) {
        let name = left.as_ref().or(right.as_ref()).map(|seen| seen.entry.name.clone()).unwrap_or_default();
        let looked = self.look_at(pair, &name, left, right).await;
        (name, looked.unwrap_or_else(|(side, error)| Looked::Failed(side, error)))
    }

    async fn look_at(
        &self,
        pair: &Pair,
        name: &[u8],
        left: Option<Seen>,
        right: Option<Seen>,
    ) -> Result<Looked, (Side, Error)> {
        let place = |side, root: &Option<Root>| {
            root.as_ref().map(|root| root.at.child(name)).transpose().map_err(|error| (side, error))
        };
        let (at_left, at_right) = (place(Side::Left, &pair.left)?, place(Side::Right, &pair.right)?);
        let kept_apart =
            self.options.apart.is_some() && at_right.as_ref().map(|at| &at.path) == self.options.apart.as_ref();
        if is_part_name(name) || kept_apart {
            return Ok(Looked::Apart(Apart::Own));
        }
        let excluded = [&left, &right].into_iter().flatten().any(|seen| !seen.taken);
        let entry = |seen: Option<Seen>| seen.map(|seen| seen.entry);
        let (mut left, mut right) = (entry(left), entry(right));
        if excluded {
            return Ok(match right.filter(|_| self.options.excluded_is_extra) {
                None => Looked::Apart(Apart::Excluded),
                right => {
                    Looked::Found(Box::new(Difference { path: Vec::new(), left: None, right, verdict: Verdict::Extra }))
                }
            });
        }
        if let (Some(entry), Some(at)) = (&mut left, &at_left) {
            match entry.kind {
                FileKind::Other => return Ok(Looked::Apart(Apart::NotRegular)),
                FileKind::Symlink if self.options.links == Links::Skip => return Ok(Looked::Apart(Apart::Link)),
                FileKind::Symlink if self.options.links == Links::Follow => match follow(entry, at).await {
                    Ok(true) => {}
                    Ok(false) => return Ok(Looked::Apart(Apart::LinkToDirectory)),
                    Err(error) => return Err((Side::Left, error.context("follow the link"))),
                },
                _ => {}
            }
        }
        let verdict = match (&mut left, &mut right) {
            (Some(left), Some(right)) => match (&at_left, &at_right) {
                (Some(at_left), Some(at_right)) => self.judge.pair(at_left, left, at_right, right).await?,
                _ => Verdict::Equal,
            },
            (Some(_), None) => Verdict::Missing,
            (None, _) => Verdict::Extra,
        };
        Ok(Looked::Found(Box::new(Difference { path: Vec::new(), left, right, verdict })))
    }

    async fn tell(&self, finding: Finding) -> Result<(), Stopped> {
        self.findings.send(finding).await.map_err(|_| Stopped)
    }
}

/// What was found in a pair of directories so far.
struct Inside<'a> {
    pair: &'a Pair,
    is_bare: bool,
    changed: bool,
    entries: usize,
    below: Vec<Pair>,
}

/// Makes of a link what it leads to, under its own name; returns whether that is a file.
async fn follow(entry: &mut Entry, at: &Location) -> Result<bool, Error> {
    let found = at.transport.stat(&at.path, Follow::Links).await?;
    if found.kind == FileKind::Other {
        return Err(Error::new(ErrorKind::Unsupported, "is not a regular file").at(at.shown()));
    }
    let is_file = found.kind == FileKind::File;
    *entry = Entry { name: std::mem::take(&mut entry.name), target: None, ..found };
    Ok(is_file)
}

fn joined_path(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// Joins two listings, sorted by name, by their names.
fn joined(lefts: Vec<Seen>, rights: Vec<Seen>) -> impl Iterator<Item = (Option<Seen>, Option<Seen>)> + Send {
    let (mut lefts, mut rights) = (lefts.into_iter().peekable(), rights.into_iter().peekable());
    std::iter::from_fn(move || {
        let order = match (lefts.peek(), rights.peek()) {
            (Some(left), Some(right)) => left.entry.name.cmp(&right.entry.name),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        Some(match order {
            Ordering::Less => (lefts.next(), None),
            Ordering::Equal => (lefts.next(), rights.next()),
            Ordering::Greater => (None, rights.next()),
        })
    })
}

#[cfg(test)]
mod tests;

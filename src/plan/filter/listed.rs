//! A list of paths: nothing else is looked at.

use std::cmp::Ordering;
use std::ops::Range;

/// Bytes of the longest path taken; no system has longer ones.
const LONGEST_PATH: usize = 64 * 1024;

/// Paths relative to the root of a tree, each once, so sorted that what lies in one directory lies together.
#[derive(Debug)]
pub(super) struct Listed {
    paths: Vec<Box<[u8]>>,
}

/// What of a list lies in one directory, which it names neither itself nor by one above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    range: Range<usize>,
    /// How deep the directory is.
    depth: usize,
}

/// A name in a directory that a list leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plan) struct Named {
    /// The name.
    pub(in crate::plan) name: Vec<u8>,
    /// It is a directory on the way to these paths, which begin with its name; empty if the list names it itself.
    pub(in crate::plan) towards: Vec<Vec<u8>>,
}

impl Listed {
    /// Reads paths that are separated by NUL if there is one, else by line ends.
    ///
    /// # Errors
    /// For a path that leads out of the tree: its number from 1, and what is wrong.
    pub(super) fn read(text: &[u8]) -> Result<Self, (usize, String)> {
        let separator = if text.contains(&0) { 0 } else { b'\n' };
        let mut paths = Vec::new();
        for (number, path) in (1..).zip(text.split(|byte| *byte == separator)) {
            let path = if separator == b'\n' { path.strip_suffix(b"\r").unwrap_or(path) } else { path };
            if path.is_empty() {
                continue;
            }
            if path.len() > LONGEST_PATH {
                return Err((number, format!("is no path: it is longer than {} KiB", LONGEST_PATH >> 10)));
            }
            let names: Vec<_> = names(path).filter(|name| *name != b".").collect();
            if names.iter().any(|name| *name == b"..") {
                return Err((number, "a path with .. may lead out of the source".into()));
            }
            paths.push(names.join(&b'/').into_boxed_slice());
        }
        paths.sort_by(|one, other| compare(one, other));
        paths.dedup();
        Ok(Self { paths })
    }

    /// Returns what lies in the root; `None` if the list names the root itself, and so everything.
    pub(super) fn root(&self) -> Option<Part> {
        let whole = self.paths.first().is_some_and(|path| path.is_empty());
        (!whole).then_some(Part { range: 0..self.paths.len(), depth: 0 })
    }

    /// Returns whether the list names this, or something in it.
    pub(super) fn leads_to(&self, part: &Part, name: &[u8]) -> bool {
        !self.below(part, name).is_empty()
    }

    /// Returns what lies in a directory; `None` if the list names it, and so everything in it.
    pub(super) fn enter(&self, part: &Part, name: &[u8]) -> Option<Part> {
        let range = self.below(part, name);
        let depth = part.depth + 1;
        let named = self.paths[range.clone()].first().is_some_and(|path| names(path).count() == depth);
        (!named).then_some(Part { range, depth })
    }

    /// Returns the names in a directory, in their order.
    pub(super) fn names(&self, part: &Part) -> Vec<Named> {
        let mut found: Vec<Named> = Vec::new();
        // Paths below one that is named are a part of it: they come behind it, and say nothing.
        for path in &self.paths[part.range.clone()] {
            let below: Vec<_> = names(path).skip(part.depth).collect();
            let Some(name) = below.first().copied() else { continue };
            let towards = (below.len() > 1).then(|| below.join(&b'/'));
            match found.last_mut() {
                Some(last) if last.name == name && last.towards.is_empty() => {}
                Some(last) if last.name == name => last.towards.extend(towards),
                _ => found.push(Named { name: name.to_vec(), towards: towards.into_iter().collect() }),
            }
        }
        found
    }

    fn below(&self, part: &Part, name: &[u8]) -> Range<usize> {
        let paths = &self.paths[part.range.clone()];
        let first = |path: &[u8]| names(path).nth(part.depth).unwrap_or_default().cmp(name);
        let start = paths.partition_point(|path| first(path) == Ordering::Less);
        let length = paths[start..].partition_point(|path| first(path) == Ordering::Equal);
        part.range.start + start..part.range.start + start + length
    }
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// Compares name by name: in bytes alone, `a-b` would come between `a` and `a/c`.
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    names(one).cmp(names(other))
}

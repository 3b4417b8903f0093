//! What a filter says in one directory.

use std::sync::Arc;

use super::Filter;
use super::listed::{Named, Part};
use super::measures::Verdict;
use super::rules::{Ignores, Otherwise, Path};
use crate::transport::{Entry, FileKind};

/// A filter in one directory of a tree.
///
/// It knows the `.haulignore` files of the directories above; its own it knows once the directory was listed.
#[derive(Debug, Clone)]
pub struct Scope {
    filter: Filter,
    /// Where the directory lies below the root, with a slash behind each name.
    path: Vec<u8>,
    depth: usize,
    /// What happens here to what no pattern matches.
    otherwise: Otherwise,
    ignores: Option<Arc<Ignores>>,
    /// What of the list of paths lies here, if only that counts.
    listed: Option<Part>,
}

impl Scope {
    pub(super) fn root(filter: Filter, otherwise: Otherwise) -> Self {
        let listed = filter.0.listed.as_ref().and_then(|listed| listed.root());
        Self { path: Vec::new(), depth: 0, otherwise, ignores: None, listed, filter }
    }

    /// Returns whether an entry of this directory is taken; for a directory: whether it is gone into.
    ///
    /// A file whose size or time is unknown, or too coarse to tell, is taken.
    pub fn takes(&self, entry: &Entry) -> bool {
        self.verdict(entry) != Verdict::Leaves
    }

    /// Returns whether an entry is taken as far as name and place go, whatever its size and time.
    pub fn takes_name(&self, name: &[u8], kind: FileKind) -> bool {
        let is_directory = kind == FileKind::Directory;
        self.is_listed(name) && self.is_shallow(is_directory) && self.rules_take(name, is_directory)
    }

    /// Returns the scope of a directory below this one. It need not be one that is taken.
    #[must_use]
    pub fn enter(&self, name: &[u8]) -> Self {
        let mut path = Vec::with_capacity(self.path.len() + name.len() + 1);
        path.extend_from_slice(&self.path);
        path.extend_from_slice(name);
        path.push(b'/');
        let included = self.filter.0.rules.decide(&mut Path::new(&self.path, name), true) == Some(true);
        let listed = match (&self.filter.0.listed, &self.listed) {
            (Some(listed), Some(part)) => listed.enter(part, name),
            _ => None,
        };
        Self {
            filter: self.filter.clone(),
            path,
            depth: self.depth + 1,
            otherwise: if included { Otherwise::Taken } else { self.otherwise },
            ignores: self.ignores.clone(),
            listed,
        }
    }

    /// Returns whether everything in and below this directory is taken, and no `.haulignore` can change that.
    pub fn takes_all(&self) -> bool {
        !self.heeds_haulignore() && self.rules_out_nothing_yet()
    }

    /// Returns whether everything in and below this directory is taken as far as is known now.
    pub(in crate::plan) fn rules_out_nothing_yet(&self) -> bool {
        let parts = &self.filter.0;
        let no_rule = parts.rules.patterns.is_empty() && self.ignores.is_none() && self.listed.is_none();
        no_rule && parts.deepest.is_none() && parts.measures.are_none()
    }

    /// Returns whether this directory's `.haulignore` counts. Where only what a list names is looked at, it doesn't.
    pub(in crate::plan) fn heeds_haulignore(&self) -> bool {
        self.filter.0.haulignore && self.listed.is_none()
    }

    /// Takes the text of this directory's `.haulignore`; `shown` is its name for messages.
    pub(in crate::plan) fn heed(&mut self, text: &[u8], shown: &str) {
        self.ignores = Ignores::read(text, self.depth, self.ignores.take(), shown);
    }

    /// Returns the names that are to be looked at; `None` if all that a listing finds are.
    pub(in crate::plan) fn names(&self) -> Option<Vec<Named>> {
        let (listed, part) = (self.filter.0.listed.as_ref()?, self.listed.as_ref()?);
        Some(listed.names(part))
    }

    /// Returns whether an entry is taken, or whether more has to be known.
    pub(in crate::plan) fn verdict(&self, entry: &Entry) -> Verdict {
        match self.takes_name(&entry.name, entry.kind) {
            true => self.measured(entry),
            false => Verdict::Leaves,
        }
    }

    /// Returns whether an entry is taken as far as size and time go.
    pub(in crate::plan) fn measured(&self, entry: &Entry) -> Verdict {
        self.filter.0.measures.verdict(entry)
    }

    fn is_listed(&self, name: &[u8]) -> bool {
        match (&self.filter.0.listed, &self.listed) {
            (Some(listed), Some(part)) => listed.leads_to(part, name),
            _ => true,
        }
    }

    fn is_shallow(&self, is_directory: bool) -> bool {
        let depth = self.depth + 1 + usize::from(is_directory);
        self.filter.0.deepest.is_none_or(|deepest| depth <= deepest as usize)
    }

    fn rules_take(&self, name: &[u8], is_directory: bool) -> bool {
        let rules = &self.filter.0.rules;
        let mut path = Path::new(&self.path, name);
        if let Some(taken) = rules.decide(&mut path, is_directory) {
            return taken;
        }
        let ignored = self.ignores.as_ref().and_then(|ignores| ignores.decide(&mut path, is_directory));
        match (ignored, self.otherwise) {
            (Some(false), _) => false,
            (_, Otherwise::Taken) => true,
            // On the way to what is included.
            (_, Otherwise::LeftOut) => is_directory && rules.may_include_below(&mut path),
        }
    }
}

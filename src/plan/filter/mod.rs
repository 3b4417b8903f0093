//! What of a tree is taken: patterns as gitignore(5) has them, sizes, ages, depth, a list of paths.
//!
//! A [`Filter`] is made once; [`Filter::root`] gives the [`Scope`] of a tree's root, and [`Scope::enter`] that of each
//! directory below. A scope is asked about the entries of its directory and knows nothing of disks or servers: what
//! lists a directory (`plan::walk`) reads its `.haulignore` and tells the scope.

use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Entry, FileKind};

mod listed;
mod measures;
mod pattern;
mod rules;
mod scope;

use listed::Listed;
pub(super) use listed::Named;
use measures::Measures;
pub(super) use measures::Verdict;
use pattern::Pattern;
use rules::{Otherwise, Rules};
pub use scope::Scope;

/// The file of patterns that a directory may hold for what is in and below it.
pub const HAULIGNORE: &[u8] = b".haulignore";

/// What of a tree is taken. Cheap to clone; the default takes everything, and `.haulignore` is a file like others.
///
/// An entry is taken if every part says so:
/// - **Patterns**: of all that match, the last one decides. What none matches is taken, unless the first option was an
///   include: then it is left out, except below a directory that was included. What lies below a directory that was
///   ruled out is never looked at.
/// - **`.haulignore`** files, where they are heeded, decide on what no pattern matches; of several, the deepest first.
/// - **Sizes and times** concern files. One whose size or time the server doesn't tell is taken, as is one whose time is
///   too coarse to tell: nothing is missing from a copy because a server is vague.
/// - **Depth**: entries of the root have depth 1; a directory at the last depth is not gone into, nor made.
/// - **A list of paths**: only these are looked at; a directory in it is taken with all that is in it.
#[derive(Debug, Clone, Default)]
pub struct Filter(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    rules: Rules,
    haulignore: bool,
    measures: Measures,
    deepest: Option<u32>,
    listed: Option<Arc<Listed>>,
}

impl Filter {
    /// Starts a filter.
    pub fn builder() -> FilterBuilder {
        FilterBuilder::default()
    }

    /// Returns the scope of a tree's root.
    pub fn root(&self) -> Scope {
        self.root_of(None)
    }

    /// Returns whether it takes an operand that the user named, as far as its name, size and time go. Patterns with a
    /// slash are about what lies below operands, and not about operands.
    pub(super) fn operand(&self, name: &[u8], entry: &Entry) -> Verdict {
        let is_directory = entry.kind == FileKind::Directory;
        let taken = match self.0.rules.for_names(name, is_directory) {
            Some(taken) => taken,
            None => is_directory || self.0.rules.otherwise == Otherwise::Taken,
        };
        if taken { self.0.measures.verdict(entry) } else { Verdict::Leaves }
    }

    /// Returns the scope of an operand's tree: one that was included by its name is taken whole.
    pub(super) fn root_of(&self, name: Option<&[u8]>) -> Scope {
        let included = name.is_some_and(|name| self.0.rules.for_names(name, true) == Some(true));
        Scope::root(self.clone(), if included { Otherwise::Taken } else { self.0.rules.otherwise })
    }

    /// Returns whether only the paths of a list are looked at.
    pub fn lists_paths(&self) -> bool {
        self.0.listed.is_some()
    }
}

/// Makes a [`Filter`], option by option; the order of patterns counts.
#[derive(Debug, Default)]
pub struct FilterBuilder {
    parts: Parts,
    any_pattern: bool,
    fault: Option<Error>,
}

impl FilterBuilder {
    /// Rules out what a pattern matches.
    #[must_use]
    pub fn exclude(self, pattern: impl AsRef<[u8]>) -> Self {
        self.pattern(pattern.as_ref(), false)
    }

    /// Rules out what a pattern matches, without being the first option: for what is ruled out in every run.
    #[must_use]
    pub fn exclude_by_default(self, pattern: impl AsRef<[u8]>) -> Self {
        let any_pattern = self.any_pattern;
        Self { any_pattern, ..self.exclude(pattern) }
    }

    /// Takes what a pattern matches, though an earlier one ruled it out. As the first option it also rules out whatever
    /// no pattern matches.
    #[must_use]
    pub fn include(mut self, pattern: impl AsRef<[u8]>) -> Self {
        if !self.any_pattern {
            self.parts.rules.otherwise = Otherwise::LeftOut;
        }
        self.pattern(pattern.as_ref(), true)
    }

    /// Adds the lines of a file in gitignore's syntax: a pattern rules out, one behind `!` takes, `#` begins a comment.
    /// `file` is for messages.
    #[must_use]
    pub fn lines(mut self, file: &str, text: &[u8]) -> Self {
        self.any_pattern = true;
        for (number, line) in rules::lines(text) {
            match Pattern::read_line(line) {
                Ok(pattern) => self.parts.rules.patterns.extend(pattern),
                Err(fault) => {
                    let error = Error::new(ErrorKind::Usage, fault.message(line)).at(format!("{file}:{number}"));
                    self.fault.get_or_insert(error);
                }
            }
        }
        self
    }

    /// Heeds the `.haulignore` files of the tree.
    #[must_use]
    pub fn heed_haulignore(mut self) -> Self {
        self.parts.haulignore = true;
        self
    }

    /// Leaves out files of fewer bytes.
    #[must_use]
    pub fn min_size(mut self, bytes: u64) -> Self {
        self.parts.measures.min_size = Some(bytes);
        self
    }

    /// Leaves out files of more bytes.
    #[must_use]
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.parts.measures.max_size = Some(bytes);
        self
    }

    /// Leaves out files that were last changed before this.
    #[must_use]
    pub fn newer_than(mut self, time: SystemTime) -> Self {
        self.parts.measures.since = Some(time);
        self
    }

    /// Leaves out files that were last changed then or later.
    #[must_use]
    pub fn older_than(mut self, time: SystemTime) -> Self {
        self.parts.measures.before = Some(time);
        self
    }

    /// Leaves out what lies deeper; what lies right in the root has depth 1.
    #[must_use]
    pub fn max_depth(mut self, depth: u32) -> Self {
        self.parts.deepest = Some(depth);
        self
    }

    /// Takes nothing but these paths, which are relative to the root: separated by NUL if there is one in the text, else
    /// by line ends. `file` is for messages.
    #[must_use]
    pub fn only_paths(mut self, file: &str, text: &[u8]) -> Self {
        match Listed::read(text) {
            Ok(listed) => self.parts.listed = Some(Arc::new(listed)),
            Err((number, why)) => {
                let error = Error::new(ErrorKind::Usage, why).at(format!("{file}:{number}"));
                self.fault.get_or_insert(error);
            }
        }
        self
    }

    /// Makes the filter.
    ///
    /// # Errors
    /// `Usage` for the first pattern or path that can't be.
    pub fn build(self) -> Result<Filter> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(Filter(Arc::new(self.parts))),
        }
    }

    fn pattern(mut self, text: &[u8], negated: bool) -> Self {
        self.any_pattern = true;
        match Pattern::read(text, negated) {
            Ok(pattern) => self.parts.rules.patterns.push(pattern),
            Err(fault) => {
                let error = Error::new(ErrorKind::Usage, fault.message(text))
                    .with_hint("a backslash in front makes a special character a plain one");
                self.fault.get_or_insert(error);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests;

//! Patterns in their order: the last that matches decides.

use super::pattern::Pattern;
use crate::transport::escape;

/// The patterns of the options.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) patterns: Vec<Pattern>,
    pub(super) otherwise: Otherwise,
}

/// What happens to an entry that no pattern matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Otherwise {
    #[default]
    Taken,
    LeftOut,
}

impl Rules {
    /// Returns whether an entry is taken; `None` if no pattern matches. Its path is only made if one needs it.
    pub(super) fn decide(&self, path: &mut Path<'_>, is_directory: bool) -> Option<bool> {
        decide(&self.patterns, path, is_directory)
    }

    /// The same by the patterns for names only.
    pub(super) fn for_names(&self, name: &[u8], is_directory: bool) -> Option<bool> {
        let mut patterns = self.patterns.iter().rev().filter(|pattern| pattern.is_for_names());
        patterns.find(|pattern| pattern.matches(&[name], is_directory)).map(|pattern| pattern.negated)
    }

    /// Returns whether something below a directory may be included.
    pub(super) fn may_include_below(&self, path: &mut Path<'_>) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated && pattern.may_match_below(path.names()))
    }
}

/// The patterns of one `.haulignore`.
#[derive(Debug)]
pub(super) struct Ignores {
    patterns: Vec<Pattern>,
    /// How deep the directory that it lies in is.
    depth: usize,
    /// That of a directory above.
    above: Option<std::sync::Arc<Ignores>>,
}

impl Ignores {
    /// Reads a file; a line that can never match is told of, and left out as git does. `None` if nothing is in it.
    pub(super) fn read(
        text: &[u8],
        depth: usize,
        above: Option<std::sync::Arc<Self>>,
        shown: &str,
    ) -> Option<std::sync::Arc<Self>> {
        let mut patterns = Vec::new();
        for (number, line) in lines(text) {
            match Pattern::read_line(line) {
                Ok(pattern) => patterns.extend(pattern),
                Err(fault) => tracing::warn!("{}:{number}: {}", escape(shown.as_bytes()), fault.message(line)),
            }
        }
        match patterns.is_empty() {
            true => above,
            false => Some(std::sync::Arc::new(Self { patterns, depth, above })),
        }
    }

    /// Returns whether an entry is taken; `None` if no pattern matches. The deepest file goes first.
    pub(super) fn decide(&self, path: &mut Path<'_>, is_directory: bool) -> Option<bool> {
        let mut ignores = Some(self);
        while let Some(here) = ignores {
            let mut below = path.from(here.depth);
            if let Some(taken) = decide(&here.patterns, &mut below, is_directory) {
                return Some(taken);
            }
            ignores = here.above.as_deref();
        }
        None
    }
}

fn decide(patterns: &[Pattern], path: &mut Path<'_>, is_directory: bool) -> Option<bool> {
    let matching = patterns.iter().rev().find(|pattern| match pattern.is_for_names() {
        true => pattern.matches(&[path.name], is_directory),
        false => pattern.matches(path.names(), is_directory),
    });
    matching.map(|pattern| pattern.negated)
}

/// The path of an entry below the root; its names are only told apart if a pattern needs them.
pub(super) struct Path<'a> {
    directory: &'a [u8],
    name: &'a [u8],
    names: Option<Vec<&'a [u8]>>,
}

impl<'a> Path<'a> {
    /// Makes the path of a name in a directory, whose own path has a slash behind each name.
    pub(super) fn new(directory: &'a [u8], name: &'a [u8]) -> Self {
        Self { directory, name, names: None }
    }

    fn names(&mut self) -> &[&'a [u8]] {
        let (directory, name) = (self.directory, self.name);
        self.names.get_or_insert_with(|| {
            let above = directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
            above.chain([name]).collect()
        })
    }

    /// Returns it as seen from a directory so deep.
    fn from(&self, depth: usize) -> Self {
        let mut directory = self.directory;
        for _ in 0..depth {
            let slash = directory.iter().position(|byte| *byte == b'/');
            directory = slash.map_or(&[], |slash| &directory[slash + 1..]);
        }
        Self::new(directory, self.name)
    }
}

/// Returns the lines of a file and their numbers, without a mark of UTF-8 in front.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    (1..).zip(text.split(|byte| *byte == b'\n'))
}

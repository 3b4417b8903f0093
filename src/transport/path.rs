//! Paths at an endpoint: bytes, absolute, normalised, never lossy.

use std::fmt::{self, Write};

use crate::error::{Error, ErrorKind, Result};

/// An absolute path at an endpoint, as the bytes the server knows it by.
///
/// It starts with `/`, has no empty, `.` or `..` component, no trailing `/` (the root is `/`), and no NUL. Any other
/// byte is kept as it is: names need not be UTF-8. [`fmt::Display`] escapes what a terminal would act on and is lossy;
/// it is for people only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemotePath(Vec<u8>);

impl RemotePath {
    /// Returns the root, `/`.
    pub fn root() -> Self {
        Self(b"/".to_vec())
    }

    /// Normalises an absolute path; `..` goes up one component and stays at the root.
    ///
    /// # Errors
    /// `InvalidPath` when it isn't absolute or holds a NUL.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = bytes.as_ref();
        if bytes.first() != Some(&b'/') {
            return Err(Error::new(ErrorKind::InvalidPath, "the path is not absolute").at(escape(bytes)));
        }
        Self::root().resolve(bytes)
    }

    /// Follows `relative` from here (from the root if it is absolute) and normalises the result.
    ///
    /// For paths that the user gave. Names from a server go through [`Self::join`].
    ///
    /// # Errors
    /// `InvalidPath` when it holds a NUL.
    pub fn resolve(&self, relative: impl AsRef<[u8]>) -> Result<Self> {
        let relative = relative.as_ref();
        if relative.contains(&0) {
            return Err(Error::new(ErrorKind::InvalidPath, "the path holds a NUL byte").at(escape(relative)));
        }
        let mut path = if relative.first() == Some(&b'/') { Self::root() } else { self.clone() };
        for component in relative.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => path = path.parent().unwrap_or_else(Self::root),
                name => path.push(name),
            }
        }
        Ok(path)
    }

    /// Adds one name, as a listing gave it.
    ///
    /// # Errors
    /// `InvalidPath` when the name is empty, `.`, `..`, or holds `/` or NUL: such a name would lead elsewhere.
    pub fn join(&self, name: impl AsRef<[u8]>) -> Result<Self> {
        let name = name.as_ref();
        if !is_plain_name(name) {
            return Err(Error::new(ErrorKind::InvalidPath, "refused a name that would lead elsewhere")
                .at(format!("{self}: \"{}\"", escape(name))));
        }
        let mut path = self.clone();
        path.push(name);
        Ok(path)
    }

    /// Returns a name beside it that listings leave out: `.NAME.haul-ID` and an ending, `NAME` cut where that would be too
    /// long.
    ///
    /// # Errors
    /// `IsADirectory` for the root.
    pub(crate) fn beside(&self, id: &str, ending: &str) -> Result<Self> {
        let (Some(parent), Some(name)) = (self.parent(), self.file_name()) else {
            return Err(Error::new(ErrorKind::IsADirectory, "the root can't be written as a file").at(self));
        };
        let tail = format!(".haul-{id}{ending}");
        let name = &name[..cut(name, LONGEST_NAME - 1 - tail.len())];
        parent.join([b".", name, tail.as_bytes()].concat())
    }

    /// Returns where a file goes that is in the way of another until that has its name: `.NAME.haul-ID.old`, always the
    /// same, so that one that was left there is found again.
    ///
    /// # Errors
    /// `IsADirectory` for the root.
    pub(crate) fn out_of_the_way(&self) -> Result<Self> {
        self.beside(&blake3::hash(&self.0).to_hex()[..16], ".old")
    }

    /// Returns the directory that holds it, `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|&b| b == b'/')?;
        match (slash, self.0.len()) {
            (0, 1) => None,
            (0, _) => Some(Self::root()),
            _ => Some(Self(self.0[..slash].to_vec())),
        }
    }

    /// Returns the last component, `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        let slash = self.0.iter().rposition(|&b| b == b'/')?;
        Some(&self.0[slash + 1..]).filter(|name| !name.is_empty())
    }

    /// Returns the components from the root downwards.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|c| !c.is_empty())
    }

    /// Returns whether it is `dir`, or something in or below it.
    pub(crate) fn is_at_or_below(&self, dir: &Self) -> bool {
        match self.0.strip_prefix(dir.0.as_slice()) {
            Some(rest) => dir.is_root() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        }
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == b"/"
    }

    fn push(&mut self, name: &[u8]) {
        if !self.is_root() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemotePath(\"{self}\")")
    }
}

/// The longest name that file systems and servers commonly take, in bytes.
const LONGEST_NAME: usize = 255;

/// Where to cut a name so that a character of UTF-8 stays whole: servers may refuse half of one.
fn cut(name: &[u8], longest: usize) -> usize {
    if name.len() <= longest {
        return name.len();
    }
    (longest.saturating_sub(3)..=longest).rev().find(|&i| name[i] & 0xc0 != 0x80).unwrap_or(longest)
}

/// Returns whether `name` is one path component that stays where it is put.
pub fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

/// Makes bytes from a server safe to show: control, C1 and bidi characters and invalid UTF-8 become `\n`, `\x1b`,
/// `\u{202e}`…; a backslash stays as it is.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_harmless(c) { text.push(c) } else { text.extend(c.escape_default()) }
        }
        for byte in chunk.invalid() {
            // Writing to a string can't fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Returns whether a terminal just shows a character: it neither obeys it (control characters) nor shows others in
/// another order (bidi) or nothing at all (zero width, tags).
pub fn is_harmless(c: char) -> bool {
    let invisible = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !invisible
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn normalises() {
        let path = |p: &str| RemotePath::new(p).unwrap().to_string();
        assert_eq!(path("/"), "/");
        assert_eq!(path("//a//b/"), "/a/b");
        assert_eq!(path("/a/./b/../c"), "/a/c");
        assert_eq!(path("/../.."), "/");
        assert!(RemotePath::new("a").is_err());
        assert!(RemotePath::new(b"/a\0b").is_err());
    }

    #[test]
    fn below_means_by_whole_names() {
        let below =
            |path: &str, dir: &str| RemotePath::new(path).unwrap().is_at_or_below(&RemotePath::new(dir).unwrap());
        assert!(below("/a/b", "/a") && below("/a", "/a") && below("/a", "/") && below("/", "/"));
        assert!(!below("/ab", "/a") && !below("/", "/a") && !below("/b/a", "/a"));
    }

    #[test]
    fn join_takes_plain_names_only() {
        let dir = RemotePath::new("/d").unwrap();
        for bad in ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\0"] {
            assert_eq!(dir.join(bad).unwrap_err().kind(), ErrorKind::InvalidPath, "{bad:?}");
        }
        assert_eq!(dir.join(b"\xff \n").unwrap().as_bytes(), b"/d/\xff \n");
    }

    #[test]
    fn shows_control_characters_harmless() {
        assert_eq!(escape(b"a\x1b[2Jb\nc\xff\xc2\x9bd"), "a\\u{1b}[2Jb\\nc\\xff\\u{9b}d");
        assert_eq!(escape("gnp.\u{202e}exe".as_bytes()), "gnp.\\u{202e}exe");
        assert_eq!(escape("grün 日本 \\".as_bytes()), "grün 日本 \\");
    }

    proptest! {
        #[test]
        fn parent_and_name_put_together_again(names in prop::collection::vec("[a-z .\\\\-]{1,8}", 1..6)) {
            let mut path = RemotePath::root();
            for name in names.iter().filter(|n| is_plain_name(n.as_bytes())) {
                let child = path.join(name).unwrap();
                prop_assert_eq!(child.parent().unwrap(), path);
                prop_assert_eq!(child.file_name().unwrap(), name.as_bytes());
                path = child;
            }
            prop_assert_eq!(RemotePath::new(path.as_bytes()).unwrap(), path);
        }

        #[test]
        fn escaped_text_holds_no_control_characters(bytes: Vec<u8>) {
            prop_assert!(!escape(&bytes).chars().any(char::is_control));
        }
    }
}

//! Wildcards in the paths of URLs: `*` `?` `[…]` within a name, `**` over directories, `{a,b}` anywhere.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use futures_util::StreamExt;
use globset::{GlobBuilder, GlobMatcher};

use super::Place;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Entry, FileKind, Follow, RemotePath, Transport, escape};

/// No pattern may mean more than this many after its braces are expanded.
const MOST_PATTERNS: usize = 4096;

/// What a pattern matched, in the order of the paths' bytes; the entry where a listing told it.
pub(super) type Matches = Vec<(RemotePath, Option<Entry>)>;

/// Returns the paths that a place names: its own, or those that match its wildcards.
///
/// As in a shell, `*` and `?` don't match a leading dot, and a pattern that matches nothing may be a literal name.
///
/// # Errors
/// `NotFound` when nothing matches; `Usage` for a malformed pattern; those of listing.
pub async fn expand(place: &Place) -> Result<Matches> {
    let pattern = &place.endpoint.path.pattern;
    let literal = place.path().await?;
    if !is_pattern(pattern) {
        return Ok(vec![(literal, None)]);
    }
    let mut found = BTreeMap::new();
    for pattern in expand_braces(pattern)? {
        let transport = place.transport.as_ref();
        let start = place.base().await?;
        expand_one(transport, start, &pattern, &mut found).await?;
    }
    if !found.is_empty() {
        return Ok(found.into_iter().collect());
    }
    match place.transport.stat(&literal, Follow::Nothing).await {
        Ok(_) => Ok(vec![(literal, None)]),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NotFound, "nothing matches").at(&place.endpoint))
        }
        Err(e) => Err(e),
    }
}

/// Returns whether an endpoint's path has wildcards, and so may name several files.
pub fn has_wildcards(endpoint: &Endpoint) -> bool {
    is_pattern(&endpoint.path.pattern)
}

/// Follows one pattern without braces, name by name.
async fn expand_one(
    transport: &dyn Transport,
    start: RemotePath,
    pattern: &[u8],
    found: &mut BTreeMap<RemotePath, Option<Entry>>,
) -> Result<()> {
    let names: Vec<&[u8]> = pattern.split(|&b| b == b'/').filter(|name| !name.is_empty()).collect();
    let mut level: Vec<(RemotePath, Option<Entry>)> = vec![(start, None)];
    for (i, name) in names.iter().enumerate() {
        let last = i + 1 == names.len();
        let mut next = Vec::new();
        for (dir, _) in level {
            match *name {
                b"**" => {
                    // "a/**" means everything below a; "a/**/b" also a/b.
                    if !last {
                        next.push((dir.clone(), None));
                    }
                    below(transport, dir, last, &mut next).await?;
                }
                name if is_pattern(name) => {
                    let matcher = matcher(name)?;
                    let dot = name.starts_with(b".") || name.starts_with(b"\\.");
                    for entry in listing(transport, &dir).await? {
                        let hidden = entry.name.starts_with(b".") && !dot;
                        let enterable = last || matches!(entry.kind, FileKind::Directory | FileKind::Symlink);
                        if !hidden && enterable && matcher.is_match(OsStr::from_bytes(&entry.name)) {
                            next.push((dir.join(&entry.name)?, Some(entry)));
                        }
                    }
                }
                // Names that the user wrote may be "..": they are resolved, not joined.
                name => next.push((dir.resolve(unescape(name))?, None)),
            }
        }
        level = next;
    }
    for (path, entry) in level {
        // A literal name behind a wildcard was not looked at yet.
        let exists = entry.is_some() || transport.stat(&path, Follow::Nothing).await.is_ok();
        if exists {
            found.insert(path, entry);
        }
    }
    Ok(())
}

/// Collects every directory below `dir` (with `files`, everything), hidden ones left out, links not followed.
async fn below(transport: &dyn Transport, dir: RemotePath, files: bool, into: &mut Matches) -> Result<()> {
    let mut pending = vec![dir];
    while let Some(dir) = pending.pop() {
        for entry in listing(transport, &dir).await? {
            if entry.name.starts_with(b".") {
                continue;
            }
            let path = dir.join(&entry.name)?;
            if entry.is_dir() {
                pending.push(path.clone());
            }
            if files || entry.is_dir() {
                into.push((path, Some(entry)));
            }
        }
    }
    Ok(())
}

/// Lists a directory; what is no directory, or isn't there, holds nothing that could match.
async fn listing(transport: &dyn Transport, dir: &RemotePath) -> Result<Vec<Entry>> {
    let nothing = |e: &Error| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    let mut entries = match transport.list(dir).await {
        Ok(entries) => entries,
        Err(e) if nothing(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut all = Vec::new();
    while let Some(entry) = entries.next().await {
        match entry {
            Ok(entry) => all.push(entry),
            Err(e) if nothing(&e) && all.is_empty() => return Ok(all),
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// Returns whether a pattern has a wildcard that isn't escaped.
fn is_pattern(pattern: &[u8]) -> bool {
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' | b'{' => return true,
            _ => {}
        }
    }
    false
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut bytes = name.iter().copied();
    let mut plain = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        plain.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    plain
}

fn matcher(name: &[u8]) -> Result<GlobMatcher> {
    let malformed = |why: String| Error::new(ErrorKind::Usage, format!("the pattern \"{}\" {why}", escape(name)));
    let text = std::str::from_utf8(name).map_err(|_| malformed("is not UTF-8".into()))?;
    // What is left of braces after their expansion has no comma and is meant literally.
    let text = text.replace('{', "[{]").replace('}', "[}]").replace("\\[{]", "\\{").replace("\\[}]", "\\}");
    let glob = GlobBuilder::new(&text).backslash_escape(true).build();
    Ok(glob.map_err(|e| malformed(format!("is malformed: {}", e.kind())))?.compile_matcher())
}

/// Expands `{a,b}` and nested ones, left to right, as shells do.
fn expand_braces(pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut done = Vec::new();
    let mut pending = vec![pattern.to_vec()];
    while let Some(pattern) = pending.pop() {
        if done.len() + pending.len() > MOST_PATTERNS {
            return Err(Error::new(ErrorKind::Usage, "the braces of the pattern mean too many names"));
        }
        match first_brace(&pattern) {
            None => done.push(pattern),
            Some((open, commas, close)) => {
                let mut ends = commas;
                ends.push(close);
                let mut start = open + 1;
                for end in ends {
                    let part = [&pattern[..open], &pattern[start..end], &pattern[close + 1..]].concat();
                    pending.push(part);
                    start = end + 1;
                }
            }
        }
    }
    done.reverse();
    Ok(done)
}

/// Finds the first brace group with a comma: where it opens, its commas on the outermost level, where it closes.
fn first_brace(pattern: &[u8]) -> Option<(usize, Vec<usize>, usize)> {
    (0..pattern.len()).filter(|&i| pattern[i] == b'{' && !is_escaped(pattern, i)).find_map(|open| {
        let (mut depth, mut commas) = (0, Vec::new());
        for i in open..pattern.len() {
            match pattern[i] {
                _ if is_escaped(pattern, i) => {}
                b'{' => depth += 1,
                b',' if depth == 1 => commas.push(i),
                b'}' if depth == 1 => return (!commas.is_empty()).then_some((open, commas, i)),
                b'}' => depth -= 1,
                _ => {}
            }
        }
        None
    })
}

fn is_escaped(pattern: &[u8], at: usize) -> bool {
    pattern[..at].iter().rev().take_while(|&&b| b == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::transport::local::Local;
    use proptest::prelude::*;
    use std::sync::Arc;

    async fn matched(dir: &std::path::Path, pattern: &str) -> Vec<String> {
        let url = format!("file://{}/{pattern}", dir.display());
        let place = Place { transport: Arc::new(Local::new()), endpoint: Endpoint::parse(url).unwrap() };
        let prefix = format!("{}/", dir.display());
        let found = expand(&place).await.unwrap();
        found.into_iter().map(|(path, _)| path.to_string().replace(&prefix, "")).collect()
    }

    #[tokio::test]
    async fn matches_as_a_shell_does() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.txt", "b.txt", "c.log", ".hidden.txt", "sub/d.txt", "sub/deep/e.txt", "x[1]", "odd{}"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let d = dir.path();
        assert_eq!(matched(d, "*.txt").await, ["a.txt", "b.txt"]);
        assert_eq!(matched(d, "?.{txt,log}").await, ["a.txt", "b.txt", "c.log"]);
        assert_eq!(matched(d, ".*.txt").await, [".hidden.txt"]);
        assert_eq!(matched(d, "[!ab].*").await, ["c.log"]);
        assert_eq!(matched(d, "**/*.txt").await, ["a.txt", "b.txt", "sub/d.txt", "sub/deep/e.txt"]);
        assert_eq!(matched(d, "*/d.txt").await, ["sub/d.txt"]);
        assert_eq!(matched(d, "{sub/deep/e,a}.txt").await, ["a.txt", "sub/deep/e.txt"]);
        assert_eq!(matched(d, "x[1]").await, ["x[1]"], "a literal name when nothing matches");
        assert_eq!(matched(d, "x%5B1%5D").await, ["x[1]"]);
        assert_eq!(matched(d, "odd{}").await, ["odd{}"]);
    }

    #[tokio::test]
    async fn nothing_that_matches_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::parse(format!("file://{}/no*", dir.path().display())).unwrap();
        let place = Place { transport: Arc::new(Local::new()), endpoint };
        assert_eq!(expand(&place).await.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn braces_nest() {
        let texts = |p: &str| -> Vec<String> {
            expand_braces(p.as_bytes()).unwrap().into_iter().map(|p| String::from_utf8(p).unwrap()).collect()
        };
        assert_eq!(texts("a{b,c{d,e}}f"), ["abf", "acdf", "acef"]);
        assert_eq!(texts("a\\{b,c}"), ["a\\{b,c}"]);
        assert!(expand_braces("{a,b}".repeat(20).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_pattern_is_taken_or_refused(pattern: Vec<u8>) {
            for one in expand_braces(&pattern).unwrap_or_default() {
                let _ = matcher(&one);
                let _ = unescape(&one);
            }
        }
    }
}

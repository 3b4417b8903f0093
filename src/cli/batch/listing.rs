//! `ls` in a script: names as `sftp` writes them, the path in front of them as it was given.

use std::cmp::{Ordering, Reverse};

use futures_util::TryStreamExt;
use haul::batch::{Braces, ListFlags, SortBy, Word};
use haul::plan;
use haul::transport::{Entry, FileKind, Follow, RemotePath, Transport};

use super::session::Session;
use crate::cli::entry;
use crate::cli::format;
use crate::cli::report::Result;

/// As wide as sftp takes a terminal to be that isn't there.
const COLUMNS: usize = 80;

/// Lists what a word names, or the directory that the script is in.
pub(super) async fn list(session: &Session<'_>, word: Option<&Word>, flags: ListFlags) -> Result<()> {
    let here = session.here.clone();
    let transport = &*session.server()?.transport;
    let Some(word) = word else {
        let found = read(transport, &here, Some(&here), flags).await?;
        return session.say(&lines(found, flags));
    };
    let literal = word.literal();
    let base = (!literal.starts_with(b"/")).then_some(&here);
    let place = session.far(&word.pattern(Braces::Meant), &literal)?;
    let mut found = plan::expand(&place).await?;
    if found.len() == 1
        && let Some((path, entry)) = found.pop()
    {
        let entry = match entry.filter(|entry| entry.kind != FileKind::Symlink) {
            Some(entry) => entry,
            None => transport.stat(&path, Follow::Links).await?,
        };
        let found = match entry.is_dir() {
            true => read(transport, &path, base, flags).await?,
            false => vec![(name(&path, base), entry)],
        };
        return session.say(&lines(found, flags));
    }
    let mut shown = Vec::with_capacity(found.len());
    for (path, entry) in found {
        let entry = match entry {
            Some(entry) => entry,
            None => transport.stat(&path, Follow::Nothing).await?,
        };
        let mut name = name(&path, base);
        if entry.is_dir() {
            name.push(b'/');
        }
        shown.push((name, entry));
    }
    session.say(&lines(shown, flags))
}

async fn read(
    transport: &dyn Transport,
    dir: &RemotePath,
    base: Option<&RemotePath>,
    flags: ListFlags,
) -> Result<Vec<(Vec<u8>, Entry)>> {
    let mut found = Vec::new();
    let above = name(dir, base);
    let mut push = |entry: Entry| {
        let name = match above.as_slice() {
            b"" => entry.name.clone(),
            above if above.ends_with(b"/") => [above, &entry.name].concat(),
            above => [above, b"/", &entry.name].concat(),
        };
        found.push((name, entry));
    };
    if flags.all {
        // A server has them in its listing; the transports leave them out.
        push(Entry::new(".", FileKind::Directory));
        push(Entry::new("..", FileKind::Directory));
    }
    let mut listing = transport.list(dir).await?;
    while let Some(entry) = listing.try_next().await? {
        if flags.all || !entry.name.starts_with(b".") {
            push(entry);
        }
    }
    Ok(found)
}

/// Returns a path as it is shown: from the directory that the script is in, where it was given so and lies in there.
fn name(path: &RemotePath, base: Option<&RemotePath>) -> Vec<u8> {
    let Some(base) = base else { return path.as_bytes().to_vec() };
    if path == base {
        return Vec::new();
    }
    let inside = match base.is_root() {
        true => path.as_bytes().strip_prefix(b"/"),
        false => path.as_bytes().strip_prefix(base.as_bytes()).and_then(|rest| rest.strip_prefix(b"/")),
    };
    inside.unwrap_or(path.as_bytes()).to_vec()
}

fn lines(mut found: Vec<(Vec<u8>, Entry)>, flags: ListFlags) -> Vec<u8> {
    type Shown = (Vec<u8>, Entry);
    let by = |one: &Shown, other: &Shown| match flags.sort {
        SortBy::Name => one.0.cmp(&other.0),
        SortBy::Size => Reverse(one.1.size).cmp(&Reverse(other.1.size)),
        SortBy::Time => Reverse(one.1.mtime.map(|it| it.time)).cmp(&Reverse(other.1.mtime.map(|it| it.time))),
        SortBy::Nothing => Ordering::Equal,
    };
    if flags.sort != SortBy::Nothing {
        found.sort_by(|one, other| if flags.reverse { by(other, one) } else { by(one, other) });
    }
    let mut text = Vec::new();
    if flags.long {
        for (name, entry) in &found {
            let size = match entry.size {
                Some(size) if flags.human => format::bytes(size),
                Some(size) => size.to_string(),
                None => "?".into(),
            };
            let time = entry.mtime.map(entry::short_time).unwrap_or_default();
            text.extend_from_slice(format!("{} {size:>12} {time:16} ", entry::mode(entry)).as_bytes());
            text.extend_from_slice(name);
            text.push(b'\n');
        }
        return text;
    }
    let longest = found.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let columns = if flags.single { 1 } else { (COLUMNS / (longest + 2)).max(1) };
    let width = if flags.single { 0 } else { COLUMNS / columns };
    for row in found.chunks(columns) {
        for (name, _) in row {
            text.extend_from_slice(name);
            text.resize(text.len() + width.saturating_sub(name.len()), b' ');
        }
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, size: u64) -> (Vec<u8>, Entry) {
        (name.into(), Entry { size: Some(size), ..Entry::new(name, FileKind::File) })
    }

    fn listed(flags: ListFlags) -> String {
        String::from_utf8(lines(vec![entry("b", 1), entry("c", 3), entry("a", 2)], flags)).unwrap()
    }

    #[test]
    fn names_are_sorted_as_asked() {
        let single = ListFlags { single: true, ..ListFlags::default() };
        assert_eq!(listed(single), "a\nb\nc\n");
        assert_eq!(listed(ListFlags { reverse: true, ..single }), "c\nb\na\n");
        assert_eq!(listed(ListFlags { sort: SortBy::Size, ..single }), "c\na\nb\n");
        assert_eq!(listed(ListFlags { sort: SortBy::Nothing, ..single }), "b\nc\na\n");
    }

    #[test]
    fn names_are_seen_from_where_the_script_is() {
        let path = |path: &str| RemotePath::new(path).unwrap();
        assert_eq!(name(&path("/a/b"), Some(&path("/a"))), b"b");
        assert_eq!(name(&path("/a"), Some(&path("/"))), b"a");
        assert_eq!(name(&path("/ab"), Some(&path("/a"))), b"/ab");
        assert_eq!(name(&path("/a/b"), None), b"/a/b");
    }
}

//! Lines of MLSD and MLST (RFC 3659, section 7): facts, a space, the name.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::transport::{Entry, FileKind, Mtime, Precision};

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// An entry of the directory.
    Entry(Entry),
    /// The directory itself or its parent, which are not entries.
    Around,
}

/// Reads one line without its line end; `None` when it isn't of this form.
pub(super) fn parse_facts(line: &[u8]) -> Option<Fact> {
    // The target of a link may hold spaces, so the facts end at a semicolon; a few servers leave the last one away.
    let space = match line.first()? {
        b' ' => 0,
        _ => line
            .windows(2)
            .position(|w| w == b"; ")
            .map(|at| at + 1)
            .or_else(|| line.iter().position(|&b| b == b' '))?,
    };
    let (facts, name) = (&line[..space], &line[space + 1..]);
    if name.is_empty() {
        return None;
    }
    let mut entry = Entry::new(name, FileKind::Other);
    for fact in facts.split(|&b| b == b';').filter(|fact| !fact.is_empty()) {
        let equals = fact.iter().position(|&b| b == b'=')?;
        let (key, value) = (&fact[..equals], &fact[equals + 1..]);
        match key.to_ascii_lowercase().as_slice() {
            b"type" => match value.to_ascii_lowercase().as_slice() {
                b"cdir" | b"pdir" => return Some(Fact::Around),
                b"file" => entry.kind = FileKind::File,
                b"dir" => entry.kind = FileKind::Directory,
                _ => (entry.kind, entry.target) = system_kind(value),
            },
            b"size" => entry.size = number(value),
            b"modify" => entry.mtime = parse_time(value),
            b"unix.mode" => entry.mode = mode(value),
            _ => {}
        }
    }
    if name == b"." || name == b".." {
        return Some(Fact::Around);
    }
    if entry.kind == FileKind::Directory {
        entry.size = None;
    }
    Some(Fact::Entry(entry))
}

/// Returns whether the line of the directory itself lets it be entered and listed, which is so where it says nothing of
/// rights; `None` for other lines.
pub(super) fn rights_of_itself(line: &[u8]) -> Option<bool> {
    let space = line.windows(2).position(|w| w == b"; ").map(|at| at + 1)?;
    let facts = line[..space].to_ascii_lowercase();
    let fact = |key: &[u8]| facts.split(|&b| b == b';').find_map(|fact| fact.strip_prefix(key));
    let itself = fact(b"type=") == Some(b"cdir") || &line[space + 1..] == b".";
    let rights = fact(b"perm=").filter(|rights| !rights.is_empty());
    itself.then(|| rights.is_none_or(|rights| rights.contains(&b'e') && rights.contains(&b'l')))
}

/// Reads a time of MLSD, MDTM or MFMT: `YYYYMMDDhhmmss`, maybe with a fraction, always UTC.
pub(super) fn parse_time(text: &[u8]) -> Option<Mtime> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    if !whole.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Servers with the bug of the year 2000 wrote 19100 for 2000: "19" and the years since 1900.
    let (year, rest) = match (whole.len(), whole.strip_prefix("19")) {
        (15, Some(rest)) => (1900 + rest.get(..3)?.parse::<i16>().ok()?, rest.get(3..)?),
        (14, _) => (whole.get(..4)?.parse().ok()?, whole.get(4..)?),
        _ => return None,
    };
    let pair = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let date = DateTime::new(year, pair(0)?, pair(2)?, pair(4)?, pair(6)?, pair(8)?.min(59), 0).ok()?;
    let mtime = Mtime::from_unix(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second());
    let nanos = fraction.map(|digits| format!("{digits:0<9.9}")).and_then(|digits| digits.parse::<u32>().ok());
    Some(match nanos {
        None | Some(0) => mtime,
        // Milliseconds are what servers give; the rest of the precision isn't there.
        Some(nanos) => Mtime {
            time: mtime.time.checked_add(Duration::from_nanos(u64::from(nanos)))?,
            precision: Precision::Second,
        },
    })
}

/// `OS.unix=slink:/target`, `OS.unix=symlink`, `OS.unix=chr-4/64` and the like.
fn system_kind(value: &[u8]) -> (FileKind, Option<Vec<u8>>) {
    let Some(kind) = value.get(8..).filter(|_| value[..8].eq_ignore_ascii_case(b"OS.unix=")) else {
        return (FileKind::Other, None);
    };
    let lower = kind.to_ascii_lowercase();
    let is_link = lower.starts_with(b"slink") || lower.starts_with(b"symlink");
    let target = kind.iter().position(|&b| b == b':').map(|colon| kind[colon + 1..].to_vec());
    if !is_link {
        return (FileKind::Other, None);
    }
    (FileKind::Symlink, target.filter(|target| !target.is_empty()))
}

/// Octal; setuid, setgid and sticky come as a fourth digit.
fn mode(value: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(value).ok()?;
    Some(u32::from_str_radix(digits, 8).ok()? & 0o7777)
}

/// An empty size means that the server doesn't know.
fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(line: &str) -> Entry {
        match parse_facts(line.as_bytes()) {
            Some(Fact::Entry(entry)) => entry,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn reads_what_servers_send() {
        let file = entry("modify=20261121224836;perm=adfrw;size=6;type=file;UNIX.mode=04755;  two  spaces ");
        assert_eq!((file.name.as_slice(), file.kind, file.size), (&b" two  spaces "[..], FileKind::File, Some(6)));
        assert_eq!((file.mode, file.mtime.map(Mtime::unix)), (Some(0o4755), Some(1_795_301_316)));
        let link = entry("type=OS.unix=slink:/a b;size=1; ld");
        assert_eq!((link.kind, link.target.as_deref()), (FileKind::Symlink, Some(&b"/a b"[..])));
        assert_eq!(entry("type=OS.unix=slink:;size=; l").target, None);
        assert_eq!(entry("type=OS.unix=symlink; l").kind, FileKind::Symlink);
        assert_eq!(entry("Type=DIR;Size=4096; d").size, None);
        assert_eq!(entry(" only-a-name").kind, FileKind::Other);
    }

    #[test]
    fn the_directory_itself_is_no_entry() {
        for line in ["type=cdir; /d", "type=pdir; ..", "type=dir; ."] {
            assert_eq!(parse_facts(line.as_bytes()), Some(Fact::Around), "{line}");
        }
    }

    #[test]
    fn the_directory_itself_tells_whether_it_may_be_listed() {
        for (line, expected) in [
            ("type=cdir;perm=fl; .", Some(false)),
            ("Type=cdir;Perm=FMPE;UNIX.mode=0711; /d", Some(false)),
            ("type=cdir;perm=flcdmpe; .", Some(true)),
            ("type=dir;perm=el; .", Some(true)),
            ("type=cdir;modify=20260101000000; /d", Some(true)),
            ("type=cdir;perm=; .", Some(true)),
            ("type=pdir;perm=fl; ..", None),
            ("type=dir;perm=fl; a", None),
        ] {
            assert_eq!(rights_of_itself(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn refuses_other_forms() {
        for line in ["", "x", "-rw-r--r-- 1 a b 1 Jan 1 2020 x", "type=file;", "type; x", "type=file;x"] {
            assert_eq!(parse_facts(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn reads_times() {
        let unix = |text: &str| parse_time(text.as_bytes()).map(Mtime::unix);
        assert_eq!(unix("19700101000000"), Some(0));
        assert_eq!(unix("20240229120000.123"), Some(1_709_208_000));
        assert_eq!(unix("19126112122483"), None);
        assert_eq!(unix("191261121224836"), Some(1_795_301_316));
        assert_eq!(unix("20230229120000"), None);
    }

    proptest! {
        #[test]
        fn any_name_survives(name in prop::collection::vec(any::<u8>().prop_filter("line end", |b| !b"\r\n".contains(b)), 1..30)) {
            let mut line = b"type=file;size=3; ".to_vec();
            line.extend(&name);
            match parse_facts(&line) {
                Some(Fact::Entry(entry)) => prop_assert_eq!(entry.name, name),
                _ => prop_assert!(name == b"." || name == b".."),
            }
        }

        #[test]
        fn any_line_is_read_or_refused(line: Vec<u8>) {
            let _ = (parse_facts(&line), rights_of_itself(&line));
            let _ = parse_time(&line);
        }
    }
}

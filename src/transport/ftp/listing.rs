//! Lines of LIST, which no standard describes: UNIX `ls -l` in many forms, DOS, EPLF.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

use crate::transport::{Entry, FileKind, Mtime, Precision};

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// An entry of the directory.
    Entry(Entry),
    /// `total 12`, an empty line, `.` or `..`.
    Nothing,
}

/// Reads one line without its line end; `now` completes dates without a year. `None` when it is of no known form.
pub(super) fn parse_line(line: &[u8], now: Date) -> Option<Line> {
    if line.trim_ascii().is_empty() || is_total(line) {
        return Some(Line::Nothing);
    }
    let entry = eplf(line).or_else(|| unix(line, now)).or_else(|| dos(line))?;
    Some(match entry.name.as_slice() {
        b"" => return None,
        b"." | b".." => Line::Nothing,
        _ => Line::Entry(entry),
    })
}

fn is_total(line: &[u8]) -> bool {
    let words: Vec<&[u8]> = words(line).map(|(_, word)| word).collect();
    // ls writes it in the user's language: "total 4", "insgesamt 4", "totaal 4".
    matches!(words.as_slice(), [word, number] if word.iter().all(|b| b.is_ascii_alphabetic() || *b >= 0x80)
        && number.iter().all(u8::is_ascii_digit))
}

/// `+i8388621.29609,m824255902,/,\tname` (cr.yp.to/ftp/list/eplf.html).
fn eplf(line: &[u8]) -> Option<Entry> {
    let line = line.strip_prefix(b"+")?;
    let tab = line.iter().position(|&b| b == b'\t')?;
    let mut entry = Entry::new(&line[tab + 1..], FileKind::Other);
    for fact in line[..tab].split(|&b| b == b',') {
        match fact {
            b"/" => entry.kind = FileKind::Directory,
            b"r" => entry.kind = FileKind::File,
            [b's', size @ ..] => entry.size = Some(digits(size)?),
            [b'm', time @ ..] => entry.mtime = Some(Mtime::from_unix(i64::try_from(digits(time)?).ok()?)),
            [b'u', b'p', mode @ ..] => {
                entry.mode = Some(u32::from_str_radix(std::str::from_utf8(mode).ok()?, 8).ok()? & 0o7777);
            }
            _ => {}
        }
    }
    Some(entry)
}

/// `drwxr-xr-x+ 2 owner group 4096 Nov 21 22:48 name`, with or without links, owner and group.
fn unix(line: &[u8], now: Date) -> Option<Entry> {
    let (kind, mode, rest) = permissions(line)?;
    let start = line.len() - rest.len();
    let words: Vec<Word<'_>> = words(rest).map(|(at, word)| (at + start, word)).collect();
    // Owners may hold spaces and be numbers, so the date is what tells where the columns are. Names of months in other
    // languages look like any word: they are the second choice.
    let find = |date: fn(&[Word<'_>], Date) -> Option<Dated>| {
        (1..words.len()).find_map(|at| {
            let dated = date(&words[at..], now)?;
            is_size(&words[..at], kind).then_some((at, dated))
        })
    };
    let (at, (used, mtime)) = find(known_date).or_else(|| find(foreign_date))?;
    let size = digits(words[at - 1].1).filter(|_| kind != FileKind::Other || !is_device(&words[..at]));
    // One space behind the date; any further ones belong to the name.
    let (column, last) = words[at + used - 1];
    let name = line.get(column + last.len() + 1..)?;
    let mut entry = Entry { size, mtime, mode, ..Entry::new(name, kind) };
    if kind == FileKind::Symlink {
        let (name, target) = split_link(name, size);
        (entry.name, entry.target) = (name.to_vec(), target.map(<[u8]>::to_vec));
    }
    if kind == FileKind::Directory {
        entry.size = None;
    }
    Some(entry)
}

fn permissions(line: &[u8]) -> Option<(FileKind, Option<u32>, &[u8])> {
    let kind = match line.first()? {
        b'-' => FileKind::File,
        b'd' => FileKind::Directory,
        b'l' => FileKind::Symlink,
        b'b' | b'c' | b'p' | b's' | b'D' | b'P' | b'n' | b'?' => FileKind::Other,
        _ => return None,
    };
    // NetWare: `- [RWCEAFMS] owner size date name`.
    if let Some(rest) = line.get(1..).and_then(|rest| rest.trim_ascii_start().strip_prefix(b"[")) {
        let end = rest.iter().position(|&b| b == b']')?;
        return Some((kind, None, &rest[end + 1..]));
    }
    let bits = line.get(1..10)?;
    let mut mode = 0;
    for (i, &bit) in bits.iter().enumerate() {
        let (value, special) = (0o400 >> i, 0o4000 >> (i / 3));
        mode |= match (i % 3, bit) {
            (_, b'-') => 0,
            (0, b'r') | (1, b'w') | (2, b'x') => value,
            (2, b's') if i < 6 => value | special,
            (2, b'S' | b'l' | b'L') if i < 6 => special,
            (2, b't') if i == 8 => value | special,
            (2, b'T') if i == 8 => special,
            _ => return None,
        };
    }
    // Marks of an ACL, an SELinux context, extended attributes.
    let rest = line[10..].strip_prefix(b"+").or(line[10..].strip_prefix(b".")).or(line[10..].strip_prefix(b"@"));
    Some((kind, Some(mode), rest.unwrap_or(&line[10..])))
}

/// A word of a line and where it starts.
type Word<'a> = (usize, &'a [u8]);
/// How many words a date takes, and the time where it can be read.
type Dated = (usize, Option<Mtime>);

/// The size is the last word before the date; devices have `major, minor` there.
fn is_size(before: &[Word<'_>], kind: FileKind) -> bool {
    let Some((_, word)) = before.last() else { return false };
    match kind {
        FileKind::Other => word.iter().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'x' | b'a'..=b'f')),
        _ => digits(word).is_some(),
    }
}

fn is_device(before: &[Word<'_>]) -> bool {
    before.iter().rev().take(2).any(|(_, word)| word.contains(&b','))
}

/// Returns how many words the date takes, and the date.
fn known_date(words: &[Word<'_>], now: Date) -> Option<Dated> {
    let word = |i: usize| words.get(i).map(|(_, word)| *word);
    if let Some(found) = iso_date(words, now) {
        return Some(found);
    }
    let (month, day) = match (month(word(0)?), month(word(1)?)) {
        (Some(month), _) => (month, day(word(1)?)?),
        (None, Some(month)) => (month, day(word(0)?)?),
        _ => return None,
    };
    let third = word(2)?;
    if let Some(time) = clock(third) {
        // BSD's `ls -T` adds the year.
        if third.len() == 8
            && let Some(year) = word(3).and_then(year)
        {
            return Some((4, at(Date::new(year, month, day).ok()?, time, Precision::Second)));
        }
        let date = latest(month, day, now)?;
        return Some((3, at(date, time, Precision::Minute)));
    }
    let date = Date::new(year(third)?, month, day).ok()?;
    Some((3, at(date, Time::midnight(), Precision::Day)))
}

/// A date whose month is a word that we don't know: the place is known, the time isn't.
fn foreign_date(words: &[Word<'_>], _: Date) -> Option<Dated> {
    let word = |i: usize| words.get(i).map(|(_, word)| *word);
    let name = |word: &[u8]| word.iter().all(|b| b.is_ascii_alphabetic() || *b >= 0x80 || *b == b'.');
    let (first, second, third) = (word(0)?, word(1)?, word(2)?);
    let month_and_day = (name(first) && day(second).is_some()) || (day(first).is_some() && name(second));
    (month_and_day && (clock(third).is_some() || year(third).is_some())).then_some((3, None))
}

/// `2026-11-21 22:48`, `2026-11-21 22:48:36.000000000 +0100`, `11-21 22:48`, `2026-11-21`.
fn iso_date(words: &[Word<'_>], now: Date) -> Option<Dated> {
    let word = |i: usize| words.get(i).map(|(_, word)| *word);
    let parts: Vec<&[u8]> = word(0)?.split(|&b| b == b'-').collect();
    let date = match parts.as_slice() {
        [y, m, d] if y.len() == 4 => Date::new(year(y)?, small(m)?, small(d)?).ok()?,
        [m, d] if m.len() == 2 && d.len() == 2 => latest(small(m)?, small(d)?, now)?,
        _ => return None,
    };
    let Some(time) = word(1).and_then(clock) else {
        return (parts.len() == 3).then(|| (1, at(date, Time::midnight(), Precision::Day)));
    };
    match word(2).and_then(zone) {
        Some(zone) => {
            let moment = DateTime::from_parts(date, time).to_zoned(zone.to_time_zone()).ok()?;
            Some((3, Some(Mtime::from_unix(moment.timestamp().as_second()))))
        }
        None => Some((2, at(date, time, if word(1)?.len() > 5 { Precision::Second } else { Precision::Minute }))),
    }
}

/// `02-28-2024  11:15AM  <DIR>  name`, `2024-02-28 23:15  1,234 name`.
fn dos(line: &[u8]) -> Option<Entry> {
    let all: Vec<Word<'_>> = words(line).collect();
    let date = dos_date(all.first()?.1)?;
    let mut next = 2;
    let mut time = all.get(1)?.1.to_vec();
    if let Some((_, half)) = all.get(2).filter(|(_, w)| w.eq_ignore_ascii_case(b"am") || w.eq_ignore_ascii_case(b"pm"))
    {
        time.extend_from_slice(half);
        next = 3;
    }
    let mtime = at(date, twelve_hours(&time)?, Precision::Minute);
    let (column, what) = *all.get(next)?;
    let behind = &line[column + what.len()..];
    let mut entry = Entry { mtime, ..Entry::new([], FileKind::File) };
    if what.starts_with(b"<") {
        entry.kind = match what {
            b"<DIR>" => FileKind::Directory,
            b"<SYMLINK>" | b"<SYMLINKD>" | b"<JUNCTION>" => FileKind::Symlink,
            _ => FileKind::Other,
        };
        // IIS pads to the column of the sizes; what is beyond that is the name's own.
        let padding = behind.iter().take_while(|&&b| b == b' ').count();
        entry.name = behind[padding.min((15usize).saturating_sub(what.len()))..].to_vec();
    } else {
        let plain: Vec<u8> = what.iter().copied().filter(|&b| b != b',').collect();
        entry.size = Some(digits(&plain)?);
        entry.name = behind.strip_prefix(b" ")?.to_vec();
    }
    Some(entry)
}

fn dos_date(word: &[u8]) -> Option<Date> {
    let parts: Vec<&[u8]> = word.split(|b| matches!(b, b'-' | b'/' | b'.')).collect();
    let [first, second, third] = parts.as_slice() else { return None };
    if first.len() == 4 {
        return Date::new(year(first)?, small(second)?, small(third)?).ok();
    }
    let year = match third.len() {
        4 => year(third)?,
        // Two digits: the window that IIS itself uses.
        2 => match i16::from(small(third)?) {
            year @ 0..=69 => 2000 + year,
            year => 1900 + year,
        },
        _ => return None,
    };
    // Month first, unless that can't be.
    let month_first = Date::new(year, small(first)?, small(second)?);
    month_first.or_else(|_| Date::new(year, small(second).unwrap_or(0), small(first).unwrap_or(0))).ok()
}

fn twelve_hours(word: &[u8]) -> Option<Time> {
    let lower = word.to_ascii_lowercase();
    let (digits, shift) = match lower.as_slice() {
        [rest @ .., b'a', b'm'] => (rest, Some(0)),
        [rest @ .., b'p', b'm'] => (rest, Some(12)),
        rest => (rest, None),
    };
    let time = clock(digits)?;
    let hour = match shift {
        None => time.hour(),
        Some(_) if !(1..=12).contains(&time.hour()) => return None,
        Some(shift) => time.hour() % 12 + shift,
    };
    Time::new(hour, time.minute(), time.second(), 0).ok()
}

/// The name and target of `name -> target`; the size of a link is the length of its target, which tells which arrow.
fn split_link(text: &[u8], size: Option<u64>) -> (&[u8], Option<&[u8]>) {
    const ARROW: &[u8] = b" -> ";
    let by_size = size
        .and_then(|size| text.len().checked_sub(usize::try_from(size).ok()?))
        .filter(|&at| at > ARROW.len() && text[..at].ends_with(ARROW));
    match by_size.or_else(|| text.windows(4).position(|w| w == ARROW).map(|at| at + 4)) {
        Some(at) => (&text[..at - 4], Some(&text[at..])),
        None => (text, None),
    }
}

/// The last such day that is not in the future; a day's grace for the server's time zone. 29 February may be years ago.
fn latest(month: i8, day: i8, now: Date) -> Option<Date> {
    let tomorrow = now.tomorrow().ok()?;
    (0..9).filter_map(|back| Date::new(tomorrow.year() - back, month, day).ok()).find(|date| *date <= tomorrow)
}

fn at(date: Date, time: Time, precision: Precision) -> Option<Mtime> {
    let moment = DateTime::from_parts(date, time).to_zoned(TimeZone::UTC).ok()?;
    Some(Mtime { precision, ..Mtime::from_unix(moment.timestamp().as_second()) })
}

fn month(word: &[u8]) -> Option<i8> {
    const MONTHS: [&[u8]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let lower = word.to_ascii_lowercase();
    let index = MONTHS.iter().position(|month| *month == lower.as_slice())?;
    i8::try_from(index + 1).ok()
}

fn day(word: &[u8]) -> Option<i8> {
    small(word.strip_suffix(b".").unwrap_or(word)).filter(|day| (1..=31).contains(day))
}

fn year(word: &[u8]) -> Option<i16> {
    let year = digits(word).filter(|_| word.len() == 4)?;
    i16::try_from(year).ok().filter(|year| (1900..=2999).contains(year))
}

/// `22:48`, `22:48:36`, `22:48:36.123456789`, `9:05`.
fn clock(word: &[u8]) -> Option<Time> {
    let whole = word.split(|&b| b == b'.').next()?;
    let parts: Vec<&[u8]> = whole.split(|&b| b == b':').collect();
    match parts.as_slice() {
        [h, m] => Time::new(small(h)?, small(m)?, 0, 0).ok(),
        [h, m, s] => Time::new(small(h)?, small(m)?, small(s)?.min(59), 0).ok(),
        _ => None,
    }
}

/// `+0100`
fn zone(word: &[u8]) -> Option<Offset> {
    let sign = match word.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = word.get(1..).filter(|rest| rest.len() == 4)?.split_at(2);
    Offset::from_seconds(sign * (i32::from(small(hours)?) * 3600 + i32::from(small(minutes)?) * 60)).ok()
}

fn small(word: &[u8]) -> Option<i8> {
    i8::try_from(digits(word).filter(|_| word.len() <= 2)?).ok()
}

fn digits(word: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(word).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

/// The words of a line and where they start.
fn words(line: &[u8]) -> impl Iterator<Item = Word<'_>> {
    let mut at = 0;
    line.split(|&b| b == b' ' || b == b'\t')
        .map(move |word| {
            let start = at;
            at += word.len() + 1;
            (start, word)
        })
        .filter(|(_, word)| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Date = jiff::civil::date(2026, 11, 21);

    fn entry(line: &str) -> Entry {
        match parse_line(line.as_bytes(), NOW) {
            Some(Line::Entry(entry)) => entry,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn shown(line: &str) -> (String, FileKind, Option<u64>, String) {
        let entry = entry(line);
        let time = entry.mtime.map_or("-".to_owned(), |mtime| {
            let moment = jiff::Timestamp::from_second(mtime.unix()).unwrap();
            format!("{} {:?}", &moment.to_string()[..16], mtime.precision)
        });
        (String::from_utf8(entry.name).unwrap(), entry.kind, entry.size, time)
    }

    fn row(name: &str, kind: FileKind, size: Option<u64>, time: &str) -> (String, FileKind, Option<u64>, String) {
        (name.to_owned(), kind, size, time.to_owned())
    }

    #[test]
    fn unix_forms() {
        use FileKind::{Directory, File, Other};
        let minute = "2026-11-21T22:48 Minute";
        for (line, expected) in [
            ("-rw-r--r--    1 1001     1001            6 Nov 21 22:48 file", row("file", File, Some(6), minute)),
            ("drwxr-xr-x+   2 user     group        4096 Nov 21 22:48 acl", row("acl", Directory, None, minute)),
            ("-rw-r--r--.   1 user     group           9 Nov 21 22:48 selinux", row("selinux", File, Some(9), minute)),
            ("-rw-r--r--   1 Domain Users Some Body 77 Nov 21 22:48 x", row("x", File, Some(77), minute)),
            ("-rw-r--r--   1 owner 77 Nov 21 22:48 no group", row("no group", File, Some(77), minute)),
            ("-rw-r--r--   77 Nov 21 22:48 bare", row("bare", File, Some(77), minute)),
            ("-rw-r--r--   1 a b 1 Nov 21 22:48   lead and trail ", row("  lead and trail ", File, Some(1), minute)),
            ("crw-rw----   1 root tty 4, 64 Nov 21 22:48 ttyS0", row("ttyS0", Other, None, minute)),
            ("brw-rw----   1 root disk 8,0 Nov 21 22:48 sda", row("sda", Other, None, minute)),
            ("srwxr-xr-x   1 root root 0 Nov 21 22:48 sock", row("sock", Other, Some(0), minute)),
            ("-rw-r--r--   1 a b 1 Apr 18  2025 old", row("old", File, Some(1), "2025-04-18T00:00 Day")),
            ("-rw-r--r--   1 a b 1 18 Apr  2025 day first", row("day first", File, Some(1), "2025-04-18T00:00 Day")),
            ("-rw-r--r--   1 a b 1 Dec 24 10:00 last year", row("last year", File, Some(1), "2025-12-24T10:00 Minute")),
            ("-rw-r--r--   1 a b 1 Feb 29 10:00 leap", row("leap", File, Some(1), "2024-02-29T10:00 Minute")),
            ("-rw-r--r--   1 a b 1 2025-04-18 10:11 iso", row("iso", File, Some(1), "2025-04-18T10:11 Minute")),
            (
                "-rw-r--r-- 1 a b 1 2025-04-18 10:11:12.000000000 +0200 full",
                row("full", File, Some(1), "2025-04-18T08:11 Second"),
            ),
            ("-rw-r--r--   1 a b 1 11-21 10:11 short iso", row("short iso", File, Some(1), "2026-11-21T10:11 Minute")),
            ("-rw-r--r--   1 a b 1 Apr 18 10:11:12 2025 bsd", row("bsd", File, Some(1), "2025-04-18T10:11 Second")),
            ("-rw-r--r--   1 a b 1 Okt 21 22:48 deutsch", row("deutsch", File, Some(1), "-")),
            ("-rw-r--r--   1 a b 1 M\u{e4}r 21 2020 sp\u{e4}t", row("sp\u{e4}t", File, Some(1), "-")),
            (
                "d [R----F--] supervisor            512       Jan 16 18:53    login",
                row("   login", Directory, None, "2026-01-16T18:53 Minute"),
            ),
            ("-rw-r--r--   1 1 2 3 Nov 21 2020 2020", row("2020", File, Some(3), "2020-11-21T00:00 Day")),
        ] {
            assert_eq!(shown(line), expected, "{line}");
        }
    }

    #[test]
    fn modes_and_links() {
        assert_eq!(entry("-rwsr-Sr-t 1 a b 1 Nov 21 22:48 x").mode, Some(0o7745));
        let link = entry("lrwxrwxrwx 1 a b 7 Nov 21 22:48 a -> b -> nowhere");
        assert_eq!((link.name.as_slice(), link.target.as_deref()), (&b"a -> b"[..], Some(&b"nowhere"[..])));
        let link = entry("lrwxrwxrwx 1 a b 0 Nov 21 22:48 a -> /x");
        assert_eq!((link.name.as_slice(), link.target.as_deref()), (&b"a"[..], Some(&b"/x"[..])));
    }

    #[test]
    fn dos_forms() {
        use FileKind::{Directory, File};
        for (line, expected) in [
            (
                "02-28-24  11:15PM       <DIR>          dir name",
                row("dir name", Directory, None, "2024-02-28T23:15 Minute"),
            ),
            (
                "02-28-2024  12:15AM             1234567 file.txt",
                row("file.txt", File, Some(1_234_567), "2024-02-28T00:15 Minute"),
            ),
            ("02-28-2024  23:15                 1,234  led", row(" led", File, Some(1234), "2024-02-28T23:15 Minute")),
            ("2024-02-28  11:15 PM  5 x y", row("x y", File, Some(5), "2024-02-28T23:15 Minute")),
            ("10-23-98  06:02PM       <DIR>            two", row("  two", Directory, None, "1998-10-23T18:02 Minute")),
        ] {
            assert_eq!(shown(line), expected, "{line}");
        }
        assert_eq!(entry("02-28-24  11:15AM       <SYMLINKD>     link").kind, FileKind::Symlink);
    }

    #[test]
    fn eplf_form() {
        let dir = entry("+i8388621.48594,m825718503,/,up755,\tCVS dir");
        assert_eq!((dir.kind, dir.mode, dir.name.as_slice()), (FileKind::Directory, Some(0o755), &b"CVS dir"[..]));
        let file = entry("+i8388621.48594,m825718503,r,s280,\tdjb.html");
        assert_eq!((file.kind, file.size, file.mtime.map(Mtime::unix)), (FileKind::File, Some(280), Some(825_718_503)));
    }

    #[test]
    fn lines_without_an_entry() {
        for line in [
            "total 12",
            "insgesamt 4",
            "",
            "  ",
            "drwxr-xr-x 2 a b 4096 Nov 21 22:48 .",
            "drwxr-xr-x 2 a b 4096 Nov 21 22:48 ..",
        ] {
            assert_eq!(parse_line(line.as_bytes(), NOW), Some(Line::Nothing), "{line}");
        }
    }

    #[test]
    fn what_is_no_entry_is_said_to_be_none() {
        for line in [
            "ls: cannot open directory",
            "-rw-r--r-- what",
            "drwxr-xr-x 2 a b 4096 Nov 21 22:48",
            "02-28-24 what",
            "+nothing",
        ] {
            assert_eq!(parse_line(line.as_bytes(), NOW), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_name_survives_ls(name in "[^\r\n]{1,20}", owner in "[a-z0-9]{1,8}( [a-z]{1,5})?", size: u64, day in 1..29, hour in 0..24) {
            let line = format!("-rw-r--r--   1 {owner} group {size:>8} Nov {day:>2} {hour:02}:48 {name}");
            match parse_line(line.as_bytes(), NOW) {
                Some(Line::Entry(entry)) => {
                    prop_assert_eq!(entry.name, name.as_bytes());
                    prop_assert_eq!(entry.size, Some(size));
                }
                other => prop_assert!(name == "." || name == "..", "{other:?}"),
            }
        }

        #[test]
        fn any_line_is_read_or_refused(line: Vec<u8>, form in 0..4usize) {
            let start = ["", "-rw-r--r-- 1 a b 1 ", "02-28-24 ", "+"][form];
            let _ = parse_line(&[start.as_bytes(), &line].concat(), NOW);
        }
    }
}

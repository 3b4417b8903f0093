//! Numbers, times and names as people read them.

use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::time::Duration;

use haul::transport::escape;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use percent_encoding::percent_decode_str;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Writes a number of bytes with three digits: `999 B`, `1.2 KiB`, `512 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    let mut scaled = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        let decimals = usize::from(unit != "B" && scaled < 99.95);
        if scaled < 1023.5 {
            return format!("{scaled:.decimals$} {unit}");
        }
        scaled /= 1024.0;
    }
    format!("{number} B")
}

/// Writes bytes a second.
pub(crate) fn rate(number: u64, time: Duration) -> String {
    #[allow(clippy::cast_sign_loss)] // both are positive
    let each_second = (number as f64 / time.as_secs_f64().max(0.001)) as u64;
    format!("{}/s", bytes(each_second))
}

/// Writes a time: `0.3 s`, `42 s`, `2 min 05 s`, `3 h 07 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Writes a time to the second: `0 s`, `42 s`, `2 min 05 s`.
pub(crate) fn whole(time: Duration) -> String {
    let seconds = (time + Duration::from_millis(500)).as_secs();
    if seconds < 10 { format!("{seconds} s") } else { duration(Duration::from_secs(seconds)) }
}

/// Returns the share of `part` in `whole`, 0 to 100; all of nothing is 100.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1)))
        .map_or(100, |p| if whole == 0 { 100 } else { p.min(100) })
}

/// Writes `1 file`, `2 files`.
pub(crate) fn files(number: u64) -> String {
    if number == 1 { "1 file".into() } else { format!("{number} files") }
}

/// Writes an instant in the local time zone, to the minute.
pub(crate) fn local_minute(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// Writes an instant in the local time zone, to the second and with the zone.
pub(crate) fn local_second(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// Shortens what an event calls its source or destination to a path: no scheme, host or percent codes, harmless, and
/// from the current directory where it is in there.
pub(crate) fn path_of(url: &str) -> String {
    static HERE: OnceLock<String> = OnceLock::new();
    let here = HERE.get_or_init(|| match std::env::current_dir() {
        Ok(here) => format!("{}/", haul::endpoint::encode_path(here.as_os_str().as_bytes()).trim_end_matches('/')),
        Err(_) => String::new(),
    });
    if let Some(inside) = url.strip_prefix("file://").and_then(|path| path.strip_prefix(here.as_str()))
        && !inside.is_empty()
        && here.len() > 1
    {
        return escape(&percent_decode_str(inside).collect::<Vec<u8>>());
    }
    match url.split_once("://") {
        Some((_, rest)) => {
            let path = rest.find('/').map_or("", |slash| &rest[slash..]);
            // An absolute path in an FTP URL has a second slash.
            let path = if path.starts_with("//") { &path[1..] } else { path };
            escape(&percent_decode_str(path).collect::<Vec<u8>>())
        }
        None => escape(url.as_bytes()),
    }
}

/// Fits a path into so many columns: pads it on the right, or cuts it on the left, where paths differ least.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let width = text.width();
    if width <= columns {
        return format!("{text}{}", " ".repeat(columns - width));
    }
    let mut kept = columns.saturating_sub(1);
    let mut start = text.len();
    for (position, character) in text.char_indices().rev() {
        let Some(left) = kept.checked_sub(character.width().unwrap_or(0)) else { break };
        (kept, start) = (left, position);
    }
    format!(
        "{}{}{}",
        " ".repeat(if columns == 0 { 0 } else { kept }),
        if columns == 0 { "" } else { "…" },
        &text[start..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_have_three_digits() {
        for (number, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_258_291, "1.2 MiB"),
            (64 << 20, "64.0 MiB"),
            (512 << 20, "512 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn times_are_short() {
        for (milliseconds, text) in
            [(0, "0.0 s"), (3_400, "3.4 s"), (42_900, "42 s"), (125_000, "2 min 05 s"), (11_220_000, "3 h 07 min")]
        {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn shares_stay_within_a_hundred() {
        assert_eq!((percent(0, 0), percent(1, 3), percent(9, 3), percent(u64::MAX, u64::MAX)), (100, 33, 100, 100));
    }

    #[test]
    fn urls_are_shown_as_paths() {
        assert_eq!(path_of("sftp://me@h:22/a%20b/%1b%41"), "/a b/\\u{1b}A");
        assert_eq!(path_of("ftp://h//a"), "/a");
        assert_eq!(path_of("/tmp/100%41"), "/tmp/100%41");
        assert_eq!(path_of("ftp://h"), "");
        let here = std::env::current_dir().unwrap();
        assert_eq!(path_of(&format!("file://{}/a%20b", here.display())), "a b");
        assert_eq!(path_of(&format!("file://{}x", here.display())), format!("{}x", here.display()));
    }

    #[test]
    fn names_are_cut_on_the_left() {
        assert_eq!(fit("abc", 5), "abc  ");
        assert_eq!(fit("/a/long/path", 7), "…g/path");
        assert_eq!(fit("/日本語", 4), " …語");
        assert_eq!(fit("abc", 0), "");
    }

    proptest! {
        #[test]
        fn a_fitted_name_has_its_width(text in "[a-zé日/]{0,40}", columns in 0..30usize) {
            prop_assert_eq!(fit(&text, columns).width(), columns);
        }
    }
}

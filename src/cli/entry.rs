//! Entries as `ls` and `stat` show them: as text and as JSON.

use haul::endpoint::Endpoint;
use haul::transport::{Entry, FileKind, Mtime, Precision, RemotePath};
use jiff::Timestamp;
use serde::Serialize;

use super::format;

/// One entry as a line of JSON. `name` is lossy where it isn't UTF-8; `url` never is.
#[derive(Debug, Serialize)]
pub(crate) struct EntryLine {
    name: String,
    url: String,
    #[serde(rename = "type")]
    kind: &'static str,
    size: Option<u64>,
    mtime: Option<String>,
    mode: Option<String>,
    target: Option<String>,
}

impl EntryLine {
    /// Makes the line of an entry at this path.
    pub(crate) fn new(entry: &Entry, endpoint: &Endpoint, path: &RemotePath) -> Self {
        Self {
            name: String::from_utf8_lossy(&entry.name).into_owned(),
            url: endpoint.url_of(path),
            kind: entry.kind.name(),
            size: entry.size,
            mtime: entry.mtime.and_then(timestamp).map(|time| time.to_string()),
            mode: entry.mode.map(|mode| format!("{mode:04o}")),
            target: entry.target.as_ref().map(|target| String::from_utf8_lossy(target).into_owned()),
        }
    }
}

/// Returns type and permissions as `ls -l` writes them; `?` for what the server doesn't tell.
pub(crate) fn mode(entry: &Entry) -> String {
    let kind = match entry.kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Other => '?',
    };
    let Some(mode) = entry.mode else { return format!("{kind}?????????") };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => set,
            (false, true) => unset,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Returns the time to the minute, in the local zone; a day alone where no more is known.
pub(crate) fn short_time(mtime: Mtime) -> String {
    let Some(time) = timestamp(mtime) else { return String::new() };
    match mtime.precision {
        Precision::Nanosecond | Precision::Second => format::local_minute(time),
        // Told by LIST in the server's zone, whichever that is: shown as the server told it.
        Precision::Minute => time.strftime("%Y-%m-%d %H:%M").to_string(),
        Precision::Day => time.strftime("%Y-%m-%d").to_string(),
    }
}

/// Returns the time for JSON and arithmetic, as finely as it is known; `None` outside the years -9999 to 9999.
pub(crate) fn timestamp(mtime: Mtime) -> Option<Timestamp> {
    match mtime.precision {
        Precision::Nanosecond => Timestamp::try_from(mtime.time).ok(),
        _ => Timestamp::from_second(mtime.unix()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_as_ls_writes_them() {
        let text = |kind, mode| mode_of(kind, mode);
        assert_eq!(text(FileKind::File, Some(0o644)), "-rw-r--r--");
        assert_eq!(text(FileKind::Directory, Some(0o1777)), "drwxrwxrwt");
        assert_eq!(text(FileKind::File, Some(0o6711)), "-rws--s--x");
        assert_eq!(text(FileKind::File, Some(0o7000)), "---S--S--T");
        assert_eq!(text(FileKind::Other, None), "??????????");
    }

    fn mode_of(kind: FileKind, bits: Option<u32>) -> String {
        mode(&Entry { mode: bits, ..Entry::new("x", kind) })
    }

    #[test]
    fn coarse_times_say_no_more_than_is_known() {
        let day = Mtime { precision: Precision::Day, ..Mtime::from_unix(86_400) };
        assert_eq!(short_time(day), "1970-01-02");
        let minute = Mtime { precision: Precision::Minute, ..Mtime::from_unix(60) };
        assert_eq!(short_time(minute), "1970-01-01 00:01");
        assert_eq!(timestamp(Mtime::from_unix(-1)).unwrap().to_string(), "1969-12-31T23:59:59Z");
    }
}

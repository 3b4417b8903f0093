//! Entries as `ls -l` writes them: what FTP's LIST answers, and SFTP's longname.

use std::time::SystemTime;

use super::ftp::stamp;
use super::root::{Metadata, MetadataExt, kind_of};
use crate::transport::{FileKind, Mtime};

/// Writes an entry as `ls -l` does; owners are numbers, as the server's names mean nothing elsewhere.
pub(crate) fn long_name(name: &[u8], metadata: &Metadata, now: SystemTime) -> Vec<u8> {
    let mut line = format!(
        "{} {:>3} {:<8} {:<8} {:>12} {} ",
        mode_letters(metadata),
        metadata.nlink(),
        metadata.uid(),
        metadata.gid(),
        metadata.len(),
        format_ls_time(metadata.mtime(), now)
    )
    .into_bytes();
    line.extend(name);
    line
}

fn mode_letters(metadata: &Metadata) -> String {
    let mode = metadata.mode();
    let kind = match kind_of(metadata) {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Other => match mode & 0o170_000 {
            0o010_000 => 'p',
            0o020_000 => 'c',
            0o060_000 => 'b',
            _ => 's',
        },
    };
    let mut letters = String::from(kind);
    let special = [(0o4000, 's'), (0o2000, 's'), (0o1000, 't')];
    for (who, (bit, letter)) in special.into_iter().enumerate() {
        let bits = mode >> (6 - 3 * who);
        letters.push(if bits & 4 != 0 { 'r' } else { '-' });
        letters.push(if bits & 2 != 0 { 'w' } else { '-' });
        letters.push(match (mode & bit != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    letters
}

/// Writes a time as `ls -l` does: with the hour for the last half year, else with the year.
fn format_ls_time(seconds: i64, now: SystemTime) -> String {
    const HALF_YEAR: i64 = 182 * 86_400;
    let now = Mtime::from(now).unix();
    let recent = (now - HALF_YEAR..=now + 60).contains(&seconds);
    stamp(seconds).strftime(if recent { "%b %e %H:%M" } else { "%b %e  %Y" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn ls_times_show_hour_or_year() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(format_ls_time(1_000_000_000 - 86_400 * 2, now), "Sep  7 01:46");
        assert_eq!(format_ls_time(0, now), "Jan  1  1970");
    }

    proptest! {
        #[test]
        fn any_time_will_do(seconds: i64) {
            let _ = format_ls_time(seconds, UNIX_EPOCH);
        }
    }
}

//! The part file: where a transfer is written before it gets its final name.

use crate::error::{Error, ErrorKind, Result};
use crate::transport::RemotePath;

/// The longest name that file systems and servers commonly take, in bytes.
const LONGEST_NAME: usize = 255;

/// Returns the part file's path: `.NAME.haul-ID.part` beside the destination, `NAME` cut where it would be too long.
pub(super) fn path_of(destination: &RemotePath, id: &str) -> Result<RemotePath> {
    let (Some(parent), Some(name)) = (destination.parent(), destination.file_name()) else {
        return Err(Error::new(ErrorKind::IsADirectory, "the root can't be written as a file").at(destination));
    };
    let tail = format!(".haul-{id}.part");
    let mut part = Vec::with_capacity(LONGEST_NAME);
    part.push(b'.');
    part.extend_from_slice(&name[..cut(name, LONGEST_NAME - 1 - tail.len())]);
    part.extend_from_slice(tail.as_bytes());
    parent.join(part)
}

/// Returns whether a name is that of a part file, which listings of trees leave out.
pub(crate) fn is_part_name(name: &[u8]) -> bool {
    let Some(stem) = name.strip_prefix(b".").and_then(|n| n.strip_suffix(b".part")) else { return false };
    let Some(dot) = stem.windows(6).rposition(|w| w == b".haul-") else { return false };
    let id = &stem[dot + 6..];
    id.len() == ID_LENGTH && id.iter().all(u8::is_ascii_hexdigit)
}

/// Characters of an id: 64 bits in hex.
pub(super) const ID_LENGTH: usize = 16;

/// Where to cut a name so that a character of UTF-8 stays whole: servers may refuse half of one.
fn cut(name: &[u8], longest: usize) -> usize {
    if name.len() <= longest {
        return name.len();
    }
    (longest.saturating_sub(3)..=longest).rev().find(|&i| name[i] & 0xc0 != 0x80).unwrap_or(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lies_beside_its_destination() {
        let path = path_of(&RemotePath::new("/a/b.txt").unwrap(), "0123456789abcdef").unwrap();
        assert_eq!(path.to_string(), "/a/.b.txt.haul-0123456789abcdef.part");
        assert!(path_of(&RemotePath::root(), "0123456789abcdef").is_err());
    }

    proptest! {
        #[test]
        fn its_name_is_never_too_long(name in "[a-zäß日]{1,255}") {
            let destination = RemotePath::root().join(&name).unwrap();
            let part = path_of(&destination, "0123456789abcdef").unwrap();
            let part_name = part.file_name().unwrap();
            prop_assert!(part_name.len() <= 255);
            prop_assert!(std::str::from_utf8(part_name).is_ok());
            prop_assert!(is_part_name(part_name));
            prop_assert!(!is_part_name(name.as_bytes()));
        }
    }
}

//! The part file: where a transfer is written before it gets its final name.

use super::displaced::DISPLACED;
use super::types::Location;
use crate::endpoint::encode_path;
use crate::error::Result;
use crate::transport::{Durability, RemotePath, Replace};

/// Returns the part file's path: `.NAME.haul-ID.part` beside the destination, `NAME` cut where it would be too long.
pub(super) fn path_of(destination: &RemotePath, id: &str) -> Result<RemotePath> {
    destination.beside(id, PART)
}

/// Returns the id of a transfer, the same whenever the same command is run again on this machine.
pub(super) fn id_of(installation: &[u8; 16], source: &str, destination: &str) -> String {
    let mut key = [0; 32];
    key[..16].copy_from_slice(installation);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(source.as_bytes()).update(&[0]).update(destination.as_bytes());
    hasher.finalize().to_hex()[..ID_LENGTH].to_owned()
}

/// Returns where a part goes that isn't what was sent: `.NAME.haul-ID.bad`.
pub(super) fn aside_of(part: &Location) -> Result<Location> {
    let name = part.path.file_name().unwrap_or_default();
    let name = [name.strip_suffix(PART.as_bytes()).unwrap_or(name), BAD.as_bytes()].concat();
    let path = part.path.parent().unwrap_or_else(RemotePath::root).join(&name)?;
    // The part goes by the URL of its destination.
    let folder = part.url.rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(Location { url: format!("{folder}/{}", encode_path(&name)), ..part.sibling(path) })
}

/// Puts a part that isn't what was sent out of the way, so that nothing goes on with it and nothing writes over it but a
/// later one of the same transfer; returns where it is.
pub(super) async fn set_aside(part: &Location) -> Result<Location> {
    let aside = aside_of(part)?;
    part.transport.rename(&part.path, &aside.path, Replace::Yes, Durability::Cached).await?;
    Ok(aside)
}

/// Removes what a rename that broke left of the file that was there before, now that another has its name.
pub(super) async fn clear(destination: &Location) {
    if let (false, Ok(old)) = (destination.transport.capabilities().local, destination.path.out_of_the_way()) {
        // Hardly ever there, and no reason to fail.
        let _ = destination.transport.remove_file(&old).await;
    }
}

const PART: &str = ".part";
const BAD: &str = ".bad";
/// A file that was in the way of a part: see [`RemotePath::out_of_the_way`].
const OLD: &str = ".old";

/// Returns whether a name is that of a part file, or of what was put out of the way; listings of trees leave them out.
pub(crate) fn is_part_name(name: &[u8]) -> bool {
    let Some(stem) = name.strip_prefix(b".") else { return false };
    let Some(stem) = [PART, BAD, OLD, DISPLACED].iter().find_map(|end| stem.strip_suffix(end.as_bytes())) else {
        return false;
    };
    let Some(dot) = stem.windows(6).rposition(|w| w == b".haul-") else { return false };
    let id = &stem[dot + 6..];
    is_id(id)
}

/// Returns whether this can be the id of a transfer.
pub(super) fn is_id(id: &[u8]) -> bool {
    id.len() == ID_LENGTH && id.iter().all(u8::is_ascii_hexdigit)
}

/// Characters of an id: 64 bits in hex.
pub(super) const ID_LENGTH: usize = 16;

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

    #[test]
    fn one_set_aside_says_so_in_path_and_url() {
        let transport = std::sync::Arc::new(crate::transport::local::Local::new());
        let path = path_of(&RemotePath::new("/a/b c").unwrap(), "0123456789abcdef").unwrap();
        let aside = aside_of(&Location { transport, path, url: "sftp://h/a/b%20c".into() }).unwrap();
        assert_eq!(aside.path.to_string(), "/a/.b c.haul-0123456789abcdef.bad");
        assert_eq!(aside.url, "sftp://h/a/.b%20c.haul-0123456789abcdef.bad");
        assert!(is_part_name(aside.path.file_name().unwrap()));
        assert!(!is_part_name(b".b.haul-0123456789abcdef.worse"));
        assert!(is_part_name(path_of(&aside.path, "0123456789abcdef").unwrap().file_name().unwrap()));
        assert!(is_part_name(aside.path.out_of_the_way().unwrap().file_name().unwrap()));
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

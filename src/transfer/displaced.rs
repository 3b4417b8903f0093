//! What is in the way of another kind of thing: under a name of haul's own until that is there, and back if it doesn't come.

use super::types::Location;
use crate::endpoint::encode_path;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Durability, RemotePath, Replace};

/// Returns where it goes that is in the way: `.NAME.haul-ID.displaced`, always the same, so that the next run finds it.
///
/// # Errors
/// `IsADirectory` for the root.
pub(crate) fn displaced(at: &Location) -> Result<Location> {
    let path = path_of(&at.path)?;
    let name = path.file_name().unwrap_or_default();
    let folder = at.url.rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(Location { url: format!("{folder}/{}", encode_path(name)), ..at.sibling(path) })
}

/// Returns the name that something displaced had, if it is that. One too long to be kept whole is not known any more.
pub(crate) fn name_before(at: &RemotePath) -> Option<Vec<u8>> {
    let name = at.file_name()?;
    let stem = name.strip_prefix(b".")?.strip_suffix(DISPLACED.as_bytes())?;
    let dot = stem.windows(6).rposition(|window| window == b".haul-")?;
    let before = at.parent()?.join(&stem[..dot]).ok()?;
    (path_of(&before).ok()? == *at).then(|| stem[..dot].to_vec())
}

fn path_of(path: &RemotePath) -> Result<RemotePath> {
    path.beside(&blake3::hash(path.as_bytes()).to_hex()[..super::part::ID_LENGTH], DISPLACED)
}

/// Displaces what is there.
///
/// # Errors
/// Those of renaming; then it is where it was, as far as anybody knows.
pub(crate) async fn displace(at: &Location) -> Result<()> {
    let to = path_of(&at.path)?;
    match at.transport.rename(&at.path, &to, Replace::No, Durability::Cached).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let hint = format!("{to} is what an earlier run put out of the way: look at it, and move it elsewhere");
            Err(error.with_hint(hint))
        }
        done => done,
    }
}

/// Gives what was displaced its name again.
///
/// # Errors
/// Those of renaming: `AlreadyExists` if something has the name now, `NotFound` if nothing was displaced.
pub(crate) async fn put_back(at: &Location) -> Result<()> {
    at.transport.rename(&path_of(&at.path)?, &at.path, Replace::No, Durability::Cached).await
}

/// Gives it its name again after an error, which says where it is if that fails.
pub(super) async fn put_back_after(at: &Location, error: Error) -> Error {
    match (put_back(at).await, path_of(&at.path)) {
        (Err(_), Ok(to)) => error.with_hint(format!("what was there before is {to} now")),
        _ => error,
    }
}

/// How such a name ends.
pub(super) const DISPLACED: &str = ".displaced";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_name_tells_the_one_before() {
        for name in ["x", "a b.haul-c", ".hidden"] {
            let path = RemotePath::root().join(name).unwrap();
            let to = path_of(&path).unwrap();
            assert!(super::super::is_part_name(to.file_name().unwrap()));
            assert_eq!(name_before(&to).as_deref(), Some(name.as_bytes()));
            let elsewhere = RemotePath::new("/elsewhere").unwrap().join(to.file_name().unwrap()).unwrap();
            assert_eq!(name_before(&elsewhere), None, "another's");
            assert_eq!(name_before(&path), None);
        }
        let long = RemotePath::root().join("n".repeat(250)).unwrap();
        assert_eq!(name_before(&path_of(&long).unwrap()), None);
    }
}

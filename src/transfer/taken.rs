//! Names that a disk takes for one: those that differ by case only, or by Unicode's normal form.
//!
//! Which names those are, each disk decides for itself, and for each directory (ext4, vfat, APFS, ZFS, network shares).
//! So nothing is guessed: where a name is taken though the directory doesn't list it, another name took it.

use futures_util::StreamExt;

use super::types::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::escape;

/// Makes sure that a name which is taken is taken by what is called exactly so. Lists the directory.
///
/// # Errors
/// `InvalidPath` when it is taken by something of another name, which must not be written over.
pub(super) async fn by_its_own_name(at: &Location) -> Result<()> {
    let (Some(parent), Some(name)) = (at.path.parent(), at.path.file_name()) else { return Ok(()) };
    let folded = fold(name);
    let mut other = None;
    let mut listing = at.transport.list(&parent).await?;
    while let Some(entry) = listing.next().await {
        let entry = entry?;
        if entry.name == name {
            return Ok(());
        }
        if fold(&entry.name) == folded {
            other = Some(entry.name);
        }
    }
    let other = other.map_or("something else".to_owned(), |name| format!("\"{}\"", escape(&name)));
    Err(Error::new(ErrorKind::InvalidPath, format!("here this is the same name as that of {other}, which is there"))
        .at(at.shown())
        .with_hint("this disk doesn't tell some names apart; get one of the two into another directory"))
}

fn fold(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_lowercase()
}

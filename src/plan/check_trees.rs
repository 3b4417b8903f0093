//! Two trees checked by what is in their files: the comparison says which files may be the same, digests whether they are.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};

use super::compare::{Difference, Finding, Side, Verdict, Why, below};
use super::digest::Places;
use crate::error::Error;
use crate::transfer::{Asked, Digested, Digester, Location, common_algorithms};
use crate::transport::{Algorithm, Entry, FileKind};

/// Files that are worked on or wait for those before them.
const FILES_AHEAD: usize = 1024;

/// How the contents of files are compared.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Tells the digests.
    pub digester: Arc<Digester>,
    /// How many at once.
    pub places: Arc<Places>,
    /// By which digest.
    pub algorithm: Algorithm,
}

/// The digests of two files of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Of the left tree's.
    pub left: Digested,
    /// Of the right tree's.
    pub right: Digested,
}

/// Returns by which digest two endpoints are compared: the strongest that both compute, else the strongest that one of
/// them does. Where all is read in any case, the one that is computed fastest.
pub fn algorithm_for(left: &Location, right: &Location, asked: Asked) -> Algorithm {
    let (left, right) = (left.transport.capabilities(), right.transport.capabilities());
    if asked == Asked::Nobody || (left.local && right.local) {
        return Algorithm::Blake3;
    }
    let common = common_algorithms(&left, &right).first().copied();
    common.or(left.digests.first().copied()).or(right.digests.first().copied()).unwrap_or(Algorithm::Blake3)
}

/// Compares the contents of the files which a comparison found alike, many at once; everything comes in its order.
pub fn by_content(
    findings: impl Stream<Item = Finding> + Send,
    left: Location,
    right: Location,
    contents: Contents,
) -> impl Stream<Item = (Finding, Option<Digests>)> + Send {
    let compared = findings.map(move |finding| {
        let (left, right, contents) = (left.clone(), right.clone(), contents.clone());
        async move {
            match finding {
                Finding::Pair(difference) => pair(&left, &right, &contents, difference).await,
                other => (other, None),
            }
        }
    });
    compared.buffered(FILES_AHEAD)
}

async fn pair(
    left: &Location,
    right: &Location,
    contents: &Contents,
    difference: Difference,
) -> (Finding, Option<Digests>) {
    let is_file = |entry: &&Entry| entry.kind == FileKind::File;
    let (Verdict::Equal, Some(left_entry), Some(right_entry)) =
        (difference.verdict, difference.left.as_ref().filter(is_file), difference.right.as_ref().filter(is_file))
    else {
        return (Finding::Pair(difference), None);
    };
    contents.digester.expect(left_entry.size);
    let path = &difference.path;
    let digest = |side, root, entry| async move {
        let at = below(root, path).map_err(|error| (side, error))?;
        let work = contents.digester.digest(&at, Some(entry), contents.algorithm);
        contents.places.work(&at, work).await.map_err(|error: Error| (side, error))
    };
    let both = tokio::try_join!(digest(Side::Left, left, left_entry), digest(Side::Right, right, right_entry));
    match both {
        Ok((left, right)) => {
            let verdict = if left.digest == right.digest { Verdict::Equal } else { Verdict::Different(Why::Digest) };
            (Finding::Pair(Difference { verdict, ..difference }), Some(Digests { left, right }))
        }
        Err((side, error)) => (Finding::Failed { side, path: difference.path, error }, None),
    }
}

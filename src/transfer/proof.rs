//! Proving what an earlier attempt left, so that a resumed file is as good as one moved in one go.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{FileKind, Follow, ReadRange};

use super::journal::Journal;
use super::types::Location;

/// Bytes before the offset that are read from both ends and compared, where that crosses the network.
const OVERLAP: u64 = 64 * 1024;

/// Makes the journal forget what can't be proven of the part file; returns how many bytes are kept.
///
/// Kept bytes on this machine must match the journal's digests block by block; a source on this machine must still do
/// so too. The end across the network is proven by the last bytes of each run of blocks, compared with the other end's.
pub(super) async fn prove(source: &Location, part: &Location, journal: &mut Journal) -> Result<u64> {
    let (from, to) = (source.transport.capabilities(), part.transport.capabilities());
    let size = match part.transport.stat(&part.path, Follow::Nothing).await {
        Ok(entry) if entry.kind == FileKind::File => entry.size.unwrap_or(0),
        Ok(_) => 0,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            folder_is_there(part).await?;
            0
        }
        Err(e) => return Err(e),
    };
    // A part longer than the source was written by somebody else.
    // And a server that has APPE but no REST can't show what it has.
    let unproven = !from.resume_read || !to.resume_write || !to.resume_read;
    if size == 0 || size > journal.head.size || unproven {
        journal.retain(|_, _| false)?;
        return Ok(0);
    }
    let first_gap = journal.missing().first().map_or(journal.head.size, |gap| gap.start);
    journal.retain(|_, range| range.end <= size && (to.random_write || range.end <= first_gap))?;
    if to.local {
        let damaged = damaged(part, journal).await?;
        journal.retain(|block, _| !damaged.contains(&block))?;
    }
    if from.local && !damaged(source, journal).await?.is_empty() {
        journal.retain(|_, _| false)?;
    }
    let runs = try_join_all(journal.runs().into_iter().map(|run| ends_alike(source, part, journal, run))).await?;
    journal.retain(|_, range| runs.iter().any(|(run, alike)| *alike && run.contains(&range.start)))?;
    Ok(journal.kept())
}

/// Fails where the part's directory is missing: a disk that is away may come back, and the part with it.
async fn folder_is_there(part: &Location) -> Result<()> {
    let Some(folder) = part.path.parent() else { return Ok(()) };
    match part.transport.stat(&folder, Follow::Links).await {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NotFound, "the directory is not there").at(folder))
        }
        _ => Ok(()),
    }
}

/// Returns the run and whether its end is the same at both ends; what is on this machine was proven already.
async fn ends_alike(
    source: &Location,
    part: &Location,
    journal: &Journal,
    run: Range<u64>,
) -> Result<(Range<u64>, bool)> {
    let alike = match (source.transport.capabilities().local, part.transport.capabilities().local) {
        (true, true) => true,
        (false, false) => {
            last_block_matches(source, journal, run.end).await? && last_block_matches(part, journal, run.end).await?
        }
        _ => {
            let overlap = ReadRange::between(run.start.max(run.end.saturating_sub(OVERLAP)), run.end);
            let (from, to) = tokio::try_join!(read_all(source, overlap), read_all(part, overlap))?;
            from == to
        }
    };
    Ok((run, alike))
}

/// Returns the blocks that don't have the digests that the journal says.
pub(super) async fn damaged(at: &Location, journal: &Journal) -> Result<HashSet<u64>> {
    let mut damaged = HashSet::new();
    for run in journal.runs() {
        let mut stream = at.transport.open_read(&at.path, ReadRange::between(run.start, run.end)).await?;
        let (mut position, mut chunk) = (run.start, Bytes::new());
        while position < run.end {
            let block = position / journal.head.block;
            let mut left = journal.head.length_of(block);
            position += left;
            let mut hasher = blake3::Hasher::new();
            while left > 0 {
                if chunk.is_empty() {
                    chunk = stream.read().await?;
                    if chunk.is_empty() {
                        break;
                    }
                }
                let piece = chunk.split_to(chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                hasher.update(&piece);
                left -= piece.len() as u64;
            }
            if journal.digest(block) != Some(hasher.finalize()) {
                damaged.insert(block);
            }
        }
    }
    Ok(damaged)
}

async fn last_block_matches(at: &Location, journal: &Journal, end: u64) -> Result<bool> {
    let block = (end - 1) / journal.head.block;
    let bytes = read_all(at, ReadRange::between(block * journal.head.block, end)).await?;
    Ok(journal.digest(block) == Some(blake3::hash(&bytes)))
}

/// Reads a range that is known to be short.
async fn read_all(at: &Location, range: ReadRange) -> Result<Vec<u8>> {
    let read = async {
        let mut stream = at.transport.open_read(&at.path, range).await?;
        let mut bytes = Vec::new();
        loop {
            let chunk = stream.read().await?;
            if chunk.is_empty() {
                stream.finish().await?;
                return Ok(bytes);
            }
            bytes.extend_from_slice(&chunk);
        }
    };
    read.await.map_err(|e: Error| e.context("read back the overlap"))
}

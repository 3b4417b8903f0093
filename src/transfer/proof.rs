//! Proving what an earlier attempt left, so that a resumed file is as good as one moved in one go.

use crate::error::{Error, ErrorKind, Result};
use crate::transport::{FileKind, Follow, ReadRange};

use super::journal::Journal;
use super::types::Location;

/// Bytes before the offset that are read from both ends and compared, where that crosses the network.
const OVERLAP: u64 = 64 * 1024;

/// Returns how many bytes of the part file are proven and kept; 0 when the transfer starts anew.
///
/// Kept bytes on this machine must match the journal's digests block by block; a source on this machine must still do
/// so too. The end across the network is proven by the bytes right before the offset, compared with the other end's.
pub(super) async fn kept_bytes(source: &Location, part: &Location, journal: &Journal) -> Result<u64> {
    let (from, to) = (source.transport.capabilities(), part.transport.capabilities());
    let size = match part.transport.stat(&part.path, Follow::Nothing).await {
        Ok(entry) if entry.kind == FileKind::File => entry.size.unwrap_or(0),
        Ok(_) => return Ok(0),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    // A part longer than the source was written by somebody else.
    if size > journal.head.size || !from.resume_read || !to.resume_write {
        return Ok(0);
    }
    let mut kept = whole_blocks(journal, size.min(journal.contiguous()));
    if to.local {
        kept = proven_prefix(part, journal, kept).await?;
    }
    if kept == 0 {
        return Ok(0);
    }
    if from.local && proven_prefix(source, journal, kept).await? < kept {
        return Ok(0);
    }
    let same = match (from.local, to.local) {
        (true, true) => true,
        (false, false) => {
            last_block_matches(source, journal, kept).await? && last_block_matches(part, journal, kept).await?
        }
        _ => {
            let range = ReadRange::between(kept.saturating_sub(OVERLAP), kept);
            read_all(source, range).await? == read_all(part, range).await?
        }
    };
    Ok(if same { kept } else { 0 })
}

fn whole_blocks(journal: &Journal, bytes: u64) -> u64 {
    if bytes == journal.head.size { bytes } else { bytes - bytes % journal.head.block }
}

/// Returns how many of the first `bytes` have the digests that the journal says, in whole blocks.
async fn proven_prefix(at: &Location, journal: &Journal, bytes: u64) -> Result<u64> {
    let mut stream = at.transport.open_read(&at.path, ReadRange::between(0, bytes)).await?;
    let (mut proven, mut hasher, mut in_block) = (0, blake3::Hasher::new(), 0);
    loop {
        let mut chunk = stream.read().await?;
        if chunk.is_empty() {
            return Ok(proven);
        }
        while !chunk.is_empty() {
            let block = proven / journal.head.block;
            let length = journal.head.length_of(block);
            let piece = chunk.split_to(chunk.len().min(usize::try_from(length - in_block).unwrap_or(usize::MAX)));
            hasher.update(&piece);
            in_block += piece.len() as u64;
            if in_block == length {
                if journal.digest(block) != Some(hasher.finalize()) {
                    return Ok(proven);
                }
                proven += length;
                hasher.reset();
                in_block = 0;
                if proven >= bytes {
                    return Ok(proven);
                }
            }
        }
    }
}

async fn last_block_matches(at: &Location, journal: &Journal, kept: u64) -> Result<bool> {
    let block = (kept - 1) / journal.head.block;
    let bytes = read_all(at, ReadRange::between(block * journal.head.block, kept)).await?;
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

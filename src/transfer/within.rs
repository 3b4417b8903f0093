//! A file copied by the server that has both ends: its bytes don't cross the network.

use super::attempt::Attempt;
use super::retry::interrupted;
use crate::error::{ErrorKind, Result};
use crate::transport::{Durability, Finish, Finished, ReadRange, WriteMode};

/// Smaller files cost fewer round trips when they are read and written.
const WORTH: u64 = 64 << 10;
/// Bytes that a server copies at once: it says nothing meanwhile.
const AT_ONCE: u64 = 64 << 20;

/// Lets the server copy a file; `None` where it doesn't.
pub(super) async fn copy(attempt: &Attempt<'_>, kept: u64, last: Finish) -> Result<Option<(u64, Finished)>> {
    let (source, part) = (&attempt.job.source, attempt.part);
    let one_server = std::sync::Arc::ptr_eq(&source.transport, &part.transport);
    let Some(size) = attempt.entry.size.filter(|&size| size > WORTH && kept == 0) else { return Ok(None) };
    let transport = &part.transport;
    if !one_server || !transport.capabilities().server_copy || attempt.ctx.options.limiter.rate().is_some() {
        return Ok(None);
    }
    let create = WriteMode::Create { mode: attempt.mode_to_create(), length: None };
    transport.open_write(&part.path, create).await?.finish(Finish::CACHED).await?;
    attempt.progress.start_at(0);
    let mut at = 0;
    while at < size {
        let end = size.min(at + AT_ONCE);
        let copied = tokio::select! {
            biased;
            () = attempt.ctx.cancel.cancelled() => Err(interrupted()),
            copied = transport.copy_range(&source.path, &part.path, ReadRange::between(at, end)) => copied,
        };
        match copied {
            Ok(()) => at = end,
            Err(error) if error.kind() == ErrorKind::Unsupported && at == 0 => {
                tracing::debug!("{}: moved over the network instead: {}", source.shown(), error.chain());
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        attempt.progress.copied_there(at);
    }
    if last.durability == Durability::Synced {
        transport.sync(&part.path).await?;
    }
    let metadata = transport.set_metadata(&part.path, last.metadata).await;
    Ok(Some((size, Finished { size: None, metadata })))
}

//! Times and modes of directories: set when nothing more happens in them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::changes::Teller;
use super::spool::Spool;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::compare::below;
use crate::plan::compare::memory::{Key, Memory, VALUE};
use crate::transfer::Location;
use crate::transport::{Entry, Mtime, Precision, SetMetadata};

/// Directories that are set at once.
const AT_ONCE: usize = 32;
/// Whoever may not enter a directory can't reach what is in it: its own turn comes after theirs.
const ENTER: u32 = 0o100;
/// How long it counts that a server doesn't set times of directories.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whether the destination sets times of directories: vsftpd and pyftpdlib don't. What one run finds out, the next ones know.
pub(super) struct DirectoryTimes {
    memory: Memory,
    key: Key,
    /// Whether it does, for all that is known.
    pub(super) are_set: bool,
}

impl DirectoryTimes {
    /// Looks what is known of a destination.
    pub(super) fn new(root: &Location, state_dir: Option<&Path>) -> Self {
        let memory = Memory::new(state_dir);
        let login = root.url.split('/').take(3).collect::<Vec<_>>().join("/");
        let key = Key::new(&[b"no times of directories", login.as_bytes()]);
        let capabilities = root.transport.capabilities();
        let refused = || memory.get(&key).is_some_and(|value| is_recent(value[..8].try_into().unwrap_or_default()));
        let are_set = capabilities.local || (capabilities.set_mtime.is_some() && !refused());
        Self { memory, key, are_set }
    }

    fn remember_refusal(&self) {
        let mut value = [0; VALUE];
        value[..8].copy_from_slice(&now().to_le_bytes());
        self.memory.put(&self.key, &value);
    }
}

fn is_recent(then: [u8; 8]) -> bool {
    u64::try_from(now() - i64::from_le_bytes(then)).is_ok_and(|age| age <= KEPT.as_secs())
}

fn now() -> i64 {
    Mtime::from(SystemTime::now()).unix()
}

/// Sets what the source's directories have, from the bottom up.
pub(super) async fn directories(
    spool: &Spool,
    root: &Location,
    preserve: bool,
    known: &DirectoryTimes,
    tell: &Teller,
) -> Result<()> {
    let capabilities = root.transport.capabilities();
    let (times, modes) = (known.are_set, capabilities.set_mode && preserve);
    let mut setting =
        Setting { tell, local: capabilities.local, times, modes, any_time: false, refused: false, told: false };
    let mut under_way = FuturesUnordered::new();
    let mut records = spool.backwards();
    loop {
        let record = records.next().transpose()?.filter(|_| !tell.is_cancelled());
        let mode = record.as_ref().and_then(|record| record.entry.as_ref()).and_then(|entry| entry.mode);
        let shut = setting.modes && mode.is_some_and(|mode| mode & ENTER == 0);
        while under_way.len() >= AT_ONCE || ((record.is_none() || shut) && !under_way.is_empty()) {
            let Some((at, results)) = under_way.next().await else { break };
            for (set, result) in results {
                setting.take(&at, set, result);
            }
        }
        let Some(record) = record else { break };
        let Some(set) = record.entry.as_ref().and_then(|entry| setting.wanted(entry)) else { continue };
        let at = below(root, &record.path)?;
        under_way.push(async move {
            let results = set_one(&at, set).await;
            (at, results)
        });
    }
    if setting.refused && !setting.any_time {
        known.remember_refusal();
    }
    Ok(())
}

/// Sets both; where the server lacks one of them, each by itself, so that the other is set and it is known which.
async fn set_one(at: &Location, set: SetMetadata) -> Vec<(SetMetadata, Result<()>)> {
    let result = at.transport.set_metadata(&at.path, set).await;
    if set.mtime.is_none() || set.mode.is_none() || !result.as_ref().is_err_and(is_lacking) {
        return vec![(set, result)];
    }
    let mut results = Vec::new();
    for one in [SetMetadata { mode: None, ..set }, SetMetadata { mtime: None, ..set }] {
        results.push((one, at.transport.set_metadata(&at.path, one).await));
    }
    results
}

/// Returns whether a server refuses what it does for no directory.
fn is_lacking(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::IsADirectory)
}

/// What is set, as far as the server turns out to do that.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
struct Setting<'a> {
    tell: &'a Teller,
    local: bool,
    times: bool,
    modes: bool,
    /// Whether a time was set.
    any_time: bool,
    /// Whether a time was refused as what the server doesn't do.
    refused: bool,
    /// Whether another failure was told.
    told: bool,
}

impl Setting<'_> {
    fn wanted(&self, entry: &Entry) -> Option<SetMetadata> {
        let exact = entry.mtime.filter(|mtime| self.times && mtime.precision <= Precision::Second);
        let set = SetMetadata {
            mtime: exact.map(|mtime| mtime.time),
            mode: entry.mode.filter(|_| self.modes).map(|mode| mode & 0o777),
        };
        (set != SetMetadata::default()).then_some(set)
    }

    fn take(&mut self, at: &Location, set: SetMetadata, result: Result<()>) {
        let Err(error) = result else {
            self.any_time |= set.mtime.is_some();
            return;
        };
        let lacking = !self.local && is_lacking(&error);
        let (refused, reason) = (at.shown(), error.chain());
        match (lacking, set.mtime.is_some()) {
            _ if error.kind() == ErrorKind::NotFound => {}
            (true, true) if !self.any_time => {
                if std::mem::take(&mut self.times) {
                    self.refused = true;
                    self.tell.note(format!("this server doesn't keep times of directories: {refused}: {reason}"));
                }
            }
            (true, false) => {
                if std::mem::take(&mut self.modes) {
                    self.tell.note(format!("this server doesn't keep modes of directories: {refused}: {reason}"));
                }
            }
            _ if self.local || !std::mem::replace(&mut self.told, true) => {
                self.tell.note(format!("{refused}: time and mode of the directory are not kept: {reason}"));
            }
            _ => tracing::info!("{refused}: time and mode of the directory are not kept: {reason}"),
        }
    }
}

//! What the right tree's server does with times: whether it keeps those that are set, and how far its clock, or the zone
//! that it tells times in, is from ours. Measured, not assumed.
//!
//! Where two files have the same time to the second, that is proof enough. Where they haven't, a small file is written
//! for a moment, with a time of its own, and looked at. What that shows is remembered for a month.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::Root;
use super::memory::{Key, Memory, VALUE, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::Location;
use crate::transport::{Durability, Finish, Follow, Mtime, Precision, SetMetadata, WriteMode};

/// How long something measured counts.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// The time that the small file gets: so far back that it is no server's "now" in any zone, and recent enough that
/// listings tell its minute.
const BACK: Duration = Duration::from_secs(40 * 24 * 3600);
/// No zone is further from any other.
const FURTHEST: i64 = 26 * 3600;

/// What is known of the right tree's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// Whether a time that is set stays.
    pub(super) keeps: bool,
    /// Seconds by which what it tells is ahead of what is true.
    pub(super) offset: i64,
}

/// The clock of the right tree.
#[derive(Debug)]
pub(super) struct Clock {
    root: Option<Location>,
    may_probe: bool,
    told: OnceCell<Told>,
    /// What an earlier run measured.
    remembered: OnceLock<Option<Told>>,
}

impl Clock {
    pub(super) fn new(root: Option<&Root>, may_probe: bool) -> Self {
        Self { root: root.map(|root| root.at.clone()), may_probe, told: OnceCell::new(), remembered: OnceLock::new() }
    }

    /// Returns whether nothing needs to be measured: this machine keeps what is set.
    pub(super) fn is_ours(&self) -> bool {
        self.root.as_ref().is_none_or(|root| root.transport.capabilities().local)
    }

    /// A time that was the same at both ends shows that times are kept, and told as they are.
    pub(super) fn is_right(&self) {
        let _ = self.told.set(Told { keeps: true, offset: 0 });
    }

    /// Returns whether an earlier run found that its times are not what they seem.
    pub(super) fn is_known_to_be_off(&self, memory: &Memory) -> bool {
        !self.is_ours() && self.remembered(memory).is_some_and(|told| told.offset != 0)
    }

    fn remembered(&self, memory: &Memory) -> Option<Told> {
        let root = self.root.as_ref()?;
        *self.remembered.get_or_init(|| memory.get(&key(root)).as_ref().and_then(read))
    }

    /// Returns what is known, measuring it if need be.
    pub(super) async fn told(&self, memory: &Memory) -> Told {
        *self.told.get_or_init(|| self.find_out(memory)).await
    }

    async fn find_out(&self, memory: &Memory) -> Told {
        let Some(root) = self.root.as_ref().filter(|_| !self.is_ours()) else { return Told { keeps: true, offset: 0 } };
        if let Some(told) = self.remembered(memory) {
            return told;
        }
        let assumed = Told { keeps: root.transport.capabilities().set_mtime.is_some(), offset: 0 };
        if !self.may_probe {
            return assumed;
        }
        match measure(root).await {
            Ok(told) => {
                tracing::info!("{}: keeps times: {}, ahead by {} s", root.shown(), told.keeps, told.offset);
                memory.put(&key(root), &write(told));
                told
            }
            Err(error) => {
                tracing::info!("{}: its clock could not be measured: {}", root.shown(), error.chain());
                assumed
            }
        }
    }
}

fn key(root: &Location) -> Key {
    Key::new(&[b"clock", root.url.as_bytes()])
}

async fn measure(root: &Location) -> Result<Told> {
    let [a, b] = [getrandom::u32(), getrandom::u32()].map(Result::unwrap_or_default);
    let at = root.child(format!(".haul-clock.haul-{a:08x}{b:08x}.part").as_bytes())?;
    let now = SystemTime::now();
    let whole = Mtime::from(now.checked_sub(BACK).unwrap_or(now)).unix() / 60 * 60;
    let set = Mtime::from_unix(whole);
    let told = probe(&at, set).await;
    let removed = at.transport.remove_file(&at.path).await;
    let (was_set, found) = told?;
    removed?;
    Ok(judge(was_set.then_some(set), Mtime::from(now), found))
}

/// Writes the small file and returns whether its time could be set, and what it is.
async fn probe(at: &Location, set: Mtime) -> Result<(bool, Mtime)> {
    let mut file = at.transport.open_write(&at.path, WriteMode::CREATE).await?;
    file.write(Bytes::from_static(b"haul looks at this server's clock\n")).await?;
    let mtime = at.transport.capabilities().set_mtime.map(|_| set.time);
    let metadata = SetMetadata { mtime, mode: None };
    let finished = file.finish(Finish { durability: Durability::Cached, metadata }).await?;
    let entry = at.transport.stat(&at.path, Follow::Nothing).await?;
    let found = entry.mtime.ok_or_else(|| Error::new(ErrorKind::Unsupported, "the server tells no time"))?;
    Ok((mtime.is_some() && finished.metadata.is_ok(), found))
}

/// Says what the time of the small file means: it was written at `now`, and its time was set, or not.
fn judge(set: Option<Mtime>, now: Mtime, found: Mtime) -> Told {
    let offset = |wanted: Mtime| {
        let unit = i64::try_from(found.precision.unit().as_secs()).unwrap_or(1).max(1);
        let ahead = found.unix() - wanted.unix();
        // Within what the listing rounds away, and the second that a write takes, there is nothing to see.
        if (-unit - 2..=2).contains(&ahead) { 0 } else { ahead }
    };
    if let Some(ahead) = set.map(offset)
        && ahead.abs() <= FURTHEST
        && found.precision < Precision::Day
    {
        return Told { keeps: true, offset: ahead };
    }
    Told { keeps: false, offset: offset(now) }
}

fn write(told: Told) -> Value {
    let mut value = [0; VALUE];
    value[0] = u8::from(told.keeps);
    value[1..9].copy_from_slice(&told.offset.to_le_bytes());
    value[9..17].copy_from_slice(&Mtime::from(SystemTime::now()).unix().to_le_bytes());
    value
}

fn read(value: &Value) -> Option<Told> {
    let number = |range: std::ops::Range<usize>| value[range].try_into().map(i64::from_le_bytes).ok();
    let age = Mtime::from(SystemTime::now()).unix() - number(9..17)?;
    let counts = (0..=KEPT.as_secs()).contains(&u64::try_from(age).ok()?);
    counts.then_some(Told { keeps: value[0] == 1, offset: number(1..9)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_small_file_shows() {
        let (set, now) = (Mtime::from_unix(1_700_000_040), Mtime::from_unix(1_703_456_000));
        let told = |set, found| judge(set, now, found);
        assert_eq!(told(Some(set), set), Told { keeps: true, offset: 0 });
        assert_eq!(told(Some(set), Mtime::from_unix(set.unix() - 3600)), Told { keeps: true, offset: -3600 });
        assert_eq!(told(Some(set), Mtime::from_unix(now.unix() + 1)), Told { keeps: false, offset: 0 });
        assert_eq!(told(Some(set), Mtime::from_unix(now.unix() - 300)), Told { keeps: false, offset: -300 });
        assert_eq!(told(None, Mtime::from_unix(now.unix() + 7200)), Told { keeps: false, offset: 7200 });
        let minute = Mtime { precision: Precision::Minute, ..Mtime::from_unix(set.unix() + 5 * 3600) };
        assert_eq!(told(Some(set), minute), Told { keeps: true, offset: 5 * 3600 });
    }

    #[test]
    fn what_is_remembered_comes_back_and_gets_old() {
        let told = Told { keeps: false, offset: -19_800 };
        assert_eq!(read(&write(told)), Some(told));
        let mut old = write(told);
        old[9..17].copy_from_slice(&1_000_000_000_i64.to_le_bytes());
        assert_eq!(read(&old), None);
    }
}

//! Two entries of one name: are they alike? By what the listings tell, and a closer look where they round or leave out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::clock::Clock;
use super::digests::{Digests, is_settled};
use super::list::Seen;
use super::memory::{Key, Memory, VALUE};
use super::{By, Comparing, Finding, Root, Side, Verdict, Why};
use crate::error::Error;
use crate::transfer::Location;
use crate::transport::{Entry, FileKind, Mtime, Precision};

/// What was written less long ago may change again in the minute that a listing shows: it is not remembered.
const SETTLED_MINUTE: Duration = Duration::from_secs(600);
/// Files that are asked for at once.
const AT_ONCE: usize = 256;
/// No zone is further from UTC.
const FURTHEST_ZONE: i64 = 14 * 3600;
/// The times that a server can be given, in seconds since 1970: SFTP has no others, nor have many FTP servers.
const SETTABLE: std::ops::RangeInclusive<i64> = 0..=u32::MAX as i64;

type Result<T> = std::result::Result<T, (Side, Error)>;

/// Compares entries.
pub(super) struct Judge {
    by: By,
    modes: bool,
    memory: Arc<Memory>,
    clock: Clock,
    digests: Digests,
    findings: mpsc::Sender<Finding>,
    noted: [AtomicBool; 3],
}

/// What is said once at most.
#[derive(Clone, Copy)]
enum Once {
    NoTime,
    NotKept,
    NotSettable,
}

impl Judge {
    pub(super) fn new(
        left: Option<&Root>,
        right: Option<&Root>,
        options: &Comparing,
        findings: mpsc::Sender<Finding>,
    ) -> Self {
        let may_probe = options.may_probe && left.is_some();
        let memory = Arc::new(Memory::new(options.state_dir.as_deref()));
        Self {
            by: options.by,
            modes: options.modes,
            digests: Digests::new(options, Arc::clone(&memory)),
            memory,
            clock: Clock::new(right, may_probe),
            findings,
            noted: Default::default(),
        }
    }

    /// Compares two entries of one name; what a closer look tells is put into them.
    pub(super) async fn pair(
        &self,
        at_left: &Location,
        left: &mut Entry,
        at_right: &Location,
        right: &mut Entry,
    ) -> Result<Verdict> {
        let why = match (left.kind, right.kind) {
            (FileKind::File, FileKind::File) => self.files(at_left, left, at_right, right).await?,
            (FileKind::Symlink, FileKind::Symlink) => links(at_left, left, at_right, right).await?,
            (FileKind::Directory, FileKind::Directory) => None,
            _ => Some(Why::Kind),
        };
        let modes = left.mode.zip(right.mode).is_some_and(|(left, right)| (left ^ right) & 0o777 != 0);
        let have_modes = left.kind != FileKind::Symlink && self.modes;
        Ok(match why {
            Some(why) => Verdict::Different(why),
            None if have_modes && modes => Verdict::Different(Why::OnlyMode),
            None => Verdict::Equal,
        })
    }

    async fn files(
        &self,
        at_left: &Location,
        left: &mut Entry,
        at_right: &Location,
        right: &mut Entry,
    ) -> Result<Option<Why>> {
        if differ(left.size, right.size) {
            return Ok(Some(Why::Size));
        }
        let (mut look_left, mut look_right) = (left.size.is_none(), right.size.is_none());
        if self.by != By::Size {
            (look_left, look_right) = (look_left || is_rounded(left), look_right || is_rounded(right));
        }
        let closer = |wanted, at, entry: Entry| async move {
            if wanted { self.look_closer(at, entry).await } else { Ok(entry) }
        };
        let (new_left, new_right) = tokio::try_join!(
            async { closer(look_left, at_left, left.clone()).await.map_err(|error| (Side::Left, error)) },
            async { closer(look_right, at_right, right.clone()).await.map_err(|error| (Side::Right, error)) },
        )?;
        (*left, *right) = (new_left, new_right);
        if differ(left.size, right.size) {
            return Ok(Some(Why::Size));
        }
        match self.by {
            By::Size => Ok(None),
            By::Time => Ok(self.times(left.mtime, right.mtime).await),
            By::Digest if !self.digests.same_content(at_left, left, at_right, right).await? => Ok(Some(Why::Digest)),
            By::Digest => {
                let settable = at_right.transport.capabilities().set_mtime.is_some();
                let times = if settable { self.times(left.mtime, right.mtime).await } else { None };
                Ok(times.map(|_| Why::OnlyTime))
            }
        }
    }

    /// Returns in what two times differ, if they do.
    async fn times(&self, left: Option<Mtime>, right: Option<Mtime>) -> Option<Why> {
        let (Some(left), Some(right)) = (left, right) else {
            self.note(Once::NoTime, "a server tells no times: files of the same size count as the same").await;
            return None;
        };
        let exact = |mtime: Mtime| mtime.precision <= Precision::Second;
        if exact(left) && left.matches(right) && !self.clock.is_known_to_be_off(&self.memory) {
            self.clock.is_right();
            return None;
        }
        let by_order = |right: i64| if left.unix() > right { Why::Newer } else { Why::Older };
        if exact(right) && !exact(left) {
            // In an unknown zone: what is certainly not older than the latest that it can mean is the same.
            let latest = left.unix() + unit(left) + FURTHEST_ZONE;
            return (right.unix() < latest).then_some(Why::Newer);
        }
        if self.clock.is_ours() {
            return Some(by_order(right.unix()));
        }
        if !SETTABLE.contains(&left.unix()) && SETTABLE.contains(&right.unix()) {
            let text = "servers can't be given times before 1970 or after 2106: files that have one count as the same if \
                their sizes are; --checksum compares what is in them";
            self.note(Once::NotSettable, text).await;
            return None;
        }
        let clock = self.clock.told(&self.memory).await;
        let corrected = right.unix() - clock.offset;
        let is_within = (corrected..corrected + unit(right)).contains(&left.unix());
        if is_within && (clock.offset != 0 || !exact(right)) {
            return None;
        }
        if !clock.keeps && corrected + unit(right) > left.unix() {
            let text = "the server keeps no times: files of the same size count as the same unless the source is newer";
            self.note(Once::NotKept, text).await;
            return None;
        }
        Some(by_order(corrected))
    }

    /// Asks for what listings round or leave out of files on both sides that may be the same, many in one trip. What fails
    /// here is asked for by itself when its turn comes, and then fails by name.
    pub(super) async fn look_closer_at_all(
        &self,
        left: &Location,
        lefts: &mut [Seen],
        right: &Location,
        rights: &mut [Seen],
    ) {
        let vague = |seen: &Seen| seen.taken && seen.entry.kind == FileKind::File && is_rounded(&seen.entry);
        if self.by == By::Size || !lefts.iter().chain(rights.iter()).any(vague) {
            return;
        }
        let (mut of_left, mut of_right) = (Vec::new(), Vec::new());
        let mut others = rights.iter_mut().peekable();
        for seen in lefts {
            while others.next_if(|other| other.entry.name < seen.entry.name).is_some() {}
            let Some(other) = others.next_if(|other| other.entry.name == seen.entry.name) else { continue };
            if !differ(seen.entry.size, other.entry.size) && seen.taken && other.entry.kind == seen.entry.kind {
                let (look_left, look_right) = (vague(seen), vague(other));
                of_left.extend(look_left.then_some(&mut seen.entry));
                of_right.extend(look_right.then_some(&mut other.entry));
            }
        }
        tokio::join!(self.ask_for(left, of_left), self.ask_for(right, of_right));
    }

    async fn ask_for(&self, directory: &Location, entries: Vec<&mut Entry>) {
        let mut unknown = Vec::new();
        for entry in entries {
            let Ok(at) = directory.child(&entry.name) else { continue };
            match self.remembered(&at, entry) {
                Some(known) => *entry = known,
                None => unknown.push((at, entry)),
            }
        }
        for some in unknown.chunks_mut(AT_ONCE) {
            let files = some.iter().map(|(at, entry)| (at.path.clone(), (*entry).clone())).collect();
            let Ok(found) = directory.transport.exact(files).await else { return };
            for ((at, entry), found) in some.iter_mut().zip(found) {
                **entry = self.learned(at, entry, found);
            }
        }
    }

    /// Asks for what a listing rounds or leaves out; what was learned of it before counts as long as it looks the same.
    async fn look_closer(&self, at: &Location, entry: Entry) -> std::result::Result<Entry, Error> {
        if let Some(known) = self.remembered(at, &entry) {
            return Ok(known);
        }
        let found = at.transport.exact(vec![(at.path.clone(), entry.clone())]).await?;
        Ok(found.into_iter().next().map_or_else(|| entry.clone(), |found| self.learned(at, &entry, found)))
    }

    /// Returns what was learned of a file, as long as its listing says the same.
    fn remembered(&self, at: &Location, entry: &Entry) -> Option<Entry> {
        let value = self.memory.get(&key_of(at, entry)?)?;
        let number = |range: std::ops::Range<usize>| value[range].try_into().map_or(0, u64::from_le_bytes);
        let mtime = Some(Mtime::from_unix(number(0..8).cast_signed()));
        Some(Entry { mtime, size: Some(number(8..16)), ..entry.clone() })
    }

    /// Remembers what was found of a file, and returns it.
    fn learned(&self, at: &Location, entry: &Entry, found: Entry) -> Entry {
        let exact = found.mtime.filter(|mtime| mtime.precision <= Precision::Second);
        if let (Some(key), Some(mtime), Some(size)) = (key_of(at, entry), exact, found.size)
            && is_settled(mtime, SETTLED_MINUTE)
        {
            let mut value = [0; VALUE];
            value[..8].copy_from_slice(&mtime.unix().to_le_bytes());
            value[8..16].copy_from_slice(&size.to_le_bytes());
            self.memory.put(&key, &value);
        }
        Entry { mtime: exact.or(entry.mtime), ..found }
    }

    async fn note(&self, what: Once, text: &str) {
        if !self.noted[what as usize].swap(true, Ordering::Relaxed) {
            // Nobody there to be told: nobody wants to know.
            let _ = self.findings.send(Finding::Note(text.to_owned())).await;
        }
    }
}

/// Compares where two links point.
async fn links(at_left: &Location, left: &mut Entry, at_right: &Location, right: &mut Entry) -> Result<Option<Why>> {
    // The size of a link is the length of its target, where a server tells it at all.
    let lengths = left.size.zip(right.size).filter(|(left, right)| *left > 0 && *right > 0);
    if left.target.is_none() && right.target.is_none() && lengths.is_some_and(|(left, right)| left != right) {
        return Ok(Some(Why::Target));
    }
    for (side, at, entry) in [(Side::Left, at_left, &mut *left), (Side::Right, at_right, &mut *right)] {
        if entry.target.is_none() {
            entry.target = Some(at.transport.read_link(&at.path).await.map_err(|error| (side, error))?);
        }
    }
    Ok((left.target != right.target).then_some(Why::Target))
}

fn differ(left: Option<u64>, right: Option<u64>) -> bool {
    left.zip(right).is_some_and(|(left, right)| left != right)
}

/// Whether the listing told less than the server knows.
fn is_rounded(entry: &Entry) -> bool {
    entry.mtime.is_none_or(|mtime| mtime.precision > Precision::Second)
}

/// Returns what an entry with a rounded time is remembered by.
fn key_of(at: &Location, entry: &Entry) -> Option<Key> {
    let mtime = entry.mtime?;
    let (time, size) = (mtime.unix().to_le_bytes(), entry.size.unwrap_or(u64::MAX).to_le_bytes());
    Some(Key::new(&[b"time", at.url.as_bytes(), &time, &size, &unit(mtime).to_le_bytes()]))
}

fn unit(mtime: Mtime) -> i64 {
    i64::try_from(mtime.precision.unit().as_secs()).unwrap_or(1).max(1)
}

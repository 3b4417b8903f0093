//! Are two files the same? By digests: those that servers compute, those that are remembered, else by reading.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;

use super::memory::{Key, Memory, VALUE};
use super::{Comparing, Side};
use crate::error::{Error, ErrorKind};
use crate::transfer::{self, Asked, Digester, Limiter, Location, common_algorithms};
use crate::transport::{Algorithm, Entry, Mtime, Precision};

/// Pairs of files that are digested at once.
const PAIRS: usize = 16;
/// Seconds for which a digest is remembered: long enough to go on after an interruption, and short enough that a disk which
/// changes files without a trace is found out.
const KEPT: i64 = 24 * 3600;
/// What was written less long ago may change again without another time to show for it: it is not remembered.
const SETTLED: Duration = Duration::from_secs(3);

type Result<T> = std::result::Result<T, (Side, Error)>;

/// Compares contents.
pub(super) struct Digests {
    memory: Arc<Memory>,
    digesting: Semaphore,
    /// For this machine's files, which no rate limits.
    near: Digester,
    far: Digester,
}

/// Tells whether two files are the same, where digests of both ends prove it and nothing has to be moved for that.
pub(crate) struct Prover(Digests);

/// One end of a comparison.
#[derive(Clone, Copy)]
struct End<'a> {
    side: Side,
    at: &'a Location,
    entry: &'a Entry,
}

impl Prover {
    /// Takes from this how it asks, and where it remembers.
    pub(crate) fn new(comparing: &Comparing) -> Self {
        Self(Digests::new(comparing, Arc::new(Memory::new(comparing.state_dir.as_deref()))))
    }

    /// Says why nothing can be proven between these two, if so.
    pub(crate) fn is_of_no_use(left: &Location, right: &Location) -> Option<String> {
        let both = [left, right].map(|at| at.transport.capabilities());
        if !common_algorithms(&both[0], &both[1]).is_empty() {
            return None;
        }
        let silent =
            [right, left].into_iter().zip(both.iter().rev()).find(|(_, of)| !of.local && of.digests.is_empty());
        Some(match silent {
            Some((at, _)) => format!("{} computes no digests: moves are not detected", at.shown()),
            None => "the servers have no digest in common: moves are not detected".to_owned(),
        })
    }

    /// Returns whether it is proven; `false` also where an end gives no digest.
    pub(crate) async fn is_proven_same(
        &self,
        at_left: &Location,
        left: &Entry,
        at_right: &Location,
        right: &Entry,
    ) -> crate::Result<bool> {
        let left = End { side: Side::Left, at: at_left, entry: left };
        let right = End { side: Side::Right, at: at_right, entry: right };
        let alike = self.0.alike_as_given(left, right, is_proof).await.map_err(|(_, error)| error)?;
        Ok(alike.unwrap_or(false))
    }
}

impl Digests {
    pub(super) fn new(comparing: &Comparing, memory: Arc<Memory>) -> Self {
        let digester = |limiter| {
            let (retries, retry_wait) = (comparing.retries, comparing.retry_wait);
            Digester::new(
                &transfer::Options { limiter, retries, retry_wait, ..transfer::Options::new("") },
                Asked::Server,
            )
        };
        let (near, far) = (digester(Limiter::default()), digester(comparing.limiter.clone()));
        Self { memory, digesting: Semaphore::new(PAIRS), near, far }
    }

    /// Compares what is in two files: by a digest that both servers compute where they have one in common, else by
    /// reading.
    pub(super) async fn same_content(
        &self,
        at_left: &Location,
        left: &Entry,
        at_right: &Location,
        right: &Entry,
    ) -> Result<bool> {
        let left = End { side: Side::Left, at: at_left, entry: left };
        let right = End { side: Side::Right, at: at_right, entry: right };
        if let Some(alike) = self.alike_as_given(left, right, tells).await? {
            return Ok(alike);
        }
        // It fails only when it is closed, which it never is.
        let _permit = self.digesting.acquire().await;
        let offered =
            |end: End<'_>| end.at.transport.capabilities().digests.into_iter().find(|&offered| tells(offered));
        let algorithm = offered(left).or(offered(right)).unwrap_or(Algorithm::Sha256);
        let both = tokio::try_join!(self.read(left, algorithm), self.read(right, algorithm));
        both.map(|both| self.compare([left, right], algorithm, both))
    }

    /// Compares two digests, and remembers them if they are the same: what differs is about to be replaced, by something
    /// that may well have the same size and time.
    fn compare(&self, ends: [End<'_>; 2], algorithm: Algorithm, (left, right): ([u8; 32], [u8; 32])) -> bool {
        if left == right {
            for end in ends {
                self.remember(end, algorithm, &left);
            }
        }
        left == right
    }

    fn remember(&self, end: End<'_>, algorithm: Algorithm, digest: &[u8; 32]) {
        if let Some(key) = key(end, algorithm)
            && end.entry.mtime.is_some_and(|mtime| is_settled(mtime, SETTLED))
        {
            let mut value = [0; VALUE];
            value[..32].copy_from_slice(digest);
            value[32..].copy_from_slice(&now().to_le_bytes());
            self.memory.put(&key, &value);
        }
    }

    fn remembered(&self, end: End<'_>, algorithm: Algorithm) -> Option<[u8; 32]> {
        let value = self.memory.get(&key(end, algorithm)?)?;
        let age = now() - value[32..].try_into().map(i64::from_le_bytes).ok()?;
        (0..KEPT).contains(&age).then(|| value[..32].try_into().ok()).flatten()
    }

    /// Compares by digests that both ends give; `None` where there are none in common.
    async fn alike_as_given(
        &self,
        left: End<'_>,
        right: End<'_>,
        counts: fn(Algorithm) -> bool,
    ) -> Result<Option<bool>> {
        let _permit = self.digesting.acquire().await;
        let common = common_algorithms(&left.at.transport.capabilities(), &right.at.transport.capabilities());
        for algorithm in common.into_iter().filter(|&algorithm| counts(algorithm)) {
            let both = tokio::try_join!(self.given(left, algorithm), self.given(right, algorithm));
            match both {
                Ok(both) => return Ok(Some(self.compare([left, right], algorithm, both))),
                // A server doesn't always say what it can't do before it is asked.
                Err(None) => {}
                Err(Some(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns a digest of a file's digest, if nothing has to be moved for that: the one that is remembered, as long as size
    /// and time are the same. Fails without an error where its server gives none, so that nobody reads the other in vain.
    async fn given(&self, end: End<'_>, algorithm: Algorithm) -> std::result::Result<[u8; 32], Option<(Side, Error)>> {
        if let Some(kept) = self.remembered(end, algorithm) {
            return Ok(kept);
        }
        let given = self.digester(end).given(end.at, end.entry, algorithm).await;
        let given = given.map_err(|error| Some(failed(end, error)))?;
        given.map(|given| blake3::hash(&given).into()).ok_or(None)
    }

    /// The same; what the server doesn't digest is read.
    async fn read(&self, end: End<'_>, algorithm: Algorithm) -> Result<[u8; 32]> {
        if let Some(kept) = self.remembered(end, algorithm) {
            return Ok(kept);
        }
        let found = self.digester(end).digest(end.at, Some(end.entry), algorithm).await;
        found.map(|found| blake3::hash(&found.digest).into()).map_err(|error| failed(end, error))
    }

    fn digester(&self, end: End<'_>) -> &Digester {
        if end.at.transport.capabilities().local { &self.near } else { &self.far }
    }
}

/// Returns whether two files of one digest are the same, whoever made them: the one that has another name goes for it.
fn is_proof(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::Sha512 | Algorithm::Sha256 | Algorithm::Blake3)
}

/// Returns whether chance makes no two files of one digest. Among many files it does that with 32 bits.
fn tells(algorithm: Algorithm) -> bool {
    algorithm != Algorithm::Crc32
}

fn failed(end: End<'_>, error: Error) -> (Side, Error) {
    match error.kind() {
        ErrorKind::Protocol => (end.side, error.with_hint("without --checksum, sizes and times are compared")),
        _ => (end.side, error),
    }
}

/// What a file's digest is remembered by; `None` for one whose size or exact time nobody tells.
fn key(end: End<'_>, algorithm: Algorithm) -> Option<Key> {
    let mtime = end.entry.mtime.filter(|mtime| mtime.precision <= Precision::Second)?;
    let nanos = mtime.time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let parts = [&mtime.unix().to_le_bytes()[..], &nanos.to_le_bytes(), &end.entry.size?.to_le_bytes()].concat();
    Some(Key::new(&[b"digest", algorithm.name().as_bytes(), end.at.url.as_bytes(), &parts]))
}

/// Returns whether something is old enough that a change would show.
pub(super) fn is_settled(mtime: Mtime, time: Duration) -> bool {
    (now() - mtime.unix()).unsigned_abs() > time.as_secs()
}

fn now() -> i64 {
    Mtime::from(SystemTime::now()).unix()
}

//! The digest of a whole file: its server's, or computed here from all that is read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::journal::SMALLEST_BLOCK;
use super::rate::Limiter;
use super::retry::Budget;
use super::single::GoneOn;
use super::types::{Event, Location, Observer, Options, Outcome, Status};
use super::verify::Hasher;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Algorithm, Entry, FileKind, Follow, Mtime, Precision, ReadRange, ReadStream};

/// At least so many of the last bytes are compared when a broken read goes on.
const OVERLAP: usize = 64 * 1024;
/// Bytes that are digested at once, on a thread beside the network's.
const AT_ONCE: usize = 512 * 1024;

/// Who computes a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The server where it offers that, else this program.
    Server,
    /// This program, of what it reads.
    Nobody,
}

/// The digest of a file, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digested {
    /// Its bytes: as many as its algorithm has.
    pub digest: Vec<u8>,
    /// Size of the file in bytes, where that is known.
    pub size: Option<u64>,
    /// `Server` if that computed it, `Nobody` if all of the file was read.
    pub by: Asked,
}

/// Tells the digests of files; shared by all that do so at the same time.
pub struct Digester {
    asked: Asked,
    retries: u32,
    retry_wait: Duration,
    limiter: Limiter,
    read: AtomicU64,
    observer: Arc<dyn Observer>,
    next_id: AtomicU64,
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester").field("asked", &self.asked).field("read", &self.read).finish_non_exhaustive()
    }
}

/// Watches nothing.
struct Nobody;

impl Observer for Nobody {
    fn event(&self, _: Event) {}
}

impl Digester {
    /// Takes retries and rate limit from these options.
    pub fn new(options: &Options, asked: Asked) -> Self {
        Self {
            asked,
            retries: options.retries,
            retry_wait: options.retry_wait,
            limiter: options.limiter.clone(),
            read: AtomicU64::new(0),
            observer: Arc::new(Nobody),
            next_id: AtomicU64::new(0),
        }
    }

    /// Tells an observer of each file: that it was begun, how far it was read, and that it is through.
    #[must_use]
    pub fn watched_by(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// Tells the observer that the digest of a file of this size will be wanted.
    pub fn expect(&self, size: Option<u64>) {
        self.observer.event(Event::Found { bytes: size });
    }

    /// Returns how many bytes were read so far, over all files.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Returns the digest of a file, links followed. `entry` is what a listing or `stat` told of it, if any did.
    ///
    /// A broken connection goes on where it was; a file that changed meanwhile is read anew. May be dropped at any time.
    ///
    /// # Errors
    /// Those of the transport; `SourceChanged` when it keeps changing; `Protocol` for a digest that is none.
    pub async fn digest(&self, file: &Location, entry: Option<&Entry>, algorithm: Algorithm) -> Result<Digested> {
        let started = Instant::now();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (source, size) = (file.url.clone(), entry.and_then(|entry| entry.size));
        self.observer.event(Event::Started { id, source, destination: String::new(), size });
        let result = self.asked_or_read(id, file, entry, algorithm).await;
        let (status, bytes, read) = match &result {
            Ok(digested) if digested.by == Asked::Server => (Status::Done, digested.size, 0),
            Ok(digested) => (Status::Done, digested.size, digested.size.unwrap_or(0)),
            // Whoever asked tells of it.
            Err(_) => (Status::Skipped("it has no digest"), size, 0),
        };
        self.observer.event(Event::Finished(Outcome {
            id,
            source: file.url.clone(),
            destination: String::new(),
            status,
            bytes,
            transferred: read,
            resumed_from: None,
            elapsed: started.elapsed(),
            verified: None,
        }));
        result
    }

    /// Returns the digest of a file without moving it: read if it is local, else the server's, `None` where that gives none.
    ///
    /// # Errors
    /// As those of [`Self::digest`].
    pub(crate) async fn given(&self, file: &Location, entry: &Entry, algorithm: Algorithm) -> Result<Option<Vec<u8>>> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        match file.transport.capabilities().local {
            true => Ok(Some(self.by_reading(id, file, Some(entry), algorithm).await?.digest)),
            false => self.by_server(id, file, algorithm).await,
        }
    }

    async fn asked_or_read(
        &self,
        id: u64,
        file: &Location,
        entry: Option<&Entry>,
        algorithm: Algorithm,
    ) -> Result<Digested> {
        let looked_at = match entry {
            // How large it is decides who digests it.
            None if self.asked == Asked::Server && file.transport.digest_pays_from() > 0 => {
                Some(file.transport.stat(&file.path, Follow::Links).await?)
            }
            _ => None,
        };
        let entry = entry.or(looked_at.as_ref());
        let size = entry.and_then(|entry| entry.size);
        if self.is_asked(file, size, algorithm)
            && let Some(digest) = self.by_server(id, file, algorithm).await?
        {
            return Ok(Digested { digest, size, by: Asked::Server });
        }
        self.by_reading(id, file, entry, algorithm).await
    }

    /// Returns whether the server would be asked for the digest of a file of this size.
    fn is_asked(&self, file: &Location, size: Option<u64>, algorithm: Algorithm) -> bool {
        let transport = &file.transport;
        self.asked == Asked::Server
            && transport.capabilities().digests.contains(&algorithm)
            && size.is_none_or(|size| size >= transport.digest_pays_from())
    }

    /// Asks the server; `None` where it says no in whatever way, though it may still let the file be read.
    async fn by_server(&self, id: u64, file: &Location, algorithm: Algorithm) -> Result<Option<Vec<u8>>> {
        let mut budget = Budget::new(self.retries, self.retry_wait);
        loop {
            let error = match file.transport.digest(&file.path, algorithm, ReadRange::ALL).await {
                Ok(digest) if digest.len() == algorithm.length() => return Ok(Some(digest)),
                Ok(digest) => {
                    let text = format!("the server gave {} bytes as a digest by {}", digest.len(), algorithm.name());
                    Error::new(ErrorKind::Protocol, text)
                }
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::InvalidPath => return Err(error),
                ErrorKind::Protocol => return Err(error.at(file.shown()).with_hint("--read computes it here instead")),
                // A large file may take it longer than anybody waits; reading shows that it goes on.
                kind if !kind.is_retryable() || kind == ErrorKind::Timeout => {
                    tracing::debug!("reading {} instead: {}", file.shown(), error.chain());
                    return Ok(None);
                }
                _ => {}
            }
            let Some(wait) = budget.next(&error, false) else { return Err(error) };
            self.again(id, file, wait, &budget, &error).await;
        }
    }

    async fn again(&self, id: u64, file: &Location, wait: Duration, budget: &Budget, error: &Error) {
        tracing::info!("{}: again in {wait:?}: {}", file.shown(), error.chain());
        self.observer.event(Event::Retrying { id, attempt: budget.made(), wait, error: error.for_another() });
        tokio::time::sleep(wait).await;
    }

    async fn by_reading(
        &self,
        id: u64,
        file: &Location,
        entry: Option<&Entry>,
        algorithm: Algorithm,
    ) -> Result<Digested> {
        let mut reading = Reading::new(algorithm, entry.cloned());
        let mut budget = Budget::new(self.retries, self.retry_wait);
        let mut furthest = 0;
        loop {
            let error = match self.read_on(id, file, &mut reading).await {
                Ok(()) => {
                    let size = Some(reading.read);
                    return Ok(Digested { digest: reading.finish().await?, size, by: Asked::Nobody });
                }
                Err(error) => error,
            };
            let Some(wait) = budget.next(&error, reading.read > furthest) else { return Err(error) };
            furthest = furthest.max(reading.read);
            self.again(id, file, wait, &budget, &error).await;
            let now = file.transport.stat(&file.path, Follow::Links).await.ok();
            // A broken connection tells nothing; the overlap does.
            let is_same = now.as_ref().zip(reading.entry.as_ref()).is_none_or(|(now, then)| same(now, then));
            if error.kind() == ErrorKind::SourceChanged || !is_same {
                reading = Reading::new(algorithm, now);
            } else if now.is_some() {
                reading.entry = now;
            }
        }
    }

    async fn read_on(&self, id: u64, file: &Location, reading: &mut Reading) -> Result<()> {
        if reading.entry.is_none() && file.transport.capabilities().local {
            // A pipe would hold up whoever opens it.
            reading.entry = Some(file.transport.stat(&file.path, Follow::Links).await?);
        }
        match reading.entry.as_ref().map(|entry| entry.kind) {
            Some(FileKind::Directory) => {
                return Err(Error::new(ErrorKind::IsADirectory, "is a directory").at(file.shown()));
            }
            Some(FileKind::Other) if file.transport.capabilities().local => {
                return Err(Error::new(ErrorKind::Unsupported, "is not a regular file").at(file.shown()));
            }
            _ => {}
        }
        let last: Vec<u8> = reading.last.iter().flatten().copied().collect();
        let overlap = &last[last.len().saturating_sub(OVERLAP)..];
        let range = ReadRange::from(reading.read - overlap.len() as u64);
        let reader = file.transport.open_read(&file.path, range).await?;
        let mut reader = Box::new(GoneOn::new(reader));
        if !reader.begins_with(overlap).await? {
            return Err(changed(file));
        }
        loop {
            let chunk = reader.read().await?;
            if chunk.is_empty() {
                break;
            }
            self.limiter.take(chunk.len()).await;
            self.read.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            reading.take(chunk).await?;
            self.observer.event(Event::Progress { id, position: reading.read });
        }
        reader.finish().await?;
        reading.was_whole(file).await
    }
}

/// Returns whether a file is still the same, as far as size and time tell. Times that are no more than guesses tell nothing.
fn same(now: &Entry, then: &Entry) -> bool {
    let exact = |mtime: &Mtime| mtime.precision <= Precision::Second;
    let times = now.mtime.filter(exact).zip(then.mtime.filter(exact));
    let sizes = now.size.zip(then.size);
    sizes.is_none_or(|(now, then)| now == then) && times.is_none_or(|(now, then)| now.matches(then))
}

fn changed(file: &Location) -> Error {
    Error::new(ErrorKind::SourceChanged, "the file changed while it was read").at(file.shown())
}

/// One file being read, over all its attempts.
struct Reading {
    algorithm: Algorithm,
    /// What was known of it before.
    entry: Option<Entry>,
    read: u64,
    /// The last bytes: a new connection must go on with what follows them.
    last: VecDeque<Bytes>,
    gathered: Vec<Bytes>,
    length: usize,
    /// One of these two: the digest so far, or the thread that has it.
    idle: Option<Hasher>,
    busy: Option<JoinHandle<Hasher>>,
}

impl Reading {
    fn new(algorithm: Algorithm, entry: Option<Entry>) -> Self {
        Self {
            algorithm,
            entry,
            read: 0,
            last: VecDeque::new(),
            gathered: Vec::new(),
            length: 0,
            idle: Some(Hasher::new(algorithm)),
            busy: None,
        }
    }

    async fn take(&mut self, chunk: Bytes) -> Result<()> {
        self.read += chunk.len() as u64;
        self.length += chunk.len();
        self.gathered.push(chunk.clone());
        self.last.push_back(chunk);
        let mut kept = self.last.iter().map(Bytes::len).sum::<usize>();
        while let Some(first) = self.last.front().filter(|first| kept - first.len() >= OVERLAP) {
            kept -= first.len();
            self.last.pop_front();
        }
        if self.length < AT_ONCE {
            return Ok(());
        }
        self.settle().await?;
        if let Some(mut hasher) = self.idle.take() {
            let batch = std::mem::take(&mut self.gathered);
            self.length = 0;
            self.busy = Some(spawn_blocking(move || {
                for bytes in batch {
                    hasher.update(&bytes);
                }
                hasher
            }));
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        if let Some(busy) = self.busy.take() {
            let stopped = |e| Error::new(ErrorKind::Other, "the digester stopped").with_source(e);
            self.idle = Some(busy.await.map_err(stopped)?);
        }
        Ok(())
    }

    /// Fails if the file was another at the end than at the beginning; worth a question where there was time.
    async fn was_whole(&self, file: &Location) -> Result<()> {
        let told = self.entry.as_ref().and_then(|entry| entry.size);
        if told.is_some_and(|size| size != self.read) {
            return Err(changed(file));
        }
        if self.read <= SMALLEST_BLOCK {
            return Ok(());
        }
        let now = file.transport.stat(&file.path, Follow::Links).await?;
        let is_same = self.entry.as_ref().is_none_or(|then| same(&now, then));
        if now.size.is_some_and(|size| size != self.read) || !is_same {
            return Err(changed(file));
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<u8>> {
        self.settle().await?;
        let mut hasher = self.idle.take().unwrap_or_else(|| Hasher::new(self.algorithm));
        for bytes in self.gathered {
            hasher.update(&bytes);
        }
        Ok(hasher.finish())
    }
}

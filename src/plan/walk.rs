//! Walking a tree at an endpoint, one directory at a time, as far as a filter goes.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};

use super::filter::{HAULIGNORE, Named, Scope, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{Budget, Location, is_part_name};
use crate::transport::{Entry, EntryStream, FileKind, Follow, ReadRange};

/// Entries that are gathered until `.haulignore` is seen; if it isn't among them, it is asked for. Where that needs a
/// connection for itself, the listing is begun again, so more of them are waited for.
const AHEAD: usize = 256;
const AHEAD_ALONE: usize = 8192;
/// The longest `.haulignore` that is read.
const LONGEST_HAULIGNORE: usize = 1 << 20;
/// Questions at once, where a list of paths takes the place of listings.
const QUESTIONS: usize = 64;

/// The entries of one directory, each once; a broken connection is tried again. haul's own part files are left out.
///
/// Memory: eight bytes for each name of this one directory, and a few thousand entries at its beginning.
pub(super) struct Listing {
    dir: Location,
    scope: Scope,
    retries: Retries,
    budget: Budget,
    entries: Option<Entries>,
    ahead: VecDeque<Entry>,
    /// Whether the directory's `.haulignore` is in the scope, or doesn't count.
    heeded: bool,
    seen: HashSet<u64>,
    hashes: RandomState,
    seen_before: usize,
    missing: Vec<(String, Error)>,
}

/// How often a broken listing is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    /// So often without having come further.
    pub(super) retries: u32,
    /// The longest wait before that.
    pub(super) wait: Duration,
}

/// An entry, and whether the filter takes it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) taken: bool,
}

enum Entries {
    Ended,
    Listed(EntryStream),
    /// What a list of paths leads to.
    Asked(Pin<Box<dyn Stream<Item = Answer> + Send>>),
}

type Answer = Result<Entry, (Named, Error)>;

impl Retries {
    fn budget(self) -> Budget {
        Budget::new(self.retries, self.wait)
    }
}

impl Listing {
    /// Lists a directory, of which `scope` is the filter's scope; nothing is asked yet.
    pub(super) fn new(dir: Location, scope: Scope, retries: Retries) -> Self {
        Self {
            heeded: !scope.heeds_haulignore(),
            dir,
            scope,
            retries,
            budget: retries.budget(),
            entries: None,
            ahead: VecDeque::new(),
            seen: HashSet::new(),
            hashes: RandomState::new(),
            seen_before: 0,
            missing: Vec::new(),
        }
    }

    /// Returns the filter's scope with this directory's `.haulignore`, which is read now unless it was.
    pub(super) async fn scope(&mut self) -> Result<&Scope> {
        while !self.heeded {
            if let Err(error) = self.look_ahead().await {
                self.again(error).await?;
            }
        }
        Ok(&self.scope)
    }

    /// Returns the next entry, taken or not, or `None` at the end of a complete listing.
    pub(super) async fn next(&mut self) -> Result<Option<Found>> {
        loop {
            match self.step().await {
                Ok(Some(entry)) if is_part_name(&entry.name) => {}
                Ok(Some(entry)) if !self.seen.insert(self.hashes.hash_one(&entry.name)) => {}
                Ok(Some(entry)) => return Ok(Some(self.judge(entry).await)),
                Ok(None) => return Ok(None),
                Err(error) => self.again(error).await?,
            }
        }
    }

    /// Returns the URLs of what a list of paths names here or below and what isn't to be had, and why; each only once.
    pub(super) fn take_missing(&mut self) -> Vec<(String, Error)> {
        std::mem::take(&mut self.missing)
    }

    /// Waits before the listing is tried again.
    ///
    /// # Errors
    /// The error, when it is final.
    async fn again(&mut self, error: Error) -> Result<()> {
        self.entries = None;
        self.ahead.clear();
        let progressed = self.seen.len() > self.seen_before;
        self.seen_before = self.seen.len();
        let Some(wait) = self.budget.next(&error, progressed) else { return Err(error) };
        tracing::info!("listing {} again in {wait:?}: {}", self.dir.shown(), error.chain());
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<Entry>> {
        if !self.heeded {
            self.look_ahead().await?;
        }
        match self.ahead.pop_front() {
            Some(entry) => Ok(Some(entry)),
            None => self.read().await,
        }
    }

    /// Reads the next entry from the endpoint.
    async fn read(&mut self) -> Result<Option<Entry>> {
        loop {
            let entries = match &mut self.entries {
                Some(entries) => entries,
                none => none.insert(match self.scope.names() {
                    Some(names) => Entries::Asked(ask(&self.dir, names, self.retries)),
                    None => Entries::Listed(self.dir.transport.list(&self.dir.path).await?),
                }),
            };
            let entry = match entries {
                Entries::Ended => return Ok(None),
                Entries::Listed(entries) => entries.next().await.transpose()?,
                Entries::Asked(answers) => match answers.next().await.transpose() {
                    Ok(entry) => entry,
                    Err((named, error)) => {
                        self.miss(&named, &error);
                        continue;
                    }
                },
            };
            if entry.is_none() {
                self.entries = Some(Entries::Ended);
            }
            return Ok(entry);
        }
    }

    /// Gathers entries until it is known whether there is a `.haulignore`, and takes that into the scope.
    async fn look_ahead(&mut self) -> Result<()> {
        let alone = self.dir.transport.capabilities().streams == 1;
        let most = if alone { AHEAD_ALONE } else { AHEAD };
        let mut there = None;
        while self.ahead.len() < most && (alone || there.is_none()) {
            let Some(entry) = self.read().await? else {
                return self.heed(there).await;
            };
            if entry.name == HAULIGNORE {
                there = Some(entry.kind);
            }
            self.ahead.push_back(entry);
        }
        if alone {
            // The listing has a connection in its hands, and there may be no other.
            self.entries = None;
            self.ahead.clear();
            // FTP servers open nothing but files, and to look first takes them long.
            return self.heed(there.or(Some(FileKind::File))).await;
        }
        self.heed(there.or(Some(FileKind::Other))).await
    }

    /// Takes the `.haulignore` into the scope; of one that may be there, or is no file by the listing, the kind is asked for.
    async fn heed(&mut self, kind: Option<FileKind>) -> Result<()> {
        if let Some(kind) = kind.filter(|kind| *kind != FileKind::Directory) {
            let at = self.dir.child(HAULIGNORE)?;
            if let Some(text) = read_haulignore(&at, kind).await.map_err(|error| explained(error, &at))? {
                self.scope.heed(&text, &at.shown());
            }
        }
        self.heeded = true;
        Ok(())
    }

    async fn judge(&mut self, mut entry: Entry) -> Found {
        let mut verdict = self.scope.verdict(&entry);
        if verdict == Verdict::Unsure
            && let Ok(at) = self.dir.child(&entry.name)
            && let Ok(exact) = at.transport.exact(vec![(at.path, entry.clone())]).await
        {
            entry = exact.into_iter().next().unwrap_or(entry);
            verdict = self.scope.verdict(&entry);
        }
        Found { entry, taken: verdict != Verdict::Leaves }
    }

    fn miss(&mut self, named: &Named, error: &Error) {
        let itself = named.towards.is_empty().then_some(&named.name);
        for path in itself.into_iter().chain(&named.towards) {
            let below = path.split(|byte| *byte == b'/').try_fold(self.dir.clone(), |dir, name| dir.child(name));
            self.missing.push((below.unwrap_or_else(|_| self.dir.clone()).url, error.for_another()));
        }
    }
}

/// Looks at each name of a list, many at once, in their order.
fn ask(dir: &Location, names: Vec<Named>, retries: Retries) -> Pin<Box<dyn Stream<Item = Answer> + Send>> {
    let at_once = if dir.transport.capabilities().streams > 1 { QUESTIONS } else { 2 };
    let dir = dir.clone();
    let questions = stream::iter(names).map(move |named| look_at(dir.clone(), named, retries));
    Box::pin(questions.buffered(at_once))
}

async fn look_at(dir: Location, named: Named, retries: Retries) -> Answer {
    // A directory on the way to a path may be reached by a link: the user wrote it.
    let follow = if named.towards.is_empty() { Follow::Nothing } else { Follow::Links };
    let mut budget = retries.budget();
    let at = match dir.child(&named.name) {
        Ok(at) => at,
        Err(error) => return Err((named, error)),
    };
    loop {
        let error = match at.transport.stat(&at.path, follow).await {
            Ok(entry) => return Ok(Entry { name: named.name, ..entry }),
            Err(error) => error,
        };
        let Some(wait) = budget.next(&error, false) else { return Err((named, error)) };
        tokio::time::sleep(wait).await;
    }
}

/// Reads a `.haulignore`; `None` when there is no such file.
async fn read_haulignore(at: &Location, listed: FileKind) -> Result<Option<Vec<u8>>> {
    if listed != FileKind::File {
        // Not read to see: a pipe has no end, and no beginning.
        match at.transport.stat(&at.path, Follow::Links).await {
            Ok(entry) if entry.kind == FileKind::File => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let error = match read_file(at).await {
        Ok(text) => return Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind().is_retryable() => return Err(error),
        Err(error) => error,
    };
    // Servers have many words for what is no file.
    match at.transport.stat(&at.path, Follow::Links).await {
        Ok(entry) if entry.kind == FileKind::File => Err(error),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(_) => Err(error),
    }
}

async fn read_file(at: &Location) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut file = at.transport.open_read(&at.path, ReadRange::ALL).await?;
    loop {
        let chunk = file.read().await?;
        if chunk.is_empty() {
            file.finish().await?;
            return Ok(text);
        }
        if text.len() + chunk.len() > LONGEST_HAULIGNORE {
            return Err(Error::new(ErrorKind::Other, "it is longer than 1 MiB"));
        }
        text.extend_from_slice(&chunk);
    }
}

/// What it would have ruled out is not known, so nothing of the directory is taken.
fn explained(error: Error, at: &Location) -> Error {
    if error.kind().is_retryable() {
        return error;
    }
    error
        .context("read the patterns of the directory")
        .at(at.shown())
        .with_hint("--no-haulignore leaves these files unheeded")
}

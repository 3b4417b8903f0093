//! From what the comparison finds to tasks, and to what has to wait.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{Stream, StreamExt};

use super::changes::{Teller, What};
use super::removal::parent;
use super::spool::{Record, Spool};
use super::{Run, Tasks};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::compare::{Apart, By, Comparing, Difference, Finding, Root, Side, Verdict, Why, below, compare};
use crate::transfer::{Event, Existing, Folder, Location, Summary, may_have_lost_files};
use crate::transport::{Entry, FileKind, Follow};

/// Folders that are remembered for files that had to wait.
const FOLDERS: usize = 1000;

/// Plans a run.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub(super) struct Planner {
    pub(super) left: Location,
    pub(super) right: Location,
    pub(super) right_is_there: bool,
    pub(super) comparing: Comparing,
    pub(super) policy: Existing,
    pub(super) preserve: bool,
    pub(super) delete: bool,
    pub(super) detect_moves: bool,
    pub(super) replace_kinds: bool,
    /// Files that look alike may have lost what is in them with the power: the engine is to look at them.
    pub(super) doubtful: bool,
    pub(super) sets_times: bool,
    pub(super) tell: Teller,
    pub(super) tasks: Option<Tasks>,
    /// The directories that something goes into now.
    pub(super) folders: HashMap<Vec<u8>, Arc<Folder>>,
    /// Directories in which something changes, and those that only the destination has, until they are through.
    pub(super) touched: HashSet<Vec<u8>>,
    pub(super) extra_dirs: HashSet<Vec<u8>>,
    /// Those that their owner may not write, with their modes, until they are through.
    pub(super) shut: HashMap<Vec<u8>, u32>,
    /// What only the destination has.
    pub(super) extras: Spool,
    /// What is in the way of another kind of thing.
    pub(super) in_the_way: Spool,
    /// What it is in the way of.
    pub(super) conflicts: Vec<Record>,
    /// What an earlier run displaced and came to no end with, by the name that it had.
    pub(super) left_over: Vec<Vec<u8>>,
    /// Files whose name a server may take for that of another one: copied when that is there, if the name is free then.
    pub(super) collided: Vec<Record>,
    /// The names of directories under way, as such a server may see them.
    pub(super) names: HashMap<Vec<u8>, HashSet<String>>,
    /// Files that the destination may have under another name.
    pub(super) waiting: Spool,
    /// What this run puts under a name that was not there.
    pub(super) written: Spool,
    /// Directories whose time or mode is to be set.
    pub(super) directories: Spool,
    pub(super) equal: u64,
    /// Directories of which the time or the mode is set, and nothing else happens.
    pub(super) set: u64,
    /// What differs and is left as it is.
    pub(super) held_back: u64,
    /// Directories and entries of the source that could not be looked at.
    pub(super) unlisted: u64,
    pub(super) is_empty: bool,
    /// What was planned and failed in this stage, where the engine doesn't count.
    pub(super) counted: Summary,
    /// Whether it was told, or is what the user wants.
    pub(super) told_of_links: bool,
    /// A filter may leave nothing of a directory: then it is made when something goes into it, or if it is empty.
    pub(super) filtered: bool,
    pub(super) unmade: HashMap<Vec<u8>, (Entry, Arc<Folder>)>,
}

/// Nobody takes the tasks any more, or a spool failed.
pub(super) enum End {
    Stopped,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

pub(super) type Planned = Result<(), End>;

impl Planner {
    pub(super) fn new(run: &Run) -> Self {
        let spool = || Spool::new(&run.transfer.state_dir);
        let comparing = run.options.comparing.clone();
        let local = run.right.at.transport.capabilities().local;
        let doubtful = local && comparing.by != By::Digest && may_have_lost_files(&run.transfer);
        Self {
            left: run.left.at.clone(),
            right: run.right.at.clone(),
            right_is_there: run.right.entry.is_some(),
            comparing,
            policy: run.policy,
            preserve: run.options.preserve,
            delete: run.options.delete,
            detect_moves: run.options.detect_moves && run.options.delete,
            replace_kinds: run.options.replace_kinds || run.options.delete,
            doubtful,
            sets_times: run.directory_times.are_set,
            tell: run.tell.clone(),
            tasks: None,
            folders: HashMap::new(),
            touched: HashSet::new(),
            extra_dirs: HashSet::new(),
            shut: HashMap::new(),
            extras: spool(),
            in_the_way: spool(),
            conflicts: Vec::new(),
            left_over: Vec::new(),
            collided: Vec::new(),
            names: HashMap::new(),
            waiting: spool(),
            written: spool(),
            directories: spool(),
            equal: 0,
            set: 0,
            held_back: 0,
            unlisted: 0,
            is_empty: false,
            counted: Summary::default(),
            told_of_links: run.skips_links,
            filtered: !run.options.comparing.filter.root().takes_all(),
            unmade: HashMap::new(),
        }
    }

    /// Plans what the comparison of the roots finds.
    pub(super) async fn trees(&mut self, tasks: Option<Tasks>, left: Root, right: Option<Root>) -> Result<()> {
        self.tasks = tasks;
        let planned = async {
            if !self.right_is_there {
                self.make_directory(Vec::new(), None).await?;
            }
            let findings = compare(Some(left), right, Vec::new(), self.comparing.clone());
            self.take_all(findings).await
        };
        let planned = planned.await;
        self.end(planned)
    }

    /// Plans what had to wait: what nothing is in the way of any more, and files that are nowhere at the destination.
    pub(super) async fn later(&mut self, tasks: Option<Tasks>, conflicts: Vec<Record>, waiting: &Spool) -> Result<()> {
        self.tasks = tasks;
        self.detect_moves = false;
        let planned = self.what_waited(conflicts, waiting).await;
        self.end(planned)
    }

    /// Returns what was planned or failed since the last time, without the engine.
    pub(super) fn take_counted(&mut self) -> Summary {
        std::mem::take(&mut self.counted)
    }

    fn end(&mut self, planned: Planned) -> Result<()> {
        self.tasks = None;
        self.tell.observer.event(Event::AllFound);
        match planned {
            Ok(()) | Err(End::Stopped) => Ok(()),
            Err(End::Failed(error)) => Err(error),
        }
    }

    async fn what_waited(&mut self, conflicts: Vec<Record>, waiting: &Spool) -> Planned {
        self.in_place_of_others(conflicts).await?;
        for Record { path, entry } in std::mem::take(&mut self.collided) {
            let at = below(&self.right, &path)?;
            match at.transport.stat(&at.path, Follow::Nothing).await {
                Ok(_) => self.fail(at.url, same_name()).await?,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if let Some(left) = entry {
                        self.missing(path, left).await?;
                    }
                }
                Err(error) => self.fail(at.url, error).await?,
            }
        }
        for record in waiting.forwards()? {
            let Record { path, entry } = record?;
            if self.folders.len() > FOLDERS {
                self.folders.clear();
            }
            if let Some(left) = entry {
                self.file(path, left, None, What::Copy).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn take_all(&mut self, mut findings: impl Stream<Item = Finding> + Send + Unpin) -> Planned {
        while let Some(finding) = findings.next().await {
            if self.tell.is_cancelled() {
                return Err(End::Stopped);
            }
            self.take(finding).await?;
        }
        Ok(())
    }

    async fn take(&mut self, finding: Finding) -> Planned {
        match finding {
            Finding::Pair(difference) => self.pair(difference).await,
            Finding::Apart { path, why } => self.apart(&path, why),
            Finding::Failed { side, path, error } => {
                self.protect(&path)?;
                let root = match side {
                    Side::Left => {
                        self.unlisted += 1;
                        &self.left
                    }
                    Side::Right => &self.right,
                };
                let at = below(root, &path).map_or_else(|_| root.url.clone(), |at| at.url);
                self.fail(at, error).await
            }
            Finding::Listed { path, left, right, entries, is_bare, .. } => {
                if is_bare && self.unmade.contains_key(&path) {
                    self.make_unmade(&path).await?;
                }
                self.listed(path, left, right.as_ref(), entries)
            }
            Finding::Note(text) => {
                self.tell.note(text);
                Ok(())
            }
        }
    }

    async fn pair(&mut self, difference: Difference) -> Planned {
        let Difference { path, left, right, verdict } = difference;
        let collides = self.shares_its_name(&path);
        self.note_if_shut(&path, left.as_ref(), right.as_ref());
        match (verdict, left, right) {
            (Verdict::Missing, Some(left), _) if collides && !left.is_dir() && !self.tell.dry_run => {
                self.collided.push(Record { path, entry: Some(left) });
                Ok(())
            }
            (Verdict::Missing, Some(left), _) => self.missing(path, left).await,
            (Verdict::Extra, _, Some(right)) => self.extra(path, right).await,
            (Verdict::Equal, Some(left), Some(right)) => self.equal(path, left, right).await,
            (Verdict::Different(why), Some(left), Some(right)) => self.different(path, left, right, why).await,
            _ => Ok(()),
        }
    }

    /// Returns whether a server that is blind to case would take this name for one that came before. Here the disk is asked
    /// when the file gets its name.
    fn shares_its_name(&mut self, path: &[u8]) -> bool {
        if self.right.transport.capabilities().local {
            return false;
        }
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
        let folded = String::from_utf8_lossy(name).to_lowercase();
        !self.names.entry(parent(path).to_vec()).or_default().insert(folded)
    }

    pub(super) async fn missing(&mut self, path: Vec<u8>, left: Entry) -> Planned {
        self.touch(parent(&path)).await;
        match left.kind {
            FileKind::Directory if self.filtered => {
                let folder = self.new_folder(&path)?;
                self.unmade.insert(path, (left, folder));
                Ok(())
            }
            FileKind::Directory => self.make_directory(path, Some(left)).await,
            FileKind::File if self.detect_moves && left.size.is_some_and(|size| size > 0) => {
                self.make_unmade(parent(&path)).await?;
                Ok(self.waiting.push(&Record { path, entry: Some(left) })?)
            }
            FileKind::File => self.file(path, left, None, What::Copy).await,
            FileKind::Symlink | FileKind::Other => self.link(path, left, None).await,
        }
    }

    async fn extra(&mut self, path: Vec<u8>, right: Entry) -> Planned {
        if !self.delete {
            return Ok(());
        }
        self.touch(parent(&path)).await;
        if right.is_dir() {
            self.extra_dirs.insert(path.clone());
        }
        Ok(self.extras.push(&Record { path, entry: Some(right) })?)
    }

    async fn equal(&mut self, path: Vec<u8>, left: Entry, right: Entry) -> Planned {
        if left.is_dir() {
            return Ok(());
        }
        if left.kind == FileKind::File && self.policy == Existing::Replace {
            return self.file(path, left, Some(right), What::Replace(None)).await;
        }
        self.equal += 1;
        if self.doubtful && left.kind == FileKind::File && !self.tell.dry_run {
            self.equal -= 1;
            return self.file(path, left, Some(right), What::Replace(None)).await;
        }
        Ok(())
    }

    async fn different(&mut self, path: Vec<u8>, left: Entry, right: Entry, why: Why) -> Planned {
        let directories = (left.is_dir(), right.is_dir());
        match (directories, why) {
            // Set when all is through.
            ((true, true), _) => {
                self.set += u64::from(self.touched.insert(path.clone()));
                if self.tell.dry_run {
                    self.plan(What::Set(why), path, None);
                }
                Ok(())
            }
            ((true, false) | (false, true), _) => self.conflict(path, left, right).await,
            _ if !self.is_wanted(&left, &right) => {
                self.held_back += 1;
                Ok(())
            }
            (_, Why::OnlyTime | Why::OnlyMode) => self.set(path, left, why).await,
            _ if left.kind == FileKind::File => self.file(path, left, Some(right), What::Replace(Some(why))).await,
            _ => self.link(path, left, Some(right)).await,
        }
    }

    fn is_wanted(&self, left: &Entry, right: &Entry) -> bool {
        match self.policy {
            Existing::Keep => false,
            Existing::ReplaceOlder => match left.mtime.zip(right.mtime) {
                Some((left, right)) => !left.matches(right) && left.time > right.time,
                None => false,
            },
            Existing::Replace | Existing::ReplaceDifferent => true,
        }
    }

    fn apart(&mut self, path: &[u8], why: Apart) -> Planned {
        self.left_over.extend((why == Apart::Own).then(|| self.name_before(path)).flatten());
        let text = match why {
            Apart::Excluded | Apart::Own => None,
            Apart::NotRegular => Some("left out, not a regular file"),
            Apart::LinkToDirectory => Some("left out, a link to a directory (--links keep keeps links)"),
            Apart::Link if std::mem::replace(&mut self.told_of_links, true) => None,
            Apart::Link => Some("links are left out; this is the first"),
        };
        if let (Some(text), Ok(at)) = (text, below(&self.left, path)) {
            self.tell.note(format!("{text}: {}", at.shown()));
        }
        self.protect(path)
    }

    /// Makes sure that the directories which hold this stay.
    fn protect(&mut self, path: &[u8]) -> Planned {
        if self.extra_dirs.contains(parent(path)) || self.extra_dirs.contains(path) {
            self.extras.push(&Record { path: path.to_vec(), entry: None })?;
        }
        Ok(())
    }

    fn listed(&mut self, path: Vec<u8>, left: Option<Entry>, right: Option<&Entry>, entries: usize) -> Planned {
        self.is_empty |= path.is_empty() && entries == 0;
        self.folders.remove(&path);
        self.names.remove(&path);
        self.extra_dirs.remove(&path);
        self.shut.remove(&path);
        let touched = self.touched.remove(&path);
        let Some(left) = left else { return Ok(()) };
        let times = left.mtime.zip(right.and_then(|right| right.mtime));
        let same_time = !self.sets_times || times.is_none_or(|(left, right)| left.matches(right));
        let is_new = right.is_none() || (path.is_empty() && !self.right_is_there);
        self.set += u64::from(!touched && !is_new && !same_time);
        match touched || is_new || !same_time {
            true => Ok(self.directories.push(&Record { path, entry: Some(left) })?),
            false => Ok(()),
        }
    }
}

fn same_name() -> Error {
    Error::new(ErrorKind::InvalidPath, "the server takes this name for that of another file, which is there")
        .with_hint("it doesn't tell some names apart, as those that differ by case; rename one of the two")
}

//! Transfers that didn't come to their end: which there are, forgetting them, and clearing away those that are old.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::journal::{self, Contents};
use super::lock::Locks;
use super::notes::{Request, Stopped};
use super::part;
use super::types::Location;
use crate::endpoint::{Endpoint, Scheme};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::RemotePath;

/// How long nobody need have worked on a transfer before its journal and its part here are removed.
const OLD: Duration = Duration::from_secs(30 * DAY);
/// The same where the part can't be reached: then the journal alone goes, and nobody knows of the part any more.
const VERY_OLD: Duration = Duration::from_secs(365 * DAY);
/// Clearing away happens so often.
const EVERY: Duration = Duration::from_secs(DAY);
const DAY: u64 = 24 * 60 * 60;
/// Its time tells when that was.
const CLEARED: &str = "cleared";

/// A transfer that has a journal.
#[derive(Debug, Clone)]
pub struct Interrupted {
    /// 16 hexadecimal digits, as in the name of its part.
    pub id: String,
    /// When it was last worked on.
    pub at: SystemTime,
    /// What its journal says, or why that can't be read.
    pub about: Result<About, String>,
}

/// What a journal says.
#[derive(Debug, Clone)]
pub struct About {
    /// URL of the source.
    pub source: String,
    /// URL of the final name.
    pub destination: String,
    /// Size of the source in bytes.
    pub size: u64,
    /// Bytes that are written down as being at the destination.
    pub kept: u64,
    /// Whether it is at work, and why not.
    pub state: State,
    /// How it was asked for.
    pub request: Request,
    /// The directory here below which nothing may be reached through a link.
    pub below: Option<RemotePath>,
}

/// What became of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A process is at work on it.
    Running,
    /// It stopped, and had time to say why.
    Stopped(Stopped),
    /// It had no time: it was killed, or the machine lost power.
    Killed,
    /// Its journal is from a version of haul that didn't say why.
    Unknown,
}

/// Returns the transfers that have a journal; the one that was worked on last comes first.
///
/// # Errors
/// When the folder of journals is there and can't be read.
pub fn interrupted(state_dir: &Path) -> Result<Vec<Interrupted>> {
    untouched_for(state_dir, Duration::ZERO)
}

/// Returns those that nobody has worked on for so long.
fn untouched_for(state_dir: &Path, time: Duration) -> Result<Vec<Interrupted>> {
    let dir = state_dir.join("transfers");
    let failed = |e| Error::io("read the folder of journals", e).at(dir.display());
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let locks = Locks::open(&dir).ok();
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".journal")) else { continue };
        // One that has gone meanwhile is through.
        let Some(at) = time_of(&dir.join(&name)).filter(|at| age(*at) >= time) else { continue };
        if part::is_id(id.as_bytes()) {
            let about = about(&dir, id, locks.as_deref());
            found.push(Interrupted { id: id.to_owned(), at, about });
        }
    }
    found.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.id.cmp(&b.id)));
    Ok(found)
}

impl Interrupted {
    /// Removes the part and what was set aside, given the connected destination, and then the journal. Without one, the journal alone.
    ///
    /// # Errors
    /// `Locked` while somebody is at work on it; those of removing. The journal stays then.
    pub async fn forget(&self, state_dir: &Path, destination: Option<&Location>) -> Result<()> {
        let dir = state_dir.join("transfers");
        let locks = Locks::open(&dir)?;
        let _held = match &self.about {
            Ok(about) => Some(locks.take(&about.destination, None)?),
            Err(_) => None,
        };
        if let Some(destination) = destination {
            let part = destination.sibling(part::path_of(&destination.path, &self.id)?);
            for left in [part::aside_of(&part)?, part] {
                match left.transport.remove_file(&left.path).await {
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        let path = journal::path_of(&dir, &self.id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove the journal", e).at(path.display())),
            _ => Ok(()),
        }
    }
}

fn about(dir: &Path, id: &str, locks: Option<&Locks>) -> Result<About, String> {
    let text = journal::read_text(&journal::path_of(dir, id)).map_err(|e| format!("can't be read: {e}"))?;
    let contents = Contents::parse(&text).ok_or("damaged, or of another version of haul")?;
    let (source, destination) = (contents.head.source.clone(), contents.head.destination.clone());
    if locks.is_none_or(|locks| part::id_of(locks.number(), &source, &destination) != id) {
        return Err("of another installation of haul".into());
    }
    let kept = contents.kept();
    let below = contents.notes.below();
    let state = match (contents.notes.stopped, &contents.notes.request) {
        _ if locks.is_some_and(|locks| locks.is_taken(&destination)) => State::Running,
        (Some(stopped), _) => State::Stopped(stopped),
        (None, Some(_)) => State::Killed,
        (None, None) => State::Unknown,
    };
    let request = contents.notes.request.unwrap_or_default();
    Ok(About { source, destination, size: contents.head.size, kept, state, request, below })
}

/// Removes what nobody has worked on for a long time; at most once a day. Blocks.
///
/// Called at the end of a run, so that what this went on with is not old any more.
pub(super) fn clear_away(state_dir: &Path) {
    let dir = state_dir.join("transfers");
    let cleared = dir.join(CLEARED);
    let is_due = time_of(&cleared).is_none_or(|at| age(at) >= EVERY);
    let marked = || fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&cleared);
    if !is_due || marked().and_then(|mut file| file.write_all(b"1")).is_err() {
        return;
    }
    let (Ok(found), Ok(locks)) = (untouched_for(state_dir, OLD), Locks::open(&dir)) else { return };
    for transfer in &found {
        clear(&dir, transfer, &locks);
    }
    // What a process left that was killed while it wrote a journal's head.
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "new") && time_of(&path).is_some_and(|at| age(at) >= OLD) {
            let _ = fs::remove_file(path);
        }
    }
}

fn clear(dir: &Path, transfer: &Interrupted, locks: &Arc<Locks>) {
    let path = journal::path_of(dir, &transfer.id);
    let Some(part) = transfer.about.as_ref().ok().and_then(|about| part_here(about, &transfer.id)) else {
        if age(transfer.at) >= VERY_OLD {
            let _ = fs::remove_file(path);
        }
        return;
    };
    let Ok(about) = &transfer.about else { return };
    let Ok(_held) = locks.take(&about.destination, None) else { return };
    // Somebody may have gone on with it, and stopped, since it was looked at.
    let is_old = |path: &Path| time_of(path).is_none_or(|at| age(at) >= OLD);
    if !is_old(&path) || !is_old(&part) {
        return;
    }
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {}
        _ => drop(fs::remove_file(&path)),
    }
}

/// Returns where the part lies if that is on this machine, and its directory is there: a disk may come back.
fn part_here(about: &About, id: &str) -> Option<PathBuf> {
    let endpoint = Endpoint::parse(&about.destination).ok().filter(|endpoint| endpoint.scheme == Scheme::File)?;
    let part = part::path_of(&endpoint.path.resolve(&RemotePath::root()).ok()?, id).ok()?;
    let part = Path::new(std::ffi::OsStr::from_bytes(part.as_bytes())).to_owned();
    part.parent().is_some_and(Path::is_dir).then_some(part)
}

fn time_of(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// How long ago that was; nothing for what is to come.
fn age(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or_default()
}

//! What the source calls by another name: renamed at the destination, where digests of both ends prove that it is the same.

use std::collections::{HashMap, HashSet};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Run;
use super::changes::{Change, Stage, What};
use super::planner::Planner;
use super::removal::{Removal, parent};
use super::spool::{Record, Spool};
use crate::error::Result;
use crate::plan::compare::{Prover, below};
use crate::transport::{FileKind, RemotePath, Replace, SetMetadata};

/// Files of the destination that may be what is looked for; more are not looked at.
const MOST: usize = 1_000_000;
/// Files of one size that are compared with one that is looked for.
const TRIED: usize = 16;
/// Files that are looked for at once.
const AT_ONCE: usize = 16;

/// What was renamed.
#[derive(Debug)]
pub(super) struct Moved {
    /// The names that are free now.
    pub(super) gone: HashSet<Vec<u8>>,
    /// The new ones.
    pub(super) made: Vec<Vec<u8>>,
    /// What was found nowhere, to be copied.
    pub(super) rest: Spool,
}

/// A file that is looked for, and those that are the same at the destination.
type Alike = (Record, Vec<Record>);

/// Renames what it can of the files that wait.
pub(super) async fn run(run: &Run, planner: &Planner, waiting: &Spool) -> Result<Moved> {
    let mut moved = Moved { gone: HashSet::new(), made: Vec::new(), rest: Spool::new(&run.transfer.state_dir) };
    if let Some(why) = Prover::is_of_no_use(&run.left.at, &run.right.at) {
        run.tell.note(why);
    }
    let none = HashSet::new();
    let removal = run.removal(planner, &none);
    let alike = look(run, &removal, planner, waiting, &mut moved.rest).await?;
    let mut renaming = FuturesUnordered::new();
    let mut pairs = pair(alike).into_iter();
    loop {
        let next = pairs.next();
        while !renaming.is_empty() && (next.is_none() || renaming.len() >= AT_ONCE) {
            let Some((record, from, done)) = renaming.next().await else { break };
            let (record, from): (Record, Record) = (record, from);
            match done {
                true => {
                    moved.gone.insert(from.path);
                    moved.made.push(record.path);
                }
                false => moved.rest.push(&record)?,
            }
        }
        match next {
            None => return Ok(moved),
            Some((record, None)) => moved.rest.push(&record)?,
            Some((record, Some(from))) => renaming.push(async {
                let (record, from) = (record, from);
                let done = !run.tell.is_cancelled() && rename(run, &removal, &record, &from).await;
                (record, from, done)
            }),
        }
    }
}

/// Looks for each file that waits; what is nowhere goes to the rest.
async fn look(
    run: &Run,
    removal: &Removal<'_>,
    planner: &Planner,
    waiting: &Spool,
    rest: &mut Spool,
) -> Result<Vec<Alike>> {
    let by_size = candidates(removal, planner, waiting).await?;
    let prover = Prover::new(&run.options.comparing);
    let mut found = Vec::new();
    let mut looking = FuturesUnordered::new();
    let mut waiting = waiting.forwards()?;
    loop {
        let next = waiting.next().transpose()?.filter(|_| !run.tell.is_cancelled());
        while !looking.is_empty() && (next.is_none() || looking.len() >= AT_ONCE) {
            let Some((record, alike)) = looking.next().await else { break };
            let alike: Vec<Record> = alike;
            if alike.is_empty() { rest.push(&record)? } else { found.push((record, alike)) }
        }
        let Some(record) = next else { return Ok(found) };
        let size = record.entry.as_ref().and_then(|entry| entry.size);
        match size.and_then(|size| by_size.get(&size)) {
            None => rest.push(&record)?,
            Some(others) => looking.push(find(run, &prover, record, others)),
        }
    }
}

/// Gives each file one that is the same, none to two of them: those of the same name first, else in the order of paths,
/// so that it comes out the same every time.
fn pair(mut alike: Vec<Alike>) -> Vec<(Record, Option<Record>)> {
    alike.sort_by(|(one, _), (other, _)| one.path.cmp(&other.path));
    let mut taken = HashSet::new();
    let mut pairs: Vec<_> = alike.iter().map(|(record, _)| (record.clone(), None)).collect();
    for same_name in [true, false] {
        for ((record, from), (_, others)) in pairs.iter_mut().zip(&alike) {
            let fits = |other: &&Record| !same_name || name(other) == name(record);
            if from.is_none() {
                *from = others.iter().filter(fits).find(|other| !taken.contains(&other.path)).cloned();
                taken.extend(from.iter().map(|from| from.path.clone()));
            }
        }
    }
    pairs
}

fn name(record: &Record) -> &[u8] {
    record.path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

/// Returns the files that only the destination has, by size, as far as files of that size are looked for. What lies elsewhere
/// in truth, through a link that is listed as a directory, stays there.
async fn candidates(removal: &Removal<'_>, planner: &Planner, waiting: &Spool) -> Result<HashMap<u64, Vec<Record>>> {
    let mut by_size: HashMap<u64, Vec<Record>> = HashMap::new();
    for record in waiting.backwards() {
        if let Some(size) = record?.entry.and_then(|entry| entry.size).filter(|_| by_size.len() < MOST) {
            by_size.entry(size).or_default();
        }
    }
    let mut count = 0;
    for record in planner.extras.backwards() {
        let record = record?;
        let Some(entry) = record.entry.as_ref().filter(|entry| entry.kind == FileKind::File) else { continue };
        if let Some(of_size) = entry.size.and_then(|size| by_size.get_mut(&size)).filter(|_| count < MOST)
            && !removal.leads_elsewhere(parent(&record.path)).await?
        {
            of_size.push(record);
            count += 1;
        }
    }
    by_size.retain(|_, records| !records.is_empty());
    Ok(by_size)
}

/// Returns those that are the same file, by digests.
async fn find(run: &Run, prover: &Prover, record: Record, others: &[Record]) -> (Record, Vec<Record>) {
    let mut alike = Vec::new();
    let mut others: Vec<&Record> = others.iter().collect();
    // One of the same name first: it may have gone to another directory.
    others.sort_by(|one, other| {
        let key = |of: &Record| (name(of) != name(&record), of.path.clone());
        key(one).cmp(&key(other))
    });
    for other in others.into_iter().take(TRIED) {
        let (Some(left), Some(right)) = (&record.entry, &other.entry) else { continue };
        let (Ok(at_left), Ok(at_right)) = (below(&run.left.at, &record.path), below(&run.right.at, &other.path)) else {
            continue;
        };
        match prover.is_proven_same(&at_left, left, &at_right, right).await {
            Ok(true) => alike.push(other.clone()),
            Ok(false) => {}
            Err(error) => tracing::debug!("{}: not known to be moved: {}", at_left.shown(), error.chain()),
        }
    }
    (record, alike)
}

/// Renames a file; where that fails, it is copied like any other.
async fn rename(run: &Run, removal: &Removal<'_>, record: &Record, from: &Record) -> bool {
    let (root, Some(entry)) = (&run.right.at, &record.entry) else { return false };
    let (Ok(at), Ok(to)) = (below(root, &from.path), below(root, &record.path)) else { return false };
    // In a dry run the new one's directory need not be there yet.
    let new = (!run.tell.dry_run).then_some(&record.path);
    for path in [Some(&from.path), new].into_iter().flatten() {
        if let Err(error) = removal.stays_inside(parent(path)).await {
            run.tell.note(format!("{}: copied instead of moved: {}", to.shown(), error.chain()));
            return false;
        }
    }
    if !run.tell.dry_run {
        let durability = run.transfer.durability;
        if let Err(error) = at.transport.rename(&at.path, &to.path, Replace::No, durability).await {
            run.tell.note(format!("{}: copied instead of moved: {}", to.shown(), error.chain()));
            return false;
        }
        set(run, record, &to.path).await;
    }
    let what = What::Move { from: from.path.clone() };
    let (path, source, bytes) = (record.path.clone(), Some(at.url), entry.size);
    run.tell.change(Change { what, path, source, destination: to.url, bytes, stage: Stage::Done });
    true
}

async fn set(run: &Run, record: &Record, to: &RemotePath) {
    let transport = &run.right.at.transport;
    let capabilities = transport.capabilities();
    let Some(entry) = &record.entry else { return };
    let metadata = SetMetadata {
        mtime: entry.mtime.filter(|_| capabilities.set_mtime.is_some()).map(|mtime| mtime.time),
        mode: entry.mode.filter(|_| capabilities.set_mode && run.options.preserve).map(|mode| mode & 0o777),
    };
    if let Err(error) = transport.set_metadata(to, metadata).await {
        run.tell.note(format!("{to}: time and mode are not kept: {}", error.chain()));
    }
}

//! One kind of thing in the place of another: what is there gives way when what replaces it is complete, and goes when all
//! is well; else it gets its name back.

use std::collections::HashSet;

use futures_util::StreamExt;

use super::planner::{Planned, Planner};
use super::removal::parent;
use super::spool::{Record, Spool};
use super::{Run, What};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::compare::{Comparing, Difference, Finding, Links, Root, below, compare};
use crate::plan::filter::Filter;
use crate::transfer::{Existing, displace, displaced, name_before, put_back};
use crate::transport::{Entry, FileKind, Follow};

/// What an earlier run displaced.
pub(super) struct LeftOver {
    /// Where it was.
    path: Vec<u8>,
    /// It and all that is in it; `None` if something in it is to stay.
    inside: Option<Spool>,
}

impl Planner {
    /// A directory is in the way of a file, or the other way round.
    pub(super) async fn conflict(&mut self, path: Vec<u8>, left: Entry, right: Entry) -> Planned {
        let at = below(&self.right, &path)?;
        let in_the_way =
            if right.is_dir() { "a directory is in the way" } else { "a file or link is in the way of a directory" };
        if !self.replace_kinds || self.policy == Existing::Keep {
            let error = Error::new(ErrorKind::AlreadyExists, in_the_way)
                .with_hint("--delete, or --replace-kinds, removes what is in the way of another kind of thing");
            return self.fail(at.url, error).await;
        }
        let mut inside = vec![Record { path: path.clone(), entry: Some(right.clone()) }];
        if right.is_dir() {
            let root = Root { at: at.clone(), entry: right };
            let mut findings = compare(None, Some(root), path.clone(), self.comparing_all());
            while let Some(finding) = findings.next().await {
                match finding {
                    Finding::Pair(Difference { path, right, .. }) => inside.push(Record { path, entry: right }),
                    Finding::Failed { error, .. } => return self.fail(at.url, error.context(in_the_way)).await,
                    Finding::Apart { .. } => {
                        let text = format!("{in_the_way}, and something in it is to be left alone");
                        return self.fail(at.url, Error::new(ErrorKind::AlreadyExists, text)).await;
                    }
                    Finding::Listed { .. } | Finding::Note(_) => {}
                }
            }
        }
        for record in inside {
            self.in_the_way.push(&record)?;
        }
        self.touch(parent(&path)).await;
        self.conflicts.push(Record { path, entry: Some(left) });
        Ok(())
    }

    fn comparing_all(&self) -> Comparing {
        Comparing { inside_extra: true, ..self.comparing.clone() }
    }

    /// Tells that something stays in the way.
    pub(super) fn stays_in_the_way(&mut self, path: &[u8]) {
        let error = Error::new(ErrorKind::Other, "not put in the place of another kind of thing: nothing is deleted");
        let at = below(&self.right, path).map_or_else(|_| self.right.url.clone(), |at| at.url);
        self.counted.failed += 1;
        self.tell.fail(at, error);
    }

    /// Plans what something else was in the way of: a directory gives way to a file once that is complete, a file to a
    /// directory now.
    pub(super) async fn in_place_of_others(&mut self, conflicts: Vec<Record>) -> Planned {
        for Record { path, entry } in conflicts {
            let Some(left) = entry else { continue };
            self.touch(parent(&path)).await;
            if !left.is_dir() {
                let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default().to_vec();
                self.folder(parent(&path))?.let_give_way(&name);
                let there = Some(Entry::new(name, FileKind::Directory));
                match left.kind {
                    FileKind::File => self.file(path, left, there, What::Copy).await?,
                    _ => self.link(path, left, there).await?,
                }
                continue;
            }
            let at = below(&self.right, &path)?;
            if !self.tell.dry_run
                && let Err(error) = displace(&at).await
            {
                self.fail(at.url, error.context("put it out of the way")).await?;
                continue;
            }
            self.missing(path.clone(), left.clone()).await?;
            let at = below(&self.left, &path)?;
            let findings = compare(Some(Root { at, entry: left }), None, path, self.comparing.clone());
            self.take_all(findings).await?;
        }
        Ok(())
    }

    /// Returns the path that something displaced had, if it is that.
    pub(super) fn name_before(&self, path: &[u8]) -> Option<Vec<u8>> {
        let name = name_before(&below(&self.right, path).ok()?.path)?;
        let dir = parent(path);
        Some(if dir.is_empty() { name } else { [dir, b"/", &name].concat() })
    }
}

impl Run {
    /// Looks at what an earlier run displaced.
    pub(super) async fn left_over(&self, planner: &mut Planner) -> Result<Vec<LeftOver>> {
        let mut found = Vec::new();
        if self.tell.dry_run {
            return Ok(found);
        }
        for path in std::mem::take(&mut planner.left_over) {
            let at = displaced(&below(&self.right.at, &path)?)?;
            let Ok(entry) = at.transport.stat(&at.path, Follow::Nothing).await else { continue };
            let mut inside = Spool::new(&self.transfer.state_dir);
            inside.push(&Record { path: path.clone(), entry: Some(entry.clone()) })?;
            let mut all = true;
            if entry.is_dir() {
                let (filter, links) = (Filter::default(), Links::Keep);
                let comparing = Comparing { filter, links, inside_extra: true, ..self.options.comparing.clone() };
                let mut findings = compare(None, Some(Root { at, entry }), path.clone(), comparing);
                while let Some(finding) = findings.next().await {
                    match finding {
                        Finding::Pair(Difference { path, right, .. }) => inside.push(&Record { path, entry: right })?,
                        Finding::Failed { .. } | Finding::Apart { .. } => all = false,
                        Finding::Listed { .. } | Finding::Note(_) => {}
                    }
                }
            }
            found.push(LeftOver { path, inside: Some(inside).filter(|_| all && self.replaces_kinds()) });
        }
        Ok(found)
    }

    /// Counts what would be deleted of it.
    pub(super) async fn count_left_over(&self, planner: &Planner, found: &[LeftOver]) -> Result<u64> {
        let nothing = HashSet::new();
        let mut count = 0;
        for inside in found.iter().filter_map(|left| left.inside.as_ref()) {
            count += self.removal(planner, &nothing).count(inside).await?;
        }
        Ok(count)
    }

    /// Deletes what has something else in its place by now, if all is well; returns the others.
    pub(super) async fn clear_left_over(&mut self, planner: &Planner, found: Vec<LeftOver>) -> Result<Vec<LeftOver>> {
        let mut rest = Vec::new();
        for left in found {
            let at = below(&self.right.at, &left.path)?;
            let replaced = at.transport.stat(&at.path, Follow::Nothing).await.is_ok();
            match &left.inside {
                Some(inside) if replaced && self.is_all_well(planner) => {
                    self.remove_displaced(planner, inside, &HashSet::from([left.path.clone()]), &HashSet::new())
                        .await?;
                }
                _ => rest.push(left),
            }
        }
        Ok(rest)
    }

    /// Ends it: what was displaced goes if all is well, else it gets its name back where that is free.
    pub(super) async fn settle(
        &mut self,
        planner: &Planner,
        conflicts: HashSet<Vec<u8>>,
        left: Vec<LeftOver>,
    ) -> Result<()> {
        if self.tell.dry_run {
            return Ok(());
        }
        for left in self.clear_left_over(planner, left).await? {
            self.give_back(&left.path).await?;
        }
        let mut given_back = HashSet::new();
        for path in &conflicts {
            // A filter may leave nothing to put in its place.
            if !self.is_all_well(planner) || (planner.unmade.contains_key(path) && !self.options.delete) {
                self.give_back(path).await?;
                given_back.insert(path.clone());
            }
        }
        if self.is_all_well(planner) && !conflicts.is_empty() {
            self.remove_displaced(planner, &planner.in_the_way, &conflicts, &given_back).await?;
        }
        Ok(())
    }

    async fn remove_displaced(
        &mut self,
        planner: &Planner,
        inside: &Spool,
        displaced: &HashSet<Vec<u8>>,
        gone: &HashSet<Vec<u8>>,
    ) -> Result<()> {
        let mut removal = self.removal(planner, gone);
        removal.displaced = Some(displaced);
        let removed = removal.run(inside).await?;
        self.synced.deleted += removed.deleted;
        self.synced.summary.failed += removed.failed;
        Ok(())
    }

    async fn give_back(&self, path: &[u8]) -> Result<()> {
        let at = below(&self.right.at, path)?;
        let aside = displaced(&at)?;
        match aside.transport.stat(&aside.path, Follow::Nothing).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) => {}
            Ok(_) => match put_back(&at).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!("{}: {}", at.shown(), error.chain()),
            },
        }
        let text = format!("{}: what was there before is kept as {} for now", at.shown(), aside.path);
        self.tell.note(format!("{text}; the next run that does all it is to do deletes it"));
        Ok(())
    }

    fn is_all_well(&self, planner: &Planner) -> bool {
        !self.tell.is_cancelled() && self.synced.refused.is_none() && self.reason_not_to_delete(planner).is_none()
    }

    fn replaces_kinds(&self) -> bool {
        self.options.replace_kinds || self.options.delete
    }
}

//! What is planned, handed to the engine, or in a dry run told.

use std::sync::Arc;

use super::changes::{Change, Stage, What};
use super::planner::{End, Planned, Planner};
use super::removal::parent;
use super::spool::Record;
use crate::error::{Error, Result};
use crate::plan::compare::{Why, below};
use crate::transfer::{Event, Folder, Job, Location, Task};
use crate::transport::{Entry, FileKind, SetMetadata};

/// Whose owner may put nothing into it.
const WRITE: u32 = 0o200;

impl Planner {
    /// Remembers a directory that nothing can be put into.
    pub(super) fn note_if_shut(&mut self, path: &[u8], left: Option<&Entry>, right: Option<&Entry>) {
        let kept = self.preserve && self.right.transport.capabilities().set_mode && !self.tell.dry_run;
        let both = left.zip(right).filter(|(left, right)| kept && left.is_dir() && right.is_dir());
        // The source's mode is set at the end.
        if let Some(mode) = both.filter(|(left, _)| left.mode.is_some()).and_then(|(_, right)| right.mode)
            && mode & WRITE == 0
        {
            self.shut.insert(path.to_vec(), mode & 0o777);
        }
    }

    /// Notes that something changes in a directory; one that its owner may not write is opened for as long as it takes.
    pub(super) async fn touch(&mut self, path: &[u8]) {
        self.touched.insert(path.to_vec());
        let Some(mode) = self.shut.remove(path) else { return };
        let open = SetMetadata { mode: Some(mode | WRITE), mtime: None };
        if let Ok(at) = below(&self.right, path)
            && let Err(error) = at.transport.set_metadata(&at.path, open).await
        {
            // Whatever can't be put into it says so.
            tracing::debug!("{}: not opened: {}", at.shown(), error.chain());
        }
    }

    /// Makes a directory and those above it, as far as that had to wait.
    pub(super) async fn make_unmade(&mut self, path: &[u8]) -> Planned {
        let mut waiting = Vec::new();
        let mut above = path.to_vec();
        while let Some(made) = self.unmade.remove(&above) {
            let next = parent(&above).to_vec();
            waiting.push((std::mem::replace(&mut above, next), made));
        }
        for (path, (entry, folder)) in waiting.into_iter().rev() {
            self.make(path, Some(&entry), folder).await?;
        }
        Ok(())
    }

    pub(super) async fn make_directory(&mut self, path: Vec<u8>, entry: Option<Entry>) -> Planned {
        let folder = self.new_folder(&path)?;
        self.make(path, entry.as_ref(), folder).await
    }

    async fn make(&mut self, path: Vec<u8>, entry: Option<&Entry>, folder: Arc<Folder>) -> Planned {
        if self.tell.dry_run {
            self.plan(What::MakeDirectory, path, entry);
            return Ok(());
        }
        self.note_written(&path)?;
        self.send(Task::Directory(folder)).await
    }

    /// Names a directory that isn't there, for what goes into it and for those below: each knows what it is made in.
    pub(super) fn new_folder(&mut self, path: &[u8]) -> Result<Arc<Folder>> {
        let above = if path.is_empty() { None } else { Some(self.folder(parent(path))?) };
        let folder = Folder::new(below(&self.right, path)?, above, None);
        self.folders.insert(path.to_vec(), Arc::clone(&folder));
        Ok(folder)
    }

    pub(super) async fn file(&mut self, path: Vec<u8>, left: Entry, right: Option<Entry>, what: What) -> Planned {
        self.touch(parent(&path)).await;
        self.make_unmade(parent(&path)).await?;
        if self.tell.dry_run {
            self.plan(what, path, Some(&left));
            return Ok(());
        }
        let folder = self.told_folder(&path, right)?;
        let (source, destination) = (below(&self.left, &path)?, below(&self.right, &path)?);
        self.tell.observer.event(Event::Found { bytes: left.size });
        self.send(Task::File(Job { source, destination, entry: Some(left), folder: Some(folder) })).await
    }

    pub(super) async fn link(&mut self, path: Vec<u8>, left: Entry, right: Option<Entry>) -> Planned {
        self.touch(parent(&path)).await;
        self.make_unmade(parent(&path)).await?;
        if self.tell.dry_run {
            self.plan(What::Link, path, Some(&left));
            return Ok(());
        }
        let (source, at) = (below(&self.left, &path)?, below(&self.right, &path)?);
        let target = match left.target {
            Some(target) => Ok(target),
            None => source.transport.read_link(&source.path).await,
        };
        let target = match target {
            Ok(target) => target,
            Err(error) => return self.fail(source.url, error).await,
        };
        let folder = Some(self.told_folder(&path, right)?);
        self.tell.observer.event(Event::Found { bytes: None });
        self.send(Task::Symlink { source, at, target, folder }).await
    }

    pub(super) async fn set(&mut self, path: Vec<u8>, left: Entry, why: Why) -> Planned {
        if self.tell.dry_run {
            self.plan(What::Set(why), path, Some(&left));
            return Ok(());
        }
        let (source, at) = (below(&self.left, &path)?, below(&self.right, &path)?);
        let capabilities = at.transport.capabilities();
        let metadata = SetMetadata {
            mtime: left.mtime.filter(|_| why == Why::OnlyTime).map(|mtime| mtime.time),
            mode: left.mode.filter(|_| self.preserve && capabilities.set_mode).map(|mode| mode & 0o777),
        };
        self.tell.observer.event(Event::Found { bytes: None });
        self.send(Task::Metadata { source, at, metadata }).await
    }

    /// Returns the folder that something goes into, which then knows what is there under its name.
    fn told_folder(&mut self, path: &[u8], right: Option<Entry>) -> Result<Arc<Folder>> {
        if right.is_none() {
            self.note_written(path)?;
        }
        let folder = self.folder(parent(path))?;
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
        folder.tell(name, right);
        Ok(folder)
    }

    /// Remembers a new name, for whoever deletes.
    pub(super) fn note_written(&mut self, path: &[u8]) -> Result<()> {
        match self.replace_kinds {
            true => self.written.push(&Record { path: path.to_vec(), entry: None }),
            false => Ok(()),
        }
    }

    pub(super) fn folder(&mut self, path: &[u8]) -> Result<Arc<Folder>> {
        if let Some(folder) = self.folders.get(path) {
            return Ok(Arc::clone(folder));
        }
        let folder = Folder::there(below(&self.right, path)?);
        self.folders.insert(path.to_vec(), Arc::clone(&folder));
        Ok(folder)
    }

    /// Tells what would be done.
    pub(super) fn plan(&mut self, what: What, path: Vec<u8>, entry: Option<&Entry>) {
        let url = |root: &Location| below(root, &path).map_or_else(|_| root.url.clone(), |at| at.url);
        let bytes = entry.filter(|entry| entry.kind == FileKind::File).and_then(|entry| entry.size);
        if matches!(what, What::MakeDirectory) {
            self.counted.directories += 1;
        } else if entry.is_some() || !matches!(what, What::Set(_)) {
            self.counted.files += 1;
            self.counted.done += 1;
            let moved = matches!(what, What::Copy | What::Replace(_));
            self.counted.bytes += bytes.filter(|_| moved).unwrap_or(0);
        }
        let (source, destination) = (Some(url(&self.left)), url(&self.right));
        self.tell.change(Change { what, path, source, destination, bytes, stage: Stage::Planned });
    }

    pub(super) async fn fail(&mut self, source: String, error: Error) -> Planned {
        if self.tasks.is_some() {
            self.tell.observer.event(Event::Found { bytes: None });
            return self.send(Task::Failed { source, error }).await;
        }
        self.counted.files += 1;
        self.counted.failed += 1;
        self.tell.fail(source, error);
        Ok(())
    }

    async fn send(&self, task: Task) -> Planned {
        match &self.tasks {
            Some(tasks) => tasks.send(task).await.map_err(|_| End::Stopped),
            None => Ok(()),
        }
    }
}

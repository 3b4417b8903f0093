//! `haul rm`: files, links and, where asked for, whole directories.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use haul::plan::{self, Place};
use haul::transport::{Entry, FileKind, Follow, RemotePath, escape};
use haul::{Error, ErrorKind};

use super::context::{Connections, Context, name_of, usage};
use super::guard::Guard;
use super::options::ConnectArgs;
use super::report::Result;

/// Remove files and directories
///
/// Takes URLs only; rm(1) removes local files, or a file:// URL does. Symbolic links are removed, never followed. The
/// root, the directory that the login starts in, your home directory and what holds one of them are never removed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul rm sftp://me@host/tmp/old.tar.gz
  haul rm -r sftp://me@host/tmp/build
  haul rm 'ftp://me@host/logs/2024-*.log'    names that match; quote them from the shell")]
pub(crate) struct Rm {
    /// What to remove; wildcards (* ? [] ** {}) work
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,

    /// Remove directories and all that is in them
    #[arg(short, long)]
    recursive: bool,

    /// Say nothing of what is not there
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Rm {
    /// Removes what the user named; what fails doesn't keep the rest from being removed.
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut connections = Connections::new(&self.connect, context)?;
        if let Some(local) = self.urls.iter().find(|operand| !connections.is_url(operand)) {
            return Err(usage("is a local path")
                .at(escape(local.as_bytes()))
                .with_hint("haul rm takes URLs; rm removes local files, and so does haul rm file:///PATH")
                .into());
        }
        for endpoint in connections.parse(&self.urls)? {
            let place = connections.place(&endpoint).await?;
            let guard = Guard::new(&place).await?;
            let paths = match plan::expand(&place).await {
                Ok(paths) => paths,
                Err(error) => {
                    self.failed(context, error);
                    continue;
                }
            };
            for (path, _) in paths {
                if let Err(error) = self.remove(context, &place, &guard, &path).await {
                    self.failed(context, error.at(name_of(&endpoint, &path)));
                }
            }
        }
        connections.close().await;
        Ok(())
    }

    fn failed(&self, context: &Context, error: Error) {
        if !(self.force && error.kind() == ErrorKind::NotFound) {
            context.report.failed(error);
        }
    }

    async fn remove(&self, context: &Context, place: &Place, guard: &Guard, path: &RemotePath) -> Result<(), Error> {
        let entry = place.transport.stat(path, Follow::Nothing).await?;
        guard.check(place, path).await?;
        if !entry.is_dir() {
            return remove_file(place, path).await;
        }
        if !self.recursive {
            return Err(Error::new(ErrorKind::IsADirectory, "is a directory")
                .with_hint("rm -r removes directories and all that is in them"));
        }
        // The way to the directory is the user's; below it no link is followed, not even one that comes meanwhile.
        let held = path.parent().and_then(|parent| place.transport.beneath(&parent));
        let place = &Place { transport: held.unwrap_or_else(|| Arc::clone(&place.transport)), ..place.clone() };
        Removal { context, place, guard }.tree(path).await
    }
}

/// A slip that names a local directory costs too much: those are left to rm(1), which users know.
async fn remove_file(place: &Place, path: &RemotePath) -> Result<(), Error> {
    place.transport.remove_file(path).await?;
    tracing::info!("removed {}", name_of(&place.endpoint, path));
    Ok(())
}

/// The removal of whole directories at one place.
struct Removal<'a> {
    context: &'a Context,
    place: &'a Place,
    guard: &'a Guard,
}

impl Removal<'_> {
    /// Removes what is in a directory, then the directory. Failures inside are told as they come; then it stays.
    async fn tree(&self, top: &RemotePath) -> Result<(), Error> {
        let mut waiting = vec![(top.clone(), false)];
        let mut stays: HashSet<RemotePath> = HashSet::new();
        while let Some((path, emptied)) = waiting.pop() {
            let result = match emptied {
                false if self.is_link(&path).await => continue,
                false => {
                    waiting.push((path.clone(), true));
                    self.empty(&path).await.map(|(directories, all)| {
                        waiting.extend(directories.into_iter().map(|directory| (directory, false)));
                        all
                    })
                }
                // It holds something that could not be removed, and that was told already.
                true if stays.contains(&path) => Ok(false),
                true => self.directory(&path).await.map(|()| true),
            };
            let gone = result.map_err(|error| self.failed(error, &path)).unwrap_or(false);
            if !gone {
                stays.extend(path.parent());
                stays.insert(path);
            }
        }
        Ok(())
    }

    /// Some FTP servers list a link to a directory as a directory. It can be removed like a file, what it points to can't.
    async fn is_link(&self, path: &RemotePath) -> bool {
        !self.place.transport.capabilities().symlinks && remove_file(self.place, path).await.is_ok()
    }

    async fn directory(&self, path: &RemotePath) -> Result<(), Error> {
        self.place.transport.remove_dir(path).await?;
        tracing::info!("removed {}", name_of(&self.place.endpoint, path));
        Ok(())
    }

    /// Removes the files of a directory, several at once; returns the directories in it and whether all files are gone.
    async fn empty(&self, path: &RemotePath) -> Result<(Vec<RemotePath>, bool), Error> {
        self.guard.check_identity(path)?;
        // Listed to the end first: removing while a server reads its directory makes some servers skip names.
        let entries: Vec<Entry> = self.place.transport.list(path).await?.try_collect().await?;
        let (mut directories, mut files) = (Vec::new(), Vec::new());
        for entry in entries {
            let child = path.join(&entry.name)?;
            if entry.kind == FileKind::Directory { directories.push(child) } else { files.push(child) }
        }
        let removals = files.into_iter().map(|file| async move {
            let removed = remove_file(self.place, &file).await;
            removed.map_err(|error| self.failed(error, &file)).is_ok()
        });
        let at_once = self.place.transport.capabilities().streams.max(1);
        let all = stream::iter(removals).buffer_unordered(at_once).fold(true, |all, gone| async move { all & gone });
        Ok((directories, all.await))
    }

    fn failed(&self, error: Error, path: &RemotePath) {
        self.context.report.failed(error.at(name_of(&self.place.endpoint, path)));
    }
}

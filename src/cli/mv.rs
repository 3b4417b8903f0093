//! `haul mv`: renames within one server.

use std::ffi::OsString;

use clap::Args;
use haul::plan::{self, Place};
use haul::transport::{Durability, Entry, Follow, RemotePath, Replace};
use haul::{Error, ErrorKind};

use super::context::{Connections, Context, name_of, usage};
use super::options::ConnectArgs;
use super::report::Result;

/// Rename or move within one server
///
/// Into the last URL if that is a directory, to that name otherwise. Nothing is copied: both must be at one server.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul mv sftp://me@host/in/a.csv sftp://me@host/done/a.csv
  haul mv 'sftp://me@host/in/*.csv' sftp://me@host/done/")]
pub(crate) struct Mv {
    /// What to move, and where to; wildcards (* ? [] ** {}) work in what to move
    #[arg(value_names = ["URL", "DESTINATION"], num_args = 2.., required = true)]
    urls: Vec<OsString>,

    /// Replace nothing that is there
    #[arg(short, long)]
    no_clobber: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Mv {
    /// Moves each source; one that fails doesn't keep the others from being moved.
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut connections = Connections::new(&self.connect, context)?;
        let mut sources = connections.parse(&self.urls)?;
        let Some(destination) = sources.pop() else { return Err(usage("nothing to move").into()) };
        if let Some(other) = sources.iter().find(|source| !source.same_login(&destination)) {
            return Err(usage("is at another server or login than the destination")
                .at(other)
                .with_hint("haul put copies between servers; haul rm then removes the source")
                .into());
        }
        let destination = connections.place(&destination).await?;
        let target = destination.path().await?;
        let found = destination.transport.stat(&target, Follow::Links).await;
        let into = found.as_ref().is_ok_and(Entry::is_dir);
        let mut moves = Vec::new();
        for source in &sources {
            let place = Place { endpoint: source.clone(), ..destination.clone() };
            match plan::expand(&place).await {
                Ok(found) => moves.extend(found.into_iter().map(|(path, _)| path)),
                Err(error) => context.report.failed(error),
            }
        }
        if !into && (moves.len() > 1 || destination.endpoint.path.names_directory()) {
            let error = match found {
                Ok(_) => Error::new(ErrorKind::NotADirectory, "is not a directory"),
                Err(error) => error.with_hint("haul mkdir makes the directory"),
            };
            return Err(error.at(name_of(&destination.endpoint, &target)).into());
        }
        for source in moves {
            if let Err(error) = self.rename(&destination, &source, &target, into).await {
                context.report.failed(error.at(name_of(&destination.endpoint, &source)));
            }
        }
        connections.close().await;
        Ok(())
    }

    async fn rename(&self, at: &Place, source: &RemotePath, target: &RemotePath, into: bool) -> Result<(), Error> {
        let target = match (into, source.file_name()) {
            (true, Some(name)) => target.join(name)?,
            (true, None) => return Err(usage("the root can't be moved")),
            (false, _) => target.clone(),
        };
        if *source == target {
            return Err(usage("source and destination are the same"));
        }
        let replace = if self.no_clobber { Replace::No } else { Replace::Yes };
        at.transport.rename(source, &target, replace, Durability::Cached).await?;
        tracing::info!("moved {} to {}", name_of(&at.endpoint, source), name_of(&at.endpoint, &target));
        Ok(())
    }
}

//! `haul sync`: one directory made equal to another, wherever they are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use clap::Args;
use haul::endpoint::Endpoint;
use haul::plan::compare::{By, Comparing, Links};
use haul::plan::{Filter, Place, sync};
use haul::transfer::{self, Backup, Observer, Request};
use haul::transport::escape;
use haul::{Error, ErrorKind};

use super::context::{Connections, Context, usage};
use super::filters::FilterArgs;
use super::options::{ConnectArgs, TransferArgs};
use super::progress::{Progress, View};
use super::report::Result;
use super::synced::{Shown, summary};
use super::transfer::{interrupted, unless};
use super::values::{choice, number};

/// Make one directory equal to another
///
/// What is in the first goes into the second, whatever the slashes; either may be on this machine or on a server. Files of
/// the same size and time are left alone. Nothing is deleted unless --delete is given, and then only once everything was
/// copied. After an interruption the same command goes on where it stopped.
#[derive(Debug, Args)]
#[command(
    override_usage = "haul sync [OPTIONS] SOURCE DESTINATION",
    after_long_help = "\
Examples:
  haul sync site sftp://me@host/srv/www                    copies what is new or changed
  haul sync --delete --dry-run site sftp://me@host/srv/www tells what would be copied and deleted
  haul sync --delete --max-delete 100 sftp://me@host/data /srv/mirror
  haul sync --delete --backup-dir /srv/old ftp://host/pub /srv/pub
  haul sync sftp://me@one/data sftp://me@other/data        through this machine; a server with both copies by itself"
)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub(crate) struct Sync {
    /// The directory that the other is to be like: a URL or a path
    #[arg(value_name = "SOURCE")]
    source: OsString,

    /// The directory to change; it is made if it isn't there
    #[arg(value_name = "DESTINATION")]
    destination: OsString,

    /// Compare what is in files, by digests, and not their times
    ///
    /// Servers compute the digests where both ends have one in common; what gives none is read. Those of files that keep
    /// size and time are remembered for a day, so that a run which goes on need not compute them again.
    #[arg(long, help_heading = "Sync options", conflicts_with = "size_only")]
    checksum: bool,

    /// Compare sizes only
    #[arg(long, help_heading = "Sync options")]
    size_only: bool,

    /// Delete at the destination what the source doesn't have, once everything was copied without a failure
    #[arg(long, help_heading = "Sync options")]
    delete: bool,

    /// Delete nothing at all if it would be more than so many files, links and directories
    #[arg(long, value_name = "N", help_heading = "Sync options", value_parser = number)]
    max_delete: Option<u64>,

    /// Delete even if the source is empty, or if a part of it can't be listed (but nothing below that)
    #[arg(long, help_heading = "Sync options", requires = "delete")]
    force_delete: bool,

    /// Delete what the filters leave out as well
    ///
    /// Otherwise what they leave out is neither copied nor deleted.
    #[arg(long, help_heading = "Sync options", requires = "delete")]
    delete_excluded: bool,

    /// Move what is deleted or replaced to this directory of the destination's endpoint instead, with its path
    ///
    /// A URL, or a path; one that doesn't begin with a slash is below the destination. Things are renamed, so it has to be
    /// on the same file system. A name that is taken gets a number. A run leaves its own backup directory alone; a later
    /// one with --delete but without this option deletes it if it lies inside the destination.
    #[arg(long, value_name = "DIR", help_heading = "Sync options")]
    backup_dir: Option<OsString>,

    /// Rename at the destination what has only got another name, where digests of both ends prove that it is the same
    #[arg(long, help_heading = "Sync options", requires = "delete")]
    detect_moves: bool,

    /// Remove a directory that is in the way of a file, or the other way round; --delete does that as well
    #[arg(long, help_heading = "Sync options")]
    replace_kinds: bool,

    /// What to do with symbolic links [default: keep where the destination can, else skip]
    #[arg(long, value_name = "HOW", help_heading = "Sync options", value_parser = choice(&[
        ("keep", "Make the same links", Links::Keep),
        ("follow", "Copy the files that they lead to; those to directories are left out", Links::Follow),
        ("skip", "Leave them out", Links::Skip),
    ]))]
    links: Option<Links>,

    #[command(flatten)]
    filters: FilterArgs,

    #[command(flatten)]
    transfer: TransferArgs,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Sync {
    /// Makes the destination equal to the source.
    pub(crate) async fn run(self, context: &Arc<Context>) -> Result<()> {
        let mut connections = Connections::new(&self.connect, context)?;
        let source = connections.parse_one(&self.source)?;
        let destination = connections.parse_one(&self.destination)?;
        let args = connections.for_transfer(std::slice::from_ref(&source), &destination)?;
        let (began, started) = (SystemTime::now(), Instant::now());
        let mut options = args.options()?;
        options.request = Request {
            options: context.known.to_keep(&context.given),
            profiles: connections.named_by_profiles(),
            several: true,
        };
        if args.progress == View::Json {
            context.screen.speak_json();
        }
        let cancel = &context.cancel;
        let source = unless(cancel, connections.place(&source)).await?;
        let destination = unless(cancel, connections.place(&destination)).await?;
        if let Some(dir) = &self.backup_dir {
            options.backup = Some(Arc::new(unless(cancel, self.backup(&mut connections, &destination, dir)).await?));
        }
        let ends = (source.endpoint.clone(), destination.endpoint.clone());
        let filter = connections.filter(&self.filters, std::slice::from_ref(&ends.0), &ends.1).await?;
        if self.delete_excluded && filter.lists_paths() {
            return Err(usage("--delete-excluded doesn't go with --files-from").into());
        }
        let wanted = self.wanted(filter, &args, &options);
        let progress = Progress::start(context, args.progress, args.json, args.retries);
        let observer = Arc::clone(&progress) as Arc<dyn Observer>;
        let shown = Arc::new(Shown::new(context, args.json));
        let run = sync::sync(source, destination, wanted, &options, observer, shown, cancel.clone());
        let result = run.await;
        progress.end(false);
        let mut synced = result?;
        context.recorder.equal(synced.equal);
        if synced.summary.cancelled {
            interrupted(context, &options, began);
            return Err(Error::from(ErrorKind::Cancelled).into());
        }
        if let Some(error) = synced.refused.take() {
            context.report.failed(error);
        }
        summary(context, &args, &synced, started.elapsed());
        connections.close().await;
        Ok(())
    }

    fn wanted(&self, filter: Filter, args: &TransferArgs, options: &transfer::Options) -> sync::Options {
        sync::Options {
            comparing: Comparing {
                by: match (self.checksum, self.size_only) {
                    (true, _) => By::Digest,
                    (_, true) => By::Size,
                    _ => By::Time,
                },
                links: self.links.unwrap_or_default(),
                filter,
                excluded_is_extra: self.delete_excluded,
                may_probe: !args.dry_run,
                retries: options.retries,
                retry_wait: options.retry_wait,
                state_dir: Some(options.state_dir.clone()),
                ..Comparing::default()
            },
            delete: self.delete,
            max_delete: self.max_delete,
            force_delete: self.force_delete,
            detect_moves: self.detect_moves,
            replace_kinds: self.replace_kinds,
            preserve: args.preserve,
        }
    }

    /// Finds the backup directory, which is at the destination's endpoint.
    async fn backup(&self, connections: &mut Connections<'_>, destination: &Place, dir: &OsStr) -> Result<Backup> {
        let root = destination.path().await?;
        if !connections.is_url(dir) {
            let path = root.resolve(dir.as_bytes())?;
            return Ok(Backup::new(root, path));
        }
        let endpoint: Endpoint = connections.parse_one(dir)?;
        if !endpoint.same_login(&destination.endpoint) {
            return Err(usage("is at another server or login than the destination")
                .at(escape(endpoint.to_string().as_bytes()))
                .with_hint("what is deleted is renamed there, so it has to be at the same one")
                .into());
        }
        let path = Place { endpoint, ..destination.clone() }.path().await?;
        Ok(Backup::new(root, path))
    }
}

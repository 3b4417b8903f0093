//! `haul get`: from a server to this machine.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use clap::Args;

use super::context::{Connections, Context};
use super::filters::FilterArgs;
use super::options::{ConnectArgs, TransferArgs};
use super::report::Result;
use super::transfer::Transfer;

/// Download files and directories
///
/// The last operand says where to if it is a local path; otherwise things land in the current directory. As with cp: into
/// a directory that exists, to that name otherwise. A file appears under its name when all of it is there. Files of the
/// same size and time are skipped. After an interruption the same command goes on where it stopped.
#[derive(Debug, Args)]
#[command(
    override_usage = "haul get [OPTIONS] URL... [DEST]",
    after_long_help = "\
Examples:
  haul get sftp://me@host/pub/image.iso             into the current directory
  haul get -r sftp://me@host/~/photos ftp://host/pub /srv/backup
  haul get 'ftp://host/logs/2026-*.gz' logs/        files that match; quote them from the shell
  haul get -r --exclude cache/ --newer 2d sftp://me@host/srv/data backup
  haul get --files-from list.txt sftp://me@host/srv/data/. copy/
  haul get sftp://me@host/dump.sql.gz - | zcat      to standard output"
)]
pub(crate) struct Get {
    /// What to download; wildcards (* ? [] ** {}) work. Then where to (- is standard output) [default: .]
    #[arg(value_names = ["URL", "DEST"], num_args = 1.., required = true)]
    operands: Vec<OsString>,

    /// Download directories and all that is in them
    #[arg(short, long, help_heading = "Transfer options")]
    recursive: bool,

    #[command(flatten)]
    transfer: TransferArgs,

    #[command(flatten)]
    filters: FilterArgs,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Get {
    /// Downloads.
    pub(crate) async fn run(self, context: &Arc<Context>) -> Result<()> {
        let connections = Connections::new(&self.connect, context)?;
        let (args, filters) = (&self.transfer, &self.filters);
        let transfer = Transfer { context, connections, args, filters, recursive: self.recursive };
        match self.operands.split_last() {
            Some((last, sources)) if last == "-" && !sources.is_empty() => transfer.write_out(sources).await,
            Some((last, sources)) if !sources.is_empty() && transfer.connections.is_local(last) => {
                transfer.copy(sources, last).await
            }
            _ => transfer.copy(&self.operands, OsStr::new(".")).await,
        }
    }
}

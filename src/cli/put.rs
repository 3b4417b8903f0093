//! `haul put`: from this machine to a server.

use std::ffi::OsString;
use std::sync::Arc;

use clap::Args;

use super::context::{Connections, Context, usage};
use super::filters::FilterArgs;
use super::options::{ConnectArgs, TransferArgs};
use super::report::Result;
use super::transfer::Transfer;

/// Upload files and directories
///
/// As with cp: into the directory that the URL names if it exists, to that name otherwise. A file appears under its name
/// when all of it is there. Files of the same size and time are skipped. After an interruption the same command goes on
/// where it stopped.
#[derive(Debug, Args)]
#[command(
    override_usage = "haul put [OPTIONS] PATH... URL",
    after_long_help = "\
Examples:
  haul put report.pdf sftp://me@host/srv/incoming/
  haul put -r -p site/. ftp://me@host/htdocs          what is in site, not site itself
  haul put -r --include '*.jpg' photos sftp://me@host/~/
  haul put --durable *.csv sftp://me@host/~/data/
  tar cz src | haul put - sftp://me@host/src.tar.gz   from standard input"
)]
pub(crate) struct Put {
    /// What to upload (- is standard input), then where to
    #[arg(value_names = ["PATH", "URL"], num_args = 2.., required = true)]
    operands: Vec<OsString>,

    /// Upload directories and all that is in them
    #[arg(short, long, help_heading = "Transfer options")]
    recursive: bool,

    #[command(flatten)]
    transfer: TransferArgs,

    #[command(flatten)]
    filters: FilterArgs,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Put {
    /// Uploads.
    pub(crate) async fn run(self, context: &Arc<Context>) -> Result<()> {
        let connections = Connections::new(&self.connect, context)?;
        let (args, filters) = (&self.transfer, &self.filters);
        let transfer = Transfer { context, connections, args, filters, recursive: self.recursive };
        let Some((destination, sources)) = self.operands.split_last() else {
            return Err(usage("nothing to upload").into());
        };
        match sources {
            [source] if source == "-" => transfer.read_in(destination).await,
            sources if sources.iter().any(|source| source == "-") => {
                Err(usage("standard input goes alone").with_hint("a file that is called - is written ./-").into())
            }
            _ => transfer.copy(sources, destination).await,
        }
    }
}

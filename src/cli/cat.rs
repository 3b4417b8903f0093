//! `haul cat`: files to standard output.

use std::ffi::OsString;
use std::sync::Arc;

use clap::Args;
use haul::plan;
use haul::transfer::{self, Event, Observer};

use super::context::{Connections, Context, name_of};
use super::options::{ConnectArgs, state_dir};
use super::report::Result;

/// Write files to standard output
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul cat sftp://me@host/etc/motd
  haul cat 'ftp://host/logs/*.log' | grep -c error")]
pub(crate) struct Cat {
    /// Files to write, one behind the other; wildcards (* ? [] ** {}) work
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Cat {
    /// Writes each file; one that fails doesn't keep the others from being written.
    pub(crate) async fn run(self, context: &Arc<Context>) -> Result<()> {
        let options = transfer::Options::new(state_dir()?);
        let mut connections = Connections::new(&self.connect, context)?;
        let mut stdout = tokio::io::stdout();
        for endpoint in connections.parse(&self.urls)? {
            let place = connections.place(&endpoint).await?;
            let paths = match plan::expand(&place).await {
                Ok(paths) => paths,
                Err(error) => {
                    context.report.failed(error);
                    continue;
                }
            };
            for (path, _) in paths {
                let (name, source) = (name_of(&endpoint, &path), place.location(path));
                let cancel = context.cancel.clone();
                if let Err(error) = transfer::read_out(&source, &mut stdout, &options, Arc::new(Silence), cancel).await
                {
                    let error = context.stdout.closed_or(error);
                    if context.stdout.is_closed() {
                        return Err(error.into());
                    }
                    context.report.failed(error.at(name));
                }
            }
        }
        connections.close().await;
        Ok(())
    }
}

/// Shows nothing: what is written shows how far it is.
struct Silence;

impl Observer for Silence {
    fn event(&self, _: Event) {}
}

//! `haul serve`: a folder, offered over SFTP or FTP.

use clap::Args;
use haul::{Error, ErrorKind};

use super::context::Context;
use super::report::Result;

/// Serve a folder over SFTP or FTP
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct Serve {}

impl Serve {
    /// Serves until a signal comes: `context.cancel` tells.
    pub(crate) async fn run(self, _context: &Context) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "not built yet").into())
    }
}

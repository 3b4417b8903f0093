//! `haul mkdir`: new directories.

use std::ffi::OsString;

use clap::Args;
use haul::transport::{Follow, RemotePath, Transport};
use haul::{Error, ErrorKind};

use super::context::{Connections, Context, name_of};
use super::options::ConnectArgs;
use super::report::Result;

/// Make directories
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul mkdir sftp://me@host/srv/incoming
  haul mkdir -p ftp://me@host/reports/2026/11")]
pub(crate) struct Mkdir {
    /// Directories to make
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,

    /// Make missing directories above as well; one that is there already is fine
    #[arg(short, long)]
    parents: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Mkdir {
    /// Makes each directory; one that fails doesn't keep the others from being made.
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut connections = Connections::new(&self.connect, context)?;
        for endpoint in connections.parse(&self.urls)? {
            let place = connections.place(&endpoint).await?;
            let path = place.path().await?;
            let made = match self.parents {
                true => create_with_parents(&*place.transport, &path).await,
                false => create(&*place.transport, &path).await,
            };
            match made {
                Ok(()) => tracing::info!("made {}", name_of(&endpoint, &path)),
                Err(error) => context.report.failed(error.at(name_of(&endpoint, &path))),
            }
        }
        connections.close().await;
        Ok(())
    }
}

async fn create(transport: &dyn Transport, path: &RemotePath) -> Result<(), Error> {
    let Err(error) = transport.create_dir(path).await else { return Ok(()) };
    if error.kind() == ErrorKind::NotFound {
        return Err(error.with_hint("-p makes missing directories above as well"));
    }
    // Servers answer "failure" to anything: a look tells what it means.
    match transport.stat(path, Follow::Links).await {
        Ok(entry) if entry.is_dir() => {
            let hint = "with -p (parents = true in a job file) a directory that is there is fine";
            Err(error.with_kind(ErrorKind::AlreadyExists).with_hint(hint))
        }
        _ => Err(error),
    }
}

/// Goes up until a directory can be made or is there, then down again.
async fn create_with_parents(transport: &dyn Transport, path: &RemotePath) -> Result<(), Error> {
    let mut missing = Vec::new();
    let mut current = path.clone();
    while let Err(error) = transport.create_dir(&current).await {
        // Servers answer "failure" to anything, so what is there decides, not the kind of the error.
        match transport.stat(&current, Follow::Links).await {
            Ok(entry) if entry.is_dir() => break,
            Ok(_) => return Err(error.with_kind(ErrorKind::NotADirectory)),
            Err(_) => {}
        }
        match current.parent().filter(|parent| !parent.is_root()) {
            Some(parent) => missing.push(std::mem::replace(&mut current, parent)),
            None => return Err(error),
        }
    }
    for directory in missing.iter().rev() {
        match transport.create_dir(directory).await {
            // Somebody else may make the same ones at this moment.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

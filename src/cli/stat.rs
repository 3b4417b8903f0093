//! `haul stat`: all that is known of one name.

use std::ffi::OsString;

use clap::Args;
use haul::plan::{self, Place};
use haul::transport::{Entry, Follow, Precision, RemotePath, escape};

use super::context::{Connections, Context, name_of};
use super::entry::{self, EntryLine, mode};
use super::options::ConnectArgs;
use super::report::Result;
use super::{format, json};

/// Show what is known of a file or directory
///
/// A symbolic link is shown itself, not what it points to.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul stat sftp://me@host/etc/hosts
  haul stat --json 'ftp://host/pub/*.iso' | jq .size")]
pub(crate) struct Stat {
    /// Files and directories; wildcards (* ? [] ** {}) work
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,

    /// Write one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Stat {
    /// Shows each name; one that fails doesn't keep the others from being shown.
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut connections = Connections::new(&self.connect, context)?;
        let mut first = true;
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
                match place.transport.stat(&path, Follow::Nothing).await {
                    Ok(entry) => self.show(context, &place, &path, &entry, std::mem::take(&mut first))?,
                    Err(error) => context.report.failed(error.at(name_of(&endpoint, &path))),
                }
            }
        }
        connections.close().await;
        Ok(())
    }

    fn show(&self, context: &Context, place: &Place, path: &RemotePath, entry: &Entry, first: bool) -> Result<()> {
        let mut text = Vec::new();
        if self.json {
            json::line(&mut text, &EntryLine::new(entry, &place.endpoint, path))?;
        } else {
            if !first {
                text.push(b'\n');
            }
            for (field, value) in fields(entry, place, path) {
                text.extend_from_slice(format!("{field:>6}  {value}\n").as_bytes());
            }
        }
        Ok(context.stdout.write(&text)?)
    }
}

fn fields(entry: &Entry, place: &Place, path: &RemotePath) -> Vec<(&'static str, String)> {
    let mut fields = vec![("name", escape(&entry.name)), ("url", place.endpoint.url_of(path))];
    fields.push(("type", entry.kind.name().into()));
    if let Some(size) = entry.size {
        let exact = if size < 1024 { String::new() } else { format!(" ({})", format::bytes(size)) };
        fields.push(("size", format!("{size}{exact}")));
    }
    if let Some(mtime) = entry.mtime {
        let zone = match mtime.precision {
            Precision::Nanosecond | Precision::Second => "",
            Precision::Minute | Precision::Day => " (in the server's time zone)",
        };
        let time = match (entry::timestamp(mtime), mtime.precision) {
            (Some(time), Precision::Nanosecond | Precision::Second) => format::local_second(time),
            _ => entry::short_time(mtime),
        };
        fields.push(("mtime", format!("{time}{zone}")));
    }
    if let Some(bits) = entry.mode {
        fields.push(("mode", format!("{bits:04o} ({})", mode(entry))));
    }
    if let Some(target) = &entry.target {
        fields.push(("target", escape(target)));
    }
    fields
}

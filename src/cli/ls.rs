//! `haul ls`: names, or what is known of them.

use std::ffi::OsString;

use clap::Args;
use futures_util::TryStreamExt;
use haul::endpoint::Endpoint;
use haul::plan::{self, Place};
use haul::transport::{Entry, FileKind, Follow, RemotePath, Transport, escape};
use haul::{Error, ErrorKind};
use unicode_width::UnicodeWidthStr;

use super::context::{Connections, Context, name_of};
use super::entry::{self, EntryLine};
use super::format;
use super::json;
use super::options::ConnectArgs;
use super::report::Result;

/// List directories
///
/// Names are sorted by their bytes. On a terminal they stand in columns, with a slash behind directories and control
/// characters made harmless; in a pipe there is one name a line, byte for byte.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_long_help = "\
Examples:
  haul ls sftp://me@host/var/log             names
  haul ls -lh sftp://me@host/~/              sizes and times of what is in the home directory
  haul ls -R --json ftp://host/pub | jq .    a whole tree, one object a line
  haul ls 'sftp://me@host/logs/*.gz'         names that match; quote them from the shell"
)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub(crate) struct Ls {
    /// Directories and files to list; wildcards (* ? [] ** {}) work
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,

    /// Show mode, size, time and where links point
    #[arg(short)]
    long: bool,

    /// With -l, show sizes as 1.2 MiB
    #[arg(short = 'h', requires = "long")]
    human: bool,

    /// Also show names that start with a dot
    #[arg(short, long)]
    all: bool,

    /// Also list what is in the directories below
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Show directories themselves, not what is in them
    #[arg(short, long, conflicts_with = "recursive")]
    directory: bool,

    /// Write one JSON object a line
    #[arg(long, conflicts_with_all = ["long", "human"])]
    json: bool,

    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong, help_heading = "Output options")]
    help: Option<bool>,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Ls {
    /// Lists what the user named: files first, then each directory, as `ls` does.
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let mut connections = Connections::new(&self.connect, context)?;
        let endpoints = connections.parse(&self.urls)?;
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        for endpoint in &endpoints {
            let place = connections.place(endpoint).await?;
            match look(&place).await {
                Ok(found) => {
                    for (path, entry) in found {
                        let list = if entry.is_dir() && !self.directory { &mut directories } else { &mut files };
                        list.push((place.clone(), path, entry));
                    }
                }
                Err(error) => context.report.failed(error),
            }
        }
        let lister = Lister { args: &self, context };
        let shown = files.iter().map(|(place, path, entry)| Shown {
            endpoint: &place.endpoint,
            path: path.clone(),
            name: path.as_bytes(),
            entry,
        });
        lister.write(&shown.collect::<Vec<_>>())?;
        let headings = self.recursive
            || files.len() + directories.len() + usize::from(files.is_empty()) > 2
            || (!files.is_empty() && !directories.is_empty());
        let mut first = files.is_empty();
        for (place, path, _) in directories {
            lister.tree(&place, path, headings, &mut first).await?;
        }
        connections.close().await;
        Ok(())
    }
}

/// Returns what an operand names, links followed unless they lead nowhere.
async fn look(place: &Place) -> Result<Vec<(RemotePath, Entry)>, Error> {
    let mut found = Vec::new();
    for (path, entry) in plan::expand(place).await? {
        if let Some(entry) = entry.filter(|entry| entry.kind != FileKind::Symlink) {
            found.push((path, entry));
            continue;
        }
        let entry = match place.transport.stat(&path, Follow::Links).await {
            Err(error) if error.kind() == ErrorKind::NotFound => place.transport.stat(&path, Follow::Nothing).await,
            other => other,
        };
        let entry = entry.map_err(|e| e.at(name_of(&place.endpoint, &path)))?;
        found.push((path, entry));
    }
    Ok(found)
}

/// One line of a listing.
struct Shown<'a> {
    endpoint: &'a Endpoint,
    path: RemotePath,
    /// What is shown: the name, or the whole path of a file that the user named.
    name: &'a [u8],
    entry: &'a Entry,
}

struct Lister<'a> {
    args: &'a Ls,
    context: &'a Context,
}

impl Lister<'_> {
    /// Lists a directory and, where asked for, those below it: each after its name, depth first.
    async fn tree(&self, place: &Place, path: RemotePath, headings: bool, first: &mut bool) -> Result<()> {
        let mut waiting = vec![path];
        while let Some(path) = waiting.pop() {
            let entries = match self.read(&*place.transport, &path).await {
                Ok(entries) => entries,
                Err(error) => {
                    self.context.report.failed(error.at(name_of(&place.endpoint, &path)));
                    continue;
                }
            };
            if headings && !self.args.json {
                self.heading(place, &path, std::mem::take(first))?;
            }
            let mut shown = Vec::with_capacity(entries.len());
            for entry in &entries {
                match path.join(&entry.name) {
                    Ok(path) => shown.push(Shown { endpoint: &place.endpoint, path, name: &entry.name, entry }),
                    Err(error) => self.context.report.failed(error),
                }
            }
            self.write(&shown)?;
            if self.args.recursive {
                let below = shown.iter().filter(|shown| shown.entry.is_dir()).map(|shown| shown.path.clone());
                waiting.extend(below.rev());
            }
        }
        Ok(())
    }

    async fn read(&self, transport: &dyn Transport, path: &RemotePath) -> Result<Vec<Entry>, Error> {
        let hidden = |entry: &Entry| !self.args.all && entry.name.starts_with(b".");
        let mut entries: Vec<Entry> = Vec::new();
        let mut listing = transport.list(path).await?;
        while let Some(entry) = listing.try_next().await? {
            if !hidden(&entry) {
                entries.push(entry);
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn heading(&self, place: &Place, path: &RemotePath, first: bool) -> Result<()> {
        let mut text = if first { Vec::new() } else { b"\n".to_vec() };
        text.extend_from_slice(name_of(&place.endpoint, path).as_bytes());
        text.extend_from_slice(b":\n");
        Ok(self.context.stdout.write(&text)?)
    }

    fn write(&self, shown: &[Shown<'_>]) -> Result<()> {
        let mut text = Vec::new();
        if self.args.json {
            for Shown { endpoint, path, entry, .. } in shown {
                json::line(&mut text, &EntryLine::new(entry, endpoint, path))?;
            }
        } else if self.args.long {
            self.long_lines(shown, &mut text);
        } else if self.context.stdout.terminal {
            let names = shown.iter().map(|shown| {
                let slash = if shown.entry.is_dir() { "/" } else { "" };
                format!("{}{slash}", escape(shown.name))
            });
            columns(&names.collect::<Vec<_>>(), super::stdout::columns(), &mut text);
        } else {
            for Shown { name, .. } in shown {
                text.extend_from_slice(name);
                text.push(b'\n');
            }
        }
        Ok(self.context.stdout.write(&text)?)
    }

    fn long_lines(&self, shown: &[Shown<'_>], to: &mut Vec<u8>) {
        let size = |entry: &Entry| match entry.size {
            Some(size) if self.args.human => format::bytes(size),
            Some(size) => size.to_string(),
            None => "?".into(),
        };
        let width = shown.iter().map(|shown| size(shown.entry).len()).max().unwrap_or(0);
        for Shown { name, entry, .. } in shown {
            let time = entry.mtime.map(entry::short_time).unwrap_or_default();
            to.extend_from_slice(format!("{} {:>width$} {time:16} ", entry::mode(entry), size(entry)).as_bytes());
            self.push_name(name, to);
            if let Some(target) = &entry.target {
                to.extend_from_slice(b" -> ");
                self.push_name(target, to);
            }
            to.push(b'\n');
        }
    }

    fn push_name(&self, name: &[u8], to: &mut Vec<u8>) {
        match self.context.stdout.terminal {
            true => to.extend_from_slice(escape(name).as_bytes()),
            false => to.extend_from_slice(name),
        }
    }
}

/// Writes names in as many columns as fit, read downwards.
fn columns(names: &[String], width: usize, to: &mut Vec<u8>) {
    const GAP: usize = 2;
    let widths: Vec<usize> = names.iter().map(|name| name.width()).collect();
    let widest = |rows: usize| widths.chunks(rows).map(|column| column.iter().max().map_or(0, |widest| widest + GAP));
    let fits = |rows: &usize| widest(*rows).sum::<usize>() <= width + GAP;
    // Names are at least one wide: that many columns at most, so no fewer rows need be tried.
    let fewest = (names.len() * (1 + GAP)).div_ceil(width + GAP).max(1);
    let rows = (fewest..names.len()).find(fits).unwrap_or(names.len()).max(1);
    let column_widths: Vec<usize> = widest(rows).collect();
    for row in 0..rows.min(names.len()) {
        let mut line = String::new();
        let mut owed = 0;
        for (column, column_width) in column_widths.iter().enumerate() {
            let Some(name) = names.get(column * rows + row) else { break };
            line.push_str(&" ".repeat(owed));
            line.push_str(name);
            owed = column_width - widths[column * rows + row];
        }
        to.extend_from_slice(line.as_bytes());
        to.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn laid_out(names: &[&str], width: usize) -> String {
        let mut text = Vec::new();
        columns(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), width, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn columns_are_read_downwards() {
        assert_eq!(laid_out(&["a", "bb", "c", "d", "e"], 7), "a   d\nbb  e\nc\n");
        assert_eq!(laid_out(&["a", "日本", "c"], 80), "a  日本  c\n");
        assert_eq!(laid_out(&["much too long for it", "b"], 10), "much too long for it\nb\n");
        assert_eq!(laid_out(&[], 80), "");
    }

    proptest! {
        #[test]
        fn no_name_is_lost_and_no_line_too_long(names in prop::collection::vec("[a-z]{1,12}", 0..60), width in 12..90usize) {
            let text = laid_out(&names.iter().map(String::as_str).collect::<Vec<_>>(), width);
            prop_assert_eq!(text.split_whitespace().count(), names.len());
            prop_assert!(text.lines().all(|line| line.len() <= width));
        }
    }
}

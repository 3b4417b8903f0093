//! `haul digest`: checksums, as `sha256sum` writes them.

use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::Arc;

use clap::Args;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, pin_mut};
use haul::plan::digest::{File, Found, Told, Walking, digests, files_below};
use haul::plan::sums::{Sum, hex};
use haul::plan::{self, Place};
use haul::transfer::{Asked, Digested};
use haul::transport::{Algorithm, Entry, FileKind, Follow, RemotePath, escape};
use haul::{Error, ErrorKind};
use serde::Serialize;

use super::context::{Connections, Context, name_of};
use super::format::path_of;
use super::json::{self, ErrorObject};
use super::options::ConnectArgs;
use super::reading::{ReadingArgs, algorithm};
use super::report::Result;

/// Write checksums of files
///
/// One line for each file, as sha256sum writes them: sha256sum -c reads them in a downloaded copy, haul check --sums on a
/// server. A file goes by its own name; what is in a directory, by its path from there, or where several things are named
/// or wildcards are used, by its path from beside it, as haul get -r would place it. Names are sorted by their bytes. Of the links in a directory,
/// those that lead to files are listed like files; the others are left out with a note.
///
/// The server computes the digest where it can: by FTP's HASH and its like, SFTP's check-file, or sha256sum over SSH for
/// large files. Otherwise the file is read and digested here; --read does so always.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  haul digest sftp://me@host/pub/image.iso
  haul digest -r sftp://me@host/srv/photos > SHA256SUMS     a whole tree; in a copy: sha256sum -c SHA256SUMS
  haul digest -a md5 'ftp://host/pub/*.iso'                 names that match; quote them from the shell
  haul digest -r --json sftp://me@host/srv | jq .           one object a line")]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub(crate) struct Digest {
    /// Files and directories; wildcards (* ? [] ** {}) work
    #[arg(value_name = "URL", required = true)]
    urls: Vec<OsString>,

    /// Also take directories and all that is in them
    #[arg(short, long)]
    recursive: bool,

    /// Which digest: sha256, sha512, blake3; or sha1, md5, crc32, which find accidents but no attacks
    #[arg(short, long, value_name = "NAME", default_value = "sha256", value_parser = algorithm)]
    algorithm: Algorithm,

    /// Write the name of the algorithm into each line: SHA256 (NAME) = HEX
    #[arg(long, conflicts_with = "json")]
    tag: bool,

    /// Write one JSON object a line
    #[arg(long, help_heading = "Output options")]
    json: bool,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    connect: ConnectArgs,
}

impl Digest {
    /// Writes the digest of each file; one that fails doesn't keep the others from being told.
    pub(crate) async fn run(self, context: &Arc<Context>) -> Result<()> {
        let mut connections = Connections::new(&self.connect, context)?;
        let endpoints = connections.parse(&self.urls)?;
        let mut reading = self.reading.reading(context, &mut connections, &endpoints, self.recursive).await?;
        let alone = endpoints.len() == 1 && !endpoints.iter().any(plan::has_wildcards);
        let (mut found, mut names) = (Vec::new(), HashSet::new());
        for endpoint in &endpoints {
            let place = connections.place(endpoint).await?;
            reading.places.open(&place.transport).await;
            let paths = match plan::expand(&place).await {
                Ok(paths) => paths,
                Err(error) => {
                    context.report.failed(error);
                    continue;
                }
            };
            for (path, entry) in paths {
                let name = name_of(endpoint, &path);
                match self.look(&place, path, entry, alone, &mut names, &reading.walking).await {
                    Ok(Some(more)) => found.push(more),
                    Ok(None) if plan::has_wildcards(endpoint) => {}
                    Ok(None) => context.note(&format!("haul: left out by the filters: {name}")),
                    Err(error) => context.report.failed(error.at(name)),
                }
            }
        }
        let found = stream::iter(found).flatten();
        let told = digests(found, reading.digester, self.algorithm, Arc::new(reading.places));
        pin_mut!(told);
        while let Some(told) = told.next().await {
            self.tell(context, told)?;
        }
        connections.close().await;
        Ok(())
    }

    /// Returns the files that an operand names; `None` if the filters leave it out. `names` are those that the operands before it have taken.
    async fn look(
        &self,
        place: &Place,
        path: RemotePath,
        entry: Option<Entry>,
        alone: bool,
        names: &mut HashSet<Vec<u8>>,
        walking: &Walking,
    ) -> Result<Option<BoxStream<'static, Found>>, Error> {
        let entry = match entry.filter(|entry| entry.kind != FileKind::Symlink) {
            Some(entry) => entry,
            None => place.transport.stat(&path, Follow::Links).await?,
        };
        let contents = alone || place.endpoint.path.bytes.ends_with(b"/.");
        let (name, at) = (path.file_name().unwrap_or_default().to_vec(), place.location(path));
        let is_tree = entry.is_dir();
        if is_tree && !walking.takes_directories() {
            return Err(
                Error::new(ErrorKind::IsADirectory, "is a directory").with_hint("use -r to take whole directories")
            );
        }
        let merges = is_tree && (contents || name.is_empty());
        if !merges && !walking.takes_operand(&name, &entry) {
            return Ok(None);
        }
        if !merges && !names.insert(name.clone()) {
            return Err(Error::new(ErrorKind::Usage, "another operand has the same name")
                .with_hint("their lines could not be told apart; write two lists"));
        }
        Ok(Some(match is_tree {
            false => stream::iter([Found::File(File { name, at, entry: Some(entry) })]).boxed(),
            true => files_below(at, Some(&name[..]).filter(|_| !merges), walking.clone()).boxed(),
        }))
    }

    fn tell(&self, context: &Context, told: Told) -> Result<()> {
        let Told { name, url, digested } = told;
        let mut text = Vec::new();
        match digested {
            Ok(Some(digested)) if self.json => {
                json::line(&mut text, &DigestLine::new(&name, &url, self.algorithm, Ok(&digested)))?;
            }
            Ok(Some(digested)) => {
                let sum = Sum { algorithm: self.algorithm, digest: digested.digest, name };
                let line = if self.tag { sum.tagged_line() } else { sum.line() };
                text = for_terminal(context, line);
            }
            Ok(None) => context.note(&format!("haul: left out, not a regular file: {}", path_of(&url))),
            Err(error) => {
                if self.json {
                    json::line(&mut text, &DigestLine::new(&name, &url, self.algorithm, Err(&error)))?;
                }
                context.report.failed(error.at(path_of(&url)));
            }
        }
        write(context, &text)
    }
}

/// Writes to standard output, with the bars out of the way where both are on a terminal.
pub(crate) fn write(context: &Context, text: &[u8]) -> Result<()> {
    let write = || if text.is_empty() { Ok(()) } else { context.stdout.write(text) };
    Ok(if context.stdout.terminal { context.screen.suspend(write) } else { write() }?)
}

/// Makes a line harmless if a terminal shows it; into a pipe it goes as it is.
pub(crate) fn for_terminal(context: &Context, line: Vec<u8>) -> Vec<u8> {
    if !context.stdout.terminal {
        return line;
    }
    let mut text = escape(line.strip_suffix(b"\n").unwrap_or(&line)).into_bytes();
    text.push(b'\n');
    text
}

/// The digest of a file as a line of JSON. `name` is lossy where it isn't UTF-8; `url` never is.
#[derive(Debug, Serialize)]
struct DigestLine<'a> {
    name: String,
    url: &'a str,
    algorithm: &'static str,
    digest: Option<String>,
    size: Option<u64>,
    by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
}

impl<'a> DigestLine<'a> {
    fn new(name: &[u8], url: &'a str, algorithm: Algorithm, digested: Result<&Digested, &Error>) -> Self {
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            url,
            algorithm: algorithm.name(),
            digest: digested.ok().map(|digested| hex(&digested.digest)),
            size: digested.ok().and_then(|digested| digested.size),
            by: digested.ok().map(|digested| by(digested.by)),
            error: digested.err().map(ErrorObject::new),
        }
    }
}

/// Returns the word for who computed a digest, used in JSON output.
pub(crate) fn by(asked: Asked) -> &'static str {
    match asked {
        Asked::Server => "server",
        Asked::Nobody => "read",
    }
}

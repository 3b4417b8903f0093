//! `haul check --sums`: files against a list of their digests.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, pin_mut};
use haul::plan::check::{Checking, Line, Names, against_list, not_listed};
use haul::plan::digest::{File, Found};
use haul::plan::sums::{Sum, hex};
use haul::transfer::Digested;
use haul::transport::{Algorithm, ReadRange};
use haul::{Error, ErrorKind};
use serde::Serialize;
use tokio::io::{AsyncBufRead, BufReader};

use super::check::Check;
use super::context::{Connections, Context, without_password};
use super::digest::by;
use super::format::path_of;
use super::json::ErrorObject;
use super::report::Result;
use super::verdicts::{Verdict, Verdicts};

/// The longest list that is read from a server, in bytes: about half a million files.
const LONGEST_LIST: usize = 64 << 20;

/// A file of the list, or one that it doesn't have, as a line of JSON. `name` is lossy where it isn't UTF-8; `url` never is.
#[derive(Debug, Serialize)]
struct FileLine<'a> {
    event: &'static str,
    verdict: &'static str,
    name: String,
    url: &'a str,
    algorithm: Option<&'static str>,
    wanted: Option<String>,
    found: Option<String>,
    size: Option<u64>,
    by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
}

impl<'a> FileLine<'a> {
    fn new(verdict: Verdict, name: &[u8], url: &'a str) -> Self {
        Self {
            event: "file",
            verdict: verdict.word(),
            name: String::from_utf8_lossy(name).into_owned(),
            url,
            algorithm: None,
            wanted: None,
            found: None,
            size: None,
            by: None,
            error: None,
        }
    }

    fn listed(verdict: Verdict, sum: &Sum, url: &'a str, digested: Result<&Digested, &Error>) -> Self {
        let found = digested.ok();
        Self {
            algorithm: Some(sum.algorithm.name()),
            wanted: Some(hex(&sum.digest)),
            found: found.map(|found| hex(&found.digest)),
            size: found.and_then(|found| found.size),
            by: found.map(|found| by(found.by)),
            error: digested.err().map(ErrorObject::new),
            ..Self::new(verdict, &sum.name, url)
        }
    }
}

/// Checks what a list names below a URL, and then what it doesn't name.
pub(crate) async fn run(args: &Check, list: &OsStr, url: &OsStr, context: &Arc<Context>) -> Result<()> {
    let mut connections = Connections::new(&args.connect, context)?;
    let endpoint = connections.parse_one(url)?;
    let mut reading = args.reading.reading(context, &mut connections, std::slice::from_ref(&endpoint), true).await?;
    let text = open(list, &mut connections).await?;
    let place = connections.place(&endpoint).await?;
    reading.places.open(&place.transport).await;
    let directory = place.location(place.path().await?);
    let (names, mut verdicts) = (Arc::new(Names::default()), Verdicts::new(context, args.json));
    let options = Checking {
        digester: Arc::clone(&reading.digester),
        places: Arc::new(reading.places),
        algorithm: args.algorithm,
    };
    let lines = against_list(text, directory.clone(), options, Arc::clone(&names));
    pin_mut!(lines);
    let mut whole = true;
    while let Some(line) = lines.next().await {
        match line {
            Line::File { sum, url, digested } => file(&mut verdicts, context, &sum, &url, digested)?,
            Line::Malformed { error, .. } => verdicts.malformed(&error)?,
            Line::Broken(error) => {
                whole = false;
                context.report.failed(error.at(without_password(list)));
            }
        }
    }
    if whole && verdicts.files() == 0 {
        let text = if verdicts.malformed_lines() == 0 { "is empty" } else { "is no list of checksums" };
        context.report.failed(Error::new(ErrorKind::Other, text).at(without_password(list)));
    } else if whole && !args.one_way {
        let found = not_listed(directory.clone(), reading.walking, names);
        pin_mut!(found);
        while let Some(found) = found.next().await {
            extra(&mut verdicts, context, list, found)?;
        }
    }
    verdicts.read = reading.digester.bytes_read();
    drop(reading.shown);
    verdicts.end()?;
    connections.close().await;
    Ok(())
}

fn file(
    verdicts: &mut Verdicts<'_>,
    context: &Context,
    sum: &Sum,
    url: &str,
    digested: Result<Digested, Error>,
) -> Result<()> {
    let digested = match digested {
        Ok(digested) => digested,
        Err(error) => {
            let missing = error.kind() == ErrorKind::NotFound;
            let verdict = if missing { Verdict::Missing } else { Verdict::Unreadable };
            verdicts.tell(verdict, &sum.name, "", ("", url), &FileLine::listed(verdict, sum, url, Err(&error)))?;
            if !missing {
                context.report.failed(error.at(path_of(url)));
            }
            return Ok(());
        }
    };
    let verdict = if digested.digest == sum.digest { Verdict::Equal } else { Verdict::Different };
    let why = if verdict == Verdict::Equal { String::new() } else { why(sum.algorithm) };
    verdicts.tell(verdict, &sum.name, &why, ("", url), &FileLine::listed(verdict, sum, url, Ok(&digested)))
}

fn why(algorithm: Algorithm) -> String {
    format!("by its {}", algorithm.name())
}

fn extra(verdicts: &mut Verdicts<'_>, context: &Context, list: &OsStr, found: Found) -> Result<()> {
    match found {
        Found::File(File { name, at, .. }) | Found::Link(File { name, at, .. }, _) => {
            // The list itself, where it lies beside what it lists.
            let own = Path::new(list).file_name();
            if own.is_some_and(|own| own.as_encoded_bytes() == name) {
                return Ok(());
            }
            verdicts.tell(Verdict::Extra, &name, "", ("", &at.url), &FileLine::new(Verdict::Extra, &name, &at.url))
        }
        Found::Failed { name, url, error } => {
            let object =
                FileLine { error: Some(ErrorObject::new(&error)), ..FileLine::new(Verdict::Unreadable, &name, &url) };
            verdicts.tell(Verdict::Unreadable, &name, "", ("", &url), &object)?;
            context.report.failed(error.at(path_of(&url)));
            Ok(())
        }
        Found::LeftOut(_) => Ok(()),
    }
}

/// Opens a list: standard input, a file here, or one on a server.
async fn open(list: &OsStr, connections: &mut Connections<'_>) -> Result<Box<dyn AsyncBufRead + Send + Unpin>> {
    if list == "-" {
        return Ok(Box::new(BufReader::new(tokio::io::stdin())));
    }
    if connections.is_local(list) && !connections.is_url(list) {
        let opened = tokio::fs::File::open(list).await;
        let file = opened.map_err(|e| Error::io("open the list", e).at(without_password(list)))?;
        return Ok(Box::new(BufReader::new(file)));
    }
    let endpoint = connections.parse_one(list)?;
    let place = connections.place(&endpoint).await?;
    let mut read = place.transport.open_read(&place.path().await?, ReadRange::ALL).await?;
    // All of it first: a server that lets in one connection only would wait for the list to end.
    let mut text = Vec::new();
    loop {
        let chunk = read.read().await?;
        if chunk.is_empty() {
            break;
        }
        if text.len() + chunk.len() > LONGEST_LIST {
            return Err(Error::new(ErrorKind::Unsupported, "is too long to be read from a server")
                .at(without_password(list))
                .with_hint("download it, and name the copy")
                .into());
        }
        text.extend_from_slice(&chunk);
    }
    read.finish().await?;
    Ok(Box::new(BufReader::new(io::Cursor::new(text))))
}

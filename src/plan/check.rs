//! Checking files against a list of their digests.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use super::digest::{File, Found, Places, Target, Walking, files_below, target};
use super::sums::{LONGEST_LINE, Reader, Sum};
use crate::error::{Error, ErrorKind, Result};
use crate::transfer::{Digested, Digester, Location};
use crate::transport::{Algorithm, RemotePath};

/// Files that are worked on or wait for those before them.
const FILES_AHEAD: usize = 1024;

/// What a line of the list came to, in the order of the lines.
#[derive(Debug)]
pub enum Line {
    /// It names a file.
    File {
        /// The file and the digest that it should have.
        sum: Sum,
        /// Its URL.
        url: String,
        /// The digest that it has.
        digested: Result<Digested>,
    },
    /// It can't be read as one of a list, or its name is refused.
    Malformed {
        /// Which line, from 1.
        number: u64,
        /// Why.
        error: Error,
    },
    /// The list itself can't be read further.
    Broken(Error),
}

/// The names that a list has, each in eight bytes.
#[derive(Debug, Default)]
pub struct Names {
    hashes: RandomState,
    seen: Mutex<HashSet<u64>>,
}

impl Names {
    fn add(&self, path: &RemotePath) {
        let hash = self.hashes.hash_one(path);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(hash);
    }

    fn has(&self, path: &RemotePath) -> bool {
        let hash = self.hashes.hash_one(path);
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash)
    }
}

/// How files are checked against a list.
#[derive(Debug, Clone)]
pub struct Checking {
    /// Tells the digests.
    pub digester: Arc<Digester>,
    /// How many at once.
    pub places: Arc<Places>,
    /// By which algorithm the list is; `None`: as its lines tell.
    pub algorithm: Option<Algorithm>,
}

/// Checks the files that a list names below a directory, many at once; `names` takes what the list has.
///
/// Names that lead out of the directory are refused.
pub fn against_list(
    list: impl AsyncBufRead + Send + Unpin,
    directory: Location,
    options: Checking,
    names: Arc<Names>,
) -> impl Stream<Item = Line> + Send {
    let lines = Lines { list, reader: Reader::new(options.algorithm), number: 0 };
    let read = futures_util::stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        let line = lines.next().await?;
        let rest = (!matches!(line, Read::Broken(_))).then_some(lines);
        Some((line, rest))
    });
    let checked = read.map(move |line| {
        let (directory, options, names) = (directory.clone(), options.clone(), Arc::clone(&names));
        async move {
            let (sum, number) = match line {
                Read::Sum(sum, number) => (sum, number),
                Read::Malformed(why, number) => {
                    let error = Error::new(ErrorKind::Other, format!("line {number} of the list: {why}"));
                    return Line::Malformed { number, error };
                }
                Read::Broken(error) => return Line::Broken(error),
            };
            let file = match place(&directory, &sum) {
                Ok(file) => file,
                Err(error) => {
                    return Line::Malformed { number, error: error.context(format!("line {number} of the list")) };
                }
            };
            names.add(&file.path);
            options.digester.expect(None);
            let work = options.digester.digest(&file, None, sum.algorithm);
            let digested = options.places.work(&file, work).await;
            Line::File { sum, url: file.url, digested }
        }
    });
    checked.buffered(FILES_AHEAD)
}

/// Finds the files below a directory that a list doesn't have, in the order of their names. To be asked once the list is
/// read to its end.
pub fn not_listed(directory: Location, walking: Walking, names: Arc<Names>) -> impl Stream<Item = Found> + Send {
    let found = files_below(directory, None, walking);
    found.filter_map(move |found| {
        let names = Arc::clone(&names);
        async move {
            match found {
                Found::File(File { ref at, .. }) => (!names.has(&at.path)).then_some(found),
                Found::Link(File { ref at, .. }, _) if names.has(&at.path) => None,
                Found::Link(file, scope) => match target(&file.at, &scope).await {
                    Ok(Target::File(_)) => Some(Found::Link(file, scope)),
                    Ok(Target::NoFile | Target::LeftOut) => None,
                    Err(error) => Some(Found::Failed { name: file.name, url: file.at.url, error }),
                },
                Found::LeftOut(_) => None,
                Found::Failed { .. } => Some(found),
            }
        }
    })
}

/// Returns where a file of the list is.
fn place(directory: &Location, sum: &Sum) -> Result<Location> {
    let path = sum.below(&directory.path)?;
    let skip = directory.path.components().count();
    path.components().skip(skip).try_fold(directory.clone(), |at, name| at.child(name))
}

/// The lines of a list.
struct Lines<L> {
    list: L,
    reader: Reader,
    number: u64,
}

/// One line, as it was read.
enum Read {
    Sum(Sum, u64),
    Malformed(&'static str, u64),
    Broken(Error),
}

impl<L: AsyncBufRead + Unpin> Lines<L> {
    /// Returns the next line that says something; `None` at the end.
    async fn next(&mut self) -> Option<Read> {
        loop {
            let line = match self.line().await {
                Ok(line) => line?,
                Err(e) => return Some(Read::Broken(Error::new(ErrorKind::Other, "read the list").with_source(e))),
            };
            self.number += 1;
            match self.reader.read(&line) {
                Ok(Some(sum)) => return Some(Read::Sum(sum, self.number)),
                Ok(None) => {}
                Err(why) => return Some(Read::Malformed(why, self.number)),
            }
        }
    }

    /// Reads a line without its newline. Of one that is longer than any may be, no more is kept than shows that.
    async fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut any = false;
        loop {
            let available = self.list.fill_buf().await?;
            if available.is_empty() {
                return Ok(any.then_some(line));
            }
            any = true;
            let end = available.iter().position(|&b| b == b'\n');
            let length = end.unwrap_or(available.len());
            let room = (LONGEST_LINE + 1).saturating_sub(line.len()).min(length);
            line.extend_from_slice(&available[..room]);
            self.list.consume(end.map_or(length, |end| end + 1));
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8]) -> Vec<(u64, bool)> {
        let mut lines = Lines { list: text, reader: Reader::new(None), number: 0 };
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push(match line {
                Read::Sum(_, number) => (number, true),
                Read::Malformed(_, number) => (number, false),
                Read::Broken(error) => panic!("{error}"),
            });
        }
        all
    }

    #[tokio::test]
    async fn lines_are_counted_and_no_line_is_endless() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let long = "x".repeat(3 * LONGEST_LINE);
        let text = format!("# list\n\n{digest}  a\nnonsense\n{digest}  {long}\n{digest}  b");
        assert_eq!(lines(text.as_bytes()).await, [(3, true), (4, false), (5, false), (6, true)]);
        assert_eq!(lines(b"").await, []);
        assert_eq!(lines(b"\n").await, []);
    }
}

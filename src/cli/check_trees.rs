//! `haul check SRC DST`: two trees compared.

use std::ffi::OsStr;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, pin_mut};
use haul::plan::Place;
use haul::plan::check_trees::{Contents, Digests, algorithm_for, by_content};
use haul::plan::compare::{
    Apart, By, Comparing, Difference, Finding, Root, Side, Verdict as Compared, Why, below, compare,
};
use haul::plan::sums::hex;
use haul::transfer::Location;
use haul::transport::{Algorithm, Entry, FileKind, Follow, Precision, escape};
use haul::{Error, ErrorKind};
use serde::Serialize;

use super::check::Check;
use super::context::{Connections, Context};
use super::digest::by;
use super::entry::{EntryLine, timestamp};
use super::json::ErrorObject;
use super::report::Result;
use super::verdicts::{Verdict, Verdicts};

/// A name that one or both trees have, as a line of JSON. `name` is lossy where it isn't UTF-8; the URLs never are.
#[derive(Debug, Serialize)]
struct PairLine {
    event: &'static str,
    verdict: &'static str,
    why: Option<&'static str>,
    name: String,
    source: Option<EntryLine>,
    destination: Option<EntryLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digests: Option<DigestsLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
}

#[derive(Debug, Serialize)]
struct DigestsLine {
    algorithm: &'static str,
    source: String,
    source_by: &'static str,
    destination: String,
    destination_by: &'static str,
}

/// Both trees, and how they are told.
struct Checking<'a> {
    context: &'a Context,
    left: (Place, Location),
    right: (Place, Location),
    algorithm: Option<Algorithm>,
    json: bool,
    one_way: bool,
}

/// Compares two trees.
pub(crate) async fn run(args: &Check, left: &OsStr, right: &OsStr, context: &Arc<Context>) -> Result<()> {
    let mut connections = Connections::new(&args.connect, context)?;
    let (left, right) = (connections.parse_one(left)?, connections.parse_one(right)?);
    let mut reading = args.reading.reading(context, &mut connections, &[left.clone(), right.clone()], true).await?;
    let (left, right) = (connections.place(&left).await?, connections.place(&right).await?);
    let (left_root, right_root) = roots(&left, &right).await?;
    for place in [&left, &right] {
        reading.places.open(&place.transport).await;
    }
    let options = Comparing {
        by: if args.size_only || args.checksum { By::Size } else { By::Time },
        links: args.links,
        filter: reading.walking.filter.clone(),
        inside_extra: !args.one_way,
        retries: reading.walking.retries,
        retry_wait: reading.walking.retry_wait,
        // Nothing is changed, and nothing is taken for what it was.
        may_probe: false,
        state_dir: None,
        ..Comparing::default()
    };
    let (left_at, right_at) = (left_root.at.clone(), right_root.at.clone());
    let findings = match left_root.entry.is_dir() {
        true => compare(Some(left_root), Some(right_root), Vec::new(), options).boxed(),
        false => stream::iter([Finding::Pair(two_files(left_root.entry, right_root.entry, options.by))]).boxed(),
    };
    let algorithm = args
        .checksum
        .then(|| args.algorithm.unwrap_or_else(|| algorithm_for(&left_at, &right_at, args.reading.asked())));
    let findings: BoxStream<'_, _> = match algorithm {
        Some(algorithm) => {
            let (digester, places) = (Arc::clone(&reading.digester), Arc::new(reading.places));
            by_content(findings, left_at.clone(), right_at.clone(), Contents { digester, places, algorithm }).boxed()
        }
        None => findings.map(|finding| (finding, None)).boxed(),
    };
    let checking = Checking {
        context,
        left: (left, left_at),
        right: (right, right_at),
        algorithm,
        json: args.json,
        one_way: args.one_way,
    };
    let mut verdicts = Verdicts::new(context, args.json);
    pin_mut!(findings);
    while let Some((finding, digests)) = findings.next().await {
        checking.tell(&mut verdicts, finding, digests.as_ref())?;
    }
    verdicts.read = reading.digester.bytes_read();
    verdicts.by = algorithm;
    drop(reading.shown);
    verdicts.end()?;
    connections.close().await;
    Ok(())
}

/// Returns what an operand names, and makes sure that both name the same kind of thing.
async fn roots(left: &Place, right: &Place) -> Result<(Root, Root)> {
    let (left, right) = (root(left).await?, root(right).await?);
    let kinds = (left.entry.kind, right.entry.kind);
    match kinds {
        (FileKind::Directory, FileKind::Directory) | (FileKind::File, FileKind::File) => Ok((left, right)),
        _ => {
            let other = if kinds.0 == FileKind::Directory { &right } else { &left };
            let (kind, text) = match kinds {
                (FileKind::Directory, _) | (_, FileKind::Directory) => {
                    (ErrorKind::NotADirectory, "is not a directory, as the other one is")
                }
                _ => (ErrorKind::Unsupported, "is not a regular file"),
            };
            Err(Error::new(kind, text).at(other.at.shown()).into())
        }
    }
}

async fn root(place: &Place) -> Result<Root> {
    let at = place.location(place.path().await?);
    let entry = at.transport.stat(&at.path, Follow::Links).await.map_err(|e| e.at(at.shown()))?;
    Ok(Root { at, entry })
}

/// Compares two files by what is known of them.
fn two_files(left: Entry, right: Entry, by: By) -> Difference {
    let exact = |entry: &Entry| entry.mtime.filter(|mtime| mtime.precision <= Precision::Second);
    let verdict = match (left.size.zip(right.size), exact(&left).zip(exact(&right))) {
        (Some((left, right)), _) if left != right => Compared::Different(Why::Size),
        (_, Some((left, right))) if by == By::Time && !left.matches(right) => {
            Compared::Different(if left.time > right.time { Why::Newer } else { Why::Older })
        }
        _ => Compared::Equal,
    };
    Difference { path: Vec::new(), left: Some(left), right: Some(right), verdict }
}

impl Checking<'_> {
    fn tell(&self, verdicts: &mut Verdicts<'_>, finding: Finding, digests: Option<&Digests>) -> Result<()> {
        match finding {
            Finding::Pair(difference) => self.pair(verdicts, &difference, digests),
            Finding::Failed { side, path, error } => self.failed(verdicts, side, &path, error),
            Finding::Apart { path, why } => {
                let what = match why {
                    Apart::NotRegular => "not a regular file",
                    Apart::LinkToDirectory => "a link to a directory",
                    _ => return Ok(()),
                };
                self.context.note(&format!("haul: left out, {what}: {}", escape(&path)));
                Ok(())
            }
            Finding::Note(text) => {
                self.context.note(&format!("haul: {}", escape(text.as_bytes())));
                Ok(())
            }
            Finding::Listed { .. } => Ok(()),
        }
    }

    fn pair(&self, verdicts: &mut Verdicts<'_>, difference: &Difference, digests: Option<&Digests>) -> Result<()> {
        let is_dir = |entry: &Option<Entry>| entry.as_ref().is_some_and(Entry::is_dir);
        let (verdict, why) = match difference.verdict {
            Compared::Missing => (Verdict::Missing, None),
            Compared::Extra if self.one_way => return Ok(()),
            Compared::Extra => (Verdict::Extra, None),
            // What is in them is told by itself.
            Compared::Equal if is_dir(&difference.left) => return Ok(()),
            Compared::Equal | Compared::Different(Why::OnlyTime | Why::OnlyMode) => (Verdict::Equal, None),
            Compared::Different(why) => (Verdict::Different, Some(why)),
        };
        let told = why.map(|why| self.why(why, difference)).unwrap_or_default();
        let is_tree = is_dir(&difference.left) || (difference.left.is_none() && is_dir(&difference.right));
        let slash: &[u8] = if is_tree { b"/" } else { b"" };
        let name = match difference.path.as_slice() {
            b"" => self.left.1.path.file_name().unwrap_or_default().to_vec(),
            path => [path, slash].concat(),
        };
        let object = if self.json { Some(self.object(verdict, why, difference, digests)?) } else { None };
        let url = |root, entry: &Option<Entry>| match entry {
            Some(_) => below(root, &difference.path).map(|at| at.url).unwrap_or_default(),
            None => String::new(),
        };
        let at = (url(&self.left.1, &difference.left), url(&self.right.1, &difference.right));
        verdicts.tell(verdict, &name, &told, (&at.0, &at.1), &object)
    }

    fn failed(&self, verdicts: &mut Verdicts<'_>, side: Side, path: &[u8], error: Error) -> Result<()> {
        let root = if side == Side::Left { &self.left.1 } else { &self.right.1 };
        let at = below(root, path).unwrap_or_else(|_| root.clone());
        let object = PairLine {
            event: "file",
            verdict: Verdict::Unreadable.word(),
            why: None,
            name: String::from_utf8_lossy(path).into_owned(),
            source: None,
            destination: None,
            digests: None,
            error: Some(ErrorObject::new(&error)),
        };
        let urls = if side == Side::Left { (at.url.as_str(), "") } else { ("", at.url.as_str()) };
        verdicts.tell(Verdict::Unreadable, if path.is_empty() { b"." } else { path }, "", urls, &object)?;
        self.context.report.failed(error.at(at.shown()));
        Ok(())
    }

    /// Says in what two entries differ: the source's first.
    fn why(&self, why: Why, difference: &Difference) -> String {
        let (Some(left), Some(right)) = (&difference.left, &difference.right) else { return String::new() };
        let both = |what: &str, of: &dyn Fn(&Entry) -> String| format!("{what}: {}, {}", of(left), of(right));
        match why {
            Why::Size => both("size", &|entry| entry.size.map_or("?".into(), |size| size.to_string())),
            Why::Newer | Why::Older | Why::OnlyTime => {
                both("time", &|entry| entry.mtime.and_then(timestamp).map_or("?".into(), |time| time.to_string()))
            }
            Why::Kind => both("kind", &|entry| entry.kind.name().into()),
            Why::Digest => self.algorithm.map_or("digest", Algorithm::name).to_owned(),
            Why::Target => "link target".into(),
            Why::OnlyMode => "mode".into(),
        }
    }

    fn object(
        &self,
        verdict: Verdict,
        why: Option<Why>,
        difference: &Difference,
        digests: Option<&Digests>,
    ) -> Result<PairLine> {
        let line = |(place, root): &(Place, Location), entry: &Option<Entry>| match entry {
            Some(entry) => {
                let at = below(root, &difference.path)?;
                Ok::<_, Error>(Some(EntryLine::new(entry, &place.endpoint, &at.path)))
            }
            None => Ok(None),
        };
        Ok(PairLine {
            event: "file",
            verdict: verdict.word(),
            why: why.map(|why| match why {
                Why::Newer | Why::Older => "time",
                why => why.name(),
            }),
            name: String::from_utf8_lossy(match difference.path.as_slice() {
                b"" => self.left.1.path.file_name().unwrap_or_default(),
                path => path,
            })
            .into_owned(),
            source: line(&self.left, &difference.left)?,
            destination: line(&self.right, &difference.right)?,
            digests: digests.zip(self.algorithm).map(|(digests, algorithm)| DigestsLine {
                algorithm: algorithm.name(),
                source: hex(&digests.left.digest),
                source_by: by(digests.left.by),
                destination: hex(&digests.right.digest),
                destination_by: by(digests.right.by),
            }),
            error: None,
        })
    }
}

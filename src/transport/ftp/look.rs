//! Looking at one path, and asking a second question where a bare 550 can mean several things.

use super::connection::{Connection, Health, line};
use super::facts::{Fact, parse_facts, parse_time};
use super::list::Listing;
use super::reply::Reply;
use super::transfer::Refusal;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Entry, FileKind, Follow, Mtime, RemotePath};

/// Files that are asked for in one segment: their commands and the replies fit into the buffers of both ends.
const EXACT_AT_ONCE: usize = 32;

/// What a look at a path found.
#[derive(Debug)]
pub(super) enum Look {
    /// It is there.
    Found(Entry),
    /// It is not, as the server said, or as the listing of its directory shows.
    Missing,
    /// The server doesn't let us know.
    Hidden(Reply),
}

/// What the listing of its directory tells about a path.
#[derive(Debug)]
pub(super) enum InParent {
    /// It is there.
    Found(Entry),
    /// It is not there.
    Absent,
    /// The directory can't be listed.
    Unlisted,
}

/// What a refused command had wanted of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A file that is there.
    File,
    /// A directory that is there.
    Directory,
    /// A directory that is there and empty.
    EmptyDirectory,
    /// To make a file, or replace it.
    NewFile,
    /// A name that is free.
    FreeName,
}

/// Returns the entry of a path.
pub(super) async fn stat(connection: &mut Connection, path: &RemotePath, follow: Follow) -> Result<Entry> {
    match look(connection, path, follow).await? {
        Look::Found(entry) => Ok(entry),
        Look::Missing => Err(Error::new(ErrorKind::NotFound, "no such file or directory")),
        Look::Hidden(reply) => {
            let error = reply.error_at("look at", path.as_bytes());
            let kind = if error.kind() == ErrorKind::Other { ErrorKind::PermissionDenied } else { error.kind() };
            Err(error.with_kind(kind))
        }
    }
}

/// Makes the error of a refused command, asking the server what is at the path where its words don't tell.
pub(super) async fn explain(
    connection: &mut Connection,
    reply: &Reply,
    what: &str,
    path: &RemotePath,
    wanted: Wanted,
) -> Error {
    let error = reply.error_at(what, path.as_bytes());
    let told = reply.kind(path.as_bytes());
    // "No such directory" is said of files too.
    let doubtful = told == Some(ErrorKind::NotFound) && wanted == Wanted::Directory;
    if told.is_some() && !doubtful {
        return error;
    }
    let kind = match look(connection, path, Follow::Nothing).await {
        Ok(Look::Found(entry)) => kind_of_refusal(connection, path, &entry, wanted).await,
        Ok(Look::Missing) if matches!(wanted, Wanted::NewFile | Wanted::FreeName) => {
            match parent_is_there(connection, path).await {
                Some(true) => ErrorKind::PermissionDenied,
                Some(false) => ErrorKind::NotFound,
                None => error.kind(),
            }
        }
        Ok(Look::Missing) => ErrorKind::NotFound,
        Ok(Look::Hidden(_)) => ErrorKind::PermissionDenied,
        Err(_) => error.kind(),
    };
    error.with_kind(kind)
}

async fn kind_of_refusal(connection: &mut Connection, path: &RemotePath, entry: &Entry, wanted: Wanted) -> ErrorKind {
    match wanted {
        Wanted::FreeName => ErrorKind::AlreadyExists,
        Wanted::File | Wanted::NewFile if entry.is_dir() => ErrorKind::IsADirectory,
        Wanted::Directory | Wanted::EmptyDirectory if entry.kind == FileKind::File => ErrorKind::NotADirectory,
        Wanted::EmptyDirectory if has_entries(connection, path).await => ErrorKind::DirectoryNotEmpty,
        _ => ErrorKind::PermissionDenied,
    }
}

/// Looks at a path, with MLST or by what SIZE, CWD and the listing of its directory tell together.
pub(super) async fn look(connection: &mut Connection, path: &RemotePath, follow: Follow) -> Result<Look> {
    let machine = connection.login().server().is_some_and(|server| server.features.machine_lists());
    if machine {
        let reply = connection.ask("MLST", path).await?;
        if reply.is_ok() {
            let entry = entry_of(&reply, path)?;
            return refine(connection, path, follow, entry).await;
        }
        match reply.kind(path.as_bytes()) {
            Some(ErrorKind::NotFound) => return Ok(Look::Missing),
            Some(ErrorKind::Unsupported) => {}
            Some(_) => return Ok(Look::Hidden(reply)),
            None => return search(connection, path, reply).await,
        }
    }
    if follow == Follow::Links {
        return follow_to(connection, path).await;
    }
    match in_parent(connection, path).await? {
        InParent::Found(entry) if entry.kind == FileKind::File => exact(connection, path, entry).await.map(Look::Found),
        InParent::Found(entry) => Ok(Look::Found(entry)),
        InParent::Absent => Ok(Look::Missing),
        InParent::Unlisted => follow_to(connection, path).await,
    }
}

/// Reads the one line of facts in a reply to MLST.
fn entry_of(reply: &Reply, path: &RemotePath) -> Result<Entry> {
    let line = reply.inner_lines().next().unwrap_or_default();
    // One space in front, as the standard has it; some servers put the code there.
    let line = line.strip_prefix(b"250-").unwrap_or(line);
    let line = line.strip_prefix(b" ").filter(|rest| rest.contains(&b'=')).unwrap_or(line);
    let name = path.file_name().unwrap_or_default();
    match parse_facts(line) {
        Some(Fact::Entry(entry)) => Ok(Entry { name: name.to_vec(), ..entry }),
        Some(Fact::Around) => Ok(Entry::new(name, FileKind::Directory)),
        None => Err(reply.error("look at").with_kind(ErrorKind::Protocol)),
    }
}

/// Settles what MLST leaves open about links: Pure-FTPd reports the link, pyftpdlib its target, and ProFTPD the kind of
/// the target with size, time and mode of the link.
async fn refine(connection: &mut Connection, path: &RemotePath, follow: Follow, entry: Entry) -> Result<Look> {
    match (entry.kind, follow) {
        (FileKind::Symlink, Follow::Links) => follow_to(connection, path).await,
        // Modes of links are always 0777, modes of others hardly ever.
        (FileKind::File, Follow::Links) if entry.mode == Some(0o777) => {
            let looked_like = entry.size;
            let mut entry = exact(connection, path, entry).await?;
            entry.mode = entry.mode.filter(|_| entry.size == looked_like);
            Ok(Look::Found(entry))
        }
        (FileKind::Directory, Follow::Links) if entry.mode == Some(0o777) => {
            Ok(Look::Found(Entry { mode: None, ..entry }))
        }
        (_, Follow::Nothing) if entry.mode == Some(0o777) && entry.kind != FileKind::Symlink => {
            Ok(Look::Found(match in_parent(connection, path).await? {
                InParent::Found(listed) => listed,
                InParent::Absent | InParent::Unlisted => entry,
            }))
        }
        _ => Ok(Look::Found(entry)),
    }
}

/// Asks for the exact size and time of a file.
async fn exact(connection: &mut Connection, path: &RemotePath, mut entry: Entry) -> Result<Entry> {
    let replies = connection.ask_all(&[line("SIZE", path)?, line("MDTM", path)?]).await?;
    refined(&mut entry, &replies);
    Ok(entry)
}

/// The same for many files that a listing showed, so many at a time.
pub(super) async fn exact_all(connection: &mut Connection, files: &[(RemotePath, Entry)]) -> Result<Vec<Entry>> {
    let mut exact = Vec::with_capacity(files.len());
    for files in files.chunks(EXACT_AT_ONCE) {
        let mut lines = Vec::with_capacity(2 * files.len());
        for (path, _) in files {
            lines.extend([line("SIZE", path)?, line("MDTM", path)?]);
        }
        let replies = connection.ask_all(&lines).await?;
        exact.extend(files.iter().zip(replies.chunks(2)).map(|((_, entry), replies)| {
            let mut entry = entry.clone();
            refined(&mut entry, replies);
            entry
        }));
    }
    Ok(exact)
}

/// Puts what SIZE and MDTM told into an entry.
fn refined(entry: &mut Entry, replies: &[Reply]) {
    entry.size = replies.first().and_then(parse_size).or(entry.size);
    entry.mtime = replies.last().and_then(parse_mdtm).or(entry.mtime);
}

/// Reads the time out of a reply to MDTM.
pub(super) fn parse_mdtm(reply: &Reply) -> Option<Mtime> {
    (reply.code() == 213).then(|| parse_time(reply.first_text().trim_ascii())).flatten()
}

/// Returns the size of a file; `None` where the server doesn't say.
pub(super) async fn size(connection: &mut Connection, path: &RemotePath) -> Result<Option<u64>> {
    Ok(parse_size(&connection.ask("SIZE", path).await?))
}

/// Reads the size out of a reply to SIZE.
pub(super) fn parse_size(reply: &Reply) -> Option<u64> {
    let digits = std::str::from_utf8(reply.first_text()).unwrap_or_default().trim();
    (reply.code() == 213).then(|| digits.parse().ok()).flatten()
}

/// Looks by SIZE, MDTM and CWD, all of which follow links.
async fn follow_to(connection: &mut Connection, path: &RemotePath) -> Result<Look> {
    let name = path.file_name().unwrap_or_default();
    let replies = connection.ask_all(&[line("SIZE", path)?, line("MDTM", path)?, line("CWD", path)?]).await?;
    let Ok([size, mtime, inside]) = <[Reply; 3]>::try_from(replies) else { return Err(ErrorKind::Protocol.into()) };
    // Some servers tell sizes of directories, too.
    if inside.is_ok() {
        return Ok(Look::Found(Entry::new(name, FileKind::Directory)));
    }
    if let Some(size) = parse_size(&size) {
        return Ok(Look::Found(Entry {
            size: Some(size),
            mtime: parse_mdtm(&mtime),
            ..Entry::new(name, FileKind::File)
        }));
    }
    match inside.kind(path.as_bytes()) {
        Some(ErrorKind::NotFound) => Ok(Look::Missing),
        _ => search(connection, path, inside).await,
    }
}

/// Looks for a path in the listing of its directory; where that is refused, in the one above.
async fn search(connection: &mut Connection, path: &RemotePath, reply: Reply) -> Result<Look> {
    match in_parent(connection, path).await? {
        // Looked for by its target, which isn't there.
        InParent::Found(entry) if entry.kind == FileKind::Symlink => Ok(Look::Missing),
        InParent::Found(entry) => Ok(Look::Found(entry)),
        InParent::Absent => Ok(Look::Missing),
        InParent::Unlisted => match parent_is_there(connection, path).await {
            Some(false) => Ok(Look::Missing),
            _ => Ok(Look::Hidden(reply)),
        },
    }
}

/// Returns whether the directory that should hold a path exists; `None` where nobody can tell.
async fn parent_is_there(connection: &mut Connection, path: &RemotePath) -> Option<bool> {
    let mut directory = path.parent()?;
    loop {
        if connection.ask("CWD", &directory).await.ok()?.is_ok() {
            return Some(true);
        }
        match in_parent(connection, &directory).await.ok()? {
            InParent::Found(entry) => return (entry.kind == FileKind::File).then_some(false),
            InParent::Absent => return Some(false),
            InParent::Unlisted => directory = directory.parent()?,
        }
    }
}

/// Looks for the entry of a path in the listing of its directory.
pub(super) async fn in_parent(connection: &mut Connection, path: &RemotePath) -> Result<InParent> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(InParent::Unlisted);
    };
    let listing = Listing::open(connection, &parent).await;
    find_in(connection, listing, name).await
}

/// The same by LIST, which tells where links point more often than MLSD does.
pub(super) async fn listed_in_parent(connection: &mut Connection, path: &RemotePath) -> Result<InParent> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(InParent::Unlisted);
    };
    let listing = Listing::open_inside(connection, &parent).await;
    find_in(connection, listing, name).await
}

async fn find_in(connection: &mut Connection, listing: Result<Listing, Refusal>, name: &[u8]) -> Result<InParent> {
    let mut listing = match listing {
        Ok(listing) => listing,
        Err(Refusal::Said(_)) => return Ok(InParent::Unlisted),
        Err(Refusal::Failed(e)) => return Err(e),
    };
    let mut found = InParent::Absent;
    loop {
        match listing.next(connection).await {
            Ok(Some(entry)) if entry.name == name => found = InParent::Found(entry),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(found),
            // Refused, if late.
            Err(e) if e.kind() == ErrorKind::PermissionDenied && connection.health == Health::Sound => {
                return Ok(InParent::Unlisted);
            }
            Err(e) => return Err(e),
        }
    }
}

async fn has_entries(connection: &mut Connection, path: &RemotePath) -> bool {
    let Ok(mut listing) = Listing::open(connection, path).await else { return false };
    let mut any = false;
    while let Ok(Some(_)) = listing.next(connection).await {
        any = true;
    }
    any
}

//! Changing names and metadata: one or two commands each.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::connection::{Connection, check, line};
use super::features::{DigestCommand, ModeCommand, TimeCommand};
use super::look::{InParent, Look, Wanted, explain, listed_in_parent, look, size};
use super::reply::Reply;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Algorithm, FileKind, Follow, ReadRange, RemotePath, Replace, SetMetadata};

/// Removes a file or link.
pub(super) async fn remove_file(connection: &mut Connection, path: &RemotePath) -> Result<()> {
    simple(connection, "DELE", path, "remove", Wanted::File).await
}

/// Removes an empty directory.
pub(super) async fn remove_dir(connection: &mut Connection, path: &RemotePath) -> Result<()> {
    simple(connection, "RMD", path, "remove the directory", Wanted::EmptyDirectory).await
}

/// Makes a directory.
pub(super) async fn create_dir(connection: &mut Connection, path: &RemotePath) -> Result<()> {
    simple(connection, "MKD", path, "make the directory", Wanted::FreeName).await
}

async fn simple(connection: &mut Connection, verb: &str, path: &RemotePath, what: &str, wanted: Wanted) -> Result<()> {
    let reply = connection.ask(verb, path).await?;
    if !reply.is_ok() {
        return Err(explain(connection, &reply, what, path, wanted).await);
    }
    Ok(())
}

/// How a rename went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renamed {
    /// In one step.
    AtOnce,
    /// What was there had to be put out of the way first.
    InSteps,
}

/// Renames. FTP has no way to forbid that a file is replaced: with `Replace::No` it is looked for just before.
pub(super) async fn rename(
    connection: &mut Connection,
    from: &RemotePath,
    to: &RemotePath,
    replace: Replace,
) -> Result<Renamed> {
    check(to)?;
    if replace == Replace::No
        && let Look::Found(_) = look(connection, to, Follow::Nothing).await?
    {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("rename to {to}: something is there")));
    }
    let mut reply = rename_once(connection, from, to).await?;
    if reply.code() == 532 && connection.give_account().await? {
        reply = rename_once(connection, from, to).await?;
    }
    if reply.is_ok() {
        return Ok(Renamed::AtOnce);
    }
    let told = reply.kind(to.as_bytes());
    let in_the_way = matches!(told, None | Some(ErrorKind::AlreadyExists | ErrorKind::PermissionDenied));
    if replace == Replace::Yes
        && in_the_way
        && let Look::Found(old) = look(connection, to, Follow::Nothing).await?
        && !old.is_dir()
        && in_steps(connection, from, to).await?
    {
        return Ok(Renamed::InSteps);
    }
    let wanted = if replace == Replace::Yes { Wanted::NewFile } else { Wanted::FreeName };
    Err(explain(connection, &reply, &format!("rename to {to}"), to, wanted).await)
}

/// Puts what is in the way under another name, renames, and removes it only then: should the server refuse the rename for
/// another reason, or the connection break, nothing is lost. Returns whether it worked; otherwise all is as before.
async fn in_steps(connection: &mut Connection, from: &RemotePath, to: &RemotePath) -> Result<bool> {
    let old = to.out_of_the_way()?;
    if !rename_once(connection, to, &old).await?.is_ok() {
        // One that a broken rename left is of no use beside what is there now.
        let stale = connection.ask("DELE", &old).await?.is_ok();
        if !stale || !rename_once(connection, to, &old).await?.is_ok() {
            return Ok(false);
        }
    }
    let what_is_where = |e: Error| e.with_hint(format!("what was there before is {old} now"));
    if rename_once(connection, from, to).await.map_err(what_is_where)?.is_ok() {
        let removed = connection.ask("DELE", &old).await.is_ok_and(|reply| reply.is_ok());
        if !removed {
            tracing::warn!("{to}: what was there before is left as {old}");
        }
        return Ok(true);
    }
    match rename_once(connection, &old, to).await.map_err(what_is_where)? {
        back if back.is_ok() => Ok(false),
        back => Err(what_is_where(back.error("give the old file its name back"))),
    }
}

/// Returns the reply to RNTO; a refused RNFR is an error, since it says that `from` is the trouble.
async fn rename_once(connection: &mut Connection, from: &RemotePath, to: &RemotePath) -> Result<Reply> {
    // Where the first is refused, the second is a bad sequence of commands (503) and changes nothing.
    let mut replies = connection.ask_all(&[line("RNFR", from)?, line("RNTO", to)?]).await?.into_iter();
    match (replies.next(), replies.next()) {
        (Some(first), Some(second)) if first.code() / 100 == 3 => Ok(second),
        (Some(first), _) => Err(explain(connection, &first, "rename", from, Wanted::File).await),
        (None, _) => Err(ErrorKind::Protocol.into()),
    }
}

/// Sets time and mode, in one trip.
pub(super) async fn set_metadata(connection: &mut Connection, path: &RemotePath, set: SetMetadata) -> Result<()> {
    let settings = Settings::new(connection, path, set);
    let replies = connection.ask_all(&settings.lines()).await?;
    settings.judge(connection, path, &replies).await
}

/// The commands that set time and mode, and what can't be set.
pub(super) struct Settings {
    commands: Vec<Setting>,
    impossible: Option<Error>,
}

struct Setting {
    line: Vec<u8>,
    what: &'static str,
    /// Whether it was only guessed that the server has the command.
    guessed: bool,
}

impl Settings {
    /// Chooses the commands.
    pub(super) fn new(connection: &Connection, path: &RemotePath, set: SetMetadata) -> Self {
        let features = connection.login().server().map(|server| &server.features);
        let (time_command, mode_command) =
            features.map_or((None, None), |features| (features.time_command(), features.mode_command()));
        let mode = set.mode.map(|mode| set_mode(mode & 0o7777, mode_command, path));
        let time = set.mtime.map(|mtime| set_time(mtime, time_command, path));
        let mut settings = Self { commands: Vec::new(), impossible: None };
        for setting in [mode, time].into_iter().flatten() {
            match setting {
                Ok(setting) => settings.commands.push(setting),
                Err(e) => settings.impossible = Some(e),
            }
        }
        settings
    }

    /// Returns the lines to send.
    pub(super) fn lines(&self) -> Vec<Vec<u8>> {
        self.commands.iter().map(|setting| setting.line.clone()).collect()
    }

    /// Returns how many replies there will be.
    pub(super) fn count(&self) -> usize {
        self.commands.len()
    }

    /// Tells from the replies whether all was set.
    pub(super) async fn judge(self, connection: &mut Connection, path: &RemotePath, replies: &[Reply]) -> Result<()> {
        if let Some((setting, reply)) = self.commands.iter().zip(replies).find(|(_, reply)| !reply.is_ok()) {
            let error = explain(connection, reply, setting.what, path, Wanted::File).await;
            // Where MDTM only reads, the time was taken for a part of the name.
            let unsupported = setting.guessed && error.kind() != ErrorKind::ConnectionLost;
            return Err(if unsupported { error.with_kind(ErrorKind::Unsupported) } else { error });
        }
        self.impossible.map_or(Ok(()), Err)
    }
}

fn set_mode(mode: u32, command: Option<ModeCommand>, path: &RemotePath) -> Result<Setting> {
    let verb = match command.ok_or_else(|| unsupported("mode"))? {
        ModeCommand::SiteChmod => format!("SITE CHMOD {mode:03o}"),
        ModeCommand::Mff => format!("MFF UNIX.mode={mode:04o};"),
    };
    Ok(Setting { line: line(&verb, path)?, what: "set the mode", guessed: false })
}

fn set_time(mtime: SystemTime, command: Option<TimeCommand>, path: &RemotePath) -> Result<Setting> {
    let command = command.ok_or_else(|| unsupported("time"))?;
    let time = stamp(mtime)?;
    let verb = match command {
        TimeCommand::Mfmt => format!("MFMT {time}"),
        TimeCommand::Mff => format!("MFF modify={time};"),
        TimeCommand::SiteUtime => format!("SITE UTIME {time}"),
        TimeCommand::Mdtm => format!("MDTM {time}"),
    };
    Ok(Setting { line: line(&verb, path)?, what: "set the time", guessed: command == TimeCommand::Mdtm })
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the server can't set the {what}"))
}

/// `YYYYMMDDhhmmss`, UTC.
fn stamp(time: SystemTime) -> Result<String> {
    let invalid = |e| Error::new(ErrorKind::Unsupported, "a time that FTP can't write").with_source(e);
    let moment = Timestamp::try_from(time).map_err(invalid)?.to_zoned(TimeZone::UTC);
    Ok(moment.strftime("%Y%m%d%H%M%S").to_string())
}

/// Returns where a link points, which only LIST tells.
pub(super) async fn read_link(connection: &mut Connection, path: &RemotePath) -> Result<Vec<u8>> {
    check(path)?;
    match listed_in_parent(connection, path).await? {
        InParent::Found(entry) if entry.kind != FileKind::Symlink => {
            Err(Error::new(ErrorKind::InvalidPath, "not a symbolic link"))
        }
        InParent::Found(entry) => {
            entry.target.ok_or_else(|| Error::new(ErrorKind::Unsupported, "the server doesn't tell where links point"))
        }
        InParent::Absent => Err(Error::new(ErrorKind::NotFound, "no such link")),
        InParent::Unlisted => Err(Error::new(ErrorKind::Unsupported, "the directory can't be listed")),
    }
}

/// Asks for the digest of a whole file.
///
/// Parts are refused: the commands that take ranges count their ends differently, and ProFTPD ignores RANG for HASH.
pub(super) async fn digest(
    connection: &mut Connection,
    path: &RemotePath,
    algorithm: Algorithm,
    range: ReadRange,
) -> Result<Vec<u8>> {
    check(path)?;
    let known = connection.login().server().map(|server| server.features.digests()).unwrap_or_default();
    let Some((_, command)) = known.into_iter().find(|(offered, _)| *offered == algorithm) else {
        return Err(Error::new(ErrorKind::Unsupported, format!("no {} by the server", algorithm.name())));
    };
    let whole = match range {
        ReadRange { start: 0, end: None } => true,
        ReadRange { start: 0, end } => size(connection, path).await? == end,
        _ => false,
    };
    if !whole {
        return Err(Error::new(ErrorKind::Unsupported, "no digest of a part of a file by the server"));
    }
    let reply = match &command {
        DigestCommand::Hash(name) => {
            let chosen = connection.ask_raw(format!("OPTS HASH {name}").as_bytes()).await?;
            if !chosen.is_ok() {
                return Err(chosen.error("choose the digest"));
            }
            connection.ask("HASH", path).await?
        }
        DigestCommand::Named(verb) => {
            // Numbers behind a space would be taken for a range.
            let quote: &[u8] = if path.as_bytes().contains(&b' ') { b"\"" } else { b"" };
            connection.ask_raw(&[verb.as_bytes(), b" ", quote, path.as_bytes(), quote].concat()).await?
        }
    };
    if !reply.is_ok() {
        return Err(explain(connection, &reply, "digest", path, Wanted::File).await);
    }
    hexadecimal(&reply, algorithm).ok_or_else(|| reply.error("digest").with_kind(ErrorKind::Protocol))
}

/// Finds the digest in a reply: in its last line, the word of the right length that is a hexadecimal number.
fn hexadecimal(reply: &Reply, algorithm: Algorithm) -> Option<Vec<u8>> {
    let length = algorithm.length();
    let text = reply.last_text();
    let mut words = text.split(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b'='));
    let word = words.find(|word| word.len() == 2 * length && word.iter().all(u8::is_ascii_hexdigit))?;
    let digits = std::str::from_utf8(word).ok()?;
    (0..length).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn finds_the_digest_in_what_servers_answer() {
        for text in [
            "213-Computing MD5 digest\r\n213 MD5 0-6 b1946ac92492d2347c6235b4d2611184 /x\r\n",
            "251-Computing MD5 digest\r\n251 /x B1946AC92492D2347C6235B4D2611184\r\n",
            "250 B1946AC92492D2347C6235B4D2611184\r\n",
        ] {
            let digest = hexadecimal(&Reply::parse(text.as_bytes()).unwrap(), Algorithm::Md5).unwrap();
            assert_eq!((digest[0], digest[15], digest.len()), (0xb1, 0x84, 16), "{text}");
        }
        let none = Reply::parse(b"250 done\r\n").unwrap();
        assert_eq!(hexadecimal(&none, Algorithm::Crc32), None);
    }

    #[test]
    fn writes_times() {
        assert_eq!(stamp(UNIX_EPOCH + Duration::from_millis(1_795_301_316_900)).unwrap(), "20261121224836");
        assert_eq!(stamp(UNIX_EPOCH - Duration::from_secs(1)).unwrap(), "19691231235959");
    }
}

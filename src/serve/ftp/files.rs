//! The commands that act on files and directories, and how the system's errors become replies.

use std::io;
use std::time::SystemTime;

use super::command::{Command, split_range};
use super::listing::{Form, can_be_told, entry_line};
use super::session::{Flow, Session};
use super::time::format_time;
use crate::serve::digest;
use crate::serve::root::{Item, MetadataExt, Root, kind_of};
use crate::transport::{Algorithm, FileKind, RemotePath, Replace};

impl Session {
    /// Obeys a command on files; the user is logged in.
    pub(super) async fn files(&mut self, command: Command) -> io::Result<Flow> {
        match command {
            Command::WorkingDirectory => self.working_directory(257, " is the current directory.").await,
            Command::ChangeDirectory(path) => self.change_directory(self.resolve(&path)).await,
            Command::Up => self.change_directory(self.resolve(b"..")).await,
            Command::MachineEntry(path) => self.machine_entry(&path).await,
            Command::Size(path) => self.size(&path).await,
            Command::ModifiedTime(path) => self.modified_time(&path).await,
            Command::SetModifiedTime(time, path) => self.set_modified_time(time, &path).await,
            Command::SetMode(mode, path) => {
                self.change(200, &path, "Mode set.", move |root, path| root.set_mode(path, mode)).await
            }
            Command::Delete(path) => self.change(250, &path, "Deleted.", Root::remove_file).await,
            Command::RemoveDirectory(path) => self.change(250, &path, "Removed.", Root::remove_dir).await,
            Command::MakeDirectory(path) => self.make_directory(&path).await,
            Command::RenameFrom(path) => self.rename_from(&path).await,
            Command::Hash(path) => self.hash(&path).await,
            Command::Digest(algorithm, argument) => self.digest(algorithm, &argument).await,
            other => self.transfers(other).await,
        }
    }

    async fn working_directory(&mut self, code: u16, text: &str) -> io::Result<Flow> {
        let reply = [&quote(&self.directory), text.as_bytes()].concat();
        self.answer(code, reply).await
    }

    async fn change_directory(&mut self, path: RemotePath) -> io::Result<Flow> {
        let asked = path.clone();
        match self.block(move |root| root.list(&asked).map(drop)).await {
            Ok(()) => {
                self.directory = path;
                self.working_directory(250, " is the current directory now.").await
            }
            Err(error) => self.refuse(&error).await,
        }
    }

    async fn machine_entry(&mut self, path: &[u8]) -> io::Result<Flow> {
        let path = self.resolve(path);
        let asked = path.clone();
        let found = self
            .block(move |root| {
                let metadata = root.link_metadata(&asked)?;
                let target = match kind_of(&metadata) {
                    FileKind::Symlink => root.read_link(&asked).ok(),
                    _ => None,
                };
                Ok((metadata, target))
            })
            .await;
        let (metadata, target) = match found {
            Ok(found) => found,
            Err(error) => return self.refuse(&error).await,
        };
        if !can_be_told(path.as_bytes()) {
            return self.answer(553, "FTP can't carry that name.").await;
        }
        let item = Item { name: path.as_bytes().to_vec(), metadata };
        let form = Form::Facts(self.facts, self.site.access);
        let line = entry_line(form, b"", &item, target.as_deref(), SystemTime::now());
        self.control.reply_lines(250, "Here it is:", &[line], "End").await.map(|()| Flow::Continue)
    }

    async fn size(&mut self, path: &[u8]) -> io::Result<Flow> {
        if self.ascii {
            return self.answer(550, "The size in TYPE A is not known, use TYPE I.").await;
        }
        let path = self.resolve(path);
        match self.block(move |root| root.metadata(&path)).await {
            Ok(metadata) if metadata.is_file() => self.answer(213, metadata.len().to_string()).await,
            Ok(_) => self.answer(550, "Not a plain file.").await,
            Err(error) => self.refuse(&error).await,
        }
    }

    async fn modified_time(&mut self, path: &[u8]) -> io::Result<Flow> {
        let path = self.resolve(path);
        match self.block(move |root| root.metadata(&path)).await {
            Ok(metadata) => self.answer(213, format_time(metadata.mtime())).await,
            Err(error) => self.refuse(&error).await,
        }
    }

    async fn set_modified_time(&mut self, time: SystemTime, path: &[u8]) -> io::Result<Flow> {
        let text =
            [format!("Modify={}; ", format_time(crate::transport::Mtime::from(time).unix())).as_bytes(), path].concat();
        self.change(213, path, text, move |root, path| root.set_times(path, None, Some(time))).await
    }

    async fn make_directory(&mut self, path: &[u8]) -> io::Result<Flow> {
        let text = [&quote(&self.resolve(path)), &b" is made."[..]].concat();
        self.change(257, path, text, |root, path| root.create_dir(path, None)).await
    }

    async fn rename_from(&mut self, path: &[u8]) -> io::Result<Flow> {
        let path = self.resolve(path);
        let asked = path.clone();
        match self.block(move |root| root.link_metadata(&asked)).await {
            Ok(_) => {
                self.rename_from = Some(path);
                self.answer(350, "Now the new name.").await
            }
            Err(error) => self.refuse(&error).await,
        }
    }

    pub(super) async fn rename_to(&mut self, from: Option<RemotePath>, path: &[u8]) -> io::Result<Flow> {
        let Some(from) = from else { return self.answer(503, "RNFR comes first.").await };
        self.change(250, path, "Renamed.", move |root, to| root.rename(&from, to, Replace::Yes)).await
    }

    /// draft-bryan-ftpext-hash: `213 SHA-256 0-1023 digest name`; the range is what RANG set, or all.
    async fn hash(&mut self, path: &[u8]) -> io::Result<Flow> {
        let (algorithm, range) = (self.hash, self.range.take());
        let asked = self.resolve(path);
        let digest = self
            .block(move |root| {
                let file = root.open_read(&asked)?;
                let size = file.metadata()?.len();
                let (start, end) = range.map_or((0, size), |(first, last)| (first, last.saturating_add(1).min(size)));
                Ok((digest::of_file(&file, algorithm, start, end)?, start, end.max(start)))
            })
            .await;
        match digest {
            Ok((digest, start, end)) => {
                let name = algorithm.name().to_uppercase();
                let head = format!("{name} {start}-{} {} ", end.saturating_sub(1).max(start), digest::hex(&digest));
                self.answer(213, [head.as_bytes(), path].concat()).await
            }
            Err(error) => self.refuse(&error).await,
        }
    }

    /// `XSHA256 name`, `XSHA256 name start end`, `XSHA256 "name" start end`: the end is the first byte left out.
    async fn digest(&mut self, algorithm: Algorithm, argument: &[u8]) -> io::Result<Flow> {
        let whole = self.resolve(argument);
        let part =
            split_range(argument).map(|(name, start, end)| (self.resolve(&name), start, end.unwrap_or(u64::MAX)));
        let digest = self
            .block(move |root| {
                // A name may end in numbers: first as it stands, then without them.
                let (file, start, end) = match (root.open_read(&whole), part) {
                    (Ok(file), _) => (file, 0, u64::MAX),
                    (Err(_), Some((path, start, end))) => (root.open_read(&path)?, start, end),
                    (Err(error), None) => return Err(error),
                };
                digest::of_file(&file, algorithm, start, end)
            })
            .await;
        match digest {
            Ok(digest) => self.answer(250, digest::hex(&digest)).await,
            Err(error) => self.refuse(&error).await,
        }
    }

    /// Changes something at a path and answers how it went.
    async fn change(
        &mut self,
        code: u16,
        path: &[u8],
        text: impl AsRef<[u8]>,
        change: impl FnOnce(&Root, &RemotePath) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Flow> {
        let path = self.resolve(path);
        match self.block(move |root| change(root, &path)).await {
            Ok(()) => self.answer(code, text).await,
            Err(error) => self.refuse(&error).await,
        }
    }

    /// Answers with the system's error.
    pub(super) async fn refuse(&mut self, error: &io::Error) -> io::Result<Flow> {
        let (code, text) = reply_of(error);
        self.answer(code, text).await
    }
}

/// Returns the reply that an error stands for; clients tell "not there" from "not allowed" by the words only.
pub(super) fn reply_of(error: &io::Error) -> (u16, String) {
    use io::ErrorKind as Kind;
    let code = match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => 452,
        Kind::FileTooLarge => 552,
        Kind::InvalidFilename => 553,
        Kind::TimedOut | Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted | Kind::UnexpectedEof => {
            426
        }
        _ => 550,
    };
    let text = match error.kind() {
        Kind::NotFound => "No such file or directory.".to_owned(),
        Kind::PermissionDenied => "Permission denied.".to_owned(),
        Kind::AlreadyExists => "File exists.".to_owned(),
        Kind::NotADirectory => "Not a directory.".to_owned(),
        Kind::IsADirectory => "Is a directory.".to_owned(),
        Kind::DirectoryNotEmpty => "Directory not empty.".to_owned(),
        Kind::ReadOnlyFilesystem => "Read-only file system.".to_owned(),
        Kind::StorageFull => "No space left on device.".to_owned(),
        _ => format!("{error}."),
    };
    (code, text)
}

/// RFC 959, appendix II: in quotes, and quotes within doubled.
fn quote(path: &RemotePath) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for &byte in path.as_bytes() {
        quoted.push(byte);
        if byte == b'"' {
            quoted.push(byte);
        }
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(quote(&RemotePath::new("/a \"b\"").unwrap()), b"\"/a \"\"b\"\"\"");
    }

    #[test]
    fn a_full_disk_is_not_a_missing_file() {
        assert_eq!(reply_of(&io::ErrorKind::StorageFull.into()).0, 452);
        assert_eq!(reply_of(&io::ErrorKind::NotFound.into()), (550, "No such file or directory.".into()));
    }
}

//! What the tests of trees stand on.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::StreamExt;
use sha2::{Digest as _, Sha256};

use super::compare::Root;
use crate::transfer::Location;
use crate::transport::local::Local;
use crate::transport::{
    Algorithm, Capabilities, Durability, Entry, EntryStream, FileKind, Finish, Finished, Follow, Mtime, ReadRange,
    ReadStream, RemotePath, Replace, SetMetadata, Transport, WriteMode, WriteStream,
};

/// A directory of this machine.
pub(crate) async fn root(path: &Path) -> Root {
    let transport: Arc<dyn Transport> = Arc::new(Local::new());
    let path = RemotePath::new(path.as_os_str().as_bytes()).unwrap();
    let entry = transport.stat(&path, Follow::Links).await.unwrap();
    Root { at: Location { url: format!("file://{path}"), transport, path }, entry }
}

/// Makes a file with a time.
pub(crate) fn write(path: &Path, contents: &str, seconds: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A folder as a server with a clock of its own tells it, which may not keep the times that are set.
#[derive(Debug, Clone)]
pub(crate) struct Odd {
    pub(crate) keeps: bool,
    pub(crate) ahead: i64,
    /// What it makes of names below `from` and `to`.
    pub(crate) folds: fn(&str) -> String,
    /// Lists a link to a directory as a directory.
    pub(crate) hides_links: bool,
    /// What happens when something is renamed.
    pub(crate) on_rename: Option<fn(&RemotePath)>,
    /// The digests that it computes.
    pub(crate) digests: Vec<Algorithm>,
    /// What was asked of it.
    pub(crate) calls: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Default for Odd {
    fn default() -> Self {
        Self {
            keeps: true,
            ahead: 0,
            folds: str::to_owned,
            hides_links: false,
            on_rename: None,
            digests: Vec::new(),
            calls: Arc::default(),
        }
    }
}

impl Odd {
    /// The path on the disk.
    fn at(&self, path: &RemotePath) -> RemotePath {
        let names: Vec<_> = path.components().collect();
        let kept = names.iter().position(|name| [&b"from"[..], b"to"].contains(name)).unwrap_or(names.len());
        let folded = |(at, name): (usize, &&[u8])| match std::str::from_utf8(name) {
            Ok(name) if at > kept => (self.folds)(name).into_bytes(),
            _ => name.to_vec(),
        };
        let folded = names.iter().enumerate().map(folded);
        folded.fold(RemotePath::root(), |path, name| path.join(name).unwrap())
    }

    fn count(&self, call: &'static str) {
        *self.calls.lock().unwrap().entry(call).or_default() += 1;
    }

    fn told(&self, mut entry: Entry) -> Entry {
        entry.mtime = entry.mtime.map(|mtime| Mtime::from_unix(mtime.unix() + self.ahead));
        entry
    }
}

struct OddWrite(Box<dyn WriteStream>, bool);

#[async_trait]
impl WriteStream for OddWrite {
    async fn write(&mut self, chunk: bytes::Bytes) -> crate::Result<()> {
        self.0.write(chunk).await
    }
    fn acknowledged(&self) -> u64 {
        self.0.acknowledged()
    }
    async fn finish(self: Box<Self>, last: Finish) -> crate::Result<Finished> {
        let metadata = if self.1 { last.metadata } else { SetMetadata::default() };
        self.0.finish(Finish { metadata, ..last }).await
    }
}

#[async_trait]
impl Transport for Odd {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            local: false,
            symlinks: !self.hides_links,
            digests: self.digests.clone(),
            ..Local::new().capabilities()
        }
    }
    async fn home(&self) -> crate::Result<RemotePath> {
        Local::new().home().await
    }
    async fn stat(&self, path: &RemotePath, follow: Follow) -> crate::Result<Entry> {
        self.count("stat");
        Local::new().stat(&self.at(path), follow).await.map(|entry| self.told(entry))
    }
    async fn list(&self, path: &RemotePath) -> crate::Result<EntryStream> {
        self.count("list");
        let odd = self.clone();
        let listing = Local::new().list(&self.at(path)).await?;
        let path = self.at(path);
        Ok(Box::pin(listing.then(move |entry| {
            let (odd, path) = (odd.clone(), path.clone());
            async move {
                let mut entry = entry?;
                if entry.kind == FileKind::Symlink && odd.hides_links {
                    let led_to = Local::new().stat(&path.join(&entry.name)?, Follow::Links).await?;
                    entry = Entry { name: entry.name, ..led_to };
                }
                Ok(odd.told(entry))
            }
        })))
    }
    async fn open_read(&self, path: &RemotePath, range: ReadRange) -> crate::Result<Box<dyn ReadStream>> {
        self.count("open_read");
        Local::new().open_read(&self.at(path), range).await
    }
    async fn open_write(&self, path: &RemotePath, mode: WriteMode) -> crate::Result<Box<dyn WriteStream>> {
        self.count("open_write");
        Ok(Box::new(OddWrite(Local::new().open_write(&self.at(path), mode).await?, self.keeps)))
    }
    async fn rename(&self, from: &RemotePath, to: &RemotePath, r: Replace, d: Durability) -> crate::Result<()> {
        self.count("rename");
        Local::new().rename(&self.at(from), &self.at(to), r, d).await?;
        if let Some(then) = self.on_rename {
            then(&self.at(to));
        }
        Ok(())
    }
    async fn remove_file(&self, path: &RemotePath) -> crate::Result<()> {
        self.count("remove_file");
        Local::new().remove_file(&self.at(path)).await
    }
    async fn remove_dir(&self, path: &RemotePath) -> crate::Result<()> {
        self.count("remove_dir");
        Local::new().remove_dir(&self.at(path)).await
    }
    async fn create_dir(&self, path: &RemotePath) -> crate::Result<()> {
        self.count("create_dir");
        Local::new().create_dir(&self.at(path)).await
    }
    async fn set_metadata(&self, path: &RemotePath, metadata: SetMetadata) -> crate::Result<()> {
        self.count("set_metadata");
        Local::new().set_metadata(&self.at(path), metadata).await
    }
    async fn read_link(&self, path: &RemotePath) -> crate::Result<Vec<u8>> {
        self.count("read_link");
        Local::new().read_link(&self.at(path)).await
    }
    async fn symlink(&self, target: &[u8], path: &RemotePath) -> crate::Result<()> {
        self.count("symlink");
        Local::new().symlink(target, &self.at(path)).await
    }
    async fn digest(&self, path: &RemotePath, a: Algorithm, range: ReadRange) -> crate::Result<Vec<u8>> {
        self.count("digest");
        assert_eq!(range, ReadRange::ALL);
        match a {
            // Of this, files that are alike are easily made: all are.
            Algorithm::Crc32 => Ok(vec![0; 4]),
            Algorithm::Sha256 if self.digests.contains(&a) => {
                let path = self.at(path).as_bytes().to_vec();
                Ok(Sha256::digest(std::fs::read(OsStr::from_bytes(&path)).unwrap()).to_vec())
            }
            _ => Local::new().digest(&self.at(path), a, range).await,
        }
    }
    async fn close(&self) -> crate::Result<()> {
        Ok(())
    }
}

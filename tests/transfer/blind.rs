//! A disk that doesn't tell some names apart: by case, or by how an accent is written. It keeps the first one's name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use async_trait::async_trait;
use haul::Result;
use haul::transport::local::Local;
use haul::transport::{
    Algorithm, Capabilities, Durability, Entry, EntryStream, Follow, ReadRange, ReadStream, RemotePath, Replace,
    SetMetadata, Transport, WriteMode, WriteStream,
};
use tokio::sync::Mutex;

/// Local files; each name leads to whatever is there that is the same without case and accents' ways. One at a time
/// gives a name, so that finding and making is one step, as it is on such a disk.
#[derive(Debug, Default)]
pub(crate) struct Blind(Local, Mutex<()>);

impl Blind {
    pub(crate) fn disk() -> Arc<dyn Transport> {
        Arc::new(Self::default())
    }
}

fn fold(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_lowercase().replace("e\u{301}", "é")
}

/// Returns the path under the names that are really there.
fn real(path: &RemotePath) -> RemotePath {
    let mut found = RemotePath::root();
    for name in path.components() {
        let dir = std::path::PathBuf::from(OsStr::from_bytes(found.as_bytes()));
        // Only where the exact name is missing, so that the way to the test's folder is what it is.
        let same = std::fs::symlink_metadata(dir.join(OsStr::from_bytes(name))).is_err().then(|| {
            let names = std::fs::read_dir(&dir).into_iter().flatten().filter_map(|e| Some(e.ok()?.file_name()));
            names.into_iter().find(|other| fold(other.as_bytes()) == fold(name))
        });
        let name = same.flatten().map_or(name.to_vec(), |other| other.as_bytes().to_vec());
        found = found.join(name).unwrap();
    }
    found
}

#[async_trait]
impl Transport for Blind {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    async fn home(&self) -> Result<RemotePath> {
        self.0.home().await
    }
    async fn stat(&self, path: &RemotePath, follow: Follow) -> Result<Entry> {
        self.0.stat(&real(path), follow).await
    }
    async fn list(&self, path: &RemotePath) -> Result<EntryStream> {
        self.0.list(&real(path)).await
    }
    async fn open_read(&self, path: &RemotePath, range: ReadRange) -> Result<Box<dyn ReadStream>> {
        self.0.open_read(&real(path), range).await
    }
    async fn open_write(&self, path: &RemotePath, mode: WriteMode) -> Result<Box<dyn WriteStream>> {
        self.0.open_write(&real(path), mode).await
    }
    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace, d: Durability) -> Result<()> {
        let _one = self.1.lock().await;
        self.0.rename(&real(from), &real(to), replace, d).await
    }
    async fn remove_file(&self, path: &RemotePath) -> Result<()> {
        self.0.remove_file(&real(path)).await
    }
    async fn remove_dir(&self, path: &RemotePath) -> Result<()> {
        self.0.remove_dir(&real(path)).await
    }
    async fn create_dir(&self, path: &RemotePath) -> Result<()> {
        let _one = self.1.lock().await;
        self.0.create_dir(&real(path)).await
    }
    async fn set_metadata(&self, path: &RemotePath, metadata: SetMetadata) -> Result<()> {
        self.0.set_metadata(&real(path), metadata).await
    }
    async fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        self.0.read_link(&real(path)).await
    }
    async fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        let _one = self.1.lock().await;
        self.0.symlink(target, &real(path)).await
    }
    async fn digest(&self, path: &RemotePath, algorithm: Algorithm, range: ReadRange) -> Result<Vec<u8>> {
        self.0.digest(path, algorithm, range).await
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

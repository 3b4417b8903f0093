//! A server that is a folder and breaks on demand, and a case of moving one file to or from it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use haul::transfer::{Event, Job, Location, Observer, Options, Outcome, Summary, Task, run};
use haul::transport::local::Local;
use haul::transport::{
    Algorithm, Capabilities, Durability, Entry, EntryStream, FileKind, Finish, Finished, Follow, ReadRange, ReadStream,
    RemotePath, Replace, SetMetadata, Transport, WriteMode, WriteStream,
};
use haul::{ErrorKind, Result};
use tokio_util::sync::CancellationToken;

pub(crate) const BLOCK: u64 = 1 << 20;

/// Local files that look like a server's; reads and writes break after so many bytes, once for each number given.
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) disk: Local,
    pub(crate) breaks_reading: Mutex<Vec<u64>>,
    pub(crate) breaks_writing: Mutex<Vec<u64>>,
    pub(crate) bytes_read: Arc<Mutex<u64>>,
    pub(crate) hostile_names: Vec<Vec<u8>>,
    pub(crate) lies_about_digests: bool,
    /// So long are the digests that it tells; as long as they should be where nothing is said.
    pub(crate) digest_length: Option<usize>,
    /// Takes the first chunk of a write, loses the rest, and claims success.
    pub(crate) loses_bytes: bool,
    pub(crate) is_remote: bool,
    /// The line breaks before the next renames.
    pub(crate) refuses_renames: Mutex<u32>,
    /// The next parts are removed just before their rename.
    pub(crate) removes_parts: Mutex<u32>,
    /// The next renames are done, and their answers lost.
    pub(crate) loses_answers_of_renames: Mutex<u32>,
    /// The next stream fails with this after so many bytes.
    pub(crate) fails: Mutex<Option<(u64, haul::Error)>>,
    /// The next rename fails so.
    pub(crate) refuses_rename: Mutex<Option<ErrorKind>>,
    /// The most streams that may be open at once; further ones are refused.
    pub(crate) most_streams: Option<usize>,
    /// Streams open now, and the most there were.
    pub(crate) streams: Arc<Mutex<(usize, usize)>>,
}

impl Server {
    pub(crate) fn remote() -> Self {
        Self { is_remote: true, ..Self::default() }
    }
}

#[async_trait]
impl Transport for Server {
    fn capabilities(&self) -> Capabilities {
        let digests = if self.lies_about_digests { vec![Algorithm::Sha256] } else { vec![] };
        Capabilities { local: !self.is_remote, digests, streams: 8, max_connections: 8, ..self.disk.capabilities() }
    }
    async fn home(&self) -> Result<RemotePath> {
        self.disk.home().await
    }
    async fn stat(&self, path: &RemotePath, follow: Follow) -> Result<Entry> {
        self.disk.stat(path, follow).await
    }
    async fn list(&self, path: &RemotePath) -> Result<EntryStream> {
        if self.hostile_names.is_empty() {
            return self.disk.list(path).await;
        }
        let entries = self.hostile_names.iter().map(|name| Ok(Entry::new(name.clone(), FileKind::File)));
        Ok(Box::pin(stream::iter(entries.collect::<Vec<_>>())))
    }
    async fn open_read(&self, path: &RemotePath, range: ReadRange) -> Result<Box<dyn ReadStream>> {
        let open = self.open()?;
        let inner = self.disk.open_read(path, range).await?;
        let left = self.breaks_reading.lock().unwrap().pop();
        let fails = self.fails.lock().unwrap().take();
        Ok(Box::new(BreakingRead { inner, left, fails, count: Arc::clone(&self.bytes_read), _open: open }))
    }
    async fn open_write(&self, path: &RemotePath, mode: WriteMode) -> Result<Box<dyn WriteStream>> {
        let open = self.open()?;
        let inner = self.disk.open_write(path, mode).await?;
        let left = self.breaks_writing.lock().unwrap().pop();
        let fails = self.fails.lock().unwrap().take();
        Ok(Box::new(BreakingWrite { inner, left, fails, loses: self.loses_bytes, taken: 0, _open: open }))
    }
    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace, d: Durability) -> Result<()> {
        if let Some(kind) = self.refuses_rename.lock().unwrap().take() {
            return Err(haul::Error::new(kind, "rename").at(from));
        }
        if one_less(&self.refuses_renames) {
            return Err(ErrorKind::ConnectionLost.into());
        }
        if one_less(&self.removes_parts) {
            self.disk.remove_file(from).await?;
        }
        self.disk.rename(from, to, replace, d).await?;
        if one_less(&self.loses_answers_of_renames) { Err(ErrorKind::ConnectionLost.into()) } else { Ok(()) }
    }
    async fn remove_file(&self, path: &RemotePath) -> Result<()> {
        self.disk.remove_file(path).await
    }
    async fn remove_dir(&self, path: &RemotePath) -> Result<()> {
        self.disk.remove_dir(path).await
    }
    async fn create_dir(&self, path: &RemotePath) -> Result<()> {
        self.disk.create_dir(path).await
    }
    async fn set_metadata(&self, path: &RemotePath, metadata: SetMetadata) -> Result<()> {
        self.disk.set_metadata(path, metadata).await
    }
    async fn read_link(&self, path: &RemotePath) -> Result<Vec<u8>> {
        self.disk.read_link(path).await
    }
    async fn symlink(&self, target: &[u8], path: &RemotePath) -> Result<()> {
        self.disk.symlink(target, path).await
    }
    async fn digest(&self, _: &RemotePath, _: Algorithm, _: ReadRange) -> Result<Vec<u8>> {
        Ok(vec![0; self.digest_length.unwrap_or(32)])
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Server {
    /// Counts a stream in.
    fn open(&self) -> Result<Open> {
        let mut streams = self.streams.lock().unwrap();
        if self.most_streams.is_some_and(|most| streams.0 >= most) {
            return Err(ErrorKind::TooManyConnections.into());
        }
        streams.0 += 1;
        streams.1 = streams.1.max(streams.0);
        Ok(Open(Arc::clone(&self.streams)))
    }
}

/// Takes one off, if there is one.
fn one_less(left: &Mutex<u32>) -> bool {
    let mut left = left.lock().unwrap();
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

/// An open stream; counts itself out.
struct Open(Arc<Mutex<(usize, usize)>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().0 -= 1;
    }
}

/// Cuts a chunk to what may still pass; fails when nothing may.
pub(crate) fn pass(left: &mut Option<u64>, chunk: &mut Bytes) -> Result<()> {
    let Some(left) = left else { return Ok(()) };
    if *left == 0 {
        return Err(ErrorKind::ConnectionLost.into());
    }
    chunk.truncate(usize::try_from(*left).unwrap());
    *left -= chunk.len() as u64;
    Ok(())
}

/// Fails once so many bytes have passed.
fn fail(fails: &mut Option<(u64, haul::Error)>, passed: usize) -> Result<()> {
    if let Some((left, _)) = fails {
        *left = left.saturating_sub(passed as u64);
        if *left == 0 {
            return Err(fails.take().unwrap().1);
        }
    }
    Ok(())
}

pub(crate) struct BreakingRead {
    inner: Box<dyn ReadStream>,
    left: Option<u64>,
    fails: Option<(u64, haul::Error)>,
    count: Arc<Mutex<u64>>,
    _open: Open,
}

#[async_trait]
impl ReadStream for BreakingRead {
    async fn read(&mut self) -> Result<Bytes> {
        let mut chunk = self.inner.read().await?;
        pass(&mut self.left, &mut chunk)?;
        fail(&mut self.fails, chunk.len())?;
        *self.count.lock().unwrap() += chunk.len() as u64;
        Ok(chunk)
    }
    async fn finish(self: Box<Self>) -> Result<()> {
        self.inner.finish().await
    }
}

pub(crate) struct BreakingWrite {
    inner: Box<dyn WriteStream>,
    left: Option<u64>,
    fails: Option<(u64, haul::Error)>,
    loses: bool,
    taken: u64,
    _open: Open,
}

#[async_trait]
impl WriteStream for BreakingWrite {
    async fn write(&mut self, mut chunk: Bytes) -> Result<()> {
        let whole = chunk.len();
        fail(&mut self.fails, whole)?;
        pass(&mut self.left, &mut chunk)?;
        let cut = chunk.len() < whole;
        self.taken += whole as u64;
        if self.loses && self.taken > whole as u64 {
            return Ok(());
        }
        self.inner.write(chunk).await?;
        if cut { Err(ErrorKind::ConnectionLost.into()) } else { Ok(()) }
    }
    fn acknowledged(&self) -> u64 {
        self.inner.acknowledged()
    }
    async fn hand_on(&mut self) -> Result<()> {
        self.inner.hand_on().await
    }
    async fn finish(self: Box<Self>, last: Finish) -> Result<Finished> {
        self.inner.finish(last).await
    }
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) resumed: Mutex<Vec<u64>>,
    pub(crate) retries: Mutex<u32>,
    pub(crate) outcomes: Mutex<Vec<Outcome>>,
    pub(crate) stop_at: Option<(u64, CancellationToken)>,
    pub(crate) touch: Option<PathBuf>,
}

impl Observer for Log {
    fn event(&self, event: Event) {
        match event {
            Event::Resumed { offset, .. } => self.resumed.lock().unwrap().push(offset),
            Event::Retrying { .. } => *self.retries.lock().unwrap() += 1,
            Event::Finished(outcome) => self.outcomes.lock().unwrap().push(outcome),
            Event::Progress { position, .. } => {
                if let Some(touch) =
                    self.touch.as_ref().filter(|_| position >= BLOCK && *self.retries.lock().unwrap() == 0)
                {
                    std::fs::File::options().write(true).open(touch).unwrap().set_modified(UNIX_EPOCH).unwrap();
                }
                if let Some((stop, cancel)) = &self.stop_at
                    && position >= *stop
                {
                    cancel.cancel();
                }
            }
            _ => {}
        }
    }
}

/// A folder with a source, the destination beside it, and the state folder.
pub(crate) struct Case {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) options: Options,
}

impl Case {
    pub(crate) fn new(size: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("source"), contents(size)).unwrap();
        let file = std::fs::File::options().write(true).open(dir.path().join("source")).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        let options = Options { retry_wait: Duration::from_millis(1), ..Options::new(dir.path().join("state")) };
        Self { dir, options }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn at(&self, transport: &Arc<Server>, name: &str) -> Location {
        let path = RemotePath::new(self.path(name).as_os_str().as_encoded_bytes()).unwrap();
        let transport: Arc<dyn Transport> = Arc::<Server>::clone(transport);
        Location { transport, url: format!("test://{path}"), path }
    }

    pub(crate) fn job(&self, from: &Arc<Server>, to: &Arc<Server>) -> Job {
        Job { source: self.at(from, "source"), destination: self.at(to, "final"), entry: None, folder: None }
    }

    pub(crate) async fn go(&self, from: &Arc<Server>, to: &Arc<Server>) -> (Summary, Arc<Log>) {
        self.go_with(from, to, Log::default(), CancellationToken::new()).await
    }

    pub(crate) async fn go_with(
        &self,
        from: &Arc<Server>,
        to: &Arc<Server>,
        log: Log,
        cancel: CancellationToken,
    ) -> (Summary, Arc<Log>) {
        self.run(self.job(from, to), log, cancel).await
    }

    pub(crate) async fn go_job(&self, job: Job) -> (Summary, Arc<Log>) {
        self.run(job, Log::default(), CancellationToken::new()).await
    }

    async fn run(&self, job: Job, log: Log, cancel: CancellationToken) -> (Summary, Arc<Log>) {
        let log = Arc::new(log);
        let tasks = stream::iter([Task::File(job)]);
        let observer: Arc<dyn Observer> = Arc::<Log>::clone(&log);
        (run(tasks, &self.options, observer, cancel).await.unwrap(), log)
    }

    /// Runs until so many bytes are there, then cancels: what a Ctrl-C leaves.
    pub(crate) async fn interrupt_at(&self, from: &Arc<Server>, to: &Arc<Server>, position: u64) {
        let cancel = CancellationToken::new();
        let log = Log { stop_at: Some((position, cancel.clone())), ..Log::default() };
        let (summary, _) = self.go_with(from, to, log, cancel).await;
        assert!(summary.cancelled && !self.path("final").exists());
    }

    pub(crate) fn assert_whole(&self) {
        assert!(std::fs::read(self.path("final")).unwrap() == std::fs::read(self.path("source")).unwrap());
        assert_eq!(self.strays(), Vec::<String>::new());
    }

    /// Part files and journals that are left.
    pub(crate) fn strays(&self) -> Vec<String> {
        let names = |dir: &Path| -> Vec<String> {
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        };
        let mut all: Vec<_> = names(self.dir.path()).into_iter().filter(|n| n.contains(".haul-")).collect();
        let journals = names(&self.path("state/transfers"));
        all.extend(journals.into_iter().filter(|n| n.ends_with(".journal") || n.ends_with(".new")));
        all
    }

    pub(crate) fn part(&self) -> PathBuf {
        let name = self.strays().into_iter().find(|name| name.ends_with(".part")).expect("a part file");
        self.path(&name)
    }
}

pub(crate) fn contents(size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A server and this machine.
pub(crate) fn pair() -> (Arc<Server>, Arc<Server>) {
    (Arc::new(Server::remote()), Arc::new(Server::default()))
}

/// Both directions: download and upload.
pub(crate) fn both_ways() -> [(Arc<Server>, Arc<Server>); 2] {
    let (server, here) = pair();
    [pair(), (here, server)]
}

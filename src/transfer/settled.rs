//! What was written without `--durable` and may not be on the disk yet: remembered until it surely is.
//!
//! A disk that loses power may show a file with its name, size and time, and zeros in it. So each run that writes to
//! this machine leaves a mark: an empty directory whose name says in which boot, and since when. Files with a journal
//! leave it in there. A later boot believes "same size and time" of no file that was changed in the time of such a
//! mark, until its content is proven: see decision 21. Marks are metadata only, so a disk keeps them in order with the
//! renames that they are about, and nothing is ever synced for them.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use super::types::{Location, Options};
use crate::error::Result;
use crate::transport::{Durability, ReadRange, SetMetadata};

/// After so many seconds the kernel has written what was written to it, slow and busy disks included.
const SURELY: u64 = 600;
/// How long the marks of earlier boots count, in seconds.
const KEPT: u64 = 90 * 24 * 3600;
/// Clocks of file systems tick coarsely.
const TICK: u64 = 5;
/// What a disk writes at least at once.
const SECTOR: usize = 512;
/// Never so many in an honest state folder.
const MOST_MARKS: usize = 10_000;

/// Which run of the machine this is, from power on to power off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// A name that no other boot has; `None` where the system gives none, and every run counts as one of its own.
    pub id: Option<String>,
    /// When it began, if known.
    pub since: Option<SystemTime>,
}

impl Boot {
    /// Asks the kernel.
    pub fn current() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let id = id.map(|id| id.trim().to_owned()).filter(|id| is_name(id));
        let uptime = fs::read_to_string("/proc/uptime").ok();
        let uptime: Option<f64> = uptime.and_then(|text| text.split_whitespace().next()?.parse().ok());
        let uptime = uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Self { id, since: uptime.and_then(|uptime| SystemTime::now().checked_sub(uptime)) }
    }
}

/// The marks of this run and of those before.
#[derive(Debug)]
pub(super) struct Unsettled {
    dir: PathBuf,
    boot: String,
    own: Mutex<Own>,
    doubts: Vec<Doubt>,
}

/// This run's mark, once there is one.
#[derive(Debug, Default)]
enum Own {
    #[default]
    None,
    Made {
        mark: Mark,
        /// Locked as long as the run lives.
        _lock: Option<File>,
    },
    /// It couldn't be made; that was told.
    Failed,
}

/// The name of a mark: `BOOT.RANDOM.FROM.UNTIL`, in seconds since 1970; `UNTIL` is 0 as long as the run goes on.
#[derive(Debug, Clone)]
struct Mark {
    boot: String,
    random: String,
    from: u64,
    until: u64,
}

/// A time in an earlier boot whose files may have lost what is in them.
#[derive(Debug)]
struct Doubt {
    journals: PathBuf,
    from: u64,
    until: u64,
}

/// Returns whether an earlier boot may have taken what is in files of this machine that look as they should.
pub(crate) fn may_have_lost_files(options: &Options) -> bool {
    !Unsettled::open(&options.state_dir.join("transfers"), &options.boot).doubts.is_empty()
}

impl Unsettled {
    /// Reads the marks in the folder of journals, and removes those that are of no use any more.
    pub(super) fn open(journals: &Path, boot: &Boot) -> Self {
        let dir = journals.join("unsettled");
        let id = boot.id.clone().unwrap_or_else(random);
        let now = seconds(SystemTime::now());
        let began = boot.since.map_or(now, seconds);
        let mut doubts = Vec::new();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten().take(MOST_MARKS) {
            let Some(mark) = Mark::parse(entry.file_name().as_bytes()) else { continue };
            let path = entry.path();
            if mark.boot == id {
                tidy(&dir, &path, mark, now);
            } else if now.saturating_sub(mark.until.max(mark.from)) > KEPT {
                let _ = fs::remove_dir_all(&path);
            } else {
                // What was touched a little later may have lost its content all the same, but not in this boot.
                let until = if mark.until == 0 { began } else { began.min(mark.until + SURELY) };
                doubts.push(Doubt { journals: path, from: mark.from.saturating_sub(TICK), until });
            }
        }
        Self { dir, boot: id, own: Mutex::default(), doubts }
    }

    /// Says that a file is about to get its name on this machine; returns why that could not be noted, once.
    pub(super) fn begin(&self) -> Option<io::Error> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let now = seconds(SystemTime::now());
        match &mut *own {
            Own::Failed => None,
            Own::Made { mark, .. } => {
                // A clock that was set back counts as well.
                if now > mark.from + 2 * SURELY || now < mark.from {
                    self.renew(mark, now);
                }
                None
            }
            Own::None => {
                let made = self.make(now);
                let (state, error) = match made {
                    Ok(made) => (made, None),
                    Err(error) => (Own::Failed, Some(error)),
                };
                *own = state;
                error
            }
        }
    }

    /// Returns where the journal of a file that is complete is kept until the file has surely reached the disk.
    pub(super) fn kept_journals(&self) -> Option<PathBuf> {
        match &*self.own.lock().unwrap_or_else(PoisonError::into_inner) {
            Own::Made { mark, .. } => Some(self.dir.join(mark.name())),
            Own::None | Own::Failed => None,
        }
    }

    /// Ends this run's mark: nothing more is written.
    pub(super) fn end(&self) {
        if let Own::Made { mut mark, .. } =
            std::mem::take(&mut *self.own.lock().unwrap_or_else(PoisonError::into_inner))
        {
            let path = self.dir.join(mark.name());
            mark.until = seconds(SystemTime::now());
            let _ = fs::rename(path, self.dir.join(mark.name()));
        }
    }

    /// Returns whether a file of this machine may have lost its content with the power. Short, but blocks.
    pub(super) fn doubts(&self, at: &Location) -> bool {
        if self.doubts.is_empty() || !at.transport.capabilities().local {
            return false;
        }
        let Ok(found) = fs::symlink_metadata(path_of(at)) else { return false };
        let changed = u64::try_from(found.ctime()).unwrap_or(0);
        self.doubts.iter().any(|doubt| (doubt.from..=doubt.until).contains(&changed))
    }

    /// Returns the folders where a journal that was kept in an earlier boot may be.
    pub(super) fn earlier_journals(&self) -> impl Iterator<Item = &Path> {
        self.doubts.iter().map(|doubt| doubt.journals.as_path())
    }

    fn make(&self, now: u64) -> io::Result<Own> {
        let mark = Mark { boot: self.boot.clone(), random: random(), from: now, until: 0 };
        let path = self.dir.join(mark.name());
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        // Tells other runs that this one lives; where there are no locks, they leave all marks of this boot alone.
        let lock = File::open(&path).ok().filter(|file| flock(file, FlockOperation::NonBlockingLockShared).is_ok());
        Ok(Own::Made { mark, _lock: lock })
    }

    /// Moves the start of a long run's mark on, and removes journals of what has settled.
    fn renew(&self, mark: &mut Mark, now: u64) {
        let old = self.dir.join(mark.name());
        let from = if now < mark.from { now } else { now - SURELY };
        let renewed = Mark { from, ..mark.clone() };
        if fs::rename(&old, self.dir.join(renewed.name())).is_err() {
            return;
        }
        *mark = renewed;
        for entry in fs::read_dir(self.dir.join(mark.name())).into_iter().flatten().flatten() {
            let settled = entry.metadata().is_ok_and(|m| u64::try_from(m.ctime()).unwrap_or(0) < from);
            if settled {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Mark {
    fn name(&self) -> String {
        format!("{}.{}.{}.{}", self.boot, self.random, self.from, self.until)
    }

    fn parse(name: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(name).ok()?.split('.');
        let mut text = || fields.next().filter(|field| is_name(field)).map(str::to_owned);
        let (boot, random) = (text()?, text()?);
        let (from, until) = (text()?.parse().ok()?, text()?.parse().ok()?);
        fields.next().is_none().then_some(Self { boot, random, from, until })
    }
}

/// Removes a mark of this boot once what it is about has settled; one whose run was killed ends now.
fn tidy(dir: &Path, path: &Path, mark: Mark, now: u64) {
    if mark.until == 0 {
        let is_dead = File::open(path).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_dead {
            let _ = fs::rename(path, dir.join(Mark { until: now, ..mark }.name()));
        }
    } else if now.saturating_sub(mark.until) > SURELY {
        let _ = fs::remove_dir_all(path);
    }
}

/// Returns whether a file shows what lost content looks like: a sector of nothing but zeros, or a disk of a kind that
/// may show anything.
pub(super) async fn may_have_lost_content(at: &Location) -> Result<bool> {
    if !shows_zeros(&path_of(at)) {
        return Ok(true);
    }
    let mut stream = at.transport.open_read(&at.path, ReadRange::ALL).await?;
    let mut run = 0;
    let mut position = 0;
    loop {
        let chunk = stream.read().await?;
        if chunk.is_empty() {
            return Ok(position % SECTOR != 0 && run >= position % SECTOR);
        }
        for &byte in &chunk {
            run = if byte == 0 { run + 1 } else { 0 };
            position += 1;
            if position % SECTOR == 0 {
                if run >= SECTOR {
                    return Ok(true);
                }
                run = 0;
            }
        }
    }
}

/// Returns whether what a disk has lost reads as zeros there, rather than as what was there before.
fn shows_zeros(path: &Path) -> bool {
    const KNOWN: [u64; 8] = [
        0xef53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683e, // btrfs
        0xf2f5_2010, // F2FS
        0x2fc1_2fc1, // ZFS
        0xca45_1a4e, // bcachefs
        0x794c_7630, // overlayfs
        0x0102_1994, // tmpfs, which loses everything
    ];
    rustix::fs::statfs(path).is_ok_and(|disk| KNOWN.contains(&(disk.f_type.cast_unsigned() & 0xffff_ffff)))
}

/// Gives a proven file a new time of change, which no mark of an earlier boot is about. Not to be able to is no harm:
/// it is proven again.
pub(super) async fn settle(at: &Location, mtime: Option<SystemTime>) {
    let _ = at.transport.set_metadata(&at.path, SetMetadata { mtime, mode: None }).await;
}

/// Returns whether a file that is written to this place needs a mark.
pub(super) fn needs_mark(at: &Location, durability: Durability) -> bool {
    at.transport.capabilities().local && durability == Durability::Cached
}

/// Returns whether a file was changed so lately that it may not be on the disk yet. Short, but blocks.
pub(super) fn is_fresh(at: &Location) -> bool {
    let now = seconds(SystemTime::now());
    fs::symlink_metadata(path_of(at))
        .is_ok_and(|found| u64::try_from(found.ctime()).is_ok_and(|changed| changed + SURELY > now))
}

fn path_of(at: &Location) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(at.path.as_bytes()))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn random() -> String {
    format!("{:016x}", getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn boot(id: &str) -> Boot {
        Boot { id: Some(id.into()), since: Some(SystemTime::now()) }
    }

    fn marks(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir.join("unsettled")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn plant(dir: &Path, mark: &str) -> PathBuf {
        let path = dir.join("unsettled").join(mark);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("0123456789abcdef.journal"), "").unwrap();
        path
    }

    fn at(path: &Path) -> Location {
        let path = crate::transport::RemotePath::new(path.as_os_str().as_bytes()).unwrap();
        let transport = std::sync::Arc::new(crate::transport::local::Local::new());
        Location { transport, url: String::new(), path }
    }

    #[test]
    fn a_run_that_writes_leaves_one_mark_and_the_next_boot_doubts_what_it_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let run = Unsettled::open(dir.path(), &boot("a"));
        assert_eq!(marks(dir.path()), Vec::<String>::new());
        for _ in 0..3 {
            assert!(run.begin().is_none());
        }
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        run.end();
        assert_eq!(marks(dir.path()).len(), 1);
        assert!(!Unsettled::open(dir.path(), &boot("a")).doubts(&at(&file)), "the same boot");
        assert!(Unsettled::open(dir.path(), &boot("b")).doubts(&at(&file)), "another boot");
        let unknown = Boot { id: None, since: None };
        assert!(Unsettled::open(dir.path(), &unknown).doubts(&at(&file)), "who knows");
        // A run that the loss of power ended.
        let run = Unsettled::open(dir.path(), &boot("c"));
        run.begin();
        assert!(Unsettled::open(dir.path(), &boot("d")).doubts(&at(&file)));
    }

    #[test]
    fn what_was_written_long_before_a_mark_or_long_after_is_not_doubted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let now = seconds(SystemTime::now());
        plant(dir.path(), &format!("a.1.{}.{}", now - 3 * HOUR, now - HOUR));
        plant(dir.path(), &format!("a.2.{}.0", now + HOUR));
        assert!(!Unsettled::open(dir.path(), &boot("b")).doubts(&at(&file)));
        plant(dir.path(), &format!("a.3.{}.{}", now - HOUR, now - 1));
        assert!(Unsettled::open(dir.path(), &boot("b")).doubts(&at(&file)), "touched a little later");
    }

    #[test]
    fn marks_go_when_what_they_are_about_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let now = seconds(SystemTime::now());
        let settled = plant(dir.path(), &format!("a.1.{}.{}", now - 2 * HOUR, now - HOUR));
        let recent = plant(dir.path(), &format!("a.2.{}.{}", now - HOUR, now - 1));
        let killed = plant(dir.path(), &format!("a.3.{}.0", now - 2 * HOUR));
        let other = plant(dir.path(), &format!("b.4.{}.{}", now - 2 * HOUR, now - HOUR));
        let ancient = plant(dir.path(), &format!("b.5.{}.{}", now - KEPT - HOUR, now - KEPT - HOUR));
        let nobody = plant(dir.path(), "what is this");
        Unsettled::open(dir.path(), &boot("a"));
        assert!(!settled.exists() && recent.exists() && other.exists() && !ancient.exists() && nobody.exists());
        assert!(!killed.exists(), "of a run that was killed it isn't known since when: its time ends now");
        assert!(marks(dir.path()).iter().any(|name| name.starts_with("a.3.") && !name.ends_with(".0")));
    }

    #[test]
    fn the_mark_of_a_run_that_lives_stays_and_a_long_one_moves_on() {
        let dir = tempfile::tempdir().unwrap();
        let run = Unsettled::open(dir.path(), &boot("a"));
        run.begin();
        Unsettled::open(dir.path(), &boot("a"));
        assert!(marks(dir.path())[0].ends_with(".0"));
        let began = match &mut *run.own.lock().unwrap() {
            Own::Made { mark, .. } => {
                let old = dir.path().join("unsettled").join(mark.name());
                mark.from -= HOUR;
                fs::rename(old, dir.path().join("unsettled").join(mark.name())).unwrap();
                mark.from
            }
            _ => unreachable!(),
        };
        run.begin();
        let names = marks(dir.path());
        assert_eq!(names.len(), 1);
        assert!(Mark::parse(names[0].as_bytes()).unwrap().from > began);
    }

    #[tokio::test]
    async fn lost_content_is_a_sector_of_zeros() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let file = dir.path().join("file");
        let lost = async |contents: &[u8]| {
            fs::write(&file, contents).unwrap();
            may_have_lost_content(&at(&file)).await.unwrap()
        };
        assert!(!lost(b"").await && !lost(&[1; 5000]).await);
        let mut contents = vec![1; 3000];
        contents[100..1023].fill(0);
        assert!(!lost(&contents).await, "zeros that no sector is full of");
        contents[1023] = 0;
        assert!(lost(&contents).await);
        let mut contents = vec![1; 3000];
        contents[2561..].fill(0);
        assert!(!lost(&contents).await);
        contents[2560] = 0;
        assert!(lost(&contents).await, "the last sector isn't full");
    }
}

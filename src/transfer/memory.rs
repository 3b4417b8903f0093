//! What was found out about a host, for the next run: how many connections served best.
//!
//! One small file in the state folder. Nothing depends on it: a missing or damaged one means finding out again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;

/// How long something counts.
const SECONDS_KEPT: u64 = 30 * 24 * 3600;
/// The most hosts remembered; the oldest go first.
const MOST_HOSTS: usize = 1000;
/// No honest file is longer.
const LONGEST: u64 = 1 << 20;

/// The hosts that are remembered.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    hosts: BTreeMap<String, Host>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Host {
    connections: usize,
    /// Whether it is at a distance at which a connection costs time, so that all are best opened together.
    #[serde(default)]
    far: bool,
    /// Seconds since 1970.
    at: u64,
}

impl Memory {
    /// Reads what is there.
    pub(super) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("hosts.json");
        // Left by a process that was killed as it wrote; one that is writing now does without.
        let _ = fs::remove_file(path.with_extension("new"));
        let small = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LONGEST);
        let text = small.then(|| fs::read(&path).ok()).flatten().unwrap_or_default();
        let mut hosts: BTreeMap<String, Host> = serde_json::from_slice(&text).unwrap_or_default();
        let now = now();
        hosts.retain(|_, host| now.saturating_sub(host.at) < SECONDS_KEPT);
        Self { path, hosts }
    }

    /// Returns what names a host: the URL up to its path.
    pub(super) fn host_of(url: &str) -> String {
        let start = url.find("://").map_or(0, |at| at + 3);
        let end = url[start..].find('/').map_or(url.len(), |at| start + at);
        url[..end].to_owned()
    }

    /// Returns how many connections served a host best.
    pub(super) fn get(&self, host: &str) -> Option<usize> {
        self.hosts.get(host).map(|host| host.connections).filter(|&connections| connections > 0)
    }

    /// Writes down how many connections served a host best; failing to is no error.
    pub(super) fn put(&mut self, host: &str, connections: usize, far: bool) {
        self.hosts.insert(host.to_owned(), Host { connections, far, at: now() });
        while self.hosts.len() > MOST_HOSTS {
            let oldest = self.hosts.iter().min_by_key(|(_, host)| host.at).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.hosts.remove(&name));
        }
        if let Err(e) = self.write() {
            tracing::debug!("{}: {e}", self.path.display());
        }
    }

    fn write(&self) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(&self.hosts)?)?;
        fs::rename(&new, &self.path)
    }
}

/// Returns how many connections to open at once to an endpoint: as many as served it best in earlier runs, where it is
/// so far away that opening them later costs time, else one.
pub fn remembered_connections(state_dir: &Path, endpoint: &Endpoint) -> usize {
    let memory = Memory::open(state_dir);
    let host = memory.hosts.get(&Memory::host_of(&endpoint.to_string()));
    host.filter(|host| host.far).map_or(1, |host| host.connections)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        Memory::open(dir.path()).put("sftp://me@host", 4, true);
        Memory::open(dir.path()).put("ftp://host:2121", 2, false);
        let memory = Memory::open(dir.path());
        assert_eq!((memory.get("sftp://me@host"), memory.get("ftp://host:2121")), (Some(4), Some(2)));
        assert_eq!(memory.get("sftp://host"), None);
        let at_once = |url: &str| remembered_connections(dir.path(), &Endpoint::parse(url).unwrap());
        assert_eq!((at_once("sftp://me@host/a"), at_once("ftp://host:2121/b"), at_once("sftp://host/")), (4, 1, 1));
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hosts.json"), "{\"x\":").unwrap();
        assert_eq!(Memory::open(dir.path()).get("x"), None);
    }

    #[test]
    fn a_host_is_named_without_its_paths() {
        assert_eq!(Memory::host_of("sftp://me@host:22/a/b"), "sftp://me@host:22");
        assert_eq!(Memory::host_of("ftp://host"), "ftp://host");
    }
}

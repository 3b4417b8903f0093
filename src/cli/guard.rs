//! What `rm` never removes: the root, home directories, and whatever holds one of them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use haul::plan::Place;
use haul::transport::{FileKind, Follow, RemotePath, Transport};
use haul::{Error, ErrorKind};

/// As many links are followed in one path as Linux follows.
const MOST_LINKS: usize = 40;

/// The directories of one endpoint that must stay.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Where a login starts; with every link followed.
    home: RemotePath,
    /// On this machine: device and inode of every directory and link that leads to a directory in use. Paths could be
    /// fooled by links and mounts, these can't.
    kept: HashSet<(u64, u64)>,
}

impl Guard {
    /// Looks up what must stay.
    ///
    /// # Errors
    /// Those of the look-up: without knowing what must stay, nothing may be removed.
    pub(crate) async fn new(place: &Place) -> Result<Self, Error> {
        let transport = &*place.transport;
        let home = transport.home().await?;
        let mut kept = HashSet::new();
        if transport.capabilities().local {
            let here = PathBuf::from(OsStr::from_bytes(home.as_bytes()));
            for path in [Some(here), std::env::home_dir(), home_of_account()].into_iter().flatten() {
                keep(&path, &mut kept).map_err(|e| Error::io("find out what must be kept", e).at(path.display()))?;
            }
        }
        Ok(Self { home: follow(transport, &home).await?, kept })
    }

    /// Refuses a path that the user named if its removal would take along what must stay.
    pub(crate) async fn check(&self, place: &Place, path: &RemotePath) -> Result<(), Error> {
        let Some(name) = path.file_name() else { return Err(refused()) };
        // The last component stays as it is: a link is removed itself.
        let above = path.parent().unwrap_or_else(RemotePath::root);
        let real = follow(&*place.transport, &above).await?.join(name)?;
        match [path, &real].into_iter().any(|path| is_at_or_above(path, &self.home)) {
            true => Err(refused()),
            false => self.check_identity(path),
        }
    }

    /// Refuses what is one of the kept directories, whatever it is called here; a mount may show one anywhere.
    pub(crate) fn check_identity(&self, path: &RemotePath) -> Result<(), Error> {
        if self.kept.is_empty() {
            return Ok(());
        }
        match Path::new(OsStr::from_bytes(path.as_bytes())).symlink_metadata() {
            Ok(metadata) if self.kept.contains(&(metadata.dev(), metadata.ino())) => Err(refused()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("look at", error)),
            _ => Ok(()),
        }
    }
}

fn refused() -> Error {
    Error::new(ErrorKind::Usage, "refused to remove the root, a home directory or what holds one")
        .with_hint("to empty a directory, remove what is in it: 'URL/*'")
}

/// Returns the home directory that the system has on file, whatever `HOME` says.
fn home_of_account() -> Option<PathBuf> {
    let accounts = std::fs::read("/etc/passwd").ok()?;
    let user = rustix::process::getuid().as_raw().to_string();
    let mut fields = accounts.split(|&b| b == b'\n').map(|line| line.split(|&b| b == b':').collect::<Vec<_>>());
    let home = fields.find(|fields| fields.get(2) == Some(&user.as_bytes()))?.get(5).copied()?;
    (!home.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(home)))
}

/// Adds a directory, all above it, and every link on the way there.
fn keep(path: &Path, kept: &mut HashSet<(u64, u64)>) -> io::Result<()> {
    let mut waiting = vec![std::path::absolute(path)?];
    let mut links = 0;
    while let Some(path) = waiting.pop() {
        for above in path.ancestors() {
            match above.symlink_metadata() {
                Ok(metadata) => {
                    kept.insert((metadata.dev(), metadata.ino()));
                    if metadata.is_symlink() && links < MOST_LINKS {
                        links += 1;
                        let parent = above.parent().unwrap_or(above);
                        waiting.push(parent.join(above.read_link()?));
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
    }
    match path.canonicalize() {
        Ok(real) => {
            for above in real.ancestors() {
                let metadata = above.symlink_metadata()?;
                kept.insert((metadata.dev(), metadata.ino()));
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns a path with the links in it followed, where the endpoint has links.
async fn follow(transport: &dyn Transport, path: &RemotePath) -> Result<RemotePath, Error> {
    if !transport.capabilities().symlinks {
        return Ok(path.clone());
    }
    let mut real = RemotePath::root();
    let mut waiting: Vec<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
    waiting.reverse();
    let mut links = 0;
    while let Some(name) = waiting.pop() {
        if name == b".." {
            real = real.parent().unwrap_or_else(RemotePath::root);
            continue;
        }
        let next = real.join(&name)?;
        match transport.stat(&next, Follow::Nothing).await {
            Ok(entry) if entry.kind == FileKind::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Error::new(ErrorKind::InvalidPath, "too many symbolic links").at(path));
                }
                let target = transport.read_link(&next).await?;
                if target.starts_with(b"/") {
                    real = RemotePath::root();
                }
                let names = target.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
                waiting.extend(names.rev().map(<[u8]>::to_vec));
            }
            // What can't be looked at is no link that we know of; removing tells what is wrong with it.
            _ => real = next,
        }
    }
    Ok(real)
}

fn is_at_or_above(path: &RemotePath, home: &RemotePath) -> bool {
    path.is_root()
        || home.as_bytes().strip_prefix(path.as_bytes()).is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_holds_the_home_is_kept() {
        let above = |path: &str| is_at_or_above(&RemotePath::new(path).unwrap(), &RemotePath::new("/home/me").unwrap());
        assert_eq!(
            ["/", "/home/me", "/home", "/home/m", "/home/me/x", "/srv"].map(above),
            [true, true, true, false, false, false]
        );
    }

    #[test]
    fn every_link_to_the_home_is_kept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("disk/homes/me/inside")).unwrap();
        std::fs::create_dir(at("other")).unwrap();
        symlink("disk/homes", at("middle")).unwrap();
        symlink(at("middle"), at("home")).unwrap();
        let mut kept = HashSet::new();
        keep(&at("home/me"), &mut kept).unwrap();
        let is_kept = |name: &str| {
            let metadata = at(name).symlink_metadata().unwrap();
            kept.contains(&(metadata.dev(), metadata.ino()))
        };
        for name in ["home", "middle", "disk", "disk/homes", "disk/homes/me", "home/me", ""] {
            assert!(is_kept(name), "{name}");
        }
        assert!(!is_kept("other") && !is_kept("disk/homes/me/inside"));
    }

    #[tokio::test]
    async fn links_are_followed_step_by_step() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        symlink("../a/./b", base.join("a/link")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        let path = |name: &str| RemotePath::new(base.join(name).as_os_str().as_bytes()).unwrap();
        let local = haul::transport::local::Local::new();
        assert_eq!(follow(&local, &path("a/link/x")).await.unwrap(), path("a/b/x"));
        assert!(follow(&local, &path("loop")).await.is_err());
    }
}

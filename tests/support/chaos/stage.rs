//! The servers, and what there is to move.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;

use crate::case::{Direction, Trouble};
use crate::support::data::{Dice, MIB, bytes};
use crate::support::lab::Server;
use crate::support::serving::Serving;

/// Real servers: those that this machine doesn't have are left out.
const REAL: [&str; 4] = ["openssh", "vsftpd", "proftpd", "proftpd_tls"];
/// haul's own, which can be killed and have digests.
const OWN: [&str; 3] = ["sftp", "ftp", "ftpes"];

/// Everything that cases share.
pub(crate) struct Stage {
    pub(crate) haul: PathBuf,
    pub(crate) places: Vec<Place>,
    pub(crate) loads: Vec<Load>,
    /// Where the sources for uploads lie, and the homes.
    pub(crate) folder: TempDir,
    can_mount: bool,
}

/// A server.
pub(crate) enum Place {
    Real(Server),
    Own(Serving),
}

/// Something to move: a file called `file`, or a folder called `tree`.
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) is_tree: bool,
    /// Path and contents of each file.
    pub(crate) files: BTreeMap<String, Bytes>,
}

impl Place {
    pub(crate) fn server(&self) -> &Server {
        match self {
            Self::Real(server) => server,
            Self::Own(serving) => &serving.server,
        }
    }
}

impl Load {
    fn file(name: &'static str, seed: u64, size: usize) -> Self {
        Self { name, is_tree: false, files: BTreeMap::from([("file".to_owned(), bytes(seed, size))]) }
    }

    fn tree(seed: u64) -> Self {
        let small = (0..60).map(|n| (format!("tree/d{}/f{n}", n % 5), bytes(seed + n, (n * 97) as usize)));
        let large = (0..2).map(|n| (format!("tree/large{n}"), bytes(seed + 100 + n, 3 * MIB + 17)));
        Self { name: "a tree", is_tree: true, files: small.chain(large).collect() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.files.values().map(|contents| contents.len() as u64).sum()
    }

    fn write(&self, folder: &Path) {
        for (name, contents) in &self.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
    }
}

impl Stage {
    pub(crate) fn new(haul: &Path, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut any = |size: u64| (size + dice.below(size / 8)) as usize;
        let loads = vec![
            Load::file("a small file", seed, any(300_000)),
            Load::file("a file of 3 MiB", seed + 1, any(3 << 20)),
            Load::file("a file of 9 MiB", seed + 2, any(9 << 20)),
            Load::file("a file of 30 MiB", seed + 3, any(30 << 20)),
            Load::tree(seed + 4),
        ];
        let mut places: Vec<_> = REAL.into_iter().filter_map(Server::get).map(Place::Real).collect();
        places.extend(OWN.into_iter().map(|scheme| Place::Own(Serving::start(haul, scheme))));
        let folder = TempDir::new().expect("a folder");
        for (number, load) in loads.iter().enumerate() {
            load.write(&folder.path().join(format!("sources/{number}")));
            for place in &places {
                load.write(&place.server().root.join(format!("chaos-sources/{number}")));
            }
        }
        let can_mount = rustix::process::geteuid().is_root();
        Self { haul: haul.to_owned(), places, loads, folder, can_mount }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.places.iter().map(|place| place.server().name.as_str()).collect()
    }

    /// Returns the servers that a trouble can be made with.
    pub(crate) fn servers_for(&self, trouble: Trouble, direction: Direction) -> Vec<usize> {
        let fits = |place: &Place| {
            let own = matches!(place, Place::Own(_));
            match trouble {
                // Only plain FTP doesn't notice by itself, and only these servers give a digest.
                Trouble::Flip => place.server().scheme == "ftp" && (own || place.server().name == "proftpd"),
                Trouble::KillServer => own,
                // The others live in a namespace of their own, where a disk that is mounted now isn't seen.
                Trouble::FullDisk => self.can_mount && (own || direction == Direction::Get),
                _ => true,
            }
        };
        let all = self.places.iter().enumerate();
        all.filter(|(_, place)| fits(place)).map(|(number, _)| number).collect()
    }

    pub(crate) fn loads_for(&self, single: bool) -> Vec<usize> {
        let all = self.loads.iter().enumerate();
        all.filter(|(_, load)| !single || !load.is_tree).map(|(number, _)| number).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for place in &self.places {
            let _ = std::fs::remove_dir_all(place.server().root.join("chaos-sources"));
        }
    }
}

/// Gives what was put below a server's root to the server's user.
pub(crate) fn hand_over(server: &Server, path: &Path) {
    let owner = std::fs::metadata(&server.root).unwrap();
    if path.starts_with(&server.root) {
        let _ = chown(path, Some(owner.uid()), Some(owner.gid()));
    }
}

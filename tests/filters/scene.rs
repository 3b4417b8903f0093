//! A tree at a server or here, the program, and a watch over directories that nobody may look into.

use std::ffi::OsStr;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use haul::serve::{FtpTls, Protocol};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use tempfile::TempDir;

use super::support::client::{Client, names_below, told};
use super::support::lab::Server;
use super::support::served::Served;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A server's folder for one test, and a folder here.
pub(crate) struct Scene {
    pub(crate) server: Server,
    home: TempDir,
    far: String,
    _own: Option<Served>,
}

impl Scene {
    /// Starts with empty folders at a server of the lab, or at one of haul's own: `own sftp`, `own ftp`.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let own = match name {
            "own sftp" => Some(Served::start(Protocol::Sftp)),
            "own ftp" => Some(Served::start(Protocol::Ftp(FtpTls::Off))),
            _ => None,
        };
        let server = match &own {
            Some(own) => own.server.clone(),
            None => Server::get(name)?,
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let far = format!("filters-{}-{number}", std::process::id());
        let scene = Self { home: TempDir::new().unwrap(), far, server, _own: own };
        for dir in [scene.near(""), scene.far("")] {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        Some(scene)
    }

    pub(crate) fn near(&self, name: &str) -> PathBuf {
        self.home.path().join("near").join(name)
    }

    pub(crate) fn far(&self, name: &str) -> PathBuf {
        self.server.root.join(&self.far).join(name)
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("{}{}/{name}", self.server.url(), self.far)
    }

    /// Runs haul to its end; `standard` is its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], standard: &[u8]) -> Output {
        let client = Client::new(env!("CARGO_BIN_EXE_haul"), self.home.path());
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let mut command = client.command(&self.server, &arguments);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(standard).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs haul, which must end well.
    pub(crate) fn run(&self, arguments: &[&str]) {
        let output = self.run_with(arguments, b"");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", told(&output));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.far(""));
    }
}

/// Makes files, and directories where a name ends in a slash, that everybody may read.
pub(crate) fn plant(folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match name.ends_with('/') {
            true => std::fs::create_dir_all(&path).unwrap(),
            false => std::fs::write(&path, name).unwrap(),
        }
    }
}

/// Makes a file that was changed so long ago.
pub(crate) fn plant_aged(path: &Path, age: Duration) {
    std::fs::write(path, "x").unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

/// Returns the files below a folder, and the empty directories with a slash behind.
pub(crate) fn found(folder: &Path) -> Vec<String> {
    let mut found = names_below(folder);
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        let entries: Vec<_> = std::fs::read_dir(&dir).into_iter().flatten().flatten().collect();
        if entries.is_empty() && dir != folder {
            found.push(format!("{}/", dir.strip_prefix(folder).unwrap().display()));
        }
        open.extend(entries.iter().map(std::fs::DirEntry::path).filter(|path| path.is_dir() && !path.is_symlink()));
    }
    found.sort();
    found
}

/// Sees whether anybody opens a directory of this machine, as one must to list it.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn over(directory: &Path) -> Self {
        let watch = init(CreateFlags::NONBLOCK).unwrap();
        add_watch(&watch, directory, WatchFlags::OPEN | WatchFlags::ACCESS).unwrap();
        Self(watch)
    }

    /// Returns whether the directory itself was opened since the last question; files in it don't count.
    pub(crate) fn was_opened(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut opened = false;
        while let Ok(event) = reader.next() {
            opened |= event.file_name().is_none();
        }
        opened
    }
}

//! A folder that is served, or just there, and the program that looks at it.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use haul::serve::{FtpTls, Protocol};
use serde_json::Value;

use crate::stage::{Ran, Server, Stage};
use crate::support::lab;

/// Where the folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Local,
    Sftp,
    Ftp,
    /// One of the real servers.
    Lab(&'static str),
}

/// Those that have a digest of their own for every file, those that have one for large files, and those that have none.
pub(crate) const ALL: [Kind; 7] = [
    Kind::Local,
    Kind::Sftp,
    Kind::Ftp,
    Kind::Lab("openssh"),
    Kind::Lab("proftpd"),
    Kind::Lab("proftpd_sftp"),
    Kind::Lab("vsftpd"),
];

/// Names that would break a careless list.
pub(crate) const NAMES: [&[u8]; 12] = [
    b"plain",
    b"two words",
    b" leading",
    b"*star",
    b"-",
    b"-dash",
    b"back\\slash",
    b"\\",
    b"a (b) = c",
    b"\xff\xfe",
    b"sub/deep/file",
    b"sub.txt",
];
/// Names that FTP can't say.
pub(crate) const LINES: [&[u8]; 4] = [b"new\nline", b"re\rturn", b"end\r", b"\\n\n\\"];

pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) kind: Kind,
    /// The folder, on this disk.
    pub(crate) folder: PathBuf,
    url: String,
    trust: Vec<String>,
    _server: Option<Server>,
}

impl Scene {
    /// Makes an empty folder; `None` where this machine has no such server.
    pub(crate) fn new(kind: Kind) -> Option<Self> {
        let mut stage = Stage::new();
        let embedded = |stage: &mut Stage, protocol| {
            stage.env.push(("HAUL_PASSWORD", "right".into()));
            stage.serve(protocol, "me", "right")
        };
        let inside = stage.at("served");
        let (folder, url, trust, server) = match kind {
            Kind::Local => (inside.clone(), inside.to_str().unwrap().to_owned(), vec![], None),
            Kind::Sftp => {
                let server = embedded(&mut stage, Protocol::Sftp);
                (inside, format!("sftp://me@127.0.0.1:{}", server.port), stage.trust(), Some(server))
            }
            Kind::Ftp => {
                let server = embedded(&mut stage, Protocol::Ftp(FtpTls::Off));
                let trust = ["--tls", "off"].map(str::to_owned).into();
                (inside, format!("ftp://me@127.0.0.1:{}", server.port), trust, Some(server))
            }
            Kind::Lab(name) => {
                let server = lab::Server::get(name)?;
                let far = Path::new(stage.at("").file_name().unwrap()).to_str().unwrap().to_owned();
                let folder = server.root.join(&far);
                std::fs::create_dir(&folder).unwrap();
                std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
                stage.env.push(("HAUL_PASSWORD", server.password.clone().unwrap_or_default().into()));
                let mut trust = vec!["--ssh-config".to_owned(), "none".to_owned()];
                match server.scheme.as_str() {
                    "sftp" => {
                        trust.extend(["--host-key".into(), "strict".into(), "--known-hosts".into()]);
                        trust.push(server.known_hosts.to_str().unwrap().to_owned());
                        trust.extend(["--identity".into(), server.identity.to_str().unwrap().to_owned()]);
                    }
                    _ => trust.extend(["--tls".into(), "off".into()]),
                }
                (folder, format!("{}{far}", server.url()), trust, None)
            }
        };
        Some(Self { stage, kind, folder, url, trust, _server: server })
    }

    /// Returns whether names may have line ends.
    pub(crate) fn takes_lines(&self) -> bool {
        matches!(self.kind, Kind::Local | Kind::Sftp | Kind::Lab("openssh"))
    }

    /// Returns who digests a small file.
    pub(crate) fn digests_small(&self) -> &'static str {
        match self.kind {
            Kind::Sftp | Kind::Ftp | Kind::Lab("proftpd" | "proftpd_sftp") => "server",
            _ => "read",
        }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        if name.is_empty() { self.url.clone() } else { format!("{}/{name}", self.url) }
    }

    /// Puts a file there.
    pub(crate) fn plant(&self, name: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> PathBuf {
        write(&self.folder, name, contents)
    }

    /// Plants all of the names that the server can say; returns them in the order of their bytes.
    pub(crate) fn plant_names(&self) -> Vec<&'static [u8]> {
        let mut names: Vec<_> = NAMES.to_vec();
        if self.takes_lines() {
            names.extend(LINES);
        }
        for name in &names {
            self.plant(name, [b"in ", *name].concat());
        }
        names.sort_unstable();
        names
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stage.command(args);
        command.args(&self.trust);
        command
    }

    pub(crate) fn haul(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    pub(crate) fn haul_with(&self, args: &[&str], input: &[u8]) -> Ran {
        fed(self.command(args), input)
    }

    /// Runs `sha256sum` or its like in the folder.
    pub(crate) fn sum(&self, program: &str, args: &[&str], input: &[u8]) -> Ran {
        self.sum_in(&self.folder, program, args, input)
    }

    /// The same in another folder.
    #[allow(clippy::unused_self)] // reads as the one above
    pub(crate) fn sum_in(&self, folder: &Path, program: &str, args: &[&str], input: &[u8]) -> Ran {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        fed(command, input)
    }

    /// Runs `sha256sum` or its like over all files there; the names begin with `./`.
    pub(crate) fn sums_of_all(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let find =
            format!("find . -type f -printf './%P\\0' | LC_ALL=C sort -z | xargs -0 {program} {} --", args.join(" "));
        let ran = self.sum("sh", &["-c", &find], b"").ends(0);
        ran.stdout
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Writes a file that the servers may read, long ago.
pub(crate) fn write(folder: &Path, name: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(OsStr::from_bytes(name.as_ref()));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, contents).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    set_time(&path, 1_700_000_000);
    path
}

pub(crate) fn set_time(path: &Path, seconds: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

fn fed(mut command: Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end without reading all of it, and write before it has.
    let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ran = child.wait_with_output().unwrap().into();
    feeding.join().unwrap();
    ran
}

/// Returns the objects that a run wrote.
pub(crate) fn objects(ran: &Ran) -> Vec<Value> {
    ran.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

//! `haul demo`: the main job, shown on this machine alone.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use haul::serve::{self, FtpTls, Identity, Protocol, Server};
use haul::transport::Secret;
use haul::{Error, ErrorKind};
use tokio::process::{Child, Command};

use super::context::Context;
use super::format;
use super::report::Result;
use super::terminal;

/// Files of the tree that are a few KiB long, in this many directories.
const SMALL_FILES: usize = 240;
const DIRECTORIES: usize = 8;
/// Bytes of each of the tree's two long files.
const LONG: usize = 16 << 20;
/// Bytes of the file whose transfers are interrupted, and how many a second they get until then.
const HUGE: usize = 96 << 20;
const BRAKE: &str = "--limit-rate=32M";
/// How long one command may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Show what haul does, on this machine alone, in under a minute
///
/// Starts an SFTP and an FTPS server on free ports of the loopback interface, in a temporary folder. Uploads a generated
/// tree to both, lists it, downloads it, kills transfers half-way and goes on with them, compares everything, and removes
/// everything. The commands that it runs are shown as you would type them.
#[derive(Debug, Args)]
pub(crate) struct Demo {}

impl Demo {
    /// Plays the demo and cleans up, whatever happens.
    pub(crate) async fn run(self, context: &Arc<Context>) -> Result<()> {
        terminal::hush();
        let folder = Folder::new()?;
        let played = tokio::select! {
            played = play(context, &folder.0) => played,
            () = context.cancel.cancelled() => Err(Error::from(ErrorKind::Cancelled).into()),
        };
        terminal::unhush();
        let removed = folder.remove().await;
        played?;
        Ok(removed?)
    }
}

async fn play(context: &Arc<Context>, folder: &Path) -> Result<()> {
    let started = Instant::now();
    let stage = Stage::new(context, folder).await?;
    let (sftp, ftp) = (stage.sftp.url(), stage.ftp.url());
    stage.say("Two servers on this machine and a generated tree, all in a temporary folder:")?;
    stage.say(&format!("  {sftp} speaks SFTP\n  {ftp} speaks FTP over TLS"))?;

    stage.say("\n1. Up: a tree to both servers")?;
    stage.haul(&["put", "-r", "tree", &sftp]).await?;
    stage.haul(&["put", "-r", "tree", &ftp]).await?;

    stage.say("\n2. A look at it")?;
    stage.haul(&["ls", "-lh", &format!("{sftp}tree")]).await?;

    stage.say("\n3. Down again")?;
    stage.haul(&["get", "-r", &format!("{sftp}tree"), "from-sftp"]).await?;
    stage.haul(&["get", "-r", &format!("{ftp}tree"), "from-ftp"]).await?;

    stage.say("\n4. An upload is killed half-way; the same command goes on where it was")?;
    stage.haul_twice(&["put", "huge.bin", &ftp], "ftp").await?;

    stage.say("\n5. So does a download")?;
    stage.haul(&["put", "-q", "huge.bin", &sftp]).await?;
    stage.haul_twice(&["get", &format!("{sftp}huge.bin"), "again.bin"], "work").await?;

    stage.say("\n6. Are all copies the same?")?;
    stage.compare().await?;

    stage.say("\n7. Away with it")?;
    stage.haul(&["rm", "-r", &format!("{sftp}tree"), &format!("{sftp}huge.bin")]).await?;
    stage.haul(&["rm", "-r", &format!("{ftp}tree"), &format!("{ftp}huge.bin")]).await?;
    stage.expect_empty(&["sftp", "ftp"])?;
    stage.sftp.stop().await;
    stage.ftp.stop().await;
    let text = format!(
        "\nEverything worked, in {}. haul --help says what else there is.",
        format::duration(started.elapsed())
    );
    Ok(say(context, &text)?)
}

/// The servers and the folder that they and the commands work in.
struct Stage<'a> {
    context: &'a Context,
    folder: &'a Path,
    sftp: Server,
    ftp: Server,
    password: Secret,
    program: PathBuf,
}

impl<'a> Stage<'a> {
    async fn new(context: &'a Context, folder: &'a Path) -> Result<Self> {
        for name in ["sftp", "ftp", "work", "state", "home/.ssh"] {
            make_directory(&folder.join(name))?;
        }
        let work = folder.join("work");
        tokio::task::spawn_blocking(move || generate(&work))
            .await
            .map_err(|e| Error::new(ErrorKind::Other, "generate the tree").with_source(e))??;
        let password = serve::random_password()?;
        let start = |protocol, name: &str| {
            let mut options = serve::Options::new(protocol, folder.join(name), folder.join("state"));
            options.user = "demo".into();
            options.password = Some(password.clone());
            serve::start(options)
        };
        let sftp = start(Protocol::Sftp, "sftp").await?;
        let ftp = start(Protocol::Ftp(FtpTls::Require), "ftp").await?;
        if let Identity::HostKey { public_key, .. } = sftp.identity() {
            let address = sftp.address();
            let line = format!("[{}]:{} {public_key}\n", address.ip(), address.port());
            write(&folder.join("home/.ssh/known_hosts"), line.as_bytes())?;
        }
        let program = std::env::current_exe().map_err(|e| Error::io("find this program", e))?;
        Ok(Self { context, folder, sftp, ftp, password, program })
    }

    fn say(&self, text: &str) -> Result<(), Error> {
        say(self.context, text)
    }

    /// Shows a command and runs it, as the user would.
    async fn haul(&self, args: &[&str]) -> Result<(), Error> {
        self.say(&format!("$ haul {}", args.join(" ")))?;
        let mut child = self.start(args, &[])?;
        let status = self.end_of(&mut child).await?;
        if status.success() { Ok(()) } else { Err(failed(args, status)) }
    }

    /// Kills a transfer with SIGKILL once half of the file is there, then runs the same command again.
    async fn haul_twice(&self, args: &[&str], to: &str) -> Result<(), Error> {
        self.say(&format!("$ haul {}", args.join(" ")))?;
        let mut child = self.start(args, &[BRAKE])?;
        let reached = tokio::time::timeout(TIMEOUT, async {
            loop {
                let reached = longest_part(&self.folder.join(to));
                if reached >= HUGE as u64 / 2 {
                    return Ok(reached);
                }
                let ended = child.try_wait().map_err(|e| Error::io("wait for the transfer", e))?;
                if let Some(status) = ended {
                    return Err(failed(args, status));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let reached =
            reached.await.map_err(|_| Error::new(ErrorKind::Timeout, "the transfer doesn't get half-way"))??;
        child.kill().await.map_err(|e| Error::io("kill the transfer", e))?;
        let (reached, all) = (format::bytes(reached), format::bytes(HUGE as u64));
        self.say(&format!("\n  killed (SIGKILL) at {reached} of {all}"))?;
        self.haul(args).await
    }

    fn start(&self, args: &[&str], more: &[&str]) -> Result<Child, Error> {
        let mut command = Command::new(&self.program);
        command.args(args).args(more).args(self.context.quiet.then_some("-q"));
        command.current_dir(self.folder.join("work")).stdin(Stdio::null()).kill_on_drop(true);
        command.env("HAUL_PASSWORD", self.password.expose());
        command.env("HOME", self.folder.join("home")).env("XDG_STATE_HOME", self.folder.join("state"));
        command.env_remove("SSH_AUTH_SOCK").env_remove("SSL_CERT_DIR");
        if let Identity::Certificate { path, .. } = self.ftp.identity() {
            command.env("SSL_CERT_FILE", path);
        }
        command.spawn().map_err(|e| Error::io("start haul", e))
    }

    async fn end_of(&self, child: &mut Child) -> Result<ExitStatus, Error> {
        match tokio::time::timeout(TIMEOUT, child.wait()).await {
            Ok(status) => status.map_err(|e| Error::io("wait for haul", e)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "the command doesn't come to an end")),
        }
    }

    async fn compare(&self) -> Result<(), Error> {
        let folder = self.folder.to_owned();
        let compared = tokio::task::spawn_blocking(move || {
            let original = digests(&folder.join("work/tree"))?;
            for copy in ["work/from-sftp", "work/from-ftp", "sftp/tree", "ftp/tree"] {
                if digests(&folder.join(copy))? != original {
                    return Err(Error::new(ErrorKind::VerifyFailed, "differs from what was uploaded").at(copy));
                }
            }
            let huge = digest(&folder.join("work/huge.bin"))?;
            for copy in ["work/again.bin", "sftp/huge.bin", "ftp/huge.bin"] {
                if digest(&folder.join(copy))? != huge {
                    return Err(Error::new(ErrorKind::VerifyFailed, "differs from the original").at(copy));
                }
            }
            Ok(original.len())
        });
        let files = compared.await.map_err(|e| Error::new(ErrorKind::Other, "compare").with_source(e))??;
        self.say(&format!("  four copies of {files} files and three of huge.bin: all the same, by BLAKE3"))
    }

    fn expect_empty(&self, names: &[&str]) -> Result<(), Error> {
        for name in names {
            let left = digests(&self.folder.join(name))?;
            if let Some((path, _)) = left.first() {
                return Err(Error::new(ErrorKind::Other, "is still there").at(path.display()));
            }
        }
        Ok(())
    }
}

fn say(context: &Context, text: &str) -> Result<(), Error> {
    if context.quiet { Ok(()) } else { context.stdout.write(format!("{text}\n").as_bytes()) }
}

fn failed(args: &[&str], status: ExitStatus) -> Error {
    Error::new(ErrorKind::Other, format!("haul {} ended with {status}", args.join(" ")))
}

/// A temporary folder for this user alone.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Error> {
        let number = getrandom::u64().map_err(|e| Error::new(ErrorKind::Other, "draw a number").with_source(e))?;
        let path = std::env::temp_dir().join(format!("haul-demo-{number:016x}"));
        // Fails if it is there: what is removed at the end was made here.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| Error::io("make a temporary folder", e).at(path.display()))?;
        Ok(Self(path))
    }

    /// Removes it; a command that was just stopped may still be writing for a moment.
    async fn remove(self) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            match std::fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < 50 => tries += 1,
                other => return other.map_err(|e| Error::io("remove the temporary folder", e).at(self.0.display())),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Makes the tree and the huge file.
fn generate(work: &Path) -> Result<(), Error> {
    let tree = work.join("tree");
    let kinds = ["Berichte", "café notes", "images", "logs 2026", "src", "写真", "raw", "misc"];
    for number in 0..SMALL_FILES {
        let directory = tree.join(kinds[number % DIRECTORIES]);
        make_directory(&directory)?;
        // From empty files to some of 28 KiB.
        write(&directory.join(format!("file {number:03}.txt")), &contents(number, number * 120))?;
    }
    for name in ["films/one.mkv", "films/two.mkv"] {
        make_directory(&tree.join("films"))?;
        write(&tree.join(name), &contents(name.len(), LONG))?;
    }
    write(&work.join("huge.bin"), &contents(usize::MAX, HUGE))
}

/// Returns bytes that don't repeat.
fn contents(seed: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn make_directory(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|e| Error::io("make a directory", e).at(path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(path, bytes).map_err(|e| Error::io("write", e).at(path.display()))
}

fn digest(path: &Path) -> Result<blake3::Hash, Error> {
    let hash =
        std::fs::File::open(path).and_then(|file| blake3::Hasher::new().update_reader(file).map(|h| h.finalize()));
    hash.map_err(|e| Error::io("read", e).at(path.display()))
}

/// Returns every file below a folder, by its path from there, with its digest; sorted.
fn digests(top: &Path) -> Result<Vec<(PathBuf, blake3::Hash)>, Error> {
    let mut found = Vec::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(folder) = waiting.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| Error::io("list", e).at(folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| Error::io("list", e).at(folder.display()))?.path();
            match path.is_dir() {
                true => waiting.push(path),
                false => found.push((path.strip_prefix(top).unwrap_or(&path).to_owned(), digest(&path)?)),
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Returns how long the longest part file in a folder is.
fn longest_part(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| entry.file_name().as_encoded_bytes().ends_with(b".part"));
    parts.filter_map(|entry| Some(entry.metadata().ok()?.len())).max().unwrap_or(0)
}

//! Disks of a test's own, in mount namespaces of their own: small ones, read-only ones, and one that loses power.
//!
//! A [`Room`] is a mount namespace that a child process holds; commands run in it, and the test reaches its files
//! through `/proc`. When the child ends, however the test ends, the kernel unmounts what was mounted there.
//!
//! A [`Disk`] is an ext4 in a file on tmpfs, by way of a loop device. The kernel keeps what is written to it in memory
//! for seconds, as with any disk; what it has handed over to the device is in the file. So a copy of the file is what a
//! loss of power leaves: what was fsynced is there, what wasn't is not, unless the kernel had it written by itself.
//! Mounted, the copy replays ext4's journal as after any crash. What is not simulated: a disk that loses what is in its
//! own cache, though it was told to flush it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::{NamedTempFile, TempDir};

const MIB: u64 = 1 << 20;
/// Room for all that a test writes, and ext4's own journal.
const SIZE: u64 = 128 * MIB;

/// Returns whether there can't be disks of a test's own, and says so; `scripts/test` says it, too.
pub fn no_disks() -> bool {
    let programs = ["nsenter", "mkfs.ext4", "mount", "setpriv"];
    let missing = programs.into_iter().find(|name| Command::new(name).arg("--help").output().is_err());
    // A machine may forbid it even to root.
    let look = Command::new("unshare").args(["-m", "losetup", "-f"]).output();
    let forbidden = look.map_or(true, |look| !look.status.success()) || !Path::new("/dev/shm").is_dir();
    let Some(why) = missing.or(forbidden.then_some("the right to mount one")) else { return false };
    eprintln!("SKIPPED: no disks of its own: no {why}");
    true
}

/// A mount namespace, as long as this lives.
pub struct Room {
    holder: Child,
}

impl Room {
    /// Makes one and runs a script of `sh` in it, which mounts things.
    pub fn with(script: &str) -> Self {
        let script = format!("set -e\n{script}\necho ready\nexec cat > /dev/null");
        let mut holder = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{script}");
        Self { holder }
    }

    /// Returns a command that runs in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("-m").args(["-t", &self.holder.id().to_string(), "--"]).arg(program);
        command
    }

    /// Returns where a path of the room is for the test itself.
    pub fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Runs a line of `sh` in it, which must succeed.
    pub fn sh(&self, line: &str) {
        assert!(self.command("sh").args(["-c", line]).status().unwrap().success(), "{line}");
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // `cat` ends with its input.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A disk that can lose power, mounted in a room of its own, on a machine that was just started.
pub struct Disk {
    pub room: Room,
    /// Where it is mounted, in the room only.
    pub at: PathBuf,
    image: File,
}

static BOOTS: AtomicU32 = AtomicU32::new(0);

impl Disk {
    /// Makes an empty one. `at` is a directory.
    pub fn new(at: &Path) -> Self {
        let image = NamedTempFile::new_in("/dev/shm").unwrap();
        image.as_file().set_len(SIZE).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.path()).status().unwrap();
        assert!(made.success(), "mkfs.ext4");
        Self::mount(image, at)
    }

    fn mount(image: NamedTempFile, at: &Path) -> Self {
        let boot = BOOTS.fetch_add(1, Ordering::Relaxed);
        let room = Room::with(&format!(
            "mount -o loop,noatime '{image}' '{at}'
             mount -t tmpfs none /mnt
             echo 00000000-0000-4000-8000-{boot:012} > /mnt/boot_id
             echo 0.00 0.00 > /mnt/uptime
             mount --bind /mnt/boot_id /proc/sys/kernel/random/boot_id
             mount --bind /mnt/uptime /proc/uptime
             umount -l /mnt",
            image = image.path().display(),
            at = at.display()
        ));
        // Without a name nothing is left of it, however the test ends.
        Self { room, at: at.to_owned(), image: image.into_file() }
    }

    /// Cuts the power: returns the disk as the machine finds it when it is on again. This one goes on as it was, so
    /// what writes to it must stand still.
    pub fn crash(&self) -> Self {
        let mut copy = NamedTempFile::new_in("/dev/shm").unwrap();
        loop {
            let before = self.image.metadata().unwrap().modified().unwrap();
            copy_sparse(&self.image, copy.as_file());
            if self.image.metadata().unwrap().modified().unwrap() == before {
                return Self::mount(copy, &self.at);
            }
            // The kernel was writing meanwhile: that would be no instant.
            copy = NamedTempFile::new_in("/dev/shm").unwrap();
        }
    }

    /// Returns where a path on the disk is for the test itself.
    pub fn path(&self, name: &str) -> PathBuf {
        self.room.path(&self.at.join(name))
    }

    /// Has the kernel write all that it holds back, as it does by itself after a while.
    pub fn settle(&self) {
        self.room.sh(&format!("sync -f '{}'", self.at.display()));
    }
}

fn copy_sparse(from: &File, to: &File) {
    to.set_len(SIZE).unwrap();
    let mut chunk = vec![0; MIB as usize / 4];
    for at in (0..SIZE).step_by(chunk.len()) {
        from.read_exact_at(&mut chunk, at).unwrap();
        if chunk.iter().any(|&byte| byte != 0) {
            to.write_all_at(&chunk, at).unwrap();
        }
    }
}

/// A running `haul serve`, which ends with this.
pub struct Serving {
    child: Child,
    pub url: String,
    state: TempDir,
}

pub const PASSWORD: &str = "open sesame";

impl Serving {
    /// Starts one. `program` is a command that runs `haul`, perhaps in a room; `port` 0 is a free one.
    pub fn start(mut program: Command, protocol: &str, root: &Path, port: u16) -> Self {
        let state = TempDir::new().unwrap();
        std::fs::write(state.path().join("password"), PASSWORD).unwrap();
        let set = Command::new("chmod").arg("600").arg(state.path().join("password")).status();
        assert!(set.unwrap().success());
        if rustix::process::geteuid().is_root() {
            // It may run as nobody.
            let given = Command::new("chown").args(["-R", "65534"]).arg(state.path()).status();
            assert!(given.unwrap().success());
        }
        program.args(["serve", protocol]).arg(root).args(["--listen", &format!("127.0.0.1:{port}")]);
        program.arg("--password-file").arg(state.path().join("password"));
        program.env("XDG_STATE_HOME", state.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = program.spawn().unwrap();
        let mut line = String::new();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        told.read_line(&mut line).unwrap();
        // What else it says is read, so that it never waits for a reader.
        std::thread::spawn(move || told.read_to_end(&mut Vec::new()));
        let url = line.split_whitespace().last().expect("a URL").trim_end_matches('/').to_owned();
        Self { child, url, state }
    }

    /// Returns where it listens.
    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Adds to a client's command what it takes to get in.
    pub fn let_in(&self, client: &mut Command) {
        client.env("HAUL_PASSWORD", PASSWORD);
        if self.url.starts_with("sftp") {
            client.args(["--host-key", "accept-new", "--known-hosts"]).arg(self.state.path().join("known_hosts"));
        } else {
            client.args(["--tls", "off"]);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to one process.
pub fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -{name} {id}");
}

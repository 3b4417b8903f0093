//! One case: the command with its fault, the same command again, and a look at what is there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::case::{Case, Direction, Trouble};
use crate::stage::{Load, Place, Stage, hand_over};
use crate::support::client::{Client, Traces, names_below, told, traces};
use crate::support::data::{Dice, bytes};
use crate::support::fault::{Fault, Link, On, Towards};
use crate::support::lab::Server;
use crate::support::watch::Watcher;

/// Longer than any run may take: haul gives up a silent line after `TIMEOUT`, and tries a few times.
const PATIENCE: Duration = Duration::from_secs(150);
const TIMEOUT: &str = "3s";
/// The same command so often at most.
const MOST_RUNS: u32 = 5;
/// Files of a tree that are watched all the time.
const WATCHED: usize = 3;
/// What a stream may move twice: a block, and what proves it.
const BLOCK_AND_OVERLAP: u64 = (1 << 20) + (64 << 10);

/// What came of a case.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) title: String,
    pub(crate) trouble: Option<Trouble>,
    /// Whether the fault came before the end.
    pub(crate) injected: bool,
    pub(crate) runs: u32,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Bytes that passed beyond those of the file; `None` where that can't be told from the outside.
    pub(crate) twice: Option<u64>,
    /// So much of that is beyond a block and an overlap for each stream.
    pub(crate) beyond: u64,
    pub(crate) wrong: Vec<String>,
    pub(crate) stray: Vec<String>,
    pub(crate) seen: Vec<String>,
    pub(crate) hangs: u32,
    /// It never came to an end.
    pub(crate) unfinished: bool,
    /// What each run said.
    pub(crate) told: Vec<String>,
    took: Duration,
}

impl Outcome {
    pub(crate) fn is_clean(&self) -> bool {
        self.wrong.is_empty() && self.stray.is_empty() && self.seen.is_empty() && self.hangs == 0 && !self.unfinished
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, injected, runs, twice, took, .. } = self;
        writeln!(f, "{title}: injected {injected}, {runs} runs, {took:.1?}, moved twice {twice:?}")?;
        let all = [("wrong", &self.wrong), ("stray", &self.stray), ("seen", &self.seen)];
        for (kind, list) in all {
            for what in list {
                writeln!(f, "  {kind}: {what}")?;
            }
        }
        if self.hangs > 0 || self.unfinished {
            writeln!(f, "  hangs: {}, unfinished: {}", self.hangs, self.unfinished)?;
        }
        for (number, told) in self.told.iter().enumerate() {
            writeln!(f, "  run {}: {}", number + 1, told.trim_end().replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

/// A place to copy to, and a home.
struct Ground<'a> {
    case: &'a Case,
    load: &'a Load,
    server: Server,
    client: Client,
    sources: PathBuf,
    /// Where the copy goes.
    target: PathBuf,
    arguments: Vec<String>,
    disk: Option<Disk>,
    _home: TempDir,
}

/// Runs a case.
pub(crate) fn run(stage: &mut Stage, case: &Case) -> Outcome {
    let link = Link::to(stage.places[case.server].server());
    let haul = stage.haul.clone();
    let sources = stage.folder.path().join(format!("sources/{}", case.load));
    let Stage { places, loads, .. } = stage;
    let place = &mut places[case.server];
    let ground = Ground::new(case, &loads[case.load], place.server(), &haul, sources);
    let far = link.far_end(&ground.server);
    let began = Instant::now();
    let mut outcome = Outcome { title: case.to_string(), trouble: Some(case.trouble), ..Outcome::default() };
    let watchers = ground.watch();
    let mut dice = case.dice.clone();
    let mut success = ground.troubled(&far, &link, place, &mut dice, &mut outcome);
    link.heal();
    if let Some(disk) = &ground.disk {
        disk.grow();
    }
    while !success && outcome.runs < MOST_RUNS {
        success = ground.once(&far, &mut outcome);
    }
    outcome.unfinished = !success;
    outcome.seen = watchers.into_iter().flat_map(Watcher::end).collect();
    ground.judge(&mut outcome);
    let towards = if case.direction == Direction::Get { Towards::Client } else { Towards::Server };
    ground.count(&link, towards, &mut outcome);
    outcome.took = began.elapsed();
    let _ = std::fs::remove_dir_all(&ground.target);
    outcome
}

impl<'a> Ground<'a> {
    fn new(case: &'a Case, load: &'a Load, server: &Server, haul: &Path, sources: PathBuf) -> Self {
        let home = TempDir::new().expect("a folder");
        let name = format!("chaos-{}-{}", std::process::id(), case.number);
        let (near, far) = (home.path().join("near"), server.root.join(&name));
        let target = if case.direction == Direction::Get { near } else { far };
        std::fs::create_dir_all(&target).unwrap();
        let disk = (case.trouble == Trouble::FullDisk).then(|| Disk::mount(&target, load.size() / 2 + 4096));
        hand_over(server, &target);
        let item = if load.is_tree { "tree" } else { "file" };
        let segments = case.segments.map_or("auto".into(), |segments| segments.to_string());
        let arguments = ["--segments", &segments, "--timeout", TIMEOUT, "--retries", "3"].map(ToOwned::to_owned);
        let mut ground = Self {
            case,
            load,
            server: server.clone(),
            client: Client::new(haul, home.path()),
            sources,
            target,
            arguments: arguments.into(),
            disk,
            _home: home,
        };
        if load.is_tree {
            ground.arguments.push("-r".into());
        }
        if case.trouble == Trouble::Flip {
            ground.arguments.extend(["--verify", "digest"].map(ToOwned::to_owned));
        }
        ground.arguments.push(item.to_owned());
        if case.old {
            ground.write_old();
        }
        ground
    }

    /// Puts other contents where the copy goes: for a tree, in every second file.
    fn write_old(&self) {
        for name in self.load.files.keys().step_by(2) {
            let path = self.target.join(name);
            let mut folder = path.parent().unwrap().to_owned();
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, Self::old(name)).unwrap();
            hand_over(&self.server, &path);
            while folder != self.target {
                hand_over(&self.server, &folder);
                folder = folder.parent().unwrap().to_owned();
            }
        }
    }

    fn old(name: &str) -> bytes::Bytes {
        bytes(name.len() as u64, 1234)
    }

    fn watch(&self) -> Vec<Watcher> {
        // The large files of a tree are among its last.
        let watched = self.load.files.iter().enumerate().collect::<Vec<_>>().into_iter().rev().take(WATCHED);
        let start = |(number, (name, new)): (usize, (&String, &bytes::Bytes))| {
            let old = (self.case.old && number % 2 == 0).then(|| Self::old(name));
            Watcher::start(&self.target.join(name), old, new.clone())
        };
        watched.map(start).collect()
    }

    fn command(&self, far: &Server, paced: bool) -> Command {
        let (item, options) = self.arguments.split_last().unwrap();
        let mut arguments: Vec<String> = Vec::new();
        match self.case.direction {
            Direction::Get => {
                let url = format!("{}chaos-sources/{}/{item}", far.url(), self.case.load);
                arguments.extend(["get".into(), url, format!("{}/", self.target.display())]);
            }
            Direction::Put => {
                let source = self.sources.join(item).display().to_string();
                let folder = self.target.file_name().unwrap().to_string_lossy().into_owned();
                arguments.extend(["put".into(), source, format!("{}{folder}/", far.url())]);
            }
        }
        arguments.extend(options.iter().cloned());
        if paced {
            // About a second for the whole.
            arguments.extend(["--limit-rate".into(), (self.load.size() + 100_000).to_string()]);
        }
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        self.client.command(far, &arguments)
    }

    /// Runs the command once; returns whether it succeeded.
    fn once(&self, far: &Server, outcome: &mut Outcome) -> bool {
        let child = self.command(far, false).spawn().expect("haul");
        ended(child, outcome)
    }

    /// Runs the command with what goes wrong.
    fn troubled(&self, far: &Server, link: &Link, place: &mut Place, dice: &mut Dice, outcome: &mut Outcome) -> bool {
        if let Some(fault) = self.fault(dice) {
            link.set(fault);
        }
        let mut child = self.command(far, self.case.paced).spawn().expect("haul");
        let moment = Moment::draw(dice, self.case.paced);
        outcome.injected = match (self.case.trouble, place) {
            (Trouble::KillHaul, _) => self.strike(&mut child, moment, Signal::KILL),
            (Trouble::Interrupt, _) => self.strike(&mut child, moment, Signal::INT),
            (Trouble::Terminate, _) => self.strike(&mut child, moment, Signal::TERM),
            (Trouble::KillServer, Place::Own(serving)) => {
                let running = self.wait(&mut child, moment);
                serving.kill();
                std::thread::sleep(Duration::from_millis(dice.below(500)));
                serving.up();
                running
            }
            (Trouble::TwoAtOnce, _) => {
                std::thread::sleep(Duration::from_millis(dice.below(60)));
                let other = self.command(far, false).spawn().expect("haul");
                let both = [ended(child, outcome), ended(other, outcome)];
                outcome.injected = true;
                return both.contains(&true) && self.once(far, outcome);
            }
            _ => true,
        };
        let success = ended(child, outcome);
        match self.case.trouble {
            Trouble::Cut | Trouble::Close | Trouble::Reset | Trouble::HalfClose | Trouble::Stall => {
                outcome.injected = link.cuts() > 0;
            }
            Trouble::Refuse => outcome.injected = link.refused() > 0,
            Trouble::FullDisk | Trouble::Flip => outcome.injected = !success,
            _ => {}
        }
        success
    }

    /// What the link does.
    fn fault(&self, dice: &mut Dice) -> Option<Fault> {
        let get = self.case.direction == Direction::Get;
        let forth = if get { Towards::Client } else { Towards::Server };
        let back = if get { Towards::Server } else { Towards::Client };
        // Mostly while data moves; at times on the way back, where commands and answers are.
        let (towards, after) = match dice.once_in(4) {
            false => (forth, dice.below(self.load.size() + 10_000)),
            true => (back, dice.below(8_000)),
        };
        let on = On::Any;
        let seed = dice.any();
        Some(match self.case.trouble {
            Trouble::Cut => Fault::Cut { after, towards, on },
            Trouble::Close => Fault::Close { after, towards, on },
            Trouble::Reset => Fault::Reset { after, towards, on },
            Trouble::HalfClose => Fault::HalfClose { after, towards, on },
            Trouble::Stall => Fault::Stall { after, towards, on },
            Trouble::Slow => Fault::Slow { rate: self.load.size() / 2 + 50_000, towards: forth, on },
            Trouble::Split => Fault::Split { largest: 3000, seed, on },
            Trouble::Coalesce => Fault::Coalesce { bytes: 100_000, quiet: Duration::from_millis(5), on },
            Trouble::Refuse => Fault::Refuse { connections: 1 + dice.below(3) as u32, on },
            Trouble::Flip => {
                Fault::Flip { at: dice.below(self.load.size()), bit: seed as u8 % 8, towards: forth, on: On::Data }
            }
            _ => return None,
        })
    }

    /// Sends a signal at the moment; returns whether haul was still running.
    fn strike(&self, child: &mut Child, moment: Moment, signal: Signal) -> bool {
        let running = self.wait(child, moment);
        if running {
            let _ = kill_process(Pid::from_child(child), signal);
        }
        running
    }

    /// Waits for a moment; returns whether haul is still running.
    fn wait(&self, child: &mut Child, moment: Moment) -> bool {
        let began = Instant::now();
        let look = || traces(&[&self.client.journals(), &self.target]);
        let (mut before, mut changes): (Traces, u32) = (look(), 0);
        loop {
            if child.try_wait().expect("haul").is_some() {
                return false;
            }
            match moment {
                Moment::After(time) if began.elapsed() >= time => return true,
                Moment::Change(wanted) if changes >= wanted => return true,
                Moment::Change(_) if look() != before => {
                    before = look();
                    changes += 1;
                }
                _ => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Looks at what is there.
    fn judge(&self, outcome: &mut Outcome) {
        outcome.files = self.load.files.len() as u64;
        outcome.bytes = self.load.size();
        for (name, contents) in &self.load.files {
            if std::fs::read(self.target.join(name)).ok().as_deref() != Some(&contents[..]) {
                outcome.wrong.push(name.clone());
            }
        }
        let wanted: BTreeSet<_> = self.load.files.keys().collect();
        // What arrived wrong and was found out is kept for a look, and was named.
        let is_stray = |name: &String| {
            !wanted.contains(name) && Path::new(name).extension().is_none_or(|extension| extension != "bad")
        };
        outcome.stray = names_below(&self.target).into_iter().filter(is_stray).collect();
        outcome.stray.extend(self.client.left_in_state());
    }

    /// Counts what was moved twice, on the link: with all that protocols and logins add.
    fn count(&self, link: &Link, towards: Towards, outcome: &mut Outcome) {
        let whole_again = matches!(self.case.trouble, Trouble::Flip | Trouble::TwoAtOnce);
        let sftp = self.server.scheme == "sftp";
        // FTP can't ask for the middle of a file: what a server sends behind a segment's end is thrown away.
        let beyond_segments = !sftp && self.case.direction == Direction::Get && self.case.segments != Some(1);
        if whole_again || beyond_segments || self.load.is_tree || self.load.size() < 1 << 20 {
            return;
        }
        let on = if sftp { On::Any } else { On::Data };
        // Packets, their MACs and what proves who is there: about a hundredth, and some kilobytes for each login.
        let overhead = self.load.size() / 100 + 16_384 * u64::from(outcome.runs);
        let twice = link.passed(towards, on).saturating_sub(self.load.size() + overhead);
        let streams = u64::from(self.case.segments.unwrap_or(4));
        outcome.twice = Some(twice);
        outcome.beyond = twice.saturating_sub(streams * BLOCK_AND_OVERLAP);
    }
}

/// Waits for the end, reads what was said, and returns whether it succeeded.
fn ended(mut child: Child, outcome: &mut Outcome) -> bool {
    outcome.runs += 1;
    let began = Instant::now();
    let mut hangs = false;
    while child.try_wait().expect("haul").is_none() {
        if !hangs && began.elapsed() > PATIENCE {
            hangs = true;
            outcome.hangs += 1;
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().expect("haul");
    outcome.told.push(told(&output));
    if died(&output) {
        outcome.wrong.push(format!("haul ended with {}", output.status));
    }
    output.status.success()
}

/// Whether a run ended as none may: by a panic, or by a signal that nobody sent.
fn died(output: &Output) -> bool {
    let crashed = output.status.signal().is_some_and(|signal| [4, 6, 7, 8, 11].contains(&signal));
    crashed || output.status.code() == Some(101)
}

/// When a signal is sent.
#[derive(Debug, Clone, Copy)]
enum Moment {
    After(Duration),
    /// As soon as journals, parts and files have changed so often.
    Change(u32),
}

impl Moment {
    fn draw(dice: &mut Dice, paced: bool) -> Self {
        let life = Duration::from_millis(if paced { 1200 } else { 150 });
        match dice.once_in(2) {
            true => Self::After(life.mul_f64(dice.share())),
            false => Self::Change(1 + dice.below(40) as u32),
        }
    }
}

/// A small disk.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: u64) -> Self {
        let disk = Self(at.to_owned());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "tmpfs"])
            .arg(at)
            .status();
        assert!(mounted.expect("mount").success(), "no small disk at {}", at.display());
        disk
    }

    fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=256m"]).arg(&self.0).status();
        assert!(grown.expect("mount").success(), "the disk doesn't grow");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

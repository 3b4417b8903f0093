//! The server is killed, or the session that serves haul, and is there again: haul goes on by itself.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::kills;
use crate::moment::Life;
use crate::scene::{Copy, Direction, Scene, Way, ended};
use crate::support::client::told;
use crate::support::data::{Dice, seed};
use crate::support::lab::{Apart, Server};
use crate::support::serving::Serving;

macro_rules! ways {
    ($($test:ident: $scheme:literal $direction:ident $segments:literal;)*) => {
        $(#[test]
        fn $test() {
            let serving = Serving::start(Path::new(env!("CARGO_BIN_EXE_haul")), $scheme);
            let server = serving.server.clone();
            let way = Way { direction: Direction::$direction, segments: $segments };
            killed_and_back(&server, way, Own(serving));
        })*
    };
}

ways! {
    own_sftp_get: "sftp" Get 1;
    own_sftp_get_in_segments: "sftp" Get 4;
    own_sftp_put: "sftp" Put 4;
    own_ftp_get_in_segments: "ftp" Get 4;
    own_ftp_put: "ftp" Put 1;
    own_ftps_put: "ftpes" Put 1;
}

#[test]
fn sessions_of_openssh() {
    sessions("openssh");
}

#[test]
fn sessions_of_vsftpd() {
    sessions("vsftpd");
}

fn sessions(name: &str) {
    let apart = Apart::new();
    let Some(server) = apart.server(name, &[], &[]) else { return };
    for direction in [Direction::Get, Direction::Put] {
        killed_and_back(&server, Way { direction, segments: 1 }, Sessions::of(&server));
    }
}

/// Something that serves and can be killed.
trait Victim {
    /// Kills it; it is there again when this returns.
    fn strike(&mut self, gone: Duration);
}

/// haul's own server, all of it.
struct Own(Serving);

impl Victim for Own {
    fn strike(&mut self, gone: Duration) {
        self.0.kill();
        std::thread::sleep(gone);
        self.0.up();
    }
}

/// The processes that a server has for each client.
struct Sessions {
    server: u32,
    /// Those that stay.
    lasting: HashSet<u32>,
}

impl Sessions {
    fn of(server: &Server) -> Self {
        let file = server.log.with_file_name("pid");
        let pid = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        Self { server: pid, lasting: descendants(pid) }
    }
}

impl Victim for Sessions {
    fn strike(&mut self, _: Duration) {
        for pid in descendants(self.server).difference(&self.lasting) {
            let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).unwrap();
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Returns all processes below one.
fn descendants(pid: u32) -> HashSet<u32> {
    let parents: Vec<(u32, u32)> =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| parent(&entry)).collect();
    let mut found = HashSet::from([pid]);
    loop {
        let before = found.len();
        let children = parents.iter().filter(|(_, parent)| found.contains(parent)).map(|(child, _)| *child);
        let children: Vec<_> = children.collect();
        found.extend(children);
        if found.len() == before {
            return found;
        }
    }
}

fn parent(entry: &std::fs::DirEntry) -> Option<(u32, u32)> {
    let pid = entry.file_name().to_str()?.parse().ok()?;
    let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
    // The name is in parentheses, and may hold some itself.
    let (_, rest) = stat.rsplit_once(") ")?;
    Some((pid, rest.split(' ').nth(1)?.parse().ok()?))
}

fn killed_and_back(server: &Server, way: Way, mut victim: impl Victim) {
    let seed = seed();
    let mut dice = Dice::new(seed);
    let mut scene = Scene::new(server, way, seed);
    let life = Life::of(&mut scene, &mut dice, true);
    let (mut by_itself, mut next_run) = (0, 0);
    let count = kills(2);
    for number in 0..count {
        let moment = life.moment(&mut dice, number);
        let gone = Duration::from_millis(dice.below(300));
        let copy = scene.copy(&mut dice);
        let what = format!("{} {way:?}, HAUL_SEED={seed}, kill {number} at {moment:?} for {gone:?}", server.name);
        let watcher = copy.watch();
        let mut child = copy.command(&scene.server, true).spawn().unwrap();
        let in_time = moment.wait(&mut child, &copy);
        let begun = in_time && has_begun(&copy);
        victim.strike(gone);
        let first = ended(child, &what);
        assert!(first.status.success() || !begun, "{what}: it had begun, and gave up: {}", told(&first));
        if first.status.success() {
            by_itself += 1;
        } else {
            next_run += 1;
        }
        // Before the login there is nothing to go on with, and haul says at once that nobody is there.
        let again = ended(copy.command(&scene.server, false).spawn().unwrap(), &what);
        let looks = watcher.end();
        assert!(again.status.success(), "{what}: {}", told(&again));
        assert!(looks.is_empty(), "{what}: {looks:?}");
        let faults = copy.faults();
        assert!(faults.is_empty(), "{what}: {faults:?}\n{}{}", told(&first), told(&again));
    }
    eprintln!(
        "{} {way:?}: {count} kills, {by_itself} runs went on by themselves, {next_run} needed another",
        server.name
    );
}

/// Whether there is a part already: then there is a login, too.
fn has_begun(copy: &Copy) -> bool {
    let entries = std::fs::read_dir(copy.folder()).unwrap().flatten();
    entries.into_iter().any(|entry| entry.path().extension().is_some_and(|extension| extension == "part"))
}

//! One case: haul runs while the line is cut, then once more without; everything that was promised is looked at.

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::scene::{Scene, Way, event, told};
use super::support::data::{Dice, MIB, bytes};
use super::support::fault::{Fault, Link, On, Towards};
use super::support::lab::Server;
use super::watcher::Allowed;

/// The unit that is moved twice at most; files of these sizes have the smallest there is.
const BLOCK: u64 = MIB as u64;
/// What is read back to prove a kept run of blocks.
const OVERLAP: u64 = 64 << 10;

/// What all cases of a test have in common.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) server: Server,
    pub(crate) way: Way,
    pub(crate) segments: u64,
    /// More arguments for haul.
    pub(crate) options: Vec<&'static str>,
}

/// What goes wrong, and what haul may do about it by itself.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) faults: Vec<Fault>,
    /// Whether there is an old file under the final name.
    pub(crate) old: bool,
    /// Whether the server removes what a lost connection left.
    pub(crate) forgets: bool,
    /// Whether haul tries again by itself, and must get there.
    pub(crate) retries: bool,
}

impl Trouble {
    /// Whether it looks like a good end.
    fn is_quiet(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault, Fault::HalfClose { on: On::Data, .. }))
    }
}

/// What a run without any trouble looks like through the link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usual {
    pub(crate) size: u64,
    /// Bytes in the direction and on the connections of the payload.
    pub(crate) payload: u64,
    /// Totals and turns, by direction and kind.
    pub(crate) ways: Vec<(Towards, On, u64, Vec<u64>)>,
}

/// What a case showed.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) cuts: u32,
    pub(crate) first_failed: bool,
    pub(crate) resumed: bool,
    pub(crate) moved_twice: u64,
}

impl Setting {
    /// The direction that the file takes.
    pub(crate) fn payload(&self) -> (Towards, On) {
        let towards = if self.way == Way::Get { Towards::Client } else { Towards::Server };
        (towards, if self.server.scheme == "sftp" { On::Any } else { On::Data })
    }

    /// What may be under way when the line is cut, and is lost with it: nobody has acknowledged it.
    fn under_way(&self) -> u64 {
        match (self.server.scheme.as_str(), self.way) {
            // Two answers: one of which a part is missing, and one that came before it.
            ("sftp", Way::Get) => 512 << 10,
            // The first window.
            ("sftp", Way::Put) => (1 << 20) + (256 << 10),
            // A range that ends before the file does: what the server has sent behind it lies in sockets.
            (_, Way::Get) => 1 << 20,
            // A real server that is reset leaves what lies in its socket.
            (_, Way::Put) if !self.server.log.as_os_str().is_empty() => 4 << 20,
            // The link's own sockets.
            (_, Way::Put) => 256 << 10,
        }
    }

    fn run(&self, scene: &Scene, server: &Server, more: &[&str]) -> Output {
        let segments = self.segments.to_string();
        let mut options = vec!["--segments", &segments];
        options.extend(&self.options);
        options.extend(more);
        scene.haul(server, &options)
    }

    /// Runs haul while the server, if it is one that forgets, removes the part whenever the line was cut.
    fn run_forgetful(&self, scene: &Scene, far: &Server, trouble: &Trouble, link: &Link) -> Output {
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let mut seen = link.cuts();
                while trouble.forgets && !done.load(Ordering::Relaxed) {
                    let cuts = link.cuts();
                    if cuts > seen {
                        scene.part().map(std::fs::remove_file);
                        seen = cuts;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let output = self.run(scene, far, &[]);
            done.store(true, Ordering::Relaxed);
            output
        })
    }

    /// Looks at a whole run, for what there is to cut.
    pub(crate) fn look(&self, seed: u64, link: &Link) -> Usual {
        let size = 3 * MIB + Dice::new(seed).below(2 * BLOCK) as usize;
        let new = bytes(seed, size);
        let scene = Scene::new(&self.server, self.way, format!("usual-{}", unique()), &new, None);
        let before = |towards, on| link.passed(towards, on);
        let ways = [Towards::Client, Towards::Server].into_iter().flat_map(|t| [(t, On::Control), (t, On::Data)]);
        let ways: Vec<_> =
            ways.map(|(towards, on)| (towards, on, before(towards, on), link.turns(towards, on).len())).collect();
        let (towards, on) = self.payload();
        let payload = link.passed(towards, on);
        let output = self.run(&scene, &link.far_end(&self.server), &[]);
        assert!(output.status.success(), "without any trouble: {}", told(&output));
        link.wait_until_idle();
        let ways = ways.into_iter().map(|(towards, on, from, turns)| {
            let turns = link.turns(towards, on).into_iter().skip(turns).map(|at| at - from).collect();
            (towards, on, link.passed(towards, on) - from, turns)
        });
        let ways = ways.filter(|(_, _, total, _)| *total > 0).collect();
        Usual { size: new.len() as u64, payload: link.passed(towards, on) - payload, ways }
    }

    /// Runs one case; an error says what broke its promise.
    pub(crate) fn endure(&self, seed: u64, trouble: &Trouble, usual: &Usual, link: &Link) -> Result<Shown, String> {
        // As long as it is usually, so that the last byte is where it was.
        let new = bytes(seed, usual.size as usize);
        let old = trouble.old.then(|| bytes(!seed, 300_000));
        let scene = Scene::new(&self.server, self.way, format!("cut-{}", unique()), &new, old.as_ref());
        let allowed = Allowed { old, new };
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let watcher = threads.spawn(|| allowed.watch(&scene.destination(), &stop));
            let endured = self.endure_watched(&scene, trouble, usual, link, &allowed);
            stop.store(true, Ordering::Relaxed);
            let looked = watcher.join().unwrap();
            link.heal();
            looked.and(endured)
        })
    }

    fn endure_watched(
        &self,
        scene: &Scene,
        trouble: &Trouble,
        usual: &Usual,
        link: &Link,
        allowed: &Allowed,
    ) -> Result<Shown, String> {
        let (towards, on) = self.payload();
        let (passed, cuts, far) = (link.passed(towards, on), link.cuts(), link.far_end(&self.server));
        trouble.faults.iter().for_each(|fault| link.set(*fault));
        let first = match trouble.retries {
            true => self.run_forgetful(scene, &far, trouble, link),
            // A connection of which one half is open is given up only after a while.
            false => self.run(scene, &far, &["--retries", "0", "--timeout", "2s"]),
        };
        link.heal();
        link.wait_until_idle();
        let mut shown = Shown { cuts: link.cuts() - cuts, ..Shown::default() };
        let whole = allowed.judge(&scene.destination())?;
        shown.first_failed = match first.status.code() {
            Some(0) if !whole => return Err(format!("said to be done, and isn't: {}", told(&first))),
            Some(0) => false,
            // Some files failed, or nobody could log in.
            Some(1 | 3) if !trouble.retries => true,
            // Bytes of a plain upload are missing, and the server can't know.
            Some(4) if !trouble.retries && trouble.is_quiet() => true,
            _ => return Err(format!("an end that was not to be: {}", told(&first))),
        };
        if !shown.first_failed && !scene.strays().is_empty() {
            return Err(format!("left behind by a run that was good: {:?}", scene.strays()));
        }
        if let Some(part) = scene.part().filter(|_| trouble.forgets) {
            std::fs::remove_file(part).unwrap();
        }
        let again = self.run(scene, &far, &[]);
        link.wait_until_idle();
        let wrong = |what: String| Err(format!("{what}\nfirst: {}\nagain: {}", told(&first), told(&again)));
        if !again.status.success() {
            return wrong("the same command failed again".into());
        }
        if !allowed.judge(&scene.destination())? {
            return wrong("the new contents are not there".into());
        }
        if !scene.strays().is_empty() {
            return wrong(format!("left behind: {:?}", scene.strays()));
        }
        shown.resumed = event(&again).is_some_and(|event| event["resumed_from"].as_u64().is_some());
        let size = allowed.new.len() as u64;
        // Logins, and the wrapping of what is encrypted, happen in each run.
        let wrapping = (usual.payload - usual.size) * (2 + u64::from(shown.cuts)) + size / 100;
        shown.moved_twice = (link.passed(towards, on) - passed).saturating_sub(size + wrapping);
        let mut most = u64::from(shown.cuts) * self.segments * (BLOCK + OVERLAP + self.under_way());
        if self.segments > 1 {
            // A stream of which another one takes a part has been sent more than it keeps.
            most += 2 * self.segments * self.under_way();
        }
        // A server that forgets costs what it forgot; and what is forced is moved again.
        let again_anyway = trouble.forgets
            || first.status.code() == Some(4)
            || (self.options.contains(&"--force") && !shown.first_failed);
        if shown.moved_twice > most && !again_anyway {
            return wrong(format!("{} bytes of {size} moved twice, {most} may be", shown.moved_twice));
        }
        Ok(shown)
    }
}

/// A number that no other case of this machine has.
fn unique() -> String {
    use std::sync::atomic::AtomicU64;
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

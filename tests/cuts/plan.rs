//! Which cuts are made: drawn, or at every border of a conversation.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use haul::serve::Protocol;

use super::case::{Setting, Shown, Trouble, Usual};
use super::scene::Way;
use super::support::data::Dice;
use super::support::fault::{Fault, Link, On};
use super::support::lab::Server;
use super::support::served::Served;

/// Cases of one test that run at the same time.
const LANES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One fault, anywhere.
    Anywhere,
    /// One cut where a message begins or ends.
    Borders,
    /// Several cuts, after which haul goes on by itself.
    InOneRun,
    /// A few of each.
    AFew,
}

/// Runs a test's cases against haul's own server.
pub(crate) fn embedded(protocol: Protocol, way: Way, segments: u64, options: &[&'static str], mode: Mode) {
    let served = Served::start(protocol);
    let setting = Setting { server: served.server.clone(), way, segments, options: options.to_vec() };
    run(&setting, mode, LANES);
}

/// Runs a few cases against a real server.
pub(crate) fn real(name: &str, way: Way, segments: u64, options: &[&'static str]) {
    let Some(server) = Server::get(name) else { return };
    let setting = Setting { server, way, segments, options: options.to_vec() };
    // Its passive ports are listened at for each lane.
    run(&setting, Mode::AFew, 1);
}

/// Runs a test's cases, several at once, and fails with the first that broke a promise.
fn run(setting: &Setting, mode: Mode, lanes: usize) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("HAUL_CHAOS_SEED").unwrap_or(1);
    let links: Vec<_> = (0..lanes).map(|_| Link::to(&setting.server)).collect();
    let usual = setting.look(seed, &links[0]);
    let mut cases = draw(seed, mode, number("HAUL_CHAOS_CUTS"), &usual);
    if setting.options.contains(&"--no-clobber") {
        for trouble in &mut cases {
            trouble.old = false;
        }
    }
    let only = number("HAUL_CHAOS_CASE").map(|case| case as usize);
    let (next, shown) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let lane = |link: &Link| {
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            let Some(trouble) = cases.get(case) else { return };
            if only.is_some_and(|only| only != case) {
                continue;
            }
            match setting.endure(seed.wrapping_add(case as u64), trouble, &usual, link) {
                Ok(endured) => shown.lock().unwrap().push(endured),
                Err(wrong) => panic!("HAUL_CHAOS_SEED={seed} HAUL_CHAOS_CASE={case} {trouble:?}: {wrong}"),
            }
        }
    };
    std::thread::scope(|threads| {
        for link in &links {
            threads.spawn(|| lane(link));
        }
    });
    tell(mode, &shown.into_inner().unwrap(), &usual);
}

/// What happened, for the one who runs the long form.
fn tell(mode: Mode, shown: &[Shown], usual: &Usual) {
    let count = |what: fn(&Shown) -> bool| shown.iter().filter(|shown| what(shown)).count();
    eprintln!(
        "{mode:?}: {} cases, {} cuts, {} first runs failed, {} resumed, at most {} bytes moved twice; usual: {} on {:?}",
        shown.len(),
        shown.iter().map(|shown| shown.cuts).sum::<u32>(),
        count(|shown| shown.first_failed),
        count(|shown| shown.resumed),
        shown.iter().map(|shown| shown.moved_twice).max().unwrap_or(0),
        usual.payload,
        usual.ways.iter().map(|(towards, on, total, turns)| (towards, on, total, turns.len())).collect::<Vec<_>>(),
    );
    // Of a few, all may lie behind the end: segments are cut where they happen to meet.
    assert!(shown.len() < 10 || count(|shown| shown.cuts > 0) * 2 >= shown.len(), "hardly any case was cut");
}

fn draw(seed: u64, mode: Mode, cuts: Option<u64>, usual: &Usual) -> Vec<Trouble> {
    let mut dice = Dice::new(seed);
    match mode {
        Mode::Anywhere => (0..cuts.unwrap_or(3)).map(|_| anywhere(&mut dice, usual)).collect(),
        Mode::Borders => borders(&mut dice, cuts.map_or(3, |cuts| cuts as usize), usual),
        Mode::InOneRun => (0..cuts.map_or(1, |cuts| cuts / 10)).map(|_| in_one_run(&mut dice, usual)).collect(),
        Mode::AFew => {
            let few = cuts.map_or(1, |cuts| cuts / 10);
            let mut cases = borders(&mut dice, few as usize, usual);
            cases.extend((0..few).map(|_| anywhere(&mut dice, usual)));
            cases.extend((0..few / 4).map(|_| in_one_run(&mut dice, usual)));
            cases
        }
    }
}

/// One fault at a random place: as often in the few bytes of the conversation as in the many of the file.
fn anywhere(dice: &mut Dice, usual: &Usual) -> Trouble {
    let (towards, on, total, turns) = &usual.ways[dice.below(usual.ways.len() as u64) as usize];
    let (towards, on) = (*towards, *on);
    let after = match dice.below(3) {
        0 => dice.below(total + 1),
        1 => turns.get(dice.below(turns.len() as u64) as usize).map_or(0, |turn| turn + dice.below(100)),
        _ => total.saturating_sub(dice.below(4000)),
    };
    let fault = match dice.below(8) {
        0..4 => Fault::Cut { after, towards, on },
        4 | 5 => Fault::Close { after, towards, on },
        6 => Fault::Reset { after, towards, on },
        _ => Fault::HalfClose { after, towards, on },
    };
    let mut faults = vec![fault];
    if dice.once_in(4) {
        faults.push(Fault::Split { largest: 2000, seed: dice.any(), on: On::Any });
    }
    Trouble { faults, old: dice.once_in(2), forgets: dice.once_in(8), retries: false }
}

/// At the first bytes and the last ones of everything, and where messages begin: on a request, and on its answer.
fn borders(dice: &mut Dice, most: usize, usual: &Usual) -> Vec<Trouble> {
    let mut places = Vec::new();
    for (towards, on, total, turns) in &usual.ways {
        let last = turns.iter().rev().take(12).flat_map(|turn| [*turn, turn + 1]);
        let ends = [0, 1, total - 1, *total].into_iter().chain(last);
        places.extend(ends.map(|after| Fault::Cut { after, towards: *towards, on: *on }));
    }
    // All of them in the long form; else others with each seed.
    while places.len() > most {
        places.swap_remove(dice.below(places.len() as u64) as usize);
    }
    places
        .into_iter()
        .map(|fault| Trouble { faults: vec![fault], old: dice.once_in(2), forgets: false, retries: false })
        .collect()
}

fn in_one_run(dice: &mut Dice, usual: &Usual) -> Trouble {
    let (towards, on, total, _) = usual.ways.iter().max_by_key(|(.., total, _)| *total).unwrap();
    // Not in the first login, which isn't tried again.
    let begin = 100_000;
    let cut = |after| Fault::Cut { after, towards: *towards, on: *on };
    let faults = (0..=dice.below(3)).map(|_| cut(begin + dice.below(total - begin))).collect();
    Trouble { faults, old: dice.once_in(2), forgets: dice.once_in(3), retries: true }
}

//! haul is killed.

use crate::kills;
use crate::moment::{Life, Moment};
use crate::scene::{Copy, Direction, SIZE, Scene, Way, ended, transferred};
use crate::support::client::told;
use crate::support::data::{Dice, MIB, seed};
use crate::support::lab::Server;

macro_rules! ways {
    ($($test:ident: $server:ident $direction:ident $segments:literal;)*) => {
        $(#[test]
        fn $test() {
            let way = Way { direction: Direction::$direction, segments: $segments };
            if let Some(server) = Server::get(stringify!($server)) {
                killed_at_any_instant(&server, way);
            }
        })*
    };
}

ways! {
    sftp_get: openssh Get 1;
    sftp_get_in_segments: openssh Get 4;
    sftp_put: openssh Put 1;
    sftp_put_in_segments: openssh Put 4;
    ftp_get: vsftpd Get 1;
    ftp_get_in_segments: vsftpd Get 4;
    ftp_put: vsftpd Put 1;
    ftps_get: proftpd_tls Get 1;
    ftps_get_in_segments: vsftpd_tls13 Get 4;
    ftps_put: proftpd_tls Put 1;
}

/// What came of all the kills.
#[derive(Debug, Default)]
struct Tally {
    too_late: u32,
    gone_on: u32,
    most_lost: u64,
}

fn killed_at_any_instant(server: &Server, way: Way) {
    let seed = seed();
    let mut dice = Dice::new(seed);
    let mut scene = Scene::new(server, way, seed);
    let mut tally = Tally::default();
    let lives = [false, true].map(|paced| Life::of(&mut scene, &mut dice, paced));
    let count = kills(3);
    for number in 0..count {
        let paced = dice.once_in(2);
        let moment = lives[usize::from(paced)].moment(&mut dice, number);
        let copy = scene.copy(&mut dice);
        let what = format!("{} {way:?}, HAUL_SEED={seed}, kill {number} at {moment:?}", server.name);
        killed_once(&scene, &copy, paced, moment, &mut tally, &what);
    }
    eprintln!("{} {way:?}: {count} kills, {tally:?}", server.name);
}

fn killed_once(scene: &Scene, copy: &Copy, paced: bool, moment: Moment, tally: &mut Tally, what: &str) {
    let watcher = copy.watch();
    let mut child = copy.command(&scene.server, paced).spawn().unwrap();
    let in_time = moment.wait(&mut child, copy);
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = copy.written_down();
    let arrived = part_size(copy);
    let run = ended(copy.command(&scene.server, false).spawn().unwrap(), what);
    let seen = watcher.end();
    assert!(run.status.success(), "{what}: {}", told(&run));
    assert!(seen.is_empty(), "{what}: {seen:?}");
    let faults = copy.faults();
    assert!(faults.is_empty(), "{what}: {faults:?}\n{}", told(&run));
    let moved = transferred(&run);
    // FTP acknowledges nothing before the end: what was on its way to the server may be lost.
    let sure = match (scene.way.direction, scene.server.scheme.as_str()) {
        (Direction::Put, "ftp" | "ftpes") => kept.min(arrived.unwrap_or(0) / MIB as u64 * MIB as u64),
        _ => kept,
    };
    let most = SIZE as u64 - sure + 64 * 1024 * u64::from(scene.way.segments);
    assert!(moved <= most, "{what}: {moved} bytes moved though {kept} were written down, {arrived:?} arrived");
    if let Some(arrived) = arrived.filter(|_| scene.way.segments == 1) {
        tally.most_lost = tally.most_lost.max(arrived.saturating_sub(kept));
    }
    tally.too_late += u32::from(!in_time);
    tally.gone_on += u32::from(kept > 0);
}

/// Bytes of the part, if there is one.
fn part_size(copy: &Copy) -> Option<u64> {
    let entries = std::fs::read_dir(copy.folder()).unwrap().flatten();
    let mut parts = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "part"));
    parts.next().and_then(|part| Some(part.metadata().ok()?.len()))
}

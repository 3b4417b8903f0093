//! From one server to another: through this machine, and as between any two ends.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::scene::*;
use crate::support::client::{is_part, names_below};
use crate::support::data::{MIB, bytes};

/// One of SSH and one of FTP each, and the other way round.
const PAIRS: [(&str, &str); 6] = [
    ("openssh", "vsftpd"),
    ("vsftpd", "openssh"),
    ("proftpd", "openssh"),
    ("openssh", "proftpd"),
    ("embedded sftp", "embedded ftp"),
    ("embedded ftp", "embedded sftp"),
];

/// Two servers, each with a folder of its own.
struct Two {
    one: Scene,
    other: Scene,
    what: String,
}

impl Two {
    fn new((one, other): (&str, &str)) -> Option<Self> {
        let what = format!("{one} to {other}");
        Some(Self { one: Scene::new(one)?, other: Scene::new(other)?, what })
    }

    fn ends(&self) -> (End, End) {
        (self.one.far("from"), self.other.far("to"))
    }

    fn command(&self, options: &[&str]) -> Command {
        let (from, to) = self.ends();
        let mut command = self.one.command(&[&["sync", &from.url, &to.url][..], options].concat());
        reach(&mut command, self.other.server.as_ref().unwrap());
        command
    }

    fn sync(&self, options: &[&str]) -> Told {
        Told(self.command(options).output().unwrap())
    }

    fn start(&self, options: &[&str]) -> Child {
        self.command(options).spawn().unwrap()
    }
}

#[test]
fn a_tree_of_one_server_becomes_that_of_another() {
    for pair in PAIRS {
        let Some(two) = Two::new(pair) else { continue };
        let ((from, to), what) = (two.ends(), &two.what);
        two.one.plant(
            &from,
            &[
                ("same", Some(("same", 1_600_000_000))),
                ("changed", Some(("new", 1_600_000_000))),
                ("new", Some(("new", 1_600_000_001))),
                ("d\u{e9}j\u{e0} vu/#1 50%.txt", Some(("odd", 1_500_000_000))),
                ("empty/directory", None),
            ],
        );
        let before: Spec<'_> = &[
            ("same", Some(("same", 1_600_000_000))),
            ("changed", Some(("old", 1_500_000_000))),
            ("extra/with/more", Some(("more", 1_600_000_000))),
        ];
        two.other.plant(&to, before);
        let kept = two.sync(&[]);
        assert_eq!((kept.fine().total("equal"), kept.total("deleted")), (1, 0), "{what}: {}", kept.text());
        assert!(to.disk.join("extra/with/more").exists(), "{what}: nobody asked to delete");
        let deleted = two.sync(&["--delete"]);
        assert_eq!(deleted.fine().total("deleted"), 3, "{what}: {}", deleted.text());
        assert_eq!(deleted.total("transferred"), 0, "{what}: {}", deleted.text());
        assert_eq!(tree(&from.disk), tree(&to.disk), "{what}: times are kept");
        let again = two.sync(&["--delete"]);
        assert_eq!(again.fine().changes("to/"), [""; 0], "{what}: {}", again.text());
        assert_eq!((again.total("equal"), again.total("transferred")), (4, 0), "{what}");
        // What only a look into the files can find.
        two.other.plant(&to, &[("same", Some(("SAME", 1_600_000_000)))]);
        assert_eq!(two.sync(&["--delete"]).fine().changes("to/"), [""; 0], "{what}");
        assert_eq!(two.sync(&["--checksum"]).fine().changes("to/"), ["file same"], "{what}");
        assert_eq!(tree(&from.disk), tree(&to.disk), "{what}");
    }
}

#[test]
fn a_large_file_between_servers_goes_on_where_it_stopped() {
    let length = 20 * MIB;
    for (pair, signal) in PAIRS.into_iter().zip(["KILL", "TERM", "TERM", "KILL", "KILL", "TERM"]) {
        let Some(two) = Two::new(pair) else { continue };
        let ((from, to), what) = (two.ends(), format!("{}, {signal}", two.what));
        two.one.plant_file(&from.disk.join("dir/big"), &bytes(7, length), 1_600_000_000);
        two.one.plant_file(&from.disk.join("small"), b"small", 1_600_000_000);
        let mut child = two.start(&["--limit-rate", "8M"]);
        let begin = Instant::now();
        while parts(&to) < 8 * MIB as u64 {
            assert_eq!(child.try_wait().unwrap(), None, "{what}: ended before it could be stopped");
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}: never began");
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &*pid]).status().unwrap().success());
        let ended = Told(child.wait_with_output().unwrap());
        assert_ne!(ended.status(), 0, "{what}: {}", ended.text());
        assert!(!to.disk.join("dir/big").exists(), "{what}: it is there before it is whole");
        let told = two.sync(&[]);
        let objects = told.fine().objects();
        let is_big = |object: &&Value| object["destination"].as_str().is_some_and(|at| at.ends_with("dir/big"));
        let big = objects.iter().filter(|object| object["event"] == "file").find(is_big).unwrap();
        let number = |name: &str| big[name].as_u64().unwrap();
        assert!(number("resumed_from") > 0, "{what}: {big}");
        assert!(number("transferred") < length as u64, "{what}: {big}");
        assert_eq!(tree(&from.disk), tree(&to.disk), "{what}");
        assert!(!names_below(&to.disk).iter().any(is_part), "{what}: a part is left");
        assert_eq!(two.sync(&[]).fine().changes("to/"), [""; 0], "{what}");
    }
}

/// How many bytes of parts lie at an end.
fn parts(end: &End) -> u64 {
    let parts = names_below(&end.disk).into_iter().filter(|name| is_part(name));
    parts.filter_map(|name| Some(end.disk.join(name).metadata().ok()?.len())).sum()
}

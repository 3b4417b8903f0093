use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::endpoint::Endpoint;
use crate::plan::testing::{Odd, write};
use crate::transfer::Event;
use crate::transport::{Algorithm, RemotePath};

struct Nobody;

impl Observer for Nobody {
    fn event(&self, _: Event) {}
}

impl Changes for Nobody {
    fn change(&self, _: &Change) {}
}

fn place(odd: &Odd, path: &Path) -> Place {
    let endpoint = Endpoint::parse(format!("file://{}", path.display())).unwrap();
    Place { transport: Arc::new(odd.clone()), endpoint }
}

async fn go(ends: [&Odd; 2], dir: &Path, options: Options) -> Synced {
    let transfer = transfer::Options::new(dir.join("state"));
    let (from, to) = (place(ends[0], &dir.join("from")), place(ends[1], &dir.join("to")));
    let nobody = Arc::new(Nobody);
    let (observer, changes) = (Arc::clone(&nobody) as Arc<dyn Observer>, nobody as Arc<dyn Changes>);
    // A task of its own: whoever calls it may want that.
    let run = async move { sync(from, to, options, &transfer, observer, changes, CancellationToken::new()).await };
    tokio::spawn(run).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_alike_costs_one_listing_for_each_directory_and_side() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..1000 {
        for end in ["from", "to"] {
            write(&dir.path().join(format!("{end}/{}/{}/{number}", number % 10, number % 3)), "x", 1_600_000_000);
        }
    }
    for end in ["from", "to"] {
        for path in std::fs::read_dir(dir.path().join(end)).unwrap() {
            let path = path.unwrap().path();
            for inner in std::fs::read_dir(&path).unwrap() {
                let inner = std::fs::File::open(inner.unwrap().path()).unwrap();
                inner.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            }
            std::fs::File::open(path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        let root = std::fs::File::open(dir.path().join(end)).unwrap();
        root.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    let ends = [Odd::default(), Odd::default()];
    let options = Options { delete: true, ..Options::default() };
    let synced = go([&ends[0], &ends[1]], dir.path(), options).await;
    assert_eq!((synced.equal, synced.summary.files, synced.deleted), (1000, 0, 0));
    for end in &ends {
        // The root is looked at once; it and ten directories with three in each are listed.
        assert_eq!(*end.calls.lock().unwrap(), BTreeMap::from([("stat", 1), ("list", 41)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_a_server_that_keeps_no_times_a_second_run_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..20 {
        write(&dir.path().join(format!("from/d/{number}")), "x", 1_600_000_000);
    }
    let ends = [Odd::default(), Odd { keeps: false, ahead: -7200, ..Odd::default() }];
    let ends = [&ends[0], &ends[1]];
    let options = || {
        let state_dir = Some(dir.path().join("state"));
        Options { comparing: Comparing { may_probe: true, state_dir, ..Comparing::default() }, ..Options::default() }
    };
    assert_eq!(go(ends, dir.path(), options()).await.summary.done, 20);
    let again = go(ends, dir.path(), options()).await;
    assert_eq!((again.summary.done, again.equal), (0, 20));
    let now = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    std::fs::File::open(dir.path().join("from/d/7")).unwrap().set_modified(now).unwrap();
    let newer = go(ends, dir.path(), options()).await;
    assert_eq!((newer.summary.done, newer.equal), (1, 19), "a newer source is not missed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_blind_to_case_loses_no_file() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["readme", "README", "other"] {
        write(&dir.path().join("from").join(name), name, 1_600_000_000);
    }
    let (seeing, blind) = (Odd::default(), Odd { folds: str::to_lowercase, ..Odd::default() });
    let read = |name: &str| std::fs::read_to_string(dir.path().join("to").join(name)).unwrap();
    for _ in 0..3 {
        let synced = go([&seeing, &blind], dir.path(), Options { delete: true, ..Options::default() }).await;
        assert_eq!(synced.summary.failed, 1, "one of the two can't be there");
        assert!(["readme", "README"].contains(&read("readme").as_str()));
        assert_eq!((read("other"), std::fs::read_dir(dir.path().join("to")).unwrap().count()), ("other".into(), 2));
    }
    // What another name stands for is not deleted after it was written over.
    std::fs::remove_file(dir.path().join("from/readme")).unwrap();
    std::fs::remove_file(dir.path().join("from/README")).unwrap();
    write(&dir.path().join("from/OTHER"), "new", 1_600_000_000);
    std::fs::remove_file(dir.path().join("from/other")).unwrap();
    let synced = go([&seeing, &blind], dir.path(), Options { delete: true, ..Options::default() }).await;
    assert_eq!((synced.summary.failed, synced.deleted, read("other")), (1, 0, "other".into()));
    // One that tells them apart has both.
    write(&dir.path().join("from/readme"), "readme", 1_600_000_000);
    write(&dir.path().join("from/README"), "README", 1_600_000_000);
    std::fs::remove_dir_all(dir.path().join("to")).unwrap();
    assert_eq!(go([&seeing, &seeing], dir.path(), Options::default()).await.summary.done, 3);
    assert_eq!((read("readme"), read("README")), ("readme".into(), "README".into()));
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_calls_otherwise_is_not_deleted_after_it_was_written() {
    /// What a server makes of a name, the names that are written, and what it calls their directory.
    type Case = (fn(&str) -> String, [&'static str; 2], &'static str);
    let cases: [Case; 6] = [
        (str::to_lowercase, ["Docs/a", "Docs/b"], "docs"),
        (str::to_lowercase, ["deep/er/Docs/a", "deep/er/Docs/b"], "deep/er/docs"),
        (|name| name.replace('\u{e9}', "e\u{301}"), ["caf\u{e9}", "th\u{e9}"], ""),
        (|name| name.replace('\u{e9}', "e\u{301}"), ["caf\u{e9}/a", "caf\u{e9}/b"], "cafe\u{301}"),
        (|name| name.trim_end_matches(['.', ' ']).to_owned(), ["dot.", "space "], ""),
        (|name| name.trim_end_matches(['.', ' ']).to_owned(), ["d./a", "d./b"], "d"),
    ];
    for (folds, files, lands_in) in cases {
        for detect_moves in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (seeing, odd) = (Odd::default(), Odd { folds, digests: vec![Algorithm::Sha256], ..Odd::default() });
            for file in files {
                write(&dir.path().join("from").join(file), "new", 1_600_000_000);
                let folded: Vec<_> = file.split('/').map(folds).collect();
                write(&dir.path().join("to").join(folded.join("/")), "old", 1_500_000_000);
            }
            write(&dir.path().join("from/common/x"), "x", 1_600_000_000);
            write(&dir.path().join("to/common/old"), "o", 1_600_000_000);
            for _ in 0..3 {
                let options = Options { delete: true, detect_moves, ..Options::default() };
                let synced = go([&seeing, &odd], dir.path(), options).await;
                assert!(synced.summary.failed > 0, "{files:?}");
                let mut wanted: Vec<_> = files.map(|file| folds(file.rsplit('/').next().unwrap())).to_vec();
                let top = lands_in.is_empty();
                wanted.extend(top.then(|| "common".to_owned()));
                wanted.sort();
                assert_eq!(names(&dir.path().join("to").join(lands_in)), wanted, "{files:?}");
            }
            // A folder of the destination with nothing to doubt on the way to it is tidied up.
            let doubtful_root = !lands_in.starts_with("deep");
            assert_eq!(dir.path().join("to/common/old").exists(), doubtful_root, "{files:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_not_deleted_after_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("from/Docs/a"), "new", 1_600_000_000);
    write(&dir.path().join("from/docs.txt"), "x", 1_600_000_000);
    write(&dir.path().join("from/x"), "file", 1_600_000_000);
    write(&dir.path().join("to/docs/a"), "old", 1_500_000_000);
    write(&dir.path().join("to/x/y"), "y", 1_500_000_000);
    let (seeing, odd) = (Odd::default(), Odd { folds: str::to_lowercase, ..Odd::default() });
    let synced = go([&seeing, &odd], dir.path(), Options { replace_kinds: true, ..Options::default() }).await;
    assert!(synced.summary.failed > 0);
    assert!(dir.path().join("to/x/y").exists() && dir.path().join("to/docs/a").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_became_a_link_leads_no_deletion_elsewhere() {
    for (swapped, precious) in [("old", "x"), ("both/inner", "x"), ("both", "inner/x")] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("from/new"), "new", 1_600_000_000);
        std::fs::create_dir_all(dir.path().join("from/both/inner")).unwrap();
        write(&dir.path().join("to").join(swapped).join(precious), "x", 1_600_000_000);
        write(&dir.path().join("to/gone/y"), "y", 1_600_000_000);
        write(&dir.path().join("outside").join(precious), "precious", 1_600_000_000);
        std::os::unix::fs::symlink(swapped, dir.path().join("swapped")).unwrap();
        let swap = |new: &RemotePath| {
            let to = Path::new(std::str::from_utf8(new.as_bytes()).unwrap()).parent().unwrap().to_owned();
            let dir = to.parent().unwrap();
            let swapped = to.join(std::fs::read_link(dir.join("swapped")).unwrap());
            std::fs::rename(&swapped, dir.join("aside")).unwrap();
            std::os::unix::fs::symlink(dir.join("outside"), swapped).unwrap();
        };
        let ends = [Odd::default(), Odd { on_rename: Some(swap), ..Odd::default() }];
        let synced = go([&ends[0], &ends[1]], dir.path(), Options { delete: true, ..Options::default() }).await;
        assert!(dir.path().join("outside").join(precious).exists(), "{swapped}");
        assert!(synced.summary.failed > 0, "{swapped}");
        assert!(!dir.path().join("to/gone").exists(), "{swapped}: the rest is deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_moved_out_of_a_link_that_is_listed_as_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("from/film"), "a long film", 1_600_000_000);
    write(&dir.path().join("outside/film"), "a long film", 1_600_000_000);
    std::fs::create_dir_all(dir.path().join("to")).unwrap();
    std::os::unix::fs::symlink("../outside", dir.path().join("to/link")).unwrap();
    let far = Odd { hides_links: true, digests: vec![Algorithm::Sha256], ..Odd::default() };
    let options = Options { delete: true, detect_moves: true, ..Options::default() };
    let synced = go([&Odd { digests: vec![Algorithm::Sha256], ..Odd::default() }, &far], dir.path(), options).await;
    assert_eq!((synced.moved, synced.summary.failed), (0, 0));
    assert_eq!(
        (names(&dir.path().join("outside")), names(&dir.path().join("to"))),
        (vec!["film".into()], vec!["film".into()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_of_few_bits_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("from/new name"), "one", 1_600_000_000);
    write(&dir.path().join("from/same"), "three", 1_600_000_000);
    write(&dir.path().join("to/old name"), "two", 1_600_000_000);
    write(&dir.path().join("to/same"), "3hree", 1_600_000_000);
    let ends = [vec![Algorithm::Crc32], vec![Algorithm::Crc32]];
    let ends = ends.map(|digests| Odd { digests, ..Odd::default() });
    let comparing = Comparing { by: By::Digest, ..Comparing::default() };
    let options = Options { comparing, delete: true, detect_moves: true, ..Options::default() };
    let synced = go([&ends[0], &ends[1]], dir.path(), options).await;
    assert_eq!((synced.moved, synced.deleted, synced.summary.failed), (0, 1, 0));
    let read = |name: &str| std::fs::read_to_string(dir.path().join("to").join(name)).unwrap();
    assert_eq!((read("new name"), read("same")), ("one".into(), "three".into()));
}

/// Memory is bounded by the largest directory, not by the tree: `HAUL_ENTRIES=200000 cargo test --release -- --ignored many`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes as many files as HAUL_ENTRIES says, and takes its time"]
async fn a_tree_of_many_entries_needs_no_more_memory_than_a_small_one() {
    let entries: usize = std::env::var("HAUL_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir().unwrap();
    for number in 0..entries {
        for end in ["from", "to"] {
            let path = dir.path().join(format!("{end}/{}/{}/{number}", number / 20_000, number / 200 % 100));
            if number % 200 == 0 {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            std::fs::File::create(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
    }
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident();
    let ends = [Odd::default(), Odd::default()];
    let synced = go([&ends[0], &ends[1]], dir.path(), Options { delete: true, ..Options::default() }).await;
    assert_eq!(synced.equal, entries as u64);
    let grown = resident() - before;
    assert!(grown < 64 << 10, "{grown} KiB more for {entries} entries");
}

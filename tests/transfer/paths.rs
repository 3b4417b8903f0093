//! What a server calls its files leads nowhere but below the destination, and onto no other file.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haul::ErrorKind;
use haul::endpoint::Endpoint;
use haul::plan::{self, Place};
use haul::transfer::{Event, Existing, Observer, Options, Outcome, Status, run};
use haul::transport::local::Local;
use haul::transport::{RemotePath, Transport};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio_util::sync::CancellationToken;

use super::blind::Blind;
use super::server::*;

/// Folders `in` (the server's), `out` (the destination) and `outside`, which must stay as it is.
struct Tree {
    case: Case,
    preserve: bool,
}

impl Tree {
    fn new() -> Self {
        let mut case = Case::new(10);
        case.options.retries = 0;
        for dir in ["in", "out", "outside"] {
            std::fs::create_dir(case.path(dir)).unwrap();
        }
        std::fs::write(case.path("outside/victim"), "precious").unwrap();
        Self { case, preserve: false }
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.case.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.case.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.case.path(dir)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn place(&self, transport: Arc<dyn Transport>, name: &str) -> Place {
        Place { transport, endpoint: Endpoint::parse(self.case.path(name)).unwrap() }
    }

    /// Copies sources below `in` to `out`; returns what came of each file.
    async fn copy(&self, sources: &[&str]) -> Vec<Outcome> {
        self.copy_to(Arc::new(Local::new()), sources).await
    }

    async fn copy_to(&self, here: Arc<dyn Transport>, sources: &[&str]) -> Vec<Outcome> {
        let log = Arc::new(Log::default());
        self.observed(Arc::<Log>::clone(&log), here, sources).await;
        std::mem::take(&mut log.outcomes.lock().unwrap())
    }

    async fn observed(&self, observer: Arc<dyn Observer>, to: Arc<dyn Transport>, sources: &[&str]) {
        let server = || Arc::new(Server::remote());
        let sources = sources.iter().map(|name| self.place(server(), &format!("in/{name}"))).collect();
        let options = plan::Options {
            recursive: true,
            preserve: self.preserve,
            retries: 0,
            retry_wait: Duration::from_millis(1),
            ..plan::Options::default()
        };
        let tasks = plan::copy(sources, self.place(to, "out"), options, Arc::clone(&observer)).await.unwrap();
        let options = Options { preserve_mode: self.preserve, ..self.case.options.clone() };
        run(tasks, &options, observer, CancellationToken::new()).await.unwrap();
    }

    fn assert_outside_is_untouched(&self) {
        assert_eq!(self.names("outside"), ["victim"]);
        assert_eq!(self.read("outside/victim"), "precious");
    }
}

/// The kinds and messages of what failed.
fn failures(outcomes: &[Outcome]) -> Vec<(ErrorKind, String)> {
    let failed = outcomes.iter().filter_map(|outcome| match &outcome.status {
        Status::Failed(error) => Some((error.kind(), error.chain())),
        _ => None,
    });
    failed.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_through_a_link_below_the_destination() {
    let tree = Tree::new();
    tree.write("in/t/d/victim", "evil");
    tree.write("in/t/file", "new");
    std::fs::create_dir(tree.case.path("out/t")).unwrap();
    symlink(tree.case.path("outside"), tree.case.path("out/t/d")).unwrap();
    symlink(tree.case.path("outside/victim"), tree.case.path("out/t/file")).unwrap();
    let failed = failures(&tree.copy(&["t"]).await);
    assert!(
        failed.iter().any(|(kind, text)| *kind == ErrorKind::NotADirectory && text.contains("a link")),
        "{failed:?}"
    );
    tree.assert_outside_is_untouched();
    // A link in the place of a file is replaced, as any file is.
    assert!(!tree.case.path("out/t/file").is_symlink());
    assert_eq!(tree.read("out/t/file"), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_downloaded_leads_no_later_file_astray() {
    let mut tree = Tree::new();
    tree.preserve = true;
    // One server sends a link; another, or the same one next time, files "in" it.
    std::fs::create_dir_all(tree.case.path("in/one/t")).unwrap();
    symlink("../../outside", tree.case.path("in/one/t/d")).unwrap();
    tree.write("in/two/t/d/victim", "evil");
    assert_eq!(failures(&tree.copy(&["one/t"]).await), []);
    assert!(tree.case.path("out/t/d/victim").exists(), "the link is there, and leads outside");
    assert!(!failures(&tree.copy(&["two/t"]).await).is_empty());
    tree.assert_outside_is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_destination_itself_may_be_a_link() {
    let tree = Tree::new();
    tree.write("in/t/d/f", "new");
    std::fs::rename(tree.case.path("out"), tree.case.path("real")).unwrap();
    symlink("real", tree.case.path("out")).unwrap();
    assert_eq!(failures(&tree.copy(&["t"]).await), []);
    assert_eq!(tree.read("real/t/d/f"), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_swapped_in_during_the_run_never_leads_outside() {
    let mut tree = Tree::new();
    tree.case.options.existing = Existing::Replace;
    for file in 0..40 {
        tree.write(&format!("in/t/d/{file}"), "evil");
        tree.write(&format!("in/t/d/e/{file}"), "evil");
    }
    let (name, link) = (tree.case.path("out/t/d"), tree.case.path("link"));
    std::fs::create_dir_all(&name).unwrap();
    symlink(tree.case.path("outside"), &link).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &name, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
            // The directory back to its place.
            if name.is_symlink() {
                renameat_with(CWD, &name, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        }
    });
    let (mut done, mut refused) = (0, 0);
    for _ in 0..30 {
        let outcomes = tree.copy(&["t"]).await;
        refused += failures(&outcomes).len();
        done += outcomes.iter().filter(|outcome| matches!(outcome.status, Status::Done)).count();
        tree.assert_outside_is_untouched();
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused: the swaps hit nothing");
    assert_eq!(tree.read("out/t/d/0"), "evil");
}

/// Puts a link in the place of a directory once its last file is there: only its mode is still to be set.
struct SwapAtTheEnd<'a>(&'a Path, &'a Path);

impl Observer for SwapAtTheEnd<'_> {
    fn event(&self, event: Event) {
        if let Event::Finished(_) = event {
            let moved = self.0.with_extension("moved");
            std::fs::rename(self.0, moved).unwrap();
            symlink(self.1, self.0).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_are_restored_through_no_link() {
    let mut tree = Tree::new();
    tree.preserve = true;
    tree.write("in/t/d/f", "new");
    let mode = |name: &str| std::fs::metadata(tree.case.path(name)).unwrap().mode() & 0o7777;
    let set = |name: &str, mode| {
        std::fs::set_permissions(tree.case.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("in/t/d", 0o777);
    set("outside", 0o700);
    let (dir, outside): (&'static Path, &'static Path) =
        (Box::leak(tree.case.path("out/t/d").into()), Box::leak(tree.case.path("outside").into()));
    tree.observed(Arc::new(SwapAtTheEnd(dir, outside)), Arc::new(Local::new()), &["t"]).await;
    assert!(tree.case.path("out/t/d").is_symlink());
    assert_eq!(mode("outside"), 0o700);
    tree.assert_outside_is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn setuid_setgid_and_sticky_stay_behind() {
    for preserve in [false, true] {
        let mut tree = Tree::new();
        tree.preserve = preserve;
        tree.write("in/t/program", "#!");
        for (name, mode) in [("in/t/program", 0o6755), ("in/t", 0o3777)] {
            std::fs::set_permissions(tree.case.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(failures(&tree.copy(&["t"]).await), []);
        for name in ["out/t/program", "out/t"] {
            assert_eq!(std::fs::metadata(tree.case.path(name)).unwrap().mode() & 0o7000, 0, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_planted_in_the_place_of_the_part_is_not_written_to() {
    let plant: [fn(&Path, &Path); 3] = [
        |victim, part| symlink(victim, part).unwrap(),
        |_, part| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(CWD, part, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        },
        |victim, part| std::fs::hard_link(victim, part).unwrap(),
    ];
    for plant in plant {
        for resume in [false, true] {
            let case = Case::new(8 * BLOCK);
            let victim = case.path("victim");
            std::fs::write(&victim, contents(6 * BLOCK)).unwrap();
            let (from, to) = pair();
            case.interrupt_at(&from, &to, 6 * BLOCK).await;
            let part = case.part();
            assert_eq!(std::fs::metadata(&part).unwrap().mode() & 0o7777, 0o600, "others could read the part");
            if !resume {
                std::fs::remove_dir_all(case.path("state")).unwrap();
                std::fs::create_dir_all(case.path("state")).unwrap();
            }
            std::fs::remove_file(&part).unwrap();
            plant(&victim, &part);
            let mut job = case.job(&from, &to);
            let root = RemotePath::new(case.dir.path().as_os_str().as_encoded_bytes()).unwrap();
            job.destination.transport = Local::new().beneath(&root).unwrap();
            case.go_job(job).await;
            assert!(std::fs::read(&victim).unwrap() == contents(6 * BLOCK), "the victim was written to");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_blind_to_case_loses_no_file() {
    for preserve in [false, true] {
        let mut tree = Tree::new();
        tree.preserve = preserve;
        let groups = [["t/Read.me", "t/read.ME"], ["t/caf\u{e9}", "t/cafe\u{301}"], ["t/Dir/x", "t/dir/x"]];
        for name in groups.concat() {
            tree.write(&format!("in/{name}"), name);
        }
        symlink("/nowhere", tree.case.path("in/t/LINK")).unwrap();
        tree.write("in/t/link", "t/link");
        // What an earlier run brought is as safe as what this one brings.
        for existing in [Existing::ReplaceDifferent, Existing::Replace, Existing::ReplaceOlder, Existing::Keep] {
            tree.case.options.existing = existing;
            let failed = failures(&tree.copy_to(Blind::disk(), &["t"]).await);
            assert!(failed.len() >= 3, "{failed:#?}");
            assert_eq!(tree.names("out/t").len(), 4, "{:?}", tree.names("out/t"));
            for name in tree.names("out/t") {
                let at = format!("t/{name}");
                if tree.case.path(&format!("out/{at}")).is_dir() {
                    assert_eq!(tree.read(&format!("out/{at}/x")), format!("{at}/x"));
                } else if name != "LINK" {
                    assert_eq!(tree.read(&format!("out/{at}")), at, "another file's contents ended up here");
                }
            }
            let clear =
                failed.iter().filter(|(kind, text)| *kind == ErrorKind::InvalidPath && text.contains("same name as"));
            assert!(clear.count() >= 3, "{failed:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_of_one_name_are_not_written_over_each_other() {
    let tree = Tree::new();
    tree.write("in/a/File", "a");
    tree.write("in/b/file", "b");
    tree.write("in/c/File", "c");
    let failed = failures(&tree.copy_to(Blind::disk(), &["a/File", "b/file"]).await);
    assert_eq!((failed.len(), failed[0].0), (1, ErrorKind::InvalidPath));
    let kept = tree.names("out");
    assert_eq!(tree.read(&format!("out/{}", kept[0])), if kept[0] == "File" { "a" } else { "b" });
    let tree = Tree { preserve: false, ..tree };
    std::fs::remove_file(tree.case.path("out").join(&kept[0])).unwrap();
    let failed = failures(&tree.copy(&["a/File", "c/File"]).await);
    assert_eq!((failed.len(), failed[0].0), (1, ErrorKind::Usage));
    assert_eq!(tree.read("out/File"), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backslash_is_a_letter_here_and_leads_no_server_astray() {
    let tree = Tree::new();
    for name in ["..\\..\\up", "C:\\x", "a\\b", "\\\\host\\x"] {
        tree.write(&format!("in/t/{name}"), name);
    }
    assert_eq!(failures(&tree.copy(&["t"]).await), []);
    assert_eq!(tree.names("out/t"), tree.names("in/t"));
    // To a server that may run on Windows, names that climb don't go.
    std::fs::remove_dir_all(tree.case.path("out/t")).unwrap();
    let failed = failures(&tree.copy_to(Arc::new(Server::remote()), &["t"]).await);
    assert_eq!((failed.len(), failed[0].0), (1, ErrorKind::InvalidPath), "{failed:?}");
    assert_eq!(tree.names("out/t").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_removed_and_made_again_is_written_to_again() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| RemotePath::new(root.path().join(name).as_os_str().as_encoded_bytes()).unwrap();
    let held = Local::new().beneath(&path("")).unwrap();
    for _ in 0..2 {
        held.create_dir(&path("d")).await.unwrap();
        held.create_dir(&path("d/e")).await.unwrap();
        std::fs::remove_dir_all(root.path().join("d")).unwrap();
    }
    // Deep below, longer than any path may be that is handed to the system in one piece.
    let name = "n".repeat(200);
    let mut deep = path("d");
    held.create_dir(&deep).await.unwrap();
    for _ in 0..30 {
        deep = deep.join(&name).unwrap();
        held.create_dir(&deep).await.unwrap();
    }
    held.symlink(b"x", &deep.join("link").unwrap()).await.unwrap();
    assert_eq!(held.read_link(&deep.join("link").unwrap()).await.unwrap(), b"x");
}

//! Devices that fail, and a state folder that somebody, or a loss of power, has been at.

use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use haul::transfer::Boot;
use haul::{Error, ErrorKind};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::server::*;

fn eio() -> Error {
    Error::io("read or write", io::Error::from_raw_os_error(5))
}

#[tokio::test]
async fn a_device_that_fails_in_the_middle_is_an_error_and_the_next_run_goes_on() {
    for (from, to) in both_ways() {
        for reading in [true, false] {
            let case = Case::new(8 * BLOCK);
            let sick = if reading { &from } else { &to };
            *sick.fails.lock().unwrap() = Some((5 * BLOCK + 7, eio()));
            let (summary, log) = case.go(&from, &to).await;
            assert_eq!((summary.failed, *log.retries.lock().unwrap()), (1, 0), "nothing says that it gets better");
            assert!(!case.path("final").exists());
            let outcomes = std::mem::take(&mut *log.outcomes.lock().unwrap());
            let haul::transfer::Status::Failed(error) = &outcomes[0].status else { panic!("no error") };
            assert!(error.chain().contains("nput/output error"), "{}", error.chain());
            let part = case.part();
            let name = part.file_name().unwrap().to_str().unwrap();
            assert!(error.hint().is_some_and(|hint| hint.contains(name)), "{:?} doesn't name {name}", error.hint());
            let (_, log) = case.go(&from, &to).await;
            assert!(log.resumed.lock().unwrap()[0] >= BLOCK);
            case.assert_whole();
        }
    }
}

#[tokio::test]
async fn a_rename_that_is_refused_keeps_all_that_arrived() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnly, ErrorKind::NoSpace, ErrorKind::Other] {
        for (from, to) in both_ways() {
            let case = Case::new(3 * BLOCK);
            *to.refuses_rename.lock().unwrap() = Some(kind);
            let (summary, log) = case.go(&from, &to).await;
            assert_eq!(summary.failed, 1);
            assert!(!case.path("final").exists());
            let outcomes = std::mem::take(&mut *log.outcomes.lock().unwrap());
            let haul::transfer::Status::Failed(error) = &outcomes[0].status else { panic!("no error") };
            assert_eq!(error.kind(), kind);
            let name = case.part().file_name().unwrap().to_str().unwrap().to_owned();
            assert!(error.hint().is_some_and(|hint| hint.contains(&name)), "{:?} doesn't name {name}", error.hint());
            let (summary, _) = case.go(&from, &to).await;
            assert!(summary.done == 1 && summary.transferred <= BLOCK, "{}", summary.transferred);
            case.assert_whole();
        }
    }
}

/// The journal of an interrupted transfer.
fn journal(case: &Case) -> PathBuf {
    let name = case.strays().into_iter().find(|name| name.ends_with(".journal")).expect("a journal");
    case.path("state/transfers").join(name)
}

/// Whatever is in the place of a journal: the transfer starts anew, or says what is in the way; and waits for nobody.
#[tokio::test]
async fn something_else_in_the_place_of_a_journal_means_a_clean_restart() {
    for (from, to) in both_ways() {
        for what in ["link", "dangling link", "link to itself", "pipe", "unreadable", "empty", "zeros", "version 2"] {
            let case = Case::new(4 * BLOCK);
            case.interrupt_at(&from, &to, 3 * BLOCK).await;
            let path = journal(&case);
            let text = std::fs::read(&path).unwrap();
            let target = case.path("target");
            std::fs::write(&target, &text).unwrap();
            std::fs::remove_file(&path).unwrap();
            match what {
                "link" => symlink(&target, &path).unwrap(),
                "dangling link" => symlink(case.path("nowhere"), &path).unwrap(),
                "link to itself" => symlink(&path, &path).unwrap(),
                "pipe" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                "unreadable" => {
                    std::fs::write(&path, &text).unwrap();
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o0)).unwrap();
                }
                "empty" => std::fs::write(&path, "").unwrap(),
                "zeros" => std::fs::write(&path, vec![0; text.len()]).unwrap(),
                _ => {
                    let text = String::from_utf8(text.clone()).unwrap().replacen("\"version\":1", "\"version\":2", 1);
                    std::fs::write(&path, text).unwrap();
                }
            }
            let (summary, _) = case.go(&from, &to).await;
            assert_eq!(summary.done, 1, "{what}");
            assert!(std::fs::read(&target).unwrap() == text, "{what}: written through a link");
            assert!(!case.path("nowhere").exists(), "{what}");
            case.assert_whole();
        }
    }
}

#[tokio::test]
async fn a_directory_in_the_place_of_a_journal_is_named() {
    let case = Case::new(4 * BLOCK);
    let (from, to) = pair();
    case.interrupt_at(&from, &to, 3 * BLOCK).await;
    let path = journal(&case);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let (summary, log) = case.go(&from, &to).await;
    assert_eq!(summary.failed, 1);
    let outcomes = std::mem::take(&mut *log.outcomes.lock().unwrap());
    let haul::transfer::Status::Failed(error) = &outcomes[0].status else { panic!("no error") };
    assert_eq!(error.path(), path.to_str());
    std::fs::remove_dir(&path).unwrap();
    case.go(&from, &to).await;
    case.assert_whole();
}

/// What a loss of power leaves in the state folder.
#[tokio::test]
async fn a_damaged_number_of_the_installation_is_made_anew() {
    for damage in [&b""[..], &[0; 16], &[7; 15]] {
        let case = Case::new(4 * BLOCK);
        let (from, to) = pair();
        std::fs::create_dir_all(case.path("state/transfers")).unwrap();
        std::fs::write(case.path("state/transfers/installation"), damage).unwrap();
        case.interrupt_at(&from, &to, 3 * BLOCK).await;
        let number = std::fs::read(case.path("state/transfers/installation")).unwrap();
        assert!(number.len() == 16 && number != [0; 16]);
        case.go(&from, &to).await;
        case.assert_whole();
    }
}

#[tokio::test]
async fn a_head_that_was_never_renamed_is_no_journal() {
    let case = Case::new(4 * BLOCK);
    let (from, to) = pair();
    case.interrupt_at(&from, &to, 3 * BLOCK).await;
    let path = journal(&case);
    std::fs::rename(&path, path.with_extension("new")).unwrap();
    case.go(&from, &to).await;
    case.assert_whole();
}

/// The blocks of a journal that the part has lost: what the disk had no time to write.
#[tokio::test]
async fn a_journal_that_tells_of_more_than_the_part_has_is_not_believed() {
    for lost in [0..BLOCK, BLOCK..3 * BLOCK, 5 * BLOCK..6 * BLOCK, 0..8 * BLOCK] {
        let case = Case::new(8 * BLOCK);
        let (from, to) = pair();
        case.interrupt_at(&from, &to, 6 * BLOCK).await;
        let part = std::fs::File::options().write(true).open(case.part()).unwrap();
        let zeros = vec![0; usize::try_from(lost.end - lost.start).unwrap()];
        std::os::unix::fs::FileExt::write_all_at(&part, &zeros, lost.start).unwrap();
        case.go(&from, &to).await;
        case.assert_whole();
    }
}

fn boot(id: &str) -> Boot {
    Boot { id: Some(id.into()), since: Some(SystemTime::now()) }
}

/// Makes zeros of a part of the final file and keeps its time.
fn lose(case: &Case, at: u64, length: u64) {
    let file = std::fs::File::options().write(true).open(case.path("final")).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; usize::try_from(length).unwrap()], at).unwrap();
    file.set_modified(time).unwrap();
}

#[tokio::test]
async fn what_another_boot_lost_is_moved_again_and_in_the_same_boot_nothing_is_looked_at() {
    for (size, again) in [(100_000, 100_000), (4 * BLOCK, BLOCK)] {
        let mut case = Case::new(size);
        let (from, to) = pair();
        case.options.boot = boot("first");
        case.go(&from, &to).await;
        lose(&case, 4096, 2048);
        let (summary, _) = case.go(&from, &to).await;
        assert_eq!(summary.skipped, 1, "the same boot: what was written is there");
        case.options.boot = boot("second");
        let (summary, _) = case.go(&from, &to).await;
        assert_eq!((summary.done, summary.transferred), (1, again));
        case.assert_whole();
        let time = |name| std::fs::metadata(case.path(name)).unwrap().modified().unwrap();
        assert_eq!(time("final"), time("source"));
    }
}

#[tokio::test]
async fn what_another_boot_wrote_whole_is_skipped() {
    for size in [0, 100_000, 4 * BLOCK] {
        let mut case = Case::new(size);
        let (from, to) = pair();
        case.options.boot = boot("first");
        case.go(&from, &to).await;
        case.options.boot = boot("second");
        let (summary, _) = case.go(&from, &to).await;
        assert_eq!((summary.skipped, summary.transferred), (1, 0), "{size}");
        case.assert_whole();
    }
}

#[tokio::test]
async fn a_dry_run_after_a_loss_of_power_tells_and_changes_nothing() {
    let mut case = Case::new(4 * BLOCK);
    let (from, to) = pair();
    case.options.boot = boot("first");
    case.go(&from, &to).await;
    lose(&case, 0, BLOCK);
    let before = std::fs::read(case.path("final")).unwrap();
    case.options.boot = boot("second");
    case.options.dry_run = true;
    let (summary, _) = case.go(&from, &to).await;
    assert_eq!((summary.done, summary.skipped), (1, 0));
    assert!(std::fs::read(case.path("final")).unwrap() == before);
}

/// A run that takes a damaged file back is cut itself.
#[tokio::test]
async fn what_was_taken_back_is_not_skipped_when_the_connection_breaks() {
    let mut case = Case::new(6 * BLOCK);
    let (from, to) = pair();
    case.options.boot = boot("first");
    case.go(&from, &to).await;
    lose(&case, BLOCK, 4 * BLOCK);
    case.options.boot = boot("second");
    // The overlaps are read whole, what is missing breaks once.
    *from.breaks_reading.lock().unwrap() = vec![1 << 40, BLOCK + 5, 1 << 40, 1 << 40];
    let (summary, log) = case.go(&from, &to).await;
    assert_eq!((summary.done, *log.retries.lock().unwrap()), (1, 1));
    case.assert_whole();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Random bytes of the journal and of the part are flipped, and both may be cut.
    #[test]
    fn no_damage_to_journal_and_part_makes_a_wrong_file(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..6),
        bytes in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let case = Case::new(4 * BLOCK);
            let (from, to) = pair();
            case.interrupt_at(&from, &to, 3 * BLOCK).await;
            let (journal, part) = (journal(&case), case.part());
            let mut text = std::fs::read(&journal).unwrap();
            for (at, flip) in &flips {
                let at = at.index(text.len());
                text[at] ^= flip;
            }
            if let Some(cut) = cut {
                text.truncate(cut.index(text.len()));
            }
            std::fs::write(&journal, text).unwrap();
            let mut there = std::fs::read(&part).unwrap();
            for (at, flip) in &bytes {
                let at = at.index(there.len());
                there[at] ^= flip;
            }
            std::fs::write(&part, there).unwrap();
            let (summary, _) = case.go_with(&from, &to, Log::default(), CancellationToken::new()).await;
            assert_eq!(summary.done, 1);
            case.assert_whole();
        });
    }
}

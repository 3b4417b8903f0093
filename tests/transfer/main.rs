//! The engine without a network: local files behind a wrapper that looks remote and breaks on demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::case_sensitive_file_extension_comparisons)]

mod blind;
mod paths;
mod renames;
mod segments;
mod server;
mod trouble;

use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use futures_util::stream;
use haul::ErrorKind;
use haul::endpoint::Endpoint;
use haul::plan::{self, Place};
use haul::transfer::{Existing, Limiter, Observer, Options, Status, Task, Verified, Verify, read_out, run, write_in};
use haul::transport::local::Local;
use haul::transport::{Algorithm, Transport};
use tokio_util::sync::CancellationToken;

use server::*;

#[tokio::test]
async fn a_file_arrives_with_its_time_and_leaves_nothing_behind() {
    for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
        let case = Case::new(size);
        let (from, to) = pair();
        let (summary, log) = case.go(&from, &to).await;
        assert_eq!((summary.done, summary.bytes, summary.transferred), (1, size, size));
        assert_eq!(log.outcomes.lock().unwrap()[0].verified, Some(Verified::Size));
        case.assert_whole();
        let time = |name| std::fs::metadata(case.path(name)).unwrap().modified().unwrap();
        assert_eq!(time("final"), time("source"));
    }
}

#[tokio::test]
async fn the_same_file_is_not_moved_twice() {
    let case = Case::new(10);
    let (from, to) = pair();
    case.go(&from, &to).await;
    let (summary, _) = case.go(&from, &to).await;
    assert_eq!((summary.done, summary.skipped, summary.transferred), (0, 1, 0));
}

#[tokio::test]
async fn a_broken_read_goes_on_where_it_was() {
    let case = Case::new(8 * BLOCK + 5);
    let (from, to) = pair();
    *from.breaks_reading.lock().unwrap() = vec![5 * BLOCK + 77];
    let (summary, log) = case.go(&from, &to).await;
    assert_eq!((summary.done, *log.retries.lock().unwrap()), (1, 1));
    assert_eq!(*log.resumed.lock().unwrap(), [5 * BLOCK], "no whole block is moved again");
    assert!(*from.bytes_read.lock().unwrap() <= 10 * BLOCK, "hardly anything is read twice");
    assert_eq!(log.outcomes.lock().unwrap()[0].verified, Some(Verified::Overlap));
    case.assert_whole();
}

#[tokio::test]
async fn a_broken_write_goes_on_where_it_was() {
    let case = Case::new(8 * BLOCK + 5);
    let (to, from) = pair();
    *to.breaks_writing.lock().unwrap() = vec![5 * BLOCK + 77];
    let (summary, log) = case.go(&from, &to).await;
    assert_eq!(summary.done, 1);
    assert!(log.resumed.lock().unwrap()[0] >= BLOCK);
    case.assert_whole();
}

#[tokio::test]
async fn any_number_of_breaks_is_survived_as_long_as_it_goes_on() {
    let mut case = Case::new(20 * BLOCK);
    case.options.retries = 1;
    let (from, to) = pair();
    // Each resume opens two reads: the overlap, which is whole, and the rest, which breaks again.
    *from.breaks_reading.lock().unwrap() = [4 * BLOCK, 1 << 40].repeat(6);
    from.breaks_reading.lock().unwrap().push(4 * BLOCK);
    let (summary, log) = case.go(&from, &to).await;
    assert_eq!(summary.done, 1);
    assert!(*log.retries.lock().unwrap() >= 4);
    case.assert_whole();
}

#[tokio::test]
async fn an_interrupted_run_is_resumed_by_the_next() {
    for (from, to) in both_ways() {
        let case = Case::new(8 * BLOCK);
        case.interrupt_at(&from, &to, 6 * BLOCK).await;
        let (summary, log) = case.go(&from, &to).await;
        assert!(log.resumed.lock().unwrap()[0] >= BLOCK);
        assert!(summary.transferred < 8 * BLOCK);
        case.assert_whole();
    }
}

#[tokio::test]
async fn without_resume_it_starts_anew() {
    let mut case = Case::new(4 * BLOCK);
    let (from, to) = pair();
    case.interrupt_at(&from, &to, 3 * BLOCK).await;
    case.options.resume = false;
    let (summary, log) = case.go(&from, &to).await;
    assert_eq!((summary.transferred, log.resumed.lock().unwrap().len()), (4 * BLOCK, 0));
    case.assert_whole();
}

#[tokio::test]
async fn of_an_edited_part_what_proves_is_kept() {
    let case = Case::new(8 * BLOCK);
    let (from, to) = pair();
    *from.breaks_reading.lock().unwrap() = vec![6 * BLOCK];
    let before = Case { options: Options { retries: 0, ..case.options.clone() }, ..case };
    before.go(&from, &to).await;
    let part = before.part();
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[usize::try_from(2 * BLOCK + 3).unwrap()] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let (_, log) = before.go(&from, &to).await;
    assert_eq!(*log.resumed.lock().unwrap(), [5 * BLOCK]);
    before.assert_whole();
}

#[tokio::test]
async fn a_part_that_was_truncated_grown_or_removed_never_spoils_the_file() {
    for (from, to) in both_ways() {
        for length in [0, 1, 2 * BLOCK + 1, 20 * BLOCK] {
            let case = Case::new(8 * BLOCK);
            case.interrupt_at(&from, &to, 6 * BLOCK).await;
            std::fs::File::options().write(true).open(case.part()).unwrap().set_len(length).unwrap();
            case.go(&from, &to).await;
            case.assert_whole();
        }
        let case = Case::new(8 * BLOCK);
        case.interrupt_at(&from, &to, 6 * BLOCK).await;
        std::fs::remove_file(case.part()).unwrap();
        case.go(&from, &to).await;
        case.assert_whole();
    }
}

#[tokio::test]
async fn a_source_that_changed_under_the_same_size_and_time_is_not_spliced() {
    for (from, to) in both_ways() {
        let case = Case::new(8 * BLOCK);
        case.interrupt_at(&from, &to, 6 * BLOCK).await;
        let source = case.path("source");
        let time = std::fs::metadata(&source).unwrap().modified().unwrap();
        let other: Vec<u8> = contents(8 * BLOCK).iter().map(|b| !b).collect();
        std::fs::write(&source, other).unwrap();
        std::fs::File::options().write(true).open(&source).unwrap().set_modified(time).unwrap();
        let (_, log) = case.go(&from, &to).await;
        assert_eq!(log.resumed.lock().unwrap().len(), 0);
        case.assert_whole();
    }
}

#[tokio::test]
async fn a_local_source_that_changed_anywhere_in_what_was_sent_is_not_spliced() {
    let case = Case::new(8 * BLOCK);
    let (to, from) = pair();
    case.interrupt_at(&from, &to, 6 * BLOCK).await;
    let source = case.path("source");
    let time = std::fs::metadata(&source).unwrap().modified().unwrap();
    let mut bytes = contents(8 * BLOCK);
    bytes[7] ^= 1;
    std::fs::write(&source, bytes).unwrap();
    std::fs::File::options().write(true).open(&source).unwrap().set_modified(time).unwrap();
    case.go(&from, &to).await;
    case.assert_whole();
}

#[tokio::test]
async fn a_source_that_changes_while_it_is_read_is_read_again() {
    let case = Case::new(4 * BLOCK);
    let (from, to) = pair();
    let log = Log { touch: Some(case.path("source")), ..Log::default() };
    let (summary, log) = case.go_with(&from, &to, log, CancellationToken::new()).await;
    assert_eq!((summary.done, *log.retries.lock().unwrap()), (1, 1));
    assert_eq!(std::fs::metadata(case.path("final")).unwrap().modified().unwrap(), UNIX_EPOCH);
    case.assert_whole();
}

#[tokio::test]
async fn a_server_that_loses_bytes_and_claims_success_is_not_believed() {
    let case = Case::new(4 * BLOCK);
    let to = Arc::new(Server { loses_bytes: true, ..Server::remote() });
    let (summary, _) = case.go(&Arc::new(Server::default()), &to).await;
    assert_eq!((summary.done, summary.verify_failed), (0, 1));
    assert!(!case.path("final").exists());
}

#[tokio::test]
async fn a_damaged_journal_means_a_clean_restart() {
    for damage in [b"".as_slice(), b"{\"version\":99}\n", b"\xff\xfe\n\n\0"] {
        let case = Case::new(4 * BLOCK);
        let (from, to) = pair();
        case.interrupt_at(&from, &to, 3 * BLOCK).await;
        let journal = case.strays().into_iter().find(|name| name.ends_with(".journal")).unwrap();
        std::fs::write(case.path("state/transfers").join(journal), damage).unwrap();
        let (_, log) = case.go(&from, &to).await;
        assert_eq!(log.resumed.lock().unwrap().len(), 0);
        case.assert_whole();
    }
}

#[tokio::test]
async fn a_failed_transfer_leaves_the_old_file_whole() {
    let mut case = Case::new(3 * BLOCK);
    std::fs::write(case.path("final"), "old").unwrap();
    case.options.retries = 0;
    let (from, to) = pair();
    *from.breaks_reading.lock().unwrap() = vec![2 * BLOCK];
    let (summary, _) = case.go(&from, &to).await;
    assert_eq!(summary.failed, 1);
    assert_eq!(std::fs::read(case.path("final")).unwrap(), b"old");
}

#[tokio::test]
async fn retries_end() {
    let mut case = Case::new(10);
    case.options.retries = 3;
    let (from, to) = pair();
    *from.breaks_reading.lock().unwrap() = vec![0; 10];
    let (summary, log) = case.go(&from, &to).await;
    assert_eq!((summary.failed, *log.retries.lock().unwrap()), (1, 3));
}

#[tokio::test]
async fn a_wrong_digest_fails_and_never_gets_the_final_name() {
    let mut case = Case::new(10);
    case.options.verify = Verify::Digest;
    let from = Arc::new(Server { lies_about_digests: true, ..Server::remote() });
    let (summary, log) = case.go(&from, &Arc::new(Server::default())).await;
    assert_eq!((summary.failed, summary.verify_failed), (1, 1));
    let outcomes = log.outcomes.lock().unwrap();
    assert!(matches!(&outcomes[0].status, Status::Failed(e) if e.kind() == ErrorKind::VerifyFailed), "{outcomes:?}");
    assert!(!case.path("final").exists());
}

#[tokio::test]
async fn digest_is_required_where_asked_for() {
    let mut case = Case::new(10);
    case.options.verify = Verify::Digest;
    let (from, to) = pair();
    let (summary, _) = case.go(&from, &to).await;
    assert_eq!(summary.failed, 1);
    let (summary, log) = case.go(&to, &to).await;
    assert_eq!(
        (summary.done, log.outcomes.lock().unwrap()[0].verified),
        (1, Some(Verified::Digest(Algorithm::Sha512)))
    );
}

#[tokio::test]
async fn two_jobs_for_one_destination_do_not_mix() {
    let mut case = Case::new(4 * BLOCK);
    case.options.limiter = Limiter::new(Some(40 * BLOCK));
    let (from, to) = pair();
    let log: Arc<dyn Observer> = Arc::new(Log::default());
    let tasks = stream::iter([Task::File(case.job(&from, &to)), Task::File(case.job(&from, &to))]);
    let summary = run(tasks, &case.options, log, CancellationToken::new()).await.unwrap();
    assert_eq!((summary.done, summary.failed), (1, 1));
    case.assert_whole();
}

#[tokio::test]
async fn what_is_there_is_kept_replaced_or_compared() {
    let mut case = Case::new(10);
    let (from, to) = pair();
    for (existing, replaced) in [
        (Existing::Keep, false),
        (Existing::ReplaceOlder, false),
        (Existing::Replace, true),
        (Existing::ReplaceDifferent, true),
    ] {
        std::fs::write(case.path("final"), "newer").unwrap();
        case.options.existing = existing;
        case.go(&from, &to).await;
        assert_eq!(std::fs::read(case.path("final")).unwrap() != b"newer", replaced, "{existing:?}");
    }
}

#[tokio::test]
async fn setuid_is_not_restored_and_modes_follow_cp() {
    use std::os::unix::fs::PermissionsExt;
    let mut case = Case::new(10);
    let (from, to) = pair();
    let (source, target) = (case.path("source"), case.path("final"));
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let mode = || std::fs::metadata(&target).unwrap().permissions().mode() & 0o7777;
    set(&source, 0o6751);
    case.options.existing = Existing::Replace;
    case.go(&from, &to).await;
    assert_eq!(mode() & 0o7000, 0);
    assert_eq!(mode() & 0o700, 0o700, "an executable stays one");
    set(&target, 0o604);
    case.go(&from, &to).await;
    assert_eq!(mode(), 0o604, "what was there keeps its mode");
    case.options.preserve_mode = true;
    case.go(&from, &to).await;
    assert_eq!(mode(), 0o751);
}

#[tokio::test]
async fn hostile_names_fail_and_nothing_is_written_outside() {
    let case = Case::new(10);
    std::fs::create_dir(case.path("in")).unwrap();
    std::fs::create_dir(case.path("out")).unwrap();
    let names = ["..", ".", "", "../escaped", "/tmp/escaped", "a/b", "a\0b"].map(|n| n.as_bytes().to_vec()).to_vec();
    let bad = names.len() as u64;
    let from = Arc::new(Server { hostile_names: names, ..Server::remote() });
    let place = |transport: Arc<dyn Transport>, name: &str| Place {
        transport,
        endpoint: Endpoint::parse(case.path(name)).unwrap(),
    };
    let observer: Arc<dyn Observer> = Arc::new(Log::default());
    let options = plan::Options { recursive: true, retries: 0, ..plan::Options::default() };
    let (sources, target) = (vec![place(from, "in")], place(Arc::new(Local::new()), "out"));
    let tasks = plan::copy(sources, target, options, Arc::clone(&observer)).await.unwrap();
    let summary = run(tasks, &case.options, observer, CancellationToken::new()).await.unwrap();
    // A name that is empty twice over ("" and ".") is still one each: all of them fail by themselves.
    assert_eq!((summary.failed, summary.done), (bad, 0));
    assert_eq!(std::fs::read_dir(case.path("out/in")).unwrap().count(), 0);
    assert!(!case.path("escaped").exists() && !case.path("out/escaped").exists());
}

#[tokio::test]
async fn a_stream_out_goes_on_after_a_break_without_a_gap() {
    let case = Case::new(3 * BLOCK);
    let from = Arc::new(Server::remote());
    *from.breaks_reading.lock().unwrap() = vec![BLOCK + 9, 7];
    let mut bytes = Vec::new();
    let log: Arc<dyn Observer> = Arc::new(Log::default());
    let source = case.at(&from, "source");
    let written = read_out(&source, &mut bytes, &case.options, log, CancellationToken::new()).await.unwrap();
    assert_eq!(written, 3 * BLOCK);
    assert!(bytes == contents(3 * BLOCK));
}

#[tokio::test]
async fn a_stream_in_appears_whole_or_not_at_all() {
    let case = Case::new(0);
    let to = Arc::new(Server::remote());
    let destination = case.at(&to, "final");
    *to.breaks_writing.lock().unwrap() = vec![BLOCK];
    let log = || -> Arc<dyn Observer> { Arc::new(Log::default()) };
    let input = contents(2 * BLOCK);
    let failed = write_in(&mut input.as_slice(), &destination, &case.options, log(), CancellationToken::new()).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert!(!case.path("final").exists() && case.strays().is_empty());
    let outcome = write_in(&mut input.as_slice(), &destination, &case.options, log(), CancellationToken::new()).await;
    assert_eq!(outcome.unwrap().bytes, Some(2 * BLOCK));
    assert!(std::fs::read(case.path("final")).unwrap() == input);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let mut case = Case::new(10);
    case.options.dry_run = true;
    let (from, to) = pair();
    let (_, log) = case.go(&from, &to).await;
    assert!(matches!(log.outcomes.lock().unwrap()[0].status, Status::Planned));
    assert!(!case.path("final").exists());
}

#[tokio::test]
async fn a_missing_source_is_told_as_such() {
    let case = Case::new(0);
    std::fs::remove_file(case.path("source")).unwrap();
    let (from, to) = pair();
    let (_, log) = case.go(&from, &to).await;
    let outcomes = log.outcomes.lock().unwrap();
    assert!(matches!(&outcomes[0].status, Status::Failed(e) if e.kind() == ErrorKind::NotFound), "{outcomes:?}");
}

//! The rename is done, and nobody hears of it: the line broke on its answer.

use std::sync::Arc;

use haul::transfer::{Existing, Options, Status};

use crate::server::*;

/// A destination that loses the answer to one rename.
fn pair_that_loses_an_answer() -> (Arc<Server>, Arc<Server>) {
    let to = Server { loses_answers_of_renames: 1.into(), ..Server::remote() };
    (Arc::new(Server::default()), Arc::new(to))
}

#[tokio::test]
async fn a_retry_finds_that_the_file_is_there_and_done() {
    for (size, existing) in [
        (5 * BLOCK + 3, Existing::ReplaceDifferent),
        (5 * BLOCK + 3, Existing::Keep),
        (5 * BLOCK + 3, Existing::ReplaceOlder),
        (10, Existing::ReplaceDifferent),
        (10, Existing::Keep),
    ] {
        let case = Case::new(size);
        let case = Case { options: Options { existing, ..case.options.clone() }, ..case };
        let (from, to) = pair_that_loses_an_answer();
        let (summary, log) = case.go(&from, &to).await;
        let outcomes = log.outcomes.lock().unwrap();
        assert!(matches!(outcomes[0].status, Status::Done), "{size} {existing:?}: {outcomes:?}");
        assert_eq!((summary.done, summary.transferred, *log.retries.lock().unwrap()), (1, size, 1));
        case.assert_whole();
    }
}

#[tokio::test]
async fn a_retry_replaces_what_was_there_once() {
    let case = Case::new(3 * BLOCK);
    std::fs::write(case.path("final"), "old").unwrap();
    let (from, to) = pair_that_loses_an_answer();
    let (summary, _) = case.go(&from, &to).await;
    assert_eq!((summary.done, summary.transferred), (1, 3 * BLOCK));
    case.assert_whole();
}

#[tokio::test]
async fn the_next_run_finds_the_file_there_and_cleans_up() {
    for existing in [Existing::ReplaceDifferent, Existing::Keep, Existing::Replace, Existing::ReplaceOlder] {
        let case = Case::new(3 * BLOCK + 1);
        let case = Case { options: Options { existing, retries: 0, ..case.options.clone() }, ..case };
        let (from, to) = pair_that_loses_an_answer();
        let (summary, _) = case.go(&from, &to).await;
        assert_eq!(summary.failed, 1);
        let (summary, _) = case.go(&from, &to).await;
        assert_eq!(summary.failed, 0);
        case.assert_whole();
    }
}

#[tokio::test]
async fn what_is_left_of_an_earlier_run_goes_when_somebody_else_put_the_file_there() {
    for (from, to) in both_ways() {
        let case = Case::new(4 * BLOCK);
        case.interrupt_at(&from, &to, 3 * BLOCK).await;
        std::fs::copy(case.path("source"), case.path("final")).unwrap();
        let time = std::fs::metadata(case.path("source")).unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(case.path("final")).unwrap().set_modified(time).unwrap();
        let (summary, _) = case.go(&from, &to).await;
        assert_eq!((summary.skipped, summary.transferred), (1, 0));
        case.assert_whole();
    }
}

#[tokio::test]
async fn a_file_of_the_same_size_is_not_taken_for_the_one_that_was_moved() {
    // The part is complete; then the server loses it. What has the final name is an old file of the same size.
    let case = Case::new(4 * BLOCK);
    let mut old = contents(4 * BLOCK);
    old[BLOCK as usize] ^= 1;
    let case = Case { options: Options { existing: Existing::Replace, retries: 0, ..case.options.clone() }, ..case };
    let (from, to) = (Arc::new(Server::default()), Arc::new(Server { refuses_renames: 1.into(), ..Server::remote() }));
    std::fs::write(case.path("final"), old).unwrap();
    let time = std::fs::metadata(case.path("source")).unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(case.path("final")).unwrap().set_modified(time).unwrap();
    let (summary, _) = case.go(&from, &to).await;
    assert_eq!(summary.failed, 1);
    std::fs::remove_file(case.part()).unwrap();
    case.go(&from, &to).await;
    case.assert_whole();
}

#[tokio::test]
async fn a_part_that_the_server_removes_at_the_last_moment_is_made_again() {
    let case = Case::new(3 * BLOCK);
    let (from, to) = (Arc::new(Server::default()), Arc::new(Server { removes_parts: 1.into(), ..Server::remote() }));
    let (summary, log) = case.go(&from, &to).await;
    assert_eq!((summary.done, *log.retries.lock().unwrap()), (1, 1));
    case.assert_whole();
}

#[tokio::test]
async fn nothing_is_moved_again_when_the_line_broke_before_the_rename() {
    for (from, to) in both_ways() {
        let case = Case::new(4 * BLOCK + 100);
        *to.refuses_renames.lock().unwrap() = 1;
        let (summary, log) = case.go(&from, &to).await;
        assert_eq!((summary.done, summary.transferred), (1, 4 * BLOCK + 100));
        assert_eq!(*log.resumed.lock().unwrap(), [4 * BLOCK + 100]);
        case.assert_whole();
    }
}

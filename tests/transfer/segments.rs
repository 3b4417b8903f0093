//! One file in several pieces at once.

use std::sync::Arc;

use haul::ErrorKind;
use haul::transfer::Status;

use super::server::*;

const SEGMENTS: usize = 4;

fn case(size: u64) -> Case {
    let mut case = Case::new(size);
    case.options.segments = Some(SEGMENTS);
    case
}

/// The most streams that were open at once at the end across the network.
fn most_streams(from: &Arc<Server>, to: &Arc<Server>) -> usize {
    let remote = if from.is_remote { from } else { to };
    remote.streams.lock().unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_in_several_streams_both_ways() {
    for (from, to) in both_ways() {
        let case = case(40 * BLOCK + 77);
        let (summary, _) = case.go(&from, &to).await;
        assert_eq!((summary.done, summary.transferred), (1, 40 * BLOCK + 77));
        assert!(most_streams(&from, &to) > 1, "it went in one stream");
        // The writer that made the part stays open to the end, so that it is closed last.
        assert!(most_streams(&from, &to) <= SEGMENTS + usize::from(to.is_remote));
        case.assert_whole();
        let time = |name| std::fs::metadata(case.path(name)).unwrap().modified().unwrap();
        assert_eq!(time("final"), time("source"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_loses_a_block_of_each_at_most() {
    for (from, to) in both_ways() {
        let case = case(40 * BLOCK);
        let breaks = vec![3 * BLOCK + 5, 2 * BLOCK, 4 * BLOCK + 1];
        *(if from.is_remote { &from.breaks_reading } else { &to.breaks_writing }).lock().unwrap() = breaks;
        let (summary, log) = case.go(&from, &to).await;
        assert_eq!(summary.done, 1);
        assert!(*log.retries.lock().unwrap() >= 1);
        assert!(!log.resumed.lock().unwrap().is_empty(), "what was moved is kept");
        case.assert_whole();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_leaves_holes_that_the_next_one_fills() {
    for (next, (from, to)) in
        [Some(1), Some(SEGMENTS), None].into_iter().flat_map(|next| both_ways().map(|ways| (next, ways)))
    {
        let mut case = case(40 * BLOCK + 9);
        case.interrupt_at(&from, &to, 20 * BLOCK).await;
        case.options.segments = next;
        let (summary, log) = case.go(&from, &to).await;
        assert_eq!(summary.done, 1);
        let kept = log.resumed.lock().unwrap()[0];
        assert!(kept > 8 * BLOCK, "{kept} bytes kept");
        assert!(summary.transferred <= 40 * BLOCK + 9 - kept);
        case.assert_whole();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_is_moved_again_and_no_other() {
    let case = case(40 * BLOCK);
    let (from, to) = pair();
    case.interrupt_at(&from, &to, 30 * BLOCK).await;
    let part = case.part();
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[12345] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let (summary, log) = case.go(&from, &to).await;
    assert_eq!(summary.done, 1);
    assert!(log.resumed.lock().unwrap()[0] > 10 * BLOCK);
    case.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_two_streams_fails_no_file() {
    for (from, to) in both_ways() {
        let limited = |server: Arc<Server>| {
            Arc::new(Server { most_streams: Some(2), is_remote: server.is_remote, ..Server::default() })
        };
        let (from, to) =
            (if from.is_remote { limited(from) } else { from }, if to.is_remote { limited(to) } else { to });
        let case = case(40 * BLOCK);
        let (summary, log) = case.go(&from, &to).await;
        assert_eq!((summary.done, *log.retries.lock().unwrap()), (1, 0));
        case.assert_whole();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_shorter_than_it_said_is_no_success() {
    let mut case = case(40 * BLOCK);
    case.options.retries = 0;
    let (from, to) = pair();
    let mut job = case.job(&from, &to);
    let mut entry =
        haul::transport::Transport::stat(&*from, &job.source.path, haul::transport::Follow::Links).await.unwrap();
    entry.size = Some(41 * BLOCK);
    job.entry = Some(entry);
    let (_, log) = case.go_job(job).await;
    let outcomes = log.outcomes.lock().unwrap();
    assert!(matches!(&outcomes[0].status, Status::Failed(e) if e.kind() == ErrorKind::SourceChanged), "{outcomes:?}");
    assert!(!case.path("final").exists());
}

//! The digest of one file, against servers that break, lie, or change what they serve.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use haul::ErrorKind;
use haul::plan::digest::{File, Found, Places, digests};
use haul::transfer::{Asked, Digester, Options};
use haul::transport::Algorithm;
use sha2::{Digest, Sha256};

use crate::server::{Case, Server, contents};

const MIB: u64 = 1 << 20;

fn digester(case: &Case, asked: Asked, retries: u32) -> Digester {
    let options = Options { retries, retry_wait: Duration::from_millis(10), ..Options::new(case.path("state")) };
    Digester::new(&options, asked)
}

#[tokio::test]
async fn a_broken_read_goes_on_where_it_was() {
    let size = 9 * MIB + 7;
    let (case, server) = (Case::new(size), Arc::new(Server::remote()));
    *server.breaks_reading.lock().unwrap() = vec![MIB + 5, 3 * MIB, 100, 0];
    let digested =
        digester(&case, Asked::Server, 4).digest(&case.at(&server, "source"), None, Algorithm::Sha256).await.unwrap();
    assert_eq!(digested.digest, Sha256::digest(contents(size)).to_vec());
    assert_eq!((digested.size, digested.by), (Some(size), Asked::Nobody));
    let read = server.bytes_read.lock().unwrap().to_owned();
    assert!(read < size + MIB, "{read} bytes read of {size}: it went on, and didn't begin anew");
}

#[tokio::test]
async fn a_read_that_breaks_too_often_is_an_error() {
    let (case, server) = (Case::new(MIB), Arc::new(Server::remote()));
    *server.breaks_reading.lock().unwrap() = vec![0; 3];
    let error = digester(&case, Asked::Server, 2).digest(&case.at(&server, "source"), None, Algorithm::Md5).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionLost);
}

#[tokio::test]
async fn a_file_that_is_not_as_it_was_listed_is_read_anew() {
    let (case, server) = (Case::new(MIB), Arc::new(Server::remote()));
    let at = case.at(&server, "source");
    let mut entry = at.transport.stat(&at.path, haul::transport::Follow::Links).await.unwrap();
    entry.size = Some(5);
    let digested = digester(&case, Asked::Server, 2).digest(&at, Some(&entry), Algorithm::Sha256).await.unwrap();
    assert_eq!(digested.digest, Sha256::digest(contents(MIB)).to_vec());
    let error = digester(&case, Asked::Server, 0).digest(&at, Some(&entry), Algorithm::Sha256).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceChanged);
}

#[tokio::test]
async fn what_is_no_digest_is_an_error_and_reading_asks_nobody() {
    let case = Case::new(MIB);
    let liar = Server { lies_about_digests: true, ..Server::remote() };
    let at = case.at(&Arc::new(liar), "source");
    let told = digester(&case, Asked::Server, 2).digest(&at, None, Algorithm::Sha256).await.unwrap();
    assert_eq!((told.digest, told.by), (vec![0; 32], Asked::Server));
    let read = digester(&case, Asked::Nobody, 2).digest(&at, None, Algorithm::Sha256).await.unwrap();
    assert_eq!((read.digest, read.by), (Sha256::digest(contents(MIB)).to_vec(), Asked::Nobody));
    let liar = Server { lies_about_digests: true, digest_length: Some(20), ..Server::remote() };
    let at = case.at(&Arc::new(liar), "source");
    let error = digester(&case, Asked::Server, 2).digest(&at, None, Algorithm::Sha256).await.unwrap_err();
    assert_eq!((error.kind(), error.hint().unwrap_or_default().contains("--read")), (ErrorKind::Protocol, true));
}

/// The digests of files of a server: how many there are, what went wrong, and how many were read at once at most.
async fn of_many(server: Server, files: usize, jobs: Option<usize>) -> (usize, Vec<ErrorKind>, usize) {
    let (case, server) = (Case::new(3 * MIB), Arc::new(server));
    let digester = Arc::new(digester(&case, Asked::Nobody, 0));
    let at = case.at(&server, "source");
    let mut places = Places::new(jobs);
    places.open(&at.transport).await;
    let found = (0..files).map(|n| Found::File(File { name: vec![n as u8], at: at.clone(), entry: None }));
    let found = stream::iter(found.collect::<Vec<_>>());
    let told: Vec<_> = digests(found, digester, Algorithm::Crc32, Arc::new(places)).collect().await;
    assert!(told.iter().map(|told| told.name[0]).eq(0..files as u8), "in their order");
    let failed = told.iter().filter_map(|told| told.digested.as_ref().err().map(haul::Error::kind));
    let failed: Vec<_> = failed.collect();
    let most = server.streams.lock().unwrap().1;
    (told.len() - failed.len(), failed, most)
}

#[tokio::test]
async fn as_many_are_in_flight_as_may_be() {
    for (jobs, least, most) in [(None, 2, 8), (Some(3), 2, 3), (Some(1), 1, 1)] {
        let (done, failed, at_once) = of_many(Server::remote(), 40, jobs).await;
        assert_eq!((done, failed.len()), (40, 0));
        assert!((least..=most).contains(&at_once), "{at_once} at once with {jobs:?}");
    }
}

#[tokio::test]
async fn once_the_server_is_gone_nobody_waits_for_it_again() {
    let gone = haul::Error::from(ErrorKind::ConnectionRefused);
    let server = Server { fails: Mutex::new(Some((1, gone))), ..Server::remote() };
    let (done, failed, _) = of_many(server, 20, Some(1)).await;
    assert_eq!((done, failed), (0, vec![ErrorKind::ConnectionRefused; 20]), "the first one says it for all");
}

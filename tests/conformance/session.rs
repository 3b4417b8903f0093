//! One login used for long and by many.

use bytes::Bytes;
use futures_util::future::join_all;
use haul::ErrorKind;
use haul::transport::{FileKind, Follow, ReadRange, WriteMode};

use crate::support::data::{assert_same, bytes};
use crate::support::target::{Place, assert_kind};

pub(crate) async fn starts_at_home(place: Place) {
    let home = place.transport.home().await.unwrap();
    assert_eq!(place.transport.stat(&home, Follow::Links).await.unwrap().kind, FileKind::Directory);
    if !place.transport.capabilities().local {
        assert_eq!(Some(home), place.dir.parent());
    }
}

/// Servers that bind the data connection's TLS session to the control connection's refuse a client that runs out of
/// tickets; the twentieth transfer shows it.
pub(crate) async fn twenty_of_each(place: Place) {
    for number in 0..20 {
        let contents = bytes(number, 50_000);
        let name = format!("{number:02}");
        let context = |what: &str| format!("{what} {number} of 20");
        let written = place.write(&name, WriteMode::CREATE, &contents).await;
        written.unwrap_or_else(|e| panic!("{}: {}", context("upload"), e.chain()));
        let listed = place.list(&place.dir).await;
        let listed = listed.unwrap_or_else(|e| panic!("{}: {}", context("listing"), e.chain()));
        assert_eq!(listed.len(), number as usize + 1);
        let found = place.read(&name, ReadRange::ALL).await;
        assert_same(&found.unwrap_or_else(|e| panic!("{}: {}", context("download"), e.chain())), &contents, &name);
    }
}

pub(crate) async fn everything_at_once(place: Place) {
    place.plant("shared", &bytes(1, 200_000));
    let work = (0..12).map(|number| {
        let place = &place;
        async move {
            let name = format!("mine {number}");
            let contents: Bytes = bytes(number, 70_000);
            match number % 4 {
                0 => drop(place.list(&place.dir).await.unwrap()),
                1 => assert_eq!(place.read("shared", ReadRange::from(1)).await.unwrap().len(), 199_999),
                2 => drop(place.transport.stat(&place.path("shared"), Follow::Links).await.unwrap()),
                _ => assert_kind(place.read("nothing", ReadRange::ALL).await, ErrorKind::NotFound, "nothing"),
            }
            place.write(&name, WriteMode::CREATE, &contents).await.unwrap();
            assert_same(&place.read(&name, ReadRange::ALL).await.unwrap(), &contents, &name);
            place.transport.remove_file(&place.path(&name)).await.unwrap();
        }
    });
    join_all(work).await;
    assert_eq!(place.list(&place.dir).await.unwrap().len(), 1);
}

pub(crate) async fn errors_leave_it_usable(place: Place) {
    place.plant("file", b"contents");
    for _ in 0..10 {
        assert_kind(place.read("nothing", ReadRange::ALL).await, ErrorKind::NotFound, "a missing file");
        assert_kind(place.list(&place.path("nothing")).await, ErrorKind::NotFound, "a missing directory");
        assert!(place.transport.remove_dir(&place.path("nothing")).await.is_err());
        assert!(place.transport.open_write(&place.path("no").join("no").unwrap(), WriteMode::CREATE).await.is_err());
        assert_eq!(place.read("file", ReadRange::ALL).await.unwrap(), b"contents");
    }
}

/// More, fewer, more than the server may like: every stream works, whatever it grants.
pub(crate) async fn as_many_connections_as_asked_for(place: Place) {
    let contents = bytes(3, 4_000_000);
    place.plant("file", &contents);
    for wanted in [3, 1, 4] {
        let open = place.transport.set_connections(wanted).await;
        assert!((1..=wanted).contains(&open), "{open} of {wanted}");
        let pieces = (0..wanted as u64).map(|piece| {
            let (place, each) = (&place, 4_000_000 / wanted as u64 + 1);
            let range = ReadRange::between(piece * each, ((piece + 1) * each).min(4_000_000));
            async move { place.read("file", range).await.unwrap() }
        });
        let found = join_all(pieces).await.concat();
        assert_same(&found, &contents, &format!("read over {wanted} connections"));
    }
}

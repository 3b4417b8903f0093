//! Writing files.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use haul::ErrorKind;
use haul::transport::{Durability, Finish, SetMetadata, WriteMode};

use crate::reading::SIZES;
use crate::support::data::{MIB, assert_same, bytes};
use crate::support::target::{Place, assert_kind};

#[track_caller]
fn assert_on_disk(place: &Place, name: &str, contents: &[u8], what: &str) {
    assert_same(&std::fs::read(place.on_disk(name)).unwrap(), contents, what);
}

pub(crate) async fn every_size(place: Place) {
    for size in SIZES {
        let contents = bytes(size as u64, size);
        let name = format!("{size}");
        place.write(&name, WriteMode::CREATE, &contents).await.unwrap();
        assert_on_disk(&place, &name, &contents, &format!("a file of {size} bytes"));
    }
}

pub(crate) async fn sixty_four_mebibytes(place: Place) {
    let contents = bytes(64, 64 * MIB);
    place.write("large", WriteMode::CREATE, &contents).await.unwrap();
    assert_on_disk(&place, "large", &contents, "64 MiB");
}

pub(crate) async fn over_an_existing_file(place: Place) {
    for size in [100_000, 300_000, 10, 0] {
        let contents = bytes(size as u64, size);
        place.write("file", WriteMode::CREATE, &contents).await.unwrap();
        assert_on_disk(&place, "file", &contents, &format!("overwritten by {size} bytes"));
    }
}

pub(crate) async fn at_the_end(place: Place) {
    assert!(place.transport.capabilities().resume_write);
    let contents = bytes(7, 1_000_000);
    for split in [0, 1, 32_768, 999_999, 1_000_000] {
        place.plant("file", &contents[..split]);
        place.write("file", WriteMode::At(split as u64), &contents.slice(split..)).await.unwrap();
        assert_on_disk(&place, "file", &contents, &format!("gone on from {split}"));
    }
}

pub(crate) async fn in_the_middle(place: Place) {
    let old = bytes(8, 400_000);
    let new = bytes(9, 100_000);
    place.plant("file", &old);
    let written = place.write("file", WriteMode::At(150_000), &new).await;
    let found = std::fs::read(place.on_disk("file")).unwrap();
    if place.facts.random_write {
        written.unwrap();
        let wanted = [&old[..150_000], &new[..], &old[250_000..]].concat();
        assert_same(&found, &wanted, "written in the middle");
    } else if written.is_ok() {
        // Whether the tail stays is the server's choice, the place is not.
        assert_same(&found[..250_000], &[&old[..150_000], &new[..]].concat(), "written in the middle");
    } else {
        assert_same(&found[..150_000], &old[..150_000], "refused to write in the middle");
    }
}

pub(crate) async fn behind_the_end(place: Place) {
    let old = bytes(10, 1_000);
    let new = bytes(11, 5_000);
    place.plant("file", &old);
    let written = place.write("file", WriteMode::At(3_000), &new).await;
    let found = std::fs::read(place.on_disk("file")).unwrap();
    if place.facts.random_write {
        written.as_ref().unwrap();
    }
    match written {
        Ok(()) => assert_same(&found, &[&old[..], &[0; 2_000], &new[..]].concat(), "a hole, then the bytes"),
        Err(_) => assert_same(&found[..1_000], &old, "refused to write behind the end"),
    }
}

pub(crate) async fn at_an_offset_of_nothing(place: Place) {
    let written = place.write("nothing", WriteMode::At(10), &bytes(12, 100)).await;
    assert_kind(written, ErrorKind::NotFound, "going on with a file that isn't there");
    assert!(!place.on_disk("nothing").exists(), "a file was made");
}

pub(crate) async fn from_several_streams(place: Place) {
    assert_eq!(place.transport.capabilities().random_write, place.facts.random_write);
    if !place.facts.random_write {
        return;
    }
    let contents = bytes(13, 4 * MIB);
    place.write("file", WriteMode::CREATE, &Bytes::new()).await.unwrap();
    let segments = (0..4).rev().map(|n| {
        let segment = contents.slice(n * MIB..(n + 1) * MIB);
        let place = &place;
        async move { place.write("file", WriteMode::At((n * MIB) as u64), &segment).await }
    });
    try_join_all(segments).await.unwrap();
    assert_on_disk(&place, "file", &contents, "four segments at once");
}

pub(crate) async fn one_after_another(place: Place) {
    for number in 0..5 {
        let contents = bytes(number, 10_000);
        let name = format!("file {number}");
        place.write(&name, WriteMode::CREATE, &contents).await.unwrap();
        assert_on_disk(&place, &name, &contents, &name);
    }
}

pub(crate) async fn many_at_once(place: Place) {
    let all = join_all((0..24).map(|number| {
        let place = &place;
        async move { place.write(format!("{number}"), WriteMode::CREATE, &bytes(number, 100_000)).await }
    }));
    for (number, written) in (0..).zip(all.await) {
        written.unwrap();
        assert_on_disk(&place, &format!("{number}"), &bytes(number, 100_000), &format!("file {number} of 24"));
    }
}

pub(crate) async fn dropped_half_way(place: Place) {
    let contents = bytes(14, 3 * MIB);
    for _ in 0..3 {
        let mut stream = place.transport.open_write(&place.path("dropped"), WriteMode::CREATE).await.unwrap();
        stream.write(contents.slice(..MIB)).await.unwrap();
        drop(stream);
    }
    place.write("file", WriteMode::CREATE, &contents).await.unwrap();
    assert_on_disk(&place, "file", &contents, "after dropped streams");
}

pub(crate) async fn into_a_missing_directory(place: Place) {
    let path = place.path("nothing").join("file").unwrap();
    let opened = place.transport.open_write(&path, WriteMode::CREATE).await;
    assert_kind(opened, ErrorKind::NotFound, "a file in a missing directory");
}

pub(crate) async fn into_a_forbidden_directory(place: Place) {
    place.plant_dir("closed");
    place.set_mode_on_disk("closed", 0o555);
    if place.modes_bind() {
        let path = place.path("closed").join("file").unwrap();
        let written = crate::support::target::write(&*place.transport, &path, WriteMode::CREATE, &bytes(1, 10)).await;
        assert_kind(written, ErrorKind::PermissionDenied, "a file in a forbidden directory");
    }
}

pub(crate) async fn with_a_mode(place: Place) {
    place.write("file", WriteMode::Create { mode: Some(0o600), length: Some(10) }, &bytes(15, 10)).await.unwrap();
    let mode = std::fs::metadata(place.on_disk("file")).unwrap().permissions().mode() & 0o7777;
    if place.facts.create_mode {
        assert_eq!(mode, 0o600, "mode {mode:o}");
    }
}

pub(crate) async fn synced(place: Place) {
    let contents = bytes(16, 100_000);
    let mut stream = place.transport.open_write(&place.path("file"), WriteMode::CREATE).await.unwrap();
    stream.write(contents.clone()).await.unwrap();
    // Where it can't be honoured it is the same as `Cached`, never an error.
    stream.finish(Finish::SYNCED).await.unwrap();
    assert_on_disk(&place, "file", &contents, "synced");
}

pub(crate) async fn closed_with_time_and_mode(place: Place) {
    let contents = bytes(17, 100_000);
    let told = place.transport.capabilities();
    let time = UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    let metadata =
        SetMetadata { mtime: told.set_mtime.is_some().then_some(time), mode: told.set_mode.then_some(0o640) };
    let mut stream = place.transport.open_write(&place.path("file"), WriteMode::CREATE).await.unwrap();
    stream.write(contents.clone()).await.unwrap();
    let finished = stream.finish(Finish { durability: Durability::Cached, metadata }).await.unwrap();
    finished.metadata.unwrap();
    assert!(finished.size.is_none_or(|size| size == 100_000), "{:?}", finished.size);
    assert_on_disk(&place, "file", &contents, "closed with time and mode");
    let found = std::fs::metadata(place.on_disk("file")).unwrap();
    assert!(metadata.mtime.is_none_or(|_| found.modified().unwrap() == time), "{:?}", found.modified());
    assert!(metadata.mode.is_none_or(|mode| found.permissions().mode() & 0o7777 == mode));
}

//! Listing directories and looking at single paths.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use haul::ErrorKind;
use haul::transport::{FileKind, Follow, Mtime, Precision, RemotePath};

use crate::support::target::{Place, assert_kind};

pub(crate) async fn empty_directory(place: Place) {
    assert_eq!(place.list(&place.dir).await.unwrap(), []);
}

pub(crate) async fn nested_directories(place: Place) {
    let mut dir = place.dir.clone();
    let mut disk = place.disk.clone();
    for depth in 0..8 {
        dir = dir.join(format!("level {depth}")).unwrap();
        disk = disk.join(format!("level {depth}"));
        place.transport.create_dir(&dir).await.unwrap();
        std::fs::write(disk.join("file"), b"123").unwrap();
        let entries = place.list(&dir).await.unwrap();
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!((entries[0].kind, entries[0].size), (FileKind::File, Some(3)));
    }
}

pub(crate) async fn ten_thousand_entries(place: Place) {
    for number in 0..10_000 {
        std::fs::write(place.on_disk(format!("entry {number:05}")), b"").unwrap();
    }
    let entries = place.list(&place.dir).await.unwrap();
    assert_eq!(entries.len(), 10_000);
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(entry.name, format!("entry {number:05}").into_bytes());
        assert_eq!((entry.kind, entry.size), (FileKind::File, Some(0)));
    }
}

pub(crate) async fn agrees_with_stat(place: Place) {
    place.plant("file", &[b'x'; 12_345]);
    place.plant("empty", b"");
    place.plant_dir("dir");
    let now = SystemTime::now();
    let times = [now - Duration::from_secs(90), now - Duration::from_secs(400 * 86_400), now - Duration::from_secs(5)];
    for (name, time) in ["file", "empty", "dir"].into_iter().zip(times) {
        std::fs::File::open(place.on_disk(name)).unwrap().set_modified(time).unwrap();
    }
    let listed = place.list(&place.dir).await.unwrap();
    assert_eq!(listed.len(), 3);
    for entry in listed {
        let name = String::from_utf8(entry.name.clone()).unwrap();
        let looked = place.transport.stat(&place.path(&name), Follow::Nothing).await.unwrap();
        let disk = std::fs::metadata(place.on_disk(&name)).unwrap();
        assert_eq!((&looked.name, looked.kind), (&entry.name, entry.kind));
        assert_eq!(entry.kind, if disk.is_dir() { FileKind::Directory } else { FileKind::File }, "{name}");
        if disk.is_file() {
            assert_eq!((looked.size, entry.size), (Some(disk.len()), Some(disk.len())), "{name}");
            assert_time(looked.mtime.expect("stat gives a time"), disk.modified().unwrap(), &name);
        }
        assert_time(entry.mtime.expect("a listing gives a time"), disk.modified().unwrap(), &name);
    }
}

/// The time as exactly as it claims to be known; a LIST's time zone is a guess.
#[track_caller]
fn assert_time(found: Mtime, disk: SystemTime, name: &str) {
    let distance = found.time.duration_since(disk).unwrap_or_else(|e| e.duration());
    let allowed = match found.precision {
        Precision::Nanosecond => Duration::ZERO,
        Precision::Second => Duration::from_secs(1),
        Precision::Minute | Precision::Day => found.precision.unit() + Duration::from_secs(14 * 3600),
    };
    assert!(distance <= allowed, "{name}: {found:?} is {distance:?} off");
}

pub(crate) async fn missing_directory(place: Place) {
    assert_kind(place.list(&place.path("nothing")).await, ErrorKind::NotFound, "a missing directory");
}

pub(crate) async fn file_instead_of_directory(place: Place) {
    place.plant("file", b"x");
    assert_kind(place.list(&place.path("file")).await, ErrorKind::NotADirectory, "a file");
}

pub(crate) async fn forbidden_is_not_missing(place: Place) {
    place.plant_dir("closed");
    place.set_mode_on_disk("closed", 0);
    if place.modes_bind() {
        let listed = place.list(&place.path("closed")).await;
        assert_kind(listed, ErrorKind::PermissionDenied, "a forbidden directory");
    }
}

pub(crate) async fn dropped_half_way(place: Place) {
    for number in 0..500 {
        place.plant(format!("{number:03}"), b"");
    }
    for _ in 0..3 {
        let mut entries = place.transport.list(&place.dir).await.unwrap();
        entries.next().await.unwrap().unwrap();
        drop(entries);
    }
    assert_eq!(place.list(&place.dir).await.unwrap().len(), 500);
}

pub(crate) async fn stat_of_nothing(place: Place) {
    let found = place.transport.stat(&place.path("nothing"), Follow::Links).await;
    assert_kind(found, ErrorKind::NotFound, "a missing path");
    let below = place.path("nothing").join("below").unwrap();
    assert_kind(place.transport.stat(&below, Follow::Nothing).await, ErrorKind::NotFound, "below a missing path");
}

pub(crate) async fn stat_of_the_root(place: Place) {
    for path in [RemotePath::root(), place.dir.clone()] {
        let entry = place.transport.stat(&path, Follow::Links).await.unwrap();
        assert_eq!(entry.kind, FileKind::Directory, "{path}");
        assert_eq!(entry.name, path.file_name().unwrap_or_default(), "{path}");
    }
}

//! Reading files.

use futures_util::future::join_all;
use haul::ErrorKind;
use haul::transport::ReadRange;

use crate::support::data::{KIB, MIB, assert_same, bytes};
use crate::support::target::{Place, assert_kind};

/// Sizes around the blocks that protocols and buffers are cut into.
pub(crate) const SIZES: [usize; 11] = [
    0,
    1,
    32 * KIB - 1,
    32 * KIB,
    32 * KIB + 1,
    256 * KIB - 1,
    256 * KIB,
    256 * KIB + 1,
    4 * MIB - 1,
    4 * MIB,
    4 * MIB + 1,
];

pub(crate) async fn every_size(place: Place) {
    for size in SIZES {
        let contents = bytes(size as u64, size);
        place.plant("file", &contents);
        let found = place.read("file", ReadRange::ALL).await.unwrap();
        assert_same(&found, &contents, &format!("a file of {size} bytes"));
    }
}

pub(crate) async fn sixty_four_mebibytes(place: Place) {
    let contents = bytes(64, 64 * MIB);
    place.plant("large", &contents);
    assert_same(&place.read("large", ReadRange::ALL).await.unwrap(), &contents, "64 MiB");
}

pub(crate) async fn from_offsets(place: Place) {
    let contents = bytes(2, 600_000);
    place.plant("file", &contents);
    for start in [0, 1, 32_767, 32_768, 261_120, 599_999, 600_000] {
        let found = place.read("file", ReadRange::from(start)).await.unwrap();
        assert_same(&found, &contents[start as usize..], &format!("from {start}"));
    }
    // Behind the end: nothing or an error, and never other bytes.
    if let Ok(found) = place.read("file", ReadRange::from(600_001)).await {
        assert_same(&found, b"", "from behind the end");
    }
    assert_same(&place.read("file", ReadRange::ALL).await.unwrap(), &contents, "the whole after that");
}

pub(crate) async fn ranges(place: Place) {
    let contents = bytes(3, 600_000);
    place.plant("file", &contents);
    for (start, end) in [(0, 1), (0, 600_000), (5, 5), (32_767, 300_001), (599_990, 600_000)] {
        let found = place.read("file", ReadRange::between(start, end)).await.unwrap();
        assert_same(&found, &contents[start as usize..end as usize], &format!("{start} to {end}"));
    }
    let found = place.read("file", ReadRange::between(599_000, 700_000)).await.unwrap();
    assert_same(&found, &contents[599_000..], "a range that ends behind the file's end");
}

pub(crate) async fn one_after_another(place: Place) {
    for number in 0..5 {
        let contents = bytes(number, 10_000);
        place.plant(format!("file {number}"), &contents);
        let found = place.read(format!("file {number}"), ReadRange::ALL).await.unwrap();
        assert_same(&found, &contents, &format!("file {number}"));
    }
}

pub(crate) async fn many_at_once(place: Place) {
    for number in 0..24 {
        place.plant(format!("{number}"), &bytes(number, 100_000));
    }
    let all = join_all((0..24).map(|number| place.read(format!("{number}"), ReadRange::ALL))).await;
    for (number, found) in (0..).zip(all) {
        assert_same(&found.unwrap(), &bytes(number, 100_000), &format!("file {number} of 24"));
    }
}

pub(crate) async fn dropped_half_way(place: Place) {
    let contents = bytes(5, 6 * MIB);
    place.plant("file", &contents);
    for _ in 0..3 {
        let mut stream = place.transport.open_read(&place.path("file"), ReadRange::ALL).await.unwrap();
        assert!(!stream.read().await.unwrap().is_empty());
        drop(stream);
    }
    assert_same(&place.read("file", ReadRange::from(1)).await.unwrap(), &contents[1..], "after dropped streams");
}

pub(crate) async fn missing_file(place: Place) {
    assert_kind(place.read("nothing", ReadRange::ALL).await, ErrorKind::NotFound, "a missing file");
    place.plant("file", b"x");
    let below = place.path("file").join("below").unwrap();
    let Err(error) = place.transport.open_read(&below, ReadRange::ALL).await else {
        panic!("opened a file below a file");
    };
    let wanted = [ErrorKind::NotADirectory, ErrorKind::NotFound];
    assert!(wanted.contains(&error.kind()), "below a file: {:?} {}", error.kind(), error.chain());
}

pub(crate) async fn directory(place: Place) {
    place.plant_dir("dir");
    assert_kind(place.read("dir", ReadRange::ALL).await, ErrorKind::IsADirectory, "a directory");
}

pub(crate) async fn forbidden_is_not_missing(place: Place) {
    place.plant("secret", b"secret");
    place.set_mode_on_disk("secret", 0);
    if place.modes_bind() {
        assert_kind(place.read("secret", ReadRange::ALL).await, ErrorKind::PermissionDenied, "a forbidden file");
    }
}

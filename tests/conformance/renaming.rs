//! Renaming, removing, making directories.

use haul::ErrorKind;
use haul::transport::{Durability, Replace};

use crate::support::target::{Place, assert_kind};

async fn rename(place: &Place, from: &str, to: &str, replace: Replace) -> haul::Result<()> {
    place.transport.rename(&place.path(from), &place.path(to), replace, Durability::Cached).await
}

fn contents(place: &Place, name: &str) -> Option<Vec<u8>> {
    std::fs::read(place.on_disk(name)).ok()
}

pub(crate) async fn file(place: Place) {
    for replace in [Replace::Yes, Replace::No] {
        place.plant("from", b"contents");
        rename(&place, "from", "to", replace).await.unwrap();
        assert_eq!((contents(&place, "from"), contents(&place, "to")), (None, Some(b"contents".to_vec())));
        std::fs::remove_file(place.on_disk("to")).unwrap();
    }
    place.plant("from", b"contents");
    place.plant_dir("dir");
    let target = place.path("dir").join("moved").unwrap();
    place.transport.rename(&place.path("from"), &target, Replace::Yes, Durability::Synced).await.unwrap();
    assert_eq!(std::fs::read(place.on_disk("dir").join("moved")).unwrap(), b"contents");
}

pub(crate) async fn directory(place: Place) {
    place.plant_dir("from");
    std::fs::write(place.on_disk("from").join("file"), b"x").unwrap();
    rename(&place, "from", "to", Replace::No).await.unwrap();
    assert!(place.on_disk("to").join("file").is_file() && !place.on_disk("from").exists());
}

pub(crate) async fn over_a_file(place: Place) {
    assert_eq!(place.transport.capabilities().atomic_replace, place.facts.atomic_replace);
    place.plant("from", b"new");
    place.plant("to", b"old");
    rename(&place, "from", "to", Replace::Yes).await.unwrap();
    assert_eq!((contents(&place, "from"), contents(&place, "to")), (None, Some(b"new".to_vec())));
}

pub(crate) async fn not_over_a_file(place: Place) {
    place.plant("from", b"new");
    place.plant("to", b"old");
    assert_kind(rename(&place, "from", "to", Replace::No).await, ErrorKind::AlreadyExists, "rename onto a file");
    assert_eq!(contents(&place, "from"), Some(b"new".to_vec()));
    assert_eq!(contents(&place, "to"), Some(b"old".to_vec()));
}

pub(crate) async fn missing_file(place: Place) {
    for replace in [Replace::Yes, Replace::No] {
        assert_kind(rename(&place, "nothing", "to", replace).await, ErrorKind::NotFound, "rename a missing file");
    }
}

pub(crate) async fn remove_file(place: Place) {
    place.plant("file", b"x");
    place.transport.remove_file(&place.path("file")).await.unwrap();
    assert!(!place.on_disk("file").exists());
    place.plant_dir("dir");
    let removed = place.transport.remove_file(&place.path("dir")).await;
    let error = removed.expect_err("removed a directory as a file");
    assert!(!error.kind().is_retryable(), "{:?}: {}", error.kind(), error.chain());
    assert!(place.on_disk("dir").is_dir());
}

pub(crate) async fn remove_directory(place: Place) {
    place.plant_dir("dir");
    place.transport.remove_dir(&place.path("dir")).await.unwrap();
    assert!(!place.on_disk("dir").exists());
    place.plant("file", b"x");
    let removed = place.transport.remove_dir(&place.path("file")).await;
    let error = removed.expect_err("removed a file as a directory");
    assert!(!error.kind().is_retryable(), "{:?}: {}", error.kind(), error.chain());
    assert!(place.on_disk("file").is_file());
}

pub(crate) async fn remove_full_directory(place: Place) {
    place.plant_dir("dir");
    std::fs::write(place.on_disk("dir").join("file"), b"x").unwrap();
    let removed = place.transport.remove_dir(&place.path("dir")).await;
    assert_kind(removed, ErrorKind::DirectoryNotEmpty, "a directory with a file");
    assert!(place.on_disk("dir").join("file").exists());
}

pub(crate) async fn remove_nothing(place: Place) {
    let path = place.path("nothing");
    assert_kind(place.transport.remove_file(&path).await, ErrorKind::NotFound, "a missing file");
    assert_kind(place.transport.remove_dir(&path).await, ErrorKind::NotFound, "a missing directory");
}

pub(crate) async fn make_directory(place: Place) {
    place.transport.create_dir(&place.path("dir")).await.unwrap();
    assert!(place.on_disk("dir").is_dir());
}

pub(crate) async fn make_directory_twice(place: Place) {
    place.plant_dir("dir");
    place.plant("file", b"x");
    for name in ["dir", "file"] {
        let made = place.transport.create_dir(&place.path(name)).await;
        assert_kind(made, ErrorKind::AlreadyExists, "a directory where something is");
    }
}

pub(crate) async fn make_directory_in_nothing(place: Place) {
    let path = place.path("nothing").join("dir").unwrap();
    assert_kind(place.transport.create_dir(&path).await, ErrorKind::NotFound, "a directory in a missing one");
}

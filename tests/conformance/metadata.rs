//! Times, modes, links, digests, and whether the endpoint says truly what it can.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use haul::ErrorKind;
use haul::transport::{Algorithm, FileKind, Follow, Precision, ReadRange, SetMetadata};
use sha1::Digest;

use crate::support::data::bytes;
use crate::support::target::{Place, assert_kind};

pub(crate) async fn capabilities_are_told(place: Place) {
    let told = place.transport.capabilities();
    let facts = place.facts;
    assert!(told.resume_read && told.resume_write);
    assert_eq!(told.random_write, facts.random_write, "random_write");
    assert_eq!(told.set_mtime, facts.set_mtime, "set_mtime");
    assert_eq!(told.set_mode, facts.set_mode, "set_mode");
    assert_eq!(told.symlinks, facts.symlinks, "symlinks");
    assert_eq!(told.atomic_replace, facts.atomic_replace, "atomic_replace");
    assert_eq!(told.fsync, facts.fsync, "fsync");
    let digests = !told.digests.is_empty();
    assert_eq!(digests, facts.digests, "digests: {:?}", told.digests);
    assert!(told.streams >= 1);
}

pub(crate) async fn time_reads_back(place: Place) {
    place.plant("file", b"x");
    let path = place.path("file");
    let times = [
        UNIX_EPOCH + Duration::from_secs(1_000_000_007),
        SystemTime::now() - Duration::from_millis(86_400_123),
        UNIX_EPOCH + Duration::from_secs(1_709_164_799), // 28 February of a leap year, the last second
    ];
    for time in times {
        let set = SetMetadata { mtime: Some(time), mode: None };
        let done = place.transport.set_metadata(&path, set).await;
        let Some(precision) = place.facts.set_mtime else {
            assert_kind(done, ErrorKind::Unsupported, "setting a time");
            continue;
        };
        done.unwrap();
        let on_disk = std::fs::metadata(place.on_disk("file")).unwrap().modified().unwrap();
        let whole = |t: SystemTime| t.duration_since(UNIX_EPOCH).unwrap().as_secs();
        match precision {
            Precision::Nanosecond => assert_eq!(on_disk, time),
            _ => assert_eq!(whole(on_disk), whole(time)),
        }
        let found = place.transport.stat(&path, Follow::Links).await.unwrap().mtime.expect("a time");
        assert!(found.matches(time.into()), "{found:?} instead of {time:?}");
    }
}

pub(crate) async fn mode_reads_back(place: Place) {
    place.plant("file", b"x");
    let path = place.path("file");
    for mode in [0o600, 0o755, 0o444, 0o640] {
        let done = place.transport.set_metadata(&path, SetMetadata { mtime: None, mode: Some(mode) }).await;
        if !place.facts.set_mode {
            assert_kind(done, ErrorKind::Unsupported, "setting a mode");
            continue;
        }
        done.unwrap();
        let on_disk = std::fs::metadata(place.on_disk("file")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(on_disk, mode, "{on_disk:o} instead of {mode:o}");
        let listed = place.list(&place.dir).await.unwrap();
        if let Some(found) = listed[0].mode {
            assert_eq!(found, mode, "listed as {found:o}");
        }
    }
}

pub(crate) async fn links(place: Place) {
    let link = place.path("link");
    place.plant("file", b"12345");
    if !place.facts.symlinks {
        assert_kind(place.transport.symlink(b"file", &link).await, ErrorKind::Unsupported, "making a link");
        return;
    }
    place.transport.symlink(b"file", &link).await.unwrap();
    assert_eq!(std::fs::read_link(place.on_disk("link")).unwrap().to_str(), Some("file"));
    let target = place.transport.read_link(&link).await.unwrap();
    match place.facts.links_as_made {
        true => assert_eq!(target, b"file"),
        false => assert_eq!(target, place.path("file").as_bytes()),
    }
    let looked_at = place.transport.stat(&link, Follow::Nothing).await.unwrap();
    assert_eq!(looked_at.kind == FileKind::Symlink, place.facts.links_as_made);
    let followed = place.transport.stat(&link, Follow::Links).await.unwrap();
    assert_eq!((followed.kind, followed.size), (FileKind::File, Some(5)));
    assert_eq!(place.read("link", ReadRange::ALL).await.unwrap(), b"12345");
    let listed = place.list(&place.dir).await.unwrap();
    assert_eq!(listed.iter().map(|e| e.kind).collect::<Vec<_>>(), [FileKind::File, FileKind::Symlink]);

    place.transport.symlink(b"no\xffwhere", &place.path("broken")).await.unwrap();
    let target = place.transport.read_link(&place.path("broken")).await.unwrap();
    assert!(target.ends_with(b"no\xffwhere"), "{}", target.escape_ascii());
    assert_kind(place.transport.stat(&place.path("broken"), Follow::Links).await, ErrorKind::NotFound, "a broken link");
    place.transport.remove_file(&link).await.unwrap();
    assert!(place.on_disk("file").exists() && !place.on_disk("link").is_symlink());
}

pub(crate) async fn digests(place: Place) {
    let contents = bytes(21, 300_001);
    place.plant("file", &contents);
    let path = place.path("file");
    let offered = place.transport.capabilities().digests;
    for algorithm in offered.iter().copied() {
        let found = place.transport.digest(&path, algorithm, ReadRange::ALL).await.unwrap();
        assert_eq!(found, digest(algorithm, &contents), "{algorithm:?}");
        match place.transport.digest(&path, algorithm, ReadRange::between(1_000, 200_001)).await {
            Ok(found) => assert_eq!(found, digest(algorithm, &contents[1_000..200_001]), "a range's {algorithm:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "a range: {}", error.chain()),
        }
    }
    for algorithm in [Algorithm::Sha512, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5, Algorithm::Crc32] {
        // What isn't offered may still work, but never wrongly.
        match place.transport.digest(&path, algorithm, ReadRange::ALL).await {
            Ok(found) => assert_eq!(found, digest(algorithm, &contents), "{algorithm:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{algorithm:?}: {}", error.chain()),
        }
    }
}

fn digest(algorithm: Algorithm, contents: &[u8]) -> Vec<u8> {
    match algorithm {
        Algorithm::Sha512 => sha2::Sha512::digest(contents).to_vec(),
        Algorithm::Sha256 => sha2::Sha256::digest(contents).to_vec(),
        Algorithm::Blake3 => blake3::hash(contents).as_bytes().to_vec(),
        Algorithm::Sha1 => sha1::Sha1::digest(contents).to_vec(),
        Algorithm::Md5 => md5::Md5::digest(contents).to_vec(),
        Algorithm::Crc32 => crc32fast::hash(contents).to_be_bytes().to_vec(),
    }
}

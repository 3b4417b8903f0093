//! Names that protocols, shells and parsers stumble over.

use haul::ErrorKind;
use haul::transport::{Durability, FileKind, Follow, ReadRange, Replace, WriteMode};

use crate::support::data::{assert_same, bytes};
use crate::support::target::{Place, assert_kind};

const NAMES: [&str; 26] = [
    "two words",
    "three  spaces  inside",
    " leading space",
    "trailing space ",
    "single'quote",
    "double\"quote",
    "[brackets]",
    "{braces}",
    "star*question?",
    "-leading-dash",
    "-la",
    "--",
    "back\\slash",
    "trailing backslash\\",
    "semi;colon",
    "colon:comma,",
    "hash#percent%41",
    "dollar$HOME`x`",
    "a -> b",
    "tab\tinside",
    "~tilde",
    "~",
    "...",
    "grün 日本語 🚚",
    "e\u{301} decomposed",
    "2024-01-01 12:00:00",
];

/// Makes, lists, looks at, reads, renames and removes a file of this name.
async fn goes_round(place: &Place, name: &[u8]) {
    let shown = name.escape_ascii().to_string();
    let contents = bytes(1, 1_000);
    place.write(name, WriteMode::CREATE, &contents).await.unwrap_or_else(|e| panic!("write {shown}: {}", e.chain()));
    assert!(place.on_disk(name).is_file(), "{shown} went by another name");

    let entries = place.list(&place.dir).await.unwrap_or_else(|e| panic!("list {shown}: {}", e.chain()));
    let [entry] = &entries[..] else { panic!("{shown}: listed {entries:?}") };
    assert_eq!(entry.name.escape_ascii().to_string(), shown, "listed by another name");
    assert_eq!((entry.kind, entry.size), (FileKind::File, Some(1_000)), "{shown}");

    let path = place.path(name);
    let entry = place.transport.stat(&path, Follow::Links).await.unwrap_or_else(|e| panic!("stat: {}", e.chain()));
    assert_eq!((entry.name.as_slice(), entry.size), (name, Some(1_000)), "{shown}");
    let found = place.read(name, ReadRange::ALL).await.unwrap_or_else(|e| panic!("read {shown}: {}", e.chain()));
    assert_same(&found, &contents, &shown);

    let other = place.path("other");
    for (from, to) in [(&path, &other), (&other, &path)] {
        let renamed = place.transport.rename(from, to, Replace::No, Durability::Cached).await;
        renamed.unwrap_or_else(|e| panic!("rename {shown}: {}", e.chain()));
    }
    place.transport.remove_file(&path).await.unwrap_or_else(|e| panic!("remove {shown}: {}", e.chain()));
    assert!(!place.on_disk(name).exists(), "{shown} is still there");

    if place.facts.refused_directories.iter().any(|refused| refused.as_bytes() == name) {
        let made = place.transport.create_dir(&path).await.expect_err("a directory that the server used to refuse");
        assert!(!made.kind().is_retryable(), "{}", made.chain());
        return;
    }
    place.transport.create_dir(&path).await.unwrap_or_else(|e| panic!("mkdir {shown}: {}", e.chain()));
    assert!(place.on_disk(name).is_dir(), "{shown} was made by another name");
    assert_eq!(place.list(&path).await.unwrap_or_else(|e| panic!("list in {shown}: {}", e.chain())), []);
    place.transport.remove_dir(&path).await.unwrap_or_else(|e| panic!("rmdir {shown}: {}", e.chain()));
}

/// The server's fault, which no client can see while it writes; should a newer one do better, this test tells.
async fn is_mistaken(place: &Place, name: &[u8]) {
    let _ = place.write(name, WriteMode::CREATE, &bytes(1, 10)).await;
    assert!(!place.on_disk(name).exists(), "this server has learned the name {}", name.escape_ascii());
    for entry in std::fs::read_dir(&place.disk).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

pub(crate) async fn every_name_goes_round(place: Place) {
    for name in NAMES {
        if place.facts.refused_names.contains(&name) {
            let refused = place.write(name, WriteMode::CREATE, &bytes(1, 10)).await.expect_err("a refused name");
            assert!(!refused.kind().is_retryable(), "{}", refused.chain());
            assert_eq!(std::fs::read_dir(&place.disk).unwrap().count(), 0, "a file of another name was made");
        } else if place.facts.mistaken_names.contains(&name) {
            is_mistaken(&place, name.as_bytes()).await;
        } else {
            goes_round(&place, name.as_bytes()).await;
        }
    }
}

pub(crate) async fn longest_name(place: Place) {
    goes_round(&place, &[b'n'; 255]).await;
    let written = place.write([b'n'; 256], WriteMode::CREATE, &bytes(1, 10)).await;
    let error = written.expect_err("a name of 256 bytes was taken");
    assert!(!error.kind().is_retryable(), "{:?}: {}", error.kind(), error.chain());
}

pub(crate) async fn line_feed(place: Place) {
    if place.facts.line_feed_in_names {
        return goes_round(&place, b"two\nlines").await;
    }
    for name in ["two\nlines", "two\rlines", "x\r\nDELE other"] {
        let written = place.write(name, WriteMode::CREATE, &bytes(1, 10)).await;
        assert_kind(written, ErrorKind::InvalidPath, "a line break in a path");
        assert_kind(place.transport.remove_file(&place.path(name)).await, ErrorKind::InvalidPath, "remove");
        assert_kind(place.list(&place.path(name)).await, ErrorKind::InvalidPath, "list");
    }
}

pub(crate) async fn not_utf8(place: Place) {
    if place.facts.raw_names {
        goes_round(&place, b"latin1 gr\xfcn").await;
        goes_round(&place, b"\xff\xfe\x80").await;
        return;
    }
    is_mistaken(&place, b"gr\xfcn").await;
}

pub(crate) async fn leading_dot_is_listed(place: Place) {
    place.plant(".hidden", b"x");
    place.plant("plain", b"x");
    let names: Vec<_> = place.list(&place.dir).await.unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, [b".hidden".to_vec(), b"plain".to_vec()]);
}

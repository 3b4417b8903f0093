use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::plan::testing::{Odd, root, write};
use crate::transport::local::Local;
use crate::transport::{RemotePath, Transport};

async fn findings(left: &Path, right: Option<&Path>, options: Comparing) -> Vec<Finding> {
    let right = match right {
        Some(right) => Some(root(right).await),
        None => None,
    };
    compare(Some(root(left).await), right, Vec::new(), options).collect().await
}

/// The pairs, sorted, as text.
async fn told(left: &Path, right: &Path, options: Comparing) -> Vec<String> {
    let found = findings(left, Some(right), options).await;
    let mut lines: Vec<_> = found
        .iter()
        .filter_map(|finding| match finding {
            Finding::Pair(pair) => Some(format!("{} {:?}", String::from_utf8_lossy(&pair.path), pair.verdict)),
            Finding::Apart { path, why } => Some(format!("{} {why:?}", String::from_utf8_lossy(path))),
            Finding::Failed { side, path, .. } => Some(format!("{} failed {side:?}", String::from_utf8_lossy(path))),
            Finding::Listed { .. } | Finding::Note(_) => None,
        })
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn every_way_to_differ_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (left, right) = (dir.path().join("left"), dir.path().join("right"));
    for side in [&left, &right] {
        write(&side.join("same"), "same", 1000);
        write(&side.join("both/deep/same"), "same", 1000);
        write(&side.join(".x.haul-0123456789abcdef.part"), "part", 1000);
    }
    write(&left.join("only"), "1", 1000);
    write(&left.join("new/deep/file"), "1", 1000);
    write(&right.join("old/deep/file"), "1", 1000);
    for (name, left_text, right_text, times) in [
        ("longer", "12", "1", (1000, 1000)),
        ("newer", "1", "1", (2000, 1000)),
        ("older", "1", "1", (1000, 2000)),
        ("content", "a", "b", (1000, 1000)),
    ] {
        write(&left.join(name), left_text, times.0);
        write(&right.join(name), right_text, times.1);
    }
    write(&left.join("kind"), "1", 1000);
    std::fs::create_dir_all(right.join("kind/inside")).unwrap();
    symlink("same", left.join("link")).unwrap();
    symlink("other", right.join("link")).unwrap();
    let by_time = [
        ".x.haul-0123456789abcdef.part Own",
        "both Equal",
        "both/deep Equal",
        "both/deep/same Equal",
        "content Equal",
        "kind Different(Kind)",
        "link Different(Target)",
        "longer Different(Size)",
        "new Missing",
        "new/deep Missing",
        "new/deep/file Missing",
        "newer Different(Newer)",
        "old Extra",
        "old/deep Extra",
        "old/deep/file Extra",
        "older Different(Older)",
        "only Missing",
        "same Equal",
    ];
    assert_eq!(told(&left, &right, Comparing::default()).await, by_time);
    let digest = told(&left, &right, Comparing { by: By::Digest, ..Comparing::default() }).await;
    for line in ["content Different(Digest)", "newer Different(OnlyTime)", "same Equal"] {
        assert!(digest.iter().any(|told| told == line), "{line}: {digest:#?}");
    }
    let size = told(&left, &right, Comparing { by: By::Size, inside_extra: false, ..Comparing::default() }).await;
    for line in ["content Equal", "newer Equal", "older Equal", "longer Different(Size)", "old Extra"] {
        assert!(size.iter().any(|told| told == line), "{line}: {size:#?}");
    }
    assert!(!size.iter().any(|told| told.starts_with("old/")), "{size:#?}");
    let skip = told(&left, &right, Comparing { links: Links::Skip, ..Comparing::default() }).await;
    assert!(skip.contains(&"link Link".to_owned()), "{skip:#?}");
    std::fs::set_permissions(left.join("same"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let modes = told(&left, &right, Comparing { modes: true, ..Comparing::default() }).await;
    assert!(modes.contains(&"same Different(OnlyMode)".to_owned()), "{modes:#?}");
}

#[tokio::test]
async fn links_are_followed_to_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let (left, right) = (dir.path().join("left"), dir.path().join("right"));
    for side in [&left, &right] {
        write(&side.join("file"), "same", 1000);
        write(&side.join("dir/file"), "same", 1000);
    }
    write(&right.join("to-file"), "same", 1000);
    symlink("file", left.join("to-file")).unwrap();
    symlink("dir", left.join("to-dir")).unwrap();
    symlink("nowhere", left.join("broken")).unwrap();
    let follow = told(&left, &right, Comparing { links: Links::Follow, ..Comparing::default() }).await;
    let links: Vec<_> = follow.iter().filter(|line| line.starts_with("to-") || line.starts_with("broken")).collect();
    assert_eq!(links, ["broken failed Left", "to-dir LinkToDirectory", "to-file Equal"]);
}

#[tokio::test]
async fn a_directory_comes_before_what_is_in_it_and_ends_after_what_is_right_in_it() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..300 {
        write(&dir.path().join(format!("{}/{}/{number}", number % 7, number % 3)), "x", 1000);
    }
    let found = findings(dir.path(), None, Comparing::default()).await;
    let at = |wanted: &dyn Fn(&Finding) -> bool| found.iter().position(wanted);
    let mut listed = 0;
    for (number, finding) in found.iter().enumerate() {
        let Finding::Pair(pair) = finding else {
            listed += usize::from(matches!(finding, Finding::Listed { changed: true, .. }));
            continue;
        };
        assert_eq!(pair.verdict, Verdict::Missing);
        let Some(slash) = pair.path.iter().rposition(|&b| b == b'/') else { continue };
        let parent = &pair.path[..slash];
        assert!(at(&|f| matches!(f, Finding::Pair(pair) if pair.path == parent)).unwrap() < number);
        assert!(at(&|f| matches!(f, Finding::Listed { path, .. } if path == parent)).unwrap() > number);
    }
    assert_eq!(listed, 1 + 7 + 21);
}

#[tokio::test]
async fn digests_are_remembered_as_long_as_size_and_time_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (left, right) = (dir.path().join("left"), dir.path().join("right"));
    write(&left.join("file"), "same", 1000);
    write(&right.join("file"), "same", 1000);
    let options = || Comparing { by: By::Digest, state_dir: Some(dir.path().join("state")), ..Comparing::default() };
    assert_eq!(told(&left, &right, options()).await, ["file Equal"]);
    // What changes without a trace isn't read again; what leaves one, is.
    write(&right.join("file"), "some", 1000);
    assert_eq!(told(&left, &right, options()).await, ["file Equal"], "it was hashed again");
    write(&right.join("file"), "some", 1001);
    assert_eq!(told(&left, &right, options()).await, ["file Different(Digest)"]);
}

proptest! {
    #[test]
    fn two_listings_are_joined_by_name(left: Vec<u8>, right: Vec<u8>) {
        let entries = |names: &[u8]| {
            let names: std::collections::BTreeSet<_> = names.iter().collect();
            let seen = |name: &u8| Seen { entry: Entry::new([*name], FileKind::File), taken: true };
            names.into_iter().map(seen).collect::<Vec<_>>()
        };
        let (lefts, rights) = (entries(&left), entries(&right));
        for (one, other) in joined(lefts.clone(), rights.clone()) {
            let name = one.as_ref().or(other.as_ref()).unwrap().entry.name.clone();
            prop_assert_eq!(one.is_some(), lefts.iter().any(|seen| seen.entry.name == name));
            prop_assert_eq!(other.is_some(), rights.iter().any(|seen| seen.entry.name == name));
        }
        let all: std::collections::BTreeSet<_> = left.iter().chain(&right).collect();
        prop_assert_eq!(joined(lefts, rights).count(), all.len());
    }
}

#[test]
fn a_path_below_a_root_stays_there() {
    let transport: Arc<dyn Transport> = Arc::new(Local::new());
    let root = Location { transport, path: RemotePath::new("/a").unwrap(), url: "file:///a".into() };
    assert_eq!(below(&root, b"b c/d").unwrap().url, "file:///a/b%20c/d");
    assert_eq!(below(&root, b"").unwrap().path, root.path);
    assert!(below(&root, b"b/../../c").is_err());
}

#[tokio::test]
async fn a_servers_clock_is_measured_and_not_assumed() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let odd = |keeps, ahead| Odd { keeps, ahead, ..Odd::default() };
    // The server; the time of the left file, that of the right one on the disk, and what that means.
    for (odd, left_time, right_time, wanted) in [
        (odd(true, 0), 1000, 5000, "f Different(Older)"),
        (odd(true, 3600), 1000, 1000, "f Equal"),
        (odd(true, 3600), 4601, 1000, "f Different(Newer)"),
        (odd(true, -19_800), 100_000, 100_000, "f Equal"),
        (odd(false, 0), 1000, now - 60, "f Equal"),
        (odd(false, 0), now - 30, now - 60, "f Different(Newer)"),
        // Copied a minute ago, to a server whose clock is five minutes late.
        (odd(false, -300), now - 100, now - 60, "f Equal"),
        (odd(false, -300), now - 30, now - 60, "f Different(Newer)"),
        (odd(false, 300), now - 30, now - 60, "f Different(Newer)"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (left, right) = (dir.path().join("left"), dir.path().join("right"));
        write(&left.join("f"), "same", left_time);
        write(&right.join("f"), "same", right_time);
        for may_probe in [true, false] {
            let state_dir = Some(dir.path().join("state"));
            let options = Comparing { may_probe, state_dir, ..Comparing::default() };
            let mut served = root(&right).await;
            served.at.transport = Arc::new(odd.clone());
            let found: Vec<_> = compare(Some(root(&left).await), Some(served), Vec::new(), options).collect().await;
            let told: Vec<_> = found
                .iter()
                .filter_map(|finding| match finding {
                    Finding::Pair(pair) => Some(format!("{} {:?}", String::from_utf8_lossy(&pair.path), pair.verdict)),
                    _ => None,
                })
                .collect();
            assert_eq!(told, [wanted], "{odd:?}, {left_time}, {right_time}, measured now: {may_probe}");
            assert_eq!(std::fs::read_dir(&right).unwrap().count(), 1, "the small file is left");
        }
    }
}

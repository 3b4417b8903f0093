use super::pattern::Fault;
use super::*;
use crate::transport::{Mtime, Precision};
use proptest::prelude::*;
use std::time::{Duration, UNIX_EPOCH};

/// Whether a pattern matches a path; a slash at its end makes it a directory's.
fn matches(pattern: &str, path: &str) -> Option<bool> {
    let pattern = Pattern::read_line(pattern.as_bytes()).ok()??;
    Some(pattern.matches(&names(path), path.ends_with('/')))
}

fn names(path: &str) -> Vec<&[u8]> {
    path.split('/').filter(|name| !name.is_empty()).map(str::as_bytes).collect()
}

/// Each row was put to `git check-ignore`.
#[test]
fn patterns_mean_what_git_says() {
    for (pattern, path, matched) in [
        ("*.log", "a/b/x.log", true),
        ("*.log", "x.log.gz", false),
        ("*", ".hidden", true),
        ("foo", "a/foo", true),
        ("/foo", "a/foo", false),
        ("foo/", "a/foo/", true),
        ("foo/", "a/foo", false),
        ("a/foo", "b/a/foo", false),
        ("a/*", "a/x", true),
        ("a/*/c", "a/b/b/c", false),
        ("a?b/c", "a/b/c", false),
        ("a*/c", "ab/b/c", false),
        ("**/a", "a", true),
        ("/**/a", "x/y/a", true),
        ("a/**", "a/", false),
        ("a/**", "a/x/y", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/***/b", "a/x/y/b", true),
        ("a/**/**/b", "a/b", true),
        ("**/**", "a", true),
        ("*/**/", "a/", false),
        ("*/**/", "a/b/", true),
        ("**a/b", "x/a/b", false),
        ("a/**b", "a/x/b", false),
        ("a/**b", "a/xb", true),
        ("[!a-c]x", "dx", true),
        ("[^a-c]x", "bx", false),
        ("a[]b]c", "a]c", true),
        ("a[!]b]c", "a]c", false),
        ("a[a-]", "a-", true),
        ("[]-a]", "^", true),
        ("[a\\-c]", "b", false),
        ("[a-\\d]", "c", true),
        ("a[\\]]", "a]", true),
        ("[[:digit:]x]", "7", true),
        ("[[:upper:]]", "a", false),
        ("[[:alpha:]-z]", "-", true),
        ("[[:alpha:]-z]", "{", false),
        ("a[[:alpha]", "a:", true),
        ("[z-a]", "m", false),
        ("a/[/]b", "a//b", false),
        ("a\\/b", "a/b", true),
        ("\\!x", "!x", true),
        ("\\#x", "#x", true),
        ("\\*", "x", false),
        ("a ", "a", true),
        ("a\\ ", "a ", true),
        ("a\\  ", "a ", true),
        ("a\t", "a", false),
        ("{a,b}", "a", false),
        ("{a,b}", "{a,b}", true),
        ("a\r", "a", true),
    ] {
        assert_eq!(matches(pattern, path), Some(matched), "{pattern:?} {path:?}");
    }
}

#[test]
fn a_pattern_that_never_matches_is_told_as_such() {
    for pattern in ["a[b", "a\\", "/", "!", "[\\", "[]", "a[[:foo:]]", "a//b", "a[[:alpha:]"] {
        assert!(Pattern::read_line(pattern.as_bytes()).is_err(), "{pattern}");
    }
    assert!([" ", "", "#x", "   "].iter().all(|line| Pattern::read_line(line.as_bytes()) == Ok(None)));
    let told = |filter: FilterBuilder| filter.build().unwrap_err().to_string();
    assert!(told(Filter::builder().exclude("a[b")).contains("\"a[b\" never matches: a bracket is not closed"));
    assert!(told(Filter::builder().lines("rules", b"*.o\n\nx[\n")).contains("rules:3"));
}

#[test]
fn bytes_that_are_no_text_are_matched_as_they_are() {
    let pattern = Pattern::read(b"caf\xe9*", false).unwrap();
    assert!(pattern.matches(&[b"caf\xe9.txt"], false) && !pattern.matches(&["café.txt".as_bytes()], false));
    assert!(Pattern::read(b"?", false).unwrap().matches(&[b"\xff"], false));
    assert!(Pattern::read(b"[\x80-\xff]", false).unwrap().matches(&[b"\xc3"], false));
}

/// Returns what a filter takes of paths, each looked for from the root down; directories end in a slash.
fn taken<'a>(filter: &Filter, paths: &[&'a str]) -> Vec<&'a str> {
    let takes = |path: &&&str| {
        let (mut scope, names) = (filter.root(), names(path));
        for (i, name) in names.iter().enumerate() {
            let last = i + 1 == names.len();
            let kind = if last && !path.ends_with('/') { FileKind::File } else { FileKind::Directory };
            if !scope.takes_name(name, kind) {
                return false;
            }
            scope = scope.enter(name);
        }
        true
    };
    paths.iter().filter(takes).copied().collect()
}

#[test]
fn the_last_pattern_that_matches_decides() {
    let all = ["a.log", "keep.log", "src/x.log", "src/keep.log", "x.txt"];
    let filter = |build: fn(FilterBuilder) -> FilterBuilder| build(Filter::builder()).build().unwrap();
    let kept = filter(|f| f.exclude("*.log").include("keep.log"));
    assert_eq!(taken(&kept, &all), ["keep.log", "src/keep.log", "x.txt"]);
    assert_eq!(taken(&filter(|f| f.lines("", b"!keep.log\n*.log")), &all), ["x.txt"]);
    // Nothing below a directory that is ruled out can be had back.
    assert_eq!(taken(&filter(|f| f.exclude("src/").include("keep.log")), &all), ["a.log", "keep.log", "x.txt"]);
}

#[test]
fn an_include_that_comes_first_leaves_out_the_rest() {
    let all = ["a.jpg", "a.txt", "sub/", "sub/b.jpg", "sub/b.txt", "docs/", "docs/x/c.pdf", "docs/x/c.txt"];
    let filter = |build: fn(FilterBuilder) -> FilterBuilder| build(Filter::builder()).build().unwrap();
    let pictures = filter(|f| f.include("*.jpg"));
    assert_eq!(taken(&pictures, &all), ["a.jpg", "sub/", "sub/b.jpg", "docs/"]);
    // A directory that can't hold a match is not looked at; one that was included is taken whole.
    assert_eq!(taken(&filter(|f| f.include("docs/*/*.pdf")), &all), ["docs/", "docs/x/c.pdf"]);
    assert_eq!(taken(&filter(|f| f.include("/docs/")), &all), ["docs/", "docs/x/c.pdf", "docs/x/c.txt"]);
    assert_eq!(taken(&filter(|f| f.include("/docs").exclude("*.txt")), &all), ["docs/", "docs/x/c.pdf"]);
    // What a setting rules out is not the first option.
    assert_eq!(taken(&filter(|f| f.exclude_by_default("sub/").include("*.jpg")), &all), ["a.jpg", "docs/"]);
    assert_eq!(taken(&filter(|f| f.exclude("x").include("*.jpg")), &all).len(), all.len() - 2);
}

#[test]
fn depth_counts_from_the_root() {
    let filter = Filter::builder().max_depth(2).build().unwrap();
    assert_eq!(taken(&filter, &["a", "d/", "d/a", "d/e/", "d/e/a"]), ["a", "d/", "d/a"]);
}

#[test]
fn patterns_of_directories_hold_below_them_and_after_the_options() {
    let filter = Filter::builder().include("*.keep").exclude("never").heed_haulignore().build().unwrap();
    let filter_all = Filter::builder().exclude("*.no").heed_haulignore().build().unwrap();
    let mut root = filter_all.root();
    root.heed(b"*.log\n/only-here\nsub/deep/x\n", ".haulignore");
    let mut sub = root.enter(b"sub");
    let takes = |scope: &Scope, name: &str| scope.takes_name(name.as_bytes(), FileKind::File);
    assert!(!takes(&root, "a.log") && !takes(&root, "only-here") && !takes(&root, "a.no") && takes(&root, "x"));
    assert!(!takes(&sub, "a.log") && takes(&sub, "only-here"));
    sub.heed(b"!a.log\n!a.no\n/x\n", "sub/.haulignore");
    assert!(takes(&sub, "a.log") && !takes(&sub, "b.log") && !takes(&sub, "a.no") && !takes(&sub, "x"));
    let deep = sub.enter(b"deep");
    assert!(takes(&deep, "a.log") && !takes(&deep, "x") && takes(&deep, "y"));
    let mut included = filter.root();
    included.heed(b"*\n", ".haulignore");
    assert!(takes(&included, "a.keep") && !takes(&included, "a"));
}

#[test]
fn sizes_and_times_rule_out_only_what_is_known() {
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    let file = |size, mtime| Entry { size, mtime, ..Entry::new("f", FileKind::File) };
    let sizes = Filter::builder().min_size(10).max_size(20).build().unwrap().root();
    let verdict = |size| sizes.verdict(&file(size, None));
    assert_eq!([9, 10, 20, 21].map(|size| verdict(Some(size)) == Verdict::Takes), [false, true, true, false]);
    assert_eq!(verdict(None), Verdict::Unsure);
    assert!(sizes.takes(&file(None, None)) && sizes.takes(&Entry::new("d", FileKind::Directory)));

    let times = Filter::builder().newer_than(at(1_000_000)).older_than(at(2_000_000)).build().unwrap().root();
    let verdict = |seconds, precision| times.verdict(&file(Some(1), Some(Mtime { time: at(seconds), precision })));
    let exact = |seconds| verdict(seconds, Precision::Second);
    assert_eq!(
        [999_999, 1_000_000, 1_999_999, 2_000_000].map(|s| exact(s) == Verdict::Takes),
        [false, true, true, false]
    );
    assert_eq!(times.verdict(&file(Some(1), None)), Verdict::Unsure);
    // A listing by LIST may be of any zone.
    assert_eq!(verdict(1_050_000, Precision::Minute), Verdict::Unsure);
    assert_eq!(verdict(950_000, Precision::Minute), Verdict::Unsure);
    assert_eq!(verdict(1_500_000, Precision::Minute), Verdict::Takes);
    assert_eq!(verdict(800_000, Precision::Day), Verdict::Leaves);
}

#[test]
fn a_list_names_all_that_is_looked_at() {
    let list = |text: &str| Filter::builder().only_paths("list", text.as_bytes()).build();
    let filter = list("b\na/c\r\n./a-b\n\na/d/e\n/a/d/e\na/d\nz/\n").unwrap();
    let all = ["a/", "a/c", "a/x", "a/d/", "a/d/e", "a/d/other", "a-b", "b", "c", "z/", "z/any"];
    assert_eq!(taken(&filter, &all), ["a/", "a/c", "a/d/", "a/d/e", "a/d/other", "a-b", "b", "z/", "z/any"]);
    let names = |scope: &Scope| -> Option<Vec<String>> {
        let names = scope.names()?.into_iter();
        Some(names.map(|named| String::from_utf8(named.name).unwrap() + &"/".repeat(named.towards.len())).collect())
    };
    assert_eq!(names(&filter.root()).unwrap(), ["a///", "a-b", "b", "z"]);
    assert_eq!(names(&filter.root().enter(b"a")).unwrap(), ["c", "d"]);
    assert_eq!(names(&filter.root().enter(b"a").enter(b"d")), None);
    assert_eq!(names(&list(".").unwrap().root()), None);
    assert_eq!(names(&list("x\ny\0z").unwrap().root()).unwrap(), ["x\ny", "z"]);
    assert_eq!(names(&list("").unwrap().root()).unwrap(), [""; 0]);
    assert!(list("a\n../b").unwrap_err().to_string().contains("list:2"));
}

#[test]
fn operands_are_asked_about_by_name() {
    let filter = Filter::builder().exclude("*.tmp").exclude("/x").exclude("build/").build().unwrap();
    let leaves = |name: &str, kind| filter.operand(name.as_bytes(), &Entry::new(name, kind)) == Verdict::Leaves;
    assert!(leaves("a.tmp", FileKind::File) && leaves("build", FileKind::Directory));
    assert!(!leaves("x", FileKind::File) && !leaves("build", FileKind::File));
    let only = Filter::builder().include("*.jpg").include("album").build().unwrap();
    let leaves = |name: &str, kind| only.operand(name.as_bytes(), &Entry::new(name, kind)) == Verdict::Leaves;
    assert!(leaves("a.txt", FileKind::File) && !leaves("a.jpg", FileKind::File) && !leaves("d", FileKind::Directory));
    assert!(only.root_of(Some(b"album")).takes_name(b"a.txt", FileKind::File));
    assert!(!only.root_of(Some(b"d")).takes_name(b"a.txt", FileKind::File));
}

#[test]
fn the_default_takes_everything() {
    assert!(Filter::default().root().enter(b"x").takes_all());
    assert!(!Filter::builder().heed_haulignore().build().unwrap().root().takes_all());
    assert!(!Filter::builder().exclude("x").build().unwrap().root().takes_all());
}

/// gitignore's meaning once more, by trying everything: slow, but plain to see.
fn slowly(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|i| !text[..i].contains(&b'/') && slowly(rest, &text[i..])),
        [b'?', rest @ ..] => matches!(text, [byte, after @ ..] if *byte != b'/' && slowly(rest, after)),
        [byte, rest @ ..] => matches!(text, [first, after @ ..] if first == byte && slowly(rest, after)),
    }
}

proptest! {
    #[test]
    fn stars_are_found_wherever_they_may_end(
        pattern in "/?(\\*?[ab?]){1,3}\\*?(/(\\*?[ab?]){1,3}){1,3}\\*?",
        path in "[ab]{1,3}(/[ab]{1,3}){0,3}",
    ) {
        let slow = slowly(pattern.trim_start_matches('/').as_bytes(), path.as_bytes());
        prop_assert_eq!(matches(&pattern, &path), Some(slow));
    }

    #[test]
    fn any_line_is_read_or_refused(line: Vec<u8>, name: Vec<u8>, dir: Vec<u8>) {
        let read: Result<_, Fault> = Pattern::read_line(&line);
        if let Ok(Some(pattern)) = read {
            let path = [dir.as_slice(), &name];
            let matched = pattern.matches(&path, false);
            prop_assert!(!matched || pattern.may_match_below(&[&dir]), "what matches below a directory may match below it");
        }
    }

    #[test]
    fn any_list_is_read_or_refused(text: Vec<u8>) {
        if let Ok(filter) = Filter::builder().only_paths("list", &text).build() {
            for named in filter.root().names().unwrap_or_default() {
                prop_assert!(filter.root().takes_name(&named.name, FileKind::File));
                prop_assert_eq!(filter.root().enter(&named.name).names().is_none(), named.towards.is_empty());
            }
        }
    }
}

/// A pattern of a server, matched with a name of the same server, ends soon.
#[test]
fn no_pattern_takes_long() {
    let pattern = format!("{}b", "*a".repeat(2000));
    let name = vec![b'a'; 4000];
    assert!(!Pattern::read(pattern.as_bytes(), false).unwrap().matches(&[&name], false));
    let pattern = format!("{}b", "**/a/".repeat(500));
    let path = vec![b"a".as_slice(); 1000];
    assert!(!Pattern::read(pattern.as_bytes(), false).unwrap().matches(&path, false));
}

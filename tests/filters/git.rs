//! The patterns against git itself: the same tree, the same patterns, the same files left.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures_util::StreamExt;
use haul::endpoint::Endpoint;
use haul::plan::{self, Filter, FilterBuilder, Place};
use haul::transfer::{Event, Observer, Task};
use haul::transport::escape;
use haul::transport::local::Local;
use tempfile::TempDir;

use super::support::client::names_below;
use super::support::data::{Dice, seed};

/// Names that the patterns are made of as well, so that many of them match.
const NAMES: &[&[u8]] = &[
    b"a", b"b", b"ab", b"abc", b"x.o", b"a.log", b".h", b"a-b", b"A", b"[a]", b"a b", b"a ", b"!a", b"#a", b"caf\xe9",
    b"{a,b}",
];
const WILD: &[&[u8]] = &[
    b"*",
    b"?",
    b"a*",
    b"*b",
    b"*.o",
    b"?.log",
    b"[ab]",
    b"[!a]*",
    b"[a-c]?",
    b"[[:alpha:]]*",
    b"*[.]*",
    b"a?c",
    b"\\*",
    b"\\!a",
    b"a\\ ",
    b"[]a]",
    b"*a*",
    b"[^[:lower:]]",
    b"\\[a\\]",
    b"[\\x80-\xff]*",
    b"caf?",
    b"[",
    b"a\\",
    b"[b-",
    b"*\xe9",
];

struct Quiet;

impl Observer for Quiet {
    fn event(&self, _: Event) {}
}

/// A tree with every kind of name at several depths, and what is needed to ask git about it.
struct Tree {
    dir: TempDir,
    directories: Vec<Vec<u8>>,
}

impl Tree {
    fn grow(dice: &mut Dice) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut directories: Vec<Vec<u8>> = vec![Vec::new()];
        for _ in 0..24 {
            let parent = directories[dice.below(directories.len() as u64) as usize].clone();
            let path = [parent.as_slice(), dice.one_of(NAMES), b"/"].concat();
            if path.split(|byte| *byte == b'/').count() <= 5 && !directories.contains(&path) {
                std::fs::create_dir_all(tree.join(OsStr::from_bytes(&path))).unwrap();
                directories.push(path);
            }
        }
        for directory in &directories {
            for name in NAMES.iter().filter(|_| dice.once_in(2)) {
                let path = tree.join(OsStr::from_bytes(&[directory.as_slice(), name].concat()));
                if !path.exists() {
                    std::fs::write(path, "").unwrap();
                }
            }
        }
        let git = Command::new("git").args(["init", "--quiet"]).arg(dir.path().join("repository")).status();
        assert!(git.is_ok_and(|status| status.success()), "git init");
        Self { dir, directories }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("tree")
    }

    /// Writes `.haulignore` files anew, and returns them for the message of a failure.
    fn write_haulignores(&self, dice: &mut Dice) -> String {
        let mut told = String::new();
        for directory in &self.directories {
            let path = self.root().join(OsStr::from_bytes(directory)).join(".haulignore");
            let _ = std::fs::remove_file(&path);
            if dice.once_in(4) {
                let lines: Vec<_> = (0..=dice.below(4)).map(|_| line(dice)).collect();
                let text = lines.join(&b"\n"[..]);
                told += &format!("{}.haulignore: {}\n", escape(directory), escape(&text));
                std::fs::write(path, text).unwrap();
            }
        }
        told
    }

    /// Returns the files that git would not ignore, seen from the root.
    fn left_by_git(&self, patterns: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
        let mut git = Command::new("git");
        git.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        git.env("GIT_DIR", self.dir.path().join("repository/.git")).env("GIT_WORK_TREE", self.root());
        git.current_dir(self.root()).args(["ls-files", "--others", "-z", "--exclude-per-directory=.haulignore"]);
        for pattern in patterns {
            git.arg("-x").arg(OsStr::from_bytes(pattern));
        }
        let output = git.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect()
    }

    /// Returns the files that haul would move, seen from the root.
    async fn left_by_haul(&self, patterns: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
        // An include as the first option would be more than git's negation.
        let filter = Filter::builder().exclude("no such name").heed_haulignore();
        let filter = patterns.iter().fold(filter, |filter, pattern| match pattern.strip_prefix(b"!") {
            Some(pattern) => filter.include(pattern),
            None => filter.exclude(pattern),
        });
        files(&self.root(), filter).await
    }
}

async fn files(root: &Path, filter: FilterBuilder) -> BTreeSet<Vec<u8>> {
    let place = |path: &Path| Place { transport: Arc::new(Local::new()), endpoint: Endpoint::parse(path).unwrap() };
    let options = plan::Options { recursive: true, filter: filter.build().unwrap(), ..plan::Options::default() };
    let (source, target) = (place(&root.join(".")), place(&root.with_file_name("copy")));
    let mut tasks = plan::copy(vec![source], target, options, Arc::new(Quiet)).await.unwrap();
    let mut found = BTreeSet::new();
    while let Some(task) = tasks.next().await {
        match task {
            Task::File(job) => {
                let path = job.source.path.as_bytes();
                let below = path.strip_prefix(root.as_os_str().as_bytes()).unwrap();
                assert!(found.insert(below[1..].to_vec()), "{} is moved once", escape(path));
            }
            Task::Failed { source, error } => panic!("{source}: {}", error.chain()),
            _ => {}
        }
    }
    found
}

/// Makes a line of a file of patterns.
fn line(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0 => b"# *".to_vec(),
        1 => Vec::new(),
        2 => [pattern(dice).as_slice(), b"  "].concat(),
        3 => [pattern(dice).as_slice(), b"\r"].concat(),
        _ => pattern(dice),
    }
}

fn pattern(dice: &mut Dice) -> Vec<u8> {
    let names: Vec<&[u8]> = (0..=dice.below(3)).map(|_| name(dice)).collect();
    let mark: &[u8] = if dice.once_in(3) { b"!" } else { b"" };
    let start: &[u8] = if dice.once_in(4) { b"/" } else { b"" };
    let end: &[u8] = if dice.once_in(4) { b"/" } else { b"" };
    [mark, start, &names.join(&b'/'), end].concat()
}

fn name(dice: &mut Dice) -> &'static [u8] {
    match dice.below(12) {
        // Beside other bytes it is another matter: git itself is at odds with its manual there.
        0 => b"**",
        1..=4 => dice.one_of(WILD),
        _ => dice.one_of(NAMES),
    }
}

#[tokio::test]
async fn what_is_left_is_what_git_leaves() {
    if Command::new("git").arg("--version").output().is_err() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "git is missing in CI");
        eprintln!("SKIPPED: no git");
        return;
    }
    let seed = seed();
    let mut dice = Dice::new(seed);
    let (mut cases, mut decisive) = (0, 0);
    for _ in 0..12 {
        let tree = Tree::grow(&mut dice);
        for _ in 0..40 {
            let mut patterns: Vec<_> = (0..dice.below(5)).map(|_| pattern(&mut dice)).collect();
            // On a command line these are mistakes.
            patterns.retain(|pattern| {
                let pattern = pattern.strip_prefix(b"!").unwrap_or(pattern);
                Filter::builder().exclude(pattern).build().is_ok()
            });
            let haulignores = tree.write_haulignores(&mut dice);
            let (git, haul) = (tree.left_by_git(&patterns), tree.left_by_haul(&patterns).await);
            let names = |set: BTreeSet<&Vec<u8>>| set.iter().map(|name| escape(name)).collect::<Vec<_>>();
            let (only_git, only_haul) =
                (names(git.difference(&haul).collect()), names(haul.difference(&git).collect()));
            let patterns: Vec<_> = patterns.iter().map(|pattern| escape(pattern)).collect();
            assert!(
                git == haul,
                "HAUL_SEED={seed}: {patterns:?}\n{haulignores}only git takes {only_git:?}\nonly haul takes {only_haul:?}"
            );
            cases += 1;
            decisive += usize::from(!haul.is_empty() && haul.len() < names_below(&tree.root()).len());
        }
    }
    assert!(decisive * 2 > cases, "patterns that leave all or nothing show little: {decisive} of {cases}");
}

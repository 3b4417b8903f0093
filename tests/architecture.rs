//! The rules of the house that a test can hold: who imports whom, how long a file may be, what lies forgotten.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// For each part of the crate, the parts it may name; what isn't here may name everything.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    // The words for paths and secrets live at the seam.
    ("endpoint", &["error", "transport"]),
    // Pure: no disk, no network, and it doesn't know which settings there are.
    ("config", &["error", "endpoint", "transport"]),
    ("batch", &["error", "endpoint", "config", "transport"]),
    ("transport", &["error", "endpoint"]),
    ("transfer", &["error", "endpoint", "transport"]),
    ("plan", &["error", "endpoint", "transport", "transfer"]),
    ("api", &["error", "endpoint", "transport", "transfer", "plan"]),
    ("serve", &["error", "endpoint", "transport"]),
];

/// The backends and what dials for them, and which others each may name.
const BACKENDS: &[(&str, &[&str])] =
    &[("local", &[]), ("dial", &[]), ("ftp", &["dial"]), ("ssh", &["dial"]), ("sftp", &["ssh"])];

/// Crates that only one part may name, so that changing one changes one place.
const KEPT_IN: &[(&str, &[&str])] = &[
    ("clap", &["src/cli/", "src/main.rs"]),
    ("indicatif", &["src/cli/"]),
    ("toml", &["src/config/", "src/batch/"]),
    ("suppaftp", &["src/transport/ftp/"]),
    ("ssh2", &["src/transport/ssh/"]),
    ("libssh2_sys", &["src/transport/ssh/"]),
    ("russh", &["src/transport/ssh/", "src/serve/"]),
    ("rcgen", &["src/serve/"]),
];

const MOST_LINES: usize = 420;

#[test]
fn imports_point_downwards() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let part = name.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        let Some((_, allowed)) = MAY_USE.iter().find(|(p, _)| *p == part) else { continue };
        for (first, second) in crate_paths(&text) {
            let known = MAY_USE.iter().any(|(p, _)| *p == first) || first == "cli";
            if known && first != part && !allowed.contains(&first.as_str()) {
                wrong.push(format!("{name} uses {first}"));
            }
            if part == "endpoint" && first == "transport" && BACKENDS.iter().any(|(b, _)| *b == second) {
                wrong.push(format!("{name} uses the backend {second}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn backends_dont_know_each_other() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let Some(inner) = name.strip_prefix("src/transport/") else { continue };
        let backend = inner.split(['/', '.']).next().unwrap();
        let Some((_, allowed)) = BACKENDS.iter().find(|(b, _)| *b == backend) else { continue };
        for (first, second) in crate_paths(&text) {
            let other = first == "transport" && BACKENDS.iter().any(|(b, _)| *b == second) && second != backend;
            if other && !allowed.contains(&second.as_str()) {
                wrong.push(format!("{name} uses {second}"));
            }
        }
    }
    // Above the seam nobody names a protocol's backend, except to connect.
    for (name, text) in sources() {
        if name.starts_with("src/transfer/") || name.starts_with("src/plan/") {
            for (first, second) in crate_paths(&text) {
                if first == "transport" && ["ftp", "sftp", "ssh"].contains(&second.as_str()) {
                    wrong.push(format!("{name} uses {second}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_foreign_crate_stays_in_its_place() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (krate, places) in KEPT_IN {
            if !places.iter().any(|place| name.starts_with(place)) && names_crate(&text, krate) {
                wrong.push(format!("{name} uses {krate}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A connection that is made elsewhere would go around the proxy.
#[test]
fn one_place_dials() {
    let dials = ["TcpStream::connect", "TcpSocket", "lookup_host", "to_socket_addrs", "client::connect("];
    // In active mode a server calls back, and a client listens.
    let active = ["src/serve/ftp/data.rs", "src/transport/ftp/active.rs"];
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if !name.starts_with("src/transport/dial/") && !active.contains(&&*name) {
            wrong.extend(dials.iter().filter(|call| text.contains(**call)).map(|call| format!("{name}: {call}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_stay_short_and_folders_flat() {
    let mut wrong = Vec::new();
    for path in files("src", "rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        // Tests sit at the end; a file of nothing but tests has no limit.
        let test_file = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "testing")
            || text.lines().take(20).any(|line| line.starts_with("#![cfg(test)]"))
            || is_test_module(&path);
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        if lines > MOST_LINES && !test_file {
            wrong.push(format!("{}: {lines} lines of code, at most {MOST_LINES}", shown(&path)));
        }
        if path.strip_prefix(root().join("src")).unwrap().components().count() > 3 {
            wrong.push(format!("{}: folders lie at most two deep", shown(&path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A file that no `mod` names is not compiled: its tests would never run.
#[test]
fn every_file_is_compiled() {
    let mut reached = BTreeSet::new();
    let mut open = ["src/lib.rs", "src/main.rs", "tests/support/wanlink/main.rs", "tests/support/chaos/main.rs"]
        .map(|path| root().join(path))
        .to_vec();
    for entry in std::fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        open.push(if path.is_dir() { path.join("main.rs") } else { path });
    }
    while let Some(path) = open.pop() {
        if path.extension().is_some_and(|e| e == "rs") && path.is_file() && reached.insert(path.clone()) {
            open.extend(modules_of(&path));
        }
    }
    let forgotten: Vec<_> = files("src", "rs").into_iter().chain(files("tests", "rs")).collect();
    let forgotten: Vec<_> = forgotten.iter().filter(|path| !reached.contains(*path)).map(|p| shown(p)).collect();
    assert!(forgotten.is_empty(), "no `mod` leads to {forgotten:#?}");
}

#[test]
fn only_the_slow_link_has_unsafe_code_and_keeps_it_in_one_file() {
    for path in ["src/lib.rs", "src/main.rs"] {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{path} must forbid unsafe code");
    }
    let permission = concat!("allow(", "unsafe_code");
    let allowed: Vec<_> = files("src", "rs")
        .into_iter()
        .chain(files("tests", "rs"))
        .filter(|path| std::fs::read_to_string(path).unwrap().contains(permission))
        .map(|path| shown(&path))
        .collect();
    assert_eq!(allowed, ["tests/support/wanlink/device.rs"]);
}

#[test]
fn an_ignored_test_says_why() {
    let bare = concat!("#[", "ignore]");
    let wrong: Vec<_> = files("src", "rs")
        .into_iter()
        .chain(files("tests", "rs"))
        .filter(|path| std::fs::read_to_string(path).unwrap().contains(bare))
        .map(|path| shown(&path))
        .collect();
    assert!(wrong.is_empty(), "write #[ignore = \"why\"] in {wrong:#?}");
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let marks = [
        concat!("/ro", "ot/.cargo"),
        concat!("/wo", "rk/wt"),
        concat!("/wo", "rk/main"),
        concat!(".car", "go/registry"),
    ];
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "scripts", ".ci", "docs", ".config"] {
        for path in files(folder, "") {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            wrong.extend(marks.iter().filter(|m| text.contains(**m)).map(|m| format!("{}: {m}", shown(&path))));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Returns every file below a folder with this extension; all of them for an empty one.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if extension.is_empty() || path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns name and code of every source file, without comments and without the tests at its end.
fn sources() -> Vec<(String, String)> {
    let sources = files("src", "rs").into_iter().filter(|path| !is_test_module(path));
    sources.map(|path| (shown(&path), code(&std::fs::read_to_string(&path).unwrap()))).collect()
}

fn code(text: &str) -> String {
    let mut code = String::new();
    let mut tests_next = false;
    for line in text.lines() {
        if tests_next && line.starts_with("mod tests {") {
            break;
        }
        tests_next = line == "#[cfg(test)]";
        code.push_str(line.split("//").next().unwrap());
        code.push('\n');
    }
    code
}

/// Whether its parent compiles it for tests only.
fn is_test_module(path: &Path) -> bool {
    let (stem, dir) = (path.file_stem().unwrap().to_str().unwrap(), path.parent().unwrap());
    let parents = [dir.join("mod.rs"), dir.with_extension("rs"), dir.join("lib.rs")];
    parents.iter().filter_map(|parent| std::fs::read_to_string(parent).ok()).any(|text| {
        let lines: Vec<_> = text.lines().collect();
        lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(&format!("mod {stem};")))
    })
}

/// Returns the first two names of every path that starts at `crate::`, those in braces too.
fn crate_paths(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        for path in alternatives(rest) {
            let first = identifier(path);
            let Some(tail) = path[first.len()..].strip_prefix("::") else {
                found.push((first.to_owned(), String::new()));
                continue;
            };
            found.extend(alternatives(tail).into_iter().map(|p| (first.to_owned(), identifier(p).to_owned())));
        }
    }
    found
}

/// Splits `{a::b, c}` at its own commas; anything else is one path.
fn alternatives(text: &str) -> Vec<&str> {
    let Some(inner) = text.strip_prefix('{') else { return vec![text] };
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(inner[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(inner[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Whether a path of the code starts at this crate: `use ssh2::…`, `ssh2::…`, `#[derive(clap::…)]`, not `super::ssh2::…`.
fn names_crate(code: &str, krate: &str) -> bool {
    code.match_indices(&format!("{krate}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// Returns the files that the modules declared in a file may lie in.
fn modules_of(path: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(path).unwrap();
    let dir = path.parent().unwrap();
    let stem = path.file_stem().unwrap().to_str().unwrap();
    // The root of a test program looks beside itself, any other `x.rs` in the folder `x`.
    let is_root = ["lib", "main", "mod"].contains(&stem) || dir == root().join("tests");
    let home = if is_root { dir.to_owned() } else { dir.join(stem) };
    let mut found = Vec::new();
    let mut given: Option<PathBuf> = None;
    for line in text.lines().map(str::trim) {
        if let Some(at) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            given = Some(dir.join(at));
            continue;
        }
        let declared = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
        let Some((visibility, name)) = declared else {
            if !line.starts_with("#[") {
                given = None;
            }
            continue;
        };
        if !visibility.is_empty() && !visibility.starts_with("pub") {
            continue;
        }
        match given.take() {
            Some(path) => found.push(std::fs::canonicalize(&path).unwrap_or(path)),
            None => found.extend([home.join(format!("{name}.rs")), home.join(name).join("mod.rs")]),
        }
    }
    found
}

#[test]
fn the_reader_of_imports_reads_them() {
    let code = "use crate::{error::Error, transport::{ftp::X, Y}};\nlet x = crate::plan::walk();";
    let found = crate_paths(code);
    let pairs: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(pairs, [("error", "Error"), ("transport", "ftp"), ("transport", "Y"), ("plan", "walk")]);
    assert!(names_crate("#[derive(clap::Parser)]", "clap") && names_crate("use ssh2::Session;", "ssh2"));
    assert!(!names_crate("use super::russh::connect; let libssh2::x", "ssh2"));
}

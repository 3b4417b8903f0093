//! The page for people: well-formed, by itself, and names stay names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use haul::serve::Protocol;

use crate::scene::{Scene, write};

/// Names that would be something else in a page.
const HOSTILE: [&[u8]; 7] = [
    b"<img src=x onerror=alert(1)>",
    b"\"><script>alert(1)<",
    b"' onmouseover='x",
    b"&lt;&amp;&#60;",
    b"]]>--><!--",
    b"\x1b[2J\xe2\x80\xaetxt.exe",
    b"\xff\xfe\n2",
];

/// Reads a page and returns its text, without tags. Every tag is closed, every value quoted.
#[track_caller]
fn text_of(page: &str) -> String {
    let (mut text, mut open, mut rest) = (String::new(), Vec::new(), page.strip_prefix("<!DOCTYPE html>").unwrap());
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        let end = start + rest[start..].find('>').expect("a tag without end");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name.to_owned()), "closed before what is in it: {tag}");
            continue;
        }
        let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "<{tag}>");
        assert!(!["script", "img", "link", "iframe", "object", "embed"].contains(&name), "<{tag}>");
        for attribute in attributes.split("\" ").filter(|attribute| !attribute.trim().is_empty()) {
            let (name, value) =
                attribute.split_once("=\"").unwrap_or_else(|| panic!("not quoted: {attribute:?} in <{tag}>"));
            assert!(name.trim().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "<{tag}>");
            assert!(!name.trim().starts_with("on") && !["src", "href"].contains(&name.trim()), "<{tag}>");
            assert!(!value.trim_end_matches('"').contains(['"', '<']), "<{tag}>");
        }
        if !is_empty {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    let mut plain = text + rest;
    for (entity, c) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")] {
        plain = plain.replace(entity, c);
    }
    plain
}

#[test]
fn hostile_names_stay_text() {
    let scene = Scene::own(Protocol::Sftp);
    for name in HOSTILE {
        let path = scene.near("tree").join(OsStr::from_bytes(name));
        write(&path, b"1");
    }
    let hostile = format!("{}<b>'\"&\u{202e}", scene.url(""));
    scene.run(&["put", "-r", "tree", &scene.url(""), "--report", "put.html"]).ends(0);
    scene.run(&["get", "-r", &scene.url("tree"), &hostile, "into", "--report", "get.html"]).ends(1);
    for name in ["put.html", "get.html"] {
        let page = std::fs::read_to_string(scene.near(name)).unwrap();
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("url("), "from elsewhere");
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()) && !page.contains('\u{202e}'));
        let text = text_of(&page);
        for shown in
            ["<img src=x onerror=alert(1)>", "\"><script>alert(1)<", "' onmouseover='x", "&lt;&amp;&#60;", "]]>--><!--"]
        {
            assert!(text.contains(shown), "{shown} is not in {name}");
        }
        assert!(text.contains("\\u{1b}[2J") && text.contains("\\xff\\xfe"), "{name}");
    }
    let text = text_of(&std::fs::read_to_string(scene.near("get.html")).unwrap());
    let (failed, moved) = (text.find("What needs a look").unwrap(), text.find("Moved (7 files)").unwrap());
    assert!(failed < moved, "failures come first");
    assert!(text.contains("1 failed") && text.contains("some items failed") && text.contains("No such file"), "{text}");
}

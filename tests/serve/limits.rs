//! `--read-only` and `--max-size`, for every command and request that could get around them.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use bytes::Bytes;
use haul::serve::{Access, FtpTls, Protocol};
use haul::transport::sftp::wire::{Attrs, CopyData, Extended, OpenFlags, Request, Response, StatusCode};

use crate::packets::Packets;
use crate::raw::Raw;
use crate::scene::{Scene, pattern, read, write};

const MOST: u64 = 1000;

/// All that can be told of a folder: names, kinds, modes, times, links, contents.
fn snapshot(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let m = path.symlink_metadata().unwrap();
        let content = if m.is_file() { format!("{:?}", std::fs::read(&path).unwrap()) } else { String::new() };
        let link = std::fs::read_link(&path).ok();
        let told = format!("{:o} {} {}.{} {link:?} {content}", m.mode(), m.nlink(), m.mtime(), m.mtime_nsec());
        found.insert(path.display().to_string(), told);
        if m.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn read_only(protocol: Protocol) -> Scene {
    let scene = Scene::with(protocol, |options| options.access = Access::ReadOnly);
    write(&scene.served("f"), b"content");
    write(&scene.served("g"), b"");
    std::fs::create_dir(scene.served("d")).unwrap();
    std::fs::create_dir(scene.served("empty")).unwrap();
    symlink("f", scene.served("l")).unwrap();
    scene
}

#[test]
fn no_ftp_command_changes_what_is_read_only() {
    let scene = read_only(Protocol::Ftp(FtpTls::Off));
    let before = snapshot(scene.served.path());
    let mut raw = Raw::logged_in_from("127.0.0.1", &scene);
    let commands = [
        "DELE f",
        "DELE l",
        "RMD empty",
        "XRMD empty",
        "MKD new",
        "XMKD new",
        "SITE CHMOD 777 f",
        "SITE CHMOD 000 d",
        "MFMT 20010909014640 f",
        "MFMT 20010909014640 d",
        "SITE UTIME 20010909014640 f",
        "SITE UTIME f 19990101000000 20010909014640 19990101000000 UTC",
        "STOU",
        "STOU f",
        "MFF Modify=20010909014640; f",
        "MDTM 20010909014640 f",
        "SITE SYMLINK f s",
        "SITE RMDIR empty",
        "SITE MKDIR new",
        "SITE COPY f h",
        "SITE CPFR f",
    ];
    for command in commands {
        let reply = raw.say(command);
        assert!(reply.starts_with('5'), "{command}: {reply}");
    }
    for (first, second) in [("RNFR f", "RNTO h"), ("RNFR d", "RNTO e"), ("RNFR g", "RNTO f"), ("RNFR l", "RNTO f")] {
        raw.expect(first, 350);
        raw.expect(second, 550);
    }
    for store in ["STOR f", "STOR new", "APPE f", "APPE new", "STOR d/new", "STOR l"] {
        for offset in ["NOOP", "REST 3", "TYPE A"] {
            raw.say(offset);
            raw.expect("EPSV", 229);
            let reply = raw.say(store);
            assert!(reply.starts_with('5'), "{offset}, {store}: {reply}");
            raw.expect("TYPE I", 200);
        }
    }
    assert_eq!(snapshot(scene.served.path()), before);
    assert!(raw.expect("MLST f", 250).contains("perm=r;"), "{}", raw.say("MLST f"));
}

#[test]
fn no_sftp_request_changes_what_is_read_only() {
    let scene = read_only(Protocol::Sftp);
    let before = snapshot(scene.served.path());
    let mut packets = Packets::new(&scene);
    // Every combination of flags that isn't plain reading.
    for flags in (0..64).filter(|flags| flags & !1 & !32 != 0) {
        for path in ["/f", "/new", "/l", "/d/new"] {
            let opened = packets.ask(Request::Open(path.into(), OpenFlags(flags), Attrs::default()));
            assert!(matches!(opened, Response::Status(_)), "{flags:#b} {path}: {opened:?}");
        }
    }
    let (file, other) = (packets.open("/f", 1), packets.open("/g", 1));
    let size = Attrs { size: Some(0), ..Attrs::default() };
    let mode = Attrs { permissions: Some(0o777), ..Attrs::default() };
    let times = Attrs { times: Some((1, 1)), ..Attrs::default() };
    let (b, zero) = (|text: &'static str| Bytes::from_static(text.as_bytes()), 0);
    let copy = CopyData { from: file.clone(), from_offset: zero, length: zero, to: other.clone(), to_offset: zero };
    let mut requests = vec![
        Request::Write(file.clone(), 0, b("evil")),
        Request::Remove(b("/f")),
        Request::Remove(b("/l")),
        Request::Mkdir(b("/new"), Attrs::default()),
        Request::Rmdir(b("/empty")),
        Request::Rename(b("/f"), b("/h")),
        Request::Rename(b("/d"), b("/e")),
        Request::Symlink(b("f"), b("/s")),
        Request::Extended(Extended::PosixRename(b("/f"), b("/g"))),
        Request::Extended(Extended::Hardlink(b("/f"), b("/h"))),
        Request::Extended(Extended::CopyData(copy)),
    ];
    for attrs in [size, mode, times] {
        requests.push(Request::Setstat(b("/f"), attrs));
        requests.push(Request::Setstat(b("/d"), attrs));
        requests.push(Request::Fsetstat(file.clone(), attrs));
        requests.push(Request::Extended(Extended::Lsetstat(b("/f"), attrs)));
        requests.push(Request::Extended(Extended::Lsetstat(b("/l"), attrs)));
    }
    for request in requests {
        let shown = format!("{request:?}");
        assert_ne!(packets.status(request).0, StatusCode::OK, "{shown}");
    }
    assert_eq!(snapshot(scene.served.path()), before);
    assert_eq!(packets.ask(Request::Read(file, 0, 100)), Response::Data(b("content")));
}

fn limited(protocol: Protocol) -> Scene {
    let scene = Scene::with(protocol, |options| options.max_size = Some(MOST));
    // What was there before may be larger.
    write(&scene.served("large"), &pattern(5000));
    write(&scene.served("f"), &pattern(990));
    scene
}

fn assert_none_grew(scene: &Scene) {
    for entry in std::fs::read_dir(scene.served.path()).unwrap() {
        let entry = entry.unwrap();
        let most = if entry.file_name() == "large" { 5000 } else { MOST };
        assert!(entry.metadata().unwrap().len() <= most, "{}", entry.file_name().display());
    }
}

#[test]
fn no_ftp_upload_grows_beyond_the_limit() {
    let scene = limited(Protocol::Ftp(FtpTls::Off));
    let mut raw = Raw::logged_in_from("127.0.0.1", &scene);
    let mut put = |before: &str, command: &str, length: usize| {
        raw.say(before);
        let mut data = raw.passive();
        let reply = raw.say(command);
        if !reply.starts_with("150 ") {
            return reply;
        }
        // The server may hang up first.
        let _ = data.write_all(&pattern(length));
        drop(data);
        raw.reply()
    };
    assert!(put("NOOP", "STOR exact", 1000).starts_with("226 "));
    for (before, command, length) in [
        ("NOOP", "STOR new", 1001),
        ("NOOP", "STOR new", 3_000_000),
        ("REST 990", "STOR f", 11),
        ("NOOP", "APPE f", 11),
        ("NOOP", "APPE exact", 1),
        ("NOOP", "APPE large", 1),
        ("REST 5000", "STOR large", 1),
        ("TYPE A", "STOR text", 2000),
        ("TYPE A", "APPE text", 2000),
    ] {
        let reply = put(before, command, length);
        assert!(reply.starts_with("552 "), "{before}, {command}: {reply}");
        assert_none_grew(&scene);
        put("TYPE I", "STOR small", 1);
    }
    assert!(put("NOOP", "APPE f", 10).starts_with("226 "), "up to the limit");
    assert!(put("REST 10", "STOR large", 100).starts_with("226 "), "within it");
    assert_eq!(read(&scene.served("f")).len(), 1000);
    assert_eq!(read(&scene.served("large")).len(), 5000);
}

#[test]
fn no_sftp_request_grows_a_file_beyond_the_limit() {
    let scene = limited(Protocol::Sftp);
    let mut packets = Packets::new(&scene);
    let (large, file) = (packets.open("/large", 1), packets.open("/f", 2));
    let (end, new) = (packets.open("/f", 2 | 4), packets.open("/new", 2 | 8));
    let size = |size| Attrs { size: Some(size), ..Attrs::default() };
    let copy = |to: &Bytes, from_offset, length, to_offset| {
        let (from, to) = (large.clone(), to.clone());
        Request::Extended(Extended::CopyData(CopyData { from, from_offset, length, to, to_offset }))
    };
    let byte = || Bytes::from_static(b"x");
    let refused = [
        Request::Write(file.clone(), 990, Bytes::from(pattern(11))),
        Request::Write(new.clone(), MOST, byte()),
        Request::Write(new.clone(), 1 << 40, byte()),
        Request::Write(new.clone(), u64::MAX, byte()),
        Request::Write(end.clone(), 0, Bytes::from(pattern(11))),
        Request::Fsetstat(new.clone(), size(MOST + 1)),
        Request::Fsetstat(new.clone(), size(u64::MAX)),
        Request::Setstat("/new".into(), size(MOST + 1)),
        Request::Extended(Extended::Lsetstat("/new".into(), size(MOST + 1))),
        copy(&new, 0, 0, 0),
        copy(&new, 0, 1001, 0),
        copy(&new, 0, 10, 995),
        copy(&end, 0, 11, 0),
    ];
    for request in refused {
        let shown = format!("{request:?}");
        let (code, text) = packets.status(request);
        assert_ne!(code, StatusCode::OK, "{shown}");
        // What haul and others know as "the disk is full" by its words; a size beyond all is invalid before that.
        assert!(text.contains("quota exceeded") || code == StatusCode::BAD_MESSAGE, "{shown}: {text}");
        assert_none_grew(&scene);
    }
    packets.ok(Request::Write(new.clone(), MOST - 1, byte()));
    packets.ok(Request::Write(end, 0, Bytes::from(pattern(10))));
    packets.ok(Request::Fsetstat(new, size(MOST)));
    packets.ok(Request::Setstat("/large".into(), size(2)));
    assert_none_grew(&scene);
}

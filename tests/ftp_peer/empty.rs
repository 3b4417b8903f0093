//! Servers that list nothing and say that all went well: only an empty directory counts as empty.

use super::*;

/// What a peer says about `/d`, in the order of its commands; all else is a full directory.
struct Nothing {
    /// Without MLSD, LIST.
    machine: bool,
    lines: &'static [u8],
    end: &'static str,
    cwd: &'static str,
    /// To a second LIST, without `-a`.
    again: &'static str,
}

const EMPTY: Nothing =
    Nothing { machine: true, lines: b"", end: "226 done\r\n", cwd: "250 in\r\n", again: "226 done\r\n" };
const ROOT: &[u8] = b"type=cdir;perm=el; .\r\ntype=dir;perm=el; d\r\n";
const LONG_ROOT: &[u8] = b"drwxr-xr-x 2 a b 4096 Jan 01 2020 .\r\ndrwxr-xr-x 2 a b 4096 Jan 01 2020 d\r\n";

/// Lists the root first if wanted, and then the directory; returns its names.
async fn listed(nothing: &'static Nothing, root_first: bool) -> Result<usize> {
    let within = std::sync::Mutex::new(String::new());
    let peer = Peer::start(move |_, line| {
        let mut within = within.lock().unwrap();
        Some(match line.split_once(' ').unwrap_or((line, "")) {
            ("FEAT", _) if !nothing.machine => Act::Say("211 no\r\n"),
            ("CWD", to) => {
                to.clone_into(&mut within);
                Act::Say(if to == "/d" { nothing.cwd } else { "250 in\r\n" })
            }
            ("MLSD", "/d") => Act::Send(nothing.lines, nothing.end),
            ("LIST", "-a") if *within == "/d" => Act::Send(nothing.lines, nothing.end),
            ("LIST", "") if nothing.again.starts_with('2') => Act::Send(b"", nothing.again),
            ("LIST", "") => Act::Say(nothing.again),
            ("MLSD", _) => Act::Send(ROOT, "226 done\r\n"),
            ("LIST", _) => Act::Send(LONG_ROOT, "226 done\r\n"),
            _ => return None,
        })
    })
    .await;
    let transport = peer.connect_with(single()).await.unwrap();
    if root_first {
        let root: Vec<_> = transport.list(&path("/")).await?.try_collect().await?;
        assert_eq!(root.len(), 1);
    }
    let names = list(&*transport).await;
    // The connection serves on, whatever it was.
    let root: Vec<_> = transport.list(&path("/")).await.unwrap().try_collect().await.unwrap();
    assert_eq!((root.len(), peer.heard("USER")), (1, 1));
    names.map(|names| names.len())
}

#[tokio::test]
async fn nothing_listed_is_an_error_where_it_is_not_certain() {
    let cases: &[(Nothing, bool, ErrorKind)] = &[
        (Nothing { cwd: "550 Permission denied\r\n", ..EMPTY }, false, ErrorKind::PermissionDenied),
        (Nothing { cwd: "550 no\r\n", ..EMPTY }, false, ErrorKind::PermissionDenied),
        (Nothing { cwd: "550 No such directory\r\n", ..EMPTY }, false, ErrorKind::NotFound),
        (Nothing { end: "226 done (but failed to open directory).\r\n", ..EMPTY }, false, ErrorKind::PermissionDenied),
        (Nothing { end: "250-Can't read it\r\n250 done\r\n", ..EMPTY }, false, ErrorKind::PermissionDenied),
        (Nothing { end: "200 fine\r\n", ..EMPTY }, false, ErrorKind::Protocol),
        (Nothing { end: "299 fine\r\n", ..EMPTY }, false, ErrorKind::Protocol),
        (Nothing { lines: b"type=cdir;perm=fl; .\r\n", ..EMPTY }, false, ErrorKind::PermissionDenied),
        (Nothing { lines: b"type=cdir;perm=e; .", ..EMPTY }, false, ErrorKind::PermissionDenied),
        (EMPTY, true, ErrorKind::PermissionDenied),
        (Nothing { machine: false, end: "226 failed to open it\r\n", ..EMPTY }, false, ErrorKind::PermissionDenied),
        (Nothing { machine: false, end: "299 fine\r\n", ..EMPTY }, false, ErrorKind::Protocol),
        (Nothing { machine: false, again: "299 fine\r\n", ..EMPTY }, false, ErrorKind::Protocol),
        (Nothing { machine: false, again: "550 Permission denied\r\n", ..EMPTY }, false, ErrorKind::PermissionDenied),
        (Nothing { machine: false, again: "450 no\r\n", ..EMPTY }, false, ErrorKind::Busy),
        (Nothing { machine: false, ..EMPTY }, true, ErrorKind::PermissionDenied),
        (Nothing { machine: false, lines: b"total 0\r\n", ..EMPTY }, true, ErrorKind::PermissionDenied),
    ];
    for (number, (nothing, root_first, expected)) in cases.iter().enumerate() {
        let nothing: &'static Nothing = Box::leak(Box::new(Nothing { ..*nothing }));
        let error = listed(nothing, *root_first).await.map(|count| format!("{count} names in case {number}"));
        let error = error.unwrap_err();
        assert_eq!(error.kind(), *expected, "case {number}: {}", error.chain());
    }
}

#[tokio::test]
async fn an_empty_directory_is_listed_as_one() {
    let long = b"total 0\r\ndrwxr-xr-x 2 a b 4096 Jan 01 2020 .\r\ndrwxr-xr-x 2 a b 4096 Jan 01 2020 ..\r\n";
    let cases: &[(Nothing, bool)] = &[
        (EMPTY, false),
        (Nothing { end: "250 done\r\n", ..EMPTY }, false),
        (Nothing { lines: b"type=cdir;perm=flcdmpe; .\r\ntype=pdir;perm=f; ..\r\n", ..EMPTY }, true),
        (Nothing { lines: b"type=cdir; /d", ..EMPTY }, true),
        (Nothing { machine: false, ..EMPTY }, false),
        (Nothing { machine: false, lines: long, ..EMPTY }, true),
        (Nothing { machine: false, again: "450 No files found\r\n", ..EMPTY }, false),
        (Nothing { machine: false, again: "550 No such file or directory\r\n", ..EMPTY }, false),
    ];
    for (number, (nothing, root_first)) in cases.iter().enumerate() {
        let nothing: &'static Nothing = Box::leak(Box::new(Nothing { ..*nothing }));
        let count = listed(nothing, *root_first).await;
        assert_eq!(count.unwrap_or_else(|e| panic!("case {number}: {}", e.chain())), 0, "case {number}");
    }
}

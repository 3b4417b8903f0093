//! The transport against scripted peers that are slow, sloppy or hostile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Sftp;
use super::client::Client;
use super::request::Request;
use super::response::{Response, StatusCode};
use super::testing::{Scripted, TIMEOUT, answer, path, pattern, read_all, scripted, write_all};
use super::wire::{Attrs, Limits, Name, StatVfs};
use crate::error::{ErrorKind, Result};
use crate::transport::ssh::{Inbound, Outbound, Session};
use crate::transport::{Durability, Finish, Follow, ReadRange, Replace, Transport, WriteMode};

/// A peer with one file in memory, that answers as a good server would.
fn file_server(data: Vec<u8>) -> impl FnMut(u32, Request) -> Vec<Bytes> + Send {
    move |id, request| answer(id, good(&data, &request))
}

fn good(data: &[u8], request: &Request) -> Response {
    match *request {
        Request::Open(..) | Request::Opendir(_) => Response::Handle(Bytes::from_static(b"h")),
        Request::Read(_, offset, length) => {
            let start = (offset as usize).min(data.len());
            let end = (start + length as usize).min(data.len());
            if start == end {
                return Response::status(StatusCode::EOF, "");
            }
            Response::Data(Bytes::copy_from_slice(&data[start..end]))
        }
        Request::Fstat(_) | Request::Stat(_) | Request::Lstat(_) => {
            Response::Attrs(Attrs { size: Some(data.len() as u64), permissions: Some(0o100_644), ..Attrs::default() })
        }
        _ => Response::status(StatusCode::OK, ""),
    }
}

async fn read_from(sftp: &Sftp, range: ReadRange) -> Result<Vec<u8>> {
    read_all(sftp.open_read(&path("/f"), range).await?).await
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let data = pattern(3_000_000);
    let (served, mut held) = (data.clone(), Vec::new());
    let sftp = scripted(&[], move |id, request| {
        let is_kept = matches!(request, Request::Read(..)) && held.len() < 7;
        held.extend(answer(id, good(&served, &request)));
        if is_kept {
            return Vec::new();
        }
        held.reverse();
        let third = held.len() / 3;
        held.rotate_left(third);
        std::mem::take(&mut held)
    });
    let sftp = sftp.await;
    // The last few READs would be held for ever: a FAILURE-less peer answers STAT in between.
    let nudge = async {
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            sftp.stat(&path("/f"), Follow::Links).await.unwrap();
        }
    };
    let read = read_from(&sftp, ReadRange::between(0, 3_000_000));
    tokio::select! {
        () = nudge => unreachable!(),
        read = read => assert!(read.unwrap() == data),
    }
}

#[tokio::test]
async fn short_reads_are_completed() {
    let data = pattern(500_000);
    let served = data.clone();
    let mut count = 0;
    let sftp = scripted(&[], move |id, request| {
        let request = match request {
            Request::Read(handle, offset, length) => {
                count += 1;
                Request::Read(handle, offset, (length / (1 + count % 4)).max(1))
            }
            other => other,
        };
        answer(id, good(&served, &request))
    });
    let sftp = sftp.await;
    for range in [ReadRange::ALL, ReadRange::between(10, 499_990)] {
        let expected = &data[range.start as usize..range.end.unwrap_or(500_000) as usize];
        assert!(read_from(&sftp, range).await.unwrap() == expected);
    }
}

#[tokio::test]
async fn a_file_that_is_shorter_than_the_range_just_ends() {
    let sftp = scripted(&[], file_server(pattern(100_000))).await;
    assert!(read_from(&sftp, ReadRange::between(0, 1 << 40)).await.unwrap() == pattern(100_000));
}

#[tokio::test]
async fn nothing_is_asked_for_behind_the_range() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, mut serve) = (Arc::clone(&asked), file_server(pattern(300_000)));
    let sftp = scripted(&[], move |id, request| {
        if let Request::Read(_, offset, length) = &request {
            seen.lock().unwrap().push((*offset, *length));
        }
        serve(id, request)
    });
    let sftp = sftp.await;
    assert_eq!(read_from(&sftp, ReadRange::between(0, 70_000)).await.unwrap().len(), 70_000);
    assert_eq!(*asked.lock().unwrap(), [(0, 32_768), (32_768, 32_768), (65_536, 4464)]);
}

#[tokio::test]
async fn data_without_a_byte_for_ever_is_an_error() {
    let sftp = scripted(&[], |id, request| match request {
        Request::Read(..) => answer(id, Response::Data(Bytes::new())),
        other => answer(id, good(b"x", &other)),
    });
    let error = read_from(&sftp.await, ReadRange::ALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn one_failed_write_fails_the_file() {
    for failing in [0u64, 3, 19] {
        let mut writes = 0;
        let mut held = Vec::new();
        let sftp = scripted(&[], move |id, request| match request {
            Request::Write(..) => {
                let code = if writes == failing { StatusCode::FAILURE } else { StatusCode::OK };
                writes += 1;
                // Answered backwards: the failure is neither first nor last.
                held.insert(0, Response::status(code, "").encode(id).into_bytes());
                if writes < 20 { Vec::new() } else { std::mem::take(&mut held) }
            }
            other => answer(id, good(b"", &other)),
        });
        let sftp = sftp.await;
        let mut stream = sftp.open_write(&path("/f"), WriteMode::At(0)).await.unwrap();
        for _ in 0..20 {
            stream.write(Bytes::from(vec![1; 1000])).await.unwrap();
        }
        assert!(stream.acknowledged() <= failing * 1000);
        assert_eq!(stream.finish(Finish::CACHED).await.unwrap_err().kind(), ErrorKind::Other);
    }
}

#[tokio::test]
async fn a_failed_close_fails_the_file() {
    let sftp = scripted(&[], |id, request| match request {
        Request::Close(_) => answer(id, Response::status(StatusCode::FAILURE, "Disk quota exceeded")),
        other => answer(id, good(b"", &other)),
    });
    let stream = sftp.await.open_write(&path("/f"), WriteMode::At(0)).await.unwrap();
    let error = write_all(stream, &[b"x"], Finish::CACHED).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
}

#[tokio::test]
async fn a_full_disk_is_called_so() {
    for (free, flags, expected) in
        [(0, 0, ErrorKind::NoSpace), (9000, 0, ErrorKind::Other), (9000, 1, ErrorKind::ReadOnly)]
    {
        let sftp = scripted(&["statvfs@openssh.com"], move |id, request| match request {
            Request::Write(..) => answer(id, Response::status(StatusCode::FAILURE, "Failure")),
            Request::Extended(_) => {
                let disk = StatVfs { fragment_size: 4096, available_blocks: free, flags, ..StatVfs::default() };
                answer(id, Response::Extended(disk.encode()))
            }
            other => answer(id, good(b"", &other)),
        });
        let stream = sftp.await.open_write(&path("/f"), WriteMode::At(0)).await.unwrap();
        let error = write_all(stream, &[b"x"], Finish::CACHED).await.unwrap_err();
        assert_eq!(error.kind(), expected);
    }
}

#[tokio::test]
async fn writes_are_cut_at_the_servers_limit() {
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lengths);
    let sftp = scripted(&["limits@openssh.com"], move |id, request| match request {
        Request::Extended(_) => {
            let limits = Limits { packet: 2000, read: 1000, write: 700, handles: 5 };
            answer(id, Response::Extended(limits.encode()))
        }
        Request::Write(_, offset, data) => {
            seen.lock().unwrap().push((offset, data.len()));
            answer(id, Response::status(StatusCode::OK, ""))
        }
        other => answer(id, good(b"", &other)),
    });
    let sftp = sftp.await;
    let stream = sftp.open_write(&path("/f"), WriteMode::At(10)).await.unwrap();
    assert_eq!(sftp.capabilities().streams, 5);
    write_all(stream, &[&[1; 1500], &[2; 10]], Finish::CACHED).await.unwrap();
    assert_eq!(*lengths.lock().unwrap(), [(10, 700), (710, 700), (1410, 100), (1510, 10)]);
}

#[tokio::test]
async fn breaches_of_the_protocol_end_the_connection() {
    let breaches: [fn(u32) -> Bytes; 6] = [
        |id| Response::status(StatusCode::OK, "").encode(id + 1000).into_bytes(),
        |id| Response::Names(Vec::new()).encode(id).into_bytes(),
        |id| Response::status(StatusCode::OK, "").encode(id).into_bytes(),
        |_| Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 101]),
        |_| Bytes::from_static(&[0, 0, 0, 0]),
        |id| Request::Close(Bytes::new()).encode(id).into_bytes(),
    ];
    for (at, breach) in breaches.into_iter().enumerate() {
        let sftp = scripted(&[], move |id, request| match request {
            Request::Readlink(_) => Vec::new(),
            Request::Stat(_) => vec![breach(id)],
            other => answer(id, good(b"", &other)),
        });
        let sftp = sftp.await;
        let client = sftp.client().await.unwrap();
        let (bystander, (file, other)) = (path("/b"), (path("/f"), path("/g")));
        let (waiting, asking) = tokio::join!(sftp.read_link(&bystander), sftp.stat(&file, Follow::Links));
        assert_eq!(waiting.unwrap_err().kind(), ErrorKind::Protocol, "breach {at}");
        assert_eq!(asking.unwrap_err().kind(), ErrorKind::Protocol, "breach {at}");
        assert!(!client.is_alive());
        sftp.remove_file(&other).await.unwrap();
    }
}

#[tokio::test]
async fn more_data_than_asked_for_is_refused() {
    let sftp = scripted(&[], |id, request| match request {
        Request::Read(_, _, length) => answer(id, Response::Data(Bytes::from(vec![0; length as usize + 1]))),
        other => answer(id, good(b"x", &other)),
    });
    assert_eq!(read_from(&sftp.await, ReadRange::ALL).await.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn answers_may_be_split_anywhere() {
    let data = pattern(50_000);
    for size in [1, 2, 3, 5, 8, 13, 4095, 4097] {
        let served = data.clone();
        let sftp = scripted(&[], move |id, request| {
            let mut whole = good(&served, &request).encode(id).into_bytes();
            let mut pieces = Vec::new();
            while !whole.is_empty() {
                pieces.push(whole.split_to(size.min(whole.len())));
            }
            pieces
        });
        assert!(read_from(&sftp.await, ReadRange::ALL).await.unwrap() == data, "pieces of {size}");
    }
}

#[tokio::test]
async fn handles_that_nobody_took_are_closed() {
    let open = Arc::new(Mutex::new(HashMap::<Bytes, u32>::new()));
    let (seen, mut late, mut next) = (Arc::clone(&open), Vec::new(), 0u8);
    let sftp = scripted(&[], move |id, request| match request {
        Request::Open(..) => {
            next += 1;
            let handle = Bytes::copy_from_slice(&[next]);
            seen.lock().unwrap().insert(handle.clone(), id);
            late.extend(answer(id, Response::Handle(handle)));
            Vec::new()
        }
        Request::Close(handle) => {
            seen.lock().unwrap().remove(&handle).unwrap();
            answer(id, Response::status(StatusCode::OK, ""))
        }
        other => {
            let mut replies = std::mem::take(&mut late);
            replies.extend(answer(id, good(b"x", &other)));
            replies
        }
    });
    let (sftp, file) = (sftp.await, path("/f"));
    for _ in 0..100 {
        let opening = sftp.open_read(&file, ReadRange::ALL);
        assert!(tokio::time::timeout(Duration::from_millis(1), opening).await.is_err());
        sftp.stat(&file, Follow::Links).await.unwrap();
    }
    sftp.stat(&file, Follow::Links).await.unwrap();
    assert!(open.lock().unwrap().is_empty());
}

#[tokio::test]
async fn silence_is_no_life_but_a_trickle_is() {
    let timeout = Duration::from_millis(300);
    let silent = Scripted::new(&[], |_, _| Vec::new());
    let client = Client::start(silent, timeout).await.unwrap();
    let begin = std::time::Instant::now();
    let error = client.read_link(&path("/f")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!((timeout..4 * timeout).contains(&begin.elapsed()));
    assert!(!client.is_alive());

    // A byte now and then keeps the connection, though the answer takes longer than the timeout.
    let mut rest = Bytes::new();
    let trickling = Scripted::new(&[], move |id, request| {
        if let Request::Readlink(_) = request {
            let name = Name { name: "t".into(), long: Bytes::new(), attrs: Attrs::default() };
            rest = Response::Names(vec![name]).encode(id).into_bytes();
            return Vec::new();
        }
        vec![rest.split_to(rest.len().min(1))]
    });
    let client = Client::start(trickling, timeout).await.unwrap();
    let nudges = AtomicUsize::new(0);
    let nudge = async {
        loop {
            tokio::time::sleep(timeout / 5).await;
            nudges.fetch_add(1, Ordering::Relaxed);
            drop(client.request(Request::Remove("/x".into())));
        }
    };
    let file = path("/f");
    let begin = std::time::Instant::now();
    tokio::select! {
        () = nudge => unreachable!(),
        target = client.read_link(&file) => assert_eq!(target.unwrap(), b"t"),
    }
    assert!(begin.elapsed() > timeout);
}

#[tokio::test]
async fn text_before_the_protocol_gets_a_hint() {
    #[derive(Debug)]
    struct Chatty;
    struct Sink;
    #[async_trait]
    impl Session for Chatty {
        async fn subsystem(&self, _: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>> {
            inbound.data(b"Welcome to our server!\n");
            Ok(Box::new(Sink))
        }
        async fn exec(&self, _: &[u8]) -> Result<Vec<u8>> {
            Ok(Vec::new())
        }
        async fn close(&self) {}
    }
    #[async_trait]
    impl Outbound for Sink {
        async fn send(&self, _: Bytes) -> Result<()> {
            Ok(())
        }
    }
    let error = Client::start(Arc::new(Chatty), TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.hint().unwrap().contains("start-up file"));
}

#[tokio::test]
async fn links_work_with_servers_of_either_order() {
    for link_first in [false, true] {
        let links = Arc::new(Mutex::new(HashMap::<Bytes, Bytes>::new()));
        let held = Arc::clone(&links);
        let sftp = scripted(&[], move |id, request| {
            let mut links = held.lock().unwrap();
            let missing = || Response::status(StatusCode::NO_SUCH_FILE, "");
            let response = match request {
                Request::Symlink(first, second) => {
                    let (target, link) = if link_first { (second, first) } else { (first, second) };
                    links.insert(link, target);
                    Response::status(StatusCode::OK, "")
                }
                Request::Lstat(path) => links.get(&path).map_or_else(missing, |_| Response::Attrs(Attrs::default())),
                Request::Readlink(path) => links.get(&path).cloned().map_or_else(missing, |name| {
                    let name = Name { name, long: Bytes::new(), attrs: Attrs::default() };
                    Response::Names(vec![name])
                }),
                Request::Remove(path) => {
                    links.remove(&path);
                    Response::status(StatusCode::OK, "")
                }
                _ => missing(),
            };
            answer(id, response)
        });
        let sftp = sftp.await;
        sftp.symlink(b"target", &path("/link")).await.unwrap();
        sftp.symlink(b"target", &path("/second")).await.unwrap();
        let links = links.lock().unwrap();
        let expected = [("/link", "target"), ("/second", "target")].map(|(l, t)| (Bytes::from(l), Bytes::from(t)));
        assert_eq!(*links, HashMap::from(expected));
    }
}

#[tokio::test]
async fn a_server_without_posix_rename_gets_a_remove_first() {
    let files = Arc::new(Mutex::new(vec![Bytes::from("/a"), Bytes::from("/b")]));
    let held = Arc::clone(&files);
    let sftp = scripted(&[], move |id, request| {
        let mut files = held.lock().unwrap();
        let response = match request {
            Request::Rename(from, to) if !files.contains(&to) && files.contains(&from) => {
                files.retain(|file| *file != from);
                files.push(to);
                Response::status(StatusCode::OK, "")
            }
            Request::Rename(..) => Response::status(StatusCode::FAILURE, "Failure"),
            Request::Remove(path) => {
                files.retain(|file| *file != path);
                Response::status(StatusCode::OK, "")
            }
            Request::Lstat(path) if files.contains(&path) => Response::Attrs(Attrs::default()),
            _ => Response::status(StatusCode::NO_SUCH_FILE, ""),
        };
        answer(id, response)
    });
    let sftp = sftp.await;
    assert!(!sftp.capabilities().atomic_replace);
    let refused = sftp.rename(&path("/a"), &path("/b"), Replace::No, Durability::Cached).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(files.lock().unwrap().len(), 2);
    sftp.rename(&path("/a"), &path("/b"), Replace::Yes, Durability::Cached).await.unwrap();
    assert_eq!(*files.lock().unwrap(), [Bytes::from("/b")]);
}

/// A packet with this type and body, its length being right.
fn raw(kind: u8, body: &[u8]) -> Bytes {
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_be_bytes()[..], &[kind], body].concat().into()
}

const MOST: [u8; 4] = u32::MAX.to_be_bytes();

#[tokio::test]
async fn absurd_lengths_and_counts_end_the_connection() {
    let (status, handle, data, name, attrs) = (101, 102, 103, 104, 105);
    let extended = 0x8000_0000u32.to_be_bytes();
    let many = 0x00ff_ffffu32.to_be_bytes();
    let bodies: Vec<(u8, Vec<u8>)> = vec![
        (status, vec![]),
        (status, vec![0, 0]),
        (status, [&[0, 0, 0, 0][..], &MOST].concat()),
        (handle, MOST.into()),
        (handle, [&[0, 0, 1, 1][..], &[7; 257]].concat()),
        (data, MOST.into()),
        (data, vec![0, 0, 0, 9, 1]),
        (name, MOST.into()),
        (name, many.into()),
        (name, [&[0, 0, 0, 1][..], &MOST].concat()),
        (name, [&[0, 0, 0, 1, 0, 0, 0, 1, b'x'][..], &[0, 0, 0, 0], &extended, &MOST].concat()),
        (attrs, [&extended[..], &MOST].concat()),
        (attrs, [&extended[..], &[0, 0, 0, 1], &MOST].concat()),
        (attrs, vec![0, 0, 0, 15, 1]),
        (attrs, vec![]),
        (1, vec![]),
        (2, vec![0, 0, 0, 3]),
        (255, vec![0; 64]),
        (0, vec![]),
    ];
    for (kind, body) in bodies {
        let shown = format!("type {kind}, {body:?}");
        let sftp = scripted(&[], move |id, request| match request {
            Request::Stat(_) => {
                vec![if body.is_empty() { raw(kind, &[]) } else { raw(kind, &[&id.to_be_bytes()[..], &body].concat()) }]
            }
            other => answer(id, good(b"", &other)),
        });
        let error = sftp.await.stat(&path("/f"), Follow::Links).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{shown}: {}", error.chain());
    }
}

#[tokio::test]
async fn as_many_names_as_were_asked_for() {
    let name = |text: &'static str| Name { name: text.into(), long: Bytes::new(), attrs: Attrs::default() };
    for names in [vec![], vec![name("a"), name("b")]] {
        let sftp = scripted(&[], move |id, request| match request {
            Request::Readlink(_) => answer(id, Response::Names(names.clone())),
            other => answer(id, good(b"", &other)),
        });
        let error = sftp.await.read_link(&path("/l")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{}", error.chain());
    }
}

#[tokio::test]
async fn a_greeting_that_is_none_is_refused() {
    #[derive(Debug)]
    struct Greeting(Bytes);
    struct Sink;
    #[async_trait]
    impl Session for Greeting {
        async fn subsystem(&self, _: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>> {
            inbound.data(&self.0);
            Ok(Box::new(Sink))
        }
        async fn exec(&self, _: &[u8]) -> Result<Vec<u8>> {
            Ok(Vec::new())
        }
        async fn close(&self) {}
    }
    #[async_trait]
    impl Outbound for Sink {
        async fn send(&self, _: Bytes) -> Result<()> {
            Ok(())
        }
    }
    for (greeting, expected) in [
        (raw(2, &[0, 0, 0]), ErrorKind::Protocol),
        (raw(2, &[0, 0, 0, 2]), ErrorKind::Unsupported),
        (raw(2, &[&[0, 0, 0, 3][..], &MOST].concat()), ErrorKind::Protocol),
        (raw(2, &[0, 0, 0, 3, 0, 0, 0, 1, b'x']), ErrorKind::Protocol),
        (raw(101, &[0; 12]), ErrorKind::Protocol),
        (Bytes::from_static(&[0, 0, 0, 0]), ErrorKind::Protocol),
        (Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 2]), ErrorKind::Protocol),
    ] {
        let shown = format!("{greeting:?}");
        let error = Client::start(Arc::new(Greeting(greeting)), TIMEOUT).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{shown}: {}", error.chain());
    }
}

/// Each phase of a transfer stalls into an error that names it.
#[tokio::test]
async fn the_error_of_a_silence_names_what_was_awaited() {
    let timeout = Duration::from_millis(200);
    for (silent_at, expected) in [
        ("OPEN", "answer to OPEN"),
        ("first READ", "answer to READ"),
        ("READ", "answer to READ"),
        ("WRITE", "answer to WRITE"),
        ("CLOSE", "answer to CLOSE"),
        ("STAT", "answer to STAT"),
        ("READDIR", "answer to READDIR"),
        ("REMOVE", "answer to REMOVE"),
    ] {
        let mut reads = 0;
        let session = Scripted::new(&[], move |id, request| {
            reads += usize::from(matches!(request, Request::Read(..)));
            let is_silent = match silent_at {
                "first READ" => matches!(request, Request::Read(..)),
                "READ" => matches!(request, Request::Read(..)) && reads > 3,
                name => request.name() == name,
            };
            if is_silent { Vec::new() } else { answer(id, good(&pattern(1 << 20), &request)) }
        });
        let dial = super::testing::dial(move || Arc::clone(&session) as Arc<dyn Session>);
        let sftp = Sftp::start(dial, timeout, 1, 1).await.unwrap();
        let work = async {
            let file = path("/f");
            match silent_at {
                "WRITE" | "CLOSE" => {
                    let stream = sftp.open_write(&file, WriteMode::At(0)).await?;
                    write_all(stream, &[b"x"], Finish::CACHED).await.map(drop)
                }
                "STAT" => sftp.stat(&file, Follow::Links).await.map(drop),
                "READDIR" => {
                    let mut listing = sftp.list(&file).await?;
                    futures_util::StreamExt::next(&mut listing).await.unwrap().map(drop)
                }
                "REMOVE" => sftp.remove_file(&file).await,
                _ => read_all(sftp.open_read(&file, ReadRange::ALL).await?).await.map(drop),
            }
        };
        let error = tokio::time::timeout(TIMEOUT, work).await.expect("it hangs").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{silent_at}: {}", error.chain());
        assert!(error.chain().contains(expected), "{silent_at}: {}", error.chain());
        assert!(error.chain().contains("for 0.2 s"), "{silent_at}: {}", error.chain());
    }
}

#[tokio::test]
async fn what_the_server_says_of_a_failure_is_cut_and_harmless() {
    let said = format!("no \x1b[2J\u{202e}{}", "way ".repeat(50_000));
    let sftp = scripted(&[], move |id, request| match request {
        Request::Remove(_) => answer(id, Response::status(StatusCode::PERMISSION_DENIED, said.clone())),
        other => answer(id, good(b"", &other)),
    });
    let error = sftp.await.remove_file(&path("/f")).await.unwrap_err();
    let shown = error.chain();
    assert!(shown.contains("no \\u{1b}[2J") && shown.len() < 2000, "{} bytes", shown.len());
    assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown:?}");
}

//! The transport against OpenSSH's `sftp-server`.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;

use super::Sftp;
use super::testing::{Dir, Server, TIMEOUT, openssh, pattern, read_all, write_all};
use super::wire::Attrs;
use crate::error::{ErrorKind, Result};
use crate::transport::{
    Algorithm, Durability, FileKind, Finish, Follow, ReadRange, Replace, SetMetadata, Transport, WriteMode,
};

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_come_back_as_they_went() {
    let (dir, sftp) = (Dir::new(), openssh().await);
    let block = 255 * 1024;
    for size in [0, 1, block - 1, block, block + 1, 3 * block, 20_000_000] {
        let (data, path) = (pattern(size), dir.path("file"));
        let stream = sftp.open_write(&path, WriteMode::CREATE).await.unwrap();
        let (first, second) = data.split_at(size / 3);
        write_all(stream, &[first, second], Finish::SYNCED).await.unwrap();
        assert!(dir.read("file") == data, "{size} bytes written");
        for end in [None, Some(size as u64), Some(size as u64 + 10)] {
            let stream = sftp.open_read(&path, ReadRange { start: 0, end }).await.unwrap();
            assert!(read_all(stream).await.unwrap() == data, "{size} bytes read to {end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_exact() {
    let (dir, sftp) = (Dir::new(), openssh().await);
    let data = pattern(1_000_000);
    let path = dir.file("file", &data);
    for (start, end) in [(0, 1), (1, 1), (999_999, 1_000_000), (123_456, 876_543), (1_000_000, 1_000_001)] {
        let stream = sftp.open_read(&path, ReadRange::between(start, end)).await.unwrap();
        let expected = &data[start as usize..data.len().min(end as usize)];
        assert!(read_all(stream).await.unwrap() == expected, "{start}..{end}");
    }
    let behind = sftp.open_read(&path, ReadRange::from(2_000_000)).await.unwrap();
    assert_eq!(read_all(behind).await.unwrap(), b"");
    let stream = sftp.open_write(&path, WriteMode::At(500_000)).await.unwrap();
    write_all(stream, &[b"new"], Finish::CACHED).await.unwrap();
    let mut expected = data;
    expected[500_000..500_003].copy_from_slice(b"new");
    assert!(dir.read("file") == expected);
    let missing = sftp.open_write(&dir.path("missing"), WriteMode::At(0)).await.err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_files_at_once() {
    let (dir, sftp) = (Dir::new(), Arc::new(openssh().await));
    let tasks: Vec<_> = (0..400)
        .map(|n| {
            let (sftp, path) = (Arc::clone(&sftp), dir.path(format!("{n}")));
            tokio::spawn(async move {
                let data = pattern(1000 + n * 97);
                let stream = sftp.open_write(&path, WriteMode::CREATE).await?;
                write_all(stream, &[&data], Finish::CACHED).await?;
                let back = read_all(sftp.open_read(&path, ReadRange::ALL).await?).await?;
                assert!(back == data);
                Ok::<_, crate::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_of_dropped_streams_come_back() {
    let (dir, sftp) = (Dir::new(), openssh().await);
    let path = dir.file("file", &pattern(10_000_000));
    for _ in 0..600 {
        let mut stream = sftp.open_read(&path, ReadRange::ALL).await.unwrap();
        stream.read().await.unwrap();
        drop(stream);
        drop(tokio::time::timeout(Duration::ZERO, sftp.open_read(&path, ReadRange::ALL)).await);
    }
    assert_eq!(read_all(sftp.open_read(&path, ReadRange::ALL).await.unwrap()).await.unwrap().len(), 10_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_names_as_they_are() {
    let (dir, sftp) = (Dir::new(), openssh().await);
    let names: Vec<Vec<u8>> = [&b"a b"[..], b"'\"[*]", b"new\nline", b"-rf", b"\xff\xfe", b".hidden"]
        .into_iter()
        .map(<[u8]>::to_vec)
        .chain((0..2000).map(|n| format!("many{n}").into_bytes()))
        .collect();
    for name in &names {
        let stream = sftp.open_write(&dir.path(name), WriteMode::CREATE).await.unwrap();
        write_all(stream, &[b"x"], Finish::CACHED).await.unwrap();
    }
    let entries: Vec<_> = sftp.list(&dir.path("")).await.unwrap().map(Result::unwrap).collect().await;
    let mut found: Vec<_> = entries.iter().map(|entry| entry.name.clone()).collect();
    let mut names = names;
    found.sort();
    names.sort();
    assert!(found == names);
    assert!(entries.iter().all(|e| e.kind == FileKind::File && e.size == Some(1) && e.mtime.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_was_wrong() {
    let (dir, sftp) = (Dir::new(), openssh().await);
    let (file, missing) = (dir.file("file", b"x"), dir.path("missing"));
    let folder = dir.path("folder");
    sftp.create_dir(&folder).await.unwrap();
    dir.file("folder/inside", b"x");
    let link = dir.path("link");
    sftp.symlink(b"file", &link).await.unwrap();

    let kind = |result: Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(sftp.create_dir(&folder).await), ErrorKind::AlreadyExists);
    assert_eq!(kind(sftp.create_dir(&file).await), ErrorKind::AlreadyExists);
    assert_eq!(kind(sftp.create_dir(&missing.join("x").unwrap()).await), ErrorKind::NotFound);
    assert_eq!(kind(sftp.remove_dir(&folder).await), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(sftp.remove_dir(&file).await), ErrorKind::NotADirectory);
    assert_eq!(kind(sftp.remove_dir(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(sftp.remove_file(&folder).await), ErrorKind::IsADirectory);
    assert_eq!(kind(sftp.remove_file(&missing).await), ErrorKind::NotFound);
    assert_eq!(kind(sftp.symlink(b"t", &file).await), ErrorKind::AlreadyExists);
    assert_eq!(kind(sftp.list(&file).await.map(drop)), ErrorKind::NotADirectory);
    assert_eq!(kind(sftp.list(&missing).await.map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(sftp.open_write(&folder, WriteMode::CREATE).await.map(drop)), ErrorKind::IsADirectory);
    assert_eq!(kind(sftp.open_write(&link, WriteMode::CREATE).await.map(drop)), ErrorKind::AlreadyExists);
    assert_eq!(
        kind(sftp.open_write(&missing.join("x").unwrap(), WriteMode::CREATE).await.map(drop)),
        ErrorKind::NotFound
    );
    assert_eq!(kind(sftp.open_read(&missing, ReadRange::ALL).await.map(drop)), ErrorKind::NotFound);
    let read_folder = async { read_all(sftp.open_read(&folder, ReadRange::ALL).await?).await };
    assert_eq!(kind(read_folder.await.map(drop)), ErrorKind::IsADirectory);
    let error = sftp.stat(&missing, Follow::Links).await.unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(&*missing.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_replace_only_when_asked() {
    let (dir, sftp) = (Dir::new(), openssh().await);
    let (a, b) = (dir.file("a", b"a"), dir.file("b", b"b"));
    let refused = sftp.rename(&a, &b, Replace::No, Durability::Cached).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(dir.read("b"), b"b");
    assert!(sftp.capabilities().atomic_replace && sftp.capabilities().fsync);
    sftp.rename(&a, &b, Replace::Yes, Durability::Synced).await.unwrap();
    assert_eq!(dir.read("b"), b"a");
    sftp.rename(&b, &dir.path("c"), Replace::No, Durability::Cached).await.unwrap();
    assert_eq!(dir.read("c"), b"a");
    let missing = sftp.rename(&b, &a, Replace::Yes, Durability::Cached).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_links_and_home() {
    let (dir, sftp) = (Dir::new(), openssh().await);
    let file = dir.file("file", b"12345");
    let mtime = UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    sftp.set_metadata(&file, SetMetadata { mtime: Some(mtime), mode: Some(0o640) }).await.unwrap();
    let entry = sftp.stat(&file, Follow::Nothing).await.unwrap();
    assert_eq!((entry.name.as_slice(), entry.kind, entry.size), (&b"file"[..], FileKind::File, Some(5)));
    assert_eq!((entry.mtime.unwrap().unix(), entry.mode), (1_234_567_890, Some(0o640)));
    let too_early = SetMetadata { mtime: Some(UNIX_EPOCH - Duration::from_secs(1)), mode: None };
    assert_eq!(sftp.set_metadata(&file, too_early).await.unwrap_err().kind(), ErrorKind::Unsupported);

    let link = dir.path("link");
    sftp.symlink(b"./file", &link).await.unwrap();
    sftp.symlink(b"no\xffwhere", &dir.path("dangling")).await.unwrap();
    assert_eq!(sftp.read_link(&link).await.unwrap(), b"./file");
    let entry = sftp.stat(&link, Follow::Nothing).await.unwrap();
    assert_eq!((entry.kind, entry.target.as_deref()), (FileKind::Symlink, Some(&b"./file"[..])));
    assert_eq!(sftp.stat(&link, Follow::Links).await.unwrap().size, Some(5));
    assert_eq!(sftp.stat(&dir.path("dangling"), Follow::Links).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(sftp.read_link(&dir.path("dangling")).await.unwrap(), b"no\xffwhere");
    assert_eq!(sftp.home().await.unwrap().to_string(), std::env::current_dir().unwrap().to_string_lossy());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_made_anew_has_its_own_mode_and_no_second_name() {
    let (dir, sftp) = (Dir::new(), openssh().await);
    let file = dir.file("file", b"old");
    std::fs::hard_link(dir.0.path().join("file"), dir.0.path().join("second")).unwrap();
    let stream = sftp.open_write(&file, WriteMode::Create { mode: Some(0o600), length: None }).await.unwrap();
    write_all(stream, &[b"new"], Finish::CACHED).await.unwrap();
    assert_eq!((dir.read("file"), dir.read("second")), (b"new".to_vec(), b"old".to_vec()));
    assert_eq!(sftp.stat(&file, Follow::Links).await.unwrap().mode, Some(0o600));
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_work() {
    let (dir, sftp) = (Dir::new(), openssh().await);
    let client = sftp.client().await.unwrap();
    let data = pattern(3_000_000);
    let file = dir.file("file", &data);
    assert!(client.statvfs(&file).await.unwrap().blocks > 0);
    client.hardlink(&file, &dir.path("hard")).await.unwrap();
    assert!(dir.read("hard") == data);
    client.copy(&file, &dir.path("copy")).await.unwrap();
    assert!(dir.read("copy") == data);
    sftp.symlink(b"file", &dir.path("link")).await.unwrap();
    let attrs = Attrs { times: Some((1, 2)), ..Attrs::default() };
    client.lsetstat(&dir.path("link"), attrs).await.unwrap();
    assert_eq!(sftp.stat(&dir.path("link"), Follow::Nothing).await.unwrap().mtime.unwrap().unix(), 2);
    assert_ne!(sftp.stat(&file, Follow::Nothing).await.unwrap().mtime.unwrap().unix(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_come_from_a_command() {
    use sha2::Digest;
    let (dir, sftp) = (Dir::new(), openssh().await);
    let data = pattern(100_000);
    let file = dir.file("it's $HOME\n", &data);
    assert_eq!(sftp.capabilities().digests, [Algorithm::Sha256]);
    let digest = sftp.digest(&file, Algorithm::Sha256, ReadRange::ALL).await.unwrap();
    assert_eq!(digest, sha2::Sha256::digest(&data)[..]);
    let part = sftp.digest(&file, Algorithm::Sha256, ReadRange::from(1)).await.unwrap_err();
    assert_eq!(part.kind(), ErrorKind::Unsupported);
    let missing = sftp.digest(&dir.path("missing"), Algorithm::Sha256, ReadRange::ALL).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_fails_its_streams_and_is_replaced() {
    let (dir, server) = (Dir::new(), Server::lets_in(9));
    let sftp = server.connect(1).await;
    let file = dir.file("file", &pattern(30_000_000));
    let mut stream = sftp.open_read(&file, ReadRange::ALL).await.unwrap();
    stream.read().await.unwrap();
    let mut writer = sftp.open_write(&dir.path("new"), WriteMode::CREATE).await.unwrap();
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    server.kill(0);
    assert_eq!(read_all(stream).await.unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(writer.finish(Finish::CACHED).await.unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(sftp.stat(&file, Follow::Links).await.unwrap().size, Some(30_000_000));
    assert_eq!(server.connections(), 2);
    sftp.close().await.unwrap();
    assert!(sftp.stat(&file, Follow::Links).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_spread_over_as_many_connections_as_are_wanted() {
    let (dir, server) = (Dir::new(), Server::lets_in(9));
    let sftp = server.connect(1).await;
    let data = pattern(30_000_000);
    let file = dir.file("file", &data);
    assert_eq!(sftp.set_connections(4).await, 4);
    let mut streams = Vec::new();
    for start in [0, 10_000_000, 20_000_000, 30_000_000 - 7] {
        streams.push(sftp.open_read(&file, ReadRange::from(start)).await.unwrap());
    }
    // One that dies takes its own stream with it and no other.
    server.kill(2);
    let mut lost = 0;
    for (stream, start) in streams.into_iter().zip([0, 10_000_000, 20_000_000, 30_000_000 - 7]) {
        match read_all(stream).await {
            Ok(read) => assert!(read == data[start..]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionLost);
                lost += 1;
            }
        }
    }
    assert!(lost <= 1, "{lost} of four streams were lost with one connection");
    // Whoever wants them again gets another in its place.
    assert_eq!(sftp.set_connections(4).await, 4);
    assert_eq!(server.connections(), 5);
    assert_eq!(sftp.set_connections(99).await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lets_few_in_fails_no_file() {
    let (dir, server) = (Dir::new(), Server::lets_in(2));
    let sftp = server.connect(1).await;
    let data = pattern(5_000_000);
    let file = dir.file("file", &data);
    assert_eq!(sftp.set_connections(6).await, 2);
    let asked = server.connections();
    assert_eq!(sftp.set_connections(6).await, 2);
    assert_eq!(server.connections(), asked, "the server was asked again at once");
    let reads = (0..20).map(|_| async { read_all(sftp.open_read(&file, ReadRange::ALL).await?).await });
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap() == data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_not_wanted_end_with_their_streams() {
    let (dir, server) = (Dir::new(), Server::lets_in(9));
    let sftp = server.connect(3).await;
    assert_eq!(sftp.set_connections(3).await, 3);
    let file = dir.file("file", &pattern(5_000_000));
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(sftp.open_read(&file, ReadRange::ALL).await.unwrap());
    }
    assert_eq!(sftp.set_connections(1).await, 1);
    assert_eq!(server.running(), 3);
    // Wanted again while it is still there, it is used again.
    assert_eq!(sftp.set_connections(2).await, 2);
    assert_eq!(server.connections(), 3);
    assert_eq!(sftp.set_connections(1).await, 1);
    for stream in streams {
        read_all(stream).await.unwrap();
    }
    server.until_running(1).await;
    assert_eq!(sftp.stat(&file, Follow::Links).await.unwrap().size, Some(5_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_connection_is_not_held_up_by_others() {
    let server = Server::lets_in(1);
    let sftp = server.connect(4).await;
    assert!(sftp.home().await.is_ok());
    assert_eq!(sftp.set_connections(4).await, 1);
    let none = Server::lets_in(0);
    let error = Sftp::start(none.dial(), TIMEOUT, 8, 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooManyConnections);
}

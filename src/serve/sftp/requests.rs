//! What each request does, on a blocking thread.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};

use super::attrs::{attrs_of, failed, ok, times_of};
use super::handles::{Handles, Open, OpenFile};
use crate::serve::digest;
use crate::serve::limit::Limit;
use crate::serve::long_name::long_name;
use crate::serve::root::{Item, Listing, Root, WriteFlags, set_file_mode, set_file_times};
use crate::transport::sftp::wire::{
    Attrs, CheckFile, CheckedFile, CopyData, Name, OpenFlags, Response, StatVfs, StatusCode,
};
use crate::transport::{Algorithm, RemotePath, Replace};

/// Most bytes of a READ's answer.
pub(super) const MAX_READ: u32 = 256 * 1024;
/// Most bytes of an answer of names, nearly.
pub(super) const MAX_NAMES: usize = 64 * 1024;
/// Most bytes of digests in an answer.
const MAX_DIGESTS: u64 = 128 * 1024;
const COPY_CHUNK: usize = 1 << 20;

/// Turns the result of a request that answers with a status into that status.
pub(super) fn status(result: io::Result<()>) -> Response {
    result.map_or_else(|error| failed(&error), |()| ok())
}

pub(super) fn open(root: &Root, handles: &Handles, path: &RemotePath, flags: OpenFlags, attrs: Attrs) -> Response {
    let write = [OpenFlags::WRITE, OpenFlags::APPEND, OpenFlags::CREATE, OpenFlags::TRUNCATE];
    let file = if write.into_iter().any(|flag| flags.contains(flag)) {
        let flags = WriteFlags {
            read: flags.contains(OpenFlags::READ),
            append: flags.contains(OpenFlags::APPEND),
            create: flags.contains(OpenFlags::CREATE),
            exclusive: flags.contains(OpenFlags::EXCLUSIVE),
            truncate: flags.contains(OpenFlags::TRUNCATE),
            mode: attrs.permissions,
        };
        root.open_write(path, flags).map(|file| OpenFile { file, append: flags.append, writable: true })
    } else {
        root.open_read(path).map(|file| OpenFile { file, append: false, writable: false })
    };
    file.and_then(|file| handles.add(Open::File(file))).map_or_else(|e| failed(&e), Response::Handle)
}

pub(super) fn open_dir(root: &Root, handles: &Handles, path: &RemotePath) -> Response {
    let listing = root.list(path).and_then(|listing| handles.add(Open::directory(listing)));
    listing.map_or_else(|e| failed(&e), Response::Handle)
}

/// Reads into a packet that is ready to be sent, so that the bytes are copied once only.
pub(super) fn read(file: &OpenFile, id: u32, offset: u64, length: u32) -> io::Result<Bytes> {
    const HEAD: usize = 13;
    let length = length.min(MAX_READ) as usize;
    let mut packet = Vec::with_capacity(HEAD + length);
    packet.resize(HEAD, 0);
    while packet.len() < HEAD + length {
        let at = offset.saturating_add((packet.len() - HEAD) as u64);
        let room = rustix::buffer::spare_capacity(&mut packet);
        match rustix::io::pread(&file.file, room, at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    packet.truncate(HEAD + length);
    let read = packet.len() - HEAD;
    if read == 0 && length > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // The DATA packet of `wire`, written in place: length, type, id, length of the data.
    let mut head = &mut packet[..HEAD];
    head.put_u32((read + HEAD - 4) as u32);
    head.put_u8(103);
    head.put_u32(id);
    head.put_u32(read as u32);
    Ok(packet.into())
}

pub(super) fn write(limit: &Limit, file: &OpenFile, offset: u64, data: &[u8]) -> io::Result<()> {
    if !file.writable {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    if file.append { limit.append(&file.file, data) } else { limit.write_at(&file.file, offset, data) }
}

pub(super) fn read_dir(listing: &mut Listing, left_over: &mut Option<Item>) -> io::Result<Response> {
    let now = SystemTime::now();
    let (mut names, mut size) = (Vec::new(), 0);
    while let Some(item) = left_over.take().map_or_else(|| listing.next(), |item| Ok(Some(item)))? {
        let long = long_name(&item.name, &item.metadata, now);
        let cost = item.name.len() + long.len() + 48;
        if size + cost > MAX_NAMES && !names.is_empty() {
            *left_over = Some(item);
            break;
        }
        size += cost;
        names.push(Name { name: item.name.into(), long: long.into(), attrs: attrs_of(&item.metadata) });
    }
    if names.is_empty() {
        return Ok(Response::status(StatusCode::EOF, "End of directory"));
    }
    Ok(Response::Names(names))
}

pub(super) fn set_path(root: &Root, path: &RemotePath, attrs: &Attrs) -> io::Result<()> {
    root.writable()?;
    check_owner(attrs, || root.metadata(path).map(|m| attrs_of(&m)))?;
    if let Some(size) = attrs.size {
        root.set_size(path, size)?;
    }
    if let Some(mode) = attrs.permissions {
        root.set_mode(path, mode)?;
    }
    match times_of(attrs) {
        Some((accessed, modified)) => root.set_times(path, Some(accessed), Some(modified)),
        None => Ok(()),
    }
}

/// Sets attributes of a link itself; a link has no size or mode to set.
pub(super) fn set_link(root: &Root, path: &RemotePath, attrs: &Attrs) -> io::Result<()> {
    if !root.link_metadata(path)?.is_symlink() {
        return set_path(root, path, attrs);
    }
    check_owner(attrs, || root.link_metadata(path).map(|m| attrs_of(&m)))?;
    match times_of(attrs) {
        Some((accessed, modified)) => root.set_link_times(path, accessed, modified),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

pub(super) fn set_open(root: &Root, file: &File, attrs: &Attrs) -> io::Result<()> {
    root.writable()?;
    check_owner(attrs, || stat_open(file))?;
    if let Some(size) = attrs.size {
        root.limit().set_len(file, size)?;
    }
    if let Some(mode) = attrs.permissions {
        set_file_mode(file, mode)?;
    }
    match times_of(attrs) {
        Some((accessed, modified)) => set_file_times(file, Some(accessed), Some(modified)),
        None => Ok(()),
    }
}

pub(super) fn stat_open(file: &File) -> io::Result<Attrs> {
    Ok(attrs_of(&cap_std::fs::Metadata::from_file(file)?))
}

/// Owners stay as they are; to set them to that is no error.
fn check_owner(attrs: &Attrs, now: impl FnOnce() -> io::Result<Attrs>) -> io::Result<()> {
    match attrs.owner {
        Some(_) if now()?.owner != attrs.owner => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "owners can't be changed"))
        }
        _ => Ok(()),
    }
}

pub(super) fn one_name(name: impl Into<Bytes>) -> Response {
    let name = name.into();
    Response::Names(vec![Name { name: name.clone(), long: name, attrs: Attrs::default() }])
}

pub(super) fn rename(root: &Root, from: &RemotePath, to: &RemotePath, replace: Replace) -> Response {
    status(root.rename(from, to, replace))
}

pub(super) fn file_system(stat: &rustix::fs::StatVfs) -> Response {
    let answer = StatVfs {
        block_size: stat.f_bsize,
        fragment_size: stat.f_frsize,
        blocks: stat.f_blocks,
        free_blocks: stat.f_bfree,
        available_blocks: stat.f_bavail,
        files: stat.f_files,
        free_files: stat.f_ffree,
        available_files: stat.f_favail,
        id: stat.f_fsid,
        flags: u64::from(stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
            | u64::from(stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID)) << 1,
        longest_name: stat.f_namemax,
    };
    Response::Extended(answer.encode())
}

pub(super) fn copy_data(limit: &Limit, from: &OpenFile, to: &OpenFile, copy: &CopyData, same: bool) -> io::Result<()> {
    if !to.writable {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let end = match copy.length {
        0 => u64::MAX,
        length => copy.from_offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?,
    };
    // What is written must not be read again.
    if same && (copy.length == 0 || (copy.to_offset < end && copy.from_offset < copy.to_offset + copy.length)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut buffer = vec![0; COPY_CHUNK];
    let (mut at, mut to_at) = (copy.from_offset, copy.to_offset);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(COPY_CHUNK).min(COPY_CHUNK);
        let read = from.file.read_at(&mut buffer[..want], at)?;
        if read == 0 {
            break;
        }
        write(limit, to, to_at, &buffer[..read])?;
        at += read as u64;
        to_at += read as u64;
    }
    Ok(())
}

/// draft-ietf-secsh-filexfer-extensions-00, section 3: one digest, or one of each block.
pub(super) fn check_file(file: &File, check: &CheckFile) -> io::Result<Response> {
    let known = |name: &[u8]| {
        let plain = |text: &[u8]| text.iter().filter(|b| **b != b'-').map(u8::to_ascii_lowercase).collect::<Vec<_>>();
        digest::ALGORITHMS.into_iter().find(|a| plain(a.name().as_bytes()) == plain(name))
    };
    let wanted = check.algorithms.split(|&b| b == b',').find_map(|name| Some((name.to_vec(), known(name)?)));
    let (name, algorithm): (_, Algorithm) = wanted.ok_or(io::ErrorKind::Unsupported)?;
    let size = file.metadata()?.len();
    let end = match check.length {
        0 => size,
        length => check.start.saturating_add(length).min(size),
    };
    let length = end.saturating_sub(check.start);
    let block = match check.block {
        0 => length.max(1),
        block @ 256.. => block.into(),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    if length.div_ceil(block) > MAX_DIGESTS / 64 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut digests = BytesMut::new();
    let mut at = check.start;
    loop {
        let stop = at.saturating_add(block).min(end);
        digests.extend_from_slice(&digest::of_file(file, algorithm, at, stop)?);
        at = stop;
        if at >= end {
            break;
        }
    }
    Ok(Response::Extended(CheckedFile { algorithm: name.into(), digests: digests.freeze() }.encode()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::sftp::wire::{Frames, MAX_PACKET};

    fn file(content: &[u8]) -> OpenFile {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        OpenFile { file, append: false, writable: true }
    }

    #[test]
    fn the_packet_written_in_place_is_that_of_the_codec() {
        let content = vec![7; 5000];
        let file = file(&content);
        let packet = read(&file, 9, 1000, 300_000).unwrap();
        let codec = Response::Data(Bytes::from(content[1000..].to_vec())).encode(9).into_bytes();
        assert_eq!(packet, codec);
        let packet = Frames::new(MAX_PACKET).next(&mut &packet[..]).unwrap().unwrap();
        assert_eq!(Response::decode(packet).unwrap().0, 9);
        assert_eq!(read(&file, 9, 5000, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(&file, 9, u64::MAX, 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn digests_of_blocks_and_of_all() {
        let file = file(&[1; 1000]);
        let mut check = CheckFile {
            file: Bytes::new(),
            algorithms: Bytes::from_static(b"whirlpool,sha256,md5"),
            start: 0,
            length: 0,
            block: 256,
        };
        let digests = |check: &CheckFile| match check_file(&file.file, check).unwrap() {
            Response::Extended(data) => CheckedFile::decode(data).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(digests(&check).digests.len(), 4 * 32);
        assert_eq!(digests(&check).algorithm, "sha256");
        check.block = 0;
        let all = digest::of_file(&file.file, Algorithm::Sha256, 0, 1000).unwrap();
        assert_eq!(digests(&check).digests, all);
        check.block = 1;
        assert!(check_file(&file.file, &check).is_err());
        check.algorithms = Bytes::from_static(b"whirlpool");
        assert!(check_file(&file.file, &check).is_err());
    }

    #[test]
    fn a_copy_within_one_file_must_not_overlap() {
        let file = file(b"0123456789");
        let copy = |from_offset, length, to_offset| CopyData {
            from: Bytes::new(),
            from_offset,
            length,
            to: Bytes::new(),
            to_offset,
        };
        copy_data(&Limit::default(), &file, &file, &copy(0, 3, 7), true).unwrap();
        assert_eq!(&read(&file, 0, 0, 20).unwrap()[13..], b"0123456012");
        for bad in [copy(0, 0, 20), copy(0, 5, 4), copy(4, 5, 0), copy(u64::MAX, 2, 0)] {
            assert!(copy_data(&Limit::default(), &file, &file, &bad, true).is_err());
        }
    }
}

//! The fields that packets are made of.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};

/// Pieces shorter than this are copied together, so that a peer who sends single bytes can't make us hold each of them
/// in a buffer of its own.
const SMALL_PIECE: usize = 4096;

/// Bytes in pieces, in order, as they arrived.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Payload {
    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes at the end; without copying unless they are few.
    pub fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if piece.len() < SMALL_PIECE {
            self.tail.extend_from_slice(&piece);
            if self.tail.len() >= SMALL_PIECE {
                self.flush();
            }
            return;
        }
        self.flush();
        self.pieces.push_back(piece);
    }

    /// Returns the pieces, none of them empty.
    pub fn into_pieces(mut self) -> VecDeque<Bytes> {
        self.flush();
        self.pieces
    }

    /// Returns all of it in one piece; copies only if there are several.
    pub fn into_bytes(mut self) -> Bytes {
        self.flush();
        if self.pieces.len() <= 1 {
            return self.pieces.pop_front().unwrap_or_default();
        }
        let mut all = BytesMut::with_capacity(self.len);
        all.extend(self.pieces);
        all.freeze()
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    fn truncate(&mut self, len: usize) {
        while self.len > len {
            let Some(last) = self.pieces.back_mut() else { return };
            let keep = last.len().saturating_sub(self.len - len);
            self.len -= last.len() - keep;
            match keep {
                0 => drop(self.pieces.pop_back()),
                _ => last.truncate(keep),
            }
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        let len = bytes.len();
        Self { pieces: VecDeque::from_iter((len > 0).then_some(bytes)), tail: BytesMut::new(), len }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.clone().into_bytes() == other.clone().into_bytes()
    }
}

impl Eq for Payload {}

/// A file's attributes; `None` is not on the wire. Extended pairs are skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Size in bytes.
    pub size: Option<u64>,
    /// User and group number.
    pub owner: Option<(u32, u32)>,
    /// `st_mode`: the file's type and permission bits.
    pub permissions: Option<u32>,
    /// Access and modification time, seconds since 1970.
    pub times: Option<(u32, u32)>,
}

impl Attrs {
    pub(super) const SIZE: u32 = 1;
    const OWNER: u32 = 2;
    const PERMISSIONS: u32 = 4;
    const TIMES: u32 = 8;
    pub(super) const EXTENDED: u32 = 0x8000_0000;

    pub(super) fn put(&self, out: &mut BytesMut) {
        let flag = |present: bool, flag: u32| if present { flag } else { 0 };
        out.put_u32(
            flag(self.size.is_some(), Self::SIZE)
                | flag(self.owner.is_some(), Self::OWNER)
                | flag(self.permissions.is_some(), Self::PERMISSIONS)
                | flag(self.times.is_some(), Self::TIMES),
        );
        if let Some(size) = self.size {
            out.put_u64(size);
        }
        if let Some((user, group)) = self.owner {
            out.put_u32(user);
            out.put_u32(group);
        }
        if let Some(permissions) = self.permissions {
            out.put_u32(permissions);
        }
        if let Some((accessed, modified)) = self.times {
            out.put_u32(accessed);
            out.put_u32(modified);
        }
    }
}

/// Reads a packet's fields in order; every length is checked against what is there.
#[derive(Debug)]
pub(super) struct Fields(Payload);

impl Fields {
    pub(super) fn new(mut body: Payload) -> Self {
        body.flush();
        Self(body)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn remaining(&self) -> usize {
        self.0.len()
    }

    pub(super) fn rest(self) -> Payload {
        self.0
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.fixed()?))
    }

    pub(super) fn string(&mut self) -> Result<Bytes> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// Reads a string to the end of its packet without putting its pieces together; what follows it is dropped.
    pub(super) fn payload(mut self) -> Result<Payload> {
        let length = self.u32()? as usize;
        self.check(length)?;
        self.0.truncate(length);
        Ok(self.0)
    }

    pub(super) fn attrs(&mut self) -> Result<Attrs> {
        let flags = self.u32()?;
        let has = |flag: u32| flags & flag != 0;
        let attrs = Attrs {
            size: has(Attrs::SIZE).then(|| self.u64()).transpose()?,
            owner: has(Attrs::OWNER).then(|| Ok::<_, Error>((self.u32()?, self.u32()?))).transpose()?,
            permissions: has(Attrs::PERMISSIONS).then(|| self.u32()).transpose()?,
            times: has(Attrs::TIMES).then(|| Ok::<_, Error>((self.u32()?, self.u32()?))).transpose()?,
        };
        if has(Attrs::EXTENDED) {
            let count = self.count(8)?;
            for _ in 0..2 * count {
                self.string()?;
            }
        }
        Ok(attrs)
    }

    /// Reads a count of things that take at least `least` bytes each.
    pub(super) fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.u32()? as usize;
        if count > self.remaining() / least {
            return Err(broken(format!("a count of {count} in a packet too short for it")));
        }
        Ok(count)
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        self.check(length)?;
        if let Some(first) = self.0.pieces.front_mut().filter(|first| first.len() > length) {
            self.0.len -= length;
            return Ok(first.split_to(length));
        }
        let mut taken = BytesMut::zeroed(length);
        self.copy(&mut taken);
        Ok(taken.freeze())
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.check(N)?;
        let mut taken = [0; N];
        self.copy(&mut taken);
        Ok(taken)
    }

    fn copy(&mut self, mut into: &mut [u8]) {
        self.0.len -= into.len();
        while let Some(first) = self.0.pieces.front_mut().filter(|_| !into.is_empty()) {
            let length = into.len().min(first.len());
            let (now, later) = into.split_at_mut(length);
            first.copy_to_slice(now);
            into = later;
            if first.is_empty() {
                self.0.pieces.pop_front();
            }
        }
    }

    fn check(&self, length: usize) -> Result<()> {
        if length > self.0.len() {
            return Err(broken(format!("a field of {length} bytes where {} are left", self.0.len())));
        }
        Ok(())
    }
}

pub(super) fn put_string(out: &mut BytesMut, string: &[u8]) {
    out.put_u32(u32::try_from(string.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(string);
}

pub(super) fn broken(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Protocol, format!("the peer broke the SFTP protocol: {what}"))
}

//! The fields that packets are made of.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};

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
pub(super) struct Fields(Bytes);

impl Fields {
    pub(super) fn new(body: Bytes) -> Self {
        Self(body)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn remaining(&self) -> usize {
        self.0.len()
    }

    pub(super) fn rest(self) -> Bytes {
        self.0
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.check(1)?;
        Ok(self.0.get_u8())
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.check(4)?;
        Ok(self.0.get_u32())
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.check(8)?;
        Ok(self.0.get_u64())
    }

    /// Reads a string: a slice of what came in.
    pub(super) fn string(&mut self) -> Result<Bytes> {
        let length = self.u32()? as usize;
        self.check(length)?;
        Ok(self.0.split_to(length))
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

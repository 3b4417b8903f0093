//! What a client asks: every request of version 3 and the extensions.

use bytes::{BufMut, Bytes, BytesMut};

use super::fields::{Attrs, Fields, put_string};
use super::wire::{Frame, Handle, Packet};
use crate::error::Result;

/// How OPEN opens (`SSH_FXF_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// For reading.
    pub const READ: Self = Self(1);
    /// For writing.
    pub const WRITE: Self = Self(2);
    /// Every WRITE goes to the end, whatever its offset.
    pub const APPEND: Self = Self(4);
    /// Make the file if it isn't there.
    pub const CREATE: Self = Self(8);
    /// Empty the file; with `CREATE`.
    pub const TRUNCATE: Self = Self(16);
    /// Fail if the file is there; with `CREATE`.
    pub const EXCLUSIVE: Self = Self(32);

    /// Returns whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for OpenFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A request; answered by exactly one response with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Opens a file: path, flags, attributes for a new one. HANDLE.
    Open(Bytes, OpenFlags, Attrs),
    /// Closes a file or directory. STATUS.
    Close(Handle),
    /// Reads at most so many bytes: handle, offset, length. DATA, or STATUS with EOF.
    Read(Handle, u64, u32),
    /// Writes at an offset. STATUS.
    Write(Handle, u64, Bytes),
    /// Attributes of a path, links not followed. ATTRS.
    Lstat(Bytes),
    /// Attributes of an open file. ATTRS.
    Fstat(Handle),
    /// Sets attributes of a path. STATUS.
    Setstat(Bytes, Attrs),
    /// Sets attributes of an open file. STATUS.
    Fsetstat(Handle, Attrs),
    /// Opens a directory. HANDLE.
    Opendir(Bytes),
    /// Reads the next names. NAME, or STATUS with EOF.
    Readdir(Handle),
    /// Removes a file. STATUS.
    Remove(Bytes),
    /// Makes a directory. STATUS.
    Mkdir(Bytes, Attrs),
    /// Removes an empty directory. STATUS.
    Rmdir(Bytes),
    /// Makes a path absolute and canonical. NAME with one name.
    Realpath(Bytes),
    /// Attributes of a path, links followed. ATTRS.
    Stat(Bytes),
    /// Renames: from, to. STATUS.
    Rename(Bytes, Bytes),
    /// Reads a link. NAME with one name.
    Readlink(Bytes),
    /// Makes a link. The draft says link path, then target; OpenSSH and those who followed it take target, then link
    /// path. These two are as on the wire. STATUS.
    Symlink(Bytes, Bytes),
    /// An extension.
    Extended(Extended),
    /// A type that version 3 doesn't have; to be answered by STATUS with `OP_UNSUPPORTED`.
    Unknown(u8),
}

impl Request {
    /// Returns the name that the protocol's drafts have for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open(..) => "OPEN",
            Self::Close(_) => "CLOSE",
            Self::Read(..) => "READ",
            Self::Write(..) => "WRITE",
            Self::Lstat(_) => "LSTAT",
            Self::Fstat(_) => "FSTAT",
            Self::Setstat(..) => "SETSTAT",
            Self::Fsetstat(..) => "FSETSTAT",
            Self::Opendir(_) => "OPENDIR",
            Self::Readdir(_) => "READDIR",
            Self::Remove(_) => "REMOVE",
            Self::Mkdir(..) => "MKDIR",
            Self::Rmdir(_) => "RMDIR",
            Self::Realpath(_) => "REALPATH",
            Self::Stat(_) => "STAT",
            Self::Rename(..) => "RENAME",
            Self::Readlink(_) => "READLINK",
            Self::Symlink(..) => "SYMLINK",
            Self::Extended(_) => "EXTENDED",
            Self::Unknown(_) => "a request",
        }
    }
}

/// An extended request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extended {
    /// `posix-rename@openssh.com`: from, to; replaces in one step. STATUS.
    PosixRename(Bytes, Bytes),
    /// `hardlink@openssh.com`: existing path, new path. STATUS.
    Hardlink(Bytes, Bytes),
    /// `fsync@openssh.com`. STATUS.
    Fsync(Handle),
    /// `statvfs@openssh.com`. [`super::wire::StatVfs`].
    StatVfs(Bytes),
    /// `fstatvfs@openssh.com`. [`super::wire::StatVfs`].
    FstatVfs(Handle),
    /// `lsetstat@openssh.com`: sets attributes without following links. STATUS.
    Lsetstat(Bytes, Attrs),
    /// `limits@openssh.com`. [`super::wire::Limits`].
    Limits,
    /// `expand-path@openssh.com`: REALPATH that knows `~`. NAME with one name.
    ExpandPath(Bytes),
    /// `copy-data`: copies between two open files on the server. STATUS.
    CopyData(CopyData),
    /// `check-file-handle`: digests of an open file.
    CheckFileHandle(CheckFile),
    /// `check-file-name`: digests of a file.
    CheckFileName(CheckFile),
    /// Any other: name, data. To be answered by STATUS with `OP_UNSUPPORTED`.
    Unknown(Bytes, Bytes),
}

/// What `copy-data` copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyData {
    /// The file to read.
    pub from: Handle,
    /// Where to start reading.
    pub from_offset: u64,
    /// How many bytes; 0 means to the end of the file.
    pub length: u64,
    /// The file to write.
    pub to: Handle,
    /// Where to start writing.
    pub to_offset: u64,
}

/// What `check-file-*` digests (draft-ietf-secsh-filexfer-extensions-00, section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFile {
    /// The handle, or the path.
    pub file: Bytes,
    /// Names of algorithms, comma-separated, best first.
    pub algorithms: Bytes,
    /// Offset of the first byte.
    pub start: u64,
    /// How many bytes; 0 means to the end of the file.
    pub length: u64,
    /// Bytes of each block that gets a digest of its own; 0 means one digest for all. Else at least 256.
    pub block: u32,
}

const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
const EXTENDED: u8 = 200;

impl Request {
    /// Encodes it under an id.
    pub fn encode(self, id: u32) -> Frame {
        let mut out = Frame::start(self.kind(), Some(id));
        match self {
            Self::Open(path, flags, attrs) => {
                put_string(&mut out, &path);
                out.put_u32(flags.0);
                attrs.put(&mut out);
            }
            Self::Read(handle, offset, length) => {
                put_string(&mut out, &handle);
                out.put_u64(offset);
                out.put_u32(length);
            }
            Self::Write(handle, offset, data) => {
                put_string(&mut out, &handle);
                out.put_u64(offset);
                out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
                return Frame::end(out, data);
            }
            Self::Setstat(name, attrs) | Self::Fsetstat(name, attrs) | Self::Mkdir(name, attrs) => {
                put_string(&mut out, &name);
                attrs.put(&mut out);
            }
            Self::Rename(first, second) | Self::Symlink(first, second) => {
                put_string(&mut out, &first);
                put_string(&mut out, &second);
            }
            Self::Close(name)
            | Self::Lstat(name)
            | Self::Fstat(name)
            | Self::Opendir(name)
            | Self::Readdir(name)
            | Self::Remove(name)
            | Self::Rmdir(name)
            | Self::Realpath(name)
            | Self::Stat(name)
            | Self::Readlink(name) => put_string(&mut out, &name),
            Self::Extended(extended) => extended.put(&mut out),
            Self::Unknown(_) => {}
        }
        Frame::end(out, Bytes::new())
    }

    /// Reads id and request.
    ///
    /// # Errors
    /// `Protocol` when fields are missing or cut off.
    pub fn decode(packet: Packet) -> Result<(u32, Self)> {
        let mut f = Fields::new(packet.body);
        let id = f.u32()?;
        let request = match packet.kind {
            OPEN => Self::Open(f.string()?, OpenFlags(f.u32()?), f.attrs()?),
            CLOSE => Self::Close(f.string()?),
            READ => Self::Read(f.string()?, f.u64()?, f.u32()?),
            WRITE => Self::Write(f.string()?, f.u64()?, f.string()?),
            LSTAT => Self::Lstat(f.string()?),
            FSTAT => Self::Fstat(f.string()?),
            SETSTAT => Self::Setstat(f.string()?, f.attrs()?),
            FSETSTAT => Self::Fsetstat(f.string()?, f.attrs()?),
            OPENDIR => Self::Opendir(f.string()?),
            READDIR => Self::Readdir(f.string()?),
            REMOVE => Self::Remove(f.string()?),
            MKDIR => Self::Mkdir(f.string()?, f.attrs()?),
            RMDIR => Self::Rmdir(f.string()?),
            REALPATH => Self::Realpath(f.string()?),
            STAT => Self::Stat(f.string()?),
            RENAME => Self::Rename(f.string()?, f.string()?),
            READLINK => Self::Readlink(f.string()?),
            SYMLINK => Self::Symlink(f.string()?, f.string()?),
            EXTENDED => Self::Extended(Extended::decode(f)?),
            kind => Self::Unknown(kind),
        };
        Ok((id, request))
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Open(..) => OPEN,
            Self::Close(_) => CLOSE,
            Self::Read(..) => READ,
            Self::Write(..) => WRITE,
            Self::Lstat(_) => LSTAT,
            Self::Fstat(_) => FSTAT,
            Self::Setstat(..) => SETSTAT,
            Self::Fsetstat(..) => FSETSTAT,
            Self::Opendir(_) => OPENDIR,
            Self::Readdir(_) => READDIR,
            Self::Remove(_) => REMOVE,
            Self::Mkdir(..) => MKDIR,
            Self::Rmdir(_) => RMDIR,
            Self::Realpath(_) => REALPATH,
            Self::Stat(_) => STAT,
            Self::Rename(..) => RENAME,
            Self::Readlink(_) => READLINK,
            Self::Symlink(..) => SYMLINK,
            Self::Extended(_) => EXTENDED,
            Self::Unknown(kind) => *kind,
        }
    }
}

impl Extended {
    /// Returns the name on the wire.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::PosixRename(..) => b"posix-rename@openssh.com",
            Self::Hardlink(..) => b"hardlink@openssh.com",
            Self::Fsync(_) => b"fsync@openssh.com",
            Self::StatVfs(_) => b"statvfs@openssh.com",
            Self::FstatVfs(_) => b"fstatvfs@openssh.com",
            Self::Lsetstat(..) => b"lsetstat@openssh.com",
            Self::Limits => b"limits@openssh.com",
            Self::ExpandPath(_) => b"expand-path@openssh.com",
            Self::CopyData(_) => b"copy-data",
            Self::CheckFileHandle(_) => b"check-file-handle",
            Self::CheckFileName(_) => b"check-file-name",
            Self::Unknown(name, _) => name,
        }
    }

    fn put(&self, out: &mut BytesMut) {
        put_string(out, self.name());
        match self {
            Self::PosixRename(first, second) | Self::Hardlink(first, second) => {
                put_string(out, first);
                put_string(out, second);
            }
            Self::Fsync(name) | Self::StatVfs(name) | Self::FstatVfs(name) | Self::ExpandPath(name) => {
                put_string(out, name);
            }
            Self::Lsetstat(path, attrs) => {
                put_string(out, path);
                attrs.put(out);
            }
            Self::Limits => {}
            Self::CopyData(copy) => {
                put_string(out, &copy.from);
                out.put_u64(copy.from_offset);
                out.put_u64(copy.length);
                put_string(out, &copy.to);
                out.put_u64(copy.to_offset);
            }
            Self::CheckFileHandle(check) | Self::CheckFileName(check) => {
                put_string(out, &check.file);
                put_string(out, &check.algorithms);
                out.put_u64(check.start);
                out.put_u64(check.length);
                out.put_u32(check.block);
            }
            Self::Unknown(_, data) => out.extend_from_slice(data),
        }
    }

    fn decode(mut f: Fields) -> Result<Self> {
        let name = f.string()?;
        Ok(match &*name {
            b"posix-rename@openssh.com" => Self::PosixRename(f.string()?, f.string()?),
            b"hardlink@openssh.com" => Self::Hardlink(f.string()?, f.string()?),
            b"fsync@openssh.com" => Self::Fsync(f.string()?),
            b"statvfs@openssh.com" => Self::StatVfs(f.string()?),
            b"fstatvfs@openssh.com" => Self::FstatVfs(f.string()?),
            b"lsetstat@openssh.com" => Self::Lsetstat(f.string()?, f.attrs()?),
            b"limits@openssh.com" => Self::Limits,
            b"expand-path@openssh.com" => Self::ExpandPath(f.string()?),
            b"copy-data" => Self::CopyData(CopyData {
                from: f.string()?,
                from_offset: f.u64()?,
                length: f.u64()?,
                to: f.string()?,
                to_offset: f.u64()?,
            }),
            b"check-file-handle" => Self::CheckFileHandle(CheckFile::decode(&mut f)?),
            b"check-file-name" => Self::CheckFileName(CheckFile::decode(&mut f)?),
            _ => Self::Unknown(name, f.rest()),
        })
    }
}

impl CheckFile {
    fn decode(f: &mut Fields) -> Result<Self> {
        Ok(Self { file: f.string()?, algorithms: f.string()?, start: f.u64()?, length: f.u64()?, block: f.u32()? })
    }
}

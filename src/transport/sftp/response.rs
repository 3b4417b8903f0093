//! What a server answers.

use bytes::{BufMut, Bytes, BytesMut};

use super::fields::{Attrs, Fields, broken, put_string};
use super::wire::{Frame, Handle, Packet};
use crate::error::Result;
use crate::transport::DiskSpace;

/// The number that a STATUS carries (`SSH_FX_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusCode(pub u32);

impl StatusCode {
    /// Done.
    pub const OK: Self = Self(0);
    /// End of file, or of a directory.
    pub const EOF: Self = Self(1);
    /// No such file; also when a part of the path is missing.
    pub const NO_SUCH_FILE: Self = Self(2);
    /// Not allowed.
    pub const PERMISSION_DENIED: Self = Self(3);
    /// Anything else; says nothing about what.
    pub const FAILURE: Self = Self(4);
    /// The request was malformed.
    pub const BAD_MESSAGE: Self = Self(5);
    /// Made up by clients only.
    pub const NO_CONNECTION: Self = Self(6);
    /// Made up by clients only.
    pub const CONNECTION_LOST: Self = Self(7);
    /// The server doesn't know the request.
    pub const OP_UNSUPPORTED: Self = Self(8);
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: StatusCode,
    /// The server's words, mostly UTF-8; not to be trusted on a terminal.
    pub message: Bytes,
}

/// One name of a NAME answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The file's name, or the path asked for.
    pub name: Bytes,
    /// A line like that of `ls -l`, for people.
    pub long: Bytes,
    /// Its attributes, links not followed.
    pub attrs: Attrs,
}

/// A response; its id is that of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// How it ended.
    Status(Status),
    /// An open file or directory.
    Handle(Handle),
    /// What was read.
    Data(Bytes),
    /// Names.
    Names(Vec<Name>),
    /// Attributes.
    Attrs(Attrs),
    /// What an extension answers; see [`Limits`], [`StatVfs`].
    Extended(Bytes),
}

/// The longest handle (draft, section 6.2).
const MAX_HANDLE: usize = 256;

const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

impl Response {
    /// Makes a STATUS.
    pub fn status(code: StatusCode, message: impl Into<Bytes>) -> Self {
        Self::Status(Status { code, message: message.into() })
    }

    /// Encodes it under an id.
    pub fn encode(self, id: u32) -> Frame {
        let start = |kind| Frame::start(kind, Some(id));
        let (mut out, payload) = match self {
            Self::Status(status) => {
                let mut out = start(STATUS);
                out.put_u32(status.code.0);
                put_string(&mut out, &status.message);
                put_string(&mut out, b"");
                (out, None)
            }
            Self::Handle(handle) => {
                let mut out = start(HANDLE);
                put_string(&mut out, &handle);
                (out, None)
            }
            Self::Data(data) => (start(DATA), Some(data)),
            Self::Names(names) => {
                let mut out = start(NAME);
                out.put_u32(u32::try_from(names.len()).unwrap_or(u32::MAX));
                for name in names {
                    put_string(&mut out, &name.name);
                    put_string(&mut out, &name.long);
                    name.attrs.put(&mut out);
                }
                (out, None)
            }
            Self::Attrs(attrs) => {
                let mut out = start(ATTRS);
                attrs.put(&mut out);
                (out, None)
            }
            Self::Extended(data) => {
                let mut out = start(EXTENDED_REPLY);
                out.extend_from_slice(&data);
                (out, None)
            }
        };
        if let Some(data) = &payload {
            out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
        }
        Frame::end(out, payload.unwrap_or_default())
    }

    /// Reads id and response.
    ///
    /// # Errors
    /// `Protocol` when fields are missing or cut off, and for types that aren't responses.
    pub fn decode(packet: Packet) -> Result<(u32, Self)> {
        let mut f = Fields::new(packet.body);
        let id = f.u32()?;
        let response = match packet.kind {
            STATUS => Self::Status(Status {
                code: StatusCode(f.u32()?),
                // Old servers leave message and language out.
                message: if f.is_empty() { Bytes::new() } else { f.string()? },
            }),
            HANDLE => Self::Handle(handle(&mut f)?),
            DATA => Self::Data(f.string()?),
            NAME => Self::Names(names(&mut f)?),
            ATTRS => Self::Attrs(f.attrs()?),
            EXTENDED_REPLY => Self::Extended(f.rest()),
            kind => return Err(broken(format!("an answer of type {kind}"))),
        };
        Ok((id, response))
    }
}

fn handle(f: &mut Fields) -> Result<Handle> {
    let handle = f.string()?;
    match handle.len() {
        // Copied: a slice would keep the whole buffer that it came in for as long as the file is open.
        0..=MAX_HANDLE => Ok(Bytes::copy_from_slice(&handle)),
        length => Err(broken(format!("a handle of {length} bytes"))),
    }
}

fn names(f: &mut Fields) -> Result<Vec<Name>> {
    (0..f.count(12)?).map(|_| Ok(Name { name: f.string()?, long: f.string()?, attrs: f.attrs()? })).collect()
}

/// The answer to `limits@openssh.com`; 0 means that the server sets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a packet.
    pub packet: u64,
    /// Bytes of a READ.
    pub read: u64,
    /// Bytes of a WRITE.
    pub write: u64,
    /// Handles open at once.
    pub handles: u64,
}

impl Limits {
    /// Encodes it as the data of an extended response.
    pub fn encode(&self) -> Bytes {
        numbers(&[self.packet, self.read, self.write, self.handles])
    }

    /// Reads the data of an extended response.
    ///
    /// # Errors
    /// `Protocol` when it is cut off.
    pub fn decode(data: Bytes) -> Result<Self> {
        let mut f = Fields::new(data);
        Ok(Self { packet: f.u64()?, read: f.u64()?, write: f.u64()?, handles: f.u64()? })
    }
}

/// The answer to `statvfs@openssh.com` and `fstatvfs@openssh.com`: the fields of POSIX `statvfs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatVfs {
    /// Bytes of a file system block.
    pub block_size: u64,
    /// Bytes of the unit that the block counts are in.
    pub fragment_size: u64,
    /// Blocks there are.
    pub blocks: u64,
    /// Blocks that are free.
    pub free_blocks: u64,
    /// Blocks that are free to this user.
    pub available_blocks: u64,
    /// Inodes there are.
    pub files: u64,
    /// Inodes that are free.
    pub free_files: u64,
    /// Inodes that are free to this user.
    pub available_files: u64,
    /// The file system's number.
    pub id: u64,
    /// 1: read-only; 2: setuid is ignored.
    pub flags: u64,
    /// Bytes of the longest name.
    pub longest_name: u64,
}

impl From<StatVfs> for DiskSpace {
    fn from(stat: StatVfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size);
        Self {
            bytes: bytes(stat.blocks),
            free_bytes: bytes(stat.free_blocks),
            available_bytes: bytes(stat.available_blocks),
            files: stat.files,
            free_files: stat.free_files,
            available_files: stat.available_files,
        }
    }
}

impl StatVfs {
    /// Encodes it as the data of an extended response.
    pub fn encode(&self) -> Bytes {
        numbers(&[
            self.block_size,
            self.fragment_size,
            self.blocks,
            self.free_blocks,
            self.available_blocks,
            self.files,
            self.free_files,
            self.available_files,
            self.id,
            self.flags,
            self.longest_name,
        ])
    }

    /// Reads the data of an extended response.
    ///
    /// # Errors
    /// `Protocol` when it is cut off.
    pub fn decode(data: Bytes) -> Result<Self> {
        let mut f = Fields::new(data);
        Ok(Self {
            block_size: f.u64()?,
            fragment_size: f.u64()?,
            blocks: f.u64()?,
            free_blocks: f.u64()?,
            available_blocks: f.u64()?,
            files: f.u64()?,
            free_files: f.u64()?,
            available_files: f.u64()?,
            id: f.u64()?,
            flags: f.u64()?,
            longest_name: f.u64()?,
        })
    }
}

/// The answer to `check-file-handle` and `check-file-name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFile {
    /// The algorithm that the server chose among those asked for.
    pub algorithm: Bytes,
    /// The digests of the blocks, one behind the other.
    pub digests: Bytes,
}

impl CheckedFile {
    const NAME: &'static [u8] = b"check-file";

    /// Encodes it as the data of an extended response.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_string(&mut out, Self::NAME);
        put_string(&mut out, &self.algorithm);
        out.extend_from_slice(&self.digests);
        out.freeze()
    }

    /// Reads the data of an extended response.
    ///
    /// # Errors
    /// `Protocol` when it is cut off.
    pub fn decode(data: Bytes) -> Result<Self> {
        let mut f = Fields::new(data);
        // The extensions draft has its name first; later drafts of the protocol leave it out.
        let first = f.string()?;
        let algorithm = if first == Self::NAME { f.string()? } else { first };
        Ok(Self { algorithm, digests: f.rest() })
    }
}

fn numbers(numbers: &[u64]) -> Bytes {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

//! SFTP version 3 on the wire, both directions: draft-ietf-secsh-filexfer-02 and OpenSSH's PROTOCOL file.
//!
//! No I/O: [`Frames`] cuts a byte stream into [`Packet`]s, [`Request`] and [`Response`] are read from them and encoded
//! into a [`Frame`]. The client and the embedded server share it. Nothing here trusts a length or a count. A packet is
//! put together in one buffer, and the bytes of DATA and WRITE are slices of it.

use bytes::{BufMut, Bytes, BytesMut};

use super::fields::{Fields, broken, put_string};
use crate::error::Result;
use crate::transport::buffers::Buffers;

pub use super::fields::Attrs;
pub use super::request::{CheckFile, CopyData, Extended, OpenFlags, Request};
pub use super::response::{CheckedFile, Limits, Name, Response, StatVfs, Status, StatusCode};

/// The protocol version that is spoken here.
pub const VERSION: u32 = 3;
/// The longest packet taken, length field not counted: OpenSSH's limit of 256 KiB and some slack.
pub const MAX_PACKET: usize = 256 * 1024 + 1024;
const INIT: u8 = 1;
const HELLO: u8 = 2;

/// A handle as the server gave it: opaque, at most 256 bytes.
pub type Handle = Bytes;

/// One packet as it came: its type, and the rest behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The type byte (`SSH_FXP_*`).
    pub kind: u8,
    /// What follows the type byte.
    pub body: Bytes,
}

/// Cuts a stream of bytes into packets, however they were split and coalesced on the way.
#[derive(Debug)]
pub struct Frames {
    limit: usize,
    length: [u8; 4],
    length_known: usize,
    /// The packet that is being put together; room for all of it is made at once.
    body: Vec<u8>,
    buffers: Buffers,
}

impl Frames {
    /// Makes one that refuses packets longer than `limit` (see [`MAX_PACKET`]).
    pub fn new(limit: usize) -> Self {
        Self { limit, length: [0; 4], length_known: 0, body: Vec::new(), buffers: Buffers::default() }
    }

    /// Takes bytes off `input` until a packet is whole; `None` when `input` is used up before that.
    ///
    /// # Errors
    /// `Protocol` for an empty packet or one over the limit; the stream is of no use any more.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Packet>> {
        if self.length_known < 4 {
            let taken = take(input, 4 - self.length_known);
            self.length[self.length_known..][..taken.len()].copy_from_slice(taken);
            self.length_known += taken.len();
            if self.length_known < 4 {
                return Ok(None);
            }
        }
        let length = u32::from_be_bytes(self.length) as usize;
        if length == 0 || length > self.limit {
            return Err(broken(format!("a packet of {length} bytes")));
        }
        if self.body.is_empty() && !input.is_empty() {
            self.body = self.buffers.take(length);
        }
        self.body.extend_from_slice(take(input, length - self.body.len()));
        if self.body.len() < length {
            return Ok(None);
        }
        self.length_known = 0;
        let mut fields = Fields::new(self.buffers.lend(std::mem::take(&mut self.body)));
        Ok(Some(Packet { kind: fields.u8()?, body: fields.rest() }))
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}

/// A packet ready to send: the head with its length field, and the payload of DATA and WRITE, which is not copied.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Everything up to the payload.
    pub head: Bytes,
    /// The payload; empty for most packets.
    pub payload: Bytes,
}

impl Frame {
    /// Starts a packet: leaves room for the length.
    pub(super) fn start(kind: u8, id: Option<u32>) -> BytesMut {
        let mut head = BytesMut::with_capacity(64);
        head.put_u32(0);
        head.put_u8(kind);
        if let Some(id) = id {
            head.put_u32(id);
        }
        head
    }

    /// Ends a packet: fills in the length.
    pub(super) fn end(mut head: BytesMut, payload: Bytes) -> Self {
        let length = u32::try_from(head.len() - 4 + payload.len()).unwrap_or(u32::MAX);
        head[..4].copy_from_slice(&length.to_be_bytes());
        Self { head: head.freeze(), payload }
    }

    /// Returns the number of bytes on the wire.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Returns whether there is nothing to send; never so for an encoded packet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns it in one piece.
    pub fn into_bytes(self) -> Bytes {
        if self.payload.is_empty() {
            return self.head;
        }
        let mut all = BytesMut::with_capacity(self.len());
        all.extend_from_slice(&self.head);
        all.extend_from_slice(&self.payload);
        all.freeze()
    }
}

/// The first packet of each side: INIT and VERSION.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The version asked for, or agreed to.
    pub version: u32,
    /// Extensions: name and data.
    pub extensions: Vec<(Bytes, Bytes)>,
}

impl Hello {
    /// Encodes the client's INIT.
    pub fn encode_init(&self) -> Frame {
        self.encode(INIT)
    }

    /// Encodes the server's VERSION.
    pub fn encode_version(&self) -> Frame {
        self.encode(HELLO)
    }

    /// Reads the client's INIT.
    ///
    /// # Errors
    /// `Protocol` for anything else.
    pub fn decode_init(packet: Packet) -> Result<Self> {
        Self::decode(packet, INIT)
    }

    /// Reads the server's VERSION.
    ///
    /// # Errors
    /// `Protocol` for anything else.
    pub fn decode_version(packet: Packet) -> Result<Self> {
        Self::decode(packet, HELLO)
    }

    fn encode(&self, kind: u8) -> Frame {
        let mut head = Frame::start(kind, None);
        head.put_u32(self.version);
        for (name, data) in &self.extensions {
            put_string(&mut head, name);
            put_string(&mut head, data);
        }
        Frame::end(head, Bytes::new())
    }

    fn decode(packet: Packet, kind: u8) -> Result<Self> {
        if packet.kind != kind {
            return Err(broken(format!("a packet of type {} where the version was due", packet.kind)));
        }
        let mut fields = Fields::new(packet.body);
        let version = fields.u32()?;
        let mut extensions = Vec::new();
        while !fields.is_empty() {
            extensions.push((fields.string()?, fields.string()?));
        }
        Ok(Self { version, extensions })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::transport::sftp::request::OpenFlags;
    use proptest::prelude::*;

    /// Feeds `stream` in chunks of the given sizes, taken in turn, and returns the packets.
    fn packets(stream: &[u8], sizes: &[usize]) -> Result<Vec<Packet>> {
        let mut frames = Frames::new(MAX_PACKET);
        let mut found = Vec::new();
        let mut rest = stream;
        for &size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let mut chunk = take(&mut rest, size.max(1));
            while let Some(packet) = frames.next(&mut chunk)? {
                found.push(packet);
            }
        }
        Ok(found)
    }

    fn one(frame: Frame) -> Packet {
        let bytes = frame.into_bytes();
        packets(&bytes, &[bytes.len()]).unwrap().remove(0)
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn data() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..20_000).prop_map(Bytes::from)
    }

    fn attrs() -> impl Strategy<Value = Attrs> {
        let pair = || any::<Option<(u32, u32)>>();
        (any::<Option<u64>>(), pair(), any::<Option<u32>>(), pair())
            .prop_map(|(size, owner, permissions, times)| Attrs { size, owner, permissions, times })
    }

    fn extended() -> impl Strategy<Value = Extended> {
        let check = || {
            (bytes(), bytes(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
                |(file, algorithms, start, length, block)| CheckFile { file, algorithms, start, length, block },
            )
        };
        let copy = (bytes(), any::<u64>(), any::<u64>(), bytes(), any::<u64>()).prop_map(
            |(from, from_offset, length, to, to_offset)| CopyData { from, from_offset, length, to, to_offset },
        );
        prop_oneof![
            (bytes(), bytes()).prop_map(|(a, b)| Extended::PosixRename(a, b)),
            (bytes(), bytes()).prop_map(|(a, b)| Extended::Hardlink(a, b)),
            bytes().prop_map(Extended::Fsync),
            bytes().prop_map(Extended::StatVfs),
            bytes().prop_map(Extended::FstatVfs),
            (bytes(), attrs()).prop_map(|(path, attrs)| Extended::Lsetstat(path, attrs)),
            Just(Extended::Limits),
            bytes().prop_map(Extended::ExpandPath),
            copy.prop_map(Extended::CopyData),
            check().prop_map(Extended::CheckFileHandle),
            check().prop_map(Extended::CheckFileName),
            bytes().prop_map(|data| Extended::Unknown(Bytes::from_static(b"x@y"), data)),
        ]
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            (bytes(), any::<u32>(), attrs()).prop_map(|(path, flags, attrs)| Request::Open(
                path,
                OpenFlags(flags),
                attrs
            )),
            bytes().prop_map(Request::Close),
            (bytes(), any::<u64>(), any::<u32>()).prop_map(|(h, offset, length)| Request::Read(h, offset, length)),
            (bytes(), any::<u64>(), data()).prop_map(|(h, offset, data)| Request::Write(h, offset, data)),
            bytes().prop_map(Request::Lstat),
            bytes().prop_map(Request::Fstat),
            (bytes(), attrs()).prop_map(|(path, attrs)| Request::Setstat(path, attrs)),
            (bytes(), attrs()).prop_map(|(handle, attrs)| Request::Fsetstat(handle, attrs)),
            bytes().prop_map(Request::Opendir),
            bytes().prop_map(Request::Readdir),
            bytes().prop_map(Request::Remove),
            (bytes(), attrs()).prop_map(|(path, attrs)| Request::Mkdir(path, attrs)),
            bytes().prop_map(Request::Rmdir),
            bytes().prop_map(Request::Realpath),
            bytes().prop_map(Request::Stat),
            (bytes(), bytes()).prop_map(|(from, to)| Request::Rename(from, to)),
            bytes().prop_map(Request::Readlink),
            (bytes(), bytes()).prop_map(|(a, b)| Request::Symlink(a, b)),
            extended().prop_map(Request::Extended),
            (21u8..100).prop_map(Request::Unknown),
        ]
    }

    fn response() -> impl Strategy<Value = Response> {
        let name = (bytes(), bytes(), attrs()).prop_map(|(name, long, attrs)| Name { name, long, attrs });
        prop_oneof![
            (any::<u32>(), bytes()).prop_map(|(code, message)| Response::status(StatusCode(code), message)),
            bytes().prop_map(Response::Handle),
            data().prop_map(Response::Data),
            prop::collection::vec(name, 0..8).prop_map(Response::Names),
            attrs().prop_map(Response::Attrs),
            bytes().prop_map(Response::Extended),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire(id: u32, request in request()) {
            prop_assert_eq!(Request::decode(one(request.clone().encode(id))).unwrap(), (id, request));
        }

        #[test]
        fn responses_survive_the_wire(id: u32, response in response()) {
            prop_assert_eq!(Response::decode(one(response.clone().encode(id))).unwrap(), (id, response));
        }

        #[test]
        fn packets_survive_any_split(
            requests in prop::collection::vec(request(), 1..6),
            sizes in prop::collection::vec(1usize..9000, 1..6),
        ) {
            let stream: Vec<u8> = requests.iter().flat_map(|r| r.clone().encode(7).into_bytes()).collect();
            let found = packets(&stream, &sizes).unwrap();
            let found: Vec<_> = found.into_iter().map(|packet| Request::decode(packet).unwrap().1).collect();
            prop_assert_eq!(found, requests);
        }

        #[test]
        fn any_packet_is_read_or_refused(kind: u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let packet = || Packet { kind, body: Bytes::from(body.clone()) };
            let _ = (Request::decode(packet()), Response::decode(packet()));
            let _ = (Hello::decode_init(packet()), Hello::decode_version(packet()));
            let data = || Bytes::from(body.clone());
            let _ = (Limits::decode(data()), StatVfs::decode(data()));
        }

        #[test]
        fn any_cut_off_packet_is_refused(response in response(), cut: prop::sample::Index) {
            // An extended answer of any length is whole; a STATUS may end behind its code.
            prop_assume!(!matches!(response, Response::Extended(_) | Response::Status(_)));
            let packet = one(response.encode(1));
            let cut = packet.body.slice(..cut.index(packet.body.len()));
            let cut = Packet { kind: packet.kind, body: cut };
            prop_assert!(Response::decode(cut).is_err());
        }
    }

    #[test]
    fn lengths_and_counts_are_not_believed() {
        for length in [0, u32::MAX, MAX_PACKET as u32 + 1] {
            assert_eq!(packets(&length.to_be_bytes(), &[1]).unwrap_err().kind(), ErrorKind::Protocol);
        }
        let names = |count: u32| Packet { kind: 104, body: Bytes::from([[0; 4], count.to_be_bytes()].concat()) };
        assert!(Response::decode(names(0)).is_ok());
        assert!(Response::decode(names(u32::MAX)).is_err());
        let long_handle = Response::Handle(Bytes::from(vec![0; 257]));
        assert!(Response::decode(one(long_handle.encode(0))).is_err());
    }

    #[test]
    fn extended_attributes_are_skipped() {
        let mut body = BytesMut::new();
        body.put_u32(1);
        body.put_u32(Attrs::SIZE | Attrs::EXTENDED);
        body.put_u64(5);
        body.put_u32(1);
        put_string(&mut body, b"name");
        put_string(&mut body, b"value");
        let packet = |body: &BytesMut| Packet { kind: 105, body: body.clone().freeze() };
        let attrs = Attrs { size: Some(5), ..Attrs::default() };
        assert_eq!(Response::decode(packet(&body)).unwrap(), (1, Response::Attrs(attrs)));
        body.truncate(body.len() - 1);
        assert!(Response::decode(packet(&body)).is_err());
    }

    #[test]
    fn the_two_hellos_survive_the_wire() {
        let hello =
            Hello { version: 3, extensions: vec![(Bytes::from_static(b"copy-data"), Bytes::from_static(b"1"))] };
        assert_eq!(Hello::decode_init(one(hello.encode_init())).unwrap(), hello);
        assert_eq!(Hello::decode_version(one(hello.encode_version())).unwrap(), hello);
        assert!(Hello::decode_init(one(hello.encode_version())).is_err());
    }

    #[test]
    fn long_packets_share_their_buffers_in_turn() {
        let sent = Bytes::from(vec![7; 100_000]);
        let packet = Response::Data(sent.clone()).encode(1).into_bytes();
        let mut frames = Frames::new(MAX_PACKET);
        let mut places = Vec::new();
        for _ in 0..3 {
            let (mut first, mut second) = packet.split_at(50_000);
            assert!(frames.next(&mut first).unwrap().is_none());
            let (_, response) = Response::decode(frames.next(&mut second).unwrap().unwrap()).unwrap();
            let Response::Data(data) = response else { panic!("{response:?}") };
            assert_eq!(data, sent);
            places.push(data.as_ptr());
        }
        assert!(places.iter().all(|place| *place == places[0]));
    }

    #[test]
    fn limits_and_statvfs_survive_the_wire() {
        let limits = Limits { packet: 1, read: 2, write: u64::MAX, handles: 0 };
        assert_eq!(Limits::decode(limits.encode()).unwrap(), limits);
        let statvfs = StatVfs { block_size: 1, longest_name: 255, ..StatVfs::default() };
        assert_eq!(StatVfs::decode(statvfs.encode()).unwrap(), statvfs);
    }
}

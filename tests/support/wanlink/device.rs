//! A TUN device: the network packets of a namespace as reads and writes of a file.

// The only file with `unsafe`: nobody offers these two requests to the kernel in a safe form.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::ioctl::{IntegerSetter, Setter, ioctl, opcode};

use crate::about;

/// Bytes of `struct virtio_net_hdr` in front of each packet.
pub(crate) const HEADER: usize = 10;

/// What the kernel may hand over at once.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Packets {
    /// As they'd be on a wire.
    Wire,
    /// Up to 64 KiB of one TCP connection, which the kernel cuts later, or never: a core carries some Gbit/s.
    Large,
}

/// `struct ifreq`, as far as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const TUN: u16 = 0x0001;
const NO_PACKET_INFORMATION: u16 = 0x1000;
const VIRTIO_HEADER: u16 = 0x4000;

const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETOFFLOAD: rustix::ioctl::Opcode = opcode::write::<u32>(b'T', 208);
/// TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6.
const CHECKSUMS_AND_TCP: usize = 1 | 2 | 4;

/// Makes a device in the namespace of the calling thread; it goes away with the file, which works from anywhere.
pub(crate) fn create(name: &str, packets: Packets) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).write(true).custom_flags(flags).open("/dev/net/tun");
    let file = file.map_err(about("/dev/net/tun"))?;
    let mut request =
        InterfaceRequest { name: [0; 16], flags: TUN | NO_PACKET_INFORMATION | VIRTIO_HEADER, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq` of 40 bytes, the size of this one, at the address.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }
        .map_err(|e| about("TUNSETIFF")(e.into()))?;
    let offload = if packets == Packets::Large { CHECKSUMS_AND_TCP } else { 0 };
    // SAFETY: TUNSETOFFLOAD takes its flags as the argument itself, no address.
    unsafe { ioctl(&file, IntegerSetter::<TUNSETOFFLOAD>::new_usize(offload)) }
        .map_err(|e| about("TUNSETOFFLOAD")(e.into()))?;
    Ok(file)
}

/// Returns the bytes that a packet, header included, takes on the wire: each segment of a large one repeats its headers.
pub(crate) fn wire_bytes(packet: &[u8]) -> u64 {
    let (header, body) = packet.split_at(HEADER);
    let field = |at: usize| u64::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (length, headers, segment) = (body.len() as u64, field(2), field(4));
    if header[1] == 0 || segment == 0 || length <= headers {
        return length;
    }
    length + ((length - headers).div_ceil(segment) - 1) * headers
}

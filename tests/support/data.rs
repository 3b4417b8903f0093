//! Bytes that differ everywhere, so that a block at a wrong place shows.

use bytes::Bytes;

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

/// Makes `length` bytes; another `seed` makes others. Line ends of both kinds and IAC (255) are among them.
pub fn bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    if length > 64 {
        data[10..22].copy_from_slice(b"\r\n\n\r\xff\xf4\xff\xf2\r\0\r\n");
    }
    data.into()
}

/// Says where two runs of bytes differ; their contents would fill the screen.
#[track_caller]
pub fn assert_same(found: &[u8], wanted: &[u8], what: &str) {
    if found == wanted {
        return;
    }
    let at = found.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(found.len().min(wanted.len()));
    panic!("{what}: {} bytes instead of {}, first difference at {at}", found.len(), wanted.len());
}

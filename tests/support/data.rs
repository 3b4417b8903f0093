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

/// Numbers that look random and are the same for the same seed, so that a failed test can be repeated.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number (SplitMix64).
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any() % end.max(1)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// From 0 to just below 1.
    pub fn share(&mut self) -> f64 {
        self.below(1 << 32) as f64 / (1u64 << 32) as f64
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Returns the seed of a test: that of `HAUL_SEED`, or one of its own, which a failure has to name.
pub fn seed() -> u64 {
    let given = std::env::var("HAUL_SEED").ok().map(|text| text.parse().expect("HAUL_SEED is a number"));
    given.unwrap_or_else(|| getrandom::u32().expect("random numbers").into())
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

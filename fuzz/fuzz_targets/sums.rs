//! Lists of checksums, which may come from anybody.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::sums(data));

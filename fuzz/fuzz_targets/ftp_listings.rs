//! Lines of LIST and MLSD.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::ftp_listings(data));

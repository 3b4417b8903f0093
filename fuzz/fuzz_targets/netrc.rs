//! The user's `.netrc`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::netrc(data));

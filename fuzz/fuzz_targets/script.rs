//! Command scripts.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::script(data));

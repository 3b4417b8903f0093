//! Patterns, a `.haulignore` among them, and lists of paths.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::filter(data));

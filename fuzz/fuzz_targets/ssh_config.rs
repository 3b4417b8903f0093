//! The user's SSH configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::ssh_config(data));

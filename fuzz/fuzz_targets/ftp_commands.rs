//! What an FTP client says to the embedded server.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::ftp_commands(data));

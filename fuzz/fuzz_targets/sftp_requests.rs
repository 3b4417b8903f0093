//! What an SFTP client sends to the embedded server.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::sftp_requests(data));

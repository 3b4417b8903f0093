//! What an FTP server says on the control connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::ftp_replies(data));

//! What an SFTP server sends: packets cut from the stream, each read as an answer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::sftp_answers(data));

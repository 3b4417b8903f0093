//! A rate limit by the clock.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| haul::fuzzing::timetable(data));

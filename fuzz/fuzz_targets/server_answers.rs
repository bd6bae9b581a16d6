//! `fuzz_entries`, target `server_answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("server_answers", bytes));

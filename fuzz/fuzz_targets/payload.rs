//! `fuzz_entries`, target `payload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("payload", bytes));

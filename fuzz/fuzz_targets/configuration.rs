//! `fuzz_entries`, target `configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("configuration", bytes));

//! `fuzz_entries`, target `header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("header", bytes));

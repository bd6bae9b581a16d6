//! `fuzz_entries`, target `url`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("url", bytes));

//! `fuzz_entries`, target `tree`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("tree", bytes));

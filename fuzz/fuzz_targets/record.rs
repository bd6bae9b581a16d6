//! `fuzz_entries`, target `record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("record", bytes));

//! `fuzz_entries`, target `delta`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("delta", bytes));

//! `fuzz_entries`, target `two_copies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("two_copies", bytes));

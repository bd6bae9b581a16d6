//! `fuzz_entries`, target `vcdiff`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("vcdiff", bytes));

//! `fuzz_entries`, target `frame_table`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("frame_table", bytes));

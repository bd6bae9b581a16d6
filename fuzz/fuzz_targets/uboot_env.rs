//! `fuzz_entries`, target `uboot_env`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("uboot_env", bytes));

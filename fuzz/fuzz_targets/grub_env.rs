//! `fuzz_entries`, target `grub_env`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("grub_env", bytes));

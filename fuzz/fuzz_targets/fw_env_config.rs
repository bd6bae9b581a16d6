//! `fuzz_entries`, target `fw_env_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_entries::run("fw_env_config", bytes));

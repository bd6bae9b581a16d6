//! All integration tests of this package, linked once.

mod common;
mod daemon_commands;
#[cfg(feature = "doctor")]
mod doctor;
mod hostile;
mod killed;
mod over_the_air;
mod situations;
mod standalone;
mod update_modules;

//! All integration tests of this package, linked once.

mod common;
mod daemon_commands;
mod hostile;
mod killed;
mod over_the_air;
mod situations;
mod standalone;
mod update_modules;

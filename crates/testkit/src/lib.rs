//! Test doubles.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

pub mod artifacts;
pub mod bootloader;
pub mod choice;
pub mod device;
pub mod enumerator;
pub mod storage;

//! Test doubles that are stricter than the real thing: storage that loses power, bootloaders, and a harness that
//! takes a scenario through every power cut.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`choice`] | walks through everything that may happen; every case has a replay id |
//! | [`storage`] | the machine: disks, raw flash and UBI volumes with live and durable content, power cuts, faults |
//! | [`files`] | a file system that loses power |
//! | [`bootloader`] | what U-Boot, GRUB and a bootloader with one-shot trials do |
//! | [`conformance`] | suites that any implementation of a seam can be put through |
//! | [`clock`] | time that passes only when somebody waits |
//! | [`programs`] | programs that a test writes and then starts |
//! | [`transport`] | answers to requests from a script, with faults on the way |
//! | [`server`] | a Mender-compatible server in memory |
//! | [`enumerator`] | runs a scenario through cuts, images, bootloader and recovery, and checks invariants |
//!
//! # A scenario
//! A counter in one sector, which must not go back once it was promised. Production code goes where this example
//! writes the sector: it runs unchanged over [`storage::CrashDevice`], behind whatever seam it has.
//!
//! ```
//! use client_core::storage::BlockDevice;
//! use testkit::enumerator::{After, Options, Scenario, explore, replay};
//! use testkit::storage::{CrashWorld, SECTOR_LEN, Suppressed};
//!
//! /// Facts outlive power cuts: they are what the outside knows, not what the client knows.
//! #[derive(Clone, Hash)]
//! struct Facts {
//!     promised: u8,
//! }
//!
//! fn counter(world: &CrashWorld) -> Result<u8, String> {
//!     let mut byte = [0];
//!     world.open("disk").read_at(0, &mut byte).map_err(|error| error.to_string())?;
//!     Ok(byte[0])
//! }
//!
//! fn scenario(break_it: bool) -> Scenario<Facts> {
//!     Scenario::new(move |world| {
//!         world.add_device("disk", vec![0; SECTOR_LEN]);
//!         if break_it {
//!             world.suppress_sync("disk", Suppressed::Every);
//!         }
//!         Facts { promised: 0 }
//!     })
//!     .run(|world, facts| {
//!         let mut disk = world.open("disk");
//!         for number in 1..=3 {
//!             disk.write_at(0, &[number; SECTOR_LEN]).map_err(|error| error.to_string())?;
//!             disk.sync().map_err(|error| error.to_string())?;
//!             facts.promised = number;
//!         }
//!         Ok(())
//!     })
//!     // .boot(...) comes here: a bootloader model, which writes and can be cut as well.
//!     .recover(|world, facts| {
//!         let found = counter(world)?;
//!         if found < facts.promised {
//!             return Err(format!("found {found}, promised {}", facts.promised));
//!         }
//!         Ok(After::Settled)
//!     })
//!     .fold_equal_states()
//! }
//!
//! // One sector that is never torn is enough; without a sync it is not.
//! let mut options = Options::cuts(2);
//! options.limits.tears.clear();
//! explore(&scenario(false), &options).assert_holds();
//!
//! let report = explore(&scenario(true), &options);
//! report.assert_violates("promised");
//! let first = &report.violations[0];
//! assert!(replay(&scenario(true), &options, &first.id.to_string()).is_some());
//! ```
//!
//! # Rules for scenarios
//! - Devices are opened anew in every `run`, `boot` and `recover`: a handle ends with its boot.
//! - Facts change between operations. Set what may be true *before* the operation, what is true *after* it.
//! - Every scenario has a negative control: break one thing, expect the violation.
//! - An effect that is not storage (a report to the server) gets a
//!   [`crash_point`](storage::CrashWorld::crash_point) before and after it.

// This crate is test code: a broken assumption of a scenario has to stop the test.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

pub mod artifacts;
pub mod bootloader;
pub mod choice;
pub mod clock;
pub mod conformance;
pub mod deltas;
pub mod device;
pub mod enumerator;
pub mod files;
pub mod json;
pub mod namespace;
pub mod programs;
pub mod server;
pub mod storage;
pub mod transport;
pub mod vcdiff;

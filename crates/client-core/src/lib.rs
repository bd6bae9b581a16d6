//! The engine of an update client: it decides what an embedded Linux device with two root file systems does with a signed
//! update, so that it never runs what was not signed and never stays without a system that boots, whatever is cut when.
//!
//! ```text
//!   server ──► agent ─────────────┐            command line ──► deploy::{install, commit, roll_back, resume}
//!  (poll, report)                 ▼                                          │
//!                      deploy::deploy ◄──────────────────────────────────────┘
//!                                 │
//!      plan (which stage comes) ─ run (gate, report, record, scripts) ─ deeds (what the stage does)
//!                                 │                                          │
//!   artifact::open ─► header ─► provides ─► install: handler of the payload ─┤
//!   (signature first)           (depends)     SlotWriter ─► sync ─► read back ─► Written ─► boot: arm, commit
//! ```
//!
//! It performs no I/O of its own: no files, no network, no processes, no clock, no environment variables. All of that comes
//! in through seams, traits that lie beside the code that calls them, with their promises in the comments:
//!
//! | seam | what it is | whose |
//! | --- | --- | --- |
//! | [`boot::BootControl`] | what boots next: state, arm, commit, settle | [`boot::mender_vars`] over [`boot::BootEnv`], which U-Boot and GRUB implement |
//! | [`slot::Slots`], [`slot::System`] | the two partitions, and what the operating system knows | `linux` |
//! | [`storage::BlockDevice`] | a range of bytes that is durable once synced: slots, environments and the record lie on it | `linux`; the crash device of `testkit` |
//! | [`state_store::StateStore`] | one document, saved all or nothing | [`state_store::TwoCopyRecord`] |
//! | [`install::PayloadHandler`], [`install::Modules`] | what a payload type does in each stage | here, and update modules in `linux` |
//! | [`deploy::scripts::ScriptRunner`] | state scripts | `linux` |
//! | [`deploy::gates::Gatekeeper`] | who may hold a deployment up | `device` |
//! | [`deploy::Reporter`], [`deploy::Observer`] | who is told | [`agent`], and whoever watches |
//! | [`server::UpdateServer`] | one update server, whatever it speaks | `server_mender` |
//! | [`server::Transport`] | a request and its answer | `http` |
//! | [`clock::Clock`], [`clock::Waiter`] | time, and the only two waits | `linux` |
//! | [`monitor::Looker`] | facts about what is watched | `service` |
//! | [`agent::Host`] | the device under the daemon's loop | the daemon |
//!
//! # A whole update on two files
//!
//! `examples/install_to_files.rs` is a device in one file: it implements these seams over two files that stand for the slots,
//! makes and signs an artifact, installs it, plays the restart and commits.
//!
//! ```text
//! cargo run -p rust-ota-client-core --example install_to_files
//! ```
//!
//! The heart of it is one call; everything that protects the device happens inside:
//!
//! ```
//! # use client_core::deploy::{self, Device, Options, Policy, Summary, DeployError};
//! fn update(
//!     device: &mut Device<'_>,
//!     artifact: impl std::io::Read + Send + 'static,
//!     policy: &Policy,
//! ) -> Result<Summary, DeployError> {
//!     // Verified, written to the slot that does not run, synced, read back, and only then armed for a trial.
//!     deploy::install(device, artifact, policy, &Options::default())
//! }
//! ```
//!
//! # Where to read on
//!
//! [`boot`] decides what the bootloader did while we were off. `install/image.rs` is the order of steps that protects the
//! device. `deploy/plan.rs` is every transition of a deployment, and `docs/state-machine.md` is printed from it.

#![forbid(unsafe_code)]

pub use artifact;
pub use artifact::text;
pub use delta;

pub mod agent;
pub mod boot;
pub mod clock;
pub mod deploy;
pub mod install;
pub mod monitor;
pub mod provides;
pub mod schedule;
pub mod server;
pub mod slot;
pub mod state_store;
pub mod storage;

//! All integration tests of this package, linked once.

// What the crate may not touch by itself, its tests look at from outside.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agent;
mod boot_environment;
mod daemon;
mod daemon_vectors;
mod delta;
mod deployment;
mod download;
mod flash;
mod frames;
mod front_door;
mod left_behind;
mod machine;
mod modules;
mod monitor;
mod places;
mod resume;
mod schedule;
mod slot_writer;
mod state_record;
mod vcdiff;
mod whole_update;
mod without_handler;

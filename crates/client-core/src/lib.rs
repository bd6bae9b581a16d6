//! Decides what an update client does. It has no I/O of its own: everything it needs of the world comes in
//! through a seam, a trait that lies beside its consumer.
#![forbid(unsafe_code)]

pub use artifact;
pub use artifact::text;

pub mod agent;
pub mod boot;
pub mod clock;
pub mod deploy;
pub mod install;
pub mod provides;
pub mod schedule;
pub mod server;
pub mod slot;
pub mod state_store;
pub mod storage;

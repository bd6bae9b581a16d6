//! A device put together from its configuration: what `mender.conf` says, which files, keys, slots and lock that means,
//! and who may hold a deployment up. The daemon is one user of it; it knows no command line.

#![forbid(unsafe_code)]

pub mod artifact_file;
pub mod client;
pub mod compose;
pub mod config;
pub mod config_files;
pub mod gates;
pub mod identity;
mod installed;
pub mod keystore;

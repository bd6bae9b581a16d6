//! The U-Boot environment: what `fw_env.config` says, the image it is stored as, and its one or two copies.
//!
//! It opens no file: the copies are [`client_core::storage::BlockDevice`]s that somebody else opened. It decides
//! nothing about updates either; that is `client_core::boot`.
#![forbid(unsafe_code)]

mod checksum;
pub mod config;
mod diagnosis;
pub mod env;
pub mod image;

pub use config::{CopyConfig, FwEnvConfig};
pub use env::UBootEnv;

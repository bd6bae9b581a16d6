//! The GRUB environment in the layout of grub-mender-grubenv: two directories, each with the environment block
//! `env`, the block `lock` that says whether `env` is being edited, and the checksum of `lock`.
//!
//! It opens no file: the six files are [`client_core::storage::BlockDevice`]s that somebody else opened. It
//! decides nothing about updates either; that is `client_core::boot`.
#![forbid(unsafe_code)]

pub mod block;
pub mod directory;
pub mod env;

pub use env::{GrubCopy, GrubEnv};

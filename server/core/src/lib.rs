//! A compatible update server in one process.
//!
//! It speaks the device API of Mender clients, serves artifacts, and has the part of the management API that a person
//! needs. Three layers: `api` is HTTP, `domain` are the rules, `store` is what survives. [`Server::start`] starts it; it
//! runs threads of its own, and nothing async comes out. Tests put faults around it from outside: [`surround`].
//!
//! ```no_run
//! use server_core::{Options, Server};
//! use server_core::client::Management;
//!
//! let running = Server::start(Options::new("data").auto_accept(true))?;
//! let management = Management::new(running.url(), running.management_token());
//! let artifact = management.upload_artifact("release-2.mender".as_ref())?;
//! println!("{artifact} is at {}", running.url());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

#[allow(dead_code)]
mod blobs;
mod domain;
mod service;
pub mod simulated;
mod store;

pub use blobs::s3::S3Options;
pub use store::StoreError;

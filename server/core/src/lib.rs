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

mod api;
#[allow(dead_code)]
mod blobs;
mod bodies;
mod certificates;
pub mod client;
mod connect;
mod connection;
mod deltas;
mod domain;
mod heard;
mod logger;
mod mail;
mod metrics;
mod model;
mod options;
mod page;
mod places;
mod presence;
mod readiness;
mod request_id;
mod retention;
mod rounds;
mod running;
mod service;
pub mod simulated;
mod start;
#[doc(hidden)]
pub mod steps;
mod store;
mod strangers;
mod throttle;
pub mod transfer;
mod unread;
mod watched;
mod webhooks;
mod work;

pub use api::surround;
pub use blobs::s3::S3Options;
pub use logger::{LogFormat, log_to_stderr};
pub use mail::smtp::SmtpOptions;
pub use options::{DatabaseOptions, Options};
pub use running::{Running, Server};
pub use start::StartError;
pub use store::StoreError;

/// The OpenAPI description of what the server is asked, as JSON.
#[must_use]
pub fn openapi() -> String {
    format!("{:#}\n", api::description())
}

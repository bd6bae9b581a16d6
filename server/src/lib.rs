//! A compatible update server in one process.
//!
//! It speaks the device API of Mender clients, serves artifacts, and has the part of the management API that a person
//! needs. Three layers: `api` is HTTP, `domain` are the rules, `store` is what survives. Tests and the demo start it
//! with [`Server::start`]; it runs threads of its own, and nothing async comes out.
//!
//! ```no_run
//! use rust_ota_server::{Options, Server};
//! use rust_ota_server::client::Management;
//!
//! let running = Server::start(Options::new("data").auto_accept(true))?;
//! let management = Management::new(running.url(), running.management_token());
//! let artifact = management.upload_artifact("release-2.mender".as_ref())?;
//! println!("{artifact} is at {}", running.url());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod api;
pub mod client;
mod connect;
mod connection;
mod domain;
mod faults;
mod logger;
mod options;
mod presence;
mod recorder;
mod running;
#[doc(hidden)]
pub mod steps;
mod store;
mod strangers;

pub use faults::{Action, FaultsHandle, Rule};
pub use logger::log_to_stderr;
pub use options::Options;
pub use recorder::RecordedRequest;
pub use running::{Running, Server, StartError};
pub use store::StoreError;

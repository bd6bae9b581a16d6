//! What tests put around a server of `server-core`: faults on order, and a record of what it was asked.
//!
//! The server itself has none of this; it is wrapped from outside, as [`server_core::surround`] allows. The program
//! `rust-ota-server` puts [`Faults`] around its server when it is told so.
//!
//! ```no_run
//! use server_core::Options;
//! use testserver::{Action, Rule, TestServer};
//!
//! let server = TestServer::start(Options::new("data").auto_accept(true))?;
//! server.faults().set(vec![Rule::new(Action::LoseAnswer).path("/status")]);
//! println!("{} was asked {} times", server.url(), server.requests().len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod answer;
mod around;
mod recorder;
mod rules;
mod server;
mod wire;

pub use around::Faults;
pub use recorder::RecordedRequest;
pub use rules::{Action, FaultsHandle, Rule};
pub use server::TestServer;

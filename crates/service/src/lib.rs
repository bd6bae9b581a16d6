//! The daemon as a library: the loop of `client-core` on this device, for the program that is nothing else and for firmware
//! that has it in a thread of its own or calls it now and then.
//!
//! It decides nothing about updates. It handles no signals, changes nothing of the process it is in, and writes to no log of
//! its own: what it needs of whoever runs it, [`Surroundings`] has.

#![forbid(unsafe_code)]

mod agent;
#[cfg(feature = "dbus")]
mod dbus;
mod deployment_log;
mod host;
#[cfg(feature = "dbus")]
mod local_proxy;
#[cfg(feature = "monitor")]
mod monitor;
mod notify;
pub mod status;
mod watcher;

pub use agent::{Service, ServiceError, Surroundings, bootstrap};
pub use deployment_log::{DeploymentInHand, DeploymentLog, DeploymentLogs, LogError, Logs};
pub use notify::Supervision;
pub use watcher::Round;

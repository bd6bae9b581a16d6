//! The device API of a Mender-compatible server, as an [`UpdateServer`](client_core::server::UpdateServer): what is asked,
//! and what the answers mean.
//!
//! It opens no connection and reads no file: bytes travel over a [`Transport`](client_core::server::Transport), and who the
//! device is comes from its [`Credentials`]. It decides nothing about deployments.
#![forbid(unsafe_code)]

mod alerts;
mod api;
mod auth;
mod credentials;
mod deployments;
mod inventory;

pub use api::{Api, Grant, Settings, TokenWatcher};
pub use credentials::{Credentials, CredentialsError};
pub use deployments::{DeploymentStatus, LOG_BYTES_MAX};

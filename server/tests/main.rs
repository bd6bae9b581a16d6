//! All integration tests of this package, linked once.

mod artifacts;
mod audit;
mod auth;
mod captures;
mod common;
mod configuration;
mod connect;
mod data_folder;
mod deployments;
mod differences;
mod documents;
mod downloads;
mod faults;
mod fleet;
mod happy_path;
mod hostile;
mod inventory;
mod operations;
mod program;
mod restart;
mod roles;
mod rollouts;
mod strangers;
mod tags;
mod tls;
mod users;

//! All integration tests of this package, linked once.

mod archives;
mod c_api;
mod captures;
mod configuration;
mod dbus;
mod desk;
mod faults;
mod frames;
mod generators;
mod grub_env;
mod host_tool;
mod mender_artifact;
mod mender_client;
mod mender_connect;
mod mender_daemon;
mod peer_artifacts;
mod slots;
mod uboot_env;
mod update_modules;

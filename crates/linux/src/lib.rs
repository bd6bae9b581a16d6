//! Every seam of `client-core` on Linux: devices and slots ([`slots`], [`block_device`]), boot environments in files
//! ([`boot_env`]), the record ([`state_file`]), clock and waits ([`clock`]), handlers and update modules ([`handlers`]), state
//! scripts ([`state_scripts`]). It decides nothing about updates and reads no configuration. The only crate with unsafe code.

pub mod atomic_file;
pub mod block_device;
pub mod boot_env;
pub mod clock;
pub mod daemon_process;
pub mod explain;
pub mod file_system;
pub mod files;
pub mod flight_recorder;
pub mod handlers;
pub mod health_check;
pub mod identity;
pub mod inventory;
pub mod key_values;
pub mod local_socket;
pub mod lock;
pub mod log_file;
pub mod memory;
pub mod monitor;
pub mod mounts;
pub mod payload_tree;
pub mod process;
pub mod process_group;
pub mod regular_file;
pub mod running_slot;
pub mod script_payload;
pub mod signals;
pub mod slot_paths;
pub mod slots;
pub mod state_file;
pub mod state_scripts;
pub mod system;
pub mod update_module;
pub mod week_time;

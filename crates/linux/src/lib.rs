//! Every seam of `client-core` on Linux. The only crate besides `ffi` with unsafe code.

pub mod atomic_file;
pub mod block_device;
pub mod boot_env;
pub mod built_ins;
pub mod daemon_process;
pub mod explain;
pub mod file_system;
pub mod files;
pub mod health_check;
pub mod key_value_scripts;
pub mod local_socket;
pub mod lock;
pub mod memory;
pub mod mounts;
pub mod process;
pub mod process_group;
pub mod regular_file;
pub mod signals;
pub mod slots;
pub mod state_file;
pub mod state_scripts;
pub mod system;
pub mod update_module;
pub mod waiter;
pub mod week_time;

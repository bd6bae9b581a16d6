//! The C interface of the update client: a handle, few functions, no threads and no signals of its own. `include/rust_ota.h`
//! is what cbindgen makes of this crate, and `docs/c-api.md` the guide.
//!
//! It decides nothing: each function is one call of `device` or `service`. Every entry has a boundary for panics, which are
//! faults of the library: where it was built to unwind, the call returns ROTA_E_FAULT; as it ships (panic = "abort") the
//! process ends.

// Names and layout are C's.
#![allow(non_camel_case_types)]
#![deny(unsafe_op_in_unsafe_fn)]

mod callbacks;
mod codes;
mod configuration;
mod failure;
mod handle;
mod log_lines;
mod quiet;
mod structures;
mod update;
mod with_server;

pub use codes::*;
pub use configuration::{
    rota_code_text, rota_error, rota_free, rota_new, rota_on_gate, rota_on_log, rota_on_progress, rota_open,
    rota_set, rota_stop, rota_version,
};
pub use handle::rota_device;
pub use structures::{
    rota_gate, rota_gate_fn, rota_log_fn, rota_pair_fn, rota_progress, rota_progress_fn, rota_read_fn,
    rota_result, rota_round, rota_state,
};
pub use update::{
    rota_commit, rota_get, rota_install_fd, rota_install_path, rota_install_read, rota_install_url,
    rota_look, rota_provides, rota_resume, rota_roll_back,
};
pub use with_server::{rota_daemon_status, rota_poll, rota_run};

//! Every seam of `client-core` on Linux. The only crate besides `ffi` with unsafe code.

pub mod block_device;
pub mod boot_env;
pub mod lock;

//! What C programs pass in and out: structures that begin with their size, and the types of callbacks.
//!
//! A structure grows at its end. The caller sets `size` to what it was compiled with; nothing behind that is touched, and a
//! `size` that is too small for the first release is an error.

use std::ffi::{c_char, c_int, c_void};
use std::mem::size_of;

use crate::codes::ROTA_E_ARGUMENT;
use crate::failure::Failure;

/// How far an installation is.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rota_progress {
    /// Bytes of this structure, set by the library.
    pub size: usize,
    /// ROTA_WRITING or ROTA_READING_BACK.
    pub phase: c_int,
    /// Bytes of the payload so far.
    pub done_bytes: u64,
    /// Bytes of the payload in all.
    pub total_bytes: u64,
}

/// A question to the program: may the update go on?
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rota_gate {
    /// Bytes of this structure, set by the library.
    pub size: usize,
    /// Before what: ROTA_GATE_...
    pub gate: c_int,
    /// What is to be installed; UTF-8, valid during the call.
    pub artifact_name: *const c_char,
    /// The deployment of the server; UTF-8, valid during the call. NULL for an installation of the program's own.
    pub deployment_id: *const c_char,
}

/// How a call left the device.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rota_result {
    /// Bytes of this structure, set by the caller: sizeof(rota_result).
    pub size: usize,
    /// ROTA_NOT_MODIFIED to ROTA_CLEANED_UP; 0 where the call could not be begun.
    pub outcome: c_int,
    /// 1 when the device must be restarted for the change to take effect.
    pub needs_restart: c_int,
}

/// How the device stands.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rota_state {
    /// Bytes of this structure, set by the caller: sizeof(rota_state).
    pub size: usize,
    /// ROTA_IDLE to ROTA_UNKNOWN.
    pub standing: c_int,
    /// The slot that runs: 'A' or 'B'; 0 where that cannot be told or there are none.
    pub running_slot: c_int,
    /// The slot that boots next: 'A' or 'B'; 0 where that cannot be told or there are none.
    pub next_slot: c_int,
    /// 1 when the record of what is installed was lost; rota_error() says why.
    pub record_lost: c_int,
}

/// What came of one round with the server.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct rota_round {
    /// Bytes of this structure, set by the caller: sizeof(rota_round).
    pub size: usize,
    /// Seconds for which there is nothing to do. Call again then, or earlier for an earlier question.
    pub next_seconds: u32,
    /// ROTA_NONE_ENDED, ROTA_SUCCEEDED or ROTA_FAILED.
    pub ended: c_int,
    /// The gate (ROTA_GATE_...) before which a deployment waits; 0 when none does. rota_error() says why it waits.
    pub waits_before: c_int,
    /// 1 when the restart of the device was ordered: it is about to go down.
    pub restarting: c_int,
}

/// Called with the progress of an installation, in the thread of the call. Return 0 to go on; anything else gives the
/// installation up: it ends with ROTA_E_STOPPED, and nothing was armed.
pub type rota_progress_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, progress: *const rota_progress) -> c_int>;

/// Asked before each gate, in the thread of the call. Return 0 to go on; a negative number to refuse: the update fails, and
/// what was done is undone; a positive number to be asked again in so many seconds (deployments of a server; an
/// installation of the program's own has nobody to wait and is refused).
pub type rota_gate_fn = Option<unsafe extern "C" fn(user: *mut c_void, gate: *const rota_gate) -> c_int>;

/// Called with one line of the log, in the thread of the call: level ROTA_LOG_..., UTF-8 without a line end, valid during
/// the call.
pub type rota_log_fn = Option<unsafe extern "C" fn(user: *mut c_void, level: c_int, message: *const c_char)>;

/// Gives the next bytes of an artifact, in the thread of the call: writes at most `size` bytes to `buffer` and returns how
/// many, 0 at the end of the artifact, a negative number when reading failed (which rota_error() repeats). May block.
pub type rota_read_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, buffer: *mut c_void, size: usize) -> isize>;

/// Called with one pair that an installed artifact provides, in the thread of the call; UTF-8, valid during the call.
/// Return 0 to be given the next one.
pub type rota_pair_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, key: *const c_char, value: *const c_char) -> c_int>;

/// Larger than any structure here will be: what has not been set at all is likely more, or nothing.
const SIZE_MAX: usize = 4096;

/// Room for a structure of the caller, checked. Its first field is its size.
pub(crate) struct Out<T>(*mut T);

impl<T: Copy> Out<T> {
    /// `place` as the caller gave it; NULL where the caller does not care.
    ///
    /// # Safety
    /// `place` is NULL or points to a structure of the caller.
    ///
    /// # Errors
    /// When the size is not one of a release of this library.
    pub(crate) unsafe fn new(place: *mut T) -> Result<Out<T>, Failure> {
        if place.is_null() {
            return Ok(Out(place));
        }
        // SAFETY: the first field of each of these structures is `size`.
        let size = unsafe { place.cast::<usize>().read_unaligned() };
        // A newer program has more behind what this release knows.
        if !(size_of::<T>()..=SIZE_MAX).contains(&size) {
            let text = format!("the size of the structure is {size}, and must be set to its sizeof");
            return Err(Failure::new(ROTA_E_ARGUMENT, text));
        }
        Ok(Out(place))
    }

    /// Gives the caller what `make` makes with the size that the structure has.
    pub(crate) fn set(&self, make: impl FnOnce(usize) -> T) {
        if self.0.is_null() {
            return;
        }
        // SAFETY: `new` was promised room for the structure, and has compared its size.
        unsafe {
            let size = self.0.cast::<usize>().read_unaligned();
            self.0.write_unaligned(make(size));
        }
    }
}

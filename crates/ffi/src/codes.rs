//! The numbers of the C interface: what functions return, and what structures and callbacks say. Numbers are appended, never
//! changed and never used again.

use std::ffi::{c_char, c_int};

/// It was done.
pub const ROTA_OK: c_int = 0;
/// An argument is wrong: a null pointer, a structure of another size, a text that is not UTF-8.
pub const ROTA_E_ARGUMENT: c_int = -1;
/// The call does not come in this order: before rota_open(), or after it.
pub const ROTA_E_ORDER: c_int = -2;
/// Another thread is in a call with this handle, or a callback called back into it.
pub const ROTA_E_BUSY: c_int = -3;
/// Another process works on the device.
pub const ROTA_E_LOCKED: c_int = -4;
/// The configuration, or a key that it names, cannot be used.
pub const ROTA_E_CONFIG: c_int = -5;
/// The program wanted to stop: by a callback, or by rota_stop().
pub const ROTA_E_STOPPED: c_int = -6;
/// The artifact could not be read: the file, the network, the read callback.
pub const ROTA_E_SOURCE: c_int = -7;
/// The artifact is refused: its signature, its format, its checksums, its limits.
pub const ROTA_E_ARTIFACT: c_int = -8;
/// The artifact is good and not for this device, or not for what is installed on it.
pub const ROTA_E_DEPENDS: c_int = -9;
/// Slots, boot environment, record or operating system: the device itself.
pub const ROTA_E_DEVICE: c_int = -10;
/// A gate said no: the gate callback, a health check, a window.
pub const ROTA_E_REFUSED: c_int = -11;
/// There is no update in progress.
pub const ROTA_E_NOTHING: c_int = -12;
/// Another update has to be committed or rolled back first, or this one cannot be here and now.
pub const ROTA_E_IN_PROGRESS: c_int = -13;
/// The server cannot be reached, refuses the device, or says what is no answer.
pub const ROTA_E_SERVER: c_int = -14;
/// No daemon answers.
pub const ROTA_E_NO_DAEMON: c_int = -15;
/// The update failed: a script, a module, the bootloader that went back.
pub const ROTA_E_FAILED: c_int = -16;
/// There is no such value.
pub const ROTA_E_NO_VALUE: c_int = -17;
/// A fault of this library. The handle takes no further call but rota_free().
pub const ROTA_E_FAULT: c_int = -18;

/// Progress: the payload is being verified and written.
pub const ROTA_WRITING: c_int = 1;
/// Progress: what was written is being read back.
pub const ROTA_READING_BACK: c_int = 2;

/// Gate: before the first byte of an artifact is asked for; of updates that a server ordered.
pub const ROTA_GATE_DOWNLOAD: c_int = 1;
/// Gate: before anything that boots is changed.
pub const ROTA_GATE_INSTALL: c_int = 2;
/// Gate: before the restart into the new software; of updates that a server ordered.
pub const ROTA_GATE_RESTART: c_int = 3;
/// Gate: before the new software becomes permanent.
pub const ROTA_GATE_COMMIT: c_int = 4;

/// A log line about what went wrong.
pub const ROTA_LOG_ERROR: c_int = 1;
/// A log line about what is odd.
pub const ROTA_LOG_WARNING: c_int = 2;
/// A log line about what happens.
pub const ROTA_LOG_INFO: c_int = 3;
/// A log line for whoever looks for a fault.
pub const ROTA_LOG_DEBUG: c_int = 4;

/// Result: the device is as before.
pub const ROTA_NOT_MODIFIED: c_int = 1;
/// Result: installed; it waits for the restart, or for rota_commit() where no restart is needed.
pub const ROTA_INSTALLED: c_int = 2;
/// Result: installed for good.
pub const ROTA_COMMITTED: c_int = 3;
/// Result: the old software is back, or will be after the restart.
pub const ROTA_ROLLED_BACK: c_int = 4;
/// Result: neither the old nor the new software can be vouched for.
pub const ROTA_INCONSISTENT: c_int = 5;
/// Result: stopped on request; rota_resume() goes on with what was verified by then, and what was not is begun anew.
pub const ROTA_INTERRUPTED: c_int = 6;
/// Result: what an update left behind is removed; the device runs what it ran, and nothing is in progress.
pub const ROTA_CLEANED_UP: c_int = 7;

/// Standing: no update is in progress.
pub const ROTA_IDLE: c_int = 0;
/// Standing: an update is being taken in or wound up, or was interrupted at that: rota_resume().
pub const ROTA_WORKING: c_int = 1;
/// Standing: installed and armed; restart the device.
pub const ROTA_AWAITS_RESTART: c_int = 2;
/// Standing: the new software runs on trial: rota_commit(), or the next restart goes back.
pub const ROTA_ON_TRIAL: c_int = 3;
/// Standing: installed without a restart; waits for rota_commit() or rota_roll_back().
pub const ROTA_AWAITS_COMMIT: c_int = 4;
/// Standing: the bootloader went back to the old software; rota_resume() winds the update up.
pub const ROTA_FELL_BACK: c_int = 5;
/// Standing: the update failed or was given up; the old software runs, or will after the restart.
pub const ROTA_GOING_BACK: c_int = 6;
/// Standing: what boots and what is recorded contradict each other; the boot environment wants a look.
pub const ROTA_CONTRADICTORY: c_int = 7;
/// Standing: an update is in progress, and what boots cannot be learned.
pub const ROTA_UNKNOWN: c_int = 8;

/// Flag of rota_roll_back(): after a commit, try what the other slot holds.
pub const ROTA_TO_OTHER_SLOT: u32 = 1;

/// What rota_poll() says of a deployment that came to its end: none did.
pub const ROTA_NONE_ENDED: c_int = 0;
/// What rota_poll() says of a deployment that came to its end: it is installed for good.
pub const ROTA_SUCCEEDED: c_int = 1;
/// What rota_poll() says of a deployment that came to its end: it failed, and the server knows or will be told.
pub const ROTA_FAILED: c_int = 2;

/// The text of a code that functions return, for `rota_code_text`.
pub(crate) fn text_of(code: c_int) -> *const c_char {
    let text = match code {
        ROTA_OK => c"done",
        ROTA_E_ARGUMENT => c"an argument is wrong",
        ROTA_E_ORDER => c"the call is out of order",
        ROTA_E_BUSY => c"the handle is in use",
        ROTA_E_LOCKED => c"another process works on the device",
        ROTA_E_CONFIG => c"the configuration cannot be used",
        ROTA_E_STOPPED => c"stopped on request",
        ROTA_E_SOURCE => c"the artifact could not be read",
        ROTA_E_ARTIFACT => c"the artifact is refused",
        ROTA_E_DEPENDS => c"the artifact is not for this device",
        ROTA_E_DEVICE => c"the device failed",
        ROTA_E_REFUSED => c"a gate refused",
        ROTA_E_NOTHING => c"no update is in progress",
        ROTA_E_IN_PROGRESS => c"not in this state of the update in progress",
        ROTA_E_SERVER => c"the server does not serve this device",
        ROTA_E_NO_DAEMON => c"no daemon answers",
        ROTA_E_FAILED => c"the update failed",
        ROTA_E_NO_VALUE => c"there is no such value",
        ROTA_E_FAULT => c"a fault of the library",
        _ => c"unknown code",
    };
    text.as_ptr()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn every_code_down_to_the_last_has_its_own_text() {
        // SAFETY: each is a literal.
        let text = |code| unsafe { CStr::from_ptr(text_of(code)) }.to_str().unwrap();
        let texts: std::collections::BTreeSet<_> = (ROTA_E_FAULT..=ROTA_OK).map(text).collect();
        assert_eq!(texts.len(), 19, "{texts:?}");
        assert!(!texts.contains("unknown code"));
        assert_eq!((text(1), text(ROTA_E_FAULT - 1)), ("unknown code", "unknown code"));
    }
}

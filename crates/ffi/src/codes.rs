//! The numbers of the C interface: what functions return, and what structures and callbacks say. Numbers are appended, never
//! changed and never used again.

use std::ffi::{c_char, c_int};

macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal $text:literal;)*) => {
        $($(#[doc = $doc])+ pub const $name: c_int = $number;)*

        /// The text of a code that functions return, for `rota_code_text`.
        pub(crate) fn text_of(code: c_int) -> *const c_char {
            let text = match code {
                $($number => concat!($text, "\0"),)*
                _ => "unknown code\0",
            };
            text.as_ptr().cast()
        }
    };
}

numbers! {
    /// It was done.
    ROTA_OK = 0 "done";
    /// An argument is wrong: a null pointer, a structure of another size, a text that is not UTF-8.
    ROTA_E_ARGUMENT = -1 "an argument is wrong";
    /// The call does not come in this order: before rota_open(), or after it.
    ROTA_E_ORDER = -2 "the call is out of order";
    /// Another thread is in a call with this handle, or a callback called back into it.
    ROTA_E_BUSY = -3 "the handle is in use";
    /// Another process works on the device.
    ROTA_E_LOCKED = -4 "another process works on the device";
    /// The configuration, or a key that it names, cannot be used.
    ROTA_E_CONFIG = -5 "the configuration cannot be used";
    /// The program wanted to stop: by a callback, or by rota_stop().
    ROTA_E_STOPPED = -6 "stopped on request";
    /// The artifact could not be read: the file, the network, the read callback.
    ROTA_E_SOURCE = -7 "the artifact could not be read";
    /// The artifact is refused: its signature, its format, its checksums, its limits.
    ROTA_E_ARTIFACT = -8 "the artifact is refused";
    /// The artifact is good and not for this device, or not for what is installed on it.
    ROTA_E_DEPENDS = -9 "the artifact is not for this device";
    /// Slots, boot environment, record or operating system: the device itself.
    ROTA_E_DEVICE = -10 "the device failed";
    /// A gate said no: the gate callback, a health check, a window.
    ROTA_E_REFUSED = -11 "a gate refused";
    /// There is no update in progress.
    ROTA_E_NOTHING = -12 "no update is in progress";
    /// Another update has to be committed or rolled back first, or this one cannot be here and now.
    ROTA_E_IN_PROGRESS = -13 "not in this state of the update in progress";
    /// The server cannot be reached, refuses the device, or says what is no answer.
    ROTA_E_SERVER = -14 "the server does not serve this device";
    /// No daemon answers.
    ROTA_E_NO_DAEMON = -15 "no daemon answers";
    /// The update failed: a script, a module, the bootloader that went back.
    ROTA_E_FAILED = -16 "the update failed";
    /// There is no such value.
    ROTA_E_NO_VALUE = -17 "there is no such value";
    /// A fault of this library. The handle takes no further call but rota_free().
    ROTA_E_FAULT = -18 "a fault of the library";
}

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
/// Result: stopped on request; rota_resume() goes on.
pub const ROTA_INTERRUPTED: c_int = 6;
/// Result: what an earlier update left behind is removed.
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

//! Exit codes, the same as the Mender client's.

use client_core::deploy::{DeployError, Summary};
use device::client::ClientError;

/// Everything went as asked.
pub const SUCCESS: u8 = 0;
/// Anything failed.
pub const FAILURE: u8 = 1;
/// `commit`, `rollback` or `resume` without an update in progress.
pub const NOTHING_IN_PROGRESS: u8 = 2;
/// Success, and the device must be restarted; only with `--reboot-exit-code`.
pub const REBOOT_NEEDED: u8 = 4;

/// The code for the end of a command.
pub fn of_summary(summary: &Summary, reboot_exit_code: bool) -> u8 {
    match (summary.success, summary.needs_reboot && reboot_exit_code) {
        (false, _) => FAILURE,
        (true, true) => REBOOT_NEEDED,
        (true, false) => SUCCESS,
    }
}

/// The code of a command that has no other purpose than to print.
pub fn of_printing(code: u8, all_was_printed: bool) -> u8 {
    if code == SUCCESS && !all_was_printed { FAILURE } else { code }
}

/// The code for a command that could not be carried out.
pub fn of_error(error: &ClientError) -> u8 {
    match error {
        ClientError::Deploy(DeployError::NothingInProgress) => NOTHING_IN_PROGRESS,
        ClientError::Deploy(_) | ClientError::Compose(_) => FAILURE,
    }
}

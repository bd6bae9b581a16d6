//! The server: a round at a time, the daemon's loop as one call, and the status of a daemon that runs elsewhere.

use std::ffi::{c_char, c_int};
use std::sync::Arc;
use std::time::Duration;

use client_core::clock::Clock;
use service::{Round, Service, Supervision, Surroundings, status};

use crate::callbacks::{self, Asked, Told};
use crate::codes::*;
use crate::failure::Failure;
use crate::handle::{Call, call, give, rota_device};
use crate::log_lines::LogsOfHandle;
use crate::structures::{Out, rota_round};

/// One round with the server, for a program that does the waiting: goes on with what an earlier round or process began, sends the
/// inventory when that is due, asks for an update, carries out what the server orders, and reports it. What is ordered is
/// downloaded and installed in this call; progress and gates are told and asked as in an installation of the program's own.
/// Giving up in the progress callback refuses the deployment at its next gate. round may be NULL.
///
/// The first round makes the device key where there is none, and keeps other daemons away until the handle is freed or
/// rota_stop() was called. Where the new software needs a restart, the restart is ordered as the configuration says
/// (RustOta.RebootCommand) and round->restarting is 1; the first round of the next process goes on.
///
/// One thread at a time. Returns ROTA_OK when the server answered; ROTA_E_SERVER when it did not, or something else went
/// wrong that another round may put right (rota_error() says what; round->next_seconds is set); ROTA_E_LOCKED when a daemon
/// runs; ROTA_E_CONFIG without a server or a usable key; ROTA_E_STOPPED.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `round` is NULL or points to a structure whose size is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_poll(device: *mut rota_device, round: *mut rota_round) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let out = Out::new(round).inspect(|out| out.set(|size| of_round(size, &Round::default())));
        call(device, |call| {
            let out = out?;
            let came = service(call)?.round();
            out.set(|size| of_round(size, &came));
            call.remark =
                came.waiting.as_ref().map(|(gate, reason)| format!("waits before {gate}: {reason}"));
            if call.clock.stop_requested() {
                return Err(Failure::new(ROTA_E_STOPPED, "stopped on request"));
            }
            match came {
                Round { error: Some(error), .. } => Err(Failure::new(ROTA_E_SERVER, error)),
                Round { .. } => Ok(ROTA_OK),
            }
        })
    }
}

fn of_round(size: usize, round: &Round) -> rota_round {
    rota_round {
        size,
        next_seconds: whole_seconds(round.next),
        ended: match round.ended {
            None => ROTA_NONE_ENDED,
            Some(false) => ROTA_SUCCEEDED,
            Some(true) => ROTA_FAILED,
        },
        waits_before: round.waiting.as_ref().map_or(0, |(gate, _)| callbacks::number_of(*gate)),
        restarting: c_int::from(round.restarting),
    }
}

/// Not shorter: whoever calls again after it finds something to do.
fn whole_seconds(time: Duration) -> u32 {
    let rounded_up = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(rounded_up).unwrap_or(u32::MAX)
}

/// The daemon: rounds with the waits between them, until rota_stop(). Serves `rust-ota status` on the status socket in a thread
/// of its own, handles no signals, tells no service manager.
///
/// One thread at a time. Returns ROTA_E_STOPPED after rota_stop(); what keeps it from beginning as rota_poll().
///
/// # Safety
/// `device` is NULL or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_run(device: *mut rota_device) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(device, |call| {
            service(call)?.run();
            Err(Failure::new(ROTA_E_STOPPED, "stopped on request"))
        })
    }
}

/// The service of this handle, begun where it is not.
fn service<'c>(call: &'c mut Call<'_>) -> Result<&'c mut Service, Failure> {
    let service = match call.inner.service.take() {
        Some(service) => service,
        None => Service::begin(call.setup()?, surroundings(call))?,
    };
    Ok(call.inner.service.insert(service))
}

fn surroundings(call: &Call<'_>) -> Surroundings {
    Surroundings {
        clock: call.clock.clone(),
        // The process belongs to the program, not to the service: its manager hears nothing of it.
        supervision: Supervision::from_environment(|_| None, Arc::new(call.clock.clone())),
        logs: Box::new(LogsOfHandle { sink: Arc::clone(&call.sink), callbacks: Arc::clone(&call.callbacks) }),
        gate: Some(Box::new(Asked(Arc::clone(&call.callbacks)))),
        observer: Some(Box::new(Told { callbacks: Arc::clone(&call.callbacks), clock: call.clock.clone() })),
    }
}

/// Asks the daemon that runs on this device, in whatever process, what it is doing, and writes the answer to buffer: a JSON
/// object (docs/daemon.md, "Status") with a zero byte at its end, cut to size bytes. Returns how many bytes it has without that
/// zero byte, or ROTA_E_NO_DAEMON.
///
/// One thread at a time; waits a few seconds at most.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `buffer` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_daemon_status(
    device: *mut rota_device,
    buffer: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(device, |call| {
            let status = status::ask(&call.setup()?.status_socket())?;
            Ok(give(&status.to_string(), buffer, size))
        })
    }
}

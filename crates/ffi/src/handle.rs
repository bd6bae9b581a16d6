//! The handle: what it holds, who may use it when, and the door through which every call goes.
//!
//! ```text
//!  rota_new ─ set values, callbacks ─ rota_open ─ calls ─ rota_free
//! ```
//!
//! One call at a time: another thread, or a callback, is refused. Only the error text and the request to stop are for any
//! thread at any time.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client_core::artifact::Reading;
use client_core::clock::Clock;
use device::compose::{Overrides, Setup};
use linux::clock::LinuxClock;
use serde_json::{Map, Value};
use service::Service;

use crate::callbacks::Callbacks;
use crate::codes::*;
use crate::failure::Failure;
use crate::log_lines::{Routed, Sink};
use crate::quiet::WithoutSigpipe;

/// A device: the handle of every call.
pub struct rota_device {
    /// Whether a call is in progress.
    busy: AtomicBool,
    shared: Shared,
    inner: UnsafeCell<Inner>,
}

/// What any thread may touch at any time.
struct Shared {
    callbacks: Arc<Callbacks>,
    sink: Arc<Sink>,
    /// The clock of the call in progress, or of the next one. It says whether somebody wants that to end.
    clock: Mutex<LinuxClock>,
    text: Mutex<String>,
}

/// What belongs to the call in progress.
pub(crate) struct Inner {
    pub(crate) values: Map<String, Value>,
    pub(crate) overrides: Overrides,
    pub(crate) environment: [(&'static str, Option<std::path::PathBuf>); 2],
    pub(crate) reading: Reading,
    pub(crate) setup: Option<Arc<Setup>>,
    pub(crate) service: Option<Service>,
    broken: bool,
}

/// What a call has of its handle.
pub(crate) struct Call<'h> {
    pub(crate) inner: &'h mut Inner,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) sink: Arc<Sink>,
    pub(crate) clock: LinuxClock,
    /// What rota_error() says of a call that went well.
    pub(crate) remark: Option<String>,
}

impl Call<'_> {
    /// The configuration.
    ///
    /// # Errors
    /// Before rota_open().
    pub(crate) fn setup(&self) -> Result<Arc<Setup>, Failure> {
        let unopened = || Failure::new(ROTA_E_ORDER, "rota_open() has not been called, or has failed");
        self.inner.setup.clone().ok_or_else(unopened)
    }
}

impl rota_device {
    pub(crate) fn new() -> rota_device {
        rota_device {
            busy: AtomicBool::new(false),
            shared: Shared {
                callbacks: Arc::new(Callbacks::new()),
                sink: Arc::new(Sink::new()),
                clock: Mutex::default(),
                text: Mutex::default(),
            },
            inner: UnsafeCell::new(Inner {
                values: Map::new(),
                overrides: Overrides::default(),
                environment: [("MENDER_CONF_DIR", None), ("MENDER_DATA_DIR", None)],
                reading: Reading::InTurn,
                setup: None,
                service: None,
                broken: false,
            }),
        }
    }

    pub(crate) fn callbacks(&self) -> &Callbacks {
        &self.shared.callbacks
    }

    pub(crate) fn sink(&self) -> &Sink {
        &self.shared.sink
    }

    /// Whether the handle can be given up now. Afterwards it is never usable again.
    pub(crate) fn close(&self) -> bool {
        !self.busy.swap(true, Ordering::AcqRel)
    }

    /// Ends the call in progress, or the next one.
    pub(crate) fn stop(&self) {
        self.clock().request_stop();
    }

    pub(crate) fn text(&self) -> String {
        self.shared.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn clock(&self) -> MutexGuard<'_, LinuxClock> {
        self.shared.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the text of `failure` for rota_error().
    pub(crate) fn fail(&self, failure: Failure) -> c_int {
        *self.shared.text.lock().unwrap_or_else(PoisonError::into_inner) = failure.text;
        failure.code
    }

    /// Does `work` as the one call in progress. A number below zero, or what `work` returns.
    fn enter(&self, work: impl FnOnce(&mut Call<'_>) -> Result<c_int, Failure>) -> c_int {
        if self.busy.swap(true, Ordering::AcqRel) {
            // The text belongs to the call in progress.
            return ROTA_E_BUSY;
        }
        let _freed = Freed(&self.busy);
        // SAFETY: whoever set `busy` is alone with it until `_freed` is dropped.
        let inner = unsafe { &mut *self.inner.get() };
        if inner.broken {
            return self.fail(Failure::new(ROTA_E_FAULT, "an earlier call met a fault of the library"));
        }
        let (_quiet, _routed) = (WithoutSigpipe::new(), Routed::to(&self.shared.sink));
        let clock = self.clock().clone();
        if self.renew_after_stop(inner) {
            return self.fail(Failure::new(ROTA_E_STOPPED, "stopped on request before it began"));
        }
        self.callbacks().begin();
        let (callbacks, sink) = (Arc::clone(&self.shared.callbacks), Arc::clone(&self.shared.sink));
        let mut call = Call { inner, callbacks, sink, clock, remark: None };
        let done = catch_unwind(AssertUnwindSafe(|| work(&mut call)));
        let Call { inner, remark, .. } = call;
        self.renew_after_stop(inner);
        if let Some(remark) = remark {
            self.fail(Failure::new(ROTA_OK, remark));
        }
        match done {
            Ok(Ok(code)) => code,
            Ok(Err(failure)) => self.fail(failure),
            Err(_) => {
                inner.broken = true;
                self.fail(Failure::new(ROTA_E_FAULT, "a fault of the library: the handle can only be freed"))
            }
        }
    }

    /// Whether somebody wanted the call to end. A clock that was asked to stop stays so, and the service with it: the next
    /// call has others.
    fn renew_after_stop(&self, inner: &mut Inner) -> bool {
        let stopped = {
            let mut clock = self.clock();
            let stopped = clock.stop_requested();
            if stopped {
                *clock = LinuxClock::new();
            }
            stopped
        };
        if stopped {
            // With the clock free: what it says at its end is a line of the log, and the program may stop from there.
            inner.service = None;
        }
        stopped
    }
}

/// Another call may come.
struct Freed<'b>(&'b AtomicBool);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Goes through the door of `device`.
///
/// # Safety
/// `device` is NULL or a handle that was not freed.
pub(crate) unsafe fn call(
    device: *const rota_device,
    work: impl FnOnce(&mut Call<'_>) -> Result<c_int, Failure>,
) -> c_int {
    // SAFETY: as promised; a shared reference, because other threads may have one.
    match unsafe { device.as_ref() } {
        Some(device) => device.enter(work),
        None => ROTA_E_ARGUMENT,
    }
}

/// A text of the program.
///
/// # Safety
/// `text` is NULL or a text that ends with a zero byte.
///
/// # Errors
/// When it is NULL; `name` is what it is called in the header.
pub(crate) unsafe fn bytes<'t>(text: *const c_char, name: &str) -> Result<&'t [u8], Failure> {
    if text.is_null() {
        return Err(Failure::new(ROTA_E_ARGUMENT, format!("{name} is NULL")));
    }
    // SAFETY: as promised.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// The same, where it must be UTF-8.
///
/// # Safety
/// As [`bytes`].
///
/// # Errors
/// When it is NULL or not UTF-8.
pub(crate) unsafe fn text<'t>(text: *const c_char, name: &str) -> Result<&'t str, Failure> {
    // SAFETY: as promised.
    let bytes = unsafe { bytes(text, name) }?;
    std::str::from_utf8(bytes).map_err(|_| Failure::new(ROTA_E_ARGUMENT, format!("{name} is not UTF-8")))
}

/// Writes `text` to `buffer` with a zero byte behind it, cut to `size` bytes and between two characters. How long it is
/// without that byte.
///
/// # Safety
/// `buffer` is NULL or has room for `size` bytes.
pub(crate) unsafe fn give(text: &str, buffer: *mut c_char, size: usize) -> c_int {
    if !buffer.is_null() && size > 0 {
        let mut count = text.len().min(size - 1);
        while !text.is_char_boundary(count) {
            count -= 1;
        }
        // SAFETY: `count` bytes and one more fit, as promised; the two do not overlap.
        unsafe {
            buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), count);
            buffer.add(count).write(0);
        }
    }
    c_int::try_from(text.len()).unwrap_or(c_int::MAX)
}

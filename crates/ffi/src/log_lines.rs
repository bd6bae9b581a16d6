//! Log lines of the client, for the handle in whose call they are made. The library writes them nowhere by itself.
//!
//! The facade that the crates log to is one for the library. Which handle a line is for is remembered for the thread that is in
//! a call; lines of other threads, which are about connections only, go nowhere.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CString, c_int};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use client_core::deploy::DeploymentId;
use client_core::text::printable;
use log::{Level, LevelFilter, Log, Metadata, Record};
use service::{DeploymentInHand, DeploymentLog, Logs};

use crate::callbacks::{Callbacks, User};
use crate::codes::{ROTA_LOG_DEBUG, ROTA_LOG_ERROR, ROTA_LOG_INFO, ROTA_LOG_WARNING};
use crate::structures::rota_log_fn;

/// Where the lines of one handle go.
pub(crate) struct Sink {
    wanted: Mutex<(rota_log_fn, User, c_int)>,
    deployment: Mutex<Option<DeploymentInHand>>,
}

impl Sink {
    pub(crate) fn new() -> Sink {
        static START: Once = Once::new();
        START.call_once(|| {
            // A Rust program that has this library in it keeps its own logger.
            if log::set_logger(&TO_THE_HANDLE).is_ok() {
                log::set_max_level(LevelFilter::Debug);
            }
        });
        Sink { wanted: Mutex::new((None, User(std::ptr::null_mut()), 0)), deployment: Mutex::new(None) }
    }

    /// Lines up to `level` go to `callback`.
    pub(crate) fn set(&self, callback: rota_log_fn, user: User, level: c_int) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = (callback, user, level);
    }

    fn line(&self, level: Level, message: &str) {
        let mut deployment = self.deployment.lock().unwrap_or_else(PoisonError::into_inner);
        let message = deployment.as_ref().map_or(Cow::Borrowed(message), |it| it.labelled(message));
        let (number, name) = match level {
            Level::Error => (ROTA_LOG_ERROR, "error"),
            Level::Warn => (ROTA_LOG_WARNING, "warning"),
            Level::Info => (ROTA_LOG_INFO, "info"),
            Level::Debug | Level::Trace => (ROTA_LOG_DEBUG, "debug"),
        };
        if let Some(deployment) = deployment.as_mut().filter(|_| number <= ROTA_LOG_INFO) {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            deployment.append(name, &message, wall);
        }
        drop(deployment);
        let (callback, user, most) = *self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(callback) = callback.filter(|_| number <= most) {
            // What is printable has no zero byte in it.
            let text = CString::new(printable(&message).into_owned()).unwrap_or_default();
            // SAFETY: the program gave this function for this purpose; the text lives during the call.
            unsafe { callback(user.0, number, text.as_ptr()) };
        }
    }
}

/// What a handle has to do with the log of a deployment, for the service.
pub(crate) struct LogsOfHandle {
    pub(crate) sink: Arc<Sink>,
    pub(crate) callbacks: Arc<Callbacks>,
}

impl Logs for LogsOfHandle {
    fn begin_deployment(&mut self, id: &DeploymentId, log: Option<DeploymentLog>) {
        let deployment = DeploymentInHand::new(id, log);
        *self.sink.deployment.lock().unwrap_or_else(PoisonError::into_inner) = Some(deployment);
    }

    fn end_deployment(&mut self) {
        // It was this deployment that the program gave up, not those that come behind it in the same call.
        self.callbacks.begin();
        *self.sink.deployment.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

thread_local! {
    /// The sinks of the calls that this thread is in, the innermost last.
    static CURRENT: RefCell<Vec<Arc<Sink>>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, lines of this thread go to a sink.
pub(crate) struct Routed;

impl Routed {
    pub(crate) fn to(sink: &Arc<Sink>) -> Routed {
        // A thread that is about to end has no place for it any more.
        let _ = CURRENT.try_with(|current| current.borrow_mut().push(Arc::clone(sink)));
        Routed
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        let _ = CURRENT.try_with(|current| current.borrow_mut().pop());
    }
}

struct ToTheHandle;
static TO_THE_HANDLE: ToTheHandle = ToTheHandle;

impl Log for ToTheHandle {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        let sink = CURRENT.try_with(|current| current.borrow().last().cloned()).ok().flatten();
        if let Some(sink) = sink {
            sink.line(record.level(), &record.args().to_string());
        }
    }

    fn flush(&self) {}
}

//! From nothing to an open handle: values, callbacks, texts.

use std::ffi::{OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use client_core::artifact::Reading;
use device::compose::Setup;
use device::config::{Config, ConfigError, Source};
use device::config_files::{For, Readable};
use serde_json::{Map, Value};

use crate::callbacks::User;
use crate::codes::*;
use crate::failure::Failure;
use crate::handle::{self, Inner, call, give, rota_device};
use crate::structures::{rota_gate_fn, rota_log_fn, rota_progress_fn};

/// Longest value that is taken: what a configuration file may be in all.
const VALUE_BYTES: usize = 1024 * 1024;
/// What a value is called in messages.
const SET: &str = "rota_set()";

/// The version of the library, as `1.2.3`. Never NULL, never freed.
///
/// Any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn rota_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// What a code means, in English. Never NULL, never freed, also for numbers that are no code.
///
/// Any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn rota_code_text(code: c_int) -> *const c_char {
    text_of(code)
}

/// Makes a handle and gives it to *device; rota_free() takes it back. Nothing is opened or read yet.
///
/// Any thread, at any time. Two handles know nothing of each other; that only one of them works on a device at a time, the
/// lock of the device sees to, as between processes.
///
/// Returns ROTA_OK, or ROTA_E_ARGUMENT when device is NULL.
///
/// # Safety
/// `device` is NULL or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_new(device: *mut *mut rota_device) -> c_int {
    if device.is_null() {
        return ROTA_E_ARGUMENT;
    }
    // SAFETY: there is room for a pointer, as promised.
    unsafe { device.write(Box::into_raw(Box::new(rota_device::new()))) };
    ROTA_OK
}

/// Takes a handle back: closes what it has open, and frees it. NULL is fine.
///
/// No other call with the handle may come after it or at the same time. Returns ROTA_OK, or ROTA_E_BUSY, and frees nothing,
/// while a call is in progress (from a callback, for example).
///
/// # Safety
/// `device` is NULL or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_free(device: *mut rota_device) -> c_int {
    // SAFETY: as promised.
    let Some(handle) = (unsafe { device.as_ref() }) else { return ROTA_OK };
    if !handle.close() {
        return ROTA_E_BUSY;
    }
    // SAFETY: it came from a box in `rota_new`, and no call is in progress or can begin.
    drop(unsafe { Box::from_raw(device) });
    ROTA_OK
}

/// Sets a value, before rota_open(). Values win over those of configuration files.
///
/// key is a key of mender.conf (docs/configuration.md), in any letter case, keys inside of an object with a point:
/// "RootfsPartA", "RustOta.Bootloader". value is the text itself where the key takes text, and JSON where it takes
/// something else: "true", "1800", a list of strings. A key that there is not and a value of the wrong kind are refused
/// at once.
///
/// Or key is one of these, and value a path:
/// "path.config" is the configuration file, which must be there then (otherwise /etc/mender/mender.conf where it is there),
/// "path.fallback-config" the one under it (mender.conf in the datastore), "path.datastore" the directory of the state
/// (/var/lib/mender), "path.conf-dir" the directory of the configuration (/etc/mender), "path.data-dir" that of update modules
/// and inventory programs (/usr/share/mender).
///
/// "threads" is "no" (the default: nothing of an installation runs in a thread of the library) or "yes": threads read and
/// decode ahead, which is faster; then a read callback is called in another thread than that of the call.
///
/// One thread at a time. Returns ROTA_OK, ROTA_E_ARGUMENT, ROTA_E_ORDER after rota_open(), ROTA_E_CONFIG.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `key` and `value` are NULL or end with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_set(
    device: *mut rota_device,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(device, |call| {
            let key = handle::text(key, "key")?;
            let value = handle::bytes(value, "value")?;
            set(call.inner, key, value).map(|()| ROTA_OK)
        })
    }
}

fn set(inner: &mut Inner, key: &str, value: &[u8]) -> Result<(), Failure> {
    if inner.setup.is_some() {
        return Err(Failure::new(ROTA_E_ORDER, "values are set before rota_open()"));
    }
    let path = || PathBuf::from(OsStr::from_bytes(value));
    match key {
        "path.config" => inner.overrides.config = Some(path()),
        "path.fallback-config" => inner.overrides.fallback_config = Some(path()),
        "path.datastore" => inner.overrides.datastore = Some(path()),
        "path.conf-dir" => inner.environment[0].1 = Some(path()),
        "path.data-dir" => inner.environment[1].1 = Some(path()),
        "threads" => {
            inner.reading = match value {
                b"no" => Reading::InTurn,
                b"yes" => Reading::Ahead,
                _ => return Err(Failure::new(ROTA_E_ARGUMENT, "threads is \"yes\" or \"no\"")),
            }
        }
        key => set_configuration(&mut inner.values, key, value)?,
    }
    Ok(())
}

/// Lays a key of the configuration over what is there.
fn set_configuration(values: &mut Map<String, Value>, key: &str, value: &[u8]) -> Result<(), Failure> {
    let not_text = |_| Failure::new(ROTA_E_ARGUMENT, "value is not UTF-8");
    let value = std::str::from_utf8(value).map_err(not_text)?;
    if value.len() > VALUE_BYTES {
        return Err(Failure::new(ROTA_E_ARGUMENT, format!("value is longer than {VALUE_BYTES} bytes")));
    }
    let as_text = Value::String(value.to_owned());
    let value = match problem(key, &as_text) {
        None => as_text,
        Some(refused) => match serde_json::from_str(value) {
            // Not text: something else, if it is that.
            Ok(json) => match problem(key, &json) {
                None => json,
                Some(refused) => return Err(refused),
            },
            Err(_) => return Err(refused),
        },
    };
    match key.split_once('.') {
        None => put(values, key, value),
        Some((object, key)) => {
            let mut inside = match take(values, object) {
                Some(Value::Object(inside)) => inside,
                Some(_) | None => Map::new(),
            };
            put(&mut inside, key, value);
            values.insert(object.to_owned(), Value::Object(inside));
        }
    }
    Ok(())
}

fn put(values: &mut Map<String, Value>, key: &str, value: Value) {
    take(values, key);
    values.insert(key.to_owned(), value);
}

/// Keys are the same in any letter case.
fn take(values: &mut Map<String, Value>, key: &str) -> Option<Value> {
    let known = values.keys().find(|known| known.eq_ignore_ascii_case(key)).cloned()?;
    values.remove(&known)
}

/// Why `key` cannot have `value`, by itself: what it means together with others is looked at when all are there.
fn problem(key: &str, value: &Value) -> Option<Failure> {
    let document = match key.split_once('.') {
        None => serde_json::json!({ key: value }),
        Some((object, key)) => serde_json::json!({ object: { key: value } }),
    };
    let content = document.to_string();
    let refused = |text: String| Some(Failure::new(ROTA_E_CONFIG, text));
    match Config::parse(&[Source { name: SET, content: content.as_bytes() }]) {
        Ok(config) => config.warnings.into_iter().next().and_then(refused),
        Err(ConfigError::Conflict { .. } | ConfigError::Incomplete { .. }) => None,
        Err(error) => refused(error.to_string()),
    }
}

/// Reads the configuration. Takes no lock, and opens nothing of the device. After it, values cannot be set any more; when it
/// fails they can, and it may be called again.
///
/// One thread at a time. Returns ROTA_OK, ROTA_E_ORDER when the handle is open already, ROTA_E_CONFIG, ROTA_E_DEVICE.
///
/// # Safety
/// `device` is NULL or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_open(device: *mut rota_device) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(device, |call| {
            if call.inner.setup.is_some() {
                return Err(Failure::new(ROTA_E_ORDER, "the handle is open"));
            }
            let inner = &mut *call.inner;
            inner.overrides.values =
                (!inner.values.is_empty()).then(|| Value::Object(inner.values.clone()).to_string());
            let environment = inner.environment.clone();
            let path = |name: &str| environment.iter().find(|(known, _)| *known == name)?.1.clone();
            let setup = Setup::load(&inner.overrides, For::Command, Readable::ByThisUser, path)?;
            for warning in &setup.config.warnings {
                log::warn!("{warning}");
            }
            inner.setup = Some(Arc::new(setup));
            Ok(ROTA_OK)
        })
    }
}

/// Writes why the last call with this handle failed to buffer, with a zero byte at its end, cut to size bytes between two
/// characters. Returns how many bytes it has without that zero byte; 0 when none failed yet. UTF-8.
///
/// Any thread, at any time. Of ROTA_E_BUSY there is no text: the text is that of the call in progress.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `buffer` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_error(device: *const rota_device, buffer: *mut c_char, size: usize) -> c_int {
    // SAFETY: as promised.
    match unsafe { device.as_ref() } {
        // SAFETY: as promised.
        Some(device) => unsafe { give(&device.text(), buffer, size) },
        None => ROTA_E_ARGUMENT,
    }
}

/// Has callback told how installations go; NULL ends that. user is handed back to it.
///
/// Any thread, at any time; a call in progress takes it up. The program keeps what user points to until the callback is
/// replaced, or the handle freed.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `callback` may be called with `user` in every later call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_on_progress(
    device: *mut rota_device,
    callback: rota_progress_fn,
    user: *mut c_void,
) -> c_int {
    // SAFETY: as promised.
    let Some(device) = (unsafe { device.as_ref() }) else { return ROTA_E_ARGUMENT };
    device.callbacks().change(|wanted| {
        wanted.progress = callback;
        wanted.progress_user = User(user);
    });
    ROTA_OK
}

/// Has callback asked before each gate; NULL ends that. user is handed back to it. What the configuration asks (health check,
/// maintenance window, questions) is asked after it.
///
/// Threads and memory as rota_on_progress().
///
/// # Safety
/// As `rota_on_progress`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_on_gate(
    device: *mut rota_device,
    callback: rota_gate_fn,
    user: *mut c_void,
) -> c_int {
    // SAFETY: as promised.
    let Some(device) = (unsafe { device.as_ref() }) else { return ROTA_E_ARGUMENT };
    device.callbacks().change(|wanted| {
        wanted.gate = callback;
        wanted.gate_user = User(user);
    });
    ROTA_OK
}

/// Has callback called with the lines of the log up to level (ROTA_LOG_...); NULL ends that. user is handed back to it. The
/// library writes to no log by itself, but the log of each deployment of a server.
///
/// Threads and memory as rota_on_progress(). Returns ROTA_OK, or ROTA_E_ARGUMENT for a level that there is not.
///
/// # Safety
/// As `rota_on_progress`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_on_log(
    device: *mut rota_device,
    level: c_int,
    callback: rota_log_fn,
    user: *mut c_void,
) -> c_int {
    // SAFETY: as promised.
    let Some(device) = (unsafe { device.as_ref() }) else { return ROTA_E_ARGUMENT };
    if callback.is_some() && !(ROTA_LOG_ERROR..=ROTA_LOG_DEBUG).contains(&level) {
        return device.fail(Failure::new(ROTA_E_ARGUMENT, format!("there is no log level {level}")));
    }
    device.sink().set(callback, User(user), level);
    ROTA_OK
}

/// Ends the call in progress, or the next one where there is none: at the next step that may be interrupted, as a daemon is
/// ended by its service manager. An update that was begun is gone on with by rota_resume(), rota_poll() or rota_run(). A
/// callback of the program that does not return is not ended. The call that is ended returns ROTA_E_STOPPED, whichever it is.
///
/// Any thread, at any time; not in a signal handler. Returns ROTA_OK, or ROTA_E_ARGUMENT when device is NULL.
///
/// # Safety
/// `device` is NULL or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_stop(device: *mut rota_device) -> c_int {
    // SAFETY: as promised.
    match unsafe { device.as_ref() } {
        Some(device) => device.stop(),
        None => return ROTA_E_ARGUMENT,
    }
    ROTA_OK
}

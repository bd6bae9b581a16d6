//! Installing, committing, going back, and looking.

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use client_core::artifact::Supply;
use client_core::clock::Clock;
use client_core::deploy::{self, DeployError, Options, Standing, Status, Summary};
use client_core::slot::{Slot, System};
use device::artifact_file;
use device::client::{Client, ClientError};
use device::compose::Setup;

use crate::callbacks::{Asked, FromCallback, Lent, Over, TakenBack, Told, Until, User};
use crate::codes::*;
use crate::failure::{Failure, Stopped};
use crate::handle::{self, Call, call, give, rota_device};
use crate::structures::{Out, rota_pair_fn, rota_read_fn, rota_result, rota_state};

/// Installs the artifact in the file path.
///
/// Verifies it, writes it to the slot that does not run (or has its payload's handler do what that does), reads it back and
/// arms the bootloader for one trial. Then restart the device, and rota_commit() in the new software. result may be NULL.
///
/// One thread at a time. Returns ROTA_OK or a code below zero; then nothing is armed, and result says how the device was left.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `path` is NULL or ends with a zero byte; `result` is NULL or points to a
/// structure whose size is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_install_path(
    device: *mut rota_device,
    path: *const c_char,
    result: *mut rota_result,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let out = not_begun(result);
        call(device, |call| {
            let out = out?;
            let path = Path::new(OsStr::from_bytes(handle::bytes(path, "path")?));
            install(call, &out, &mut |_| open_file(path))
        })
    }
}

/// Installs the artifact that can be read from the descriptor fd: a file, a pipe, a socket, from where it stands. The
/// descriptor stays the caller's. For the rest see rota_install_path().
///
/// # Safety
/// As `rota_install_path`; `fd` is not closed during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_install_fd(
    device: *mut rota_device,
    fd: c_int,
    result: *mut rota_result,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let out = not_begun(result);
        call(device, |call| {
            let out = out?;
            let mut source = Some(duplicate(fd)?);
            install(call, &out, &mut |_| once(source.take()))
        })
    }
}

/// Installs the artifact that read gives, in pieces, one call after the other, in the order of its bytes. user is handed back
/// to it. For the rest see rota_install_path().
///
/// # Safety
/// As `rota_install_path`; `read` may be called with `user` until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_install_read(
    device: *mut rota_device,
    read: rota_read_fn,
    user: *mut c_void,
    result: *mut rota_result,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let out = not_begun(result);
        call(device, |call| {
            let out = out?;
            if read.is_none() {
                return Err(Failure::new(ROTA_E_ARGUMENT, "read is NULL"));
            }
            let lent = Lent::new(read);
            let _taken_back = TakenBack(Arc::clone(&lent));
            let mut source = Some(FromCallback { read: lent, user: User(user) });
            install(call, &out, &mut |_| once(source.take()))
        })
    }
}

/// Downloads and installs the artifact at the address url, http:// or https://, and goes on with a transfer that broke off.
/// Names are resolved in threads of their own, in which nothing of the program runs. For the rest see rota_install_path().
///
/// # Safety
/// As `rota_install_path`, with `url` for `path`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_install_url(
    device: *mut rota_device,
    url: *const c_char,
    result: *mut rota_result,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let out = not_begun(result);
        call(device, |call| {
            let out = out?;
            let url = handle::text(url, "url")?;
            let is_web = ["http://", "https://"].iter().any(|scheme| {
                url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            });
            if !is_web {
                let text = "url does not begin with http:// or https://";
                return Err(Failure::new(ROTA_E_ARGUMENT, text));
            }
            install(call, &out, &mut |setup| setup.open_url(url))
        })
    }
}

/// Makes the running trial permanent, or what was installed without a restart. result may be NULL.
///
/// One thread at a time. Returns ROTA_OK or a code below zero: ROTA_E_NOTHING when no update is in progress,
/// ROTA_E_IN_PROGRESS before the restart, ROTA_E_FAILED when the bootloader went back.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `result` is NULL or points to a structure whose size is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_commit(device: *mut rota_device, result: *mut rota_result) -> c_int {
    // SAFETY: as promised.
    unsafe { work(device, result, |client| client.commit(&Options::default())) }
}

/// Gives up what is not committed: goes back to the old software, now or with the next restart. With ROTA_TO_OTHER_SLOT in
/// flags, after a commit: tries what the other slot holds, if that is still what was committed there.
///
/// For the rest see rota_commit().
///
/// # Safety
/// As `rota_commit`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_roll_back(
    device: *mut rota_device,
    flags: u32,
    result: *mut rota_result,
) -> c_int {
    let options = Options::default();
    // SAFETY: as promised.
    unsafe {
        match flags {
            0 => work(device, result, |client| client.roll_back(&options)),
            ROTA_TO_OTHER_SLOT => work(device, result, |client| client.try_other_slot(&options)),
            _ => {
                let out = not_begun(result);
                call(device, |_| {
                    out?;
                    Err(Failure::new(ROTA_E_ARGUMENT, format!("there is no flag {flags:#x}")))
                })
            }
        }
    }
}

/// Goes on with an update that was interrupted: by a power cut, by rota_stop(), by the end of a process. What is done is decided
/// by the boot environment.
///
/// For the rest see rota_commit().
///
/// # Safety
/// As `rota_commit`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_resume(device: *mut rota_device, result: *mut rota_result) -> c_int {
    // SAFETY: as promised.
    unsafe { work(device, result, |client| client.resume(&Options::default())) }
}

/// Says how the device stands. Opens nothing for writing, takes no lock and waits for nobody, so that it can be asked beside a
/// daemon, by every user who may read the state.
///
/// One thread at a time. Returns ROTA_OK, ROTA_E_ARGUMENT, ROTA_E_ORDER, ROTA_E_DEVICE.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `state` is NULL or points to a structure whose size is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_look(device: *mut rota_device, state: *mut rota_state) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(device, |call| {
            let out = Out::new(state)?;
            call.remark = look(&*call.setup()?, &out)?;
            Ok(ROTA_OK)
        })
    }
}

/// Why the record was lost, if it was.
fn look(setup: &Setup, out: &Out<rota_state>) -> Result<Option<String>, Failure> {
    let record = setup.installed()?;
    let system = setup.system();
    let told = |what: &str, error: &dyn std::fmt::Display| log::debug!("{what} cannot be told: {error}");
    let running = system.running_slot().inspect_err(|error| told("which slot runs", error)).ok();
    let boot = setup.boot_state().inspect_err(|error| told("what boots", error)).ok();
    out.set(|size| rota_state {
        size,
        standing: number_of(deploy::standing(&record, boot, running)),
        running_slot: running.map_or(0, letter),
        next_slot: boot.map_or(0, |boot| letter(boot.selected)),
        record_lost: c_int::from(record.lost.is_some()),
    });
    Ok(record.lost.map(|lost| lost.reason))
}

fn letter(slot: Slot) -> c_int {
    match slot {
        Slot::A => c_int::from(b'A'),
        Slot::B => c_int::from(b'B'),
    }
}

fn number_of(standing: Standing) -> c_int {
    match standing {
        Standing::Idle => ROTA_IDLE,
        Standing::Busy => ROTA_WORKING,
        Standing::AwaitsRestart => ROTA_AWAITS_RESTART,
        Standing::OnTrial => ROTA_ON_TRIAL,
        Standing::AwaitsCommit => ROTA_AWAITS_COMMIT,
        Standing::FellBack => ROTA_FELL_BACK,
        Standing::GoingBack => ROTA_GOING_BACK,
        Standing::Contradictory => ROTA_CONTRADICTORY,
        // Also what later releases of the engine may know.
        Standing::Unknown | _ => ROTA_UNKNOWN,
    }
}

/// Writes one value to buffer, with a zero byte at its end, cut to size bytes: "device_type", or a key that the installed
/// artifacts provide, such as "artifact_name" or "rootfs-image.version". Returns how many bytes it has without that zero byte,
/// or ROTA_E_NO_VALUE. Looks as rota_look() does. UTF-8.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `key` is NULL or ends with a zero byte; `buffer` is NULL or has room for
/// `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_get(
    device: *mut rota_device,
    key: *const c_char,
    buffer: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(device, |call| {
            let (setup, key) = (call.setup()?, handle::text(key, "key")?);
            let value = match key {
                "device_type" => setup.system().device_type().map_err(|e| Failure::new(ROTA_E_DEVICE, e))?,
                key => {
                    let record = setup.installed()?;
                    let value = record.installed.all().get(key).map(|value| (*value).to_owned());
                    let missing = || Failure::new(ROTA_E_NO_VALUE, format!("nothing provides {key}"));
                    value.ok_or_else(missing)?
                }
            };
            Ok(give(&value, buffer, size))
        })
    }
}

/// Calls pair with each key and value that the installed artifacts provide, by name, until it returns something else than 0.
/// Looks as rota_look() does.
///
/// One thread at a time. Returns ROTA_OK, ROTA_E_STOPPED when the callback did not want all, or another code below zero.
///
/// # Safety
/// `device` is NULL or a handle that was not freed; `pair` may be called with `user` until this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rota_provides(
    device: *mut rota_device,
    pair: rota_pair_fn,
    user: *mut c_void,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        call(device, |call| {
            let callback = pair.ok_or_else(|| Failure::new(ROTA_E_ARGUMENT, "pair is NULL"))?;
            let record = call.setup()?.installed()?;
            for (key, value) in record.installed.all() {
                // A text from outside with a zero byte in it is cut there.
                let text =
                    |text: &str| CString::new(text.split('\0').next().unwrap_or("")).unwrap_or_default();
                let (key, value) = (text(key), text(value));
                if callback(user, key.as_ptr(), value.as_ptr()) != 0 {
                    return Err(Failure::new(ROTA_E_STOPPED, "the callback wanted no more"));
                }
            }
            Ok(ROTA_OK)
        })
    }
}

/// The result of a call that has not begun, as it stays where it does not.
///
/// # Safety
/// As [`Out::new`].
unsafe fn not_begun(result: *mut rota_result) -> Result<Out<rota_result>, Failure> {
    // SAFETY: as promised.
    let out = unsafe { Out::new(result) }?;
    out.set(|size| rota_result { size, outcome: 0, needs_restart: 0 });
    Ok(out)
}

/// # Safety
/// `device` and `result` as in `rota_commit`.
unsafe fn work(
    device: *mut rota_device,
    result: *mut rota_result,
    work: impl FnOnce(&mut Client<'_>) -> Result<Summary, ClientError>,
) -> c_int {
    // SAFETY: as promised.
    unsafe {
        let out = not_begun(result);
        call(device, |call| {
            let out = out?;
            with_client(call, &out, Took::Rest, work)
        })
    }
}

fn install(
    call: &mut Call<'_>,
    out: &Out<rota_result>,
    open: &mut dyn FnMut(&Setup) -> io::Result<Supply>,
) -> Result<c_int, Failure> {
    let setup = call.setup()?;
    let (callbacks, clock) = (Arc::clone(&call.callbacks), call.clock.clone());
    let over = Over(Arc::default());
    let mut open = || {
        let (callbacks, clock, over) = (Arc::clone(&callbacks), clock.clone(), Arc::clone(&over.0));
        Ok(Until { callbacks, clock, over }.stoppable(open(&setup)?))
    };
    with_client(call, out, Took::Install, |client| client.install(&mut open, &Options::default()))
}

/// What a call takes the device for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Took {
    Install,
    /// Something behind an installation.
    Rest,
}

fn with_client(
    call: &mut Call<'_>,
    out: &Out<rota_result>,
    took: Took,
    work: impl FnOnce(&mut Client<'_>) -> Result<Summary, ClientError>,
) -> Result<c_int, Failure> {
    let setup = call.setup()?;
    let clock: Arc<dyn Clock> = Arc::new(call.clock.clone());
    let mut told = Told { callbacks: Arc::clone(&call.callbacks), clock: call.clock.clone() };
    let mut asked = Asked(Arc::clone(&call.callbacks));
    let mut client =
        Client::open_with(&setup, &mut told, clock)?.asking(&mut asked).reading(call.inner.reading);
    let summary = work(&mut client)?;
    // What is committed after its restart needs no other; what is committed as it is installed may.
    let over = summary.status == Status::Committed && took == Took::Rest;
    out.set(|size| rota_result {
        size,
        outcome: outcome(summary.status),
        needs_restart: c_int::from(summary.needs_reboot && !over),
    });
    match &summary.error {
        // Behind the last byte of the artifact it is a gate that says so.
        Some(DeployError::Refused { .. }) if call.callbacks.is_given_up() => {
            Err(Failure::new(ROTA_E_STOPPED, Stopped))
        }
        Some(error) => Err(error.into()),
        None if summary.status == Status::Interrupted => {
            Err(Failure::new(ROTA_E_STOPPED, "stopped on request; rota_resume() goes on"))
        }
        None if !summary.success => Err(Failure::new(ROTA_E_FAILED, "the update failed")),
        None => Ok(ROTA_OK),
    }
}

fn outcome(status: Status) -> c_int {
    match status {
        Status::NotModified => ROTA_NOT_MODIFIED,
        Status::Installed | Status::Streamed | Status::Stopped | Status::Held | Status::Rebooting => {
            ROTA_INSTALLED
        }
        Status::Committed => ROTA_COMMITTED,
        Status::RolledBack => ROTA_ROLLED_BACK,
        Status::Inconsistent => ROTA_INCONSISTENT,
        Status::CleanedUp => ROTA_CLEANED_UP,
        Status::Interrupted => ROTA_INTERRUPTED,
        // What later releases of the engine may know is not claimed to be anything.
        _ => ROTA_INCONSISTENT,
    }
}

fn open_file(path: &Path) -> io::Result<Supply> {
    File::open(path)
        .and_then(artifact_file::supply)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display())))
}

/// A descriptor of our own for what the caller's leads to.
fn duplicate(fd: RawFd) -> Result<File, Failure> {
    let refused =
        |reason: &dyn std::fmt::Display| Failure::new(ROTA_E_ARGUMENT, format!("fd {fd}: {reason}"));
    if fd < 0 {
        return Err(refused(&"it is no descriptor"));
    }
    // SAFETY: the caller promised not to close it; one that is not open is refused by the system.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map(File::from).map_err(|error| refused(&error))
}

/// What can be read once only.
fn once<R: Read + Send + 'static>(source: Option<R>) -> io::Result<Supply> {
    match source {
        Some(source) => Ok(source.into()),
        None => Err(io::Error::other("what was read once cannot be read again")),
    }
}

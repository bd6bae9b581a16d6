//! The time of the week where the device is, for maintenance windows.

use std::io;
use std::time::Duration;

use client_core::deploy::gates::WeekTime;

/// The time of the week in the time zone of the device (`TZ`, `/etc/localtime`) at `wall` since 1970, UTC.
///
/// # Errors
/// When the C library cannot tell.
pub fn local(wall: Duration) -> io::Result<WeekTime> {
    // Its type is that of the C library's clock, which the call below says.
    let seconds = wall.as_secs().try_into().map_err(io::Error::other)?;
    // SAFETY: a `tm` is plain data, for which zeros are a value.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of this function, and the call keeps neither.
    let filled = unsafe { libc::localtime_r(&seconds, &mut broken_down) };
    if filled.is_null() {
        return Err(io::Error::last_os_error());
    }
    let part = |value: libc::c_int| u32::try_from(value).unwrap_or(0);
    let second = part(broken_down.tm_hour) * 3600 + part(broken_down.tm_min) * 60 + part(broken_down.tm_sec);
    // The C library counts from Sunday.
    Ok(WeekTime { weekday: (part(broken_down.tm_wday) + 6) % 7, second })
}

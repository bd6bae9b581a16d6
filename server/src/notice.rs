//! What the service manager hears, in the protocol of `sd_notify`: one datagram a message.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Whoever has started the program, if it wants to hear of it.
#[derive(Debug)]
pub(crate) struct ServiceNotice(Option<(UnixDatagram, SocketAddr)>);

impl ServiceNotice {
    /// The one that `NOTIFY_SOCKET` names.
    pub(crate) fn of_environment() -> ServiceNotice {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let Some(name) = name else { return ServiceNotice(None) };
        match reach(&name) {
            Ok(reached) => ServiceNotice(Some(reached)),
            Err(error) => {
                log::warn!("the service manager cannot be reached: {error}");
                ServiceNotice(None)
            }
        }
    }

    /// Says something. A manager that does not listen keeps no server from its work.
    pub(crate) fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            log::warn!("the service manager did not hear {message:?}: {error}");
        }
    }

    /// Says that what was read at the start is read anew, with the time that the manager compares its own with.
    pub(crate) fn tell_reloading(&self) {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }
}

fn reach(name: &OsStr) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let socket = UnixDatagram::unbound()?;
    let address = match name.as_bytes().split_first() {
        // A name in the abstract space.
        Some((b'@', rest)) => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(rest)?
        }
        _ => SocketAddr::from_pathname(name)?,
    };
    Ok((socket, address))
}

//! What the standard library does not tell about local sockets.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

/// Whether the process on the other side of `stream` belongs to the user of this process, or to root.
///
/// # Errors
/// When the kernel does not tell.
pub fn peer_is_trusted(stream: &UnixStream) -> io::Result<bool> {
    let peer = getsockopt(stream, PeerCredentials)?;
    Ok(peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

/// What is waited for on one socket. That it broke is told in any case.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'fd> {
    /// The socket.
    pub socket: BorrowedFd<'fd>,
    /// Bytes, a connection, or the end of them.
    pub read: bool,
    /// Room for bytes.
    pub write: bool,
}

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// Something can be read, if that was wanted.
    pub read: bool,
    /// Something can be written, if that was wanted.
    pub write: bool,
    /// It is of no use any more, in either direction.
    pub broken: bool,
}

/// Waits until something of `wanted` is there, at most for `time`, rounded up to a millisecond. A signal may end
/// the wait early. Says in the same order what is there.
///
/// # Errors
/// When the kernel refuses.
pub fn wait(wanted: &[Wanted<'_>], time: Duration) -> io::Result<Vec<Ready>> {
    let flag = |wanted: bool, flag: PollFlags| if wanted { flag } else { PollFlags::empty() };
    let events = wanted.iter().map(|wanted| {
        let flags = flag(wanted.read, PollFlags::POLLIN) | flag(wanted.write, PollFlags::POLLOUT);
        PollFd::new(wanted.socket, flags)
    });
    let mut polled: Vec<PollFd<'_>> = events.collect();
    let milliseconds = time.as_nanos().div_ceil(1_000_000);
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(vec![Ready::default(); wanted.len()]),
        Err(error) => return Err(error.into()),
    }
    let ready = |polled: &PollFd<'_>| {
        let has = |flags| polled.revents().is_some_and(|events| events.intersects(flags));
        let broken = has(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL);
        Ready { read: has(PollFlags::POLLIN), write: has(PollFlags::POLLOUT), broken }
    };
    Ok(polled.iter().map(ready).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn this_process_trusts_itself() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(peer_is_trusted(&one).unwrap());
    }

    #[test]
    fn a_wait_tells_what_is_there() {
        let (one, other) = UnixStream::pair().unwrap();
        let both = |time| {
            let wanted = Wanted { socket: one.as_fd(), read: true, write: false };
            wait(&[wanted, Wanted { write: true, ..wanted }], time).unwrap()
        };
        let nothing = Ready::default();
        assert_eq!(both(Duration::from_micros(1)), [nothing, Ready { write: true, ..nothing }]);
        (&other).write_all(b"x").unwrap();
        let long = Duration::from_secs(600);
        assert_eq!(both(long)[0], Ready { read: true, ..nothing });
        drop(other);
        assert!(both(long)[0].broken);
    }
}

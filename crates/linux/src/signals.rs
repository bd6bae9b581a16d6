//! Signals of the process as events of its clock, and the last resort of a stop.
//!
//! The handlers only write the number of the signal to a pipe; a thread reads it there. Handlers, other than a mask of
//! blocked signals, are not inherited by the programs that this process starts.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::pipe2;

use crate::clock::LinuxClock;
use crate::process;
use crate::process_group;

/// How long an orderly stop may take. Whoever stops the daemon was promised two seconds.
const STOP_WITHIN: Duration = Duration::from_millis(1800);

/// How long a line about the stop may take to be logged.
const LOG_WITHIN: Duration = Duration::from_millis(100);

const HANDLED: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// The end of the pipe that the handlers write to. Never closed: a handler may run at any time.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Signals are handled as long as the process lives. While this value lives too, a stop that takes too long ends the
/// process.
#[derive(Debug)]
pub struct SignalGuard {
    /// Dropping it says that the stop is complete.
    _alive: mpsc::Sender<()>,
}

/// Turns SIGTERM, SIGINT and SIGQUIT into a request to stop, SIGUSR1 into [`CheckUpdate`] and SIGUSR2 into
/// [`SendInventory`]. Call it once, before other threads start.
///
/// A process that was asked to stop and still runs after 1.8 s is ended with success: every durable step survives a
/// power cut, so it survives that too. The programs it had started are killed first.
///
/// [`CheckUpdate`]: client_core::clock::Wake::CheckUpdate
/// [`SendInventory`]: client_core::clock::Wake::SendInventory
///
/// # Errors
/// When the system refuses.
pub fn handle(clock: &LinuxClock) -> io::Result<SignalGuard> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let mut reader = File::from(reader);
    // A full pipe must not block a handler. Nothing is lost: the events that matter are in it many times then.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    PIPE.store(writer.into_raw_fd(), Ordering::Release);

    let (alive, ended) = mpsc::channel::<()>();
    let clock = clock.clone();
    let listen = move || {
        let mut number = [0];
        while reader.read_exact(&mut number).is_ok() {
            match Signal::try_from(i32::from(number[0])) {
                Ok(Signal::SIGUSR1) => clock.request_check_update(),
                Ok(Signal::SIGUSR2) => clock.request_send_inventory(),
                Ok(signal) => {
                    // Before the stop: the process may be gone right after it, and the line with it.
                    say(format!("asked to stop by {signal}"));
                    clock.request_stop();
                    process_group::terminate_all();
                    if ended.recv_timeout(STOP_WITHIN) == Err(mpsc::RecvTimeoutError::Timeout) {
                        process_group::kill_all();
                        say("the stop takes too long: ending at once".into());
                        process::exit_now();
                    }
                }
                Err(_) => {}
            }
        }
    };
    thread::Builder::new().name("signals".into()).stack_size(process_group::SMALL_STACK).spawn(listen)?;

    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    let mut wanted = SigSet::empty();
    for signal in HANDLED {
        wanted.add(signal);
        // SAFETY: the handler calls nothing but `write` and atomics, which are safe in a handler.
        unsafe { sigaction(signal, &action) }?;
    }
    // Whoever started this process may have blocked them.
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&wanted), None)?;
    Ok(SignalGuard { _alive: alive })
}

/// Logs without being held up: whoever reads the log may be what does not go on.
fn say(message: String) {
    let (sender, said) = mpsc::channel();
    let log = move || {
        log::info!("{message}");
        let _ = sender.send(());
    };
    if thread::Builder::new().stack_size(process_group::SMALL_STACK).spawn(log).is_ok() {
        let _ = said.recv_timeout(LOG_WITHIN);
    }
}

extern "C" fn on_signal(number: libc::c_int) {
    let byte = u8::try_from(number).unwrap_or_default();
    // SAFETY: `write` is allowed in a handler, and the pointer is to one byte that lives. What the handler
    // interrupted finds its `errno` again.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(PIPE.load(Ordering::Acquire), std::ptr::from_ref(&byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use client_core::clock::{Clock, Paused, Waiter, Wake};
    use nix::sys::signal::{kill, raise};
    use nix::unistd::Pid;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const CHILD: &str = "RUST_OTA_TEST_SIGNALS";

    /// One test for all: handlers belong to the process, and the tests of this crate run in one.
    #[test]
    fn signals_become_events_and_are_not_passed_on() {
        let clock = LinuxClock::new();
        let mut waiter = clock.waiter();
        let guard = handle(&clock).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        assert_eq!(waiter.wait(LONG), Wake::CheckUpdate);
        raise(Signal::SIGUSR2).unwrap();
        assert_eq!(waiter.wait(LONG), Wake::SendInventory);
        let status = Command::new("sh").args(["-c", "kill -USR1 $$; exit 0"]).status().unwrap();
        assert!(!status.success(), "a child has the default action");
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(waiter.wait(LONG), Wake::Stop);
        drop(guard);
    }

    /// The program for the next test: it does not listen.
    #[test]
    fn child_that_does_not_stop() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let clock = LinuxClock::new();
        let _guard = handle(&clock).unwrap();
        let mut sleeper = Command::new("sleep");
        sleeper.arg("1000").stdin(Stdio::null());
        let _group = process_group::ProcessGroup::spawn(&mut sleeper).unwrap();
        println!("ready");
        // Waits for the signal, and then for its own end.
        while LinuxClock::new().pause(LONG) == Paused::Elapsed {}
    }

    #[test]
    fn a_stop_that_takes_too_long_ends_the_process_with_success() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::tests::child_that_does_not_stop", "--nocapture"])
            .env(CHILD, "1")
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = String::new();
        let mut output = child.stdout.take().unwrap();
        let mut byte = [0];
        while !seen.contains("ready\n") && output.read(&mut byte).unwrap() == 1 {
            seen.push(char::from(byte[0]));
        }
        let asked = Instant::now();
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(asked.elapsed() >= STOP_WITHIN);
        // The sleeper held this pipe too: its end shows that it is gone.
        output.read_to_string(&mut seen).unwrap();
    }
}

//! Programs run in a process group of their own, with a deadline, and ended as a whole.
//!
//! A group that runs is registered: [`kill_all`] ends every one of them when the process itself has to go.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use client_core::clock::Clock;
use client_core::text::printable;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::{explain, process};

/// How long a program that took too long has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// The same when this process is asked to stop, which has to be done within two seconds.
const GRACE_WHEN_STOPPED: Duration = Duration::from_millis(700);
/// How long a killed program may take to be gone.
const REAP: Duration = Duration::from_secs(1);
/// How often it is looked whether the process was asked to stop.
const SLICE: Duration = Duration::from_millis(100);
/// Output of one stream of a program that is logged, in bytes with what the log adds to each line; the rest is read and
/// dropped.
const LOGGED_BYTES: usize = 256 * 1024;
/// What the log adds to a line: the time, the level, the name of the program. About.
const LINE_BYTES: usize = 64;
/// How long the output of a program that has ended may still be held open by what it left behind.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);
/// Stack of the threads that only wait and copy.
pub(crate) const SMALL_STACK: usize = 128 * 1024;

/// The groups that run now.
static RUNNING: Mutex<Vec<i32>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends SIGTERM to every group that runs.
pub fn terminate_all() {
    signal_all(Signal::SIGTERM);
}

/// Sends SIGKILL to every group that runs.
pub fn kill_all() {
    signal_all(Signal::SIGKILL);
}

fn signal_all(signal: Signal) {
    for group in running().iter() {
        // It may be gone already, which is as good.
        let _ = killpg(Pid::from_raw(*group), signal);
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// It was ended because it took too long.
    TimedOut,
    /// It was ended because the process was asked to stop.
    Stopped,
}

/// A running program with everything it starts. Dropping it kills what is left.
pub struct ProcessGroup {
    child: Child,
    id: i32,
    /// Says that the program has ended; it is not reaped then, so that its id stays its own.
    ended: mpsc::Receiver<()>,
    /// It was said already.
    has_ended: bool,
    /// Whether what the program left behind may live on.
    spare_the_rest: bool,
}

impl ProcessGroup {
    /// Starts `command` in a new group.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<ProcessGroup> {
        ProcessGroup::start(command).map_err(|error| explain::start_error(command.get_program(), error))
    }

    /// [`spawn`](ProcessGroup::spawn) with the bare error of the operating system.
    pub(crate) fn start(command: &mut Command) -> io::Result<ProcessGroup> {
        process::give_back(command);
        let mut child = command.process_group(0).spawn()?;
        let id = i32::try_from(child.id()).map_err(io::Error::other)?;
        let (sender, ended) = mpsc::channel();
        let wait = move || {
            // The standard library waits without a deadline only, and it reaps.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(Pid::from_raw(id)), flags) == Err(Errno::EINTR) {}
            let _ = sender.send(());
        };
        if let Err(error) = thread::Builder::new().stack_size(SMALL_STACK).spawn(wait) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
            let _ = child.wait();
            return Err(error);
        }
        running().push(id);
        Ok(ProcessGroup { child, id, ended, has_ended: false, spare_the_rest: false })
    }

    /// What the program writes, if it is piped and was not taken yet.
    pub fn take_output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits until the program ends, and ends it with its group after `timeout` or when `clock` is asked to stop.
    ///
    /// The time is that of [`Instant`] and not that of the clock, which goes on while the device is suspended: a program
    /// has its time to run in.
    ///
    /// # Errors
    /// When its status cannot be learned.
    pub fn wait(&mut self, timeout: Duration, clock: &dyn Clock) -> io::Result<Ended> {
        let started = Instant::now();
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            if self.has_ended(left.min(SLICE)) {
                let status = self.child.wait()?;
                return Ok(Ended::Exited(status));
            }
            if clock.stop_requested() {
                self.end(GRACE_WHEN_STOPPED);
                return Ok(Ended::Stopped);
            }
            if started.elapsed() >= timeout {
                self.end(GRACE);
                return Ok(Ended::TimedOut);
            }
        }
    }

    /// Whether the program has ended, or does so within `moment`.
    pub fn has_ended(&mut self, moment: Duration) -> bool {
        // Without its watcher nothing is known, and nothing would ever be.
        self.has_ended =
            self.has_ended || self.ended.recv_timeout(moment) != Err(mpsc::RecvTimeoutError::Timeout);
        self.has_ended
    }

    /// Ends the program with its group at once. Behind this it takes in nothing more.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.has_ended(REAP);
    }

    /// What the program left running may live on after it: state scripts restart services.
    pub fn spare_the_rest(mut self) {
        self.spare_the_rest = true;
    }

    /// Asks the group to end and kills it after `grace`.
    fn end(&mut self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        self.has_ended(grace);
        // Also when the program is gone: what it started may not have listened.
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        // The group may be gone already, which is as good.
        let _ = killpg(Pid::from_raw(self.id), signal);
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if !self.spare_the_rest {
            self.signal(Signal::SIGKILL);
        }
        let mut groups = running();
        if let Some(at) = groups.iter().position(|group| *group == self.id) {
            groups.swap_remove(at);
        }
        drop(groups);
        // A program that hangs in the kernel survives even SIGKILL for a while, and may not hang us too.
        if self.has_ended(REAP) {
            // Ended, so this returns at once; the status was taken by `wait` if anybody wanted it.
            let _ = self.child.wait();
        } else {
            log::warn!("process {} cannot be ended", self.id);
        }
    }
}

/// What a program prints, on its way into the log.
pub struct Output {
    ends: Vec<mpsc::Receiver<()>>,
}

impl Output {
    /// Logs what comes out of the pipes, in threads that end with the last holder of each.
    pub fn log(name: &str, stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> Output {
        let ends = [log_lines(stdout, name, "stdout"), log_lines(stderr, name, "stderr")];
        Output { ends: ends.into_iter().flatten().collect() }
    }

    /// Waits until all of it is in the log, or `patience` is over: what the program left behind may hold the pipes.
    pub fn await_end(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for end in self.ends {
            // Either way there is nothing to be done about it.
            let _ = end.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

/// Logs what comes out of one pipe. The receiver hears of its end.
pub(crate) fn log_lines(
    pipe: Option<impl Read + Send + 'static>,
    name: &str,
    stream: &'static str,
) -> Option<mpsc::Receiver<()>> {
    let pipe = pipe?;
    let name = name.to_owned();
    // The sender is dropped with the thread.
    let (sender, ended) = mpsc::channel();
    let copy = move || {
        let _sender: mpsc::Sender<()> = sender;
        let mut reader = BufReader::with_capacity(1024, pipe);
        let mut line = Vec::new();
        let mut logged = 0;
        loop {
            line.clear();
            // Bounded: a line without an end is cut into pieces.
            match reader.by_ref().take(1024).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if logged > LOGGED_BYTES => {}
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    // A NUL takes five times its room where it is spelt out.
                    let text = printable(text.trim_end());
                    logged += text.len() + LINE_BYTES;
                    log::info!("{name} ({stream}): {text}");
                    if logged > LOGGED_BYTES {
                        log::info!("{name} ({stream}): the rest of what it writes is not logged");
                    }
                }
            }
        }
    };
    if let Err(error) = thread::Builder::new().stack_size(SMALL_STACK).spawn(copy) {
        log::warn!("what a program writes is not logged: {error}");
    }
    Some(ended)
}

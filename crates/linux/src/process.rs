//! What concerns this process as a whole.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};

/// Whether this process acts as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Files made by this process are for its owner only, whatever it was started with.
pub fn set_private_umask() {
    let inherited = umask(Mode::from_bits_truncate(0o077));
    // A second call would remember our own.
    INHERITED_UMASK.get_or_init(|| inherited.bits());
}

/// What this process was started with.
static INHERITED_UMASK: OnceLock<libc::mode_t> = OnceLock::new();

/// Lets `command` run as the process was before this client took care of itself: with the umask it was started with, because
/// what update modules and state scripts install must not become private, and with broken pipes that end a program, which a
/// thread of ours may have blocked.
pub(crate) fn give_back(command: &mut Command) {
    let inherited = INHERITED_UMASK.get().copied();
    let mut broken_pipes = SigSet::empty();
    broken_pipes.add(Signal::SIGPIPE);
    let restore = move || {
        if let Some(inherited) = inherited {
            // SAFETY: sets a number of the child process; allowed between fork and exec, and cannot fail.
            unsafe { libc::umask(inherited) };
        }
        Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&broken_pipes), None)?)
    };
    // SAFETY: the closure only calls `umask` and `sigprocmask`, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(restore) };
}

/// Whether this process was started without a standard output. The runtime puts `/dev/null` in its place before `main`, and
/// what is printed there is lost without an error.
pub fn standard_output_was_closed() -> bool {
    // Named, so that the linker keeps it.
    let _ = &LOOK_AT_STANDARD_OUTPUT;
    STANDARD_OUTPUT_CLOSED.load(Ordering::Relaxed)
}

static STANDARD_OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

extern "C" fn look_at_standard_output() {
    // SAFETY: asks for a flag of a descriptor number; touches no memory.
    if unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } == -1 {
        STANDARD_OUTPUT_CLOSED.store(true, Ordering::Relaxed);
    }
}

/// Called by the loader before the runtime begins.
// SAFETY: the section holds pointers to functions of this kind; this one needs nothing of a runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STANDARD_OUTPUT: extern "C" fn() = look_at_standard_output;

/// Keeps every descriptor that this process was started with, apart from the three standard ones, from the programs
/// it starts. What this process opens itself is private already.
pub fn hide_inherited_descriptors() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(descriptor) = number.filter(|descriptor| *descriptor > 2) {
            // SAFETY: setting a flag of a descriptor number touches no memory; a number that was closed since is
            // refused with EBADF.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Lets `command` be killed when the thread that starts it ends, with whatever happens to this process: two clients must
/// never have one module each at work on the same thing. Only for threads that live as long as the process.
pub(crate) fn end_with_this_process(command: &mut Command) {
    let ask = || {
        // SAFETY: asks the kernel for a signal; takes no pointers, allowed between fork and exec.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        Ok(())
    };
    // SAFETY: the closure only calls `prctl`, which is a bare system call, and allocates nothing.
    unsafe { command.pre_exec(ask) };
}

/// Ends the process at once with success, running nothing on the way out.
pub(crate) fn exit_now() -> ! {
    // SAFETY: `_exit` never returns and takes no pointers.
    unsafe { libc::_exit(0) }
}

/// A number that nobody can predict, as the kernel gives it.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the pointer and the length are those of `bytes`, which lives until the call has returned.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if count == 8 { Ok(u64::from_le_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}

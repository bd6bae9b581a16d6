//! Keeps a broken pipe from ending the program. Rust programs ignore SIGPIPE; a C program has it, and a library may not change
//! that for the process. It is blocked in the thread of a call, and what came of it is taken away before the call returns.

use std::mem::MaybeUninit;
use std::ptr;

/// While it lives, a broken pipe is an error of the write and nothing else.
pub(crate) struct WithoutSigpipe {
    /// The mask to go back to; `None` where the signal was blocked already, or one is waiting that is not ours.
    before: Option<libc::sigset_t>,
}

impl WithoutSigpipe {
    pub(crate) fn new() -> WithoutSigpipe {
        // SAFETY: every set is filled by the call before it is used, and lives until the calls have returned.
        unsafe {
            let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigpending(pending.as_mut_ptr());
            if libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1 {
                return WithoutSigpipe { before: None };
            }
            let (only, mut before) = (sigpipe(), MaybeUninit::<libc::sigset_t>::uninit());
            if libc::pthread_sigmask(libc::SIG_BLOCK, &only, before.as_mut_ptr()) != 0 {
                return WithoutSigpipe { before: None };
            }
            WithoutSigpipe { before: Some(before.assume_init()) }
        }
    }
}

impl Drop for WithoutSigpipe {
    fn drop(&mut self) {
        let Some(before) = self.before else { return };
        // SAFETY: as above; a wait of no time takes what is pending and does not block.
        unsafe {
            let no_time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            while libc::sigtimedwait(&sigpipe(), ptr::null_mut(), &no_time) == libc::SIGPIPE {}
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        }
    }
}

fn sigpipe() -> libc::sigset_t {
    // SAFETY: the set is emptied before it is used.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

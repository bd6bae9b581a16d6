//! The program's callbacks as what the client is told and asked with. All of them run in the thread of the call.

use std::ffi::{CString, c_int, c_void};
use std::io::{self, Read};
use std::mem::size_of;
use std::ptr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client_core::artifact::{Places, Supply};
use client_core::clock::Clock;
use client_core::deploy::gates::{Answer, Gate, Gatekeeper, Question};
use client_core::deploy::{Notice, Observer};
use client_core::install::Progress;
use linux::clock::LinuxClock;

use crate::codes::*;
use crate::failure::{CallbackFailed, Stopped};
use crate::structures::{rota_gate, rota_gate_fn, rota_progress, rota_progress_fn, rota_read_fn};

/// What the program gives along with a callback, to be handed back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User(pub(crate) *mut c_void);

// SAFETY: the pointer is never followed here. It is handed back to the program in the thread of the program's own call.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// What the program wants to be told and asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) progress: rota_progress_fn,
    pub(crate) progress_user: User,
    pub(crate) gate: rota_gate_fn,
    pub(crate) gate_user: User,
}

impl Wanted {
    pub(crate) const NOTHING: Wanted = Wanted {
        progress: None,
        progress_user: User(ptr::null_mut()),
        gate: None,
        gate_user: User(ptr::null_mut()),
    };
}

/// The callbacks of one handle, and whether the program has given the installation up. Shared with what runs in its calls.
#[derive(Debug)]
pub(crate) struct Callbacks {
    wanted: Mutex<Wanted>,
    given_up: AtomicBool,
}

impl Callbacks {
    pub(crate) fn new() -> Callbacks {
        Callbacks { wanted: Mutex::new(Wanted::NOTHING), given_up: AtomicBool::new(false) }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A copy: the program may set others while one of them runs.
    fn wanted(&self) -> Wanted {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another call, or another deployment in the same one, begins.
    pub(crate) fn begin(&self) {
        self.given_up.store(false, Ordering::Release);
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    fn progress(&self, phase: c_int, done_bytes: u64, total_bytes: u64) {
        let wanted = self.wanted();
        let Some(callback) = wanted.progress.filter(|_| !self.is_given_up()) else { return };
        let progress = rota_progress { size: size_of::<rota_progress>(), phase, done_bytes, total_bytes };
        // SAFETY: the program gave this function for this purpose; the structure lives during the call.
        if unsafe { callback(wanted.progress_user.0, &progress) } != 0 {
            self.given_up.store(true, Ordering::Release);
        }
    }
}

/// Tells the program how far things are.
pub(crate) struct Told {
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) clock: LinuxClock,
}

impl Progress for Told {
    fn written(&mut self, done_bytes: u64, total_bytes: u64) {
        self.callbacks.progress(ROTA_WRITING, done_bytes, total_bytes);
    }

    fn verified(&mut self, done_bytes: u64, total_bytes: u64) {
        self.callbacks.progress(ROTA_READING_BACK, done_bytes, total_bytes);
    }
}

impl Observer for Told {
    fn notice(&mut self, notice: Notice) {
        log::debug!("{notice:?}");
    }

    fn stop_requested(&self) -> bool {
        self.clock.stop_requested()
    }
}

/// Asks the program. What it has given up is refused without a question.
pub(crate) struct Asked(pub(crate) Arc<Callbacks>);

impl Gatekeeper for Asked {
    fn watches(&self, _: Gate) -> bool {
        self.0.is_given_up() || self.0.wanted().gate.is_some()
    }

    fn ask(&mut self, question: &Question<'_>) -> Answer {
        if self.0.is_given_up() {
            return Answer::Refused { reason: Stopped.to_string() };
        }
        let wanted = self.0.wanted();
        let Some(callback) = wanted.gate else { return Answer::Open { note: None } };
        // A text from outside with a zero byte in it is cut there.
        let text = |text: &str| CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default();
        let (artifact_name, deployment_id) = (text(question.artifact_name), question.deployment.map(text));
        let gate = rota_gate {
            size: size_of::<rota_gate>(),
            gate: number_of(question.gate),
            artifact_name: artifact_name.as_ptr(),
            deployment_id: deployment_id.as_ref().map_or(ptr::null(), |id| id.as_ptr()),
        };
        // SAFETY: the program gave this function for this purpose; structure and texts live during the call.
        match unsafe { callback(wanted.gate_user.0, &gate) } {
            0 => Answer::Open { note: None },
            seconds @ 1.. => Answer::Closed {
                reason: "the program wants it to wait".to_owned(),
                ask_again: Duration::from_secs(u64::from(seconds.unsigned_abs())),
            },
            refusal => Answer::Refused { reason: format!("the program refused ({refusal})") },
        }
    }
}

/// The number of a gate in the C interface.
pub(crate) fn number_of(gate: Gate) -> c_int {
    match gate {
        Gate::Download => ROTA_GATE_DOWNLOAD,
        Gate::Install => ROTA_GATE_INSTALL,
        Gate::Reboot => ROTA_GATE_RESTART,
        Gate::Commit => ROTA_GATE_COMMIT,
    }
}

/// Bytes from the program's own callback, while the call lasts that was given it.
pub(crate) struct FromCallback {
    pub(crate) read: Arc<Lent>,
    pub(crate) user: User,
}

/// A read callback that is taken back. Locked while it runs.
pub(crate) struct Lent(Mutex<rota_read_fn>);

impl Lent {
    pub(crate) fn new(read: rota_read_fn) -> Arc<Lent> {
        Arc::new(Lent(Mutex::new(read)))
    }
}

/// Takes the callback back when the call ends, and waits for it where it runs: a thread that reads ahead does not end with the
/// installation, and the program may free what `user` points to.
pub(crate) struct TakenBack(pub(crate) Arc<Lent>);

impl Drop for TakenBack {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Read for FromCallback {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let lent = self.read.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(callback) = *lent else { return Err(io::Error::other(Stopped)) };
        let room = buffer.len();
        // SAFETY: the program gave this function for this purpose, and it is not taken back; the buffer is as long as it is told.
        let said = unsafe { callback(self.user.0, buffer.as_mut_ptr().cast(), room) };
        match usize::try_from(said) {
            Ok(count) if count <= room => Ok(count),
            Ok(claimed) => Err(io::Error::other(CallbackFailed::TooMuch { claimed, room })),
            Err(_) => Err(io::Error::other(CallbackFailed::Said(said))),
        }
    }
}

/// A source that ends with an error when the program wants to stop.
pub(crate) struct Stoppable<R> {
    source: R,
    until: Until,
}

/// How long a call goes on.
#[derive(Clone)]
pub(crate) struct Until {
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) clock: LinuxClock,
    /// The call has returned: who still reads does it for nobody.
    pub(crate) over: Arc<AtomicBool>,
}

impl Until {
    /// The same source, until then.
    pub(crate) fn stoppable(self, supply: Supply) -> Supply {
        match supply {
            Supply::Stream(source) => Stoppable { source, until: self }.into(),
            Supply::Places(source) => Supply::Places(Box::new(Stoppable { source, until: self })),
        }
    }

    fn check(&self) -> io::Result<()> {
        let is_over = self.over.load(Ordering::Acquire);
        if is_over || self.callbacks.is_given_up() || self.clock.stop_requested() {
            return Err(io::Error::other(Stopped));
        }
        Ok(())
    }
}

/// Says when a call is over.
pub(crate) struct Over(pub(crate) Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.until.check()?;
        self.source.read(buffer)
    }
}

impl Places for Stoppable<Box<dyn Places>> {
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        self.until.check()?;
        let source = self.source.open_at(offset, end)?;
        Ok(Box::new(Stoppable { source, until: self.until.clone() }))
    }

    fn can_jump(&self) -> bool {
        self.source.can_jump()
    }

    fn total_bytes(&self) -> Option<u64> {
        self.source.total_bytes()
    }

    fn received_bytes(&self) -> Option<u64> {
        self.source.received_bytes()
    }

    fn check_affordable(&self, more_bytes: u64) -> io::Result<()> {
        self.source.check_affordable(more_bytes)
    }

    fn note_every(&self) -> Option<u64> {
        self.source.note_every()
    }
}

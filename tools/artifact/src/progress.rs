//! How far long work has come, on a terminal.

use std::cell::Cell;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Mutex, PoisonError};

/// Work that is done before anyone wonders whether it is, gets no display.
const WORTH_SHOWING_BYTES: u64 = 32 << 20;

/// Counts bytes, and shows the percentage on the standard error when that is a terminal.
pub(crate) struct Progress {
    total: u64,
    done: Cell<u64>,
    shown: Cell<Option<u64>>,
    visible: bool,
}

impl Progress {
    pub(crate) fn new(total: u64) -> Progress {
        let visible = total >= WORTH_SHOWING_BYTES && io::stderr().is_terminal();
        Progress { total, done: Cell::new(0), shown: Cell::new(None), visible }
    }

    pub(crate) fn hidden() -> Progress {
        Progress { total: 0, done: Cell::new(0), shown: Cell::new(None), visible: false }
    }

    pub(crate) fn add(&self, count: usize) {
        self.done.set(self.done.get().saturating_add(count as u64));
        let percent = self.done.get().saturating_mul(100).checked_div(self.total).unwrap_or(100);
        if self.visible && self.shown.replace(Some(percent)) != Some(percent) {
            // A display that fails is not worth an error.
            let _ = write!(io::stderr(), "\r{percent:3} %");
        }
    }

    /// Counts what is read through it.
    pub(crate) fn count<'a, R: Read + 'a>(&'a self, reader: R) -> impl Read + 'a {
        Counted { reader, progress: self }
    }
}

/// The same for work that several threads do.
pub(crate) struct Shared(Mutex<Progress>);

impl Shared {
    pub(crate) fn new(total: u64) -> Shared {
        Shared(Mutex::new(Progress::new(total)))
    }

    pub(crate) fn hidden() -> Shared {
        Shared(Mutex::new(Progress::hidden()))
    }

    pub(crate) fn add(&self, count: u64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(count);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.visible && self.shown.get().is_some() {
            let _ = write!(io::stderr(), "\r     \r");
        }
    }
}

struct Counted<'a, R> {
    reader: R,
    progress: &'a Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.progress.add(count);
        Ok(count)
    }
}

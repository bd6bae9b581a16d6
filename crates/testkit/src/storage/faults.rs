//! What goes wrong without a power cut, and what is broken on purpose.

/// What a device is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `read_at`.
    Read,
    /// `write_at`, `clear_bits_at` and `begin_replace`.
    Write,
    /// `sync`.
    Sync,
    /// `drop_cache`.
    DropCache,
}

/// How an operation goes wrong without a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with `EIO`. A write may have happened in part; of a sync see the module documentation.
    InputOutput,
    /// It fails with `ENOSPC` and has no effect.
    NoSpace,
    /// The first half of a write happens, then it fails.
    ShortWrite,
    /// A write succeeds and shows in the reads of a disk, but never reaches the medium.
    LostWrite,
    /// A write succeeds and shows in the reads of a disk, but the beginning of it reaches the medium changed.
    CorruptWrite,
}

/// How often a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// To one operation.
    Once,
    /// To that operation and every later one of its kind.
    ForGood,
}

/// A fault to come.
#[derive(Debug, Clone)]
pub struct Injection {
    /// To this device only, or to any.
    pub device: Option<String>,
    /// To operations of this kind.
    pub operation: Operation,
    /// To the how many-th of them from now, starting with 1.
    pub nth: u64,
    /// What happens.
    pub fault: Fault,
    /// How often.
    pub lasting: Lasting,
}

/// Which syncs of a device do nothing and say `Ok`. This breaks the code under test on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suppressed {
    /// The how many-th, starting with 1.
    Nth(u64),
    /// All of them.
    Every,
}

impl Suppressed {
    pub(super) fn covers(self, sync: u64) -> bool {
        match self {
            Suppressed::Nth(nth) => nth == sync,
            Suppressed::Every => true,
        }
    }
}

/// An [`Injection`] that waits for its operation.
#[derive(Clone)]
pub(super) struct Armed {
    pub(super) injection: Injection,
    pub(super) device: Option<usize>,
    pub(super) seen: u64,
}

impl Armed {
    /// The fault that this operation meets, which is counted.
    pub(super) fn meet(&mut self, device: usize, operation: Operation) -> Option<Fault> {
        if self.injection.operation != operation || self.device.is_some_and(|only| only != device) {
            return None;
        }
        self.seen += 1;
        let due = match self.injection.lasting {
            Lasting::Once => self.seen == self.injection.nth,
            Lasting::ForGood => self.seen >= self.injection.nth,
        };
        due.then_some(self.injection.fault)
    }
}

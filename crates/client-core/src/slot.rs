//! The two root file system partitions, and what the running system knows about itself.

use std::fmt;
use std::ops::Not;

use crate::storage::{BlockDevice, ReadAt};

/// One root file system partition. `!slot` is the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Slot {
    /// The partition that `RootfsPartA` names.
    A,
    /// The partition that `RootfsPartB` names.
    B,
}

impl Slot {
    /// Both slots, in order.
    pub const BOTH: [Slot; 2] = [Slot::A, Slot::B];
}

impl Not for Slot {
    type Output = Slot;

    fn not(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Slot::A => "A",
            Slot::B => "B",
        })
    }
}

/// The facts about the running system that only the operating system knows.
///
/// Nothing here changes the device except [`System::reboot`].
pub trait System {
    /// The slot the running root file system was mounted from.
    ///
    /// # Errors
    /// When neither slot can be shown to be the running one. The error names every input that was
    /// compared, because this is the first thing that fails on a new board.
    fn running_slot(&self) -> Result<Slot, SlotError>;

    /// The value of the device type file, without the `device_type=` prefix.
    ///
    /// # Errors
    /// When the file is missing or is not exactly one `device_type=<value>` line.
    fn device_type(&self) -> Result<String, SlotError>;

    /// Restarts the device, in the way that the bootloader asked for. On success it does not return, or returns and
    /// the process is about to be killed; the caller does nothing more.
    ///
    /// # Errors
    /// When the reboot could not be started.
    fn reboot(&self, restart: &Restart) -> Result<(), SlotError>;

    /// A trial is about to be armed: [`System::traces`] are of it from here on. As well as it can be done.
    fn begin_traces(&self) {}

    /// What the trial left behind that has ended. As well as it can be told.
    fn traces(&self) -> Traces {
        Traces::default()
    }
}

/// What is left of a trial that did not end with this client. It is for people: nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// What a kernel said last before it crashed, in order, where the machine keeps that.
    pub kernel: Vec<String>,
    /// What programs noted, in order.
    pub notes: Vec<String>,
    /// The watchdog has restarted the machine into the system that runs.
    pub watchdog: bool,
}

/// How the device is to be restarted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Restart {
    /// As anybody would.
    #[default]
    Plain,
    /// With an argument that reaches the bootloader, for this restart alone: `0 tryboot`.
    With {
        /// One argument of the program that restarts the device, blanks included.
        argument: String,
    },
}

/// Opens the slots as storage: one to be written, either as a source.
pub trait Slots {
    /// Opens `slot` for writing and reading.
    ///
    /// The implementation refuses a slot that is missing, mounted, the running root, or the same device
    /// as the other slot; it never creates anything. From the first opening on until the implementation is dropped
    /// the slot is this process's alone: nobody else writes it before it is armed, or arms it while it is written.
    ///
    /// # Errors
    /// A [`SlotError`] that names the slot and its path.
    fn open(&mut self, slot: Slot) -> Result<Box<dyn BlockDevice + '_>, SlotError>;

    /// Opens `slot` as a source that is only read: the running one too, and one that is mounted.
    ///
    /// What is read is what lies on the medium at that moment: the cache of a device that is mounted may hold something else. Nothing keeps a file system that is mounted for writing, or
    /// another process, from changing it meanwhile: whatever is made of it counts only with a digest of its own. The
    /// source and a slot that is [open](Slots::open) for writing may be there at the same time.
    ///
    /// # Errors
    /// A [`SlotError`] that names the slot and its path.
    fn open_source(&mut self, slot: Slot) -> Result<Box<dyn ReadAt>, SlotError>;
}

/// Why a slot cannot be used, or the running system not be told.
#[non_exhaustive]
pub enum SlotError {
    /// `RootfsPartA` or `RootfsPartB` is not configured.
    NotConfigured {
        /// The missing configuration key.
        key: &'static str,
    },
    /// The slot's path does not exist.
    Missing {
        /// Which slot.
        slot: Slot,
        /// Its configured path.
        path: String,
    },
    /// The slot is mounted somewhere.
    Mounted {
        /// Which slot.
        slot: Slot,
        /// Its configured path.
        path: String,
        /// Where it is mounted.
        mount_point: String,
    },
    /// The slot holds the running root file system.
    Running {
        /// Which slot.
        slot: Slot,
        /// Its configured path.
        path: String,
    },
    /// Both slots are the same device or file.
    SameDevice {
        /// Path of slot A.
        a: String,
        /// Path of slot B.
        b: String,
    },
    /// The path names something that cannot hold a root file system (a directory, a terminal...).
    WrongKind {
        /// Which slot.
        slot: Slot,
        /// Its configured path.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// Another process writes the slot.
    InUse {
        /// Which slot.
        slot: Slot,
        /// Its configured path.
        path: String,
    },
    /// The path does not end in the partition number that the boot environment needs.
    NoPartitionNumber {
        /// Which slot.
        slot: Slot,
        /// Its configured path.
        path: String,
    },
    /// The running slot could not be determined.
    RunningUnknown {
        /// Every input that was compared, as text for the log.
        inputs: String,
    },
    /// `RustOta.RunningRoot` would say the same after an update: the trial could never be committed.
    RunningFixed {
        /// Its value.
        running_root: String,
        /// What the kernel was given, for the log.
        argument: String,
    },
    /// The device type is not known.
    DeviceType {
        /// The file that was read.
        path: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The operating system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The path it was done to.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

artifact::debug_as_displayed!(SlotError);

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotError::NotConfigured { key } => write!(f, "{key} is not set in the configuration"),
            SlotError::Missing { slot, path } => write!(f, "slot {slot} ({path}) does not exist"),
            SlotError::Mounted { slot, path, mount_point } => {
                write!(f, "slot {slot} ({path}) is mounted on {mount_point}")
            }
            SlotError::Running { slot, path } => {
                write!(f, "slot {slot} ({path}) holds the running root file system")
            }
            SlotError::SameDevice { a, b } => {
                write!(f, "slot A ({a}) and slot B ({b}) are the same device")
            }
            SlotError::WrongKind { slot, path, found } => {
                write!(f, "slot {slot} ({path}) is {found}, not a block device, UBI volume or file")
            }
            SlotError::InUse { slot, path } => {
                write!(f, "another process is writing slot {slot} ({path}); try again when it is done")
            }
            SlotError::NoPartitionNumber { slot, path } => {
                write!(f, "slot {slot} ({path}) does not end in a partition number: give it a name that does")
            }
            SlotError::RunningUnknown { inputs } => {
                write!(f, "cannot tell which slot is running: {inputs}")
            }
            SlotError::RunningFixed { running_root, argument } => write!(
                f,
                "RustOta.RunningRoot is {running_root:?}, a device itself: the updated slot would take itself for \
                 the old one and could not be committed. {argument}, which tells the slot: remove the key, or set \
                 it to a link that is made at every boot"
            ),
            SlotError::DeviceType { path, reason } => {
                write!(f, "cannot read the device type from {path}: {reason}")
            }
            SlotError::Io { doing, path, source } => write!(f, "cannot {doing} {path}: {source}"),
        }
    }
}

impl std::error::Error for SlotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SlotError::Io { source, .. } => Some(source),
            SlotError::NotConfigured { .. }
            | SlotError::Missing { .. }
            | SlotError::Mounted { .. }
            | SlotError::Running { .. }
            | SlotError::SameDevice { .. }
            | SlotError::WrongKind { .. }
            | SlotError::InUse { .. }
            | SlotError::NoPartitionNumber { .. }
            | SlotError::RunningUnknown { .. }
            | SlotError::RunningFixed { .. }
            | SlotError::DeviceType { .. } => None,
        }
    }
}

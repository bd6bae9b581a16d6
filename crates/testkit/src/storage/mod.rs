//! Storage that loses power: what was written and not flushed is lost, kept, mixed up or torn, and which of it is
//! decided by the enumeration.
//!
//! A [`CrashWorld`] is one machine: everything in it shares one power supply. Each device has what reads return (*live*),
//! what is on the medium (*durable*), and what is on its way between the two (*pending*).
//!
//! ```text
//!   handles   CrashDevice (a BlockDevice), files::CrashFiles      what the code under test holds
//!      │
//!   world     the machine: power, faults, trace                   when something happens
//!      │
//!   media     disk · flash · volume · file_system                 what it is that happens
//! ```
//!
//! # What a power cut does
//! It comes in the middle of a write, in the middle of a sync, at [`CrashWorld::crash_point`], or while the machine idles
//! with something pending. The middle of a write includes the moment before it, because all that was written may still be
//! as before. What is left then is a matter of the medium:
//!
//! - a disk ([`CrashWorld::add_device`]): every pending sector becomes the old content or any pending version of it,
//!   independently of the others. One sector that changes, the first or last one, or all sectors of one request may be
//!   torn instead ([`Tear`]), one in the whole machine. Where that makes more than [`Limits::images`] combinations, the
//!   sectors go by classes: none, all, all but the first, all but the last, only the first, only the last, the first
//!   half, every other one, those of one device, those of all other devices;
//! - raw flash ([`CrashWorld::add_flash`]): erasing and programming happen in order. Any number of the pending steps has
//!   happened, and the next one has possibly begun: a block is erased in one half or in part of its bits, a range is
//!   programmed up to one word, and that word in part of its bits. Where that makes more than [`Limits::images`] ways,
//!   only the newest step stops half-way;
//! - a UBI volume ([`CrashWorld::add_volume`]): it is as before, or marked as interrupted and unreadable, or new as a whole.
//!
//! # What a failed sync does
//! What is pending is decided as by a cut, and nobody is told how. Reads of a disk go on showing the new content until
//! the cache is dropped; a later sync that succeeds changes nothing about that.
//!
//! The machine is dead after a cut until the harness switches it on. A write by somebody who did not notice, such as a
//! destructor, has no effect and fails the case.

mod cut;
mod disk;
mod faults;
pub(crate) mod file_system;
mod flash;
mod handle;
mod medium;
mod power_cuts;
mod volume;
mod world;

pub use disk::{SECTOR_LEN, Tear};
pub use faults::{Fault, Injection, Lasting, Operation, Suppressed};
pub use flash::{FlashGeometry, FlashKind};
pub use handle::CrashDevice;
pub use power_cuts::PowerCuts;
pub use world::{CrashWorld, Limits};

pub(crate) use world::{PowerCut, Snapshot, World};

//! What the bootloaders do with the boot environment, written from their own rules. Nothing here is shared with
//! the codecs of the client, so that a misreading on one side cannot be the same misreading on the other.
//!
//! Bootloaders do not flush: what a model writes stays pending until somebody syncs that device. Every write of a
//! model is a place to lose power. Kernels, device trees and menus are not modelled: a slot comes up or it does
//! not ([`Startup`]).

mod grub;
mod tryboot;
mod uboot;

pub use grub::GrubModel;
pub use tryboot::TrybootModel;
pub use uboot::UBootModel;

use client_core::slot::Slot;

/// How a slot takes being booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Startup {
    /// The client starts.
    ComesUp,
    /// A watchdog or the user resets the machine.
    Fails,
}

/// What a slot's content does whenever it is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Behaviour {
    /// Comes up.
    Good,
    /// Never comes up.
    NeverUp,
    /// Fails the next time it is booted, and is good from then on.
    PanicsOnce,
}

impl Behaviour {
    /// Boots it once.
    pub fn start(&mut self) -> Startup {
        match self {
            Behaviour::Good => Startup::ComesUp,
            Behaviour::NeverUp => Startup::Fails,
            Behaviour::PanicsOnce => {
                *self = Behaviour::Good;
                Startup::Fails
            }
        }
    }
}

/// How a start of the machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// A slot came up.
    Up {
        /// Which.
        slot: Slot,
        /// Whether the bootloader had lost its environment and made one up on the way.
        defaulted: bool,
        /// Slots that failed before.
        failed_starts: u32,
        /// Whether it was booted because the restart asked for it, this once.
        one_shot: bool,
    },
    /// Nothing comes up, however often the machine is reset.
    Stuck {
        /// The slot it keeps trying.
        slot: Slot,
        /// Whether the bootloader had lost its environment and made one up on the way.
        defaulted: bool,
    },
}

/// Resets after which a machine counts as stuck. A trial needs two at most.
const RESETS: u32 = 5;

/// Partition numbers of the slots, as the boot variables name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions {
    /// Of slot A.
    pub a: u32,
    /// Of slot B.
    pub b: u32,
}

impl Default for Partitions {
    fn default() -> Partitions {
        Partitions { a: 2, b: 3 }
    }
}

impl Partitions {
    /// The number of a slot.
    pub fn number(self, slot: Slot) -> u32 {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    /// The slot with this number, in decimal.
    pub fn slot(self, number: &str) -> Option<Slot> {
        Slot::BOTH.into_iter().find(|&slot| self.number(slot).to_string() == number)
    }
}

/// Resets until something comes up. `choose` is one pass of the bootloader: the slot, and whether its environment
/// was made up.
fn reset_until_up(mut choose: impl FnMut() -> (Slot, bool), start: &mut dyn FnMut(Slot) -> Startup) -> Boot {
    let mut ever_defaulted = false;
    let mut failed_starts = 0;
    loop {
        let (slot, defaulted) = choose();
        ever_defaulted |= defaulted;
        match start(slot) {
            Startup::ComesUp => {
                return Boot::Up { slot, defaulted: ever_defaulted, failed_starts, one_shot: false };
            }
            Startup::Fails if failed_starts == RESETS => {
                return Boot::Stuck { slot, defaulted: ever_defaulted };
            }
            Startup::Fails => failed_starts += 1,
        }
    }
}

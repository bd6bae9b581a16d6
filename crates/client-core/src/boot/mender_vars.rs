//! Boot control by the variables that the Mender client's integrations share with the bootloader: what they mean and
//! how they are changed, once, for U-Boot and GRUB alike. Where they are stored is for a [`BootEnv`] to know.
//!
//! Variable names and partition numbers are known here and below, nowhere above.

use std::fmt;

use super::{Armable, Arming, BootControl, BootEnv, BootError, BootState};
use crate::slot::{Slot, SlotError};

/// Decimal number of the partition the bootloader boots.
pub const BOOT_PART: &str = "mender_boot_part";
/// The same number in lower-case hexadecimal, which U-Boot's commands take. Written, never read.
pub const BOOT_PART_HEX: &str = "mender_boot_part_hex";
/// `1` while a trial is pending or running.
pub const UPGRADE_AVAILABLE: &str = "upgrade_available";
/// Boots of the trial so far, counted by the bootloader. Set back, never read.
pub const BOOT_COUNT: &str = "bootcount";
/// `1` demands that the canary below is there.
pub const CHECK_CANARY: &str = "mender_check_saveenv_canary";
/// Written by the bootloader itself: proves that both sides share one environment.
pub const CANARY: &str = "mender_saveenv_canary";

/// Every variable that decides something here.
const READ: [&str; 4] = [BOOT_PART, UPGRADE_AVAILABLE, CHECK_CANARY, CANARY];

/// What `upgrade_available` is set to.
const PERMANENT: &str = "0";
const ON_TRIAL: &str = "1";

/// The numbers by which the variables name the slots.
pub trait PartitionNumbers {
    /// The number of `slot`.
    ///
    /// # Errors
    /// When the slot is not configured or its path leads to no number.
    fn number(&mut self, slot: Slot) -> Result<u32, SlotError>;
}

/// The partition numbers of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions {
    a: u32,
    b: u32,
}

impl Partitions {
    /// Numbers of slot A and slot B.
    ///
    /// # Errors
    /// When both are the same number: the bootloader could not tell the slots apart.
    pub fn new(a: u32, b: u32) -> Result<Partitions, VarsError> {
        if a == b {
            return Err(VarsError::SameNumber { number: a });
        }
        Ok(Partitions { a, b })
    }

    fn of(numbers: &mut dyn PartitionNumbers) -> Result<Partitions, BootError> {
        Ok(Partitions::new(numbers.number(Slot::A)?, numbers.number(Slot::B)?)?)
    }

    fn named(self, slot: Slot) -> u32 {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    fn slot(self, number: u32) -> Option<Slot> {
        Slot::BOTH.into_iter().find(|slot| self.named(*slot) == number)
    }
}

impl PartitionNumbers for Partitions {
    fn number(&mut self, slot: Slot) -> Result<u32, SlotError> {
        Ok(self.named(slot))
    }
}

/// Boot control over named variables.
pub struct MenderVars<E, N> {
    env: E,
    numbers: N,
}

impl<E: BootEnv, N: PartitionNumbers> MenderVars<E, N> {
    /// Control over `env`, in which `numbers` name the slots. Both are first asked when something is to be done: not
    /// every device has slots, and not every command needs them.
    pub fn new(env: E, numbers: N) -> MenderVars<E, N> {
        MenderVars { env, numbers }
    }

    fn select(&mut self, slot: Slot, upgrade_available: &str) -> Result<(), BootError> {
        let partitions = Partitions::of(&mut self.numbers)?;
        Ok(self.env.write(&borrowed(&selecting(partitions.named(slot), upgrade_available)))?)
    }
}

impl<E: BootEnv, N: PartitionNumbers> BootControl for MenderVars<E, N> {
    fn check_configured(&mut self) -> Result<(), BootError> {
        Partitions::of(&mut self.numbers).map(drop)
    }

    fn state(&mut self) -> Result<BootState, BootError> {
        let partitions = Partitions::of(&mut self.numbers)?;
        let variables = self.env.read(&READ)?;
        // Mender's contract: with the check asked for, the bootloader itself must have written the canary.
        if variables.get(CHECK_CANARY) == Some("1") && variables.get(CANARY) != Some("1") {
            return Err(VarsError::CanaryMissing { environment: self.env.describe() }.into());
        }
        let Some(part) = variables.get(BOOT_PART) else {
            return Err(VarsError::NotSet { environment: self.env.describe() }.into());
        };
        let selected = selected(part, partitions)?;
        let trial = is_trial(variables.get(UPGRADE_AVAILABLE))?;
        Ok(BootState { selected, trial, arming: Arming::Durable })
    }

    fn check_arm(&mut self, target: Slot) -> Result<(), BootError> {
        let partitions = Partitions::of(&mut self.numbers)?;
        let changes = selecting(partitions.named(target), ON_TRIAL);
        self.env
            .check_write(&borrowed(&changes))
            .map_err(|error| BootError::CannotBeArmed { environment: self.env.describe(), error })
    }

    fn arm(&mut self, target: Armable) -> Result<(), BootError> {
        self.select(target.slot(), ON_TRIAL)
    }

    fn commit(&mut self, _target: Slot) -> Result<(), BootError> {
        // It is selected already: the trial that runs is of what is selected.
        Ok(self.env.write(&[(UPGRADE_AVAILABLE, PERMANENT)])?)
    }

    fn settle_on(&mut self, slot: Slot) -> Result<(), BootError> {
        let state = self.state()?;
        if !state.trial && state.selected == slot {
            return Ok(());
        }
        self.select(slot, PERMANENT)
    }

    fn describe(&self) -> String {
        self.env.describe()
    }
}

/// The slot that `mender_boot_part` names. A wrong value is never read as a default.
fn selected(part: &str, partitions: Partitions) -> Result<Slot, VarsError> {
    let slot = part.parse().ok().and_then(|number| partitions.slot(number));
    slot.ok_or_else(|| bad_value(BOOT_PART, part, format!("{} or {}", partitions.a, partitions.b)))
}

fn is_trial(upgrade_available: Option<&str>) -> Result<bool, VarsError> {
    match upgrade_available {
        // A bootloader that has never tried anything has not set it.
        None | Some("" | PERMANENT) => Ok(false),
        Some(ON_TRIAL) => Ok(true),
        Some(other) => Err(bad_value(UPGRADE_AVAILABLE, other, "0 or 1".into())),
    }
}

/// What is written to make the bootloader boot the partition with `number`.
fn selecting(number: u32, upgrade_available: &str) -> [(&'static str, String); 4] {
    [
        (BOOT_PART, number.to_string()),
        (BOOT_PART_HEX, format!("{number:x}")),
        (UPGRADE_AVAILABLE, upgrade_available.to_owned()),
        (BOOT_COUNT, "0".to_owned()),
    ]
}

fn borrowed<'c>(changes: &'c [(&'static str, String); 4]) -> [(&'c str, &'c str); 4] {
    changes.each_ref().map(|(name, value)| (*name, value.as_str()))
}

fn bad_value(name: &'static str, value: &str, expected: String) -> VarsError {
    VarsError::BadValue { name, value: value.chars().take(64).collect(), expected }
}

/// Why the shared variables tell nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VarsError {
    /// Both slots have the same partition number.
    SameNumber {
        /// The number.
        number: u32,
    },
    /// `mender_boot_part` is not set.
    NotSet {
        /// The environment.
        environment: String,
    },
    /// A variable has a value that means nothing.
    BadValue {
        /// The variable.
        name: &'static str,
        /// Its value, shortened.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// The bootloader demands a canary and has not written it: it reads another environment than this one.
    CanaryMissing {
        /// The environment.
        environment: String,
    },
}

impl fmt::Display for VarsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VarsError::SameNumber { number } => {
                write!(f, "RootfsPartA and RootfsPartB have the same partition number {number}")
            }
            VarsError::NotSet { environment } => {
                write!(f, "{BOOT_PART} is not set in the {environment}: the bootloader is not set up for A/B")
            }
            VarsError::BadValue { name, value, expected } => {
                write!(f, "{name} is {value:?} in the boot environment, expected {expected}")
            }
            VarsError::CanaryMissing { environment } => write!(
                f,
                "{CHECK_CANARY} is set but {CANARY} is not: the bootloader does not use the {environment}"
            ),
        }
    }
}

impl std::error::Error for VarsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::{BootEnvError, Variables, Verdict, check_settled, commit_trial};

    /// Variables in memory, with the number of writes.
    struct Memory {
        variables: std::collections::BTreeMap<String, String>,
        writes: usize,
        room: usize,
    }

    impl BootEnv for Memory {
        fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
            assert!(!names.contains(&BOOT_PART_HEX) && !names.contains(&BOOT_COUNT), "nobody needs them");
            Variables::from_bytes(names, |name| Some(self.variables.get(name)?.clone().into_bytes()))
        }
        fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
            self.writes += 1;
            self.variables.extend(changes.iter().map(|(k, v)| (k.to_string(), v.to_string())));
            Ok(())
        }
        fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
            let need_bytes = changes.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
            if need_bytes > self.room {
                return Err(BootEnvError::TooLarge { need_bytes, have_bytes: self.room });
            }
            Ok(())
        }
        fn describe(&self) -> String {
            "environment in memory".into()
        }
    }

    fn control(variables: &[(&str, &str)]) -> MenderVars<Memory, Partitions> {
        let variables = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        MenderVars::new(Memory { variables, writes: 0, room: 200 }, Partitions::new(2, 11).unwrap())
    }

    fn state_error(variables: &[(&str, &str)]) -> String {
        control(variables).state().unwrap_err().to_string()
    }

    #[test]
    fn an_environment_without_room_cannot_be_armed_and_is_not_written() {
        let mut boot = control(&[(BOOT_PART, "2"), (UPGRADE_AVAILABLE, "0")]);
        assert!(boot.check_arm(Slot::B).is_ok());
        boot.env.room = 20;
        let error = boot.check_arm(Slot::B).unwrap_err().to_string();
        assert!(
            error.contains("environment in memory cannot be written") && error.contains("has 20"),
            "{error}"
        );
        assert_eq!(boot.env.writes, 0);
    }

    #[test]
    fn a_value_that_means_nothing_is_an_error_that_names_it() {
        assert!(state_error(&[]).contains("mender_boot_part is not set"));
        assert!(state_error(&[(BOOT_PART, "7")]).contains("\"7\" in the boot environment, expected 2 or 11"));
        assert!(state_error(&[(BOOT_PART, "2x")]).contains("\"2x\""));
        let error = state_error(&[(BOOT_PART, "2"), (UPGRADE_AVAILABLE, "yes")]);
        assert!(error.contains("upgrade_available is \"yes\""), "{error}");
    }

    #[test]
    fn a_canary_that_was_asked_for_and_is_missing_stops_everything() {
        let base = [(BOOT_PART, "2"), (CHECK_CANARY, "1")];
        assert!(state_error(&base).contains("mender_saveenv_canary"));
        let mut boot = control(&[base[0], base[1], (CANARY, "1")]);
        assert_eq!(boot.state().unwrap().selected, Slot::A);
    }

    #[test]
    fn arming_writes_all_four_variables_at_once() {
        let mut boot = control(&[(BOOT_PART, "2"), (BOOT_COUNT, "1")]);
        boot.arm(Armable::proved(Slot::B)).unwrap();
        assert_eq!(boot.env.writes, 1);
        let get = |name: &str| boot.env.variables[name].as_str();
        assert_eq!(
            (get(BOOT_PART), get(BOOT_PART_HEX), get(UPGRADE_AVAILABLE), get(BOOT_COUNT)),
            ("11", "b", "1", "0")
        );
    }

    #[test]
    fn only_a_running_trial_can_be_committed_and_committing_twice_writes_once() {
        let mut boot = control(&[(BOOT_PART, "11"), (UPGRADE_AVAILABLE, "1")]);
        assert!(matches!(
            commit_trial(&mut boot, Slot::A, Slot::B),
            Err(BootError::NotOnTrial { verdict: Verdict::Untouched, .. })
        ));
        commit_trial(&mut boot, Slot::B, Slot::B).unwrap();
        commit_trial(&mut boot, Slot::B, Slot::B).unwrap();
        assert_eq!((boot.env.writes, boot.env.variables[UPGRADE_AVAILABLE].as_str()), (1, "0"));
    }

    #[test]
    fn rolling_back_selects_the_original_once() {
        let mut boot = control(&[(BOOT_PART, "11"), (UPGRADE_AVAILABLE, "1")]);
        for _ in 0..2 {
            boot.settle_on(Slot::A).unwrap();
        }
        assert_eq!((boot.env.writes, boot.env.variables[BOOT_PART].as_str()), (1, "2"));
    }

    #[test]
    fn an_open_trial_or_a_disagreement_is_not_settled() {
        let check = |variables: &[(&str, &str)], running| {
            let mut boot = control(variables);
            let result = check_settled(&mut boot, running);
            assert_eq!(boot.env.writes, 0);
            result
        };
        assert!(check(&[(BOOT_PART, "2"), (UPGRADE_AVAILABLE, "0")], Slot::A).is_ok());
        let open = check(&[(BOOT_PART, "11"), (UPGRADE_AVAILABLE, "1")], Slot::B);
        assert!(matches!(open, Err(BootError::OpenTrial { slot: Slot::B })));
        let other = check(&[(BOOT_PART, "11")], Slot::A);
        assert!(matches!(other, Err(BootError::Disagrees { selected: Slot::B, .. })));
    }

    #[test]
    fn slots_with_one_number_are_refused() {
        assert!(matches!(Partitions::new(3, 3), Err(VarsError::SameNumber { number: 3 })));
    }
}

//! The boot decision, once, for every bootloader: what the shared variables mean, how they are changed, and
//! what the bootloader did while we were off.
//!
//! A bootloader crate only reads and writes named variables ([`BootEnv`]); it decides nothing.
//!
//! ```text
//!              arm                    bootloader               commit
//!  settled ───────────▶ untouched ───────────────▶ trial ───────────────▶ committed (settled on target)
//!     ▲                     │ roll back              │ roll back, or the bootloader gives up
//!     └─────────────────────┴────────────────────────┘
//! ```

use std::fmt;

use crate::slot::Slot;

/// Decimal number of the partition the bootloader boots.
pub const BOOT_PART: &str = "mender_boot_part";
/// The same number in lower-case hexadecimal, which U-Boot's commands take.
pub const BOOT_PART_HEX: &str = "mender_boot_part_hex";
/// `1` while a trial is pending or running.
pub const UPGRADE_AVAILABLE: &str = "upgrade_available";
/// Boots of the trial so far, counted by the bootloader.
pub const BOOT_COUNT: &str = "bootcount";
/// `1` demands that the canary below is there.
pub const CHECK_CANARY: &str = "mender_check_saveenv_canary";
/// Written by the bootloader itself: proves that both sides share one environment.
pub const CANARY: &str = "mender_saveenv_canary";

/// Every variable this client reads.
pub const VARIABLES_READ: [&str; 6] =
    [BOOT_PART, BOOT_PART_HEX, UPGRADE_AVAILABLE, BOOT_COUNT, CHECK_CANARY, CANARY];

/// Named variables shared with the bootloader.
///
/// # Contract
/// - [`read`](BootEnv::read) first makes durable what a bootloader may have written without a flush and drops
///   caches, at least once per opened environment, so that its answer is what the bootloader will see.
/// - [`write`](BootEnv::write) is all or nothing and durable on return: after a power cut either all changes are
///   there or none. Variables not named survive.
/// - Both copies of a redundant environment unreadable is an error, never a set of defaults.
pub trait BootEnv {
    /// The values of `names`, in their order; `None` for a variable that is not set.
    ///
    /// # Errors
    /// When no copy of the environment can be trusted.
    fn read(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, BootEnvError>;

    /// Sets the named variables.
    ///
    /// # Errors
    /// When the change did not become durable. The environment then holds the old values or the new ones.
    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError>;

    /// Checks that [`write`](BootEnv::write) of `changes` would be let through and find room. Changes nothing that
    /// is read; what repairs a lost copy may happen here already.
    ///
    /// # Errors
    /// What that write would fail with, as far as it can be known before.
    fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError>;

    /// What and where it is, for messages: `U-Boot environment in /dev/mmcblk0 (2 copies)`.
    fn describe(&self) -> String;
}

/// The answer of [`BootEnv::read`] for an environment whose stored values are bytes: `value` looks one up.
///
/// # Errors
/// When a value that was asked for is not UTF-8. Others may be what they like.
pub fn text_values(
    names: &[&str],
    value: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Vec<Option<String>>, BootEnvError> {
    let text = |name: &&str| {
        value(name).map(String::from_utf8).transpose().map_err(|_| BootEnvError::InvalidVariable {
            name: (*name).to_owned(),
            reason: "the stored value is not UTF-8",
        })
    };
    names.iter().map(text).collect()
}

/// Why a boot environment cannot be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum BootEnvError {
    /// The description of the environment is missing or malformed.
    Config {
        /// The file, with a line number where there is one.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No copy holds a valid environment. Nothing is assumed in its place.
    NoValidCopy {
        /// Every copy with what is wrong with it.
        copies: String,
    },
    /// The variables do not fit.
    TooLarge {
        /// Bytes the variables need.
        need_bytes: usize,
        /// Bytes there are.
        have_bytes: usize,
    },
    /// A name or a value cannot be stored.
    InvalidVariable {
        /// The variable.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Another program holds the environment's lock.
    Locked {
        /// The lock file.
        path: String,
    },
    /// What was written did not read back.
    ReadBack {
        /// The copy it was written to.
        place: String,
    },
    /// The operating system or the device refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or device.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

impl fmt::Display for BootEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootEnvError::Config { place, reason } => write!(f, "{place}: {reason}"),
            BootEnvError::NoValidCopy { copies } => {
                write!(f, "no valid copy of the boot environment: {copies}")
            }
            BootEnvError::TooLarge { need_bytes, have_bytes } => {
                write!(f, "the boot environment needs {need_bytes} bytes and has {have_bytes}")
            }
            BootEnvError::InvalidVariable { name, reason } => {
                write!(f, "boot variable {name:?} cannot be stored: {reason}")
            }
            BootEnvError::Locked { path } => {
                write!(f, "the boot environment is in use by another program (lock {path})")
            }
            BootEnvError::ReadBack { place } => {
                write!(f, "the boot environment written to {place} did not read back")
            }
            BootEnvError::Io { doing, path, source } => write!(f, "cannot {doing} {path}: {source}"),
        }
    }
}

impl std::error::Error for BootEnvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BootEnvError::Io { source, .. } => Some(source),
            BootEnvError::Config { .. }
            | BootEnvError::NoValidCopy { .. }
            | BootEnvError::TooLarge { .. }
            | BootEnvError::InvalidVariable { .. }
            | BootEnvError::Locked { .. }
            | BootEnvError::ReadBack { .. } => None,
        }
    }
}

/// The partition numbers that the boot environment uses for the two slots.
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
    pub fn new(a: u32, b: u32) -> Result<Partitions, BootError> {
        if a == b {
            return Err(BootError::SameNumber { number: a });
        }
        Ok(Partitions { a, b })
    }

    /// The number of `slot`.
    pub fn number(self, slot: Slot) -> u32 {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    /// The slot with `number`.
    pub fn slot(self, number: u32) -> Option<Slot> {
        Slot::BOTH.into_iter().find(|slot| self.number(*slot) == number)
    }
}

/// What the shared variables say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootVars {
    /// The slot the bootloader boots next (unless it falls back first).
    pub selected: Slot,
    /// Whether `upgrade_available` is 1.
    pub trial: bool,
    /// Boots of the trial so far, where the bootloader wrote a number.
    pub boot_count: Option<u32>,
}

/// What the bootloader did while we were off, for a deployment that armed `target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The target is armed and has not been booted: the original still runs.
    Untouched,
    /// The target runs on trial.
    Trial,
    /// The target runs and the trial is over: it is permanent.
    Committed,
    /// The original runs and nothing points at the target: the bootloader gave up, or the target was never
    /// armed. The stage in the record tells the two apart.
    FellBack,
    /// The target still runs, but the next boot goes back to the original.
    Reverting,
    /// A combination that neither this client nor a bootloader that keeps the contract produces.
    Foreign,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Untouched => "armed, not booted yet",
            Verdict::Trial => "on trial",
            Verdict::Committed => "committed",
            Verdict::FellBack => "fell back",
            Verdict::Reverting => "going back at the next boot",
            Verdict::Foreign => "contradictory",
        })
    }
}

/// What the bootloader did while we were off. The environment is the truth for what boots.
pub fn verdict(vars: BootVars, running: Slot, target: Slot) -> Verdict {
    match (running == target, vars.trial, vars.selected == target) {
        (false, true, true) => Verdict::Untouched,
        (true, true, true) => Verdict::Trial,
        (true, false, true) => Verdict::Committed,
        (false, false, false) => Verdict::FellBack,
        (true, false, false) => Verdict::Reverting,
        // A permanent target that does not run, or a trial of the slot the deployment came from.
        (false, false, true) | (false, true, false) | (true, true, false) => Verdict::Foreign,
    }
}

/// Why the boot environment does not allow the next step.
#[derive(Debug)]
#[non_exhaustive]
pub enum BootError {
    /// The environment cannot be read or written.
    Env(BootEnvError),
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
    /// A trial is open: the other slot is the only fall-back and must not be touched.
    OpenTrial {
        /// The slot on trial.
        selected: Slot,
    },
    /// The environment can be read and could not be written: an update could never be tried.
    CannotBeArmed {
        /// The environment.
        environment: String,
        /// What is in the way.
        error: BootEnvError,
    },
    /// The running slot is not the one the environment selects.
    Disagrees {
        /// The slot that runs.
        running: Slot,
        /// The slot the environment selects.
        selected: Slot,
        /// The environment.
        environment: String,
    },
    /// A commit was asked for, and the target is not running on trial.
    NotOnTrial {
        /// The slot that would have been committed.
        target: Slot,
        /// What the bootloader did instead.
        verdict: Verdict,
    },
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Env(error) => error.fmt(f),
            BootError::SameNumber { number } => {
                write!(f, "RootfsPartA and RootfsPartB have the same partition number {number}")
            }
            BootError::NotSet { environment } => {
                write!(f, "{BOOT_PART} is not set in the {environment}: the bootloader is not set up for A/B")
            }
            BootError::BadValue { name, value, expected } => {
                write!(f, "{name} is {value:?} in the boot environment, expected {expected}")
            }
            BootError::CanaryMissing { environment } => write!(
                f,
                "{CHECK_CANARY} is set but {CANARY} is not: the bootloader does not use the {environment}"
            ),
            BootError::OpenTrial { selected } => write!(
                f,
                "slot {selected} is on trial ({UPGRADE_AVAILABLE}=1): commit it or roll it back first"
            ),
            BootError::CannotBeArmed { environment, error } => {
                write!(f, "no update could be tried, because the {environment} cannot be written: {error}")
            }
            BootError::Disagrees { running, selected, environment } => {
                write!(f, "slot {running} is running but the {environment} selects slot {selected}")
            }
            BootError::NotOnTrial { target, verdict } => {
                write!(f, "slot {target} is not running on trial (it is {verdict}): refusing to commit")
            }
        }
    }
}

impl std::error::Error for BootError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BootError::Env(error) | BootError::CannotBeArmed { error, .. } => error.source(),
            BootError::SameNumber { .. }
            | BootError::NotSet { .. }
            | BootError::BadValue { .. }
            | BootError::CanaryMissing { .. }
            | BootError::OpenTrial { .. }
            | BootError::Disagrees { .. }
            | BootError::NotOnTrial { .. } => None,
        }
    }
}

impl From<BootEnvError> for BootError {
    fn from(error: BootEnvError) -> BootError {
        BootError::Env(error)
    }
}

/// The boot environment and the meaning of its numbers: the one place that changes what boots next.
pub struct BootControl<'a> {
    env: &'a mut dyn BootEnv,
    partitions: Partitions,
}

impl<'a> BootControl<'a> {
    /// Control over `env`, in which `partitions` name the slots.
    pub fn new(env: &'a mut dyn BootEnv, partitions: Partitions) -> BootControl<'a> {
        BootControl { env, partitions }
    }

    /// What the environment says, validated.
    ///
    /// # Errors
    /// When it cannot be read, or a variable has a value that means nothing. A wrong value is never read as a
    /// default.
    pub fn read(&mut self) -> Result<BootVars, BootError> {
        let mut values = self.env.read(&VARIABLES_READ)?.into_iter();
        let mut next = || values.next().flatten();
        let (part, _hex, trial, count, check_canary, canary) =
            (next(), next(), next(), next(), next(), next());

        // Mender's contract: with the check asked for, the bootloader itself must have written the canary.
        if check_canary.as_deref() == Some("1") && canary.as_deref() != Some("1") {
            return Err(BootError::CanaryMissing { environment: self.env.describe() });
        }
        let part = part.ok_or_else(|| BootError::NotSet { environment: self.env.describe() })?;
        let selected =
            part.parse().ok().and_then(|number| self.partitions.slot(number)).ok_or_else(|| {
                bad_value(BOOT_PART, &part, format!("{} or {}", self.partitions.a, self.partitions.b))
            })?;
        let trial = match trial.as_deref() {
            // A bootloader that has never tried anything has not set it.
            None | Some("") | Some("0") => false,
            Some("1") => true,
            Some(other) => return Err(bad_value(UPGRADE_AVAILABLE, other, "0 or 1".into())),
        };
        Ok(BootVars { selected, trial, boot_count: count.and_then(|text| text.parse().ok()) })
    }

    /// Checks that no trial is pending and that the running slot is the selected one, so that writing to the
    /// other slot can never leave the device without a system to boot. Writes nothing.
    ///
    /// # Errors
    /// [`BootError::OpenTrial`] and [`BootError::Disagrees`], and what [`read`](Self::read) returns.
    pub fn settled(&mut self, running: Slot) -> Result<(), BootError> {
        let vars = self.read()?;
        if vars.trial {
            return Err(BootError::OpenTrial { selected: vars.selected });
        }
        if vars.selected != running {
            return Err(BootError::Disagrees {
                running,
                selected: vars.selected,
                environment: self.env.describe(),
            });
        }
        Ok(())
    }

    /// Checks that `target` could be armed: that the environment is not read-only, and has room. Writes nothing.
    ///
    /// # Errors
    /// [`BootError::CannotBeArmed`] with what is in the way.
    pub fn can_arm(&mut self, target: Slot) -> Result<(), BootError> {
        let changes = self.selecting(target, "1");
        self.env
            .check_write(&borrowed(&changes))
            .map_err(|error| BootError::CannotBeArmed { environment: self.env.describe(), error })
    }

    /// Points the bootloader at `target` on trial, in one write. The only caller is
    /// [`install::arm`](crate::install::arm), which takes the proof that the slot was written and verified.
    pub(crate) fn arm(&mut self, target: Slot) -> Result<(), BootError> {
        self.select(target, "1")
    }

    /// Makes the running trial of `target` permanent: the single commit point of an update.
    ///
    /// # Errors
    /// [`BootError::NotOnTrial`] unless `target` runs on trial.
    pub fn commit(&mut self, running: Slot, target: Slot) -> Result<(), BootError> {
        match verdict(self.read()?, running, target) {
            Verdict::Trial => Ok(self.env.write(&[(UPGRADE_AVAILABLE, "0")])?),
            // A commit that was cut after its write: nothing is left to do.
            Verdict::Committed => Ok(()),
            other @ (Verdict::Untouched | Verdict::FellBack | Verdict::Reverting | Verdict::Foreign) => {
                Err(BootError::NotOnTrial { target, verdict: other })
            }
        }
    }

    /// Makes `original` what boots next, permanently, in one write; no write when it already is.
    ///
    /// # Errors
    /// When the environment cannot be read or written.
    pub fn roll_back(&mut self, original: Slot) -> Result<(), BootError> {
        let vars = self.read()?;
        if !vars.trial && vars.selected == original {
            return Ok(());
        }
        self.select(original, "0")
    }

    fn select(&mut self, slot: Slot, upgrade_available: &str) -> Result<(), BootError> {
        Ok(self.env.write(&borrowed(&self.selecting(slot, upgrade_available)))?)
    }

    /// What is written to make the bootloader boot `slot`.
    fn selecting(&self, slot: Slot, upgrade_available: &str) -> [(&'static str, String); 4] {
        let number = self.partitions.number(slot);
        [
            (BOOT_PART, number.to_string()),
            (BOOT_PART_HEX, format!("{number:x}")),
            (UPGRADE_AVAILABLE, upgrade_available.to_owned()),
            (BOOT_COUNT, "0".to_owned()),
        ]
    }
}

fn borrowed<'c>(changes: &'c [(&'static str, String); 4]) -> [(&'c str, &'c str); 4] {
    changes.each_ref().map(|(name, value)| (*name, value.as_str()))
}

fn bad_value(name: &'static str, value: &str, expected: String) -> BootError {
    BootError::BadValue { name, value: value.chars().take(64).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variables in memory, with the number of writes.
    struct Memory {
        variables: std::collections::BTreeMap<String, String>,
        writes: usize,
        room: usize,
    }

    impl Memory {
        fn with(variables: &[(&str, &str)]) -> Memory {
            let variables = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Memory { variables, writes: 0, room: 200 }
        }
    }

    impl BootEnv for Memory {
        fn read(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, BootEnvError> {
            Ok(names.iter().map(|name| self.variables.get(*name).cloned()).collect())
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

    fn partitions() -> Partitions {
        Partitions::new(2, 11).unwrap()
    }

    fn read_error(variables: &[(&str, &str)]) -> String {
        let mut env = Memory::with(variables);
        BootControl::new(&mut env, partitions()).read().unwrap_err().to_string()
    }

    #[test]
    fn an_environment_without_room_cannot_be_armed_and_is_not_written() {
        let mut env = Memory::with(&[(BOOT_PART, "2"), (UPGRADE_AVAILABLE, "0")]);
        assert!(BootControl::new(&mut env, partitions()).can_arm(Slot::B).is_ok());
        env.room = 20;
        let error = BootControl::new(&mut env, partitions()).can_arm(Slot::B).unwrap_err().to_string();
        assert!(
            error.contains("environment in memory cannot be written") && error.contains("has 20"),
            "{error}"
        );
        assert_eq!(env.writes, 0);
    }

    #[test]
    fn every_combination_of_running_trial_and_selected_has_one_verdict() {
        let check = |running, trial, selected, expected| {
            let vars = BootVars { selected, trial, boot_count: None };
            assert_eq!(verdict(vars, running, Slot::B), expected, "{running} {trial} {selected}");
        };
        check(Slot::A, true, Slot::B, Verdict::Untouched);
        check(Slot::B, true, Slot::B, Verdict::Trial);
        check(Slot::B, false, Slot::B, Verdict::Committed);
        check(Slot::A, false, Slot::A, Verdict::FellBack);
        check(Slot::B, false, Slot::A, Verdict::Reverting);
        check(Slot::A, false, Slot::B, Verdict::Foreign);
        check(Slot::A, true, Slot::A, Verdict::Foreign);
        check(Slot::B, true, Slot::A, Verdict::Foreign);
    }

    #[test]
    fn a_value_that_means_nothing_is_an_error_that_names_it() {
        assert!(read_error(&[]).contains("mender_boot_part is not set"));
        assert!(read_error(&[(BOOT_PART, "7")]).contains("\"7\" in the boot environment, expected 2 or 11"));
        assert!(read_error(&[(BOOT_PART, "2x")]).contains("\"2x\""));
        let error = read_error(&[(BOOT_PART, "2"), (UPGRADE_AVAILABLE, "yes")]);
        assert!(error.contains("upgrade_available is \"yes\""), "{error}");
    }

    #[test]
    fn a_canary_that_was_asked_for_and_is_missing_stops_everything() {
        let base = [(BOOT_PART, "2"), (CHECK_CANARY, "1")];
        assert!(read_error(&base).contains("mender_saveenv_canary"));
        let mut env = Memory::with(&[base[0], base[1], (CANARY, "1")]);
        assert_eq!(BootControl::new(&mut env, partitions()).read().unwrap().selected, Slot::A);
    }

    #[test]
    fn arming_writes_all_four_variables_at_once() {
        let mut env = Memory::with(&[(BOOT_PART, "2"), (BOOT_COUNT, "1")]);
        BootControl::new(&mut env, partitions()).arm(Slot::B).unwrap();
        assert_eq!(env.writes, 1);
        let get = |name: &str| env.variables[name].as_str();
        assert_eq!(
            (get(BOOT_PART), get(BOOT_PART_HEX), get(UPGRADE_AVAILABLE), get(BOOT_COUNT)),
            ("11", "b", "1", "0")
        );
    }

    #[test]
    fn only_a_running_trial_can_be_committed_and_committing_twice_writes_once() {
        let mut env = Memory::with(&[(BOOT_PART, "11"), (UPGRADE_AVAILABLE, "1")]);
        let mut control = BootControl::new(&mut env, partitions());
        assert!(matches!(
            control.commit(Slot::A, Slot::B),
            Err(BootError::NotOnTrial { verdict: Verdict::Untouched, .. })
        ));
        control.commit(Slot::B, Slot::B).unwrap();
        control.commit(Slot::B, Slot::B).unwrap();
        assert_eq!((env.writes, env.variables[UPGRADE_AVAILABLE].as_str()), (1, "0"));
    }

    #[test]
    fn rolling_back_selects_the_original_once() {
        let mut env = Memory::with(&[(BOOT_PART, "11"), (UPGRADE_AVAILABLE, "1")]);
        for _ in 0..2 {
            BootControl::new(&mut env, partitions()).roll_back(Slot::A).unwrap();
        }
        assert_eq!((env.writes, env.variables[BOOT_PART].as_str()), (1, "2"));
    }

    #[test]
    fn an_open_trial_or_a_disagreement_is_not_settled() {
        let check = |variables: &[(&str, &str)], running| {
            let mut env = Memory::with(variables);
            let result = BootControl::new(&mut env, partitions()).settled(running);
            assert_eq!(env.writes, 0);
            result
        };
        assert!(check(&[(BOOT_PART, "2"), (UPGRADE_AVAILABLE, "0")], Slot::A).is_ok());
        let open = check(&[(BOOT_PART, "11"), (UPGRADE_AVAILABLE, "1")], Slot::B);
        assert!(matches!(open, Err(BootError::OpenTrial { selected: Slot::B })));
        let other = check(&[(BOOT_PART, "11")], Slot::A);
        assert!(matches!(other, Err(BootError::Disagrees { selected: Slot::B, .. })));
    }

    #[test]
    fn slots_with_one_number_are_refused() {
        assert!(matches!(Partitions::new(3, 3), Err(BootError::SameNumber { number: 3 })));
    }
}

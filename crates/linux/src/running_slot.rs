//! Which slot the running root file system is on.

use std::fs;
use std::path::Path;
use std::sync::Once;

use client_core::slot::{Slot, SlotError};

use crate::block_device;
use crate::mounts::{self, Identity, Mount, Places};
use crate::slot_paths::{SlotPaths, absolute, slot_metadata};

/// What `RustOta.RunningRoot` says.
pub(crate) struct RunningRoot {
    /// The slot that it names now.
    pub(crate) slot: Option<Slot>,
    /// Whether it names the device itself, and would name the same one after an update.
    pub(crate) is_fixed: bool,
}

impl RunningRoot {
    pub(crate) fn look(running: &str, paths: &SlotPaths, places: &Places) -> Result<RunningRoot, SlotError> {
        let path = absolute(running);
        let is_link = fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_symlink());
        let mut named = Vec::new();
        for slot in Slot::BOTH {
            let configured = paths.configured(slot)?;
            // One that is not there, or is no device, is still the one of the same name.
            let is_it = match (identity(&path, places), identity(&absolute(configured), places)) {
                (Some(one), Some(other)) => one == other,
                (_, _) => configured == running,
            };
            if is_it {
                named.push(slot);
            }
        }
        // A link that is itself the configured name of a slot says the same at every boot.
        let is_name = |slot| paths.configured(slot).is_ok_and(|configured| configured == running);
        let is_fixed = !is_link || Slot::BOTH.into_iter().any(is_name);
        Ok(RunningRoot { slot: only(&named), is_fixed })
    }
}

fn identity(path: &Path, places: &Places) -> Option<Identity> {
    block_device::resolve(path).and_then(|path| places.identity(&path)).ok()
}

fn only(slots: &[Slot]) -> Option<Slot> {
    match slots {
        [slot] => Some(*slot),
        _ => None,
    }
}

/// What the kernel knows about the root file system.
struct Evidence {
    root: Option<Mount>,
    /// The slot under what is mounted as `/`.
    mounted: Option<Slot>,
    /// The last `root=` of the kernel's command line.
    argument: Option<String>,
    /// The slot that it names.
    argued: Option<Slot>,
}

impl Evidence {
    fn gather(paths: &SlotPaths, places: &Places) -> Result<Evidence, SlotError> {
        let (mounts, command_line) = (mounts::read(places)?, places.command_line());
        Ok(Evidence::weigh(mounts, &command_line, &paths.identities(places)?, places))
    }

    /// What the kernel's mounts and command line say about `slots`.
    fn weigh(
        mounts: Vec<Mount>,
        command_line: &str,
        slots: &[(Slot, Identity)],
        places: &Places,
    ) -> Evidence {
        let which = |is_it: &dyn Fn(Identity) -> bool| {
            only(&slots.iter().filter(|(_, found)| is_it(*found)).map(|(slot, _)| *slot).collect::<Vec<_>>())
        };
        let root = mounts.into_iter().rev().find(|mount| mount.point == "/");
        let mounted = which(&|slot| root.as_ref().is_some_and(|root| root.lies_on(slot, places)));
        let argument = mounts::root_argument(command_line);
        let named = argument.as_deref().and_then(|argument| mounts::device_of(argument, places));
        let argued = which(&|slot| named == Some(slot));
        Evidence { root, mounted, argument, argued }
    }

    fn argument(&self) -> String {
        match &self.argument {
            Some(argument) => format!("the kernel was given root={argument}"),
            None => "the kernel was given no root=".to_owned(),
        }
    }
}

/// Who is right about which slot runs.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// It is this one.
    Runs(Slot),
    /// It is this one, and `RustOta.RunningRoot` is wrong.
    RunsInSpite(Slot),
    /// The command line of the kernel and a fixed `RustOta.RunningRoot` name different ones.
    Contradiction,
    /// Nothing tells.
    Unknown,
}

/// What is mounted is a fact. A `RunningRoot` that is a link was made by somebody who saw this boot; one that is fixed
/// was written before it, as `root=` was, and where those two differ nobody can tell.
fn judge(mounted: Option<Slot>, configured: Option<&RunningRoot>, argued: Option<Slot>) -> Judgement {
    let named = configured.and_then(|running| running.slot);
    match (mounted, named, argued) {
        (Some(slot), named, _) if configured.is_none() || named == Some(slot) => Judgement::Runs(slot),
        (Some(slot), _, _) => Judgement::RunsInSpite(slot),
        (None, Some(slot), Some(other))
            if slot != other && configured.is_some_and(|running| running.is_fixed) =>
        {
            Judgement::Contradiction
        }
        (None, Some(slot), _) => Judgement::Runs(slot),
        (None, None, Some(slot)) if configured.is_none() => Judgement::Runs(slot),
        (None, None, _) => Judgement::Unknown,
    }
}

/// Which slot the running root file system is on.
///
/// # Errors
/// [`SlotError::RunningUnknown`] naming every input.
pub fn find(paths: &SlotPaths) -> Result<Slot, SlotError> {
    let found = look(paths, &Places::default())?;
    if found.in_spite_of_the_key {
        warn_once_of_a_wrong_key(paths, found.slot);
    }
    Ok(found.slot)
}

/// The slot that runs, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The slot.
    pub slot: Slot,
    /// What told it.
    pub told_by: ToldBy,
    /// `RustOta.RunningRoot` says something else, and is wrong.
    pub in_spite_of_the_key: bool,
    /// `RustOta.RunningRoot` is set and names a device itself: it would say the same after an update.
    pub key_is_fixed: bool,
}

/// What told which slot runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldBy {
    /// It is mounted as `/`.
    Mount,
    /// `RustOta.RunningRoot`.
    Key,
    /// `root=` on the kernel's command line.
    CommandLine,
}

/// Which slot the running root file system is on, on the machine of `places`, and how that is known.
///
/// # Errors
/// [`SlotError::RunningUnknown`] naming every input.
pub fn look(paths: &SlotPaths, places: &Places) -> Result<Running, SlotError> {
    if let [(_, one), (_, other)] = paths.identities(places)?[..] {
        if one == other {
            return Err(paths.same_device()?);
        }
    }
    let configured = paths.running.as_deref();
    let configured = configured.map(|running| RunningRoot::look(running, paths, places)).transpose()?;
    let evidence = Evidence::gather(paths, places)?;
    let told_by = match (evidence.mounted, &configured) {
        (Some(_), _) => ToldBy::Mount,
        (None, Some(_)) => ToldBy::Key,
        (None, None) => ToldBy::CommandLine,
    };
    let key_is_fixed = configured.as_ref().is_some_and(|running| running.is_fixed);
    let runs = |slot, in_spite_of_the_key| Running { slot, told_by, in_spite_of_the_key, key_is_fixed };
    match judge(evidence.mounted, configured.as_ref(), evidence.argued) {
        Judgement::Runs(slot) => Ok(runs(slot, false)),
        Judgement::RunsInSpite(slot) => Ok(runs(slot, true)),
        Judgement::Contradiction => {
            let inputs = inputs(paths, &evidence, places)?.join("; ");
            Err(SlotError::RunningUnknown { inputs: format!("two that contradict each other; {inputs}") })
        }
        Judgement::Unknown => {
            Err(SlotError::RunningUnknown { inputs: inputs(paths, &evidence, places)?.join("; ") })
        }
    }
}

fn warn_once_of_a_wrong_key(paths: &SlotPaths, slot: Slot) {
    static TOLD: Once = Once::new();
    let running = paths.running.as_deref().unwrap_or_default();
    TOLD.call_once(|| {
        log::warn!(
            "RustOta.RunningRoot is {running:?}, and the root file system is mounted from slot {slot}: the key is \
             wrong here and not needed"
        );
    });
}

/// Everything that was looked at, for whoever has to find out what runs, and what would help.
fn inputs(paths: &SlotPaths, evidence: &Evidence, places: &Places) -> Result<Vec<String>, SlotError> {
    let mut inputs = Vec::new();
    for slot in Slot::BOTH {
        let path = paths.resolved(slot)?;
        let what = match (slot_metadata(slot, &path), places.identity(&path)) {
            (Ok(_), Ok(identity)) => identity.to_string(),
            (Ok(_), Err(error)) => error.to_string(),
            (Err(error), _) => error.to_string(),
        };
        inputs.push(format!("slot {slot} is {} ({what})", path.display()));
    }
    inputs.push(match &evidence.root {
        Some(root) => format!("/ is {} ({})", root.source, Identity::Block(root.device)),
        None => "/ is not in /proc/self/mountinfo".to_owned(),
    });
    let named = match evidence.argued {
        Some(slot) => format!("slot {slot}"),
        None if evidence.argument.is_some() => "neither of them as far as can be seen here".to_owned(),
        None => "nothing".to_owned(),
    };
    inputs.push(format!("{}, which names {named}", evidence.argument()));
    inputs.push(match &paths.running {
        Some(running) => format!("RustOta.RunningRoot is {running:?}"),
        None => "RustOta.RunningRoot is not set".to_owned(),
    });
    inputs.push("set it to a link that is made at every boot and leads to the slot that runs".to_owned());
    Ok(inputs)
}

/// A `RunningRoot` that names a device itself says after an update what it said before: the new slot would take itself
/// for the old one. Where the kernel can tell, that is known before the first byte.
pub(crate) fn check_that_a_trial_can_be_told(paths: &SlotPaths, running: &str) -> Result<(), SlotError> {
    static TOLD: Once = Once::new();
    let is_device = |identity: &(Slot, Identity)| !matches!(identity.1, Identity::File(..));
    // A virtual device made of files is not booted by a kernel; whoever restarts it says what runs.
    let places = Places::default();
    if !RunningRoot::look(running, paths, &places)?.is_fixed
        || !paths.identities(&places)?.iter().any(is_device)
    {
        return Ok(());
    }
    let evidence = Evidence::gather(paths, &places)?;
    match (evidence.mounted, evidence.argued) {
        // What is mounted is believed after the restart too.
        (Some(_), _) => Ok(()),
        (None, Some(_)) => {
            Err(SlotError::RunningFixed { running_root: running.to_owned(), argument: evidence.argument() })
        }
        (None, None) => {
            TOLD.call_once(|| {
                log::warn!(
                    "RustOta.RunningRoot is {running:?}, a device itself: if it is the same in the updated slot, \
                     that slot cannot be committed. A link that is made at every boot can"
                );
            });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::slot_paths::tests::files;

    use super::*;

    #[test]
    fn what_is_mounted_is_believed_and_two_guesses_that_differ_are_not() {
        let (a, b) = (Some(Slot::A), Some(Slot::B));
        let check = |mounted, configured: Option<(Option<Slot>, bool)>, argued, expected| {
            let running = configured.map(|(slot, is_fixed)| RunningRoot { slot, is_fixed });
            let found = judge(mounted, running.as_ref(), argued);
            assert_eq!(found, expected, "{mounted:?} {configured:?} {argued:?}");
        };
        for argued in [None, a, b] {
            check(b, None, argued, Judgement::Runs(Slot::B));
            for is_fixed in [false, true] {
                check(b, Some((b, is_fixed)), argued, Judgement::Runs(Slot::B));
                check(b, Some((a, is_fixed)), argued, Judgement::RunsInSpite(Slot::B));
                check(b, Some((None, is_fixed)), argued, Judgement::RunsInSpite(Slot::B));
                check(None, Some((None, is_fixed)), argued, Judgement::Unknown);
            }
        }
        check(None, None, b, Judgement::Runs(Slot::B));
        check(None, None, None, Judgement::Unknown);
        check(None, Some((a, true)), None, Judgement::Runs(Slot::A));
        check(None, Some((a, true)), a, Judgement::Runs(Slot::A));
        check(None, Some((a, true)), b, Judgement::Contradiction);
        check(None, Some((a, false)), b, Judgement::Runs(Slot::A));
    }

    #[test]
    fn the_slot_that_runs_is_the_one_under_the_root_or_else_the_one_the_kernel_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places::below(directory.path());
        // Verity on slot B.
        let slave = directory.path().join("sys/dev/block/252:0/slaves/mmcblk0p3");
        fs::create_dir_all(&slave).unwrap();
        fs::write(slave.join("dev"), "179:3\n").unwrap();
        let partition = |minor| Identity::Block(nix::sys::stat::makedev(179, minor));
        let both = [(Slot::A, partition(2)), (Slot::B, partition(3))];
        let check =
            |slots: &[(Slot, Identity)], mountinfo: &str, command_line: &str, expected: Option<Slot>| {
                let evidence = Evidence::weigh(mounts::parse(mountinfo), command_line, slots, &places);
                let found = judge(evidence.mounted, None, evidence.argued);
                assert_eq!(
                    found,
                    expected.map_or(Judgement::Unknown, Judgement::Runs),
                    "{mountinfo:?} {command_line:?}"
                );
            };
        let (a, b) = (Some(Slot::A), Some(Slot::B));
        let on_a = "24 1 179:2 / / rw - ext4 /dev/root rw";
        let on_b = "24 1 179:3 / / rw - ext4 /dev/root rw";
        let overlay = "30 1 0:22 / / rw - overlay overlay rw";
        check(&both, on_a, "", a);
        check(&both, on_b, "root=179:3", b);
        // The last mount over `/` is what runs, and a mount elsewhere says nothing.
        check(&both, &format!("1 0 179:2 / / rw - ext4 x rw\n{on_b}"), "", b);
        check(&both, "24 1 179:3 / /mnt rw - ext4 /dev/root rw", "", None);
        check(&both, "24 1 252:0 / / ro - ext4 /dev/dm-0 ro", "", b);
        // What is mounted counts for more than what the kernel was given.
        check(&both, on_b, "root=179:2", b);
        check(&both, overlay, "console=ttyS0 root=179:2 rw", a);
        check(&both, overlay, "root=179:2 root=b303", b);
        check(&both, "", "root=179:3", b);
        check(&both, overlay, "root=179:1", None);
        check(&both, overlay, "root=/dev/nfs", None);
        // A slot that is not there is not taken for the other.
        check(&both[..1], overlay, "root=179:3", None);
        // One device with two names runs as neither.
        check(&[both[0], (Slot::B, partition(2))], on_a, "root=179:2", None);
    }

    #[test]
    fn the_named_running_root_must_be_one_of_the_slots() {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = files(directory.path());
        assert_eq!(find(&paths).unwrap(), Slot::A);
        paths.running = Some("/elsewhere".into());
        assert!(find(&paths).unwrap_err().to_string().contains("RunningRoot is \"/elsewhere\""));
    }

    #[test]
    fn a_root_that_is_neither_slot_is_an_error_with_every_input() {
        let directory = tempfile::tempdir().unwrap();
        let paths = SlotPaths { running: None, ..files(directory.path()) };
        let error = find(&paths).unwrap_err().to_string();
        for part in ["slot A is", "slot B is", "/ is", "RunningRoot is not set"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

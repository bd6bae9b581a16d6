//! The two slots: what they lead to, whether they can be written, and which one runs.

use std::fs;
use std::path::PathBuf;

use client_core::slot::Slot;
use device::compose::Setup;
use linux::block_device::Kind;
use linux::mounts::{Identity, Mount};
use linux::running_slot::{self, Running, ToldBy};

use crate::finding::{self as check, Finding, add};
use crate::world::{World, mount_of, size};

/// One slot.
#[derive(Debug, Clone)]
pub(crate) struct SlotFacts {
    pub(crate) slot: Slot,
    /// The configured path; `None` where there is none.
    pub(crate) path: Option<PathBuf>,
    pub(crate) identity: Option<Identity>,
    pub(crate) kind: Found,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) is_read_only: bool,
    /// A disk with partitions on it.
    pub(crate) has_partitions: bool,
    pub(crate) number: Result<u32, String>,
    /// Where it is mounted.
    pub(crate) mounts: Vec<String>,
}

/// What is at the path of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Missing,
    /// This user may not look.
    Forbidden,
    Device,
    Volume,
    File,
    Unfit(&'static str),
}

/// Both slots.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) slots: [SlotFacts; 2],
    pub(crate) running: Result<Running, String>,
    /// The slot that the data partition is.
    pub(crate) data: Option<Slot>,
}

impl Facts {
    /// Whether this is a device of files, on a machine that has other things to do.
    pub(crate) fn is_virtual(&self) -> bool {
        self.slots.iter().any(|slot| slot.kind == Found::File)
    }

    pub(crate) fn are_configured(&self) -> bool {
        self.slots.iter().any(|slot| slot.path.is_some())
    }

    pub(crate) fn running(&self) -> Option<Slot> {
        self.running.as_ref().ok().map(|running| running.slot)
    }

    /// The slot with the bootloader's number `number`.
    pub(crate) fn numbered(&self, number: u32) -> Option<Slot> {
        self.slots.iter().find(|slot| slot.number == Ok(number)).map(|slot| slot.slot)
    }
}

pub(crate) fn gather(setup: &Setup, world: &World, mounts: &[Mount]) -> Facts {
    let paths = setup.slot_paths();
    let places = world.places();
    let slots = Slot::BOTH.map(|slot| {
        let path = paths.configured(slot).ok().and_then(|_| paths.resolved(slot).ok());
        let mut facts = SlotFacts {
            slot,
            identity: path.as_ref().and_then(|path| places.identity(path).ok()),
            number: paths.number_at(slot, &places).map_err(|error| error.to_string()),
            path,
            kind: Found::Missing,
            size_bytes: None,
            is_read_only: false,
            has_partitions: false,
            mounts: Vec::new(),
        };
        look(&mut facts, world);
        if let Some(identity) = facts.identity {
            let on_it = mounts.iter().filter(|mount| mount.lies_on(identity, &places));
            facts.mounts = on_it.map(|mount| mount.point.clone()).collect();
        }
        facts
    });
    let data_mount = mount_of(world, mounts, &setup.datastore);
    let is_data = |slot: &&SlotFacts| {
        let on_it = |identity| data_mount.is_some_and(|mount| mount.lies_on(identity, &places));
        slot.identity.is_some_and(on_it)
    };
    let data = slots.iter().find(is_data).map(|slot| slot.slot);
    let running = running_slot::look(&paths, &places).map_err(|error| error.to_string());
    Facts { slots, running, data }
}

/// What is at the path of a slot. Nothing is opened: an open volume could not be updated meanwhile.
fn look(facts: &mut SlotFacts, world: &World) {
    let Some(path) = &facts.path else { return };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            facts.kind = Found::Forbidden;
            return;
        }
        Err(_) => return,
    };
    facts.kind = match (Kind::of(path, &metadata), facts.identity) {
        (Kind::BlockDevice, _) | (Kind::RegularFile, Some(Identity::Block(_))) => Found::Device,
        (Kind::RegularFile, _) => Found::File,
        (Kind::UbiVolume, _) => Found::Volume,
        (Kind::Mtd, _) => Found::Unfit("a raw flash device, whose bad blocks an image knows nothing of"),
        (Kind::Other(what), _) => Found::Unfit(what),
    };
    facts.size_bytes = match facts.kind {
        Found::File => Some(metadata.len()),
        Found::Volume => {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            world.number(format!("/sys/class/ubi/{name}/data_bytes"))
        }
        Found::Device => {
            let folder = facts.identity.and_then(|identity| world.places().of_device(identity));
            folder.and_then(|folder| {
                facts.is_read_only = world.number(folder.join("ro")) == Some(1);
                let inside = world.names_in(&folder);
                facts.has_partitions = inside.iter().any(|name| folder.join(name).join("partition").exists());
                Some(world.number(folder.join("size"))?.saturating_mul(512))
            })
        }
        Found::Missing | Found::Forbidden | Found::Unfit(_) => None,
    };
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let [a, b] = &facts.slots;
    match (&a.path, &b.path) {
        (None, None) => {
            return vec![check::SLOTS_NONE.found(format_args!(
                "no slots are configured: images of root file systems cannot be installed"
            ))];
        }
        (Some(_), None) | (None, Some(_)) => {
            let missing = if a.path.is_none() { "RootfsPartA" } else { "RootfsPartB" };
            return vec![
                check::SLOTS_ONE_ONLY.found(format_args!("{missing} is not set, and the other one is")),
            ];
        }
        (Some(_), Some(_)) => {}
    }
    let mut found: Vec<Finding> = facts.slots.iter().flat_map(|slot| judge_one(facts, slot)).collect();
    if a.identity.is_some() && a.identity == b.identity {
        add(
            &mut found,
            &check::SLOTS_SAME,
            format_args!("{} and {} are the same device", shown(a), shown(b)),
        );
        return found;
    }
    if let (Ok(one), Ok(other)) = (&a.number, &b.number) {
        if one == other {
            add(
                &mut found,
                &check::SLOTS_SAME_NUMBER,
                format_args!("both slots have the partition number {one}"),
            );
        }
    }
    let there = [Found::Device, Found::Volume, Found::File];
    if a.kind != b.kind && there.contains(&a.kind) && there.contains(&b.kind) {
        add(&mut found, &check::SLOTS_KINDS, format_args!("{} and {} are of two kinds", shown(a), shown(b)));
    }
    if let (Some(one), Some(other)) = (a.size_bytes, b.size_bytes) {
        let text = format!("{} has {}, {} has {}", shown(a), size(one), shown(b), size(other));
        found.push(if one == other {
            check::SLOTS.found(format_args!("{text}"))
        } else {
            check::SLOTS_SIZE.found(format_args!("{text}"))
        });
    }
    found.extend(judge_running(facts));
    found
}

fn shown(slot: &SlotFacts) -> String {
    let path = slot.path.as_ref().map_or_else(String::new, |path| format!(" ({})", path.display()));
    format!("slot {}{path}", slot.slot)
}

fn judge_one(facts: &Facts, slot: &SlotFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = shown(slot);
    match slot.kind {
        Found::Missing => return vec![check::SLOT_MISSING.found(format_args!("{name} does not exist"))],
        Found::Unfit(what) => return vec![check::SLOT_KIND.found(format_args!("{name} is {what}"))],
        // Said once for the whole board.
        Found::Forbidden | Found::Device | Found::Volume | Found::File => {}
    }
    if slot.has_partitions {
        add(
            &mut found,
            &check::SLOT_WHOLE_DISK,
            format_args!("{name} is a whole disk with partitions on it"),
        );
    }
    if let Err(error) = &slot.number {
        add(&mut found, &check::SLOT_NO_NUMBER, format_args!("{error}"));
    }
    // In the slot that runs it is a matter of the data partition.
    if facts.data == Some(slot.slot) && facts.running() != Some(slot.slot) {
        add(&mut found, &check::SLOT_IS_DATA, format_args!("{name} holds the state of the client"));
    }
    let elsewhere = slot.mounts.iter().filter(|point| *point != "/" && facts.running() != Some(slot.slot));
    for point in elsewhere {
        add(&mut found, &check::SLOT_MOUNTED, format_args!("{name} is mounted on {point}"));
    }
    if slot.is_read_only && facts.running() != Some(slot.slot) {
        add(
            &mut found,
            &check::SLOT_READ_ONLY,
            format_args!("{name} cannot be written: the kernel has it read-only"),
        );
    }
    found
}

fn judge_running(facts: &Facts) -> Vec<Finding> {
    let running = match &facts.running {
        Ok(running) => running,
        Err(error) => return vec![check::RUNNING_UNKNOWN.found(format_args!("{error}"))],
    };
    let how = match running.told_by {
        ToldBy::Mount => "it is mounted as /",
        ToldBy::Key => "RustOta.RunningRoot says so",
        ToldBy::CommandLine => "root= on the kernel's command line names it",
    };
    let mut found = vec![check::RUNNING.found(format_args!("slot {} runs: {how}", running.slot))];
    if running.in_spite_of_the_key {
        add(
            &mut found,
            &check::RUNNING_KEY_WRONG,
            format_args!("RustOta.RunningRoot says something else than what is mounted"),
        );
    }
    // A device of files has nobody to make a link.
    if running.key_is_fixed && running.told_by == ToldBy::Key && !facts.is_virtual() {
        add(
            &mut found,
            &check::RUNNING_KEY_FIXED,
            format_args!("RustOta.RunningRoot names a device itself, and nothing else tells which slot runs"),
        );
    }
    found
}

//! The boot environment: where it is, what lies there besides it, and the state of its copies.
//!
//! Which variables mean what is for [`crate::bootloader`]. Nothing is locked, flushed or repaired: a copy that another
//! process is just writing looks torn, and is looked at once more after a moment.

use std::path::{Path, PathBuf};

use client_core::boot::mender_vars::{
    BOOT_COUNT, BOOT_PART, BOOT_PART_HEX, CANARY, CHECK_CANARY, UPGRADE_AVAILABLE,
};
use client_core::clock::Clock;
use client_core::slot::Slot;
use device::compose::Setup;
use linux::boot_env::{self, BootEnvPaths, Bootloader, FwEnvConfig, InspectedEnv};
use linux::clock::LinuxClock;
use linux::mounts::{Identity, Mount};

use crate::finding::{self as check, Finding, add};
use crate::slots;
use crate::world::{World, mount_of, size};

/// U-Boot's limit of a trial, and what it runs when that is passed.
pub(crate) const BOOT_LIMIT: &str = "bootlimit";
pub(crate) const ALTERNATIVE: &str = "altbootcmd";
/// What meta-mender's integration leaves.
pub(crate) const MENDER_SETUP: &str = "mender_setup";

/// Every variable that says something.
const NAMES: [&str; 9] = [
    BOOT_PART,
    BOOT_PART_HEX,
    UPGRADE_AVAILABLE,
    BOOT_COUNT,
    CHECK_CANARY,
    CANARY,
    BOOT_LIMIT,
    ALTERNATIVE,
    MENDER_SETUP,
];

/// Bytes of a sector as the kernel counts.
const SECTOR_BYTES: u64 = 512;
/// Bytes at the beginning of a disk in which a table of partitions may lie, and at its end: the head of a GPT and 128
/// entries.
const TABLE_SECTORS: u64 = 34;

/// The environment.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Whether the board has slots, and so needs one.
    pub(crate) is_needed: bool,
    /// Whether both U-Boot's and GRUB's are there, and nothing says which counts.
    pub(crate) are_both_there: bool,
    pub(crate) found: Result<Found, Problem>,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Neither is there.
    None(String),
    /// Its description cannot be understood.
    Config(String),
}

/// One environment.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) whose: Whose,
    pub(crate) inspected: Result<InspectedEnv, String>,
    pub(crate) places: Vec<Place>,
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    UBoot,
    Grub,
}

/// Where one copy is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) identity: Option<Identity>,
    /// As `fw_env.config` has it; 0 for a file of GRUB.
    pub(crate) offset: Option<u64>,
    pub(crate) size_bytes: u64,
    pub(crate) sector_bytes: u64,
    pub(crate) sectors: u64,
    /// The slot that it is, or lies in.
    pub(crate) slot: Option<Slot>,
    /// What the kernel says of the device, where it is one.
    pub(crate) device: Option<Device>,
    pub(crate) flash: Option<Flash>,
    /// What it is a file on: mount point, type of the file system, read-only.
    pub(crate) mount: Option<(String, String, bool)>,
}

/// A block device, or the one under a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Device {
    pub(crate) disk: String,
    /// Whether the copy lies on the disk itself.
    pub(crate) is_disk: bool,
    pub(crate) size_bytes: u64,
    pub(crate) is_read_only: bool,
    /// `force_ro` of an eMMC boot partition.
    pub(crate) force_ro: Option<bool>,
    pub(crate) is_locked: bool,
    pub(crate) write_cache: Option<String>,
    pub(crate) partitions: Vec<Partition>,
}

/// A partition of the disk that a copy lies on.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) slot: Option<Slot>,
    pub(crate) mounted_on: Option<String>,
}

/// An MTD device.
#[derive(Debug, Clone)]
pub(crate) struct Flash {
    pub(crate) erase_bytes: u64,
    pub(crate) kind: String,
}

/// What a look needs.
struct Looker<'a> {
    world: &'a World,
    mounts: &'a [Mount],
    slots: &'a slots::Facts,
}

pub(crate) fn gather(setup: &Setup, world: &World, mounts: &[Mount], slots: &slots::Facts) -> Facts {
    let looker = Looker { world, mounts, slots };
    let mut paths = BootEnvPaths::default();
    paths.grub_env_dir = setup.config.grub_env_dir.as_ref().map(PathBuf::from);
    paths.grub_config = world.at(&paths.grub_config);
    let fw_env_config = world.at(&setup.config.fw_env_config);
    paths.uboot_lock = world.at(&paths.uboot_lock);
    let grub = boot_env::find_grub(&paths, &|path| world.at(path)).map_err(|error| error.to_string());
    let is_uboot_there = fw_env_config.exists();
    let choice = setup.config.bootloader;
    let found = match (choice, grub) {
        (Bootloader::Grub | Bootloader::Auto, Ok(directory)) => Ok(looker.grub(&directory)),
        (Bootloader::Grub, Err(error)) => Err(Problem::None(error)),
        (Bootloader::Auto, Err(error)) if !is_uboot_there => Err(Problem::None(format!(
            "neither U-Boot's nor GRUB's is there: {} does not exist; {error}",
            fw_env_config.display()
        ))),
        (Bootloader::UBoot, _) if !is_uboot_there => {
            Err(Problem::None(format!("{} does not exist", fw_env_config.display())))
        }
        (Bootloader::UBoot | Bootloader::Auto, _) => looker.uboot(&fw_env_config, &paths),
    };
    let is_grub = found.as_ref().is_ok_and(|found| found.whose == Whose::Grub);
    Facts {
        is_needed: slots.are_configured(),
        are_both_there: choice == Bootloader::Auto && is_grub && is_uboot_there,
        found,
    }
}

impl Looker<'_> {
    fn uboot(&self, path: &Path, paths: &BootEnvPaths) -> Result<Found, Problem> {
        let config =
            boot_env::read_fw_env_config(path).map_err(|error| Problem::Config(error.to_string()))?;
        let config = self.settled(config);
        let inspect = || boot_env::inspect_uboot(&config, paths, &NAMES).map_err(|error| error.to_string());
        let inspected = self.once_more(inspect);
        let offsets = |at: usize| inspected.as_ref().ok().and_then(|env| env.copies.get(at)?.offset);
        let places = config.copies().iter().enumerate().map(|(at, copy)| {
            let mut place = self.place(Path::new(&copy.device));
            place.offset = u64::try_from(copy.offset).ok().or_else(|| offsets(at));
            place.size_bytes = copy.size_bytes;
            (place.sector_bytes, place.sectors) = (copy.sector_bytes, copy.sectors);
            place
        });
        Ok(Found { whose: Whose::UBoot, places: places.collect(), inspected })
    }

    fn grub(&self, directory: &Path) -> Found {
        let inspected = self.once_more(|| Ok(boot_env::inspect_grub(directory, &NAMES)));
        let copies = inspected.iter().flat_map(|env| &env.copies);
        let places = copies.map(|copy| Place { size_bytes: copy.size_bytes, ..self.place(&copy.path) });
        Found { whose: Whose::Grub, places: places.collect(), inspected }
    }

    /// What is torn now may have been in the middle of a write.
    fn once_more(&self, inspect: impl Fn() -> Result<InspectedEnv, String>) -> Result<InspectedEnv, String> {
        match inspect() {
            Ok(env) if env.copies.iter().any(|copy| copy.fault.is_some()) => {
                LinuxClock::new().pause(self.world.patience);
                inspect()
            }
            inspected => inspected,
        }
    }

    /// The devices as they are called here.
    fn settled(&self, mut config: FwEnvConfig) -> FwEnvConfig {
        let copies: &mut [_] = match &mut config {
            FwEnvConfig::Single(copy) => std::slice::from_mut(copy),
            FwEnvConfig::Redundant(copies) => copies,
        };
        for copy in copies.iter_mut().filter(|copy| copy.device.starts_with('/')) {
            copy.device = self.world.at(&copy.device).to_string_lossy().into_owned();
        }
        config
    }

    fn place(&self, path: &Path) -> Place {
        let places = self.world.places();
        let real = linux::block_device::resolve(path).unwrap_or_else(|_| path.to_owned());
        let identity = places.identity(&real).ok();
        let mut place = Place { path: path.to_owned(), identity, ..Place::default() };
        // A folder on a desk may be anywhere.
        if self.slots.is_virtual() {
            return place;
        }
        let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("mtd") {
            let folder = Path::new("/sys/class/mtd").join(&name);
            place.flash = self.world.number(folder.join("erasesize")).map(|erase_bytes| Flash {
                erase_bytes,
                kind: self.world.text(folder.join("type")).unwrap_or_default(),
            });
        }
        match identity {
            Some(Identity::Block(_)) => {
                place.slot = self.slot_of(identity);
                place.device = identity.and_then(|identity| self.device(identity));
            }
            Some(Identity::File(..)) if place.flash.is_none() => {
                let mount = mount_of(self.world, self.mounts, &real);
                place.mount =
                    mount.map(|mount| (mount.point.clone(), mount.file_system.clone(), mount.read_only));
                let under = |slot: &&slots::SlotFacts| {
                    let on_it = |identity| mount.is_some_and(|mount| mount.lies_on(identity, &places));
                    slot.identity.is_some_and(on_it)
                };
                place.slot = self.slots.slots.iter().find(under).map(|slot| slot.slot);
                place.device = mount.and_then(|mount| self.device(Identity::Block(mount.device)));
            }
            Some(Identity::File(..) | Identity::Character(_)) | None => {}
        }
        place
    }

    fn slot_of(&self, identity: Option<Identity>) -> Option<Slot> {
        let is_it = |slot: &&slots::SlotFacts| identity.is_some() && slot.identity == identity;
        self.slots.slots.iter().find(is_it).map(|slot| slot.slot)
    }

    fn device(&self, identity: Identity) -> Option<Device> {
        let world = self.world;
        let folder = world.places().of_device(identity)?;
        let is_disk = !folder.join("partition").exists();
        let disk = if is_disk { folder.clone() } else { folder.parent()?.to_owned() };
        let partitions = if is_disk { self.partitions(&disk) } else { Vec::new() };
        Some(Device {
            disk: disk.file_name()?.to_string_lossy().into_owned(),
            is_disk,
            size_bytes: world.number(folder.join("size"))?.saturating_mul(SECTOR_BYTES),
            is_read_only: world.number(folder.join("ro")) == Some(1),
            force_ro: world.number(disk.join("force_ro")).map(|flag| flag == 1),
            is_locked: world.number(disk.join("ro_lock_until_next_power_on")) == Some(1),
            write_cache: world.text(disk.join("queue/write_cache")),
            partitions,
        })
    }

    fn partitions(&self, disk: &Path) -> Vec<Partition> {
        let (world, places) = (self.world, self.world.places());
        let partition = |name: String| {
            let folder = disk.join(&name);
            folder.join("partition").exists().then_some(())?;
            let start = world.number(folder.join("start"))?.saturating_mul(SECTOR_BYTES);
            let length = world.number(folder.join("size"))?.saturating_mul(SECTOR_BYTES);
            let identity = places.identity_of_folder(&folder);
            let on_it = |mount: &&Mount| identity.is_some_and(|identity| mount.lies_on(identity, &places));
            Some(Partition {
                start,
                end: start.saturating_add(length),
                slot: self.slot_of(identity),
                mounted_on: self.mounts.iter().find(on_it).map(|mount| mount.point.clone()),
                name,
            })
        };
        world.names_in(disk).into_iter().filter_map(partition).collect()
    }
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let found = match &facts.found {
        Ok(found) => found,
        // What has no slots needs none.
        Err(Problem::None(_)) if !facts.is_needed => return Vec::new(),
        Err(Problem::None(error)) => return vec![check::ENV_NONE.found(format_args!("{error}"))],
        Err(Problem::Config(error)) => return vec![check::ENV_CONFIG.found(format_args!("{error}"))],
    };
    let mut said = Vec::new();
    if facts.are_both_there {
        add(
            &mut said,
            &check::ENV_BOTH,
            format_args!("U-Boot's environment and GRUB's are both described; GRUB's is used"),
        );
    }
    let placed = judge_places(found);
    let overlaps = placed.iter().any(|finding| finding.check == &check::ENV_OVERLAP);
    said.extend(placed);
    match &found.inspected {
        Ok(env) => said.extend(judge_copies(found, env)),
        Err(_) if overlaps => {}
        Err(error) => add(&mut said, &check::ENV_CONFIG, format_args!("{error}")),
    }
    said
}

fn judge_copies(found: &Found, env: &InspectedEnv) -> Vec<Finding> {
    let mut said = Vec::new();
    let whose = match found.whose {
        Whose::UBoot => "U-Boot",
        Whose::Grub => "GRUB",
    };
    let copy = |at: usize| match env.copies.get(at) {
        Some(copy) => {
            let offset = copy.offset.filter(|_| found.whose == Whose::UBoot);
            let offset = offset.map_or_else(String::new, |offset| format!("+{offset:#x}"));
            format!("copy {} ({}{offset})", at + 1, copy.path.display())
        }
        None => format!("copy {}", at + 1),
    };
    let faults: Vec<(usize, &String)> =
        env.copies.iter().enumerate().filter_map(|(at, copy)| Some((at, copy.fault.as_ref()?))).collect();
    let fault = |(at, fault): &(usize, &String)| format!("{}: {fault}", copy(*at));
    match env.active {
        None if faults.iter().any(|(_, fault)| fault.contains("Permission denied")) => {
            add(
                &mut said,
                &check::ENV_FORBIDDEN,
                format_args!("this user may not read the {whose} environment"),
            );
        }
        None => {
            let hint = env.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
            let faults: Vec<String> = faults.iter().map(fault).collect();
            add(
                &mut said,
                &check::ENV_UNREADABLE,
                format_args!("no copy of the {whose} environment is valid: {}{hint}", faults.join("; ")),
            );
        }
        Some(active) => {
            let valid = env.copies.len() - faults.len();
            let bytes = size(env.copies.get(active).map_or(0, |copy| copy.size_bytes));
            let which = if valid > 1 { format!(", {} counts", copy(active)) } else { String::new() };
            let what = if valid == 1 { "copy" } else { "copies" };
            if faults.is_empty() {
                add(
                    &mut said,
                    &check::ENV,
                    format_args!("{whose} environment: {valid} valid {what} of {bytes}{which}"),
                );
            } else {
                let faults: Vec<String> = faults.iter().map(fault).collect();
                add(
                    &mut said,
                    &check::ENV_COPY_BAD,
                    format_args!("{whose} environment: {} counts; {}", copy(active), faults.join("; ")),
                );
            }
        }
    }
    if env.copies.len() == 1 {
        add(
            &mut said,
            &check::ENV_SINGLE,
            format_args!("the {whose} environment has one copy, which is rewritten in place"),
        );
    }
    said
}

fn judge_places(found: &Found) -> Vec<Finding> {
    let mut said = Vec::new();
    for finding in found.places.iter().flat_map(judge_place) {
        // Two copies in one place need no two lines.
        if !said.contains(&finding) {
            said.push(finding);
        }
    }
    if let [first, second] = found.places.as_slice() {
        said.extend(judge_both(first, second));
    }
    said.extend(judge_cache(found));
    said
}

fn judge_both(first: &Place, second: &Place) -> Option<Finding> {
    if first.identity.is_none() || first.identity != second.identity {
        return None;
    }
    let (one, other) = (first.offset?, second.offset?);
    if one.abs_diff(other) < first.size_bytes {
        return Some(check::ENV_OVERLAP.found(format_args!(
            "the copies at {one:#x} and {other:#x} of {:#x} bytes overlap",
            first.size_bytes
        )));
    }
    let erase_bytes = first.flash.as_ref()?.erase_bytes.max(1);
    let (low, high) = (one.min(other), one.max(other));
    let shared = low.saturating_add(first.size_bytes - 1) / erase_bytes == high / erase_bytes;
    shared.then(|| {
        check::ENV_ERASE_BLOCK.found(format_args!(
            "both copies use the erase block at {:#x}: writing one erases the other",
            high / erase_bytes * erase_bytes
        ))
    })
}

fn judge_place(place: &Place) -> Vec<Finding> {
    let mut said = Vec::new();
    // Of files the partition counts, which both copies are on.
    let path =
        place.mount.as_ref().map_or_else(|| place.path.display().to_string(), |(point, ..)| point.clone());
    let end = place.offset.and_then(|offset| offset.checked_add(place.size_bytes));
    let range = place.offset.zip(end);
    if let Some(slot) = place.slot {
        add(&mut said, &check::ENV_IN_SLOT, format_args!("the environment ({path}) lies in slot {slot}"));
    }
    if let (Some((start, end)), Some(device)) =
        (range, place.device.as_ref().filter(|_| place.mount.is_none()))
    {
        said.extend(judge_range(device, start, end));
        if start % SECTOR_BYTES != 0 || place.size_bytes % SECTOR_BYTES != 0 {
            add(
                &mut said,
                &check::ENV_UNALIGNED,
                format_args!(
                    "{:#x} bytes at {start:#x} do not begin and end with a sector of {path}",
                    place.size_bytes
                ),
            );
        }
    }
    if let Some(flash) = &place.flash {
        if place.sector_bytes != 0 && place.sector_bytes != flash.erase_bytes {
            add(
                &mut said,
                &check::ENV_SECTOR_SIZE,
                format_args!(
                    "SECTORSIZE is {:#x} and the erase block of {path} has {:#x} bytes",
                    place.sector_bytes, flash.erase_bytes
                ),
            );
        }
        let needed = place.size_bytes.div_ceil(flash.erase_bytes.max(1));
        if flash.kind.contains("nand") && place.sectors <= needed {
            add(
                &mut said,
                &check::ENV_NO_SPARE,
                format_args!("{path} is NAND flash, and the environment has no block to spare"),
            );
        }
    }
    if let Some((point, file_system, is_read_only)) = &place.mount {
        if is_volatile(file_system) {
            add(
                &mut said,
                &check::ENV_LOST,
                format_args!("the environment lies on {point}, which is a {file_system}"),
            );
        } else if *is_read_only {
            add(
                &mut said,
                &check::ENV_READ_ONLY,
                format_args!("the environment lies on {point}, which is mounted read-only"),
            );
        }
    }
    if let Some(device) = &place.device {
        match device.force_ro {
            Some(_) if device.is_locked => add(
                &mut said,
                &check::ENV_BOOT_PARTITION_LOCKED,
                format_args!("{path} is locked until the power goes off"),
            ),
            Some(true) => add(
                &mut said,
                &check::ENV_BOOT_PARTITION,
                format_args!("{path} is protected (force_ro); the client lifts that for each write"),
            ),
            None if device.is_read_only && place.mount.is_none() => {
                add(
                    &mut said,
                    &check::ENV_READ_ONLY,
                    format_args!("{path} cannot be written: the kernel has it read-only"),
                );
            }
            Some(false) | None => {}
        }
    }
    said
}

/// Whether what is written there is gone after a restart.
pub(crate) fn is_volatile(file_system: &str) -> bool {
    ["tmpfs", "ramfs", "overlay", "rootfs", "devtmpfs", "squashfs"].contains(&file_system)
}

fn judge_range(device: &Device, start: u64, end: u64) -> Vec<Finding> {
    let mut said = Vec::new();
    if !device.is_disk || device.partitions.is_empty() {
        return said;
    }
    let table = TABLE_SECTORS * SECTOR_BYTES;
    // The boot partitions of an eMMC have no table, and no partitions.
    if start < table || end > device.size_bytes.saturating_sub(table - SECTOR_BYTES) {
        add(
            &mut said,
            &check::ENV_ON_TABLE,
            format_args!(
                "the environment at {start:#x} of {} lies where the table of partitions is, or its copy at the end",
                device.disk
            ),
        );
    }
    for partition in device.partitions.iter().filter(|found| start < found.end && end > found.start) {
        let place = format!("the environment at {start:#x} of {} lies in {}", device.disk, partition.name);
        said.push(match (partition.slot, &partition.mounted_on) {
            (Some(slot), _) => check::ENV_IN_SLOT.found(format_args!("{place}, which is slot {slot}")),
            (None, Some(point)) => {
                check::ENV_IN_MOUNTED.found(format_args!("{place}, which is mounted on {point}"))
            }
            (None, None) => check::ENV_IN_PARTITION.found(format_args!("{place}")),
        });
    }
    said
}

/// A disk with a cache of its own loses what it was not told to keep. Linux tells it so; U-Boot's driver of NVMe does not.
fn judge_cache(found: &Found) -> Option<Finding> {
    let device = found.places.iter().find_map(|place| place.device.as_ref())?;
    let cache = device.write_cache.as_deref()?;
    if cache != "write back" {
        return Some(check::ENV_FLUSHED.found(format_args!("{} has no write-back cache", device.disk)));
    }
    Some(if device.disk.starts_with("nvme") {
        check::ENV_WRITE_CACHE
            .found(format_args!("{} has a write-back cache, which U-Boot and GRUB do not flush", device.disk))
    } else if found.places.len() == 1 {
        check::ENV_WRITE_CACHE
            .found(format_args!("{} has a write-back cache, and the environment has one copy", device.disk))
    } else {
        check::ENV_FLUSHED.found(format_args!(
            "{} has a write-back cache; Linux flushes it after each write, and there are two copies",
            device.disk
        ))
    })
}

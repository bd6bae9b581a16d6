//! The two slots as block devices, UBI volumes or plain files, and which of them is running.
//!
//! A device has many names: whatever is named twice is compared as a device ([`Identity`]), never by its path.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use client_core::boot::mender_vars::PartitionNumbers;
use client_core::slot::{Slot, SlotError, Slots};
use client_core::storage::BlockDevice;

use crate::block_device::{self, Access, Kind};
use crate::lock;
use crate::mounts::{self, Identity, Mount, Places};

/// The configured paths of the slots.
#[derive(Debug, Clone, Default)]
pub struct SlotPaths {
    /// `RootfsPartA`.
    pub a: Option<String>,
    /// `RootfsPartB`.
    pub b: Option<String>,
    /// `RustOta.RunningRoot`: the path of the running slot, where detection cannot work.
    pub running: Option<String>,
}

impl SlotPaths {
    fn configured(&self, slot: Slot) -> Result<&str, SlotError> {
        let (key, path) = match slot {
            Slot::A => ("RootfsPartA", &self.a),
            Slot::B => ("RootfsPartB", &self.b),
        };
        path.as_deref().filter(|path| !path.is_empty()).ok_or(SlotError::NotConfigured { key })
    }

    /// The path of `slot` with the names that stand for another node resolved. What cannot be resolved is found
    /// missing when it is opened.
    fn resolved(&self, slot: Slot) -> Result<PathBuf, SlotError> {
        let path = absolute(self.configured(slot)?);
        Ok(block_device::resolve(&path).unwrap_or(path))
    }

    fn same_device(&self) -> Result<SlotError, SlotError> {
        let path = |slot| self.configured(slot).map(str::to_owned);
        Ok(SlotError::SameDevice { a: path(Slot::A)?, b: path(Slot::B)? })
    }

    /// The identities of both slots, where they are there.
    fn identities(&self) -> Result<Vec<(Slot, Identity)>, SlotError> {
        let mut found = Vec::new();
        for slot in Slot::BOTH {
            let identity = Identity::at(&self.resolved(slot)?);
            found.extend(identity.ok().map(|identity| (slot, identity)));
        }
        Ok(found)
    }
}

/// `ubi0_1` is how Mender's configuration names a UBI volume.
fn absolute(path: &str) -> PathBuf {
    if path.starts_with("ubi") { Path::new("/dev").join(path) } else { PathBuf::from(path) }
}

/// How long another process may have a slot that is to be written. A look at it is short.
const SLOT_WAIT: Duration = Duration::from_secs(1);

/// Opens slots, refusing whatever must not be written. What was opened once stays locked until this is dropped.
pub struct LinuxSlots {
    paths: SlotPaths,
    held: Vec<(Identity, File)>,
}

impl LinuxSlots {
    /// The slots that `paths` name. Nothing is opened yet.
    pub fn new(paths: SlotPaths) -> LinuxSlots {
        LinuxSlots { paths, held: Vec::new() }
    }
}

impl LinuxSlots {
    /// Locks a slot itself, which other processes find whatever their datastore is: the lock of a datastore keeps only
    /// those apart that have the same one, and `O_EXCL` says nothing about files.
    fn hold(&mut self, slot: Slot, path: &Path, target: Identity, kind: Kind) -> Result<(), SlotError> {
        if self.held.iter().any(|(held, _)| *held == target) {
            return Ok(());
        }
        match kind {
            Kind::RegularFile | Kind::BlockDevice => {}
            // A second descriptor would keep the volume from being updated. UBI lets only one process do that, and nobody
            // keeps others out between the update and the arming.
            Kind::UbiVolume | Kind::Mtd | Kind::Other(_) => return Ok(()),
        }
        let shown = || path.display().to_string();
        let file =
            File::open(path).map_err(|source| SlotError::Io { doing: "open", path: shown(), source })?;
        match lock::try_for(&file, SLOT_WAIT) {
            Ok(true) => self.held.push((target, file)),
            Ok(false) => return Err(SlotError::InUse { slot, path: shown() }),
            // Some file systems know no locks.
            Err(error) => log::warn!("{} cannot be locked: {error}", path.display()),
        }
        Ok(())
    }
}

/// What is wrong with a slot of this kind.
fn unfit(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::RegularFile | Kind::BlockDevice | Kind::UbiVolume => None,
        // Bad blocks have no meaning to a root file system image.
        Kind::Mtd => Some("a raw flash device"),
        Kind::Other(found) => Some(found),
    }
}

fn slot_metadata(slot: Slot, path: &Path) -> Result<fs::Metadata, SlotError> {
    fs::metadata(path).map_err(|source| {
        let path = path.display().to_string();
        if source.kind() == std::io::ErrorKind::NotFound {
            SlotError::Missing { slot, path }
        } else {
            SlotError::Io { doing: "look at", path, source }
        }
    })
}

impl Slots for LinuxSlots {
    fn open(&mut self, slot: Slot) -> Result<Box<dyn BlockDevice + '_>, SlotError> {
        let path = self.paths.resolved(slot)?;
        let shown = || path.display().to_string();
        let metadata = slot_metadata(slot, &path)?;
        let kind = Kind::of(&path, &metadata);
        if let Some(found) = unfit(kind) {
            return Err(SlotError::WrongKind { slot, path: shown(), found });
        }
        let target = Identity::of(&metadata);
        let other_path = self.paths.resolved(!slot)?;
        if Identity::of(&slot_metadata(!slot, &other_path)?) == target {
            return Err(self.paths.same_device()?);
        }
        if let Some(mount) = mounts::read()?.iter().find(|mount| mount.lies_on(target, &Places::default())) {
            let path = shown();
            return Err(if mount.point == "/" {
                SlotError::Running { slot, path }
            } else {
                SlotError::Mounted { slot, path, mount_point: mount.point.clone() }
            });
        }
        if let Some(running) = &self.paths.running {
            if RunningRoot::look(running, &self.paths)?.slot == Some(slot) {
                return Err(SlotError::Running { slot, path: shown() });
            }
            check_that_a_trial_can_be_told(&self.paths, running)?;
        }
        self.hold(slot, &path, target, kind)?;
        block_device::open(&path, Access::WriteExclusive).map_err(|source| SlotError::Io {
            doing: "open",
            path: shown(),
            source,
        })
    }
}

impl PartitionNumbers for SlotPaths {
    fn number(&mut self, slot: Slot) -> Result<u32, SlotError> {
        let configured = absolute(self.configured(slot)?);
        let resolved = self.resolved(slot)?;
        let partition = mounts::partition_number(&resolved, &Places::default());
        number_of(&configured, &resolved, partition).ok_or_else(|| {
            let path = if configured == resolved {
                configured.display().to_string()
            } else {
                format!("{}, which is {}", configured.display(), resolved.display())
            };
            SlotError::NoPartitionNumber { slot, path }
        })
    }
}

/// Names of whole devices, whose number says in which order they were found.
const WHOLE_DEVICES: [&str; 9] = ["dm-", "loop", "md", "mmcblk", "ram", "zram", "nbd", "drbd", "sr"];
/// Largest number of a partition that Linux knows.
const PARTITIONS: u32 = 256;

/// The number by which the bootloader knows a slot: the one at the end of its configured name, and where that has none,
/// or is made of an identifier, that of the partition or volume that it leads to. So `/dev/mapper/rootfs2` is 2 whatever
/// node it leads to, and `/dev/disk/by-partuuid/...` what its node is. (The Mender client resolves
/// `/dev/root`, `by-partuuid` and `by-partlabel` and leaves other names alone.)
///
/// `partition` is what the kernel calls the node, where it is a partition.
fn number_of(configured: &Path, resolved: &Path, partition: Option<u32>) -> Option<u32> {
    let name = configured.to_string_lossy();
    let own = || trailing_number(&name).filter(|_| !ends_in_identifier(&name));
    let node = || partition.or_else(|| number_of_node(&resolved.to_string_lossy()));
    let is_volume_name = name.contains("ubi") && name.contains(':');
    if name == "/dev/root"
        || name.starts_with("/dev/disk/by-partuuid/")
        || name.starts_with("/dev/disk/by-uuid/")
    {
        node()
    } else if name.starts_with("/dev/disk/by-") || is_volume_name {
        node().or_else(own)
    } else {
        own().or_else(node)
    }
}

/// The number of a partition, a volume or a file by its node; none of a whole device.
fn number_of_node(path: &str) -> Option<u32> {
    let name = path.strip_prefix("/dev/").map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit()));
    let is_namespace = |name: &str| name.starts_with("nvme") && name.ends_with('n');
    match name {
        Some(name) if WHOLE_DEVICES.contains(&name) || is_namespace(name) => None,
        Some(_) | None => trailing_number(path),
    }
}

/// Whether a name ends in a UUID, whose last digits are by chance decimal.
fn ends_in_identifier(name: &str) -> bool {
    let start = name.len().checked_sub(36).filter(|start| name.is_char_boundary(*start));
    start.is_some_and(|start| {
        let shape = b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
        name.as_bytes()[start..].iter().zip(shape).all(|(byte, wanted)| match wanted {
            b'-' => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    })
}

/// The number at the end of a path: 2 of `/dev/mmcblk0p2`, 3 of `/dev/ubi0_3`.
fn trailing_number(path: &str) -> Option<u32> {
    let digits = path.len() - path.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    path[path.len() - digits..].parse().ok().filter(|number| *number < PARTITIONS)
}

/// What `RustOta.RunningRoot` says.
struct RunningRoot {
    /// The slot that it names now.
    slot: Option<Slot>,
    /// Whether it names the device itself, and would name the same one after an update.
    is_fixed: bool,
}

impl RunningRoot {
    fn look(running: &str, paths: &SlotPaths) -> Result<RunningRoot, SlotError> {
        let path = absolute(running);
        let is_link = fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_symlink());
        let mut named = Vec::new();
        for slot in Slot::BOTH {
            let configured = paths.configured(slot)?;
            // One that is not there, or is no device, is still the one of the same name.
            let is_it = match (identity(&path), identity(&absolute(configured))) {
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

fn identity(path: &Path) -> Option<Identity> {
    block_device::resolve(path).and_then(|path| Identity::at(&path)).ok()
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
    fn gather(paths: &SlotPaths) -> Result<Evidence, SlotError> {
        let places = Places::default();
        let root = mounts::read()?.into_iter().rev().find(|mount| mount.point == "/");
        let argument = mounts::root_argument(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
        let named = argument.as_deref().and_then(|argument| mounts::device_of(argument, &places));
        let slots = paths.identities()?;
        let which = |is_it: &dyn Fn(Identity) -> bool| {
            only(&slots.iter().filter(|(_, found)| is_it(*found)).map(|(slot, _)| *slot).collect::<Vec<_>>())
        };
        let mounted = which(&|slot| root.as_ref().is_some_and(|root| root.lies_on(slot, &places)));
        let argued = which(&|slot| named == Some(slot));
        Ok(Evidence { root, mounted, argument, argued })
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
pub fn running_slot(paths: &SlotPaths) -> Result<Slot, SlotError> {
    static TOLD: Once = Once::new();
    if let [(_, one), (_, other)] = paths.identities()?[..] {
        if one == other {
            return Err(paths.same_device()?);
        }
    }
    let configured = match &paths.running {
        Some(running) => Some(RunningRoot::look(running, paths)?),
        None => None,
    };
    let evidence = Evidence::gather(paths)?;
    let judgement = judge(evidence.mounted, configured.as_ref(), evidence.argued);
    let running = paths.running.as_deref().unwrap_or_default();
    let mut inputs = Vec::new();
    match judgement {
        Judgement::Runs(slot) => return Ok(slot),
        Judgement::RunsInSpite(slot) => {
            TOLD.call_once(|| {
                log::warn!(
                    "RustOta.RunningRoot is {running:?}, and the root file system is mounted from slot {slot}: \
                     the key is wrong here and not needed"
                );
            });
            return Ok(slot);
        }
        Judgement::Contradiction => inputs.push("two that contradict each other".to_owned()),
        Judgement::Unknown => {}
    }
    for slot in Slot::BOTH {
        let path = paths.resolved(slot)?;
        let what = match slot_metadata(slot, &path).map(|metadata| Identity::of(&metadata)) {
            Ok(identity) => identity.to_string(),
            Err(error) => error.to_string(),
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
    inputs.push(if paths.running.is_some() {
        format!("RustOta.RunningRoot is {running:?}")
    } else {
        "RustOta.RunningRoot is not set".to_owned()
    });
    inputs.push("set it to a link that is made at every boot and leads to the slot that runs".to_owned());
    Err(SlotError::RunningUnknown { inputs: inputs.join("; ") })
}

/// A `RunningRoot` that names a device itself says after an update what it said before: the new slot would take itself
/// for the old one. Where the kernel can tell, that is known before the first byte.
fn check_that_a_trial_can_be_told(paths: &SlotPaths, running: &str) -> Result<(), SlotError> {
    static TOLD: Once = Once::new();
    let is_device = |identity: &(Slot, Identity)| !matches!(identity.1, Identity::File(..));
    // A virtual device made of files is not booted by a kernel; whoever restarts it says what runs.
    if !RunningRoot::look(running, paths)?.is_fixed || !paths.identities()?.iter().any(is_device) {
        return Ok(());
    }
    let evidence = Evidence::gather(paths)?;
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
    use super::*;

    fn files(directory: &Path) -> SlotPaths {
        let path = |name: &str| {
            let path = directory.join(name);
            fs::write(&path, b"content").unwrap();
            Some(path.to_string_lossy().into_owned())
        };
        let (a, b) = (path("slot2"), path("slot3"));
        SlotPaths { running: a.clone(), a, b }
    }

    fn open_error(paths: &SlotPaths, slot: Slot) -> String {
        match LinuxSlots::new(paths.clone()).open(slot) {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_number_at_the_end_of_the_path_is_the_partition_number() {
        let check = |path, expected| assert_eq!(trailing_number(path), expected, "{path}");
        check("/dev/mmcblk0p12", Some(12));
        check("/dev/ubi0_3", Some(3));
        check("/dev/vg/rootfs-a", None);
        check("/dev/x99999999999", None);
    }

    #[test]
    fn the_number_is_that_of_the_name_and_else_of_what_it_leads_to() {
        let check = |configured: &str, resolved: &str, partition, expected| {
            let number = number_of(Path::new(configured), Path::new(resolved), partition);
            assert_eq!(number, expected, "{configured} -> {resolved}");
        };
        // The name is kept: nodes of device mapper are numbered in the order in which they were made.
        check("/dev/mapper/mender-rootfs2", "/dev/dm-0", None, Some(2));
        check("/dev/mapper/RootfsPart3", "/dev/dm-7", None, Some(3));
        check("/dev/vg/rootfs2", "/dev/dm-1", None, Some(2));
        check("/dev/md/rootfs2", "/dev/md127", None, Some(2));
        check("/dev/rootfs2", "/dev/mmcblk0p5", Some(5), Some(2));
        // No number, or one of an identifier: that of the partition or volume.
        check("/dev/active-root", "/dev/mmcblk0p2", Some(2), Some(2));
        check("/dev/root", "/dev/mmcblk0p2", Some(2), Some(2));
        check("/dev/disk/by-label/rootfs-b", "/dev/sda3", Some(3), Some(3));
        check("/dev/disk/by-partuuid/1a2b3c4d-02", "/dev/nvme0n1p12", Some(12), Some(12));
        check("/dev/disk/by-uuid/8a5e3d6c-0f2e-4f60-9a3b-1d2c3b4a5012", "/dev/sdb3", None, Some(3));
        check("/dev/disk/by-partlabel/rootfs2", "/dev/sda5", Some(5), Some(5));
        check("/dev/ubi0:rootfs1", "/dev/ubi0_4", None, Some(4));
        // A label on device mapper has nothing else.
        check("/dev/disk/by-label/rootfs2", "/dev/dm-0", None, Some(2));
        // Numbers that are none of a partition.
        check("/dev/mapper/luks-8a5e3d6c-0f2e-4f60-9a3b-1d2c3b4a5012", "/dev/dm-3", None, None);
        check("/dev/disk/by-partuuid/1a2b3c4d-02", "/dev/dm-0", None, None);
        check("/dev/disk/by-label/rootfs", "/dev/nvme0n1", None, None);
        check("/dev/vg/rootfs-b", "/dev/dm-2", None, None);
        check("/dev/vg/rootfs-20261127", "/dev/dm-2", None, None);
        // Named directly.
        check("/dev/nvme0n1p2", "/dev/nvme0n1p2", Some(2), Some(2));
        check("/dev/mmcblk0p2", "/dev/mmcblk0p2", Some(2), Some(2));
        check("/dev/ubi0_1", "/dev/ubi0_1", None, Some(1));
        check("/srv/box/slot3", "/srv/box/slot3", None, Some(3));
        check("/srv/box/slot-b", "/srv/box/disk7.d/image4", None, Some(4));
    }

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
    fn the_running_root_is_compared_as_a_device_and_followed_when_it_is_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = files(directory.path());
        let link = directory.path().join("this-boot");
        for (target, expected) in [("slot2", Slot::A), ("slot3", Slot::B)] {
            std::os::unix::fs::symlink(target, &link).unwrap();
            paths.running = Some(link.to_string_lossy().into_owned());
            assert_eq!(running_slot(&paths).unwrap(), expected);
            assert!(!RunningRoot::look(paths.running.as_deref().unwrap(), &paths).unwrap().is_fixed);
            assert!(open_error(&paths, expected).contains("holds the running root file system"));
            fs::remove_file(&link).unwrap();
        }
        // Another name of the same file, and slots that are links themselves.
        let hard = directory.path().join("other-name");
        fs::hard_link(directory.path().join("slot3"), &hard).unwrap();
        paths.running = hard.to_str().map(str::to_owned);
        assert_eq!(running_slot(&paths).unwrap(), Slot::B);
        let named = directory.path().join("rootfs3");
        std::os::unix::fs::symlink("slot3", &named).unwrap();
        paths.b = named.to_str().map(str::to_owned);
        paths.running = directory.path().join("slot3").to_str().map(str::to_owned);
        assert_eq!(running_slot(&paths).unwrap(), Slot::B);
        paths.running = paths.b.clone();
        assert!(RunningRoot::look(paths.running.as_deref().unwrap(), &paths).unwrap().is_fixed);
    }

    #[test]
    fn the_named_running_root_must_be_one_of_the_slots() {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = files(directory.path());
        assert_eq!(running_slot(&paths).unwrap(), Slot::A);
        paths.running = Some("/elsewhere".into());
        assert!(running_slot(&paths).unwrap_err().to_string().contains("RunningRoot is \"/elsewhere\""));
    }

    #[test]
    fn a_root_that_is_neither_slot_is_an_error_with_every_input() {
        let directory = tempfile::tempdir().unwrap();
        let paths = SlotPaths { running: None, ..files(directory.path()) };
        let error = running_slot(&paths).unwrap_err().to_string();
        for part in ["slot A is", "slot B is", "/ is", "RunningRoot is not set"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn only_the_slot_that_does_not_run_opens() {
        let directory = tempfile::tempdir().unwrap();
        let paths = files(directory.path());
        assert!(open_error(&paths, Slot::A).contains("holds the running root file system"));
        assert_eq!(LinuxSlots::new(paths).open(Slot::B).unwrap().len(), 7);
    }

    #[test]
    fn a_slot_belongs_to_one_process_until_its_slots_are_dropped_whatever_it_is_called() {
        let directory = tempfile::tempdir().unwrap();
        let paths = files(directory.path());
        let mut first = LinuxSlots::new(paths.clone());
        drop(first.open(Slot::B).unwrap());
        drop(first.open(Slot::B).unwrap());
        let link = directory.path().join("other3");
        std::os::unix::fs::symlink(paths.b.as_deref().unwrap(), &link).unwrap();
        let linked = SlotPaths { b: link.to_str().map(str::to_owned), ..paths.clone() };
        for other in [&paths, &linked] {
            let error = open_error(other, Slot::B);
            assert!(error.starts_with("another process is writing slot B"), "{error}");
        }
        drop(first);
        assert!(LinuxSlots::new(linked).open(Slot::B).is_ok());
    }

    #[test]
    fn a_slot_that_cannot_be_one_is_refused_by_name_and_nothing_is_created() {
        let directory = tempfile::tempdir().unwrap();
        let good = files(directory.path());
        let check = |b: Option<&str>, expected: &str| {
            let paths = SlotPaths { b: b.map(str::to_owned), ..good.clone() };
            let error = open_error(&paths, Slot::B);
            assert!(error.contains(expected), "{error}");
        };
        check(None, "RootfsPartB is not set");
        let missing = directory.path().join("slot9");
        check(missing.to_str(), "does not exist");
        assert!(!missing.exists());
        check(directory.path().to_str(), "a directory");
        check(Some("/dev/null"), "a character device");
        check(good.a.as_deref(), "are the same device");
        let link = directory.path().join("link5");
        std::os::unix::fs::symlink(good.a.as_deref().unwrap(), &link).unwrap();
        check(link.to_str(), "are the same device");
    }
}

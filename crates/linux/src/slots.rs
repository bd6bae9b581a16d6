//! The two slots as block devices, UBI volumes or plain files, and which of them is running.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client_core::slot::{Slot, SlotError, Slots};
use client_core::storage::BlockDevice;

use crate::block_device::{self, Access, Kind};
use crate::lock;
use crate::mounts::{self, Mount};

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

    /// The path of `slot` with the names that stand for another node resolved.
    fn resolved(&self, slot: Slot) -> Result<PathBuf, SlotError> {
        let path = self.configured(slot)?;
        // `ubi0_1` is how Mender's configuration names a UBI volume.
        let path =
            if path.starts_with("ubi") { PathBuf::from("/dev").join(path) } else { PathBuf::from(path) };
        // Links such as /dev/disk/by-partuuid/... name a node whose own name ends in the partition number. What
        // cannot be resolved is found missing when it is opened.
        Ok(block_device::resolve(&path).unwrap_or(path))
    }
}

/// What identifies a device or file, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// Device number of a block or character device.
    Device(u64),
    /// File system and inode of a plain file.
    File(u64, u64),
}

fn identity(metadata: &fs::Metadata) -> Identity {
    let kind = metadata.file_type();
    if kind.is_block_device() || kind.is_char_device() {
        Identity::Device(metadata.rdev())
    } else {
        Identity::File(metadata.dev(), metadata.ino())
    }
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
        let target = identity(&metadata);
        let other_path = self.paths.resolved(!slot)?;
        if identity(&slot_metadata(!slot, &other_path)?) == target {
            return Err(SlotError::SameDevice {
                a: self.paths.configured(Slot::A)?.to_owned(),
                b: self.paths.configured(Slot::B)?.to_owned(),
            });
        }
        if let Some(mount) = mounts::read()?.iter().find(|mount| is_mounted(mount, target, &path)) {
            let path = shown();
            return Err(if mount.point == "/" {
                SlotError::Running { slot, path }
            } else {
                SlotError::Mounted { slot, path, mount_point: mount.point.clone() }
            });
        }
        if let Some(running) = &self.paths.running {
            if slot_metadata(slot, Path::new(running)).is_ok_and(|running| identity(&running) == target) {
                return Err(SlotError::Running { slot, path: shown() });
            }
        }
        self.hold(slot, &path, target, kind)?;
        block_device::open(&path, Access::WriteExclusive).map_err(|source| SlotError::Io {
            doing: "open",
            path: shown(),
            source,
        })
    }

    fn partition_number(&mut self, slot: Slot) -> Result<u32, SlotError> {
        let path = self.paths.resolved(slot)?;
        trailing_number(&path.to_string_lossy())
            .ok_or_else(|| SlotError::NoPartitionNumber { slot, path: path.display().to_string() })
    }
}

/// Whether `mount` has the device or file `target` underneath: directly, by its UBI name, or through a loop device.
fn is_mounted(mount: &Mount, target: Identity, path: &Path) -> bool {
    let by_number = target == Identity::Device(mount.device);
    let by_source = mount.source.strip_prefix("/dev/").unwrap_or(&mount.source)
        == path.strip_prefix("/dev").unwrap_or(path).to_string_lossy();
    by_number || by_source || mount.backing_file.as_deref() == Some(path)
}

/// The number at the end of a path: 2 of `/dev/mmcblk0p2`, 3 of `/dev/ubi0_3`.
fn trailing_number(path: &str) -> Option<u32> {
    let digits = path.len() - path.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    path[path.len() - digits..].parse().ok()
}

/// Which slot the running root file system is on.
///
/// # Errors
/// [`SlotError::RunningUnknown`] naming every input.
pub fn running_slot(paths: &SlotPaths) -> Result<Slot, SlotError> {
    if let Some(running) = &paths.running {
        let matches = |slot| paths.configured(slot).map(|path| path == running);
        return match (matches(Slot::A)?, matches(Slot::B)?) {
            (true, false) => Ok(Slot::A),
            (false, true) => Ok(Slot::B),
            (true, true) | (false, false) => Err(SlotError::RunningUnknown {
                inputs: format!(
                    "RustOta.RunningRoot is {running:?}, RootfsPartA {:?}, RootfsPartB {:?}",
                    paths.configured(Slot::A)?,
                    paths.configured(Slot::B)?
                ),
            }),
        };
    }
    let mounts = mounts::read()?;
    let root = mounts.iter().rev().find(|mount| mount.point == "/");
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let root_argument = command_line.split_whitespace().rev().find_map(|word| word.strip_prefix("root="));
    let root_node = root_argument.and_then(mounts::node_of_root_argument);
    let mut found = Vec::new();
    let mut inputs = Vec::new();
    for slot in Slot::BOTH {
        let path = paths.resolved(slot)?;
        let here = slot_metadata(slot, &path).map(|metadata| identity(&metadata));
        let is_root = match &here {
            Ok(identity) => {
                root.is_some_and(|root| is_mounted(root, *identity, &path))
                    || root_node
                        .as_deref()
                        .and_then(|node| fs::metadata(node).ok())
                        .is_some_and(|node| self::identity(&node) == *identity)
            }
            Err(_) => false,
        };
        if is_root {
            found.push(slot);
        }
        let number = match here {
            Ok(Identity::Device(number)) => {
                format!("device {}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number))
            }
            Ok(Identity::File(..)) => "a file".to_owned(),
            Err(error) => error.to_string(),
        };
        inputs.push(format!("slot {slot} is {} ({number})", path.display()));
    }
    if let [slot] = found[..] {
        return Ok(slot);
    }
    inputs.push(match root {
        Some(root) => format!(
            "/ is {} (device {}:{})",
            root.source,
            nix::sys::stat::major(root.device),
            nix::sys::stat::minor(root.device)
        ),
        None => "/ is not in /proc/self/mountinfo".to_owned(),
    });
    inputs.push(match root_argument {
        Some(argument) => format!("the kernel was given root={argument}"),
        None => "the kernel was given no root=".to_owned(),
    });
    inputs.push("RustOta.RunningRoot is not set".to_owned());
    Err(SlotError::RunningUnknown { inputs: inputs.join("; ") })
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

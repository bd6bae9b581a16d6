//! The configured paths of the two slots, what they lead to, and the numbers by which a bootloader knows them.
//!
//! A device has many names: whatever is named twice is compared as a device ([`Identity`]), never by its path.

use std::fs;
use std::path::{Path, PathBuf};

use client_core::boot::mender_vars::PartitionNumbers;
use client_core::slot::{Slot, SlotError};

use crate::block_device;
use crate::mounts::{self, Identity, Places};

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
    /// What the configuration says of `slot`.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn configured(&self, slot: Slot) -> Result<&str, SlotError> {
        let (key, path) = match slot {
            Slot::A => ("RootfsPartA", &self.a),
            Slot::B => ("RootfsPartB", &self.b),
        };
        path.as_deref().filter(|path| !path.is_empty()).ok_or(SlotError::NotConfigured { key })
    }

    /// The path of `slot` with the names that stand for another node resolved. What cannot be resolved is found
    /// missing when it is opened.
    ///
    /// # Errors
    /// When it is not configured.
    pub fn resolved(&self, slot: Slot) -> Result<PathBuf, SlotError> {
        let path = absolute(self.configured(slot)?);
        Ok(block_device::resolve(&path).unwrap_or(path))
    }

    pub(crate) fn same_device(&self) -> Result<SlotError, SlotError> {
        let path = |slot| self.configured(slot).map(str::to_owned);
        Ok(SlotError::SameDevice { a: path(Slot::A)?, b: path(Slot::B)? })
    }

    /// The identities of both slots, where they are there.
    pub(crate) fn identities(&self, places: &Places) -> Result<Vec<(Slot, Identity)>, SlotError> {
        let mut found = Vec::new();
        for slot in Slot::BOTH {
            let identity = places.identity(&self.resolved(slot)?);
            found.extend(identity.ok().map(|identity| (slot, identity)));
        }
        Ok(found)
    }
}

/// `ubi0_1` is how Mender's configuration names a UBI volume.
pub(crate) fn absolute(path: &str) -> PathBuf {
    if path.starts_with("ubi") { Path::new("/dev").join(path) } else { PathBuf::from(path) }
}

/// What is at `path`, which is where `slot` should be.
pub(crate) fn slot_metadata(slot: Slot, path: &Path) -> Result<fs::Metadata, SlotError> {
    fs::metadata(path).map_err(|source| {
        let path = path.display().to_string();
        if source.kind() == std::io::ErrorKind::NotFound {
            SlotError::Missing { slot, path }
        } else {
            SlotError::Io { doing: "look at", path, source }
        }
    })
}

impl PartitionNumbers for SlotPaths {
    fn number(&mut self, slot: Slot) -> Result<u32, SlotError> {
        self.number_at(slot, &Places::default())
    }
}

impl SlotPaths {
    /// The number by which the bootloader knows `slot`.
    ///
    /// # Errors
    /// When it is not configured, or there is none.
    pub fn number_at(&self, slot: Slot, places: &Places) -> Result<u32, SlotError> {
        let configured = absolute(self.configured(slot)?);
        let resolved = self.resolved(slot)?;
        let partition = mounts::partition_number(&resolved, places);
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two slots that are files; `a` is named as the running one.
    pub(crate) fn files(directory: &Path) -> SlotPaths {
        let path = |name: &str| {
            let path = directory.join(name);
            fs::write(&path, b"content").unwrap();
            Some(path.to_string_lossy().into_owned())
        };
        let (a, b) = (path("slot2"), path("slot3"));
        SlotPaths { running: a.clone(), a, b }
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
}

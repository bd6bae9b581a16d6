//! The data partition: whether what the client keeps outlives restarts and updates.

use std::path::PathBuf;

use client_core::slot::Slot;
use device::compose::Setup;
use linux::file_system;
use linux::mounts::{Identity, Mount};

use crate::env::is_volatile;
use crate::finding::{self as check, Finding, add};
use crate::slots;
use crate::world::{World, mount_of, size};

/// Less is nothing: the record alone has 128 KiB, and is written anew beside the old one.
const FULL_BYTES: u64 = 1 << 20;
/// Five logs of 4 MiB, and room to spare.
const LITTLE_BYTES: u64 = 32 << 20;

/// Where the state is kept.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) path: PathBuf,
    pub(crate) is_there: bool,
    /// A link on the way leads to nothing: what it leads to is not mounted.
    pub(crate) is_dangling: bool,
    pub(crate) mount: Option<Mount>,
    pub(crate) free_bytes: Option<u64>,
    /// The running slot, where it is kept in that.
    pub(crate) in_running_slot: Option<Slot>,
    pub(crate) is_virtual: bool,
}

pub(crate) fn gather(setup: &Setup, world: &World, mounts: &[Mount], slots: &slots::Facts) -> Facts {
    let path = setup.datastore.clone();
    Facts {
        is_there: path.is_dir(),
        is_dangling: path.ancestors().any(|place| place.is_symlink() && !place.exists()),
        mount: mount_of(world, mounts, &path).cloned(),
        free_bytes: file_system::free_bytes(&path).ok().flatten(),
        in_running_slot: slots.data.filter(|slot| slots.running() == Some(*slot)),
        is_virtual: slots.is_virtual(),
        path,
    }
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let path = facts.path.display();
    if !facts.is_there {
        return vec![check::DATA_MISSING.found(format_args!(
            "{}",
            match facts.is_dangling {
                true => {
                    format!(
                        "{path} is, or lies behind, a link to nothing: what should be mounted there is not"
                    )
                }
                false => format!("{path} is not a directory"),
            }
        ))];
    }
    let mut said = Vec::new();
    let free =
        facts.free_bytes.map_or_else(|| "unknown room".to_owned(), |bytes| format!("{} free", size(bytes)));
    if let Some(mount) = &facts.mount {
        let Mount { point, file_system, device, .. } = mount;
        let place = format!("{path} is on {point} ({file_system}, {})", Identity::Block(*device));
        if mount.read_only {
            add(&mut said, &check::DATA_READ_ONLY, format_args!("{place}, which is mounted read-only"));
        }
        // A folder on a desk may be anywhere.
        said.push(match facts.in_running_slot {
            _ if facts.is_virtual => check::DATA.found(format_args!("{place}, {free}")),
            Some(slot) => check::DATA_IN_SLOT.found(format_args!("{place}, which is slot {slot}")),
            None if is_volatile(file_system) => check::DATA_LOST.found(format_args!("{place}")),
            None if point == "/" => check::DATA_ON_ROOT.found(format_args!("{place}, the root file system")),
            None => check::DATA.found(format_args!("{place}, {free}")),
        });
    }
    match facts.free_bytes {
        Some(bytes) if bytes < FULL_BYTES => {
            add(&mut said, &check::DATA_FULL, format_args!("{path}: {free}"))
        }
        Some(bytes) if bytes < LITTLE_BYTES => {
            add(&mut said, &check::DATA_LITTLE, format_args!("{path}: {free}"))
        }
        Some(_) | None => {}
    }
    said
}

//! Where everything is that is looked at, and what this process knows of the world besides files.
//!
//! In tests a folder is the root of a machine: every path that is absolute is one in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use device::config::Config;
use linux::mounts::{Mount, Places};
use linux::regular_file;

/// Longest file of the kernel or of the service manager that is read.
const TEXT_BYTES: u64 = 256 * 1024;

/// Names of a directory that are looked at.
const NAMES: usize = 4096;

/// The machine.
#[derive(Debug, Clone)]
pub struct World {
    /// Its root directory.
    pub root: PathBuf,
    /// Seconds since 1970 by its clock.
    pub now: u64,
    /// Whether this process may look at everything.
    pub is_root: bool,
    /// How long to wait for another process that may just be writing what looks torn.
    pub patience: Duration,
}

impl World {
    /// The machine that this runs on.
    pub fn here() -> World {
        World {
            root: PathBuf::from("/"),
            now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            is_root: linux::process::is_root(),
            patience: Duration::from_millis(300),
        }
    }

    /// Where `path` is: what is not in the root already is looked for there.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.here_is(path.as_ref())
    }

    #[inline(never)]
    fn here_is(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/") {
            Ok(inside) if !path.starts_with(&self.root) => self.root.join(inside),
            Ok(_) | Err(_) => path.to_owned(),
        }
    }

    /// What `path` is called on the machine.
    pub(crate) fn name_of(&self, path: &Path) -> PathBuf {
        let root = self.root.canonicalize().unwrap_or_else(|_| self.root.clone());
        path.strip_prefix(root).map_or_else(|_| path.to_owned(), |inside| Path::new("/").join(inside))
    }

    /// What the kernel and udev tell.
    pub(crate) fn places(&self) -> Places {
        Places::below(&self.root)
    }

    /// The text of a file, without what surrounds it; `None` where there is none that can be read.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        self.text_at(path.as_ref())
    }

    #[inline(never)]
    fn text_at(&self, path: &Path) -> Option<String> {
        let bytes = regular_file::read(&self.at(path), TEXT_BYTES).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The number in a file.
    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The names in a directory, sorted; none where it cannot be read.
    pub(crate) fn names_in(&self, path: impl AsRef<Path>) -> Vec<String> {
        self.names_at(path.as_ref())
    }

    #[inline(never)]
    fn names_at(&self, path: &Path) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(self.at(path)).into_iter().flatten().flatten().take(NAMES) {
            let name = entry.file_name().to_string_lossy().into_owned();
            names.insert(names.partition_point(|known| *known < name), name);
        }
        names
    }

    /// The paths of the configuration as they are here.
    pub(crate) fn settle(&self, config: &mut Config) {
        let Config { rootfs_part_a, rootfs_part_b, device_type_file, server_certificate, .. } = config;
        let Config { grub_env_dir, running_root, identity_script, status_socket, auth_private_key, .. } =
            config;
        let here = |path: &mut String| {
            // Others are names of volumes and modules.
            if path.starts_with('/') {
                *path = self.at(&*path).to_string_lossy().into_owned();
            }
        };
        for path in [
            rootfs_part_a,
            rootfs_part_b,
            device_type_file,
            server_certificate,
            grub_env_dir,
            running_root,
            identity_script,
            status_socket,
            auth_private_key,
        ] {
            path.iter_mut().for_each(here);
        }
        config.artifact_verify_keys.iter_mut().flatten().for_each(here);
        here(&mut config.fw_env_config);
        if let Some(client) = &mut config.https_client {
            here(&mut client.certificate);
            here(&mut client.key);
        }
    }
}

/// The mount that `path` lies in, which is not a mount point of a parent that was mounted over.
pub(crate) fn mount_of<'m>(world: &World, mounts: &'m [Mount], path: &Path) -> Option<&'m Mount> {
    let real = world.name_of(&path.canonicalize().ok()?);
    let holds = |mount: &&Mount| real.starts_with(&mount.point);
    // Of two mounts on one point the later one is seen.
    mounts.iter().filter(holds).max_by_key(|mount| Path::new(&mount.point).components().count())
}

/// A size for a person.
pub(crate) fn size(bytes: u64) -> String {
    let units: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

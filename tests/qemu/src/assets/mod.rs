//! What the boards are made of and is not in this repository: downloaded or built once, and kept by the hash of its recipe.
//!
//! Everything comes from Debian's packages, by way of the mirrors that this machine uses already. Nothing is installed.

mod client;
mod qemu;
mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use xtask::cache::Cache;
pub use xtask::compilers::Arch;
use xtask::mirror::Debian;

use crate::Outcome;

/// A kernel with modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What a bootloader loads.
    pub image: PathBuf,
    /// The directory `kernel` of its modules.
    pub modules: PathBuf,
}

/// Which environment a U-Boot keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Environment {
    /// Two files on FAT.
    Fat,
    /// Two places in NOR flash.
    Nor,
}

/// The cache, and what makes its content.
pub struct Assets {
    cache: Cache,
    /// Whether the clients for other processors are optimised as those that ship.
    as_it_ships: bool,
    /// What was made in this run, or failed: not asked for twice. Making one thing needs others: a lock for each.
    made: Mutex<BTreeMap<String, Outcome<PathBuf>>>,
    making: Mutex<()>,
}

impl Assets {
    /// With what is kept in the user's cache directory.
    pub fn open(as_it_ships: bool) -> Outcome<Assets> {
        Ok(Assets { cache: Cache::open()?, as_it_ships, made: Mutex::default(), making: Mutex::default() })
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        self.cache.place()
    }

    /// Debian's kernel for clouds, with NVMe and ext4 built in; that for boards, with modules for all, on armv7.
    pub fn kernel(&self, arch: Arch) -> Outcome<Kernel> {
        let meta = match arch {
            Arch::X86_64 => "linux-image-cloud-amd64",
            Arch::Aarch64 => "linux-image-cloud-arm64",
            Arch::Armv7 => "linux-image-armmp-lpae",
        };
        let package = self.once(&format!("kernel-{}", arch.debian()), |assets| {
            let debian = Debian::open(assets.place())?;
            let image = debian.depends(meta, arch.debian(), "linux-image-")?;
            assets.unpacked(&debian, &[&image], arch)
        })?;
        let name = |directory: &str, prefix: &str| -> Outcome<PathBuf> {
            let directory = package.join(directory);
            let entries =
                fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
            let found =
                entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
            found.map(|entry| entry.path()).ok_or_else(|| format!("no {prefix}* in {}", directory.display()))
        };
        let modules =
            if package.join("usr/lib/modules").is_dir() { "usr/lib/modules" } else { "lib/modules" };
        Ok(Kernel { image: name("boot", "vmlinuz-")?, modules: name(modules, "")?.join("kernel") })
    }

    /// busybox, static.
    pub fn busybox(&self, arch: Arch) -> Outcome<PathBuf> {
        let package = self.once(&format!("busybox-{}", arch.debian()), |assets| {
            assets.unpacked(&Debian::open(assets.place())?, &["busybox-static"], arch)
        })?;
        let old = package.join("bin/busybox");
        Ok(if old.is_file() { old } else { package.join("usr/bin/busybox") })
    }

    /// Packages of Debian, unpacked over each other.
    fn unpacked(&self, debian: &Debian, packages: &[&str], arch: Arch) -> Outcome<PathBuf> {
        let mut recipe = String::from("unpacked 1\n");
        for package in packages {
            recipe += &debian.candidate(package, arch.debian())?;
            recipe += "\n";
        }
        self.cache.recipe(packages.first().copied().unwrap_or("packages"), &recipe, |directory| {
            debian.unpack(packages, arch.debian(), directory)
        })
    }

    /// Makes something at most once in this run.
    fn once(&self, name: &str, make: impl FnOnce(&Assets) -> Outcome<PathBuf>) -> Outcome<PathBuf> {
        let known =
            |assets: &Assets| assets.made.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(made) = known(self) {
            return made;
        }
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = known(self) {
            return made;
        }
        let made = make(self);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), made.clone());
        made
    }
}

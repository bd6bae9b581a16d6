//! What the boards are made of and is not in this repository: downloaded or built once, and kept by the hash of its recipe.
//!
//! Everything comes from Debian's packages, by way of the mirrors that this machine uses already. Nothing is installed.

mod client;
mod debian;
mod qemu;
mod sources;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs2::FileExt;
use sha2::{Digest, Sha256};

use crate::Outcome;
use debian::Debian;

/// A processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit PC.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Armv7,
}

impl Arch {
    /// What Debian calls it.
    fn debian(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
            Arch::Armv7 => "armhf",
        }
    }
}

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
    cache: PathBuf,
    /// Whether the clients for other processors are optimised as those that ship.
    as_it_ships: bool,
    /// What was made in this run, or failed: not asked for twice. Making one thing needs others: a lock for each.
    made: Mutex<BTreeMap<String, Outcome<PathBuf>>>,
    making: Mutex<()>,
}

impl Assets {
    /// In `ROTA_QEMU_CACHE`, else in `rust-ota` of the user's cache directory.
    pub fn open(as_it_ships: bool) -> Outcome<Assets> {
        let variable =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = variable("ROTA_QEMU_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("rust-ota")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/rust-ota")))
            .ok_or("no place for downloads: set ROTA_QEMU_CACHE")?;
        fs::create_dir_all(&cache).map_err(|error| format!("cannot make {}: {error}", cache.display()))?;
        Ok(Assets { cache, as_it_ships, made: Mutex::default(), making: Mutex::default() })
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.cache
    }

    /// Debian's kernel for clouds, with NVMe and ext4 built in; that for boards, with modules for all, on armv7.
    pub fn kernel(&self, arch: Arch) -> Outcome<Kernel> {
        let meta = match arch {
            Arch::X86_64 => "linux-image-cloud-amd64",
            Arch::Aarch64 => "linux-image-cloud-arm64",
            Arch::Armv7 => "linux-image-armmp-lpae",
        };
        let package = self.once(&format!("kernel-{}", arch.debian()), |assets| {
            let debian = Debian::open(&assets.cache)?;
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
            assets.unpacked(&Debian::open(&assets.cache)?, &["busybox-static"], arch)
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
        self.recipe(packages.first().copied().unwrap_or("packages"), &recipe, |directory| {
            debian.unpack(packages, arch.debian(), directory)
        })
    }

    /// The directory that `make` fills, from the cache if this very recipe was followed before.
    fn recipe(&self, name: &str, recipe: &str, make: impl FnOnce(&Path) -> Outcome) -> Outcome<PathBuf> {
        let directory = self.cache.join(format!("{name}-{}", hash(recipe)));
        // Two processes may want the same.
        let lock = self.cache.join("lock");
        let lock = File::create(&lock).map_err(|error| format!("cannot make {}: {error}", lock.display()))?;
        lock.lock_exclusive().map_err(|error| format!("cannot lock the cache: {error}"))?;
        if !directory.is_dir() {
            println!("making {name}: {}", recipe.lines().nth(1).unwrap_or_default());
            // Complete or not there.
            let unfinished = self.cache.join(format!("{name}-unfinished"));
            let _ = fs::remove_dir_all(&unfinished);
            fs::create_dir_all(&unfinished).map_err(|error| format!("{}: {error}", unfinished.display()))?;
            make(&unfinished)?;
            fs::rename(&unfinished, &directory)
                .map_err(|error| format!("cannot keep {}: {error}", directory.display()))?;
        }
        Ok(directory)
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

/// Sixteen digits are enough to tell recipes apart.
fn hash(recipe: &str) -> String {
    Sha256::digest(recipe.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_followed_once_and_never_kept_half() {
        let folder = tempfile::tempdir().unwrap();
        let assets = Assets {
            cache: folder.path().to_path_buf(),
            as_it_ships: false,
            made: Mutex::default(),
            making: Mutex::default(),
        };
        let failed = assets.recipe("thing", "1", |directory| {
            fs::write(directory.join("half"), "").unwrap();
            Err("the power failed".into())
        });
        assert_eq!(failed, Err("the power failed".into()));
        let made = assets.recipe("thing", "1", |directory| {
            assert!(!directory.join("half").exists());
            fs::write(directory.join("whole"), "").map_err(|error| error.to_string())
        });
        assert!(made.clone().unwrap().join("whole").is_file());
        assert_eq!(assets.recipe("thing", "1", |_| Err("made again".into())), made);
        assert!(assets.recipe("thing", "2", |_| Err("another".into())).is_err());
    }
}

//! U-Boot and a kernel that Debian does not build in the form that is wanted here, from Debian's sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::mirror::Debian;

use super::{Arch, Assets, Environment};
use crate::{Outcome, read, run, write};

const UBOOT_COMMON: &str = include_str!("../../build/uboot-common.config");
const UBOOT_FAT: &str = include_str!("../../build/uboot-fat.config");
const UBOOT_NOR: &str = include_str!("../../build/uboot-nor.config");
const KERNEL_ARM64: &str = include_str!("../../build/kernel-arm64.config");
const KERNEL_X86_64: &str = include_str!("../../build/kernel-x86_64.config");
const COMPILER_ARM64: &str = "CROSS_COMPILE=aarch64-linux-gnu-";

impl Assets {
    /// U-Boot for QEMU's aarch64 machine that keeps a redundant environment with its own code.
    pub fn uboot_arm64(&self, environment: Environment) -> Outcome<PathBuf> {
        let (name, own) = match environment {
            Environment::Fat => ("uboot-fat", UBOOT_FAT),
            Environment::Nor => ("uboot-nor", UBOOT_NOR),
        };
        let directory = self.once(name, |assets| {
            let debian = Debian::open(assets.place())?;
            let version = debian.candidate("u-boot-qemu", "amd64")?;
            let recipe = format!("{name} 1\n{version}\n{UBOOT_COMMON}{own}");
            assets.cache.recipe(name, &recipe, |directory| {
                let source = debian.source("u-boot", directory)?;
                build_uboot(&source, &[UBOOT_COMMON, own].concat())?;
                keep_only(directory, &source, &["u-boot.bin", "u-boot-initial-env"])
            })
        })?;
        Ok(directory.join("u-boot.bin"))
    }

    /// A kernel for QEMU's machines with everything built in; on aarch64 NOR flash too.
    pub fn small_kernel(&self, arch: Arch) -> Outcome<PathBuf> {
        let kernel = SmallKernel::of(arch)?;
        let directory = self.once(kernel.name, |assets| {
            let debian = Debian::open(assets.place())?;
            let meta = debian.depends("linux-source", "amd64", "linux-source-")?;
            let version = debian.candidate(&meta, "amd64")?;
            let recipe = format!("{} 1\n{version}\n{}", kernel.name, kernel.config);
            assets.cache.recipe(kernel.name, &recipe, |directory| {
                debian.unpack(&[&meta], "amd64", directory)?;
                let archive = directory.join("usr/src").join(format!("{meta}.tar.xz"));
                run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(directory))?;
                let source = directory.join(&meta);
                build_kernel(&source, &kernel)?;
                keep_only(directory, &source.join(kernel.directory), &[kernel.image])
            })
        })?;
        Ok(directory.join(kernel.image))
    }
}

/// How a kernel with everything built in is made.
struct SmallKernel {
    /// Of its recipe.
    name: &'static str,
    config: &'static str,
    /// What `make` is told.
    words: &'static [&'static str],
    /// Where it is in the tree, and its name.
    directory: &'static str,
    image: &'static str,
}

impl SmallKernel {
    fn of(arch: Arch) -> Outcome<SmallKernel> {
        match arch {
            Arch::X86_64 => Ok(SmallKernel {
                name: "small-kernel-x86_64",
                config: KERNEL_X86_64,
                words: &["ARCH=x86_64"],
                directory: "arch/x86/boot",
                image: "bzImage",
            }),
            Arch::Aarch64 => Ok(SmallKernel {
                name: "small-kernel",
                config: KERNEL_ARM64,
                words: &["ARCH=arm64", COMPILER_ARM64],
                directory: "arch/arm64/boot",
                image: "Image",
            }),
            Arch::Armv7 => Err("there is no small kernel for armv7".into()),
        }
    }
}

/// Throws away everything of a build but its results.
fn keep_only(directory: &Path, from: &Path, names: &[&str]) -> Outcome {
    let mut results = Vec::new();
    for name in names {
        results.push((name, read(&from.join(name))?));
    }
    let entries =
        std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
    }
    for (name, content) in results {
        write(&directory.join(name), content)?;
    }
    Ok(())
}

fn build_uboot(source: &Path, options: &str) -> Outcome {
    // The environment is loaded before anybody looked for disks.
    let file = source.join("env/fat.c");
    let text = String::from_utf8_lossy(&read(&file)?).into_owned();
    let text = text.replacen("#include <fat.h>", "#include <fat.h>\n#include <nvme.h>\n#include <pci.h>", 1);
    let find = "\tpart = blk_get_device_part_str(ifname, dev_and_part,";
    if !text.contains(find) {
        return Err("this U-Boot's env/fat.c is another one".into());
    }
    let scan = "\tif (!strcmp(ifname, \"nvme\")) {\n\t\tpci_init();\n\t\tnvme_scan_namespace();\n\t}\n";
    write(&file, text.replace(find, &format!("{scan}{find}")))?;

    make(source, &[COMPILER_ARM64], &["qemu_arm64_defconfig"])?;
    let base = source.join(".config");
    let mut config = String::from_utf8_lossy(&read(&base)?).into_owned();
    config += options;
    write(&base, config)?;
    make(source, &[COMPILER_ARM64], &["olddefconfig"])?;
    make(source, &[COMPILER_ARM64], &[&jobs(), "u-boot.bin", "u-boot-initial-env"])
}

fn build_kernel(source: &Path, kernel: &SmallKernel) -> Outcome {
    // QEMU's flash refuses buffered writes of one word.
    let file = source.join("drivers/mtd/chips/cfi_cmdset_0001.c");
    let text = String::from_utf8_lossy(&read(&file)?).into_owned();
    write(&file, text.replace("#define FORCE_WORD_WRITE 0", "#define FORCE_WORD_WRITE 1"))?;
    let wanted = source.join("wanted.config");
    write(&wanted, kernel.config)?;
    let wanted = format!("KCONFIG_ALLCONFIG={}", wanted.display());
    make(source, kernel.words, &[&wanted, "allnoconfig"])?;
    make(source, kernel.words, &[&jobs(), kernel.image])
}

/// As many compilers as there are processors.
fn jobs() -> String {
    format!("-j{}", std::thread::available_parallelism().map_or(2, usize::from))
}

fn make(source: &Path, target: &[&str], words: &[&str]) -> Outcome {
    let mut make = Command::new("make");
    // Nothing of a Rust build is for a C build.
    for name in ["MAKEFLAGS", "CFLAGS", "MAKELEVEL"] {
        make.env_remove(name);
    }
    run(make.arg("-s").arg("-C").arg(source).args(target).args(words))
}

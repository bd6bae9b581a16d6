//! A QEMU that writes NOR flash in buffers, as U-Boot does: 10.x, from the backports, in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::mirror::Debian;

use super::{Arch, Assets};
use crate::Outcome;

/// A QEMU and its data.
#[derive(Debug, Clone)]
pub struct QemuProgram {
    directory: PathBuf,
}

impl QemuProgram {
    /// A call of `qemu-system-aarch64`.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.directory.join("usr/bin/qemu-system-aarch64"));
        command.arg("-L").arg(self.directory.join("usr/share/qemu"));
        command
    }
}

impl Assets {
    /// Where this machine's own QEMU is older.
    pub fn qemu_with_nor(&self) -> Outcome<QemuProgram> {
        let directory = self.once("qemu-with-nor", |assets| {
            let debian = Debian::open(assets.place())?;
            let codename = codename()?;
            let release = format!("{codename}-backports");
            let packages = ["qemu-system-arm", "qemu-system-common", "qemu-system-data"];
            let named: Vec<String> = packages.iter().map(|name| format!("{name}/{release}")).collect();
            let named: Vec<&str> = named.iter().map(String::as_str).collect();
            let mut recipe = String::from("qemu 1\n");
            for package in &named {
                recipe += &(debian.candidate(package, Arch::X86_64.debian())? + "\n");
            }
            assets.cache.recipe("qemu-with-nor", &recipe, |directory| {
                debian.unpack(&named, Arch::X86_64.debian(), directory)
            })
        })?;
        Ok(QemuProgram { directory })
    }
}

fn codename() -> Outcome<String> {
    let release = crate::read(Path::new("/etc/os-release"))?;
    let release = String::from_utf8_lossy(&release).into_owned();
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(str::to_owned).ok_or_else(|| "/etc/os-release names no release".to_owned())
}

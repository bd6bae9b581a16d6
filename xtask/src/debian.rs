//! The real counterparts that the interoperability tests run against: looks for them, and installs their Debian
//! packages where that is allowed. Packages with services are not among them: those are unpacked, see [`peers`].

use std::path::PathBuf;
use std::process::{Command, Stdio};

use xtask::peers;

use crate::{Outcome, workspace};

/// Program, and the package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("mender-artifact", "mender-artifact"),
    ("dbus-daemon", "dbus-daemon"),
    ("dbus-send", "dbus-bin"),
    ("dbus-monitor", "dbus-bin"),
    ("fw_printenv", "libubootenv-tool"),
    ("fw_setenv", "libubootenv-tool"),
    ("mkenvimage", "u-boot-tools"),
    ("grub-editenv", "grub-common"),
    ("xdelta3", "xdelta3"),
    ("openssl", "openssl"),
    ("dpkg-deb", "dpkg"),
    ("rpmbuild", "rpm"),
    ("jq", "jq"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("pzstd", "zstd"),
    ("/usr/lib/python3/dist-packages/zstandard/__init__.py", "python3-zstandard"),
    ("debugfs", "e2fsprogs"),
    ("mkfs.vfat", "dosfstools"),
    ("mcopy", "mtools"),
    ("bsdtar", "libarchive-tools"),
    ("cc", "gcc"),
    ("c++", "g++"),
    ("nm", "binutils"),
    ("valgrind", "valgrind"),
    ("strace", "strace"),
    ("abidiff", "abigail-tools"),
];

/// The same for the board tests; a path is a file that is no program.
const BOARD_TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    ("grub-mkimage", "grub-common"),
    ("/usr/lib/grub/x86_64-efi/linux.mod", "grub-efi-amd64-bin"),
    ("/usr/lib/grub/i386-pc/linux.mod", "grub-pc-bin"),
    ("/usr/lib/u-boot/qemu-x86/u-boot.rom", "u-boot-qemu"),
    ("mkimage", "u-boot-tools"),
    ("mkfs.vfat", "dosfstools"),
    ("mcopy", "mtools"),
    ("sgdisk", "gdisk"),
    ("mke2fs", "e2fsprogs"),
    ("dpkg-source", "dpkg-dev"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
    ("arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf"),
    ("/usr/arm-linux-gnueabihf/lib/libc.a", "libc6-dev-armhf-cross"),
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("/usr/include/openssl/ssl.h", "libssl-dev"),
    ("/usr/include/libelf.h", "libelf-dev"),
];

/// The same for the images of Buildroot and the init scripts.
const BUILDROOT_TOOLS: &[(&str, &str)] = &[
    ("genimage", "genimage"),
    ("shellcheck", "shellcheck"),
    ("busybox", "busybox"),
    ("start-stop-daemon", "dpkg"),
    ("python3", "python3"),
    ("mkfs.vfat", "dosfstools"),
    ("mcopy", "mtools"),
    ("mkimage", "u-boot-tools"),
    ("mke2fs", "e2fsprogs"),
    ("sgdisk", "gdisk"),
];

/// The same for man pages and completions.
const MANUAL_TOOLS: &[(&str, &str)] =
    &[("groff", "groff-base"), ("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")];

/// The same for the tests of the page.
const PAGE_TOOLS: &[(&str, &str)] = &[("chromium", "chromium")];

/// The same for the measurement of deltas.
const DELTA_TOOLS: &[(&str, &str)] = &[
    ("xdelta3", "xdelta3"),
    ("bsdiff", "bsdiff"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("mke2fs", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
    ("python3", "python3"),
];

/// What of the tools is there in the end.
pub struct Tools {
    /// Programs that are not.
    pub missing: Vec<&'static str>,
    /// Why they were not installed, for a person.
    pub reason: String,
}

/// Looks for the tools of the interoperability tests, and installs what is missing if `may_install` and this user can.
pub fn prepare(may_install: bool) -> Tools {
    prepare_all(TOOLS, may_install)
}

/// Unpacks the daemons of others into a folder of the project if they are not there, and returns the folder; else why
/// not.
pub fn prepare_peers(may_install: bool) -> Outcome<PathBuf> {
    let folder = peers::folder()?;
    if !peers::complete(&folder) {
        find("apt-get").ok_or("there is no apt-get")?;
        if let Err(error) = peers::unpack(&folder) {
            // A machine that never asked knows no packages.
            if !may_install {
                return Err(error);
            }
            apt_get(sudo()?, &["update"])?;
            peers::unpack(&folder)?;
        }
        println!("unpacked {}", peers::versions(&folder));
    }
    let libraries = peers::missing_libraries(&folder)?;
    if !libraries.is_empty() {
        if !may_install {
            return Err(format!("{} are missing and --no-install was given", libraries.join(", ")));
        }
        install(&libraries)?;
    }
    Ok(folder)
}

/// Returns the folder with the programs of PostgreSQL: installed ones, or Debian's package unpacked into a folder of the project. An
/// installed package would be a database that starts with the machine.
pub fn prepare_postgres(may_install: bool) -> Outcome<PathBuf> {
    if let Some(programs) = peers::installed_postgres() {
        return Ok(programs);
    }
    find("apt-get").ok_or("there is no apt-get")?;
    let unpacked = match peers::unpacked_postgres() {
        Err(_) if may_install => {
            apt_get(sudo()?, &["update"])?;
            peers::unpacked_postgres()
        }
        unpacked => unpacked,
    };
    let (programs, libraries) = unpacked?;
    if !libraries.is_empty() {
        if !may_install {
            return Err(format!("{} are missing and --no-install was given", libraries.join(", ")));
        }
        install(&libraries)?;
    }
    // It does not run as root: tests of root run it as somebody else, who has to reach it.
    let program = programs.join("postgres");
    let mut runs = match sudo() {
        Ok(false) => {
            let mut other = Command::new("setpriv");
            other.args(["--reuid", "nobody", "--clear-groups"]).arg(&program);
            other
        }
        Ok(true) | Err(_) => Command::new(&program),
    };
    runs.arg("--version").stdin(Stdio::null());
    match runs.output() {
        Ok(output) if output.status.success() => Ok(programs),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("cannot run {}: {error}", program.display())),
    }
}

/// The same for the tools of the board tests.
pub fn prepare_for_boards(may_install: bool) -> Tools {
    prepare_all(BOARD_TOOLS, may_install)
}

/// The same for the tools of the tests of Buildroot's tree.
pub fn prepare_for_buildroot(may_install: bool) -> Tools {
    prepare_all(BUILDROOT_TOOLS, may_install)
}

/// The same for man pages and completions.
pub fn prepare_for_manual(may_install: bool) -> Tools {
    prepare_all(MANUAL_TOOLS, may_install)
}

/// The same for the tests of the page.
pub fn prepare_for_page(may_install: bool) -> Tools {
    prepare_all(PAGE_TOOLS, may_install)
}

/// The same for the measurement of deltas.
pub fn prepare_for_deltas(may_install: bool) -> Tools {
    prepare_all(DELTA_TOOLS, may_install)
}

/// The packages that have the tools of the board tests.
pub fn packages_for_boards() -> Vec<&'static str> {
    BOARD_TOOLS.iter().map(|(_, package)| *package).collect()
}

fn prepare_all(tools: &[(&'static str, &'static str)], may_install: bool) -> Tools {
    if missing(tools).is_empty() {
        return Tools { missing: Vec::new(), reason: String::new() };
    }
    let wanted = packages(tools, &missing(tools));
    let result = if may_install { install(&wanted) } else { Err("--no-install was given".into()) };
    Tools {
        missing: missing(tools),
        reason: result.err().unwrap_or_else(|| "their packages do not have them".into()),
    }
}

fn missing(tools: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    tools.iter().map(|(program, _)| *program).filter(|program| find(program).is_none()).collect()
}

/// Whether `program` is installed.
pub fn has(program: &str) -> bool {
    find(program).is_some()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin".into(), "/sbin".into()];
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Each package once.
fn packages(tools: &[(&'static str, &'static str)], programs: &[&str]) -> Vec<&'static str> {
    let wanted = tools.iter().filter(|(program, _)| programs.contains(program));
    let mut packages: Vec<&str> = wanted.map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

fn install(packages: &[&str]) -> Outcome {
    find("apt-get").ok_or("there is no apt-get")?;
    let sudo = sudo()?;
    println!("installing {}", packages.join(" "));
    apt_get(sudo, &["update"])?;
    let install = ["install", "--yes", "--no-install-recommends"];
    let all = apt_get(sudo, &[&install, packages].concat());
    if all.is_err() {
        // One unknown package fails the whole call: take what there is.
        for package in packages {
            if let Err(error) = apt_get(sudo, &[&install[..], &[*package]].concat()) {
                println!("{package}: {error}");
            }
        }
    }
    all
}

/// Whether `sudo` is needed, if this user may install at all.
fn sudo() -> Outcome<bool> {
    let quiet = |program: &str, argument: &str| {
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output()
    };
    if quiet("id", "-u").is_ok_and(|output| output.stdout == b"0\n") {
        return Ok(false);
    }
    match Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(true),
        Ok(_) | Err(_) => Err("this user is not root and has no sudo without a password".into()),
    }
}

fn apt_get(sudo: bool, arguments: &[&str]) -> Outcome {
    // `sudo` clears the environment, `env` sets it again.
    let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"];
    let mut words = words.iter().chain(arguments);
    let mut command = if sudo {
        let mut command = Command::new("sudo");
        command.arg("-n");
        command
    } else {
        Command::new(words.next().unwrap_or(&"env"))
    };
    workspace::run(command.args(words).stdin(Stdio::null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_installed_that_brings_a_service() {
        for (program, package) in TOOLS.iter().chain(BOARD_TOOLS).chain(BUILDROOT_TOOLS).chain(DELTA_TOOLS) {
            assert!(!package.starts_with("mender-c"), "{program} would be installed with {package}");
        }
    }

    #[test]
    fn each_package_is_named_once() {
        assert_eq!(packages(TOOLS, &["fw_printenv", "fw_setenv", "zstd"]), ["libubootenv-tool", "zstd"]);
    }
}

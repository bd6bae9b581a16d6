//! Root file systems of the test systems: Debian's kernel, busybox, the client, and what a scenario wants wrong.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::choice::Generator;

use crate::assets::Arch;
use crate::boards::Board;
use crate::kit::{Kernel, Kit};
use crate::{Outcome, disk, write};

/// What the devices say they are.
pub const DEVICE_TYPE: &str = "testboard";

/// What a client may have: one as it ships, or a release build of this machine's compiler, with room to grow.
const CLIENT_MIB: u64 = 6;

/// What is wrong with a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing.
    None,
    /// Process 1 ends: the kernel panics.
    KernelPanics,
    /// The client ends at once.
    ClientDoesNotComeUp,
    /// A command of the health check fails.
    HealthCheckFails,
}

/// A system to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct System {
    /// Its version, and the name of its artifact.
    pub version: String,
    /// What is wrong with it.
    pub fault: Fault,
    /// How long its image is; the board's usual length without.
    pub mib: Option<u64>,
    /// MiB of it that no other version has, and that do not become smaller.
    pub own_mib: u64,
}

impl System {
    /// One that works.
    pub fn new(version: &str) -> System {
        System { version: version.to_owned(), fault: Fault::None, mib: None, own_mib: 0 }
    }

    /// One that does not.
    pub fn with(version: &str, fault: Fault) -> System {
        System { fault, ..System::new(version) }
    }
}

/// What busybox is called.
const APPLETS: &[&str] = &[
    "sh",
    "mount",
    "umount",
    "insmod",
    "cat",
    "echo",
    "sleep",
    "sync",
    "ls",
    "dd",
    "date",
    "ip",
    "mkdir",
    "rm",
    "mv",
    "cp",
    "grep",
    "sed",
    "dmesg",
    "cut",
    "tr",
    "kill",
    "uname",
    "env",
    "printf",
    "test",
    "df",
    "head",
    "tail",
    "sha256sum",
    "touch",
    "ln",
    "chmod",
    "true",
    "false",
    "poweroff",
];

/// Makes the image of `system` for `board` at `image`.
pub fn build(kit: &Kit, board: &dyn Board, system: &System, image: &Path) -> Outcome {
    let tree = image.with_extension("tree");
    let result = lay_out(kit, board, system, &tree);
    let result = result.and_then(|()| {
        let mib = system.mib.unwrap_or(board.root_mib());
        disk::ext4(image, mib, "root", &tree).map_err(|error| too_large_for(mib, &tree, error))
    });
    // Only its image is of use.
    let _ = fs::remove_dir_all(&tree);
    result
}

/// Why there is no file system of `mib` MiB: the tool does not say which file has no room in it.
fn too_large_for(mib: u64, tree: &Path, error: String) -> String {
    let client =
        fs::metadata(tree.join("usr/bin/rust-ota")).map_or(0, |metadata| metadata.len().div_ceil(disk::MIB));
    if client <= CLIENT_MIB {
        return error;
    }
    format!(
        "the client has {client} MiB, and the root file system of {mib} MiB is made for {CLIENT_MIB} MiB: one as it ships is smaller, and is \
         taken without --client\n{error}"
    )
}

fn lay_out(kit: &Kit, board: &dyn Board, system: &System, tree: &Path) -> Outcome {
    let _ = fs::remove_dir_all(tree);
    for directory in [
        "bin",
        "sbin",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "boot/efi",
        "boot/uboot",
        "data",
        "etc/mender",
        "root",
        "lib/modules",
        "usr/bin",
        "usr/sbin",
        "usr/share/mender/identity",
        "usr/share/mender/modules/v3",
        "var",
    ] {
        let path = tree.join(directory);
        fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
    }
    let guest = board.guest();
    program(&tree.join("bin/busybox"), &kit.busybox(board.arch())?)?;
    for applet in APPLETS {
        link("busybox", &tree.join("bin").join(applet))?;
    }
    link("/run/lock", &tree.join("var/lock"))?;
    link("/run", &tree.join("var/run"))?;
    fs::create_dir_all(tree.join("var/lib")).map_err(|error| format!("var/lib: {error}"))?;
    link("/data/mender", &tree.join("var/lib/mender"))?;

    let kernel = kit.kernel(board)?;
    copy(&kernel.image, &tree.join("boot/vmlinuz"))?;
    for module in &guest.modules {
        let modules = kernel.modules.as_ref().ok_or("this kernel has no modules")?;
        let name = module.rsplit('/').next().unwrap_or(module);
        copy(&modules.join(format!("{module}.ko")), &tree.join(format!("lib/modules/{name}.ko")))?;
    }
    if !guest.early_modules.is_empty() {
        initial_ram_disk(kit, board, &kernel, tree)?;
    }

    let init = match system.fault {
        Fault::KernelPanics => include_str!("../guest/init-that-ends"),
        Fault::None | Fault::ClientDoesNotComeUp | Fault::HealthCheckFails => include_str!("../guest/init"),
    };
    text_program(&tree.join("sbin/init"), init)?;
    text_program(&tree.join("sbin/reboot"), include_str!("../guest/reboot"))?;
    match system.fault {
        Fault::ClientDoesNotComeUp => text_program(
            &tree.join("usr/bin/rust-ota"),
            "#!/bin/sh\necho rota-test: this client does not come up\nexit 1\n",
        )?,
        Fault::None | Fault::KernelPanics | Fault::HealthCheckFails => {
            let client = tree.join("usr/bin/rust-ota");
            program(&client, &kit.client(board.arch())?)?;
            if board.arch() == Arch::X86_64 {
                libraries(&client, tree)?;
            }
        }
    }
    text_program(
        &tree.join("usr/share/mender/identity/mender-device-identity"),
        "#!/bin/sh\necho serial=testboard-1\n",
    )?;
    text_program(
        &tree.join("usr/share/mender/modules/v3/keep-on-data"),
        include_str!("../guest/keep-on-data"),
    )?;
    if let Some(mib) = system.mib {
        ballast(&tree.join("usr/share/ballast"), mib.saturating_sub(board.root_mib() + 16))?;
    }
    if system.own_mib > 0 {
        write(&tree.join("usr/share/own"), own_content(system))?;
    }
    write(&tree.join("etc/version"), format!("{}\n", system.version))?;
    let names: Vec<&str> =
        guest.modules.iter().map(|module| module.rsplit('/').next().unwrap_or(module)).collect();
    write(
        &tree.join("etc/board"),
        format!(
            "MODULES=\"{}\"\nBOOT_DEVICE={}\nBOOT_DIRECTORY={}\nDATA_DEVICE={}\n",
            names.join(" "),
            guest.boot_device,
            guest.boot_directory,
            guest.data_device
        ),
    )?;
    if let Some(text) = &guest.fw_env_config {
        write(&tree.join("etc/fw_env.config"), text)?;
    }
    write(&tree.join("etc/mender/artifact-verify-key.pem"), &kit.keys.public)?;
    let mut config = json!({
        "ArtifactVerifyKey": "/etc/mender/artifact-verify-key.pem",
        "RustOta": { "RebootCommand": "/sbin/reboot" },
    });
    if system.fault == Fault::HealthCheckFails {
        config["RustOta"]["HealthCheck"] = json!({ "Commands": ["/bin/false"], "TimeoutSeconds": 2 });
    }
    write(&tree.join("etc/mender/mender.conf"), format!("{config:#}\n"))
}

/// What a client of this machine needs that is not linked statically: so that the tests' own build can be used. Its debugging
/// information stays here.
fn libraries(client: &Path, tree: &Path) -> Outcome {
    let output =
        Command::new("ldd").arg(client).output().map_err(|error| format!("cannot run ldd: {error}"))?;
    // It says so of a static program, and fails or not, as it likes.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.map(|word| word.trim_end_matches(':')).filter(|path| *path != client.to_string_lossy())
    {
        let to = tree.join(path.trim_start_matches('/'));
        let parent = to.parent().unwrap_or(tree);
        fs::create_dir_all(parent).map_err(|error| format!("cannot make {}: {error}", parent.display()))?;
        program(&to, Path::new(path))?;
    }
    crate::run(Command::new("strip").arg(client))
}

/// `/boot/initrd`: what loads the kernel's modules for the disk, and goes on with the root file system.
fn initial_ram_disk(kit: &Kit, board: &dyn Board, kernel: &Kernel, root: &Path) -> Outcome {
    let tree = root.with_extension("initrd-tree");
    let _ = fs::remove_dir_all(&tree);
    for directory in ["bin", "dev", "proc", "sys", "root", "modules"] {
        let path = tree.join(directory);
        fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
    }
    let modules = kernel.modules.as_ref().ok_or("this kernel has no modules")?;
    let mut names = Vec::new();
    for module in board.guest().early_modules {
        let name = module.rsplit('/').next().unwrap_or(module);
        copy(&modules.join(format!("{module}.ko")), &tree.join(format!("modules/{name}.ko")))?;
        names.push(name);
    }
    write(&tree.join("modules/order"), names.join("\n") + "\n")?;
    program(&tree.join("bin/busybox"), &kit.busybox(board.arch())?)?;
    text_program(&tree.join("init"), include_str!("../guest/initrd-init"))?;

    let files = root.with_extension("initrd-files");
    write(&files, list_tree(&tree, Path::new(""))?.join("\n") + "\n")?;
    let open = |path: &Path| fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()));
    let archive = root.join("boot/initrd");
    let out = fs::File::create(&archive).map_err(|error| format!("{}: {error}", archive.display()))?;
    let mut cpio = Command::new(kit.busybox(Arch::X86_64)?);
    cpio.args(["cpio", "-o", "-H", "newc"]).current_dir(&tree).stdin(open(&files)?).stdout(out);
    let output = cpio.output().map_err(|error| format!("cannot run {cpio:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{cpio:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let _ = fs::remove_file(&files);
    let _ = fs::remove_dir_all(&tree);
    Ok(())
}

/// Paths below `directory`, parents first.
fn list_tree(root: &Path, directory: &Path) -> Outcome<Vec<String>> {
    let at = root.join(directory);
    let entries = fs::read_dir(&at).map_err(|error| format!("{}: {error}", at.display()))?;
    let mut paths = Vec::new();
    for entry in entries.flatten() {
        let path = directory.join(entry.file_name());
        paths.push(path.display().to_string());
        if entry.path().is_dir() {
            paths.extend(list_tree(root, &path)?);
        }
    }
    Ok(paths)
}

/// The data partition of a device: its configuration, its key, and whatever a scenario adds.
pub fn data_tree(tree: &Path, board: &dyn Board, config: &Value, device_key: &[u8]) -> Outcome<PathBuf> {
    let mender = tree.join("mender");
    fs::create_dir_all(&mender).map_err(|error| format!("cannot make {}: {error}", mender.display()))?;
    let guest = board.guest();
    let mut all = json!({ "RootfsPartA": guest.root_a, "RootfsPartB": guest.root_b });
    if let (Some(all), Some(config)) = (all.as_object_mut(), config.as_object()) {
        all.extend(config.clone());
    }
    write(&mender.join("mender.conf"), format!("{all:#}\n"))?;
    write(&mender.join("device_type"), format!("device_type={DEVICE_TYPE}\n"))?;
    let key = mender.join("mender-agent.pem");
    write(&key, device_key)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))
        .map_err(|error| format!("{}: {error}", key.display()))?;
    Ok(mender)
}

/// What only this version has.
fn own_content(system: &System) -> Vec<u8> {
    let seed = system.version.bytes().fold(0, |seed: u64, byte| seed << 8 | u64::from(byte));
    let mut random = Generator::new(seed);
    (0..system.own_mib * disk::MIB / 8).flat_map(|_word| random.next_word().to_le_bytes()).collect()
}

/// So many MiB that do not become smaller than half.
fn ballast(at: &Path, mib: u64) -> Outcome {
    let mut random = Generator::new(mib);
    let mut bytes = Vec::new();
    for _word in 0..mib * 1024 * 1024 / 16 {
        bytes.extend_from_slice(&random.next_word().to_le_bytes());
        bytes.extend_from_slice(b"ballast.");
    }
    write(at, bytes)
}

fn copy(from: &Path, to: &Path) -> Outcome {
    fs::copy(from, to)
        .map(|_bytes| ())
        .map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), to.display()))
}

fn link(target: &str, at: &Path) -> Outcome {
    symlink(target, at).map_err(|error| format!("cannot make {}: {error}", at.display()))
}

fn program(at: &Path, from: &Path) -> Outcome {
    copy(from, at)?;
    executable(at)
}

fn text_program(at: &Path, text: &str) -> Outcome {
    write(at, text)?;
    executable(at)
}

fn executable(path: &Path) -> Outcome {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_is_too_large_is_named_and_any_other_error_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let client = folder.path().join("usr/bin/rust-ota");
        fs::create_dir_all(client.parent().unwrap()).unwrap();
        let said = |bytes: u64| {
            fs::File::create(&client).unwrap().set_len(bytes).unwrap();
            too_large_for(28, folder.path(), "no room".to_owned())
        };
        assert_eq!(said(CLIENT_MIB * disk::MIB), "no room");
        let error = said(10 * disk::MIB + 1);
        assert!(error.starts_with("the client has 11 MiB, and the root file system of 28 MiB"), "{error}");
        assert!(error.ends_with("\nno room"), "{error}");
    }
}

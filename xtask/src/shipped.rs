//! How the programs are built as they ship: the client small, all of them static, and without a name of a folder of the
//! machine that built them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::compilers::{Arch, Compilers};
use crate::{Outcome, workspace};

/// The client, for devices.
pub const CLIENT: &str = "rust-ota";
/// The programs for hosts.
pub const FOR_HOSTS: [&str; 2] = ["rust-ota-artifact", "rust-ota-server"];

/// Of zstd's decoder as ships: without a second one for windows of more than 16 MiB, a second one for literals, and the texts
/// of errors, which are said in our words. It is as fast without them on what was measured (docs/performance.md).
const ZSTD: &str =
    "-DZSTD_FORCE_DECOMPRESS_SEQUENCES_SHORT=1 -DHUF_FORCE_DECOMPRESS_X1=1 -DZSTD_STRIP_ERROR_STRINGS=1";

/// Who builds, and with which C library.
#[derive(Debug, Clone)]
pub enum Way {
    /// Debian's Rust, with musl.
    Musl(Compilers),
    /// The machine's own Rust, for one of its targets.
    Machine(String),
}

impl Way {
    /// To build for `target`: with musl for the targets that have it here, which fetches compilers, else with the machine's
    /// own. Without a name, for this machine's processor, with musl if its compilers were fetched before.
    pub fn to(target: Option<&str>) -> Outcome<Way> {
        match target {
            None => Ok(Cache::open()
                .ok()
                .and_then(|cache| Compilers::if_there(&cache, Arch::X86_64))
                .filter(|_| cfg!(target_arch = "x86_64"))
                .map_or(Way::Machine(host()?), Way::Musl)),
            Some(triple) => match Arch::of_triple(triple) {
                Some(arch) => Ok(Way::Musl(Compilers::fetch(&Cache::open()?, arch)?)),
                None => Ok(Way::Machine(triple.to_owned())),
            },
        }
    }

    /// With musl for this machine, if that can be had; else with its own compiler, and why.
    pub fn best() -> Outcome<(Way, Option<String>)> {
        if let Way::Musl(compilers) = Way::to(None)? {
            return Ok((Way::Musl(compilers), None));
        }
        match Cache::open().and_then(|cache| Compilers::fetch(&cache, Arch::X86_64)) {
            Ok(compilers) => Ok((Way::Musl(compilers), None)),
            Err(reason) => Ok((Way::Machine(host()?), Some(reason))),
        }
    }

    /// What Rust calls the target.
    pub fn triple(&self) -> &str {
        match self {
            Way::Musl(compilers) => compilers.arch().triple(),
            Way::Machine(triple) => triple,
        }
    }
}

/// Sources, and where to build them.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The folder of the workspace.
    pub root: PathBuf,
    /// What cargo builds into.
    pub target: PathBuf,
}

impl Tree {
    /// Those of this program.
    pub fn own() -> Outcome<Tree> {
        Ok(Tree { root: workspace::root(), target: workspace::target_directory()? })
    }
}

/// The client for this machine as it ships.
pub fn client() -> Outcome<PathBuf> {
    let (way, _reason) = Way::best()?;
    build(CLIENT, &way, &[], &Tree::own()?)
}

/// Builds `program` from `tree`, with these arguments of cargo besides, and returns its path.
///
/// The target is always named, so that the flags do not reach build scripts.
pub fn build(program: &str, way: &Way, arguments: &[&str], tree: &Tree) -> Outcome<PathBuf> {
    let profile = if program == CLIENT { "dist" } else { "release" };
    let mut command = workspace::cargo();
    command.current_dir(&tree.root).args(["build", "--locked", "--package", program, "--profile", profile]);
    command.arg("--target-dir").arg(&tree.target).args(arguments);
    let mut flags = without_folders(way, &tree.root);
    match way {
        Way::Musl(compilers) => {
            compilers.apply(&mut command);
            command.env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
            flags.extend(compilers.rust_flags());
            flags.extend(linker_flags(&tree.root));
            // Backtraces of the standard library find nothing without unwind tables, and are left out for all programs.
            let size = if program == CLIENT { "optimize_for_size" } else { "panic-unwind" };
            if program == CLIENT {
                // What is derived for developers says which variant it is, and not all that is in it. No message for users is
                // made of it.
                flags.push("-Zfmt-debug=shallow".to_owned());
                flags.extend(compilers.small_p256(&ring_prefix(&tree.root)?));
                command.env(format!("CFLAGS_{}", way.triple().replace('-', "_")), ZSTD);
            }
            command.arg(format!("-Zbuild-std-features={size}"));
        }
        Way::Machine(triple) => {
            command.args(["--target", triple]);
            if program == CLIENT {
                flags.extend(["-C", "target-feature=+crt-static"].map(str::to_owned));
                flags.extend(["-C", "link-arg=-Wl,-z,pack-relative-relocs"].map(str::to_owned));
                flags.extend(linker_flags(&tree.root));
            }
        }
    }
    if program == CLIENT {
        // One signature is checked per installation: its code for vectors is 40 KiB.
        flags.extend(["--cfg", "curve25519_dalek_backend=\"serial\""].map(str::to_owned));
        // AES opens a private key, once: without the processor's instructions, and small.
        flags.extend(["--cfg", "aes_force_soft", "--cfg", "aes_compact"].map(str::to_owned));
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    workspace::run(&mut command)?;
    Ok(tree.target.join(way.triple()).join(profile).join(program))
}

/// The C library for this machine, shared and with its own C library: what a distribution builds. Its path.
pub fn library(tree: &Tree) -> Outcome<PathBuf> {
    let triple = host()?;
    let mut command = workspace::cargo();
    command.current_dir(&tree.root).args([
        "rustc",
        "--locked",
        "--package",
        "rust-ota-ffi",
        "--profile",
        "dist",
    ]);
    command.args(["--crate-type", "cdylib", "--target", &triple, "--target-dir"]).arg(&tree.target);
    let mut flags = without_folders(&Way::Machine(triple.clone()), &tree.root);
    flags.extend(["-C", "link-arg=-Wl,-z,pack-relative-relocs"].map(str::to_owned));
    flags.extend(linker_flags(&tree.root));
    flags.extend(["--cfg", "curve25519_dalek_backend=\"serial\""].map(str::to_owned));
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    workspace::run(&mut command)?;
    Ok(tree.target.join(triple).join("dist/librust_ota.so"))
}

/// Without unwind tables, which nothing reads after an abort. They are flags of the linker, for which a profile has no place.
fn linker_flags(root: &Path) -> Vec<String> {
    let script = root.join("xtask/no-unwind-tables.ld");
    let link = ["--no-eh-frame-hdr", "-O2", &format!("-T,{}", script.display())];
    link.iter().flat_map(|flag| ["-C".to_owned(), format!("link-arg=-Wl,{flag}")]).collect()
}

/// The ring whose functions `xtask/musl/p256.c` stands in for. A linker compares names and nothing else: another version may
/// hand them other numbers.
const RING: &str = "0.17.14";

/// What the names of ring's C code begin with: its version is in them.
fn ring_prefix(root: &Path) -> Outcome<String> {
    let lock = workspace::read(&root.join("Cargo.lock"))?;
    let version = lock.split("\n[[package]]\nname = \"ring\"\nversion = \"").nth(1);
    let version = version.and_then(|rest| rest.split('"').next()).ok_or("Cargo.lock names no ring")?;
    if version != RING {
        return Err(format!(
            "Cargo.lock has ring {version}, and xtask/musl/p256.c was read against {RING}: see whether p256_point_mul and \
             p256_point_mul_base still take what they took, then put the version into xtask/src/shipped.rs"
        ));
    }
    Ok(format!("ring_core_{}__", version.replace(['.', '-', '+'], "_")))
}

/// Messages of panics name files as they are called in the sources, not where this machine has them: the same bytes come of
/// any folder, and fewer.
fn without_folders(way: &Way, root: &Path) -> Vec<String> {
    let mut folders = vec![root.to_path_buf()];
    if let Some(home) = cargo_home() {
        let sources = home.join("registry/src");
        let registries = fs::read_dir(&sources).into_iter().flatten().flatten().map(|entry| entry.path());
        folders.extend(registries);
    }
    if let Way::Musl(compilers) = way {
        folders.extend(compilers.library_sources());
    }
    folders.iter().map(|folder| format!("--remap-path-prefix={}=", folder.display())).collect()
}

/// Where cargo keeps what it downloads.
pub fn cargo_home() -> Option<PathBuf> {
    let given = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    given.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

/// What this machine's Rust calls it.
pub fn host() -> Outcome<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = workspace::capture(Command::new(rustc).arg("-vV"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".into())
}

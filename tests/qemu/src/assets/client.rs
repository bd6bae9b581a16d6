//! The client as it ships, for other processors: Debian's Rust compiler and its library for that processor, driven by this
//! machine's cargo.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian::Debian;
use super::{Arch, Assets};
use crate::{Outcome, read, run, write};

/// What Debian has the compiler and its library in: the browser's, which is newer.
const COMPILER: &str = "rustc-web";
const LIBRARY: &str = "libstd-rust-web-dev";

/// How a program for a processor is made.
struct Cross {
    /// Rust's name of it.
    target: &'static str,
    /// What the names of its tools begin with.
    tools: &'static str,
    /// The packages that have them.
    packages: &'static str,
}

impl Cross {
    fn to(arch: Arch) -> Outcome<Cross> {
        match arch {
            Arch::X86_64 => Err("the client for this machine is given with --client".into()),
            Arch::Aarch64 => Ok(Cross {
                target: "aarch64-unknown-linux-gnu",
                tools: "aarch64-linux-gnu-",
                packages: "gcc-aarch64-linux-gnu and libc6-dev-arm64-cross",
            }),
            Arch::Armv7 => Ok(Cross {
                target: "armv7-unknown-linux-gnueabihf",
                tools: "arm-linux-gnueabihf-",
                packages: "gcc-arm-linux-gnueabihf and libc6-dev-armhf-cross",
            }),
        }
    }
}

impl Assets {
    /// The client for another processor, built when its sources changed.
    pub fn client(&self, arch: Arch) -> Outcome<PathBuf> {
        let cross = Cross::to(arch)?;
        self.once(&format!("client-{}", arch.debian()), |assets| {
            let rustc = assets.rustc(arch)?;
            let linker = format!("{}gcc", cross.tools);
            if run(Command::new(&linker).arg("--version")).is_err() {
                return Err(format!("{linker} is not installed: packages {}", cross.packages));
            }
            let root = crate::workspace();
            // Kept between runs: what comes from others is compiled once for a lock file.
            let lock = read(&root.join("Cargo.lock"))?;
            let kept = format!("rustc 2\n{}\n{}", rustc.display(), String::from_utf8_lossy(&lock));
            let target = assets.cache.join(format!("client-{}-{}", arch.debian(), super::hash(&kept)));
            println!("building the client for {}", cross.target);
            // Without the linker script of `cargo xtask size`: this compiler's start files need their unwind tables.
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.current_dir(&root).args(["build", "--quiet", "--package", "rust-ota", "--profile", "dist"]);
            cargo.args(["--target", cross.target, "--target-dir"]).arg(&target);
            // What this program was started with is not for the other compiler.
            for name in ["RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
                cargo.env_remove(name);
            }
            let name = cross.target.replace('-', "_");
            cargo.env("RUSTC", rustc).env("RUSTFLAGS", "-C target-feature=+crt-static");
            cargo.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), &linker);
            cargo.env(format!("CC_{name}"), &linker).env(format!("AR_{name}"), format!("{}ar", cross.tools));
            // A minute less, and the same code: for every change.
            if !assets.as_it_ships {
                cargo.env("CARGO_PROFILE_DIST_LTO", "off").env("CARGO_PROFILE_DIST_CODEGEN_UNITS", "16");
            }
            run(&mut cargo)?;
            // Another run may build another client there.
            let built = target.join(cross.target).join("dist/rust-ota");
            let own = root.join("target/qemu");
            fs::create_dir_all(&own).map_err(|error| format!("cannot make {}: {error}", own.display()))?;
            let own = own.join(format!("rust-ota-{}", arch.debian()));
            fs::copy(&built, &own).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
            Ok(own)
        })
    }

    /// Debian's compiler with the library for `arch`, of the same version, in a folder of its own.
    fn rustc(&self, arch: Arch) -> Outcome<PathBuf> {
        let debian = Debian::open(&self.cache)?;
        let version = debian.version(LIBRARY, arch.debian())?;
        let there = format!("{LIBRARY}={version}");
        let library = debian.depends(&there, Arch::X86_64.debian(), "libstd-rust-web-")?;
        let library = format!("{library}={version}");
        let llvm = debian.depends(&library, Arch::X86_64.debian(), "libllvm")?;
        let compiler = format!("{COMPILER}={version}");
        let here = [compiler.as_str(), &library, &llvm, &there];
        let mut recipe = String::from("rustc 2\n");
        for package in here {
            recipe += &(debian.candidate(package, Arch::X86_64.debian())? + "\n");
        }
        let directory = self.recipe(&format!("rustc-{}", arch.debian()), &recipe, |directory| {
            debian.unpack(&here, Arch::X86_64.debian(), directory)?;
            debian.unpack(&[&there], arch.debian(), directory)
        })?;
        let wrapper = directory.join("rustc");
        if !wrapper.is_file() {
            let text = "#!/bin/sh\nhere=$(dirname \"$0\")\n\
                        LD_LIBRARY_PATH=$here/usr/lib/x86_64-linux-gnu exec \"$here/usr/bin/rustc\" \"$@\"\n";
            write_program(&wrapper, text)?;
        }
        Ok(wrapper)
    }
}

/// Complete or not there.
fn write_program(path: &Path, text: &str) -> Outcome {
    let unfinished = path.with_extension("unfinished");
    write(&unfinished, text)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(|error| format!("{}: {error}", path.display()))
}

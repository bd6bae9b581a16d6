//! The client as it ships, for aarch64: Debian's Rust compiler and its library for that processor, driven by this machine's
//! cargo.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian::Debian;
use super::{Arch, Assets};
use crate::{Outcome, run, write};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Links and compiles C for it; a package of its name, with `libc6-dev-arm64-cross` beside it.
const LINKER: &str = "aarch64-linux-gnu-gcc";

impl Assets {
    /// The client for aarch64, built when its sources changed.
    pub fn client_aarch64(&self) -> Outcome<PathBuf> {
        self.once("client-aarch64", |assets| {
            let rustc = assets.rustc_aarch64()?;
            if run(Command::new(LINKER).arg("--version")).is_err() {
                return Err(format!(
                    "{LINKER} is not installed: packages gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"
                ));
            }
            let root = crate::workspace();
            let target = root.join("target/qemu/aarch64");
            println!("building the client for aarch64");
            // Without the linker script of `cargo xtask size`: this compiler's start files need their unwind tables.
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.current_dir(&root).args(["build", "--quiet", "--package", "rust-ota", "--profile", "dist"]);
            cargo.args(["--target", TARGET, "--target-dir"]).arg(&target);
            // What this program was started with is not for the other compiler.
            for name in ["RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
                cargo.env_remove(name);
            }
            cargo.env("RUSTC", rustc).env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
            cargo
                .env("CC_aarch64_unknown_linux_gnu", LINKER)
                .env("AR_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-ar");
            cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
            run(&mut cargo)?;
            Ok(target.join(TARGET).join("dist/rust-ota"))
        })
    }

    /// Debian's compiler with the library for aarch64, in a folder of its own.
    fn rustc_aarch64(&self) -> Outcome<PathBuf> {
        let debian = Debian::open(&self.cache)?;
        let library = debian.depends("libstd-rust-web-dev", "amd64", "libstd-rust-web-")?;
        let llvm = debian.depends(&library, "amd64", "libllvm")?;
        let here = ["rustc-web", &library, &llvm, "libstd-rust-web-dev"];
        let there = ["libstd-rust-web-dev"];
        let mut recipe = String::from("rustc 2\n");
        for package in here {
            recipe += &(debian.candidate(package, Arch::X86_64.debian())? + "\n");
        }
        let directory = self.recipe("rustc-aarch64", &recipe, |directory| {
            debian.unpack(&here, Arch::X86_64.debian(), directory)?;
            debian.unpack(&there, Arch::Aarch64.debian(), directory)
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

fn write_program(path: &Path, text: &str) -> Outcome {
    write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("{}: {error}", path.display()))
}

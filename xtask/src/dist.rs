//! `cargo xtask dist`: the programs as they ship, in one folder.

use std::fs;
use std::path::PathBuf;

use crate::options::Options;
use crate::{Outcome, size, workspace};

/// The client, for devices: small and static.
const CLIENT: &str = "rust-ota";
/// The programs for the host.
const FOR_HOSTS: [&str; 2] = ["rust-ota-artifact", "rust-ota-server"];

/// What `--help` says.
pub const HELP: &str = "\
Usage: cargo xtask dist [--target TRIPLE] [PROGRAM...]

Builds programs as they ship and puts them into target/dist, with a target into target/dist/TRIPLE. Without a name it is
the client, rust-ota: one static program without anything beside it. The host tool rust-ota-artifact and the server
rust-ota-server are built when they are named.

For another processor its target has to be installed (rustup target add TRIPLE) with a linker for it, which cargo is told
as CARGO_TARGET_..._LINKER.
";

/// Builds, copies and says where.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let target = options.value("--target")?;
    let mut programs = options.words();
    options.finish()?;
    if programs.is_empty() {
        programs.push(CLIENT);
    }
    if let Some(unknown) = programs.iter().find(|name| **name != CLIENT && !FOR_HOSTS.contains(name)) {
        return Err(format!("there is no program {unknown:?}; there are {CLIENT}, {}", FOR_HOSTS.join(", ")));
    }
    let mut folder = workspace::target_directory()?.join("dist");
    folder.extend(target);
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    for name in programs {
        let built = if name == CLIENT { size::build(target)? } else { build_for_host(name, target)? };
        let path = folder.join(name);
        let bytes = fs::copy(&built, &path)
            .map_err(|error| format!("cannot copy {} to {}: {error}", built.display(), path.display()))?;
        println!("{}: {bytes} bytes", path.display());
    }
    Ok(())
}

fn build_for_host(name: &str, target: Option<&str>) -> Outcome<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--release", "--package", name]);
    let mut folder = workspace::target_directory()?;
    if let Some(target) = target {
        command.args(["--target", target]);
        folder.push(target);
    }
    workspace::run(&mut command)?;
    Ok(folder.join("release").join(name))
}

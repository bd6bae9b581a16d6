//! The S3 server that tests use: a program of other people's, built from its published source into a folder of the project.

use std::fs;
use std::path::PathBuf;

use crate::{Outcome, workspace};

/// Says to the tests where its program is.
pub const PROGRAM: &str = "ROTA_S3";

/// The version that the tests were written against.
const VERSION: &str = "0.14.1";

/// Where it is, or would be: kept until the build output is removed.
pub fn program() -> Outcome<PathBuf> {
    Ok(workspace::target_directory()?.join("s3/bin/s3s-fs"))
}

/// Returns the program, which is built first if it is not there and `may_install`; else why not. Building takes some 80
/// seconds of processor time, once.
pub fn prepare(may_install: bool) -> Outcome<PathBuf> {
    let program = program()?;
    if program.is_file() {
        return Ok(program);
    }
    if !may_install {
        return Err(format!("{} is not there and --no-install was given", program.display()));
    }
    let target = workspace::target_directory()?;
    let build = target.join("s3-build");
    let mut install = workspace::cargo();
    // Signatures and digests of tests are small: to optimise would take longer than it saves.
    install.args([
        "install",
        "s3s-fs",
        "--version",
        VERSION,
        "--locked",
        "--features",
        "binary",
        "--debug",
        "--root",
    ]);
    install.arg(target.join("s3")).arg("--target-dir").arg(&build).env("CARGO_PROFILE_DEV_DEBUG", "0");
    // Not the flags of this build, which may ask for more than it needs.
    install.env_remove("RUSTFLAGS");
    let installed = workspace::run(&mut install);
    if let Err(error) = fs::remove_dir_all(&build) {
        println!("{} could not be removed: {error}", build.display());
    }
    installed.map(|()| program)
}

//! Makes what `--help` prints from the description of the program, which is not part of the program then.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?;
    fs::write(Path::new(&folder).join("help.rs"), manual::help::as_source(&manual::rust_ota::PROGRAM))?;
    Ok(())
}

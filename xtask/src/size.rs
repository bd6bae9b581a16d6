//! `cargo xtask size`: the program as it ships, and whether it is as small and as static as promised.

use std::fs;
use std::path::PathBuf;

use crate::options::Options;
use crate::{Outcome, workspace};

/// The promise: the daemon, TLS and every decoder in less than 3.5 MiB, a static C library of 0.9 MiB among it. The
/// command line alone was below 3 MiB.
const LIMIT_BYTES: u64 = 3_670_016;

/// Builds, prints and judges.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let target = options.value("--target")?;
    options.finish()?;
    let program = build(target)?;
    let bytes = fs::read(&program).map_err(|error| format!("cannot read {}: {error}", program.display()))?;
    let linking = match needs_loader(&bytes) {
        Some(false) => "static",
        Some(true) => "dynamic",
        None => "not an ELF program of this kind",
    };
    let size = bytes.len() as u64;
    println!("{}", program.display());
    println!("rust-ota: {size} bytes ({:.2} MiB), {linking}, stripped", mebibytes(size));
    if size > LIMIT_BYTES {
        return Err(format!("{size} bytes are more than the {LIMIT_BYTES} promised"));
    }
    if needs_loader(&bytes) != Some(false) {
        return Err("the program is not static".into());
    }
    println!("{} bytes below the limit of {LIMIT_BYTES}", LIMIT_BYTES - size);
    Ok(())
}

/// Builds the client as it ships for `target`, the host by default, and returns its path.
///
/// The target is always named, so that the flags do not reach build scripts.
pub fn build(target: Option<&str>) -> Outcome<PathBuf> {
    let host = host()?;
    let target = target.unwrap_or(&host);
    let mut command = workspace::cargo();
    command.args(["build", "--package", "rust-ota", "--profile", "dist", "--target", target]);
    command.env("RUSTFLAGS", rust_flags());
    workspace::run(&mut command)?;
    Ok(workspace::target_directory()?.join(target).join("dist").join("rust-ota"))
}

/// Static, with relative relocations in their short form and without unwind tables: together 0.7 MiB less. They are
/// flags of the linker, for which a profile has no place.
fn rust_flags() -> String {
    let script = workspace::root().join("xtask/no-unwind-tables.ld");
    let link = ["-z,pack-relative-relocs", "--no-eh-frame-hdr", "-O2", &format!("-T,{}", script.display())];
    let link: String = link.iter().map(|flag| format!(" -C link-arg=-Wl,{flag}")).collect();
    format!("-C target-feature=+crt-static{link}")
}

fn host() -> Outcome<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = workspace::capture(std::process::Command::new(rustc).arg("-vV"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".into())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// Whether an ELF program asks for a dynamic loader (has a segment `PT_INTERP`). `None` for anything but a
/// little-endian ELF program.
fn needs_loader(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = elf.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    if !elf.starts_with(b"\x7fELF") || elf.get(5) != Some(&1) {
        return None;
    }
    let (table, entry_bytes, entries) = match elf.get(4)? {
        1 => (number(0x1c, 4)?, number(0x2a, 2)?, number(0x2c, 2)?),
        2 => (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?),
        _ => return None,
    };
    let mut interpreter = false;
    for index in 0..entries {
        let at = usize::try_from(table + index * entry_bytes).ok()?;
        interpreter |= number(at, 4)? == PT_INTERP;
    }
    Some(interpreter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // This test is one, on every target that the project is developed on.
        let this = std::env::current_exe().unwrap();
        assert_eq!(needs_loader(&fs::read(&this).unwrap()), Some(true));

        let mut elf = fs::read(this).unwrap();
        let table = u64::from_le_bytes(elf[0x20..0x28].try_into().unwrap()) as usize;
        for entry in 0..usize::from(elf[0x38]) {
            let kind = table + entry * 56;
            if elf[kind] == 3 {
                elf[kind] = 0;
            }
        }
        assert_eq!(needs_loader(&elf), Some(false));
    }

    #[test]
    fn what_is_no_program_is_not_judged() {
        assert_eq!(needs_loader(b""), None);
        assert_eq!(needs_loader(b"#!/bin/sh"), None);
        assert_eq!(needs_loader(b"\x7fELF\x02\x01\x01"), None);
    }
}

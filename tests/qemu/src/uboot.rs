//! What the boards with U-Boot share: the boot script that ships, compiled for them, and their first environment.

use std::path::Path;
use std::process::Command;

use crate::kit::Kit;
use crate::{Outcome, read, run, write};

/// Settings of the board before the logic, as `boot/u-boot/README.md` says, compiled for `mkimage`'s architecture `arch`.
pub fn script(kit: &Kit, directory: &Path, arch: &str, board: &str) -> Outcome<Vec<u8>> {
    let mut text = read(&kit.product("u-boot/boards").join(board))?;
    text.extend(read(&kit.product("u-boot/boot.cmd"))?);
    let source = directory.join("boot.cmd");
    write(&source, text)?;
    let compiled = directory.join("boot.scr");
    run(Command::new("mkimage")
        .args(["-A", arch, "-T", "script", "-C", "none", "-n", "rust-ota", "-d"])
        .arg(&source)
        .arg(&compiled))?;
    read(&compiled)
}

/// The environment of a new device that the boot script keeps: one sector.
pub fn one_sector_environment(kit: &Kit, directory: &Path) -> Outcome<Vec<u8>> {
    make_environment(directory, &["-s", "0x200"], &first_state(kit)?)
}

/// A new device runs from slot A, partition 2.
pub fn first_state(kit: &Kit) -> Outcome<String> {
    Ok(String::from_utf8_lossy(&read(&kit.product("u-boot/state.env"))?).into_owned())
}

/// An environment as `mkenvimage` makes it.
pub fn make_environment(directory: &Path, options: &[&str], text: &str) -> Outcome<Vec<u8>> {
    let source = directory.join("environment.txt");
    write(&source, text)?;
    let image = directory.join("environment.bin");
    run(Command::new("mkenvimage").args(options).arg("-o").arg(&image).arg(&source))?;
    read(&image)
}

/// A U-Boot that does not wait for a key: its default environment is plain text.
pub fn without_delay(rom: &[u8]) -> Outcome<Vec<u8>> {
    const WAITS: &[u8] = b"bootdelay=2\0";
    let mut rom = rom.to_vec();
    let at = rom.windows(WAITS.len()).position(|window| window == WAITS);
    let at = at.ok_or("this U-Boot has no bootdelay=2 in its environment")?;
    rom[at + WAITS.len() - 2] = b'0';
    Ok(rom)
}

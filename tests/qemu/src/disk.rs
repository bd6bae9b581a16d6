//! Images of disks and file systems, without root, loop devices or mounts: `mke2fs -d`, `mkfs.vfat` with mtools,
//! `sgdisk`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, read, run, write};

/// Bytes of a MiB: partitions begin and end on them.
pub const MIB: u64 = 1024 * 1024;

/// A partition to be.
pub struct Partition<'a> {
    /// Its GPT name: `PARTLABEL` for the kernel.
    pub name: &'a str,
    /// How long.
    pub mib: u64,
    /// What is in it; zeros without.
    pub content: Option<&'a Path>,
    /// Where firmware or a bootloader looks first.
    pub kind: Kind,
}

/// What a partition says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For UEFI and U-Boot to start from.
    Boot,
    /// Linux.
    Linux,
}

/// First byte of partition `index` of `partitions`.
pub fn offset(partitions: &[Partition], index: usize) -> u64 {
    (1 + partitions[..index].iter().map(|partition| partition.mib).sum::<u64>()) * MIB
}

/// Where the partitions of a disk with slots begin, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// A and B.
    pub slots: [u64; 2],
    /// The partition with ext4 that is written to, up to the end.
    pub data: u64,
}

/// The slots are partitions 2 and 3 of every board, data is the fourth.
pub fn places(partitions: &[Partition]) -> Places {
    Places { slots: [offset(partitions, 1), offset(partitions, 2)], data: offset(partitions, 3) }
}

/// Whether `image` is what a disk has from byte `at` on.
pub fn has(disk: &Path, at: u64, image: &Path) -> Outcome<bool> {
    let image = read(image)?;
    let mut found = vec![0; image.len()];
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", disk.display());
    File::open(disk).and_then(|disk| disk.read_exact_at(&mut found, at)).map_err(failed)?;
    Ok(found == image)
}

/// Writes a disk with a GPT.
pub fn build(disk: &Path, partitions: &[Partition]) -> Outcome {
    let bytes = offset(partitions, partitions.len()) + MIB;
    let file = File::create(disk).map_err(|error| format!("cannot make {}: {error}", disk.display()))?;
    file.set_len(bytes).map_err(|error| format!("cannot make {}: {error}", disk.display()))?;
    let mut sgdisk = Command::new("sgdisk");
    for (index, partition) in partitions.iter().enumerate() {
        let number = index + 1;
        let start = offset(partitions, index) / MIB;
        sgdisk.args(["-n", &format!("{number}:{start}M:+{}M", partition.mib)]);
        sgdisk.args(["-c", &format!("{number}:{}", partition.name)]);
        match partition.kind {
            // EFI system partition, with the attribute "legacy boot" that U-Boot looks for.
            Kind::Boot => sgdisk.args(["-t", &format!("{number}:EF00"), "-A", &format!("{number}:set:2")]),
            Kind::Linux => sgdisk.args(["-t", &format!("{number}:8300")]),
        };
    }
    run(sgdisk.arg(disk))?;
    for (index, partition) in partitions.iter().enumerate() {
        if let Some(content) = partition.content {
            put(disk, offset(partitions, index), partition.mib * MIB, content)?;
        }
    }
    Ok(())
}

/// Makes a disk one that a BIOS starts GRUB from: `boot`, its boot sector, and `core`, the rest, behind the table of partitions,
/// in a partition of its own. This is what `grub-install` does, which wants to be root and to see the disk.
pub fn put_grub(disk: &Path, boot: &[u8], mut core: Vec<u8>) -> Outcome {
    const FIRST: u64 = 34;
    const LAST: u64 = MIB / SECTOR - 1;
    const SECTOR: u64 = 512;
    let place = format!("5:{FIRST}:{LAST}");
    run(Command::new("sgdisk").args(["-a", "1", "-n", &place, "-t", "5:EF02", "-c", "5:grub"]).arg(disk))?;
    core.resize(core.len().next_multiple_of(SECTOR as usize), 0);
    let sectors = core.len() as u64 / SECTOR;
    if sectors > LAST - FIRST || boot.len() as u64 != SECTOR {
        return Err(format!("GRUB has {} and {} bytes: there is no room for that", boot.len(), core.len()));
    }
    // Where the boot sector finds the first sector of the rest (GRUB_BOOT_MACHINE_KERNEL_SECTOR), and where that finds what
    // follows: the last list of blocks of its sector.
    let mut boot = boot.to_vec();
    boot[0x5c..0x64].copy_from_slice(&FIRST.to_le_bytes());
    core[0x1f4..0x1fc].copy_from_slice(&(FIRST + 1).to_le_bytes());
    core[0x1fc..0x1fe].copy_from_slice(&u16::try_from(sectors - 1).unwrap_or(u16::MAX).to_le_bytes());
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", disk.display());
    let file = File::options().read(true).write(true).open(disk).map_err(failed)?;
    // The table of partitions of the boot sector stays.
    file.write_all_at(&boot[..0x1b8], 0).map_err(failed)?;
    file.write_all_at(&core, FIRST * SECTOR).map_err(failed)
}

/// Copies `content` into a disk; blocks of zeros are left as they are.
pub fn put(disk: &Path, at: u64, limit: u64, content: &Path) -> Outcome {
    const BLOCK: usize = 64 * 1024;
    let bytes = std::fs::read(content).map_err(|error| format!("{}: {error}", content.display()))?;
    if bytes.len() as u64 > limit {
        return Err(format!("{} has {} bytes, its partition {limit}", content.display(), bytes.len()));
    }
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", disk.display());
    let disk = File::options().write(true).open(disk).map_err(failed)?;
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            disk.write_all_at(block, at + (index * BLOCK) as u64).map_err(failed)?;
        }
    }
    Ok(())
}

/// Makes an ext4 file system of `mib` MiB from the tree `directory`, all of it root's.
pub fn ext4(image: &Path, mib: u64, label: &str, directory: &Path) -> Outcome {
    let file = File::create(image).map_err(|error| format!("cannot make {}: {error}", image.display()))?;
    file.set_len(mib * MIB).map_err(|error| format!("cannot make {}: {error}", image.display()))?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-m", "0", "-L", label]);
    // The same bytes from the same tree, and nothing that GRUB 2.06 and U-Boot 2023.01 cannot read.
    mke2fs.args(["-U", "5f27a3c0-8c07-4bd4-9d0a-0c3f9c3c1f10"]);
    mke2fs.args(["-E", "root_owner=0:0,lazy_itable_init=0,hash_seed=5f27a3c0-8c07-4bd4-9d0a-0c3f9c3c1f10"]);
    mke2fs.args(["-O", "^metadata_csum_seed,^orphan_file,^resize_inode"]);
    run(mke2fs.arg("-d").arg(directory).arg(image))
}

/// Makes a FAT file system of `mib` MiB with `files`: path in it, and content.
pub fn fat(image: &Path, mib: u64, files: &[(String, Vec<u8>)]) -> Outcome {
    let file = File::create(image).map_err(|error| format!("cannot make {}: {error}", image.display()))?;
    file.set_len(mib * MIB).map_err(|error| format!("cannot make {}: {error}", image.display()))?;
    // UEFI wants FAT32 from 33 MiB on, and finds FAT16 below.
    let bits = if mib >= 34 { "32" } else { "16" };
    run(Command::new("mkfs.vfat").args(["-F", bits, "-s", "1", "-n", "BOOT"]).arg(image))?;
    let mut made: Vec<PathBuf> = Vec::new();
    for (path, content) in files {
        let parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        for parent in parents.into_iter().rev().filter(|parent| parent.parent().is_some()) {
            if !made.iter().any(|known| known == parent) {
                run(Command::new("mmd").arg("-i").arg(image).arg(format!("::{}", parent.display())))?;
                made.push(parent.to_path_buf());
            }
        }
        let staged = image.with_extension("file");
        write(&staged, content)?;
        run(Command::new("mcopy").arg("-i").arg(image).arg(&staged).arg(format!("::{path}")))?;
    }
    Ok(())
}

/// Puts `from` in the place of a file of the FAT file system that begins at byte `at` of `disk`.
pub fn replace_in_fat(disk: &Path, at: u64, from: &Path, path: &str) -> Outcome {
    let image = format!("{}@@{at}", disk.display());
    run(Command::new("mcopy").args(["-o", "-i", &image]).arg(from).arg(format!("::{path}")))
}

/// Reads a file of the FAT file system that begins at byte `at` of `disk`.
pub fn read_fat(disk: &Path, at: u64, path: &str) -> Outcome<Vec<u8>> {
    let image = format!("{}@@{at}", disk.display());
    let output = Command::new("mtype").args(["-i", &image, &format!("::{path}")]).output();
    let output = output.map_err(|error| format!("cannot run mtype: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("cannot read {path} of {image}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

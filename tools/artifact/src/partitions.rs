//! Where the partitions of a disk image begin. It reads the two tables that disk images of devices have, MBR and GPT, and
//! nothing of what is in the partitions.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const SECTOR: u64 = 512;
/// More entries than a table of the usual size has are not looked at.
const MOST_ENTRIES: u32 = 128;

/// Offsets in bytes, in the order of the table; none when there is no table. Logical partitions of an MBR are not among
/// them.
pub(crate) fn offsets(image: &Path) -> io::Result<Vec<u64>> {
    let mut file = File::open(image)?;
    let mut sector = [0; SECTOR as usize];
    if file.read_exact(&mut sector).is_err() || sector[510..] != [0x55, 0xaa] {
        return Ok(Vec::new());
    }
    let entries: Vec<&[u8]> = sector[446..510].chunks(16).filter(|entry| entry[4] != 0).collect();
    if entries.iter().any(|entry| entry[4] == 0xee) {
        return gpt(&mut file);
    }
    Ok(entries.iter().map(|entry| u64::from(number32(&entry[8..12])) * SECTOR).collect())
}

fn gpt(file: &mut File) -> io::Result<Vec<u64>> {
    let mut header = [0; 92];
    file.seek(SeekFrom::Start(SECTOR))?;
    file.read_exact(&mut header)?;
    let (count, size) = (number32(&header[80..84]), number32(&header[84..88]));
    if !header.starts_with(b"EFI PART") || size < 128 || size % 8 != 0 || size > 4096 {
        return Ok(Vec::new());
    }
    let place = number64(&header[72..80]).checked_mul(SECTOR).ok_or(io::ErrorKind::InvalidData)?;
    file.seek(SeekFrom::Start(place))?;
    let mut found = Vec::new();
    let mut entry = vec![0; size as usize];
    for _ in 0..count.min(MOST_ENTRIES) {
        file.read_exact(&mut entry)?;
        if entry[..16].iter().any(|byte| *byte != 0) {
            found.push(number64(&entry[32..40]).checked_mul(SECTOR).ok_or(io::ErrorKind::InvalidData)?);
        }
    }
    Ok(found)
}

fn number32(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn number64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &[u64]) {
        let folder = std::env::temp_dir().join(format!("partitions-{}-{}", std::process::id(), bytes.len()));
        std::fs::write(&folder, bytes).unwrap();
        let found = offsets(&folder).unwrap();
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn both_tables_are_read_and_what_is_none_has_no_partitions() {
        let mut mbr = vec![0; 513];
        mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (at, start) in [(446, 2048u32), (462, 4096), (494, 0x0010_0000)] {
            mbr[at + 4] = 0x83;
            mbr[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        }
        check(&mbr, &[2048 * 512, 4096 * 512, 0x0010_0000 * 512]);
        let mut gpt = vec![0; 4096];
        gpt[510..512].copy_from_slice(&[0x55, 0xaa]);
        gpt[450] = 0xee;
        gpt[512..520].copy_from_slice(b"EFI PART");
        gpt[584] = 2;
        gpt[592] = 4;
        gpt[596] = 128;
        for (at, start) in [(1024, 34u64), (1280, 1 << 33)] {
            gpt[at] = 1;
            gpt[at + 32..at + 40].copy_from_slice(&start.to_le_bytes());
        }
        check(&gpt, &[34 * 512, (1 << 33) * 512]);
        check(&[0; 512], &[]);
        check(&[0; 100], &[]);
    }
}

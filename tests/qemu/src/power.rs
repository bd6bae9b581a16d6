//! What is on a disk after its power went: QEMU's block driver `blklogwrites` writes down every write and flush of the
//! machine, firmware and bootloader among it; from that and the disk as it was before, disks are made as the cut may
//! have left them.
//!
//! The model: a write that was followed by a flush, or that was forced (FUA), is there. Of every other write, each
//! 512-byte sector is there or not, as a random number has it; sectors are whole. In the data partition it is each 4 KiB: its
//! ext4 needs its own blocks to be whole, whoever writes to it (Linux 6.1 takes half a commit block for a damaged journal).
//!
//! QEMU's NVMe disk (7.2) says that it can force a write and does not pass on which writes are to be forced: they are missing in
//! the log as such. Those that Linux always forces and that its journal rests upon are known by their content: the super block
//! of a journal and the block that ends a transaction. Without that, a cut soon after the journal of ext4 was gone through
//! could bring its old beginning back under the new entries, which no disk does that keeps its word.
//!
//! Format of the log: `dm-log-writes` of Linux (Documentation/admin-guide/device-mapper/log-writes.rst).

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use testkit::choice::Generator;

use crate::{Outcome, run};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// What is written whole or not at all.
const SECTOR: usize = 512;
/// And in the data partition.
const BLOCK: usize = 4096;

/// How many entries a log has by now; 0 for one that was not begun.
pub fn entries(log: &Path) -> u64 {
    let mut head = [0; 24];
    match File::open(log).and_then(|file| file.read_exact_at(&mut head, 0)) {
        Ok(()) if number(&head, 0) == Some(MAGIC) => number(&head, 16).unwrap_or(0),
        Ok(()) | Err(_) => 0,
    }
}

/// What a cut left.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Writes of the run.
    pub writes: u64,
    /// Those that were not flushed yet.
    pub at_risk: u64,
    /// Those of them that are gone, wholly or in part.
    pub lost: u64,
    /// Tells what it left from what other cuts left.
    pub state: u64,
}

/// One number for several.
pub fn hash(numbers: &[u64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    numbers.hash(&mut hasher);
    hasher.finish()
}

/// Copies the disk `base` to `to` and does to it what the machine did, as far as the first `upto` entries of the log
/// `log` say, but for what a cut there may take away. The data partition begins at byte `data_at`.
pub fn cut(
    base: &Path,
    log: &Path,
    upto: u64,
    to: &Path,
    data_at: Option<u64>,
    random: &mut Generator,
) -> Outcome<Cut> {
    copy_sparse(base, to)?;
    let bytes = std::fs::read(log).map_err(|error| format!("cannot read {}: {error}", log.display()))?;
    let mut entries = parse(&bytes).map_err(|error| format!("{}: {error}", log.display()))?;
    entries.truncate(usize::try_from(upto).unwrap_or(usize::MAX));
    // A flush makes what was complete before it durable. QEMU writes it down when it is done: what came meanwhile counts
    // as flushed too.
    let durable = entries.iter().rposition(|entry| entry.flags & FLUSH != 0).unwrap_or(0);
    let disk = File::options().write(true).open(to).map_err(|error| format!("{}: {error}", to.display()))?;
    let mut cut = Cut { state: hash(&[upto]), ..Cut::default() };
    for (index, entry) in entries.iter().enumerate() {
        if entry.data.is_empty() || entry.flags & DISCARD != 0 {
            continue;
        }
        cut.writes += 1;
        let is_data = data_at.is_some_and(|data_at| entry.at >= data_at);
        // The last write may not have been complete.
        let forced = is_data && is_forced_by_journal(entry.data) && index + 1 < entries.len();
        let safe = index < durable || entry.flags & FUA != 0 || forced;
        let mut whole = true;
        if safe {
            disk.write_all_at(entry.data, entry.at).map_err(|error| format!("{}: {error}", to.display()))?;
            continue;
        }
        cut.at_risk += 1;
        // As often the whole write, none of it, and any of its sectors.
        let choice = random.next_word() % 3;
        let whole_bytes = if is_data { BLOCK } else { SECTOR };
        for (sector, data) in entry.data.chunks(whole_bytes).enumerate() {
            let keep = match choice {
                0 => true,
                1 => false,
                _ => random.next_word() % 2 == 0,
            };
            whole &= keep;
            cut.state = hash(&[cut.state, u64::from(keep)]);
            if keep {
                let at = entry.at + (sector * whole_bytes) as u64;
                disk.write_all_at(data, at).map_err(|error| format!("{}: {error}", to.display()))?;
            }
        }
        cut.lost += u64::from(!whole);
    }
    Ok(cut)
}

/// Whether this is the super block of a journal of ext4 (its second version), or the block that ends a transaction. All numbers
/// of a journal have their most significant byte first.
fn is_forced_by_journal(data: &[u8]) -> bool {
    const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];
    const COMMIT: [u8; 4] = [0, 0, 0, 2];
    const SUPER_BLOCK: [u8; 4] = [0, 0, 0, 4];
    data.starts_with(&MAGIC)
        && data.get(4..8).is_some_and(|kind| [COMMIT, SUPER_BLOCK].iter().any(|known| known == kind))
}

/// Gives `to` in `place` what `from` has there: a disk that said of what it was told there that it is on the medium, and
/// has lost it.
pub fn take_back(from: &Path, to: &Path, place: &Range<u64>) -> Outcome {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let old = File::open(from).map_err(|error| failed(from, error))?;
    let disk = File::options().write(true).open(to).map_err(|error| failed(to, error))?;
    let mut block = vec![0; 1024 * 1024];
    let mut at = place.start;
    while at < place.end {
        let bytes = (place.end - at).min(block.len() as u64) as usize;
        old.read_exact_at(&mut block[..bytes], at).map_err(|error| failed(from, error))?;
        disk.write_all_at(&block[..bytes], at).map_err(|error| failed(to, error))?;
        at += bytes as u64;
    }
    Ok(())
}

/// A write in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Which entry of the log it is.
    pub entry: u64,
    /// First byte.
    pub at: u64,
    /// Length.
    pub bytes: u64,
}

/// The writes in a log.
pub fn writes(log: &Path) -> Outcome<Vec<Write>> {
    let bytes = std::fs::read(log).map_err(|error| format!("cannot read {}: {error}", log.display()))?;
    let entries = parse(&bytes).map_err(|error| format!("{}: {error}", log.display()))?;
    let entries = (0..).zip(&entries).filter(|(_, entry)| !entry.data.is_empty());
    let write = |(number, entry): (u64, &Entry)| Write {
        entry: number,
        at: entry.at,
        bytes: entry.data.len() as u64,
    };
    Ok(entries.map(write).collect())
}

/// Copies a file and leaves its holes holes.
pub fn copy_sparse(from: &Path, to: &Path) -> Outcome {
    run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to))
}

struct Entry<'a> {
    /// First byte on the disk.
    at: u64,
    flags: u64,
    data: &'a [u8],
}

fn parse(log: &[u8]) -> Outcome<Vec<Entry<'_>>> {
    // It is begun with the first write.
    if log.iter().take(SECTOR).all(|byte| *byte == 0) {
        return Ok(Vec::new());
    }
    let (Some(MAGIC), Some(count), Some(sector)) = (number(log, 0), number(log, 16), number(log, 24)) else {
        return Err("not a log of writes".into());
    };
    let sector = usize::try_from(sector & 0xffff_ffff).map_err(|_| "a sector is too long")?;
    let mut at = sector;
    let mut entries = Vec::new();
    for _entry in 0..count {
        let (Some(first), Some(sectors), Some(flags)) =
            (number(log, at), number(log, at + 8), number(log, at + 16))
        else {
            return Err("ends in the middle of an entry".into());
        };
        at += sector;
        let bytes = usize::try_from(sectors).map_err(|_| "an entry is too long")? * sector;
        let data = if flags & DISCARD == 0 {
            let data = log.get(at..at + bytes).ok_or("ends in the middle of a write")?;
            at += bytes;
            data
        } else {
            &[]
        };
        entries.push(Entry { at: first * sector as u64, flags, data });
    }
    Ok(entries)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of these entries: first sector, flags, data.
    fn log(entries: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut log = Vec::new();
        let mut block = |words: &[u64]| {
            let start = log.len();
            for word in words {
                log.extend_from_slice(&word.to_le_bytes());
            }
            log.resize(start + SECTOR, 0);
            std::mem::take(&mut log)
        };
        let mut all = block(&[MAGIC, 1, entries.len() as u64, SECTOR as u64]);
        for (first, flags, data) in entries {
            all.extend(block(&[*first, (data.len() / SECTOR) as u64, *flags, 0]));
            all.extend_from_slice(data);
        }
        all
    }

    #[test]
    fn what_was_flushed_is_there_and_the_rest_is_old_or_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("base"), vec![0; 8 * SECTOR]).unwrap();
        let entries: &[(u64, u64, &[u8])] = &[
            (0, 0, &[1; 2 * SECTOR]),
            (0, FLUSH, &[]),
            (2, 0, &[2; 2 * SECTOR]),
            (4, FUA, &[3; SECTOR]),
            (0, 0, &[4; SECTOR]),
        ];
        std::fs::write(path("log"), log(entries)).unwrap();
        assert_eq!(super::entries(&path("log")), 5);

        let mut seen = std::collections::BTreeSet::new();
        let mut random = Generator::new(7);
        for _case in 0..200 {
            let result = cut(&path("base"), &path("log"), 5, &path("out"), None, &mut random).unwrap();
            assert_eq!((result.writes, result.at_risk), (4, 2));
            let disk = std::fs::read(path("out")).unwrap();
            let sectors: Vec<u8> = disk.chunks(SECTOR).map(|sector| sector[0]).collect();
            assert!(disk.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            assert!([1, 4].contains(&sectors[0]) && sectors[1] == 1 && sectors[4] == 3, "{sectors:?}");
            assert!(sectors[2..4].iter().all(|sector| [0, 2].contains(sector)));
            seen.insert(sectors);
        }
        // Each of the three sectors at risk, old and new.
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn a_cut_earlier_in_the_log_knows_nothing_of_what_came_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("base"), vec![0; 4 * SECTOR]).unwrap();
        let entries: &[(u64, u64, &[u8])] =
            &[(0, FUA, &[1; SECTOR]), (1, 0, &[2; SECTOR]), (0, FLUSH, &[]), (2, FUA, &[3; SECTOR])];
        std::fs::write(path("log"), log(entries)).unwrap();
        let mut random = Generator::new(1);
        let mut seen = std::collections::BTreeSet::new();
        let mut states = std::collections::BTreeSet::new();
        for _case in 0..50 {
            let result = cut(&path("base"), &path("log"), 2, &path("out"), None, &mut random).unwrap();
            // The flush that would make the second write safe is still to come.
            assert_eq!((result.writes, result.at_risk), (2, 1));
            let disk = std::fs::read(path("out")).unwrap();
            assert_eq!((disk[0], disk[2 * SECTOR]), (1, 0));
            seen.insert(disk[SECTOR]);
            states.insert(result.state);
        }
        assert_eq!(seen.into_iter().collect::<Vec<u8>>(), [0, 2]);
        assert_eq!(states.len(), 2);

        // A disk that lies has lost even what was flushed.
        take_back(&path("base"), &path("out"), &(0..SECTOR as u64)).unwrap();
        assert_eq!(std::fs::read(path("out")).unwrap()[0], 0);
    }

    #[test]
    fn what_a_journal_forces_is_not_lost_though_the_log_does_not_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("base"), vec![0; 8 * SECTOR]).unwrap();
        let block = |kind: u8| {
            let mut block = vec![kind; SECTOR];
            block[..8].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, kind]);
            block
        };
        let (description, commit, super_block) = (block(1), block(2), block(4));
        // The same block in front of the data partition is nobody's journal.
        let entries: &[(u64, u64, &[u8])] = &[
            (0, 0, &super_block),
            (4, 0, &super_block),
            (5, 0, &description),
            (6, 0, &commit),
            (7, 0, &commit),
        ];
        std::fs::write(path("log"), log(entries)).unwrap();
        let data_at = Some(4 * SECTOR as u64);
        let mut random = Generator::new(3);
        let mut kept = [0; 8];
        for _case in 0..60 {
            let result = cut(&path("base"), &path("log"), 5, &path("out"), data_at, &mut random).unwrap();
            assert_eq!((result.writes, result.at_risk), (5, 3));
            let disk = std::fs::read(path("out")).unwrap();
            for (sector, count) in kept.iter_mut().enumerate() {
                *count += usize::from(disk[sector * SECTOR] != 0);
            }
        }
        assert_eq!([kept[4], kept[6]], [60, 60]);
        // That in front, what is not forced, and the last one, which may not have been complete.
        assert!([kept[0], kept[5], kept[7]].iter().all(|count| (1..60).contains(count)), "{kept:?}");
    }

    #[test]
    fn a_log_that_was_not_begun_has_no_writes() {
        assert!(parse(b"").unwrap().is_empty());
        assert!(parse(&[0; 4096]).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_log_is_refused() {
        assert!(parse(&[7; 4096]).is_err());
        let mut short = log(&[(0, 0, &[1; SECTOR])]);
        short.truncate(3 * SECTOR - 1);
        assert!(parse(&short).is_err());
    }
}

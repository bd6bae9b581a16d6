//! Images of root file systems to install: not bootable, but as hard to compress and as long as real ones.

use std::fs;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use testkit::choice::Generator;

use xtask::Outcome;

/// Files begin on a block, as in a file system.
const BLOCK: usize = 4096;

/// The first line of an image that [`write_marked`] made.
const MARK: &str = "demo root file system";

/// Writes `bytes` bytes: the files of `/usr` of this machine in the order of their names, then as much pseudo-random
/// data as a sixteenth of the whole, then zeros as in free blocks (a sixteenth too, more on a small system).
/// The same on every run on one machine. Returns how many bytes are files.
pub fn write_realistic(path: &Path, bytes: usize) -> Outcome<usize> {
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    let mut image = BufWriter::new(fs::File::create(path).map_err(failed)?);
    let sixteenth = bytes / 16;
    let want = bytes - 2 * sixteenth;
    let mut have = 0;
    for directory in ["/usr/bin", "/usr/sbin", "/usr/lib", "/usr/share"] {
        if have < want {
            have += append_files(&mut image, Path::new(directory), want - have).map_err(failed)?;
        }
    }
    let mut random = Generator::new(1);
    for _word in 0..sixteenth / 8 {
        image.write_all(&random.next_word().to_le_bytes()).map_err(failed)?;
    }
    let zeros = bytes - have - sixteenth / 8 * 8;
    std::io::copy(&mut std::io::repeat(0).take(zeros as u64), &mut image).map_err(failed)?;
    image.flush().map_err(failed)?;
    Ok(have)
}

/// Appends the plain files under `directory`, up to `limit` bytes. What cannot be read is left out.
fn append_files(image: &mut impl Write, directory: &Path, limit: usize) -> std::io::Result<usize> {
    let mut have = 0;
    for path in sorted_entries(directory) {
        if have >= limit {
            break;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            have += append_files(image, &path, limit - have)?;
        } else if metadata.is_file() {
            let Ok(mut content) = fs::read(&path) else { continue };
            content.resize(content.len().next_multiple_of(BLOCK).min(limit - have), 0);
            image.write_all(&content)?;
            have += content.len();
        }
    }
    Ok(have)
}

fn sorted_entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// Bytes of a file in a marked image.
const FILE: usize = 16 * BLOCK;
/// One file in so many is built again for a version.
const BUILT_AGAIN: u64 = 8;

/// Writes an image of `bytes` bytes that says which version it is and whether it comes up when it is booted.
///
/// Behind that are files, one in eight of them other than in the version before: moved by some bytes, with other numbers in
/// between, as those of programs that were linked again.
pub fn write_marked(path: &Path, bytes: usize, version: u64, comes_up: bool) -> Outcome<Vec<u8>> {
    let mut content = format!("{MARK}\nversion={version}\ncomes_up={comes_up}\n").into_bytes();
    content.resize(BLOCK, 0);
    let mut number = 0;
    while content.len() < bytes {
        let built = (0..=version).rev().find(|version| (number + version) % BUILT_AGAIN == 0).unwrap_or(0);
        append_file(&mut content, number, built);
        number += 1;
    }
    content.truncate(bytes);
    fs::write(path, &content).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(content)
}

/// Appends a file as it was built for the version `built`.
fn append_file(content: &mut Vec<u8>, number: u64, built: u64) {
    /// Words between two that are another number in each build.
    const ADDRESS_EVERY: usize = 64;
    let end = content.len() + FILE;
    let (mut code, mut addresses) = (Generator::new(number), Generator::new(built << 32 | number));
    // What a version adds in front moves the rest.
    content.resize(content.len() + 24 * usize::try_from(built).unwrap_or(0), b'#');
    for word in 0.. {
        if content.len() >= end {
            break;
        }
        let word = if word % ADDRESS_EVERY == 0 { addresses.next_word() } else { code.next_word() };
        content.extend_from_slice(&word.to_le_bytes());
        content.extend_from_slice(b"some text that repeats; ");
    }
    content.truncate(end);
}

/// What a slot with such an image says: its version and whether it comes up. `None` when it holds something else.
pub fn read_mark(slot: &Path) -> Option<(u64, bool)> {
    let mut start = [0; BLOCK];
    fs::File::open(slot).and_then(|mut file| file.read_exact(&mut start)).ok()?;
    let text = String::from_utf8_lossy(&start);
    let mut lines = text.lines();
    if lines.next() != Some(MARK) {
        return None;
    }
    let version = lines.next()?.strip_prefix("version=")?.parse().ok()?;
    let comes_up = lines.next()?.strip_prefix("comes_up=")?.parse().ok()?;
    Some((version, comes_up))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_files_of_the_one_before_but_for_one_in_eight() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let files = 32;
        let bytes = BLOCK + files * FILE;
        let image = |version| write_marked(&path, bytes, version, true).unwrap();
        let (one, two, three) = (image(1), image(2), image(3));
        assert_eq!(read_mark(&path), Some((3, true)));
        assert_eq!((one.len(), image(1)), (bytes, one.clone()), "the same each time");
        let changed = |old: &[u8], new: &[u8]| {
            let (old, new) = (old[BLOCK..].chunks(FILE), new[BLOCK..].chunks(FILE));
            old.zip(new).filter(|(old, new)| old != new).count()
        };
        assert_eq!([changed(&one, &two), changed(&two, &three), changed(&one, &three)], [4, 4, 8]);
    }
}

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

/// Writes an image of `bytes` bytes that says which version it is and whether it comes up when it is booted.
pub fn write_marked(path: &Path, bytes: usize, version: u64, comes_up: bool) -> Outcome<Vec<u8>> {
    let mut content = format!("{MARK}\nversion={version}\ncomes_up={comes_up}\n").into_bytes();
    content.resize(BLOCK, 0);
    let mut random = Generator::new(version);
    while content.len() < bytes {
        let word = random.next_word();
        content.extend_from_slice(&word.to_le_bytes());
        content.extend_from_slice(b"some text that repeats; ");
    }
    content.truncate(bytes);
    fs::write(path, &content).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(content)
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

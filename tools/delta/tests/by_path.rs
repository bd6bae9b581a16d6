//! Images with an ext file system: the old version of a file is found by its path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use delta::Compression::Zstd;
use delta_make::ext4;

use crate::pair::{Numbers, image, make, open};

const MIB: usize = 1 << 20;

/// An image of the tree `folder`; `None` where e2fsprogs are not to be had, which `cargo xtask test` installs.
fn format(folder: &Path, options: &[&str]) -> Option<PathBuf> {
    let target = folder.with_extension("image");
    let program = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|path| Path::new(path).exists())?;
    let mut command = Command::new(program);
    command.env("E2FSPROGS_FAKE_TIME", "1700000000");
    command.args(["-q", "-F", "-U", "7e57da7a-0000-4000-8000-000000000001"]);
    command.args(["-E", "hash_seed=7e57da7a-0000-4000-8000-000000000002,root_owner=0:0"]);
    command.args(options).arg("-d").arg(folder).arg(&target).arg("12M");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(target)
}

fn tree(root: &Path, files: &[(&str, &[u8])]) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// A program whose numbers all changed, as after a build with one more function, so that no block and hardly a stretch is the same.
fn rebuilt(numbers: &Numbers, old: &[u8]) -> Vec<u8> {
    let mut new = numbers.bytes(24);
    new.extend_from_slice(old);
    for at in (5..new.len()).step_by(23) {
        new[at] = new[at].wrapping_add(3);
    }
    new
}

#[test]
fn old_versions_are_found_by_path_with_and_without_their_numbers() {
    let numbers = Numbers::new(11);
    let folder = tempfile::tempdir().unwrap();
    let same = numbers.program(200_000);
    let moved: Vec<Vec<u8>> = (0..4).map(|_| numbers.bytes(1_000_000)).collect();
    let new: Vec<Vec<u8>> = moved.iter().map(|old| rebuilt(&numbers, old)).collect();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    tree(
        &a,
        &[
            ("usr/lib/same", &same),
            ("usr/lib/path", &moved[0]),
            ("usr/lib/modules/6.1.0-47/one.ko", &moved[1]),
            ("usr/lib/libx.so.1.2.9", &moved[2]),
            ("usr/share/before/unique-name", &moved[3]),
        ],
    );
    tree(
        &b,
        &[
            ("usr/lib/another", &numbers.bytes(300_000)),
            ("usr/lib/same", &same),
            ("usr/lib/path", &new[0]),
            ("usr/lib/modules/6.1.0-56/one.ko", &new[1]),
            ("usr/lib/libx.so.1.2.10", &new[2]),
            ("usr/share/behind/unique-name", &new[3]),
        ],
    );
    for options in
        [&["-t", "ext4", "-b", "4096"][..], &["-t", "ext4", "-b", "1024"], &["-t", "ext2", "-b", "1024"]]
    {
        let (Some(old), Some(new)) = (format(&a, options), format(&b, options)) else { return };
        let made = make(&open(&old), &open(&new), Zstd, 1);
        let found = made.made.files.unwrap();
        assert_eq!(
            (found.by_path, found.by_masked_path, found.by_name, found.by_content),
            (2, 2, 1, 1),
            "{options:?}"
        );
        // What is new has 300,000 bytes; one changed byte in 23 of the rest costs about a byte.
        assert!(made.file.len() < 300_000 + 4 * 75_000, "{options:?}: {} bytes", made.file.len());
    }
}

#[test]
fn the_files_of_an_image_are_those_that_were_put_there() {
    let numbers = Numbers::new(12);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    let large = numbers.bytes(3 * MIB);
    let mut files: Vec<(String, Vec<u8>)> =
        vec![("large".into(), large), ("small".into(), numbers.bytes(5000))];
    // More names than one block of a folder holds.
    for index in 0..400 {
        files.push((format!("many/{index:03}-{}", "n".repeat(index % 90)), numbers.bytes(1 + index)));
    }
    let borrowed: Vec<(&str, &[u8])> =
        files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    tree(&root, &borrowed);
    for options in [
        &["-t", "ext4", "-b", "4096"][..],
        &["-t", "ext4", "-b", "1024", "-O", "^64bit"],
        &["-t", "ext4", "-b", "4096", "-I", "256", "-O", "inline_data"],
        &["-t", "ext3", "-b", "1024"],
        &["-t", "ext2", "-b", "2048", "-I", "128"],
    ] {
        let Some(path) = format(&root, options) else { return };
        let image = open(&path);
        let layout = ext4::read(&image).unwrap();
        assert_eq!(layout.left_out, 0, "{options:?}");
        let mut seen = 0;
        for (name, content) in &files {
            let Some(file) = layout.files.iter().find(|file| file.path == name.as_bytes()) else {
                // It lies in its inode.
                assert!(options.contains(&"inline_data") && content.len() < 160, "{options:?}: {name}");
                continue;
            };
            seen += 1;
            let mut read = vec![0; content.len().next_multiple_of(layout.block_bytes as usize)];
            for piece in &file.pieces {
                let (start, count) = (piece.logical * layout.block_bytes, piece.count * layout.block_bytes);
                let part = &mut read[start as usize..(start + count) as usize];
                image.read_at(piece.physical * layout.block_bytes, part).unwrap();
            }
            assert!(read.starts_with(content), "{options:?}: {name}");
        }
        assert!(seen > 200, "{options:?}: {seen}");
    }
}

#[test]
fn damaged_file_systems_cost_bytes_and_nothing_else() {
    let numbers = Numbers::new(13);
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let old = numbers.program(400_000);
    tree(&a, &[("one/two", &old), ("three", &old[..9000])]);
    tree(&b, &[("one/two", &rebuilt(&numbers, &old)), ("three", &old[..9000])]);
    let options = ["-t", "ext4", "-b", "1024"];
    let (Some(old), Some(new)) = (format(&a, &options), format(&b, &options)) else { return };
    let (old, new) = (fs::read(old).unwrap(), fs::read(new).unwrap());
    let entire = image(&new);
    for round in 0..40 {
        let mut damaged = old.clone();
        // Most of what is read lies at the beginning.
        let bound = if round % 2 == 0 { 2048 } else { MIB };
        for _ in 0..200 {
            let at = numbers.below(bound);
            damaged[at] = (numbers.next() >> 32) as u8;
        }
        if round % 4 == 0 {
            // The superblock stays one, whatever its numbers are.
            damaged[1080..1082].copy_from_slice(&[0x53, 0xEF]);
        }
        let damaged = image(&damaged);
        // An error has a name; an answer lies inside of the image.
        if let Ok(layout) = ext4::read(&damaged) {
            for piece in layout.files.iter().flat_map(|file| &file.pieces) {
                assert!((piece.physical + piece.count) * layout.block_bytes <= damaged.bytes());
            }
        }
        if round < 3 {
            make(&damaged, &entire, Zstd, 1);
        }
    }
}

#[test]
fn folders_that_lead_in_circles_end() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    tree(&root, &[("a/b/c/file", &[7; 5000])]);
    let Some(path) = format(&root, &["-t", "ext4", "-b", "1024"]) else { return };
    let mut bytes = fs::read(path).unwrap();
    let before = ext4::read(&image(&bytes)).unwrap();
    assert_eq!(before.files.len(), 1);
    // Every entry of this name leads to the root.
    let mut changed = 0;
    for at in 0..bytes.len() - 9 {
        if bytes[at + 4..at + 9] == [0xE8, 0x03, 1, 2, b'c'] || bytes[at + 6..at + 9] == [1, 2, b'c'] {
            bytes[at..at + 4].copy_from_slice(&2_u32.to_le_bytes());
            changed += 1;
        }
    }
    assert!(changed > 0);
    assert_eq!(ext4::read(&image(&bytes)).unwrap().files.len(), 0);
}

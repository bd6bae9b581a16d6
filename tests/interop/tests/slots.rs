//! Slots that are real block devices: what files as slots do not show.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use client_core::slot::{Slot, Slots};
use client_core::storage::BlockDevice;
use interop::{Loop, tool};
use linux::block_device::{Access, FileDevice};
use linux::slot_paths::SlotPaths;
use linux::slots::LinuxSlots;

const MIB: usize = 1024 * 1024;

/// Mounted there until it is dropped.
struct Mounted<'p>(&'p Path);

impl Mounted<'_> {
    fn read_only<'p>(device: &Loop, place: &'p Path) -> Option<Mounted<'p>> {
        let output = Command::new(tool("mount")?).args(["-o", "ro", &device.0]).arg(place).output().unwrap();
        if !output.status.success() {
            println!("SKIPPED: no mount: {}", String::from_utf8_lossy(&output.stderr).trim());
            return None;
        }
        Some(Mounted(place))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        Command::new(tool("umount").unwrap()).arg(self.0).status().unwrap();
    }
}

/// ext4 works on the blocks that its device caches, and changes the superblock of its journal there, also for a mount that is
/// read-only: a delta made from the image would be refused on every device that was flashed with it.
#[test]
fn a_mounted_slot_is_read_as_it_was_flashed() {
    let Some(mke2fs) = tool("mke2fs") else { return };
    let folder = tempfile::tempdir().unwrap();
    let [image, tree, place] = ["image", "tree", "place"].map(|name| folder.path().join(name));
    for directory in [&tree, &place] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(tree.join("file"), "content").unwrap();
    fs::write(&image, vec![0; 16 * MIB]).unwrap();
    let mut command = Command::new(mke2fs);
    assert!(
        command
            .args(["-q", "-b", "4096", "-t", "ext4", "-d"])
            .arg(&tree)
            .arg(&image)
            .status()
            .unwrap()
            .success()
    );
    let flashed = fs::read(&image).unwrap();
    let Some(device) = Loop::attach(&image) else { return };
    let Some(_mounted) = Mounted::read_only(&device, &place) else { return };
    assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "content");

    let paths = SlotPaths { a: Some(device.0.clone()), b: Some("/dev/null".into()), running: None };
    let mut source = LinuxSlots::new(paths).open_source(Slot::A).unwrap();
    // From a place and in a piece that are no whole blocks, too.
    for offset in [0, 5] {
        let mut read = vec![0; flashed.len() - offset];
        source.read_at(offset as u64, &mut read).unwrap();
        let differs = read.iter().zip(&flashed[offset..]).position(|(read, flashed)| read != flashed);
        assert_eq!(differs, None, "from byte {offset}");
    }
}

#[test]
fn a_medium_forgets_what_lies_behind_an_image_and_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, vec![0xaa; 8 * MIB]).unwrap();
    let Some(device) = Loop::attach(&file) else { return };
    let image_bytes = MIB + 5;
    let mut slot = FileDevice::open(Path::new(&device.0), Access::WriteExclusive).unwrap().discarding();
    match slot.discard_behind(image_bytes as u64) {
        Ok(bytes) => assert_eq!(bytes, 6 * MIB as u64),
        Err(error) => return println!("SKIPPED: nothing is discarded here: {error}"),
    }
    drop(slot);
    let left = fs::read(&file).unwrap();
    assert!(left[..2 * MIB].iter().all(|byte| *byte == 0xaa), "something of the image is gone");
    assert!(left[2 * MIB..].iter().all(|byte| *byte == 0));
    assert!(fs::metadata(&file).unwrap().blocks() * 512 < 3 * MIB as u64);
}

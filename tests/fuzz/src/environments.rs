//! The boot environments as they lie on the medium, and the description of one.

use bootloader_grub::block::{BLOCK_BYTES, Block};
use bootloader_uboot::FwEnvConfig;
use bootloader_uboot::image::{Format, Image};

/// Any bytes as a copy of a U-Boot environment, as it is and with the checksum put right.
pub(crate) fn uboot_env(bytes: &[u8]) {
    for format in [Format::Single, Format::Redundant] {
        check_uboot(format, bytes);
        let mut right = bytes.to_vec();
        if let Some(data) = bytes.get(format.header_bytes()..) {
            right[..4].copy_from_slice(&crc32fast::hash(data).to_le_bytes());
            assert!(Image::decode(format, &right).is_ok(), "a right checksum was refused");
            check_uboot(format, &right);
        }
    }
}

fn check_uboot(format: Format, bytes: &[u8]) {
    let Ok(mut image) = Image::decode(format, bytes) else { return };
    // The last value may go up to the end, without the two NULs that we put behind it.
    let again = image.encode(format, bytes.len() + 2, 0).expect("two bytes more are enough");
    assert_eq!(Image::decode(format, &again).as_ref(), Ok(&image), "not what was written");
    // What a client changes is what it reads back, and nothing else is lost.
    image.variables.set("bootcount", "7").unwrap();
    let with = image.encode(format, bytes.len() + 64, 0xff).unwrap();
    let read = Image::decode(format, &with).unwrap();
    assert_eq!(read.variables.value("bootcount"), Some(&b"7"[..]));
    assert_eq!(read, image);
}

/// Any text as `fw_env.config`.
pub(crate) fn fw_env_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match FwEnvConfig::parse(text, "fw_env.config") {
        Err(error) => assert!(error.to_string().contains("fw_env.config"), "{error}"),
        Ok(config) => {
            let copies = config.copies();
            assert!(copies.len() == 1 || copies.len() == 2);
            for copy in copies {
                for device_bytes in [0, 1 << 20, u64::MAX] {
                    let Ok(offset) = copy.offset_on(device_bytes) else { continue };
                    assert!(offset + copy.size_bytes <= device_bytes, "outside of the device");
                }
            }
        }
    }
}

/// Any bytes as a GRUB environment block, as they are and put between the header and the filling.
pub(crate) fn grub_env(bytes: &[u8]) {
    check_grub(bytes);
    let mut block = b"# GRUB Environment Block\n".to_vec();
    block.extend_from_slice(bytes);
    block.resize(BLOCK_BYTES, b'#');
    check_grub(&block);
}

fn check_grub(bytes: &[u8]) {
    let Ok(block) = Block::decode(bytes) else { return };
    assert_eq!(block.encode().expect("it fitted before").as_slice(), bytes, "not the block that was read");
    let mut changed = block.clone();
    changed.set("mender_boot_part", "2").unwrap();
    if let Ok(with) = changed.encode() {
        let read = Block::decode(&with).expect("what was written is read");
        assert_eq!(read.value("mender_boot_part").as_deref(), Some(&b"2"[..]));
        assert_eq!(read, changed);
    }
}

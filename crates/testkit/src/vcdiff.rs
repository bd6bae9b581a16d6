//! Deltas of Mender's commercial plans, for tests: VCDIFF without compression, as small as copies of whole blocks make it.

use std::collections::HashMap;

use client_core::artifact::Sha256;
use client_core::artifact::write::{self, ArtifactSpec, MetaData, SoftwareName};
use client_core::install::MENDER_BINARY_DELTA;

use crate::artifacts;

const BLOCK: usize = 4096;
const WINDOW_BLOCKS: usize = 4;

/// What Mender's generator writes around a delta, as far as it is public.
pub fn spec(name: &str, old: &[u8], new: &[u8]) -> ArtifactSpec {
    let payload_type = artifacts::named(MENDER_BINARY_DELTA);
    let devices = vec![artifacts::named(artifacts::DEVICE_TYPE)];
    let mut spec = ArtifactSpec::module_image(artifacts::named(name), devices, payload_type);
    let software = SoftwareName::of_payload_type(write::ROOTFS_IMAGE);
    spec.provide_version(&software, name);
    spec.clear_software(&software);
    let [checksum, _] = write::CHECKSUM_KEYS;
    spec.depends.insert(checksum.into(), Sha256::of(old).to_string());
    spec.provides.insert(checksum.into(), Sha256::of(new).to_string());
    let arguments = r#""decoder_arguments":["-B524288000","-W150000"],"delta_algorithm":"xdelta3""#;
    spec.meta_data = MetaData::Json(format!("{{{arguments},\"rootfs_file_size\":{}}}", old.len()));
    spec
}

/// A number in digits of seven bits.
fn number(number: usize) -> Vec<u8> {
    let mut digits = vec![(number & 0x7f) as u8];
    let mut rest = number >> 7;
    while rest > 0 {
        digits.insert(0, (rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    digits
}

fn adler32(bytes: &[u8]) -> u32 {
    let add = |(low, high): (u32, u32), byte: &u8| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    };
    let (low, high) = bytes.iter().fold((1, 0), add);
    high << 16 | low
}

/// The difference between two images. With `checksums` each window has one.
pub fn make(old: &[u8], new: &[u8], checksums: bool) -> Vec<u8> {
    let mut places = HashMap::new();
    for (block, bytes) in old.chunks(BLOCK).enumerate() {
        places.entry(bytes).or_insert(block * BLOCK);
    }
    let mut delta = vec![0xd6, 0xc3, 0xc4, 0, 0];
    for window in new.chunks(WINDOW_BLOCKS * BLOCK) {
        let (mut data, mut instructions, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for block in window.chunks(BLOCK) {
            match places.get(block) {
                // COPY with a size of its own, from an address that is said as it is.
                Some(place) => {
                    instructions.push(19);
                    addresses.extend(number(*place));
                }
                None => {
                    instructions.push(1);
                    data.extend_from_slice(block);
                }
            }
            instructions.extend(number(block.len()));
        }
        let mut body = number(window.len());
        body.push(0);
        body.extend([&data, &instructions, &addresses].into_iter().flat_map(|section| number(section.len())));
        if checksums {
            body.extend(adler32(window).to_be_bytes());
        }
        body.extend([data, instructions, addresses].concat());
        delta.push(1 | if checksums { 4 } else { 0 });
        delta.extend([number(old.len()), number(0), number(body.len()), body].concat());
    }
    delta
}

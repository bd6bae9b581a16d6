//! Deltas for tests: correct, small where that is easy, and with every way of saying something in them. Whoever looks for
//! the smallest file uses the host tool.

use std::collections::HashMap;

use client_core::artifact::write::{self, ArtifactSpec, MetaData, SoftwareName};
use client_core::artifact::{CompressionLevel, Sha256};
use client_core::delta::{
    BLOCK_BYTES, Coder, Compression, Control, Extent, Group, GroupEncoder, Head, Image, Needs, PAYLOAD_TYPE,
    Run, Segment, Shape, Signed, ZeroRuns,
};

use crate::artifacts::{self, MemoryFile};
use crate::choice::Generator;

const BLOCK: usize = BLOCK_BYTES as usize;

/// How a delta is made.
#[derive(Debug, Clone, Copy)]
pub struct Making {
    /// Of the groups.
    pub coder: Coder,
    /// Blocks in a segment.
    pub segment_blocks: usize,
    /// Segments in a group.
    pub group_segments: usize,
    /// Most blocks of an extent.
    pub extent_blocks: usize,
    /// What the steps are drawn from.
    pub seed: u64,
}

impl Making {
    /// Small segments and groups, so that there are some of each in an image of a MiB.
    pub fn small(compression: Compression) -> Making {
        let coder = Coder {
            compression,
            level: 3,
            window_log: 16,
            zero_runs: ZeroRuns::Apart { shortest: 4 },
            block_of_its_own_bytes: Some(512),
        };
        Making { coder, segment_blocks: 16, group_segments: 3, extent_blocks: 8, seed: 1 }
    }
}

/// A delta, taken apart.
#[derive(Debug, Clone)]
pub struct MadeDelta {
    /// Its head.
    pub head: Head,
    /// Its groups, as they stand in the file.
    pub groups: Vec<Vec<u8>>,
    /// What the signed header says.
    pub signed: Signed,
}

impl MadeDelta {
    /// The file.
    pub fn file(&self) -> Vec<u8> {
        let mut file = self.head.encode().expect("a head that can be read");
        self.groups.iter().for_each(|group| file.extend(group));
        file
    }
}

/// What `rust-ota-artifact delta` would write around a delta.
pub fn spec(name: &str, signed: &Signed) -> ArtifactSpec {
    let payload_type = artifacts::named(PAYLOAD_TYPE);
    let mut spec = ArtifactSpec::module_image(
        artifacts::named(name),
        vec![artifacts::named(artifacts::DEVICE_TYPE)],
        payload_type,
    );
    let software = SoftwareName::of_payload_type(write::ROOTFS_IMAGE);
    spec.provide_version(&software, name);
    spec.clear_software(&software);
    let [checksum, _] = write::CHECKSUM_KEYS;
    spec.depends.insert(checksum.into(), signed.source.sha256.to_string());
    spec.provides.insert(checksum.into(), signed.target.sha256.to_string());
    spec.meta_data = MetaData::Json(signed.meta_data());
    spec.compression = CompressionLevel::default_of(client_core::artifact::Compression::None);
    spec
}

/// An unsigned artifact of the difference between two images.
pub fn artifact(name: &str, old: &[u8], new: &[u8], making: &Making) -> Vec<u8> {
    let made = make(old, new, making);
    around(&spec(name, &made.signed), made.file())
}

/// An unsigned artifact of this file.
pub fn around(spec: &ArtifactSpec, file: Vec<u8>) -> Vec<u8> {
    artifacts::build(spec, &[MemoryFile { name: "delta".into(), content: file }], None)
}

/// The image that `bytes` are.
pub fn image(bytes: &[u8]) -> Image {
    Image { bytes: bytes.len() as u64, sha256: Sha256::of(bytes) }
}

/// The difference between two images.
///
/// # Panics
/// When the format refuses what this makes.
pub fn make(old: &[u8], new: &[u8], making: &Making) -> MadeDelta {
    let mut places = HashMap::new();
    for (block, bytes) in old.chunks(BLOCK).enumerate() {
        places.entry(bytes).or_insert(block as u64);
    }
    let mut generator = Generator::new(making.seed);
    let most = making.extent_blocks;
    let segment_bytes = making.segment_blocks * BLOCK;
    let segments: Vec<Segment> = (0..new.len())
        .step_by(segment_bytes)
        .map(|start| {
            segment(old, new, start..(start + segment_bytes).min(new.len()), &places, most, &mut generator)
        })
        .collect();
    let shape = Shape { source_bytes: old.len() as u64, target_bytes: new.len() as u64 };
    let (mut groups, mut table, mut needs, mut block) =
        (Vec::new(), Vec::<Group>::new(), Needs::default(), 0);
    for some in segments.chunks(making.group_segments) {
        let mut encoder = GroupEncoder::new(shape, block, making.coder).expect("a coder");
        some.iter().for_each(|segment| encoder.push(segment).expect("a segment"));
        let (bytes, group, its_needs) = encoder.finish().expect("a group");
        (block, needs) = (block + group.blocks, needs.max(its_needs));
        groups.push(bytes);
        table.push(group);
    }
    let compression = making.coder.compression;
    let head = Head { compression, needs, source: image(old), target: image(new), groups: table };
    let transfer_bytes =
        head.stored_bytes().expect("a head") + groups.iter().map(|group| group.len() as u64).sum::<u64>();
    let changed = new.chunks(BLOCK).enumerate().filter(|(block, bytes)| {
        let start = block * BLOCK;
        old.get(start..start + bytes.len()) != Some(*bytes)
    });
    let signed = Signed {
        source: head.source,
        target: head.target,
        memory_bytes: head.memory_bytes(),
        transfer_bytes,
        changed_bytes: changed.map(|(_, bytes)| bytes.len() as u64).sum(),
    };
    MadeDelta { head, groups, signed }
}

fn segment(
    old: &[u8],
    new: &[u8],
    range: std::ops::Range<usize>,
    places: &HashMap<&[u8], u64>,
    extent_blocks: usize,
    generator: &mut Generator,
) -> Segment {
    let mut runs: Vec<Run> = Vec::new();
    let mut coded = Vec::new();
    for block in new[range.clone()].chunks(BLOCK) {
        let next = match places.get(block) {
            _ if block.iter().all(|byte| *byte == 0) => Run::Zero { blocks: 1 },
            Some(&first_block) => Run::Copy { first_block, blocks: 1 },
            None => {
                coded.extend_from_slice(block);
                Run::Coded { blocks: 1 }
            }
        };
        match (runs.last_mut(), next) {
            (Some(Run::Zero { blocks }), Run::Zero { .. })
            | (Some(Run::Coded { blocks }), Run::Coded { .. }) => {
                *blocks += 1;
            }
            (Some(Run::Copy { first_block, blocks }), Run::Copy { first_block: next, .. })
                if *first_block + u64::from(*blocks) == next =>
            {
                *blocks += 1;
            }
            _ => runs.push(next),
        }
    }
    let extents = if coded.is_empty() {
        Vec::new()
    } else {
        extents(old.len(), range.start / BLOCK, extent_blocks, generator)
    };
    let window: Vec<u8> = extents
        .iter()
        .flat_map(|extent| {
            let start = extent.first_block as usize * BLOCK;
            &old[start..(start + extent.blocks as usize * BLOCK).min(old.len())]
        })
        .copied()
        .collect();
    let (control, difference, new_bytes) = steps(&coded, &window, generator);
    Segment {
        runs,
        extents,
        window_sha256: Sha256::of(&window),
        target_sha256: Sha256::of(&new[..range.end]),
        control,
        difference,
        new_bytes,
    }
}

/// The old blocks at the same place, and some others that do not overlap them.
fn extents(old_bytes: usize, first: usize, most: usize, generator: &mut Generator) -> Vec<Extent> {
    let old_blocks = old_bytes.div_ceil(BLOCK);
    let mut extents = Vec::new();
    if first < old_blocks {
        let blocks = (old_blocks - first).min(1 + generator.below(most));
        if first > 0 && generator.below(2) == 0 {
            let other = generator.below(first);
            let blocks = 1 + generator.below((first - other).min(8));
            extents.push(Extent { first_block: other as u64, blocks: blocks as u32 });
        }
        extents.insert(0, Extent { first_block: first as u64, blocks: blocks as u32 });
    }
    extents
}

/// Steps that make `coded`: most take what lies at the same place, as steps that were looked for would.
fn steps(coded: &[u8], window: &[u8], generator: &mut Generator) -> (Vec<Control>, Vec<u8>, Vec<u8>) {
    let (mut control, mut difference, mut new_bytes) = (Vec::<Control>::new(), Vec::new(), Vec::new());
    let (mut done, mut end) = (0, 0);
    while done < coded.len() {
        let left = coded.len() - done;
        let place = match generator.below(8) {
            0 => generator.below(window.len() + 1),
            _ => done.min(window.len()),
        };
        let add = (window.len() - place).min(left).min(generator.below(6000));
        let insert = (left - add).min(generator.below(900));
        if add + insert == 0 {
            continue;
        }
        match control.last_mut() {
            Some(last) => last.seek = place as i32 - end,
            None if place > 0 => continue,
            None => {}
        }
        let from = window[place..place + add].iter();
        difference.extend(coded[done..done + add].iter().zip(from).map(|(new, old)| new.wrapping_sub(*old)));
        new_bytes.extend_from_slice(&coded[done + add..done + add + insert]);
        control.push(Control { add: add as u32, insert: insert as u32, seek: 0 });
        done += add + insert;
        end = (place + add) as i32;
    }
    (control, difference, new_bytes)
}

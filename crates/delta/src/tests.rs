//! Files that no writer makes: each is refused with its name, before anything of the segment is given out.

use std::io;

use artifact::Sha256;

use crate::frame::Encoder;
use crate::plan::{Coding, Control, DifferenceRun, Extent, Plan, Run, short};
use crate::{
    Applier, Compression, DeltaError, Group, Head, Image, Needs, Segment, SegmentProblem, Source, ZeroRuns,
};
use crate::{Coder, GroupEncoder, Shape};

const BLOCK: usize = 4096;

struct Old(Vec<u8>);

impl Source for Old {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let from = self.0.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }
}

/// A file of two segments in two groups, every part of which can be spoiled before it is written.
struct File {
    old: Vec<u8>,
    compression: Compression,
    needs: Needs,
    target_bytes: u64,
    target_sha256: Sha256,
    plan: Plan,
    /// In place of the length of the plan.
    plan_length: Option<u32>,
    /// In place of the plan's bytes.
    plan_bytes: Option<Vec<u8>>,
    difference: Vec<u8>,
    new_bytes: Vec<u8>,
    /// In place of the first group as it is compressed.
    group: Option<Vec<u8>>,
    more_in_group: Vec<u8>,
    behind_group: Vec<u8>,
    behind_file: Vec<u8>,
    edit_head: fn(&mut Head),
}

fn noise(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Blocks 0 to 3 of the new image: two coded ones from blocks 4 and 2 of the old image and some new bytes, block 7, zeros.
/// Then one more segment that is all new.
fn new_image(old: &[u8]) -> Vec<u8> {
    let window = [&old[4 * BLOCK..5 * BLOCK], &old[2 * BLOCK..3 * BLOCK]].concat();
    let mut coded = window[..8000].to_vec();
    coded[100] ^= 1;
    coded[5000] ^= 0x40;
    coded.extend(noise(192, 9));
    [&coded[..], &old[7 * BLOCK..8 * BLOCK], &[0; BLOCK], &noise(1000, 10)].concat()
}

impl File {
    fn good(compression: Compression) -> File {
        let old = noise(8 * BLOCK, 3);
        let new = new_image(&old);
        let window = [&old[4 * BLOCK..5 * BLOCK], &old[2 * BLOCK..3 * BLOCK]].concat();
        let difference: Vec<u8> =
            new[..8000].iter().zip(&window).map(|(new, old)| new.wrapping_sub(*old)).collect();
        let plan = Plan {
            runs: vec![
                Run::Coded { blocks: 2 },
                Run::Copy { first_block: 7, blocks: 1 },
                Run::Zero { blocks: 1 },
            ],
            extents: vec![Extent { first_block: 4, blocks: 1 }, Extent { first_block: 2, blocks: 1 }],
            window: short(&Sha256::of(&window)),
            target: short(&Sha256::of(&new[..4 * BLOCK])),
            control: vec![Control { add: 8000, insert: 192, seek: 0 }],
            coding: Coding::Plain,
        };
        File {
            compression,
            needs: Needs {
                segment_bytes: 16_384,
                window_bytes: 8192,
                plan_bytes: 200,
                decoder_window_log: 16,
            },
            target_bytes: new.len() as u64,
            target_sha256: Sha256::of(&new),
            plan,
            plan_length: None,
            plan_bytes: None,
            difference,
            new_bytes: new[8000..8192].to_vec(),
            group: None,
            more_in_group: Vec::new(),
            behind_group: Vec::new(),
            behind_file: Vec::new(),
            edit_head: |_| {},
            old,
        }
    }

    fn groups(&self) -> [(Vec<u8>, Group); 2] {
        let new = new_image(&noise(8 * BLOCK, 3));
        let mut encoder = Encoder::new(self.compression, 3, 16).unwrap();
        let plan = self.plan_bytes.clone().unwrap_or_else(|| self.plan.encode(0));
        let length = self.plan_length.unwrap_or(plan.len() as u32);
        for part in [&length.to_le_bytes()[..], &plan, &self.difference, &self.new_bytes, &self.more_in_group]
        {
            encoder.write(part).unwrap();
        }
        let mut first = self.group.clone().unwrap_or_else(|| encoder.finish().unwrap());
        first.extend(&self.behind_group);
        let first_group = Group {
            segments: 1,
            blocks: 4,
            stored_bytes: first.len() as u64,
            sha256: Sha256::of(&new[..4 * BLOCK]),
        };
        let shape = Shape { source_bytes: 8 * BLOCK as u64, target_bytes: new.len() as u64 };
        let coder = Coder {
            compression: self.compression,
            level: 3,
            window_log: 16,
            zero_runs: ZeroRuns::Inside,
            block_of_its_own_bytes: None,
        };
        let mut second = GroupEncoder::new(shape, 4, coder).unwrap();
        second
            .push(&Segment {
                runs: vec![Run::Coded { blocks: 1 }],
                extents: Vec::new(),
                window_sha256: Sha256::of(b""),
                target_sha256: self.target_sha256,
                control: vec![Control { add: 0, insert: 1000, seek: 0 }],
                difference: Vec::new(),
                new_bytes: new[4 * BLOCK..].to_vec(),
            })
            .unwrap();
        let (bytes, group, _) = second.finish().unwrap();
        [(first, first_group), (bytes, group)]
    }

    fn bytes(&self) -> Vec<u8> {
        let [first, second] = self.groups();
        let image = |bytes: u64, sha256| Image { bytes, sha256 };
        let mut head = Head {
            compression: self.compression,
            needs: self.needs,
            source: image(8 * BLOCK as u64, Sha256::of(&noise(8 * BLOCK, 3))),
            target: image(self.target_bytes, self.target_sha256),
            groups: vec![first.1, second.1],
        };
        (self.edit_head)(&mut head);
        [head.encode_unchecked(), first.0, second.0, self.behind_file.clone()].concat()
    }

    fn apply(&self) -> Result<Vec<u8>, DeltaError> {
        apply(&self.bytes(), &self.old).1
    }
}

/// What was given out, and how it ended.
fn apply(mut file: &[u8], old: &[u8]) -> (Vec<u8>, Result<Vec<u8>, DeltaError>) {
    let mut given = Vec::new();
    let ended = (|| {
        let mut applier = Applier::new(Head::read(&mut file)?)?;
        while let Some(applied) = applier.next(&mut file, &mut Old(old.to_vec()))? {
            given.extend_from_slice(applied.bytes);
        }
        Ok(())
    })();
    (given.clone(), ended.map(|()| given))
}

#[track_caller]
fn refused(spoil: impl Fn(&mut File), expected: &str) {
    for compression in [Compression::Zstd, Compression::Xz] {
        let mut file = File::good(compression);
        spoil(&mut file);
        let error = file.apply().expect_err("a file that is refused");
        let shown = format!("{error:?}");
        assert!(shown.starts_with(expected), "{compression:?}: {shown}, not {expected}");
        assert!(!error.to_string().is_empty());
    }
}

#[track_caller]
fn segment_refused(spoil: impl Fn(&mut File), problem: SegmentProblem) {
    refused(spoil, &format!("Segment {{ at: 0, problem: {problem:?} }}"));
}

#[test]
fn the_file_that_is_spoiled_below_is_good() {
    for compression in [Compression::Zstd, Compression::Xz] {
        let file = File::good(compression);
        assert_eq!(file.apply().unwrap(), new_image(&file.old));
    }
}

#[test]
fn a_head_that_no_delta_has_is_refused() {
    let spoiled = |edit: fn(&mut Vec<u8>), expected: &str| {
        let file = File::good(Compression::Zstd);
        let mut bytes = file.bytes();
        edit(&mut bytes);
        let shown = format!("{:?}", apply(&bytes, &file.old).1.unwrap_err());
        assert!(shown.starts_with(expected), "{shown}, not {expected}");
    };
    spoiled(|bytes| bytes[0] = 0, "NotADelta");
    spoiled(|bytes| bytes[7] = 2, "Version { found: 2 }");
    spoiled(|bytes| bytes[10] = 4, "TooLarge { what: \"bytes in its head\"");
    spoiled(|bytes| bytes[20] ^= 1, "HeadDigest");
    spoiled(Vec::clear, "Truncated");
    refused(
        |file| file.edit_head = |head| head.needs.segment_bytes = 1 << 21,
        "TooLarge { what: \"bytes in a segment\"",
    );
    refused(
        |file| file.edit_head = |head| head.needs.window_bytes = 1 << 22,
        "TooLarge { what: \"bytes in a window\"",
    );
    refused(
        |file| file.edit_head = |head| head.needs.plan_bytes = 1 << 20,
        "TooLarge { what: \"bytes in a plan\"",
    );
    refused(|file| file.edit_head = |head| head.needs.decoder_window_log = 22, "TooLarge { what: \"bits of");
    refused(
        |file| file.edit_head = |head| head.groups[1].blocks = 2,
        "Sum { what: \"blocks in its new image\"",
    );
    refused(
        |file| file.edit_head = |head| head.groups[1].blocks = u64::MAX,
        "TooLarge { what: \"blocks in a group\"",
    );
    refused(
        |file| file.edit_head = |head| head.groups[1].stored_bytes = u64::MAX,
        "Head { what: \"its groups are longer",
    );
    refused(
        |file| file.edit_head = |head| head.groups[1].segments = 2,
        "Head { what: \"a group without segments",
    );
    refused(
        |file| file.edit_head = |head| head.groups[0].segments = 0,
        "Head { what: \"a group without segments",
    );
    refused(|file| file.edit_head = |head| head.groups.clear(), "Sum");
    refused(|file| file.edit_head = |head| head.target.bytes = 0, "Head { what: \"its new image is empty\"");
    refused(
        |file| file.edit_head = |head| head.target.sha256 = Sha256::of(b"x"),
        "Head { what: \"its last group",
    );
}

#[test]
fn a_segment_that_says_something_impossible_is_refused() {
    use SegmentProblem as P;
    segment_refused(|file| file.plan_length = Some(201), P::PlanTooLong { bytes: 201 });
    segment_refused(|file| file.plan_length = Some(u32::MAX), P::PlanTooLong { bytes: u32::MAX.into() });
    segment_refused(|file| file.plan_length = Some(20), P::Malformed);
    segment_refused(|file| file.plan_bytes = Some([&file.plan.encode(0)[..], &[0]].concat()), P::Malformed);
    segment_refused(|file| file.plan_bytes = Some(vec![0xff; 100]), P::Malformed);
    segment_refused(|file| file.plan.runs.clear(), P::EmptyRun);
    let many = |count: u8| {
        let mut plan = vec![count, 2];
        plan.resize(180, 0);
        plan
    };
    // 257 runs, more than there can be blocks, and their memory is not even asked for.
    segment_refused(|file| file.plan_bytes = Some(many(0x81)), P::Malformed);
    segment_refused(|file| file.plan.runs.push(Run::Zero { blocks: 0 }), P::EmptyRun);
    segment_refused(|file| file.plan.runs[2] = Run::Zero { blocks: 300 }, P::TooManyBlocks { blocks: 303 });
    segment_refused(
        |file| file.plan.runs[2] = Run::Zero { blocks: u32::MAX >> 2 },
        P::TooManyBlocks { blocks: 0x4000_0002 },
    );
    segment_refused(|file| file.plan.runs[2] = Run::Zero { blocks: 2 }, P::BeyondTarget);
    segment_refused(|file| file.needs.segment_bytes = 16_383, P::TooManyBlocks { blocks: 4 });
    let copy = |first_block| Run::Copy { first_block, blocks: 1 };
    segment_refused(|file| file.plan.runs[1] = copy(8), P::CopyOutside { first_block: 8, blocks: 1 });
    segment_refused(
        |file| file.plan.runs[1] = copy(1 << 60),
        P::CopyOutside { first_block: 1 << 60, blocks: 1 },
    );
    let extent = |first_block, blocks| Extent { first_block, blocks };
    segment_refused(|file| file.plan.extents[1].blocks = 0, P::EmptyExtent);
    segment_refused(
        |file| file.plan.extents[0] = extent(8, 1),
        P::ExtentOutside { first_block: 8, blocks: 1 },
    );
    segment_refused(
        |file| file.plan.extents[0] = extent(7, 2),
        P::ExtentOutside { first_block: 7, blocks: 2 },
    );
    segment_refused(
        |file| file.plan.extents[0] = extent(1 << 61, 1),
        P::ExtentOutside { first_block: 1 << 61, blocks: 1 },
    );
    segment_refused(|file| file.plan.extents[1] = extent(4, 1), P::ExtentsOverlap { block: 4 });
    segment_refused(|file| file.plan.extents.push(extent(0, 1)), P::WindowTooLarge { bytes: 12_288 });
    segment_refused(
        |file| {
            file.plan.runs[0] = Run::Zero { blocks: 2 };
        },
        P::NothingCoded,
    );
    let step = |add, insert, seek| Control { add, insert, seek };
    segment_refused(|file| file.plan.control.push(step(0, 0, 0)), P::EmptyStep);
    segment_refused(|file| file.plan.control[0] = step(8000, 192, 193), P::StepOutside { step: 0 });
    segment_refused(|file| file.plan.control[0] = step(8000, 192, -8001), P::StepOutside { step: 0 });
    segment_refused(|file| file.plan.control[0] = step(8193, 192, 0), P::StepOutside { step: 0 });
    segment_refused(
        |file| file.plan.control[0] = step(8000, 193, 0),
        P::StepsDisagree { need: 8192, made: 8193 },
    );
    segment_refused(
        |file| file.plan.control[0] = step(8000, u32::MAX, 0),
        P::StepsDisagree { need: 8192, made: 8000 + u64::from(u32::MAX) },
    );
    segment_refused(|file| file.plan.control.clear(), P::StepsDisagree { need: 8192, made: 0 });
    segment_refused(
        |file| {
            let mut plan = file.plan.encode(0);
            *plan.last_mut().unwrap() = 2;
            file.plan_bytes = Some(plan);
        },
        P::UnknownCoding { found: 2 },
    );
    let apart = |runs: &[(u32, u32)]| {
        Coding::ZeroRunsApart(runs.iter().map(|&(at, bytes)| DifferenceRun { bytes, at }).collect())
    };
    segment_refused(|file| file.plan.coding = apart(&[(7999, 2)]), P::DifferenceRuns);
    segment_refused(|file| file.plan.coding = apart(&[(0, 1), (1, 1)]), P::DifferenceRuns);
    segment_refused(|file| file.plan.coding = apart(&[(0, 0)]), P::DifferenceRuns);
    segment_refused(|file| file.plan.coding = apart(&[(u32::MAX - 1, 1)]), P::DifferenceRuns);
}

#[test]
fn streams_that_are_too_long_too_short_or_damaged_are_refused() {
    refused(|file| file.new_bytes.truncate(191), "GroupTooShort { group: 0 }");
    refused(|file| file.difference.clear(), "GroupTooShort { group: 0 }");
    refused(|file| file.more_in_group = vec![0], "GroupTooLong { group: 0 }");
    // 64 MiB that nobody asked for, in a few bytes.
    refused(|file| file.more_in_group = vec![0; 64 << 20], "GroupTooLong { group: 0 }");
    refused(|file| file.behind_group = vec![0], "GroupTooLong { group: 0 }");
    refused(|file| file.behind_file = vec![0], "TrailingBytes");
    refused(|file| file.group = Some(b"no compression at all".to_vec()), "Decompress { group: 0");
    refused(|file| file.group = Some(Vec::new()), "GroupTooShort { group: 0 }");
    // The second group in place of the first, and the other compression's.
    refused(|file| file.group = Some(file.groups()[1].0.clone()), "Segment { at: 0");
    // Frames of nothing, which give nothing: as many as the file has, and no more.
    let nothing = || {
        let mut frame = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        frame.include_contentsize(false).unwrap();
        frame.finish().unwrap()
    };
    let mut file = File::good(Compression::Zstd);
    file.group = Some(nothing());
    assert!(matches!(file.apply(), Err(DeltaError::GroupTooShort { group: 0 })));
    file.group = Some(vec![nothing(); 1000].concat());
    assert!(matches!(file.apply(), Err(DeltaError::GroupTooShort { group: 0 })));
}

#[test]
fn a_window_that_is_larger_than_promised_is_refused_by_the_decoder() {
    for compression in [Compression::Zstd, Compression::Xz] {
        let mut file = File::good(compression);
        let mut encoder = Encoder::new(compression, 3, 24).unwrap();
        // zstd takes the window from the content's length where that is known, so there is some.
        encoder.write(&vec![0; 20 << 20]).unwrap();
        file.group = Some(encoder.finish().unwrap());
        let error = file.apply().unwrap_err().to_string();
        assert!(error.contains("larger window than was promised"), "{error}");
    }
}

#[test]
fn an_old_image_that_is_another_one_is_refused_before_its_segment_is_given_out() {
    for compression in [Compression::Zstd, Compression::Xz] {
        for block in 0..8 {
            let mut file = File::good(compression);
            file.old[block * BLOCK + 17] ^= 1;
            let (given, ended) = apply(&file.bytes(), &file.old);
            match block {
                2 | 4 => assert!(matches!(ended, Err(DeltaError::SourceDiffers { at: 0 })), "{ended:?}"),
                7 => assert!(matches!(ended, Err(DeltaError::SegmentDiffers { at: 0 })), "{ended:?}"),
                // Nobody asked for the others.
                _ => assert_eq!(ended.unwrap().len(), 4 * BLOCK + 1000),
            }
            assert!(given.is_empty() || ![2, 4, 7].contains(&block));
        }
    }
    refused(|file| file.old.truncate(7 * BLOCK), "Source { offset: 28672");
}

#[test]
fn digests_that_lie_are_refused() {
    refused(|file| file.plan.window[3] ^= 1, "SourceDiffers { at: 0 }");
    refused(|file| file.plan.target[3] ^= 1, "SegmentDiffers { at: 0 }");
    refused(
        |file| file.edit_head = |head| head.groups[0].sha256 = Sha256::of(b"x"),
        "SegmentDiffers { at: 0 }",
    );
    refused(|file| file.target_sha256 = Sha256::of(b"x"), "SegmentDiffers { at: 16384 }");
    refused(|file| file.difference[9] ^= 1, "SegmentDiffers { at: 0 }");
    refused(|file| file.new_bytes[9] ^= 1, "SegmentDiffers { at: 0 }");
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    for compression in [Compression::Zstd, Compression::Xz] {
        let file = File::good(compression);
        let bytes = file.bytes();
        for length in 0..bytes.len() {
            let ended = apply(&bytes[..length], &file.old).1;
            assert!(matches!(ended, Err(DeltaError::Truncated)), "{length}: {ended:?}");
        }
    }
}

#[test]
fn a_file_with_any_byte_changed_gives_out_nothing_that_is_wrong() {
    let file = File::good(Compression::Zstd);
    let (bytes, new) = (file.bytes(), new_image(&file.old));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x11;
        let (given, ended) = apply(&changed, &file.old);
        assert!(new.starts_with(&given), "{at}");
        assert!(ended.is_err() || given == new, "{at}");
    }
}

#[test]
fn the_encoder_refuses_what_a_reader_would() {
    let shape = Shape { source_bytes: 0, target_bytes: 10_000 };
    let coder = Coder {
        compression: Compression::Zstd,
        level: 3,
        window_log: 16,
        zero_runs: ZeroRuns::Inside,
        block_of_its_own_bytes: None,
    };
    let good = Segment {
        runs: vec![Run::Coded { blocks: 3 }],
        extents: Vec::new(),
        window_sha256: Sha256::of(b""),
        target_sha256: Sha256::of(b""),
        control: vec![Control { add: 0, insert: 10_000, seek: 0 }],
        difference: Vec::new(),
        new_bytes: vec![1; 10_000],
    };
    let push = |segment: &Segment| GroupEncoder::new(shape, 0, coder).unwrap().push(segment);
    push(&good).unwrap();
    let bad = |spoil: fn(&mut Segment)| {
        let mut segment = good.clone();
        spoil(&mut segment);
        push(&segment).unwrap_err().to_string()
    };
    assert!(bad(|segment| segment.new_bytes.truncate(9_999)).contains("9999 bytes"));
    assert!(bad(|segment| segment.difference.push(0)).contains("1 bytes"));
    assert!(bad(|segment| segment.runs.push(Run::Zero { blocks: 1 })).contains("past the end"));
    assert!(GroupEncoder::new(shape, 0, coder).unwrap().finish().is_err());
}

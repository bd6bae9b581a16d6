//! The example in `docs/delta.md` is a delta, and says what it says.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::disallowed_methods)]

use std::fs;
use std::io;
use std::path::Path;

use artifact::Sha256;
use delta::{
    Applier, Coder, Compression, Control, Extent, GroupEncoder, Head, Image, Needs, Run, Segment, Shape,
    Source, ZeroRuns,
};

struct Old(Vec<u8>);

impl Source for Old {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        buffer.copy_from_slice(self.0.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Three blocks: one of `a`, one of `b`, one of `c`.
fn old() -> Vec<u8> {
    [[b'a'; 4096], [b'b'; 4096], [b'c'; 4096]].concat()
}

/// The block of `c`, the block of `b` with its first byte one more and its last bytes replaced, zeros, and no more than
/// ten bytes of a fourth.
fn new() -> Vec<u8> {
    let mut second = [b'b'; 4096];
    second[0] += 1;
    second[4090..].copy_from_slice(b"delta\n");
    [&[b'c'; 4096][..], &second, &[0; 4096], &[0; 10]].concat()
}

fn example() -> Vec<u8> {
    let (old, new) = (old(), new());
    let mut difference = vec![0; 4090];
    difference[0] = 1;
    let segment = Segment {
        runs: vec![
            Run::Copy { first_block: 2, blocks: 1 },
            Run::Coded { blocks: 1 },
            Run::Zero { blocks: 2 },
        ],
        extents: vec![Extent { first_block: 1, blocks: 1 }],
        window_sha256: Sha256::of(&old[4096..8192]),
        target_sha256: Sha256::of(&new),
        control: vec![Control { add: 4090, insert: 6, seek: 0 }],
        difference,
        new_bytes: b"delta\n".to_vec(),
    };
    let shape = Shape { source_bytes: old.len() as u64, target_bytes: new.len() as u64 };
    let coder = Coder {
        compression: Compression::Zstd,
        level: 3,
        window_log: 10,
        zero_runs: ZeroRuns::Apart { shortest: 4 },
        block_of_its_own_bytes: None,
    };
    let mut encoder = GroupEncoder::new(shape, 0, coder).unwrap();
    encoder.push(&segment).unwrap();
    let (bytes, group, needs): (_, _, Needs) = encoder.finish().unwrap();
    let image = |bytes: &[u8]| Image { bytes: bytes.len() as u64, sha256: Sha256::of(bytes) };
    let head = Head {
        compression: Compression::Zstd,
        needs,
        source: image(&old),
        target: image(&new),
        groups: vec![group],
    };
    [head.encode().unwrap(), bytes].concat()
}

/// The bytes of a dump with places in front and words behind.
fn parse(dump: &str) -> Vec<u8> {
    dump.lines()
        .flat_map(|line| {
            let bytes = line.split_once(": ").unwrap().1.split('|').next().unwrap();
            bytes.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_example_of_the_document_is_what_is_written_and_makes_the_image_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/delta.md");
    let text = fs::read_to_string(path).unwrap();
    let example = example();
    for (number, line) in example.chunks(16).enumerate() {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{:04x}: {}", number * 16, line.join(" "));
    }
    let mut inside = Vec::new();
    let mut group = &example[Head::read(&mut &example[..]).unwrap().stored_bytes().unwrap() as usize..];
    zstd::stream::copy_decode(&mut group, &mut inside).unwrap();
    for (number, line) in inside.chunks(16).enumerate() {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{:04x}: {}", number * 16, line.join(" "));
    }
    let dumps: Vec<&str> = text.split("```").filter_map(|block| block.strip_prefix("hex\n")).collect();
    let [file, segment] = dumps[..] else { panic!("there are {} dumps", dumps.len()) };
    let file = parse(file);
    assert_eq!(parse(segment), inside);
    let mut input = &file[..];
    let head = Head::read(&mut input).unwrap();
    // How hard a compressor tries is its own business: only what is decoded has to be the same.
    let written = Head::read(&mut &example[..]).unwrap();
    assert_eq!((head.source, head.target, head.needs), (written.source, written.target, written.needs));
    let mut applier = Applier::new(head).unwrap();
    let made = applier.next(&mut input, &mut Old(old())).unwrap().unwrap().bytes.to_vec();
    assert_eq!(made, new());
    assert!(applier.next(&mut input, &mut Old(old())).unwrap().is_none());
}

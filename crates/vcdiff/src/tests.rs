//! Deltas written here by hand, and deltas of `xdelta3`, whose decoder is the judge of the others.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::{Contents, Decoder, Error, Fault, Limits, Unsupported};

/// Old content in memory, and the new one as far as it was given out.
struct Memory<'m> {
    old: &'m [u8],
    new: Vec<u8>,
    reads: Cell<u64>,
}

impl Contents for Memory<'_> {
    fn old_bytes(&self) -> u64 {
        self.old.len() as u64
    }

    fn old(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        into.copy_from_slice(&self.old[offset as usize..][..into.len()]);
        Ok(())
    }

    fn made(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.new[offset as usize..][..into.len()]);
        Ok(())
    }
}

fn decode_with(old: &[u8], mut delta: &[u8], limits: Limits) -> Result<Vec<u8>, Error> {
    let mut memory = Memory { old, new: Vec::new(), reads: Cell::new(0) };
    let mut decoder = Decoder::new(limits);
    while let Some(window) = decoder.next(&mut delta, &mut memory)? {
        let window = window.to_vec();
        memory.new.extend(window);
    }
    assert_eq!(decoder.new_bytes(), memory.new.len() as u64);
    Ok(memory.new)
}

fn decode(old: &[u8], delta: &[u8]) -> Result<Vec<u8>, Error> {
    decode_with(old, delta, Limits::default())
}

/// A number as the format has it.
fn number(number: u64) -> Vec<u8> {
    let mut digits = vec![(number & 0x7f) as u8];
    let mut rest = number >> 7;
    while rest > 0 {
        digits.insert(0, (rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    digits
}

/// A window, with lengths that agree unless they are changed.
#[derive(Clone)]
struct Window {
    bits: u8,
    copy: (u64, u64),
    bytes: u64,
    compressed: u8,
    data: Vec<u8>,
    instructions: Vec<u8>,
    addresses: Vec<u8>,
    checksum: Option<u32>,
}

impl Window {
    fn new(bits: u8, copy: (u64, u64), bytes: u64) -> Window {
        let (data, instructions, addresses) = (Vec::new(), Vec::new(), Vec::new());
        Window { bits, copy, bytes, compressed: 0, data, instructions, addresses, checksum: None }
    }

    fn with(mut self, data: &[u8], instructions: &[u8], addresses: &[u8]) -> Window {
        (self.data, self.instructions, self.addresses) = (data.into(), instructions.into(), addresses.into());
        self
    }

    fn encode(&self) -> Vec<u8> {
        let sections = [&self.data, &self.instructions, &self.addresses];
        let mut body = number(self.bytes);
        body.push(self.compressed);
        body.extend(sections.iter().flat_map(|section| number(section.len() as u64)));
        body.extend(self.checksum.iter().flat_map(|checksum| checksum.to_be_bytes()));
        body.extend(sections.iter().flat_map(|section| section.iter()));
        let mut window = vec![self.bits];
        if self.bits & 3 != 0 {
            window.extend([number(self.copy.0), number(self.copy.1)].concat());
        }
        [window, number(body.len() as u64), body].concat()
    }
}

const HEADER: [u8; 5] = [0xd6, 0xc3, 0xc4, 0, 0];

fn delta(windows: &[Window]) -> Vec<u8> {
    [HEADER.to_vec(), windows.iter().flat_map(Window::encode).collect()].concat()
}

fn fault(old: &[u8], window: Window) -> Fault {
    match decode(old, &delta(&[window])) {
        Err(Error::Damaged { window: 0, fault }) => fault,
        other => panic!("{other:?}"),
    }
}

/// The example of RFC 3284, section 4: "abcdefghijklmnop" and "abcdwxyzefghefghefghefghzzzz".
#[test]
fn the_example_of_the_rfc_is_decoded() {
    let window = Window::new(1, (16, 0), 28).with(
        b"wxyzz",
        // COPY 4 0; ADD 4 wxyz; COPY 4 4; COPY 12 24; RUN 4 z.
        &[20, 5, 20, 28, 0, 4],
        &[0, 4, 24],
    );
    let made = decode(b"abcdefghijklmnop", &delta(&[window])).unwrap();
    assert_eq!(made, b"abcdwxyzefghefghefghefghzzzz");
}

#[test]
fn a_copy_may_go_on_from_the_old_content_into_the_new_one() {
    // ADD 4, then COPY 6 from 4: two bytes of the old ones, then the first four of the window.
    let window = Window::new(1, (6, 2), 10).with(b"wxyz", &[5, 22], &[4]);
    assert_eq!(decode(b"..abcdef", &delta(&[window])).unwrap(), b"wxyzefwxyz");
}

#[test]
fn a_window_may_copy_what_earlier_ones_made() {
    let first = Window::new(0, (0, 0), 5).with(b"hello", &[6], &[]);
    let second = Window::new(2, (4, 1), 8).with(b"", &[20, 20], &[0, 0]);
    assert_eq!(decode(b"", &delta(&[first.clone(), second.clone()])).unwrap(), b"helloelloello");
    // What was not made yet cannot be copied.
    let after = Window { copy: (4, 2), ..second };
    let refused = decode(b"", &delta(&[first, after]));
    assert!(matches!(refused, Err(Error::Damaged { window: 1, fault: Fault::OutsideOfNew })), "{refused:?}");
}

/// What makes a window wrong.
type Change = fn(&mut Window);

#[test]
fn a_window_that_contradicts_itself_is_refused_by_name() {
    let old = b"0123456789";
    let good = Window::new(1, (10, 0), 8).with(b"ab", &[3, 22], &[0]);
    assert_eq!(decode(old, &delta(std::slice::from_ref(&good))).unwrap(), b"ab012345");
    let with = |change: Change| {
        let mut window = good.clone();
        change(&mut window);
        window
    };
    let rows: &[(Change, Fault)] = &[
        (|w| w.copy = (11, 0), Fault::OutsideOfOld),
        (|w| w.copy = (10, 1), Fault::OutsideOfOld),
        (|w| w.copy = (2, u64::MAX), Fault::OutsideOfOld),
        (|w| w.bits = 3, Fault::TwoSources),
        (|w| w.bits = 2, Fault::OutsideOfNew),
        (|w| w.bytes = 9, Fault::TooLittle),
        (|w| w.bytes = 7, Fault::TooMuch),
        (|w| w.data.push(0), Fault::LeftOver),
        (|w| w.addresses.push(0), Fault::LeftOver),
        (|w| w.addresses.clear(), Fault::Addresses),
        (|w| w.data.truncate(1), Fault::Data),
        (|w| w.addresses = vec![12], Fault::Address),
        // Mode HERE, farther back than there is anything.
        (|w| (w.instructions, w.addresses) = (vec![3, 38], vec![13]), Fault::Address),
        // The size of a COPY is missing.
        (|w| w.instructions = vec![3, 19], Fault::Instructions),
        (|w| w.instructions = [vec![2], number(u64::MAX)].concat(), Fault::TooMuch),
        (|w| w.instructions = [vec![1], vec![0xff; 10]].concat(), Fault::Number),
        (|w| w.instructions = [vec![1], vec![0x80; 10]].concat(), Fault::Number),
        (|w| w.compressed = 1, Fault::NotCompressed),
        (|w| w.data = vec![0; 5000], Fault::Lengths),
    ];
    for (row, (change, expected)) in rows.iter().enumerate() {
        assert_eq!(fault(old, with(*change)), *expected, "row {row}");
    }
}

#[test]
fn what_nobody_has_defined_and_what_is_missing_here_is_refused_by_name() {
    let header = |bytes: &[u8]| [&HEADER[..4], bytes].concat();
    for (bytes, expected) in [
        (header(&[8]), Unsupported::HeaderBits(8)),
        (header(&[1, 16]), Unsupported::Fgk),
        (header(&[1, 3]), Unsupported::Compression(3)),
        (header(&[2, 10]), Unsupported::CodeTable),
        (header(&[0, 8]), Unsupported::WindowBits(8)),
        ([&HEADER[..3], b"S"].concat(), Unsupported::Version(b'S')),
        (header(&[0, 0, 9, 1, 8]), Unsupported::DeltaBits(8)),
    ] {
        let refused = decode(b"", &bytes);
        assert!(matches!(refused, Err(Error::Unsupported(found)) if found == expected), "{refused:?}");
    }
    for bytes in [&b""[..], &HEADER[..3], b"\x28\xb5\x2f\xfd", b"BSDIFF40"] {
        assert!(matches!(decode(b"", bytes), Err(Error::NotVcdiff)), "{bytes:?}");
    }
    assert_eq!(decode(b"", &HEADER).unwrap(), b"");
}

#[test]
fn what_is_too_large_is_refused_before_memory_is_taken() {
    let window = Window::new(0, (0, 0), 1 << 40);
    let run = Window::new(0, (0, 0), 1 << 20).with(b"x", &[&[0][..], &number(1 << 20)].concat(), &[]);
    let limits = Limits { new_bytes: (2 << 20) - 1, header_bytes: 10, ..Limits::default() };
    let open = |bytes: &[u8]| decode_with(b"", bytes, limits.clone());
    let what = |refused: Result<Vec<u8>, Error>| match refused {
        Err(Error::TooLarge { what, limit }) => (what, limit),
        other => panic!("{:?}", other.map(|made| made.len())),
    };
    assert_eq!(what(open(&delta(&[window]))), ("a window", 16 << 20));
    assert_eq!(open(&delta(std::slice::from_ref(&run))).unwrap(), vec![b'x'; 1 << 20]);
    assert_eq!(what(open(&delta(&[run.clone(), run]))), ("the new content", (2 << 20) - 1));
    let header = [&HEADER[..4], &[4, 11], &[0; 11]].concat();
    assert_eq!(what(open(&header)), ("the application header", 10));
    assert_eq!(open(&[&HEADER[..4], &[4, 10], &[0; 10]].concat()).unwrap(), b"");
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Bytes with repetitions of every distance: of some letters, of zeros, and of what was before.
    fn text(&mut self, bytes: usize) -> Vec<u8> {
        let mut text: Vec<u8> = Vec::with_capacity(bytes);
        while text.len() < bytes {
            let count = 1 + self.below(300);
            match self.below(4) {
                0 if !text.is_empty() => {
                    let from = self.below(text.len());
                    let end = (from + count).min(text.len());
                    text.extend_from_within(from..end);
                }
                1 => text.resize(text.len() + count, self.next() as u8 & 3),
                2 => text.extend((0..count).map(|_| self.next() as u8)),
                _ => text.extend((0..count).map(|_| b'a' + self.below(20) as u8)),
            }
        }
        text.truncate(bytes);
        text
    }

    /// `old` with pieces moved, changed, removed and added.
    fn changed(&mut self, old: &[u8]) -> Vec<u8> {
        let mut new = Vec::new();
        while new.len() < old.len() {
            let from = if self.below(3) == 0 { self.below(old.len()) } else { new.len() };
            let count = 1 + self.below(20_000);
            let piece = &old[from..(from + count).min(old.len())];
            let start = new.len();
            new.extend_from_slice(piece);
            for _ in 0..self.below(10) {
                let at = start + self.below(piece.len());
                new[at] = self.next() as u8;
            }
            let added = self.below(500);
            let added = self.text(added);
            new.extend(added);
        }
        new
    }
}

/// A delta of `xdelta3`; `None` where it is not installed.
fn xdelta3(folder: &Path, options: &[&str], old: Option<&[u8]>, new: &[u8]) -> Option<Vec<u8>> {
    fs::write(folder.join("new"), new).unwrap();
    let mut command = Command::new("xdelta3");
    command.current_dir(folder).arg("-ef").args(options);
    if let Some(old) = old {
        fs::write(folder.join("old"), old).unwrap();
        command.args(["-s", "old"]);
    }
    let output = command.args(["new", "delta"]).output().ok()?;
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(fs::read(folder.join("delta")).unwrap())
}

/// The content that `xdelta3` makes of a delta; `None` where it refuses it.
fn judged(folder: &Path, old: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    fs::write(folder.join("old"), old).unwrap();
    fs::write(folder.join("delta"), delta).unwrap();
    let mut command = Command::new("xdelta3");
    command.current_dir(folder).args(["-dfqD", "-s", "old", "delta", "made"]);
    let output = command.output().unwrap();
    output.status.success().then(|| fs::read(folder.join("made")).unwrap())
}

fn has_xdelta3() -> bool {
    Command::new("xdelta3").arg("-V").output().is_ok()
}

/// Every option of version 3.0 that changes what is written.
const OPTIONS: &[&[&str]] = &[
    &[],
    &["-0"],
    &["-1"],
    &["-2"],
    &["-3"],
    &["-4"],
    &["-5"],
    &["-6"],
    &["-7"],
    &["-8"],
    &["-9"],
    &["-S", "none"],
    &["-S", "djw"],
    &["-S", "djw", "-9"],
    &["-S", "djw", "-1"],
    &["-S", "djw", "-6"],
    &["-S", "lzma"],
    &["-S", "lzma", "-1"],
    &["-S", "lzma", "-9"],
    // At what is its own level 7 or more it takes several codes for data, then for instructions, then for addresses.
    &["-S", "djw0"],
    &["-S", "djw3"],
    &["-S", "djw7"],
    &["-S", "djw8"],
    &["-S", "djw9"],
    &["-S", "djw9", "-9", "-W", "16384"],
    &["-S", "djw", "-W", "16384"],
    &["-S", "lzma", "-W", "16384"],
    &["-S", "none", "-W", "16384"],
    &["-S", "djw", "-W", "50000"],
    &["-B", "524288", "-W", "65536"],
    &["-B", "1000000", "-W", "16384"],
    &["-I", "0"],
    &["-I", "1000"],
    &["-P", "1024"],
    &["-n"],
    &["-n", "-S", "djw", "-W", "16384"],
    &["-A", "-q"],
    &["-A", "some words about it"],
    &["-N"],
    &["-D"],
    &["-C", "9,3,4,1,1,6,0"],
    &["-B524288", "-W150000", "-P262144", "-I62768"],
];

#[test]
fn what_xdelta3_writes_with_each_of_its_options_is_decoded() {
    if !has_xdelta3() {
        println!("skipped: xdelta3 is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(88_172_645_463_325_252);
    let old = random.text(400_000);
    let new = random.changed(&old);
    for options in OPTIONS {
        let Some(delta) = xdelta3(folder.path(), options, Some(&old), &new) else { continue };
        // A build without LZMA says so.
        let lzma = delta[4] & 1 == 1 && delta[5] == 2;
        match decode(&old, &delta) {
            Ok(made) => assert!(made == new, "{options:?}"),
            Err(Error::Unsupported(Unsupported::Lzma)) if lzma && cfg!(not(feature = "lzma")) => {}
            Err(error) => panic!("{options:?}: {error}"),
        }
        // Without an old content, it is a compression.
        let delta = xdelta3(folder.path(), options, None, &new[..70_000]).unwrap();
        if cfg!(feature = "lzma") {
            assert!(decode(b"", &delta).unwrap() == new[..70_000], "{options:?}");
        }
    }
    let delta = xdelta3(folder.path(), &["-S", "fgk"], Some(&old), &new).unwrap();
    assert!(matches!(decode(&old, &delta), Err(Error::Unsupported(Unsupported::Fgk))));
}

#[test]
fn pairs_of_every_kind_are_decoded_as_xdelta3_meant_them() {
    if !has_xdelta3() {
        println!("skipped: xdelta3 is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut compressed, mut codes) = (0, 0);
    for round in 0..30 {
        let bytes = [1, 10, 1000, 30_000, 200_000][random.below(5)];
        let old = random.text(bytes);
        let new = match random.below(6) {
            0 => Vec::new(),
            1 => old.clone(),
            2 => random.text(1 + bytes / 2),
            _ => random.changed(&old),
        };
        let options = OPTIONS[random.below(OPTIONS.len())];
        let delta = xdelta3(folder.path(), options, Some(&old), &new).unwrap();
        let secondary = if delta[4] & 1 == 1 { delta[5] } else { 0 };
        if secondary == 2 && cfg!(not(feature = "lzma")) {
            continue;
        }
        compressed += u32::from(secondary > 0);
        codes += u32::from(secondary == 1);
        let made = decode(&old, &delta).unwrap_or_else(|error| panic!("round {round}, {options:?}: {error}"));
        assert!(made == new, "round {round}, {options:?}");
    }
    assert!(compressed > 5 && codes > 2, "{compressed} {codes}");
}

#[test]
fn deltas_written_here_mean_the_same_to_xdelta3() {
    if !has_xdelta3() {
        println!("skipped: xdelta3 is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let old: Vec<u8> = (0..200u8).collect();
    let mut random = Random(77);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..60 {
        // Codes at random, with a section of addresses and of data that is about as long as they need.
        let mut window = Window::new(1, (200, 0), 0);
        for _ in 0..random.below(6) {
            let code = 1 + random.below(255) as u8;
            window.instructions.push(code);
            let (first, second) = crate::instruction::instruction(code);
            for half in [Some(first), second].into_iter().flatten() {
                use crate::instruction::Half;
                let size = match half {
                    Half::Add(0) | Half::Run | Half::Copy(_, 0) => {
                        let size = 1 + random.below(150) as u64;
                        window.instructions.extend(number(size));
                        size
                    }
                    Half::Add(size) | Half::Copy(_, size) => u64::from(size),
                };
                window.bytes += size;
                match half {
                    Half::Run => window.data.push(random.next() as u8),
                    Half::Add(_) => window.data.extend((0..size).map(|_| random.next() as u8)),
                    Half::Copy(6.., _) => window.addresses.push(random.below(200) as u8),
                    Half::Copy(..) => window.addresses.extend(number(random.below(300) as u64)),
                }
            }
        }
        let delta = delta(&[window]);
        match (decode(&old, &delta), judged(folder.path(), &old, &delta)) {
            (Ok(ours), Some(theirs)) => {
                assert_eq!(ours, theirs);
                good += 1;
            }
            (Err(_), None) => bad += 1,
            // It knows no copy that goes on from old into new content.
            (Ok(_), None) => {}
            (Err(error), Some(_)) => panic!("{error}"),
        }
    }
    assert!(good > 10 && bad > 5, "{good} {bad}");
}

/// Deltas of the real tool, kept for machines without it. Each is of `old()` and `new()`.
const KEPT: &[(&str, &[u8])] = &[
    ("djw", include_bytes!("../fixtures/djw.vcdiff")),
    ("djw-small-windows", include_bytes!("../fixtures/djw-small-windows.vcdiff")),
    ("lzma", include_bytes!("../fixtures/lzma.vcdiff")),
    ("none", include_bytes!("../fixtures/none.vcdiff")),
];

fn pair() -> (Vec<u8>, Vec<u8>) {
    let mut random = Random(2_463_534_242);
    let old = random.text(40_000);
    let new = random.changed(&old);
    (old, new)
}

fn kept() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    KEPT.iter().copied().filter(|(name, _)| cfg!(feature = "lzma") || *name != "lzma")
}

#[test]
fn kept_deltas_are_decoded() {
    let (old, new) = pair();
    for (name, delta) in kept() {
        assert!(decode(&old, delta).unwrap() == new, "{name}");
    }
}

/// Writes them again: `VCDIFF_FIXTURES=1 cargo test -p rust-ota-vcdiff kept_deltas_are_those`.
#[test]
fn kept_deltas_are_those_of_xdelta3() {
    if std::env::var_os("VCDIFF_FIXTURES").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = pair();
    for (name, options) in [
        ("djw", &["-S", "djw", "-6"][..]),
        ("djw-small-windows", &["-S", "djw9", "-9", "-W", "16384"]),
        ("lzma", &["-S", "lzma", "-W", "16384"]),
        ("none", &["-S", "none"]),
    ] {
        let delta = xdelta3(folder.path(), options, Some(&old), &new).unwrap();
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{name}.vcdiff"));
        fs::write(place, delta).unwrap();
    }
}

#[test]
fn a_delta_that_is_cut_anywhere_is_refused_or_ends_between_two_windows() {
    let (old, new) = pair();
    for (name, delta) in kept() {
        for length in 0..delta.len() {
            match decode(&old, &delta[..length]) {
                Ok(made) => assert!(new.starts_with(&made) && made.len() < new.len(), "{name}, {length}"),
                Err(Error::NotVcdiff) => assert!(length < 4, "{name}, {length}"),
                Err(Error::Damaged { fault, .. }) => {
                    assert!(matches!(fault, Fault::Cut), "{name}, {length}: {fault:?}");
                }
                Err(other) => panic!("{name}, {length}: {other}"),
            }
        }
    }
}

/// With a checksum for each window nothing wrong is ever given out; the number of bits is what a test may cost.
#[test]
fn a_delta_with_a_changed_bit_never_makes_other_content() {
    let (old, new) = pair();
    for (name, delta) in kept() {
        let mut harmless = 0;
        for at in (0..delta.len() * 8).step_by(37) {
            let mut changed = delta.to_vec();
            changed[at / 8] ^= 1 << (at % 8);
            // A bit of the application header, or one that says where to copy the same from, does no harm.
            if let Ok(made) = decode(&old, &changed) {
                // Nothing else can tell where a window's bit that announces its checksum is gone.
                assert!(made == new || changed[at / 8] & 4 == 0, "{name}, bit {at}");
                harmless += 1;
            }
        }
        assert!(harmless * 3 < delta.len() * 8 / 37, "{name}: {harmless}");
    }
}

#[test]
fn another_old_content_is_told_by_the_checksum() {
    let (mut old, _) = pair();
    old[20_000] ^= 1;
    old[100] ^= 1;
    for (name, delta) in kept() {
        let refused = decode(&old, delta).unwrap_err();
        assert!(matches!(refused, Error::Checksum { .. }), "{name}: {refused}");
        assert!(refused.to_string().contains("not what it was made from"));
    }
}

#[cfg(feature = "lzma")]
#[test]
fn a_dictionary_over_the_limit_is_refused_by_name() {
    // That of the kept one has 256 KiB.
    let (old, new) = pair();
    let (_, delta) = kept().find(|(name, _)| *name == "lzma").unwrap();
    let open = |bytes| decode_with(&old, delta, Limits { dictionary_bytes: bytes, ..Limits::default() });
    assert!(open(256 << 10).unwrap() == new);
    let refused = open(64 << 10);
    let limit = 64 << 10;
    assert!(matches!(refused, Err(Error::TooLarge { what: "a dictionary", limit: found }) if found == limit));
}

#[test]
fn short_copies_near_each_other_cost_few_reads() {
    let old: Vec<u8> = (0..60_000u32).map(|at| (at / 7) as u8).collect();
    // A thousand copies of 20 bytes, 40 bytes apart.
    let instructions: Vec<u8> = std::iter::repeat_n([19, 20], 1000).flatten().collect();
    let addresses: Vec<u8> = (0..1000u64).flat_map(|at| number(at * 40)).collect();
    let window = Window::new(1, (60_000, 0), 20_000).with(b"", &instructions, &addresses);
    let mut memory = Memory { old: &old, new: Vec::new(), reads: Cell::new(0) };
    let bytes = delta(&[window]);
    let mut decoder = Decoder::new(Limits::default());
    let made = decoder.next(&mut &bytes[..], &mut memory).unwrap().unwrap();
    let expected: Vec<u8> = (0..1000).flat_map(|at| old[at * 40..at * 40 + 20].to_vec()).collect();
    assert!(made == expected);
    assert_eq!(memory.reads.get(), 3, "one for each block of 16 KiB");
}

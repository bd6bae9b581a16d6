//! What applying allocates is what was declared. Measured by the kernel, in a process that does nothing else.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_types, clippy::disallowed_methods)]

use std::env;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use delta::{Applier, Compression, DeltaError, Head, MEMORY_BYTES_MAX, Source, ZeroRuns};
use testkit::choice::Generator;
use testkit::deltas::{Making, make};

/// Tells the process that it is the one that applies.
const FOLDER: &str = "DELTA_MEMORY_TEST";

/// Of the allocator, and of the buffer in front of the file.
const SLACK_BYTES: u64 = 384 * 1024;

struct Old(File);

impl Source for Old {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// `VmHWM` or `VmRSS`, in bytes.
fn memory(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes that were given out.
fn apply(folder: &Path, name: &str) -> Result<u64, DeltaError> {
    let mut file = BufReader::new(File::open(folder.join(name)).unwrap());
    let mut old = Old(File::open(folder.join("old")).unwrap());
    let mut applier = Applier::new(Head::read(&mut file)?)?;
    let mut bytes = 0;
    while let Some(applied) = applier.next(&mut file, &mut old)? {
        bytes += applied.bytes.len() as u64;
    }
    Ok(bytes)
}

#[test]
fn applying_takes_no_more_memory_than_was_declared() {
    if let Ok(folder) = env::var(FOLDER) {
        let folder = Path::new(&folder);
        // Code that was not run yet is not what is measured.
        apply(folder, "small").unwrap();
        let before = memory("VmRSS");
        let outcome = match apply(folder, "file") {
            Ok(bytes) => format!("{bytes} bytes"),
            Err(error) => error.to_string(),
        };
        println!("took {} for {outcome}", memory("VmHWM").saturating_sub(before));
        return;
    }
    let mut generator = Generator::new(1);
    let old: Vec<u8> = (0..3 << 17).flat_map(|_| generator.next_word().to_le_bytes()).collect();
    let mut new = old.clone();
    new.iter_mut().step_by(97).for_each(|byte| *byte ^= 1);
    for compression in [Compression::Zstd, Compression::Xz] {
        let mut making = Making::small(compression);
        making.segment_blocks = 256;
        making.group_segments = 16;
        making.extent_blocks = 510;
        making.coder.window_log = 21;
        making.coder.zero_runs = ZeroRuns::Apart { shortest: 1 };
        let made = make(&old, &new, &making);
        let declared = made.head.memory_bytes();
        assert!(declared <= MEMORY_BYTES_MAX && declared > 4 << 20, "{declared}");
        let small = make(&old[..40_000], &new[..30_000], &Making::small(compression)).file();
        let check = |file: &[u8], outcome: &str| {
            let folder = tempfile::tempdir().unwrap();
            for (name, content) in [("old", &old[..]), ("file", file), ("small", &small)] {
                fs::write(folder.path().join(name), content).unwrap();
            }
            let ran = Command::new(env::current_exe().unwrap())
                .args(["memory::applying", "--nocapture", "--test-threads=1"])
                .env(FOLDER, folder.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&ran.stdout).into_owned();
            let line = said.lines().find_map(|line| line.split_once("took ")).unwrap().1.to_owned();
            assert!(line.contains(outcome), "{line}");
            let took: u64 = line.split(' ').next().unwrap().parse().unwrap();
            assert!(took <= declared + SLACK_BYTES, "{compression:?}: {took} of {declared}");
            println!("{compression:?}: {took} bytes, {declared} declared; {line}");
            took
        };
        // Most of what was declared is used, so that the measure sees it.
        assert!(check(&made.file(), &format!("{} bytes", new.len())) > declared / 2);
        // A group that explodes into what nobody asked for, behind a head that promised the same as before.
        let mut explodes = made.clone();
        let zeros = vec![0; 32 << 20];
        let bomb = match compression {
            Compression::Zstd => zstd::bulk::compress(&zeros, 19).unwrap(),
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 9);
                io::Write::write_all(&mut encoder, &zeros).unwrap();
                encoder.finish().unwrap()
            }
        };
        explodes.head.groups[0].stored_bytes = bomb.len() as u64;
        explodes.groups[0] = bomb;
        check(&explodes.file(), "larger window than was promised");
    }
}

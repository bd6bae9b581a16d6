//! The U-Boot environment against `fw_printenv`, `fw_setenv` (libubootenv) and `mkenvimage` (U-Boot).
// The helpers of tests may fail as tests do, and say why they skip.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bootloader_uboot::image::{Format, Image};
use client_core::boot::{BootEnv, BootEnvError};
use interop::{Loop, tool};
use linux::boot_env::{BootEnvPaths, Bootloader};

/// Bytes of one copy.
const SIZE: u64 = 0x4000;

/// An environment in a folder, and both ways to it.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// An environment that `mkenvimage` made of `text`, or `None` when a tool is missing.
    fn new(format: Format, size: u64, text: &str) -> Option<Bench> {
        tool("fw_setenv")?;
        tool("fw_printenv")?;
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        let image = mkenvimage(format, size, text)?;
        let copies = if format == Format::Single { 1 } else { 2 };
        fs::write(bench.file(), image.repeat(copies)).unwrap();
        let lines = (0..copies as u64)
            .map(|copy| format!("{} {:#x} {:#x}\n", bench.file().display(), copy * size, size));
        fs::write(bench.config(), lines.collect::<String>()).unwrap();
        Some(bench)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("uboot.env")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("fw_env.config")
    }

    fn ours(&self) -> Box<dyn BootEnv> {
        let mut paths = BootEnvPaths::default();
        paths.fw_env_config = self.config();
        linux::boot_env::open(Bootloader::UBoot, &paths).unwrap()
    }

    fn we_write(&self, changes: &[(&str, &str)]) {
        self.ours().write(changes).unwrap();
    }

    fn we_read(&self, name: &str) -> Option<String> {
        self.ours().read(&[name]).unwrap().get(name).map(str::to_owned)
    }

    fn tool_output(&self) -> Output {
        Command::new(tool("fw_printenv").unwrap()).arg("-c").arg(self.config()).output().unwrap()
    }

    /// Everything `fw_printenv` shows. No value of these tests spans lines.
    fn tool_reads(&self) -> BTreeMap<String, String> {
        let output = self.tool_output();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let split =
            |line: &str| line.split_once('=').map(|(name, value)| (name.into(), value.into())).unwrap();
        text.lines().map(split).collect()
    }

    /// Through the script form, which takes every value literally.
    fn tool_writes(&self, changes: &[(&str, &str)]) {
        let script: String = changes.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let mut command = Command::new(tool("fw_setenv").unwrap());
        command.arg("-c").arg(self.config()).args(["-s", "-"]);
        run_with_input(command, &script);
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }
}

fn run_with_input(mut command: Command, input: &str) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{command:?}");
}

fn mkenvimage(format: Format, size: u64, text: &str) -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("image");
    let mut command = Command::new(tool("mkenvimage")?);
    command.args(["-s", &size.to_string(), "-o"]).arg(&output);
    if format == Format::Redundant {
        command.arg("-r");
    }
    command.arg("-");
    run_with_input(command, text);
    Some(fs::read(output).unwrap())
}

const TEXT: &str = "bootcount=0\nmender_boot_part=2\nupgrade_available=0\n";
const FORMATS: [Format; 2] = [Format::Single, Format::Redundant];

/// What one side writes the other reads, and what neither named survives.
fn check_interleaved(changes: &[(&str, &str)]) {
    for format in FORMATS {
        let Some(bench) = Bench::new(format, SIZE, TEXT) else { return };
        for (round, (name, value)) in changes.iter().enumerate() {
            if round % 2 == 0 {
                bench.we_write(&[(name, value)]);
            } else {
                bench.tool_writes(&[(name, value)]);
            }
            let expected = (!value.is_empty()).then(|| (*value).to_string());
            assert_eq!(bench.tool_reads().get(*name), expected.as_ref(), "{format:?} {name}");
            assert_eq!(bench.we_read(name), expected, "{format:?} {name}");
            assert_eq!(bench.we_read("mender_boot_part").as_deref(), Some("2"));
            assert_eq!(bench.tool_reads()["mender_boot_part"], "2");
        }
    }
}

/// The same changes by both sides leave the same bytes: variables, their order, flags, and which copy was
/// written. The filling is set to ours first, as the tool leaves there what its heap held before.
fn check_same_bytes(changes: &[&[(&str, &str)]]) {
    for format in FORMATS {
        let Some(ours) = Bench::new(format, SIZE, TEXT) else { return };
        let Some(theirs) = Bench::new(format, SIZE, TEXT) else { return };
        let refilled = |bench: &Bench| {
            let copies = bench.bytes();
            let refill =
                |copy: &[u8]| Image::decode(format, copy).unwrap().encode(format, copy.len(), 0).unwrap();
            copies.chunks(SIZE as usize).flat_map(refill).collect::<Vec<u8>>()
        };
        for change in changes {
            ours.we_write(change);
            theirs.tool_writes(change);
            assert!(refilled(&ours) == refilled(&theirs), "{format:?} differs after {change:?}");
        }
        // By now both copies are of our making.
        assert!(refilled(&ours) == ours.bytes(), "{format:?}");
    }
}

#[test]
fn an_image_of_mkenvimage_is_read() {
    for format in FORMATS {
        let Some(bench) = Bench::new(format, SIZE, "a=1\nb=two words = three\n") else { return };
        assert_eq!(bench.we_read("a").as_deref(), Some("1"));
        assert_eq!(bench.we_read("b").as_deref(), Some("two words = three"));
        assert_eq!(bench.we_read("c"), None);
    }
}

#[test]
fn an_image_of_mkenvimage_is_the_one_we_build() {
    for format in FORMATS {
        let Some(theirs) = mkenvimage(format, SIZE, "a=1\nb=two words\n") else { return };
        let image = Image::decode(format, &theirs).unwrap();
        assert!(image.encode(format, theirs.len(), 0xFF).unwrap() == theirs, "{format:?}");
    }
}

#[test]
fn values_with_blanks_equals_signs_and_symbols_go_both_ways() {
    check_interleaved(&[
        ("bootargs", "root=/dev/mmcblk0p2 rw quiet"),
        ("bootcmd", "run a; if test ${b} = 1; then run c; fi"),
        ("path", "C:\\x\\y"),
        ("quoted", "\"a\" 'b' $c `d`"),
        ("umlaut", "h\u{f6}lzern"),
    ]);
}

#[test]
fn many_interleaved_writes_agree() {
    let values: Vec<String> = (0..300).map(|round| round.to_string()).collect();
    let changes: Vec<_> = values.iter().map(|value| ("bootcount", value.as_str())).collect();
    check_interleaved(&changes);
}

#[test]
fn removed_variables_are_gone_for_both() {
    check_interleaved(&[("x", "1"), ("x", ""), ("x", "2"), ("y", "3"), ("x", ""), ("y", "")]);
}

#[test]
fn long_values_go_both_ways() {
    let long = "x".repeat(900); // The tool cuts the lines of its script at 1024 bytes.
    check_interleaved(&[("long", &long), ("longer", &long), ("long", ""), ("longer", "")]);
    let Some(bench) = Bench::new(Format::Redundant, SIZE, TEXT) else { return };
    let longest = "y".repeat(12_000);
    bench.we_write(&[("longest", &longest)]);
    assert_eq!(bench.tool_reads()["longest"], longest);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let Some(bench) = Bench::new(Format::Redundant, SIZE, TEXT) else { return };
    let before = bench.bytes();
    let refused = bench.ours().write(&[("long", &"x".repeat(SIZE as usize))]);
    assert!(matches!(refused, Err(BootEnvError::TooLarge { .. })));
    assert!(bench.bytes() == before);
}

#[test]
fn the_same_change_leaves_the_same_bytes() {
    check_same_bytes(&[
        &[("upgrade_available", "1")],
        &[
            ("mender_boot_part", "3"),
            ("mender_boot_part_hex", "3"),
            ("upgrade_available", "1"),
            ("bootcount", "0"),
        ],
        &[("zz", "last")],
        &[("aa", "first")],
        &[("mm", "middle")],
        &[("mm", "")],
        &[("upgrade_available", "0")],
    ]);
}

#[test]
fn both_pick_the_same_copy_for_all_flags_and_checksums() {
    let Some(bench) = Bench::new(Format::Redundant, SIZE, TEXT) else { return };
    let made =
        ["first", "second"].map(|name| mkenvimage(Format::Redundant, SIZE, &format!("v={name}\n")).unwrap());
    let copy = |which: usize, flags: u8, is_valid: bool| {
        let mut bytes = made[which].clone();
        bytes[4] = flags;
        bytes[0] ^= u8::from(!is_valid);
        bytes
    };
    let mut compared = 0;
    for first_flags in [0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF] {
        for second_flags in [0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF] {
            for (first_valid, second_valid) in [(true, true), (true, false), (false, true), (false, false)] {
                let first = copy(0, first_flags, first_valid);
                let second = copy(1, second_flags, second_valid);
                fs::write(bench.file(), [first, second].concat()).unwrap();
                let what = format!("{first_flags} {first_valid}, {second_flags} {second_valid}");
                if first_valid || second_valid {
                    assert_eq!(bench.we_read("v"), bench.tool_reads().remove("v"), "{what}");
                } else {
                    assert!(!bench.tool_output().status.success(), "{what}");
                    let error = bench.ours().read(&["v"]).unwrap_err();
                    assert!(matches!(error, BootEnvError::NoValidCopy { .. }), "{what}: {error}");
                }
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 196);
}

#[test]
fn a_write_of_ours_wins_in_the_tool_from_every_pair_of_flags() {
    let Some(bench) = Bench::new(Format::Redundant, SIZE, TEXT) else { return };
    let image = bench.bytes();
    for first_flags in [0, 1, 0x7F, 0xFE, 0xFF] {
        for second_flags in [0, 1, 0x7F, 0xFE, 0xFF] {
            let mut bytes = image.clone();
            bytes[4] = first_flags;
            bytes[SIZE as usize + 4] = second_flags;
            fs::write(bench.file(), bytes).unwrap();
            bench.we_write(&[("v", "ours")]);
            let seen = bench.tool_reads();
            assert_eq!(seen.get("v").map(String::as_str), Some("ours"), "{first_flags} {second_flags}");
        }
    }
}

/// The description is read as the tool reads it: hexadecimal sizes, C-style offsets.
fn check_config(offset: &str, size: &str) {
    let Some(bench) = Bench::new(Format::Single, SIZE, TEXT) else { return };
    let mut bytes = vec![0; 0x1000];
    bytes.extend_from_slice(&bench.bytes());
    fs::write(bench.file(), bytes).unwrap();
    let config = format!("# comment\n\n{} {offset} {size}\n", bench.file().display());
    fs::write(bench.config(), config).unwrap();
    let output = bench.tool_output();
    let ours = bench.ours().read(&["mender_boot_part"]);
    assert_eq!(output.status.success(), ours.is_ok(), "{offset} {size}: {output:?} {ours:?}");
}

#[test]
fn numbers_in_the_description_mean_the_same_to_both() {
    for (offset, size) in [
        ("0x1000", "0x4000"),
        ("4096", "4000"),
        ("010000", "0X4000"),
        ("0x1000", "16384"),
        ("0", "4000"),
        ("1000", "4000"),
    ] {
        check_config(offset, size);
    }
}

#[test]
fn the_tool_waits_for_our_lock() {
    let Some(bench) = Bench::new(Format::Single, SIZE, TEXT) else { return };
    let Some(timeout) = tool("timeout") else { return };
    let paths = BootEnvPaths::default();
    let held = match linux::lock::FileLock::acquire(&paths.uboot_lock, paths.lock_wait) {
        Ok(held) => held,
        Err(error) => {
            println!("SKIPPED: {error}");
            return;
        }
    };
    if let Err(error) = fs::OpenOptions::new().write(true).open(held.path()) {
        // The tool opens the lock for writing, and goes on without it where it cannot.
        println!("SKIPPED: {}: {error}", held.path().display());
        return;
    }
    let run = || {
        let mut command = Command::new(&timeout);
        command.arg("0.2").arg(tool("fw_printenv").unwrap()).arg("-c").arg(bench.config());
        command.output().unwrap().status.code()
    };
    assert_eq!(run(), Some(124), "the tool did not wait");
    drop(held);
    assert!(bench.tool_output().status.success());
}

#[test]
fn a_block_device_is_shared_with_the_tool_also_at_offsets_from_its_end() {
    let Some(bench) = Bench::new(Format::Redundant, SIZE, TEXT) else { return };
    let image = bench.bytes();
    let mut disk = vec![0xEE; 0x10_0000];
    disk[0x8_0000..0x8_4000].copy_from_slice(&image[..0x4000]);
    disk[0xF_C000..].copy_from_slice(&image[..0x4000]);
    let file = bench.dir.path().join("disk");
    fs::write(&file, disk).unwrap();
    let Some(device) = Loop::attach(&file) else { return };
    fs::write(bench.config(), format!("{0} 0x80000 0x4000\n{0} -0x4000 0x4000\n", device.0)).unwrap();
    for round in 0..6 {
        let value = round.to_string();
        if round % 2 == 0 {
            bench.we_write(&[("v", &value)])
        } else {
            bench.tool_writes(&[("v", &value)])
        }
        assert_eq!(bench.tool_reads()["v"], value);
        assert_eq!(bench.we_read("v"), Some(value));
    }
    drop(device);
    let disk = fs::read(&file).unwrap();
    assert!(disk[..0x8_0000].iter().chain(&disk[0x8_4000..0xF_C000]).all(|byte| *byte == 0xEE));
}

#[test]
fn a_block_device_opened_exclusively_cannot_be_opened_so_twice_but_still_beside() {
    use linux::block_device::{Access, FileDevice};
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    fs::write(&file, [0; 0x1_0000]).unwrap();
    let Some(device) = Loop::attach(&file) else { return };
    let path = Path::new(&device.0);
    let _held = FileDevice::open(path, Access::WriteExclusive).unwrap();
    let refused = FileDevice::open(path, Access::WriteExclusive).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
    FileDevice::open(path, Access::Write).unwrap();
}

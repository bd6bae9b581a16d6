//! The GRUB environment against `grub-editenv` and `sha256sum`, the tools `grub-mender-grubenv-set` is made of.
// The helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bootloader_grub::block::Block;
use client_core::boot::{BootEnv, BootEnvError};
use interop::tool;
use linux::boot_env::{BootEnvPaths, Bootloader};

const COPIES: [&str; 2] = ["mender_grubenv1", "mender_grubenv2"];

/// An environment in a folder, made by the real tools.
struct Bench(tempfile::TempDir);

impl Bench {
    /// `None` when a tool is missing.
    fn new() -> Option<Bench> {
        tool("grub-editenv")?;
        tool("sha256sum")?;
        let bench = Bench(tempfile::tempdir().unwrap());
        for copy in COPIES {
            fs::create_dir(bench.0.path().join(copy)).unwrap();
            let (env, lock) = (bench.path(copy, "env"), bench.path(copy, "lock"));
            editenv(&env, &["create"]);
            editenv(&env, &["set", "bootcount=0", "mender_boot_part=2", "upgrade_available=0"]);
            editenv(&lock, &["create"]);
            editenv(&lock, &["set", "editing=0"]);
            let sum =
                Command::new(tool("sha256sum")?).arg("lock").current_dir(lock.parent().unwrap()).output();
            fs::write(bench.path(copy, "lock.sha256sum"), sum.unwrap().stdout).unwrap();
        }
        Some(bench)
    }

    fn path(&self, copy: &str, file: &str) -> PathBuf {
        self.0.path().join(copy).join(file)
    }

    fn ours(&self) -> Box<dyn BootEnv> {
        let mut paths = BootEnvPaths::default();
        paths.grub_env_dir = Some(self.0.path().to_path_buf());
        paths.grub_lock = self.0.path().join("lock");
        linux::boot_env::open(Bootloader::Grub, &paths).unwrap()
    }

    fn we_read(&self, name: &str) -> Option<String> {
        self.ours().read(&[name]).unwrap().get(name).map(str::to_owned)
    }

    /// The steps of the stock tool, without its repair.
    fn tool_writes(&self, assignments: &[&str]) {
        for copy in COPIES.iter().rev() {
            editenv(&self.path(copy, "lock"), &["set", "editing=1"]);
            editenv(&self.path(copy, "env"), &[&["set"], assignments].concat());
            editenv(&self.path(copy, "lock"), &["set", "editing=0"]);
        }
    }

    /// Both copies as the tool lists them, after its own check that they are whole.
    fn tool_reads(&self) -> BTreeMap<String, String> {
        let [first, second] = COPIES.map(|copy| {
            let directory = self.0.path().join(copy);
            let mut check = Command::new(tool("sha256sum").unwrap());
            let output = check.args(["-c", "lock.sha256sum"]).current_dir(&directory).output().unwrap();
            assert!(output.status.success(), "{copy}: {output:?}");
            assert_eq!(list(&self.path(copy, "lock"))["editing"], "0", "{copy}");
            list(&self.path(copy, "env"))
        });
        assert_eq!(first, second);
        first
    }
}

fn editenv(file: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(tool("grub-editenv").unwrap()).arg(file).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

/// No value of these tests spans lines.
fn list(file: &Path) -> BTreeMap<String, String> {
    let text = String::from_utf8(editenv(file, &["list"]).stdout).unwrap();
    let split = |line: &str| line.split_once('=').map(|(name, value)| (name.into(), value.into())).unwrap();
    text.lines().map(split).collect()
}

/// What one side writes the other reads.
fn check_interleaved(changes: &[(&str, &str)]) {
    let Some(bench) = Bench::new() else { return };
    for (round, (name, value)) in changes.iter().enumerate() {
        if round % 2 == 0 {
            bench.ours().write(&[(name, value)]).unwrap();
        } else {
            bench.tool_writes(&[&format!("{name}={value}")]);
        }
        assert_eq!(bench.tool_reads()[*name], *value);
        assert_eq!(bench.we_read(name).as_deref(), Some(*value));
        assert_eq!(bench.we_read("mender_boot_part").as_deref(), Some("2"));
    }
}

/// Damages files of one copy; a read must give both copies the values of the other.
fn check_repaired(damage: impl Fn(&Bench), expected_part: &str) {
    let Some(bench) = Bench::new() else { return };
    damage(&bench);
    assert_eq!(bench.we_read("mender_boot_part").as_deref(), Some(expected_part));
    assert_eq!(bench.tool_reads()["mender_boot_part"], expected_part);
}

#[test]
fn values_with_blanks_equals_signs_and_backslashes_go_both_ways() {
    check_interleaved(&[
        ("bootargs", "root=/dev/sda2 rw quiet"),
        ("path", "C:\\x\\y"),
        ("trailing", "x\\"),
        ("hashes", "##a##"),
        ("empty", ""),
        ("bootargs", "shorter"),
        ("bootargs", "and now a good deal longer than before"),
    ]);
}

#[test]
fn many_interleaved_writes_agree() {
    let values: Vec<String> = (0..20).map(|round| "x".repeat(round * 7 % 40)).collect();
    let changes: Vec<_> = values.iter().map(|value| ("v", value.as_str())).collect();
    check_interleaved(&changes);
}

#[test]
fn a_value_with_a_line_end_goes_both_ways() {
    let Some(bench) = Bench::new() else { return };
    bench.ours().write(&[("v", "one\ntwo\n")]).unwrap();
    let listed = editenv(&bench.path(COPIES[0], "env"), &["list"]).stdout;
    assert!(String::from_utf8(listed).unwrap().ends_with("v=one\ntwo\n\n"));
    bench.tool_writes(&["v=three\nfour"]);
    assert_eq!(bench.we_read("v").as_deref(), Some("three\nfour"));
}

#[test]
fn the_same_change_leaves_the_same_bytes() {
    let Some(ours) = Bench::new() else { return };
    let Some(theirs) = Bench::new() else { return };
    let changes: [&[(&str, &str)]; 5] = [
        &[
            ("mender_boot_part", "3"),
            ("mender_boot_part_hex", "3"),
            ("upgrade_available", "1"),
            ("bootcount", "0"),
        ],
        &[("upgrade_available", "0")],
        &[("mender_systemd_machine_id", "0123456789abcdef0123456789abcdef")],
        &[("v", "a\\b\nc")],
        &[("v", "")],
    ];
    for change in changes {
        ours.ours().write(change).unwrap();
        let assignments: Vec<_> = change.iter().map(|(name, value)| format!("{name}={value}")).collect();
        theirs.tool_writes(&assignments.iter().map(String::as_str).collect::<Vec<_>>());
        for copy in COPIES {
            for file in ["env", "lock", "lock.sha256sum"] {
                let (left, right) = (fs::read(ours.path(copy, file)), fs::read(theirs.path(copy, file)));
                assert!(left.unwrap() == right.unwrap(), "{copy}/{file} differs after {change:?}");
            }
        }
    }
}

#[test]
fn a_full_block_is_full_for_both() {
    let Some(bench) = Bench::new() else { return };
    let used = fs::read(bench.path(COPIES[0], "env")).unwrap();
    let room = used.iter().rev().take_while(|byte| **byte == b'#').count() - "v=\n".len();
    let refused = bench.ours().write(&[("v", &"x".repeat(room + 1))]);
    assert!(matches!(refused, Err(BootEnvError::TooLarge { need_bytes: 1025, .. })));
    bench.ours().write(&[("v", &"x".repeat(room))]).unwrap();
    assert_eq!(bench.tool_reads()["v"].len(), room);
    let mut more = Command::new(tool("grub-editenv").unwrap());
    let more = more.arg(bench.path(COPIES[0], "env")).args(["set", "w=1"]).output().unwrap();
    assert!(!more.status.success(), "{more:?}");
}

#[test]
fn an_edit_the_tool_left_unfinished_is_resolved_as_grub_does() {
    check_repaired(
        |bench| {
            editenv(&bench.path(COPIES[1], "lock"), &["set", "editing=1"]);
            editenv(&bench.path(COPIES[1], "env"), &["set", "mender_boot_part=3"]);
        },
        "2",
    );
    check_repaired(
        |bench| {
            editenv(&bench.path(COPIES[1], "env"), &["set", "mender_boot_part=3"]);
            editenv(&bench.path(COPIES[0], "lock"), &["set", "editing=1"]);
        },
        "3",
    );
}

#[test]
fn a_file_the_tool_truncated_is_repaired_from_the_other_copy() {
    for copy in COPIES {
        for file in ["env", "lock", "lock.sha256sum"] {
            check_repaired(|bench| fs::write(bench.path(copy, file), "").unwrap(), "2");
            check_repaired(|bench| fs::remove_file(bench.path(copy, file)).unwrap(), "2");
        }
    }
}

#[test]
fn whatever_we_accept_the_tool_lists_alike() {
    let Some(editenv) = tool("grub-editenv") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("env");
    let mut block = Block::default();
    for (name, value) in [("a", "x\\y"), ("bootcount", "0"), ("c", "1\n2")] {
        block.set(name, value).unwrap();
    }
    let good = block.encode().unwrap();
    let mut accepted = 0;
    for place in 0..64 {
        for byte in *b"\\\n=#a" {
            let mut damaged = good;
            damaged[place] = byte;
            let Ok(block) = Block::decode(&damaged) else { continue };
            fs::write(&file, damaged).unwrap();
            let output = Command::new(&editenv).arg(&file).arg("list").output().unwrap();
            assert!(output.status.success(), "{}", damaged[..80].escape_ascii());
            let text = output.stdout;
            for name in ["a", "bootcount", "c"] {
                if let Some(value) = block.value(name) {
                    let line = [name.as_bytes(), b"=", &value, b"\n"].concat();
                    let is_listed = text.windows(line.len()).any(|window| window == line);
                    assert!(is_listed, "{name}: {}", damaged[..80].escape_ascii());
                }
            }
            accepted += 1;
        }
    }
    assert!(accepted > 40, "{accepted}");
}

//! What holds on every board: nothing is changed, nothing hangs, nothing panics; and the table of the document.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use testkit::choice::{Generator, seed, so_many};

use super::board::{Board, check};
use crate::{CHECKS, Level, Report};

/// Everything about a folder that changes when somebody writes.
fn snapshot(folder: &Path) -> Vec<(PathBuf, u32, u64, i64, i64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            found.push((
                path,
                metadata.mode(),
                metadata.ino(),
                metadata.mtime(),
                metadata.ctime_nsec(),
                content,
            ));
        }
    }
    found.sort();
    found
}

/// A report within a minute.
fn look_in_time(board: Board) -> (Board, Report) {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let report = board.look();
        let _ = sender.send((board, report));
    });
    receiver.recv_timeout(Duration::from_secs(60)).expect("the look came to an end")
}

#[test]
fn a_look_changes_nothing_on_good_and_on_broken_boards() {
    let broken = Board::with(|board| {
        board.set_grub(&[]);
        board.remove("boot/efi/grub-mender-grubenv/mender_grubenv1/lock");
        board.mode("data/mender/mender-agent.pem", 0o644);
        board.write("data/mender/rust-ota-state", "damaged");
        board.write_at("dev/mmcblk0", 0x10_0009, b"?");
    });
    for board in [Board::good(), broken] {
        let before = snapshot(&board.path(""));
        let report = board.look();
        assert_eq!(snapshot(&board.path("")), before, "\n{}", report.lines());
    }
}

#[test]
fn a_board_that_cannot_be_written_is_looked_at_like_any_other() {
    let board = Board::good();
    let before = board.look();
    let folders: Vec<PathBuf> = snapshot(&board.path(""))
        .into_iter()
        .map(|(path, ..)| path)
        .filter(|path| !path.is_symlink())
        .collect();
    for path in &folders {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o555;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let after = board.look();
    for path in folders.iter().filter(|path| path.is_dir()) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // How much room there is on the disk is up to others.
    let lines = |report: &Report| {
        report.lines().lines().filter(|line| !line.ends_with(" free")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(lines(&after), lines(&before));
    assert_eq!(after.findings.len(), before.findings.len());
}

#[test]
fn what_is_locked_by_others_is_looked_at_all_the_same() {
    let board = Board::good();
    let lock =
        linux::lock::FileLock::acquire(&board.path("data/mender/rust-ota.lock"), Duration::ZERO).unwrap();
    let _pid =
        linux::daemon_process::PidFile::create(&board.path("data/mender/rust-ota.pid"), Duration::ZERO)
            .unwrap();
    board.write("data/mender/rust-ota.pid", "1234");
    check(&board, 0, &[]);
    drop(lock);
}

#[test]
fn what_is_no_file_keeps_nobody_waiting() {
    let mut board = Board::good();
    for place in [
        "etc/mender/mender.conf",
        "etc/fw_env.config",
        "etc/mender/key.pem",
        "data/mender/device_type",
        "data/mender/mender-agent.pem",
        "data/mender/rust-ota.pid",
        "data/mender/rust-ota-state",
        "data/mender/mender.conf",
        "data/mender/rust-ota-last-good.conf",
        "dev/mmcblk0",
        "dev/mmcblk0p3",
        "usr/lib/systemd/system/rust-ota.service",
        "usr/share/mender/identity/mender-device-identity",
        "usr/share/mender/modules/v3/fifo",
        "etc/mender/scripts/version",
        "etc/mender/scripts/Idle_Enter_00",
        "etc/mender_grubenv.config",
        "boot/efi/grub-mender-grubenv/mender_grubenv1/env",
        "proc/1234/comm",
        "sys/class/watchdog/watchdog0/state",
    ] {
        let path = board.path(place);
        let content = fs::read(&path).ok();
        if fs::symlink_metadata(&path).is_ok() {
            board.remove(place);
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for what in ["fifo", "folder", "loop"] {
            match what {
                "fifo" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                "folder" => fs::create_dir(&path).unwrap(),
                _ => board.link(path.file_name().unwrap(), place),
            }
            let (same, report) = look_in_time(board);
            board = same;
            assert!(!report.findings.is_empty(), "{place}");
            board.remove(place);
        }
        if let Some(content) = content {
            board.write(place, content);
        }
    }
    let certificate = Board::with(|board| {
        assert!(Command::new("mkfifo").arg(board.path("etc/mender/x.crt")).status().unwrap().success());
        board.set(r#""ServerCertificate": "/etc/mender/x.crt""#);
    });
    let (board, _) = look_in_time(certificate);
    check(&board, 2, &["server-certificate-file"]);
}

#[test]
fn files_that_are_huge_or_garbage_are_bounded() {
    let nested = "[".repeat(900_000);
    let keys: Vec<String> = (0..30_000).map(|number| format!("\"Key{number}\": \"\u{1b}[31m\"")).collect();
    let many_keys = format!("{{{}}}", keys.join(","));
    for (place, content) in [
        ("etc/mender/mender.conf", vec![b'x'; 5 << 20]),
        ("etc/mender/mender.conf", nested.clone().into_bytes()),
        ("etc/mender/mender.conf", many_keys.into_bytes()),
        ("etc/mender/mender.conf", vec![0; 100_000]),
        ("etc/fw_env.config", vec![b' '; 5 << 20]),
        ("etc/fw_env.config", b"/dev/mmcblk0 0x7fffffffffffffff ffffff\n/dev/mmcblk0 -0x1 ffffff\n".to_vec()),
        ("proc/self/mountinfo", vec![b'\\'; 1 << 20]),
        ("proc/self/mountinfo", "1 2 99999999999:7 / / rw - x y z\n".repeat(20_000).into_bytes()),
        ("proc/cmdline", vec![0xFF; 1 << 20]),
        ("proc/meminfo", vec![b'9'; 1 << 20]),
        ("data/mender/device_type", vec![0x1b; 4000]),
        ("data/mender/rust-ota-state", nested.into_bytes()),
        ("usr/lib/systemd/system/rust-ota.service", vec![b'='; 2 << 20]),
        ("sys/devices/mmcblk0/mmcblk0p3/start", b"18446744073709551615".to_vec()),
    ] {
        let board = Board::good();
        board.write(place, content);
        let (_, report) = look_in_time(board);
        let lines = report.lines();
        assert!(lines.len() < 64 * 1024, "{place}: {} bytes", lines.len());
        assert!(!lines.contains('\u{1b}'), "{place}: not printable");
    }
}

#[test]
fn damage_anywhere_makes_no_panic() {
    let mut choices = Generator::new(seed());
    let board = Board::good();
    board.set_grub(&[("x", "y")]);
    // The disk is too large to be written again and again.
    let files: Vec<(PathBuf, Vec<u8>)> = snapshot(&board.path(""))
        .into_iter()
        .filter(|(path, _, _, _, _, content)| path.is_file() && !path.is_symlink() && content.len() < 1 << 20)
        .map(|(path, .., content)| (path, content))
        .collect();
    for _ in 0..so_many(60) {
        let damaged: Vec<_> = (0..4).map(|_| &files[choices.below(files.len())]).collect();
        for (path, content) in &damaged {
            let mut content = content.clone();
            for _ in 0..3 {
                let at = choices.below(content.len() + 1);
                match choices.below(3) {
                    0 => content.truncate(at),
                    1 => content.insert(at, choices.below(256) as u8),
                    _ => {
                        content.iter_mut().skip(at).take(1).for_each(|byte| *byte = choices.below(256) as u8)
                    }
                }
            }
            fs::write(path, content).unwrap();
        }
        assert!(!board.look().findings.is_empty());
        for (path, content) in damaged {
            fs::write(path, content).unwrap();
        }
    }
}

#[test]
fn the_document_has_the_table_of_the_checks() {
    let page = include_str!("../../../../docs/doctor.md").split("## The identifiers").nth(1).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).take(3).collect())
        .collect();
    let table: Vec<Vec<String>> = CHECKS
        .iter()
        .map(|check| vec![format!("`{}`", check.id), check.area.to_owned(), check.level.name().to_owned()])
        .collect();
    assert_eq!(rows, table);
}

#[test]
fn every_check_is_seen_on_some_board_and_has_advice_where_there_is_something_to_do() {
    let tests = [include_str!("boards.rs"), include_str!("servers.rs")].concat();
    for (at, check) in CHECKS.iter().enumerate() {
        assert!(CHECKS[..at].iter().all(|other| other.id != check.id), "{} is there twice", check.id);
        assert_eq!(check.advice.is_empty(), check.level == Level::Ok, "{}", check.id);
        let is_seen = tests.contains(&format!("\"{}\"", check.id));
        assert!(is_seen, "no board has {}", check.id);
    }
}

#[test]
fn a_report_is_lines_for_people_and_one_object_for_programs() {
    let board = Board::with(|board| board.remove("sys/class/watchdog"));
    let report = board.look();
    let lines = report.lines();
    let last: Vec<&str> = lines.lines().rev().take(3).collect();
    assert!(last[0].ends_with("1 warnings, 0 wrong"), "{lines}");
    assert!(last[1].contains("-> enable the driver"), "{lines}");
    assert!(last[2].starts_with("warning  bootloader        there is no hardware watchdog"), "{lines}");
    let json = report.json();
    assert_eq!((json["schema"].as_u64(), json["exit_code"].as_u64()), (Some(1), Some(1)));
    assert_eq!(json["result"], "warnings".trim_end_matches('s'));
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), report.findings.len());
    let watchdog = findings.iter().find(|finding| finding["id"] == "watchdog-none").unwrap();
    assert_eq!((&watchdog["level"], &watchdog["area"]), (&"warning".into(), &"bootloader".into()));
}

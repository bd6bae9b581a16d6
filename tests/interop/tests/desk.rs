//! The device of files for the desk: the commands that are printed with it work as they are printed.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use interop::programs::desk_programs;

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk { folder: tempfile::tempdir().unwrap() };
        let made = desk.desk(&[]);
        assert!(made.status.success(), "{}", shown(&made));
        assert!(shown(&made).contains(&desk.commands()), "{}", shown(&made));
        desk
    }

    fn device(&self) -> PathBuf {
        self.folder.path().join("my-device")
    }

    fn desk(&self, words: &[&str]) -> Output {
        let mut command = Command::new(desk_programs().join("desk"));
        command.arg("device").arg(self.device()).args(words).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// What is printed, and kept.
    fn commands(&self) -> String {
        fs::read_to_string(self.device().join("commands")).unwrap()
    }

    /// The part of the printed commands below a comment that begins with `heading`.
    fn part(&self, heading: &str) -> String {
        let commands = self.commands();
        let part = commands.split("\n\n").find(|part| part.starts_with(heading));
        part.unwrap_or_else(|| panic!("no {heading}: {commands}")).to_owned()
    }

    #[track_caller]
    fn types(&self, commands: &str) -> String {
        let output = Command::new("sh").args(["-e", "-c", commands]).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{commands}\n{}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `show-artifact` says.
    fn artifact(&self) -> String {
        let by_hand = self.part("# By hand");
        let line = by_hand.lines().find(|line| line.ends_with("show-artifact")).unwrap();
        self.types(line).trim().to_owned()
    }
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_commands_that_are_printed_install_an_update_and_keep_it() {
    let desk = Desk::new();
    desk.types(&desk.part("# An update"));
    let said = desk.types(&desk.part("# By hand"));
    assert!(said.contains("slot B is up") && said.trim_end().ends_with("release-2"), "{said}");
    let image = fs::read(desk.device().join("rootfs.img")).unwrap();
    assert!(fs::read(desk.device().join("slot3")).unwrap().starts_with(&image));
    // Kept for good: another restart stays there.
    assert!(shown(&desk.desk(&["restart"])).contains("slot B is up"));
}

#[test]
fn an_update_that_hangs_at_its_restart_falls_back() {
    let desk = Desk::new();
    desk.types(&desk.part("# An update"));
    let by_hand = desk.part("# By hand");
    let install = by_hand.lines().find(|line| line.contains(" install ")).unwrap();
    desk.types(install);
    let said = shown(&desk.desk(&["restart", "--hangs"]));
    assert!(said.contains("slot B hangs") && said.contains("slot A is up"), "{said}");
    assert_ne!(desk.artifact(), "release-2");
}

#[test]
fn a_folder_with_something_in_it_is_not_made_a_device() {
    let desk = Desk::new();
    let again = desk.desk(&[]);
    assert!(!again.status.success() && shown(&again).contains("not empty"), "{}", shown(&again));
    assert!(!desk.desk(&["--hangs"]).status.success(), "that is for restarts");
}

//! Programs that a test writes and then starts.
//!
//! While a file is open for writing nobody can start it (`ETXTBSY`, execve(2)). A process that another test starts at
//! that moment has a copy of every open file until it becomes its program, however short this one writes. So the bytes
//! are written by a process of their own, which starts nothing.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Puts a program at `path` in one step, in place of what is there, and makes the folders above it.
///
/// # Panics
/// When it cannot be written.
pub fn place(path: &Path, content: &[u8], mode: u32) {
    let written = path.with_extension("written");
    let mut install = Command::new("install");
    install.args(["-D", "-m", &format!("{mode:o}"), "/dev/stdin"]).arg(&written).stdin(Stdio::piped());
    let mut writer = install.spawn().expect("`install` of the coreutils starts");
    writer.stdin.take().expect("it is piped").write_all(content).expect("it reads");
    assert!(writer.wait().expect("it ends").success(), "{}", written.display());
    fs::rename(&written, path).expect("it is there");
}

/// The same with the lines of a script of the shell.
///
/// # Panics
/// When it cannot be written.
pub fn place_script(path: &Path, lines: &str) {
    place(path, format!("#!/bin/sh\n{lines}\n").as_bytes(), 0o755);
}

/// Copies a program.
///
/// # Panics
/// When it cannot be written.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status().expect("`cp` of the coreutils starts");
    assert!(copied.success(), "{} to {}", from.display(), to.display());
}

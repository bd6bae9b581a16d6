//! Why the operating system refused, in the words of the cause: "no such file" about a program that is there means its
//! interpreter, "file exists" about a directory that is not there means a link that leads nowhere.
//!
//! It only looks, and only after something has failed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};

/// How much of a program is looked at. The kernel looks at 256 bytes for `#!`.
const HEAD_BYTES: u64 = 4096;

/// `error`, which starting `program` ended with, with its cause in front.
pub fn start_error(program: &OsStr, error: io::Error) -> io::Error {
    let path = Path::new(program);
    let cause = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) if !program.as_bytes().contains(&b'/') => {
            Some("it is in no directory of PATH".to_owned())
        }
        Some(Errno::ENOENT) => missing(path),
        Some(Errno::ENOEXEC) => foreign(path),
        Some(Errno::EACCES) => forbidden(path),
        Some(_) | None => None,
    };
    with_cause(error, cause)
}

/// `error`, which making the directory `path` with those above it ended with, with its cause in front.
pub fn create_directory_error(path: &Path, error: io::Error) -> io::Error {
    let dangling = path.ancestors().find_map(|place| {
        let target = fs::read_link(place).ok()?;
        (!place.exists()).then(|| {
            format!(
                "{} is a link to {}, which is not there: is the data partition mounted?",
                place.display(),
                target.display()
            )
        })
    });
    let in_the_way = || {
        let file = path.ancestors().find(|place| place.exists() && !place.is_dir())?;
        Some(format!("{} is no directory", file.display()))
    };
    let read_only = || {
        (error.kind() == io::ErrorKind::ReadOnlyFilesystem).then(|| {
            "nothing that can be written is mounted there: is the data partition mounted?".to_owned()
        })
    };
    let cause = dangling.or_else(in_the_way).or_else(read_only);
    with_cause(error, cause)
}

/// How `program`, or a shell that ran it, ended, with the cause where the program shows it.
pub fn ended(program: &Path, status: ExitStatus) -> String {
    let how = match status.signal() {
        Some(signal) => return format!("killed by signal {signal}"),
        None => status.to_string(),
    };
    let line_end = || head(program).and_then(|head| windows(&head));
    // Shells and `env` end with these numbers when a program cannot be run or is not there.
    let not_run = || missing(program).or_else(|| forbidden(program)).or_else(|| not_found_by_env(program));
    let cause = match status.code() {
        Some(0) => None,
        Some(126 | 127) => line_end().or_else(not_run),
        Some(_) | None => line_end(),
    };
    cause.map_or(how.clone(), |cause| format!("{how} ({cause})"))
}

fn with_cause(error: io::Error, cause: Option<String>) -> io::Error {
    match cause {
        Some(cause) => io::Error::new(error.kind(), format!("{cause} ({error})")),
        None => error,
    }
}

/// The program was not found, or something that it needs.
fn missing(path: &Path) -> Option<String> {
    if let (Ok(target), false) = (fs::read_link(path), path.exists()) {
        return Some(format!("it is a link to {}, which is not there", target.display()));
    }
    let head = head(path)?;
    if let Some(interpreter) = interpreter(&head) {
        let is_missing = || !interpreter.exists();
        let not_there = || {
            format!(
                "its interpreter {} is not installed (its first line is {:?})",
                interpreter.display(),
                first_line(&head)
            )
        };
        return windows(&head).or_else(|| is_missing().then(not_there));
    }
    let loader = elf_loader(path)?;
    let not_there = || {
        format!("the loader {} that it needs is not here: it was built for another system", loader.display())
    };
    (!loader.exists()).then(not_there)
}

/// It is nothing that this machine can run.
fn foreign(path: &Path) -> Option<String> {
    let head = head(path)?;
    if head.is_empty() {
        return Some("it is empty".to_owned());
    }
    let Some(machine) = elf_machine(&head) else {
        return Some(format!(
            "it has no #! in front and is no program (its first line is {:?})",
            first_line(&head)
        ));
    };
    let own = File::open("/proc/self/exe").ok().and_then(|file| {
        let mut head = Vec::new();
        file.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
        elf_machine(&head)
    });
    (own != Some(machine)).then(|| {
        let own = own.map_or("another one".to_owned(), machine_name);
        format!("it is built for {}, and this system for {own}", machine_name(machine))
    })
}

fn forbidden(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    if found.is_dir() {
        return Some("it is a directory".to_owned());
    }
    if found.permissions().mode() & 0o111 == 0 {
        return Some(NOT_EXECUTABLE.to_owned());
    }
    let no_exec = |path: &Path| statvfs(path).is_ok_and(|at| at.flags().contains(FsFlags::ST_NOEXEC));
    if no_exec(path) {
        return Some("it lies on a file system that is mounted noexec".to_owned());
    }
    let interpreter = interpreter(&head(path)?)?;
    let mode = fs::metadata(&interpreter).ok()?.permissions().mode();
    (mode & 0o111 == 0).then(|| format!("its interpreter {} is not executable", interpreter.display()))
}

/// What a program lacks that may not be run.
pub const NOT_EXECUTABLE: &str = "it is not executable: chmod +x";

fn head(path: &Path) -> Option<Vec<u8>> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    Some(head)
}

fn first_line(head: &[u8]) -> String {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).chars().take(80).collect()
}

/// The words behind `#!`.
fn interpreter_words(head: &[u8]) -> Option<Vec<String>> {
    let line = first_line(head.strip_prefix(b"#!")?);
    Some(line.split([' ', '\t']).filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

fn interpreter(head: &[u8]) -> Option<PathBuf> {
    interpreter_words(head)?.first().map(PathBuf::from)
}

/// The first line ends as files of Windows do: to the kernel that is part of the name.
fn windows(head: &[u8]) -> Option<String> {
    let line = first_line(head);
    (line.starts_with("#!") && line.ends_with('\r'))
        .then(|| format!("its first line {line:?} ends with a line end of Windows: convert it with dos2unix"))
}

/// `#!/usr/bin/env NAME`, and there is no NAME.
fn not_found_by_env(path: &Path) -> Option<String> {
    let words = interpreter_words(&head(path)?)?;
    let [env, name, ..] = &words[..] else { return None };
    if !env.ends_with("/env") || name.starts_with('-') || name.contains('=') {
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|directory| directory.join(name).exists());
    (!is_there).then(|| format!("its interpreter {name} is in no directory of PATH"))
}

/// Class, byte order and machine of a program.
fn elf_machine(head: &[u8]) -> Option<(u8, u8, u16)> {
    let fields = head.strip_prefix(b"\x7fELF")?;
    let (class, order) = (*fields.first()?, *fields.get(1)?);
    let machine: [u8; 2] = fields.get(14..16)?.try_into().ok()?;
    Some((class, order, if order == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) }))
}

fn machine_name((class, order, machine): (u8, u8, u16)) -> String {
    let name = match machine {
        3 => "x86",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "PowerPC 64",
        40 => "ARM",
        62 => "x86-64",
        183 => "ARM 64",
        243 => "RISC-V",
        _ => return format!("machine {machine} of ELF"),
    };
    let bits = match machine {
        8 | 243 if class == 2 => " 64",
        8 | 243 => " 32",
        _ => "",
    };
    format!("{name}{bits}{}", if order == 2 { ", big-endian" } else { "" })
}

/// The dynamic loader that a program of 32 or 64 bits in this machine's byte order asks for.
fn elf_loader(path: &Path) -> Option<PathBuf> {
    const INTERPRETER: u32 = 3;
    let head = head(path)?;
    let (class, order, _) = elf_machine(&head)?;
    if order != if cfg!(target_endian = "big") { 2 } else { 1 } {
        return None;
    }
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let field = head.get(at..at + bytes)?;
        let little = field.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let big = field.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        usize::try_from(if order == 2 { big } else { little }).ok()
    };
    let is_64 = class == 2;
    let (table, entry_bytes, entries) = if is_64 {
        (number(32, 8)?, number(54, 2)?, number(56, 2)?)
    } else {
        (number(28, 4)?, number(42, 2)?, number(44, 2)?)
    };
    for entry in 0..entries.min(64) {
        let at = table.checked_add(entry.checked_mul(entry_bytes)?)?;
        if at > head.len() {
            return None;
        }
        if number(at, 4)? == INTERPRETER as usize {
            let (offset, bytes) = if is_64 {
                (number(at + 8, 8)?, number(at + 32, 8)?)
            } else {
                (number(at + 4, 4)?, number(at + 16, 4)?)
            };
            let name = head.get(offset..offset.checked_add(bytes)?)?;
            let name = name.split(|byte| *byte == 0).next()?;
            return Some(PathBuf::from(OsStr::from_bytes(name)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        fn program(&self, content: &[u8], mode: u32) -> PathBuf {
            let path = self.0.path().join("program");
            testkit::programs::place(&path, content, mode);
            path
        }
    }

    /// Starting the program fails, and this is said of it.
    fn check(content: &[u8], mode: u32, words: &[&str]) {
        let folder = Folder::new();
        let path = folder.program(content, mode);
        let error = Command::new(&path).spawn().err().unwrap();
        check_words(&start_error(path.as_os_str(), error).to_string(), words);
    }

    fn check_words(said: &str, words: &[&str]) {
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
    }

    #[test]
    fn an_interpreter_that_is_missing_is_named_and_not_the_script() {
        check(b"#!/bin/sh\r\nexit 0\r\n", 0o755, &["\"#!/bin/sh\\r\"", "Windows"]);
        check(b"#!/bin/nosuchbash\n", 0o755, &["interpreter /bin/nosuchbash is not installed"]);
        check(b"#! /opt/no such -x\n", 0o755, &["interpreter /opt/no is not installed"]);
    }

    #[test]
    fn a_program_that_may_not_be_run_says_what_it_lacks() {
        check(b"#!/bin/sh\n", 0o644, &["not executable", "chmod +x"]);
        let folder = Folder::new();
        let error = Command::new(folder.0.path()).spawn().err().unwrap();
        check_words(&start_error(folder.0.path().as_os_str(), error).to_string(), &["it is a directory"]);
    }

    #[test]
    fn what_no_machine_runs_and_what_another_one_runs_are_told_apart() {
        let said = |content: &[u8]| {
            let folder = Folder::new();
            let path = folder.program(content, 0o755);
            start_error(path.as_os_str(), Errno::ENOEXEC.into()).to_string()
        };
        check_words(&said(b"echo hello\n"), &["no #!", "\"echo hello\""]);
        check_words(&said(b""), &["it is empty"]);
        let mut elf = fs::read("/proc/self/exe").unwrap()[..64].to_vec();
        elf[18] = if elf[18] == 243 { 62 } else { 243 };
        check_words(&said(&elf), &["it is built for", "and this system for"]);
    }

    #[test]
    fn a_loader_that_is_missing_is_named() {
        let mut program = fs::read("/proc/self/exe").unwrap();
        let Some(loader) = elf_loader(Path::new("/proc/self/exe")) else {
            return; // linked statically
        };
        let name = loader.as_os_str().as_bytes();
        let at = program.windows(name.len()).position(|part| part == name).unwrap();
        program[at + 1] = b'X';
        check(&program, 0o755, &["the loader /X", "another system"]);
    }

    #[test]
    fn names_without_a_place_and_links_to_nothing_are_called_that() {
        let error = Command::new("no-such-program-at-all").spawn().err().unwrap();
        check_words(&start_error("no-such-program-at-all".as_ref(), error).to_string(), &["PATH"]);
        let folder = Folder::new();
        let link = folder.0.path().join("link");
        std::os::unix::fs::symlink("/no/where", &link).unwrap();
        let error = Command::new(&link).spawn().err().unwrap();
        check_words(&start_error(link.as_os_str(), error).to_string(), &["a link to /no/where"]);
    }

    #[test]
    fn an_exit_status_of_not_found_is_explained_by_the_first_line() {
        let folder = Folder::new();
        for (content, words) in [
            (&b"#!/usr/bin/env sh\r\nexit 0\n"[..], &["exit status: 127", "Windows"][..]),
            (b"#!/usr/bin/env no-such-shell\n", &["interpreter no-such-shell is in no directory of PATH"]),
            (b"#!/bin/sh -e\r\nexit 0\r\n", &["exit status: 2", "Windows"]),
            (b"#!/bin/sh\nexit 3\n", &["exit status: 3"]),
            (b"#!/bin/sh\nkill -9 $$\n", &["killed by signal 9"]),
        ] {
            let path = folder.program(content, 0o755);
            check_words(&ended(&path, Command::new(&path).status().unwrap()), words);
        }
        // A shell in between says the same with its exit status.
        for (content, mode, words) in [
            (
                &b"#!/bin/nosuchbash\n"[..],
                0o755,
                &["exit status: 127", "/bin/nosuchbash is not installed"][..],
            ),
            (b"#!/bin/sh\n", 0o644, &["exit status: 126", "chmod +x"]),
        ] {
            let path = folder.program(content, mode);
            let status = Command::new("/bin/sh").arg("-c").arg(&path).status().unwrap();
            check_words(&ended(&path, status), words);
        }
    }

    #[test]
    fn a_directory_behind_a_link_to_nothing_is_a_partition_that_is_not_mounted() {
        let folder = Folder::new();
        let link = folder.0.path().join("mender");
        std::os::unix::fs::symlink("/data/no-such-place", &link).unwrap();
        for path in [link.clone(), link.join("deeper")] {
            let error = fs::create_dir_all(&path).unwrap_err();
            let words = ["/data/no-such-place", "not there", "mounted?"];
            check_words(&create_directory_error(&path, error).to_string(), &words);
        }
        let error = create_directory_error(folder.0.path(), Errno::EROFS.into());
        check_words(&error.to_string(), &["is the data partition mounted?", "Read-only"]);
        let file = folder.program(b"", 0o644);
        let error = fs::create_dir_all(file.join("deeper")).unwrap_err();
        check_words(&create_directory_error(&file.join("deeper"), error).to_string(), &["is no directory"]);
    }
}

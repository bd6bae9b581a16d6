//! Files inside of a file system image, by the programs that know the file systems: `debugfs` of e2fsprogs for ext, and
//! mtools for FAT. Nothing is mounted, so nobody has to be root.

use crate::failure::Failure;
use artifact::text::printable;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A file system in a file.
pub(crate) struct FileSystem {
    image: PathBuf,
    /// Where in it the file system begins.
    offset: u64,
    /// What people call it: an image from an artifact is a temporary file.
    shown: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ext,
    Fat,
}

/// How an image is opened: looking does not write.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    File { mode: u32, owner: (u32, u32) },
    Directory,
}

const NEW_FILE: (u32, u32) = (0, 0);

impl FileSystem {
    /// Looks at what begins at `offset` in an image that people call `shown`; `None` when it is nothing that can be
    /// changed.
    pub(crate) fn detect(image: &Path, offset: u64, shown: &Path) -> Result<Option<FileSystem>, Failure> {
        let failed = |error| Failure::io(format_args!("read {}", shown.display()), error);
        let mut file = File::open(image).map_err(failed)?;
        let mut start = vec![0; 512];
        let mut superblock = vec![0; 1024];
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let read = read_up_to(&mut file, &mut start).map_err(failed)?;
        start.truncate(read);
        file.seek(SeekFrom::Start(offset.saturating_add(1024))).map_err(failed)?;
        let read = read_up_to(&mut file, &mut superblock).map_err(failed)?;
        superblock.truncate(read);
        let kind = if superblock.get(0x38..0x3a) == Some(&[0x53, 0xef]) {
            Kind::Ext
        } else if start.get(510..) == Some(&[0x55, 0xaa])
            && (start.get(54..57) == Some(b"FAT") || start.get(82..87) == Some(b"FAT32"))
        {
            Kind::Fat
        } else {
            return Ok(None);
        };
        Ok(Some(FileSystem { image: image.to_owned(), offset, shown: shown.display().to_string(), kind }))
    }

    /// To be called before the first change: a journal that was not written back would undo it.
    pub(crate) fn replay_journal(&self) -> Result<(), Failure> {
        if self.kind == Kind::Fat {
            return Ok(());
        }
        let mut check = program("e2fsck", "e2fsprogs")?;
        let output = run(check.arg("-p").arg(self.ext_image()))?;
        match output.status.code() {
            Some(0 | 1) => Ok(()),
            _ => {
                let said = [output.stdout, output.stderr].concat();
                Err(self.failed("check it", &String::from_utf8_lossy(&said)))
            }
        }
    }

    pub(crate) fn look(&self, path: &str) -> Result<Found, Failure> {
        if path == "/" {
            return Ok(Found::Directory);
        }
        match self.kind {
            Kind::Ext => {
                let (out, err) = self.debugfs(Access::Read, &format!("stat {}", ext_name(path)?))?;
                if err.contains("File not found") {
                    return Ok(Found::Nothing);
                }
                if !err.is_empty() {
                    return Err(self.failed(&format!("look at {path}"), &err));
                }
                let word = |key: &str| out.split(key).nth(1)?.split_whitespace().next().map(str::to_owned);
                let number = |key: &str| word(key).and_then(|text| text.parse().ok());
                let unknown = || self.failed(&format!("look at {path}"), &out);
                match word("Type:").as_deref() {
                    Some("regular") => {
                        let mode = word("Mode:").and_then(|mode| u32::from_str_radix(&mode, 8).ok());
                        let owner = number("User:").zip(number("Group:"));
                        let (mode, owner) = mode.zip(owner).ok_or_else(unknown)?;
                        Ok(Found::File { mode, owner })
                    }
                    Some("directory") => Ok(Found::Directory),
                    Some("symlink") => Err(Failure::usage(format!(
                        "{path} is a symbolic link in the image: name the file that it leads to"
                    ))),
                    Some(other) => {
                        Err(Failure::usage(format!("{path} is neither file nor directory: {other}")))
                    }
                    None => Err(unknown()),
                }
            }
            Kind::Fat => {
                let mut command = self.mtools("mdir")?;
                let listed = run(command.arg("-b").arg("-a").arg(fat_name(path)?))?;
                if !listed.status.success() {
                    return Ok(Found::Nothing);
                }
                // A directory is listed by what is in it; a file is one line with its own name.
                let text = String::from_utf8_lossy(&listed.stdout).into_owned();
                let is_file = text.lines().any(|line| same_fat_name(line, path));
                Ok(if is_file { Found::File { mode: 0o644, owner: NEW_FILE } } else { Found::Directory })
            }
        }
    }

    /// Copies a file out of the image, and gives its mode.
    pub(crate) fn read(&self, path: &str, to: &Path) -> Result<u32, Failure> {
        let Found::File { mode, .. } = self.look(path)? else {
            return Err(Failure::usage(format!("there is no file {path} in {}", self.shown)));
        };
        match self.kind {
            Kind::Ext => {
                let command = format!("dump {} {}", ext_name(path)?, ext_name(&to.display().to_string())?);
                let (_, err) = self.debugfs(Access::Read, &command)?;
                self.succeeded(&format!("read {path}"), &err)?;
            }
            Kind::Fat => {
                let mut command = self.mtools("mcopy")?;
                let output = run(command.arg("-n").arg(fat_name(path)?).arg(to))?;
                self.exited_well(&format!("read {path}"), &output)?;
            }
        }
        Ok(mode)
    }

    /// Puts a file into the image. One that is there is replaced, and keeps owner and, without `mode`, its mode.
    pub(crate) fn write(&self, path: &str, from: &Path, mode: Option<u32>) -> Result<(), Failure> {
        let (folder, _) = parent(path)?;
        if self.look(folder)? != Found::Directory {
            return Err(Failure::usage(format!("there is no directory {folder} in the image")));
        }
        let old = match self.look(path)? {
            Found::Directory => {
                return Err(Failure::usage(format!("{path} is a directory in the image")));
            }
            Found::File { mode, owner } => Some((mode, owner)),
            Found::Nothing => None,
        };
        let doing = format!("write {path}");
        match self.kind {
            Kind::Ext => {
                let name = ext_name(path)?;
                let mut commands = Vec::new();
                if old.is_some() {
                    commands.push(format!("rm {name}"));
                }
                commands.push(format!("write {} {name}", ext_name(&from.display().to_string())?));
                let of_source = || fs::metadata(from).map(|meta| permissions(&meta)).ok();
                let bits = mode.or(old.map(|(mode, _)| mode)).or_else(of_source).unwrap_or(0o644);
                let (user, group) = old.map_or(NEW_FILE, |(_, owner)| owner);
                commands.push(format!("set_inode_field {name} mode 0{:o}", 0o100_000 | bits));
                commands.push(format!("set_inode_field {name} uid {user}"));
                commands.push(format!("set_inode_field {name} gid {group}"));
                let (_, err) = self.debugfs(Access::Write, &commands.join("\n"))?;
                self.succeeded(&doing, &err)
            }
            Kind::Fat => {
                let mut command = self.mtools("mcopy")?;
                let output = run(command.arg("-n").arg("-o").arg(from).arg(fat_name(path)?))?;
                self.exited_well(&doing, &output)
            }
        }
    }

    /// Makes a directory and those above it.
    pub(crate) fn make_directory(&self, path: &str) -> Result<(), Failure> {
        match self.look(path)? {
            Found::Directory => return Ok(()),
            Found::File { .. } => return Err(Failure::usage(format!("{path} is a file in the image"))),
            Found::Nothing => {}
        }
        let (folder, _) = parent(path)?;
        self.make_directory(folder)?;
        let doing = format!("make {path}");
        match self.kind {
            Kind::Ext => {
                let (_, err) = self.debugfs(Access::Write, &format!("mkdir {}", ext_name(path)?))?;
                self.succeeded(&doing, &err)
            }
            Kind::Fat => {
                let output = run(self.mtools("mmd")?.arg(fat_name(path)?))?;
                self.exited_well(&doing, &output)
            }
        }
    }

    /// Removes a file, or an empty directory; with `all` also one that is not empty.
    pub(crate) fn remove(&self, path: &str, all: bool) -> Result<(), Failure> {
        let doing = format!("remove {path}");
        let found = self.look_for_removal(path)?;
        if found == Found::Nothing {
            return Err(Failure::usage(format!("there is no {path} in the image")));
        }
        let is_directory = found == Found::Directory;
        if is_directory && path == "/" {
            return Err(Failure::usage("/ cannot be removed"));
        }
        match self.kind {
            Kind::Ext => {
                if is_directory {
                    let below = self.entries(path)?;
                    if !below.is_empty() && !all {
                        return Err(Failure::usage(format!(
                            "{path} is not empty; --recursive removes it all"
                        )));
                    }
                    for name in below {
                        self.remove(&format!("{}/{name}", path.trim_end_matches('/')), true)?;
                    }
                }
                let verb = if is_directory { "rmdir" } else { "rm" };
                let (_, err) = self.debugfs(Access::Write, &format!("{verb} {}", ext_name(path)?))?;
                self.succeeded(&doing, &err)
            }
            Kind::Fat => {
                let verb = match (is_directory, all) {
                    (false, _) => "mdel",
                    (true, false) => "mrd",
                    (true, true) => "mdeltree",
                };
                let output = run(self.mtools(verb)?.arg(fat_name(path)?))?;
                self.exited_well(&doing, &output)
            }
        }
    }

    /// Like [`FileSystem::look`]; whatever is no directory is removed as a file is.
    fn look_for_removal(&self, path: &str) -> Result<Found, Failure> {
        if self.kind == Kind::Fat || path == "/" {
            return self.look(path);
        }
        let (out, err) = self.debugfs(Access::Read, &format!("stat {}", ext_name(path)?))?;
        Ok(if err.contains("File not found") {
            Found::Nothing
        } else if out.contains("Type: directory") {
            Found::Directory
        } else {
            Found::File { mode: 0, owner: NEW_FILE }
        })
    }

    /// Names in a directory of an ext file system.
    fn entries(&self, path: &str) -> Result<Vec<String>, Failure> {
        let (out, err) = self.debugfs(Access::Read, &format!("ls -p {}", ext_name(path)?))?;
        self.succeeded(&format!("list {path}"), &err)?;
        // `/inode/mode/uid/gid/name/size/`
        let names = out.lines().filter_map(|line| line.split('/').nth(5).map(str::to_owned));
        Ok(names.filter(|name| !name.is_empty() && name != "." && name != "..").collect())
    }

    /// Runs commands, one a line. `debugfs` succeeds whatever happens; what it complains of is the second text.
    fn debugfs(&self, access: Access, commands: &str) -> Result<(String, String), Failure> {
        let mut command = program("debugfs", "e2fsprogs")?;
        match access {
            Access::Read => {}
            Access::Write => {
                command.arg("-w");
            }
        }
        command.args(["-f", "-"]).arg(self.ext_image()).env("DEBUGFS_PAGER", "cat").env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error| Failure::io("run debugfs", error);
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(format!("{commands}\n").as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // The first line of it is the version.
        let said = text(&output.stderr);
        let err: Vec<&str> = said.lines().filter(|line| !line.starts_with("debugfs ")).collect();
        if !output.status.success() {
            return Err(self.failed("change it", &said));
        }
        Ok((text(&output.stdout), err.join(" ").trim().to_owned()))
    }

    /// How the programs of e2fsprogs are told what to open.
    fn ext_image(&self) -> OsString {
        let mut name = self.image.clone().into_os_string();
        if self.offset > 0 {
            name.push(format!("?offset={}", self.offset));
        }
        name
    }

    /// One of the mtools, told what to open.
    fn mtools(&self, name: &str) -> Result<Command, Failure> {
        let mut command = program(name, "mtools")?;
        let mut image = self.image.clone().into_os_string();
        image.push(format!("@@{}", self.offset));
        command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(image);
        Ok(command)
    }

    fn succeeded(&self, doing: &str, err: &str) -> Result<(), Failure> {
        match err.is_empty() {
            true => Ok(()),
            false => Err(self.failed(doing, err)),
        }
    }

    fn exited_well(&self, doing: &str, output: &Output) -> Result<(), Failure> {
        match output.status.success() {
            true => Ok(()),
            false => Err(self.failed(doing, &String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn failed(&self, doing: &str, said: &str) -> Failure {
        Failure::usage(format!("{}: cannot {doing}: {}", self.shown, printable(said.trim())))
    }
}

/// Its permission bits.
pub(crate) fn permissions(meta: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(meta) & 0o7777
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The directory of a path, and the name in it.
fn parent(path: &str) -> Result<(&str, &str), Failure> {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some((folder, name)) => Ok((if folder.is_empty() { "/" } else { folder }, name)),
        None => Err(Failure::usage(format!("{path:?} is not an absolute path"))),
    }
}

/// A word for `debugfs`, which takes everything in quotes as it is.
fn ext_name(path: &str) -> Result<String, Failure> {
    match path.contains(['"', '\n', '\r', '\0']) {
        true => Err(Failure::usage(format!("{path:?}: quotes and line ends cannot be in a path here"))),
        false => Ok(format!("\"{path}\"")),
    }
}

/// A name for mtools, which take patterns.
fn fat_name(path: &str) -> Result<String, Failure> {
    match path.contains(['*', '?', '[', '\\', '\n', '\0']) {
        true => Err(Failure::usage(format!("{path:?} is no name of a FAT file system"))),
        false => Ok(format!("::{path}")),
    }
}

/// Whether a line of `mdir -b` is this path; FAT does not know letter case.
fn same_fat_name(line: &str, path: &str) -> bool {
    let plain = |name: &str| name.trim_start_matches("::").trim_matches('/').to_lowercase();
    !line.ends_with('/') && plain(line) == plain(path)
}

/// A program that need not be in the path of somebody who is not root.
fn program(name: &str, package: &str) -> Result<Command, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.map(Command::new).ok_or_else(|| {
        Failure::usage(format!("the program {name} is needed to change this image: install {package}"))
    })
}

fn run(command: &mut Command) -> Result<Output, Failure> {
    let output = command.stdin(Stdio::null()).env("LC_ALL", "C").output();
    output.map_err(|error| Failure::io(format_args!("run {:?}", command.get_program()), error))
}

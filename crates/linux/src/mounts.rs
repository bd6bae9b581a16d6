//! What is mounted, from `/proc/self/mountinfo`, what lies under it, and what the kernel was told to mount as root.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use client_core::slot::SlotError;

use crate::block_device;

/// Devices that may lie on one another; more is a mistake in what the kernel says.
const LAYERS: usize = 8;

/// What identifies a device or file, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Device number of a block device.
    Block(u64),
    /// Device number of a character device.
    Character(u64),
    /// File system and inode of a plain file.
    File(u64, u64),
}

impl Identity {
    /// Of what `metadata` describes.
    pub fn of(metadata: &Metadata) -> Identity {
        let kind = metadata.file_type();
        if kind.is_block_device() {
            Identity::Block(metadata.rdev())
        } else if kind.is_char_device() {
            Identity::Character(metadata.rdev())
        } else {
            Identity::File(metadata.dev(), metadata.ino())
        }
    }

    /// Of what `path` leads to.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn at(path: &Path) -> io::Result<Identity> {
        Ok(Identity::of(&fs::metadata(path)?))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Block(number) | Identity::Character(number) => {
                let (major, minor) = (nix::sys::stat::major(*number), nix::sys::stat::minor(*number));
                write!(f, "device {major}:{minor}")
            }
            Identity::File(..) => f.write_str("a file"),
        }
    }
}

/// Where the kernel and udev tell about devices: elsewhere in tests only.
#[derive(Debug, Clone)]
pub struct Places {
    dev: PathBuf,
    sys: PathBuf,
    proc: PathBuf,
}

impl Default for Places {
    fn default() -> Places {
        Places::below(Path::new("/"))
    }
}

impl Places {
    /// Those of the machine whose root is `root`: a directory of tests.
    pub fn below(root: &Path) -> Places {
        Places { dev: root.join("dev"), sys: root.join("sys"), proc: root.join("proc") }
    }

    /// What identifies the thing that `path` leads to.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn identity(&self, path: &Path) -> io::Result<Identity> {
        let found = Identity::at(path)?;
        Ok(self.stand_in(path, found).unwrap_or(found))
    }

    /// Tests cannot make device nodes: a plain file in their `dev` is the block device of its name in their `sys`.
    fn stand_in(&self, path: &Path, found: Identity) -> Option<Identity> {
        let is_node = self.dev == Path::new("/dev") || !matches!(found, Identity::File(..));
        let path = Some(path).filter(|_| !is_node)?.canonicalize().ok()?;
        let name = path.strip_prefix(self.dev.canonicalize().ok()?).ok()?.to_str()?;
        number_in(&self.of_name(name)).map(Identity::Block)
    }

    /// The kernel's command line. One that cannot be read says nothing.
    pub fn command_line(&self) -> String {
        let bytes = fs::read(self.proc.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The block device that the directory `folder` of sysfs tells about.
    pub fn identity_of_folder(&self, folder: &Path) -> Option<Identity> {
        number_in(folder).map(Identity::Block)
    }

    /// What the kernel tells about the block device `identity`; `None` where it is none.
    pub fn of_device(&self, identity: Identity) -> Option<PathBuf> {
        match identity {
            Identity::Block(number) => fs::canonicalize(self.of_number(number)).ok(),
            Identity::Character(_) | Identity::File(..) => None,
        }
    }

    /// What the kernel tells about the block device with this number.
    fn of_number(&self, device: u64) -> PathBuf {
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        self.sys.join(format!("dev/block/{major}:{minor}"))
    }

    /// What it tells about the one with this name in `/dev`.
    fn of_name(&self, name: &str) -> PathBuf {
        self.sys.join("class/block").join(name.replace('/', "!"))
    }

    /// The devices that lie directly under `device`: of device mapper and arrays.
    fn under(&self, device: u64) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(self.of_number(device).join("slaves")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| number_in(&entry.path())).collect()
    }

    /// Whether `device` is `wanted`, or lies on it.
    fn lies_on(&self, device: u64, wanted: u64) -> bool {
        let mut layer = vec![device];
        for _ in 0..LAYERS {
            if layer.contains(&wanted) {
                return true;
            }
            layer = layer.into_iter().flat_map(|device| self.under(device)).take(64).collect();
        }
        false
    }
}

/// The device number that a directory of sysfs tells.
fn number_in(directory: &Path) -> Option<u64> {
    parse_number(fs::read_to_string(directory.join("dev")).ok()?.trim())
}

/// `179:2`
fn parse_number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The number of the partition that `node` is, as the kernel counts. None where it is no partition.
pub fn partition_number(node: &Path, places: &Places) -> Option<u32> {
    let Identity::Block(device) = places.identity(node).ok()? else { return None };
    partition_in(&places.of_number(device))
}

fn partition_in(directory: &Path) -> Option<u32> {
    fs::read_to_string(directory.join("partition")).ok()?.trim().parse().ok()
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Device number.
    pub device: u64,
    /// Where it is mounted.
    pub point: String,
    /// What the kernel calls its source.
    pub source: String,
    /// Its type.
    pub file_system: String,
    /// Whether nothing can be written to it here.
    pub read_only: bool,
    /// The file behind a loop device.
    pub backing_file: Option<PathBuf>,
}

impl Mount {
    /// Whether it has the device or file `target` underneath: directly, through device mapper, through a loop device, as
    /// a UBI volume, or as the block device of one.
    pub fn lies_on(&self, target: Identity, places: &Places) -> bool {
        let is_target = |path: &Path| places.identity(path).is_ok_and(|found| found == target);
        match target {
            Identity::Block(number) => {
                places.lies_on(self.device, number)
                    // Some file systems have device numbers of their own.
                    || self.source.starts_with('/') && is_target(Path::new(&self.source))
            }
            Identity::Character(_) => {
                let volume = self.source.strip_prefix("/dev/").unwrap_or(&self.source);
                let volume = match volume.strip_prefix("ubiblock") {
                    Some(number) => format!("ubi{number}"),
                    None => ubi_name(volume),
                };
                volume.starts_with("ubi")
                    && block_device::resolve(&places.dev.join(volume)).is_ok_and(|path| is_target(&path))
            }
            Identity::File(..) => self.backing_file.as_deref().is_some_and(is_target),
        }
    }
}

/// Everything that is mounted in this name space, in the order of mounting.
///
/// # Errors
/// When `/proc` is not there.
pub fn read(places: &Places) -> Result<Vec<Mount>, SlotError> {
    let path = places.proc.join("self/mountinfo");
    let bytes = fs::read(&path).map_err(|source| SlotError::Io {
        doing: "read",
        path: path.display().to_string(),
        source,
    })?;
    // A mount point in another encoding is none of ours.
    let mounts = parse(&String::from_utf8_lossy(&bytes));
    Ok(mounts.into_iter().map(|mount| with_backing_file(mount, places)).collect())
}

/// The mounts that `text` lists, the last one on top. What is behind a loop device it does not say.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// One line, as proc(5) describes it: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn parse_line(line: &str) -> Option<Mount> {
    let (fixed, after_dash) = line.split_once(" - ")?;
    let mut fixed = fixed.split(' ').skip(2);
    let device = parse_number(fixed.next()?)?;
    let point = unescape(fixed.nth(1)?);
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let mut after_dash = after_dash.split(' ');
    let file_system = unescape(after_dash.next()?);
    let source = unescape(after_dash.next()?);
    // The mount, or the file system as a whole.
    let read_only = fixed.next().is_some_and(is_read_only) || after_dash.next().is_some_and(is_read_only);
    Some(Mount { device, point, source, file_system, read_only, backing_file: None })
}

/// Spaces, tabs, newlines and backslashes are written as octal escapes.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte as char);
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

fn with_backing_file(mut mount: Mount, places: &Places) -> Mount {
    let path = places.of_number(mount.device).join("loop/backing_file");
    mount.backing_file = fs::read_to_string(path).ok().map(|text| PathBuf::from(text.trim_end_matches('\n')));
    mount
}

/// The `root=` that counts on a command line of the kernel: the last one before `--`, without the quotes that keep
/// blanks in it.
pub fn root_argument(command_line: &str) -> Option<String> {
    let mut found = None;
    let mut quoted = false;
    let is_end = |c: char| {
        quoted ^= c == '"';
        c.is_ascii_whitespace() && !quoted
    };
    for word in command_line.split(is_end) {
        if word == "--" {
            break;
        }
        let word = word.replace('"', "");
        found = word.strip_prefix("root=").map(str::to_owned).or(found);
    }
    found.filter(|argument| !argument.is_empty())
}

/// The device that `root=` names, in any form that the kernel or an initial ram disk takes, where it is here.
pub fn device_of(argument: &str, places: &Places) -> Option<Identity> {
    let argument = argument.strip_prefix("block:").unwrap_or(argument);
    let by = |directory: &str, name: &str, same: fn(&str, &str) -> bool| {
        let entries = fs::read_dir(places.dev.join("disk").join(directory)).ok()?;
        let is_it = |entry: &fs::DirEntry| same(&undo_hex(&entry.file_name().to_string_lossy()), name);
        places.identity(&entries.flatten().find(is_it)?.path()).ok()
    };
    let exactly: fn(&str, &str) -> bool = |one, other| one == other;
    // The kernel compares identifiers without regard to case.
    let any_case: fn(&str, &str) -> bool = |one, other| one.eq_ignore_ascii_case(other);
    match argument.split_once('=') {
        Some(("PARTUUID", id)) => {
            let (id, offset) = match id.split_once("/PARTNROFF=") {
                Some((id, offset)) => (id, offset.parse().ok()?),
                None => (id, 0),
            };
            let named =
                by("by-partuuid", id, any_case).or_else(|| places.by_event("PARTUUID", id, any_case))?;
            if offset == 0 { Some(named) } else { places.sibling(named, offset) }
        }
        Some(("PARTLABEL", label)) => {
            by("by-partlabel", label, exactly).or_else(|| places.by_event("PARTNAME", label, exactly))
        }
        Some(("UUID", id)) => by("by-uuid", id, any_case),
        Some(("LABEL", label)) => by("by-label", label, exactly),
        Some(_) => None,
        None if argument.starts_with("ubi") => {
            let path = block_device::resolve(&places.dev.join(ubi_name(argument))).ok()?;
            places.identity(&path).ok()
        }
        None => match argument.strip_prefix("/dev/") {
            // A node that nobody has made is known to the kernel all the same.
            Some(name) => places
                .identity(&places.dev.join(name))
                .ok()
                .or_else(|| number_in(&places.of_name(name)).map(Identity::Block)),
            None => number_argument(argument).map(Identity::Block),
        },
    }
}

impl Places {
    /// The partition of which the kernel tells this, where there is no udev.
    fn by_event(&self, key: &str, value: &str, same: fn(&str, &str) -> bool) -> Option<Identity> {
        let entries = fs::read_dir(self.sys.join("class/block")).ok()?;
        let tells_it = |path: &PathBuf| {
            let event = fs::read_to_string(path.join("uevent")).unwrap_or_default();
            event.lines().filter_map(|line| line.split_once('=')).any(|(k, v)| k == key && same(v, value))
        };
        let directory = entries.flatten().map(|entry| entry.path()).find(tells_it)?;
        number_in(&directory).map(Identity::Block)
    }

    /// The partition whose number differs by `offset` on the same disk.
    fn sibling(&self, partition: Identity, offset: i32) -> Option<Identity> {
        let Identity::Block(device) = partition else { return None };
        let directory = fs::canonicalize(self.of_number(device)).ok()?;
        let number = partition_in(&directory)?.checked_add_signed(offset)?;
        let entries = fs::read_dir(directory.parent()?).ok()?;
        let is_it = |path: &PathBuf| partition_in(path) == Some(number);
        let sibling = entries.flatten().map(|entry| entry.path()).find(is_it)?;
        number_in(&sibling).map(Identity::Block)
    }
}

/// A device number as the kernel takes it: `179:2`, or `b302` with the bits where the kernel has them.
fn number_argument(text: &str) -> Option<u64> {
    if text.contains(':') {
        // Behind a second colon is an offset, which is none of ours.
        let end = text.match_indices(':').nth(1).map_or(text.len(), |(at, _)| at);
        return parse_number(&text[..end]);
    }
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let number = u64::from(u32::from_str_radix(digits, 16).ok()?);
    let (major, minor) = ((number & 0xf_ff00) >> 8, number & 0xff | number >> 12 & 0xf_ff00);
    Some(nix::sys::stat::makedev(major, minor))
}

/// A UBI volume as `/dev` has it, or as it is looked up: `ubi0:name` and `ubi0_1` as they are, and the short forms of
/// the first UBI device.
fn ubi_name(volume: &str) -> String {
    let volume = volume.replacen('!', ":", 1);
    match volume.strip_prefix("ubi") {
        Some(rest) if rest.starts_with(':') => format!("ubi0{rest}"),
        Some(rest) if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("ubi0_{rest}")
        }
        Some(_) | None => volume,
    }
}

/// A name of udev as it was before: blanks and what else a path cannot have are `\x20`.
fn undo_hex(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = rest.strip_prefix(b"\\x").and_then(|digits| digits.get(..2));
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_gives_device_place_and_source() {
        let mount =
            parse_line("36 35 98:1 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw").unwrap();
        assert_eq!((mount.point.as_str(), mount.source.as_str()), ("/mnt 2", "/dev/root"));
        assert_eq!((mount.file_system.as_str(), mount.read_only), ("ext3", false));
        for read_only in ["36 35 98:1 / /a ro,noatime - ext3 x rw", "36 35 98:1 / /a rw - ext3 x ro,data=x"] {
            assert!(parse_line(read_only).unwrap().read_only);
        }
        assert_eq!(mount.device, nix::sys::stat::makedev(98, 1));
    }

    #[test]
    fn a_line_that_is_not_one_is_left_out() {
        for line in ["", "36 35", "36 35 x:1 / / rw - ext3 /dev/root", "36 35 98:1 / / rw ext3 /dev/root"] {
            assert_eq!(parse_line(line), None, "{line}");
        }
        assert_eq!(unescape("a\\b\\9"), "a\\b\\9");
    }

    #[test]
    fn the_last_root_on_the_command_line_counts_and_quotes_keep_blanks() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(root_argument(line).as_deref(), expected, "{line}");
        };
        check("console=ttyS0 root=/dev/sda2 rw\n", Some("/dev/sda2"));
        check("root=/dev/sda2 root=PARTUUID=1-02", Some("PARTUUID=1-02"));
        check("root=\"LABEL=my root\" quiet", Some("LABEL=my root"));
        check("\"root=LABEL=my root\" quiet", Some("LABEL=my root"));
        check("root=LABEL=\"my root\" x=\"a b\"", Some("LABEL=my root"));
        check("x=\"a root=/dev/sda1 b\" root=/dev/sda2", Some("/dev/sda2"));
        check("root=/dev/sda2 -- root=/dev/sda9", Some("/dev/sda2"));
        check("noroot=1 rootwait root=", None);
        check("", None);
    }

    /// A device with udev's names, made of plain files, and what the kernel tells of a disk 179:0 with partitions 1 to 3.
    fn places(directory: &Path) -> Places {
        let places = Places::below(directory);
        for (by, name, node) in [
            ("by-partuuid", "1a2b3c4d-02", "mmcblk0p2"),
            ("by-partuuid", "0fc63daf-8483-4772-8e79-3d69d8477de4", "mmcblk0p3"),
            ("by-partlabel", "root\\x20b", "mmcblk0p3"),
            ("by-uuid", "ABCD-1234", "mmcblk0p1"),
            ("by-label", "rootfs", "mmcblk0p2"),
        ] {
            let names = places.dev.join("disk").join(by);
            fs::create_dir_all(&names).unwrap();
            fs::write(places.dev.join(node), node).unwrap();
            std::os::unix::fs::symlink(format!("../../{node}"), names.join(name)).unwrap();
        }
        let disk = places.sys.join("devices/mmcblk0");
        for links in ["class/block", "dev/block"] {
            fs::create_dir_all(places.sys.join(links)).unwrap();
        }
        for number in 1..=3 {
            let partition = disk.join(format!("mmcblk0p{number}"));
            fs::create_dir_all(&partition).unwrap();
            fs::write(partition.join("partition"), format!("{number}\n")).unwrap();
            fs::write(partition.join("dev"), format!("179:{number}\n")).unwrap();
            let event = format!("PARTN={number}\nPARTNAME=part {number}\nPARTUUID=deadbeef-0{number}\n");
            fs::write(partition.join("uevent"), event).unwrap();
            for link in [format!("class/block/mmcblk0p{number}"), format!("dev/block/179:{number}")] {
                std::os::unix::fs::symlink(&partition, places.sys.join(link)).unwrap();
            }
        }
        places
    }

    #[test]
    fn every_form_of_root_that_boots_leads_to_its_device() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let node = |name: &str| places.identity(&places.dev.join(name)).ok();
        let number = |major, minor| Some(Identity::Block(nix::sys::stat::makedev(major, minor)));
        let check = |argument: &str, expected: Option<Identity>| {
            assert_eq!(device_of(argument, &places), expected, "{argument}");
        };
        check("PARTUUID=1a2b3c4d-02", node("mmcblk0p2"));
        check("PARTUUID=1A2B3C4D-02", node("mmcblk0p2"));
        check("PARTUUID=0FC63DAF-8483-4772-8E79-3d69d8477de4", node("mmcblk0p3"));
        check("PARTLABEL=root b", node("mmcblk0p3"));
        check("PARTLABEL=ROOT B", None);
        check("UUID=abcd-1234", node("mmcblk0p1"));
        check("LABEL=rootfs", node("mmcblk0p2"));
        check("block:LABEL=rootfs", node("mmcblk0p2"));
        check("/dev/disk/by-label/rootfs", node("mmcblk0p2"));
        check("/dev/mmcblk0p2", node("mmcblk0p2"));
        // Without a node, and without udev.
        fs::remove_file(places.dev.join("mmcblk0p2")).unwrap();
        check("/dev/mmcblk0p2", number(179, 2));
        check("PARTUUID=DEADBEEF-03", number(179, 3));
        check("PARTLABEL=part 3", number(179, 3));
        // Relative to another partition.
        check("PARTUUID=deadbeef-01/PARTNROFF=2", number(179, 3));
        check("PARTUUID=deadbeef-03/PARTNROFF=-1", number(179, 2));
        check("PARTUUID=deadbeef-03/PARTNROFF=1", None);
        // Numbers: decimal, with an offset, and as the kernel packs them.
        check("179:2", number(179, 2));
        check("179:2:0", number(179, 2));
        check("b302", number(179, 2));
        check("0xB302", number(179, 2));
        check("0803", number(8, 3));
        // A minor number that does not fit into eight bits: its upper bits are in front.
        check("1238103", number(0x381, 0x1203));
        for nothing in
            ["/dev/root", "/dev/nfs", "x", "", "LABEL=x", "NFS=1", "179:x", "PARTUUID=9/PARTNROFF=x"]
        {
            check(nothing, None);
        }
    }

    #[test]
    fn ubi_volumes_have_short_names_for_the_kernel() {
        let check = |volume, expected| assert_eq!(ubi_name(volume), expected, "{volume}");
        check("ubi0:rootfs", "ubi0:rootfs");
        check("ubi1!rootfs", "ubi1:rootfs");
        check("ubi:rootfs", "ubi0:rootfs");
        check("ubi!rootfs", "ubi0:rootfs");
        check("ubi0_3", "ubi0_3");
        check("ubi3", "ubi0_3");
    }

    #[test]
    fn a_root_on_device_mapper_lies_on_the_slot_under_it() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let number = |major, minor| nix::sys::stat::makedev(major, minor);
        // Verity on an encrypted partition: 252:1 on 252:0 on 179:2.
        for (device, under) in [("252:1", "252:0"), ("252:0", "179:2")] {
            let slave = places.sys.join("dev/block").join(device).join("slaves/x");
            fs::create_dir_all(&slave).unwrap();
            fs::write(slave.join("dev"), format!("{under}\n")).unwrap();
        }
        let mount = |device| {
            parse_line("1 0 0:0 / / rw - ext4 /dev/root rw").map(|mount| Mount { device, ..mount }).unwrap()
        };
        for device in [number(252, 1), number(252, 0), number(179, 2)] {
            assert!(mount(device).lies_on(Identity::Block(number(179, 2)), &places));
            assert!(!mount(device).lies_on(Identity::Block(number(179, 3)), &places));
            assert!(!mount(device).lies_on(Identity::Character(number(179, 2)), &places));
        }
        assert_eq!(partition_in(&places.of_number(number(179, 3))), Some(3));
        assert_eq!(partition_in(&places.of_number(number(252, 1))), None);
    }

    #[test]
    fn a_file_is_mounted_whatever_the_loop_device_calls_it() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("slot"), directory.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let mount = |backing: &Path| Mount {
            backing_file: Some(backing.into()),
            ..parse_line("1 0 0:0 / /mnt rw - ext4 /dev/loop0 rw").unwrap()
        };
        let slot = Identity::at(&file).unwrap();
        assert!(mount(&link).lies_on(slot, &Places::default()));
        assert!(!mount(directory.path()).lies_on(slot, &Places::default()));
    }

    #[test]
    fn the_mounts_of_this_process_include_the_root() {
        assert!(read(&Places::default()).unwrap().iter().any(|mount| mount.point == "/"));
    }
}

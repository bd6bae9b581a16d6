//! What is mounted, from `/proc/self/mountinfo`, and what the kernel was told to mount as root.

use std::fs;
use std::path::{Path, PathBuf};

use client_core::slot::SlotError;

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Device number.
    pub device: u64,
    /// Where it is mounted.
    pub point: String,
    /// What the kernel calls its source.
    pub source: String,
    /// The file behind a loop device.
    pub backing_file: Option<PathBuf>,
}

/// Everything that is mounted in this name space, in the order of mounting.
///
/// # Errors
/// When `/proc` is not there.
pub fn read() -> Result<Vec<Mount>, SlotError> {
    let path = "/proc/self/mountinfo";
    let bytes =
        fs::read(path).map_err(|source| SlotError::Io { doing: "read", path: path.into(), source })?;
    // A mount point in another encoding is none of ours.
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(parse_line).map(with_backing_file).collect())
}

/// One line, as proc(5) describes it: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn parse_line(line: &str) -> Option<Mount> {
    let (fixed, after_dash) = line.split_once(" - ")?;
    let mut fixed = fixed.split(' ').skip(2);
    let (major, minor) = fixed.next()?.split_once(':')?;
    let point = unescape(fixed.nth(1)?);
    let source = unescape(after_dash.split(' ').nth(1)?);
    let device = nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(Mount { device, point, source, backing_file: None })
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

fn with_backing_file(mut mount: Mount) -> Mount {
    if let Some(name) = mount.source.strip_prefix("/dev/loop") {
        let path = Path::new("/sys/block").join(format!("loop{name}")).join("loop/backing_file");
        mount.backing_file = fs::read_to_string(path).ok().map(|text| PathBuf::from(text.trim_end()));
    }
    mount
}

/// The device node that `root=` names, where a name for it exists in `/dev`.
pub fn node_of_root_argument(argument: &str) -> Option<PathBuf> {
    let by = |directory: &str, name: &str| Some(Path::new("/dev/disk").join(directory).join(name));
    let node = match argument.split_once('=') {
        Some(("PARTUUID", id)) => by("by-partuuid", id),
        Some(("PARTLABEL", id)) => by("by-partlabel", id),
        Some(("UUID", id)) => by("by-uuid", id),
        Some(("LABEL", id)) => by("by-label", id),
        Some(_) => None,
        None if argument.starts_with("ubi") => Some(Path::new("/dev").join(argument)),
        None => Some(PathBuf::from(argument)),
    }?;
    fs::canonicalize(node).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_gives_device_place_and_source() {
        let mount =
            parse_line("36 35 98:1 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw").unwrap();
        assert_eq!((mount.point.as_str(), mount.source.as_str()), ("/mnt 2", "/dev/root"));
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
    fn the_mounts_of_this_process_include_the_root() {
        assert!(read().unwrap().iter().any(|mount| mount.point == "/"));
    }
}

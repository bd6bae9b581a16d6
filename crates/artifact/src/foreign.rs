//! What people give in place of an artifact: the image itself, an archive of another kind, a web page that says "not
//! found". Named by how it begins, only where it is no artifact in any case.

use crate::error::{ArtifactError, TarProblem};
use crate::members;

/// How much of the beginning is looked at: up to the mark of an ext4 file system.
pub(super) const LOOK_BYTES: usize = 2048;

/// What to say where the first member of what begins with `start` is refused for `error`: that it is no artifact, if it
/// is none.
pub(super) fn explain(error: ArtifactError, start: &[u8]) -> ArtifactError {
    if let ArtifactError::Source { .. } = error {
        return error;
    }
    match name(start).or_else(|| is_no_archive(&error, start).then_some("no tar archive")) {
        Some(found) => ArtifactError::ForeignFormat { found },
        None => error,
    }
}

/// An artifact that was damaged or cut off in its first block still begins with the name of its first member.
fn is_no_archive(error: &ArtifactError, start: &[u8]) -> bool {
    let no_header = matches!(
        error,
        ArtifactError::Truncated { .. }
            | ArtifactError::Tar { problem: TarProblem::Checksum | TarProblem::Magic, .. }
    );
    no_header && !start.is_empty() && !start.starts_with(members::VERSION.as_bytes())
}

/// What begins with `bytes`, if it is something that is known.
fn name(bytes: &[u8]) -> Option<&'static str> {
    const BEGINNINGS: [(&[u8], &str); 14] = [
        (b"\x1f\x8b", "compressed with gzip"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"BZh", "compressed with bzip2"),
        (b"PK\x03\x04", "a zip archive"),
        (b"hsqs", IMAGE_SQUASHFS),
        (b"UBI#", "a UBI image"),
        (b"\x31\x18\x10\x06", "a UBIFS image"),
        (b"\x3a\xff\x26\xed", "a sparse image of Android"),
        (b"\x7fELF", "a program"),
        (b"\x27\x05\x19\x56", "an image of U-Boot"),
        (b"\xd0\x0d\xfe\xed", "a device tree or a FIT image"),
        (b"-----BEGIN ", "a key or a certificate"),
        (b"!<arch>\n", "a Debian package or a library"),
    ];
    if let Some((_, name)) = BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning)) {
        return Some(name);
    }
    let start = bytes.get(..64).unwrap_or(bytes).trim_ascii_start().to_ascii_lowercase();
    if [&b"<!doctype"[..], b"<html", b"<?xml", b"<head"].iter().any(|tag| start.starts_with(tag)) {
        return Some("a web page: does the address need a login, or has it changed?");
    }
    if start.starts_with(b"{") {
        return Some("JSON: is it an answer of a server about an error?");
    }
    if bytes.get(1080..1082) == Some(b"\x53\xef") {
        return Some(IMAGE_EXT4);
    }
    if bytes.get(510..512) == Some(b"\x55\xaa") {
        return Some("an image of a disk or of a boot partition");
    }
    None
}

const IMAGE_EXT4: &str = "an ext4 file system: see `rust-ota-artifact write rootfs-image`";
const IMAGE_SQUASHFS: &str = "a squashfs file system: see `rust-ota-artifact write rootfs-image`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_by_mistake_is_called_by_its_name() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            let name = name(bytes);
            assert_eq!(name.is_some(), expected.is_some(), "{name:?}");
            assert!(name.unwrap_or_default().contains(expected.unwrap_or_default()), "{name:?}");
        };
        let at = |offset: usize, mark: &[u8]| [vec![0; offset], mark.to_vec()].concat();
        check(b"\n <!DOCTYPE html>\n<html>", Some("web page"));
        check(b"<HTML><HEAD>", Some("web page"));
        check(b"{\"error\":\"not found\"}", Some("JSON"));
        check(b"\x1f\x8b\x08\0", Some("gzip"));
        check(b"PK\x03\x04", Some("zip"));
        check(&at(1080, b"\x53\xef"), Some("ext4"));
        check(&at(510, b"\x55\xaa"), Some("disk"));
        check(b"", None);
        check(&[0; LOOK_BYTES], None);
        check(b"version\0\0", None);
    }

    #[test]
    fn any_bytes_at_all_are_called_no_artifact_and_not_a_damaged_one() {
        let check = |bytes: &[u8], expected: &str| {
            let source = std::io::Cursor::new(bytes.to_vec());
            let opened = crate::open(source, &crate::Trust::DangerUnsigned, &crate::Limits::default());
            assert_eq!(opened.unwrap_err().to_string(), expected);
        };
        let accounts = b"root:x:0:0:root:/root:/bin/bash\n".repeat(30);
        for length in [1, 31, 511, 512, accounts.len()] {
            check(&accounts[..length], "not a Mender artifact: it is no tar archive");
        }
        // One that was cut off or damaged is still an artifact.
        let header = [&b"version"[..], &[0; 400]].concat();
        check(&header, "the artifact: the data ends too early");
        check(&[&header[..], &[1; 700]].concat(), "the artifact: wrong tar header checksum");
        check(b"", "the artifact: the data ends too early");
    }
}

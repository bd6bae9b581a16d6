//! The names that artifacts give to things, each a type of its own with one rule. Whoever holds one need not check it
//! again.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// Characters of an artifact name, the bound of the tool that writes artifacts.
const ARTIFACT_NAME_CHARS: usize = 256;
/// Bytes of a payload type. It is the name of a file on the device.
const PAYLOAD_TYPE_BYTES: usize = 128;

/// Text that is no name of the kind that was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName {
    /// What it would have been the name of.
    pub kind: &'static str,
    /// The rule that it breaks.
    pub problem: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InvalidName { kind, problem } = self;
        write!(f, "the {kind} is {problem}")
    }
}

impl std::error::Error for InvalidName {}

/// A name that can be had only by parsing; apart from that it is used like the text it is.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $problem:literal, $is_valid:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<$name, InvalidName> {
                $name::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<$name, InvalidName> {
                match $is_valid(&text) {
                    true => Ok($name(text)),
                    false => Err(InvalidName { kind: $kind, problem: $problem }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }
    };
}

name!(
    /// What an artifact is called. It is printed, logged, compared and kept in a record.
    ArtifactName,
    "artifact name",
    "empty, too long or with control characters",
    is_artifact_name
);
name!(
    /// Which handler installs a payload. It names a program in a directory, so it is one plain path component.
    PayloadType,
    "payload type",
    "not one plain path component",
    is_payload_type
);
name!(
    /// A kind of device, as the device itself says it.
    DeviceType,
    "device type",
    "empty or has control characters: it fits no device",
    is_device_type
);

impl PayloadType {
    /// The type of a whole root file system.
    pub fn rootfs_image() -> PayloadType {
        PayloadType(crate::write::ROOTFS_IMAGE.to_owned())
    }
}

fn is_artifact_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= ARTIFACT_NAME_CHARS && !name.contains(char::is_control)
}

fn is_payload_type(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= PAYLOAD_TYPE_BYTES
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_device_type(name: &str) -> bool {
    !name.trim().is_empty() && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_types_are_one_plain_path_component() {
        for name in ["rootfs-image", "a", "0x", "single-file_2.0", &"t".repeat(128)] {
            assert_eq!(name.parse::<PayloadType>().unwrap(), name);
        }
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "-rf", "a b", "a\0", "é", &"t".repeat(129)] {
            assert!(name.parse::<PayloadType>().is_err(), "{name}");
        }
    }

    #[test]
    fn artifact_names_fit_on_a_line_of_a_log() {
        for name in ["r", "release 2", &"ü".repeat(256)] {
            assert_eq!(name.parse::<ArtifactName>().unwrap(), name);
        }
        for name in ["", "a\nb", "\u{1b}[2J", &"n".repeat(257)] {
            assert!(name.parse::<ArtifactName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_device_type_is_one_that_a_device_can_have() {
        for name in ["testbox", " quoted ", "für"] {
            assert_eq!(name.parse::<DeviceType>().unwrap(), name);
        }
        for name in ["", " ", "a\nb", "\u{1b}[2J"] {
            let refused = name.parse::<DeviceType>().unwrap_err().to_string();
            assert!(refused.contains("fits no device"), "{refused}");
        }
    }
}

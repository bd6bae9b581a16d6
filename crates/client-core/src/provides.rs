//! What the device provides, whether an artifact's depends are met by it, and what a finished installation makes
//! of it. Pure: nothing here reads or stores anything.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::artifact::{Header, Sha256};

/// The suffix of the artifact name of a device whose software is neither the old nor the new one.
pub(crate) const INCONSISTENT_SUFFIX: &str = "_INCONSISTENT";

/// The name a device reports when nothing was ever installed on it.
pub(crate) const UNKNOWN_ARTIFACT: &str = "unknown";

/// What is installed: the artifact's name and group, and every other provided key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provides {
    /// Name of the installed artifact. `None` before anything was ever recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_name: Option<String>,
    /// Group of the installed artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_group: Option<String>,
    /// Every other key.
    #[serde(default)]
    pub provides: BTreeMap<String, String>,
}

/// Which depend is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DependsError {
    /// The artifact is for other devices.
    DeviceType {
        /// The type of this device.
        device: String,
        /// The types the artifact is for.
        artifact: Vec<String>,
    },
    /// The device does not provide a key at all.
    Missing {
        /// The key.
        key: String,
    },
    /// The device provides another value.
    Mismatch {
        /// The key.
        key: String,
        /// The device's value.
        value: String,
        /// The values the artifact accepts.
        accepted: Vec<String>,
    },
}

impl fmt::Display for DependsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DependsError::DeviceType { device, artifact } => {
                write!(
                    f,
                    "artifact device type doesn't match: it is for {}, this device is {device}",
                    artifact.join(", ")
                )?;
                // Taken as it is, as the Mender client does, and mostly a mistake.
                let meant = device.trim().trim_matches(['"', '\'']).trim();
                match meant == device {
                    true => Ok(()),
                    false => write!(
                        f,
                        " (the file says {device:?}, with white space or quotes that belong to the type: \
                         device_type={meant})"
                    ),
                }
            }
            DependsError::Missing { key } => {
                write!(f, "missing '{key}' in provides, required by artifact depends")
            }
            DependsError::Mismatch { key, value, accepted } => write!(
                f,
                "provides value '{value}' doesn't match any of the '{key}' artifact depends ({})",
                accepted.join(", ")
            ),
        }
    }
}

impl std::error::Error for DependsError {}

impl Provides {
    /// The artifact name, or `unknown`.
    pub fn name(&self) -> &str {
        self.artifact_name.as_deref().unwrap_or(UNKNOWN_ARTIFACT)
    }

    /// Every key with its value, name and group included, sorted.
    pub fn all(&self) -> BTreeMap<&str, &str> {
        let mut all: BTreeMap<&str, &str> =
            self.provides.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        all.insert("artifact_name", self.name());
        if let Some(group) = &self.artifact_group {
            all.insert("artifact_group", group);
        }
        all
    }

    /// Checks that a device of type `device_type` with these provides may install the artifact.
    ///
    /// # Errors
    /// The first depend that is not met.
    pub(crate) fn satisfies(&self, device_type: &str, header: &Header) -> Result<(), DependsError> {
        let depends = &header.depends;
        check_device_type(device_type, &depends.device_type)?;
        let have = self.all();
        let header_lists =
            [("artifact_name", &depends.artifact_name), ("artifact_group", &depends.artifact_group)];
        let needed = header_lists
            .into_iter()
            // An absent list asks for nothing.
            .filter_map(|(key, list)| list.as_ref().map(|list| (key, list)))
            .chain(depends.type_info.iter().map(|(key, list)| (key.as_str(), list)));
        for (key, accepted) in needed {
            let value = have.get(key).ok_or_else(|| DependsError::Missing { key: key.to_owned() })?;
            if !accepted.iter().any(|candidate| candidate == value) {
                return Err(DependsError::Mismatch {
                    key: key.to_owned(),
                    value: (*value).to_owned(),
                    accepted: accepted.clone(),
                });
            }
        }
        Ok(())
    }

    /// What the device provides once an artifact with these fields is committed.
    ///
    /// | new provides | clears | result |
    /// | --- | --- | --- |
    /// | absent | absent | everything dropped (artifacts from before clears existed) |
    /// | present | absent | exactly the new ones |
    /// | either | present | the old ones without those any pattern matches, then the new ones |
    pub(crate) fn after_commit(
        &self,
        name: &str,
        group: Option<&str>,
        new: Option<&BTreeMap<String, String>>,
        clears: Option<&[String]>,
    ) -> Provides {
        // An absent list clears everything.
        let everything = ["*".to_owned()];
        let clears = clears.unwrap_or(&everything);
        let keep = |key: &str| !clears.iter().any(|pattern| matches(pattern, key));
        let mut provides: BTreeMap<String, String> =
            self.provides.iter().filter(|(key, _)| keep(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        provides.extend(new.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        let old_group = self.artifact_group.clone().filter(|_| keep("artifact_group"));
        // Name and group have fields of their own; type-info may not smuggle in others.
        provides.remove("artifact_name");
        provides.remove("artifact_group");
        Provides {
            artifact_name: Some(name.to_owned()),
            artifact_group: group.map(str::to_owned).or(old_group),
            provides,
        }
    }

    /// Takes back every key that says that something here has this digest: it was found to have another one. A server that
    /// goes by the keys offers what depends on none of them next.
    pub(crate) fn forget_digest(&mut self, digest: &Sha256) {
        let digest = digest.to_string();
        self.provides.retain(|_, value| *value != digest);
    }

    /// What the device provides when the installation of `name` failed half-way and could not be rolled back:
    /// the old keys, and a name that says so.
    pub(crate) fn inconsistent(&self, name: &str, group: Option<&str>) -> Provides {
        let suffix = if name.ends_with(INCONSISTENT_SUFFIX) { "" } else { INCONSISTENT_SUFFIX };
        Provides {
            artifact_name: Some(format!("{name}{suffix}")),
            artifact_group: group.map(str::to_owned).or_else(|| self.artifact_group.clone()),
            provides: self.provides.clone(),
        }
    }
}

/// Checks that an artifact for devices of the types `accepted` may be installed on one of type `device_type`.
///
/// # Errors
/// [`DependsError::DeviceType`] when it is for others.
pub(crate) fn check_device_type<T: PartialEq<str> + ToString>(
    device_type: &str,
    accepted: &[T],
) -> Result<(), DependsError> {
    if accepted.iter().any(|accepted| *accepted == *device_type) {
        return Ok(());
    }
    Err(DependsError::DeviceType {
        device: device_type.to_owned(),
        artifact: accepted.iter().map(ToString::to_string).collect(),
    })
}

/// Whether `text` matches `pattern` as a whole; `*` stands for any run of characters, also none, and everything
/// else for itself. Linear in the product of the lengths at worst, without recursion.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text after the last star does not fit: the star takes one more byte.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn installed(pairs: &[(&str, &str)]) -> Provides {
        Provides { artifact_name: Some("old".into()), artifact_group: Some("g".into()), provides: map(pairs) }
    }

    #[test]
    fn patterns_match_whole_keys() {
        let check =
            |pattern, text, expected| assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        check("foo", "foo", true);
        check("foo", "foofoo", false);
        check("foo*", "foofoo", true);
        check("*", "", true);
        check("", "", true);
        check("", "x", false);
        check("*a-suffix-longer-than-the-key", "key", false);
        check("rootfs-image.*", "rootfs-image.version", true);
        check("rootfs-image.*", "rootfs-image", false);
        check("a*b*c", "a--b-b--c", true);
        check("a*b*c", "a--b-b--cd", false);
        check("**", "anything", true);
    }

    #[test]
    fn committing_follows_the_table_of_clears() {
        let check = |new: Option<&[(&str, &str)]>, clears: Option<&[&str]>, expected: &[(&str, &str)]| {
            let clears: Option<Vec<String>> = clears.map(|list| list.iter().map(|s| s.to_string()).collect());
            let new = new.map(map);
            let after = installed(&[("a", "1"), ("b.c", "2")]).after_commit(
                "new",
                None,
                new.as_ref(),
                clears.as_deref(),
            );
            assert_eq!(after.provides, map(expected));
            assert_eq!(after.name(), "new");
        };
        check(None, None, &[]);
        check(Some(&[("n", "3")]), None, &[("n", "3")]);
        check(None, Some(&[]), &[("a", "1"), ("b.c", "2")]);
        check(Some(&[("a", "9")]), Some(&["b.*"]), &[("a", "9")]);
        check(None, Some(&["*"]), &[]);
    }

    #[test]
    fn a_group_stays_unless_it_is_cleared_or_replaced() {
        let check = |group: Option<&str>, clears: &[&str], expected: Option<&str>| {
            let clears: Vec<String> = clears.iter().map(|s| s.to_string()).collect();
            let after = installed(&[]).after_commit("new", group, None, Some(&clears));
            assert_eq!(after.artifact_group.as_deref(), expected);
        };
        check(None, &[], Some("g"));
        check(None, &["artifact_*"], None);
        check(Some("h"), &["artifact_group"], Some("h"));
    }

    #[test]
    fn a_device_type_with_quotes_or_white_space_says_so() {
        let said = |device: &str| {
            DependsError::DeviceType { device: device.into(), artifact: vec!["box".into()] }.to_string()
        };
        for device in ["\"box\"", "'box'", " box", "box ", "box\r", "\tbox", "\" box \" "] {
            let said = said(device);
            assert!(said.contains(&format!("{device:?}")) && said.ends_with("device_type=box)"), "{said}");
        }
        assert_eq!(said("bx"), "artifact device type doesn't match: it is for box, this device is bx");
    }

    #[test]
    fn a_digest_that_something_no_longer_has_is_forgotten_under_every_key() {
        let digest = Sha256::of(b"what was there");
        let text = digest.to_string();
        let mut installed = installed(&[("a.checksum", &text), ("b", &text), ("a.version", "1")]);
        installed.forget_digest(&digest);
        assert_eq!(installed.provides, map(&[("a.version", "1")]));
    }

    #[test]
    fn inconsistent_is_appended_once_and_keeps_the_old_provides() {
        let once = installed(&[("a", "1")]).inconsistent("new", None);
        assert_eq!(once.name(), "new_INCONSISTENT");
        assert_eq!(once.inconsistent(once.name(), None).name(), "new_INCONSISTENT");
        assert_eq!(once.provides, map(&[("a", "1")]));
    }
}

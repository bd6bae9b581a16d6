//! Which directory holds the environment, by the rule of `grub-mender-grubenv-print`.
//!
//! It looks at nothing itself: the caller says what is there.

use client_core::boot::BootEnvError;

/// The file that may name the directory.
pub const CONFIG_FILE: &str = "/etc/mender_grubenv.config";

/// A place to look at when nothing is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The directory with `mender_grubenv1` and `mender_grubenv2`.
    pub directory: &'static str,
    /// The directory whose presence selects it.
    pub present: &'static str,
}

/// The places, first match wins.
pub const CANDIDATES: [Candidate; 4] = [
    Candidate { directory: "/boot/efi/grub-mender-grubenv", present: "/boot/efi/grub-mender-grubenv" },
    Candidate { directory: "/boot/grub/grub-mender-grubenv", present: "/boot/grub/grub-mender-grubenv" },
    Candidate { directory: "/boot/efi/EFI/BOOT", present: "/boot/efi/EFI/BOOT/mender_grubenv1" },
    Candidate { directory: "/boot/grub", present: "/boot/grub/mender_grubenv1" },
];

/// The directory: what the text of [`CONFIG_FILE`] says, else the first candidate that `is_directory` knows.
///
/// # Errors
/// [`BootEnvError::Config`] with the places that were looked at.
pub fn find(config: Option<&str>, is_directory: impl Fn(&str) -> bool) -> Result<String, BootEnvError> {
    if let Some(directory) = config.and_then(configured) {
        return Ok(directory.to_string());
    }
    match CANDIDATES.iter().find(|candidate| is_directory(candidate.present)) {
        Some(candidate) => Ok(candidate.directory.to_string()),
        None => Err(BootEnvError::Config {
            place: CONFIG_FILE.to_string(),
            reason: format!(
                "names no ENV_DIR, and none of {} is a directory",
                CANDIDATES.map(|candidate| candidate.present).join(", ")
            ),
        }),
    }
}

/// The value of the last `ENV_DIR=` line, as the tool's `egrep '^ENV_DIR *= *'` finds it. Empty is not set.
pub fn configured(text: &str) -> Option<&str> {
    let value_of = |line: &'_ str| -> Option<usize> {
        let rest = line.strip_prefix("ENV_DIR")?.trim_start_matches(' ').strip_prefix('=')?;
        Some(line.len() - rest.trim_start_matches(' ').len())
    };
    text.lines()
        .filter_map(|line| value_of(line).map(|start| &line[start..]))
        .next_back()
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: Option<&str>, there: &[&str], expected: Option<&str>) {
        let found = find(config, |path| there.contains(&path));
        assert_eq!(found.ok().as_deref(), expected, "{config:?} {there:?}");
    }

    #[test]
    fn the_configured_directory_wins() {
        check(Some("ENV_DIR=/x\n"), &["/boot/efi/grub-mender-grubenv"], Some("/x"));
    }

    #[test]
    fn the_last_line_wins_and_blanks_around_the_equals_sign_are_skipped() {
        check(Some("ENV_DIR=/x\n# c\nENV_DIR  =  /y z\n"), &[], Some("/y z"));
    }

    #[test]
    fn an_empty_or_foreign_configuration_is_none() {
        for config in
            ["ENV_DIR=\n", "ENV_DIR=/x\nENV_DIR=\n", " ENV_DIR=/x\n", "XENV_DIR=/x", "ENV_DIRS=/x", ""]
        {
            check(Some(config), &["/boot/grub/mender_grubenv1"], Some("/boot/grub"));
        }
    }

    #[test]
    fn candidates_are_tried_in_order() {
        check(
            None,
            &["/boot/grub/grub-mender-grubenv", "/boot/efi/EFI/BOOT/mender_grubenv1"],
            Some("/boot/grub/grub-mender-grubenv"),
        );
        check(None, &["/boot/efi/EFI/BOOT/mender_grubenv1"], Some("/boot/efi/EFI/BOOT"));
        check(None, &["/boot/efi/EFI/BOOT", "/boot/grub"], None);
    }
}

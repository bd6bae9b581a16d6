//! Refuses what no reader would take, before anything of it is written.

use super::PayloadSource;
use super::spec::{ArtifactSpec, MetaData, ROOTFS_IMAGE};
use crate::compression::Compression;
use crate::error::ArtifactError;
use crate::limits::Limits;
use crate::manifest::check_file_name;
use crate::members;
use crate::state_script::{StateScript, is_script_name};
use std::collections::BTreeSet;

/// The spec, the names of the files, and the scripts.
pub(super) fn check(
    spec: &ArtifactSpec,
    files: &[&dyn PayloadSource],
    limits: &Limits,
) -> Result<(), ArtifactError> {
    let cannot = |problem: &str| Err(ArtifactError::CannotWrite { problem: problem.to_owned() });
    if spec.artifact_name.as_str().contains(char::is_whitespace) {
        return cannot("the artifact name has white space in it");
    }
    if spec.device_types.is_empty() {
        return cannot("no device type");
    }
    if spec.payload_type.is_none() && !files.is_empty() {
        return Err(ArtifactError::EmptyPayloadWith { what: "files" });
    }
    if spec.payload_type.is_none() && spec.meta_data != MetaData::Absent {
        return Err(ArtifactError::EmptyPayloadWith { what: "meta-data" });
    }
    let image = spec.payload_type.as_ref().is_some_and(|payload_type| payload_type.as_str() == ROOTFS_IMAGE);
    if spec.frames && (!image || spec.compression.compression != Compression::Zstd) {
        return cannot("frames are for a rootfs-image that is compressed with zstd");
    }
    if !spec.checksum_provides.is_empty() && files.len() != 1 {
        return cannot("a checksum can be provided for exactly one file");
    }
    check_files(files, limits)?;
    check_scripts(&spec.scripts, limits)
}

fn check_files(files: &[&dyn PayloadSource], limits: &Limits) -> Result<(), ArtifactError> {
    let mut names = BTreeSet::new();
    for file in files {
        check_file_name(file.name(), limits)?;
        if !names.insert(file.name()) {
            return Err(ArtifactError::DuplicateMember { entry: file.name().to_owned() });
        }
    }
    Ok(())
}

fn check_scripts(scripts: &[StateScript], limits: &Limits) -> Result<(), ArtifactError> {
    if scripts.len() > limits.scripts {
        return Err(ArtifactError::too_large(members::HEADER, "state scripts", limits.scripts as u64));
    }
    let total: usize = scripts.iter().map(|script| script.content.len()).sum();
    if total > limits.scripts_total_bytes {
        return Err(ArtifactError::too_large("scripts", "bytes together", limits.scripts_total_bytes as u64));
    }
    let mut names = BTreeSet::new();
    for script in scripts {
        if !is_script_name(&script.name) {
            return Err(ArtifactError::ScriptName { name: script.name.clone() });
        }
        if script.content.len() > limits.script_bytes {
            return Err(ArtifactError::too_large(&script.name, "bytes", limits.script_bytes as u64));
        }
        if !names.insert(&script.name) {
            return Err(ArtifactError::DuplicateMember { entry: script.name.clone() });
        }
    }
    Ok(())
}

//! What an artifact is to say: everything in it but the payload files.

use crate::compression::{Compression, CompressionLevel};
use crate::frames::{FRAMES, FramesInfo, META_DATA_KEY, ROOT, TABLE_BYTES};
use crate::header::Header;
use crate::names::{ArtifactName, DeviceType, PayloadType};
use crate::state_script::StateScript;
use std::collections::BTreeMap;

/// Everything in an artifact but the payload files.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ArtifactSpec {
    /// Name of the artifact.
    pub artifact_name: ArtifactName,
    /// Group the artifact provides.
    pub artifact_group: Option<String>,
    /// Device types it fits. At least one.
    pub device_types: Vec<DeviceType>,
    /// Names of artifacts it can be installed on top of; empty for any.
    pub depends_names: Vec<String>,
    /// Groups it depends on; empty for any.
    pub depends_groups: Vec<String>,
    /// What else it depends on.
    pub depends: BTreeMap<String, String>,
    /// What else it depends on where any of several values will do.
    pub depends_on_any: BTreeMap<String, Vec<String>>,
    /// What it provides.
    pub provides: BTreeMap<String, String>,
    /// Patterns of what is no longer provided; `None` writes no such field, which devices read as `["*"]` or, without
    /// provides, as everything.
    pub clears_provides: Option<Vec<String>>,
    /// Also provide the SHA-256 of the only payload file under these keys.
    pub checksum_provides: Vec<String>,
    /// Who installs the payload; `None` for an artifact without one.
    pub payload_type: Option<PayloadType>,
    /// What is written as `meta-data`.
    pub meta_data: MetaData,
    /// State scripts.
    pub scripts: Vec<StateScript>,
    /// For header and data.
    pub compression: CompressionLevel,
    /// Write the image as independent frames with a table of them, so that devices fetch only what they lack. For one
    /// image in zstd.
    pub frames: bool,
    /// Seconds since 1970 in the archives. Zero makes the artifact reproducible.
    pub mtime: u64,
}

/// The three forms `meta-data` has in artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaData {
    /// No such member.
    Absent,
    /// A member without content, as in every `rootfs-image`.
    Empty,
    /// A JSON object. It is written without white space and with sorted keys.
    Json(String),
}

/// How the software in an artifact is called in `provides`: `<filesystem>.<name>.version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftwareName {
    /// First part, `rootfs-image` by default.
    pub filesystem: String,
    /// Second part; none for a whole root file system.
    pub name: Option<String>,
}

/// The payload type of a whole root file system.
pub const ROOTFS_IMAGE: &str = "rootfs-image";
/// Payload type of one file.
pub const SINGLE_FILE: &str = "single-file";
/// Payload type of a tree.
pub const DIRECTORY: &str = "directory";
/// The keys under which the checksum of a root file system is provided: today's, and the one of old releases.
pub const CHECKSUM_KEYS: [&str; 2] = ["rootfs-image.checksum", "rootfs_image_checksum"];
const DEFAULT_FILESYSTEM: &str = "rootfs-image";
impl ArtifactSpec {
    /// A whole root file system, without the defaults of [`ArtifactSpec::provide_version`] and the like.
    pub fn rootfs_image(artifact_name: ArtifactName, device_types: Vec<DeviceType>) -> ArtifactSpec {
        let mut spec = ArtifactSpec::module_image(artifact_name, device_types, PayloadType::rootfs_image());
        spec.meta_data = MetaData::Empty;
        spec
    }

    /// A payload for an update module.
    pub fn module_image(
        artifact_name: ArtifactName,
        device_types: Vec<DeviceType>,
        payload_type: PayloadType,
    ) -> ArtifactSpec {
        let mut spec = ArtifactSpec::bootstrap(artifact_name, device_types);
        spec.payload_type = Some(payload_type);
        spec
    }

    /// No payload at all: it only says what the device provides.
    pub fn bootstrap(artifact_name: ArtifactName, device_types: Vec<DeviceType>) -> ArtifactSpec {
        ArtifactSpec {
            artifact_name,
            artifact_group: None,
            device_types,
            depends_names: Vec::new(),
            depends_groups: Vec::new(),
            depends: BTreeMap::new(),
            depends_on_any: BTreeMap::new(),
            provides: BTreeMap::new(),
            clears_provides: None,
            checksum_provides: Vec::new(),
            payload_type: None,
            meta_data: MetaData::Absent,
            scripts: Vec::new(),
            compression: CompressionLevel::default_of(Compression::Gzip),
            frames: false,
            mtime: 0,
        }
    }

    /// What made the artifact with this header, to write it again with changes. Its files are not in here; the checksum
    /// of a root file system that it provides is made anew.
    pub fn of(header: &Header) -> ArtifactSpec {
        let mut spec =
            ArtifactSpec::bootstrap(header.artifact_name.clone(), header.depends.device_type.clone());
        spec.artifact_group.clone_from(&header.artifact_group);
        spec.depends_names = header.depends.artifact_name.clone().unwrap_or_default();
        spec.depends_groups = header.depends.artifact_group.clone().unwrap_or_default();
        for (key, values) in &header.depends.type_info {
            match values.as_slice() {
                [one] => spec.depends.insert(key.clone(), one.clone()).map(|_| ()),
                _ => spec.depends_on_any.insert(key.clone(), values.clone()).map(|_| ()),
            };
        }
        spec.provides = header.provides.clone().unwrap_or_default();
        spec.clears_provides.clone_from(&header.clears_provides);
        spec.scripts.clone_from(&header.scripts);
        let compression = header.data_compression.unwrap_or(header.manifest.header_compression);
        spec.compression = CompressionLevel::default_of(compression);
        if let Some(payload) = &header.payload {
            spec.payload_type = Some(payload.payload_type.clone());
            spec.frames = FramesInfo::of(header).is_some();
            spec.meta_data = match &payload.meta_data {
                Some(json) => MetaData::Json(json.clone()),
                None if payload.payload_type == ROOTFS_IMAGE => MetaData::Empty,
                None => MetaData::Absent,
            };
            if payload.payload_type == ROOTFS_IMAGE {
                let keys = CHECKSUM_KEYS.iter().filter(|key| spec.provides.contains_key(**key));
                spec.checksum_provides = keys.map(|key| (*key).to_owned()).collect();
            }
        }
        spec
    }

    /// The meta-data without what an artifact that it was taken from said about its frame table: a payload that is written
    /// anew has another one.
    pub(super) fn without_table(&self) -> MetaData {
        let image =
            self.payload_type.as_ref().is_some_and(|payload_type| payload_type.as_str() == ROOTFS_IMAGE);
        match &self.meta_data {
            MetaData::Json(text) if image => without_table(text),
            MetaData::Json(_) | MetaData::Empty | MetaData::Absent => self.meta_data.clone(),
        }
    }

    /// Provides `<software>.version`, unless a value was given for that key.
    pub fn provide_version(&mut self, software: &SoftwareName, version: &str) {
        self.provides.entry(software.key("version")).or_insert_with(|| version.to_owned());
    }

    /// Adds what an update of `software` usually clears, behind the patterns that are there.
    pub fn clear_software(&mut self, software: &SoftwareName) {
        let clears = self.clears_provides.get_or_insert_default();
        // The root file system also replaces what only older releases recorded.
        if software.name.is_none() && software.filesystem == DEFAULT_FILESYSTEM {
            clears.extend(["artifact_group".to_owned(), "rootfs_image_checksum".to_owned()]);
        }
        clears.push(software.key("*"));
    }
}

impl SoftwareName {
    /// The software a payload type stands for when nothing else is said.
    pub fn of_payload_type(payload_type: &str) -> SoftwareName {
        let name = (payload_type != ROOTFS_IMAGE).then(|| payload_type.to_owned());
        SoftwareName { filesystem: DEFAULT_FILESYSTEM.to_owned(), name }
    }

    /// What it is called in `provides`: the key of one thing about it, such as its `version`.
    pub fn key(&self, last: &str) -> String {
        match &self.name {
            Some(name) => format!("{}.{name}.{last}", self.filesystem),
            None => format!("{}.{last}", self.filesystem),
        }
    }
}

fn without_table(meta_data: &str) -> MetaData {
    let unchanged = || MetaData::Json(meta_data.to_owned());
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(meta_data) else { return unchanged() };
    let Some(object) = value.as_object_mut() else { return unchanged() };
    match object.get_mut(META_DATA_KEY).and_then(serde_json::Value::as_object_mut) {
        Some(ours) if ours.contains_key(FRAMES) => {
            ours.retain(|key, _| ![FRAMES, ROOT, TABLE_BYTES].contains(&key.as_str()));
            if ours.is_empty() {
                object.remove(META_DATA_KEY);
            }
        }
        Some(_) | None => return unchanged(),
    }
    match object.is_empty() {
        true => MetaData::Empty,
        false => MetaData::Json(value.to_string()),
    }
}

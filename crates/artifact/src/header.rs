//! The header: what the artifact is called, what it needs, what it provides, and its state scripts.
//!
//! It is parsed only from bytes whose checksum was compared with the signed manifest. What it says is turned into plain
//! values here; whether they fit the device is not decided here.

use crate::compression::Compression;
use crate::error::ArtifactError;
use crate::json::{self, Keys, Object};
use crate::keys::SignatureStatus;
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::members::{self, HEADER_INFO, META_DATA, TYPE_INFO};
use crate::names::{ArtifactName, DeviceType, PayloadType};
use crate::sha256::Sha256;
use crate::state_script::{StateScript, is_script_name};
use crate::tar::TarReader;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;

/// Everything an artifact says about itself, verified.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Header {
    /// The name of the artifact.
    pub artifact_name: ArtifactName,
    /// The group the artifact provides.
    pub artifact_group: Option<String>,
    /// What the device has to be and have.
    pub depends: Depends,
    /// What the device provides afterwards, from `type-info`; absent and empty differ (see the rules for merging).
    pub provides: Option<BTreeMap<String, String>>,
    /// Patterns of what the device no longer provides; absent and empty differ.
    pub clears_provides: Option<Vec<String>>,
    /// The payload, or `None` for an artifact that changes nothing but what the device provides.
    pub payload: Option<PayloadInfo>,
    /// State scripts in the order of their names.
    pub scripts: Vec<StateScript>,
    /// The document `header-info`, exactly as it is in the artifact.
    pub header_info: String,
    /// The document `type-info`, likewise.
    pub type_info: String,
    /// Who signed it.
    pub signature: SignatureStatus,
    /// The manifest.
    pub manifest: Manifest,
    /// Its digest: two artifacts with the same one have the same content, however they are signed and packed.
    pub manifest_sha256: Sha256,
    /// How the data member is compressed; `None` when there is no data member.
    pub data_compression: Option<Compression>,
    /// The version of the format.
    pub format_version: u64,
}

/// The payload's handler and the data for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadInfo {
    /// Which handler installs it.
    pub payload_type: PayloadType,
    /// A JSON object as text, exactly as it is in the artifact. Validated, not interpreted.
    pub meta_data: Option<String>,
}

/// What an artifact depends on. For each entry the device's value has to be one of those listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Depends {
    /// Device types. Never empty; names that no device can have are left out.
    pub device_type: Vec<DeviceType>,
    /// Names of the artifact that is installed now.
    pub artifact_name: Option<Vec<String>>,
    /// Groups of the artifact that is installed now.
    pub artifact_group: Option<Vec<String>>,
    /// Other things provided on the device, from `type-info`.
    pub type_info: BTreeMap<String, Vec<String>>,
}

/// What the members of the header archive say.
pub(crate) struct HeaderContent {
    pub(crate) artifact_name: ArtifactName,
    pub(crate) artifact_group: Option<String>,
    pub(crate) depends: Depends,
    pub(crate) provides: Option<BTreeMap<String, String>>,
    pub(crate) clears_provides: Option<Vec<String>>,
    pub(crate) payload: Option<PayloadInfo>,
    pub(crate) scripts: Vec<StateScript>,
    pub(crate) header_info: String,
    pub(crate) type_info: String,
}

/// Reads the header archive to its end: `header-info`, scripts, `type-info`, `meta-data`, in this order.
pub(crate) fn parse(archive: impl Read, limits: &Limits) -> Result<HeaderContent, ArtifactError> {
    let mut tar = TarReader::new(archive, members::HEADER, limits);
    let header_info = read_header_info(&mut tar, limits)?;
    let info = HeaderInfo::parse(&header_info, limits)?;
    let scripts = read_scripts(&mut tar, limits)?;
    let type_info_text = tar.read_all("bytes", limits.header_json_bytes)?;
    let type_info = TypeInfo::parse(&type_info_text, limits)?;
    let meta_data = read_meta_data(&mut tar, limits)?;
    let mut content = combine(info, type_info, meta_data, scripts)?;
    content.header_info = text(&header_info);
    content.type_info = text(&type_info_text);
    Ok(content)
}

fn missing(expected: &'static str) -> ArtifactError {
    ArtifactError::MissingMember { expected }
}

fn read_header_info<R: Read>(tar: &mut TarReader<R>, limits: &Limits) -> Result<Vec<u8>, ArtifactError> {
    let first = tar.next_entry()?.ok_or_else(|| missing(HEADER_INFO))?;
    if first.name != HEADER_INFO {
        return Err(ArtifactError::UnexpectedMember { found: first.name, expected: HEADER_INFO });
    }
    tar.read_all("bytes", limits.header_json_bytes)
}

/// The state scripts in the order of their names. The archive is at the content of `type-info` then.
fn read_scripts<R: Read>(
    tar: &mut TarReader<R>,
    limits: &Limits,
) -> Result<BTreeMap<String, Vec<u8>>, ArtifactError> {
    let mut scripts = BTreeMap::new();
    let mut total_bytes = 0;
    loop {
        let entry = tar.next_entry()?.ok_or_else(|| missing(TYPE_INFO))?;
        if entry.name == TYPE_INFO {
            return Ok(scripts);
        }
        let Some(name) = members::script(&entry.name) else {
            return Err(ArtifactError::UnexpectedMember { found: entry.name, expected: TYPE_INFO });
        };
        if !is_script_name(name) {
            return Err(ArtifactError::ScriptName { name: name.to_owned() });
        }
        if scripts.len() >= limits.scripts {
            return Err(ArtifactError::too_large(members::HEADER, "state scripts", limits.scripts as u64));
        }
        let content = tar.read_all("bytes", limits.script_bytes)?;
        total_bytes += content.len();
        if total_bytes > limits.scripts_total_bytes {
            let limit = limits.scripts_total_bytes as u64;
            return Err(ArtifactError::too_large("scripts", "bytes together", limit));
        }
        if scripts.insert(name.to_owned(), content).is_some() {
            return Err(ArtifactError::DuplicateMember { entry: entry.name });
        }
    }
}

/// `meta-data`, where it is there; nothing may follow it.
fn read_meta_data<R: Read>(tar: &mut TarReader<R>, limits: &Limits) -> Result<Option<String>, ArtifactError> {
    let Some(entry) = tar.next_entry()? else { return Ok(None) };
    if entry.name != META_DATA {
        return Err(ArtifactError::UnexpectedMember { found: entry.name, expected: META_DATA });
    }
    let meta_data = parse_meta_data(&tar.read_all("bytes", limits.meta_data_bytes)?, limits)?;
    match tar.next_entry()? {
        None => Ok(meta_data),
        Some(extra) => {
            let expected = "the end of the header";
            Err(ArtifactError::UnexpectedMember { found: extra.name, expected })
        }
    }
}

/// What was parsed as JSON is text.
fn text(json: &[u8]) -> String {
    String::from_utf8_lossy(json).into_owned()
}

/// What the members say together, where they agree.
fn combine(
    info: HeaderInfo,
    type_info: TypeInfo,
    meta_data: Option<String>,
    scripts: BTreeMap<String, Vec<u8>>,
) -> Result<HeaderContent, ArtifactError> {
    check_payload_types(&info, &type_info)?;
    check_depends(&info.depends, &type_info)?;
    let payload = match info.payload_type {
        Some(payload_type) => Some(PayloadInfo { payload_type, meta_data }),
        None if meta_data.is_some() => return Err(ArtifactError::EmptyPayloadWith { what: "meta-data" }),
        None => None,
    };
    Ok(HeaderContent {
        artifact_name: info.artifact_name,
        artifact_group: info.artifact_group,
        depends: Depends { type_info: type_info.depends, ..info.depends },
        provides: type_info.provides,
        clears_provides: type_info.clears_provides,
        payload,
        scripts: scripts.into_iter().map(|(name, content)| StateScript { name, content }).collect(),
        header_info: String::new(),
        type_info: String::new(),
    })
}

/// Both documents name the same type.
fn check_payload_types(info: &HeaderInfo, type_info: &TypeInfo) -> Result<(), ArtifactError> {
    // Old releases of mender-artifact wrote an empty type for root file systems.
    let of_type_info = type_info.payload_type.as_deref().filter(|payload_type| !payload_type.is_empty());
    let of_header_info = info.payload_type.as_ref().map(PayloadType::as_str);
    if of_type_info.is_some() && of_type_info != of_header_info
        || type_info.is_null && of_header_info.is_some()
    {
        return Err(ArtifactError::PayloadTypeMismatch {
            header_info: of_header_info.unwrap_or("null").to_owned(),
            type_info: of_type_info.unwrap_or("null").to_owned(),
        });
    }
    Ok(())
}

/// `type-info` says nothing again that `header-info` has said.
fn check_depends(depends: &Depends, type_info: &TypeInfo) -> Result<(), ArtifactError> {
    let is_said = |key: &str| match key {
        "device_type" => true,
        "artifact_name" => depends.artifact_name.is_some(),
        "artifact_group" => depends.artifact_group.is_some(),
        _ => false,
    };
    match type_info.depends.keys().find(|key| is_said(key)) {
        Some(key) => Err(ArtifactError::DuplicateDepends { key: key.clone() }),
        None => Ok(()),
    }
}

struct HeaderInfo {
    payload_type: Option<PayloadType>,
    artifact_name: ArtifactName,
    artifact_group: Option<String>,
    depends: Depends,
}

impl HeaderInfo {
    fn parse(bytes: &[u8], limits: &Limits) -> Result<HeaderInfo, ArtifactError> {
        let info = json::parse_object(HEADER_INFO, bytes, limits.json_depth)?;
        let payloads = info.array("payloads")?;
        let [payload] = payloads else {
            return Err(ArtifactError::PayloadCount { found: payloads.len() });
        };
        let provides =
            info.object("artifact_provides")?.ok_or_else(|| info.wrong("artifact_provides", "missing"))?;
        let artifact_name =
            provides.string("artifact_name")?.ok_or_else(|| info.wrong("artifact_name", "missing"))?;
        let artifact_name = ArtifactName::try_from(artifact_name)
            .map_err(|invalid| info.wrong("artifact_name", invalid.problem))?;
        let depends =
            info.object("artifact_depends")?.ok_or_else(|| info.wrong("artifact_depends", "missing"))?;
        let device_type = depends.strings("device_type")?.unwrap_or_default().into_iter();
        let device_type: Vec<DeviceType> = device_type.filter_map(|name| name.try_into().ok()).collect();
        if device_type.is_empty() {
            return Err(info.wrong("device_type", "missing or empty"));
        }
        Ok(HeaderInfo {
            payload_type: payload_type(&info, payload)?,
            artifact_name,
            artifact_group: provides.string("artifact_group")?,
            depends: Depends {
                device_type,
                artifact_name: depends.strings("artifact_name")?,
                artifact_group: depends.strings("artifact_group")?,
                type_info: BTreeMap::new(),
            },
        })
    }
}

/// `{"type": "<name>"}`, or `{"type": null}` for none.
fn payload_type(info: &Object<'_>, payload: &Value) -> Result<Option<PayloadType>, ArtifactError> {
    let fields = payload.as_object().ok_or_else(|| info.wrong("payloads", "not a list of objects"))?;
    let payload = Object::nested(info, fields);
    let value = payload.find("type").ok_or_else(|| info.wrong("payloads.type", "missing"))?;
    if value.is_null() {
        return Ok(None);
    }
    let found = value.as_str().ok_or_else(|| info.wrong("payloads.type", "not a string"))?;
    let refused = |_| ArtifactError::PayloadType { found: found.to_owned() };
    found.parse().map(Some).map_err(refused)
}

struct TypeInfo {
    payload_type: Option<String>,
    is_null: bool,
    depends: BTreeMap<String, Vec<String>>,
    provides: Option<BTreeMap<String, String>>,
    clears_provides: Option<Vec<String>>,
}

impl TypeInfo {
    fn parse(bytes: &[u8], limits: &Limits) -> Result<TypeInfo, ArtifactError> {
        let info = json::parse_object("type-info", bytes, limits.json_depth)?;
        let is_null = info.find("type").ok_or_else(|| info.wrong("type", "missing"))?.is_null();
        let provides = info.object("artifact_provides")?.map(|provides| {
            provides
                .iter()
                .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect::<Option<BTreeMap<_, _>>>()
                .ok_or_else(|| info.wrong("artifact_provides", "a value is not a string"))
        });
        // One string, or a list of which any will do.
        let allowed = |value: &Value| match value.as_str() {
            Some(one) => Some(vec![one.to_owned()]),
            None => json::strings_of(value),
        };
        let depends = info.object("artifact_depends")?.map(|depends| {
            depends
                .iter()
                .map(|(key, value)| Some((key.clone(), allowed(value)?)))
                .collect::<Option<BTreeMap<_, _>>>()
                .ok_or_else(|| {
                    info.wrong("artifact_depends", "a value is neither a string nor a list of them")
                })
        });
        Ok(TypeInfo {
            payload_type: info.string("type")?,
            is_null,
            depends: depends.transpose()?.unwrap_or_default(),
            provides: provides.transpose()?,
            clears_provides: info.strings("clears_artifact_provides")?,
        })
    }
}

/// An object, or nothing for an empty file.
fn parse_meta_data(bytes: &[u8], limits: &Limits) -> Result<Option<String>, ArtifactError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = json::validate("meta-data", bytes, limits.json_depth, Keys::Exact)?;
    match text.trim_ascii_start().starts_with('{') {
        true => Ok(Some(text.to_owned())),
        false => {
            let problem = "not an object".to_owned();
            Err(ArtifactError::Json { entry: "meta-data".to_owned(), problem })
        }
    }
}

/// `version`: which format and which version of it.
pub(crate) fn parse_version(bytes: &[u8], limits: &Limits) -> Result<u64, ArtifactError> {
    let version = json::parse_object(members::VERSION, bytes, limits.json_depth)?;
    let format = version.string("format")?.unwrap_or_default();
    if format != "mender" {
        return Err(ArtifactError::NotAnArtifact { found: format });
    }
    let number = version.find("version").cloned().unwrap_or(Value::Null);
    match number.as_u64() {
        Some(3) => Ok(3),
        _ => Err(ArtifactError::UnsupportedVersion { found: number.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_three_of_the_format_is_read() {
        let check = |text: &str| parse_version(text.as_bytes(), &Limits::default());
        assert_eq!(check("{\"format\":\"mender\",\"version\":3}").unwrap(), 3);
        assert_eq!(check(" {\n \"Version\" : 3, \"FORMAT\":\"mender\", \"more\": [] }\n").unwrap(), 3);
        for version in ["1", "2", "4", "3.5", "\"3\"", "-3", "null"] {
            let refused = check(&format!("{{\"format\":\"mender\",\"version\":{version}}}"));
            assert!(matches!(refused, Err(ArtifactError::UnsupportedVersion { .. })), "{version}");
        }
        assert!(check("{\"format\":\"mender\",\"version\":2}").unwrap_err().to_string().contains("only 3"));
        assert!(matches!(
            check("{\"format\":\"x\",\"version\":3}"),
            Err(ArtifactError::NotAnArtifact { .. })
        ));
        assert!(matches!(check("{\"version\":3}"), Err(ArtifactError::NotAnArtifact { .. })));
        assert!(matches!(check("[]"), Err(ArtifactError::Json { .. })));
    }
}

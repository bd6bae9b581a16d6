//! The JSON documents of an artifact, byte for byte as the reference tool writes them.

use super::spec::{ArtifactSpec, MetaData};
use crate::error::ArtifactError;
use crate::json::{self, Keys};
use crate::limits::Limits;
use crate::manifest::ManifestFile;
use std::collections::BTreeMap;

/// The documents of the header archive, checked as a reader checks them.
pub(super) struct Documents {
    pub(super) header_info: String,
    pub(super) type_info: String,
    /// `None` for no such member.
    pub(super) meta_data: Option<String>,
}

impl Documents {
    pub(super) fn of(
        spec: &ArtifactSpec,
        files: &[ManifestFile],
        limits: &Limits,
    ) -> Result<Documents, ArtifactError> {
        let header_info = header_info(spec);
        let type_info = type_info(spec, files);
        fits("header-info", &header_info, limits.header_json_bytes)?;
        fits("type-info", &type_info, limits.header_json_bytes)?;
        // The reader's rules, for instance that no key is there twice but for its letter case.
        json::validate("header-info", header_info.as_bytes(), limits.json_depth, Keys::FoldCase)?;
        json::validate("type-info", type_info.as_bytes(), limits.json_depth, Keys::FoldCase)?;
        let meta_data = match &spec.meta_data {
            MetaData::Absent => None,
            MetaData::Empty => Some(String::new()),
            MetaData::Json(text) => {
                let minified = minify(text, limits)?;
                fits("meta-data", &minified, limits.meta_data_bytes)?;
                Some(minified)
            }
        };
        Ok(Documents { header_info, type_info, meta_data })
    }
}

fn fits(name: &str, document: &str, limit: usize) -> Result<(), ArtifactError> {
    match document.len() > limit {
        true => Err(ArtifactError::too_large(name, "bytes", limit as u64)),
        false => Ok(()),
    }
}

/// `header-info`: the name, the group, and what the artifact needs.
pub(super) fn header_info(spec: &ArtifactSpec) -> String {
    let payload =
        spec.payload_type.as_ref().map_or_else(|| "null".to_owned(), |name| json_string(name.as_str()));
    let mut provides = vec![format!("\"artifact_name\":{}", json_string(spec.artifact_name.as_str()))];
    provides
        .extend(spec.artifact_group.iter().map(|group| format!("\"artifact_group\":{}", json_string(group))));
    let mut depends = Vec::new();
    let mut list = |key: &str, values: &[&str]| {
        if !values.is_empty() {
            depends.push(format!("\"{key}\":{}", json_strings(values)));
        }
    };
    list("artifact_name", &texts(&spec.depends_names));
    list("device_type", &texts(&spec.device_types));
    list("artifact_group", &texts(&spec.depends_groups));
    format!(
        "{{\"payloads\":[{{\"type\":{payload}}}],\"artifact_provides\":{{{}}},\"artifact_depends\":{{{}}}}}",
        provides.join(","),
        depends.join(",")
    )
}

/// Empty maps are left out, as an absent one means something else to devices; an empty list of patterns is not.
pub(super) fn type_info(spec: &ArtifactSpec, files: &[ManifestFile]) -> String {
    let mut provides = spec.provides.clone();
    for (key, file) in spec.checksum_provides.iter().zip(files.iter().cycle()) {
        provides.insert(key.clone(), file.sha256.to_string());
    }
    let payload =
        spec.payload_type.as_ref().map_or_else(|| "null".to_owned(), |name| json_string(name.as_str()));
    let mut fields = vec![format!("\"type\":{payload}")];
    let mut map = |key: &str, map: BTreeMap<&String, String>| {
        if !map.is_empty() {
            let pair = |(key, value): (&&String, &String)| format!("{}:{value}", json_string(key));
            fields.push(format!("\"{key}\":{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(",")));
        }
    };
    let mut depends: BTreeMap<&String, String> =
        spec.depends_on_any.iter().map(|(key, values)| (key, json_strings(&texts(values)))).collect();
    depends.extend(spec.depends.iter().map(|(key, value)| (key, json_string(value))));
    map("artifact_depends", depends);
    map("artifact_provides", provides.iter().map(|(key, value)| (key, json_string(value))).collect());
    if let Some(clears) = &spec.clears_provides {
        fields.push(format!("\"clears_artifact_provides\":{}", json_strings(&texts(clears))));
    }
    format!("{{{}}}", fields.join(","))
}

/// Without white space, and keys in order.
fn minify(text: &str, limits: &Limits) -> Result<String, ArtifactError> {
    json::validate("meta-data", text.as_bytes(), limits.json_depth, Keys::Exact)?;
    match serde_json::from_str(text) {
        Ok(object @ serde_json::Value::Object(_)) => Ok(escape_like_go(&object.to_string())),
        Ok(_) | Err(_) => {
            let problem = "not an object".to_owned();
            Err(ArtifactError::Json { entry: "meta-data".to_owned(), problem })
        }
    }
}

fn texts(names: &[impl AsRef<str>]) -> Vec<&str> {
    names.iter().map(AsRef::as_ref).collect()
}

fn json_strings(values: &[&str]) -> String {
    let values: Vec<String> = values.iter().map(|value| json_string(value)).collect();
    format!("[{}]", values.join(","))
}

fn json_string(text: &str) -> String {
    escape_like_go(&serde_json::Value::from(text).to_string())
}

/// The reference tool's JSON writer escapes what could end a script in a web page. These characters occur in JSON
/// only inside strings, so they can be replaced anywhere.
fn escape_like_go(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

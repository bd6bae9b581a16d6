//! Writes artifacts: the same members, names, order and JSON as the reference tool, in one pass over the payload.
//!
//! It opens no files. The payload comes from [`PayloadSource`]s, and the data member goes through a [`Scratch`] of the
//! caller, because its compressed length stands in front of it in the outer archive.

use crate::checked::Checked;
use crate::compression::{Compression, CompressionLevel, Encoder};
use crate::error::ArtifactError;
use crate::header::Header;
use crate::json::{self, Keys};
use crate::keys::Signer;
use crate::limits::Limits;
use crate::manifest::{Manifest, ManifestFile, check_file_name};
use crate::members;
use crate::names::{ArtifactName, DeviceType, PayloadType};
use crate::sha256::Sha256;
use crate::state_script::{StateScript, is_script_name};
use crate::tar::{Entry, TarReader, TarWriter};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom, Write};

/// One file that goes into the payload.
pub trait PayloadSource {
    /// Its plain name.
    fn name(&self) -> &str;
    /// Its length. Delivering any other number of bytes is an error.
    fn size(&self) -> u64;
    /// Starts reading it. Called once for each artifact that is written.
    fn open(&self) -> io::Result<Box<dyn Read + '_>>;
    /// Permission bits for the archive; devices do not use them.
    fn mode(&self) -> u32 {
        0o644
    }
    /// Seconds since 1970 for the archive; devices do not use them. Zero makes the artifact reproducible.
    fn mtime(&self) -> u64 {
        0
    }
}

/// Where the compressed payload waits until its length is known, such as a temporary file. Empty, and positioned at
/// its start.
pub trait Scratch: Read + Write + Seek {}

impl<T: Read + Write + Seek> Scratch for T {}

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
/// What the reference tool writes, byte for byte.
const VERSION: &[u8] = br#"{"format":"mender","version":3}"#;
const FILE_MODE: u32 = 0o600;
const SCRIPT_MODE: u32 = 0o755;
/// Bytes of the payload in memory at once.
const COPY_BYTES: usize = 256 * 1024;

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

    fn key(&self, last: &str) -> String {
        match &self.name {
            Some(name) => format!("{}.{name}.{last}", self.filesystem),
            None => format!("{}.{last}", self.filesystem),
        }
    }
}

/// Writes one artifact to `out`; the payload files are in it in the order given.
///
/// # Errors
/// [`ArtifactError::CannotWrite`] and the reader's own verdicts for what could not be read again,
/// [`ArtifactError::Write`] when reading a file or writing failed.
pub fn write(
    spec: &ArtifactSpec,
    files: &[&dyn PayloadSource],
    signer: Option<&Signer>,
    scratch: &mut dyn Scratch,
    out: &mut dyn Write,
) -> Result<(), ArtifactError> {
    let limits = Limits::default();
    check_spec(spec, files, &limits)?;

    let listed = write_data(spec, files, scratch)?;
    let data_bytes = scratch.seek(SeekFrom::End(0)).map_err(writing("measure the payload"))?;
    scratch.seek(SeekFrom::Start(0)).map_err(writing("rewind the payload"))?;

    let header = write_header(spec, &listed)?;
    if header.len() > limits.header_bytes {
        return Err(ArtifactError::too_large(members::HEADER, "bytes", limits.header_bytes as u64));
    }
    let manifest = Manifest {
        version_sha256: Sha256::of(VERSION),
        header_sha256: Sha256::of(&header),
        header_compression: spec.compression.compression,
        files: listed,
    };
    let text = manifest.to_text();
    // Whatever is wrong with names or numbers is found here and not by a device.
    Manifest::parse(text.as_bytes(), &limits)?;

    let mut tar = TarWriter::new(out);
    tar.append(members::VERSION, VERSION, FILE_MODE, 0).map_err(writing("write version"))?;
    tar.append(members::MANIFEST, text.as_bytes(), FILE_MODE, 0).map_err(writing("write manifest"))?;
    if let Some(signer) = signer {
        append_signature(&mut tar, text.as_bytes(), signer)?;
    }
    tar.append(&manifest.header_name(), &header, FILE_MODE, spec.mtime).map_err(writing("write header"))?;
    let name = format!("{}{}", members::DATA, spec.compression.compression.suffix());
    let data = Entry { name, size: data_bytes, mode: FILE_MODE, mtime: spec.mtime };
    tar.begin(&data).map_err(writing("write payload"))?;
    io::copy(scratch, &mut tar).map_err(writing("write payload"))?;
    tar.finish().and_then(Write::flush).map_err(writing("write the end"))
}

/// Copies an artifact and puts a new signature in the place of any it had. It reads the outer archive only: whether the
/// artifact is good has to be known before.
pub fn sign<R: Read>(
    source: R,
    signer: &Signer,
    limits: &Limits,
    out: &mut dyn Write,
) -> Result<(), ArtifactError> {
    let mut reader = TarReader::new(source, "the artifact", limits);
    let mut tar = TarWriter::new(out);
    while let Some(entry) = reader.next_entry()? {
        match entry.name.as_str() {
            members::MANIFEST => {
                let manifest = reader.read_all("bytes", limits.manifest_bytes)?;
                tar.append(members::MANIFEST, &manifest, entry.mode, entry.mtime)
                    .map_err(writing("write manifest"))?;
                append_signature(&mut tar, &manifest, signer)?;
            }
            members::SIGNATURE => {
                reader.read_all("bytes", limits.signature_bytes)?;
            }
            _ => {
                tar.begin(&entry).map_err(writing("copy a member"))?;
                let mut buffer = vec![0; COPY_BYTES];
                loop {
                    let count = reader.read_data(&mut buffer)?;
                    if count == 0 {
                        break;
                    }
                    tar.write_all(buffer.get(..count).unwrap_or_default())
                        .map_err(writing("copy a member"))?;
                }
            }
        }
    }
    tar.finish().and_then(Write::flush).map_err(writing("write the end"))
}

fn append_signature<W: Write>(
    tar: &mut TarWriter<W>,
    manifest: &[u8],
    signer: &Signer,
) -> Result<(), ArtifactError> {
    let signature = signer
        .sign_manifest(manifest)
        .map_err(|error| ArtifactError::CannotWrite { problem: error.to_string() })?;
    tar.append(members::SIGNATURE, signature.as_bytes(), FILE_MODE, 0).map_err(writing("write manifest.sig"))
}

/// What no reader would take.
fn check_spec(
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
    match &spec.payload_type {
        Some(_) => {}
        None if !files.is_empty() => return Err(ArtifactError::EmptyPayloadWith { what: "files" }),
        None if spec.meta_data != MetaData::Absent => {
            return Err(ArtifactError::EmptyPayloadWith { what: "meta-data" });
        }
        None => {}
    }
    if !spec.checksum_provides.is_empty() && files.len() != 1 {
        return cannot("a checksum can be provided for exactly one file");
    }
    let mut names = BTreeSet::new();
    for file in files {
        check_file_name(file.name(), limits)?;
        if !names.insert(file.name()) {
            return Err(ArtifactError::DuplicateMember { entry: file.name().to_owned() });
        }
    }
    if spec.scripts.len() > limits.scripts {
        return Err(ArtifactError::too_large(members::HEADER, "state scripts", limits.scripts as u64));
    }
    let total: usize = spec.scripts.iter().map(|script| script.content.len()).sum();
    if total > limits.scripts_total_bytes {
        return Err(ArtifactError::too_large("scripts", "bytes together", limits.scripts_total_bytes as u64));
    }
    let mut names = BTreeSet::new();
    for script in &spec.scripts {
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

/// The data member; each byte of the payload is read, hashed and compressed once.
fn write_data(
    spec: &ArtifactSpec,
    files: &[&dyn PayloadSource],
    scratch: &mut dyn Scratch,
) -> Result<Vec<ManifestFile>, ArtifactError> {
    let encoder = Encoder::new(scratch, spec.compression).map_err(writing("compress the payload"))?;
    let mut tar = TarWriter::new(encoder);
    let mut listed = Vec::new();
    let mut buffer = vec![0; COPY_BYTES];
    for file in files {
        let doing = || format!("read {}", file.name());
        let wrong = |source| ArtifactError::Write { doing: doing(), source };
        let (name, size) = (file.name().to_owned(), file.size());
        let entry = Entry { name: name.clone(), size, mode: file.mode(), mtime: file.mtime() };
        tar.begin(&entry).map_err(writing("write the payload"))?;
        let mut hash = Checked::new(name.clone(), Sha256::from([0; 32]));
        let mut reader = file.open().map_err(wrong)?;
        let mut left = size;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(wrong(error)),
            };
            let changed = || wrong(io::Error::other("its length has changed while it was read"));
            let Some(rest) = left.checked_sub(count as u64) else { return Err(changed()) };
            left = rest;
            if count == 0 && left > 0 {
                return Err(changed());
            }
            if count == 0 {
                break;
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            hash.update(bytes);
            tar.write_all(bytes).map_err(writing("write the payload"))?;
        }
        listed.push(ManifestFile { name, sha256: hash.running() });
    }
    let encoder = tar.finish().map_err(writing("write the payload"))?;
    encoder.finish().and_then(|scratch| scratch.flush()).map_err(writing("write the payload"))?;
    Ok(listed)
}

fn write_header(spec: &ArtifactSpec, files: &[ManifestFile]) -> Result<Vec<u8>, ArtifactError> {
    let limits = Limits::default();
    let fit = |name: &str, document: &str, limit: usize| match document.len() > limit {
        true => Err(ArtifactError::too_large(name, "bytes", limit as u64)),
        false => Ok(()),
    };
    let info = header_info(spec);
    let type_info = type_info(spec, files);
    fit("header-info", &info, limits.header_json_bytes)?;
    fit("type-info", &type_info, limits.header_json_bytes)?;
    // The reader's rules, for instance that no key is there twice but for its letter case.
    json::validate("header-info", info.as_bytes(), limits.json_depth, Keys::FoldCase)?;
    json::validate("type-info", type_info.as_bytes(), limits.json_depth, Keys::FoldCase)?;
    let meta_data = match &spec.meta_data {
        MetaData::Absent => None,
        MetaData::Empty => Some(String::new()),
        MetaData::Json(text) => {
            let minified = minify(text, &limits)?;
            fit("meta-data", &minified, limits.meta_data_bytes)?;
            Some(minified)
        }
    };
    let build = || {
        let mut tar = TarWriter::new(Encoder::new(Vec::new(), spec.compression)?);
        tar.append(members::HEADER_INFO, info.as_bytes(), FILE_MODE, 0)?;
        let mut scripts: Vec<&StateScript> = spec.scripts.iter().collect();
        scripts.sort_by(|a, b| a.name.cmp(&b.name));
        for script in scripts {
            tar.append(&members::of_script(&script.name), &script.content, SCRIPT_MODE, spec.mtime)?;
        }
        tar.append(members::TYPE_INFO, type_info.as_bytes(), FILE_MODE, 0)?;
        if let Some(meta_data) = &meta_data {
            tar.append(members::META_DATA, meta_data.as_bytes(), FILE_MODE, 0)?;
        }
        tar.finish()?.finish()
    };
    build().map_err(writing("write the header"))
}

fn header_info(spec: &ArtifactSpec) -> String {
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
fn type_info(spec: &ArtifactSpec, files: &[ManifestFile]) -> String {
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

fn writing(doing: &'static str) -> impl Fn(io::Error) -> ArtifactError {
    move |source| ArtifactError::Write { doing: doing.to_owned(), source }
}

// They go through all compressions.
#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "xz", feature = "zstd"))]
mod tests {
    use super::*;
    use crate::{Trust, open};
    use std::io::Cursor;

    /// A file in memory that may lie about its size.
    struct File {
        name: &'static str,
        content: Vec<u8>,
        size: u64,
    }

    impl PayloadSource for File {
        fn name(&self) -> &str {
            self.name
        }
        fn size(&self) -> u64 {
            self.size
        }
        fn open(&self) -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(self.content.as_slice()))
        }
    }

    fn file(name: &'static str, content: &[u8]) -> File {
        File { name, content: content.to_vec(), size: content.len() as u64 }
    }

    fn build(spec: &ArtifactSpec, files: &[File], signer: Option<&Signer>) -> Result<Vec<u8>, ArtifactError> {
        let files: Vec<&dyn PayloadSource> = files.iter().map(|file| file as &dyn PayloadSource).collect();
        let mut out = Vec::new();
        write(spec, &files, signer, &mut Cursor::new(Vec::new()), &mut out)?;
        Ok(out)
    }

    fn refused(spec: &ArtifactSpec, files: &[File], because: &str) {
        let error = build(spec, files, None).unwrap_err().to_string();
        assert!(error.contains(because), "{error}, not {because}");
    }

    fn named<N: std::str::FromStr<Err = crate::InvalidName>>(text: &str) -> N {
        text.parse().unwrap()
    }

    fn module() -> ArtifactSpec {
        ArtifactSpec::module_image(named("rel-1"), vec![named("dev")], named("mod"))
    }

    #[test]
    fn what_is_written_is_read_as_the_same_in_every_compression() {
        for compression in Compression::ALL {
            let mut spec = module();
            spec.artifact_group = Some("g".to_owned());
            spec.depends_names = vec!["rel-0".to_owned()];
            spec.depends.insert("k".to_owned(), "<v>".to_owned());
            spec.provide_version(&SoftwareName::of_payload_type("mod"), "7");
            spec.clear_software(&SoftwareName::of_payload_type("mod"));
            spec.meta_data = MetaData::Json("{ \"b\": 1, \"a\": [] }".to_owned());
            spec.scripts = ["ArtifactInstall_Leave_00", "ArtifactInstall_Enter_00"]
                .map(|name| StateScript { name: name.to_owned(), content: name.into() })
                .to_vec();
            spec.compression = CompressionLevel::default_of(compression);
            let files = [file("two", b"second"), file("one", &[7; 600_000]), file("empty", b"")];
            let bytes = build(&spec, &files, None).unwrap();
            assert_eq!(build(&spec, &files, None).unwrap(), bytes, "the same input makes the same bytes");

            let mut artifact = open(Cursor::new(bytes), &Trust::DangerUnsigned, &Limits::default()).unwrap();
            let header = &artifact.header;
            let scripts: Vec<&str> = header.scripts.iter().map(|script| &script.name[..]).collect();
            assert_eq!(scripts, ["ArtifactInstall_Enter_00", "ArtifactInstall_Leave_00"]);
            assert_eq!(header.payload.as_ref().unwrap().meta_data.as_deref(), Some("{\"a\":[],\"b\":1}"));
            assert_eq!(header.depends.type_info["k"], ["<v>"]);
            assert_eq!(header.provides.as_ref().unwrap()["rootfs-image.mod.version"], "7");
            assert_eq!(header.clears_provides.as_ref().unwrap(), &["rootfs-image.mod.*"]);
            for expected in files {
                let mut got = artifact.payload.next_file().unwrap().unwrap();
                assert_eq!(got.name(), expected.name);
                let mut content = Vec::new();
                got.read_to_end(&mut content).unwrap();
                assert!(content == expected.content);
            }
            assert!(artifact.payload.next_file().unwrap().is_none());
        }
    }

    #[test]
    fn the_documents_are_those_of_the_reference_tool() {
        let mut spec = ArtifactSpec::rootfs_image(named("rel-1"), vec![named("a"), named("b\"&")]);
        spec.artifact_group = Some("grp".to_owned());
        spec.depends_names = vec!["old".to_owned()];
        spec.depends_groups = vec!["dg".to_owned()];
        assert_eq!(
            header_info(&spec),
            r#"{"payloads":[{"type":"rootfs-image"}],"artifact_provides":{"artifact_name":"rel-1","artifact_group":"grp"},"artifact_depends":{"artifact_name":["old"],"device_type":["a","b\"\u0026"],"artifact_group":["dg"]}}"#
        );
        assert_eq!(type_info(&spec, &[]), r#"{"type":"rootfs-image"}"#);
        let software = SoftwareName::of_payload_type(ROOTFS_IMAGE);
        spec.clears_provides = Some(vec!["foo*".to_owned()]);
        spec.clear_software(&software);
        spec.provide_version(&software, "rel-1");
        spec.depends.insert("k".to_owned(), "v".to_owned());
        assert_eq!(
            type_info(&spec, &[]),
            r#"{"type":"rootfs-image","artifact_depends":{"k":"v"},"artifact_provides":{"rootfs-image.version":"rel-1"},"clears_artifact_provides":["foo*","artifact_group","rootfs_image_checksum","rootfs-image.*"]}"#
        );
        let bootstrap = ArtifactSpec::bootstrap(named("b"), vec![named("a")]);
        assert_eq!(type_info(&bootstrap, &[]), r#"{"type":null}"#);
        let mut keeps_all = module();
        keeps_all.clears_provides = Some(Vec::new());
        assert_eq!(type_info(&keeps_all, &[]), r#"{"type":"mod","clears_artifact_provides":[]}"#);
    }

    #[test]
    fn what_no_reader_would_take_is_not_written() {
        let spec = |change: fn(&mut ArtifactSpec)| {
            let mut spec = module();
            change(&mut spec);
            spec
        };
        refused(&spec(|s| s.artifact_name = named("a b")), &[], "artifact name");
        refused(&spec(|s| s.device_types.clear()), &[], "no device type");
        refused(&spec(|s| s.payload_type = None), &[file("a", b"")], "cannot have files");
        refused(
            &spec(|s| (s.payload_type, s.meta_data) = (None, MetaData::Empty)),
            &[],
            "cannot have meta-data",
        );
        refused(&spec(|s| s.checksum_provides = vec!["c".to_owned()]), &[], "exactly one file");
        refused(&module(), &[file("a/b", b"")], "plain file name");
        refused(&module(), &[file("a", b""), file("a", b"")], "twice");
        refused(&spec(|s| s.meta_data = MetaData::Json("[]".to_owned())), &[], "not an object");
        refused(&spec(|s| s.meta_data = MetaData::Json("{\"a\":1,\"a\":2}".to_owned())), &[], "twice");
        let same = |s: &mut ArtifactSpec| {
            s.provides = [("a", "1"), ("A", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        };
        refused(&spec(same), &[], "twice");
        refused(
            &spec(|s| s.scripts = vec![StateScript { name: "x".to_owned(), content: Vec::new() }]),
            &[],
            "state script",
        );
    }

    #[test]
    fn a_file_that_changes_its_length_is_not_written() {
        for size in [0, 3, 5, 1 << 40] {
            refused(&module(), &[File { name: "a", content: b"four".to_vec(), size }], "length has changed");
        }
    }

    #[test]
    fn what_a_header_says_makes_the_same_header_again() {
        let mut everything = module();
        everything.artifact_group = Some("group".to_owned());
        everything.depends_names = vec!["a".to_owned(), "b".to_owned()];
        everything.depends_groups = vec!["g".to_owned()];
        everything.depends = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        everything.depends_on_any = BTreeMap::from([("l".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
        everything.provides = BTreeMap::from([("p".to_owned(), "q".to_owned())]);
        everything.clears_provides = Some(vec!["x.*".to_owned()]);
        everything.meta_data = MetaData::Json("{\"a\":1}".to_owned());
        let name = "ArtifactInstall_Enter_00".to_owned();
        everything.scripts = vec![StateScript { name, content: b"#!/bin/sh\n".to_vec() }];
        let mut image = ArtifactSpec::rootfs_image(named("i"), vec![named("d")]);
        image.checksum_provides = CHECKSUM_KEYS.map(str::to_owned).to_vec();
        let files = [file("one", &[1; 5000])];
        for spec in [everything, image, module()] {
            let bytes = build(&spec, &files, None).unwrap();
            let opened =
                crate::open(Cursor::new(bytes.clone()), &crate::Trust::DangerUnsigned, &Limits::default())
                    .unwrap();
            assert!(build(&ArtifactSpec::of(&opened.header), &files, None).unwrap() == bytes, "{spec:?}");
        }
    }

    #[test]
    fn signing_again_replaces_the_signature_and_nothing_else() {
        let signer =
            |seed: u8| Signer::from_pem(Signer::generate_ed25519(&[seed; 32]).private.as_bytes()).unwrap();
        let files = [file("one", &[1; 5000])];
        let expected = build(&module(), &files, Some(&signer(2))).unwrap();
        for first in [None, Some(&signer(1))] {
            let before = build(&module(), &files, first).unwrap();
            let mut after = Vec::new();
            sign(Cursor::new(before), &signer(2), &Limits::default(), &mut after).unwrap();
            assert!(after == expected);
        }
    }
}

//! Writes artifacts: the same members, names, order and JSON as the reference tool, in one pass over the payload.
//!
//! It opens no files. The payload comes from [`PayloadSource`]s, and the data member goes through a [`Scratch`] of the
//! caller, because its compressed length stands in front of it in the outer archive.

mod check;
mod documents;
#[cfg(feature = "zstd")]
mod frames;
mod spec;

pub use spec::{ArtifactSpec, CHECKSUM_KEYS, DIRECTORY, MetaData, ROOTFS_IMAGE, SINGLE_FILE, SoftwareName};

use crate::checked::Checked;
use crate::compression::Encoder;
use crate::error::ArtifactError;
use crate::keys::Signer;
use crate::limits::Limits;
use crate::manifest::{Manifest, ManifestFile};
use crate::members;
use crate::sha256::Sha256;
use crate::state_script::StateScript;
use crate::tar::{Entry, TarReader, TarWriter};
use documents::Documents;
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

/// What the reference tool writes, byte for byte.
const VERSION: &[u8] = br#"{"format":"mender","version":3}"#;
const FILE_MODE: u32 = 0o600;
const SCRIPT_MODE: u32 = 0o755;
/// Bytes of the payload in memory at once.
const COPY_BYTES: usize = 256 * 1024;

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
    check::check(spec, files, &limits)?;

    let (listed, meta_data) = match spec.frames {
        true => write_frames(spec, files, scratch)?,
        false => (write_data(spec, files, scratch)?, spec.without_table()),
    };
    let spec = &ArtifactSpec { meta_data, ..spec.clone() };
    let data_bytes = scratch.seek(SeekFrom::End(0)).map_err(writing("measure the payload"))?;
    scratch.seek(SeekFrom::Start(0)).map_err(writing("rewind the payload"))?;

    let documents = Documents::of(spec, &listed, &limits)?;
    let header = header_archive(spec, &documents).map_err(writing("write the header"))?;
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
            _ => copy_member(&mut reader, &entry, &mut tar)?,
        }
    }
    tar.finish().and_then(Write::flush).map_err(writing("write the end"))
}

fn copy_member<R: Read, W: Write>(
    reader: &mut TarReader<R>,
    entry: &Entry,
    tar: &mut TarWriter<W>,
) -> Result<(), ArtifactError> {
    tar.begin(entry).map_err(writing("copy a member"))?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match reader.read_data(&mut buffer)? {
            0 => return Ok(()),
            count => {
                tar.write_all(buffer.get(..count).unwrap_or_default()).map_err(writing("copy a member"))?
            }
        }
    }
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
        let (name, size) = (file.name().to_owned(), file.size());
        let entry = Entry { name: name.clone(), size, mode: file.mode(), mtime: file.mtime() };
        tar.begin(&entry).map_err(writing("write the payload"))?;
        listed.push(ManifestFile { name, sha256: copy_file(*file, &mut tar, &mut buffer)? });
    }
    let encoder = tar.finish().map_err(writing("write the payload"))?;
    encoder.finish().and_then(|scratch| scratch.flush()).map_err(writing("write the payload"))?;
    Ok(listed)
}

/// The data member as independent frames with a table of them; and the meta-data with what is signed of the table.
#[cfg(feature = "zstd")]
fn write_frames(
    spec: &ArtifactSpec,
    files: &[&dyn PayloadSource],
    scratch: &mut dyn Scratch,
) -> Result<(Vec<ManifestFile>, MetaData), ArtifactError> {
    let compressing = writing("compress the payload");
    let [file] = files else {
        let problem = "frames are for a payload of exactly one image".to_owned();
        return Err(ArtifactError::CannotWrite { problem });
    };
    let (name, size) = (file.name().to_owned(), file.size());
    let framed = frames::Framed::new(scratch, spec.compression.level, size).map_err(&compressing)?;
    let mut tar = TarWriter::new(framed);
    let entry = Entry { name: name.clone(), size, mode: file.mode(), mtime: file.mtime() };
    tar.begin(&entry).map_err(writing("write the payload"))?;
    tar.out().begin_image().map_err(&compressing)?;
    let sha256 = copy_file(*file, &mut tar, &mut vec![0; COPY_BYTES])?;
    tar.out().end_image().map_err(&compressing)?;
    let framed = tar.finish().map_err(writing("write the payload"))?;
    let (scratch, info) = framed.finish().map_err(&compressing)?;
    scratch.flush().map_err(writing("write the payload"))?;
    Ok((vec![ManifestFile { name, sha256 }], frames::in_meta_data(&spec.meta_data, &info)))
}

#[cfg(not(feature = "zstd"))]
fn write_frames(
    _: &ArtifactSpec,
    _: &[&dyn PayloadSource],
    _: &mut dyn Scratch,
) -> Result<(Vec<ManifestFile>, MetaData), ArtifactError> {
    Err(ArtifactError::CannotWrite { problem: "frames need a build with zstd".to_owned() })
}

/// Copies the content of one file; its checksum.
fn copy_file<W: Write>(
    file: &dyn PayloadSource,
    tar: &mut TarWriter<W>,
    buffer: &mut [u8],
) -> Result<Sha256, ArtifactError> {
    let wrong = |source| ArtifactError::Write { doing: format!("read {}", file.name()), source };
    let changed = || wrong(io::Error::other("its length has changed while it was read"));
    let mut hash = Checked::new(file.name().to_owned(), Sha256::from([0; 32]));
    let mut reader = file.open().map_err(wrong)?;
    let mut left = file.size();
    loop {
        let count = match reader.read(buffer) {
            Ok(0) if left > 0 => return Err(changed()),
            Ok(0) => return Ok(hash.running()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(wrong(error)),
        };
        left = left.checked_sub(count as u64).ok_or_else(changed)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        hash.update(bytes);
        tar.write_all(bytes).map_err(writing("write the payload"))?;
    }
}

/// The header archive, compressed.
fn header_archive(spec: &ArtifactSpec, documents: &Documents) -> io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(Encoder::new(Vec::new(), spec.compression)?);
    tar.append(members::HEADER_INFO, documents.header_info.as_bytes(), FILE_MODE, 0)?;
    let mut scripts: Vec<&StateScript> = spec.scripts.iter().collect();
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    for script in scripts {
        tar.append(&members::of_script(&script.name), &script.content, SCRIPT_MODE, spec.mtime)?;
    }
    tar.append(members::TYPE_INFO, documents.type_info.as_bytes(), FILE_MODE, 0)?;
    if let Some(meta_data) = &documents.meta_data {
        tar.append(members::META_DATA, meta_data.as_bytes(), FILE_MODE, 0)?;
    }
    tar.finish()?.finish()
}

fn writing(doing: &'static str) -> impl Fn(io::Error) -> ArtifactError {
    move |source| ArtifactError::Write { doing: doing.to_owned(), source }
}

// They go through all compressions.
#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "xz", feature = "zstd"))]
mod tests {
    use super::documents::{header_info, type_info};
    use super::*;
    use crate::compression::{Compression, CompressionLevel};
    use crate::state_script::StateScript;
    use crate::{Trust, open};
    use std::collections::BTreeMap;
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

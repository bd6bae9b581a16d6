//! The artifact: as a whole, and from inside, where a fuzzer would otherwise have to guess a digest.

use std::fmt::Debug;
use std::io::{Cursor, Read};
use std::str::FromStr;

use client_core::artifact::frames::{Found, FrameTable};
use client_core::artifact::tree::{Attributes, Member, MemberKind, MemberReader, MemberWriter, TreeRules};
use client_core::artifact::write::{self, ArtifactSpec, PayloadSource};
use client_core::artifact::{self, Artifact, ArtifactError, Limits, Sha256, Trust, VerifyKeys};

/// Names of the header and of the payload, by a byte: each compression once.
const SUFFIXES: [&str; 4] = ["", ".gz", ".xz", ".zst"];
/// What a fuzzer may make us decompress.
const OPEN_BYTES: u64 = 1 << 20;

/// Any bytes as an artifact.
pub(crate) fn artifact(bytes: &[u8]) {
    let nobody = Trust::Keys(VerifyKeys::default());
    assert!(open(bytes, &nobody).is_err(), "accepted without a key");
    read_all(open(bytes, &Trust::DangerUnsigned));
}

/// Any bytes as the header of an artifact in which all else is right. The first byte chooses the compression.
pub(crate) fn header(bytes: &[u8]) {
    let Some((choice, header)) = bytes.split_first() else { return };
    let suffix = SUFFIXES[usize::from(*choice) % SUFFIXES.len()];
    let version: &[u8] = br#"{"format":"mender","version":3}"#;
    let name = format!("header.tar{suffix}");
    let manifest = format!("{}  {name}\n{}  version\n", sha256(header), sha256(version));
    let members: [(&str, &[u8]); 4] = [
        ("version", version),
        ("manifest", manifest.as_bytes()),
        (&name, header),
        // An archive without a member.
        ("data/0000.tar", &[0; 1024]),
    ];
    read_all(open(&archive(&members), &Trust::DangerUnsigned));
}

/// Any bytes as the payload of an artifact whose header is right. The first byte chooses the compression.
pub(crate) fn payload(bytes: &[u8]) {
    let Some((choice, data)) = bytes.split_first() else { return };
    let suffix = SUFFIXES[usize::from(*choice) % SUFFIXES.len()];
    let whole = sound();
    let mut members = Vec::new();
    let mut reader = MemberReader::new(Cursor::new(&whole));
    while let Some(member) = reader.next_member().unwrap() {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        members.push((String::from_utf8(member.path).unwrap(), content));
    }
    let last = members.last_mut().unwrap();
    *last = (format!("data/0000.tar{suffix}"), data.to_vec());
    let members: Vec<(&str, &[u8])> =
        members.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    read_all(open(&archive(&members), &Trust::DangerUnsigned));
}

/// Any bytes as a frame table that was signed, behind the lengths of the image and of the payload: what is understood is exactly
/// the image, in memory that was declared, and all of it is asked for by a device that has nothing.
pub(crate) fn frame_table(bytes: &[u8]) {
    let Some((lengths, table)) = bytes.split_first_chunk::<16>() else { return };
    let [image_bytes, member_bytes] =
        [0, 8].map(|at| u64::from_le_bytes(lengths[at..at + 8].try_into().unwrap()));
    let root = Sha256::of(table);
    let Ok(table) = FrameTable::parse(table.to_vec(), root, image_bytes, member_bytes) else { return };
    assert!(table.memory_bytes() <= bytes.len() * 4);
    assert!(Found::memory_bytes(&table) <= bytes.len() * 2);
    let (mut place, mut at) = (0, 0);
    for frame in table.frames() {
        assert_eq!(table.place(frame).0, place);
        assert!(frame.at >= at && frame.end() <= member_bytes);
        place += table.place(frame).1 as u64;
        at = frame.end();
        assert!(frame.digests().unwrap_or_default().all(|number| table.digest(number).is_some()));
    }
    assert_eq!(place, image_bytes);
    let nothing = Found::nothing(&table);
    let runs = nothing.runs(&table);
    for frame in table.frames().iter().filter(|frame| !nothing.has(frame)) {
        assert!(runs.iter().any(|run| run.start <= frame.at && frame.end() <= run.end));
    }
}

/// Any bytes as the tree of a `directory` payload: what is read and written again has the same members.
pub(crate) fn tree(bytes: &[u8]) {
    let mut rules = TreeRules::default();
    let mut reader = MemberReader::new(Cursor::new(bytes));
    for _ in 0..1000 {
        let Ok(Some(member)) = reader.next_member() else { return };
        if let Ok(place) = rules.place(&member) {
            let path = place.path.unwrap_or_default();
            assert!(path.is_relative() && !path.to_string_lossy().split('/').any(|part| part == ".."));
        }
        let mut content = Vec::new();
        if (&mut reader).take(OPEN_BYTES).read_to_end(&mut content).is_err() {
            return;
        }
    }
}

fn open(bytes: &[u8], trust: &Trust) -> Result<Artifact, ArtifactError> {
    let mut limits = Limits::default();
    // A bomb is to be refused, not to be waited for.
    limits.header_open_bytes = OPEN_BYTES;
    limits.trailing_zero_bytes = 64 << 10;
    artifact::open(Cursor::new(bytes.to_vec()), trust, &limits)
}

/// Reads an artifact to its end, or as far as a fuzzer may take us: what was accepted is what the manifest says.
fn read_all(opened: Result<Artifact, ArtifactError>) {
    let mut payload = match opened {
        Ok(artifact) => artifact.payload,
        Err(error) => return assert!(!error.to_string().is_empty(), "an error without words"),
    };
    let mut left = OPEN_BYTES;
    while let Ok(Some(mut file)) = payload.next_file() {
        let mut content = Vec::new();
        let size = file.size();
        match (&mut file).take(left).read_to_end(&mut content) {
            Ok(read) if read as u64 == left => return,
            Ok(read) => assert_eq!(read as u64, size, "a file of another length"),
            Err(_) => return,
        }
        left -= content.len() as u64;
    }
}

/// A small artifact in which everything is right.
fn sound() -> Vec<u8> {
    let spec = ArtifactSpec::module_image(named("release-1"), vec![named("testbox")], named("files"));
    let mut out = Vec::new();
    let files: [&dyn PayloadSource; 1] = [&File];
    write::write(&spec, &files, None, &mut Cursor::new(Vec::new()), &mut out).unwrap();
    out
}

/// A name that is right, of whatever kind.
fn named<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// The file in it.
struct File;

impl PayloadSource for File {
    fn name(&self) -> &str {
        "one"
    }
    fn size(&self) -> u64 {
        5
    }
    fn open(&self) -> std::io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(&b"hello"[..]))
    }
}

/// An archive as the outer one of an artifact.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = MemberWriter::new(Vec::new());
    for (name, content) in members {
        let attributes = Attributes { mode: 0o644, ..Attributes::default() };
        let kind = MemberKind::File(content.len() as u64);
        writer.begin(&Member { path: name.as_bytes().to_vec(), kind, attributes }).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
